//! Skills: what they need is installed in the sandboxes that they are for.

use serde_json::{Value, json};

use super::{
    ground::Ground,
    objects::{ROOT_IMAGE, config_map, from_config_map, list, message, session},
};

/// A skill for the sandboxes of a type, as two ConfigMaps and two sources of the tools volume.
struct Skill {
    objects: Vec<Value>,
    sources: Vec<Value>,
}

/// `path` in the tools volume; `priority` as in the text of its `SKILL.md`; the installer appends a word to /shared/installed.
fn skill(path: &str, sandbox_type: &str, priority: Option<i32>, installer: &str) -> Skill {
    let name = path.replace('/', "-");
    let priority = priority.map(|priority| format!("## Priority\n\n{priority}\n")).unwrap_or_default();
    let text = format!(
        "---\nname: {name}\ndescription: a test\nshould_run_in_sandbox: {sandbox_type}\n---\n# {name}\n\n{priority}"
    );
    skill_of(path, &text, installer)
}

/// The same with this text as its `SKILL.md`.
fn skill_of(path: &str, text: &str, installer: &str) -> Skill {
    let name = path.trim_start_matches('.').replace('/', "-");
    let deps = format!("{name}-deps");
    Skill {
        objects: vec![config_map(&name, &[("SKILL.md", text)]), config_map(&deps, &[("install.sh", installer)])],
        sources: vec![from_config_map(&name, path), from_config_map(&deps, &format!("{path}/deps"))],
    }
}

fn apply(ground: &Ground, skills: Vec<Skill>, spec: Value) {
    let (objects, sources): (Vec<_>, Vec<_>) = skills.into_iter().map(|skill| (skill.objects, skill.sources)).unzip();
    ground.apply(&list(&objects.concat()));
    let mut spec = spec;
    spec["volumes"] = json!({"tools": {"sources": sources.concat()}});
    ground.apply(&session("s", spec));
}

fn note(word: &str) -> String {
    format!("echo {word} in $AIGISE_SANDBOX_TYPE >>/shared/installed")
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn skills_are_installed_where_they_are_for_by_priority_and_once() {
    let ground = Ground::new("skills");
    let skills = vec![
        skill("fuzz/a", "main", None, &note("a")),
        skill("fuzz/b", "main", Some(2), &note("b")),
        skill("fuzz/c", "main", Some(1), &note("c")),
        skill("fuzz/d", "other", None, &note("d")),
        skill("fuzzy", "main", None, &note("not-enabled")),
    ];
    let sandboxes =
        json!({"main": {"image": ROOT_IMAGE}, "other": {"image": ROOT_IMAGE}, "third": {"image": ROOT_IMAGE}});
    apply(&ground, skills, json!({"sandboxes": sandboxes, "enabledSkills": ["fuzz"]}));
    let ready = ground.until_ready("asess/s");
    assert_eq!(
        ready["status"]["volumes"]["tools"]["skills"],
        json!(["fuzz/a", "fuzz/b", "fuzz/c", "fuzz/d", "fuzzy"]),
        "what was found is reported"
    );
    let installed = ground.run("s--main", "cat /shared/installed");
    let of_main: Vec<_> = installed.lines().filter(|line| line.ends_with("main")).collect();
    assert_eq!(of_main, ["c in main", "b in main", "a in main"]);
    assert_eq!(installed.lines().count(), 4, "{installed}");
    let status = ground.run("s--main", "/aigise/sandboxd status");
    assert!(status.contains("skill fuzz/c"), "{status}");

    // More of them are a change of what the sandboxes are made of: taken at the next start, by the container that comes then.
    ground.patch("asess/s", &json!({"spec": {"enabledSkills": ["all"]}}));
    ground.until("asb/s--main", "is out of date", |seen| {
        super::objects::condition(seen, "OutOfDate")["status"] == "True"
    });
    ground.run("s--main", "rm /shared/installed");
    ground.kubectl(&["annotate", "asb/s--main", "aigise.dev/restart=1"]).text();
    ground.until("asb/s--main", "is up to date and ready", |seen| {
        super::objects::condition(seen, "OutOfDate")["status"] == "False" && seen["status"]["state"] == "ready"
    });
    let installed = ground.run("s--main", "cat /shared/installed");
    assert_eq!(installed.lines().count(), 4, "a new container has nothing installed yet: {installed}");
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn a_skill_that_cannot_be_installed_fails_the_sandbox_by_its_name() {
    let ground = Ground::new("bad-skill");
    let fixed = "test -e /shared/fixed || { echo no network >&2; exit 3; }";
    let skills = vec![skill("net/scan", "main", None, fixed), skill("net/other", "other", None, "exit 1")];
    let sandboxes = json!({"main": {"image": ROOT_IMAGE}, "look": {"image": ROOT_IMAGE}});
    apply(&ground, skills, json!({"sandboxes": sandboxes, "enabledSkills": ["net/scan"]}));
    let failed = ground.until_not_ready("asb/s--main", "InitFailed");
    let init = &failed["status"]["init"];
    assert_eq!(
        (&init["step"], &init["exitCode"], &init["tail"]),
        (&json!("skill net/scan"), &json!(3), &json!("no network"))
    );
    assert!(
        message(&failed).contains("skill net/scan") && message(&failed).contains("no network"),
        "{}",
        message(&failed)
    );
    ground.until_ready("asb/s--look");
    ground.run("s--look", "touch /shared/fixed");
    ground.kubectl(&["annotate", "asess/s", "aigise.dev/restart=1"]).text();
    ground.until_ready("asess/s");

    // A name that is not there is reported with those that are.
    ground.patch("asess/s", &json!({"spec": {"enabledSkills": ["net/scam"]}}));
    ground.kubectl(&["annotate", "asb/s--main", "aigise.dev/restart=1"]).text();
    let failed = ground.until_not_ready("asb/s--main", "InitFailed");
    assert!(message(&failed).contains("net/scam") && message(&failed).contains("net/scan"), "{}", message(&failed));
    let bad = json!({"spec": {"enabledSkills": ["../net"]}});
    let complaint = ground.kubectl(&["patch", "asess/s", "--type", "merge", "-p", &bad.to_string()]);
    assert!(complaint.complaint().contains("enabledSkills"));
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn skills_that_others_wrote_are_read_as_the_framework_reads_them() {
    let ground = Ground::new("wild-skills");
    let colon = "---\nname: review\ndescription: Review: a colon\nshould_run_in_sandbox: Main\n---\n";
    let skills = vec![
        skill(".claude/skills/lint", "main", None, "#!/bin/sh -eu\necho $- >/tmp/lint"),
        skill_of("writing/review", colon, "#!/bin/env sh\ntouch /tmp/review"),
        skill_of("loose", "# For people", "exit 1"),
        skill("wheels", "other", None, "#!/bin/sh -e\ncat /no/such/wheel\ntouch /tmp/wheels"),
    ];
    let sandboxes = json!({"main": {"image": ROOT_IMAGE}, "other": {"image": ROOT_IMAGE}});
    apply(&ground, skills, json!({"sandboxes": sandboxes, "enabledSkills": ["all"]}));
    ground.until_ready("asb/s--main");
    let flags = ground.run("s--main", "cat /tmp/lint; test -e /tmp/review");
    assert!(flags.contains('e') && flags.contains('u'), "{flags}");
    let status = ground.run("s--main", "/aigise/sandboxd status");
    assert!(status.contains("skill loose") && status.contains("left out"), "{status}");
    let log = ground.run("s--main", "/aigise/sandboxd log");
    assert!(log.contains("wheels (other)"), "{log}");

    // A file of a ConfigMap is not executable, and its first line counts all the same.
    let init = ground.until_not_ready("asb/s--other", "InitFailed")["status"]["init"].clone();
    assert_eq!((&init["step"], &init["exitCode"]), (&json!("skill wheels"), &json!(1)));
    assert_eq!(
        ground.get("asess/s")["status"]["volumes"]["tools"]["skills"],
        json!(["loose", "wheels", "writing/review", ".claude/skills/lint"])
    );
}
