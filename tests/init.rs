//! `sandboxd gate` as a kubelet runs it: the built program, over a folder as a Pod has it.

#![cfg(feature = "sandboxd")]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a failed step is a failed test")]

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Output, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use aigise_operator::protocol::init::{
    InitFailure, InitProgress, Outcome, RELEASE_FILE, STATE, Secrets, Step, TerminationMessage, WORK_FILE, Work,
};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

mod init {
    mod hard;
    mod mcp_server;
    mod roots;
    mod services;
    mod skills;
}

const SANDBOXD: &str = env!("CARGO_BIN_EXE_sandboxd");

/// The folder of an init supervisor, in a Pod that is simulated.
struct Ground(TempDir);

impl Ground {
    fn new(work: &Work) -> Self {
        let folder = tempfile::tempdir().unwrap();
        for name in ["pod", STATE] {
            fs::create_dir(folder.path().join(name)).unwrap();
        }
        fs::write(folder.path().join(RELEASE_FILE), "").unwrap();
        let ground = Self(folder);
        ground.write_work(work);
        ground
    }

    fn write_work(&self, work: &Work) {
        fs::write(self.path(WORK_FILE), serde_json::to_string(work).unwrap()).unwrap();
    }

    fn released(work: &Work) -> Self {
        let ground = Self::new(work);
        ground.release();
        ground
    }

    /// Its work is done.
    fn done(work: &Work) -> Self {
        let ground = Self::new(work);
        let progress = InitProgress { outcome: Some(Outcome::Succeeded), ..InitProgress::default() };
        fs::write(ground.path(STATE).join("progress.json"), serde_json::to_string(&progress).unwrap()).unwrap();
        ground
    }

    fn release(&self) {
        fs::write(self.path(RELEASE_FILE), "2026-01-01T00:00:00Z").unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn sandboxd(&self, verb: &[&str]) -> Command {
        let mut command = Command::new(SANDBOXD);
        command.args(verb).arg("--folder").arg(self.0.path()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn begin(&self) -> Child {
        self.sandboxd(&["gate"]).spawn().unwrap()
    }

    fn init(&self) -> Output {
        self.sandboxd(&["gate"]).output().unwrap()
    }

    fn progress(&self) -> Option<InitProgress> {
        serde_json::from_str(&fs::read_to_string(self.path("state/progress.json")).ok()?).ok()
    }

    /// Runs the init work, which has to fail, and gives its last words.
    #[track_caller]
    fn failure(&self) -> InitFailure {
        let output = self.init();
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        self.last_words()
    }

    fn last_words(&self) -> InitFailure {
        TerminationMessage::read(&fs::read_to_string(self.path("termination-log")).unwrap()).expect("last words")
    }
}

fn shell(name: &str, script: &str) -> Step {
    Step { name: name.into(), command: ["sh", "-c", script].map(String::from).to_vec(), ..Step::default() }
}

fn work(steps: Vec<Step>) -> Work {
    Work { timeout: 60, steps, ..Work::default() }
}

/// Asks again and again, for ten seconds.
fn eventually<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    while start.elapsed() < Duration::from_secs(10) {
        if let Some(answer) = ask() {
            return answer;
        }
        thread::sleep(Duration::from_millis(10));
    }
    panic!("not within ten seconds: {what}");
}

#[test]
fn the_steps_run_in_their_order_once_it_is_released() {
    let ground = Ground::new(&work(vec![]));
    let traces = ground.path("traces");
    let step = |name: &str| shell(name, &format!("echo {name} $WORD >>{}", traces.display()));
    let env = [("WORD".to_string(), "$HOME".to_string())].into();
    let steps = vec![step("one"), Step { env, ..step("two") }];
    fs::write(ground.path(WORK_FILE), serde_json::to_string(&work(steps)).unwrap()).unwrap();

    let mut init = ground.begin();
    eventually("the supervisor waits", || ground.progress());
    thread::sleep(Duration::from_millis(300));
    assert!(!traces.exists() && init.try_wait().unwrap().is_none(), "it waits for its release");
    ground.release();
    assert!(init.wait().unwrap().success());
    assert_eq!(fs::read_to_string(&traces).unwrap(), "one\ntwo $HOME\n");

    // A probe that is started again finds it done.
    assert!(ground.init().status.success());
    assert_eq!(fs::read_to_string(&traces).unwrap(), "one\ntwo $HOME\n");
}

#[test]
fn a_probe_that_is_killed_or_started_twice_runs_nothing_twice() {
    let ground = Ground::new(&work(vec![]));
    let traces = ground.path("traces");
    let step = shell("slow", &format!("echo ran >>{}; sleep 1", traces.display()));
    fs::write(ground.path(WORK_FILE), serde_json::to_string(&work(vec![step])).unwrap()).unwrap();
    ground.release();
    let mut first = ground.begin();
    eventually("the step runs", || traces.exists().then_some(()));
    let (mut second, mut third) = (ground.begin(), ground.begin());
    first.kill().unwrap();
    first.wait().unwrap();
    assert!(second.wait().unwrap().success());
    assert!(third.wait().unwrap().success());
    assert_eq!(fs::read_to_string(&traces).unwrap(), "ran\n");
}

#[test]
fn a_step_that_fails_leaves_its_evidence() {
    let ground = Ground::released(&work(vec![
        shell("fine", "echo all is well"),
        shell("compile", "echo line one; echo 'error: no such file' >&2; exit 2"),
        shell("never", "touch never"),
    ]));
    let failure = ground.failure();
    assert_eq!((failure.step.as_deref(), failure.exit_code, failure.signal), (Some("compile"), Some(2), None));
    assert_eq!(failure.how, "ended with exit code 2");
    assert_eq!(failure.tail, "line one\nerror: no such file");
    let output = ground.init();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("the step compile ended with exit code 2"), "{said}");
    let status = String::from_utf8(ground.sandboxd(&["status"]).output().unwrap().stdout).unwrap();
    assert!(
        status.starts_with("The initialiser has failed: the step compile ended with exit code 2.")
            && status.contains("3. never"),
        "{status}"
    );
    let log = String::from_utf8(ground.sandboxd(&["log"]).output().unwrap().stdout).unwrap();
    assert_eq!(log, "==> fine\nall is well\n==> compile\nline one\nerror: no such file\n");
}

#[test]
fn a_step_that_cannot_be_started_or_is_killed_says_so() {
    let missing = Step { name: "missing".into(), command: vec!["/no/such/program".into()], ..Step::default() };
    let failure = Ground::released(&work(vec![missing])).failure();
    assert!(failure.how.contains("cannot be started: No such file"), "{}", failure.how);
    let failure = Ground::released(&work(vec![shell("killed", "kill -KILL $$")])).failure();
    assert_eq!((failure.signal, failure.exit_code), (Some(9), None));
}

#[test]
fn time_is_kept_for_each_step_and_for_the_whole_also_against_who_does_not_listen() {
    let stubborn =
        Step { timeout: Some(1), ..shell("stubborn", "trap '' TERM; echo begun; while :; do sleep 0.1; done") };
    let ground = Ground::released(&work(vec![stubborn]));
    let began = Instant::now();
    let failure = ground.failure();
    assert!(failure.how.contains("did not end within its timeout"), "{}", failure.how);
    assert_eq!(failure.tail, "begun");
    assert!((6..12).contains(&began.elapsed().as_secs()), "it was asked first: {:?}", began.elapsed());

    let whole = Work { timeout: 1, ..work(vec![shell("one", "sleep 0.3"), shell("two", "sleep 60")]) };
    let failure = Ground::released(&whole).failure();
    assert_eq!(failure.step.as_deref(), Some("two"));
    assert!(failure.how.contains("the timeout of the initialiser"), "{}", failure.how);
}

#[test]
fn many_steps_that_take_no_time_succeed() {
    let many = (0..50).map(|n| Step { name: format!("s{n}"), command: vec!["true".into()], ..Step::default() });
    let ground = Ground::released(&work(many.collect()));
    assert!(ground.init().status.success());
    assert_eq!(ground.progress().unwrap().steps.len(), 50);
}

#[test]
fn what_a_step_leaves_in_the_background_lives_on_and_can_go_on_printing() {
    let ground = Ground::new(&work(vec![]));
    let go = ground.path("go");
    let daemon = format!(
        "(while [ ! -e {} ]; do sleep 0.05; done; echo from the daemon; touch {}) & exit 0",
        go.display(),
        ground.path("done").display()
    );
    fs::write(ground.path(WORK_FILE), serde_json::to_string(&work(vec![shell("start", &daemon)])).unwrap()).unwrap();
    ground.release();
    assert!(ground.init().status.success());
    fs::write(&go, "").unwrap();
    eventually("the daemon goes on", || ground.path("done").exists().then_some(()));
    eventually("what it prints is in the log", || {
        fs::read_to_string(ground.path("state/log")).ok().filter(|log| log.contains("from the daemon"))
    });
}

#[test]
fn a_step_that_prints_without_end_fills_no_disk_and_its_last_words_are_kept() {
    let ground = Ground::released(&work(vec![shell(
        "loud",
        "head -c 100000000 /dev/zero | tr '\\0' x; echo; echo the end; printf '\\377\\376'; exit 1",
    )]));
    let failure = ground.failure();
    assert!(failure.tail.ends_with("the end\n\u{fffd}\u{fffd}"), "{:?}", failure.tail);
    let size = |name: &str| fs::metadata(ground.path(name)).map_or(0, |file| file.len());
    let all = size("state/log") + size("state/log.1");
    assert!((1..10_000_000).contains(&all), "{all} bytes");
}

#[test]
fn secrets_are_not_reported() {
    let secrets = Secrets { names: ["TOKEN".to_string()].into(), all_but: None };
    let ground = Ground::released(&Work { secrets, ..work(vec![shell("leaky", "echo using $TOKEN; exit 1")]) });
    let output = ground.sandboxd(&["gate"]).env("TOKEN", "hunter2").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let words = fs::read_to_string(ground.path("termination-log")).unwrap();
    assert_eq!(TerminationMessage::read(&words).unwrap().tail, "using ***");
}

#[test]
fn a_supervisor_that_is_killed_is_a_failure_and_is_not_begun_again() {
    let ground = Ground::new(&work(vec![]));
    let traces = ground.path("traces");
    let step = shell(
        "slow",
        &format!("echo ran >>{}; echo $PPID >{}; sleep 60", traces.display(), ground.path("pid").display()),
    );
    fs::write(ground.path(WORK_FILE), serde_json::to_string(&work(vec![step])).unwrap()).unwrap();
    ground.release();
    let mut init = ground.begin();
    let pid = eventually("the step runs", || fs::read_to_string(ground.path("pid")).ok()?.trim().parse().ok());
    kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
    assert_eq!(init.wait().unwrap().code(), Some(1));
    let failure = TerminationMessage::read(&fs::read_to_string(ground.path("termination-log")).unwrap()).unwrap();
    assert!(failure.how.contains("was killed from outside"), "{}", failure.how);
    assert_eq!(ground.init().status.code(), Some(1));
    assert_eq!(fs::read_to_string(&traces).unwrap(), "ran\n");
}

#[test]
fn what_cannot_be_read_is_a_failure_and_not_a_success() {
    let ground = Ground::released(&work(vec![]));
    fs::write(ground.path(WORK_FILE), "{").unwrap();
    assert!(ground.failure().how.contains("cannot read its work"));
    assert_eq!(ground.progress().unwrap().outcome.map(|outcome| outcome == Outcome::Succeeded), Some(false));
}

#[test]
fn the_log_can_be_followed_until_the_work_is_over() {
    let ground = Ground::released(&work(vec![shell("one", "echo first; sleep 0.5; echo second")]));
    let mut init = ground.begin();
    eventually("it has begun", || ground.progress());
    let followed = ground.sandboxd(&["log", "-f"]).output().unwrap();
    assert!(init.wait().unwrap().success());
    assert_eq!(String::from_utf8(followed.stdout).unwrap(), "==> one\nfirst\nsecond\n");
}
