//! Objects that stop an operator which reads whatever it is given: it starts beside them, and works for others.

use serde_json::{Map, Value, json};

use super::super::{
    client::{OPERATOR, kubectl, run},
    ground::Ground,
    objects::{ROOT_IMAGE, message, reason, sandbox},
};

/// Stores an object past all that a client may check.
fn store(ground: &Ground, plural: &str, object: &str) {
    let path = format!("/apis/aigise.dev/v1alpha1/namespaces/{}/{plural}", ground.namespace);
    run("kubectl", &["create", "--raw", &path, "-f", "-"], object).text();
}

/// A Sandbox with a pod template, which is written out.
fn sandbox_with(name: &str, template: &str) -> String {
    let spec = json!({"type": "main", "image": ROOT_IMAGE, "podTemplate": "here"});
    let object =
        json!({"apiVersion": "aigise.dev/v1alpha1", "kind": "Sandbox", "metadata": {"name": name}, "spec": spec});
    object.to_string().replace("\"here\"", template)
}

fn deep(levels: usize) -> String {
    format!("{}1{}", r#"{"a":"#.repeat(levels), "}".repeat(levels))
}

/// A session of which each type depends on all later ones.
fn all_later() -> Value {
    let name = |index: usize| format!("t{index:02}");
    let sandboxes: Map<_, _> = (0..32)
        .map(|index| {
            (name(index), json!({"image": ROOT_IMAGE, "dependsOn": (index + 1..32).map(name).collect::<Vec<_>>()}))
        })
        .collect();
    let spec = json!({"suspend": true, "sandboxes": sandboxes});
    json!({"apiVersion": "aigise.dev/v1alpha1", "kind": "AigiseSession", "metadata": {"name": "dag"}, "spec": spec})
}

/// How often the operator that runs now was started again.
fn restarts() -> i64 {
    let pods = ["-n", OPERATOR.0, "get", "pods", "-l", "app.kubernetes.io/name=aigise-operator", "-o", "json"];
    let pods: Value = serde_json::from_str(&kubectl(&pods).text()).unwrap();
    let running = pods["items"].as_array().unwrap().iter().filter(|pod| pod["metadata"]["deletionTimestamp"].is_null());
    let statuses = running.filter_map(|pod| pod["status"]["containerStatuses"].as_array());
    statuses.flatten().map(|status| status["restartCount"].as_i64().unwrap()).sum()
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn what_nobody_can_read_is_reported_and_others_are_served() {
    let (hostile, other) = (Ground::new("hostile"), Ground::new("other"));
    // Other tests have killed it.
    let mut before = restarts();
    let maps = vec![r#"{"a":0}"#; 150_000].join(",");
    for (name, template) in
        [("deep-124", deep(124)), ("deep-5000", deep(5000)), ("maps", format!(r#"{{"a":[{maps}]}}"#))]
    {
        store(&hostile, "sandboxes", &sandbox_with(name, &template));
    }
    store(&hostile, "aigisesessions", &all_later().to_string());
    // In a watch, and in the list of a start.
    for round in ["watched", "listed"] {
        other.apply(&sandbox(round, json!({"type": "main", "image": ROOT_IMAGE})));
        other.until_ready(&format!("asb/{round}"));
        assert_eq!(restarts(), before, "{round}");
        kubectl(&["-n", OPERATOR.0, "rollout", "restart", OPERATOR.1]).text();
        kubectl(&["-n", OPERATOR.0, "rollout", "status", OPERATOR.1, "--timeout", "120s"]).text();
        before = 0; // it is another Pod
    }
    // Its client may not read these either.
    let said = |name: &str| {
        let path = "jsonpath={.status.conditions[?(@.type==\"Ready\")].reason}: {.status.conditions[?(@.type==\"Ready\")].message}";
        kubectl(&["-n", &hostile.namespace, "get", "asb", name, "-o", path]).stdout
    };
    let events = kubectl(&[
        "-n",
        &hostile.namespace,
        "get",
        "events",
        "-o",
        "jsonpath={range .items[*]}{.reason} {.involvedObject.name} {.message}{\"\\n\"}{end}",
    ])
    .text();
    for (name, words) in [("deep-124", "100 levels"), ("deep-5000", "100 levels"), ("maps", "16000 values")] {
        let is_in_event =
            events.lines().any(|line| line.starts_with(&format!("Unreadable {name} ")) && line.contains(words));
        assert!(is_in_event, "{name}: {events}");
    }
    assert!(said("deep-124").starts_with("Unreadable: "), "{}", said("deep-124"));
    let dag = hostile.get("asess/dag");
    assert!(reason(&dag).is_empty() && message(&dag).is_empty(), "it is suspended: {dag}");
    assert_eq!(dag["status"]["phase"], "Suspended");
}
