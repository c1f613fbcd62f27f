//! The resource requests of Pods, computed as the scheduler computes them.

use std::{collections::BTreeMap, fmt, iter::Sum};

use k8s_openapi::{
    api::core::v1::{Container, PodSpec, ResourceRequirements},
    apimachinery::pkg::api::resource::Quantity,
};
use serde::{Serialize, Serializer};

use super::quantity::Amount;

/// An amount of each resource: `cpu`, `memory`, `nvidia.com/gpu`, …
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodResources(BTreeMap<String, Amount>);

impl PodResources {
    /// The requests of a Pod: the sum of its containers, or the largest step of its initialisation, whichever is larger.
    pub fn of_pod(spec: &PodSpec) -> Self {
        let mut beside = Self::default();
        let mut peak = Self::default();
        for container in spec.init_containers.iter().flatten() {
            let own = Self::of_container(container);
            if container.restart_policy.as_deref() == Some("Always") {
                // A sidecar keeps running beside the init containers after it, and beside the containers.
                beside = beside.plus(&own);
                peak = peak.max(&beside);
            } else {
                peak = peak.max(&beside.plus(&own));
            }
        }
        let together: Self = spec.containers.iter().map(Self::of_container).sum();
        let containers = together.plus(&beside).max(&peak);
        let of_all = spec.resources.as_ref().map(Self::of_requirements).unwrap_or_default();
        containers.replaced_by(of_all).plus(&Self::read(spec.overhead.as_ref()))
    }

    /// Whether there are no requests at all.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The requirements of a container that requests at least these resources, and at least what it needs itself. Limits are never below
    /// requests; for resources that cannot be shared, such as devices, Kubernetes requires limits equal to requests.
    pub fn requirements(&self, own: &ResourceRequirements) -> ResourceRequirements {
        let requests = Self::of_requirements(own).max(self);
        let mut limits = Self::read(own.limits.as_ref());
        for (resource, &amount) in &requests.0 {
            match limits.0.get_mut(resource) {
                Some(limit) => *limit = limit.max(amount),
                None if is_shared(resource) => {}
                None => _ = limits.0.insert(resource.clone(), amount),
            }
        }
        ResourceRequirements { requests: requests.written(), limits: limits.written(), claims: own.claims.clone() }
    }

    fn of_container(container: &Container) -> Self {
        container.resources.as_ref().map(Self::of_requirements).unwrap_or_default()
    }

    /// The requests of some requirements. A resource with a limit and no request is requested up to its limit.
    fn of_requirements(requirements: &ResourceRequirements) -> Self {
        Self::read(requirements.limits.as_ref()).replaced_by(Self::read(requirements.requests.as_ref()))
    }

    /// Parses the quantities and omits invalid ones: the API server refuses a Pod with an invalid quantity and reports why.
    fn read(amounts: Option<&BTreeMap<String, Quantity>>) -> Self {
        let amounts = amounts.into_iter().flatten();
        Self(amounts.filter_map(|(resource, text)| Some((resource.clone(), Amount::parse(&text.0)?))).collect())
    }

    fn written(self) -> Option<BTreeMap<String, Quantity>> {
        (!self.0.is_empty()).then(|| self.0.into_iter().map(|(resource, amount)| (resource, amount.into())).collect())
    }

    fn plus(&self, other: &Self) -> Self {
        self.with(other, Amount::plus)
    }

    fn max(&self, other: &Self) -> Self {
        self.with(other, Amount::max)
    }

    fn replaced_by(mut self, other: Self) -> Self {
        self.0.extend(other.0);
        self
    }

    fn with(&self, other: &Self, both: impl Fn(Amount, Amount) -> Amount) -> Self {
        let mut result = self.0.clone();
        for (resource, &amount) in &other.0 {
            result.entry(resource.clone()).and_modify(|own| *own = both(*own, amount)).or_insert(amount);
        }
        Self(result)
    }
}

/// Whether a container may use more of the resource than it requests. This holds for Kubernetes' own resources except huge pages.
fn is_shared(resource: &str) -> bool {
    matches!(resource, "cpu" | "memory" | "ephemeral-storage")
}

impl Sum for PodResources {
    fn sum<I: Iterator<Item = Self>>(requests: I) -> Self {
        requests.fold(Self::default(), |sum, requests| sum.plus(&requests))
    }
}

/// `cpu 2500m, memory 6Gi`.
impl fmt::Display for PodResources {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let amounts: Vec<_> = self.0.iter().map(|(resource, amount)| format!("{resource} {amount}")).collect();
        formatter.write_str(&amounts.join(", "))
    }
}

impl Serialize for PodResources {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn requests(spec: serde_json::Value) -> String {
        PodResources::of_pod(&serde_json::from_value(spec).unwrap()).to_string()
    }

    #[test]
    fn a_pod_asks_for_its_containers_together() {
        let containers = json!([
            {"name": "a", "resources": {"requests": {"cpu": "100m", "memory": "1Gi"}, "limits": {"cpu": "4"}}},
            {"name": "b", "resources": {"limits": {"cpu": 2, "memory": "512Mi", "nvidia.com/gpu": "1"}}},
            {"name": "c"},
            {"name": "d", "resources": {"requests": {"cpu": "two"}}},
        ]);
        assert_eq!(requests(json!({"containers": containers})), "cpu 2100m, memory 1536Mi, nvidia.com/gpu 1");
        assert_eq!(requests(json!({"containers": [{"name": "a"}]})), "");
    }

    #[test]
    fn an_initialisation_that_takes_more_counts_instead_with_the_sidecars_beside_it() {
        let asks = |name: &str, cpu: &str| json!({"name": name, "resources": {"requests": {"cpu": cpu}}});
        let sidecar = json!({"name": "s", "restartPolicy": "Always", "resources": {"requests": {"cpu": "1"}}});
        let pod =
            |inits: Vec<serde_json::Value>| requests(json!({"initContainers": inits, "containers": [asks("a", "2")]}));
        assert_eq!(pod(vec![asks("i", "5"), asks("j", "1")]), "cpu 5");
        assert_eq!(pod(vec![asks("i", "1")]), "cpu 2");
        assert_eq!(pod(vec![sidecar.clone()]), "cpu 3", "it stays beside the container");
        assert_eq!(pod(vec![sidecar.clone(), asks("i", "5")]), "cpu 6", "and beside what comes after it");
        assert_eq!(pod(vec![asks("i", "5"), sidecar]), "cpu 5", "not beside what came before");
    }

    #[test]
    fn overhead_is_added_and_the_pods_own_word_stands_for_its_containers() {
        let spec = json!({
            "overhead": {"memory": "100Mi"},
            "resources": {"requests": {"cpu": "3"}, "limits": {"cpu": "9"}},
            "containers": [{"name": "a", "resources": {"requests": {"cpu": "1", "memory": "1Gi"}}}],
        });
        assert_eq!(requests(spec), "cpu 3, memory 1124Mi");
    }

    #[test]
    fn a_container_requests_the_resources_and_its_limits_are_never_below() {
        let own = serde_json::from_value(json!({
            "requests": {"cpu": "10m", "memory": "16Mi"},
            "limits": {"cpu": "1", "memory": "512Mi"},
        }))
        .unwrap();
        let asking = |amounts: serde_json::Value| {
            let spec = json!({"containers": [{"name": "a", "resources": {"requests": amounts}}]});
            let requests = PodResources::of_pod(&serde_json::from_value(spec).unwrap());
            serde_json::to_value(requests.requirements(&own)).unwrap()
        };
        assert_eq!(asking(json!({})), serde_json::to_value(&own).unwrap());
        assert_eq!(
            asking(
                json!({"cpu": "1m", "memory": "2Gi", "ephemeral-storage": "1Gi", "nvidia.com/gpu": "2", "hugepages-2Mi": "4Mi"})
            ),
            json!({
                "requests": {"cpu": "10m", "memory": "2Gi", "ephemeral-storage": "1Gi", "nvidia.com/gpu": "2", "hugepages-2Mi": "4Mi"},
                "limits": {"cpu": "1", "memory": "2Gi", "nvidia.com/gpu": "2", "hugepages-2Mi": "4Mi"},
            })
        );
    }

    /// The API server requests a limit that has no request; a smaller request in its place could break a ratio of the namespace.
    #[test]
    fn a_container_with_a_limit_alone_requests_no_less_than_the_limit() {
        let own = serde_json::from_value(json!({"limits": {"cpu": "500m"}})).unwrap();
        let asking = |amounts: serde_json::Value| {
            let spec = json!({"containers": [{"name": "a", "resources": {"requests": amounts}}]});
            let requests = PodResources::of_pod(&serde_json::from_value(spec).unwrap());
            serde_json::to_value(requests.requirements(&own)).unwrap()
        };
        let expected = json!({"requests": {"cpu": "500m", "memory": "1Gi"}, "limits": {"cpu": "500m"}});
        assert_eq!(asking(json!({"cpu": "100m", "memory": "1Gi"})), expected);
        assert_eq!(asking(json!({"cpu": "2"})), json!({"requests": {"cpu": "2"}, "limits": {"cpu": "2"}}));
    }
}
