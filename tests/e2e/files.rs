//! The shared volumes, seen from the sandboxes.

use serde_json::{Value, json};

use super::{
    ground::{Ground, Layout, for_each_layout},
    objects::{ROOT_IMAGE, USER_IMAGE, config_map, from_config_map, list, plain, plain_session, session},
};

for_each_layout! {
    files_written_in_one_sandbox_are_read_in_another_both_ways,
    nested_folders_come_from_sources_at_several_paths,
    sandbox_scripts_is_read_only_also_for_root,
    users_of_all_kinds_share_files,
    users_of_all_kinds_edit_each_others_files_in_a_staged_folder,
    tools_top_roots_pick_all_none_or_some_of_the_roots,
    a_claim_is_a_source_and_stays_as_it_is,
}

fn files_written_in_one_sandbox_are_read_in_another_both_ways(layout: Layout) {
    let ground = Ground::laid_out(layout, "both-ways");
    ground.apply(&plain_session("s", &["main", "gdb_mcp"]));
    ground.until_ready("asess/s");
    for volume in ["/shared", "/bash_tools"] {
        for (writer, reader) in [("s--main", "s--gdb-mcp"), ("s--gdb-mcp", "s--main")] {
            let file = format!("{volume}/from-{writer}");
            ground.run(writer, &format!("echo written by {writer} >{file}"));
            assert_eq!(ground.run(reader, &format!("cat {file}")), format!("written by {writer}"));
        }
    }
}

fn nested_folders_come_from_sources_at_several_paths(layout: Layout) {
    let ground = Ground::laid_out(layout, "nested");
    ground.apply(&list(&[
        config_map("top", &[("readme", "at the root")]),
        config_map("source", &[("a.c", "int a;"), ("b.c", "int b;")]),
        config_map("seeds", &[("1", "seed")]),
        config_map("scripts", &[("build.sh", "#!/bin/sh\necho built")]),
        session(
            "s",
            json!({
                "sandboxes": plain(&["main"]),
                "volumes": {
                    "data": {"sources": [
                        {"configMap": {"name": "top"}},
                        from_config_map("source", "src/lib"),
                        from_config_map("seeds", "src/lib/corpus/seeds"),
                        from_config_map("seeds", "corpus"),
                    ]},
                    "scripts": {"sources": [from_config_map("scripts", "deps/main")]},
                },
            }),
        ),
    ]));
    ground.until_ready("asess/s");
    let files = ground.run("s--main", "cd /shared && find . -type f ! -name '.aigise*' | sort");
    assert_eq!(files, "./corpus/1\n./readme\n./src/lib/a.c\n./src/lib/b.c\n./src/lib/corpus/seeds/1");
    assert_eq!(ground.run("s--main", "cat /shared/readme /shared/src/lib/corpus/seeds/1"), "at the rootseed");
    assert_eq!(ground.run("s--main", "sh /sandbox_scripts/deps/main/build.sh"), "built");
}

fn sandbox_scripts_is_read_only_also_for_root(layout: Layout) {
    let ground = Ground::laid_out(layout, "read-only");
    ground.apply(&list(&[
        config_map("scripts", &[("run.sh", "echo ran")]),
        session(
            "s",
            json!({
                "sandboxes": {"main": {"image": ROOT_IMAGE}, "user": {"image": USER_IMAGE}},
                "volumes": {"scripts": {"sources": [{"configMap": {"name": "scripts"}}]}},
            }),
        ),
    ]));
    ground.until_ready("asess/s");
    assert_eq!(ground.run("s--main", "id -u"), "0");
    assert_eq!(ground.run("s--user", "id -u"), "1000");
    for sandbox in ["s--main", "s--user"] {
        for attempt in ["touch mine", "echo changed >run.sh", "rm run.sh", "mkdir folder", "chmod 777 run.sh"] {
            let complaint = ground.try_run(sandbox, &format!("cd /sandbox_scripts && {attempt}")).complaint();
            assert!(complaint.contains("Read-only file system"), "{sandbox}: {attempt}: {complaint}");
        }
        assert_eq!(ground.run(sandbox, "sh /sandbox_scripts/run.sh"), "ran");
    }
}

fn users_of_all_kinds_share_files(layout: Layout) {
    let ground = Ground::laid_out(layout, "users");
    ground.apply(&list(&[
        config_map("staged", &[("notes", "staged\n")]),
        session(
            "s",
            json!({
                "sandboxes": {
                    "root": {"image": ROOT_IMAGE},
                    "user": {"image": USER_IMAGE},
                    "other": {"image": ROOT_IMAGE, "securityContext": {"runAsUser": 2000, "runAsGroup": 2000}},
                },
                "volumes": {"data": {"sources": [from_config_map("staged", "a/b")]}},
            }),
        ),
    ]));
    ground.until_ready("asess/s");
    let users = [("s--root", "0"), ("s--user", "1000"), ("s--other", "2000")];
    for (sandbox, user) in users {
        assert_eq!(ground.run(sandbox, "id -u"), user);
        ground.run(sandbox, &format!("echo {user} >/shared/{user} && echo {user} >/shared/a/b/{user}"));
        ground.run(sandbox, &format!("echo {user} >>/shared/a/b/notes && echo {user} >/bash_tools/{user}"));
    }
    for (sandbox, _) in users {
        assert_eq!(ground.run(sandbox, "cat /shared/a/b/notes"), "staged\n0\n1000\n2000");
        assert_eq!(ground.run(sandbox, "cat /shared/0 /shared/1000 /shared/2000"), "0\n1000\n2000");
    }
    // Each takes away what another has made.
    for (sandbox, theirs) in [("s--root", "1000"), ("s--user", "2000"), ("s--other", "0")] {
        ground.run(sandbox, &format!("rm -f /shared/{theirs} /shared/a/b/{theirs} && test ! -e /shared/{theirs}"));
    }
    assert_eq!(ground.run("s--root", "ls /shared /shared/a/b | grep 0 || echo none"), "none");
}

fn users_of_all_kinds_edit_each_others_files_in_a_staged_folder(layout: Layout) {
    let ground = Ground::laid_out(layout, "edit");
    ground.apply(&list(&[
        config_map("empty", &[]),
        session(
            "s",
            json!({
                "sandboxes": {
                    "user": {"image": USER_IMAGE},
                    "other": {"image": ROOT_IMAGE, "securityContext": {"runAsUser": 2000, "runAsGroup": 2000}},
                },
                "volumes": {"data": {"sources": [from_config_map("empty", "work")]}},
            }),
        ),
    ]));
    ground.until_ready("asess/s");
    ground.run("s--user", "umask 022; cd /shared/work && echo one >file && mkdir sub && echo one >sub/file");
    ground.run("s--other", "cd /shared/work && echo two >>file && echo two >>sub/file && echo two >sub/new");
    assert_eq!(ground.run("s--user", "cd /shared/work && cat file sub/file sub/new"), "one\ntwo\none\ntwo\ntwo");
    // The root of the volume belongs to root: there, the umask decides.
    ground.run("s--user", "umask 022; echo one >/shared/file");
    let refused = ground.try_run("s--other", "echo two >>/shared/file").complaint();
    assert!(refused.contains("Permission denied"), "{refused}");
    assert_eq!(ground.run("s--other", "cat /shared/file"), "one");
}

fn tools_top_roots_pick_all_none_or_some_of_the_roots(layout: Layout) {
    let ground = Ground::laid_out(layout, "roots");
    let tools = |roots: &Value| {
        json!({
            "sandboxes": plain(&["main"]),
            "volumes": {"tools": {"sources": [
                from_config_map("skill", "fuzz/afl"),
                from_config_map("skill", "coverage"),
                from_config_map("skill", "triage"),
            ]}},
            "toolsTopRoots": roots,
        })
    };
    let cases = [
        ("absent", Value::Null, vec!["coverage", "fuzz", "triage"]),
        ("empty", json!([]), vec![]),
        ("some", json!(["fuzz", "coverage"]), vec!["coverage", "fuzz"]),
    ];
    ground.apply(&config_map("skill", &[("SKILL.md", "a skill")]));
    for (name, roots, _) in &cases {
        ground.apply(&session(name, tools(roots)));
    }
    for (name, _, expected) in &cases {
        let seen = ground.until_ready(&format!("asess/{name}"));
        let there = ground.run(&format!("{name}--main"), "ls /bash_tools");
        assert_eq!(&there.lines().collect::<Vec<_>>(), expected, "toolsTopRoots {name}");
        let mut reported: Vec<_> =
            seen["status"]["volumes"]["tools"]["roots"].as_array().into_iter().flatten().collect();
        reported.sort_by_key(ToString::to_string);
        assert_eq!(&reported, expected, "toolsTopRoots {name}");
    }
    assert_eq!(ground.run("some--main", "cat /bash_tools/fuzz/afl/SKILL.md"), "a skill");
}

fn a_claim_is_a_source_and_stays_as_it_is(layout: Layout) {
    let ground = Ground::laid_out(layout, "claim");
    ground.apply(&list(&[
        json!({
            "apiVersion": "v1",
            "kind": "PersistentVolumeClaim",
            "metadata": {"name": "corpus"},
            "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "10Mi"}}},
        }),
        json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": "seeder"},
            "spec": {
                "restartPolicy": "Never",
                "containers": [{
                    "name": "seeder",
                    "image": ROOT_IMAGE,
                    "command": ["sh", "-c", "mkdir -p /v/seeds/deep && echo one >/v/seeds/deep/1 && echo no >/v/other"],
                    "volumeMounts": [{"name": "corpus", "mountPath": "/v"}],
                }],
                "volumes": [{"name": "corpus", "persistentVolumeClaim": {"claimName": "corpus"}}],
            },
        }),
    ]));
    ground.until("pod/seeder", "has succeeded", |pod| pod["status"]["phase"] == "Succeeded");
    ground.apply(&session(
        "s",
        json!({
            "sandboxes": plain(&["main"]),
            "volumes": {"data": {"sources": [
                {"persistentVolumeClaim": {"claimName": "corpus", "path": "seeds"}, "path": "in"},
            ]}},
        }),
    ));
    ground.until_ready("asess/s");
    assert_eq!(ground.run("s--main", "cd /shared && find . -type f ! -name '.aigise*'"), "./in/deep/1");
    assert_eq!(ground.run("s--main", "cat /shared/in/deep/1"), "one");
    ground.kubectl(&["delete", "asess/s"]).text();
    ground.until_gone("pod/s--main");
    assert!(!ground.get("pvc/corpus").is_null(), "the claim of the user goes with the session");
}
