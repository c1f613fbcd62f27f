//! The resources that a session requests, before and after its volumes are filled.

use serde_json::{Value, json};

use super::{
    ground::Ground,
    objects::{ROOT_IMAGE, is_stalled, list, message, reason, session},
};

/// Two sandboxes that ask for so much memory each, over a volume with a source.
fn asking_for(memory: &str) -> Value {
    let sandbox = json!({"image": ROOT_IMAGE, "resources": {"requests": {"memory": memory, "cpu": "10m"}, "limits": {"memory": memory}}});
    let source = json!({"image": {"reference": ROOT_IMAGE, "path": "etc"}});
    session("s", json!({"sandboxes": {"main": sandbox, "fuzz": sandbox}, "volumes": {"data": {"sources": [source]}}}))
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn a_session_that_fits_on_no_node_says_so_before_it_fills_its_volumes_and_goes_on_when_it_fits() {
    let ground = Ground::new("requests");
    ground.apply(&asking_for("900Gi"));
    let words = "The Pod that fills the volumes requests the resources of all sandboxes: 0/";
    let waiting = ground.until("asess/s", "says so", |seen| message(seen).starts_with(words));
    assert!(message(&waiting).contains("Insufficient memory"), "{}", message(&waiting));
    assert_eq!((reason(&waiting), is_stalled(&waiting)), ("Staging", false), "a node may come");
    let asked = ground.get("pod/s--stage")["spec"]["containers"][0]["resources"].clone();
    assert_eq!(asked["requests"], json!({"cpu": "20m", "memory": "1800Gi"}));

    ground.apply(&asking_for("20Mi"));
    ground.until_ready("asess/s");
    let asked = ground.get("pod/s--stage")["spec"]["containers"][0]["resources"].clone();
    assert_eq!(asked["requests"], json!({"cpu": "20m", "memory": "40Mi"}));
}

/// The stage Pod has ended when the sandboxes come, and counts no more.
#[test]
#[ignore = "needs a cluster: make e2e"]
fn a_quota_that_holds_the_sandboxes_holds_the_stage_pod_before_them() {
    let ground = Ground::new("quota");
    ground.apply(&list(&[json!({
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "all"},
        "spec": {"hard": {"requests.memory": "40Mi", "requests.cpu": "20m"}},
    })]));
    ground.apply(&asking_for("20Mi"));
    ground.until_ready("asess/s");
    assert_eq!(ground.names("pod", "app.kubernetes.io/component=sandbox").len(), 2);
}
