//! Why a volume could not be filled, in sentences for the person who has to change something: a source, or the storage.

use std::io;
use std::path::{Path, PathBuf};

use rustix::io::Errno;
use thiserror::Error;

use crate::protocol::staging::{Fault, MANIFEST_ENV, Source};
use crate::sandboxd::folder::{Blocked, Kind};

/// Why a volume could not be filled. Sources are named by their description, volumes by their name.
#[derive(Debug, Error)]
#[expect(missing_docs, reason = "the messages describe the variants")]
pub enum Error {
    #[error("the stage Pod was started without {MANIFEST_ENV}")]
    NoManifest,
    #[error("{MANIFEST_ENV} is not a manifest")]
    BadManifest(#[source] serde_json::Error),
    #[error("the path {path:?} of {source_name} must be relative and without \"..\"")]
    BadPath { source_name: String, path: String },
    #[error("{source_name} cannot be staged")]
    NoSource {
        source_name: String,
        #[source]
        blocked: Blocked,
    },
    #[error("{source_name} holds {}, a name that is reserved for the record of staging", path.display())]
    ReservedName { source_name: String, path: PathBuf },
    #[error("{source_name} holds {}, which is {kind} and cannot be copied", path.display())]
    NotCopied { source_name: String, path: PathBuf, kind: Kind },
    #[error("the stage user {user} could not read {} of {source_name}", path.display())]
    Unreadable { source_name: String, path: PathBuf, user: u32 },
    #[error("{} of {source_name} could not be read", path.display())]
    Read {
        source_name: String,
        path: PathBuf,
        #[source]
        error: io::Error,
    },
    #[error("{first} and {second} put different content at {} of the volume {volume}", path.display())]
    Conflict { volume: String, path: PathBuf, first: String, second: String },
    #[error("no source of the volume {volume} has {missing} at its first level; found: {offered}")]
    NoSuchRoots { volume: String, missing: String, offered: String },
    #[error("the volume {volume} is not mounted")]
    NoVolume {
        volume: String,
        #[source]
        blocked: Blocked,
    },
    #[error("the stage user {user}, of the group {group}, may not write to the root folder of the volume {volume}")]
    RootClosed {
        volume: String,
        user: u32,
        group: u32,
        #[source]
        error: io::Error,
    },
    #[error(
        "what is written to the volume {volume} gets the mode {mode:o} and the group {group}, so sandboxes could not read it"
    )]
    NotShared { volume: String, mode: u32, group: u32 },
    #[error("the volume {volume} cannot hold the symbolic link {}", path.display())]
    NoLinks {
        volume: String,
        path: PathBuf,
        #[source]
        error: io::Error,
    },
    #[error("the volume {volume} cannot be filled")]
    InTheWay {
        volume: String,
        #[source]
        blocked: Blocked,
    },
    #[error("no space left on the volume {volume} while writing {}", path.display())]
    NoSpace { volume: String, path: PathBuf },
    #[error("{} could not be written to the volume {volume}", path.display())]
    Write {
        volume: String,
        path: PathBuf,
        #[source]
        error: io::Error,
    },
    #[error("the signals that end this program cannot be handled")]
    Signals(#[source] io::Error),
}

impl Error {
    /// Something in a source could not be read.
    pub(super) fn read(source: &Source, path: &Path, error: io::Error) -> Self {
        let (source_name, path) = (source.description.clone(), path.to_owned());
        if error.kind() == io::ErrorKind::PermissionDenied {
            return Self::Unreadable { source_name, path, user: rustix::process::geteuid().as_raw() };
        }
        Self::Read { source_name, path, error }
    }

    /// A source, or a folder in it, could not be opened.
    pub(super) fn no_source(source: &Source, blocked: Blocked) -> Self {
        match blocked {
            Blocked::Refused { at, error } => Self::read(source, &at, error),
            Blocked::Absent { .. } | Blocked::Obstacle { .. } | Blocked::Upward { .. } => {
                Self::NoSource { source_name: source.description.clone(), blocked }
            }
        }
    }

    /// The root folder of a volume could not be written.
    pub(super) fn root(volume: &str, error: io::Error) -> Self {
        if error.kind() != io::ErrorKind::PermissionDenied {
            return Self::write(volume, Path::new("."), error);
        }
        let (user, group) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        Self::RootClosed { volume: volume.to_owned(), user, group, error }
    }

    /// A symbolic link could not be created in a volume. Where the file system has none, the error of the system is `EPERM` (Linux's
    /// own file systems) or that the operation is not supported (SMB).
    pub(super) fn link(volume: &str, path: &Path, error: io::Error) -> Self {
        match Errno::from_io_error(&error) {
            Some(Errno::PERM | Errno::OPNOTSUPP | Errno::NOSYS) => {
                Self::NoLinks { volume: volume.to_owned(), path: path.to_owned(), error }
            }
            _ => Self::write(volume, path, error),
        }
    }

    /// Something in a volume could not be written.
    pub(super) fn write(volume: &str, path: &Path, error: io::Error) -> Self {
        let (volume, path) = (volume.to_owned(), path.to_owned());
        match Errno::from_io_error(&error) {
            Some(Errno::NOSPC | Errno::DQUOT) => Self::NoSpace { volume, path },
            _ => Self::Write { volume, path, error },
        }
    }

    /// What has to change.
    pub fn fault(&self) -> Fault {
        match self {
            Self::RootClosed { volume, .. } => Fault::Root(volume.clone()),
            Self::InTheWay { volume, blocked: Blocked::Refused { .. } } => Fault::Folder(volume.clone()),
            Self::InTheWay { volume, .. } => Fault::Obstacle(volume.clone()),
            Self::NoSpace { volume, .. } => Fault::Size(volume.clone()),
            // The root folder could be written, so it is a folder in the volume that is closed.
            Self::Write { volume, error, .. } if error.kind() == io::ErrorKind::PermissionDenied => {
                Fault::Folder(volume.clone())
            }
            Self::NoVolume { volume, .. }
            | Self::NotShared { volume, .. }
            | Self::NoLinks { volume, .. }
            | Self::Write { volume, .. } => Fault::Storage(volume.clone()),
            Self::NoManifest
            | Self::BadManifest(_)
            | Self::BadPath { .. }
            | Self::NoSource { .. }
            | Self::ReservedName { .. }
            | Self::NotCopied { .. }
            | Self::Unreadable { .. }
            | Self::Read { .. }
            | Self::Conflict { .. }
            | Self::NoSuchRoots { .. }
            | Self::Signals(_) => Fault::Source,
        }
    }
}
