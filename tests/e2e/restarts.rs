//! Sandboxes whose container ends, is taken away, or is started anew by its user.

use serde_json::{Value, json};

use super::{
    ground::Ground,
    objects::{HOG, ROOT_IMAGE, condition, is_stalled, message, plain_session, reason, sandbox, session, uid},
};

#[test]
#[ignore = "needs a cluster: make e2e"]
fn a_container_that_ends_is_started_again_until_the_limit() {
    let ground = Ground::new("restarts");
    let restart = json!({"policy": "Always", "limit": 2});
    ground.apply(&sandbox(
        "ends",
        json!({"type": "main", "image": ROOT_IMAGE, "command": ["sh", "-c", "exit 7"], "restart": restart}),
    ));
    let first = ground.until("asb/ends", "is about to be started again", |seen| reason(seen) == "Restarting");
    assert!(message(&first).contains("exit code 7"), "{}", message(&first));
    assert_eq!(first["status"]["state"], "uninitialized");
    let last = ground.until("asb/ends", "is in the state error", |seen| seen["status"]["state"] == "error");
    assert_eq!((reason(&last), last["status"]["restarts"].as_i64()), ("ContainerEnded", Some(2)));
    assert!(is_stalled(&last) && message(&last).contains("exit code 7"), "{}", message(&last));

    // A template that works begins anew.
    ground.patch("asb/ends", &json!({"spec": {"command": null}}));
    let fixed = ground.until_ready("asb/ends");
    assert_eq!(fixed["status"]["restarts"], Value::Null);
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn a_container_that_ends_well_is_finished_if_that_is_all_that_was_wanted() {
    let ground = Ground::new("finished");
    let beside = json!({"name": "beside", "image": ROOT_IMAGE, "command": ["sleep", "100000"]});
    let once = json!({
        "image": ROOT_IMAGE,
        "command": ["sh", "-c", "echo done | tee /shared/result"],
        "restart": {"policy": "OnFailure"},
        "podTemplate": {"spec": {"terminationGracePeriodSeconds": 1, "containers": [{"name": "sandbox"}, beside]}},
    });
    ground.apply(&session("s", json!({"sandboxes": {"main": {"image": ROOT_IMAGE}, "once": once}})));
    // A Ready that nobody has owned yet is owned once before it is left out: who is quick sees it.
    let finished = ground.until("asb/s--once", "has finished", |seen| {
        seen["status"]["phase"] == "Finished" && condition(seen, "Ready").is_null()
    });
    assert_eq!(condition(&finished, "Stalled")["status"], "False");
    // Before that it may have been ready with two.
    ground.until("asess/s", "is ready with one", |seen| {
        condition(seen, "Ready")["status"] == "True" && seen["status"]["sandboxes"]["summary"] == "1/2"
    });
    assert_eq!(ground.run("s--main", "cat /shared/result"), "done");
    // A container that never ends keeps neither the Pod's resources nor its log.
    let before = ground.until("pod/s--once", "has ended as a whole", |pod| pod["status"]["phase"] == "Failed");
    assert_eq!(ground.kubectl(&["logs", "s--once", "-c", "sandbox"]).text().trim(), "done");
    let still = ground.get("asb/s--once");
    assert_eq!((&still["status"]["phase"], &still["status"]["exitCode"]), (&json!("Finished"), &json!(0)));
    assert_eq!(still["status"]["podUID"], before["metadata"]["uid"]);
    ground.kubectl(&["annotate", "asb/s--once", "aigise.dev/restart=again"]).text();
    ground.until("asb/s--once", "has finished again", |seen| {
        seen["status"]["phase"] == "Finished" && seen["status"]["podUID"] != before["metadata"]["uid"]
    });
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn a_container_that_uses_too_much_memory_says_so() {
    let ground = Ground::new("oom");
    ground.apply(&sandbox(
        "hungry",
        json!({
            "type": "main",
            "image": ROOT_IMAGE,
            "command": HOG,
            "resources": {"limits": {"memory": "64Mi"}},
            "restart": {"limit": 0},
        }),
    ));
    assert_eq!(ground.until_out_of_memory("hungry")["status"]["state"], "error");
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn a_pod_that_the_kubelet_evicts_comes_back() {
    let ground = Ground::new("evicted");
    let once = "test -e /shared/again || { touch /shared/again; dd if=/dev/zero of=/tmp/big bs=1M count=64; }; \
                trap exit TERM; sleep 100000 & wait";
    let main = json!({
        "image": ROOT_IMAGE,
        "command": ["sh", "-c", once],
        "resources": {"limits": {"ephemeral-storage": "16Mi"}},
    });
    ground.apply(&session("s", json!({"sandboxes": {"main": main}})));
    let lost = ground.until("asb/s--main", "is reported as evicted", |seen| message(seen).contains("Evicted"));
    assert_eq!((reason(&lost), lost["status"]["state"].as_str()), ("Restarting", Some("uninitialized")));
    let back = ground.until_ready("asess/s");
    assert_eq!(back["status"]["sandboxes"]["summary"], "1/1");
    assert_eq!(ground.get("asb/s--main")["status"]["restarts"], 1);
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn a_pod_that_is_drained_comes_back_and_counts_as_nothing() {
    let ground = Ground::new("drained");
    ground.apply(&plain_session("s", &["main"]));
    ground.until_ready("asess/s");
    let before = ground.get("pod/s--main");
    let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": "s--main"}});
    let path = format!("/api/v1/namespaces/{}/pods/s--main/eviction", ground.namespace);
    ground.kubectl_reading(&["create", "--raw", &path, "-f", "-"], &eviction.to_string()).text();
    let back = ground.until("asb/s--main", "is ready with another Pod", |seen| {
        seen["status"]["state"] == "ready" && seen["status"]["podUID"] != before["metadata"]["uid"]
    });
    assert_eq!(back["status"]["restarts"], Value::Null);
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn the_restart_annotation_starts_a_sandbox_or_all_that_are_not_ready() {
    let ground = Ground::new("restart-by-hand");
    let fails_once = "test -e /shared/again || { touch /shared/again; exit 3; }; trap exit TERM; sleep 100000 & wait";
    let flaky = json!({"image": ROOT_IMAGE, "command": ["sh", "-c", fails_once], "restart": {"policy": "Never"}});
    ground.apply(&session("s", json!({"sandboxes": {"main": {"image": ROOT_IMAGE}, "flaky": flaky}})));
    ground.until_not_ready("asess/s", "SandboxFailed");
    ground.until_ready("asb/s--main");
    let main = ground.get("pod/s--main");
    ground.kubectl(&["annotate", "asess/s", "aigise.dev/restart=one"]).text();
    ground.until_ready("asess/s");
    assert_eq!(uid(&ground.get("pod/s--main")), uid(&main), "one that was ready was started again");

    ground.kubectl(&["annotate", "asb/s--main", "aigise.dev/restart=one"]).text();
    ground.until("asb/s--main", "is ready with another Pod", |seen| {
        seen["status"]["state"] == "ready" && seen["status"]["podUID"] != main["metadata"]["uid"]
    });
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn a_changed_template_is_taken_at_once_where_that_is_wanted() {
    let ground = Ground::new("recreate");
    ground.apply(&sandbox("r", json!({"type": "main", "image": ROOT_IMAGE, "updatePolicy": "Recreate"})));
    ground.until_ready("asb/r");
    let before = ground.get("pod/r");
    ground.patch("asb/r", &json!({"spec": {"restart": {"limit": 9}}}));
    ground.until("asb/r", "is seen", |seen| seen["status"]["observedGeneration"] == seen["metadata"]["generation"]);
    assert_eq!(uid(&ground.get("pod/r")), uid(&before), "how often it is restarted does not concern its Pod");
    ground.patch("asb/r", &json!({"spec": {"env": [{"name": "NEW", "value": "yes"}]}}));
    ground.until("asb/r", "is ready with another Pod", |seen| {
        seen["status"]["state"] == "ready" && seen["status"]["podUID"] != before["metadata"]["uid"]
    });
    assert_eq!(ground.run("r", "echo $NEW"), "yes");
}
