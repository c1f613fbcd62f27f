//! What sandboxes do before they are ready, and what becomes of it.

use serde_json::{Value, json};

use super::{
    ground::Ground,
    objects::{ROOT_IMAGE, USER_IMAGE, condition, is_stalled, message, plain_session, sandbox, session, uid},
};

fn shell(name: &str, script: &str) -> Value {
    json!({"name": name, "command": ["sh", "-c", script]})
}

/// A sandbox with these steps.
fn with_steps(steps: &Value) -> Value {
    json!({"image": ROOT_IMAGE, "init": {"steps": steps}})
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn steps_run_in_the_container_before_it_is_ready_also_without_rights_and_on_a_file_system_that_is_read_only() {
    let ground = Ground::new("steps");
    let mut closed =
        with_steps(&json!([shell("one", "id -u >/shared/user; test ! -w / && echo $WORD >>/shared/user")]));
    closed["image"] = json!(USER_IMAGE);
    closed["init"]["steps"][0]["env"] = json!([{"name": "WORD", "value": "$(HOME) $HOME"}]);
    closed["securityContext"] =
        json!({"readOnlyRootFilesystem": true, "allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}});
    ground.apply(&session("s", json!({"sandboxes": {"main": closed}})));
    let ready = ground.until_ready("asb/s--main");
    assert_eq!(ready["status"]["init"]["outcome"], "Succeeded");
    assert_eq!(condition(&ready, "Initialized")["status"], "True");
    assert_eq!(ground.run("s--main", "cat /shared/user"), "1000\n$(HOME) $HOME");
    let status = ground.run("s--main", "/aigise/sandboxd status");
    assert!(status.starts_with("The initialiser has succeeded.") && status.contains("1. one"), "{status}");
    ground.until_ready("asess/s");
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn an_initialiser_begins_when_what_it_depends_on_is_ready() {
    let ground = Ground::new("depends");
    let mut waits = with_steps(&json!([shell("look", "cat /shared/made")]));
    waits["dependsOn"] = json!(["main"]);
    let main =
        with_steps(&json!([shell("make", "while [ ! -e /shared/go ]; do sleep 0.1; done; echo made >/shared/made")]));
    ground.apply(&session("s", json!({"sandboxes": {"main": main, "fuzz": waits}})));
    ground.until_not_ready("asb/s--fuzz", "DependencyNotReady");
    let works = ground.until_not_ready("asb/s--main", "Initializing");
    assert_eq!(works["status"]["init"]["outcome"], "Running");
    ground.until("asess/s", "initializes", |seen| seen["status"]["phase"] == "Initializing");
    assert_eq!(ground.run("s--fuzz", "/aigise/sandboxd status | head -1"), "The initialiser waits for its release.");
    ground.run("s--main", "touch /shared/go");
    ground.until_ready("asess/s");
    assert_eq!(ground.run("s--fuzz", "/aigise/sandboxd log"), "==> look\nmade");

    // What is lost later undoes nothing.
    ground.run("s--main", "rm /shared/go");
    ground.delete("pod/s--main");
    ground.until_not_ready("asb/s--main", "Initializing");
    assert_eq!(ground.get("asb/s--fuzz")["status"]["state"], "ready");
    ground.run("s--main", "touch /shared/go");
    ground.until_ready("asess/s");
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn a_step_that_fails_keeps_its_evidence_and_is_tried_again_when_somebody_wants_it() {
    let ground = Ground::new("init-fails");
    let secret =
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "k"}, "stringData": {"v": "hunter2"}});
    ground.apply(&secret);
    let mut main = with_steps(&json!([
        shell("fine", "echo well"),
        shell("compile", "echo using $TOKEN; [ -e /shared/fixed ] || { echo 'a.c:1: error' >&2; exit 2; }"),
    ]));
    main["env"] = json!([{"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "k", "key": "v"}}}]);
    let mut waits = with_steps(&json!([shell("never", "true")]));
    waits["dependsOn"] = json!(["main"]);
    ground.apply(&session("s", json!({"sandboxes": {"main": main, "fuzz": waits, "other": {"image": ROOT_IMAGE}}})));
    let failed = ground.until_not_ready("asb/s--main", "InitFailed");
    assert!(is_stalled(&failed));
    assert_eq!(failed["status"]["state"], "error");
    let init = &failed["status"]["init"];
    assert_eq!((&init["outcome"], &init["step"], &init["exitCode"]), (&json!("Failed"), &json!("compile"), &json!(2)));
    assert_eq!(init["tail"], "using ***\na.c:1: error");
    assert!(message(&failed).contains("compile") && message(&failed).contains("a.c:1: error"), "{}", message(&failed));
    ground.until_not_ready("asb/s--fuzz", "DependencyFailed");
    let blocked = ground.until_not_ready("asess/s", "SandboxFailed");
    assert!(message(&blocked).contains("a.c:1: error"), "{}", message(&blocked));
    assert_eq!(failed["status"]["restarts"], Value::Null, "it is never started again by itself");
    let event = ground.until_event("asb/s--main", "InitFailed");
    assert!(event.contains("compile") && event.contains("a.c:1: error") && !event.contains("hunter2"), "{event}");
    ground.until_event("asess/s", "SandboxFailed");

    // The session goes on with the others, and says what it lacks.
    ground.patch("asess/s", &json!({"spec": {"continueOnError": true}}));
    ground.until("asess/s", "is degraded", |seen| condition(seen, "Degraded")["status"] == "True");

    // While it is suspended, its Pods are gone and the evidence is not. A resume is a start.
    ground.patch("asess/s", &json!({"spec": {"suspend": true}}));
    ground.until("asess/s", "is suspended, and says what failed", |seen| {
        let reported = condition(seen, "Suspended")["message"].as_str().unwrap_or_default();
        seen["status"]["phase"] == "Suspended" && reported.contains("initialiser of main had failed")
    });
    assert_eq!(ground.get("asb/s--main")["status"]["init"], *init);
    ground.patch("asess/s", &json!({"spec": {"suspend": false}}));
    ground.until_ready("asb/s--other");
    ground.until_not_ready("asb/s--main", "InitFailed");

    ground.run("s--other", "touch /shared/fixed");
    ground.kubectl(&["annotate", "asess/s", "aigise.dev/restart=1"]).text();
    ground.until_ready("asess/s");
    assert_eq!(ground.get("asb/s--main")["status"]["init"]["outcome"], "Succeeded");
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn time_memory_and_signals_end_an_initialiser_and_it_can_be_left_out() {
    let ground = Ground::new("init-ends");
    let step = |name: &str, script: &str, timeout: &str| {
        let mut step = shell(name, script);
        step["timeout"] = json!(timeout);
        sandbox(name, json!({"type": "main", "image": ROOT_IMAGE, "init": {"steps": [step]}}))
    };
    ground.apply(&step("slow", "trap '' TERM; while :; do sleep 0.1; done", "1s"));
    ground.apply(&step("killed", "kill -SEGV $$", "1m"));
    let mut hungry = step("hungry", "a=x; while :; do a=$a$a; done", "1m");
    hungry["spec"]["resources"] = json!({"limits": {"memory": "64Mi"}});
    ground.apply(&hungry);
    let slow = ground.until_not_ready("asb/slow", "InitFailed");
    assert!(message(&slow).contains("did not end within its timeout"), "{}", message(&slow));
    let killed = ground.until_not_ready("asb/killed", "InitFailed");
    assert_eq!(killed["status"]["init"]["signal"], 11);
    ground.until_not_ready("asb/hungry", "InitFailed");
    let pod = uid(&ground.get("pod/slow")).to_string();
    ground.patch("asb/slow", &json!({"spec": {"init": {"skip": true}}}));
    let ready = ground.until_ready("asb/slow");
    assert_eq!(ready["status"]["init"]["outcome"], "Skipped");
    assert_ne!(uid(&ground.get("pod/slow")), pod);
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn ten_sandboxes_in_a_chain_become_ready_one_after_the_other() {
    let ground = Ground::new("chain");
    let sandboxes: serde_json::Map<_, _> = (0..10)
        .map(|n| {
            let needs = if n == 0 { json!([]) } else { json!([format!("t{}", n - 1)]) };
            let step = shell("count", "echo $AIGISE_SANDBOX_TYPE >>/shared/order");
            (format!("t{n}"), json!({"image": ROOT_IMAGE, "dependsOn": needs, "init": {"steps": [step]}}))
        })
        .collect();
    ground.apply(&session("s", json!({"sandboxes": sandboxes})));
    ground.until_ready("asess/s");
    let order: Vec<_> = (0..10).map(|n| format!("t{n}")).collect();
    assert_eq!(ground.run("s--t0", "cat /shared/order"), order.join("\n"));
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn what_cannot_work_is_refused_with_its_field() {
    let ground = Ground::new("init-refused");
    let bad = |name: &str, init: Value| sandbox(name, json!({"type": "main", "image": ROOT_IMAGE, "init": init}));
    ground.apply(&bad("twice", json!({"steps": [shell("a", "true"), shell("a", "true")]})));
    let seen = ground.until_not_ready("asb/twice", "InvalidSpec");
    assert!(message(&seen).contains("init.steps[1].name"), "{}", message(&seen));
    let complaint = ground.kubectl_reading(&["apply", "-f", "-"], &bad("time", json!({"timeout": "soon"})).to_string());
    assert!(complaint.complaint().contains("timeout"));
    let alone = json!({"type": "main", "image": ROOT_IMAGE, "dependsOn": ["fuzz"]});
    ground.apply(&sandbox("alone", alone));
    let seen = ground.until_not_ready("asb/alone", "InvalidSpec");
    assert!(message(&seen).contains("spec.dependsOn"), "{}", message(&seen));
    let circle = json!({"sandboxes": {"a": {"image": ROOT_IMAGE, "dependsOn": ["b"]}, "b": {"image": ROOT_IMAGE, "dependsOn": ["a"]}}});
    ground.apply(&session("circle", circle));
    let seen = ground.until_not_ready("asess/circle", "InvalidSpec");
    assert!(message(&seen).contains("a → b → a"), "{}", message(&seen));
    ground.apply(&plain_session("fine", &["main"]));
    ground.until_ready("asess/fine");
    assert_eq!(
        ground.get("pod/fine--main")["spec"]["containers"][0]["startupProbe"],
        Value::Null,
        "nothing is waited for"
    );
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn what_a_step_leaves_in_the_background_holds_up_nobody_and_goes_on() {
    let ground = Ground::new("init-daemon");
    // It keeps the step's output open, too.
    let daemon = "(while :; do date +%s%N >/tmp/beat.new; mv /tmp/beat.new /tmp/beat; echo tick; sleep 0.1; done) & echo $! >/tmp/pid";
    let steps = json!([shell("daemon", daemon), shell("nothing", "true")]);
    ground.apply(&sandbox("main", json!({"type": "main", "image": ROOT_IMAGE, "init": {"steps": steps}})));
    let ready = ground.until_ready("asb/main");
    assert_eq!(ready["status"]["init"]["outcome"], "Succeeded");
    let status = ground.run("main", "/aigise/sandboxd status");
    assert!(status.contains("1. daemon") && status.contains("2. nothing"), "{status}");
    // On a busy machine a beat takes longer than its 0.1 s: another one is waited for.
    let beats = "until [ -s /tmp/beat ]; do sleep 0.1; done; first=$(cat /tmp/beat); \
        while [ \"$(cat /tmp/beat)\" = \"$first\" ] && kill -0 $(cat /tmp/pid); do sleep 0.1; done; \
        kill -0 $(cat /tmp/pid) && echo lives";
    assert_eq!(ground.run("main", beats), "lives");
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn a_step_may_print_very_much_and_the_last_of_it_is_kept() {
    let ground = Ground::new("init-prints");
    // 100 MB in lines of 100 bytes, numbered at the end.
    let script = "yes $(printf %099d 0) | head -n 1000000; echo the last line";
    let main = json!({"type": "main", "image": ROOT_IMAGE, "init": {"steps": [shell("prints", script)]}});
    ground.apply(&sandbox("main", main));
    let ready = ground.until_ready("asb/main");
    assert_eq!(ready["status"]["init"]["outcome"], "Succeeded");
    let length: usize = ground.run("main", "/aigise/sandboxd log | wc -c").parse().unwrap();
    assert!((4_000_000..9_000_000).contains(&length), "{length} bytes are kept");
    assert_eq!(ground.run("main", "/aigise/sandboxd log | tail -n 1"), "the last line");
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn what_a_step_prints_need_not_be_text() {
    let ground = Ground::new("init-bytes");
    let script = r"printf 'be\377\376fore \200\n'; head -c 3000 /dev/urandom; printf '\nand after\303'; exit 4";
    let main = json!({"type": "main", "image": ROOT_IMAGE, "init": {"steps": [shell("bytes", script)]}});
    ground.apply(&sandbox("main", main));
    let failed = ground.until_not_ready("asb/main", "InitFailed");
    let init = &failed["status"]["init"];
    assert_eq!((&init["step"], &init["exitCode"]), (&json!("bytes"), &json!(4)));
    let tail = init["tail"].as_str().expect("a tail");
    assert!(tail.contains("and after") && tail.len() <= 4096, "{} bytes: {tail}", tail.len());
    assert!(message(&failed).contains("and after"), "{}", message(&failed));
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn a_step_that_fills_the_disk_is_reported() {
    let ground = Ground::new("init-disk");
    let fills = |name: &str, place: &str, template: Value| {
        let script = format!("echo fills; dd if=/dev/zero of={place}/big bs=1M count=64 && sleep 100");
        let mut sandbox = sandbox(name, json!({"type": "main", "image": ROOT_IMAGE}));
        sandbox["spec"]["init"] = json!({"steps": [shell("fill", &script)]});
        sandbox["spec"].as_object_mut().unwrap().extend(template.as_object().unwrap().clone());
        sandbox
    };
    // A volume that is full fails the step; a limit that is passed costs the Pod. Neither is tried again.
    let mounts = json!([{"name": "sandbox", "volumeMounts": [{"name": "small", "mountPath": "/small"}]}]);
    let small = json!([{"name": "small", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}]);
    ground.apply(&fills(
        "volume",
        "/small",
        json!({"podTemplate": {"spec": {"containers": mounts, "volumes": small}}}),
    ));
    ground.apply(&fills("limit", "/tmp", json!({"resources": {"limits": {"ephemeral-storage": "16Mi"}}})));
    let full = ground.until_not_ready("asb/volume", "InitFailed");
    let tail = full["status"]["init"]["tail"].as_str().unwrap_or_default();
    assert!(tail.contains("fills\n") && tail.contains("No space left on device"), "{}", full["status"]);
    let evicted = ground.until_not_ready("asb/limit", "InitFailed");
    assert!(is_stalled(&evicted), "{}", evicted["status"]);
    assert!(message(&evicted).contains("more disk") && message(&evicted).contains("16Mi"), "{}", message(&evicted));
    assert_eq!(evicted["status"]["init"]["outcome"], "Failed");
    assert_eq!(evicted["status"]["restarts"], Value::Null);
    // With enough disk, it is well.
    ground.patch("asb/limit", &json!({"spec": {"resources": {"limits": {"ephemeral-storage": "256Mi"}}, "init": {"steps": [shell("fill", "dd if=/dev/zero of=/tmp/big bs=1M count=64")]}}}));
    ground.until_ready("asb/limit");
}

/// Longer than any limit that the operator has for a probe without one.
#[test]
#[ignore = "needs a cluster: make e2e"]
fn a_slow_readiness_probe_has_its_own_timeout_beside_an_initialiser() {
    let ground = Ground::new("slow-probe");
    let mut main = with_steps(&json!([shell("nothing", "true")]));
    main["readinessProbe"] = json!({"exec": {"command": ["sleep", "11"]}, "timeoutSeconds": 20, "failureThreshold": 1});
    let mut hasty = with_steps(&json!([shell("nothing", "true")]));
    hasty["readinessProbe"] =
        json!({"exec": {"command": ["sleep", "3"]}, "timeoutSeconds": 1, "periodSeconds": 1, "failureThreshold": 1});
    ground.apply(&session("s", json!({"sandboxes": {"main": main, "hasty": hasty}})));
    ground.until_ready("asb/s--main");
    ground.until_not_ready("asb/s--hasty", "NotReady");
    let event = ground.until_event("pod/s--hasty", "Unhealthy");
    assert!(event.contains("did not end within its timeout, after 1 s"), "{event}");
}
