//! What a layer holds, and what packing refuses.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::process::Stdio;
use std::time::{Duration, SystemTime};

use rustix::fs::{CWD, Mode, XattrFlags};

use super::super::read::Archive;
use super::*;

/// The paths of a layer, whiteouts as such.
fn listed(layer: &[u8]) -> Vec<String> {
    let mut archive = Archive::new(zstd::stream::read::Decoder::new(layer).unwrap(), u64::MAX);
    let mut paths = vec![];
    while let Some(entry) = archive.next().unwrap() {
        let sign = if entry.kind == entry::Kind::Whiteout { "-" } else { "" };
        paths.push(format!("{sign}{}", String::from_utf8_lossy(&entry.path)));
    }
    paths
}

fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

/// Waits until the file system gives files another ctime than those before.
fn wait_for_tick(root: &Path) {
    let now = || {
        let stat = tempfile::tempfile_in(root.parent().unwrap()).unwrap().metadata().unwrap();
        (stat.ctime(), stat.ctime_nsec())
    };
    let before = now();
    while now() == before {
        std::thread::yield_now();
    }
}

#[test]
fn nothing_is_packed_of_what_did_not_change() {
    let world = World::new(|root| {
        write(&root.join("a/b/c"), "c");
        symlink("c", root.join("a/b/l")).unwrap();
        wait_for_tick(root);
    });
    let (layer, packed) = world.pack_since(world.moment).unwrap();
    assert_eq!((listed(&layer), packed.entries), (vec![], 0));
}

#[test]
fn a_folder_that_was_renamed_is_packed_whole_although_its_files_have_old_ctimes() {
    let world = World::new(|root| {
        write(&root.join("A/x"), "x");
        write(&root.join("A/sub/y"), "y");
        write(&root.join("B/z"), "z");
        write(&root.join("C/x"), "other");
        fs::hard_link(root.join("A/sub/y"), root.join("elsewhere")).unwrap();
    });
    fs::remove_dir_all(world.tree().join("B")).unwrap();
    fs::rename(world.tree().join("A"), world.tree().join("B")).unwrap();
    let packed = world.pack_since(NEVER).unwrap();
    // `elsewhere` is another name of a file that has moved.
    assert_eq!(listed(&packed.0), ["", "-A", "B", "B/sub", "B/sub/y", "B/x", "-B/z", "elsewhere"]);
    world.check_since(world.moment);
}

#[test]
fn a_deleted_folder_is_one_whiteout_and_another_type_takes_its_place() {
    let world = World::new(|root| {
        write(&root.join("gone/a/b"), "b");
        write(&root.join("file/a"), "a");
        write(&root.join("folder"), "f");
    });
    for folder in ["gone", "file"] {
        fs::remove_dir_all(world.tree().join(folder)).unwrap();
    }
    fs::remove_file(world.tree().join("folder")).unwrap();
    write(&world.tree().join("file"), "now");
    write(&world.tree().join("folder/new"), "now");
    let (layer, _) = world.pack_since(NEVER).unwrap();
    assert_eq!(listed(&layer), ["", "file", "folder", "folder/new", "-gone"]);
    world.check_since(NEVER);
}

#[test]
fn what_is_excluded_is_neither_packed_nor_removed() {
    let world = World::new(|root| {
        write(&root.join("run/old"), "o");
        write(&root.join("running"), "r");
    });
    fs::remove_file(world.tree().join("run/old")).unwrap();
    write(&world.tree().join("run/new"), "n");
    write(&world.tree().join("running"), "changed");
    let since = Since { baseline: &world.baseline, moment: world.moment };
    let (layer, _) = pack_with(&world.tree(), Some(since), &["run".into()]).unwrap();
    assert_eq!(listed(&layer), ["", "running"]);
}

#[test]
fn times_modes_links_and_attributes_are_kept() {
    let world = World::new(|_| {});
    let root = world.tree();
    write(&root.join("dir/secret"), "s");
    write(&root.join("past"), "p");
    File::open(root.join("past"))
        .unwrap()
        .set_modified(SystemTime::UNIX_EPOCH + Duration::new(1, 123_456_789))
        .unwrap();
    fs::hard_link(root.join("past"), root.join("zz")).unwrap();
    symlink(name(b"any\nbytes \xfe"), root.join(name(b"link\n\xff"))).unwrap();
    rustix::fs::mkfifoat(CWD, root.join("pipe"), Mode::RUSR).unwrap();
    UnixListener::bind(root.join("socket")).unwrap();
    rustix::fs::setxattr(root.join("past"), "user.bytes", b"\0=\n\xff", XattrFlags::empty()).unwrap();
    let long = root.join("n".repeat(250)).join("m".repeat(250));
    write(&long, "long");
    if is_root() {
        // CAP_NET_BIND_SERVICE, permitted and effective.
        let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        rustix::fs::setxattr(&long, "security.capability", &capability, XattrFlags::empty()).unwrap();
        rustix::fs::setxattr(&long, "trusted.other", b"x", XattrFlags::empty()).unwrap();
        std::os::unix::fs::chown(root.join("past"), Some(3_000_000_000), Some(7)).unwrap();
    }
    fs::set_permissions(root.join("dir/secret"), Permissions::from_mode(0o600)).unwrap();
    fs::set_permissions(root.join("dir"), Permissions::from_mode(0o500)).unwrap();
    let (layer, packed) = world.pack_since(world.moment).unwrap();
    unpack_to(&layer, &world.path("copy"), packed.unpacked).unwrap();
    assert_eq!((packed.special, packed.attributes), (1, u64::from(is_root())));
    fs::remove_file(root.join("socket")).unwrap();
    if is_root() {
        rustix::fs::removexattr(&long, "trusted.other").unwrap();
    }
    // The removal has changed the time of the root alone.
    fs::File::open(&root).unwrap().set_modified(fs::metadata(world.path("copy")).unwrap().modified().unwrap()).unwrap();
    tree::assert_same(&root, &world.path("copy"));
}

#[test]
fn holes_are_neither_read_nor_written() {
    const LARGE: u64 = 1 << 40;
    let world = World::new(|_| {});
    let file = File::create(world.tree().join("sparse")).unwrap();
    for (text, at) in [("start", 0), ("middle", LARGE / 2), ("end", LARGE - 3)] {
        file.write_at(text.as_bytes(), at).unwrap();
    }
    let many = File::create(world.tree().join("many")).unwrap();
    for part in 0..200 {
        many.write_at(b"x", part << 16).unwrap();
    }
    many.set_len(300 << 16).unwrap();
    File::create(world.tree().join("hole")).unwrap().set_len(9 << 30).unwrap();
    let packed = world.check_since(world.moment);
    assert!(packed.unpacked < 2 << 20, "{}", packed.unpacked);
    let copy = File::open(world.path("copy/sparse")).unwrap();
    let mut text = [0; 6];
    copy.read_exact_at(&mut text, LARGE / 2).unwrap();
    assert_eq!((&text, copy.metadata().unwrap().len()), (b"middle", LARGE));
    assert_eq!(fs::metadata(world.path("copy/hole")).unwrap().len(), 9 << 30);
}

#[test]
fn a_name_that_would_be_a_whiteout_is_an_error() {
    let world = World::new(|root| write(&root.join(".wh.old"), "o"));
    assert_eq!(world.pack_since(NEVER).unwrap().1.entries, 0);
    write(&world.tree().join("d/.wh.x"), "x");
    let error = world.pack_since(world.moment).unwrap_err();
    assert!(matches!(&error, Error::Reserved { path } if path.ends_with(".wh.x")), "{error}");
}

/// A layer whose bytes, when they are written, change the file that they come from.
struct Restless(File);

impl Write for Restless {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.set_len(self.0.metadata()?.len() + 1)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_file_that_is_always_written_to_is_an_error() {
    let base = tempfile::tempdir().unwrap();
    let log = base.path().join("log");
    measure::fill(&log, 2 << 20, 1);
    let mut packer = Packer::new(Restless(OpenOptions::new().write(true).open(&log).unwrap())).unwrap();
    let root = Folder::open(base.path()).unwrap();
    let error = packer.add(&Tree { root: &root, prefix: Path::new(""), since: None, exclude: &[] }).unwrap_err();
    assert!(matches!(&error, Error::Changed { path } if path.ends_with("log")), "{error}");
}

#[test]
fn volumes_are_packed_into_one_layer_and_unpacked_into_their_folders() {
    let base = tempfile::tempdir().unwrap();
    write(&base.path().join("data/a/one"), "1");
    write(&base.path().join("tools/a/run"), "2");
    fs::set_permissions(base.path().join("tools/a/run"), Permissions::from_mode(0o700)).unwrap();
    let mut packer = Packer::new(Vec::new()).unwrap();
    for name in ["data", "tools"] {
        let root = Folder::open(&base.path().join(name)).unwrap();
        packer.add(&Tree { root: &root, prefix: name.as_ref(), since: None, exclude: &[] }).unwrap();
    }
    let (layer, packed) = packer.finish().unwrap();
    let folders = ["new/data", "new/tools"].map(|path| {
        fs::create_dir_all(base.path().join(path)).unwrap();
        // The root of a volume gives its group to what is created in it.
        fs::set_permissions(base.path().join(path), Permissions::from_mode(0o2777)).unwrap();
        Folder::open(&base.path().join(path)).unwrap()
    });
    let targets = [("data", &folders[0]), ("tools", &folders[1])]
        .map(|(prefix, folder)| Target { prefix: Path::new(prefix), folder });
    let owners = Owners::Mine(crate::protocol::staging::Access::Write);
    unpack(&*layer, &targets, owners, packed.unpacked).unwrap();
    let mode = |path: &str| fs::metadata(base.path().join(path)).unwrap().permissions().mode() & 0o7777;
    assert_eq!([mode("new/data/a"), mode("new/data/a/one"), mode("new/tools/a/run")], [0o2777, 0o666, 0o777]);
    let error = unpack(&*layer, &targets[..1], owners, packed.unpacked).unwrap_err();
    assert!(matches!(error, Error::Refused { .. }), "{error}");
}

#[test]
fn tar_reads_what_is_packed_and_what_tar_writes_is_unpacked() {
    let world = World::new(|_| {});
    let root = world.tree();
    write(&root.join("n".repeat(200)).join("f"), "f");
    write(&root.join(name(b"line\nfeed \xff")), "f");
    fs::hard_link(root.join("n".repeat(200)).join("f"), root.join("hard")).unwrap();
    symlink("t".repeat(300), root.join("soft")).unwrap();
    let sparse = File::create(root.join("sparse")).unwrap();
    for part in 0..40 {
        sparse.write_at(b"x", part << 20).unwrap();
    }
    File::open(root.join("hard")).unwrap().set_modified(SystemTime::UNIX_EPOCH + Duration::new(7, 5)).unwrap();
    File::open(&root).unwrap().set_modified(SystemTime::UNIX_EPOCH + Duration::new(9, 0)).unwrap();
    let (layer, _) = pack(&root);
    let archive = zstd::stream::decode_all(&*layer).unwrap();
    let mut tar =
        Command::new("tar").args(["-xpf", "-", "-C"]).arg(world.path("copy")).stdin(Stdio::piped()).spawn().unwrap();
    tar.stdin.take().unwrap().write_all(&archive).unwrap();
    assert!(tar.wait().unwrap().success());
    tree::assert_same(&root, &world.path("copy"));

    for format in [&["--format=gnu", "--sparse"][..], &["--format=pax"]] {
        let into = world.path(format[0]);
        fs::create_dir(&into).unwrap();
        let mut tar = Command::new("tar")
            .args(format)
            .arg("-cf-")
            .arg("-C")
            .arg(&root)
            .arg(".")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut archive = vec![];
        tar.stdout.take().unwrap().read_to_end(&mut archive).unwrap();
        assert!(tar.wait().unwrap().success());
        untar(&archive, &into, 1 << 30).unwrap();
        // The older form has whole seconds.
        let is_exact = format[0] != "--format=gnu";
        let [one, other] = [&root, &into].map(|root| {
            tree::snapshot(root)
                .into_iter()
                .map(|(path, mut node)| {
                    node.stat.4 *= i64::from(is_exact);
                    (path, node)
                })
                .collect::<tree::Snapshot>()
        });
        assert_eq!(one, other);
    }
}

#[test]
fn a_baseline_that_was_cut_is_an_error() {
    let world = World::new(|root| write(&root.join("a/b"), "b"));
    let length = world.baseline.metadata().unwrap().len();
    for cut in 0..length {
        world.baseline.set_len(cut).unwrap();
        assert!(world.pack_since(world.moment).is_err(), "{cut} bytes");
    }
}

#[test]
fn an_interrupted_save_has_no_name() {
    let base = tempfile::tempdir().unwrap();
    let folder = Folder::open(base.path()).unwrap();
    let failed = save(&folder, "layer".as_ref(), |_| Err::<(), _>(Error::Corrupt { reason: "test" }));
    assert!(failed.is_err() && fs::read_dir(base.path()).unwrap().next().is_none());
    save(&folder, "layer".as_ref(), |file| file.write_all(b"x").map_err(Error::archive)).unwrap();
    assert_eq!(fs::read(base.path().join("layer")).unwrap(), b"x");
}
