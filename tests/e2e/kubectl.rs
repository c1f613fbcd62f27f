//! What users see with kubectl.

use serde_json::json;

use super::{
    client::kubectl,
    ground::Ground,
    objects::{config_map, from_config_map, list, plain, session},
};

#[test]
#[ignore = "needs a cluster: make e2e"]
fn explain_says_what_a_field_is_for() {
    // However it is wrapped.
    let explain = |field: &str| -> String {
        let text = kubectl(&["explain", field]).text();
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let text = explain("asess.spec.volumes.data.sources");
    for words in ["configMap", "persistentVolumeClaim", "that the volume is filled with", "copied in this order"] {
        assert!(text.contains(words), "{words} is not in\n{text}");
    }
    let sandbox = explain("asb.spec");
    assert!(sandbox.contains("entrypoint") && sandbox.contains("The container image"), "{sandbox}");
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn client_side_and_server_side_apply_agree_with_what_is_there() {
    let ground = Ground::new("apply");
    let sources = json!({"data": {"size": "10Mi", "sources": [from_config_map("poc", "poc")]}});
    let ways: [(&str, &[&str]); 2] = [("client", &[]), ("server", &["--server-side"])];
    for (name, way) in ways {
        let objects = list(&[
            config_map("poc", &[("crash", "x")]),
            session(name, json!({"sandboxes": plain(&["main", "gdb_mcp"]), "volumes": sources})),
        ]);
        let objects = objects.to_string();
        let with = |verb: &'static str| ground.kubectl_reading(&[&[verb, "-f", "-"], way].concat(), &objects);
        with("apply").text();
        ground.until_ready(&format!("asess/{name}"));
        let before = ground.get(&format!("asess/{name}"));
        let again = with("apply").text();
        // Server-side apply has one word for both.
        let word = if way.is_empty() { "unchanged" } else { "serverside-applied" };
        assert!(again.contains(&format!("aigisesession.aigise.dev/{name} {word}")), "{again}");
        assert_eq!(with("diff").text(), "", "{name}");
        let after = ground.get(&format!("asess/{name}"));
        assert_eq!(after["metadata"]["resourceVersion"], before["metadata"]["resourceVersion"], "{name}");
    }
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn the_columns_say_how_it_stands() {
    let ground = Ground::new("columns");
    ground.apply(&session("s", json!({"sandboxes": plain(&["main", "fuzz", "gdb_mcp"])})));
    ground.until_ready("asess/s");
    let rows = |arguments: &[&str]| -> Vec<Vec<String>> {
        let table = ground.kubectl(arguments).text();
        table.lines().map(|line| line.split_whitespace().map(str::to_string).collect()).collect()
    };
    let sessions = rows(&["get", "asess"]);
    assert_eq!(sessions[0], ["NAME", "PHASE", "SANDBOXES", "AGENTS", "AGE"]);
    assert_eq!(sessions[1][..3], ["s", "Ready", "3/3"]);
    let sandboxes = rows(&["get", "asb"]);
    assert_eq!(sandboxes[0], ["NAME", "TYPE", "STATE", "PHASE", "AGE"]);
    assert_eq!(sandboxes[1][..4], ["s--fuzz", "fuzz", "ready", "Ready"]);
    assert_eq!(sandboxes[2][..4], ["s--gdb-mcp", "gdb_mcp", "ready", "Ready"]);
    let wide = ground.kubectl(&["get", "asess", "-o", "wide"]).text();
    assert!(wide.contains("All sandboxes are ready (3/3)."), "{wide}");
    // The category, and what scripts wait for.
    let all = ground.kubectl(&["get", "aigise", "-o", "name"]).text();
    assert_eq!(all.lines().count(), 4, "{all}");
    ground.kubectl(&["wait", "--for=condition=Ready", "asess/s", "--timeout=5s"]).text();
}
