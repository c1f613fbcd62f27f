//! Unpacks an entry into volumes.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fmt::Write as _;
use std::fs::{File, Permissions};
use std::io::{self, ErrorKind, Read, Seek, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use rustix::fs::Mode;
use sha2::{Digest, Sha256};

use super::save::of_archive;
use super::{ARCH, BUFFER, RESTORING, open, printable};
use crate::protocol::cache::{
    DATA, FOLDER, FORMAT, PackedRoot, Part, RESTORED, RestoreFault, RestoreReport, RestoreWork, RestoredVolume, Root,
    root_file, root_part,
};
use crate::protocol::staging::Access;
use crate::sandboxd::folder::{Folder, Space};
use crate::sandboxd::layer::{self, Error, Owners, Target};
use crate::sandboxd::sentence;
use crate::sandboxd::stage::size;

/// Restores the volumes that do not carry the digest of the work yet. After a failure or a crash, a second run of the same work
/// continues.
pub fn restore(work: &RestoreWork) -> RestoreReport {
    let mut wrote = false;
    match run(work, &mut wrote) {
        Ok(left_out) => RestoreReport::Restored {
            volumes: work.volumes.iter().map(|volume| (volume.name.clone(), volume.part.unpacked)).collect(),
            left_out,
        },
        Err(Failure { fault, part, message }) => {
            RestoreReport::Failed { fault, part, message: printable(&message), wrote }
        }
    }
}

struct Failure {
    fault: RestoreFault,
    part: Option<String>,
    message: String,
}

/// `wrote` becomes true before this run writes, and if an earlier one did.
fn run(work: &RestoreWork, wrote: &mut bool) -> Result<BTreeSet<String>, Failure> {
    let failed = |fault, message| Failure { fault, part: None, message };
    if work.format != FORMAT {
        let message = format!("the cache entry has the format {}, and this version reads {FORMAT}", work.format);
        return Err(failed(RestoreFault::FormatUnknown, message));
    }
    if work.arch != ARCH {
        let message = format!("the cache entry was saved on {}, and this node is {ARCH}", work.arch);
        return Err(failed(RestoreFault::ArchDiffers, message));
    }
    let entry = open("the cache entry", &work.entry).map_err(|message| failed(RestoreFault::RestoreFailed, message))?;
    let mut restorings = vec![];
    for volume in &work.volumes {
        let root = open(&format!("the volume {}", volume.name), &volume.mount_path)
            .map_err(|message| failed(RestoreFault::RestoreFailed, message))?;
        let is_restored = holds(&root, RESTORED, &work.digest);
        *wrote |= is_restored || holds(&root, RESTORING, &work.digest);
        if !is_restored {
            restorings.push(Restoring { volume, root });
        }
    }
    let parts: Vec<_> = restorings
        .iter()
        .map(|restoring| check(&entry, &restoring.volume.name, &restoring.volume.part))
        .collect::<Result<_, _>>()?;
    let (mut roots, mut left_out) = (vec![], BTreeSet::new());
    for packed in &work.roots {
        match check(&entry, &packed.label, &part_of(packed)) {
            Ok(file) => roots.push((packed, file)),
            Err(Failure { fault: RestoreFault::Corrupt, .. }) if work.partial => {
                _ = left_out.insert(packed.label.clone());
            }
            Err(failure) => return Err(failure),
        }
    }
    // What an earlier run has written is replaced and needs no further space.
    if !*wrote {
        check_space(&restorings, roots.iter().map(|(packed, _)| packed.root.packed).fold(0, u64::saturating_add))?;
    }
    for (restoring, part) in restorings.iter().zip(parts) {
        *wrote = true;
        restoring.fill(part, &work.digest)?;
    }
    if let Some(volume) = work.volumes.iter().find(|volume| volume.name == DATA).filter(|_| !roots.is_empty()) {
        *wrote = true;
        put(roots, volume)?;
    }
    Ok(left_out)
}

/// The part of an entry with a root file system.
fn part_of(packed: &PackedRoot) -> Part {
    let Root { sha256, packed: size, unpacked, .. } = packed.root.clone();
    Part { file: root_part(&packed.label), sha256, packed: size, unpacked }
}

/// Puts root file systems on the volume, where their sandboxes find them. They compare what they unpack themselves.
fn put(roots: Vec<(&PackedRoot, File)>, volume: &RestoredVolume) -> Result<(), Failure> {
    let failed = |what: &str, error: &dyn std::fmt::Display| Failure {
        fault: RestoreFault::RestoreFailed,
        part: None,
        message: format!("{what} could not be put on the volume {}: {error}", volume.name),
    };
    let data = open("the volume data", &volume.mount_path).map_err(|message| failed("root file systems", &message))?;
    let folder = shared_folder(&data).map_err(|error| failed("root file systems", &error))?;
    for (packed, mut file) in roots {
        let written = layer::save(&folder, OsStr::new(&root_file(&packed.label)), |out| {
            out.set_permissions(Permissions::from_mode(0o644))
                .and_then(|()| io::copy(&mut file, out))
                .map_err(of_archive)
        });
        written.map_err(|error| match error {
            Error::NoSpace { .. } => {
                Failure { fault: RestoreFault::NoSpace, ..failed(&packed.label, &"no space is left") }
            }
            error => failed(&packed.label, &sentence(&error)),
        })?;
    }
    Ok(())
}

/// The folder of the volume through which sandboxes, each with a user of its own, pass what they save.
///
/// # Errors
/// When it cannot be created.
pub fn shared_folder(data: &Folder) -> io::Result<Folder> {
    data.make(OsStr::new(FOLDER), Mode::from_raw_mode(0o777))?;
    let folder = data.descend(Path::new(FOLDER)).map_err(|blocked| io::Error::other(sentence(&blocked)))?;
    let _ = folder.allow(Mode::from_raw_mode(0o777)); // it may belong to another user
    Ok(folder)
}

/// Whether a marker has this digest.
fn holds(root: &Folder, marker: &str, digest: &str) -> bool {
    let mut content = String::new();
    let read = root.read(OsStr::new(marker)).and_then(|file| file.take(4096).read_to_string(&mut content));
    read.is_ok() && content.lines().next() == Some(digest)
}

/// A volume that is being restored.
struct Restoring<'w> {
    volume: &'w RestoredVolume,
    root: Folder,
}

impl Restoring<'_> {
    fn failure(&self, fault: RestoreFault, message: String) -> Failure {
        Failure { fault, part: Some(self.volume.name.clone()), message }
    }

    /// Unpacks the part, and marks the volume.
    fn fill(&self, part: File, digest: &str) -> Result<(), Failure> {
        let RestoredVolume { name, part: Part { file, sha256, unpacked, .. }, .. } = self.volume;
        let failed = |error| {
            let message = format!("the volume {name} could not be written: {error}");
            self.failure(RestoreFault::RestoreFailed, message)
        };
        let available = self.root.space().map_err(failed)?.available;
        self.begin(digest).map_err(failed)?;
        let mut hashing = Hashing::new(part);
        let targets = [Target { prefix: Path::new(""), folder: &self.root }];
        let unpacking = layer::unpack(&mut hashing, &targets, Owners::Mine(Access::Write), *unpacked);
        unpacking.map_err(|error| {
            let fault = match error {
                Error::NoSpace { .. } => RestoreFault::NoSpace,
                Error::Corrupt { .. } => RestoreFault::Corrupt,
                Error::TooLarge { .. } => RestoreFault::TooLarge,
                _ => RestoreFault::RestoreFailed,
            };
            let mut message = format!("the volume {name} could not be restored: {}", sentence(&error));
            if fault == RestoreFault::NoSpace {
                let _ = write!(message, ": {} are needed, and {} were available", size(*unpacked), size(available));
            }
            self.failure(fault, message)
        })?;
        if hashing.finish().map_err(failed)? != *sha256 {
            return Err(self.failure(RestoreFault::Corrupt, format!("{file} of the cache entry {OTHER}")));
        }
        self.root.rename(OsStr::new(RESTORING), &self.root, OsStr::new(RESTORED)).map_err(failed)
    }

    /// Records that the volume is being filled, and opens its root to sandboxes, as staging does.
    fn begin(&self, digest: &str) -> io::Result<()> {
        let name = OsStr::new(RESTORING);
        if !holds(&self.root, RESTORING, digest) {
            self.root.remove(name)?;
            writeln!(self.root.create(name, Mode::from_raw_mode(0o644))?, "{digest}")?;
        }
        self.root.allow(Mode::from_raw_mode(0o777))?;
        if self.volume.name == DATA {
            self.root.share();
        }
        Ok(())
    }
}

/// Reads a part as a whole, and compares it.
fn check(entry: &Folder, part: &str, Part { file: name, sha256, packed, .. }: &Part) -> Result<File, Failure> {
    let failure = |fault, message| Failure { fault, part: Some(part.to_owned()), message };
    let corrupt = |what| failure(RestoreFault::Corrupt, format!("{name} of the cache entry {what}"));
    let failed = |error: io::Error| match error.kind() {
        ErrorKind::NotFound => corrupt("is missing".into()),
        _ => failure(RestoreFault::RestoreFailed, format!("{name} of the cache entry could not be read: {error}")),
    };
    if name.contains('/') {
        return Err(corrupt("is not in its root folder".into()));
    }
    let mut file = entry.read(OsStr::new(name)).map_err(failed)?;
    let length = file.metadata().map_err(failed)?.len();
    if length != *packed {
        return Err(corrupt(format!("has {length} bytes, and had {packed} when it was saved")));
    }
    if Hashing::new(&mut file).finish().map_err(failed)? != *sha256 {
        return Err(corrupt(OTHER.into()));
    }
    file.rewind().map_err(failed)?;
    Ok(file)
}

/// Says of a part that it was changed.
pub const OTHER: &str = "is not what was saved";

/// Compares what the volumes need with what their file systems can hold. The root file systems, of so many bytes, are on the data volume.
fn check_space(restorings: &[Restoring<'_>], roots: u64) -> Result<(), Failure> {
    let mut needs: BTreeMap<u64, Need<'_>> = BTreeMap::new();
    for restoring @ Restoring { volume, root } in restorings {
        let space = root.space().map_err(|error| {
            restoring
                .failure(RestoreFault::RestoreFailed, format!("the volume {} could not be read: {error}", volume.name))
        })?;
        let need = needs.entry(space.device).or_insert(Need { volumes: vec![], bytes: 0, space });
        need.volumes.push(&volume.name);
        let roots = if volume.name == DATA { roots } else { 0 };
        need.bytes = need.bytes.saturating_add(volume.part.unpacked).saturating_add(roots);
    }
    match needs.values().find_map(Need::excess) {
        Some((message, part)) => Err(Failure { fault: RestoreFault::NoSpace, part, message }),
        None => Ok(()),
    }
}

/// What the volumes of one file system need.
struct Need<'w> {
    volumes: Vec<&'w str>,
    bytes: u64,
    space: Space,
}

impl Need<'_> {
    /// What to say if it is too much, and of which volume, if it is one.
    fn excess(&self) -> Option<(String, Option<String>)> {
        let usable = self.space.available.saturating_sub(self.space.total / 10);
        if self.bytes <= usable {
            return None;
        }
        let (names, needed, usable) = (self.volumes.join(" and "), size(self.bytes), size(usable));
        let message =
            format!("{needed} are needed for {names}, and {usable} are available: 10 % of the storage stay free");
        Some((message, if let [name] = *self.volumes { Some(name.to_owned()) } else { None }))
    }
}

/// A reader that hashes what passes.
pub struct Hashing<R> {
    input: R,
    hash: Sha256,
}

impl<R: Read> Hashing<R> {
    /// Begins.
    pub fn new(input: R) -> Self {
        Self { input, hash: Sha256::new() }
    }

    /// Reads to the end, and returns the hash of everything in hexadecimal digits.
    ///
    /// # Errors
    /// Those of the reader.
    pub fn finish(mut self) -> io::Result<String> {
        let mut buffer = vec![0; BUFFER];
        loop {
            match self.read(&mut buffer) {
                Ok(0) => break,
                Err(error) if error.kind() != ErrorKind::Interrupted => return Err(error),
                _ => {}
            }
        }
        Ok(layer::hex(self.hash.finalize()))
    }
}

impl<R: Read> Read for Hashing<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let length = self.input.read(buffer)?;
        self.hash.update(&buffer[..length]);
        Ok(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn need(volumes: &[&'static str], bytes: u64, total: u64, available: u64) -> Option<(String, Option<String>)> {
        Need { volumes: volumes.to_vec(), bytes, space: Space { device: 1, total, available } }.excess()
    }

    #[test]
    fn a_tenth_of_the_storage_stays_free() {
        assert_eq!(need(&["data"], 900, 1000, 1000), None);
        let message = "901 B are needed for data, and 900 B are available: 10 % of the storage stay free".to_owned();
        assert_eq!(need(&["data"], 901, 1000, 1000), Some((message, Some("data".to_owned()))));
        assert_eq!(need(&["data"], 0, 1000, 50), None);
        assert!(need(&["data"], 1, 1000, 100).is_some());
        let (message, part) = need(&["data", "tools"], u64::MAX, u64::MAX, 5_000).unwrap();
        assert!(message.contains("data and tools, and 0 B"), "{message}");
        assert_eq!(part, None);
    }
}
