//! Caches of root file systems: what steps left in a sandbox, and the next session's sandbox has.

use serde_json::{Value, json};

use super::{
    audit,
    client::run,
    ground::Ground,
    objects::{ROOT_IMAGE, USER_IMAGE, condition, list, message, reason, session, uid},
};

fn steps(commands: &[(&str, &str, bool)]) -> Value {
    let step = |(name, command, always): &(&str, &str, bool)| {
        let step = json!({"name": name, "command": ["sh", "-c", command]});
        if *always { merged(step, json!({"run": "Always"})) } else { step }
    };
    json!({"profile": "None", "steps": commands.iter().map(step).collect::<Vec<_>>()})
}

fn merged(mut one: Value, other: Value) -> Value {
    let fields = other.as_object().cloned().unwrap_or_default();
    one.as_object_mut().expect("an object").extend(fields);
    one
}

fn cache(restore: &str) -> Value {
    json!({"storage": {"size": "64Mi"}, "restore": restore})
}

fn cached(object: &Value) -> &str {
    condition(object, "Cached")["reason"].as_str().unwrap_or_default()
}

fn part(object: &Value, sandbox_type: &str) -> (String, String) {
    let part = &object["status"]["cache"]["sandboxes"][sandbox_type];
    let text = |field: &str| part[field].as_str().unwrap_or_default().to_string();
    (text("result"), text("reason"))
}

fn root_state(ground: &Ground, sandbox: &str) -> String {
    ground.get(&format!("asb/{sandbox}"))["status"]["init"]["root"]["state"].as_str().unwrap_or_default().to_string()
}

/// Everything that a step can do to an image.
const BUILD: &str = "set -e; echo run >>/shared/runs.main; mkdir -p /opt/build /root/.cfg; cd /opt/build; echo x >one; ln one two; ln -s one link; \
    truncate -s 8M holes; echo end >>holes; touch -d '2001-02-03 04:05:06' old; chmod 4750 one; chown 1000:2000 old; \
    echo strange >\"$(printf 'new\nline \\377')\"; rm /bin/tac; mv /etc/passwd /etc/moved; echo changed >>/etc/moved; \
    mkdir -p /tmp/deep/er; echo t >/tmp/deep/er/t; chmod 500 /tmp/deep/er; echo left >/opt/left-out; echo run >/run/not";

/// What came of it, but for inode numbers.
const LOOK: &str = "cd /opt/build; for name in *; do printf %s \"$name\" | xxd -p; done; stat -c '%n %s %h %a %u %g %F %y' one two holes link old; \
    cat one holes | md5sum; du -k holes | cut -f1; test ! -e /bin/tac; test ! -e /etc/passwd; cat /etc/moved; \
    stat -c '%n %a %y' /tmp/deep/er /tmp/deep; cat /tmp/deep/er/t";

/// A type of each kind: one that idles, one with a server that its step waits for, and one without root.
fn kinds(name: &str, cache: Value) -> Value {
    let serve = "seen=$(cat /srv/index.html 2>/dev/null); echo \"$seen\" >/tmp/at-start; mkdir -p /srv; exec httpd -f -p 8080 -h /srv";
    let wait = "set -e; echo run >>/shared/runs.serve; mkdir -p /srv; echo hello >/srv/page; until wget -q -O- http://localhost:8080/page; do sleep 0.1; done; echo seen >/srv/index.html";
    let user = "set -e; echo run >>/shared/runs.user; echo mine >/scratch/out; mkdir /scratch/closed; chmod 700 /scratch/closed; test ! -w /etc";
    let overlay = json!({"spec": {
        "volumes": [{"name": "scratch", "emptyDir": {}}],
        "containers": [{"name": "sandbox", "volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}]}],
    }});
    let restricted = json!({
        "readOnlyRootFilesystem": true, "runAsNonRoot": true, "allowPrivilegeEscalation": false,
        "capabilities": {"drop": ["ALL"]}, "seccompProfile": {"type": "RuntimeDefault"},
    });
    session(
        name,
        json!({
            "taskName": "task",
            "cache": merged(cache, json!({"exclude": ["/opt/left-out"]})),
            "sandboxes": {
                "main": {"image": ROOT_IMAGE, "init": steps(&[
                    ("build", BUILD, false),
                    ("serve", "sleep 10000 >/dev/null 2>&1 & echo up >/tmp/served", true),
                ])},
                "serve": {"image": ROOT_IMAGE, "command": ["sh", "-c", serve], "init": steps(&[("wait", wait, false)])},
                "user": {
                    "image": USER_IMAGE, "podTemplate": overlay, "securityContext": restricted,
                    "init": steps(&[("make", user, false)]),
                },
            },
        }),
    )
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn each_sandbox_starts_with_the_root_file_system_that_steps_left() {
    let _undisturbed = audit::operator_stays();
    let ground = Ground::new("roots");
    ground.apply(&kinds("s", cache("Whole")));
    let saved = ground.until_ready("asess/s");
    assert_eq!((cached(&saved), &saved["status"]["cache"]["save"]["errors"]), ("Saved", &Value::Null));
    let left = ground.run("s--main", LOOK);
    ground.run("s--main", "echo work >/opt/build/one; echo work >>/shared/runs.main");

    ground.apply(&kinds("next", cache("Required")));
    let next = ground.until_ready("asess/next");
    assert_eq!((cached(&next), &next["status"]["cache"]["missing"]), ("Restored", &Value::Null));
    for sandbox_type in ["main", "serve", "user"] {
        assert_eq!(part(&next, sandbox_type), ("Restored".into(), String::new()), "{sandbox_type}");
        assert_eq!(root_state(&ground, &format!("next--{sandbox_type}")), "Restored");
    }
    assert_eq!(ground.run("next--main", LOOK), left);
    assert_eq!(
        ground.run("next--main", "cat /shared/runs.*; cat /tmp/served; ls /opt; test ! -e /run/not"),
        "run\nrun\nrun\nup\nbuild"
    );
    assert_eq!(ground.run("next--serve", "cat /tmp/at-start; wget -q -O- http://localhost:8080/page"), "seen\nhello");
    assert_eq!(ground.run("next--user", "cat /scratch/out; stat -c %a /scratch/closed"), "mine\n700");

    // Another start is restored as well, beside the data as it was left; so is a start after a rest.
    ground.run("next--main", "echo worked >>/shared/runs.main; rm -rf /opt/build");
    let first = uid(&ground.get("pod/next--main")).to_string();
    ground.delete("pod/next--main");
    ground.until("asb/next--main", "ready in another Pod", |sandbox| {
        sandbox["status"]["podUID"] != *first && reason(sandbox) == "Ready"
    });
    assert_eq!(ground.run("next--main", LOOK), left);
    ground.patch("asess/next", &json!({"spec": {"suspend": true}}));
    ground.until_gone("pod/next--serve");
    ground.patch("asess/next", &json!({"spec": {"suspend": false}}));
    ground.until_ready("asess/next");
    assert_eq!(
        ground.run("next--main", &format!("{LOOK}; cat /shared/runs.*")),
        format!("{left}\nrun\nworked\nrun\nrun")
    );
}

/// A session of which one type restores its root file system long before another is ready.
fn slow(name: &str, restore: &str, seconds: u32) -> Value {
    let run = |sandbox_type: &str| format!("echo {sandbox_type} >>/shared/runs; mkdir /opt; echo x >/opt/x");
    let wait =
        format!("echo slow >>/shared/runs; until [ -e /shared/go ] || [ $((n += 1)) -gt {seconds} ]; do sleep 1; done");
    session(
        name,
        json!({
            "taskName": "slow",
            "cache": cache(restore),
            "sandboxes": {
                "main": {"image": ROOT_IMAGE, "init": steps(&[("build", &run("main"), false)])},
                "fuzz": {"image": ROOT_IMAGE, "init": steps(&[("build", &run("fuzz"), false)])},
                "slow": {"image": ROOT_IMAGE, "cache": {"root": "None"}, "init": steps(&[("wait", &wait, false)])},
            },
        }),
    )
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn a_root_that_another_sandbox_damages_starts_cold_and_condemns_no_cache() {
    let ground = Ground::new("roots-bad");
    // The session is ready only when this is written.
    let mut first = slow("s", "Whole", 120);
    first["spec"]["sandboxes"]["slow"]["init"]["steps"][0]["command"][2] = json!("true");
    let spec = first.clone();
    ground.apply(&first);
    ground.until_ready("asess/s");
    let entry = ground.get("asess/s")["status"]["cache"]["entry"].as_str().expect("a cache").to_string();

    // Before its first Ready, all of it starts cold.
    let mut next = spec.clone();
    next["metadata"]["name"] = json!("next");
    next["spec"]["sandboxes"]["slow"] = slow("", "Whole", 120)["spec"]["sandboxes"]["slow"].clone();
    ground.apply(&next);
    ground.until("asb/next--main", "restored", |sandbox| reason(sandbox) == "Ready");
    let before = uid(&ground.get("pvc/next--data")).to_string();
    let damage = "echo damaged >/shared/.aigise-cache/main.tar.zst";
    ground.run("next--fuzz", damage);
    ground.delete("pod/next--main");
    ground
        .until("asess/next", "without the cache", |session| session["status"]["cache"]["data"]["reason"] == "Corrupt");
    ground.until("asb/next--main", "ready again", |sandbox| reason(sandbox) == "Ready");
    ground.until("asb/next--fuzz", "ready again", |sandbox| reason(sandbox) == "Ready");
    ground.run("next--main", "touch /shared/go");
    let cold = ground.until_ready("asess/next");
    assert_ne!(uid(&ground.get("pvc/next--data")), before);
    assert_eq!(ground.run("next--main", "sort /shared/runs; ls /opt"), "fuzz\nmain\nslow\nx");
    assert_eq!(part(&cold, "fuzz"), ("Missing".into(), "Corrupt".into()));
    assert_eq!(ground.get("asb/next--main")["status"]["restarts"], Value::Null);
    assert_eq!(ground.get(&format!("pvc/{entry}"))["metadata"]["annotations"]["aigise.dev/cache-bad"], Value::Null);

    // After it, only the sandbox runs its steps.
    let mut last = spec;
    last["metadata"]["name"] = json!("last");
    ground.apply(&last);
    ground.until_ready("asess/last");
    ground.run("last--fuzz", &format!("{damage}; echo work >/shared/work"));
    let first = uid(&ground.get("pod/last--main")).to_string();
    ground.delete("pod/last--main");
    ground.until("asb/last--main", "ready without the cache", |sandbox| {
        sandbox["status"]["podUID"] != *first
            && reason(sandbox) == "Ready"
            && sandbox["status"]["init"]["root"] == Value::Null
    });
    let last = ground.until_ready("asess/last");
    // It was restored from what the cold start has saved.
    assert_eq!(ground.run("last--main", "sort /shared/runs; cat /shared/work"), "fuzz\nmain\nmain\nslow\nwork");
    assert_eq!((part(&last, "main").1, part(&last, "fuzz").0), ("Corrupt".into(), "Restored".into()));
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn what_is_not_packed_is_named_and_the_others_are_restored() {
    let ground = Ground::new("roots-not");
    let not = |name: &str, restore: &str| {
        let of = |command: &str| json!({"image": ROOT_IMAGE, "init": steps(&[("build", command, false)])});
        let from = json!({"secretKeyRef": {"name": "key", "key": "k"}});
        let token = merged(
            of("mkdir /root; echo $TOKEN >/root/.netrc"),
            json!({"env": [{"name": "TOKEN", "valueFrom": from}]}),
        );
        let sandboxes = json!({
            "main": of("mkdir /opt; echo x >/opt/x; echo main >>/shared/runs"),
            "leaves": of("sleep 10000 >/dev/null 2>&1 &"),
            "secret": token,
        });
        session(name, json!({"taskName": "not", "cache": cache(restore), "sandboxes": sandboxes}))
    };
    let key = json!({
        "apiVersion": "v1", "kind": "Secret", "metadata": {"name": "key"}, "stringData": {"k": "hunter2-and-more"},
    });
    ground.apply(&list(&[key, not("s", "Whole")]));
    let saved = ground.until_ready("asess/s");
    assert_eq!(cached(&saved), "SaveIncomplete");
    let why = condition(&saved, "Cached")["message"].as_str().unwrap_or_default();
    assert!(why.contains("leaves: StepLeftProcesses") && why.contains("the step build has left the process"), "{why}");
    assert!(why.contains("secret: SecretFound") && why.contains("root/.netrc") && !why.contains("hunter2"), "{why}");
    ground.apply(&not("required", "Required"));
    let missing = ground.until_not_ready("asess/required", "CacheMissing");
    assert!(message(&missing).contains("NotSaved"), "{}", message(&missing));
    ground.apply(&not("partial", "Partial"));
    let partial = ground.until_ready("asess/partial");
    assert_eq!(partial["status"]["cache"]["missing"], json!(["leaves", "secret"]));
    assert_eq!(ground.run("partial--main", "cat /opt/x /shared/runs"), "x\nmain");
}

/// An image that declares a volume, with files in it; and the same with one more file elsewhere.
fn build_and_load(image: &str, more: &str) {
    let folder = tempfile::tempdir().unwrap();
    let [archive, dockerfile] = ["image.tar", "Dockerfile"].map(|name| folder.path().join(name).display().to_string());
    let text = format!(
        "FROM scratch\nCOPY rootfs/ /\nCOPY rootfs/etc/passwd /kept/old\n{more}ENV PATH=/bin\nVOLUME /kept\nENTRYPOINT [\"/bin/own-entrypoint\"]\nCMD [\"of the image\"]\n"
    );
    std::fs::write(&dockerfile, text).unwrap();
    run("tests/kind/image.sh", &[&archive, image, "target/image/e2e", &dockerfile], "").text();
    run("tests/kind/cluster", &["load", &archive], "").text();
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn volumes_of_an_image_are_restored_and_a_tag_that_has_moved_is_found() {
    let ground = Ground::new("roots-image");
    let image = format!("localhost/aigise-moves:{}", ground.namespace);
    build_and_load(&image, "");
    let kinds = |name: &str, restore: &str| {
        let main = json!({"image": image, "init": steps(&[("build", "set -e; echo x >/kept/new; rm /kept/old; echo x >/tmp/x", false)])});
        let live = json!({
            "image": image, "entrypoint": "Image", "cache": {"root": "Live"},
            "init": steps(&[("build", "echo run >>/shared/runs; echo y >/tmp/y; echo y >/kept/y", false)]),
        });
        let spec = json!({"taskName": "image", "cache": cache(restore), "sandboxes": {"main": main, "live": live}});
        session(name, spec)
    };
    ground.apply(&kinds("s", "Whole"));
    assert_eq!(cached(&ground.until_ready("asess/s")), "Saved");
    ground.apply(&kinds("hit", "Required"));
    let hit = ground.until_ready("asess/hit");
    assert_eq!((part(&hit, "main").0, part(&hit, "live").0), ("Restored".into(), "Restored".into()));
    assert_eq!(ground.run("hit--main", "ls /kept; cat /tmp/x"), "new\nx");
    assert_eq!(ground.run("hit--live", "ls /kept; cat /tmp/y /shared/runs"), "old\ny\ny\nrun");

    build_and_load(&image, "COPY rootfs/etc/passwd /etc/more\n");
    ground.apply(&kinds("moved", "Whole"));
    let moved = ground.until_ready("asess/moved");
    assert_eq!(part(&moved, "main"), ("Missing".into(), "ImageChanged".into()));
    assert_eq!(ground.run("moved--main", "ls /kept /etc/more; cat /shared/runs"), "/etc/more\n\n/kept:\nnew\nrun");
    assert_eq!(cached(&moved), "Saved");
}
