//! `sandboxd gate`: the startup probe of a sandbox that has init work.
//!
//! ```text
//! gate ── lock is free, nothing begun ──► supervise   (a process of its own, which holds the lock)
//!   │                                         │ waits for the release, runs the steps, installs the dependencies of
//!   │                                         │ skills, waits for the services, records the outcome
//!   │ waits for the lock ◄────────────────────┘
//!   ▼
//! outcome: succeeded ──► 0
//!          failed ─────► termination log, 1: the kubelet ends the container
//!          none ───────► the same: the supervisor was killed
//! ```
//!
//! A kubelet that is restarted ends the probe and starts it again. The work continues meanwhile, and the new probe waits for the
//! same supervisor. So a step runs only once in a Pod, however often the probe is started.
//!
//! `sandboxd report` is a container of its own, beside the sandbox: it waits for the success and reports it to the operator.
//!
//! `sandboxd ready` is the readiness probe of a sandbox with services: it checks again whether they answer.
//!
//! Decided in docs/adr/0009-the-gate-is-a-startup-probe.md.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use jiff::Timestamp;
use rustix::fs::{FlockOperation, flock};

use self::state::State;
use super::{TERMINATION_LOG, fail, http, say};
use crate::protocol::cache::RestoreFault;
use crate::protocol::init::{FOLDER, InitFailure, InitProgress, Outcome, TerminationMessage};

mod log;
mod look;
mod mask;
mod ready;
mod report;
mod root;
mod run;
mod services;
mod state;
mod supervise;

pub use self::look::{log, status};
pub use self::ready::ready;
pub use self::report::{awaited, report};
pub use self::root::run as run_program;
pub use self::supervise::supervise;

/// The tools volume.
const TOOLS: &str = "/bash_tools";

/// The data volume.
const DATA: &str = "/shared";

/// Where markers record which skills have their dependencies installed, in the container's own file system.
const MARKERS: &str = "/var/lib/aigise/skills";

/// The paths that the init supervisor uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Places {
    /// The folder of the init supervisor.
    pub folder: PathBuf,
    /// The file from which the kubelet reads the container's termination message.
    pub termination_log: PathBuf,
    /// The tools volume.
    pub tools: PathBuf,
    /// Where markers record which skills have their dependencies installed, if this folder is writable.
    pub markers: PathBuf,
    /// The root file system.
    pub root: PathBuf,
    /// The data volume.
    pub data: PathBuf,
}

impl Default for Places {
    fn default() -> Self {
        Self {
            folder: FOLDER.into(),
            termination_log: TERMINATION_LOG.into(),
            tools: TOOLS.into(),
            markers: MARKERS.into(),
            root: "/".into(),
            data: DATA.into(),
        }
    }
}

impl Places {
    /// All paths below one folder.
    pub fn below(folder: &OsStr) -> Self {
        let folder = PathBuf::from(folder);
        Self {
            termination_log: folder.join("termination-log"),
            tools: folder.join("tools"),
            markers: folder.join("skills"),
            root: folder.join("root"),
            data: folder.join("data"),
            folder,
        }
    }

    fn state(&self) -> State {
        State::at(&self.folder.join(crate::protocol::init::STATE))
    }
}

/// The current time. It is only reported: nothing here is decided by it.
#[expect(clippy::disallowed_methods, reason = "the steps are reported with their times")]
fn now() -> Timestamp {
    Timestamp::now()
}

/// Waits until the init work is done, by a supervisor that this process starts or by a supervisor that is already running.
pub fn run(places: &Places) -> ExitCode {
    match wait(places) {
        Ok(Outcome::Succeeded) => ExitCode::SUCCESS,
        Ok(Outcome::Failed(failure)) => {
            let sentence = sentence(&failure);
            // If the disk is full, the event of the failed probe still carries the message.
            let _ = fs::write(&places.termination_log, TerminationMessage { failure }.text());
            say(&sentence);
            ExitCode::FAILURE
        }
        Err(error) => {
            let failure = InitFailure { how: format!("cannot begin: {error}"), ..InitFailure::default() };
            let _ = fs::write(&places.termination_log, TerminationMessage { failure }.text());
            fail(&error)
        }
    }
}

fn wait(places: &Places) -> io::Result<Outcome> {
    let state = places.state();
    let lock = state.lock()?;
    if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok() {
        match state.read() {
            None => {
                state.check()?;
                begin(places, lock)?;
            }
            Some(progress) => return Ok(outcome(places, Some(progress))),
        }
    }
    // Another description of the file: the lock belongs to the supervisor, which has the first description.
    flock(state.lock()?, FlockOperation::LockExclusive)?;
    Ok(outcome(places, state.read()))
}

/// Starts the supervisor. The supervisor inherits the lock as its standard input, so the lock is held at every moment.
fn begin(places: &Places, lock: File) -> io::Result<()> {
    let mut supervisor = Command::new(std::env::current_exe()?);
    supervisor.arg("supervise");
    if *places != Places::default() {
        supervisor.arg("--folder").arg(&places.folder);
    }
    supervisor.stdin(lock).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    Ok(())
}

/// How the work of a supervisor ended that has let go of the lock.
fn outcome(places: &Places, progress: Option<InitProgress>) -> Outcome {
    let InitProgress { outcome, root, .. } = progress.unwrap_or_default();
    let killed = || {
        let work = supervise::work_of(&places.folder).ok();
        let restores = work.and_then(|work| work.root?.restore).filter(|_| root.is_none());
        Outcome::Failed(InitFailure {
            how: "was killed from outside, perhaps because memory ran out, or could not record its outcome".into(),
            restore: restores.map(|_| RestoreFault::RestoreFailed),
            ..InitFailure::default()
        })
    };
    outcome.unwrap_or_else(killed)
}

/// A failure as one line. The names in it are those of a sandbox's files.
pub fn sentence(failure: &InitFailure) -> String {
    http::one_line(&format!("the {} {}", failure.subject(), failure.how))
}

/// Reads a small file that the kubelet, or this program, always replaces as a whole.
fn read(path: &Path) -> Option<String> {
    fs::read_to_string(path).ok().filter(|text| !text.is_empty())
}
