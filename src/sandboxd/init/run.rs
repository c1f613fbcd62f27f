//! Runs one step, in its own process group and within its time limit.

use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use super::log::Log;
use crate::protocol::init::{InitFailure, Step};

/// How long a step may take to end after it was asked to.
pub const GRACE: Duration = Duration::from_secs(5);

/// How long reading the last output of a step may take. A process that left the group may keep the other end open for ever.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Runs a step until it ends. At its deadline the step is asked to end, and killed after `grace`. Processes that the step leaves
/// behind in the background continue if the step succeeded; their output goes to the log, too.
///
/// # Errors
/// Why the step failed.
pub fn run(step: &Step, deadline: Instant, grace: Duration, log: &Log) -> Result<(), InitFailure> {
    log.begin(&step.name);
    let failure = |how: String| InitFailure { step: Some(step.name.clone()), how, ..InitFailure::default() };
    let began = Instant::now();
    let (own, limit) = match step.timeout.map(Duration::from_secs) {
        Some(timeout) if began + timeout < deadline => (true, began + timeout),
        Some(_) | None => (false, deadline),
    };
    let (child, printed) = spawn(step, log).map_err(|error| failure(format!("cannot be started: {error}")))?;
    let group = Pid::from_child(&child);
    let ended = watch(child);
    let status = match ended.recv_timeout(limit.saturating_duration_since(Instant::now())) {
        Ok(status) => status,
        Err(RecvTimeoutError::Disconnected) => return Err(failure("could not be waited for".into())),
        Err(RecvTimeoutError::Timeout) => {
            end(group, grace, &ended);
            let _ = printed.recv_timeout(LAST_WORDS);
            let whose = if own { "its timeout" } else { "the timeout of the initialiser" };
            let seconds = began.elapsed().as_secs_f64().round();
            return Err(failure(format!("did not end within {whose}, after {seconds} s")));
        }
    };
    if status.success() {
        // The next step's output must be logged after this step's output.
        let _ = printed.recv_timeout(LAST_WORDS);
        return Ok(());
    }
    let (exit_code, signal) = (status.code(), status.signal());
    let how = match (exit_code, signal) {
        (_, Some(signal)) => format!("was ended by signal {signal}"),
        (Some(code), None) => format!("ended with exit code {code}"),
        (None, None) => "ended in an unknown way".into(),
    };
    // Processes that the step left behind would continue in a sandbox that has failed, until the kubelet ends the sandbox.
    let _ = kill_process_group(group, Signal::KILL);
    let _ = printed.recv_timeout(LAST_WORDS);
    Err(InitFailure { exit_code, signal, ..failure(how) })
}

/// Starts a step; the receiver gets a message when all output of the step has been read.
fn spawn(step: &Step, log: &Log) -> io::Result<(Child, Receiver<()>)> {
    let Some((program, arguments)) = step.command.split_first() else {
        return Err(io::Error::other("it has no command"));
    };
    let (output, input) = io::pipe()?;
    let child = Command::new(program)
        .args(arguments)
        .envs(&step.env)
        .stdin(Stdio::null())
        .stdout(input.try_clone()?)
        .stderr(input)
        .process_group(0)
        .spawn()?;
    let (sender, printed) = channel();
    log.follow(output, move || _ = sender.send(()));
    Ok((child, printed))
}

fn watch(mut child: Child) -> Receiver<ExitStatus> {
    let (sender, ended) = channel();
    thread::spawn(move || {
        if let Ok(status) = child.wait() {
            let _ = sender.send(status);
        }
    });
    ended
}

/// Ends a step and all processes that it started: first SIGTERM, then SIGKILL.
fn end(group: Pid, grace: Duration, ended: &Receiver<ExitStatus>) {
    let _ = kill_process_group(group, Signal::TERM);
    let _ = ended.recv_timeout(grace);
    let _ = kill_process_group(group, Signal::KILL);
}
