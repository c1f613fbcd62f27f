//! Sources that are missing or do not fit, and how a session goes on once they are fixed.

use serde_json::json;

use super::{
    ground::{Ground, Layout, for_each_layout},
    objects::{condition, config_map, from_config_map, is_stalled, list, message, plain, session},
};

for_each_layout! {
    a_missing_config_map_is_named_and_waited_for,
    two_sources_that_disagree_are_named_and_fixed_by_a_change,
    a_root_that_no_source_has_is_named_with_those_there_are,
    a_missing_claim_is_named_and_waited_for,
    files_that_a_sandbox_has_changed_stay_and_are_counted,
}

fn a_missing_config_map_is_named_and_waited_for(layout: Layout) {
    let ground = Ground::laid_out(layout, "late-source");
    let sources = json!({"data": {"sources": [from_config_map("late", "in")]}});
    ground.apply(&session("s", json!({"sandboxes": plain(&["main"]), "volumes": sources})));
    let waiting = ground.until_not_ready("asess/s", "SourceNotFound");
    assert!(message(&waiting).contains("ConfigMap late"), "{}", message(&waiting));
    assert!(!is_stalled(&waiting), "it goes on by itself");
    assert!(ground.get("pod/s--stage").is_null());

    ground.apply(&config_map("late", &[("file", "came")]));
    ground.until_ready("asess/s");
    assert_eq!(ground.run("s--main", "cat /shared/in/file"), "came");
}

fn two_sources_that_disagree_are_named_and_fixed_by_a_change(layout: Layout) {
    let ground = Ground::laid_out(layout, "conflict");
    let sources = json!({"data": {"sources": [from_config_map("first", "in"), from_config_map("second", "in")]}});
    ground.apply(&list(&[
        config_map("first", &[("same", "one"), ("own", "first's")]),
        config_map("second", &[("same", "another")]),
        session("s", json!({"sandboxes": plain(&["main"]), "volumes": sources})),
    ]));
    let failed = ground.until_not_ready("asess/s", "StagingFailed");
    for word in ["configMap first", "configMap second", "in/same", "data"] {
        assert!(message(&failed).contains(word), "{word}: {}", message(&failed));
    }
    assert!(is_stalled(&failed));
    assert_eq!(failed["status"]["phase"], "Error");
    assert!(ground.names("asb", "").is_empty(), "sandboxes start over volumes that are not filled");

    ground.apply(&config_map("second", &[("same", "one")]));
    ground.until_ready("asess/s");
    assert_eq!(ground.run("s--main", "cat /shared/in/same /shared/in/own"), "onefirst's");
}

fn a_root_that_no_source_has_is_named_with_those_there_are(layout: Layout) {
    let ground = Ground::laid_out(layout, "no-root");
    let volumes = json!({"tools": {"sources": [from_config_map("skill", "fuzz"), from_config_map("skill", "triage")]}});
    ground.apply(&list(&[
        config_map("skill", &[("SKILL.md", "a skill")]),
        session("s", json!({"sandboxes": plain(&["main"]), "volumes": volumes, "toolsTopRoots": ["fuzz", "coverage"]})),
    ]));
    let failed = ground.until_not_ready("asess/s", "StagingFailed");
    for word in ["coverage", "fuzz, triage", "tools"] {
        assert!(message(&failed).contains(word), "{word}: {}", message(&failed));
    }
    assert!(is_stalled(&failed));
    ground.patch("asess/s", &json!({"spec": {"toolsTopRoots": ["fuzz"]}}));
    ground.until_ready("asess/s");
    assert_eq!(ground.run("s--main", "ls /bash_tools"), "fuzz");
}

fn a_missing_claim_is_named_and_waited_for(layout: Layout) {
    let ground = Ground::laid_out(layout, "late-claim");
    let source = json!({"persistentVolumeClaim": {"claimName": "late"}, "path": "in"});
    ground.apply(&session("s", json!({"sandboxes": plain(&["main"]), "volumes": {"data": {"sources": [source]}}})));
    let waiting = ground.until("asess/s", "names the claim", |seen| message(seen).contains("\"late\" not found"));
    assert!(message(&waiting).starts_with("The Pod that fills the volumes has no node: "), "{}", message(&waiting));
    assert!(!is_stalled(&waiting), "it goes on by itself");

    ground.apply(&json!({
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "late"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}},
    }));
    ground.until_ready("asess/s");
}

fn files_that_a_sandbox_has_changed_stay_and_are_counted(layout: Layout) {
    let ground = Ground::laid_out(layout, "kept");
    let sources = |paths: &[&str]| {
        let sources: Vec<_> = paths.iter().map(|path| from_config_map("files", path)).collect();
        session("s", json!({"sandboxes": plain(&["main"]), "volumes": {"data": {"sources": sources}}}))
    };
    ground.apply(&list(&[config_map("files", &[("a", "staged"), ("b", "staged")]), sources(&["in"])]));
    ground.until_ready("asess/s");
    ground.run("s--main", "echo mine >/shared/in/a; rm /shared/in/b");
    ground.apply(&sources(&["in", "out"]));
    let ready = ground.until_ready("asess/s");
    let expected = "The volumes hold the files of their sources, except for 1 file already there with other content (the log of s--stage has the names).";
    assert_eq!(condition(&ready, "VolumesReady")["message"], expected);
    assert_eq!(ground.run("s--main", "cat /shared/in/a /shared/in/b /shared/out/a"), "mine\nstagedstaged");
}
