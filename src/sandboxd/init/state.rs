//! The files of the init supervisor: its lock, its progress, and the log.

use std::fs::{self, File};
use std::io;
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
        File::options().create(true).truncate(false).write(true).open(self.0.join("lock"))
    }

    /// The progress so far; `None` if nothing has begun.
    pub fn read(&self) -> Option<InitProgress> {
        serde_json::from_str(&super::read(&self.0.join("progress.json"))?).ok()
    }

    /// Writes the progress, completely or not at all.
    pub fn write(&self, progress: &InitProgress) -> io::Result<()> {
        let part = self.0.join("progress.part");
        fs::write(&part, serde_json::to_vec(progress)?)?;
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
