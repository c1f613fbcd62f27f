//! How much the operator writes: counted where it cannot be miscounted, in the API server's audit log.

use serde_json::json;

use super::{
    audit::{self, Breakdown, Write},
    ground::{Ground, Layout},
    objects::{ROOT_IMAGE, config_map, from_config_map, list, plain, plain_session, sandbox, session, staged_session},
};

/// A session of three sandboxes and three staged claims, from apply to Ready.
const PER_SESSION: usize = 28;
/// One cold sandbox: its Pod and its status.
const PER_SANDBOX: usize = 3;

#[test]
#[ignore = "needs a cluster: make e2e"]
fn a_session_costs_few_writes() {
    let _undisturbed = audit::operator_stays();
    let ground = Ground::new("writes");
    let from = |name: &str| json!({"sources": [from_config_map("files", name)]});
    ground.apply(&list(&[
        config_map("files", &[("file", "x")]),
        session(
            "s",
            json!({
                "sandboxes": plain(&["main", "gdb_mcp", "fuzz"]),
                // Nothing is done before they are ready.
                "sandboxDefaults": {"init": {"profile": "None"}},
                "volumes": {"data": from("d"), "scripts": from("s"), "tools": from("t")},
            }),
        ),
    ]));
    ground.until_ready("asess/s");
    let writes = audit::writes(&ground);
    println!("a session of 3 sandboxes and 3 staged claims: {} writes\n{}", writes.len(), Breakdown(&writes));
    assert!(writes.len() <= PER_SESSION, "more than {PER_SESSION} writes:\n{}", Breakdown(&writes));
    let refused: Vec<_> = writes.iter().filter(|write| write.code >= 400).cloned().collect();
    assert!(refused.is_empty(), "writes that were refused:\n{}", Breakdown(&refused));
    for name in ["s--main", "s--gdb-mcp", "s--fuzz"] {
        is_within_a_sandboxs_budget(&writes, name);
    }
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn a_sandbox_costs_few_writes() {
    let _undisturbed = audit::operator_stays();
    let ground = Ground::new("writes-one");
    ground.apply(&sandbox("alone", json!({"type": "main", "image": ROOT_IMAGE})));
    ground.until_ready("asb/alone");
    let writes = audit::writes(&ground);
    println!("a sandbox: {} writes\n{}", writes.len(), Breakdown(&writes));
    is_within_a_sandboxs_budget(&writes, "alone");
}

/// What the sandbox itself writes: its Pod and its status. That it is made is its session's.
#[track_caller]
fn is_within_a_sandboxs_budget(writes: &[Write], name: &str) {
    let own = |write: &&Write| write.name == name && ["pods", "sandboxes/status"].contains(&write.resource.as_str());
    let own: Vec<_> = writes.iter().filter(own).cloned().collect();
    assert!(own.len() <= PER_SANDBOX, "more than {PER_SANDBOX} writes for {name}:\n{}", Breakdown(&own));
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn an_operator_that_is_restarted_writes_nothing() {
    let ground = Ground::new("restart");
    // In all of the states in which an object is settled.
    ground.apply(&list(&[
        config_map("files", &[("file", "x")]),
        staged_session("ready", &["main", "fuzz"]),
        session(
            "ended",
            json!({"sandboxes": {"main": {"image": ROOT_IMAGE, "command": ["false"], "restart": {"limit": 0}}}}),
        ),
        plain_session("invalid", &["a_b", "a-b"]),
        sandbox("alone", json!({"type": "main", "image": ROOT_IMAGE})),
    ]));
    ground.until_ready("asess/ready");
    ground.until_ready("asb/alone");
    ground.until_not_ready("asess/ended", "SandboxFailed");
    ground.until_not_ready("asess/invalid", "InvalidSpec");

    let _alone = audit::operator_may_go();
    let canary = Ground::new("canary");
    let before = audit::writes(&ground);
    for round in ["first", "second"] {
        audit::restart_operator();
        // What was there at the start is reconciled before what comes later.
        canary.apply(&plain_session(round, &["main"]));
        canary.until_ready(&format!("asess/{round}"));
    }
    let after = audit::writes(&ground);
    let new = &after[before.len()..];
    assert!(new.is_empty(), "{} writes after a restart:\n{}", new.len(), Breakdown(new));
    assert!(!before.is_empty() && !audit::writes(&canary).is_empty(), "the audit log shows no writes at all");
    ground.until_ready("asess/ready");
}

/// A session of one sandbox over one claim without sources, from apply to Ready, where the cluster is as fast as one expects.
const PER_SINGLE: usize = 9;
/// What it costs to report that a Pod waits for the scheduler or for its kubelet: a status of the sandbox and one of its session.
const PER_WAIT: usize = 2;

#[test]
#[ignore = "needs a cluster: make e2e"]
fn a_session_with_one_claim_costs_fewer_writes() {
    let _undisturbed = audit::operator_stays();
    let ground = Ground::laid_out(Layout::Single, "writes-single");
    ground.apply(&plain_session("s", &["main"]));
    ground.until_ready("asess/s");
    let writes = audit::writes(&ground);
    println!("a session of one sandbox over one claim: {} writes\n{}", writes.len(), Breakdown(&writes));
    is_within_a_sandboxs_budget(&writes, "s--main");
    // Beside other tests, the provisioner may be slow; in tests/it, nothing is slow.
    let waits = writes.iter().filter(|write| write.resource == "sandboxes/status").count() - 1;
    let most = PER_SINGLE + waits * PER_WAIT;
    assert!(writes.len() <= most, "more than {most} writes:\n{}", Breakdown(&writes));
}
