//! Objects as tests write and read them.

use serde_json::{Value, json};

/// Runs as root.
pub const ROOT_IMAGE: &str = "localhost/aigise-e2e:dev";
/// Uses up all memory and ends as what is killed for it ends. It is a child that is killed, and its parent ends later: where nothing
/// is left in the cgroup, systemd removes it, and if it does so before containerd has looked, nobody learns why the container ended.
pub const HOG: [&str; 3] = ["sh", "-c", "tail /dev/zero; code=$?; sleep 1; exit $code"];
/// Runs as the user 1000.
pub const USER_IMAGE: &str = "localhost/aigise-e2e-user:dev";

/// A session.
pub fn session(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "aigise.dev/v1alpha1", "kind": "AigiseSession", "metadata": {"name": name}, "spec": spec})
}

/// A session with plain sandboxes of these types and nothing else.
pub fn plain_session(name: &str, types: &[&str]) -> Value {
    session(name, json!({"sandboxes": plain(types)}))
}

/// The same with a source, the ConfigMap `files`: a Pod fills its volumes.
pub fn staged_session(name: &str, types: &[&str]) -> Value {
    let volumes = json!({"data": {"sources": [from_config_map("files", "in")]}});
    session(name, json!({"sandboxes": plain(types), "volumes": volumes}))
}

/// Plain sandboxes of these types.
pub fn plain(types: &[&str]) -> Value {
    types.iter().map(|sandbox_type| ((*sandbox_type).to_string(), json!({"image": ROOT_IMAGE}))).collect()
}

/// A Sandbox without a session.
pub fn sandbox(name: &str, spec: Value) -> Value {
    json!({"apiVersion": "aigise.dev/v1alpha1", "kind": "Sandbox", "metadata": {"name": name}, "spec": spec})
}

/// An agent of the session `s`.
pub fn agent(name: &str, mut spec: Value) -> Value {
    spec["session"] = json!("s");
    json!({"apiVersion": "aigise.dev/v1alpha1", "kind": "Agent", "metadata": {"name": name}, "spec": spec})
}

/// A ConfigMap of these files.
pub fn config_map(name: &str, files: &[(&str, &str)]) -> Value {
    let data: serde_json::Map<_, _> = files.iter().map(|(key, text)| ((*key).to_string(), json!(text))).collect();
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data})
}

/// Several objects in one.
pub fn list(items: &[Value]) -> Value {
    json!({"apiVersion": "v1", "kind": "List", "items": items})
}

/// A ConfigMap as a source, into a folder of the volume.
pub fn from_config_map(name: &str, path: &str) -> Value {
    json!({"configMap": {"name": name}, "path": path})
}

/// A condition of an object; null when it has none.
pub fn condition<'a>(object: &'a Value, kind: &str) -> &'a Value {
    let conditions = object["status"]["conditions"].as_array().into_iter().flatten();
    conditions.into_iter().find(|condition| condition["type"] == kind).unwrap_or(&Value::Null)
}

/// Why an object is or is not ready.
pub fn reason(object: &Value) -> &str {
    condition(object, "Ready")["reason"].as_str().unwrap_or_default()
}

/// The same for people.
pub fn message(object: &Value) -> &str {
    condition(object, "Ready")["message"].as_str().unwrap_or_default()
}

/// Whether the object says that it needs a person.
pub fn is_stalled(object: &Value) -> bool {
    condition(object, "Stalled")["status"] == "True"
}

/// The UID of an object.
pub fn uid(object: &Value) -> &str {
    object["metadata"]["uid"].as_str().expect("an object that is there")
}
