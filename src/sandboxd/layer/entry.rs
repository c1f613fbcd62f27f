//! An entry of a layer, without the content of a file.

use std::os::fd::BorrowedFd;

use rustix::io::Errno;

use super::MAX_ATTRIBUTE;

/// An entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The path, without `.`, `..`, double slashes and slashes at its ends. Empty: the root.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: Kind,
    /// Mode and others. Without a meaning for links and whiteouts.
    pub attributes: Attributes,
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A folder.
    Folder,
    /// A file. Its content follows in the archive: its parts, without a gap.
    File(Shape),
    /// A symbolic link, with its target.
    Symlink(Vec<u8>),
    /// A further name of what an earlier entry has put at this path.
    Link(Vec<u8>),
    /// A named pipe.
    Fifo,
    /// Nothing is at the path.
    Whiteout,
    /// The folder at the path is empty, until further entries follow.
    Opaque,
}

/// Where the content of a file is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    /// The size of the file, with its holes.
    pub size: u64,
    /// What is not a hole: ascending, apart, within the size.
    pub parts: Vec<Part>,
}

/// A part of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Part {
    /// Where it begins.
    pub offset: u64,
    /// Its length.
    pub length: u64,
}

impl Shape {
    /// A file without holes.
    pub fn whole(size: u64) -> Self {
        Self { size, parts: if size == 0 { vec![] } else { vec![Part { offset: 0, length: size }] } }
    }

    /// Whether there is a hole.
    pub fn is_sparse(&self) -> bool {
        self.stored() != self.size
    }

    /// How many bytes are not in holes.
    pub fn stored(&self) -> u64 {
        self.parts.iter().map(|part| part.length).sum()
    }
}

/// What an entry has beside its content.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    /// The permissions, with setuid, setgid and the sticky bit.
    pub mode: u32,
    /// The user that it belongs to.
    pub owner: u32,
    /// The group that it belongs to.
    pub group: u32,
    /// When the content was modified.
    pub modified: Time,
    /// Extended attributes: names and values.
    pub extended: Vec<(Vec<u8>, Vec<u8>)>,
}

/// A moment, as seconds since 1970 and nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Time {
    /// Whole seconds, rounded down.
    pub seconds: i64,
    /// The rest, less than a second.
    pub nanoseconds: u32,
}

/// Whether an extended attribute is kept: the user's own, ACLs and file capabilities. An archive cannot hold a name with `=`.
pub fn is_kept(name: &[u8]) -> bool {
    !name.contains(&b'=')
        && (name.starts_with(b"user.")
            || ["security.capability", ACL, DEFAULT_ACL].iter().any(|kept| kept.as_bytes() == name))
}

/// The names of the extended attributes of a file or folder.
pub fn list(file: BorrowedFd<'_>) -> Result<Vec<Vec<u8>>, Errno> {
    match rustix::fs::flistxattr_query(file) {
        Ok(0) | Err(Errno::OPNOTSUPP) => return Ok(vec![]),
        Ok(_) => {}
        Err(error) => return Err(error),
    }
    let mut names = vec![0; MAX_ATTRIBUTE];
    let length = rustix::fs::flistxattr(file, &mut names[..])?;
    Ok(names[..length].split(|&byte| byte == 0).filter(|name| !name.is_empty()).map(<[u8]>::to_vec).collect())
}

/// The ACL of a file.
pub const ACL: &str = "system.posix_acl_access";

/// The ACL that new files of a folder get.
pub const DEFAULT_ACL: &str = "system.posix_acl_default";
