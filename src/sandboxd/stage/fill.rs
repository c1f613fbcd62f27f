//! Writes what the survey has found into a volume. The process may be interrupted at any point.
//!
//! Nothing is written, and no mode is changed, through a symbolic link: it does not matter whether an earlier source, another source
//! or a sandbox put the link there, or whether it appears during the copy.
//!
//! A file is written completely under one temporary name at the volume's root, and then renamed to its place. So every file in its
//! place is complete, a crash leaves at most that one temporary file, and the next run removes it and continues where the previous
//! run ended. The marker is written last. All this holds for a process that dies, not for a node that loses power: nothing here
//! waits for the disk, which for many small files would take longer than everything else.

use std::collections::hash_map::RandomState;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::hash::BuildHasher;
use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use rustix::fs::Mode;

use super::error::Error;
use super::survey::{self, Content, Gathered, Item, Section};
use super::{DATA, PART, Step, Tally, Watch};
use crate::protocol::staging::{Access, MARKER, Source, Staged, Volume};
use crate::sandboxd::folder::{Folder, Kind, Permissions, same_content};
use crate::sandboxd::skills;

/// A volume that is being filled.
pub struct Target<'a> {
    volume: &'a Volume,
    root: Folder,
}

impl<'a> Target<'a> {
    /// Opens a volume.
    pub fn open(volume: &'a Volume) -> Result<Self, Error> {
        let root = Folder::open(Path::new(&volume.mount_path))
            .map_err(|blocked| Error::NoVolume { volume: volume.name.clone(), blocked })?;
        Ok(Self { volume, root })
    }

    /// Whether the volume was filled from exactly these sources before.
    pub fn is_marked(&self, digest: &str) -> bool {
        let mut content = String::new();
        // A marker that is missing or cannot be read only means more work.
        let read = self.root.read(OsStr::new(MARKER)).and_then(|file| file.take(4096).read_to_string(&mut content));
        read.is_ok() && content.lines().next() == Some(digest)
    }

    /// Creates an empty file and removes it: whether the storage lets this run write, and lets sandboxes read what it writes. So what
    /// is wrong with the storage is known before the sources are read, and not confused with a folder that a sandbox has closed.
    pub fn try_out(&self, watch: &mut Watch<'_>) -> Result<(), Error> {
        let part = Path::new(PART);
        let mut create = || {
            watch(Step::Change(part))?;
            self.root.allow(self.folder_mode())?;
            let (name, file) = self.part(self.file_mode(false))?;
            watch(Step::Change(part))?;
            let (root, file) = (self.root.permissions()?, Permissions::of(&file)?);
            self.root.remove(&name)?;
            // The root of another user has an owner who decides about it, perhaps by an ACL.
            let is_own = root.owner == rustix::process::geteuid().as_raw();
            Ok([(root, Mode::XOTH)].into_iter().filter(|_| is_own).chain([(file, Mode::ROTH)]).collect::<Vec<_>>())
        };
        let found = create().map_err(|error| Error::root(&self.volume.name, error))?;
        match found.into_iter().find(|(permissions, needed)| !permissions.grant(*needed)) {
            Some((Permissions { mode, group, .. }, _)) => {
                Err(Error::NotShared { volume: self.volume.name.clone(), mode: mode.as_raw_mode(), group })
            }
            None => Ok(()),
        }
    }

    /// Records that the volume was filled from these sources.
    pub fn mark(&self, digest: &str, watch: &mut Watch<'_>) -> Result<(), Error> {
        let marker = Path::new(MARKER);
        let write = || {
            watch(Step::Change(marker))?;
            let (part, mut file) = self.part(Mode::from_raw_mode(0o644))?;
            writeln!(file, "{digest}")?;
            self.root.rename(&part, &self.root, marker.as_os_str())
        };
        self.noting(marker, write)
    }

    /// The volume's first-level folders that come from its sources: nothing may request the folders that sandboxes create beside
    /// them.
    pub fn roots(&self) -> Vec<String> {
        let restored = self.volume.restored.as_ref().map(|roots| roots.iter().map(OsString::from).collect());
        let mut roots = restored.unwrap_or_else(|| survey::roots(self.volume));
        roots.retain(|root| matches!(self.root.kind(root), Ok(Some(Kind::Folder))));
        roots.iter().map(|root| root.to_string_lossy().into_owned()).collect()
    }

    /// The folders of the volume that hold a skill.
    pub fn skills(&self) -> Vec<String> {
        skills::scan(&self.root, |_| true).paths
    }

    /// Copies everything that the sources bring and that is not there yet.
    pub fn fill(&self, gathered: &[Gathered<'_>], watch: &mut Watch<'_>) -> Result<Staged, Error> {
        self.noting(Path::new(PART), || self.remove_part())?;
        // A volume that was filled before stays as its sandboxes know it.
        let is_first = self.noting(Path::new(MARKER), || self.root.kind(OsStr::new(MARKER)))?.is_none();
        if is_first {
            self.share(&self.root);
        }
        let mut staged = Staged::default();
        for gathered in gathered {
            let mut tally = Tally::default();
            for section in &gathered.sections {
                self.fill_folder(gathered, section, is_first, &mut tally, watch)?;
            }
            let done = Step::Done { volume: self.volume, source: gathered.source, tally };
            self.noting(&gathered.into, || watch(done))?;
            staged.files += tally.written;
            staged.kept += tally.kept;
        }
        Ok(staged)
    }

    fn fill_folder(
        &self,
        gathered: &Gathered<'_>,
        section: &Section,
        is_first: bool,
        tally: &mut Tally,
        watch: &mut Watch<'_>,
    ) -> Result<(), Error> {
        let source = gathered.source;
        let from = gathered.root.descend(&section.from).map_err(|blocked| Error::no_source(source, blocked))?;
        let into = self.folder(&section.into, is_first, watch)?;
        for item in &section.items {
            let task = CopyTask { source, from: &from, into: &into, item, path: section.into.join(&item.name) };
            match self.standing(&task)? {
                Existing::Absent => match self.put(&task, watch)? {
                    Some(bytes) => {
                        tally.bytes += bytes;
                        tally.written += 1;
                    }
                    None => self.keep(&task, tally, watch)?,
                },
                Existing::Same => tally.same += 1,
                Existing::Other => self.keep(&task, tally, watch)?,
            }
        }
        Ok(())
    }

    /// Keeps what a sandbox has put there.
    fn keep(&self, task: &CopyTask<'_>, tally: &mut Tally, watch: &mut Watch<'_>) -> Result<(), Error> {
        tally.kept += 1;
        let CopyTask { source, path, .. } = task;
        self.noting(path, || watch(Step::Keep { volume: self.volume, source, path }))
    }

    /// Opens a folder of the volume, and creates missing folders on the way. When the volume is filled for the first time, a run that was
    /// interrupted may have created some of them.
    fn folder(&self, path: &Path, is_first: bool, watch: &mut Watch<'_>) -> Result<Folder, Error> {
        let blocked = |blocked| Error::InTheWay { volume: self.volume.name.clone(), blocked };
        let mut folder = self.root.descend(Path::new("")).map_err(blocked)?;
        let mut at = PathBuf::new();
        for name in path {
            let above = at.clone();
            at.push(name);
            let is_new = self.noting(&at, || {
                if folder.kind(name)?.is_some() {
                    return Ok(false);
                }
                watch(Step::Change(&at))?;
                folder.make(name, self.folder_mode()).map(|()| true)
            })?;
            folder = folder.descend(Path::new(name)).map_err(|obstacle| blocked(obstacle.below(&above)))?;
            if is_new || is_first {
                self.share(&folder);
            }
            self.noting(&at, || folder.allow(self.folder_mode()))?;
        }
        Ok(folder)
    }

    /// On the data volume, lets sandboxes edit what others create in a folder.
    fn share(&self, folder: &Folder) {
        if self.volume.name == DATA {
            folder.share();
        }
    }

    /// Compares what is in the volume with what a source brings.
    fn standing(&self, task: &CopyTask<'_>) -> Result<Existing, Error> {
        let CopyTask { into, item: Item { name, content }, path, .. } = task;
        let Some(kind) = self.noting(path, || into.kind(name))? else { return Ok(Existing::Absent) };
        let same = match (content, kind) {
            (Content::File { .. }, Kind::File { .. }) => match into.read(name) {
                Ok(mut there) => {
                    let mut original = task.original()?;
                    self.noting(path, || same_content(&mut original, &mut there))?
                }
                // The stage user did not write a file that it may not read.
                Err(error) if error.kind() == io::ErrorKind::PermissionDenied => false,
                Err(error) => return Err(Error::write(&self.volume.name, path, error)),
            },
            (Content::Link { target }, Kind::Link) => self.noting(path, || into.link_target(name))? == *target,
            _ => false,
        };
        Ok(if same { Existing::Same } else { Existing::Other })
    }

    /// Puts a file or link where nothing exists, and returns its size; `None` if a sandbox was faster.
    fn put(&self, task: &CopyTask<'_>, watch: &mut Watch<'_>) -> Result<Option<u64>, Error> {
        let CopyTask { into, item: Item { name, content }, path, .. } = task;
        let is_free = |placed: io::Result<()>| match placed {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            placed => placed.map(|()| true),
        };
        match content {
            Content::File { executable } => {
                let mut original = task.original()?;
                self.noting(path, || {
                    watch(Step::Change(path))?;
                    let (part, mut file) = self.part(self.file_mode(*executable))?;
                    watch(Step::Change(path))?;
                    let bytes = io::copy(&mut original, &mut file)?;
                    watch(Step::Change(path))?;
                    if is_free(self.root.rename_new(&part, into, name))? {
                        return Ok(Some(bytes));
                    }
                    self.root.remove(&part)?;
                    Ok(None)
                })
            }
            Content::Link { target } => {
                self.noting(path, || watch(Step::Change(path)))?;
                let placed = is_free(into.link(name, target));
                Ok(placed.map_err(|error| Error::link(&self.volume.name, path, error))?.then_some(0))
            }
        }
    }

    /// Creates an empty temporary file, and returns it with its name. If a sandbox holds the name, another, unpredictable one is used.
    fn part(&self, mode: Mode) -> io::Result<(OsString, File)> {
        self.remove_part()?;
        let mut name = OsString::from(PART);
        let mut created = self.root.create(&name, mode);
        if created.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::AlreadyExists) {
            name.push(format!("-{:016x}", RandomState::new().hash_one(PART)));
            created = self.root.create(&name, mode);
        }
        Ok((name, created?))
    }

    /// Removes the temporary file that an interrupted run has left, unless a sandbox has put a folder there, or a file that only the
    /// sandbox may remove.
    fn remove_part(&self) -> io::Result<()> {
        match self.root.remove(OsStr::new(PART)) {
            Err(error) if matches!(error.kind(), io::ErrorKind::IsADirectory | io::ErrorKind::PermissionDenied) => {
                Ok(())
            }
            removed => removed,
        }
    }

    /// Adds to a failure where it happened.
    pub fn noting<T>(&self, path: &Path, work: impl FnOnce() -> io::Result<T>) -> Result<T, Error> {
        work().map_err(|error| Error::write(&self.volume.name, path, error))
    }

    fn folder_mode(&self) -> Mode {
        match self.volume.access {
            Access::Read => Mode::from_raw_mode(0o755),
            Access::Write => Mode::from_raw_mode(0o777),
        }
    }

    fn file_mode(&self, executable: bool) -> Mode {
        let execute = Mode::XUSR | Mode::XGRP | Mode::XOTH;
        if executable { self.folder_mode() } else { self.folder_mode() - execute }
    }
}

/// One file or link to copy.
struct CopyTask<'e> {
    source: &'e Source,
    from: &'e Folder,
    into: &'e Folder,
    item: &'e Item,
    /// The target path, below the volume's root.
    path: PathBuf,
}

impl CopyTask<'_> {
    fn original(&self) -> Result<File, Error> {
        self.from.read(&self.item.name).map_err(|error| Error::read(self.source, &self.path, error))
    }
}

/// What is in the volume where a source brings something.
enum Existing {
    Absent,
    Same,
    /// From an earlier digest, or written by a sandbox.
    Other,
}
