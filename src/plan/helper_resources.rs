//! The requests and limits of the operator's own containers in Pods, which can be fitted to the limit ranges of a cluster.

use std::{collections::BTreeMap, fmt, str::FromStr};

use k8s_openapi::{api::core::v1::ResourceRequirements, apimachinery::pkg::api::resource::Quantity};
use serde::{Deserialize, Serialize};

use super::quantity::Amount;

/// The resources that these containers use.
const USED: [&str; 3] = ["cpu", "memory", "ephemeral-storage"];

/// The requests and limits of the containers that run the helper image: the one that fills the volumes, and the one that installs the
/// helper. What is left out gets the defaults of a limit range, if the namespace has one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct HelperResources {
    requests: Quantities,
    limits: Quantities,
}

type Quantities = BTreeMap<String, String>;

/// Requests and limits as the chart passes them.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Written {
    requests: Option<BTreeMap<String, Option<Quantity>>>,
    limits: Option<BTreeMap<String, Option<Quantity>>>,
}

impl Default for HelperResources {
    fn default() -> Self {
        let quantities = |cpu: &str, memory: &str| {
            BTreeMap::from([("cpu".to_string(), cpu.to_string()), ("memory".to_string(), memory.to_string())])
        };
        Self { requests: quantities("10m", "16Mi"), limits: quantities("1", "512Mi") }
    }
}

impl HelperResources {
    /// The resources of a container that only waits and reports: the same requests, with lower limits. With `is_guaranteed`, the requests
    /// are the limits, so that the Pod keeps its quality of service.
    pub fn of_reporter(&self, is_guaranteed: bool) -> Self {
        let at_most = |resource: &str, limit: &String| {
            let highest = match resource {
                "cpu" if is_guaranteed => "100m",
                // The start of a container that is throttled takes a fifth of a second longer.
                "cpu" => "500m",
                "memory" => "32Mi",
                _ => return limit.clone(),
            };
            let exceeds = |one: &str, other: &str| {
                Amount::parse(one).zip(Amount::parse(other)).is_some_and(|(one, other)| one.exceeds(other))
            };
            let limit = if exceeds(limit, highest) { highest } else { limit };
            let request = self.requests.get(resource).filter(|request| exceeds(request, limit));
            request.map_or(limit, |request| request).to_string()
        };
        let limits: Quantities =
            self.limits.iter().map(|(resource, limit)| (resource.clone(), at_most(resource, limit))).collect();
        Self { requests: if is_guaranteed { limits.clone() } else { self.requests.clone() }, limits }
    }

    /// The same for a container.
    pub fn requirements(&self) -> ResourceRequirements {
        let quantities = |all: &Quantities| {
            let written = all.iter().map(|(resource, text)| (resource.clone(), Quantity(text.clone())));
            (!all.is_empty()).then(|| written.collect())
        };
        ResourceRequirements {
            requests: quantities(&self.requests),
            limits: quantities(&self.limits),
            ..ResourceRequirements::default()
        }
    }
}

/// Reads JSON in the form of a container's `resources`. A request or limit that is `null` is left out.
impl FromStr for HelperResources {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Written { requests, limits } = serde_json::from_str(text).map_err(|error| error.to_string())?;
        let (requests, limits) = (checked("requests", requests)?, checked("limits", limits)?);
        let pairs = requests.iter().filter_map(|(resource, request)| Some((resource, request, limits.get(resource)?)));
        for (resource, request, limit) in pairs {
            let amounts = Amount::parse(request).zip(Amount::parse(limit));
            if amounts.is_some_and(|(request, limit)| request.exceeds(limit)) {
                return Err(format!("requests.{resource}: {request} is more than the limit {limit}"));
            }
        }
        Ok(Self { requests, limits })
    }
}

/// The quantities that are set, if all of them are valid.
fn checked(field: &str, written: Option<BTreeMap<String, Option<Quantity>>>) -> Result<Quantities, String> {
    let mut quantities = Quantities::new();
    for (resource, quantity) in written.unwrap_or_default() {
        if !USED.contains(&resource.as_str()) {
            return Err(format!("{field}.{resource}: only {} can be set", USED.join(", ")));
        }
        let Some(Quantity(text)) = quantity else { continue };
        if Amount::parse(&text).is_none() {
            return Err(format!("{field}.{resource}: `{text}` is not a quantity such as 100m or 64Mi"));
        }
        quantities.insert(resource, text);
    }
    Ok(quantities)
}

/// As it is read.
impl fmt::Display for HelperResources {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&serde_json::to_string(self).map_err(|_| fmt::Error)?)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn read(written: &Value) -> Result<Value, String> {
        let resources: HelperResources = written.to_string().parse()?;
        Ok(serde_json::to_value(resources.requirements()).unwrap())
    }

    #[test]
    fn the_chart_has_the_same_default() {
        let values: Value =
            serde_yaml::from_str(include_str!("../../charts/aigise-operator/values.yaml")).expect("YAML");
        assert_eq!(values["helper"]["resources"].to_string().parse(), Ok(HelperResources::default()));
        assert_eq!(HelperResources::default().to_string().parse(), Ok(HelperResources::default()));
    }

    #[test]
    fn a_container_that_only_waits_has_lower_limits() {
        let of_reporter = |written: &Value, is_guaranteed| {
            let resources: HelperResources = written.to_string().parse().unwrap();
            serde_json::to_value(resources.of_reporter(is_guaranteed).requirements()).unwrap()
        };
        let usual = serde_json::from_str(&HelperResources::default().to_string()).unwrap();
        let limits = |cpu: &str| json!({"cpu": cpu, "memory": "32Mi"});
        let requests = json!({"cpu": "10m", "memory": "16Mi"});
        assert_eq!(of_reporter(&usual, false), json!({"requests": requests, "limits": limits("500m")}));
        assert_eq!(of_reporter(&usual, true), json!({"requests": limits("100m"), "limits": limits("100m")}));
        let written = json!({"requests": {"cpu": "600m"}, "limits": {"cpu": "1", "memory": "20Mi"}});
        let fitted = json!({"requests": {"cpu": "600m"}, "limits": {"cpu": "600m", "memory": "20Mi"}});
        assert_eq!(
            of_reporter(&written, false),
            fitted,
            "a limit is never below its request, nor above the one that is set"
        );
    }

    #[test]
    fn what_is_null_or_not_there_is_left_out() {
        let written = json!({"requests": {"cpu": 0.05, "memory": null}, "limits": {"memory": 67_108_864, "cpu": "1"}});
        let set = json!({"requests": {"cpu": "0.05"}, "limits": {"memory": "67108864", "cpu": "1"}});
        assert_eq!(read(&written), Ok(set));
        let storage = json!({"limits": {"ephemeral-storage": "1Gi"}});
        assert_eq!(read(&storage), Ok(storage));
        for nothing in
            [json!({}), json!({"requests": null, "limits": {}}), json!({"requests": {"cpu": null}, "limits": null})]
        {
            assert_eq!(read(&nothing), Ok(json!({})), "{nothing}");
        }
    }

    #[test]
    fn a_mistake_is_named() {
        for (written, complaint) in [
            (json!({"request": {}}), "unknown field `request`, expected `requests` or `limits`"),
            (json!({"claims": []}), "unknown field `claims`"),
            (json!({"requests": {"memroy": "1Mi"}}), "requests.memroy: only cpu, memory, ephemeral-storage can be set"),
            (json!({"limits": {"gpu": null}}), "limits.gpu: only"),
            (json!({"limits": {"cpu": "two"}}), "limits.cpu: `two` is not a quantity"),
            (json!({"limits": {"cpu": -1}}), "limits.cpu: `-1` is not a quantity"),
            (json!({"limits": {"cpu": true}}), "invalid type: boolean"),
            (json!({"limits": "all"}), "invalid type: string"),
            (
                json!({"requests": {"memory": "1Gi"}, "limits": {"memory": "1G"}}),
                "requests.memory: 1Gi is more than the limit 1G",
            ),
        ] {
            let said = read(&written).unwrap_err();
            assert!(said.contains(complaint), "{written}: {said}");
        }
        let equal = json!({"requests": {"cpu": "500m"}, "limits": {"cpu": "0.5"}});
        assert!(read(&equal).is_ok());
        assert!("".parse::<HelperResources>().is_err());
    }
}
