//! What is counted. Labels are words of a fixed set, never names of objects.

use std::{
    sync::atomic::AtomicU64,
    time::{Duration, Instant},
};

use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::Gauge,
        histogram::{Histogram, exponential_buckets},
    },
    registry::Registry,
};
use strum::IntoEnumIterator;

use super::cache::{Cache, Caches};
use crate::{
    api::{agent::AgentState, sandbox::SandboxPhase, session::SessionPhase},
    apply::WriteCounter,
    reading::Kept,
};

/// Everything that `/metrics` shows.
#[derive(Debug)]
pub struct Metrics {
    /// Writes to the API server.
    pub writes: WriteCounter,
    reconciles: Family<Reconcile, Counter<u64, AtomicU64>>,
    durations: Family<Controller, Histogram, fn() -> Histogram>,
    slow_passes: Family<Controller, Counter<u64, AtomicU64>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Kind {
    kind: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Unread {
    kind: &'static str,
    why: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reconcile {
    controller: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Object {
    kind: &'static str,
    phase: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Controller {
    controller: &'static str,
}

/// A reconcile that is running.
pub struct Timer<'a> {
    metrics: &'a Metrics,
    controller: &'static str,
    started: Instant,
}

impl Default for Metrics {
    fn default() -> Self {
        // From a millisecond to half a minute.
        let histogram: fn() -> Histogram = || Histogram::new(exponential_buckets(0.001, 2.0, 16));
        Self {
            writes: WriteCounter::default(),
            reconciles: Family::default(),
            durations: Family::new_with_constructor(histogram),
            slow_passes: Family::default(),
        }
    }
}

impl Metrics {
    /// Counts from here to [`Timer::ended`].
    #[must_use]
    pub fn reconcile_started(&self, controller: &'static str) -> Timer<'_> {
        Timer { metrics: self, controller, started: Instant::now() }
    }

    /// A pass took more of the processor than any is to take.
    pub fn slow_pass(&self, controller: &'static str) {
        self.slow_passes.get_or_create(&Controller { controller }).inc();
    }

    /// The text that a scraper reads; objects are counted as the caches have them.
    #[must_use]
    pub fn text(&self, caches: Option<&Caches>) -> String {
        let mut registry = Registry::with_prefix("aigise");
        registry.register("reconciles", "Reconciles, by how they ended", self.reconciles.clone());
        registry.register("reconcile_seconds", "How long reconciles took", self.durations.clone());
        registry.register("api_writes", "Writes to the API server, by kind and verb", self.writes.0.clone());
        let slow = "Reconciles that took more than 100 ms of the processor";
        registry.register("slow_reconciles", slow, self.slow_passes.clone());
        if let Some(caches) = caches {
            registry.register("objects", "Sessions and Sandboxes by phase, Agents by status", objects(caches));
            let unread = "Objects that cannot be read and are left alone, by kind and why";
            registry.register("unreadable_objects", unread, unreadable(caches));
            let failing = "For how many seconds the watch of a kind has failed; absent while it is well";
            registry.register("watch_failing_seconds", failing, failing_watches(caches));
        }
        let mut text = String::new();
        match text::encode(&mut text, &registry) {
            Ok(()) => text,
            Err(std::fmt::Error) => String::new(), // writing to a String does not fail
        }
    }
}

/// Every phase is there, also with nothing in it, so that an alert on its absence is not needed.
fn objects(caches: &Caches) -> Family<Object, Gauge> {
    let family = Family::<Object, Gauge>::default();
    let add = |kind, phase, count| family.get_or_create(&Object { kind, phase }).inc_by(count);
    SessionPhase::iter().for_each(|phase| _ = add("AigiseSession", phase.into(), 0));
    SandboxPhase::iter().for_each(|phase| _ = add("Sandbox", phase.into(), 0));
    AgentState::iter().for_each(|state| _ = add("Agent", state.into(), 0));
    count_phases(&caches.sessions, |phase| add("AigiseSession", phase.unwrap_or(SessionPhase::Pending.into()), 1));
    count_phases(&caches.sandboxes, |phase| add("Sandbox", phase.unwrap_or(SandboxPhase::Pending.into()), 1));
    count_phases(&caches.agents, |phase| add("Agent", phase.unwrap_or(AgentState::Created.into()), 1));
    family
}

/// The phases of all objects that can be read; nothing where an object does not say one yet.
fn count_phases<K: Kept>(cache: &Cache<K>, count: impl Fn(Option<&'static str>) -> i64) {
    for phase in cache.store().state().iter().filter_map(|stored| stored.phase()) {
        count(Some(phase).filter(|phase| !phase.is_empty()));
    }
}

fn unreadable(caches: &Caches) -> Family<Unread, Gauge> {
    fn count<K: Kept>(family: &Family<Unread, Gauge>, kind: &'static str, cache: &Cache<K>) {
        for stored in cache.store().state() {
            if let Some(unreadable) = stored.unreadable() {
                family.get_or_create(&Unread { kind, why: unreadable.why.category() }).inc();
            }
        }
    }
    let family = Family::default();
    count(&family, "AigiseSession", &caches.sessions);
    count(&family, "Sandbox", &caches.sandboxes);
    count(&family, "Agent", &caches.agents);
    count(&family, "Pod", &caches.pods);
    count(&family, "PersistentVolumeClaim", &caches.claims);
    count(&family, "Service", &caches.services);
    count(&family, "NetworkPolicy", &caches.policies);
    family
}

fn failing_watches(caches: &Caches) -> Family<Kind, Gauge> {
    let family = Family::<Kind, Gauge>::default();
    for (kind, since) in caches.health.failing_for() {
        let seconds = i64::try_from(since.as_secs()).unwrap_or(i64::MAX);
        family.get_or_create(&Kind { kind }).set(seconds);
    }
    family
}

impl Timer<'_> {
    /// The reconcile has ended with this outcome.
    pub fn ended(self, outcome: &'static str) {
        let Self { metrics, controller, started } = self;
        let took: Duration = started.elapsed();
        metrics.durations.get_or_create(&Controller { controller }).observe(took.as_secs_f64());
        metrics.reconciles.get_or_create(&Reconcile { controller, outcome }).inc();
    }
}
