//! `sandboxd idle`: PID 1 of a sandbox that has no command of its own.
//!
//! Sandboxes are used through `exec`, so their PID 1 has two duties: to reap orphaned processes, and to end at once when the Pod
//! ends (`sleep` would take the whole grace period, because the kernel drops signals that a PID 1 has no handler for).

use std::io;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use rustix::process::{WaitOptions, wait};
use signal_hook::consts::{SIGCHLD, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

/// Sleeps until SIGTERM or SIGINT, and reaps processes meanwhile. The exit code is 143 or 130, as for a process that the signal
/// killed.
///
/// # Errors
/// When the handlers cannot be installed.
pub fn run() -> io::Result<ExitCode> {
    let mut signals = Signals::new([SIGCHLD, SIGINT, SIGTERM])?;
    // Nothing received the SIGCHLD of processes that died before the handlers were installed.
    reap();
    for signal in signals.forever() {
        if signal != SIGCHLD {
            return Ok(ExitCode::from(exit_code(signal)));
        }
        reap();
    }
    Ok(ExitCode::SUCCESS)
}

/// Makes a process that is working, and may be a PID 1, end at the first SIGTERM or SIGINT.
///
/// # Errors
/// When the handlers cannot be installed.
pub fn end_on_signal() -> io::Result<()> {
    for signal in [SIGINT, SIGTERM] {
        let armed = Arc::new(AtomicBool::new(true));
        signal_hook::flag::register_conditional_shutdown(signal, exit_code(signal).into(), armed)?;
    }
    Ok(())
}

fn exit_code(signal: i32) -> u8 {
    128 + u8::try_from(signal).unwrap_or_default()
}

/// Reaps all children that have ended, because one SIGCHLD may stand for many.
fn reap() {
    while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
}
