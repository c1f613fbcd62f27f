//! Skills: what they need is installed after the steps, in their order, once.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};

use aigise_operator::protocol::init::{Secrets, Skills, Work};

use crate::{Ground, shell, work};

fn with_skills(enabled: &[&str]) -> Work {
    let enabled = enabled.iter().map(ToString::to_string).collect();
    Work { skills: Some(Skills { sandbox_type: "fuzz".into(), enabled }), ..work(vec![]) }
}

impl Ground {
    fn skill(&self, path: &str, sandbox: &str, priority: &str) {
        self.put(
            &format!("{path}/SKILL.md"),
            &format!("---\nname: x\nshould_run_in_sandbox: {sandbox}\n---\n## Priority\n{priority}\n"),
        );
    }

    /// An installer that leaves a trace.
    fn installer(&self, path: &str, more: &str) {
        self.put(path, &format!("echo {path} >>{}\n{more}\n", self.path("traces").display()));
    }

    fn put(&self, path: &str, text: &str) {
        let path = self.path("tools").join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    /// Runs the init work of another Pod over the same folders, which has to succeed, and gives the traces that it left.
    fn again(&self) -> Vec<String> {
        for name in ["progress.json", "log"] {
            let _ = fs::remove_file(self.path("state").join(name));
        }
        let _ = fs::remove_file(self.path("traces"));
        let output = self.init();
        assert!(output.status.success(), "{output:?}");
        fs::read_to_string(self.path("traces")).unwrap_or_default().lines().map(String::from).collect()
    }

    fn log(&self) -> String {
        fs::read_to_string(self.path("state/log")).unwrap_or_default()
    }
}

#[test]
fn installers_run_after_the_steps_in_their_order() {
    let mut work = with_skills(&["all"]);
    let ground = Ground::released(&work);
    work.steps = vec![shell("step", &format!("echo step >{}", ground.path("traces").display()))];
    ground.write_work(&work);
    for (path, priority) in [("a", "later"), ("b", "2"), ("c/d", "1"), ("c", "2")] {
        ground.skill(path, "fuzz", priority);
        ground.installer(&format!("{path}/deps/install.sh"), "");
    }
    ground.installer("b/deps/fuzz/install.sh", "");
    ground.skill("other", "main", "0");
    ground.installer("other/deps/install.sh", "");
    ground.skill("nothing", "fuzz", "0");
    let traces = ground.again();
    let expected = ["step", "c/d/deps/install.sh", "b/deps/fuzz/install.sh", "c/deps/install.sh", "a/deps/install.sh"];
    assert_eq!(traces, expected);
    let names: Vec<_> = ground.progress().unwrap().steps.into_iter().map(|run| run.name).collect();
    assert_eq!(names, ["step", "skill c/d", "skill b", "skill c", "skill a"]);
    let status = String::from_utf8(ground.sandboxd(&["status"]).output().unwrap().stdout).unwrap();
    assert!(status.contains("  2. skill c/d"), "{status}");
}

#[test]
fn a_skill_is_installed_once_for_its_content() {
    let ground = Ground::released(&with_skills(&["fuzz"]));
    ground.skill("fuzz/afl", "fuzz", "1");
    ground.installer("fuzz/afl/deps/install.sh", "");
    ground.put("fuzz/afl/deps/list", "one");
    assert_eq!(ground.again(), ["fuzz/afl/deps/install.sh"]);
    assert_eq!(ground.again(), [""; 0]);
    assert_eq!(ground.log(), "==> skill fuzz/afl already has its dependencies\n");
    ground.put("fuzz/afl/deps/list", "two");
    assert_eq!(ground.again().len(), 1, "other content");
    ground.put("fuzz/afl/README", "beside them");
    assert_eq!(ground.again().len(), 0);
    assert_eq!(fs::read_dir(ground.path("skills")).unwrap().count(), 2);
    assert!(!ground.path("state/skills").exists());
}

#[test]
fn where_the_container_cannot_be_written_the_init_supervisors_own_folder_remembers() {
    let ground = Ground::released(&with_skills(&["all"]));
    fs::write(ground.path("skills"), "in the way").unwrap();
    ground.skill("afl", "fuzz", "1");
    ground.installer("afl/deps/install.sh", "");
    assert_eq!(ground.again().len(), 1);
    assert_eq!(ground.again().len(), 0);
    assert_eq!(fs::read_dir(ground.path("state/skills")).unwrap().count(), 1);
}

#[test]
fn an_installer_runs_by_the_interpreter_of_its_first_line_whatever_its_mode() {
    let ground = Ground::released(&with_skills(&["all"]));
    let traces = ground.path("traces");
    for (path, first, mode) in [
        ("a", "#!/usr/bin/env -S sh -eu", 0o755),
        ("b", "#!/bin/sh -eu", 0o644),
        ("c", "# no interpreter", 0o755),
        ("d", "# no interpreter", 0o444),
    ] {
        ground.skill(path, "fuzz", "1");
        let installer = format!("{path}/deps/install.sh");
        ground.put(&installer, &format!("{first}\necho {path} [$-] $(basename \"$0\") >>{}\n", traces.display()));
        fs::set_permissions(ground.path("tools").join(installer), fs::Permissions::from_mode(mode)).unwrap();
    }
    let traces = ground.again();
    let lines: Vec<Vec<_>> = traces.iter().map(|line| line.split(' ').collect()).collect();
    assert_eq!(lines.iter().map(|line| line[0]).collect::<String>(), "abcd");
    assert_eq!(lines.iter().map(|line| line[1].contains('u')).collect::<Vec<_>>(), [true, true, false, false]);
    assert!(lines.iter().all(|line| line[2] == "install.sh"), "{traces:?}");
}

#[test]
fn an_installer_ends_where_its_first_line_says_so() {
    let ground = Ground::released(&with_skills(&["all"]));
    ground.skill("wheels", "fuzz", "1");
    ground.put("wheels/deps/install.sh", "#!/bin/sh -e\ncat /no/such/wheel\necho done\n");
    let failure = ground.failure();
    assert_eq!((failure.step.as_deref(), failure.exit_code), (Some("skill wheels"), Some(1)));
    assert!(!failure.tail.contains("done"), "{}", failure.tail);
}

#[test]
fn an_interpreter_that_the_image_does_not_have_is_named() {
    for (first, expected) in [("#!/no/such/bash -e", "/no/such/bash"), ("#!no-such-bash", "no-such-bash")] {
        let ground = Ground::released(&with_skills(&["all"]));
        ground.skill("wheels", "fuzz", "1");
        ground.put("wheels/deps/install.sh", &format!("{first}\n"));
        let failure = ground.failure();
        assert_eq!(failure.step.as_deref(), Some("skill wheels"));
        assert_eq!(failure.how, format!("needs the interpreter {expected}, which is not in the image"));
    }
}

#[test]
fn an_installer_that_fails_leaves_its_evidence_and_is_tried_again() {
    let secrets = Secrets { names: ["TOKEN".to_string()].into(), all_but: None };
    let ground = Ground::released(&Work { secrets, ..with_skills(&["all"]) });
    ground.skill("fuzz/afl", "fuzz", "1");
    ground.installer("fuzz/afl/deps/install.sh", "test -e $FIXED || { echo no $TOKEN >&2; exit 4; }");
    ground.skill("later", "fuzz", "2");
    ground.installer("later/deps/install.sh", "");
    let output = ground.sandboxd(&["gate"]).env("TOKEN", "hunter2").env("FIXED", "/no/such").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(said, "the skill fuzz/afl ended with exit code 4\n");
    let failure = ground.last_words();
    assert_eq!((failure.step.as_deref(), failure.exit_code), (Some("skill fuzz/afl"), Some(4)));
    assert_eq!(failure.tail, "no ***");
    assert!(!ground.path("skills").exists());
    assert_eq!(fs::read_to_string(ground.path("traces")).unwrap().lines().count(), 1, "the next did not run");

    for name in ["progress.json", "log"] {
        fs::remove_file(ground.path("state").join(name)).unwrap();
    }
    assert!(ground.sandboxd(&["gate"]).env("FIXED", "/").status().unwrap().success());
}

#[test]
fn an_installer_is_bounded_by_the_time_of_the_whole() {
    let ground = Ground::released(&Work { timeout: 1, ..with_skills(&["all"]) });
    ground.skill("slow", "fuzz", "1");
    ground.put("slow/deps/install.sh", "sleep 60");
    let failure = ground.failure();
    assert_eq!(failure.step.as_deref(), Some("skill slow"));
    assert!(failure.how.starts_with("did not end within the timeout of the initialiser, after "), "{}", failure.how);
}

#[test]
fn a_skill_that_is_not_there_is_a_failure_that_names_those_that_are() {
    let ground = Ground::released(&with_skills(&["fuzz/afl", "fuzz/x"]));
    ground.skill("fuzz/afl", "fuzz", "1");
    ground.installer("fuzz/afl/deps/install.sh", "");
    let failure = ground.failure();
    let tools = ground.path("tools");
    let expected = format!("cannot enable the skill fuzz/x, which is not in {}; there are: fuzz/afl", tools.display());
    assert_eq!((failure.step, failure.how), (None, expected));
    assert!(!ground.path("traces").exists(), "nothing is installed by halves");
}

#[test]
fn a_document_that_nobody_understands_is_reported_and_stops_nothing() {
    let ground = Ground::released(&with_skills(&["all"]));
    ground.put("broken/SKILL.md", "---\nname: broken\nshould_run_in_sandbox: fuzz\n# without an end\n");
    ground.installer("broken/deps/install.sh", "");
    ground.put("colon/SKILL.md", "---\ndescription: Review: x\nshould_run_in_sandbox: Fuzz\n---\n");
    ground.installer("colon/deps/install.sh", "");
    ground.put("documents/SKILL.md", "---\nname: [\n---\n");
    ground.skill(".claude/skills/lint", "fuzz", "1");
    ground.installer(".claude/skills/lint/deps/install.sh", "");
    ground.skill("typo", "fuz", "1");
    ground.installer("typo/deps/install.sh", "");
    assert_eq!(ground.again(), [".claude/skills/lint/deps/install.sh", "colon/deps/install.sh"]);
    let why = "left out: the front matter of its SKILL.md does not name a type of sandbox (should_run_in_sandbox)";
    let log = ground.log();
    let lines: Vec<_> = log.lines().take(2).collect();
    assert_eq!(
        lines,
        ["==> these skills are for other types of sandbox: typo (fuz)", &format!("==> skill broken is {why}")]
    );
    let status = String::from_utf8(ground.sandboxd(&["status"]).output().unwrap().stdout).unwrap();
    assert!(status.contains(&format!("  1. skill broken             0 s: {why}\n")), "{status}");
    assert!(status.starts_with("The initialiser has succeeded."), "{status}");
    assert!(ground.sandboxd(&["awaited"]).status().unwrap().success());
}

#[test]
fn links_that_lead_in_circles_or_out_are_not_followed() {
    let outside = Ground::new(&work(vec![]));
    outside.skill("skill", "fuzz", "1");
    outside.installer("skill/deps/install.sh", "");
    let ground = Ground::released(&with_skills(&["all"]));
    ground.skill("a", "fuzz", "1");
    ground.installer("a/deps/install.sh", "");
    symlink("..", ground.path("tools/a/up")).unwrap();
    symlink("loop", ground.path("tools/loop")).unwrap();
    symlink(outside.path("tools"), ground.path("tools/out")).unwrap();
    ground.skill("b", "fuzz", "1");
    symlink(outside.path("tools/skill/deps"), ground.path("tools/b/deps")).unwrap();
    assert_eq!(ground.again(), ["a/deps/install.sh"]);
    assert!(!outside.path("traces").exists());
}

#[test]
fn without_tools_there_is_nothing_to_install() {
    assert!(Ground::released(&with_skills(&["all"])).init().status.success());
    let how = Ground::released(&with_skills(&["x"])).failure().how;
    assert!(how.ends_with("; there are none"), "{how}");
}
