//! Claims that are there already, that grow, that outlive their session, or go under it.

use serde_json::{Value, json};

use super::{
    client::run,
    ground::{Ground, Layout, for_each_layout},
    objects::{
        ROOT_IMAGE, USER_IMAGE, condition, config_map, from_config_map, is_stalled, list, message, plain,
        plain_session, reason, session, uid,
    },
};

for_each_layout! {
    a_retained_claim_outlives_its_session_and_serves_the_next,
    a_session_without_clean_up_leaves_its_sandboxes_running,
    what_is_to_stay_may_change_while_the_session_runs,
    a_claim_grows_where_its_class_lets_it,
    a_claim_deleted_under_a_session_is_made_and_filled_anew_at_the_next_start,
    storage_that_ignores_the_group_is_named_by_its_class_and_used_once_it_is_prepared,
}

fn a_retained_claim_outlives_its_session_and_serves_the_next(layout: Layout) {
    let ground = Ground::laid_out(layout, "retain");
    let keeps = json!({"sandboxes": plain(&["main"]), "volumes": {"data": {"reclaim": "Retain"}}});
    ground.apply(&session("s", keeps.clone()));
    ground.until_ready("asess/s");
    ground.run("s--main", "echo kept >/shared/file");
    let kept = ground.get("pvc/s--data");
    // Foreground is how Argo CD deletes: what is owned goes before its owner.
    ground.kubectl(&["delete", "asess/s", "--cascade=foreground"]).text();
    for gone in ["pod/s--main", "pvc/s--scripts", "pvc/s--tools", "service/s", "networkpolicy/s"] {
        ground.until_gone(gone);
    }
    let after = ground.get("pvc/s--data");
    assert_eq!((uid(&after), &after["metadata"]["deletionTimestamp"]), (uid(&kept), &Value::Null));

    // Under the same name it is somebody else's: it has to be asked for.
    ground.apply(&session("s", keeps));
    let taken = ground.until_not_ready("asess/s", "NameTaken");
    assert!(message(&taken).contains("PersistentVolumeClaim s--data"), "{}", message(&taken));
    ground.kubectl(&["delete", "asess/s"]).text();
    let uses = match layout {
        Layout::Separate => json!({"claimName": "s--data"}),
        Layout::Single => json!({"sources": [{"persistentVolumeClaim": {"claimName": "s--data", "path": "data"}}]}),
    };
    ground.apply(&session("next", json!({"sandboxes": plain(&["main"]), "volumes": {"data": uses}})));
    ground.until_ready("asess/next");
    assert_eq!(ground.run("next--main", "cat /shared/file"), "kept");
    ground.kubectl(&["delete", "asess/next"]).text();
    ground.until_gone("pod/next--main");
    assert_eq!(uid(&ground.get("pvc/s--data")), uid(&kept), "a claim that was there already goes with a session");
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn an_existing_claim_is_waited_for_and_never_filled() {
    let ground = Ground::new("existing");
    ground.apply(&list(&[
        config_map("files", &[("file", "x")]),
        session(
            "s",
            json!({
                "sandboxes": plain(&["main"]),
                "volumes": {"scripts": {"claimName": "team"}, "data": {"sources": [from_config_map("files", "in")]}},
            }),
        ),
    ]));
    let waiting = ground.until_not_ready("asess/s", "ClaimNotFound");
    assert!(message(&waiting).contains("team"), "{}", message(&waiting));
    let claim = json!({"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "10Mi"}}});
    ground.apply(
        &json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "team"}, "spec": claim}),
    );
    let seen = ground.until_ready("asess/s");
    assert_eq!(seen["status"]["volumes"]["scripts"]["claimName"], "team");
    assert_eq!(ground.run("s--main", "ls -A /sandbox_scripts | grep aigise || echo nothing"), "nothing");
    assert_eq!(ground.run("s--main", "cat /shared/in/file"), "x");
    assert!(ground.get("pvc/s--scripts").is_null());
}

fn a_session_without_clean_up_leaves_its_sandboxes_running(layout: Layout) {
    let ground = Ground::laid_out(layout, "left-behind");
    ground.apply(&session("s", json!({"sandboxes": plain(&["main", "fuzz"]), "autoCleanup": false})));
    ground.until_ready("asess/s");
    ground.run("s--main", "echo kept >/shared/file");
    let pod = ground.get("pod/s--main");
    ground.kubectl(&["delete", "asess/s", "--cascade=foreground"]).text();
    ground.until_gone("asess/s");
    // Whatever the garbage collector does, it does at once.
    for left in ["asb/s--main", "asb/s--fuzz", "pvc/s--data", "service/s", "networkpolicy/s"] {
        let seen = ground.get(left);
        assert!(!seen.is_null() && seen["metadata"]["deletionTimestamp"].is_null(), "{left} went along");
    }
    assert_eq!(uid(&ground.get("pod/s--main")), uid(&pod));
    assert_eq!(ground.run("s--fuzz", "cat /shared/file"), "kept");
    assert_eq!(ground.get("asb/s--main")["status"]["state"], "ready");
    ground.kubectl(&["delete", "asb,pvc,service,networkpolicy", "-l", "aigise.dev/session=s", "--wait=false"]).text();
    for gone in ["asb/s--main", "pod/s--main", "pvc/s--data", "service/s", "networkpolicy/s"] {
        ground.until_gone(gone);
    }
}

fn what_is_to_stay_may_change_while_the_session_runs(layout: Layout) {
    let ground = Ground::laid_out(layout, "reclaim-later");
    ground.apply(&plain_session("s", &["main"]));
    ground.until_ready("asess/s");
    let owned = |object: &Value| !object["metadata"]["ownerReferences"][0].is_null();
    assert!(owned(&ground.get("pvc/s--data")) && owned(&ground.get("asb/s--main")));
    ground.patch("asess/s", &json!({"spec": {"autoCleanup": false}}));
    for child in ["pvc/s--data", "asb/s--main", "service/s", "networkpolicy/s"] {
        ground.until(child, "has no owner", |seen| !owned(seen));
    }
    ground.patch("asess/s", &json!({"spec": {"autoCleanup": true, "volumes": {"data": {"reclaim": "Retain"}}}}));
    let deleted = layout.claims("s").into_iter().skip(1).map(|claim| format!("pvc/{claim}"));
    for child in deleted.chain(["asb/s--main", "service/s", "networkpolicy/s"].map(String::from)) {
        let child = child.as_str();
        ground.until(child, "has its owner", owned);
    }
    assert!(!owned(&ground.get("pvc/s--data")));
    ground.until_ready("asess/s");
}

fn a_claim_grows_where_its_class_lets_it(layout: Layout) {
    let ground = Ground::laid_out(layout, "grow");
    let class = format!("grows-{}", ground.namespace);
    let expandable = json!({
        "apiVersion": "storage.k8s.io/v1",
        "kind": "StorageClass",
        "metadata": {"name": class, "labels": {"aigise-e2e": "grow"}},
        "provisioner": "rancher.io/local-path",
        "volumeBindingMode": "WaitForFirstConsumer",
        "allowVolumeExpansion": true,
    });
    run("kubectl", &["apply", "-f", "-"], &expandable.to_string()).text();
    let mut volumes = json!({"data": {"storageClassName": class, "size": "10Mi"}});
    if layout == Layout::Separate {
        volumes["tools"] = json!({"size": "10Mi"});
    }
    ground.apply(&session("s", json!({"sandboxes": plain(&["main"]), "volumes": volumes})));
    ground.until_ready("asess/s");
    ground.patch("asess/s", &json!({"spec": {"volumes": {"data": {"size": "20Mi"}}}}));
    ground.until("pvc/s--data", "asks for more", |claim| claim["spec"]["resources"]["requests"]["storage"] == "20Mi");
    ground.until_ready("asess/s");
    let shrink =
        ground.kubectl(&["patch", "asess/s", "--type=merge", "-p", r#"{"spec":{"volumes":{"data":{"size":"5Mi"}}}}"#]);
    assert!(shrink.complaint().contains("can only grow"));
    if layout == Layout::Separate {
        // The default class does not expand: the API server's words say so.
        ground.patch("asess/s", &json!({"spec": {"volumes": {"tools": {"size": "20Mi"}}}}));
        let refused = ground.until("asess/s", "says that it may not grow", |seen| reason(seen) == "Forbidden");
        assert!(message(&refused).contains("s--tools"), "{}", message(&refused));
    }
    run("kubectl", &["delete", "storageclass", &class], "").text();
}

fn a_claim_deleted_under_a_session_is_made_and_filled_anew_at_the_next_start(layout: Layout) {
    let ground = Ground::laid_out(layout, "claim-deleted");
    let volumes = json!({"data": {"sources": [from_config_map("files", "in")]}});
    let spec =
        |suspend: bool| session("s", json!({"sandboxes": plain(&["main"]), "volumes": volumes, "suspend": suspend}));
    ground.apply(&list(&[config_map("files", &[("file", "x")]), spec(false)]));
    ground.until_ready("asess/s");
    let before = ground.get("pvc/s--data");
    ground.delete("pvc/s--data");
    assert_eq!(ground.run("s--main", "cat /shared/in/file"), "x", "a claim in use stays until nobody uses it");
    ground.apply(&spec(true));
    ground.until("pvc/s--data", "is another one", |claim| {
        !claim.is_null() && claim["metadata"]["uid"] != before["metadata"]["uid"]
    });
    ground.apply(&spec(false));
    let seen = ground.until_ready("asess/s");
    assert_eq!(ground.run("s--main", "cat /shared/in/file"), "x");
    assert_eq!(condition(&seen, "VolumesReady")["status"], "True");
}

/// The kubelet does not apply `fsGroup` to a path of its node, and it creates the folder as root's alone.
fn storage_that_ignores_the_group_is_named_by_its_class_and_used_once_it_is_prepared(layout: Layout) {
    let ground = Ground::laid_out(layout, "closed");
    let class = format!("closed-{}", ground.namespace);
    let volume = json!({
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": class, "labels": {"aigise-e2e": "closed"}},
        "spec": {
            "accessModes": ["ReadWriteOnce"],
            "capacity": {"storage": "10Mi"},
            "hostPath": {"path": format!("/tmp/{class}"), "type": "DirectoryOrCreate"},
            "persistentVolumeReclaimPolicy": "Retain",
            "storageClassName": class,
        },
    });
    run("kubectl", &["apply", "-f", "-"], &volume.to_string()).text();
    let sources = json!({"storageClassName": class, "size": "10Mi", "sources": [from_config_map("files", "in")]});
    let sandboxes = json!({"user": {"image": USER_IMAGE}});
    ground.apply(&list(&[
        config_map("files", &[("file", "x")]),
        session("s", json!({"sandboxes": sandboxes, "volumes": {"data": sources}})),
    ]));
    let refused = ground.until_not_ready("asess/s", "VolumeNotWritable");
    let place = match layout {
        Layout::Separate => "the root folder of the volume data",
        Layout::Single => "The volume is the folder scripts of the claim",
    };
    for word in [class.as_str(), "s--data", "65532", place, "aigise.dev/restart"] {
        assert!(message(&refused).contains(word), "{word}: {}", message(&refused));
    }
    assert!(is_stalled(&refused) && !message(&refused).contains("source"), "{}", message(&refused));
    assert!(ground.names("asb", "").is_empty(), "sandboxes start over volumes that are not filled");

    let folder = if layout == Layout::Single { "/v/data /v/scripts /v/tools" } else { "/v" };
    ground.apply(&json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "prepare"},
        "spec": {
            "nodeName": ground.get("pod/s--stage")["spec"]["nodeName"],
            "restartPolicy": "Never",
            "containers": [{
                "name": "prepare",
                "image": ROOT_IMAGE,
                "command": ["sh", "-c", format!("chgrp 65532 {folder} && chmod g+rwxs {folder}")],
                "volumeMounts": [{"name": "data", "mountPath": "/v"}],
            }],
            "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "s--data"}}],
        },
    }));
    ground.until("pod/prepare", "has succeeded", |pod| pod["status"]["phase"] == "Succeeded");
    ground.kubectl(&["annotate", "asess/s", "aigise.dev/restart=1"]).text();
    ground.until_ready("asess/s");
    assert_eq!(ground.run("s--user", "cat /shared/in/file && echo written >/shared/new"), "x");

    if layout == Layout::Single {
        run("kubectl", &["delete", "persistentvolume", &class, "--wait=false"], "").text();
        return;
    }
    // Another session uses it as an existing claim.
    ground.apply(&session("next", json!({"sandboxes": sandboxes, "volumes": {"data": {"claimName": "s--data"}}})));
    ground.until_ready("asess/next");
    assert_eq!(ground.run("next--user", "cat /shared/new && echo again >/shared/newer"), "written");
    run("kubectl", &["delete", "persistentvolume", &class, "--wait=false"], "").text();
}
