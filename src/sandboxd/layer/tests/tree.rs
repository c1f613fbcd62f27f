//! What can be seen of a tree.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};

use super::super::entry;

/// A file or folder.
#[derive(Debug, PartialEq, Eq)]
pub struct Node {
    /// The mode with the type, owner and group, seconds and nanoseconds of the modification.
    pub stat: (u32, u32, u32, i64, i64),
    /// The digest of the content, or the target of the link.
    content: Vec<u8>,
    attributes: Vec<(Vec<u8>, Vec<u8>)>,
    /// The first of its names.
    first: PathBuf,
}

pub type Snapshot = BTreeMap<PathBuf, Node>;

pub fn snapshot(root: &Path) -> Snapshot {
    let mut found = Snapshot::new();
    let mut first = BTreeMap::new();
    look(root, Path::new(""), &mut first, &mut found);
    found
}

fn look(root: &Path, path: &Path, first: &mut BTreeMap<u64, PathBuf>, found: &mut Snapshot) {
    let full = root.join(path);
    let stat = fs::symlink_metadata(&full).unwrap();
    let kind = stat.file_type();
    let (mut content, mut attributes) = (vec![], vec![]);
    if kind.is_symlink() {
        content = fs::read_link(&full).unwrap().as_os_str().as_bytes().to_vec();
    } else if kind.is_file() || kind.is_dir() {
        let mut file = fs::File::open(&full).unwrap();
        for name in entry::list(file.as_fd()).unwrap() {
            let mut value = vec![0; 65536];
            let length = rustix::fs::fgetxattr(&file, std::ffi::OsStr::from_bytes(&name), &mut value[..]).unwrap();
            value.truncate(length);
            attributes.push((name, value));
        }
        attributes.sort();
        // What is large has holes, and is compared by the test itself.
        if kind.is_file() && stat.len() < 64 << 20 {
            let mut bytes = vec![];
            file.read_to_end(&mut bytes).unwrap();
            content = Sha256::digest(&bytes).to_vec();
        }
    } else {
        assert!(kind.is_fifo() || kind.is_socket() || kind.is_char_device(), "{}", full.display());
    }
    let name = if kind.is_dir() { path } else { first.entry(stat.ino()).or_insert_with(|| path.to_owned()) };
    let (name, stat) = (name.to_owned(), (stat.mode(), stat.uid(), stat.gid(), stat.mtime(), stat.mtime_nsec()));
    found.insert(path.to_owned(), Node { stat, content, attributes, first: name });
    if kind.is_dir() {
        let mut names: Vec<_> = fs::read_dir(&full).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        for name in names {
            look(root, &path.join(name), first, found);
        }
    }
}

/// The blocks that all files occupy.
pub fn blocks(root: &Path) -> u64 {
    let paths = snapshot(root).into_keys();
    paths
        .map(|path| fs::symlink_metadata(root.join(path)).unwrap())
        .filter(fs::Metadata::is_file)
        .map(|stat| stat.blocks())
        .sum()
}

#[track_caller]
pub fn assert_same(one: &Path, other: &Path) {
    let (left, right) = (snapshot(one), snapshot(other));
    for (path, node) in &left {
        assert_eq!(Some(node), right.get(path), "{}", path.display());
    }
    let more: Vec<_> = right.keys().filter(|path| !left.contains_key(*path)).collect();
    assert!(more.is_empty(), "{more:?}");
    let (left, right) = (blocks(one), blocks(other));
    assert!(right <= left + 64 + left / 4, "{right} blocks instead of {left}");
}
