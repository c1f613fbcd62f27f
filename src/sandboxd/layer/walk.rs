//! A walk over one file system: each folder before its content, the names of a folder sorted.

use std::ffi::OsStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{AtFlags, FileType, Mode, OFlags, RawDir, Statx, StatxAttributes, StatxFlags};
use rustix::io::Errno;

use super::{Error, MAX_HELD, MAX_PATH, push, split};
use crate::sandboxd::folder::Folder;

/// What the list of a folder says about a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Found {
    /// The inode number.
    pub inode: u64,
    /// The type.
    pub kind: FileType,
}

/// A step of a walk. Its path is [`Walk::path`].
pub enum Step {
    /// A name. If it is that of a folder, [`Walk::enter`] leads into it.
    Found(Found),
    /// The end of a folder that was entered; at last, of the root.
    Leave,
}

/// What came of entering a folder.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Entered {
    /// The next step is in the folder.
    Yes,
    /// Another file system is mounted there.
    Elsewhere,
    /// It does not exist any more.
    Gone,
    /// This process may not list it.
    Closed,
}

/// A walk that goes on.
pub struct Walk {
    /// The folders from the root to the current name.
    frames: Vec<Frame>,
    path: Vec<u8>,
    device: (u32, u32),
    /// The size of the lists in `frames`, in bytes.
    held: usize,
    /// Whether the last step was the end of the last folder.
    leaving: bool,
    buffer: Vec<u8>,
}

struct Frame {
    folder: OwnedFd,
    path_length: usize,
    list: List,
    next: usize,
}

impl Walk {
    /// Begins at a folder that has this path.
    pub fn begin(root: &Folder, path: &[u8]) -> Result<Self, Error> {
        let failed = |error| Error::io(path, error);
        let folder = open_folder(root.as_fd(), OsStr::new(".")).map_err(failed)?;
        let device = device(&stat(folder.as_fd(), OsStr::new("")).map_err(failed)?);
        let buffer = Vec::with_capacity(32 * 1024);
        let mut walk = Self { frames: vec![], path: path.to_vec(), device, held: 0, leaving: false, buffer };
        walk.list(folder)?;
        Ok(walk)
    }

    /// The path of the current name, or of the folder that ends.
    pub fn path(&self) -> &[u8] {
        &self.path
    }

    /// The folders from the root to the current name, or to the folder that ends; each with its path.
    pub fn folders(&self) -> impl ExactSizeIterator<Item = (BorrowedFd<'_>, &[u8])> {
        self.frames.iter().map(|frame| (frame.folder.as_fd(), &self.path[..frame.path_length]))
    }

    /// What the root is.
    pub fn root(&self) -> Result<Statx, Error> {
        let Some(frame) = self.frames.first() else { return Err(Error::Corrupt { reason: "a walk has no root" }) };
        stat(frame.folder.as_fd(), OsStr::new("")).map_err(|error| Error::io(b"", error))
    }

    /// What is under the current name; `None`: nothing any more.
    pub fn stat(&self) -> Result<Option<Statx>, Error> {
        self.here(stat)
    }

    /// Does something with the current name in its folder; `None`: there is nothing any more under that name.
    pub fn here<T>(&self, work: impl FnOnce(BorrowedFd<'_>, &OsStr) -> Result<T, Errno>) -> Result<Option<T>, Error> {
        let Some(frame) = self.frames.last() else { return Ok(None) };
        match work(frame.folder.as_fd(), OsStr::from_bytes(split(&self.path).1)) {
            Ok(done) => Ok(Some(done)),
            Err(Errno::NOENT) => Ok(None),
            Err(error) => Err(Error::io(&self.path, error)),
        }
    }

    /// The next step; `None` after the end of the root.
    pub fn next(&mut self) -> Result<Option<Step>, Error> {
        if std::mem::take(&mut self.leaving)
            && let Some(frame) = self.frames.pop()
        {
            self.held -= frame.list.size();
        }
        let Some(frame) = self.frames.last_mut() else { return Ok(None) };
        self.path.truncate(frame.path_length);
        let Some((name, mut found)) = frame.list.get(frame.next) else {
            self.leaving = true;
            return Ok(Some(Step::Leave));
        };
        frame.next += 1;
        push(&mut self.path, name);
        if self.path.len() > MAX_PATH {
            return Err(Error::too_large(&self.path, "the path is longer than 4 KiB"));
        }
        if found.kind == FileType::Unknown
            && let Some(stat) = self.stat()?
        {
            found.kind = kind(&stat);
        }
        Ok(Some(Step::Found(found)))
    }

    /// Goes into the folder that was found. Otherwise the next step is the name after it.
    pub fn enter(&mut self) -> Result<Entered, Error> {
        let Some(frame) = self.frames.last() else { return Ok(Entered::Gone) };
        let folder = match open_folder(frame.folder.as_fd(), OsStr::from_bytes(split(&self.path).1)) {
            Ok(folder) => folder,
            Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Ok(Entered::Gone),
            Err(Errno::ACCESS | Errno::PERM) => return Ok(Entered::Closed),
            Err(error) => return Err(Error::io(&self.path, error)),
        };
        let stat = stat(folder.as_fd(), OsStr::new("")).map_err(|error| Error::io(&self.path, error))?;
        if self.is_elsewhere(&stat) {
            return Ok(Entered::Elsewhere);
        }
        self.list(folder)?;
        Ok(Entered::Yes)
    }

    /// Whether this belongs to another file system, which is mounted here.
    pub fn is_elsewhere(&self, stat: &Statx) -> bool {
        // Files of an overlay may have other devices than its folders.
        if stat.stx_attributes_mask.contains(StatxAttributes::MOUNT_ROOT) {
            stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT)
        } else {
            device(stat) != self.device
        }
    }

    fn list(&mut self, folder: OwnedFd) -> Result<(), Error> {
        let list = List::read(&folder, &mut self.buffer, MAX_HELD - self.held).map_err(|error| match error {
            Errno::NOMEM => Error::too_large(&self.path, "the folder has too many names"),
            error => Error::io(&self.path, error),
        })?;
        self.held += list.size();
        self.frames.push(Frame { folder, path_length: self.path.len(), list, next: 0 });
        Ok(())
    }
}

/// The names of a folder, sorted.
struct List {
    names: Vec<u8>,
    entries: Vec<Entry>,
}

/// A name of at most 255 bytes, in `names`.
struct Entry {
    inode: u64,
    start: u32,
    length: u8,
    kind: FileType,
}

impl List {
    /// Reads a folder. `NOMEM`: its list would be larger than `limit` bytes.
    fn read(folder: &OwnedFd, buffer: &mut Vec<u8>, limit: usize) -> Result<Self, Errno> {
        let mut list = Self { names: vec![], entries: vec![] };
        let mut found = RawDir::new(folder, buffer.spare_capacity_mut());
        while let Some(entry) = found.next() {
            let entry = entry?;
            let name = entry.file_name().to_bytes();
            if name == b"." || name == b".." {
                continue;
            }
            let start = u32::try_from(list.names.len()).map_err(|_| Errno::NOMEM)?;
            let length = u8::try_from(name.len()).map_err(|_| Errno::NAMETOOLONG)?;
            list.entries.push(Entry { inode: entry.ino(), start, length, kind: entry.file_type() });
            list.names.extend_from_slice(name);
            if list.size() > limit {
                return Err(Errno::NOMEM);
            }
        }
        let Self { names, entries } = &mut list;
        entries.sort_unstable_by(|one, other| one.name(names).cmp(other.name(names)));
        Ok(list)
    }

    fn get(&self, at: usize) -> Option<(&[u8], Found)> {
        let entry = self.entries.get(at)?;
        Some((entry.name(&self.names), Found { inode: entry.inode, kind: entry.kind }))
    }

    fn size(&self) -> usize {
        self.names.len() + self.entries.len() * size_of::<Entry>()
    }
}

impl Entry {
    fn name<'n>(&self, names: &'n [u8]) -> &'n [u8] {
        let start = self.start as usize;
        &names[start..start + usize::from(self.length)]
    }
}

/// Opens a folder to list it.
fn open_folder(folder: BorrowedFd<'_>, name: &OsStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(folder, name, flags, Mode::empty())
}

/// What is under a name; of the folder itself, if the name is empty.
pub fn stat(folder: BorrowedFd<'_>, name: &OsStr) -> Result<Statx, Errno> {
    let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::EMPTY_PATH;
    rustix::fs::statx(folder, name, flags, StatxFlags::BASIC_STATS)
}

/// The type of a file.
pub fn kind(stat: &Statx) -> FileType {
    FileType::from_raw_mode(stat.stx_mode.into())
}

/// The file system that a file belongs to.
pub fn device(stat: &Statx) -> (u32, u32) {
    (stat.stx_dev_major, stat.stx_dev_minor)
}
