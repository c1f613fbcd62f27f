//! Packs volumes into an entry.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::{ARCH, BUFFER, RESTORING, open, printable};
use crate::protocol::cache::{FOLDER, MANIFEST, Part, RESTORED, SaveFault, SaveReport, SaveWork, SavedVolume};
use crate::sandboxd::folder::{Folder, LOST_AND_FOUND};
use crate::sandboxd::layer::{self, Error, Packer, Tree};
use crate::sandboxd::sentence;
use crate::sandboxd::stage::size;

/// What a volume may have at its root, and no part has.
const LEFT_OUT: [&str; 4] = [FOLDER, RESTORED, RESTORING, LOST_AND_FOUND];

/// Packs the volumes, each as a whole, and returns what the entry holds. What an earlier run has left in the entry is replaced.
pub fn save(work: &SaveWork) -> SaveReport {
    run(work).unwrap_or_else(|(reason, message)| SaveReport::Failed { reason, message: printable(&message) })
}

type Failure = (SaveFault, String);

fn run(work: &SaveWork) -> Result<SaveReport, Failure> {
    let failed = |message| (SaveFault::Failed, message);
    let entry = open("the cache entry", &work.entry).map_err(failed)?;
    clear(&entry, work).map_err(|error| failed(format!("the cache entry could not be written: {error}")))?;
    let free = entry.space().map_err(|error| failed(format!("the cache entry could not be read: {error}")))?.available;
    let mut saving = Saving {
        entry,
        free,
        timeout: work.timeout,
        meter: Meter {
            deadline: Instant::now().checked_add(Duration::from_secs(work.timeout)),
            written: 0,
            refused: 0,
        },
    };
    let mut volumes = BTreeMap::new();
    for volume in &work.volumes {
        volumes.insert(volume.name.clone(), saving.volume(volume)?);
    }
    let report = SaveReport::Saved { arch: ARCH.to_owned(), volumes };
    let text = serde_json::to_vec(&report).unwrap_or_default();
    saving.file(MANIFEST, "the manifest", |out| out.write_all(&text).map_err(of_entry))?;
    Ok(report)
}

/// Removes what an earlier run has left: the manifest first, so that there is none without its parts.
fn clear(entry: &Folder, work: &SaveWork) -> io::Result<()> {
    let parts = work.volumes.iter().map(|volume| file_of(&volume.name));
    for name in [MANIFEST.to_owned()].into_iter().chain(parts) {
        entry.remove(OsStr::new(&name))?;
        entry.remove(OsStr::new(&format!("{name}.part")))?;
    }
    Ok(())
}

/// The name of a volume's part.
fn file_of(volume: &str) -> String {
    format!("{volume}.tar.zst")
}

/// An entry that is being written.
struct Saving {
    entry: Folder,
    /// How many bytes were available in it at first.
    free: u64,
    /// In seconds.
    timeout: u64,
    meter: Meter,
}

impl Saving {
    fn volume(&mut self, volume: &SavedVolume) -> Result<Part, Failure> {
        let what = format!("the volume {}", volume.name);
        let root = open(&what, &volume.mount_path).map_err(|message| (SaveFault::Failed, message))?;
        let given = volume.exclude.iter().map(|path| Path::new(path).components().collect());
        let exclude: Vec<PathBuf> = LEFT_OUT.iter().map(PathBuf::from).chain(given).collect();
        let tree = Tree { root: &root, prefix: Path::new(""), since: None, exclude: &exclude };
        let file = file_of(&volume.name);
        let packed = self.file(&file, &what, |out| {
            let mut packer = Packer::new(out)?;
            packer.add(&tree)?;
            Ok(packer.finish()?.1)
        })?;
        Ok(Part { file, sha256: packed.sha256, packed: packed.bytes, unpacked: packed.unpacked })
    }

    /// Writes a file of the entry. `what` is the source of its content.
    fn file<T>(
        &mut self,
        name: &str,
        what: &str,
        work: impl FnOnce(&mut BufWriter<Metered<'_>>) -> Result<T, Error>,
    ) -> Result<T, Failure> {
        let mut is_created = false;
        let written = layer::save(&self.entry, OsStr::new(name), |file| {
            is_created = true;
            let mut out = BufWriter::with_capacity(BUFFER, Metered { file, meter: &mut self.meter });
            let done = work(&mut out)?;
            out.flush().map_err(of_entry)?;
            Ok(done)
        });
        written.map_err(|error| self.failure(&error, what, is_created))
    }

    /// An error for the user. Once a file of the entry is created, only something of the source can be closed to this process.
    fn failure(&self, error: &Error, what: &str, is_created: bool) -> Failure {
        let (reason, message) = match error {
            Error::NoSpace { .. } => {
                let (needed, free) = (size(self.meter.written + self.meter.refused), size(self.free));
                let message =
                    format!("the cache entry is full: at least {needed} are needed, and {free} were available");
                (SaveFault::NoSpace, message)
            }
            Error::Io { error, .. } if error.kind() == ErrorKind::TimedOut && error.raw_os_error().is_none() => {
                (SaveFault::Timeout, format!("{what} could not be saved within {} s", self.timeout))
            }
            Error::Io { path, error } if is_created && error.kind() == ErrorKind::PermissionDenied => {
                let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
                let user = rustix::process::geteuid().as_raw();
                (SaveFault::Unreadable, format!("the user {user} could not read {} of {what}", path.display()))
            }
            error => {
                let reason = match error {
                    Error::Changed { .. } => SaveFault::Changed,
                    Error::Reserved { .. } => SaveFault::Reserved,
                    Error::TooLarge { .. } => SaveFault::TooLarge,
                    _ => SaveFault::Failed,
                };
                (reason, format!("{what} could not be saved: {}", sentence(error)))
            }
        };
        (reason, message)
    }
}

/// The entry could not be written.
fn of_entry(error: io::Error) -> Error {
    let path = PathBuf::new();
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Error::NoSpace { path },
        _ => Error::Io { path, error },
    }
}

/// Counts what is written to an entry, in bytes, and gives up when it takes too long.
struct Meter {
    deadline: Option<Instant>,
    written: u64,
    /// What did not fit at last.
    refused: u64,
}

/// A file of an entry.
struct Metered<'f> {
    file: &'f mut File,
    meter: &'f mut Meter,
}

impl Write for Metered<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.meter.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Err(ErrorKind::TimedOut.into());
        }
        let written = self.file.write(bytes);
        match written {
            Ok(length) => self.meter.written += length as u64,
            Err(_) => self.meter.refused = bytes.len() as u64,
        }
        written
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
