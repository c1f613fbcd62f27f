//! Images and commands as sources of the volumes.

use serde_json::{Value, json};

use super::{
    ground::Ground,
    objects::{ROOT_IMAGE, USER_IMAGE, is_stalled, message, plain, reason, session},
};

/// A session of one sandbox, whose data volume has these sources.
fn with_sources(sources: &Value) -> Value {
    session("s", json!({"sandboxes": plain(&["main"]), "volumes": {"data": {"sources": sources}}}))
}

/// A shell command as a source, into a folder of its own.
fn from_command(image: &str, command: &str, path: &str) -> Value {
    json!({"container": {"image": image, "command": ["sh", "-c", command]}, "path": path})
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn the_files_of_an_image_are_a_source() {
    let ground = Ground::new("image-source");
    ground.apply(&with_sources(&json!([
        {"image": {"reference": ROOT_IMAGE, "path": "/etc"}, "path": "etc"},
        {"image": {"reference": ROOT_IMAGE, "path": "bin", "pullPolicy": "Never"}, "path": "deep/bin"},
    ])));
    ground.until_ready("asess/s");
    // The sandbox runs the same image.
    assert_eq!(ground.run("s--main", "cat /shared/etc/passwd"), ground.run("s--main", "cat /etc/passwd"));
    assert_eq!(ground.run("s--main", "readlink /shared/deep/bin/ls"), "busybox");
    assert_eq!(ground.run("s--main", "/shared/deep/bin/ls /shared"), "deep\netc");
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn an_image_that_is_missing_is_named_and_one_without_the_folder_as_well() {
    let ground = Ground::new("image-missing");
    let image = format!("localhost/not-there:{}", ground.namespace);
    ground.apply(&with_sources(&json!([{"image": {"reference": image, "pullPolicy": "Never"}}])));
    let waiting = ground.until("asess/s", "names the image", |seen| message(seen).contains(&image));
    assert_eq!((reason(&waiting), is_stalled(&waiting)), ("Staging", false), "{}", message(&waiting));
    assert!(!message(&waiting).contains("aigise-operator"), "it blames another image: {}", message(&waiting));

    ground.apply(&with_sources(&json!([{"image": {"reference": ROOT_IMAGE, "path": "/no/such"}}])));
    let failed = ground.until_not_ready("asess/s", "StagingFailed");
    for word in [&format!("image {ROOT_IMAGE}"), "there is no folder", "/no"] {
        assert!(message(&failed).contains(word), "{word}: {}", message(&failed));
    }
    ground.apply(&with_sources(&json!([{"image": {"reference": ROOT_IMAGE, "path": "/etc"}}])));
    ground.until_ready("asess/s");
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn what_commands_leave_is_a_source_whoever_they_run_as() {
    let ground = Ground::new("command-source");
    let script = "id -u >user; pwd >place; grep CapEff /proc/self/status >rights; ls /var/run/secrets >token 2>&1; \
                 env >env; printf '#!/bin/sh\\necho ran' >run; chmod 755 run; mkdir -p a/b; umask 027; echo deep >a/b/c";
    let by = |image: &str, path: &str| {
        let mut source = from_command(image, script, path);
        source["container"]["workingDir"] = json!("/volume");
        source["container"]["env"] = json!([{"name": "FLAVOUR", "value": "of $(AIGISE_SESSION)"}]);
        source
    };
    // The second finds nothing of the first: each has a folder of its own.
    let alone = from_command(ROOT_IMAGE, "count=$(ls -A /volume | wc -l); echo $count >/volume/count", "alone");
    ground.apply(&with_sources(&json!([by(ROOT_IMAGE, "root"), by(USER_IMAGE, "user"), alone])));
    ground.until_ready("asess/s");
    for (folder, user) in [("root", "0"), ("user", "1000")] {
        let content = |file: &str| ground.run("s--main", &format!("cat /shared/{folder}/{file}"));
        assert_eq!(content("user"), user);
        assert_eq!(content("place"), "/volume");
        assert_eq!(content("rights").split_whitespace().last(), Some("0000000000000000"), "{folder} has capabilities");
        assert!(content("token").contains("No such file"), "{folder} has a token: {}", content("token"));
        assert!(content("env").lines().any(|line| line == "FLAVOUR=of s"), "{}", content("env"));
        assert_eq!(content("a/b/c"), "deep");
        assert_eq!(ground.run("s--main", &format!("/shared/{folder}/run")), "ran");
    }
    assert_eq!(ground.run("s--main", "cat /shared/alone/count"), "0");
}

/// The tree has the form of a virtual environment. What a sandbox finds behind the links is its own file system.
#[test]
#[ignore = "needs a cluster: make e2e"]
fn links_are_copied_as_they_are_and_work_in_the_sandbox() {
    let ground = Ground::new("links");
    let script = "mkdir -p bin lib; ln -s lib lib64; ln -s /bin/sh bin/sh; ln -s sh bin/ash; ln -s /no/such none; \
                  ln -s loop loop; ln -s /etc etc; ln -s ../../.. up; echo of the tools >lib/file; \
                  printf '#!/bash_tools/env/bin/ash\\ncat /bash_tools/env/lib64/file\\n' >bin/tool; chmod 755 bin/tool";
    let mut source = from_command(ROOT_IMAGE, script, "env");
    source["container"]["workingDir"] = json!("/volume");
    let volumes = json!({"tools": {"sources": [source]}});
    ground.apply(&session("s", json!({"sandboxes": plain(&["main"]), "volumes": volumes})));
    let ready = ground.until_ready("asess/s");
    assert_eq!(ready["status"]["volumes"]["tools"]["roots"], json!(["env"]));
    let read = "cd /bash_tools/env; for link in lib64 bin/sh bin/ash none loop etc up; do readlink $link; done";
    assert_eq!(ground.run("s--main", read), "lib\n/bin/sh\nsh\n/no/such\nloop\n/etc\n../../..");
    assert_eq!(ground.run("s--main", "/bash_tools/env/bin/tool"), "of the tools");
    // The file of the sandbox: the stage Pod's image has another one, or none.
    assert_eq!(ground.run("s--main", "cat /bash_tools/env/etc/passwd"), ground.run("s--main", "cat /etc/passwd"));
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn a_command_that_fails_is_named_with_its_last_words_and_run_again_when_it_is_fixed() {
    let ground = Ground::new("command-fails");
    let fails = "echo about to; echo 'fatal: no such repository' >&2; exit 3";
    let sources = |command: &str| with_sources(&json!([from_command(ROOT_IMAGE, command, "in")]));
    ground.apply(&sources(fails));
    let failed = ground.until_not_ready("asess/s", "StagingFailed");
    for word in [&format!("container {ROOT_IMAGE} (data.sources[0])"), "exit code 3", "fatal: no such repository"] {
        assert!(message(&failed).contains(word), "{word}: {}", message(&failed));
    }
    assert!(is_stalled(&failed));
    assert!(ground.names("asb", "").is_empty(), "sandboxes start over volumes that are not filled");
    let log = ground.kubectl(&["logs", "s--stage", "-c", "source-data-0"]).text();
    assert!(log.contains("about to"), "{log}");

    ground.apply(&sources("echo mended >/volume/file"));
    ground.until_ready("asess/s");
    assert_eq!(ground.run("s--main", "cat /shared/in/file"), "mended");

    // Its environment is part of the list: it runs again, and what it brings anew is added.
    let mut changed = sources("echo $FILE >/volume/$FILE");
    changed["spec"]["volumes"]["data"]["sources"][0]["container"]["env"] = json!([{"name": "FILE", "value": "second"}]);
    ground.apply(&changed);
    ground.until_ready("asess/s");
    assert_eq!(ground.run("s--main", "cat /shared/in/file /shared/in/second"), "mended\nsecond");
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn a_command_that_cannot_start_says_why() {
    let ground = Ground::new("command-start");
    let image = format!("localhost/not-there:{}", ground.namespace);
    ground.apply(&with_sources(&json!([from_command(&image, "true", "in")])));
    let waiting = ground.until("asess/s", "names the image", |seen| message(seen).contains(&image));
    assert_eq!((reason(&waiting), is_stalled(&waiting)), ("Staging", false));

    let mut secret = from_command(ROOT_IMAGE, "true", "in");
    let key = json!({"secretKeyRef": {"name": "not-there", "key": "k"}});
    secret["container"]["env"] = json!([{"name": "KEY", "valueFrom": key}]);
    ground.apply(&with_sources(&json!([secret])));
    let waiting = ground.until("asess/s", "names the Secret", |seen| message(seen).contains("secret \"not-there\""));
    assert_eq!((reason(&waiting), is_stalled(&waiting)), ("Staging", false));

    ground.apply(&with_sources(&json!([{"container": {"image": ROOT_IMAGE, "command": ["gti", "clone"]}}])));
    let failed = ground.until_not_ready("asess/s", "StagingFailed");
    for word in ["data.sources[0]", "could not be started", "gti"] {
        assert!(message(&failed).contains(word), "{word}: {}", message(&failed));
    }
    ground.apply(&with_sources(&json!([from_command(ROOT_IMAGE, "echo well >/volume/file", "in")])));
    ground.until_ready("asess/s");
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn what_a_command_leaves_that_cannot_be_copied_is_named() {
    let ground = Ground::new("command-leaves");
    for (command, words) in [
        ("umask 077; echo x >/volume/secret", ["could not read secret", "65532"]),
        ("mkfifo /volume/pipe", ["holds pipe", "named pipe and cannot be copied"]),
    ] {
        ground.apply(&with_sources(&json!([from_command(ROOT_IMAGE, command, "in")])));
        for word in words {
            let what = format!("says {word}");
            let failed = ground.until("asess/s", &what, |seen| message(seen).contains(word));
            assert_eq!((reason(&failed), is_stalled(&failed)), ("StagingFailed", true));
            assert!(message(&failed).contains("data.sources[0]"), "{}", message(&failed));
        }
    }
    ground.apply(&with_sources(&json!([from_command(
        ROOT_IMAGE,
        "umask 077; echo x >/volume/secret; chmod -R a+rX /volume",
        "in"
    )])));
    ground.until_ready("asess/s");
    assert_eq!(ground.run("s--main", "cat /shared/in/secret"), "x");
}

/// Ended Pods are the first that anybody deletes, and sources are often not there a second time.
#[test]
#[ignore = "needs a cluster: make e2e"]
fn what_is_filled_stays_filled_without_its_pod_and_its_source() {
    let ground = Ground::new("filled");
    let secret =
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "once"}, "stringData": {"token": "t"}});
    ground.apply(&secret);
    let mut source = from_command(ROOT_IMAGE, "cat /proc/sys/kernel/random/uuid >>/volume/run-$TOKEN", "runs");
    source["container"]["env"] =
        json!([{"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "once", "key": "token"}}}]);
    ground.apply(&with_sources(&json!([source])));
    ground.until_ready("asess/s");
    let runs = ground.run("s--main", "cat /shared/runs/*");
    ground.delete("secret/once");
    ground.delete("pod/s--stage");
    ground.until_gone("pod/s--stage");
    ground.patch("asess/s", &json!({"spec": {"sandboxes": {"late": {"image": ROOT_IMAGE}}}}));
    ground.until_ready("asb/s--late");
    ground.until_ready("asess/s");
    let left = ground.kubectl(&["get", "pod", "s--stage", "--ignore-not-found", "-o", "name"]);
    assert_eq!(left.text(), "", "it is staged again");

    ground.apply(
        &json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "once"}, "stringData": {"token": "u"}}),
    );
    ground.kubectl(&["annotate", "asess", "s", "aigise.dev/restage=1"]);
    ground.until("asess/s", "is filled again", |seen| seen["status"]["volumes"]["filled"]["request"] == "1");
    assert_eq!(ground.run("s--main", "cat /shared/runs/run-t"), runs, "files are kept");
    assert_ne!(ground.run("s--main", "cat /shared/runs/run-u"), runs, "and the command ran again");
}

/// What git looks at: the owner of a repository, its user, and its configuration. No image of the tests has git.
#[test]
#[ignore = "needs a cluster: make e2e"]
fn git_may_work_in_a_repository_that_a_command_cloned() {
    let ground = Ground::new("git");
    let clone = "mkdir -p .git/refs .git/objects; echo 'ref: refs/heads/main' >.git/HEAD; echo readme >README";
    ground.apply(&session(
        "s",
        json!({
            "sandboxes": {"root": {"image": ROOT_IMAGE}, "user": {"image": USER_IMAGE}},
            "volumes": {"data": {"sources": [from_command(ROOT_IMAGE, &format!("cd /volume; {clone}"), "repo")]}},
        }),
    ));
    ground.until_ready("asess/s");
    for (pod, user) in [("s--root", "0"), ("s--user", "1000")] {
        let owners = ground.run(pod, "id -u; stat -c %u /shared/repo/.git");
        assert_eq!(owners, format!("{user}\n65532"));
        let variables = ground.run(pod, "env | grep '^GIT_' | sort");
        let expected = "GIT_CONFIG_COUNT=1\nGIT_CONFIG_KEY_0=safe.directory\nGIT_CONFIG_SYSTEM=/aigise/gitconfig\nGIT_CONFIG_VALUE_0=*";
        assert_eq!(variables, expected);
        let file = ground.run(pod, "cat $GIT_CONFIG_SYSTEM");
        assert_eq!(file, include_str!("../../src/sandboxd/gitconfig").trim());
    }
}
