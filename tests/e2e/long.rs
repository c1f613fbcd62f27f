//! What takes long: it runs beside the other tests, from the beginning, and is over before those that strike the whole cluster.

use std::time::Duration;

use serde_json::{Value, json};

use super::{
    ground::Ground,
    objects::{ROOT_IMAGE, condition, sandbox, uid},
};

/// A step of ten minutes, and what may hold it up.
const PATIENCE: Duration = Duration::from_secs(15 * 60);

/// Meanwhile the other tests start and end a hundred Pods beside it, and restart the operator.
#[test]
#[ignore = "needs a cluster, and ten minutes: make e2e"]
fn a_step_of_ten_minutes_is_waited_for_whatever_happens_meanwhile() {
    let ground = Ground::new("long");
    let script = "echo began >>/tmp/runs; sleep 600; echo ended >>/tmp/runs";
    let main = json!({
        "type": "main",
        "image": ROOT_IMAGE,
        "init": {"steps": [{"name": "long", "command": ["sh", "-c", script], "timeout": "20m"}]},
    });
    ground.apply(&sandbox("long", main));
    let works = ground.until("asb/long", "works", |seen| seen["status"]["init"]["outcome"] == "Running");
    assert_eq!(condition(&works, "Initialized")["reason"], "Initializing");
    let pod = uid(&ground.get("pod/long")).to_string();
    let ended = ground.until_within(PATIENCE, "asb/long", "has ended its step", |seen| {
        let init = &seen["status"]["init"];
        init["outcome"] == "Failed" || init["outcome"] == "Succeeded" && seen["status"]["state"] == "ready"
    });
    assert_eq!((&ended["status"]["state"], uid(&ground.get("pod/long"))), (&json!("ready"), pod.as_str()));
    assert_eq!(ended["status"]["restarts"], Value::Null);
    assert_eq!(ground.run("long", "cat /tmp/runs"), "began\nended", "it ran once, and to its end");
}
