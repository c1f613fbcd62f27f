//! The marker which records that a skill's dependencies are installed: a file whose name identifies the skill and everything that
//! its installer may read.
//!
//! The first place is in the container's own file system, beside the installed files: an image that is made from a sandbox has both
//! or neither. Where that place is not writable, as with a read-only root or an unprivileged user, the init supervisor's own folder
//! is used.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::Skill;
use crate::sandboxd::folder::{Folder, Kind};

/// The maximum number of files in `deps`.
const MOST_FILES: usize = 100_000;

/// How many bytes of their content are read: a few seconds of work. Files that are larger than the disk are sparse files, and
/// anybody in the session can create them.
const MOST_BYTES: u64 = 2 * 1024 * 1024 * 1024;

/// The maximum depth of the files.
const DEEPEST: usize = 32;

/// How many characters of a skill's path are in the marker's name, which makes the name readable.
const SHOWN: usize = 80;

/// The marker of a skill.
pub struct Marker {
    name: String,
    /// The folders where the marker may be, the best first.
    places: [PathBuf; 2],
}

impl Marker {
    /// # Errors
    /// When the files that the installer may read cannot be read.
    pub fn of(tools: &Path, skill: &Skill, places: [PathBuf; 2]) -> io::Result<Self> {
        let mut digester = Digester { digest: Sha256::new(), files: 0, bytes: MOST_BYTES };
        // Another type of sandbox may use another installer over the same folder.
        digester.add(&[&skill.path, &skill.installer.to_string_lossy()]);
        let deps = Path::new(&skill.path).join("deps");
        let blocked = |blocked| io::Error::other(crate::sandboxd::sentence(&blocked));
        let deps = Folder::open(tools).and_then(|tools| tools.descend(&deps)).map_err(blocked)?;
        digester.add_folder(&deps, 0)?;
        let plain = |c: char| if c.is_ascii_alphanumeric() || "-_.".contains(c) { c } else { '_' };
        let mut name: String = skill.path.chars().map(plain).take(SHOWN).collect();
        name.push('-');
        for byte in digester.digest.finalize().iter().take(16) {
            let _ = write!(name, "{byte:02x}");
        }
        Ok(Self { name, places })
    }

    /// Whether the marker exists.
    pub fn is_set(&self) -> bool {
        self.places.iter().any(|place| place.join(&self.name).is_file())
    }

    /// Creates the marker in the first place that is writable. If there is none, the next start does the work again.
    pub fn set(&self) {
        let put =
            |place: &PathBuf| fs::create_dir_all(place).and_then(|()| fs::write(place.join(&self.name), "")).is_ok();
        let _ = self.places.iter().any(put);
    }
}

/// The digest over the files of a folder.
struct Digester {
    digest: Sha256,
    files: usize,
    /// How many bytes of content may still be read.
    bytes: u64,
}

impl Digester {
    /// Adds words with their lengths, which makes the digests of different lists of words different.
    fn add(&mut self, words: &[&str]) {
        for word in words {
            self.digest.update((word.len() as u64).to_le_bytes());
            self.digest.update(word);
        }
    }

    fn add_folder(&mut self, folder: &Folder, depth: usize) -> io::Result<()> {
        for name in folder.names()? {
            self.files += 1;
            if self.files > MOST_FILES || depth > DEEPEST {
                return Err(io::Error::other(format!("its deps hold more than {MOST_FILES} files, or are too deep")));
            }
            let shown = name.to_string_lossy();
            match folder.kind(&name)? {
                Some(Kind::Folder) => {
                    self.add(&["folder", &shown]);
                    let inner = folder.descend(Path::new(&name));
                    let inner = inner.map_err(|blocked| io::Error::other(crate::sandboxd::sentence(&blocked)))?;
                    self.add_folder(&inner, depth + 1)?;
                    self.add(&["end"]);
                }
                Some(Kind::File { executable }) => {
                    self.add(&[if executable { "program" } else { "file" }, &shown]);
                    self.add_file(folder.read(&name)?)?;
                }
                Some(Kind::Link) => self.add(&["link", &shown, &folder.link_target(&name)?.to_string_lossy()]),
                Some(Kind::Special) | None => {}
            }
        }
        Ok(())
    }

    /// Adds the content of a file, or, if there is too much content, the size and modification time of the file.
    fn add_file(&mut self, file: File) -> io::Result<()> {
        let metadata = file.metadata()?;
        if let Some(rest) = self.bytes.checked_sub(metadata.len()) {
            self.bytes = rest;
            self.digest.update(content(file.take(metadata.len()))?);
        } else {
            let (seconds, nanoseconds) = (metadata.mtime(), metadata.mtime_nsec());
            self.add(&["large", &format!("{} {seconds}.{nanoseconds}", metadata.len())]);
        }
        Ok(())
    }
}

fn content(mut file: impl Read) -> io::Result<[u8; 32]> {
    let mut digest = Sha256::new();
    let mut buffer = vec![0; 64 * 1024];
    loop {
        match file.read(&mut buffer) {
            Ok(0) => return Ok(digest.finalize().into()),
            Ok(length) => digest.update(&buffer[..length]),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use tempfile::TempDir;

    use super::*;

    fn skill() -> Skill {
        Skill { path: "fuzz/afl".into(), installer: "deps/install.sh".into(), interpreter: vec![] }
    }

    fn tools() -> TempDir {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir_all(folder.path().join("fuzz/afl/deps/wheels")).unwrap();
        fs::write(folder.path().join("fuzz/afl/deps/install.sh"), "echo").unwrap();
        fs::write(folder.path().join("fuzz/afl/deps/wheels/a"), "a").unwrap();
        folder
    }

    fn marker(tools: &TempDir, skill: &Skill) -> Marker {
        let places = ["image", "state"].map(|name| tools.path().join("places").join(name));
        Marker::of(tools.path(), skill, places).unwrap()
    }

    #[test]
    fn the_name_changes_with_the_content_of_the_deps() {
        let tools = tools();
        let deps = tools.path().join("fuzz/afl/deps");
        let mut names = vec![marker(&tools, &skill()).name];
        assert!(names[0].starts_with("fuzz_afl-"), "{names:?}");
        fs::write(tools.path().join("fuzz/afl/SKILL.md"), "").unwrap();
        assert_eq!(marker(&tools, &skill()).name, names[0], "files beside the deps do not matter");
        let mut changes: Vec<Box<dyn Fn()>> = vec![
            Box::new(|| fs::write(deps.join("wheels/a"), "b").unwrap()),
            Box::new(|| fs::rename(deps.join("wheels/a"), deps.join("wheels/b")).unwrap()),
            Box::new(|| fs::rename(deps.join("wheels/b"), deps.join("b")).unwrap()),
            Box::new(|| fs::set_permissions(deps.join("b"), fs::Permissions::from_mode(0o755)).unwrap()),
            Box::new(|| symlink("/nowhere", deps.join("link")).unwrap()),
        ];
        for change in changes.drain(..) {
            change();
            names.push(marker(&tools, &skill()).name);
        }
        names.push(marker(&tools, &Skill { installer: "deps/fuzz/install.sh".into(), ..skill() }).name);
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }

    /// A sparse file of this size takes no disk space, and would take hours to read.
    #[test]
    fn of_too_much_content_only_the_size_and_the_time_are_read() {
        let tools = tools();
        let large = File::create(tools.path().join("fuzz/afl/deps/a-large")).unwrap();
        let mut names = vec![];
        for size in [1 << 43, (1 << 43) + 1] {
            large.set_len(size).unwrap();
            names.push(marker(&tools, &skill()).name);
        }
        fs::write(tools.path().join("fuzz/afl/deps/wheels/a"), "b").unwrap();
        names.push(marker(&tools, &skill()).name);
        names.dedup();
        assert_eq!(names.len(), 3, "the size counts, and the content of small files");
    }

    #[test]
    fn it_is_put_into_the_first_place_that_takes_it_and_found_in_any() {
        let tools = tools();
        let marker = marker(&tools, &skill());
        assert!(!marker.is_set());
        fs::create_dir_all(tools.path().join("places")).unwrap();
        fs::write(tools.path().join("places/image"), "in the way").unwrap();
        marker.set();
        assert!(marker.is_set() && tools.path().join("places/state").join(&marker.name).exists());
        fs::remove_file(tools.path().join("places/image")).unwrap();
        fs::remove_dir_all(tools.path().join("places/state")).unwrap();
        marker.set();
        assert!(marker.is_set() && tools.path().join("places/image").join(&marker.name).exists());
    }
}
