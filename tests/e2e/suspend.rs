//! Sessions and sandboxes that rest, and those whose time is over.

use serde_json::{Value, json};

use super::{
    ground::{Ground, Layout, for_each_layout},
    objects::{ROOT_IMAGE, condition, config_map, from_config_map, list, plain, plain_session, reason, session, uid},
};

for_each_layout! {
    a_suspended_session_keeps_its_data_and_comes_back,
    a_session_whose_time_is_over_keeps_only_what_is_to_be_kept,
}

/// What kstatus takes for Current: no condition that says otherwise, and seen by the operator.
fn is_current(object: &Value) -> bool {
    let seen = object["status"]["observedGeneration"] == object["metadata"]["generation"];
    let is = |kind, status| condition(object, kind)["status"] == status;
    seen && !is("Reconciling", "True") && !is("Stalled", "True") && !is("Ready", "False") && !is("Ready", "Unknown")
}

fn is_inactive(object: &Value) -> bool {
    condition(object, "Suspended")["status"] == "True" && condition(object, "Ready").is_null() && is_current(object)
}

fn a_suspended_session_keeps_its_data_and_comes_back(layout: Layout) {
    let ground = Ground::laid_out(layout, "suspend");
    ground.apply(&plain_session("s", &["main", "fuzz"]));
    ground.until_ready("asess/s");
    ground.run("s--main", "echo kept >/shared/file");
    let claim = ground.get("pvc/s--data");

    ground.patch("asess/s", &json!({"spec": {"suspend": true}}));
    let suspended = ground.until("asess/s", "is inactive", is_inactive);
    assert_eq!(suspended["status"]["phase"], "Suspended");
    assert!(ground.names("pod", "").is_empty(), "{:?}", ground.names("pod", ""));
    assert!(is_inactive(&ground.get("asb/s--main")) && is_inactive(&ground.get("asb/s--fuzz")));
    assert_eq!(uid(&ground.get("pvc/s--data")), uid(&claim));

    ground.patch("asess/s", &json!({"spec": {"suspend": false}}));
    ground.until_ready("asess/s");
    assert_eq!(ground.run("s--fuzz", "cat /shared/file"), "kept");
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn a_session_is_suspended_during_its_start_and_resumed_during_its_end() {
    let ground = Ground::new("suspend-early");
    let spec = |suspend: bool| {
        let volumes = json!({"data": {"sources": [from_config_map("files", "in")]}});
        session("s", json!({"sandboxes": plain(&["main", "fuzz"]), "volumes": volumes, "suspend": suspend}))
    };
    ground.apply(&list(&[config_map("files", &[("file", "x")]), spec(false)]));
    ground.until("pod/s--stage", "is there", |pod| !pod.is_null());
    ground.apply(&spec(true));
    ground.until("asess/s", "is inactive", is_inactive);
    assert!(ground.names("pod", "").is_empty(), "the stage Pod goes on");

    ground.apply(&spec(false));
    ground.until("pod/s--main", "runs", |pod| pod["status"]["phase"] == "Running");
    let before = ground.get("pod/s--main");
    ground.apply(&spec(true));
    ground.until("pod/s--main", "is going", |pod| pod.is_null() || !pod["metadata"]["deletionTimestamp"].is_null());
    ground.apply(&spec(false));
    ground.until_ready("asess/s");
    assert_ne!(uid(&ground.get("pod/s--main")), uid(&before));
    assert_eq!(ground.run("s--main", "cat /shared/in/file"), "x");
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn a_session_that_is_made_suspended_makes_no_pod_until_it_is_resumed() {
    let ground = Ground::new("suspend-born");
    let spec = |suspend: bool| session("s", json!({"sandboxes": plain(&["main"]), "suspend": suspend}));
    ground.apply(&spec(true));
    ground.until("asess/s", "is inactive", is_inactive);
    assert!(ground.names("pod", "").is_empty());
    ground.apply(&spec(false));
    ground.until_ready("asess/s");
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn one_sandbox_is_suspended_by_its_user_and_the_session_leaves_it_so() {
    let ground = Ground::new("suspend-one");
    ground.apply(&plain_session("s", &["main", "fuzz"]));
    ground.until_ready("asess/s");
    ground.patch("asb/s--fuzz", &json!({"spec": {"suspend": true}}));
    ground.until("asb/s--fuzz", "is inactive", is_inactive);
    ground.until_gone("pod/s--fuzz");
    // The session takes it for what was wanted, also when it writes to the Sandbox for another reason.
    ground.patch("asess/s", &json!({"spec": {"sandboxes": {"fuzz": {"env": [{"name": "A", "value": "b"}]}}}}));
    ground.until("asb/s--fuzz", "has the new template", |sandbox| sandbox["spec"]["env"][0]["name"] == "A");
    assert_eq!(ground.get("asb/s--fuzz")["spec"]["suspend"], true);
    let seen = ground.until_ready("asess/s");
    assert_eq!(seen["status"]["sandboxes"]["summary"], "1/2");
    ground.patch("asb/s--fuzz", &json!({"spec": {"suspend": null}}));
    ground.until("asess/s", "has all again", |session| session["status"]["sandboxes"]["summary"] == "2/2");
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn an_idle_session_is_suspended_until_somebody_works_in_it() {
    let ground = Ground::new("idle");
    ground.apply(&session("s", json!({"sandboxes": plain(&["main"]), "lifetime": {"idle": "12s"}})));
    ground.until_ready("asess/s");
    let idle = ground.until("asess/s", "is inactive", is_inactive);
    assert_eq!(condition(&idle, "Suspended")["reason"], "Idle");
    assert_eq!(idle["spec"]["suspend"], json!(null), "the operator writes no spec");
    let now = Ground::run_here("date -u +%FT%TZ");
    let activity = format!("aigise.dev/last-activity={now}");
    ground.kubectl(&["annotate", "asess/s", "--overwrite", &activity]).text();
    ground.until_ready("asess/s");

    // One in the future counts from now on.
    let future = "aigise.dev/last-activity=2100-01-01T00:00:00Z";
    ground.kubectl(&["annotate", "asess/s", "--overwrite", future]).text();
    let idle = ground.until("asess/s", "is inactive again", is_inactive);
    assert_eq!(idle["status"]["futureActivity"]["time"], "2100-01-01T00:00:00Z");
}

fn a_session_whose_time_is_over_keeps_only_what_is_to_be_kept(layout: Layout) {
    let ground = Ground::laid_out(layout, "ttl");
    let spec = |ttl: &str| {
        json!({
            "sandboxes": plain(&["main"]),
            "volumes": {"data": {"reclaim": "Retain"}},
            "lifetime": {"ttl": ttl},
        })
    };
    // The time runs from the first reconcile on, and a cluster may take long to provide three volumes.
    ground.apply(&session("s", spec("1h")));
    let ready = ground.until_ready("asess/s");
    assert!(ready["status"]["expiresAt"].is_string());
    ground.run("s--main", "echo kept >/shared/file");
    let kept = ground.get("pvc/s--data");
    ground.patch("asess/s", &json!({"spec": {"lifetime": {"ttl": "40s"}}}));

    let expired = ground.until("asess/s", "is inactive", is_inactive);
    assert_eq!(expired["status"]["phase"], "Expired");
    assert_eq!(condition(&expired, "Expiring")["reason"], "Expired");
    ground.until_gone("pod/s--main");
    for kind in ["pod", "asb"] {
        assert!(ground.names(kind, "").is_empty(), "{kind}: {:?}", ground.names(kind, ""));
    }
    ground.until_gone("pvc/s--scripts");
    assert_eq!(uid(&ground.get("pvc/s--data")), uid(&kept));

    ground.apply(&session("s", spec("1h")));
    ground.until_ready("asess/s");
    assert_eq!(ground.run("s--main", "cat /shared/file"), "kept");

    ground.patch("asess/s", &json!({"spec": {"lifetime": {"ttl": "41s", "onExpiry": "Delete"}}}));
    ground.until_gone("asess/s");
    ground.until_gone("pvc/s--tools");
    assert_eq!(uid(&ground.get("pvc/s--data")), uid(&kept), "the claim outlives its session");
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn a_failed_sandbox_fails_the_session_or_degrades_it() {
    let ground = Ground::new("degraded");
    let fails = json!({"image": ROOT_IMAGE, "command": ["false"], "restart": {"policy": "Never"}});
    ground.apply(&session("s", json!({"sandboxes": {"main": {"image": ROOT_IMAGE}, "fails": fails}})));
    let failed = ground.until_not_ready("asess/s", "SandboxFailed");
    assert_eq!(failed["status"]["phase"], "Error");
    ground.until_ready("asb/s--main");

    ground.patch("asess/s", &json!({"spec": {"continueOnError": true}}));
    let degraded = ground.until_not_ready("asess/s", "Degraded");
    assert_eq!(degraded["status"]["phase"], "Degraded");
    assert_eq!(condition(&degraded, "Degraded")["status"], "True");
    assert_eq!(degraded["status"]["sandboxes"]["summary"], "1/2");
    assert_eq!(reason(&ground.get("asb/s--main")), "Ready");

    let fixed = json!({"command": null});
    ground.patch("asess/s", &json!({"spec": {"sandboxes": {"fails": fixed}}}));
    ground.until_ready("asess/s");
}
