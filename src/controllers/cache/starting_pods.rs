//! How many Pods of a namespace are starting. During a burst, a sandbox that waits for the scheduler or the kubelet reports this later.
//! The Pods of one namespace do not delay the reports of another.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use super::Change;
use crate::plan::pod;

/// How many Pods are starting, by namespace and the second of their creation.
#[derive(Debug, Default)]
pub struct StartingPods(Mutex<BTreeMap<(String, i64), usize>>);

impl StartingPods {
    pub(super) fn update(&self, change: &Change<'_, Pod>) {
        let made = |pod: &&Pod| {
            let created = pod.metadata.creation_timestamp.as_ref()?.0.as_second();
            Some((pod.metadata.namespace.clone().unwrap_or_default(), created))
        };
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(place) = change.before.filter(|pod| pod::is_on_its_way(pod)).as_ref().and_then(made)
            && let Some(count) = counts.get_mut(&place)
        {
            *count -= 1;
            if *count == 0 {
                counts.remove(&place);
            }
        }
        if let Some(place) = change.after.filter(|pod| pod::is_on_its_way(pod)).as_ref().and_then(made) {
            *counts.entry(place).or_default() += 1;
        }
    }

    /// How many Pods of a namespace that were created since this time are starting. A Pod that has been starting for longer is stuck and
    /// does not count.
    pub fn since(&self, namespace: &str, then: Timestamp) -> usize {
        let counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let since = (namespace.to_string(), then.as_second())..=(namespace.to_string(), i64::MAX);
        counts.range(since).map(|(_, count)| count).sum()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn made(namespace: &str, second: i64, status: serde_json::Value) -> Pod {
        let created = Timestamp::from_second(second).unwrap().to_string();
        let object =
            json!({"metadata": {"name": "a", "namespace": namespace, "creationTimestamp": created}, "status": status});
        serde_json::from_value(object).unwrap()
    }

    #[test]
    fn a_pod_counts_from_when_it_is_made_until_it_runs_or_is_gone_and_for_a_while() {
        let burst = StartingPods::default();
        let count = |since| burst.since("n", Timestamp::from_second(since).unwrap());
        let (silent, running) = (
            json!({}),
            json!({"containerStatuses": [{
                "name": "sandbox", "ready": true, "image": "", "imageID": "", "restartCount": 0, "state": {"running": {}},
            }]}),
        );
        let [first, second] = [10, 20].map(|at| made("n", at, silent.clone()));
        let of_others = ["m", "o"].map(|namespace| made(namespace, 15, silent.clone()));
        for pod in [&first, &second].into_iter().chain(&of_others) {
            burst.update(&Change { before: None, after: Some(pod) });
        }
        assert_eq!((count(10), count(11), count(21)), (2, 1, 0));
        burst.update(&Change { before: Some(&first), after: Some(&made("n", 10, running)) });
        assert_eq!(count(0), 1);
        burst.update(&Change { before: Some(&second), after: None });
        assert_eq!((count(0), burst.0.lock().unwrap().len()), (0, of_others.len()));
    }
}
