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

use super::cache::Caches;
use crate::{
    api::{agent::AgentState, sandbox::SandboxPhase, session::SessionPhase},
    apply::WriteCounter,
};

/// Everything that `/metrics` shows.
#[derive(Debug)]
pub struct Metrics {
    /// Writes to the API server.
    pub writes: WriteCounter,
    reconciles: Family<Reconcile, Counter<u64, AtomicU64>>,
    durations: Family<Controller, Histogram, fn() -> Histogram>,
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
        }
    }
}

impl Metrics {
    /// Counts from here to [`Timer::ended`].
    #[must_use]
    pub fn reconcile_started(&self, controller: &'static str) -> Timer<'_> {
        Timer { metrics: self, controller, started: Instant::now() }
    }

    /// The text that a scraper reads; objects are counted as the caches have them.
    #[must_use]
    pub fn text(&self, caches: Option<&Caches>) -> String {
        let mut registry = Registry::with_prefix("aigise");
        registry.register("reconciles", "Reconciles, by how they ended", self.reconciles.clone());
        registry.register("reconcile_seconds", "How long reconciles took", self.durations.clone());
        registry.register("api_writes", "Writes to the API server, by kind and verb", self.writes.0.clone());
        if let Some(caches) = caches {
            registry.register("objects", "Sessions and Sandboxes by phase, Agents by status", objects(caches));
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
    for session in caches.sessions.state() {
        let phase = session.status.as_ref().and_then(|status| status.phase);
        add("AigiseSession", phase.unwrap_or(SessionPhase::Pending).into(), 1);
    }
    for sandbox in caches.sandboxes.state() {
        let phase = sandbox.status.as_ref().and_then(|status| status.phase);
        add("Sandbox", phase.unwrap_or(SandboxPhase::Pending).into(), 1);
    }
    for agent in caches.agents.state() {
        let state = agent.status.as_ref().and_then(|status| status.status);
        add("Agent", state.unwrap_or(AgentState::Created).into(), 1);
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
