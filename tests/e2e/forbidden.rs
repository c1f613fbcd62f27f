//! What the rules of the namespace forbid: reported in the words of the API server, and well when the template keeps to them.

use serde_json::{Value, json};

use super::{
    ground::{Ground, Layout, for_each_layout},
    objects::{
        ROOT_IMAGE, USER_IMAGE, config_map, from_config_map, is_stalled, list, message, plain_session, sandbox,
        session, staged_session,
    },
    resumed::small_disk,
};

/// What the Pod Security Standard `restricted` asks of a container; the rest is in every Pod of ours.
fn restricted() -> Value {
    json!({"runAsNonRoot": true, "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}})
}

for_each_layout! {
    a_namespace_of_the_standard_restricted_holds_a_whole_session,
}

fn a_namespace_of_the_standard_restricted_holds_a_whole_session(layout: Layout) {
    let ground = Ground::laid_out(layout, "restricted");
    ground.enforce("restricted");
    let look = json!({"name": "look", "command": ["sh", "-c", "cat /shared/in/file /shared/etc/passwd >/shared/seen"]});
    let sources = json!([
        from_config_map("files", "in"),
        {"image": {"reference": ROOT_IMAGE, "path": "etc"}, "path": "etc"},
    ]);
    ground.apply(&list(&[
        config_map("files", &[("file", "of the map\n")]),
        session(
            "s",
            json!({
                "sandboxDefaults": {"image": USER_IMAGE, "securityContext": restricted()},
                "sandboxes": {"main": {"init": {"steps": [look]}}, "fuzz": {}},
                "volumes": {"data": {"sources": sources}},
            }),
        ),
    ]));
    ground.until_ready("asess/s");
    assert_eq!(ground.get("asb/s--main")["status"]["init"]["outcome"], "Succeeded");
    assert_eq!(ground.run("s--fuzz", "head -2 /shared/seen; id -u"), "of the map\nroot:x:0:0:root:/:/bin/sh\n1000");
}

/// The kubelet creates the folders of a claim: in a session without sources, for the Pod of the first sandbox.
#[test]
#[ignore = "needs a cluster: make e2e"]
fn the_folders_of_one_claim_have_the_group_and_the_mode_of_its_root() {
    for kind in ["local", "hostPath"] {
        let ground = Ground::laid_out(Layout::Single, "folders");
        let _disk = small_disk(&ground, kind);
        let closed = if kind == "local" { "chmod 0750 /disk" } else { "chgrp 65532 /disk && chmod 2770 /disk" };
        ground.kubectl(&["exec", "disk", "--", "sh", "-c", closed]).text();
        ground.enforce("restricted");
        let user = |id: i64| json!({"image": USER_IMAGE, "securityContext": {"runAsUser": id}});
        ground.apply(&session(
            "s",
            json!({
                "sandboxDefaults": {"securityContext": restricted()},
                "sandboxes": {"main": user(1000), "fuzz": user(2000)},
                "volumes": {"data": {"size": "1Mi", "storageClassName": ground.namespace}},
            }),
        ));
        ground.until_ready("asess/s");
        let root = ground.kubectl(&["exec", "disk", "--", "stat", "-c", "%a %g", "/disk"]).text();
        assert_eq!(root, "2770 65532\n", "{kind}");
        let folders = ground.run("s--main", "stat -c '%a %g' /shared /bash_tools /sandbox_scripts");
        assert_eq!(folders, root.repeat(3).trim_end(), "{kind}");
        for (writer, reader) in [("s--main", "s--fuzz"), ("s--fuzz", "s--main")] {
            ground.run(writer, &format!("echo {writer} >/shared/{writer} && echo {writer} >/bash_tools/{writer}"));
            assert_eq!(
                ground.run(reader, &format!("cat /shared/{writer} /bash_tools/{writer}")),
                format!("{writer}\n{writer}")
            );
        }
        let refused = ground.try_run("s--main", "echo x >/sandbox_scripts/x").complaint();
        assert!(refused.contains("Read-only file system"), "{refused}");
    }
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn a_pod_that_the_standard_forbids_is_reported_in_its_words_and_starts_when_the_template_keeps_to_it() {
    let ground = Ground::new("pod-security");
    ground.enforce("restricted");
    ground.apply(&plain_session("s", &["main"]));
    let words = "violates PodSecurity \"restricted";
    let refused = ground.until_not_ready("asb/s--main", "Forbidden");
    for word in [words, "allowPrivilegeEscalation != false", "runAsNonRoot != true"] {
        assert!(message(&refused).contains(word), "{}", message(&refused));
    }
    assert!(is_stalled(&refused), "nobody but a person can fix that");
    ground.until("asess/s", "has the words", |seen| message(seen).contains(words));

    // Allowed, and an image that runs as root nevertheless: then it is the kubelet that does not start it.
    let template = |part: Value| json!({"spec": {"sandboxes": {"main": part}}});
    ground.patch("asess/s", &template(json!({"securityContext": restricted()})));
    let root = ground.until_not_ready("asb/s--main", "ContainerConfig");
    assert!(message(&root).contains("image will run as root"), "{}", message(&root));
    ground.patch("asess/s", &template(json!({"image": USER_IMAGE})));
    ground.until_ready("asess/s");
    assert_eq!(ground.run("s--main", "id -u"), "1000");
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn a_limit_range_is_named_and_what_keeps_to_it_starts() {
    let ground = Ground::new("limit-range");
    ground.apply(&json!({
        "apiVersion": "v1",
        "kind": "LimitRange",
        "metadata": {"name": "small"},
        "spec": {"limits": [{"type": "Container", "max": {"memory": "64Mi"}}]},
    }));
    let wants = |memory: &str| {
        sandbox("big", json!({"type": "main", "image": ROOT_IMAGE, "resources": {"limits": {"memory": memory}}}))
    };
    ground.apply(&wants("128Mi"));
    let words = "maximum memory usage per Container is 64Mi, but limit is 128Mi";
    let refused = ground.until_not_ready("asb/big", "Forbidden");
    assert!(message(&refused).contains(words), "{}", message(&refused));
    assert!(message(&refused).contains("`resources` of a sandbox"), "{}", message(&refused));
    ground.apply(&wants("32Mi"));
    ground.until_ready("asb/big");
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn a_limit_range_or_quota_that_refuses_a_pod_is_reported_with_what_sets_its_resources() {
    let ground = Ground::new("stage-limits");
    ground.apply(&list(&[
        json!({
            "apiVersion": "v1",
            "kind": "LimitRange",
            "metadata": {"name": "least"},
            "spec": {"limits": [{"type": "Container", "min": {"cpu": "50m"}, "maxLimitRequestRatio": {"memory": "4"}}]},
        }),
        config_map("files", &[("file", "x")]),
        staged_session("s", &["main"]),
    ]));
    let refused = ground.until_not_ready("asess/s", "Forbidden");
    let least = "minimum cpu usage per Container is 50m, but request is 10m";
    for words in [least, "memory max limit to request ratio per Container is 4", "`helper.resources`"] {
        assert!(message(&refused).contains(words), "{words}: {}", message(&refused));
    }
    assert!(is_stalled(&refused));
    assert!(ground.get("pod/s--stage").is_null());

    ground.apply(&json!({
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        "metadata": {"name": "q"},
        "spec": {"hard": {"limits.memory": "4Gi"}},
    }));
    ground.kubectl(&["delete", "limitrange/least"]).text();
    // The stage Pod has a limit, the sandbox has none.
    let refused = ground.until_not_ready("asb/s--main", "Forbidden");
    for words in ["must specify limits.memory for: sandbox", "`resources` of a sandbox"] {
        assert!(message(&refused).contains(words), "{words}: {}", message(&refused));
    }
    ground.kubectl(&["delete", "resourcequota/q"]).text();
    ground.until_ready("asess/s");
}
