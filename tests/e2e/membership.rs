//! Sandboxes that users make: beside a session, inside of one, and over a Pod that is there already.

use serde_json::json;

use super::{
    ground::Ground,
    objects::{
        ROOT_IMAGE, condition, config_map, is_stalled, list, message, plain_session, sandbox, staged_session, uid,
    },
};

#[test]
#[ignore = "needs a cluster: make e2e"]
fn a_sandbox_alone_mounts_the_claims_that_it_names() {
    let ground = Ground::new("own-claims");
    let claim = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "10Mi"}}});
    let volume = |path: &str, read_only: bool| json!([{"name": "mine", "claimName": "mine", "mountPath": path, "readOnly": read_only}]);
    ground.apply(&list(&[
        json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "mine"}, "spec": claim}),
        sandbox("writer", json!({"type": "main", "image": ROOT_IMAGE, "volumes": volume("/mine", false)})),
        sandbox("reader", json!({"type": "main", "image": ROOT_IMAGE, "volumes": volume("/theirs", true)})),
        sandbox("bad", json!({"type": "main", "image": ROOT_IMAGE, "volumes": volume("/shared", false)})),
    ]));
    ground.until_ready("asb/writer");
    ground.run("writer", "echo hello >/mine/file");
    ground.until_ready("asb/reader");
    assert_eq!(ground.run("reader", "cat /theirs/file"), "hello");
    ground.try_run("reader", "touch /theirs/other").complaint();
    let bad = ground.until_not_ready("asb/bad", "InvalidSpec");
    assert!(message(&bad).contains("spec.volumes[0].mountPath"), "{}", message(&bad));
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn a_sandbox_made_by_hand_joins_a_session_and_goes_with_it() {
    let ground = Ground::new("by-hand");
    let extra = |name: &str, sandbox_type: &str| {
        sandbox(name, json!({"session": "s", "type": sandbox_type, "image": ROOT_IMAGE}))
    };
    ground.apply(&extra("mine", "extra"));
    ground.until_not_ready("asb/mine", "SessionNotFound");
    ground.apply(&list(&[config_map("files", &[("file", "x")]), staged_session("s", &["main"])]));
    ground.until_ready("asess/s");
    ground.until_ready("asb/mine");
    assert_eq!(ground.run("mine", "cat /shared/in/file; echo $AIGISE_SESSION"), "xs");
    ground.run("mine", "echo hand >/shared/hand");
    assert_eq!(ground.run("s--main", "cat /shared/hand"), "hand");
    let address = ground.get("pod/mine")["status"]["podIP"].as_str().unwrap().to_string();
    let said = ground.try_run("s--main", "ping -c 1 -W 2 extra.s");
    assert!(said.stdout.contains(&address), "{said:?}");

    ground.apply(&extra("second", "Extra"));
    let second = ground.until_not_ready("asb/second", "DuplicateType");
    assert!(is_stalled(&second) && message(&second).contains("mine"), "{}", message(&second));
    ground.apply(&extra("third", "main"));
    let third = ground.until_not_ready("asb/third", "DuplicateType");
    assert!(message(&third).contains("s--main"), "{}", message(&third));
    ground.delete("asb/mine");
    ground.until_ready("asb/second");

    ground.delete("asess/s");
    for left in ["asb/second", "asb/third", "pod/second", "asb/s--main"] {
        ground.until_gone(left);
    }
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn attaching_needs_the_consent_of_the_owner_and_touches_nothing() {
    let ground = Ground::new("attach");
    let theirs = || {
        json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "theirs"},
            "spec": {
                "terminationGracePeriodSeconds": 1,
                "containers": [
                    {"name": "work", "image": ROOT_IMAGE, "command": ["sleep", "100000"]},
                    {"name": "side", "image": ROOT_IMAGE, "command": ["sleep", "100000"]},
                ],
            },
        })
    };
    let guest = |attach| sandbox("guest", json!({"type": "main", "attach": attach}));
    let attach = json!({"podName": "theirs", "container": "work"});
    ground.apply(&guest(json!({"podName": "theirs"})));
    ground.until_not_ready("asb/guest", "PodNotFound");
    ground.apply(&theirs());
    let refused = ground.until_not_ready("asb/guest", "NotAttachable");
    assert!(message(&refused).contains("aigise.dev/attachable=guest"), "{}", message(&refused));
    ground.kubectl(&["annotate", "pod/theirs", "aigise.dev/attachable=somebody-else"]).text();
    ground.until_not_ready("asb/guest", "NotAttachable");
    ground.kubectl(&["annotate", "pod/theirs", "--overwrite", "aigise.dev/attachable=guest"]).text();
    let several =
        ground.until("asb/guest", "asks for the container", |seen| message(seen).contains("several containers"));
    assert!(message(&several).contains("work, side"), "{}", message(&several));
    ground.apply(&guest(attach));
    let ready = ground.until_ready("asb/guest");
    let pod = ground.get("pod/theirs");
    assert_eq!(condition(&ready, "Attached")["status"], "True");
    assert_eq!(ready["status"]["podUID"], pod["metadata"]["uid"]);
    assert_eq!(ready["status"]["podIP"], pod["status"]["podIP"]);
    assert!(ground.get("pod/guest").is_null(), "there is a Pod of its own beside");

    // Another Pod of the name is another Pod.
    ground.kubectl(&["delete", "pod/theirs"]).text();
    ground.until_not_ready("asb/guest", "PodNotFound");
    ground.apply(&theirs());
    ground.kubectl(&["annotate", "pod/theirs", "aigise.dev/attachable=guest"]).text();
    let replaced = ground.until_not_ready("asb/guest", "PodReplaced");
    assert_eq!(replaced["status"]["state"], "error");
    ground.kubectl(&["annotate", "asb/guest", "aigise.dev/restart=yes"]).text();
    ground.until_ready("asb/guest");

    // Detached by a template, it has a Pod of its own; deleted, it leaves the other alone.
    let before = ground.get("pod/theirs");
    ground.patch("asb/guest", &json!({"spec": {"attach": null, "image": ROOT_IMAGE}}));
    ground.until("asb/guest", "has its own Pod", |seen| seen["status"]["podName"] == "guest");
    ground.until_ready("asb/guest");
    ground.patch("asb/guest", &json!({"spec": {"image": null, "attach": {"podName": "theirs", "container": "work"}}}));
    ground.until_gone("pod/guest");
    ground.until_ready("asb/guest");
    ground.delete("asb/guest");
    ground.until_gone("asb/guest");
    let after = ground.get("pod/theirs");
    assert_eq!(uid(&after), uid(&before));
    assert_eq!(after["metadata"]["deletionTimestamp"], json!(null));
    assert_eq!(after["metadata"]["annotations"], before["metadata"]["annotations"]);
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn a_pod_of_the_operator_is_not_for_attaching() {
    let ground = Ground::new("attach-ours");
    ground.apply(&plain_session("s", &["main"]));
    ground.until_ready("asess/s");
    ground.kubectl(&["annotate", "pod/s--main", "aigise.dev/attachable=guest"]).text();
    ground.apply(&sandbox("guest", json!({"type": "main", "attach": {"podName": "s--main"}})));
    let refused = ground.until_not_ready("asb/guest", "NotAttachable");
    assert!(message(&refused).contains("belongs to this operator"), "{}", message(&refused));
}
