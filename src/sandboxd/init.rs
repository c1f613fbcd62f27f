//! `sandboxd gate`: the startup probe of a sandbox that has something to do before it is ready.
//!
//! ```text
//! gate ── lock is free, nothing begun ──► supervise   (a process of its own, which holds the lock)
//!   │                                         │ waits for the release, runs the steps, installs what skills need,
//!   │                                         │ waits for the services, writes down the outcome
//!   │ waits for the lock ◄────────────────────┘
//!   ▼
//! outcome: succeeded ──► 0
//!          failed ─────► termination log, 1: the kubelet ends the container
//!          none ───────► the supervisor was killed: likewise
//! ```
//!
//! The kubelet ends a probe when it is restarted itself, and begins it anew; the work goes on meanwhile, and the new gate waits for
//! the same supervisor. So a step runs once in a Pod, however often the probe is started.
//!
//! `sandboxd ready` is the readiness probe of a sandbox with services: it asks again whether they are there.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use jiff::Timestamp;
use rustix::fs::{FlockOperation, flock};

use self::state::State;
use super::{fail, say, stage::TERMINATION_LOG};
use crate::protocol::init::{FOLDER, InitFailure, Outcome, TerminationMessage};

mod log;
mod look;
mod mask;
mod ready;
mod run;
mod services;
mod state;
mod supervise;

pub use self::look::{log, status};
pub use self::ready::ready;
pub use self::supervise::supervise;

/// The tools volume.
const TOOLS: &str = "/bash_tools";

/// What says which skills have their dependencies, in the container's own file system.
const MARKERS: &str = "/var/lib/aigise/skills";

/// Where everything is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// The folder that belongs to the gate.
    pub folder: PathBuf,
    /// Where the kubelet looks for what a container has to say at its end.
    pub termination_log: PathBuf,
    /// The tools volume.
    pub tools: PathBuf,
    /// Where it is written down which skills have their dependencies, if that can be written.
    pub markers: PathBuf,
}

impl Default for Places {
    fn default() -> Self {
        Self {
            folder: FOLDER.into(),
            termination_log: TERMINATION_LOG.into(),
            tools: TOOLS.into(),
            markers: MARKERS.into(),
        }
    }
}

impl Places {
    /// Everything in one folder.
    #[must_use]
    pub fn below(folder: &OsStr) -> Self {
        let folder = PathBuf::from(folder);
        Self {
            termination_log: folder.join("termination-log"),
            tools: folder.join("tools"),
            markers: folder.join("skills"),
            folder,
        }
    }

    fn state(&self) -> State {
        State::at(&self.folder.join(crate::protocol::init::STATE))
    }
}

/// The time. A helper program has no cache to be compared with, and nothing here decides by it.
#[expect(clippy::disallowed_methods, reason = "the steps are told with their times")]
fn now() -> Timestamp {
    Timestamp::now()
}

/// Waits until the work is done, by this process's supervisor or by one that is there already.
#[must_use]
pub fn run(places: &Places) -> ExitCode {
    match wait(places) {
        Ok(Outcome::Succeeded) => ExitCode::SUCCESS,
        Ok(Outcome::Failed(failure)) => {
            let sentence = sentence(&failure);
            // What a supervisor that had no more room on the disk has to say is still told by the event of the probe.
            let _ = fs::write(&places.termination_log, TerminationMessage { failure }.text());
            say(&sentence);
            ExitCode::FAILURE
        }
        Err(error) => fail(&error),
    }
}

fn wait(places: &Places) -> io::Result<Outcome> {
    let state = places.state();
    let lock = state.lock()?;
    if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok() {
        match state.read() {
            None => begin(places, lock)?,
            Some(progress) => return Ok(progress.outcome.unwrap_or_else(killed)),
        }
    }
    // Another description of the file: the lock belongs to the supervisor, who has the first.
    flock(state.lock()?, FlockOperation::LockExclusive)?;
    Ok(state.read().and_then(|progress| progress.outcome).unwrap_or_else(killed))
}

/// Starts the supervisor. It inherits the lock as its standard input, so that there is no moment at which nobody holds it.
fn begin(places: &Places, lock: File) -> io::Result<()> {
    let mut supervisor = Command::new(std::env::current_exe()?);
    supervisor.arg("supervise");
    if *places != Places::default() {
        supervisor.arg("--folder").arg(&places.folder);
    }
    supervisor.stdin(lock).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    Ok(())
}

fn killed() -> Outcome {
    Outcome::Failed(InitFailure {
        how: "was killed from outside, perhaps for want of memory, or could not write down how it ended".into(),
        ..InitFailure::default()
    })
}

/// A failure in one line.
#[must_use]
pub fn sentence(failure: &InitFailure) -> String {
    format!("the {} {}", failure.subject(), failure.how)
}

/// Reads a small file that the kubelet, or this program, replaces as a whole.
fn read(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok().filter(|text| !text.is_empty())
}
