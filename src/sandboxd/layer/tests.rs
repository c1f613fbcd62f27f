//! Layers over temporary folders. A tree is what every program could see of it: `tree::Snapshot`.

use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{Cursor, Seek};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use tempfile::TempDir;

use super::entry::Time;
use super::*;
use crate::sandboxd::folder::Folder;

mod changes;
mod fuzz;
mod hostile;
mod killed;
mod measure;
mod packed;
mod tree;

/// A moment after all others: only the baseline decides.
const NEVER: Time = Time { seconds: i64::MAX, nanoseconds: 0 };

/// A tree, a copy of it, and its baseline.
struct World {
    base: TempDir,
    baseline: File,
    moment: Time,
}

impl World {
    /// Makes a tree, then its copy and its baseline.
    fn new(make: impl FnOnce(&Path)) -> Self {
        let base = tempfile::tempdir().unwrap();
        let tree = base.path().join("tree");
        fs::create_dir(&tree).unwrap();
        make(&tree);
        copy(&tree, &base.path().join("copy"));
        let moment = base.path().join("moment");
        File::create(&moment).unwrap();
        let stat = fs::metadata(&moment).unwrap();
        let moment = Time { seconds: stat.ctime(), nanoseconds: u32::try_from(stat.ctime_nsec()).unwrap() };
        let mut baseline = tempfile::tempfile().unwrap();
        baseline::write(&Folder::open(&tree).unwrap(), &mut baseline).unwrap();
        baseline.rewind().unwrap();
        Self { base, baseline, moment }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.base.path().join(name)
    }

    fn tree(&self) -> PathBuf {
        self.path("tree")
    }

    fn pack_since(&self, moment: Time) -> Result<(Vec<u8>, Packed), Error> {
        let since = Since { baseline: &self.baseline, moment };
        pack_with(&self.tree(), Some(since), &[])
    }

    /// Packs what changed, unpacks it onto the copy, and compares.
    fn check_since(&self, moment: Time) -> Packed {
        let (layer, packed) = self.pack_since(moment).unwrap();
        unpack_to(&layer, &self.path("copy"), packed.unpacked).unwrap();
        tree::assert_same(&self.tree(), &self.path("copy"));
        packed
    }
}

fn pack_with(tree: &Path, since: Option<Since<'_>>, exclude: &[PathBuf]) -> Result<(Vec<u8>, Packed), Error> {
    let mut packer = Packer::new(Vec::new())?;
    let root = Folder::open(tree).unwrap();
    packer.add(&Tree { root: &root, prefix: Path::new(""), since, exclude })?;
    packer.finish()
}

fn pack(tree: &Path) -> (Vec<u8>, Packed) {
    pack_with(tree, None, &[]).unwrap()
}

fn unpack_to(layer: &[u8], into: &Path, limit: u64) -> Result<Unpacked, Error> {
    let folder = Folder::open(into).unwrap();
    unpack(layer, &[Target { prefix: Path::new(""), folder: &folder }], Owners::Keep, limit)
}

/// Unpacks an archive that is not compressed.
fn untar(archive: &[u8], into: &Path, limit: u64) -> Result<Unpacked, Error> {
    let folder = Folder::open(into).unwrap();
    unpack::unpack_tar(Cursor::new(archive), &[Target { prefix: Path::new(""), folder: &folder }], Owners::Keep, limit)
}

fn copy(from: &Path, to: &Path) {
    assert!(Command::new("cp").arg("-a").args([from, to]).status().unwrap().success());
}

fn name(bytes: &[u8]) -> &OsStr {
    OsStr::from_bytes(bytes)
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}
