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

use super::{
    cache::{Cache, Caches},
    kind::{Reconciled, VisitKind, each_kind},
};
use crate::{apply::WriteCounter, reading::Kept};

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
    collected: Family<Collected, Counter<u64, AtomicU64>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Kind {
    kind: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Unread {
    kind: String,
    why: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reconcile {
    controller: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Object {
    kind: String,
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

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Collected {
    reason: &'static str,
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
            collected: Family::default(),
        }
    }
}

impl Metrics {
    /// Starts to measure a reconcile, until [`Timer::ended`].
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

    /// Counts a cache of a session that was deleted because it exceeds this setting.
    pub fn collected(&self, reason: &'static str) {
        self.collected.get_or_create(&Collected { reason }).inc();
    }

    /// The metrics in the format that scrapers read. Objects are counted from the caches.
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
        let collected = "Caches of sessions that were deleted, by the setting that they exceeded";
        registry.register("cache_collected", collected, self.collected.clone());
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
    struct Objects<'a>(&'a Caches, Family<Object, Gauge>);
    impl VisitKind for Objects<'_> {
        fn kind<K: Reconciled>(&mut self) {
            let kind = K::kind(&()).into_owned();
            let phases: Vec<&'static str> = K::Phase::iter().map(Into::into).collect();
            let add = |phase, count| self.1.get_or_create(&Object { kind: kind.clone(), phase }).inc_by(count);
            for phase in &phases {
                add(phase, 0);
            }
            for phase in K::of(self.0).objects.store().state().iter().filter_map(|stored| stored.phase()) {
                // A new object has no phase yet.
                add(Some(phase).filter(|phase| !phase.is_empty()).unwrap_or(phases[0]), 1);
            }
        }
    }
    let mut objects = Objects(caches, Family::default());
    each_kind(&mut objects);
    objects.1
}

fn unreadable(caches: &Caches) -> Family<Unread, Gauge> {
    fn count<K: Kept>(family: &Family<Unread, Gauge>, cache: &Cache<K>) {
        for stored in cache.store().state() {
            if let Some(unreadable) = stored.unreadable() {
                let (kind, why) = (K::kind(&()).into_owned(), unreadable.why.category());
                family.get_or_create(&Unread { kind, why }).inc();
            }
        }
    }
    struct Unreadable<'a>(&'a Caches, Family<Unread, Gauge>);
    impl VisitKind for Unreadable<'_> {
        fn kind<K: Reconciled>(&mut self) {
            count(&self.1, &K::of(self.0).objects);
        }
    }
    let mut unreadable = Unreadable(caches, Family::default());
    each_kind(&mut unreadable);
    let family = unreadable.1;
    count(&family, &caches.pods);
    count(&family, &caches.claims);
    count(&family, &caches.services);
    count(&family, &caches.policies);
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
