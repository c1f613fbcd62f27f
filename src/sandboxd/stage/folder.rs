//! A folder that is held open, and what can be done in it. No symbolic link is ever followed: sources and volumes are
//! written by strangers, and a path that was checked a moment ago may lead elsewhere by now.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use thiserror::Error;

/// As many symbolic links as the kernel follows on one path.
const MOST_LINKS: usize = 40;

/// What is found under a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A folder.
    Folder,
    /// A regular file.
    File {
        /// Whether anybody may execute it.
        executable: bool,
    },
    /// A symbolic link.
    Link,
    /// A device, a socket or a named pipe.
    Special,
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Folder => "a folder",
            Self::File { .. } => "a file",
            Self::Link => "a symbolic link",
            Self::Special => "a device, socket or named pipe",
        })
    }
}

/// Why a folder could not be reached.
#[derive(Debug, Error)]
pub enum Blocked {
    /// Nothing of that name is there.
    #[error("there is no folder {}", at.display())]
    Absent {
        /// The first part of the path that is missing.
        at: PathBuf,
    },
    /// Something else is in the way.
    #[error("{} is {found}, not a folder", at.display())]
    Obstacle {
        /// The part of the path that is no folder.
        at: PathBuf,
        /// What it is.
        found: Kind,
    },
    /// The path goes back up, from where nobody has checked it.
    #[error("{} leads upward", at.display())]
    Upward {
        /// The path up to its first `..`.
        at: PathBuf,
    },
    /// The system refused.
    #[error("{} cannot be opened", at.display())]
    Refused {
        /// The part of the path that cannot be opened.
        at: PathBuf,
        /// What the system said.
        #[source]
        error: io::Error,
    },
}

/// A folder that is held open. What it is called may change meanwhile, what it is does not.
#[derive(Debug)]
pub struct Folder(OwnedFd);

impl Folder {
    /// Opens an absolute path.
    pub fn open(path: &Path) -> Result<Self, Blocked> {
        let root = rustix::fs::openat(CWD, "/", HOLD, Mode::empty())
            .map_err(|error| Blocked::Refused { at: PathBuf::from("/"), error: error.into() })?;
        let below = path.strip_prefix("/").unwrap_or(path);
        Self(root).descend(below).map_err(|blocked| blocked.below(Path::new("/")))
    }

    /// Opens a folder below this one, one part of the path at a time.
    pub fn descend(&self, path: &Path) -> Result<Self, Blocked> {
        let refused = |at: &Path, error| Blocked::Refused { at: at.to_owned(), error };
        let mut folder = self.enter(OsStr::new(".")).map_err(|error| refused(Path::new("."), error))?;
        let mut at = PathBuf::new();
        for name in path {
            at.push(name);
            if name == ".." {
                return Err(Blocked::Upward { at });
            }
            folder = match folder.enter(name) {
                Ok(next) => next,
                Err(error) => {
                    return Err(match folder.kind(name) {
                        Ok(None) => Blocked::Absent { at },
                        Ok(Some(found)) if found != Kind::Folder => Blocked::Obstacle { at, found },
                        _ => refused(&at, error),
                    });
                }
            };
        }
        Ok(folder)
    }

    /// What is there under a name.
    pub fn kind(&self, name: &OsStr) -> io::Result<Option<Kind>> {
        let stat = match rustix::fs::statat(&self.0, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        Ok(Some(match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => Kind::Folder,
            FileType::RegularFile => Kind::File { executable: stat.st_mode & 0o111 != 0 },
            FileType::Symlink => Kind::Link,
            _ => Kind::Special,
        }))
    }

    /// The names in this folder, sorted.
    pub fn names(&self) -> io::Result<Vec<OsString>> {
        let mut names = Vec::new();
        for entry in Dir::new(self.listable()?)? {
            let name = entry?.file_name().to_bytes().to_vec();
            if name != b"." && name != b".." {
                names.push(OsString::from_vec(name));
            }
        }
        names.sort_unstable();
        Ok(names)
    }

    /// Opens a regular file for reading.
    pub fn read(&self, name: &OsStr) -> io::Result<File> {
        // A named pipe that took the file's place would otherwise block for ever.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::openat(&self.0, name, flags, Mode::empty())?);
        if file.metadata()?.is_file() { Ok(file) } else { Err(io::ErrorKind::InvalidInput.into()) }
    }

    /// What a symbolic link says.
    pub fn link_target(&self, name: &OsStr) -> io::Result<PathBuf> {
        let target = rustix::fs::readlinkat(&self.0, name, Vec::new())?;
        Ok(OsString::from_vec(target.into_bytes()).into())
    }

    /// Where a link that stands in `place` leads to, as a path below this folder without links; `None` if it leads out.
    ///
    /// It need not exist. The kernel's own `RESOLVE_BENEATH` would do, but is missing from some container runtimes.
    pub fn resolve(&self, place: &Path, target: &Path) -> Option<PathBuf> {
        let mut here = place.to_owned();
        let mut ahead = Vec::new();
        let push = |ahead: &mut Vec<OsString>, path: &Path| {
            ahead.extend(path.components().rev().map(|part| part.as_os_str().to_owned()));
        };
        push(&mut ahead, target);
        let mut links = 1;
        while let Some(part) = ahead.pop() {
            match part.as_bytes() {
                b"." => {}
                b".." if here.pop() => {}
                b"/" | b".." => return None,
                _ => match self.descend(&here).ok().and_then(|folder| folder.link_target(&part).ok()) {
                    Some(target) if links < MOST_LINKS => {
                        links += 1;
                        push(&mut ahead, &target);
                    }
                    _ => here.push(part),
                },
            }
        }
        Some(here)
    }

    /// Makes a folder, unless there is something of that name.
    pub fn make(&self, name: &OsStr, mode: Mode) -> io::Result<()> {
        match rustix::fs::mkdirat(&self.0, name, mode) {
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes a symbolic link.
    pub fn link(&self, name: &OsStr, target: &Path) -> io::Result<()> {
        Ok(rustix::fs::symlinkat(target, &self.0, name)?)
    }

    /// Makes a file that was not there.
    pub fn create(&self, name: &OsStr, mode: Mode) -> io::Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::openat(&self.0, name, flags, mode)?);
        allow(&file, mode)?;
        Ok(file)
    }

    /// Removes a file, if it is there.
    pub fn remove(&self, name: &OsStr) -> io::Result<()> {
        match rustix::fs::unlinkat(&self.0, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Gives a file of this folder another name, in another folder, in place of what has it.
    pub fn rename(&self, name: &OsStr, folder: &Self, new_name: &OsStr) -> io::Result<()> {
        Ok(rustix::fs::renameat(&self.0, name, &folder.0, new_name)?)
    }

    /// Gives a file of this folder another name, in another folder, which nothing may have.
    ///
    /// # Errors
    /// [`AlreadyExists`](io::ErrorKind::AlreadyExists), where something has it.
    pub fn rename_new(&self, name: &OsStr, folder: &Self, new_name: &OsStr) -> io::Result<()> {
        match rustix::fs::renameat_with(&self.0, name, &folder.0, new_name, RenameFlags::NOREPLACE) {
            // Some file systems, such as NFS, cannot; and some of these have no hard links either.
            Err(Errno::INVAL | Errno::NOSYS | Errno::NOTSUP) => {
                match rustix::fs::linkat(&self.0, name, &folder.0, new_name, AtFlags::empty()) {
                    Ok(()) => self.remove(name),
                    Err(Errno::EXIST) => Err(Errno::EXIST.into()),
                    Err(_) => self.rename(name, folder, new_name),
                }
            }
            renamed => Ok(renamed?),
        }
    }

    /// Adds to what everyone may do with this folder, as far as it is ours to say.
    pub fn allow(&self, mode: Mode) -> io::Result<()> {
        if lacking(&self.0, mode)?.is_none() {
            return Ok(());
        }
        match self.listable() {
            Ok(folder) => allow(&folder, mode),
            Err(Errno::ACCESS) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn enter(&self, name: &OsStr) -> io::Result<Self> {
        Ok(Self(rustix::fs::openat(&self.0, name, HOLD | OFlags::NOFOLLOW, Mode::empty())?))
    }

    fn listable(&self) -> Result<OwnedFd, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(&self.0, ".", flags, Mode::empty())
    }
}

impl Blocked {
    /// The same, told with the path that leads to the folder.
    pub fn below(mut self, base: &Path) -> Self {
        let (Self::Absent { at } | Self::Obstacle { at, .. } | Self::Upward { at } | Self::Refused { at, .. }) =
            &mut self;
        *at = base.join(&*at);
        self
    }
}

/// Enough to pass through a folder, also where its content may not be listed.
const HOLD: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// The mode that `file` should have for `mode` to be granted, unless it has it already.
fn lacking(file: impl AsFd, mode: Mode) -> io::Result<Option<Mode>> {
    let now = Mode::from_raw_mode(rustix::fs::fstat(file)?.st_mode);
    Ok((!now.contains(mode)).then(|| now.union(mode)))
}

/// Adds `mode` to a file's own, whatever the umask was when it was made. Where others own the file or the file system
/// assigns modes by itself (SMB), it stays as it is.
fn allow(file: impl AsFd, mode: Mode) -> io::Result<()> {
    let Some(mode) = lacking(&file, mode)? else { return Ok(()) };
    match rustix::fs::fchmod(file, mode) {
        Ok(()) | Err(Errno::PERM | Errno::ACCESS | Errno::OPNOTSUPP) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Whether two files hold the same bytes.
pub fn same_content(one: &mut File, other: &mut File) -> io::Result<bool> {
    if one.metadata()?.len() != other.metadata()?.len() {
        return Ok(false);
    }
    let (mut left, mut right) = (vec![0; 64 * 1024], vec![0; 64 * 1024]);
    loop {
        let length = fill(one, &mut left)?;
        if length != fill(other, &mut right)? || left[..length] != right[..length] {
            return Ok(false);
        }
        if length == 0 {
            return Ok(true);
        }
    }
}

/// Reads until the buffer is full or the file ends.
fn fill(file: &mut File, buffer: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match file.read(&mut buffer[length..]) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}
