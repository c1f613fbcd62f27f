//! Packs volumes into an entry.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs::{File, Permissions};
use std::io::{self, BufWriter, ErrorKind, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::restore::Hashing;
use super::{ARCH, BUFFER, RESTORING, open, printable};
use crate::protocol::cache::{
    DATA, FOLDER, MANIFEST, PackedRoot, Part, RESTORED, SaveFault, SaveReport, SaveWork, SavedVolume, root_file,
    root_part,
};
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

/// Why something could not be saved, and a sentence for the user.
pub type Failure = (SaveFault, String);

fn run(work: &SaveWork) -> Result<SaveReport, Failure> {
    let failed = |message| (SaveFault::Failed, message);
    let entry = open("the cache entry", &work.entry).map_err(failed)?;
    clear(&entry, work).map_err(|error| failed(format!("the cache entry could not be written: {error}")))?;
    let mut saving = Saving::into(entry, "the cache entry", Duration::from_secs(work.timeout))?;
    let mut volumes = BTreeMap::new();
    for volume in &work.volumes {
        volumes.insert(volume.name.clone(), saving.volume(volume)?);
    }
    let mut left_out = BTreeSet::new();
    for packed in &work.roots {
        if !saving.root(packed, work)? {
            left_out.insert(packed.label.clone());
        }
    }
    let report = SaveReport::Saved { arch: ARCH.to_owned(), volumes, left_out };
    let text = serde_json::to_vec(&report).unwrap_or_default();
    saving.file(MANIFEST, "the manifest", |out| out.write_all(&text).map_err(of_archive))?;
    Ok(report)
}

/// Removes what an earlier run has left: the manifest first, so that there is none without its parts.
fn clear(entry: &Folder, work: &SaveWork) -> io::Result<()> {
    let parts = work.volumes.iter().map(|volume| file_of(&volume.name));
    let parts = parts.chain(work.roots.iter().map(|packed| root_part(&packed.label)));
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

/// A folder into which archives are written.
pub struct Saving {
    folder: Folder,
    /// What the user knows it as.
    place: &'static str,
    /// How many bytes were available in it at first.
    free: u64,
    timeout: Duration,
    meter: Meter,
}

impl Saving {
    /// Begins to write into a folder.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn into(folder: Folder, place: &'static str, timeout: Duration) -> Result<Self, Failure> {
        let failed = |error| (SaveFault::Failed, format!("{place} could not be read: {error}"));
        let free = folder.space().map_err(failed)?.available;
        let meter = Meter { deadline: Instant::now().checked_add(timeout), limit: u64::MAX, written: 0, refused: 0 };
        Ok(Self { folder, place, free, timeout, meter })
    }

    /// Leaves a tenth of the storage to others.
    ///
    /// # Errors
    /// When the folder cannot be read.
    pub fn leaving_a_tenth(mut self) -> Result<Self, Failure> {
        let failed = |error| (SaveFault::Failed, format!("{} could not be read: {error}", self.place));
        let space = self.folder.space().map_err(failed)?;
        self.free = space.available.saturating_sub(space.total / 10);
        self.meter.limit = self.free;
        Ok(self)
    }

    /// Copies what a sandbox has packed. Returns whether it is that: other sandboxes can write to the volume.
    fn root(&mut self, packed: &PackedRoot, work: &SaveWork) -> Result<bool, Failure> {
        let what = format!("the root file system of {}", packed.label);
        let Some(volume) = work.volumes.iter().find(|volume| volume.name == DATA) else { return Ok(false) };
        let found = open("the volume data", &volume.mount_path).and_then(|data| {
            let folder = data.descend(Path::new(FOLDER)).map_err(|blocked| sentence(&blocked))?;
            folder.read(OsStr::new(&root_file(&packed.label))).map_err(|error| error.to_string())
        });
        let Ok(file) = found else { return Ok(false) };
        let name = root_part(&packed.label);
        let mut hashing = Hashing::new(file.take(packed.root.packed + 1));
        let copied = self.file(&name, &what, |out| io::copy(&mut hashing, out).map_err(of_archive))?;
        let is_it = copied == packed.root.packed && hashing.finish().is_ok_and(|hash| hash == packed.root.sha256);
        if !is_it {
            let failed = |error| (SaveFault::Failed, format!("{} could not be written: {error}", self.place));
            self.folder.remove(OsStr::new(&name)).map_err(failed)?;
        }
        Ok(is_it)
    }

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

    /// Writes a file. `what` is the source of its content.
    ///
    /// # Errors
    /// Those of the work, in words.
    pub fn file<T>(
        &mut self,
        name: &str,
        what: &str,
        work: impl FnOnce(&mut BufWriter<Metered<'_>>) -> Result<T, Error>,
    ) -> Result<T, Failure> {
        let mut is_created = false;
        let written = layer::save(&self.folder, OsStr::new(name), |file| {
            is_created = true;
            // The Pod that reads it may have another user.
            file.set_permissions(Permissions::from_mode(0o644)).map_err(of_archive)?;
            let mut out = BufWriter::with_capacity(BUFFER, Metered { file, meter: &mut self.meter });
            let done = work(&mut out)?;
            out.flush().map_err(of_archive)?;
            Ok(done)
        });
        written.map_err(|error| self.failure(&error, what, is_created))
    }

    /// An error for the user. Once the file is created, only something of the source can be closed to this process.
    fn failure(&self, error: &Error, what: &str, is_created: bool) -> Failure {
        let (reason, message) = match error {
            Error::NoSpace { .. } => {
                let (needed, free) = (size(self.meter.written + self.meter.refused), size(self.free));
                let message =
                    format!("{} is full: at least {needed} are needed, and {free} were available", self.place);
                (SaveFault::NoSpace, message)
            }
            Error::Io { error, .. } if error.kind() == ErrorKind::TimedOut && error.raw_os_error().is_none() => {
                (SaveFault::Timeout, format!("{what} could not be saved within {} s", self.timeout.as_secs()))
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
                    Error::Secret { .. } => SaveFault::SecretFound,
                    _ => SaveFault::Failed,
                };
                (reason, format!("{what} could not be saved: {}", sentence(error)))
            }
        };
        (reason, message)
    }
}

/// The archive could not be written.
pub fn of_archive(error: io::Error) -> Error {
    let path = PathBuf::new();
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => Error::NoSpace { path },
        _ => Error::Io { path, error },
    }
}

/// Counts what is written, in bytes, and gives up when it takes too long.
struct Meter {
    deadline: Option<Instant>,
    /// The most bytes that may be written.
    limit: u64,
    written: u64,
    /// What did not fit at last.
    refused: u64,
}

/// A file that is being written.
pub struct Metered<'f> {
    file: &'f mut File,
    meter: &'f mut Meter,
}

impl Write for Metered<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.meter.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Err(ErrorKind::TimedOut.into());
        }
        let fits = self.meter.written.saturating_add(bytes.len() as u64) <= self.meter.limit;
        let written = if fits { self.file.write(bytes) } else { Err(ErrorKind::StorageFull.into()) };
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
