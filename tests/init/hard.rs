//! What a step or a sandbox may do to the init supervisor.

use std::fs;
use std::os::unix::fs::symlink;
use std::time::{Duration, Instant};

use aigise_operator::protocol::init::{Outcome, SUCCESS};

use crate::{Ground, eventually, shell, work};

/// Everybody may write to it, and it is always full.
const FULL: &str = "/dev/full";

#[test]
fn a_daemon_in_a_session_of_its_own_does_not_block_the_init_work_and_lives_on() {
    let ground = Ground::new(&work(vec![]));
    let (go, done) = (ground.path("go"), ground.path("done"));
    let daemon = format!(
        "echo up; while [ ! -e {} ]; do sleep 0.05; done; echo from the daemon; touch {}",
        go.display(),
        done.display()
    );
    let step = shell("start", &format!("setsid sh -c '{daemon}' & exit 0"));
    ground.write_work(&work(vec![step, shell("next", "true")]));
    ground.release();
    let began = Instant::now();
    assert!(ground.init().status.success());
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    fs::write(&go, "").unwrap();
    eventually("the daemon goes on", || done.exists().then_some(()));
    eventually("what it prints is in the log", || {
        fs::read_to_string(ground.path("state/log")).ok().filter(|log| log.contains("from the daemon"))
    });
}

#[test]
fn a_daemon_of_a_step_that_fails_does_not_block_the_init_work_either() {
    let ground = Ground::released(&work(vec![shell("start", "setsid sleep 20 & echo began; exit 7")]));
    let began = Instant::now();
    let failure = ground.failure();
    assert_eq!((failure.exit_code, failure.tail.as_str()), (Some(7), "began"));
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
}

#[test]
fn a_log_on_a_full_disk_keeps_nobody_from_working_and_the_last_words_are_kept() {
    let ground = Ground::released(&work(vec![
        shell("one", "echo something"),
        shell("two", "head -c 100000 /dev/zero | tr '\\0' x; echo; echo the end; exit 3"),
    ]));
    symlink(FULL, ground.path("state/log")).unwrap();
    let failure = ground.failure();
    assert_eq!((failure.step.as_deref(), failure.exit_code), (Some("two"), Some(3)));
    assert!(failure.tail.ends_with("the end"), "{}", failure.tail);
    assert_eq!(ground.progress().unwrap().steps.len(), 2);
}

#[test]
fn a_disk_that_is_full_from_the_start_is_a_failure_and_nothing_runs() {
    let ground = Ground::released(&work(vec![]));
    let traces = ground.path("traces");
    ground.write_work(&work(vec![shell("one", &format!("echo ran >>{}", traces.display()))]));
    symlink(FULL, ground.path("state/progress.part")).unwrap();
    let failure = ground.failure();
    let path = ground.path("state/progress.part");
    assert!(failure.how.starts_with(&format!("cannot begin: {}: No space left", path.display())), "{}", failure.how);
    assert!(!traces.exists());
}

/// What the sidecar says is the only proof of the success, and it is said again whatever ends the process that says it.
#[test]
fn the_success_is_reported_once_it_is_there_and_after_each_restart() {
    let ground = Ground::released(&work(vec![]));
    let go = ground.path("go");
    ground.write_work(&work(vec![shell("one", &format!("until [ -e {} ]; do sleep 0.05; done", go.display()))]));
    let report = || ground.sandboxd(&["report"]).spawn().unwrap();
    let words = || fs::read_to_string(ground.path("termination-log")).unwrap_or_default();
    let (mut first, mut init) = (report(), ground.begin());
    eventually("the step begins", || ground.progress().filter(|progress| !progress.steps.is_empty()));
    assert_eq!((first.try_wait().unwrap(), words()), (None, String::new()), "nothing has succeeded yet");
    fs::write(&go, "").unwrap();
    assert!(init.wait().unwrap().success());
    assert!(first.wait().unwrap().success());
    assert_eq!(words(), SUCCESS);
    fs::remove_file(ground.path("termination-log")).unwrap();
    let mut second = report();
    eventually("it is reported again", || (words() == SUCCESS).then_some(()));
    assert_eq!(second.try_wait().unwrap(), None, "it idles");
    second.kill().unwrap();
    second.wait().unwrap();
}

#[test]
fn a_disk_that_becomes_full_is_a_failure_and_runs_nothing_twice() {
    let ground = Ground::released(&work(vec![]));
    let traces = ground.path("traces");
    let fill =
        format!("ln -s {FULL} {}; echo ran >>{}", ground.path("state/progress.part").display(), traces.display());
    ground.write_work(&work(vec![shell("fill", &fill), shell("next", &format!("echo ran >>{}", traces.display()))]));
    let failure = ground.failure();
    assert!(failure.how.contains("could not record its outcome"), "{}", failure.how);
    assert_eq!(ground.init().status.code(), Some(1));
    assert_eq!(fs::read_to_string(&traces).unwrap(), "ran\nran\n", "each step once");
}

#[test]
fn output_that_is_not_text_is_kept_as_it_is_and_reported_as_far_as_possible() {
    let ground = Ground::released(&work(vec![shell("odd", "printf 'a\\377\\000b\\n'; exit 1")]));
    assert_eq!(ground.failure().tail, "a\u{fffd}\0b");
    assert_eq!(fs::read(ground.path("state/log")).unwrap(), b"==> odd\na\xff\0b\n");
    let status = ground.sandboxd(&["status"]).output().unwrap().stdout;
    assert!(String::from_utf8(status).unwrap().ends_with("  a\u{fffd} b\n"));
    let log = ground.sandboxd(&["log"]).output().unwrap().stdout;
    assert_eq!(log, b"==> odd\na\xff\0b\n");
}

#[test]
fn a_hundred_megabytes_leave_a_log_of_two_pages() {
    const PAGE: u64 = 4 * 1024 * 1024 + 16 * 1024;
    let ground = Ground::released(&work(vec![shell("loud", "head -c 100000000 /dev/zero | tr '\\0' x")]));
    assert!(ground.init().status.success());
    for name in ["state/log", "state/log.1"] {
        let length = fs::metadata(ground.path(name)).unwrap().len();
        assert!(length <= PAGE, "{name}: {length} bytes");
    }
    let progress = ground.progress().unwrap();
    assert_eq!(progress.outcome, Some(Outcome::Succeeded));
}
