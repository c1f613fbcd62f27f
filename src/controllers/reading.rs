//! An object as the caches take it from the API server: less what nobody here reads, and never an obstacle to the others.
//!
//! The library's own guard for objects that cannot be read builds each of them three times, managedFields and all. Of 2,000
//! Sandboxes and their Pods that was most of the memory and the time of a start. Here what is not read is skipped as it
//! comes, and the rest is built once as a value and once as the object.

use std::{borrow::Cow, fmt};

use k8s_openapi::api::{
    core::v1::{PersistentVolumeClaim, Pod, Service},
    networking::v1::NetworkPolicy,
};
use kube::{Resource, api::ObjectMeta};
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Value};

use crate::api::{Agent, AigiseSession, Sandbox, meta};

/// How much of something is kept. Lists are as their elements.
#[derive(Clone, Copy, Debug)]
pub enum Keep {
    /// All of it.
    All,
    /// Nothing of it.
    Nothing,
    /// These fields.
    Only(Fields),
    /// All fields, of these only so much.
    AllBut(Fields),
}

/// Fields, and how much is kept of each.
pub type Fields = &'static [(&'static str, Keep)];

/// A kind that is cached.
pub trait Cached: Resource<DynamicType = ()> + Clone + fmt::Debug + DeserializeOwned + Send + Sync + 'static {
    /// How much of it.
    const KEEP: Keep = Keep::AllBut(&[METADATA]);
}

/// managedFields are half of an object. What `kubectl apply` keeps in an annotation is the other half once more.
const METADATA: (&str, Keep) = (
    "metadata",
    Keep::AllBut(&[
        ("managedFields", Keep::Nothing),
        ("annotations", Keep::AllBut(&[("kubectl.kubernetes.io/last-applied-configuration", Keep::Nothing)])),
    ]),
);

impl Cached for AigiseSession {}

impl Cached for Sandbox {
    /// A session's own is replaced as a whole, with all that its users have annotated.
    const KEEP: Keep = Keep::AllBut(&[("metadata", Keep::AllBut(&[("managedFields", Keep::Nothing)]))]);
}

/// What a program that runs an agent says in its status is read as well.
impl Cached for Agent {}
impl Cached for PersistentVolumeClaim {}
impl Cached for Service {}
impl Cached for NetworkPolicy {}

impl Cached for Pod {
    /// We made its spec and never look at it again, but for where it runs. An empty `Container` alone takes 2 KB.
    const KEEP: Keep = Keep::AllBut(&[
        (
            "metadata",
            Keep::AllBut(&[
                ("managedFields", Keep::Nothing),
                ("annotations", Keep::AllBut(&[("kubectl.kubernetes.io/last-applied-configuration", Keep::Nothing)])),
                // Whose it is, and what.
                ("labels", Keep::Only(&[(meta::SESSION, Keep::All), (meta::COMPONENT, Keep::All)])),
            ]),
        ),
        ("spec", Keep::Only(&[("nodeName", Keep::All)])),
        (
            "status",
            Keep::AllBut(&[
                ("hostIP", Keep::Nothing),
                ("hostIPs", Keep::Nothing),
                ("podIPs", Keep::Nothing),
                ("qosClass", Keep::Nothing),
                ("containerStatuses", CONTAINER_STATUS),
                ("initContainerStatuses", CONTAINER_STATUS),
            ]),
        ),
    ]);
}

/// How a container is, without what it is made of.
const CONTAINER_STATUS: Keep = Keep::AllBut(&[
    ("allocatedResources", Keep::Nothing),
    ("containerID", Keep::Nothing),
    ("imageID", Keep::Nothing),
    ("lastState", Keep::Nothing),
    ("resources", Keep::Nothing),
    ("user", Keep::Nothing),
    ("volumeMounts", Keep::Nothing),
]);

/// An object, or why it cannot be read. The other objects of its list can.
#[derive(Clone, Debug)]
pub struct Reading<K>(pub Result<K, Unreadable>);

/// An object that cannot be read: written by a newer version, or by hand.
#[derive(Clone, Debug)]
pub struct Unreadable {
    /// What is wrong with it.
    pub error: String,
    /// Which one it is.
    pub metadata: ObjectMeta,
}

impl<'de, K: Cached> Deserialize<'de> for Reading<K> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = K::KEEP.deserialize(deserializer)?;
        K::deserialize(&value).map(Ok).map(Self).or_else(|error| {
            let metadata = value.get("metadata").map(ObjectMeta::deserialize).transpose().map_err(D::Error::custom)?;
            Ok(Self(Err(Unreadable { error: error.to_string(), metadata: metadata.unwrap_or_default() })))
        })
    }
}

impl<K: Cached> Resource for Reading<K> {
    type DynamicType = ();
    type Scope = K::Scope;

    fn kind((): &()) -> Cow<'_, str> {
        K::kind(&())
    }

    fn group((): &()) -> Cow<'_, str> {
        K::group(&())
    }

    fn version((): &()) -> Cow<'_, str> {
        K::version(&())
    }

    fn plural((): &()) -> Cow<'_, str> {
        K::plural(&())
    }

    fn meta(&self) -> &ObjectMeta {
        self.0.as_ref().map_or_else(|unreadable| &unreadable.metadata, K::meta)
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        self.0.as_mut().map_or_else(|unreadable| &mut unreadable.metadata, K::meta_mut)
    }
}

impl Keep {
    fn of(self, field: &str) -> Self {
        let find = |fields: Fields| fields.iter().find(|(name, _)| *name == field).map(|(_, keep)| *keep);
        match self {
            Keep::All | Keep::Nothing => self,
            Keep::Only(fields) => find(fields).unwrap_or(Keep::Nothing),
            Keep::AllBut(fields) => find(fields).unwrap_or(Keep::All),
        }
    }
}

impl<'de> DeserializeSeed<'de> for Keep {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        match self {
            Keep::All => Value::deserialize(deserializer),
            Keep::Nothing => IgnoredAny::deserialize(deserializer).map(|_| Value::Null),
            Keep::Only(_) | Keep::AllBut(_) => deserializer.deserialize_any(self),
        }
    }
}

impl<'de> Visitor<'de> for Keep {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object of Kubernetes")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut object = Map::new();
        while let Some(field) = map.next_key::<Cow<'de, str>>()? {
            let value = map.next_value_seed(self.of(&field))?;
            if !value.is_null() {
                object.insert(field.into_owned(), value);
            }
        }
        Ok(object.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut values = Vec::new();
        while let Some(value) = list.next_element_seed(self)? {
            values.push(value);
        }
        Ok(values.into())
    }

    // Where fields are expected and there is something else, the object says so when it is made of this.
    fn visit_str<E: Error>(self, text: &str) -> Result<Value, E> {
        Ok(text.into())
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Value, E> {
        Ok(number.into())
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use kube::{ResourceExt, core::WatchEvent};
    use serde_json::json;

    use super::*;
    use crate::{
        api::meta,
        plan::pod::{self, Progress},
    };

    fn pod() -> Value {
        json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {
                "name": "demo--main", "namespace": "n", "uid": "u", "resourceVersion": "7",
                "creationTimestamp": "2026-01-01T00:00:00Z",
                "labels": {"a": "b"},
                "annotations": {"aigise.dev/template-hash": "h", "kubectl.kubernetes.io/last-applied-configuration": "{}"},
                "ownerReferences": [{"apiVersion": "aigise.dev/v1alpha1", "kind": "Sandbox", "name": "demo--main", "uid": "s", "controller": true}],
                "managedFields": [{"manager": "aigise-operator", "operation": "Update", "apiVersion": "v1", "fieldsType": "FieldsV1", "fieldsV1": {"f:spec": {}}}],
            },
            "spec": {
                "nodeName": "node-1",
                "containers": [{"name": "sandbox", "image": "a:1", "env": [{"name": "A", "value": "b"}]}],
                "volumes": [{"name": "data", "emptyDir": {}}],
                "tolerations": [{"key": "k", "operator": "Exists"}],
            },
            "status": {
                "phase": "Running", "podIP": "10.0.0.1", "startTime": null,
                "conditions": [{"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": "True"}],
                "containerStatuses": [{
                    "name": "sandbox", "image": "a:1", "imageID": "i", "ready": true, "restartCount": 0,
                    "volumeMounts": [{"name": "data", "mountPath": "/shared"}],
                    "state": {"running": {"startedAt": "2026-01-01T00:00:01Z"}},
                }],
            },
        })
    }

    #[test]
    fn all_that_is_read_of_a_pod_is_kept() {
        let whole: Pod = serde_json::from_value(pod()).unwrap();
        let kept = serde_json::from_str::<Reading<Pod>>(&pod().to_string()).unwrap().0.unwrap();
        assert_eq!(Progress::of(&kept, meta::SANDBOX_CONTAINER), Progress::Ready);
        assert!(pod::reading(&kept) == pod::reading(&whole));
        assert_eq!(kept.status.as_ref().unwrap().conditions, whole.status.unwrap().conditions);
        let metadata = ObjectMeta {
            managed_fields: None,
            annotations: kept.metadata.annotations.clone(),
            labels: Some(<_>::default()),
            ..whole.metadata
        };
        assert_eq!(kept.metadata, metadata);
        assert_eq!(kept.annotations().keys().collect::<Vec<_>>(), ["aigise.dev/template-hash"]);
        assert_eq!(kept.metadata.creation_timestamp, Some(Time("2026-01-01T00:00:00Z".parse().unwrap())));
    }

    #[test]
    fn nothing_else_is_kept_of_its_spec() {
        let kept = serde_json::from_str::<Reading<Pod>>(&pod().to_string()).unwrap().0.unwrap();
        assert_eq!(serde_json::to_value(kept.spec).unwrap(), json!({"nodeName": "node-1", "containers": []}));
    }

    #[test]
    fn an_object_that_cannot_be_read_is_told_by_its_name_and_the_others_are_read() {
        let sandbox = |name: &str, spec: Value| {
            json!({
                "apiVersion": "aigise.dev/v1alpha1", "kind": "Sandbox",
                "metadata": {"name": name, "namespace": "n"}, "spec": spec,
            })
        };
        let list = json!([
            sandbox("good", json!({"type": "main", "image": "a:1"})),
            sandbox("bad", json!({"type": ["main"]})),
            sandbox("worse", json!("text")),
            sandbox("last", json!({"type": "main", "image": "a:2", "env": [{"name": "N", "value": "1"}]})),
        ]);
        let list: Vec<Reading<Sandbox>> = serde_json::from_str(&list.to_string()).unwrap();
        let told: Vec<_> = list.iter().map(|reading| (reading.name_any(), reading.0.is_ok())).collect();
        let expected = [("good", true), ("bad", false), ("worse", false), ("last", true)];
        assert_eq!(told, expected.map(|(name, read)| (name.to_string(), read)));
        let last = list[3].0.as_ref().unwrap();
        assert_eq!(last.spec.template.image.as_deref(), Some("a:2"));
        assert_eq!(last.spec.template.env[0].value.as_deref(), Some("1"));
    }

    #[test]
    fn the_order_of_the_fields_of_an_event_does_not_matter() {
        for event in
            [format!(r#"{{"type":"ADDED","object":{}}}"#, pod()), format!(r#"{{"object":{},"type":"ADDED"}}"#, pod())]
        {
            let WatchEvent::Added(Reading(Ok(pod))) = serde_json::from_str(&event).unwrap() else { panic!("{event}") };
            let pod: Pod = pod;
            assert_eq!(pod.name_any(), "demo--main");
        }
    }
}
