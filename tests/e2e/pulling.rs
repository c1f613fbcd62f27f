//! Images that are pulled while the volumes of a session are filled.

use serde_json::{Value, json};

use super::{
    audit,
    client::run,
    ground::Ground,
    objects::{ROOT_IMAGE, is_stalled, message, reason, session},
};

/// A session of one sandbox, whose data volume is filled by a command that takes so many seconds.
fn filled_for(seconds: u32, image: &str) -> Value {
    let command = format!("sleep {seconds}; echo well >/volume/file");
    let source = json!({"container": {"image": ROOT_IMAGE, "command": ["sh", "-c", command]}});
    session("s", json!({"sandboxes": {"main": {"image": image}}, "volumes": {"data": {"sources": [source]}}}))
}

/// Containerd finds the image by this name, and lists it by another one. So it counts as missing, however soon the kubelet reports it.
#[test]
#[ignore = "needs a cluster: make e2e"]
fn an_image_is_pulled_on_the_node_while_a_command_fills_the_volume() {
    let ground = Ground::new("pull");
    let _operator = audit::operator_stays();
    let name = format!("library/aigise-e2e:{}", ground.namespace);
    let folder = tempfile::tempdir().unwrap();
    let archive = folder.path().join("pull.tar").display().to_string();
    run("tests/kind/image.sh", &[&archive, &format!("docker.io/{name}"), "target/image/e2e"], "").text();
    run("tests/kind/cluster", &["load", &archive], "").text();

    ground.apply(&filled_for(15, &format!("index.docker.io/{name}")));
    let pod = ground.until("pod/s--pull", "has a node", |pod| pod["spec"]["nodeName"].is_string());
    assert_eq!(pod["spec"]["nodeName"], ground.get("pod/s--stage")["spec"]["nodeName"]);
    ground.until_gone("pod/s--pull");
    assert_eq!(ground.get("asess/s")["status"]["phase"], "Staging");
    assert!(ground.names("asb", "").is_empty(), "sandboxes start over volumes that are not filled");
    ground.until_ready("asess/s");
    assert_eq!(ground.run("s--main", "cat /shared/file"), "well");

    let writes = audit::writes(&ground);
    let pull: Vec<_> = writes.iter().filter(|write| write.name == "s--pull").collect();
    let verbs: Vec<_> = pull.iter().map(|write| (write.verb.as_str(), write.resource.as_str())).collect();
    assert_eq!(verbs, [("create", "pods"), ("delete", "pods")], "{pull:?}");
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn an_image_that_is_not_there_is_named_before_the_volumes_are_filled() {
    let ground = Ground::new("pull-missing");
    let image = format!("localhost/not-there:{}", ground.namespace);
    ground.apply(&filled_for(30, &image));
    let waiting = ground.until("asess/s", "names the image", |seen| message(seen).contains(&image));
    let words = format!("The volumes are being filled. main: The image {image} cannot be pulled: ");
    assert!(message(&waiting).starts_with(&words), "{}", message(&waiting));
    assert_eq!((reason(&waiting), is_stalled(&waiting)), ("Staging", false));
    assert!(ground.get("asb/s--main").is_null(), "the volumes are not filled");
    ground.until_gone("pod/s--pull");
    ground.until_not_ready("asb/s--main", "ImagePull");
}

/// What refuses the Pod is not the session's business.
#[test]
#[ignore = "needs a cluster: make e2e"]
fn a_quota_that_refuses_the_pod_is_not_an_error() {
    let ground = Ground::new("pull-quota");
    ground.apply(&json!({
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "one"},
        "spec": {"hard": {"pods": "1"}},
    }));
    let image = format!("localhost/not-there:{}", ground.namespace);
    ground.apply(&filled_for(10, &image));
    ground.until("asess/s", "fills the volumes", |seen| reason(seen) == "Staging");
    let starting = ground.until("asess/s", "is filled", |seen| reason(seen) != "Staging");
    assert_eq!(reason(&starting), "SandboxesNotReady", "{}", message(&starting));
    let writes = audit::writes(&ground);
    let refused: Vec<_> = writes.iter().filter(|write| write.name == "s--pull").collect();
    assert!(refused.iter().all(|write| write.code == 403), "{refused:?}");
    // The operator may have been restarted meanwhile.
    assert!((1..=2).contains(&refused.len()), "{refused:?}");
}
