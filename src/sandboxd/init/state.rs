//! The files of the init supervisor: its lock, its progress, and the log.

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use crate::protocol::init::InitProgress;

/// The folder with the state of the init supervisor.
#[derive(Clone, Debug)]
pub struct State(PathBuf);

impl State {
    pub fn at(folder: &Path) -> Self {
        Self(folder.to_path_buf())
    }

    /// The lock file, as a new description of the file.
    pub fn lock(&self) -> io::Result<File> {
        let path = self.lock_file();
        let lock = File::options().create(true).truncate(false).write(true).open(&path).map_err(naming(&path))?;
        let _ = readable_by_all(&lock); // it may belong to another user
        Ok(lock)
    }

    /// The lock file, for a process that may only read.
    pub fn open_lock(&self) -> io::Result<File> {
        File::open(self.lock_file())
    }

    fn lock_file(&self) -> PathBuf {
        self.0.join("lock")
    }

    /// Whether the success was reported.
    pub fn is_reported(&self) -> bool {
        self.0.join("reported").exists()
    }

    /// Records that the success was reported.
    pub fn set_reported(&self) -> io::Result<()> {
        File::create(self.0.join("reported")).map(drop)
    }

    /// Whether the root file system is as the program of the sandbox is to find it.
    pub fn is_root_ready(&self) -> bool {
        self.0.join("root").exists()
    }

    /// Records that it is.
    pub fn set_root_ready(&self) -> io::Result<()> {
        File::create(self.0.join("root")).map(drop)
    }

    /// The progress so far; `None` if nothing has begun.
    pub fn read(&self) -> Option<InitProgress> {
        serde_json::from_str(&super::read(&self.0.join("progress.json"))?).ok()
    }

    /// Checks that the progress can be written, so that a full or read-only disk is known by its path before the work begins.
    pub fn check(&self) -> io::Result<()> {
        let path = self.0.join("progress.part");
        fs::write(&path, "{}").map_err(naming(&path))
    }

    /// Writes the progress, completely or not at all.
    pub fn write(&self, progress: &InitProgress) -> io::Result<()> {
        let part = self.0.join("progress.part");
        let mut file = File::create(&part)?;
        file.write_all(&serde_json::to_vec(progress)?)?;
        readable_by_all(&file)?;
        fs::rename(part, self.0.join("progress.json"))
    }

    /// The log of all steps.
    pub fn log(&self) -> PathBuf {
        self.0.join("log")
    }

    /// The folder of the markers of skills where no other folder is writable.
    pub fn markers(&self) -> PathBuf {
        self.0.join("skills")
    }

    /// The previous log, which became too long.
    pub fn old_log(&self) -> PathBuf {
        self.0.join("log.1")
    }
}

/// The container that reports the success runs as another user than the sandbox, whose umask may be any.
fn readable_by_all(file: &File) -> io::Result<()> {
    file.set_permissions(Permissions::from_mode(0o644))
}

/// Adds the path to an error.
fn naming(path: &Path) -> impl FnOnce(io::Error) -> io::Error {
    move |error| io::Error::new(error.kind(), format!("{}: {error}", path.display()))
}
