//! One command deletes all of a session.

use serde_json::json;

use super::{
    ground::{Ground, Layout, for_each_layout},
    objects::{config_map, from_config_map, list, plain, plain_session, session, uid},
};

for_each_layout! {
    a_deleted_session_leaves_nothing_behind,
    a_session_made_anew_under_its_name_becomes_ready_with_new_volumes,
}

fn a_deleted_session_leaves_nothing_behind(layout: Layout) {
    let ground = Ground::laid_out(layout, "cleanup");
    let sources = json!({"data": {"sources": [from_config_map("poc", "poc")]}});
    ground.apply(&list(&[
        config_map("poc", &[("crash", "x")]),
        session("s", json!({"sandboxes": plain(&["main", "fuzz"]), "volumes": sources})),
        plain_session("other", &["main"]),
    ]));
    ground.until_ready("asess/s");
    ground.until_ready("asess/other");
    assert_eq!(ground.names("pvc", "aigise.dev/session=s"), layout.claims("s"));
    let claims = layout.claims("s").into_iter().map(|name| ground.get(&format!("pvc/{name}")));
    let volumes = claims.map(|claim| format!("pv/{}", claim["spec"]["volumeName"].as_str().unwrap()));
    let volumes: Vec<_> = volumes.collect();
    let other = ground.get("pod/other--main");

    ground.delete("asess/s");
    ground.until_gone("asess/s");
    for kind in ["pod", "pvc", "asb", "service", "networkpolicy"] {
        for name in ground.names(kind, "aigise.dev/session=s") {
            ground.until_gone(&format!("{kind}/{name}"));
        }
    }
    for volume in volumes {
        ground.until_gone(&volume);
    }
    for kind in ["pod", "pvc", "asb", "service", "networkpolicy"] {
        let left = ground.names(kind, "");
        assert!(left.iter().all(|name| name.starts_with("other")), "left of {kind}: {left:?}");
    }
    assert!(!ground.get("configmap/poc").is_null(), "what the user made goes with the session");
    assert_eq!(uid(&ground.get("pod/other--main")), uid(&other), "the other session was touched");
}

fn a_session_made_anew_under_its_name_becomes_ready_with_new_volumes(layout: Layout) {
    let ground = Ground::laid_out(layout, "anew");
    ground.apply(&plain_session("s", &["main"]));
    ground.until_ready("asess/s");
    ground.run("s--main", "echo old >/shared/old");
    let old = ground.get("asess/s");
    ground.delete("asess/s");
    ground.until_gone("asess/s");
    ground.apply(&plain_session("s", &["main"]));
    let new = ground.until_ready("asess/s");
    assert_ne!(uid(&new), uid(&old));
    assert_eq!(ground.run("s--main", "ls /shared"), "", "files of the session that was deleted");
}
