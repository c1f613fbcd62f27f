//! Layers: what changed in a file system, or all that is in one, as one archive of the form
//! `application/vnd.oci.image.layer.v1.tar+zstd`.
//!
//! ```text
//! at the start              when it is saved                       in another Pod
//! baseline::write ──file──► Packer: add a tree, finish ──layer──►  unpack: onto the same tree
//! names, inode numbers      ctime ≥ T0, or not in the baseline     whiteouts remove, entries replace
//! ```
//!
//! No content is read to find what changed. A program of somebody else may write to the tree while it is packed, and may have written the
//! layer that is unpacked: nothing here follows a symbolic link, leaves the file system that it was given, or needs memory in proportion
//! to what it reads.
//!
//! Decided in docs/adr/0023-a-layer-by-ctime-and-names.md.

use std::ffi::OsStr;
use std::fmt::Write;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use thiserror::Error;

pub use entry::Time;
pub use pack::{Packed, Packer, Since, Tree, save};
pub use unpack::{Owners, Target, Unpacked, unpack};

pub mod baseline;
mod entry;
mod pack;
mod read;
mod search;
#[cfg(test)]
mod tests;
mod unpack;
mod walk;
mod write;

/// The longest path, in bytes: `PATH_MAX` without its NUL.
const MAX_PATH: usize = 4095;

/// The longest extended header of an entry, in bytes.
const MAX_PAX: usize = 64 * 1024;

/// The most entries of a layer.
const MAX_ENTRIES: u64 = 2_000_000;

/// The most parts of a file between holes.
const MAX_PARTS: usize = 64 * 1024;

/// The longest list of extended attributes, and the largest value of one, in bytes; those of the system.
const MAX_ATTRIBUTE: usize = 64 * 1024;

/// The most bytes of names that are held at once while a tree is walked.
const MAX_HELD: usize = 6 * 1024 * 1024;

/// The most bytes that are held of files with several names while a tree is packed.
const MAX_LINKS: usize = 12 * 1024 * 1024;

/// How a name begins that removes another one.
const WHITEOUT: &[u8] = b".wh.";

/// The name that empties its folder.
const OPAQUE: &[u8] = b".wh..wh..opq";

/// Why a tree could not be packed, or a layer not be unpacked. Paths are those of the layer.
#[derive(Debug, Error)]
pub enum Error {
    /// A bound of this module, or one that the caller gave, is exceeded.
    #[error("{}: {bound}", path.display())]
    TooLarge {
        /// Where.
        path: PathBuf,
        /// The bound.
        bound: &'static str,
    },
    /// A file was written to each time that it was read.
    #[error("{} changes while it is read", path.display())]
    Changed {
        /// The file.
        path: PathBuf,
    },
    /// A name that would remove another one when the layer is unpacked.
    #[error("{} has a name that layers reserve", path.display())]
    Reserved {
        /// The file or folder.
        path: PathBuf,
    },
    /// A file has something in it that is not to be packed.
    #[error("{} holds a secret", path.display())]
    Secret {
        /// The file.
        path: PathBuf,
    },
    /// An entry that may not be unpacked here, or an attribute that cannot be set.
    #[error("{}: {reason}", path.display())]
    Refused {
        /// The path that the entry has.
        path: PathBuf,
        /// What is refused.
        reason: &'static str,
    },
    /// What was read is not a whole layer, or not a whole baseline.
    #[error("the archive is damaged: {reason}")]
    Corrupt {
        /// What is wrong.
        reason: &'static str,
    },
    /// The file system that is written to is full.
    #[error("no space left while writing {}", path.display())]
    NoSpace {
        /// What was being written; empty: the archive itself.
        path: PathBuf,
    },
    /// The system refused an operation.
    #[error("{} could not be read or written", path.display())]
    Io {
        /// Where; empty: the archive itself.
        path: PathBuf,
        /// The error of the system.
        #[source]
        error: io::Error,
    },
}

impl Error {
    fn io(path: &[u8], error: impl Into<io::Error>) -> Self {
        let (path, error) = (path_of(path), error.into());
        match Errno::from_io_error(&error) {
            Some(Errno::NOSPC | Errno::DQUOT) => Self::NoSpace { path },
            _ => Self::Io { path, error },
        }
    }

    /// The archive itself could not be read or written.
    fn archive(error: io::Error) -> Self {
        Self::io(b"", error)
    }

    fn too_large(path: &[u8], bound: &'static str) -> Self {
        Self::TooLarge { path: path_of(path), bound }
    }

    fn refused(path: &[u8], reason: &'static str) -> Self {
        Self::Refused { path: path_of(path), reason }
    }
}

fn path_of(bytes: &[u8]) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(bytes))
}

fn bytes_of(path: &Path) -> &[u8] {
    path.as_os_str().as_bytes()
}

/// Whether a path is another one, or below it.
fn is_within(path: &[u8], folder: &[u8]) -> bool {
    path.strip_prefix(folder).is_some_and(|rest| folder.is_empty() || rest.is_empty() || rest[0] == b'/')
}

/// A path in two: its folder, and its name there.
fn split(path: &[u8]) -> (&[u8], &[u8]) {
    match path.iter().rposition(|&byte| byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (b"", path),
    }
}

/// Bytes as hexadecimal digits.
pub fn hex(bytes: impl IntoIterator<Item = u8>) -> String {
    bytes.into_iter().fold(String::new(), |mut digits, byte| {
        let _ = write!(digits, "{byte:02x}");
        digits
    })
}

/// Adds a name to a path.
fn push(path: &mut Vec<u8>, name: &[u8]) {
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name);
}
