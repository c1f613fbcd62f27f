//! Examines all sources of a volume before the first byte is written.
//!
//! All errors in the sources are found here, and nothing is changed. Sources are compared with each other, never with the volume.
//! So a conflict is also found after an interrupted run has put one of the two files there.

use std::collections::{BTreeSet, HashMap};
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

use super::PART;
use super::error::Error;
use crate::protocol::staging::{MARKER, Source, Volume};
use crate::sandboxd::folder::{Folder, Kind, LOST_AND_FOUND, same_content};

/// The link through which the kubelet replaces the content of a `ConfigMap` or Secret as a whole: each key is a link into it.
const CONFIG_MAP_DATA: &str = "..data";

/// What one source adds to its volume.
#[derive(Debug)]
pub struct Gathered<'a> {
    /// The source.
    pub source: &'a Source,
    /// The source's folder, held open.
    pub root: Folder,
    /// The folder of the volume that the source is copied into.
    pub into: PathBuf,
    /// The folders of the source, each after its parent.
    pub sections: Vec<Section>,
}

/// One folder of a source.
#[derive(Debug)]
pub struct Section {
    /// The path of the folder below the source's root.
    pub from: PathBuf,
    /// The folder of the volume that it is copied into.
    pub into: PathBuf,
    /// The files and links in the folder.
    pub items: Vec<Item>,
}

/// One file or link.
#[derive(Debug)]
pub struct Item {
    /// The name, in the source and in the volume.
    pub name: OsString,
    /// What exists under that name.
    pub content: Content,
}

/// What is copied.
#[derive(Debug, PartialEq, Eq)]
pub enum Content {
    /// A regular file.
    File {
        /// Whether anybody may execute it.
        executable: bool,
    },
    /// A symbolic link.
    Link {
        /// The bytes of its target. They are copied and compared as they are: a path that means the same is another target.
        target: OsString,
    },
}

/// Examines all sources of a volume.
///
/// # Errors
/// When a source cannot be staged, or two sources contradict each other.
pub fn survey(volume: &Volume) -> Result<Vec<Gathered<'_>>, Error> {
    let mut surveyor = Surveyor { volume, gathered: Vec::new(), taken: HashMap::new(), offered: BTreeSet::new() };
    for source in &volume.sources {
        surveyor.visit(source)?;
    }
    surveyor.check_roots()?;
    Ok(surveyor.gathered)
}

/// The first-level folders that the sources of a volume bring. A source that cannot be read brings none; the survey reports the
/// error.
pub fn roots(volume: &Volume) -> BTreeSet<OsString> {
    let mut roots: BTreeSet<_> =
        volume.sources.iter().flat_map(|source| roots_of(source).unwrap_or_default()).collect();
    roots.retain(|root| selects(volume, root));
    roots
}

fn roots_of(source: &Source) -> Option<Vec<OsString>> {
    let into = destination(source).ok()?;
    if let Some(first) = into.iter().next() {
        return Some(vec![first.to_owned()]);
    }
    let root = Folder::open(Path::new(&source.mount_path)).ok()?;
    let keys = config_map_keys(&root).and_then(|keys| root.descend(&keys).ok());
    let mut roots = Vec::new();
    for folder in [Some(root), keys].into_iter().flatten() {
        let mut names = folder.names().ok()?;
        hide_housekeeping(&folder, &mut names);
        names.retain(|name| matches!(folder.kind(name), Ok(Some(Kind::Folder))));
        roots.extend(names);
    }
    Some(roots)
}

/// Whether the chosen roots, if any are chosen, include a first-level folder.
fn selects(volume: &Volume, root: &OsStr) -> bool {
    volume.top_roots.as_ref().is_none_or(|roots| roots.iter().any(|chosen| root == chosen.as_str()))
}

/// The source that put something at a path of the volume.
#[derive(Clone, Copy)]
enum Claim {
    Folder { source: usize },
    Item { source: usize, section: usize, item: usize },
}

struct Surveyor<'a> {
    volume: &'a Volume,
    gathered: Vec<Gathered<'a>>,
    taken: HashMap<PathBuf, Claim>,
    /// The first-level folders of all sources, whether they are chosen or not.
    offered: BTreeSet<OsString>,
}

impl<'a> Surveyor<'a> {
    fn visit(&mut self, source: &'a Source) -> Result<(), Error> {
        let into = destination(source)?;
        let root = Folder::open(Path::new(&source.mount_path)).map_err(|blocked| Error::no_source(source, blocked))?;
        let keys = config_map_keys(&root);
        self.gathered.push(Gathered { source, root, into: into.clone(), sections: Vec::new() });

        if let Some(first) = into.iter().next() {
            self.offered.insert(first.to_owned());
            if !selects(self.volume, first) {
                return Ok(());
            }
        }
        let mut pending = vec![(PathBuf::new(), into.clone())];
        if let Some(keys) = keys {
            pending.push((keys, into));
        }
        while let Some((from, into)) = pending.pop() {
            self.claim_folder(&into)?;
            pending.extend(self.visit_folder(from, into)?);
        }
        Ok(())
    }

    /// Records the files and links of one folder, and returns the folders in it.
    fn visit_folder(&mut self, from: PathBuf, into: PathBuf) -> Result<Vec<(PathBuf, PathBuf)>, Error> {
        let source = self.current().source;
        let shown = into.strip_prefix(&self.current().into).unwrap_or(&into).to_owned();
        let folder = self.current().root.descend(&from).map_err(|blocked| Error::no_source(source, blocked))?;
        let mut names = folder.names().map_err(|error| Error::read(source, or_dot(&shown), error))?;
        if from.as_os_str().is_empty() {
            hide_housekeeping(&folder, &mut names);
        }

        self.current_mut().sections.push(Section { from: from.clone(), into: into.clone(), items: Vec::new() });
        let mut folders = Vec::new();
        for name in names {
            let path = shown.join(&name);
            let kind = folder.kind(&name).map_err(|error| Error::read(source, &path, error))?;
            let Some(kind) = kind.filter(|kind| self.takes(&into, &name, *kind)) else { continue };
            match kind {
                Kind::Folder => folders.push((from.join(&name), into.join(&name))),
                Kind::File { executable } => {
                    folder.read(&name).map_err(|error| Error::read(source, &path, error))?;
                    self.claim_item(&into, Item { name, content: Content::File { executable } })?;
                }
                Kind::Link => {
                    let target = folder.link_target(&name).map_err(|error| Error::read(source, &path, error))?;
                    self.claim_item(&into, Item { name, content: Content::Link { target } })?;
                }
                Kind::Special => {
                    return Err(Error::NotCopied { source_name: source.description.clone(), path, kind });
                }
            }
        }
        // The last one is visited first.
        folders.reverse();
        Ok(folders)
    }

    /// Whether the chosen roots include an entry: below the first level all entries, at the first level only the chosen folders.
    fn takes(&mut self, into: &Path, name: &OsStr, kind: Kind) -> bool {
        if !into.as_os_str().is_empty() {
            return true;
        }
        if kind == Kind::Folder {
            self.offered.insert(name.to_owned());
            return selects(self.volume, name);
        }
        self.volume.top_roots.is_none()
    }

    fn check_roots(&self) -> Result<(), Error> {
        let chosen = self.volume.top_roots.iter().flatten().map(String::as_str);
        let required = chosen.filter(|root| !self.volume.optional_roots.contains(*root));
        let missing: Vec<_> = required.filter(|root| !self.offered.contains(OsStr::new(root))).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let offered: Vec<_> = self.offered.iter().map(|root| root.to_string_lossy()).collect();
        let offered = if offered.is_empty() { "no folders".to_owned() } else { offered.join(", ") };
        Err(Error::NoSuchRoots { volume: self.volume.name.clone(), missing: missing.join(", "), offered })
    }

    /// Records a folder and all its parents; sources may share folders.
    fn claim_folder(&mut self, into: &Path) -> Result<(), Error> {
        let source = self.gathered.len() - 1;
        let parts = into.ancestors().filter(|part| !part.as_os_str().is_empty());
        for part in parts {
            self.check_name(part)?;
            let claim = *self.taken.entry(part.to_owned()).or_insert(Claim::Folder { source });
            if let Claim::Item { source: first, .. } = claim {
                return Err(self.conflict(part, first));
            }
        }
        Ok(())
    }

    /// Records a file or link for the last section; an identical file or link of another source is not copied again.
    fn claim_item(&mut self, into: &Path, item: Item) -> Result<(), Error> {
        let place = into.join(&item.name);
        self.check_name(&place)?;
        if let Some(claim) = self.taken.get(&place).copied() {
            return self.agree(&place, claim, &item);
        }
        let source = self.gathered.len() - 1;
        let sections = &mut self.current_mut().sections;
        let section = sections.len() - 1;
        let items = &mut sections[section].items;
        items.push(item);
        let claim = Claim::Item { source, section, item: items.len() - 1 };
        self.taken.insert(place, claim);
        Ok(())
    }

    /// Compares a file or link with what another source brings to the same path.
    fn agree(&mut self, place: &Path, claim: Claim, new: &Item) -> Result<(), Error> {
        let (source, section, item) = match claim {
            Claim::Folder { source } => return Err(self.conflict(place, source)),
            Claim::Item { source, section, item } => (source, section, item),
        };
        let first = &self.gathered[source].sections[section].items[item];
        let same = match (&first.content, &new.content) {
            (Content::File { .. }, Content::File { .. }) => {
                let current = self.current();
                let mut one = open(&self.gathered[source], section, &new.name)?;
                let mut other = open(current, current.sections.len() - 1, &new.name)?;
                same_content(&mut one, &mut other).map_err(|error| Error::read(current.source, place, error))?
            }
            (first, second) => first == second,
        };
        if !same {
            return Err(self.conflict(place, source));
        }
        let first = &mut self.gathered[source].sections[section].items[item];
        if let (Content::File { executable }, Content::File { executable: true }) = (&mut first.content, &new.content) {
            *executable = true;
        }
        Ok(())
    }

    fn check_name(&self, place: &Path) -> Result<(), Error> {
        if place.starts_with(MARKER) || place.starts_with(PART) {
            let source_name = self.current().source.description.clone();
            return Err(Error::ReservedName { source_name, path: place.to_owned() });
        }
        Ok(())
    }

    fn conflict(&self, place: &Path, first: usize) -> Error {
        Error::Conflict {
            volume: self.volume.name.clone(),
            path: place.to_owned(),
            first: self.gathered[first].source.description.clone(),
            second: self.current().source.description.clone(),
        }
    }

    /// The source that is being examined.
    fn current(&self) -> &Gathered<'a> {
        &self.gathered[self.gathered.len() - 1]
    }

    fn current_mut(&mut self) -> &mut Gathered<'a> {
        let last = self.gathered.len() - 1;
        &mut self.gathered[last]
    }
}

/// The folder of the volume that a source is copied into.
fn destination(source: &Source) -> Result<PathBuf, Error> {
    let path = Path::new(&source.path);
    if path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir)) {
        return Ok(path.components().filter(|part| matches!(part, Component::Normal(_))).collect());
    }
    Err(Error::BadPath { source_name: source.description.clone(), path: source.path.clone() })
}

/// The folder that holds the keys of a `ConfigMap`, if the source is a `ConfigMap`. The kubelet's link contains nothing but the name
/// of that folder, which lies beside the link and begins with `..`.
fn config_map_keys(root: &Folder) -> Option<PathBuf> {
    let keys = PathBuf::from(root.link_target(OsStr::new(CONFIG_MAP_DATA)).ok()?);
    let name = keys.file_name().filter(|name| *name == keys && name.as_bytes().starts_with(b".."))?;
    matches!(root.kind(name), Ok(Some(Kind::Folder))).then_some(keys)
}

/// Removes the names that a file system or the kubelet creates at a source's root for its own use. These include the links to the
/// keys of a `ConfigMap`, because the keys are taken from the folder that holds them.
fn hide_housekeeping(root: &Folder, names: &mut Vec<OsString>) {
    let is_config_map = config_map_keys(root).is_some();
    let is_key =
        |name: &OsStr| root.link_target(name).is_ok_and(|target| target == Path::new(CONFIG_MAP_DATA).join(name));
    names.retain(|name| {
        let visible = name != LOST_AND_FOUND && !name.as_bytes().starts_with(b"..");
        visible && !(is_config_map && is_key(name))
    });
}

fn open(gathered: &Gathered<'_>, section: usize, name: &OsStr) -> Result<std::fs::File, Error> {
    let Gathered { source, root, sections, .. } = gathered;
    let from = &sections[section].from;
    let folder = root.descend(from).map_err(|blocked| Error::no_source(source, blocked))?;
    folder.read(name).map_err(|error| Error::read(source, &from.join(name), error))
}

/// The path as it is shown: a source's own root has no name.
fn or_dot(path: &Path) -> &Path {
    if path.as_os_str().is_empty() { Path::new(".") } else { path }
}
