//! `sandboxd stage`: fills the volumes of a session from its sources, in a Pod that runs once before the first sandbox.
//!
//! ```text
//! marker has the digest ──────────────────────────────────► nothing to do
//!          │ no
//!          ▼
//!   try_out: one empty file      ──► Failed      the storage refuses it: fsGroup is ignored, or modes are fixed
//!          │                                     (in all volumes, before a source is read)
//!          ▼
//!   survey: read every source    ──► Failed      missing, unreadable, conflicting
//!          │                                     (of all volumes, before anything is copied)
//!          │
//!          ▼
//!   fill: add what is missing    ──► Failed      no space left; a link in the way
//!          │                                     (files that differ in the volume are kept and counted)
//!          ▼
//!   mark: the digest, last
//! ```
//!
//! It runs as an unprivileged user without capabilities, on volumes whose root may belong to another user.
//!
//! A symbolic link is content like that of a file: it is copied with its target as it is, and nothing here follows one. Decided in
//! docs/adr/0018-links-are-data.md.

use std::collections::BTreeMap;
use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;

use rustix::fs::Mode;

use self::fill::Target;
use crate::protocol::staging::{MANIFEST_ENV, Manifest, Source, Staged, StagingReport, Volume};

pub use self::error::Error;
pub use self::report::size;

mod error;
mod fill;
mod report;
mod survey;
#[cfg(test)]
mod tests;

/// The temporary name, at a volume's root, of the file that is being written.
const PART: &str = ".aigise-staged.part";

/// The volume whose first-level folders and skills are reported.
const TOOLS: &str = "tools";

/// The volume that sandboxes use for each other's files.
pub const DATA: &str = "data";

/// A step that is about to happen or has happened. The watcher may end the run at any step, as a crash would.
#[derive(Clone, Copy, Debug)]
pub enum Step<'a> {
    /// Something will change at this path below the volume's root.
    Change(&'a Path),
    /// A different file is there already, and is kept.
    Keep {
        /// The volume.
        volume: &'a Volume,
        /// The source that brings a different file.
        source: &'a Source,
        /// The path.
        path: &'a Path,
    },
    /// A source is staged.
    Done {
        /// The volume.
        volume: &'a Volume,
        /// The source.
        source: &'a Source,
        /// What happened to the files of the source.
        tally: Tally,
    },
    /// The marker already has the digest of these sources.
    Unchanged {
        /// The volume.
        volume: &'a Volume,
    },
}

/// What happened to the files of a source. Symbolic links count as files.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Files that this run wrote.
    pub written: i64,
    /// The size of the written files.
    pub bytes: u64,
    /// Files that were there already.
    pub same: i64,
    /// Files that were there with other content, and were kept.
    pub kept: i64,
}

/// A function that is called with every step.
pub type Watch<'w> = dyn FnMut(Step<'_>) -> io::Result<()> + 'w;

/// Fills the volumes that do not carry the manifest's digest yet, and returns what each one holds, by its name.
///
/// # Errors
/// When a source is not valid, or a volume cannot be written. Every file that was written until then is complete, and a second run
/// continues from there.
pub fn stage<'m>(manifest: &'m Manifest, watch: &mut Watch<'_>) -> Result<BTreeMap<String, Staged>, Error> {
    let mut targets = Vec::new();
    for volume in &manifest.volumes {
        let target = Target::open(volume)?;
        let is_filled = target.is_marked(&manifest.digest);
        if !is_filled {
            target.try_out(watch)?;
        }
        targets.push((volume, target, is_filled));
    }
    let survey = |(volume, target, is_filled): (&'m Volume, Target<'m>, bool)| {
        let gathered = if is_filled || volume.restored.is_some() { None } else { Some(survey::survey(volume)?) };
        Ok((volume, target, gathered, is_filled))
    };
    let work: Vec<_> = targets.into_iter().map(survey).collect::<Result<_, Error>>()?;
    let mut volumes = BTreeMap::new();
    for (volume, target, gathered, is_filled) in work {
        let mut staged = Staged::default();
        if let Some(gathered) = gathered {
            staged = target.fill(&gathered, watch)?;
            target.mark(&manifest.digest, watch)?;
        } else if is_filled {
            target.noting(Path::new("."), || watch(Step::Unchanged { volume }))?;
        } else {
            target.mark(&manifest.digest, watch)?;
        }
        if volume.name == TOOLS {
            staged.roots = target.roots();
            staged.skills = target.skills();
        }
        volumes.insert(volume.name.clone(), staged);
    }
    Ok(volumes)
}

/// The verb: reads the manifest from the environment, prints its progress on stdout, and writes the report to a file.
pub fn run(report_to: &Path) -> ExitCode {
    // All modes are set explicitly; the umask only keeps the created files readable for this process.
    rustix::process::umask(Mode::from_raw_mode(0o022));
    let outcome = super::idle::end_on_signal().map_err(Error::Signals).and_then(|()| manifest()).and_then(|manifest| {
        stage(&manifest, &mut |step| {
            report(step);
            Ok(())
        })
    });
    let (report, exit_code) = match outcome {
        Ok(volumes) => (StagingReport::Staged { volumes }, ExitCode::SUCCESS),
        Err(error) => {
            (StagingReport::Failed { message: super::sentence(&error), fault: error.fault() }, ExitCode::FAILURE)
        }
    };
    if let StagingReport::Failed { message, .. } = &report {
        super::say(&format!("sandboxd: {message}"));
    }
    if let Err(error) = std::fs::write(report_to, report::text(report)) {
        super::say(&format!("sandboxd: the report could not be written to {}: {error}", report_to.display()));
    }
    exit_code
}

fn manifest() -> Result<Manifest, Error> {
    let text = std::env::var_os(MANIFEST_ENV).ok_or(Error::NoManifest)?;
    serde_json::from_slice(text.as_encoded_bytes()).map_err(Error::BadManifest)
}

/// Prints a step for the user; a failed write is ignored.
fn report(step: Step<'_>) {
    let _ = match step {
        Step::Keep { volume, source, path } => {
            let path = path.display();
            writeln!(io::stdout(), "{}: {path} was kept, {} has different content", volume.name, source.description)
        }
        Step::Done { volume, source, tally } => writeln!(io::stdout(), "{}", report::line(volume, source, tally)),
        Step::Unchanged { volume } => writeln!(io::stdout(), "{}: already staged", volume.name),
        Step::Change(_) => Ok(()),
    };
}
