//! Metrics. The values of labels come from fixed sets and are never names of objects.

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

/// All metrics that `/metrics` serves.
#[derive(Debug)]
pub struct Metrics {
    /// Writes to the API server.
    pub writes: WriteCounter,
    reconciles: Family<Reconcile, Counter<u64, AtomicU64>>,
    durations: Family<Controller, Histogram, fn() -> Histogram>,
    slow_reconciles: Family<Controller, Counter<u64, AtomicU64>>,
    stages: Family<Stage, Counter<u64, AtomicU64>>,
    backoffs: Family<Controller, Histogram, fn() -> Histogram>,
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
struct Stage {
    controller: &'static str,
    stage: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Controller {
    controller: &'static str,
}

/// Measures a running reconcile.
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
            slow_reconciles: Family::default(),
            stages: Family::default(),
            // From the first failure to the longest delay.
            backoffs: Family::new_with_constructor(|| Histogram::new((1..=9).map(f64::from))),
        }
    }
}

impl Metrics {
    /// Starts to measure a reconcile, until [`Timer::ended`].
    #[must_use]
    pub fn reconcile_started(&self, controller: &'static str) -> Timer<'_> {
        Timer { metrics: self, controller, started: Instant::now() }
    }

    /// Counts a reconcile that used too much CPU time.
    pub fn slow_reconcile(&self, controller: &'static str) {
        self.slow_reconciles.get_or_create(&Controller { controller }).inc();
    }

    /// Counts a reconcile that found its object in this stage of its life cycle.
    pub fn entered(&self, controller: &'static str, stage: &'static str) {
        self.stages.get_or_create(&Stage { controller, stage }).inc();
    }

    /// Records that an object of this controller is retried after so many failures in a row.
    pub fn backs_off(&self, controller: &'static str, failures: u32) {
        self.backoffs.get_or_create(&Controller { controller }).observe(failures.into());
    }

    /// The metrics in the format that scrapers read. Objects are counted from the caches.
    #[must_use]
    pub fn text(&self, caches: Option<&Caches>) -> String {
        let mut registry = Registry::with_prefix("aigise");
        registry.register("reconciles", "Reconciles, by outcome", self.reconciles.clone());
        registry.register("reconcile_seconds", "Duration of reconciles in seconds", self.durations.clone());
        registry.register("api_writes", "Writes to the API server, by kind and verb", self.writes.0.clone());
        let slow = "Reconciles that used more than 100 ms of CPU time";
        registry.register("slow_reconciles", slow, self.slow_reconciles.clone());
        let stages = "Reconciles, by the stage of its life cycle in which the object was found";
        registry.register("stage", stages, self.stages.clone());
        let backoffs = "Failures in a row of objects that are retried";
        registry.register("backoff_depth", backoffs, self.backoffs.clone());
        if let Some(caches) = caches {
            registry.register("objects", "Sessions and Sandboxes by phase, Agents by status", objects(caches));
            let unread = "Objects that the operator cannot read and does not touch, by kind and cause";
            registry.register("unreadable_objects", unread, unreadable(caches));
            let failing = "How long the watch of a kind has been failing, in seconds; absent while the watch works";
            registry.register("watch_failing_seconds", failing, failing_watches(caches));
        }
        let mut text = String::new();
        match text::encode(&mut text, &registry) {
            Ok(()) => text,
            Err(std::fmt::Error) => String::new(), // writing to a String does not fail
        }
    }
}

/// Every phase has a sample, even if its value is 0: alerts need not handle absent series.
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

/// Calls `count` with the phase of each readable object; `None` where the object has no phase yet.
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
    /// Records that the reconcile ended with this outcome.
    pub fn ended(self, outcome: &'static str) {
        let Self { metrics, controller, started } = self;
        let took: Duration = started.elapsed();
        metrics.durations.get_or_create(&Controller { controller }).observe(took.as_secs_f64());
        metrics.reconciles.get_or_create(&Reconcile { controller, outcome }).inc();
    }
}
