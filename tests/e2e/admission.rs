//! What the API server refuses, and that it says why; and what only the operator can find.

use serde_json::{Value, json};

use super::{
    ground::Ground,
    objects::{ROOT_IMAGE, condition, is_stalled, message, plain, plain_session, reason, session},
};

/// Applies what has to be refused, with the rule in the complaint.
#[track_caller]
fn is_refused(ground: &Ground, object: &Value, rule: &str) {
    let complaint = ground.kubectl_reading(&["apply", "-f", "-"], &object.to_string()).complaint();
    assert!(complaint.contains(rule), "for {object}\nexpected: {rule}\nit says: {complaint}");
}

fn with_template(template: Value) -> Value {
    session("s", json!({"sandboxes": {"main": template}}))
}

fn with_source(source: Value) -> Value {
    session("s", json!({"sandboxes": plain(&["main"]), "volumes": {"data": {"sources": [source]}}}))
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn a_bad_name_is_refused_with_the_rule() {
    let ground = Ground::new("bad-name");
    let rule = "a session's name has lower-case letters, digits and single hyphens";
    for name in ["a--b", "1a", &"a".repeat(41), "a.b"] {
        is_refused(&ground, &plain_session(name, &["main"]), rule);
    }
    // The API server's own rule comes first.
    for name in ["Capital", "a-", "a_b"] {
        is_refused(&ground, &plain_session(name, &["main"]), "metadata.name");
    }
    ground.apply(&plain_session(&"a".repeat(40), &[&"b".repeat(21)]));
    ground.until_ready(&format!("asess/{}", "a".repeat(40)));
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn a_bad_type_is_refused_with_the_rule() {
    let ground = Ground::new("bad-type");
    for reserved in ["stage", "Stage", "pull", "config", "data", "scripts", "tools", "agent-x", "agent_x"] {
        is_refused(&ground, &plain_session("s", &[reserved]), "are reserved");
    }
    for bad in ["1main", "main_", "a b", &"a".repeat(22), "-x"] {
        is_refused(&ground, &plain_session("s", &[bad]), "a type has letters, digits");
    }
    is_refused(&ground, &plain_session("s", &[]), "at least 1 properties");
    let many: Vec<_> = (0..33).map(|number| format!("t{number}")).collect();
    is_refused(&ground, &plain_session("s", &many.iter().map(String::as_str).collect::<Vec<_>>()), "at most 32");
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn a_bad_template_is_refused_with_the_rule() {
    let ground = Ground::new("bad-template");
    is_refused(&ground, &with_template(json!({})), "image is required");
    is_refused(&ground, &with_template(json!({"image": ""})), "image");
    is_refused(
        &ground,
        &with_template(json!({"image": ROOT_IMAGE, "entrypoint": "Image", "command": ["true"]})),
        "entrypoint: Image or ImageThenIdle and a command exclude each other",
    );
    is_refused(&ground, &with_template(json!({"image": ROOT_IMAGE, "entrypoint": "Other"})), "entrypoint");
    // A field that nobody knows is not dropped in silence.
    is_refused(&ground, &with_template(json!({"image": ROOT_IMAGE, "comand": ["true"]})), "unknown field");
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn a_bad_source_is_refused_with_the_rule() {
    let ground = Ground::new("bad-source");
    let kinds = [
        ("configMap", json!({"name": "a"})),
        ("persistentVolumeClaim", json!({"claimName": "b"})),
        ("image", json!({"reference": "c"})),
        ("container", json!({"image": "d", "command": ["true"]})),
    ];
    let one = "exactly one of configMap, persistentVolumeClaim, image and container";
    is_refused(&ground, &with_source(json!({"path": "a"})), one);
    for (index, (kind, source)) in kinds.iter().enumerate() {
        for (other_kind, other) in &kinds[index + 1..] {
            is_refused(&ground, &with_source(json!({*kind: source, *other_kind: other})), one);
        }
    }
    is_refused(&ground, &with_source(json!({"container": {"image": "d"}})), "command: Required value");
    is_refused(&ground, &with_source(json!({"container": {"image": "d", "command": []}})), "at least 1 items");
    is_refused(&ground, &with_source(json!({"image": {"reference": "c", "pullPolicy": "Often"}})), "pullPolicy");
    for path in ["..", "/..", "/a/../b"] {
        is_refused(&ground, &with_source(json!({"image": {"reference": "c", "path": path}})), "a path without `..`");
    }
    for path in ["..", "../a", "a/../b", "a/..", "/a"] {
        is_refused(&ground, &with_source(json!({"configMap": {"name": "a"}, "path": path})), "a relative path without");
        let claim = json!({"persistentVolumeClaim": {"claimName": "b", "path": path}});
        is_refused(&ground, &with_source(claim), "a relative path without");
    }
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn a_volume_cannot_change() {
    let ground = Ground::new("volume-change");
    let sized = |size: &str| {
        session("s", json!({"sandboxes": {"main": {"image": ROOT_IMAGE}}, "volumes": {"data": {"size": size}}}))
    };
    is_refused(&ground, &sized("lots"), "a positive quantity");
    ground.apply(&sized("10Mi"));
    is_refused(&ground, &sized("5Mi"), "volumes.data.size can only grow");
    let named = session(
        "s",
        json!({"sandboxes": plain(&["main"]), "volumes": {"data": {"size": "10Mi"}, "tools": {"storageClassName": "fast"}}}),
    );
    is_refused(&ground, &named, "volumes.tools.storageClassName cannot change");
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn two_types_of_one_dns_name_need_a_person_and_nothing_is_made() {
    let ground = Ground::new("one-label");
    ground.apply(&plain_session("s", &["gdb_mcp", "gdb.mcp"]));
    let seen = ground.until("asess/s", "is stalled", is_stalled);
    assert_eq!(reason(&seen), "InvalidSpec");
    for word in ["gdb_mcp", "gdb.mcp", "gdb-mcp"] {
        assert!(message(&seen).contains(word), "{}", message(&seen));
    }
    assert_eq!(condition(&seen, "Reconciling")["status"], "False");
    for kind in ["pod", "pvc", "service", "networkpolicy", "asb"] {
        assert_eq!(ground.names(kind, ""), Vec::<String>::new());
    }
    // Once it is fixed, it goes on.
    ground.patch("asess/s", &json!({"spec": {"sandboxes": {"gdb.mcp": null}}}));
    ground.until_ready("asess/s");
}
