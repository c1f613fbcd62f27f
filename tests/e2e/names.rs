//! Sandboxes find each other by their names.

use serde_json::json;

use super::{
    ground::Ground,
    objects::{ROOT_IMAGE, plain_session, session},
};

/// What a name is in a sandbox; `ping` says the address, whether or not it is answered.
fn address_of(ground: &Ground, sandbox: &str, name: &str) -> String {
    let said = ground.try_run(sandbox, &format!("ping -c 1 -W 2 {name}"));
    said.stdout + &said.stderr
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn every_sandbox_resolves_every_other_by_each_of_its_names() {
    let ground = Ground::new("names");
    ground.apply(&plain_session("s", &["main", "gdb_mcp", "Fuzz.x"]));
    ground.until_ready("asess/s");
    let ip = |label: &str| ground.get(&format!("pod/s--{label}"))["status"]["podIP"].as_str().unwrap().to_string();
    for from in ["s--main", "s--gdb-mcp", "s--fuzz-x"] {
        for (label, variable) in
            [("main", "AIGISE_MAIN_HOST"), ("gdb-mcp", "AIGISE_GDB_MCP_HOST"), ("fuzz-x", "AIGISE_FUZZ_X_HOST")]
        {
            for name in [format!("{label}.s"), format!("{label}.s.{}.svc", ground.namespace), format!("${variable}")] {
                let answer = address_of(&ground, from, &name);
                assert!(answer.contains(&ip(label)), "{from}: {name}: {answer}");
            }
        }
    }
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn names_resolve_before_the_session_is_ready() {
    let ground = Ground::new("names-early");
    ground.apply(&session(
        "s",
        json!({"sandboxes": {
            "main": {"image": ROOT_IMAGE},
            "fuzz": {"image": ROOT_IMAGE},
            "never": {"image": "localhost/there-is-no:such-image"},
        }}),
    ));
    ground.until_ready("asb/s--main");
    ground.until_ready("asb/s--fuzz");
    assert_ne!(ground.get("asess/s")["status"]["phase"], "Ready");
    let ip = ground.get("pod/s--fuzz")["status"]["podIP"].as_str().unwrap().to_string();
    assert!(address_of(&ground, "s--main", "fuzz.s").contains(&ip));
    assert_eq!(ground.get("service/s")["spec"]["publishNotReadyAddresses"], true);
}
