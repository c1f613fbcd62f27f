//! A Pod that is kept as text. The types of Kubernetes are large where nothing is in them: a Pod takes 6 KB in memory, and less than
//! one as JSON. It is looked at a few times in its life, and then it is made of its text anew.

use std::fmt;

use k8s_openapi::api::core::v1::Pod;
use kube::{Resource, api::ObjectMeta};
use serde::{Deserialize, Deserializer, de::Error};
use serde_json::Value;

use super::reading::{Cached, Keep};

/// A Pod as text, and what it is found by.
#[derive(Clone, Resource)]
#[resource(inherit = Pod)]
pub struct PackedPod {
    metadata: ObjectMeta,
    text: Box<str>,
}

impl PackedPod {
    /// The Pod.
    #[must_use]
    pub fn unpack(&self) -> Option<Pod> {
        // It could be read when it was packed.
        serde_json::from_str(&self.text).ok()
    }
}

impl<'de> Deserialize<'de> for PackedPod {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let value = Value::deserialize(deserializer)?;
        // What cannot be read is told now and not later.
        let ObjectMeta { name, namespace, uid, resource_version, .. } =
            Pod::deserialize(&value).map_err(D::Error::custom)?.metadata;
        let metadata = ObjectMeta { name, namespace, uid, resource_version, ..ObjectMeta::default() };
        Ok(Self { metadata, text: value.to_string().into() })
    }
}

impl fmt::Debug for PackedPod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Cached for PackedPod {
    const KEEP: Keep = Pod::KEEP;
}

#[cfg(test)]
mod tests {
    use kube::ResourceExt;
    use serde_json::json;

    use super::*;
    use crate::controllers::reading::Reading;

    fn read(object: &Value) -> Reading<PackedPod> {
        serde_json::from_str(&object.to_string()).unwrap()
    }

    #[test]
    fn what_is_unpacked_is_what_would_have_been_kept() {
        let object = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "a", "namespace": "n", "uid": "u", "resourceVersion": "7", "annotations": {"k": "v"}},
            "spec": {"nodeName": "node-1", "containers": [{"name": "c", "image": "a:1"}]},
            "status": {"phase": "Running", "podIP": "10.0.0.1"},
        });
        let packed = read(&object).0.unwrap();
        let kept: Reading<Pod> = serde_json::from_str(&object.to_string()).unwrap();
        assert_eq!(packed.unpack().unwrap(), kept.0.unwrap());
        assert_eq!((packed.name_any(), packed.uid().as_deref()), ("a".to_string(), Some("u")));
    }

    #[test]
    fn what_cannot_be_read_is_told_when_it_comes() {
        let unreadable = read(&json!({"metadata": {"name": "a"}, "status": {"phase": 3}})).0.unwrap_err();
        assert_eq!(unreadable.metadata.name.as_deref(), Some("a"));
    }
}
