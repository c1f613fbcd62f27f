//! A folder that is held open, and the operations in it. No symbolic link is ever followed: untrusted programs write the sources
//! and volumes, and a path that was checked a moment ago may lead elsewhere now.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, RenameFlags, XattrFlags};
use rustix::io::Errno;
use thiserror::Error;

/// A folder that the file system itself creates (ext4) and that only root can read.
pub const LOST_AND_FOUND: &str = "lost+found";

/// What exists under a name.
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
    /// Nothing with that name exists.
    #[error("there is no folder {}", at.display())]
    Absent {
        /// The first part of the path that is missing.
        at: PathBuf,
    },
    /// A part of the path is not a folder.
    #[error("{} is {found}, not a folder", at.display())]
    Obstacle {
        /// The part of the path that is not a folder.
        at: PathBuf,
        /// What exists there instead.
        found: Kind,
    },
    /// The path contains `..`.
    #[error("{} leads upward", at.display())]
    Upward {
        /// The path up to its first `..`.
        at: PathBuf,
    },
    /// The system refused to open a folder.
    #[error("{} cannot be opened", at.display())]
    Refused {
        /// The part of the path that cannot be opened.
        at: PathBuf,
        /// The error of the system.
        #[source]
        error: io::Error,
    },
}

/// A folder that is held open. Its name may change meanwhile, but the folder stays the same.
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

    /// What exists under a name.
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
        // A named pipe that has replaced the file would otherwise block for ever.
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::openat(&self.0, name, flags, Mode::empty())?);
        if file.metadata()?.is_file() { Ok(file) } else { Err(io::ErrorKind::InvalidInput.into()) }
    }

    /// The target of a symbolic link: the bytes that it holds, which may be the path of anything or of nothing.
    pub fn link_target(&self, name: &OsStr) -> io::Result<OsString> {
        let target = rustix::fs::readlinkat(&self.0, name, Vec::new())?;
        Ok(OsString::from_vec(target.into_bytes()))
    }

    /// Creates a folder, unless something with that name exists.
    pub fn make(&self, name: &OsStr, mode: Mode) -> io::Result<()> {
        match rustix::fs::mkdirat(&self.0, name, mode) {
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Creates a symbolic link with exactly these bytes as its target.
    pub fn link(&self, name: &OsStr, target: &OsStr) -> io::Result<()> {
        Ok(rustix::fs::symlinkat(target, &self.0, name)?)
    }

    /// Creates a new file.
    pub fn create(&self, name: &OsStr, mode: Mode) -> io::Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = File::from(rustix::fs::openat(&self.0, name, flags, mode)?);
        allow(&file, mode)?;
        Ok(file)
    }

    /// Removes a file, if it exists.
    pub fn remove(&self, name: &OsStr) -> io::Result<()> {
        match rustix::fs::unlinkat(&self.0, name, AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    /// Moves a file of this folder to another folder under a new name; replaces a file with that name.
    pub fn rename(&self, name: &OsStr, folder: &Self, new_name: &OsStr) -> io::Result<()> {
        Ok(rustix::fs::renameat(&self.0, name, &folder.0, new_name)?)
    }

    /// Moves a file of this folder to another folder under a new name, which must be free.
    ///
    /// # Errors
    /// [`AlreadyExists`](io::ErrorKind::AlreadyExists), if the name is not free.
    pub fn rename_new(&self, name: &OsStr, folder: &Self, new_name: &OsStr) -> io::Result<()> {
        match rustix::fs::renameat_with(&self.0, name, &folder.0, new_name, RenameFlags::NOREPLACE) {
            // Some file systems, such as NFS, cannot do this, and some of them have no hard links either.
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

    /// Adds permissions to this folder, as far as this process may change them.
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

    /// Lets the group of this process edit what is created in this folder and in the folders below from now on, whatever the umask of
    /// the program that creates it: a default ACL replaces the umask. A folder that has a default ACL keeps it. A folder of another
    /// user, or on a file system without ACLs, stays as it is.
    ///
    /// Decided in docs/adr/0019-a-default-acl-on-staged-folders.md.
    pub fn share(&self) {
        let Ok(folder) = self.listable() else { return };
        if rustix::fs::fgetxattr_query(&folder, DEFAULT_ACL).is_ok() {
            return;
        }
        let acl = acl_for(rustix::process::getegid().as_raw());
        // Nothing depends on it: without the ACL, files have the mode that the umask leaves.
        let _ = rustix::fs::fsetxattr(&folder, DEFAULT_ACL, &acl, XattrFlags::empty());
    }

    /// What the file system of this folder can hold.
    pub fn space(&self) -> io::Result<Space> {
        let (stat, volume) = (rustix::fs::fstat(&self.0)?, rustix::fs::fstatvfs(&self.0)?);
        let bytes = |blocks: u64| blocks.saturating_mul(volume.f_frsize);
        Ok(Space { device: stat.st_dev, total: bytes(volume.f_blocks), available: bytes(volume.f_bavail) })
    }

    /// Who may use this folder.
    pub fn permissions(&self) -> io::Result<Permissions> {
        Permissions::of(&self.0)
    }

    fn enter(&self, name: &OsStr) -> io::Result<Self> {
        Ok(Self(rustix::fs::openat(&self.0, name, HOLD | OFlags::NOFOLLOW, Mode::empty())?))
    }

    fn listable(&self) -> Result<OwnedFd, Errno> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        rustix::fs::openat(&self.0, ".", flags, Mode::empty())
    }
}

impl AsFd for Folder {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl Blocked {
    /// The same error, with the path that leads to the folder.
    pub fn below(mut self, base: &Path) -> Self {
        let (Self::Absent { at } | Self::Obstacle { at, .. } | Self::Upward { at } | Self::Refused { at, .. }) =
            &mut self;
        *at = base.join(&*at);
        self
    }
}

/// Flags that allow entering a folder whose content may not be listed.
const HOLD: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// The extended attribute with a folder's default ACL, from which new files and folders get their permissions.
const DEFAULT_ACL: &str = "system.posix_acl_default";

/// An ACL in the form of that attribute: what the umask 022 leaves to owner, owning group and others, and everything for a group.
///
/// The form is that of the kernel's `include/uapi/linux/posix_acl_xattr.h`, little-endian: a version of 32 bits, then for each entry
/// a tag and permissions of 16 bits each, and an ID of 32 bits. The tags are in `include/uapi/linux/posix_acl.h`; the kernel wants the
/// entries in their order.
fn acl_for(group: u32) -> Vec<u8> {
    const VERSION: u32 = 2;
    const NO_ID: u32 = u32::MAX;
    const USER_OBJ: u16 = 0x01;
    const GROUP_OBJ: u16 = 0x04;
    const GROUP: u16 = 0x08;
    const MASK: u16 = 0x10;
    const OTHER: u16 = 0x20;
    let entries = [
        (USER_OBJ, 0o7_u16, NO_ID),
        (GROUP_OBJ, 0o5, NO_ID),
        (GROUP, 0o7, group),
        (MASK, 0o7, NO_ID),
        (OTHER, 0o5, NO_ID),
    ];
    let mut acl = VERSION.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        acl.extend(tag.to_le_bytes());
        acl.extend(permissions.to_le_bytes());
        acl.extend(id.to_le_bytes());
    }
    acl
}

/// What a file system can hold.
#[derive(Clone, Copy, Debug)]
pub struct Space {
    /// The number of the file system.
    pub device: u64,
    /// Its size, in bytes.
    pub total: u64,
    /// What this process may still write, in bytes.
    pub available: u64,
}

/// Who may use a file or folder.
#[derive(Clone, Copy, Debug)]
pub struct Permissions {
    /// The mode, without the type of the file.
    pub mode: Mode,
    /// The user that the file belongs to.
    pub owner: u32,
    /// The group that the file belongs to.
    pub group: u32,
}

impl Permissions {
    /// The permissions of a file.
    pub fn of(file: impl AsFd) -> io::Result<Self> {
        let stat = rustix::fs::fstat(file)?;
        Ok(Self { mode: Mode::from_raw_mode(stat.st_mode), owner: stat.st_uid, group: stat.st_gid })
    }

    /// Whether everybody, or a group of this process, has a permission. It is given as that of others, such as `Mode::ROTH`.
    pub fn grant(self, permission: Mode) -> bool {
        let of_the_group = Mode::from_raw_mode(permission.as_raw_mode() << 3);
        let is_member = || {
            let groups = rustix::process::getgroups().unwrap_or_default();
            let own = rustix::process::getegid();
            groups.into_iter().chain([own]).any(|group| group.as_raw() == self.group)
        };
        self.mode.contains(permission) || (self.mode.contains(of_the_group) && is_member())
    }
}

/// The mode that `file` needs for `mode` to be granted; `None` if `mode` is granted already.
fn lacking(file: impl AsFd, mode: Mode) -> io::Result<Option<Mode>> {
    let now = Mode::from_raw_mode(rustix::fs::fstat(file)?.st_mode);
    Ok((!now.contains(mode)).then(|| now.union(mode)))
}

/// Adds `mode` to a file's own mode, whatever the umask was when the file was created. If another user owns the file (NFS that maps
/// users), or the file system sets modes on its own (SMB, FUSE), the mode stays as it is.
fn allow(file: impl AsFd, mode: Mode) -> io::Result<()> {
    let Some(mode) = lacking(&file, mode)? else { return Ok(()) };
    match rustix::fs::fchmod(file, mode) {
        Ok(()) | Err(Errno::PERM | Errno::ACCESS | Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
        Err(error) => Err(error.into()),
    }
}

/// Whether two files have the same content.
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
