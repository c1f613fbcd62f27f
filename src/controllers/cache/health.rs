//! Which watches are failing. A single failure is harmless; if a watch fails for long, the operator misses the changes of its kind.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

/// When a watch has been failing for this long, the operator is not ready.
const LONG: Duration = Duration::from_secs(60);

/// The watch of a kind, in one namespace or, with `None`, in all namespaces.
type Watch = (String, Option<String>);

/// The failing watches, and since when each has been failing.
#[derive(Debug, Default)]
pub struct Health(Mutex<BTreeMap<Watch, Instant>>);

impl Health {
    fn failing(&self) -> MutexGuard<'_, BTreeMap<Watch, Instant>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records that the watch has failed.
    pub(super) fn fails(&self, kind: &str, namespace: Option<&str>) {
        self.failing().entry((kind.into(), namespace.map(String::from))).or_insert_with(Instant::now);
    }

    /// Records that the watch works.
    pub(super) fn is_well(&self, kind: &str, namespace: Option<&str>) {
        self.failing().remove(&(kind.into(), namespace.map(String::from)));
    }

    /// The kinds whose watch has been failing for so long that the operator is not ready, and for how long.
    pub fn deaf_to(&self) -> Vec<(String, Duration)> {
        self.failing_for().into_iter().filter(|(_, since)| *since >= LONG).collect()
    }

    /// The kinds whose watch is failing, and for how long.
    pub fn failing_for(&self) -> Vec<(String, Duration)> {
        let mut kinds = BTreeMap::<_, Duration>::new();
        for ((kind, _), since) in &*self.failing() {
            let failing = kinds.entry(kind.clone()).or_default();
            *failing = (*failing).max(since.elapsed());
        }
        kinds.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_watch_that_fails_for_long_is_reported_until_it_recovers() {
        let health = Health::default();
        health.fails("Pod", None);
        tokio::time::advance(Duration::from_secs(50)).await;
        health.fails("Pod", None);
        assert_eq!(health.deaf_to(), []);
        tokio::time::advance(Duration::from_secs(20)).await;
        assert_eq!(health.deaf_to(), [("Pod".to_string(), Duration::from_secs(70))]);
        health.is_well("Pod", None);
        assert_eq!(health.failing_for(), []);
    }
}
