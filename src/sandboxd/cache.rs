//! `sandboxd save` and `sandboxd restore`: put the shared volumes of a session into an entry of the cache, and take them from there, in
//! two Pods that run before the first sandbox works.
//!
//! ```text
//! save:     pack each volume ──► <entry>/<volume>.tar.zst, by a temporary name ──► manifest.json, last
//! restore:  read and compare each part ──► compare sizes with the space ──► unpack each volume ──► its marker, last
//!           └────────── nothing is written ─────────────────────────────┘
//! ```
//!
//! Both run as an unprivileged user without capabilities, and may be killed at any point: the next run ends in the same way. As with
//! staging, this holds for a process that dies; only an entry also survives a node that loses power.

use std::fmt;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use rustix::fs::Mode;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::folder::Folder;
use super::idle::end_on_signal;
use super::stage::size;
use super::{say, sentence};
use crate::protocol::cache::{RESTORE_ENV, RestoreFault, RestoreReport, SAVE_ENV, SaveFault, SaveReport};

pub use self::restore::{Hashing, OTHER, restore, shared_folder};
pub use self::save::{Saving, save};

mod restore;
mod save;
#[cfg(test)]
mod tests;

/// The processor architecture of this program.
const ARCH: &str = std::env::consts::ARCH;

/// The temporary name of the marker at the root of a volume that is being restored.
const RESTORING: &str = ".aigise-restored.part";

/// How many bytes are read or written at once.
const BUFFER: usize = 256 * 1024;

/// The longest message, in bytes: as JSON it takes at most twice as many, so that a report fits into a termination message.
const MAX_MESSAGE: usize = 1000;

/// The verb `save`: reads its work from the environment, and writes the report to a file.
pub fn run_save(report_to: &Path) -> ExitCode {
    let report = match work(SAVE_ENV) {
        Ok(work) => save(&work),
        Err(message) => SaveReport::Failed { reason: SaveFault::Failed, message },
    };
    let mut message = None;
    match &report {
        SaveReport::Saved { volumes, left_out, .. } => {
            for (name, part) in volumes {
                print(format_args!("{name}: {}, packed to {}", size(part.unpacked), size(part.packed)));
            }
            for label in left_out {
                print(format_args!("the root file system of {label} is not what its sandbox has packed"));
            }
        }
        SaveReport::Failed { message: failure, .. } => message = Some(&**failure),
    }
    end(report_to, &report, message)
}

/// The verb `restore`: reads its work from the environment, and writes the report to a file.
pub fn run_restore(report_to: &Path) -> ExitCode {
    let report = match work(RESTORE_ENV) {
        Ok(work) => restore(&work),
        Err(message) => RestoreReport::Failed { fault: RestoreFault::RestoreFailed, part: None, message, wrote: false },
    };
    let mut message = None;
    match &report {
        RestoreReport::Restored { volumes, left_out } => {
            for (name, bytes) in volumes {
                print(format_args!("{name}: {} restored", size(*bytes)));
            }
            for label in left_out {
                print(format_args!("the root file system of {label} is damaged"));
            }
        }
        RestoreReport::Failed { message: failure, .. } => message = Some(&**failure),
    }
    end(report_to, &report, message)
}

/// Prepares the process, and reads its work.
fn work<W: DeserializeOwned>(variable: &str) -> Result<W, String> {
    // All modes are set explicitly; the umask only keeps the created files readable for this process.
    rustix::process::umask(Mode::from_raw_mode(0o022));
    end_on_signal().map_err(|error| format!("the signals that end this program cannot be handled: {error}"))?;
    let text = std::env::var_os(variable).ok_or_else(|| format!("the Pod was started without {variable}"))?;
    serde_json::from_slice(text.as_encoded_bytes())
        .map_err(|error| printable(&format!("{variable} is not valid: {error}")))
}

/// Writes the report; `message` is that of a failure.
fn end(report_to: &Path, report: &impl Serialize, message: Option<&str>) -> ExitCode {
    if let Some(message) = message {
        say(&format!("sandboxd: {message}"));
    }
    let text = serde_json::to_string(report).unwrap_or_default();
    if let Err(error) = std::fs::write(report_to, text) {
        say(&format!("sandboxd: the report could not be written to {}: {error}", report_to.display()));
    }
    if message.is_none() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Prints a line for the user; a failed write is ignored.
fn print(line: fmt::Arguments<'_>) {
    let _ = writeln!(io::stdout(), "{line}");
}

/// Opens what is mounted at a path.
fn open(what: &str, path: &str) -> Result<Folder, String> {
    Folder::open(Path::new(path)).map_err(|blocked| format!("{what} is not mounted: {}", sentence(&blocked)))
}

/// A sentence of any length, with the names of anybody, as a message.
pub fn printable(text: &str) -> String {
    let mut message = String::new();
    for letter in text.escape_debug() {
        if message.len() + letter.len_utf8() > MAX_MESSAGE {
            message.push('…');
            break;
        }
        message.push(letter);
    }
    message
}
