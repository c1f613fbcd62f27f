//! `sandboxd` as a Pod runs it: the built program, its exit codes and files, as PID 1 and as a user without rights.

#![cfg(feature = "sandboxd")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failed step is a failed test")]

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::net::UnixListener;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use aigise_operator::protocol::staging::{
    Access, Fault, MANIFEST_ENV, MARKER, Manifest, Source, Staged, StagingReport, Volume,
};
use rustix::process::{Pid, Signal, geteuid, kill_process};
use tempfile::TempDir;

mod sandboxd {
    mod cache;
}

const SANDBOXD: &str = env!("CARGO_BIN_EXE_sandboxd");

/// Whom the stage Pod runs as.
const STAGE_USER: u32 = 65532;

fn is_root() -> bool {
    geteuid().is_root()
}

fn pid_of(child: &Child) -> Pid {
    Pid::from_child(child)
}

/// Asks again and again, for five seconds.
fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(5) {
        if let Some(answer) = ask() {
            return answer;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    panic!("not within five seconds: {what}");
}

fn wait_within_a_second(child: &mut Child) -> ExitStatus {
    let start = Instant::now();
    let status = eventually("the process ends", || child.try_wait().unwrap());
    assert!(start.elapsed() < Duration::from_secs(1), "took {:?}", start.elapsed());
    status
}

/// The fields of `/proc/PID/stat` from the state on.
fn stat(pid: Pid) -> Option<Vec<String>> {
    let text = fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
    Some(text.rsplit_once(") ")?.1.split_whitespace().map(str::to_owned).collect())
}

fn children(pid: Pid) -> Vec<Pid> {
    let pid = pid.as_raw_nonzero();
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().filter_map(|child| Pid::from_raw(child.parse().unwrap())).collect()
}

/// Waits until the handlers are there: `SigCgt` of `/proc/PID/status` has SIGTERM.
fn wait_for_handlers(pid: Pid) {
    eventually("SIGTERM is handled", || {
        let status = fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).ok()?;
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"))?.trim();
        (u64::from_str_radix(caught, 16).unwrap() & (1 << (Signal::TERM.as_raw() - 1)) != 0).then_some(())
    });
}

#[test]
fn idle_ends_at_once_on_a_signal_with_the_code_of_that_signal() {
    for (signal, code) in [(Signal::TERM, 143), (Signal::INT, 130)] {
        let mut idle = Command::new(SANDBOXD).arg("idle").spawn().unwrap();
        wait_for_handlers(pid_of(&idle));
        kill_process(pid_of(&idle), signal).unwrap();
        assert_eq!(wait_within_a_second(&mut idle).code(), Some(code));
    }
}

#[test]
fn idle_ends_at_once_as_pid_1() {
    if !is_root() {
        return;
    }
    let mut outer =
        Command::new("unshare").args(["--pid", "--fork", "--kill-child", SANDBOXD, "idle"]).spawn().unwrap();
    let idle = eventually("the inner process", || children(pid_of(&outer)).first().copied());
    wait_for_handlers(idle);
    let status = fs::read_to_string(format!("/proc/{}/status", idle.as_raw_nonzero())).unwrap();
    assert!(status.lines().any(|line| line.starts_with("NSpid:") && line.ends_with("\t1")), "{status}");

    // An orphan in its namespace becomes its child.
    let idle_pid = idle.as_raw_nonzero().to_string();
    let command = ["--target", &idle_pid, "--pid", "sh", "-c", "sleep 0.2 & sleep 0.1 & exit 0"];
    assert!(Command::new("nsenter").args(command).status().unwrap().success());
    eventually("the orphans arrive", || (!children(idle).is_empty()).then_some(()));
    eventually("the orphans are reaped", || children(idle).is_empty().then_some(()));

    kill_process(idle, Signal::TERM).unwrap();
    assert_eq!(wait_within_a_second(&mut outer).code(), Some(143));
}

#[test]
fn idle_reaps_all_children_also_those_that_died_before_it_could_listen() {
    let script =
        format!("for i in 1 2 3 4 5; do true & done; for i in 1 2 3; do sleep 0.3 & done; exec {SANDBOXD} idle");
    let mut idle = Command::new("sh").args(["-c", &script]).spawn().unwrap();
    wait_for_handlers(pid_of(&idle));
    eventually("all children are reaped", || children(pid_of(&idle)).is_empty().then_some(()));
    kill_process(pid_of(&idle), Signal::TERM).unwrap();
    assert_eq!(wait_within_a_second(&mut idle).code(), Some(143));
}

#[test]
fn idle_sleeps_without_work_and_in_little_memory() {
    let mut idle = Command::new(SANDBOXD).arg("idle").spawn().unwrap();
    let pid = pid_of(&idle);
    wait_for_handlers(pid);
    let sleeping = || stat(pid).filter(|fields| fields[0] == "S");
    let before = eventually("it sleeps", sleeping);
    let switches = || {
        let status = fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).unwrap();
        status.lines().find(|line| line.starts_with("voluntary_ctxt_switches")).unwrap().to_owned()
    };
    let before_switches = switches();
    std::thread::sleep(Duration::from_millis(500));
    let after = sleeping().expect("it still sleeps");
    assert_eq!(before[11..13], after[11..13], "no processor time");
    assert_eq!(before_switches, switches(), "it did not wake");
    let pages: u64 = after[21].parse().unwrap();
    assert!(pages * 4 < 8192, "{} KiB resident", pages * 4);
    kill_process(pid, Signal::KILL).unwrap();
    idle.wait().unwrap();
}

#[test]
fn install_puts_a_program_that_runs() {
    let folder = tempfile::tempdir().unwrap();
    assert!(Command::new(SANDBOXD).arg("install").arg(folder.path()).status().unwrap().success());
    let copy = folder.path().join("sandboxd");
    assert_eq!(fs::metadata(&copy).unwrap().mode() & 0o7777, 0o755);
    let usage = Command::new(&copy).output().unwrap();
    assert_eq!(usage.status.code(), Some(2));
    assert!(String::from_utf8(usage.stderr).unwrap().starts_with("usage: sandboxd idle"));
}

#[test]
fn install_says_why_it_failed() {
    let output = Command::new(SANDBOXD).args(["install", "/no/such"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let expected = "sandboxd: cannot write /no/such/.sandboxd.part: No such file or directory (os error 2)\n";
    assert_eq!(String::from_utf8(output.stderr).unwrap(), expected);
}

/// One volume with one source, both open to the stage user.
struct Pod {
    base: TempDir,
    manifest: Manifest,
}

impl Pod {
    fn new() -> Self {
        let base = tempfile::tempdir().unwrap();
        fs::set_permissions(base.path(), fs::Permissions::from_mode(0o777)).unwrap();
        // The build's own folder may be closed to others. Another process writes the copy: if this one did, a test that
        // forks meanwhile would hold it open, and it could not be run ("text file busy").
        assert!(Command::new("cp").arg(SANDBOXD).arg(base.path()).status().unwrap().success());
        let folder = |name: &str| {
            let path = base.path().join(name);
            fs::create_dir(&path).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let source = Source { description: "image src".into(), mount_path: folder("source"), path: "code".into() };
        let volume = Volume {
            name: "data".into(),
            mount_path: folder("volume"),
            access: Access::Write,
            sources: vec![source],
            top_roots: None,
            optional_roots: BTreeSet::new(),
            restored: None,
        };
        Self { base, manifest: Manifest { digest: "sha256:one".into(), volumes: vec![volume] } }
    }

    fn source(&self) -> PathBuf {
        self.base.path().join("source")
    }

    fn volume(&self) -> PathBuf {
        self.base.path().join("volume")
    }

    fn report_path(&self) -> PathBuf {
        self.base.path().join("report")
    }

    /// `sandboxd stage` under another program: `sh -c …`, `unshare …`; what these run is `"$@"`.
    fn command_under(&self, wrapper: &[&str]) -> Command {
        let program = self.base.path().join("sandboxd");
        let mut command = match wrapper {
            [] => Command::new(&program),
            [first, rest @ ..] => {
                let mut command = Command::new(first);
                command.args(rest).arg(&program);
                command
            }
        };
        command.args(["stage", "--report"]).arg(self.report_path());
        command.env(MANIFEST_ENV, serde_json::to_string(&self.manifest).unwrap());
        command
    }

    /// Runs as the stage Pod does: as an ordinary user.
    fn command(&self) -> Command {
        as_stage_user(self.command_under(&[]))
    }

    fn report(&self) -> StagingReport {
        serde_json::from_slice(&fs::read(self.report_path()).unwrap()).unwrap()
    }

    /// A failure that is the source's.
    fn failure(&self) -> String {
        let (message, fault) = self.failure_and_fault();
        assert_eq!(fault, Fault::Source, "{message}");
        message
    }

    fn failure_and_fault(&self) -> (String, Fault) {
        let output = self.command().output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        let StagingReport::Failed { message, fault } = self.report() else { panic!("{:?}", self.report()) };
        assert_eq!(String::from_utf8(output.stderr).unwrap(), format!("sandboxd: {message}\n"));
        (message, fault)
    }
}

fn as_stage_user(mut command: Command) -> Command {
    if is_root() {
        command.uid(STAGE_USER).gid(STAGE_USER);
    }
    command
}

fn staged(files: i64, kept: i64) -> StagingReport {
    let volume = Staged { files, kept, roots: vec![], skills: vec![] };
    StagingReport::Staged { volumes: BTreeMap::from([("data".to_owned(), volume)]) }
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

#[test]
fn staging_reports_on_stdout_and_in_the_termination_message() {
    let pod = Pod::new();
    fs::write(pod.source().join("a"), "a".repeat(1200)).unwrap();
    fs::write(pod.source().join("b"), "new").unwrap();
    fs::create_dir(pod.volume().join("code")).unwrap();
    fs::write(pod.volume().join("code/b"), "old").unwrap();
    fs::set_permissions(pod.volume().join("code"), fs::Permissions::from_mode(0o777)).unwrap();

    let output = pod.command().output().unwrap();

    assert!(output.status.success());
    let expected = "data: code/b was kept, image src has different content\n\
                    data: image src -> code: 1 file, 1.2 KB, 1 kept as they were\n";
    assert_eq!(String::from_utf8(output.stdout).unwrap(), expected);
    assert_eq!(pod.report(), staged(1, 1));

    let output = pod.command().output().unwrap();
    assert!(output.status.success());
    assert_eq!(String::from_utf8(output.stdout).unwrap(), "data: already staged\n");
    assert_eq!(pod.report(), staged(0, 0));
}

#[test]
fn a_volume_of_somebody_else_is_filled_and_its_root_left_as_it_is() {
    if !is_root() {
        return;
    }
    for (group, root_mode) in [(0, 0o777), (STAGE_USER, 0o2775)] {
        let pod = Pod::new();
        fs::create_dir(pod.source().join("lib")).unwrap();
        fs::write(pod.source().join("lib/x"), "x").unwrap();
        chown(pod.volume(), Some(0), Some(group)).unwrap();
        fs::set_permissions(pod.volume(), fs::Permissions::from_mode(root_mode)).unwrap();

        assert!(pod.command().status().unwrap().success(), "mode {root_mode:o}");

        assert_eq!(pod.report(), staged(1, 0));
        assert_eq!(mode(&pod.volume()), root_mode);
        assert_eq!(mode(&pod.volume().join("code/lib")) & 0o777, 0o777);
        assert_eq!(mode(&pod.volume().join("code/lib/x")), 0o666);
        let group_of = |path: &str| fs::metadata(pod.volume().join(path)).unwrap().gid();
        assert_eq!(group_of("code/lib/x"), STAGE_USER);
        assert_eq!(mode(&pod.volume().join("code")) & 0o2000, root_mode & 0o2000, "new folders keep the group too");
    }
}

/// Whoever owns what a link leads to: the stage user may neither read nor change it.
#[test]
fn a_link_to_what_the_stage_user_may_not_read_is_copied_and_belongs_to_that_user() {
    let pod = Pod::new();
    let closed = pod.base.path().join("closed");
    fs::create_dir(&closed).unwrap();
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).unwrap();
    symlink(&closed, pod.source().join("link")).unwrap();

    assert!(pod.command().status().unwrap().success());

    assert_eq!(pod.report(), staged(1, 0));
    let link = pod.volume().join("code/link");
    assert_eq!(fs::read_link(&link).unwrap(), closed);
    let user = if is_root() { STAGE_USER } else { geteuid().as_raw() };
    assert_eq!(fs::symlink_metadata(&link).unwrap().uid(), user);
    let metadata = fs::metadata(&closed).unwrap();
    assert_eq!((metadata.uid(), metadata.mode() & 0o7777), (geteuid().as_raw(), 0o700));
}

#[test]
fn the_umask_of_the_container_does_not_matter() {
    for umask in ["0777", "0077", "0"] {
        let pod = Pod::new();
        fs::create_dir(pod.source().join("bin")).unwrap();
        fs::write(pod.source().join("bin/run"), "x").unwrap();
        fs::set_permissions(pod.source().join("bin/run"), fs::Permissions::from_mode(0o755)).unwrap();
        let script = format!("umask {umask}; exec \"$@\"");
        let mut command = as_stage_user(pod.command_under(&["sh", "-c", &script, "sh"]));
        assert!(command.status().unwrap().success());
        assert_eq!(pod.report(), staged(1, 0));
        assert_eq!(mode(&pod.volume().join("code/bin")), 0o777);
        assert_eq!(mode(&pod.volume().join("code/bin/run")), 0o777);
        assert_eq!(mode(&pod.volume().join(MARKER)), 0o644);
    }
}

#[test]
fn what_the_stage_user_may_not_read_is_named_with_that_user() {
    let user = if is_root() { STAGE_USER } else { geteuid().as_raw() };
    let pod = Pod::new();
    fs::create_dir(pod.source().join("lib")).unwrap();
    let secret = pod.source().join("lib/secret");
    fs::write(&secret, "").unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o000)).unwrap();
    assert_eq!(pod.failure(), format!("the stage user {user} could not read lib/secret of image src"));
    assert_eq!(fs::read_dir(pod.volume()).unwrap().count(), 0, "nothing is written");

    for closed in [0o000, 0o444, 0o111] {
        fs::set_permissions(pod.source().join("lib"), fs::Permissions::from_mode(closed)).unwrap();
        if is_root() {
            let message = pod.failure();
            let expected = format!("the stage user {user} could not read lib");
            assert!(message.starts_with(&expected) && message.ends_with(" of image src"), "{closed:o}: {message}");
        }
    }
    fs::set_permissions(pod.source().join("lib"), fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn a_file_in_the_volume_that_the_stage_user_may_not_read_is_kept() {
    if !is_root() {
        return;
    }
    let pod = Pod::new();
    fs::write(pod.source().join("x"), "x").unwrap();
    fs::create_dir(pod.volume().join("code")).unwrap();
    fs::write(pod.volume().join("code/x"), "of a sandbox").unwrap();
    fs::set_permissions(pod.volume().join("code/x"), fs::Permissions::from_mode(0o600)).unwrap();
    assert!(pod.command().status().unwrap().success());
    assert_eq!(pod.report(), staged(0, 1));
}

#[test]
fn a_volume_that_may_not_be_written_is_named() {
    if !is_root() {
        return;
    }
    let pod = Pod::new();
    // The storage is tried before the sources are read.
    std::os::unix::fs::symlink("/etc/passwd", pod.source().join("out")).unwrap();
    fs::set_permissions(pod.volume(), fs::Permissions::from_mode(0o755)).unwrap();
    let (message, fault) = pod.failure_and_fault();
    let expected = "the stage user 65532, of the group 65532, may not write to the root folder of the volume data: \
                    Permission denied (os error 13)";
    assert_eq!((message.as_str(), fault), (expected, Fault::Root("data".into())));

    fs::remove_file(pod.source().join("out")).unwrap();
    chown(pod.volume(), None, Some(STAGE_USER)).unwrap();
    fs::set_permissions(pod.volume(), fs::Permissions::from_mode(0o2775)).unwrap();
    assert!(pod.command().status().unwrap().success(), "the group may write now");
}

/// The volume is open, and a sandbox of another user has made a folder in it.
#[test]
fn a_folder_that_a_sandbox_has_closed_is_named_and_not_the_storage() {
    if !is_root() {
        return;
    }
    let pod = Pod::new();
    fs::write(pod.source().join("x"), "x").unwrap();
    let folder = pod.volume().join("code");
    fs::create_dir(&folder).unwrap();
    for closed in [0o755, 0o700] {
        fs::set_permissions(&folder, fs::Permissions::from_mode(closed)).unwrap();
        let (message, fault) = pod.failure_and_fault();
        let expected = "code/x could not be written to the volume data: Permission denied (os error 13)";
        assert_eq!((message.as_str(), fault), (expected, Fault::Folder("data".into())), "{closed:o}");
    }
}

/// A sandbox of one user creates a file with the usual umask, and one of another user edits it.
#[test]
fn sandboxes_of_all_users_edit_each_others_files_in_staged_folders() {
    if !is_root() {
        println!("skipped: only root can run as several users");
        return;
    }
    let mut pod = Pod::new();
    fs::create_dir(pod.source().join("lib")).unwrap();
    chown(pod.volume(), Some(0), Some(STAGE_USER)).unwrap();
    fs::set_permissions(pod.volume(), fs::Permissions::from_mode(0o2775)).unwrap();
    let folder = pod.base.path().join("tools");
    fs::create_dir(&folder).unwrap();
    fs::set_permissions(&folder, fs::Permissions::from_mode(0o777)).unwrap();
    let tools =
        Volume { name: "tools".into(), mount_path: folder.to_str().unwrap().into(), ..pod.manifest.volumes[0].clone() };
    pod.manifest.volumes.push(tools);
    assert!(pod.command().status().unwrap().success());

    // The group is the shared one, which every sandbox has beside those of its image's user.
    let sh = |user: u32, folder: &Path, script: &str| {
        let groups = format!("--groups={STAGE_USER}");
        let user = [format!("--reuid={user}"), format!("--regid={user}"), groups];
        let script = format!("umask 022; cd {} && {script}", folder.display());
        Command::new("setpriv").args(user).args(["sh", "-c", &script]).stderr(Stdio::null()).status().unwrap().success()
    };
    let edits = |folder: &Path| {
        let create = "echo a >file; mkdir sub; echo a >sub/file; (umask 077; echo a >under-077); \
                      echo a >closed; chmod 644 closed; cp closed copy; chmod 600 closed";
        assert!(sh(1000, folder, create));
        let paths = ["file", "sub/file", "sub/new", "under-077", "copy", "closed"]; // the copy keeps the mode of the original
        paths.map(|path| sh(2000, folder, &format!("echo b >>{path}")))
    };
    let staged = [true, true, true, true, false, false];
    for folder in ["code", "code/lib"] {
        assert_eq!(edits(&pod.volume().join(folder)), staged, "{folder}");
    }
    assert_eq!(mode(&pod.volume().join("code/file")), 0o664);
    // The root folder belongs to root, so the stage user cannot set its ACL.
    let nothing = [false; 6];
    assert_eq!(edits(&pod.volume()), nothing);
    assert_eq!(edits(&folder.join("code")), nothing, "the tools volume is as it was");
}

#[test]
fn a_bad_source_fails_with_a_sentence() {
    let pod = Pod::new();
    let _socket = UnixListener::bind(pod.source().join("socket")).unwrap();
    let expected = "image src holds socket, which is a device, socket or named pipe and cannot be copied";
    assert_eq!(pod.failure(), expected);
}

#[test]
fn a_full_volume_fails_with_a_sentence_and_is_completed_once_there_is_space() {
    if !is_root() {
        return;
    }
    let pod = Pod::new();
    fs::write(pod.source().join("a-small"), "x").unwrap();
    fs::write(pod.source().join("big"), vec![b'x'; 300_000]).unwrap();
    let volume = pod.volume().to_str().unwrap().to_owned();
    let kept = pod.base.path().join("kept");
    // In one mount namespace: staged while there is no space, then again with more of it.
    let script = format!(
        "mount -t tmpfs -o size=128k none {volume} && \"$@\"; echo \"code $?\"; cp \"$REPORT\" \"$REPORT.full\"; \
         mount -o remount,size=2m {volume} && \"$@\" && cp -a {volume} {}",
        kept.display()
    );
    let mut command = pod.command_under(&["unshare", "--mount", "sh", "-c", &script, "sh"]);
    let output = command.env("REPORT", pod.report_path()).output().unwrap();
    let stdout = String::from_utf8(output.stdout).unwrap();
    if !stdout.contains("code 1") && !output.status.success() {
        // No right to mount here.
        return;
    }
    let full = fs::read(pod.report_path().with_extension("full")).unwrap();
    let message = "no space left on the volume data while writing code/big".to_owned();
    let report = StagingReport::Failed { message, fault: Fault::Size("data".into()) };
    assert_eq!(serde_json::from_slice::<StagingReport>(&full).unwrap(), report);
    assert_eq!(pod.report(), staged(1, 0), "the small file is there already");
    assert_eq!(fs::metadata(kept.join("code/big")).unwrap().len(), 300_000);
}

#[test]
fn a_file_of_another_user_at_the_place_of_the_temporary_file_is_in_nobodys_way() {
    if !is_root() {
        return;
    }
    let pod = Pod::new();
    fs::write(pod.source().join("file"), "x").unwrap();
    let part = pod.volume().join(".aigise-staged.part");
    fs::write(&part, "mine").unwrap();
    // Like `/tmp`: a user may only remove its own files.
    std::os::unix::fs::chown(pod.volume(), Some(0), Some(STAGE_USER)).unwrap();
    fs::set_permissions(pod.volume(), fs::Permissions::from_mode(0o1777)).unwrap();
    assert!(pod.command().status().unwrap().success());
    assert_eq!(pod.report(), staged(1, 0));
    assert_eq!(fs::read_to_string(part).unwrap(), "mine");
}

#[test]
fn a_missing_or_broken_manifest_is_reported() {
    let pod = Pod::new();
    for (manifest, expected) in [
        (None, "the stage Pod was started without AIGISE_STAGE"),
        (Some("{}"), "AIGISE_STAGE is not a manifest: missing field `digest` at line 1 column 2"),
    ] {
        let mut command = pod.command();
        match manifest {
            None => command.env_remove(MANIFEST_ENV),
            Some(text) => command.env(MANIFEST_ENV, text),
        };
        assert_eq!(command.stderr(Stdio::null()).status().unwrap().code(), Some(1));
        assert_eq!(pod.report(), StagingReport::Failed { message: expected.into(), fault: Fault::Source });
    }
}

#[test]
fn a_stage_that_nobody_needs_any_more_ends_at_once_also_as_pid_1() {
    if !is_root() {
        return;
    }
    let pod = Pod::new();
    // It hangs at the end: nobody reads the pipe.
    assert!(Command::new("mkfifo").arg(pod.report_path()).status().unwrap().success());
    let mut outer = pod.command_under(&["unshare", "--pid", "--fork", "--kill-child"]).spawn().unwrap();
    let stage = eventually("the inner process", || children(pid_of(&outer)).first().copied());
    wait_for_handlers(stage);
    eventually("the volume is staged", || pod.volume().join(MARKER).exists().then_some(()));
    kill_process(stage, Signal::TERM).unwrap();
    assert_eq!(wait_within_a_second(&mut outer).code(), Some(143));
}

#[test]
fn a_stage_that_is_killed_at_any_moment_is_completed_by_the_next() {
    let pod = Pod::new();
    for folder in 0..20 {
        let path = pod.source().join(format!("folder-{folder}"));
        fs::create_dir(&path).unwrap();
        for file in 0..20 {
            fs::write(path.join(format!("file-{file}")), format!("{folder}/{file}").repeat(500)).unwrap();
        }
    }
    let mut kills = 0;
    for delay in 1..200 {
        let mut stage = pod.command().stdout(Stdio::null()).spawn().unwrap();
        std::thread::sleep(Duration::from_micros(500 * delay));
        kill_process(pid_of(&stage), Signal::KILL).unwrap();
        if stage.wait().unwrap().signal().is_none() {
            break;
        }
        kills += 1;
    }
    assert!(kills > 0, "it was never killed");
    assert!(pod.command().stdout(Stdio::null()).status().unwrap().success());
    let StagingReport::Staged { volumes } = pod.report() else { panic!("{:?}", pod.report()) };
    assert_eq!(volumes["data"].kept, 0);
    let difference = Command::new("diff").arg("-r").arg(pod.source()).arg(pod.volume().join("code")).output().unwrap();
    assert!(difference.status.success(), "{}", String::from_utf8_lossy(&difference.stdout));
    assert_eq!(fs::read_dir(pod.volume()).unwrap().count(), 2, "the folder and the marker, no temporary file");
}
