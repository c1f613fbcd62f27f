use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use serde_json::{Value, json};

use super::*;
use crate::plan::pod::{self, Progress};

fn read<K: Kept>(object: &Value) -> Result<K, Box<Unreadable>> {
    super::read(object.to_string().as_bytes()).map(|read| read.object)
}

fn pod() -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": "demo--main", "namespace": "n", "uid": "u", "resourceVersion": "7",
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {"a": "b"},
            "annotations": {"aigise.dev/template-hash": "h", "kubectl.kubernetes.io/last-applied-configuration": "{}", "team": "x"},
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
    let kept: Pod = read(&pod()).unwrap();
    assert_eq!(Progress::of(&kept, meta::SANDBOX_CONTAINER), Progress::Ready);
    assert!(pod::facts(&kept) == pod::facts(&whole));
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
fn what_says_why_a_pod_has_no_node_is_kept() {
    let mut pod = pod();
    pod["metadata"]["labels"] = json!({meta::SESSION: "s", meta::SESSION_UID: "u"});
    let words = "0/1 nodes are available: 1 node(s) didn't match pod affinity rules.";
    let waits = json!({"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": words});
    pod["status"] = json!({"phase": "Pending", "conditions": [waits]});
    let progress = Progress::of(&read(&pod).unwrap(), meta::SANDBOX_CONTAINER);
    assert!(matches!(progress, Progress::Unschedulable { reason: Reason::NoRoomOnSessionNode, .. }), "{progress:?}");
}

#[test]
fn nothing_else_is_kept_of_its_spec() {
    let kept: Pod = read(&pod()).unwrap();
    assert_eq!(serde_json::to_value(kept.spec).unwrap(), json!({"nodeName": "node-1", "containers": []}));
}

#[test]
fn what_says_that_a_container_is_restarted_is_kept() {
    let mut pod = pod();
    pod["spec"]["initContainers"] = json!([
        {"name": "before", "image": "a:1"},
        {"image": "a:1", "name": "mesh", "restartPolicy": "Always", "env": [{"name": "restartPolicy", "value": "b"}]},
        {"name": "restartPolicy", "image": "a:1"},
    ]);
    pod["metadata"]["finalizers"] = json!(["example.com/hold"]);
    let ended = |name: &str| json!({"name": name, "image": "a:1", "imageID": "i", "ready": false, "restartCount": 0, "state": {"terminated": {"exitCode": 7}}});
    pod["status"]["initContainerStatuses"] = json!([ended("mesh"), ended("before")]);
    let kept: Pod = read(&pod).unwrap();
    let spec = json!({
        "nodeName": "node-1", "containers": [],
        "initContainers": [{"name": "mesh", "restartPolicy": "Always"}],
    });
    assert_eq!(serde_json::to_value(kept.spec.as_ref()).unwrap(), spec);
    assert_eq!(pod::failed_init(&kept).map(|(name, _)| name), Some("before"));
    assert_eq!(kept.metadata.finalizers.as_deref(), Some(["example.com/hold".to_string()].as_slice()));
}

fn sandbox(spec: Value) -> Value {
    let metadata = json!({"name": "s", "namespace": "n", "uid": "u", "resourceVersion": "7", "generation": 3});
    json!({"apiVersion": "aigise.dev/v1alpha1", "kind": "Sandbox", "metadata": metadata, "spec": spec})
}

/// An object with a pod template.
fn with(template: &str) -> String {
    sandbox(json!({"type": "main", "image": "a:1", "podTemplate": "here"})).to_string().replace("\"here\"", template)
}

#[track_caller]
fn why(text: &[u8]) -> Why {
    let unreadable = super::read::<Sandbox>(text).unwrap_err();
    let ObjectMeta { name, namespace, uid, resource_version, generation, .. } = &unreadable.metadata;
    let names = [name, namespace, uid, resource_version].map(|name| name.as_deref().unwrap_or_default());
    assert_eq!((names, *generation), (["s", "n", "u", "7"], Some(3)), "the object is identified");
    let message = unreadable.message();
    assert!(!message.contains("hidden"), "{message}");
    unreadable.why
}

#[test]
fn what_exceeds_a_limit_is_reported_by_its_name_and_by_nothing_of_its_content() {
    let deep = |levels: usize| with(&format!("{}1{}", r#"{"a":"#.repeat(levels), "}".repeat(levels)));
    // The object and its spec are levels as well.
    assert!(super::read::<Sandbox>(deep(limits::OBJECT_DEPTH - 2).as_bytes()).is_ok());
    for levels in [limits::OBJECT_DEPTH - 1, 124, 140, 10_000, 100_000] {
        assert_eq!(why(deep(levels).as_bytes()), Why::TooDeep, "{levels}");
    }
    let text = |bytes: usize| with(&format!(r#"{{"hidden":"{}"}}"#, "x".repeat(bytes)));
    assert!(super::read::<Sandbox>(text(limits::OBJECT_BYTES - 1000).as_bytes()).is_ok());
    assert_eq!(why(text(limits::OBJECT_BYTES).as_bytes()), Why::TooLarge(limits::OBJECT_BYTES));
    assert_eq!(why(text(1_400_000).as_bytes()), Why::TooLarge(limits::OBJECT_BYTES));
    assert_eq!(why(text(TEXT_BYTES).as_bytes()), Why::TooLarge(TEXT_BYTES));
    let maps = |count: usize| with(&format!(r#"{{"a":[{}]}}"#, vec![r#"{"a":0}"#; count].join(",")));
    assert!(super::read::<Sandbox>(maps(limits::OBJECT_VALUES / 2 - 20).as_bytes()).is_ok());
    assert_eq!(why(maps(limits::OBJECT_VALUES / 2).as_bytes()), Why::TooManyValues(limits::OBJECT_VALUES));
}

#[test]
fn what_is_not_json_or_of_another_form_is_reported_by_its_name() {
    assert_eq!(why(with("{]").as_bytes()), Why::NotJson);
    let mut broken = with("\"hidden\"").into_bytes();
    let at = broken.windows(6).position(|word| word == b"hidden").unwrap();
    broken[at] = 0xff;
    assert_eq!(why(&broken), Why::NotJson);
    let cut = with("{}");
    assert_eq!(why(&cut.as_bytes()[..cut.len() - 5]), Why::NotJson, "a text that ends early");
    let wrong = |spec| why(sandbox(spec).to_string().as_bytes());
    assert_eq!(wrong(json!("hidden")), Why::UnknownValue("spec".into()));
    let restart = json!({"type": "main", "restart": {"policy": "hidden"}});
    assert!(matches!(wrong(restart), Why::UnknownValue(path) if path.starts_with("spec")));
}

#[test]
fn what_does_not_count_may_be_as_large_as_it_likes() {
    let large = "x".repeat(1_000_000);
    let metadata = json!({
        "name": "s", "namespace": "n", "uid": "u", "resourceVersion": "7",
        "annotations": {"kubectl.kubernetes.io/last-applied-configuration": large},
        "managedFields": [{"fieldsV1": {"f:spec": large}}],
    });
    let spec = json!({"sandboxes": {"main": {"image": "a:1"}}});
    assert!(read::<AigiseSession>(&json!({"metadata": metadata, "spec": spec})).is_ok());
    let claim = json!({"metadata": {"name": "c", "annotations": {"a": large}, "labels": {"b": "c"}}, "spec": {}});
    let kept = super::read::<PersistentVolumeClaim>(claim.to_string().as_bytes()).unwrap();
    assert!(kept.text.len() < 200, "{}", kept.text);
}

#[test]
fn a_status_has_a_limit_of_its_own() {
    let object = |bytes: usize| {
        let status = json!({"configuration": {"spec": {"taskName": "x".repeat(bytes)}}});
        json!({"metadata": {"name": "a"}, "spec": {"sandboxes": {"main": {"image": "b"}}}, "status": status})
    };
    assert!(read::<AigiseSession>(&object(limits::CONFIGURATION_BYTES)).is_ok());
    let unreadable = read::<AigiseSession>(&object(limits::STATUS_BYTES)).unwrap_err();
    assert_eq!(unreadable.why, Why::StatusTooLarge(limits::STATUS_BYTES, limits::STATUS_VALUES));
}

#[test]
fn what_was_said_of_an_object_that_cannot_be_read_is_known() {
    let mut object = sandbox(json!("text"));
    object["status"] = json!({"conditions": [
        {"type": "Suspended", "status": "False", "reason": "A", "message": "b"},
        {"type": "Ready", "status": "False", "reason": "Unreadable", "message": "m", "observedGeneration": 3},
    ]});
    let said = read::<Sandbox>(&object).unwrap_err().said.unwrap();
    assert_eq!(said, Said { reason: "Unreadable".into(), message: "m".into(), observed_generation: Some(3) });
}

#[test]
fn nothing_of_an_object_is_lost_that_is_written_back() {
    let mut object =
        sandbox(json!({"type": "main", "image": "a:1", "podTemplate": {"spec": null, "b": [null, {"c": null}]}}));
    object["metadata"]["annotations"] = json!({"kubectl.kubernetes.io/last-applied-configuration": "{}", "team": "x"});
    let kept: Sandbox = read(&object).unwrap();
    let whole: Sandbox = serde_json::from_value(object).unwrap();
    assert_eq!(kept, whole);
}

#[test]
fn what_is_said_of_another_object_is_not_said_of_this_one() {
    let large =
        json!({"metadata": {"name": "large"}, "spec": {"type": "main", "image": "x".repeat(limits::OBJECT_BYTES)}});
    let unreadable = read::<Sandbox>(&large).unwrap_err();
    let says = |reason: &str, message: String| {
        let condition = json!({"type": "Ready", "status": "False", "lastTransitionTime": "2026-01-01T00:00:00Z", "reason": reason, "message": message});
        Unreadable::is_said_in(&serde_json::from_value(condition).unwrap())
    };
    assert!(says("Unreadable", unreadable.message()));
    assert!(!says("Unreadable", unreadable.failure().message));
    assert!(!says("Pending", unreadable.message()));
}
