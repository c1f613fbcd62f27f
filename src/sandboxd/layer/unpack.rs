//! Unpacks a layer of anybody.
//!
//! Folders are opened by their path below the folder of their target, by one call that follows no link and crosses no mount; everything
//! else happens to a single name in such a folder. A file is made anew and not written over, so that nothing is written through a hard
//! link, and a program that runs keeps its file. A folder gets its attributes when the entries leave it: it may be read-only, and each
//! change in it changes its time.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{BufReader, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{
    AtFlags, Dir, FileType, Gid, Mode, OFlags, ResolveFlags, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags,
};
use rustix::io::Errno;
use zstd::stream::read::Decoder;

use super::entry::{Attributes, DEFAULT_ACL, Entry, Kind, Shape, Time, is_kept, list};
use super::read::Archive;
use super::walk::{device, kind, stat};
use super::{Error, bytes_of, is_within, split};
use crate::protocol::staging::Access;
use crate::sandboxd::folder::Folder;

/// The largest window that a layer may need, as a power of two: 8 MiB.
const MAX_WINDOW: u32 = 23;

/// Where a part of a layer goes.
#[derive(Clone, Copy)]
pub struct Target<'t> {
    /// The path in the layer, relative; the longest that fits an entry counts. Empty: whatever fits no other.
    pub prefix: &'t Path,
    /// The folder, the root of its file system.
    pub folder: &'t Folder,
}

/// Whom the files belong to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owners {
    /// Whom they belonged to. Modes and all extended attributes are those of the layer.
    Keep,
    /// The user of this process. Modes are those of staged files, ACLs of files and capabilities are left out, and the roots of the
    /// targets stay as they are.
    Mine(Access),
}

/// What was unpacked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unpacked {
    /// The entries, whiteouts among them.
    pub entries: u64,
    /// The content of files, without holes, in bytes.
    pub bytes: u64,
}

/// Unpacks a layer whose archive has at most `limit` bytes before compression. After an error, or if the process dies, the targets are
/// incomplete: a second run completes them.
///
/// # Errors
/// [`Error::Refused`], [`Error::TooLarge`], [`Error::Corrupt`] and [`Error::NoSpace`], or those of the system.
pub fn unpack(layer: impl Read, targets: &[Target<'_>], owners: Owners, limit: u64) -> Result<Unpacked, Error> {
    let mut decoder = Decoder::new(layer).map_err(Error::archive)?;
    decoder.window_log_max(MAX_WINDOW).map_err(Error::archive)?;
    unpack_tar(BufReader::with_capacity(64 * 1024, decoder), targets, owners, limit)
}

/// Unpacks an archive that is not compressed.
pub(super) fn unpack_tar(
    archive: impl Read,
    targets: &[Target<'_>],
    owners: Owners,
    limit: u64,
) -> Result<Unpacked, Error> {
    let mut archive = Archive::new(archive, limit);
    let mut run = Run { targets, owners, open: vec![], current: None, buffer: vec![0; 128 * 1024] };
    let mut unpacked = Unpacked::default();
    while let Some(entry) = archive.next()? {
        unpacked.entries += 1;
        if let Kind::File(shape) = &entry.kind {
            unpacked.bytes += shape.stored();
        }
        run.entry(&entry, &mut archive)?;
    }
    run.leave(None)?;
    Ok(unpacked)
}

struct Run<'r> {
    targets: &'r [Target<'r>],
    owners: Owners,
    /// The folders whose attributes are set when they are left; each contains the next.
    open: Vec<Open>,
    /// The folder that was used last.
    current: Option<(Vec<u8>, OwnedFd)>,
    buffer: Vec<u8>,
}

/// A folder that is being filled.
struct Open {
    path: Vec<u8>,
    after: After,
}

/// What a folder gets when it is left.
enum After {
    /// The attributes of its entry.
    Entry(Attributes),
    /// The mode and the time that it had: it has no entry.
    Before(Mode, Timespec),
}

impl Run<'_> {
    fn entry(&mut self, entry: &Entry, archive: &mut Archive<impl Read>) -> Result<(), Error> {
        let path = &*entry.path;
        let failed = |error| Error::io(path, error);
        match entry.kind {
            Kind::Folder => return self.folder(path, &entry.attributes),
            Kind::Opaque => return empty(self.enter(path)?).map_err(failed),
            _ => {}
        }
        if self.targets.iter().any(|target| is_within(bytes_of(target.prefix), path)) {
            return Err(Error::refused(path, "it contains another target"));
        }
        if let Kind::Link(target) = &entry.kind {
            return self.link(path, target);
        }
        let owners = self.owners;
        let (above, name) = split(path);
        let (name, mode) = (OsStr::from_bytes(name), Mode::RUSR | Mode::WUSR);
        let mut buffer = std::mem::take(&mut self.buffer);
        let folder = self.enter(above)?;
        remove(folder, name).map_err(failed)?;
        match &entry.kind {
            Kind::File(shape) => {
                let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let file = File::from(rustix::fs::openat(folder, name, flags, mode).map_err(failed)?);
                content(&file, shape, archive, &mut buffer, path)?;
                owners.apply(file.as_fd(), &entry.attributes, path)?;
            }
            Kind::Fifo => {
                rustix::fs::mkfifoat(folder, name, mode).map_err(failed)?;
                let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let fifo = rustix::fs::openat(folder, name, flags, Mode::empty()).map_err(failed)?;
                owners.apply(fifo.as_fd(), &entry.attributes, path)?;
            }
            Kind::Symlink(target) => {
                rustix::fs::symlinkat(OsStr::from_bytes(target), folder, name).map_err(failed)?;
                owners.apply_to_link(folder, name, &entry.attributes, path)?;
            }
            _ => {}
        }
        self.buffer = buffer;
        Ok(())
    }

    fn folder(&mut self, path: &[u8], attributes: &Attributes) -> Result<(), Error> {
        let is_root = self.targets.iter().any(|target| bytes_of(target.prefix) == path);
        if is_root && self.owners != Owners::Keep {
            return self.enter(path).map(|_| ());
        }
        if is_root {
            self.leave(Some(path))?;
        } else {
            let (above, name) = split(path);
            let (folder, name) = (self.enter(above)?, OsStr::from_bytes(name));
            let failed = |error| Error::io(path, error);
            match rustix::fs::mkdirat(folder, name, Mode::RWXU) {
                Err(Errno::EXIST) => {
                    let there = stat(folder, name).map_err(failed)?;
                    if kind(&there) != FileType::Directory {
                        remove(folder, name)
                            .and_then(|()| rustix::fs::mkdirat(folder, name, Mode::RWXU))
                            .map_err(failed)?;
                    }
                }
                made => made.map_err(failed)?,
            }
        }
        let folder = self.existing(path)?;
        widen(folder.as_fd());
        self.current = Some((path.to_vec(), folder));
        self.open.push(Open { path: path.to_vec(), after: After::Entry(attributes.clone()) });
        Ok(())
    }

    fn link(&mut self, path: &[u8], target: &[u8]) -> Result<(), Error> {
        if is_within(target, path) {
            return Err(Error::refused(path, "it links to itself"));
        }
        let (from, old) = split(target);
        let from = self.existing(from).map_err(|_| Error::refused(path, NO_TARGET))?;
        let (above, name) = split(path);
        let (folder, name) = (self.enter(above)?, OsStr::from_bytes(name));
        let failed = |error| Error::io(path, error);
        remove(folder, name).map_err(failed)?;
        match rustix::fs::linkat(from, OsStr::from_bytes(old), folder, name, AtFlags::empty()) {
            Err(Errno::NOENT | Errno::PERM | Errno::XDEV | Errno::NOTDIR) => Err(Error::refused(path, NO_TARGET)),
            linked => linked.map_err(failed),
        }
    }

    /// Opens a folder to change something in it, and creates it where it is missing.
    fn enter(&mut self, path: &[u8]) -> Result<BorrowedFd<'_>, Error> {
        self.leave(Some(path))?;
        if self.open.last().is_none_or(|open| open.path != path) {
            let failed = |error| Error::io(path, error);
            let is_absent = matches!(self.open_folder(path)?, Err(Errno::NOENT));
            if is_absent && !path.is_empty() {
                let (above, name) = split(path);
                let mode = self.owners.mode(0o755, true);
                match rustix::fs::mkdirat(self.enter(above)?, OsStr::from_bytes(name), mode) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(error) => return Err(failed(error)),
                }
            }
            let folder = self.existing(path)?;
            let before = stat(folder.as_fd(), OsStr::new("")).map_err(failed)?;
            widen(folder.as_fd());
            let modified = Timespec { tv_sec: before.stx_mtime.tv_sec, tv_nsec: before.stx_mtime.tv_nsec.into() };
            self.current = Some((path.to_vec(), folder));
            let after = After::Before(Mode::from_raw_mode(before.stx_mode.into()), modified);
            self.open.push(Open { path: path.to_vec(), after });
        }
        self.here(path)
    }

    /// The folder of this path, opened if it is not the last one.
    fn here(&mut self, path: &[u8]) -> Result<BorrowedFd<'_>, Error> {
        let current = match self.current.take() {
            Some(current) if current.0 == path => current,
            _ => (path.to_vec(), self.existing(path)?),
        };
        Ok(self.current.insert(current).1.as_fd())
    }

    /// Sets the attributes of the folders that do not contain this path; `None`: of all.
    fn leave(&mut self, path: Option<&[u8]>) -> Result<(), Error> {
        while let Some(open) = self.open.pop_if(|open| !path.is_some_and(|path| is_within(path, &open.path))) {
            let owners = self.owners;
            let folder = self.here(&open.path)?;
            match open.after {
                After::Entry(attributes) => owners.apply(folder, &attributes, &open.path)?,
                After::Before(mode, modified) => {
                    // A folder of another user keeps its mode, and cannot get its time back.
                    let _ = rustix::fs::fchmod(folder, mode);
                    let _ = rustix::fs::futimens(folder, &times(modified));
                }
            }
        }
        Ok(())
    }

    /// Opens a folder that has to exist.
    fn existing(&self, path: &[u8]) -> Result<OwnedFd, Error> {
        self.open_folder(path)?.map_err(|error| match error {
            Errno::LOOP | Errno::NOTDIR => Error::refused(path, "something else is where a folder has to be"),
            Errno::XDEV => Error::refused(path, "another file system is mounted there"),
            error => Error::io(path, error),
        })
    }

    fn open_folder(&self, path: &[u8]) -> Result<Result<OwnedFd, Errno>, Error> {
        let fitting = self.targets.iter().filter(|target| is_within(path, bytes_of(target.prefix)));
        let target = fitting.max_by_key(|target| bytes_of(target.prefix).len());
        let target = target.ok_or_else(|| Error::refused(path, "it belongs to no target"))?;
        let below = &path[bytes_of(target.prefix).len()..];
        let below = below.strip_prefix(b"/").unwrap_or(below);
        Ok(open_beneath(target.folder.as_fd(), OsStr::from_bytes(below)))
    }
}

const NO_TARGET: &str = "what it links to does not exist, or cannot have another name";

/// Opens a folder below another one, through no link and into no mount.
pub(super) fn open_beneath(folder: BorrowedFd<'_>, path: &OsStr) -> Result<OwnedFd, Errno> {
    let path = if path.is_empty() { OsStr::new(".") } else { path };
    let resolve =
        ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS | ResolveFlags::NO_XDEV;
    match rustix::fs::openat2(folder, path, LIST, Mode::empty(), resolve) {
        // An old kernel, or a profile that does not know the call.
        Err(Errno::NOSYS | Errno::PERM) => open_by_name(folder, path),
        opened => opened,
    }
}

/// The same, one name at a time.
pub(super) fn open_by_name(folder: BorrowedFd<'_>, path: &OsStr) -> Result<OwnedFd, Errno> {
    let mut folder = rustix::fs::openat(folder, ".", LIST, Mode::empty())?;
    let root = device(&stat(folder.as_fd(), OsStr::new(""))?);
    for name in path.as_bytes().split(|&byte| byte == b'/') {
        if name == b".." {
            return Err(Errno::XDEV);
        }
        folder = rustix::fs::openat(&folder, OsStr::from_bytes(name), LIST, Mode::empty())?;
        if device(&stat(folder.as_fd(), OsStr::new(""))?) != root {
            return Err(Errno::XDEV);
        }
    }
    Ok(folder)
}

const LIST: OFlags = OFlags::RDONLY.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// Removes whatever has this name, and everything below it. Nothing may have it.
fn remove(folder: BorrowedFd<'_>, name: &OsStr) -> Result<(), Errno> {
    match rustix::fs::unlinkat(folder, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => return Ok(()),
        Err(Errno::ISDIR) => {}
        Err(error) => return Err(error),
    }
    empty(open_beneath(folder, name)?.as_fd())?;
    rustix::fs::unlinkat(folder, name, AtFlags::REMOVEDIR)
}

/// Removes everything in a folder. It may be of any depth for which this process may have files open.
fn empty(folder: BorrowedFd<'_>) -> Result<(), Errno> {
    let mut open: Vec<(Dir, OsString)> = vec![(Dir::read_from(folder)?, OsString::new())];
    while let Some((list, _)) = open.last_mut() {
        let Some(entry) = list.read() else {
            if let Some((_, name)) = open.pop()
                && let Some((above, _)) = open.last()
            {
                rustix::fs::unlinkat(above.fd()?, &name, AtFlags::REMOVEDIR)?;
            }
            continue;
        };
        let entry = entry?;
        let name = OsStr::from_bytes(entry.file_name().to_bytes());
        if name == "." || name == ".." {
            continue;
        }
        match rustix::fs::unlinkat(list.fd()?, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            Err(Errno::ISDIR) => {
                let below = open_beneath(list.fd()?, name)?;
                widen(below.as_fd());
                open.push((Dir::new(below)?, name.to_owned()));
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Makes a folder usable for its owner, whatever its mode. A process that may not do this fails later.
fn widen(folder: BorrowedFd<'_>) {
    if let Ok(stat) = rustix::fs::fstat(folder) {
        let mode = Mode::from_raw_mode(stat.st_mode);
        if !mode.contains(Mode::RWXU) {
            let _ = rustix::fs::fchmod(folder, mode | Mode::RWXU);
        }
    }
}

/// Writes the content of a file, and leaves its holes out.
fn content(
    file: &File,
    shape: &Shape,
    archive: &mut Archive<impl Read>,
    buffer: &mut [u8],
    path: &[u8],
) -> Result<(), Error> {
    for part in &shape.parts {
        let (mut offset, end) = (part.offset, part.offset + part.length);
        while offset < end {
            let length = usize::try_from(end - offset).unwrap_or(usize::MAX).min(buffer.len());
            let length = archive.content(&mut buffer[..length])?;
            file.write_all_at(&buffer[..length], offset).map_err(|error| Error::io(path, error))?;
            offset += length as u64;
        }
    }
    if shape.parts.last().is_none_or(|last| last.offset + last.length < shape.size) && shape.size > 0 {
        file.set_len(shape.size).map_err(|error| Error::io(path, error))?;
    }
    Ok(())
}

impl Owners {
    /// The mode of what has this mode in the layer.
    fn mode(self, mode: u32, is_folder: bool) -> Mode {
        let Self::Mine(access) = self else { return Mode::from_raw_mode(mode) };
        let executable = if is_folder || mode & 0o111 != 0 { 0o111 } else { 0 };
        Mode::from_raw_mode(executable | if access == Access::Write { 0o666 } else { 0o644 })
    }

    /// Sets the attributes of a file or folder, the time last.
    fn apply(self, file: BorrowedFd<'_>, attributes: &Attributes, path: &[u8]) -> Result<(), Error> {
        let before = rustix::fs::fstat(file).map_err(|error| Error::io(path, error))?;
        let Attributes { mode, owner, group, modified, extended } = attributes;
        if self == Self::Keep && (before.st_uid, before.st_gid) != (*owner, *group) {
            attribute(rustix::fs::fchown(file, Some(Uid::from_raw(*owner)), Some(Gid::from_raw(*group))), path, OWNER)?;
        }
        attribute(self.apply_extended(file, extended), path, "an extended attribute cannot be set")?;
        let is_folder = FileType::from_raw_mode(before.st_mode) == FileType::Directory;
        let mut mode = self.mode(*mode, is_folder);
        if self != Self::Keep && is_folder {
            // A folder of a volume has the bit from the folder above it.
            mode |= Mode::from_raw_mode(before.st_mode) & Mode::SGID;
        }
        // The folder of another user, such as `/tmp`, is here because something in it has changed.
        let is_others = is_folder && before.st_uid != rustix::process::geteuid().as_raw();
        if !(is_others && mode == Mode::from_raw_mode(before.st_mode)) {
            attribute(rustix::fs::fchmod(file, mode), path, "its mode cannot be set")?;
        }
        match rustix::fs::futimens(file, &times(timespec(*modified))) {
            Err(Errno::PERM | Errno::ACCESS) if is_others => Ok(()),
            set => attribute(set, path, TIME),
        }
    }

    /// Sets the extended attributes, and removes others that were there or came from an ACL of the folder.
    fn apply_extended(self, file: BorrowedFd<'_>, extended: &[(Vec<u8>, Vec<u8>)]) -> Result<(), Errno> {
        if self == Self::Keep {
            for name in list(file)? {
                if is_kept(&name) && !extended.iter().any(|(kept, _)| *kept == name) {
                    rustix::fs::fremovexattr(file, OsStr::from_bytes(&name))?;
                }
            }
        }
        for (name, value) in extended {
            if !is_kept(name) {
                return Err(Errno::OPNOTSUPP);
            }
            if self == Self::Keep || name.starts_with(b"user.") || name == DEFAULT_ACL.as_bytes() {
                match rustix::fs::fsetxattr(file, OsStr::from_bytes(name), value, XattrFlags::empty()) {
                    // Not every storage of a volume has them.
                    Err(Errno::OPNOTSUPP) if self != Self::Keep => {}
                    set => set?,
                }
            }
        }
        Ok(())
    }

    fn apply_to_link(
        self,
        folder: BorrowedFd<'_>,
        name: &OsStr,
        attributes: &Attributes,
        path: &[u8],
    ) -> Result<(), Error> {
        let Attributes { owner, group, modified, .. } = attributes;
        let before = stat(folder, name).map_err(|error| Error::io(path, error))?;
        if self == Self::Keep && (before.stx_uid, before.stx_gid) != (*owner, *group) {
            let (owner, group) = (Some(Uid::from_raw(*owner)), Some(Gid::from_raw(*group)));
            attribute(rustix::fs::chownat(folder, name, owner, group, AtFlags::SYMLINK_NOFOLLOW), path, OWNER)?;
        }
        let times = times(timespec(*modified));
        attribute(rustix::fs::utimensat(folder, name, &times, AtFlags::SYMLINK_NOFOLLOW), path, TIME)
    }
}

const OWNER: &str = "its owner cannot be set";
const TIME: &str = "its time cannot be set";

fn attribute(set: Result<(), Errno>, path: &[u8], reason: &'static str) -> Result<(), Error> {
    set.map_err(|error| match error {
        Errno::NOSPC | Errno::DQUOT => Error::io(path, error),
        _ => Error::refused(path, reason),
    })
}

fn timespec(time: Time) -> Timespec {
    Timespec { tv_sec: time.seconds, tv_nsec: time.nanoseconds.into() }
}

/// The time of a modification alone.
fn times(last_modification: Timespec) -> Timestamps {
    Timestamps { last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT }, last_modification }
}
