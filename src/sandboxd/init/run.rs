//! Runs one step, in a process group of its own, for as long as it may take.

use std::io;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use super::log::Log;
use crate::protocol::init::{InitFailure, Step};

/// How long a step that is told to end may take to do so.
pub const GRACE: Duration = Duration::from_secs(5);

/// How long the last that a step printed may take to be read. Who left its group may hold the other end for ever.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// Runs a step until it ends, or is ended at its deadline, with `grace` to do so by itself. Processes that it leaves behind in the
/// background go on when it ended well; what they print goes to the log, too.
///
/// # Errors
/// How it failed.
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
        Err(RecvTimeoutError::Disconnected) => return Err(failure("was lost sight of".into())),
        Err(RecvTimeoutError::Timeout) => {
            end(group, grace, &ended);
            let _ = printed.recv_timeout(LAST_WORDS);
            let whose = if own { "its timeout" } else { "the timeout of the whole" };
            let seconds = began.elapsed().as_secs_f64().round();
            return Err(failure(format!("did not end within {whose}, after {seconds} s")));
        }
    };
    if status.success() {
        // What comes next is logged after what this one printed.
        let _ = printed.recv_timeout(LAST_WORDS);
        return Ok(());
    }
    let (exit_code, signal) = (status.code(), status.signal());
    let how = match (exit_code, signal) {
        (_, Some(signal)) => format!("was ended by signal {signal}"),
        (Some(code), None) => format!("ended with exit code {code}"),
        (None, None) => "ended in an unknown way".into(),
    };
    // What it left behind would go on in a sandbox that has failed, until the kubelet ends it.
    let _ = kill_process_group(group, Signal::KILL);
    let _ = printed.recv_timeout(LAST_WORDS);
    Err(InitFailure { exit_code, signal, ..failure(how) })
}

/// Starts a step; the receiver is told when all that it printed has been read.
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
    let (tell, printed) = channel();
    log.follow(output, move || _ = tell.send(()));
    Ok((child, printed))
}

fn watch(mut child: Child) -> Receiver<ExitStatus> {
    let (tell, ended) = channel();
    thread::spawn(move || {
        if let Ok(status) = child.wait() {
            let _ = tell.send(status);
        }
    });
    ended
}

/// Ends a step with all that it started: asks first.
fn end(group: Pid, grace: Duration, ended: &Receiver<ExitStatus>) {
    let _ = kill_process_group(group, Signal::TERM);
    let _ = ended.recv_timeout(grace);
    let _ = kill_process_group(group, Signal::KILL);
}
