//! Caches: what the initialisers of one session left, and the next session starts from.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{
    audit::{self, Breakdown},
    ground::{Ground, Layout, for_each_layout},
    objects::{
        ROOT_IMAGE, USER_IMAGE, agent, condition, config_map, from_config_map, is_stalled, list, message, reason,
        session, uid,
    },
};

for_each_layout! {
    the_next_session_starts_from_what_the_initialisers_left,
    a_damaged_cache_is_not_used_and_not_tried_again,
}

/// Saving writes its claim, its Pod, the commit, the deletion of the Pod and at most three statuses.
const PER_SAVE: usize = 7;

/// Each run leaves a line, so its runs can be counted.
const BUILD: &str = "set -e; echo run >>/shared/runs; cp -r /shared/in /shared/tree; cd /shared/tree; \
    echo x >one; ln one two; ln -s one link; printf '#!/bin/sh\necho tool\n' >/bash_tools/tool; chmod +x /bash_tools/tool; \
    truncate -s 8M holes; echo end >>holes; echo strange >\"$(printf 'new\nline \\377')\"; \
    echo old >old; echo secret >/shared/left-out; echo ${AIGISE_DATA_RESTORED:-cold} >>/shared/how";

/// What the build left, but for inode numbers.
const LOOK: &str = "cd /shared/tree; for name in *; do printf %s \"$name\" | xxd -p; done; \
    stat -c '%n %s %h %F %y' one two holes link old; cat one holes | md5sum; du -k holes | cut -f1; /bash_tools/tool; cat /shared/runs /shared/how";

fn step(command: &str) -> Value {
    json!({"profile": "None", "steps": [{"name": "build", "command": ["sh", "-c", command]}]})
}

fn built(name: &str, cache: Value, command: &str) -> Value {
    session(
        name,
        json!({
            "taskName": "task",
            "cache": cache,
            "sandboxes": {"main": {"image": ROOT_IMAGE, "cache": {"root": "Data"}, "init": step(command)}},
            "volumes": {"data": {"sources": [from_config_map("files", "in")]}},
        }),
    )
}

fn cached(object: &Value) -> &str {
    condition(object, "Cached")["reason"].as_str().unwrap_or_default()
}

fn part<'a>(object: &'a Value, sandbox_type: &str) -> (&'a str, &'a str) {
    let part = &object["status"]["cache"]["sandboxes"][sandbox_type];
    (part["result"].as_str().unwrap_or_default(), part["reason"].as_str().unwrap_or_default())
}

fn cache_of(ground: &Ground, session: &str) -> String {
    ground.get(&format!("asess/{session}"))["status"]["cache"]["entry"].as_str().expect("a cache").to_string()
}

fn the_next_session_starts_from_what_the_initialisers_left(layout: Layout) {
    let _undisturbed = audit::operator_stays();
    let ground = Ground::laid_out(layout, "cache");
    let cache = json!({"storage": {"size": "64Mi"}, "exclude": ["/shared/left-out"]});
    ground.apply(&list(&[
        config_map("files", &[("file", "x")]),
        agent("waits", json!({"requires": {"sandboxes": ["main"]}})),
        built("s", cache.clone(), BUILD),
    ]));
    let saved = ground.until_ready("asess/s");
    assert_eq!((cached(&saved), &saved["status"]["cache"]["missing"]), ("Saved", &json!(["main"])));
    assert_eq!(part(&saved, "main"), ("Missing", "NoEntry"));
    let writes = audit::writes(&ground);
    let of_saving = |write: &&audit::Write| {
        write.name == "s--save" || write.name.starts_with("aigise-cache-") || write.resource == "aigisesessions/status"
    };
    let of_saving: Vec<_> = writes.iter().filter(of_saving).cloned().collect();
    // A session that is staged has five statuses anyway.
    assert!(of_saving.len() <= PER_SAVE + 5, "{}", Breakdown(&of_saving));
    let active = ground.until("aag/waits", "active", |agent| reason(agent) == "Ready");
    let began = condition(&active, "Ready")["lastTransitionTime"].as_str().unwrap().to_string();
    assert!(*began >= *saved["status"]["cache"]["save"]["finishedAt"].as_str().unwrap(), "the agent began at {began}");

    // It belongs to nobody, and no Pod holds it.
    let entry = cache_of(&ground, "s");
    let claim = ground.get(&format!("pvc/{entry}"));
    assert_eq!(claim["metadata"]["ownerReferences"], Value::Null);
    ground.until_gone("pod/s--save");
    let left = ground.run("s--main", LOOK);
    ground.run("s--main", "echo work >/shared/tree/one; echo work >/shared/work");

    ground.apply(&built("next", cache, BUILD));
    let restored = ground.until_ready("asess/next");
    assert_eq!((cached(&restored), &restored["status"]["cache"]["missing"]), ("Restored", &Value::Null));
    assert_eq!(part(&restored, "main"), ("Data", ""));
    assert_eq!(restored["status"]["cache"]["save"]["state"], "Skipped");
    assert_eq!(ground.run("next--main", LOOK), left);
    assert_eq!(ground.run("next--main", "ls /shared"), "how\nin\nruns\ntree");
    ground.until_gone("pod/next--restore");

    // Without a session, the cache stays; in another namespace, with another key or another epoch it is none.
    ground.delete("asess/s");
    ground.until_gone("pod/s--main");
    let required = |key: &str, epoch: &str| json!({"key": key, "epoch": epoch, "restore": "Required"});
    ground.apply(&list(&[
        built("other-key", required("other", ""), BUILD),
        built("other-epoch", json!({"epoch": "2", "restore": "Required"}), BUILD),
        built("other-step", json!({"restore": "Required", "exclude": ["/shared/left-out"]}), "true"),
    ]));
    for (name, why) in [("other-key", "NoEntry"), ("other-epoch", "SourcesChanged"), ("other-step", "InitChanged")] {
        let missing = ground.until_not_ready(&format!("asess/{name}"), "CacheMissing");
        assert!(is_stalled(&missing) && message(&missing).contains(why), "{}", message(&missing));
        assert_eq!(missing["status"]["cache"]["missing"], json!(["main"]));
        assert!(ground.names("pvc", &format!("aigise.dev/session={name}")).is_empty(), "a claim was created");
    }
    // By hand, and nothing holds it.
    ground.kubectl(&["delete", "pvc", "-l", "aigise.dev/cache-key=task", "--timeout=60s"]).text();
    // What was restored goes on, and the sandbox starts again with its steps skipped.
    let first = uid(&ground.get("pod/next--main")).to_string();
    ground.delete("pod/next--main");
    ground.until("asb/next--main", "ready in another Pod", |sandbox| {
        sandbox["status"]["podUID"] != *first && reason(sandbox) == "Ready"
    });
    ground.until_ready("asess/next");
    assert_eq!(ground.run("next--main", "cat /shared/runs"), "run");
}

fn a_damaged_cache_is_not_used_and_not_tried_again(layout: Layout) {
    let ground = Ground::laid_out(layout, "cache-bad");
    let cache = json!({"storage": {"size": "64Mi"}});
    ground.apply(&list(&[config_map("files", &[("file", "x")]), built("s", cache.clone(), BUILD)]));
    ground.until_ready("asess/s");
    let entry = cache_of(&ground, "s");
    // One bit of the tools: the data before it is whole.
    let flip = "cd /entry; at=$(($(stat -c %s tools.tar.zst) / 2)); \
        byte=$(od -An -tu1 -j $at -N1 tools.tar.zst); \
        printf \"\\\\$(printf %03o $((byte ^ 1)))\" | dd of=tools.tar.zst bs=1 seek=$at conv=notrunc";
    ground.apply(&json!({
        "apiVersion": "v1", "kind": "Pod", "metadata": {"name": "flip"},
        "spec": {
            "restartPolicy": "Never",
            "containers": [{
                "name": "c", "image": ROOT_IMAGE, "command": ["sh", "-c", flip],
                "volumeMounts": [{"name": "entry", "mountPath": "/entry"}],
            }],
            "volumes": [{"name": "entry", "persistentVolumeClaim": {"claimName": entry}}],
        },
    }));
    ground.until("pod/flip", "ended", |pod| pod["status"]["phase"] == "Succeeded");
    ground.kubectl(&["delete", "pod/flip"]).text();

    for name in ["next", "last"] {
        ground.apply(&built(name, json!({"save": "Never"}), BUILD));
        let cold = ground.until_ready(&format!("asess/{name}"));
        assert_eq!((cached(&cold), part(&cold, "main")), ("CacheMissing", ("Missing", "Corrupt")));
        assert_eq!(ground.run(&format!("{name}--main"), "cat /shared/runs /shared/how"), "run\ncold");
    }
    assert_eq!(ground.get(&format!("pvc/{entry}"))["metadata"]["annotations"]["aigise.dev/cache-bad"], "Corrupt");
    // The second did not try it: its volume is from no cache.
    let from = |name: &str| {
        ground.get(&format!("pvc/{name}--data"))["metadata"]["annotations"]["aigise.dev/cache-from"].clone()
    };
    assert_eq!((from("next"), from("last")), (Value::Null, json!("none")));
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn with_partial_only_what_changed_and_what_depends_on_it_runs_its_steps() {
    let ground = Ground::new("cache-parts");
    let runs = |sandbox_type: &str, more: &str| {
        step(&format!("echo {sandbox_type} ${{AIGISE_DATA_RESTORED:-cold}} >>/shared/runs{more}"))
    };
    let parts = |name: &str, restore: &str, more: &str| {
        let sandbox = |sandbox_type: &str, more: &str, needs: &[&str]| json!({"image": ROOT_IMAGE, "cache": {"root": "Data"}, "init": runs(sandbox_type, more), "dependsOn": needs});
        let mut always = sandbox("always", "", &[]);
        always["cache"]["root"] = json!("None");
        session(
            name,
            json!({
                "taskName": "task",
                "cache": {"storage": {"size": "64Mi"}, "restore": restore},
                "sandboxes": {
                    "main": sandbox("main", "", &[]),
                    "fuzz": sandbox("fuzz", more, &[]),
                    "coverage": sandbox("coverage", "", &["fuzz"]),
                    "always": always,
                },
                "volumes": {"layout": "Single"},
            }),
        )
    };
    ground.apply(&parts("s", "Whole", ""));
    ground.until_ready("asess/s");
    ground.apply(&parts("partial", "Partial", "; true"));
    ground.apply(&parts("whole", "Whole", "; true"));
    let partial = ground.until_ready("asess/partial");
    assert_eq!(partial["status"]["cache"]["missing"], json!(["coverage", "fuzz"]));
    assert_eq!(part(&partial, "main"), ("Data", ""));
    assert_eq!(part(&partial, "fuzz"), ("Missing", "InitChanged"));
    assert_eq!(part(&partial, "coverage"), ("Missing", "DependencyChanged"));
    assert_eq!(part(&partial, "always"), ("Excluded", "StepsRunAlways"));
    let ran = |session: &str| {
        let lines = ground.run(&format!("{session}--main"), "sort /shared/runs");
        lines.lines().map(String::from).collect::<Vec<_>>()
    };
    let cold = ["always cold", "coverage cold", "fuzz cold", "main cold"];
    let mut over_restored = cold.to_vec();
    over_restored.extend(["always 1", "coverage 1", "fuzz 1"]);
    over_restored.sort_unstable();
    assert_eq!(ran("partial"), over_restored);
    ground.until_ready("asess/whole");
    assert_eq!(ran("whole"), cold);
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn a_cache_that_cannot_be_saved_fails_no_session() {
    let ground = Ground::new("cache-unsaved");
    let closed = "echo x >/shared/closed; chmod 600 /shared/closed";
    // So long that it is written to whenever it is read.
    let writes = "dd if=/dev/urandom of=/shared/log bs=1M count=48; (exec 3>>/shared/log; while :; do printf x >&3; done) >/dev/null 2>&1 &";
    let saves = |name: &str, key: &str, image: &str, command: &str| {
        let mut session = built(name, json!({"key": key, "storage": {"size": "256Mi"}}), command);
        session["spec"]["sandboxes"]["main"]["image"] = json!(image);
        session["spec"]["volumes"]["layout"] = json!("Single");
        session
    };
    let failure = |name: &str| {
        let ready = ground.until_ready(&format!("asess/{name}"));
        assert_eq!(cached(&ready), "SaveFailed", "{}", ready["status"]);
        ground.until_gone(&format!("pod/{name}--save"));
        let said = ready["status"]["cache"]["save"].clone();
        (said["reason"].as_str().unwrap().to_string(), said["message"].as_str().unwrap().to_string())
    };
    ground.apply(&list(&[
        config_map("files", &[("file", "x")]),
        saves("unreadable", "a", USER_IMAGE, closed),
        saves("changed", "b", ROOT_IMAGE, writes),
    ]));
    let (reason, message) = failure("unreadable");
    assert!(reason == "Unreadable" && message.contains("closed"), "{reason}: {message}");
    let (reason, message) = failure("changed");
    assert!(reason == "Changed" && message.contains("log"), "{reason}: {message}");
    // Nothing is left of either.
    for key in ["a", "b"] {
        assert!(ground.names("pvc", &format!("aigise.dev/cache-key={key}")).iter().all(|claim| {
            ground.kubectl(&["wait", "--for=delete", &format!("pvc/{claim}"), "--timeout=60s"]).text();
            true
        }));
    }
    ground.delete("asess/changed");
    ground.delete("asess/unreadable");
    ground.until_gone("pvc/changed--data");
    ground.until_gone("pvc/unreadable--data");
    let quota = json!({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "q"}, "spec": {"hard": {"persistentvolumeclaims": "1"}}});
    ground.apply(&quota);
    ground.apply(&saves("refused", "c", ROOT_IMAGE, "true"));
    let (reason, message) = failure("refused");
    assert!(reason == "QuotaExceeded" && message.contains("persistentvolumeclaims"), "{reason}: {message}");
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn of_a_key_the_newest_cache_is_kept() {
    let ground = Ground::new("cache-collected");
    let saves = |name: &str, epoch: &str| {
        let cache = json!({"storage": {"size": "64Mi"}, "epoch": epoch, "retain": {"generations": 1}});
        let mut session = built(name, cache, "echo run >>/shared/runs");
        session["spec"]["volumes"]["layout"] = json!("Single");
        session
    };
    ground.apply(&list(&[config_map("files", &[("file", "x")]), saves("old", "1")]));
    ground.until_ready("asess/old");
    let old = cache_of(&ground, "old");
    ground.apply(&saves("new", "2"));
    ground.until_ready("asess/new");
    let new = cache_of(&ground, "new");
    // Old caches are looked for once a minute.
    ground.until_gone(&format!("pvc/{old}"));
    assert_eq!(ground.names("pvc", "aigise.dev/cache-key=task"), [new]);
    // The next session starts from what is left.
    ground.apply(&saves("next", "2"));
    assert_eq!(cached(&ground.until_ready("asess/next")), "Restored");
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn pods_that_save_and_restore_are_killed_and_nothing_is_half_done() {
    let ground = Ground::new("cache-killed");
    let much =
        "for i in 1 2 3 4; do dd if=/dev/urandom of=/shared/$i bs=1M count=24; done; cd /shared; md5sum 1 2 3 4 >sums";
    let cache = json!({"storage": {"size": "256Mi"}});
    ground.apply(&list(&[config_map("files", &[("file", "x")]), built("s", cache.clone(), much)]));
    // At most three times, as long as there is something to kill.
    let kill = |session: &str, pod: &str| {
        let (mut killed, start) = (BTreeSet::new(), Instant::now());
        while start.elapsed() < Duration::from_secs(240)
            && killed.len() < 3
            && reason(&ground.get(&format!("asess/{session}"))) != "Ready"
        {
            let found = ground.kubectl(&[
                "get",
                "pod",
                pod,
                "-o",
                "jsonpath={.metadata.uid} {.status.phase}",
                "--ignore-not-found",
            ]);
            let found = found.text();
            if let Some(uid) = found.strip_suffix(" Running").filter(|uid| !killed.contains(*uid)) {
                ground.kubectl(&["delete", "pod", pod, "--grace-period=0", "--force", "--ignore-not-found"]).text();
                killed.insert(uid.to_string());
            }
        }
        println!("{pod} was killed {} times", killed.len());
        assert!(!killed.is_empty());
    };
    kill("s", "s--save");
    let saved = ground.until_ready("asess/s");
    assert_eq!(cached(&saved), "Saved", "{}", saved["status"]["cache"]);
    ground.apply(&built("next", cache, much));
    kill("next", "next--restore");
    let restored = ground.until_ready("asess/next");
    assert_eq!(cached(&restored), "Restored", "{}", restored["status"]["cache"]);
    assert_eq!(ground.run("next--main", "cd /shared; md5sum 1 2 3 4 | cmp - sums && ls"), "1\n2\n3\n4\nin\nsums");
}
