//! Sandboxes over a Pod that is there already: who has to agree, what they say of it, and that they leave it alone.

use serde_json::{Value, json};

use super::{
    ground::Ground,
    objects::{ROOT_IMAGE, condition, is_stalled, list, message, sandbox, session, uid},
};

/// A Pod of somebody else with two containers; `work` ends when it finds a file.
fn theirs(agrees_to: Option<&str>) -> Value {
    let works = "while [ ! -e /tmp/end ]; do sleep 0.2; done; exit 3";
    let annotations = agrees_to.map_or(json!({}), |name| json!({"aigise.dev/attachable": name}));
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "theirs", "annotations": annotations},
        "spec": {
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 0,
            "containers": [
                {"name": "work", "image": ROOT_IMAGE, "command": ["sh", "-c", works]},
                {"name": "side", "image": ROOT_IMAGE, "command": ["sleep", "100000"]},
            ],
        },
    })
}

/// What nobody but the owner of a Pod changes in it.
fn mark(pod: &Value) -> Value {
    let metadata = &pod["metadata"];
    json!([uid(pod), metadata["labels"], metadata["annotations"], metadata["ownerReferences"], metadata["finalizers"]])
}

#[track_caller]
fn is_left_alone(ground: &Ground, before: &Value) {
    let after = ground.get("pod/theirs");
    assert_eq!(mark(&after), mark(before));
    assert_eq!(after["metadata"]["deletionTimestamp"], Value::Null, "it is being deleted");
    for field in after["metadata"]["managedFields"].as_array().into_iter().flatten() {
        assert!(!field["manager"].as_str().unwrap().contains("aigise"), "the operator has written to it: {field}");
    }
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn an_attached_sandbox_says_what_its_pod_lacks_and_leaves_it_alone() {
    let ground = Ground::new("attached");
    let guest = |container: &str| {
        let attach = json!({"podName": "theirs", "container": container});
        sandbox("guest", json!({"type": "main", "attach": attach}))
    };
    ground.apply(&list(&[theirs(Some("guest")), guest("wrok")]));
    let wrong = ground.until_not_ready("asb/guest", "NotAttachable");
    assert!(message(&wrong).contains("has no container wrok; it has work, side"), "{}", message(&wrong));
    assert!(is_stalled(&wrong));
    ground.apply(&guest("work"));
    ground.until_ready("asb/guest");
    let pod = ground.get("pod/theirs");

    // Suspended, it is the sandbox that is inactive and not the Pod.
    ground.patch("asb/guest", &json!({"spec": {"suspend": true}}));
    ground.until("asb/guest", "is suspended", |seen| seen["status"]["phase"] == "Suspended");
    is_left_alone(&ground, &pod);
    ground.patch("asb/guest", &json!({"spec": {"suspend": null}}));
    ground.until_ready("asb/guest");

    // What was agreed to can be taken back.
    ground.kubectl(&["annotate", "pod/theirs", "aigise.dev/attachable-"]).text();
    let withdrawn = ground.until_not_ready("asb/guest", "NotAttachable");
    assert!(message(&withdrawn).contains("has not allowed"), "{}", message(&withdrawn));
    assert_eq!(condition(&withdrawn, "Attached")["status"], "False");
    assert_eq!(withdrawn["status"]["podIP"], Value::Null, "it still shows the Pod");
    ground.kubectl(&["annotate", "pod/theirs", "aigise.dev/attachable=guest"]).text();
    ground.until_ready("asb/guest");

    // The other container goes on, and is not what is worked in.
    ground.kubectl(&["exec", "theirs", "-c", "work", "--", "touch", "/tmp/end"]).text();
    let ended = ground.until_not_ready("asb/guest", "ContainerEnded");
    assert_eq!((&ended["status"]["state"], is_stalled(&ended)), (&json!("error"), true));
    for words in ["exit code 3", "Only the owner of the Pod"] {
        assert!(message(&ended).contains(words), "{}", message(&ended));
    }
    is_left_alone(&ground, &pod);
    ground.apply(&guest("side"));
    ground.until_ready("asb/guest");
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn a_type_of_a_session_works_in_a_pod_that_agrees_to_the_session() {
    let ground = Ground::new("attached-type");
    let sandboxes = json!({
        "main": {"image": ROOT_IMAGE},
        "db": {"attach": {"podName": "theirs", "container": "side"}},
    });
    let services = json!({"x": {"sandbox": "db", "port": 80}, "y": {"sandbox": "main", "port": 81, "path": "/y"}});
    ground.apply(&list(&[
        theirs(Some("another")),
        session("s", json!({"sandboxes": sandboxes, "mcpServices": services})),
    ]));
    let refused = ground.until_not_ready("asb/s--db", "NotAttachable");
    assert!(message(&refused).contains("aigise.dev/attachable=s"), "{}", message(&refused));
    ground.until("asess/s", "says so", |seen| message(seen).contains("aigise.dev/attachable=s"));
    ground.kubectl(&["annotate", "pod/theirs", "--overwrite", "aigise.dev/attachable=s"]).text();
    let ready = ground.until_ready("asess/s");
    assert_eq!(ready["status"]["sandboxes"]["summary"], "2/2");

    // Its services are where the Pod is; those of others are by name.
    let pod = ground.get("pod/theirs");
    let address = pod["status"]["podIP"].as_str().unwrap();
    let (attached, main) = (ground.get("asb/s--db"), ground.get("asb/s--main"));
    assert_eq!(attached["status"]["endpoints"], json!({"x": format!("http://{address}:80/sse")}));
    let name = format!("http://main.s.{}.svc:81/y", ground.namespace);
    assert_eq!(main["status"]["endpoints"], json!({ "y": name }));

    ground.patch("asess/s", &json!({"spec": {"suspend": true}}));
    ground.until("asess/s", "is suspended", |seen| {
        seen["status"]["phase"] == "Suspended" && condition(seen, "Reconciling")["status"] == "False"
    });
    is_left_alone(&ground, &pod);
    ground.patch("asess/s", &json!({"spec": {"suspend": null}}));
    ground.until_ready("asess/s");
    ground.delete("asess/s");
    ground.until_gone("asb/s--db");
    ground.until_gone("pod/s--main");
    is_left_alone(&ground, &pod);
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn what_describes_a_pod_of_its_own_excludes_attach() {
    let ground = Ground::new("attach-excludes");
    let fields = [
        ("image", json!(ROOT_IMAGE)),
        ("entrypoint", json!("Image")),
        ("command", json!(["true"])),
        ("env", json!([{"name": "A", "value": "b"}])),
        ("envFrom", json!([{"configMapRef": {"name": "a"}}])),
        ("workingDir", json!("/tmp")),
        ("resources", json!({"limits": {"cpu": "1"}})),
        ("securityContext", json!({"runAsUser": 1})),
        ("readinessProbe", json!({"exec": {"command": ["true"]}})),
        ("podTemplate", json!({"spec": {}})),
        ("init", json!({"skip": true})),
        ("mcpServices", json!(["x"])),
        ("restart", json!({"limit": 1})),
    ];
    let refused = |object: &Value| {
        ground.kubectl_reading(&["apply", "--dry-run=server", "-f", "-"], &object.to_string()).complaint()
    };
    for (field, value) in fields {
        let template = json!({"attach": {"podName": "theirs"}, field: value});
        let mut by_hand = sandbox("guest", template.clone());
        by_hand["spec"]["type"] = json!("main");
        let complaint = refused(&by_hand);
        assert!(complaint.contains("attach excludes") && complaint.contains(field), "{field}: {complaint}");
        let complaint = refused(&session("s", json!({"sandboxes": {"main": template}})));
        assert!(complaint.contains("attach excludes") && complaint.contains(field), "{field}: {complaint}");
    }
    // With nothing of these it is taken.
    let alone = sandbox("guest", json!({"type": "main", "attach": {"podName": "theirs"}}));
    ground.kubectl_reading(&["apply", "--dry-run=server", "-f", "-"], &alone.to_string()).text();
}
