//! The root file system of a sandbox in caches, over a folder in place of `/`.

use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use aigise_operator::protocol::cache::{RestoreFault, Root, RootReport, RootWork, SaveFault};
use aigise_operator::protocol::init::Success;

use super::super::*;

/// A sandbox with a root file system as its image has it.
fn sandbox(work: &Work) -> Ground {
    let ground = Ground::released(work);
    for folder in ["root/etc", "root/opt", "data"] {
        fs::create_dir_all(ground.path(folder)).unwrap();
    }
    for (name, content) in [("etc/os", "image\n"), ("opt/old", "goes\n")] {
        of_image(&ground.path("root").join(name), content);
    }
    ground
}

/// A file as each node unpacks it.
fn of_image(path: &Path, content: &str) {
    fs::write(path, content).unwrap();
    let file = fs::File::options().write(true).open(path).unwrap();
    file.set_modified(std::time::UNIX_EPOCH + Duration::from_secs(1_700_000_000)).unwrap();
}

fn saving() -> RootWork {
    RootWork { label: "main".into(), save: true, timeout: 60, exclude: vec!["/tmp/not".into()], ..RootWork::default() }
}

fn in_root(ground: &Ground, name: &str, script: &str) -> Step {
    shell(name, &format!("cd {}; {script}", ground.path("root").display()))
}

/// Runs the init work of a sandbox that saves, with the steps of a script.
fn packed(script: &str) -> (Ground, RootReport) {
    let ground = sandbox(&work(vec![]));
    let steps = vec![in_root(&ground, "build", script)];
    ground.write_work(&Work { root: Some(saving()), ..work(steps) });
    let output = ground.init();
    assert!(output.status.success(), "{output:?}");
    let report = ground.progress().unwrap().root.unwrap();
    (ground, report)
}

fn saved(script: &str) -> (Ground, Root) {
    match packed(script) {
        (ground, RootReport::Saved(root)) => (ground, root),
        (_, other) => panic!("{other:?}"),
    }
}

/// A sandbox whose volume has what another one has packed.
fn restoring(from: &Ground, root: &Root) -> Ground {
    let wanted = RootWork { label: "main".into(), restore: Some(root.clone()), timeout: 60, ..RootWork::default() };
    let ground = sandbox(&work(vec![]));
    fs::create_dir(ground.path("data/.aigise-cache")).unwrap();
    fs::copy(from.path("data/.aigise-cache/main.tar.zst"), ground.path("data/.aigise-cache/main.tar.zst")).unwrap();
    let traces = ground.path("traces");
    let serve = Step { always: true, ..shell("serve", &format!("echo serves >>{}", traces.display())) };
    ground.write_work(&Work { root: Some(wanted), ..work(vec![serve]) });
    ground
}

const BUILD: &str = "mkdir -p tmp/not tmp/build run; echo built >tmp/build/out; chmod 750 tmp/build; rm opt/old; \
     echo more >>etc/os; ln -s build/out tmp/link; echo no >tmp/not/x; echo no >run/x";

#[test]
fn what_the_steps_leave_is_there_when_it_is_restored() {
    let (cold, root) = saved(BUILD);
    assert!(root.packed > 0 && root.unpacked > root.packed);
    let hit = restoring(&cold, &root);
    assert!(hit.init().status.success());
    assert_eq!(hit.progress().unwrap().root, Some(RootReport::Restored));
    let read = |name: &str| fs::read_to_string(hit.path("root").join(name)).unwrap();
    assert_eq!((read("tmp/build/out"), read("etc/os")), ("built\n".into(), "image\nmore\n".into()));
    assert_eq!(read("tmp/link"), "built\n");
    let mode = |ground: &Ground| fs::metadata(ground.path("root/tmp/build")).unwrap().permissions().mode();
    assert_eq!((mode(&hit), mode(&hit) & 0o777), (mode(&cold), 0o750));
    let absent = ["opt/old", "tmp/not", "run/x"];
    assert!(absent.iter().all(|name| !hit.path("root").join(name).exists()));
    assert_eq!(fs::read_to_string(hit.path("traces")).unwrap(), "serves\n", "what always runs");
    // The success carries what was packed.
    let report = cold.sandboxd(&["report"]).output().unwrap();
    assert!(report.status.success());
    let words = fs::read_to_string(cold.path("termination-log")).unwrap();
    assert_eq!(Success::read(&words).unwrap().root, Some(RootReport::Saved(root)));
}

#[test]
fn what_cannot_be_restored_ends_the_sandbox_before_a_step_has_run() {
    let (cold, root) = saved(BUILD);
    let fails = |change: &dyn Fn(&Path, &Path), root: &Root| {
        let hit = restoring(&cold, root);
        change(&hit.path("data/.aigise-cache/main.tar.zst"), &hit.path("root"));
        let failure = hit.failure();
        assert!(failure.how.starts_with("could not restore the root file system from the cache: "), "{}", failure.how);
        assert!(!hit.path("traces").exists());
        failure.restore.unwrap()
    };
    let flip = |file: &Path, _: &Path| {
        let mut bytes = fs::read(file).unwrap();
        let last = bytes.len() - 1;
        bytes[last / 2] ^= 1;
        fs::write(file, bytes).unwrap();
    };
    assert_eq!(fails(&flip, &root), RestoreFault::Corrupt);
    assert_eq!(fails(&|file, _| fs::remove_file(file).unwrap(), &root), RestoreFault::Corrupt);
    assert_eq!(fails(&|file, _| fs::write(file, "short").unwrap(), &root), RestoreFault::Corrupt);
    let to_passwd = |file: &Path, _: &Path| {
        fs::remove_file(file).unwrap();
        symlink("/etc/passwd", file).unwrap();
    };
    fails(&to_passwd, &root);
    // A valid archive, and not the one that was packed.
    let other = Root { sha256: "0".repeat(64), ..root.clone() };
    assert_eq!(fails(&|_, _| {}, &other), RestoreFault::Corrupt);
    assert_eq!(fails(&|_, _| {}, &Root { unpacked: 1, ..root.clone() }), RestoreFault::TooLarge);
    let moved_tag = |_: &Path, root: &Path| of_image(&root.join("etc/os"), "another image\n");
    assert_eq!(fails(&moved_tag, &root), RestoreFault::ImageChanged);
    let more = |_: &Path, root: &Path| fs::write(root.join("etc/new"), "").unwrap();
    assert_eq!(fails(&more, &root), RestoreFault::ImageChanged);
}

/// What somebody else may still write to is copied before it is unpacked.
#[test]
fn a_live_program_gets_nothing_of_a_damaged_file() {
    let (cold, root) = saved(BUILD);
    let live = |ground: &Ground| {
        let wanted = RootWork {
            label: "main".into(),
            restore: Some(root.clone()),
            is_live: true,
            timeout: 60,
            ..RootWork::default()
        };
        ground.write_work(&Work { root: Some(wanted), ..work(vec![]) });
    };
    let hit = restoring(&cold, &root);
    live(&hit);
    // Its program has written already.
    fs::write(hit.path("root/etc/pid"), "1").unwrap();
    assert!(hit.init().status.success());
    assert_eq!(fs::read_to_string(hit.path("root/tmp/link")).unwrap(), "built\n");
    let damaged = restoring(&cold, &Root { sha256: "0".repeat(64), ..root.clone() });
    let file = damaged.path("data/.aigise-cache/main.tar.zst");
    let mut bytes = fs::read(&file).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 1;
    fs::write(&file, bytes).unwrap();
    live(&damaged);
    assert_eq!(damaged.failure().restore, Some(RestoreFault::Corrupt));
    assert!(!damaged.path("root/tmp").exists());
    assert_eq!(fs::read_dir(damaged.path("root")).unwrap().count(), 2, "the copy is gone");
}

#[test]
fn a_supervisor_that_was_killed_while_it_restored_has_not_restored() {
    let (cold, root) = saved(BUILD);
    let killed = |root_file_system: Option<RootReport>| {
        let hit = restoring(&cold, &root);
        let progress = InitProgress { root: root_file_system, ..InitProgress::default() };
        fs::write(hit.path("state/progress.json"), serde_json::to_string(&progress).unwrap()).unwrap();
        hit.failure().restore
    };
    assert_eq!(killed(None), Some(RestoreFault::RestoreFailed));
    assert_eq!(killed(Some(RootReport::Restored)), None, "what always runs has failed");
}

#[test]
fn what_cannot_be_packed_is_said_and_fails_nothing() {
    let why = |script: &str| match packed(script).1 {
        RootReport::NotSaved { reason, message } => (reason, message),
        other => panic!("{other:?}"),
    };
    let (ground, report) = packed("sleep 60 >/dev/null 2>&1 & echo $! >../pid");
    kill(&ground);
    let RootReport::NotSaved { reason, message } = report else { panic!("{report:?}") };
    assert_eq!(reason, SaveFault::StepLeftProcesses);
    assert!(message.contains("the step build has left the process"), "{message}");
    let (reason, message) = why("echo x >.wh.name");
    assert!(reason == SaveFault::Reserved && message.contains(".wh.name"), "{message}");
    // Somebody else holds the folder on the volume.
    let (reason, message) = why("echo x >../data/.aigise-cache");
    assert!(reason == SaveFault::Failed && message.contains("the volume data could not be written"), "{message}");
}

#[test]
fn a_secret_in_a_file_is_not_packed() {
    let ground = sandbox(&work(vec![]));
    let steps = vec![in_root(&ground, "login", "mkdir tmp; echo token=$TOKEN >tmp/netrc")];
    let secrets = Secrets { names: ["TOKEN".to_string()].into(), ..Secrets::default() };
    ground.write_work(&Work { root: Some(saving()), secrets, ..work(steps) });
    let output = ground.sandboxd(&["gate"]).env("TOKEN", "hunter2-and-more").output().unwrap();
    assert!(output.status.success());
    let Some(RootReport::NotSaved { reason, message }) = ground.progress().unwrap().root else { panic!() };
    assert_eq!(reason, SaveFault::SecretFound);
    assert!(message.contains("tmp/netrc") && !message.contains("hunter2"), "{message}");
    assert!(!ground.path("data/.aigise-cache/main.tar.zst").exists());
}

#[test]
fn servers_start_after_everything_is_packed() {
    let ground = sandbox(&work(vec![]));
    let serve = Step {
        always: true,
        ..in_root(&ground, "serve", "mkdir tmp; echo x >tmp/socket; sleep 60 >/dev/null 2>&1 & echo $! >../pid")
    };
    ground
        .write_work(&Work { root: Some(saving()), ..work(vec![in_root(&ground, "build", "echo x >opt/new"), serve]) });
    assert!(ground.init().status.success());
    let Some(RootReport::Saved(root)) = ground.progress().unwrap().root else { panic!() };
    let hit = restoring(&ground, &root);
    assert!(hit.init().status.success());
    assert!(hit.path("root/opt/new").exists() && !hit.path("root/tmp/socket").exists());
    kill(&ground);
}

/// Ends the process that a step has left.
fn kill(ground: &Ground) {
    let pid = fs::read_to_string(ground.path("pid")).unwrap().trim().parse().unwrap();
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
}
