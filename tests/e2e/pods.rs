//! What becomes of a sandbox when its Pod goes, cannot start or ends.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{
    audit,
    client::run,
    ground::Ground,
    objects::{ROOT_IMAGE, condition, is_stalled, message, plain_session, reason, sandbox, session, uid},
};

/// What `at once` means to a user who looks.
const AT_ONCE: Duration = Duration::from_secs(2);

#[test]
#[ignore = "needs a cluster: make e2e"]
fn a_deleted_pod_leaves_ready_at_once_and_comes_back_with_its_data() {
    let _undisturbed = audit::operator_stays();
    let ground = Ground::new("pod-deleted");
    ground.apply(&plain_session("s", &["main", "fuzz"]));
    ground.until_ready("asess/s");
    ground.run("s--main", "echo kept >/shared/file");
    let before = ground.get("asb/s--main");
    let sibling = uid(&ground.get("pod/s--fuzz")).to_string();

    ground.delete("pod/s--main");
    let deleted = Instant::now();
    let seen = ground.until("asb/s--main", "is not ready", |sandbox| sandbox["status"]["state"] != "ready");
    let took = deleted.elapsed();
    assert!(took < AT_ONCE, "it took {took:?} to say so");
    assert_eq!(seen["status"]["state"], "uninitialized");
    assert_eq!(condition(&seen, "Ready")["status"], "False");
    ground.until("asess/s", "is not ready", |session| condition(session, "Ready")["status"] == "False");

    ground.until_ready("asess/s");
    let after = ground.get("asb/s--main");
    assert_eq!(after["status"]["state"], "ready");
    assert_ne!(after["status"]["podUID"], before["status"]["podUID"]);
    assert_eq!(after["status"]["podUID"], ground.get("pod/s--main")["metadata"]["uid"]);
    assert_eq!(ground.run("s--main", "cat /shared/file"), "kept");
    assert_eq!(uid(&ground.get("pod/s--fuzz")), sibling, "the sibling was started anew");
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn a_missing_image_is_named_and_the_sandbox_starts_when_it_comes() {
    let ground = Ground::new("image");
    let image = format!("localhost/aigise-e2e:{}", ground.namespace);
    ground.apply(&session("s", json!({"sandboxes": {"main": {"image": ROOT_IMAGE}, "late": {"image": image}}})));
    let waiting = ground.until_not_ready("asb/s--late", "ImagePull");
    assert!(message(&waiting).contains(&image), "{}", message(&waiting));
    assert_eq!(waiting["status"]["state"], "uninitialized");
    assert!(!is_stalled(&waiting));
    let blocked = ground.until("asess/s", "names the image", |session| message(session).contains(&image));
    assert!(message(&blocked).starts_with("late: "), "{}", message(&blocked));
    let event = ground.until_event("asb/s--late", "ImagePull");
    assert!(event.contains(&image), "{event}");

    let folder = tempfile::tempdir().unwrap();
    let archive = folder.path().join("late.tar").display().to_string();
    run("tests/kind/image.sh", &[&archive, &image, "target/image/e2e"], "").text();
    run("tests/kind/cluster", &["load", &archive], "").text();
    ground.until_ready("asess/s");
    ground.until_event("asb/s--late", "Ready");
    ground.until_event("asess/s", "Ready");
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn a_container_that_ends_is_an_error_until_its_pod_is_deleted() {
    let ground = Ground::new("ends");
    let ends_once = "test -e /shared/again || { touch /shared/again; exit 7; }; trap exit TERM; sleep 100000 & wait";
    ground.apply(&session(
        "s",
        json!({"sandboxes": {
            "main": {"image": ROOT_IMAGE},
            "ends": {"image": ROOT_IMAGE, "command": ["sh", "-c", ends_once], "restart": {"policy": "Never"}},
        }}),
    ));
    let ended = ground.until("asb/s--ends", "is in the state error", |seen| seen["status"]["state"] == "error");
    assert_eq!(reason(&ended), "ContainerEnded");
    assert!(message(&ended).contains("exit code 7"), "{}", message(&ended));
    assert!(is_stalled(&ended));
    let failed = ground.until_not_ready("asess/s", "SandboxFailed");
    assert!(message(&failed).contains("ends: ") && message(&failed).contains("exit code 7"), "{}", message(&failed));

    ground.delete("pod/s--ends");
    ground.until_ready("asess/s");
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn a_sandbox_without_a_session_becomes_ready() {
    let ground = Ground::new("alone");
    ground.apply(&sandbox("alone", json!({"type": "main", "image": ROOT_IMAGE})));
    let seen = ground.until_ready("asb/alone");
    assert_eq!(seen["status"]["state"], "ready");
    assert_eq!(
        ground.run("alone", "echo $AIGISE_SANDBOX_TYPE; ls -d /shared 2>/dev/null || echo no volume"),
        "main\nno volume"
    );
    ground.delete("asb/alone");
    ground.until_gone("pod/alone");
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn a_foreign_pod_that_has_the_name_is_never_touched() {
    let ground = Ground::new("foreign");
    ground.apply(&json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "s--main"},
        "spec": {"containers": [{"name": "sandbox", "image": ROOT_IMAGE}], "terminationGracePeriodSeconds": 1},
    }));
    let theirs = ground.until("pod/s--main", "runs", |pod| pod["status"]["phase"] == "Running");
    ground.apply(&plain_session("s", &["main"]));
    let taken = ground.until_not_ready("asb/s--main", "NameTaken");
    assert!(message(&taken).contains("Pod s--main"), "{}", message(&taken));
    assert!(is_stalled(&taken));
    let blocked = ground.until("asess/s", "names the Pod", |session| message(session).contains("Pod s--main"));
    assert_eq!(blocked["status"]["sandboxes"]["ready"], 0);
    assert_eq!(taken["status"]["podName"], json!(null), "the foreign Pod is shown as ours");

    let after = ground.get("pod/s--main");
    for part in ["uid", "labels", "annotations", "ownerReferences", "deletionTimestamp", "resourceVersion"] {
        assert_eq!(after["metadata"][part], theirs["metadata"][part], "{part} of the foreign Pod has changed");
    }
    // With the name free, the sandbox goes on.
    ground.delete("pod/s--main");
    ground.until_ready("asess/s");
}
