//! Why it is not ready: the first cause, in one message, on the sandbox and on the session.

use std::time::Duration;

use serde_json::{Value, json};

use super::{
    ground::Ground,
    objects::{
        ROOT_IMAGE, config_map, is_stalled, list, message, plain, plain_session, reason, sandbox, session,
        staged_session, uid,
    },
};

#[test]
#[ignore = "needs a cluster: make e2e"]
fn a_quota_is_named_and_its_end_is_noticed() {
    let ground = Ground::new("quota");
    let quota = |pods: u32| {
        let spec = json!({"hard": {"pods": pods.to_string()}});
        json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "few"}, "spec": spec})
    };
    ground.apply(&quota(1));
    ground.until("resourcequota/few", "is counted", |seen| !seen["status"]["used"].is_null());
    ground.apply(&plain_session("s", &["main", "fuzz"]));
    let blocked = ground.until("asess/s", "names the quota", |seen| message(seen).contains("exceeded quota: few"));
    assert!(!is_stalled(&blocked), "it goes on by itself");
    let names = ["asb/s--main", "asb/s--fuzz"];
    let refused = names.into_iter().find(|name| super::objects::reason(&ground.get(name)) == "QuotaExceeded");
    assert!(refused.is_some(), "no sandbox says so");
    ground.apply(&quota(5));
    ground.until_ready("asess/s");
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn a_pod_that_fits_nowhere_is_reported_in_the_schedulers_words() {
    let ground = Ground::new("no-node");
    let big = |cpu: &str| {
        sandbox("big", json!({"type": "main", "image": ROOT_IMAGE, "resources": {"requests": {"cpu": cpu}}}))
    };
    ground.apply(&big("1000"));
    let waiting = ground.until_not_ready("asb/big", "Unschedulable");
    assert!(message(&waiting).contains("Insufficient cpu"), "{}", message(&waiting));
    assert!(!is_stalled(&waiting));
    ground.apply(&big("10m"));
    ground.until_ready("asb/big");
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn a_missing_claim_or_secret_is_named() {
    let ground = Ground::new("missing");
    let volumes = json!([{"name": "gone", "claimName": "gone", "mountPath": "/gone"}]);
    let from = json!([{"secretRef": {"name": "no-such-secret"}}]);
    ground.apply(&list(&[
        sandbox("claim", json!({"type": "main", "image": ROOT_IMAGE, "volumes": volumes})),
        sandbox("secret", json!({"type": "main", "image": ROOT_IMAGE, "envFrom": from})),
    ]));
    let claim = ground.until_not_ready("asb/claim", "ClaimNotReady");
    assert!(message(&claim).contains("\"gone\" not found"), "{}", message(&claim));
    let secret = ground.until_not_ready("asb/secret", "ContainerConfig");
    assert!(message(&secret).contains("no-such-secret"), "{}", message(&secret));
    ground.apply(&json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "no-such-secret"}}));
    ground.until_ready("asb/secret");
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn what_the_api_server_refuses_is_stalled_with_its_words() {
    let ground = Ground::new("api-refuses");
    let affinity = json!({"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [
        {"matchExpressions": [{"key": "a", "operator": "NoSuchOperator"}]},
    ]}}});
    let template = json!({"spec": {"affinity": affinity}});
    ground.apply(&sandbox("bad", json!({"type": "main", "image": ROOT_IMAGE, "podTemplate": template})));
    let refused = ground.until_not_ready("asb/bad", "Refused");
    assert!(is_stalled(&refused) && message(&refused).contains("NoSuchOperator"), "{}", message(&refused));
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn a_command_that_is_not_in_the_image_is_reported() {
    let ground = Ground::new("no-command");
    let main = json!({"image": ROOT_IMAGE, "command": ["/no/such/program"], "restart": {"limit": 1}});
    ground.apply(&session("s", json!({"sandboxes": {"main": main}})));
    let failed = ground.until_not_ready("asess/s", "SandboxFailed");
    assert!(message(&failed).contains("/no/such/program"), "{}", message(&failed));
    assert_eq!(ground.get("asb/s--main")["status"]["restarts"], 1);
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn a_session_deleted_while_it_stages_or_starts_leaves_nothing() {
    let ground = Ground::new("deleted-early");
    ground.apply(&list(&[config_map("files", &[("file", "x")]), staged_session("staging", &["main"])]));
    ground.until("pod/staging--stage", "is there", |pod| !pod.is_null());
    ground.apply(&plain_session("starting", &["main", "fuzz"]));
    ground.until("pod/starting--main", "is there", |pod| !pod.is_null());
    ground.kubectl(&["delete", "asess/staging", "asess/starting"]).text();
    for kind in ["pod", "asb", "pvc", "service", "networkpolicy"] {
        for name in ground.names(kind, "app.kubernetes.io/managed-by=aigise-operator") {
            ground.until_gone(&format!("{kind}/{name}"));
        }
    }
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn a_session_made_anew_at_once_waits_for_its_predecessor() {
    let ground = Ground::new("at-once");
    ground.apply(&plain_session("s", &["main"]));
    ground.until_ready("asess/s");
    let old = ground.get("pod/s--main");
    ground.kubectl(&["delete", "asess/s", "--wait=false"]).text();
    ground.until_gone("asess/s");
    ground.apply(&plain_session("s", &["main"]));
    ground.until_ready("asess/s");
    assert_ne!(uid(&ground.get("pod/s--main")), uid(&old));
    assert_eq!(ground.run("s--main", "echo well"), "well");
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn sessions_whose_names_nest_do_not_meet() {
    let ground = Ground::new("nest");
    ground.apply(&list(&[plain_session("a", &["b-main"]), plain_session("a-b", &["main"])]));
    ground.until_ready("asess/a");
    ground.until_ready("asess/a-b");
    assert_eq!(ground.run("a--b-main", "echo $AIGISE_SESSION"), "a");
    assert_eq!(ground.run("a-b--main", "echo $AIGISE_SESSION"), "a-b");
    ground.kubectl(&["delete", "asess/a"]).text();
    ground.until_gone("pod/a--b-main");
    assert_eq!(ground.get("asb/a-b--main")["status"]["state"], "ready");
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn names_at_their_limits_work() {
    let ground = Ground::new("limits");
    let name = format!("s{}", "x".repeat(39));
    let sandbox_type = format!("T{}", "y".repeat(20));
    ground.apply(&session(&name, json!({"sandboxes": {sandbox_type.as_str(): {"image": ROOT_IMAGE}}})));
    ground.until_ready(&format!("asess/{name}"));
    let pod = format!("{name}--{}", sandbox_type.to_lowercase());
    assert_eq!(pod.len(), 63);
    assert_eq!(ground.run(&pod, "hostname"), sandbox_type.to_lowercase());
}

/// A kubelet says why it cannot mount a volume only in an event.
#[test]
#[ignore = "needs a cluster: make e2e"]
fn a_secret_that_a_template_mounts_and_that_is_missing_is_named() {
    let ground = Ground::new("mount");
    let spec = json!({
        "volumes": [{"name": "key", "secret": {"secretName": "gone"}}],
        "containers": [{"name": "sandbox", "volumeMounts": [{"name": "key", "mountPath": "/key"}]}],
    });
    ground.apply(&session("s", json!({"sandboxes": {"main": {"image": ROOT_IMAGE, "podTemplate": {"spec": spec}}}})));
    let waits = ground.until("asess/s", "names the secret", |seen| message(seen).contains("secret \"gone\" not found"));
    assert!(!is_stalled(&waits), "{waits}");
    ground.apply(&json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "gone"}}));
    ground.until_ready("asess/s");
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn a_service_that_an_initialiser_waits_for_is_named_and_has_a_limit() {
    let ground = Ground::new("awaited");
    let main = json!({"image": ROOT_IMAGE, "mcpServices": ["gdb"], "init": {"serviceTimeout": "100s"}});
    let services = json!({"gdb": {"sandbox": "main", "port": 4711}});
    ground.apply(&session("s", json!({"sandboxes": {"main": main}, "mcpServices": services})));
    let names = |seen: &Value| message(seen).contains("It waits: the service gdb has not answered since");
    let waits = ground.until_within(Duration::from_secs(150), "asb/s--main", "names the service", names);
    assert!(message(&waits).contains("connection refused"), "{}", message(&waits));
    let failed = ground.until_not_ready("asb/s--main", "InitFailed");
    assert!(message(&failed).contains("did not answer for 100 s: connection refused"), "{}", message(&failed));
}

/// Queues keep a finalizer on Pods, and the node is well.
#[test]
#[ignore = "needs a cluster: make e2e"]
fn a_finalizer_that_holds_a_pod_is_named_and_the_next_pod_follows_it() {
    let ground = Ground::new("finalizer");
    ground.apply(&session("s", json!({"sandboxes": plain(&["main"])})));
    ground.until_ready("asess/s");
    ground.patch("pod/s--main", &json!({"metadata": {"finalizers": ["queue.example.com/accounting"]}}));
    ground.kubectl(&["delete", "pod", "s--main", "--wait=false"]);
    let names = |seen: &Value| message(seen).contains("queue.example.com/accounting");
    let held = ground.until_within(Duration::from_secs(150), "asb/s--main", "names the finalizer", names);
    assert_eq!(reason(&held), "PodTerminating", "{}", message(&held));
    assert!(!message(&held).contains("taint"), "{}", message(&held));
    ground.patch("pod/s--main", &json!({"metadata": {"finalizers": null}}));
    ground.until_ready("asess/s");
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn a_claim_that_is_being_deleted_is_reported_while_the_session_runs() {
    let ground = Ground::new("loss");
    let claim = json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "own"}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "10Mi"}}}});
    ground.apply(&claim);
    ground.apply(&session("s", json!({"sandboxes": plain(&["main"]), "volumes": {"tools": {"claimName": "own"}}})));
    ground.until_ready("asess/s");
    ground.kubectl(&["delete", "pvc", "s--data", "--wait=false"]);
    let said = ground.until_not_ready("asess/s", "ClaimTerminating");
    assert!(message(&said).contains("s--data") && said["status"]["phase"] == "Ready", "{said}");
    ground.patch("asess/s", &json!({"spec": {"suspend": true}}));
    ground.until_gone("pod/s--main");
    ground.patch("asess/s", &json!({"spec": {"suspend": false}}));
    ground.until_ready("asess/s");
    ground.kubectl(&["delete", "pvc", "own", "--wait=false"]);
    let names = |seen: &Value| message(seen).contains("The claim own is being deleted");
    ground.until_within(Duration::from_secs(75), "asess/s", "names the existing claim", names);
}
