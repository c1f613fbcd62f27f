//! Random changes of random trees: the layer makes a copy of the tree from before into the tree.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::Write;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use rustix::fs::{AtFlags, CWD, Mode, OFlags, Timespec, Timestamps, XattrFlags};

use super::*;

/// A change: what, and numbers that choose where.
type Change = (u8, u16, u16, u16);

const NAMES: [&[u8]; 10] = [b"a", b"b", b"a.c", b"a-b", b"line\nfeed", b"not \xff utf-8", b"a b", b"-rf", b"%", b"=1"];

/// The kinds of changes that a future T0 does not hide: those of names.
const OF_NAMES: u8 = 9;

fn changes(kinds: u8) -> impl Strategy<Value = Vec<Change>> {
    prop::collection::vec((0..kinds, any::<u16>(), any::<u16>(), any::<u16>()), 0..40)
}

/// All paths of a tree, without its root.
fn paths(root: &Path) -> Vec<PathBuf> {
    tree::snapshot(root).into_keys().skip(1).map(|path| root.join(path)).collect()
}

fn pick(from: &[PathBuf], number: u16) -> Option<&PathBuf> {
    from.get(usize::from(number) % from.len().max(1))
}

fn apply(root: &Path, changes: &[Change]) {
    for &change in changes {
        // Many changes are not possible where they are tried.
        let _ = try_apply(root, change);
    }
}

fn try_apply(root: &Path, (kind, one, two, three): Change) -> std::io::Result<()> {
    let all = paths(root);
    let mut folders: Vec<_> = all.iter().filter(|path| path.is_dir() && !path.is_symlink()).cloned().collect();
    folders.push(root.to_owned());
    let files: Vec<_> = all.iter().filter(|path| path.is_file() && !path.is_symlink()).cloned().collect();
    let folder = pick(&folders, one).unwrap();
    let some = || pick(&all, two).ok_or(std::io::ErrorKind::NotFound);
    let file = || pick(&files, two).ok_or(std::io::ErrorKind::NotFound);
    let new = folder.join(name(NAMES[usize::from(three) % NAMES.len()]));
    let text = vec![(three >> 8) as u8; usize::from(two) % 9000];
    match kind {
        0 => File::create_new(&new)?.write_all(&text)?,
        1 => fs::create_dir(&new)?,
        2 => fs::rename(some()?, &new)?,
        3 => fs::remove_file(some()?)?,
        4 => fs::remove_dir_all(some()?)?,
        5 => symlink(name(NAMES[usize::from(two) % NAMES.len()]), &new)?,
        6 => rustix::fs::mkfifoat(CWD, &new, Mode::RUSR)?,
        // Another type takes the name.
        7 => {
            fs::remove_file(some()?)?;
            fs::create_dir(some()?)?;
        }
        8 => {
            fs::remove_dir_all(some()?)?;
            File::create_new(some()?)?.write_all(&text)?;
        }
        OF_NAMES => fs::hard_link(some()?, &new)?,
        10 => OpenOptions::new().append(true).open(file()?)?.write_all(&text)?,
        11 => OpenOptions::new().write(true).open(file()?)?.write_at(&text, 0).map(|_| ())?,
        12 => fs::set_permissions(some()?, Permissions::from_mode(u32::from(three) & 0o7777 | 0o500))?,
        13 => {
            let past = Timespec { tv_sec: i64::from(three) - 1000, tv_nsec: i64::from(two) };
            let times = Timestamps { last_access: past, last_modification: past };
            rustix::fs::utimensat(CWD, some()?, &times, AtFlags::SYMLINK_NOFOLLOW)?;
        }
        14 => {
            let file = File::create_new(&new)?;
            file.write_at(&text, u64::from(three) << 12)?;
            file.set_len(u64::from(three) << 13)?;
        }
        15 => rustix::fs::setxattr(some()?, "user.one", &text[..text.len() % 1000], XattrFlags::empty())?,
        16 => rustix::fs::removexattr(some()?, "user.one")?,
        _ => std::os::unix::fs::lchown(some()?, Some(u32::from(one)), Some(u32::from(three)))?,
    }
    Ok(())
}

fn kinds() -> u8 {
    if is_root() { 18 } else { 17 }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_changed_is_restored(before in changes(kinds()), after in changes(kinds())) {
        let world = World::new(|root| apply(root, &before));
        apply(&world.tree(), &after);
        world.check_since(world.moment);
    }

    /// Without the help of a ctime: as where a folder was renamed, and its files have old ones.
    #[test]
    fn names_and_inode_numbers_suffice_for_names(before in changes(kinds()), after in changes(OF_NAMES)) {
        let world = World::new(|root| apply(root, &before));
        // The inode number of a file that is open is not given to another one.
        let open = |path| rustix::fs::openat(CWD, &path, OFlags::PATH | OFlags::NOFOLLOW, Mode::empty()).unwrap();
        let held: Vec<_> = paths(&world.tree()).into_iter().map(open).collect();
        apply(&world.tree(), &after);
        let (layer, packed) = world.pack_since(NEVER).unwrap();
        unpack_to(&layer, &world.path("copy"), packed.unpacked).unwrap();
        drop(held);
        let known: Vec<_> = [world.tree(), world.path("copy")].iter().map(|root| {
            let mut found = tree::snapshot(root);
            // The times of folders are not those of names.
            found.retain(|path, _| !root.join(path).is_dir() || root.join(path).is_symlink());
            found
        }).collect();
        prop_assert_eq!(&known[0], &known[1]);
    }

    #[test]
    fn a_whole_tree_is_restored(changes in changes(kinds())) {
        let base = tempfile::tempdir().unwrap();
        let [one, other] = ["one", "other"].map(|name| base.path().join(name));
        fs::create_dir(&one).unwrap();
        fs::create_dir(&other).unwrap();
        apply(&one, &changes);
        let (layer, packed) = pack(&one);
        for _ in 0..2 {
            unpack_to(&layer, &other, packed.unpacked).unwrap();
            tree::assert_same(&one, &other);
        }
    }
}

fn cases() -> u32 {
    std::env::var("LAYER_CASES").ok().and_then(|cases| cases.parse().ok()).unwrap_or(48)
}
