//! What the gate writes down: its lock, its progress, and the log.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use crate::protocol::init::InitProgress;

/// The folder of a gate's state.
#[derive(Clone, Debug)]
pub struct State(PathBuf);

impl State {
    pub fn at(folder: &Path) -> Self {
        Self(folder.to_path_buf())
    }

    /// The lock file, in a description of its own.
    pub fn lock(&self) -> io::Result<File> {
        File::options().create(true).truncate(false).write(true).open(self.0.join("lock"))
    }

    /// What was done so far; `None`: nothing has begun.
    pub fn read(&self) -> Option<InitProgress> {
        serde_json::from_str(&super::read(&self.0.join("progress.json"))?).ok()
    }

    /// Writes down what was done, whole or not at all.
    pub fn write(&self, progress: &InitProgress) -> io::Result<()> {
        let part = self.0.join("progress.part");
        fs::write(&part, serde_json::to_vec(progress)?)?;
        fs::rename(part, self.0.join("progress.json"))
    }

    /// The log of all steps.
    pub fn log(&self) -> PathBuf {
        self.0.join("log")
    }

    /// Which skills have their dependencies, where nothing else can be written.
    pub fn markers(&self) -> PathBuf {
        self.0.join("skills")
    }

    /// What was in the log before it became too long.
    pub fn old_log(&self) -> PathBuf {
        self.0.join("log.1")
    }
}
