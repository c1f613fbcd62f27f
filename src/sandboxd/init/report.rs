//! `sandboxd report`: a native sidecar that ends with a termination message when the init work has succeeded. The kubelet keeps this
//! message and starts the sidecar again, which then idles. No kubelet can say this in its place.

use std::io;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use jiff::Unit;
use rustix::fs::{FlockOperation, flock};

use super::{Places, now, say, state::State};
use crate::protocol::init::{InitProgress, Outcome, Run, Success};
use crate::sandboxd::idle;

const LOOK_EVERY: Duration = Duration::from_millis(100);

/// Waits for the success and reports it, or idles if it was reported already.
///
/// # Errors
/// When the report cannot be written.
pub fn report(places: &Places) -> io::Result<ExitCode> {
    let state = places.state();
    if state.is_reported() {
        // Whatever ends this process: the message of the last one is kept.
        std::fs::write(&places.termination_log, message(&state))?;
        return idle::run();
    }
    idle::end_on_signal()?;
    while !has_succeeded(&state) {
        thread::sleep(LOOK_EVERY);
    }
    std::fs::write(&places.termination_log, message(&state))?;
    // Without the record the next process reports once more.
    let _ = state.set_reported();
    Ok(ExitCode::SUCCESS)
}

/// The report, with what became of the root file system.
fn message(state: &State) -> String {
    Success::with(state.read().and_then(|progress| progress.root)).text()
}

/// Looks once, and waits for the supervisor if the work has begun. Before that the lock must stay free: who finds it taken takes it for the
/// supervisor's.
fn has_succeeded(state: &State) -> bool {
    let outcome = || state.read().map(|progress| progress.outcome);
    match outcome() {
        None => false,
        Some(Some(outcome)) => outcome == Outcome::Succeeded,
        Some(None) => {
            let waited = state.open_lock().and_then(|lock| Ok(flock(lock, FlockOperation::LockShared)?));
            waited.is_ok() && outcome().flatten() == Some(Outcome::Succeeded)
        }
    }
}

/// How long a service may take before it is worth a word.
const PATIENCE: i64 = 10;

/// Says on stderr which services the init work waits for, since when, and what was wrong last.
pub fn awaited(places: &Places) -> ExitCode {
    let progress = places.state().read().filter(|progress| progress.outcome.is_none()).unwrap_or_default();
    let waits = |run: &&Run| {
        run.ended.is_none() && run.error.is_some() && now().duration_since(run.began).as_secs() >= PATIENCE
    };
    let InitProgress { steps, .. } = &progress;
    let lines: Vec<_> = steps.iter().filter(waits).map(line).collect();
    if lines.is_empty() {
        return ExitCode::SUCCESS;
    }
    say(&lines.join("; "));
    ExitCode::FAILURE
}

/// The same text as long as the problem is the same.
fn line(run: &Run) -> String {
    let error = run.error.as_deref().unwrap_or_default();
    format!("the {} has not answered since {}: {error}", run.name, run.began.round(Unit::Second).unwrap_or(run.began))
}
