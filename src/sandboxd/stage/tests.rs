//! Staging over temporary folders: what is copied, what is refused, what is kept, and that a crash may happen anywhere.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, FileType, Mode};
use rustix::io::Errno;
use tempfile::TempDir;

use super::*;
use crate::protocol::init::{ALL_SKILLS, Skills};
use crate::protocol::staging::{Access, Fault, MARKER};
use crate::sandboxd::folder::Folder;
use crate::sandboxd::skills;

/// Sources and one or more volumes in a temporary folder.
struct World {
    base: TempDir,
    manifest: Manifest,
}

impl World {
    /// One volume without sources.
    fn new(volume: &str) -> Self {
        let base = tempfile::tempdir().unwrap();
        let mut world = Self { base, manifest: Manifest { digest: "sha256:one".into(), volumes: vec![] } };
        world.add_volume(volume);
        world
    }

    fn add_volume(&mut self, name: &str) {
        let mount_path = self.base.path().join("volumes").join(name);
        fs::create_dir_all(&mount_path).unwrap();
        self.manifest.volumes.push(Volume {
            name: name.into(),
            mount_path: mount_path.to_str().unwrap().into(),
            access: Access::Write,
            sources: vec![],
            top_roots: None,
            optional_roots: BTreeSet::new(),
            restored: None,
        });
    }

    /// Adds a source to the last volume: its files by path; a path that ends in `/` is a folder.
    fn source(&mut self, description: &str, path: &str, files: &[(&str, &str)]) -> PathBuf {
        let volume = self.manifest.volumes.last_mut().unwrap();
        let root = self.base.path().join("sources").join(&volume.name).join(volume.sources.len().to_string());
        fs::create_dir_all(&root).unwrap();
        for (name, content) in files {
            write(&root.join(name), content);
        }
        volume.sources.push(Source {
            description: description.into(),
            mount_path: root.to_str().unwrap().into(),
            path: path.into(),
        });
        root
    }

    fn choose(&mut self, roots: &[&str]) {
        self.manifest.volumes[0].top_roots = Some(roots.iter().map(ToString::to_string).collect());
    }

    fn volume(&self) -> PathBuf {
        self.manifest.volumes[0].mount_path.clone().into()
    }

    fn stage(&self) -> Result<Staged, Error> {
        let volumes = stage(&self.manifest, &mut |_| Ok(()))?;
        Ok(volumes[&self.manifest.volumes[0].name].clone())
    }

    fn refusal(&self) -> String {
        crate::sandboxd::sentence(&self.stage().unwrap_err())
    }

    /// The content of the first volume, without the marker.
    fn tree(&self) -> BTreeMap<String, String> {
        let mut tree = tree(&self.volume());
        tree.remove(MARKER);
        tree
    }
}

fn write(path: &Path, content: &str) {
    if path.as_os_str().as_bytes().ends_with(b"/") {
        fs::create_dir_all(path).unwrap();
    } else {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
}

fn set_mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// Each path with its mode and content: `777 folder`, `666 "text"`, `-> target`.
fn tree(root: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut pending = vec![root.to_owned()];
    while let Some(folder) = pending.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let metadata = fs::symlink_metadata(&path).unwrap();
            let mode = metadata.mode() & 0o7777;
            let text = if metadata.is_symlink() {
                format!("-> {}", fs::read_link(&path).unwrap().display())
            } else if metadata.is_dir() {
                pending.push(path.clone());
                format!("{mode:o} folder")
            } else {
                format!("{mode:o} {:?}", String::from_utf8_lossy(&fs::read(&path).unwrap()))
            };
            found.insert(path.strip_prefix(root).unwrap().to_string_lossy().into_owned(), text);
        }
    }
    found
}

fn entries(expected: &[(&str, &str)]) -> BTreeMap<String, String> {
    expected.iter().map(|(path, text)| ((*path).to_owned(), (*text).to_owned())).collect()
}

/// Lays out files as the kubelet lays out a ConfigMap.
fn make_config_map(root: &Path, files: &[(&str, &str)]) {
    for (name, content) in files {
        write(&root.join("..2026_01_02_03_04_05.678").join(name), content);
        let key = name.split('/').next().unwrap();
        let _ = symlink(Path::new("..data").join(key), root.join(key));
    }
    symlink("..2026_01_02_03_04_05.678", root.join("..data")).unwrap();
}

#[test]
fn sources_are_copied_into_their_folders_and_written_by_everyone() {
    let mut world = World::new("data");
    let code = world.source("image src", "code/main", &[("README", "read me"), ("lib/a.c", "int a;"), ("empty/", "")]);
    let poc = world.source("configMap poc", "", &[("run.sh", "#!/bin/sh")]);
    set_mode(&code.join("lib/a.c"), 0o400);
    set_mode(&code.join("lib"), 0o555);
    set_mode(&poc.join("run.sh"), 0o510);

    let staged = world.stage().unwrap();

    assert_eq!(staged, Staged { files: 3, kept: 0, roots: vec![], skills: vec![] });
    assert_eq!(
        world.tree(),
        entries(&[
            ("code", "777 folder"),
            ("code/main", "777 folder"),
            ("code/main/README", "666 \"read me\""),
            ("code/main/empty", "777 folder"),
            ("code/main/lib", "777 folder"),
            ("code/main/lib/a.c", "666 \"int a;\""),
            ("run.sh", "777 \"#!/bin/sh\""),
        ])
    );
}

#[test]
fn scripts_are_readable_by_everyone_and_written_by_nobody_else() {
    let mut world = World::new("scripts");
    world.manifest.volumes[0].access = Access::Read;
    let source = world.source("image scripts", "", &[("bin/tool", "x"), ("notes", "y")]);
    set_mode(&source.join("bin/tool"), 0o701);
    set_mode(&source.join("notes"), 0o666);

    world.stage().unwrap();

    let expected = [("bin", "755 folder"), ("bin/tool", "755 \"x\""), ("notes", "644 \"y\"")];
    assert_eq!(world.tree(), entries(&expected));
}

#[test]
fn the_marker_names_the_digest_and_can_be_read_by_everyone() {
    let world = World::new("data");
    world.stage().unwrap();
    assert_eq!(tree(&world.volume()), entries(&[(MARKER, "644 \"sha256:one\\n\"")]));
}

/// Its sources are not mounted, and the files of a restore are those of an earlier marker, or of none.
#[test]
fn a_volume_that_was_restored_is_only_marked() {
    for marker in [None, Some("sha256:earlier\n")] {
        let mut world = World::new("tools");
        world.manifest.volumes[0].restored = Some(vec!["fuzz".into(), "gone".into()]);
        write(&world.volume().join("fuzz/run/SKILL.md"), "---\nname: run\n---\n");
        write(&world.volume().join("made/by-a-sandbox"), "x");
        if let Some(marker) = marker {
            write(&world.volume().join(MARKER), marker);
        }
        let before = world.tree();
        let staged = world.stage().unwrap();
        assert_eq!(
            (staged.files, staged.roots, staged.skills),
            (0, vec!["fuzz".to_string()], vec!["fuzz/run".to_string()])
        );
        assert_eq!(world.tree(), before);
        assert_eq!(fs::read_to_string(world.volume().join(MARKER)).unwrap(), "sha256:one\n");
    }
}

#[test]
fn a_volume_with_the_digest_is_left_alone_and_still_reports_its_roots_and_skills() {
    let mut world = World::new("tools");
    world.source("image tools", "", &[("fuzz/SKILL.md", "fuzz"), ("coverage/SKILL.md", "coverage"), ("README", "")]);
    world.stage().unwrap();
    fs::remove_dir_all(world.volume().join("coverage")).unwrap();
    fs::create_dir(world.volume().join("by-a-sandbox")).unwrap();

    let staged = world.stage().unwrap();

    let expected = Staged { roots: vec!["fuzz".into()], skills: vec!["fuzz".into()], ..Staged::default() };
    assert_eq!(staged, expected);
}

#[test]
fn a_new_digest_adds_what_is_missing_and_keeps_what_differs() {
    let mut world = World::new("data");
    let source = world.source("image src", "", &[("same", "same"), ("edited", "before"), ("removed", "again")]);
    world.stage().unwrap();
    let inode = fs::metadata(world.volume().join("same")).unwrap().ino();
    fs::write(world.volume().join("edited"), "by a sandbox").unwrap();
    fs::write(world.volume().join("own"), "of a sandbox").unwrap();
    set_mode(&world.volume().join("own"), 0o600);
    fs::remove_file(world.volume().join("removed")).unwrap();
    write(&source.join("new"), "new");
    world.manifest.digest = "sha256:two".into();

    let staged = world.stage().unwrap();

    assert_eq!(staged, Staged { files: 2, kept: 1, roots: vec![], skills: vec![] });
    assert_eq!(fs::metadata(world.volume().join("same")).unwrap().ino(), inode, "not written again");
    assert_eq!(
        world.tree(),
        entries(&[
            ("edited", "666 \"by a sandbox\""),
            ("new", "666 \"new\""),
            ("own", "600 \"of a sandbox\""),
            ("removed", "666 \"again\""),
            ("same", "666 \"same\""),
        ])
    );
}

#[test]
fn what_stands_where_a_file_belongs_is_kept_whatever_it_is() {
    let mut world = World::new("data");
    world.source("image src", "", &[("link", "1"), ("folder", "2"), ("pipe", "3"), ("secret", "4")]);
    let source = world.source("image links", "", &[]);
    symlink("secret", source.join("other-link")).unwrap();
    let outside = world.base.path().join("outside");
    fs::write(&outside, "untouched").unwrap();
    symlink(&outside, world.volume().join("link")).unwrap();
    symlink("elsewhere", world.volume().join("other-link")).unwrap();
    fs::create_dir(world.volume().join("folder")).unwrap();
    rustix::fs::mknodat(CWD, world.volume().join("pipe"), FileType::Fifo, Mode::RWXU, 0).unwrap();

    let staged = world.stage().unwrap();

    assert_eq!((staged.files, staged.kept), (1, 4));
    assert_eq!(fs::read_to_string(outside).unwrap(), "untouched");
    assert_eq!(fs::read_link(world.volume().join("other-link")).unwrap(), Path::new("elsewhere"));
}

#[test]
fn the_keys_of_a_config_map_become_regular_files() {
    let mut world = World::new("data");
    let source = world.source("configMap poc", "poc", &[]);
    make_config_map(&source, &[("poc.txt", "AAAA"), ("nested/key", "B"), (".hidden", "C")]);
    set_mode(&source.join("..data/poc.txt"), 0o755);

    assert_eq!(world.stage().unwrap().files, 3);

    assert_eq!(
        world.tree(),
        entries(&[
            ("poc", "777 folder"),
            ("poc/.hidden", "666 \"C\""),
            ("poc/nested", "777 folder"),
            ("poc/nested/key", "666 \"B\""),
            ("poc/poc.txt", "777 \"AAAA\""),
        ])
    );
}

#[test]
fn the_folders_of_a_config_map_are_roots() {
    let mut world = World::new("tools");
    let source = world.source("configMap skills", "", &[]);
    make_config_map(&source, &[("fuzz/SKILL.md", "x"), ("coverage/SKILL.md", "y"), ("loose", "z")]);
    world.choose(&["fuzz"]);
    let expected = Staged { files: 1, roots: vec!["fuzz".into()], skills: vec!["fuzz".into()], ..Staged::default() };
    assert_eq!(world.stage().unwrap(), expected);
}

#[test]
fn only_the_link_of_the_kubelet_makes_a_config_map() {
    let outside = tempfile::tempdir().unwrap();
    write(&outside.path().join("key"), "outside");
    let absolute = outside.path().to_str().unwrap();
    for target in [absolute, "../../elsewhere", "lib", "..keys/lib", "..link", "..", ".", "..none", "..data"] {
        let mut world = World::new("data");
        let source =
            world.source("persistentVolumeClaim corpus", "", &[("lib/key", "x"), ("..keys/lib/key", "hidden")]);
        symlink(target, source.join("..data")).unwrap();
        symlink(outside.path(), source.join("..link")).unwrap();
        symlink("..data/key", source.join("key")).unwrap();

        world.stage().unwrap();

        let expected = [("key", "-> ..data/key"), ("lib", "777 folder"), ("lib/key", "666 \"x\"")];
        assert_eq!(world.tree(), entries(&expected), "{target}");
    }
}

#[test]
fn of_the_links_in_a_config_map_only_those_to_its_keys_are_replaced_by_files() {
    let mut world = World::new("data");
    let source = world.source("configMap poc", "", &[]);
    make_config_map(&source, &[("key", "A")]);
    for (name, target) in [("other", "..data/key"), ("way-out", "..data/../../x"), ("passwd", "/etc/passwd")] {
        symlink(target, source.join(name)).unwrap();
    }

    world.stage().unwrap();

    let links = [("other", "-> ..data/key"), ("passwd", "-> /etc/passwd"), ("way-out", "-> ..data/../../x")];
    assert_eq!(world.tree(), entries(&[&links[..], &[("key", "666 \"A\"")]].concat()));
}

#[test]
fn names_that_begin_with_two_dots_are_skipped_at_the_root_only() {
    let mut world = World::new("data");
    world.source("image src", "", &[("..hidden/x", ""), ("..file", ""), ("lib/..kept", "x"), ("lost+found/x", "")]);
    world.stage().unwrap();
    assert_eq!(world.tree(), entries(&[("lib", "777 folder"), ("lib/..kept", "666 \"x\"")]));
}

/// A place outside of sources and volumes where nothing may be read or changed.
struct Outside {
    folder: PathBuf,
}

impl Outside {
    /// A folder with a file, both closed to other users.
    fn of(world: &World) -> Self {
        let folder = world.base.path().join("outside");
        write(&folder.join("secret"), "untouched");
        set_mode(&folder.join("secret"), 0o600);
        set_mode(&folder, 0o700);
        Self { folder }
    }

    fn link(&self, place: &Path) {
        symlink(&self.folder, place).unwrap();
    }

    #[track_caller]
    fn assert_untouched(&self) {
        assert_eq!(tree(&self.folder), entries(&[("secret", "600 \"untouched\"")]));
        assert_eq!(fs::metadata(&self.folder).unwrap().mode() & 0o7777, 0o700);
    }
}

/// The bytes of all links below a folder, by their paths.
fn links(root: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut pending = vec![root.to_owned()];
    while let Some(folder) = pending.pop() {
        for entry in fs::read_dir(&folder).unwrap() {
            let path = entry.unwrap().path();
            let metadata = fs::symlink_metadata(&path).unwrap();
            if metadata.is_dir() {
                pending.push(path);
            } else if metadata.is_symlink() {
                let target = fs::read_link(&path).unwrap().into_os_string().into_encoded_bytes();
                found.insert(path.strip_prefix(root).unwrap().to_owned(), target);
            }
        }
    }
    found
}

#[test]
fn links_are_copied_as_they_are_wherever_they_lead() {
    let mut world = World::new("data");
    let outside = Outside::of(&world);
    let pipe = world.base.path().join("pipe");
    rustix::fs::mknodat(CWD, &pipe, FileType::Fifo, Mode::RWXU, 0).unwrap();
    let long = format!("/{}", "long/".repeat(200));
    let files = [("env/lib/python3/x.py", "x"), ("web/src/", ""), ("web/node_modules/", ""), ("nix/", "")];
    let source = world.source("container tools", "in", &files);
    let made: &[(&[u8], &[u8])] = &[
        // A virtual environment of Python.
        (b"env/bin", b"/usr/bin"),
        (b"env/lib64", b"lib"),
        (b"env/python3", b"/usr/bin/python3"),
        (b"env/python", b"python3"),
        // npm link
        (b"web/node_modules/near", b"../../web"),
        (b"web/node_modules/far", b"/usr/lib/node_modules/far"),
        // A chain of profiles.
        (b"nix/profile", b"profile-42-link"),
        (b"nix/profile-42-link", b"/nix/store/0c2hash-user-environment"),
        // Loops.
        (b"loop", b"loop"),
        (b"there", b"back"),
        (b"back", b"there"),
        (b"env/lib/all", b".."),
        // Out of the source, upward and at once, and to nothing.
        (b"up", b"../../.."),
        (b"up-and-down", b"env/../../sources"),
        (b"root", b"/"),
        (b"none", b"no/such"),
        (b"outside", outside.folder.as_os_str().as_bytes()),
        (b"secret", b"outside/secret"),
        (b"pipe", pipe.as_os_str().as_bytes()),
        (b"endless", b"/dev/zero"),
        // Spelled in a way that may not be changed.
        (b"spelling", b".//env/./lib//"),
        (b"bytes\xff\n", b"/no\xfftext\n"),
        (b"long", long.as_bytes()),
        (b"marker", MARKER.as_bytes()),
    ];
    for (place, target) in made {
        symlink(OsStr::from_bytes(target), source.join(OsStr::from_bytes(place))).unwrap();
    }

    let staged = world.stage().unwrap();

    let count = i64::try_from(made.len()).unwrap();
    assert_eq!(staged, Staged { files: count + 1, ..Staged::default() });
    let copied = world.volume().join("in");
    assert_eq!(links(&copied).len(), made.len());
    assert_eq!(links(&copied), links(&source));
    assert_eq!(world.tree().len(), made.len() + 1 + 8, "nothing is copied from behind a link");
    outside.assert_untouched();

    world.manifest.digest = "sha256:two".into();
    let staged = world.stage().unwrap();

    assert_eq!((staged.files, staged.kept), (0, 0), "they are recognized as what is there already");
    outside.assert_untouched();
}

#[test]
fn a_link_that_differs_in_its_bytes_is_another_link() {
    for (other, agrees) in [("lib", true), ("lib/", false), ("./lib", false), ("lib64", false)] {
        let mut world = World::new("data");
        let source = world.source("image src", "", &[]);
        symlink("lib", source.join("link")).unwrap();
        symlink(other, world.volume().join("link")).unwrap();
        assert_eq!(world.stage().unwrap().kept, i64::from(!agrees), "{other}");
        assert_eq!(fs::read_link(world.volume().join("link")).unwrap().as_os_str(), other);
    }
}

#[test]
fn files_with_several_names_become_several_files() {
    let mut world = World::new("data");
    let source = world.source("image src", "", &[("a", "x")]);
    fs::hard_link(source.join("a"), source.join("b")).unwrap();
    symlink("/no/such", source.join("c")).unwrap();
    rustix::fs::linkat(CWD, source.join("c"), CWD, source.join("d"), rustix::fs::AtFlags::empty()).unwrap();

    assert_eq!(world.stage().unwrap().files, 4);

    let links = [("c", "-> /no/such"), ("d", "-> /no/such")];
    assert_eq!(world.tree(), entries(&[&links[..], &[("a", "666 \"x\""), ("b", "666 \"x\"")]].concat()));
    let inode = |name: &str| fs::symlink_metadata(world.volume().join(name)).unwrap().ino();
    assert_ne!(inode("a"), inode("b"));
}

#[test]
fn a_source_is_not_copied_through_the_link_of_another() {
    for (path, file, place) in [("", "a/x", "a"), ("a", "x", "a"), ("a/b", "x", "a"), ("", "a/b/c/x", "a/b")] {
        for link_comes_first in [true, false] {
            let mut world = World::new("data");
            let outside = Outside::of(&world);
            let add_link = |world: &mut World| {
                let source = world.source("image link", "", &[]);
                fs::create_dir_all(source.join(place).parent().unwrap()).unwrap();
                outside.link(&source.join(place));
            };
            if link_comes_first {
                add_link(&mut world);
            }
            world.source("configMap files", path, &[(file, "written")]);
            if !link_comes_first {
                add_link(&mut world);
            }

            let refusal = world.refusal();

            let names =
                if link_comes_first { "image link and configMap files" } else { "configMap files and image link" };
            assert_eq!(refusal, format!("{names} put different content at {place} of the volume data"));
            assert_eq!(tree(&world.volume()), entries(&[]), "nothing is written");
            outside.assert_untouched();
        }
    }
}

#[test]
fn a_source_is_not_copied_through_a_link_that_an_earlier_one_left() {
    let mut world = World::new("data");
    let outside = Outside::of(&world);
    let source = world.source("image src", "", &[]);
    outside.link(&source.join("a"));
    world.stage().unwrap();
    fs::remove_file(source.join("a")).unwrap();
    write(&source.join("a/secret"), "written");
    world.manifest.digest = "sha256:two".into();

    assert_eq!(world.refusal(), "the volume data cannot be filled: a is a symbolic link, not a folder");
    outside.assert_untouched();

    // A link in the place of a file is kept like any other file.
    fs::remove_dir_all(source.join("a")).unwrap();
    write(&source.join("a"), "written");
    assert_eq!(world.stage().unwrap(), Staged { kept: 1, ..Staged::default() });
    outside.assert_untouched();
}

#[test]
fn what_becomes_a_link_in_a_source_during_the_copy_is_not_followed() {
    type Edit = fn(&Outside, &Path);
    let changes: [(&str, &str, Edit); 2] = [
        ("b", "b of image src could not be read: ", |outside, source| {
            fs::remove_file(source.join("b")).unwrap();
            symlink(outside.folder.join("secret"), source.join("b")).unwrap();
        }),
        ("lib", "image src cannot be staged: lib is a symbolic link, not a folder", |outside, source| {
            fs::remove_dir_all(source.join("lib")).unwrap();
            outside.link(&source.join("lib"));
        }),
    ];
    for (place, expected, change) in changes {
        let mut world = World::new("data");
        let outside = Outside::of(&world);
        let source = world.source("image src", "", &[("a", "1"), ("b", "2"), ("lib/secret", "3")]);
        let mut is_changed = false;
        let outcome = stage(&world.manifest, &mut |step| {
            if matches!(step, Step::Change(path) if path == Path::new("a")) && !is_changed {
                is_changed = true;
                change(&outside, &source);
            }
            Ok(())
        });
        let message = crate::sandboxd::sentence(&outcome.unwrap_err());
        assert!(message.starts_with(expected), "{message}");
        assert!(!world.volume().join(place).exists(), "{:?}", world.tree());
        outside.assert_untouched();
    }
}

#[test]
fn what_becomes_a_link_in_the_volume_during_the_copy_is_not_followed() {
    let refusal = "the volume data cannot be filled: lib is a symbolic link, not a folder";
    // Before the folder is created, and while a file is copied into it.
    for (moment, expected) in [("lib", Some(refusal)), ("lib/secret", None)] {
        let mut world = World::new("data");
        let outside = Outside::of(&world);
        world.source("image src", "", &[("lib/secret", "written")]);
        let volume = world.volume();
        let mut is_changed = false;
        let outcome = stage(&world.manifest, &mut |step| {
            if matches!(step, Step::Change(path) if path == Path::new(moment)) && !is_changed {
                is_changed = true;
                let _ = fs::rename(volume.join("lib"), volume.join("moved"));
                outside.link(&volume.join("lib"));
            }
            Ok(())
        });
        assert_eq!(outcome.err().map(|error| crate::sandboxd::sentence(&error)).as_deref(), expected);
        assert!(is_changed);
        outside.assert_untouched();
    }
}

#[test]
fn a_link_is_neither_a_root_nor_followed_to_one() {
    let mut world = World::new("tools");
    let source = world.source("image tools", "", &[("real/SKILL.md", "x")]);
    for (name, target) in [("alias", "real"), ("absolute", "/etc"), ("loop", "loop")] {
        symlink(target, source.join(name)).unwrap();
    }
    world.choose(&["alias"]);
    assert_eq!(world.refusal(), "no source of the volume tools has alias at its first level; found: real");
    world.choose(&["real"]);
    assert_eq!(
        world.stage().unwrap(),
        Staged { files: 1, roots: vec!["real".into()], skills: vec!["real".into()], kept: 0 }
    );
    assert_eq!(world.tree().into_keys().collect::<Vec<_>>(), ["real", "real/SKILL.md"]);

    world.manifest.volumes[0].top_roots = None;
    world.manifest.digest = "sha256:two".into();
    assert_eq!(
        world.stage().unwrap(),
        Staged { files: 3, roots: vec!["real".into()], skills: vec!["real".into()], kept: 0 }
    );
}

#[test]
fn neither_a_skill_nor_an_installer_is_read_through_a_link() {
    let mut world = World::new("tools");
    let document = "---\nname: x\nshould_run_in_sandbox: fuzz\n---\n# X\n";
    let files: Vec<_> = ["own", "b", "c", "d", "e"].map(|name| format!("{name}/SKILL.md")).to_vec();
    let mut files: Vec<_> = files.iter().map(|path| (path.as_str(), document)).collect();
    files.extend([("own/deps/install.sh", "#!/bin/sh\n"), ("a/", ""), ("c/deps/", ""), ("e/deps/", "")]);
    let source = world.source("image tools", "", &files);
    for (place, target) in [
        ("a/SKILL.md", "../own/SKILL.md"),
        ("alias", "own"),
        ("b/deps", "../own/deps"),
        ("c/deps/install.sh", "../../own/deps/install.sh"),
        ("d/deps", "/bin"),
        ("e/deps/fuzz", "../../own/deps"),
        ("own/nested", "../own"),
    ] {
        symlink(target, source.join(place)).unwrap();
    }

    assert_eq!(world.stage().unwrap().skills, ["b", "c", "d", "e", "own"]);

    let enabled = Skills { sandbox_type: "fuzz".into(), enabled: vec![ALL_SKILLS.into()] };
    let chosen = skills::chosen(&world.volume(), &enabled).unwrap();
    assert_eq!(chosen.skills.iter().map(|skill| skill.path.as_str()).collect::<Vec<_>>(), ["own"]);
}

#[test]
fn two_sources_with_different_files_at_one_place_are_both_named() {
    let mut world = World::new("data");
    world.source("configMap poc", "in/poc", &[("x", "one"), ("y", "same")]);
    world.source("image src", "in", &[("poc/x", "two"), ("poc/y", "same")]);
    let expected = "configMap poc and image src put different content at in/poc/x of the volume data";
    assert_eq!(world.refusal(), expected);
    assert_eq!(tree(&world.volume()), entries(&[]), "nothing is written");
}

#[test]
fn two_sources_may_bring_the_same_file() {
    let mut world = World::new("data");
    world.source("configMap poc", "poc", &[("x", "same"), ("y", "1")]);
    let second = world.source("image src", "", &[("poc/x", "same"), ("poc/z", "2")]);
    set_mode(&second.join("poc/x"), 0o755);

    let staged = world.stage().unwrap();

    assert_eq!(staged, Staged { files: 3, kept: 0, roots: vec![], skills: vec![] });
    assert_eq!(world.tree()["poc/x"], "777 \"same\"", "executable if either source's file is");
}

#[test]
fn two_sources_agree_on_links_only_if_these_say_the_same() {
    for (second, agrees) in [("target", true), ("other", false), ("target/", false), ("./target", false)] {
        let mut world = World::new("data");
        symlink("target", world.source("image one", "", &[]).join("link")).unwrap();
        symlink(second, world.source("image two", "", &[]).join("link")).unwrap();
        assert_eq!(world.stage().is_ok(), agrees, "{second}");
    }
}

#[test]
fn a_file_and_a_folder_at_one_place_are_a_conflict_in_any_order() {
    let file = ("configMap file", "", [("a/b", "")]);
    let folder = ("image folder", "", [("a/b/c", "")]);
    let deep = ("image deep", "a/b/c", [("d", "")]);
    for (first, second) in [(&file, &folder), (&folder, &file), (&file, &deep), (&deep, &file)] {
        let mut world = World::new("data");
        for (description, path, files) in [first, second] {
            world.source(description, path, files);
        }
        let expected = format!("{} and {} put different content at a/b of the volume data", first.0, second.0);
        assert_eq!(world.refusal(), expected);
    }
}

#[test]
fn a_conflict_is_found_although_the_volume_holds_one_of_the_two_files() {
    let mut world = World::new("data");
    world.source("configMap one", "", &[("x", "one")]);
    world.source("configMap two", "", &[("x", "two")]);
    write(&world.volume().join("x"), "one");
    assert_eq!(world.refusal(), "configMap one and configMap two put different content at x of the volume data");
}

#[test]
fn all_volumes_are_surveyed_before_the_first_is_written() {
    let mut world = World::new("scripts");
    world.source("image good", "", &[("x", "")]);
    world.add_volume("data");
    world.source("image bad", "", &[(PART, "")]);
    world.refusal();
    assert_eq!(tree(&world.volume()), entries(&[]));
}

#[test]
fn chosen_roots_are_staged_and_nothing_else() {
    let mut world = World::new("tools");
    let built_in = world.source("image tools", "", &[("fuzz/a", ""), ("coverage/b", ""), ("loose", "")]);
    symlink("loose", built_in.join("link")).unwrap();
    world.source("configMap mine", "mine/sub", &[("c", "")]);
    world.source("configMap other", "other", &[("d", "")]);
    world.choose(&["mine", "fuzz"]);

    let staged = world.stage().unwrap();

    assert_eq!(staged, Staged { files: 2, kept: 0, roots: vec!["fuzz".into(), "mine".into()], skills: vec![] });
    assert_eq!(world.tree().into_keys().collect::<Vec<_>>(), ["fuzz", "fuzz/a", "mine", "mine/sub", "mine/sub/c"]);
}

#[test]
fn what_sandboxes_make_beside_the_roots_is_none() {
    let mut world = World::new("tools");
    world.source("image tools", "", &[("fuzz/a", ""), ("loose", ""), ("lost+found/x", "")]);
    world.source("configMap mine", "mine/sub", &[("c", "")]);
    fs::create_dir_all(world.volume().join("by-a-sandbox/.git")).unwrap();
    assert_eq!(world.stage().unwrap().roots, ["fuzz", "mine"]);
    world.choose(&["fuzz"]);
    world.manifest.digest = "sha256:two".into();
    assert_eq!(world.stage().unwrap().roots, ["fuzz"], "the folder that was chosen before is there but not requested");
}

#[test]
fn without_a_choice_all_roots_and_loose_files_are_staged() {
    let mut world = World::new("tools");
    world.source("image tools", "", &[("fuzz/a", ""), ("loose", "")]);
    assert_eq!(world.stage().unwrap(), Staged { files: 2, kept: 0, roots: vec!["fuzz".into()], skills: vec![] });
}

#[test]
fn an_empty_choice_stages_nothing() {
    let mut world = World::new("tools");
    world.source("image tools", "", &[("fuzz/a", ""), ("loose", "")]);
    world.choose(&[]);
    assert_eq!(world.stage().unwrap(), Staged::default());
    assert_eq!(world.tree(), entries(&[]));
}

#[test]
fn a_chosen_root_that_no_source_has_is_named_with_those_there_are() {
    let mut world = World::new("tools");
    world.source("image tools", "", &[("fuzz/a", ""), ("coverage/b", ""), ("loose", "")]);
    world.choose(&["fuzz", "loose", "new"]);
    let expected = "no source of the volume tools has loose, new at its first level; found: coverage, fuzz";
    assert_eq!(world.refusal(), expected);
    world.manifest.volumes[0].sources.clear();
    let expected = "no source of the volume tools has fuzz, loose, new at its first level; found: no folders";
    assert_eq!(world.refusal(), expected);
}

#[test]
fn the_tools_volume_reports_its_skills_at_any_depth_also_those_that_a_sandbox_wrote() {
    let mut world = World::new("tools");
    world.source("image tools", "", &[("fuzz/afl/SKILL.md", "x"), ("fuzz/b/c/SKILL.md", "y"), ("coverage/a", "")]);
    write(&world.volume().join("new_tools/mine/SKILL.md"), "z");
    assert_eq!(world.stage().unwrap().skills, ["fuzz/afl", "fuzz/b/c", "new_tools/mine"]);
}

#[test]
fn only_the_tools_volume_reports_roots_and_skills() {
    let mut world = World::new("data");
    world.source("image src", "code", &[("SKILL.md", "")]);
    assert_eq!(world.stage().unwrap(), Staged { files: 1, ..Staged::default() });
}

#[test]
fn a_path_must_stay_in_the_volume() {
    for path in ["../x", "/x", "a/../../b", "a/.."] {
        let mut world = World::new("data");
        world.source("configMap poc", path, &[("x", "")]);
        let expected = format!("the path \"{path}\" of configMap poc must be relative and without \"..\"");
        assert_eq!(world.refusal(), expected);
    }
    let mut world = World::new("data");
    world.source("configMap poc", "./a//b/.", &[("x", "")]);
    world.stage().unwrap();
    assert!(world.volume().join("a/b/x").is_file());
}

#[test]
fn the_names_of_the_marker_and_of_the_temporary_file_are_refused_at_the_root() {
    for (path, file) in [("", MARKER), ("", PART), (MARKER, "x"), ("", ".aigise-staged/x")] {
        let mut world = World::new("data");
        world.source("image src", path, &[(file, "")]);
        let refusal = world.refusal();
        assert!(refusal.starts_with("image src holds .aigise-staged"), "{refusal}");
        assert_eq!(tree(&world.volume()), entries(&[]));
    }
    for name in [MARKER, PART] {
        let mut world = World::new("data");
        let source = world.source("image src", "", &[("x", "sha256:one\n")]);
        symlink("x", source.join(name)).unwrap();
        let refusal = world.refusal();
        assert!(refusal.starts_with("image src holds .aigise-staged"), "{refusal}");
        assert_eq!(tree(&world.volume()), entries(&[]));
    }
    let mut world = World::new("data");
    world.source("image src", "deeper", &[(MARKER, "x")]);
    world.stage().unwrap();
}

#[test]
fn special_files_are_refused_by_name() {
    let mut world = World::new("data");
    let source = world.source("image src", "", &[("lib/", "")]);
    rustix::fs::mknodat(CWD, source.join("lib/pipe"), FileType::Fifo, Mode::RWXU, 0).unwrap();
    let kind = "a device, socket or named pipe";
    assert_eq!(world.refusal(), format!("image src holds lib/pipe, which is {kind} and cannot be copied"));

    fs::remove_file(source.join("lib/pipe")).unwrap();
    let _socket = UnixListener::bind(source.join("socket")).unwrap();
    assert_eq!(world.refusal(), format!("image src holds socket, which is {kind} and cannot be copied"));
}

#[test]
fn a_source_folder_that_is_not_there_is_named() {
    let mut world = World::new("data");
    let root = world.source("persistentVolumeClaim corpus", "", &[("file", "")]);
    symlink("/etc", root.join("link")).unwrap();
    for (folder, problem) in [
        ("seeds/a", format!("there is no folder {}/seeds", root.display())),
        ("../../../x", format!("{}/.. leads upward", root.display())),
        ("file", format!("{}/file is a file, not a folder", root.display())),
        ("link", format!("{}/link is a symbolic link, not a folder", root.display())),
        ("link/ssl", format!("{}/link is a symbolic link, not a folder", root.display())),
    ] {
        world.manifest.volumes[0].sources[0].mount_path = root.join(folder).to_str().unwrap().into();
        assert_eq!(world.refusal(), format!("persistentVolumeClaim corpus cannot be staged: {problem}"));
    }
}

#[test]
fn a_volume_that_is_not_mounted_is_named() {
    let world = World::new("data");
    fs::remove_dir(world.volume()).unwrap();
    let expected = format!("the volume data is not mounted: there is no folder {}", world.volume().display());
    assert_eq!(world.refusal(), expected);
}

#[test]
fn a_link_in_the_way_of_a_folder_is_refused_by_name_and_not_followed() {
    let mut world = World::new("data");
    world.source("image src", "code/lib", &[("x", "new")]);
    let outside = world.base.path().join("outside");
    fs::create_dir_all(outside.join("lib")).unwrap();
    for (place, target) in [("code", outside.clone()), ("code/lib", outside.join("lib"))] {
        let place_in_volume = world.volume().join(place);
        fs::create_dir_all(place_in_volume.parent().unwrap()).unwrap();
        symlink(target, &place_in_volume).unwrap();
        let expected = format!("the volume data cannot be filled: {place} is a symbolic link, not a folder");
        assert_eq!(world.refusal(), expected);
        assert_eq!(fs::read_dir(outside.join("lib")).unwrap().count(), 0);
        fs::remove_file(place_in_volume).unwrap();
    }
}

#[test]
fn a_file_in_the_way_of_a_folder_is_refused_by_name() {
    let mut world = World::new("data");
    world.source("image src", "code", &[("lib/x", "")]);
    write(&world.volume().join("code/lib"), "of a sandbox");
    assert_eq!(world.refusal(), "the volume data cannot be filled: code/lib is a file, not a folder");
}

#[test]
fn a_marker_that_a_sandbox_replaced_is_not_followed() {
    let mut world = World::new("data");
    world.source("image src", "", &[("x", "1")]);
    let outside = world.base.path().join("outside");
    fs::write(&outside, "sha256:one\n").unwrap();
    symlink(&outside, world.volume().join(MARKER)).unwrap();
    symlink(&outside, world.volume().join(PART)).unwrap();

    assert_eq!(world.stage().unwrap().files, 1);

    assert_eq!(tree(&world.volume())[MARKER], "644 \"sha256:one\\n\"");
    assert_eq!(fs::read_to_string(outside).unwrap(), "sha256:one\n");
}

#[test]
fn what_a_crashed_run_left_is_taken_away_even_if_nothing_is_left_to_do() {
    let world = World::new("data");
    write(&world.volume().join(PART), "half a fi");
    world.stage().unwrap();
    assert_eq!(world.tree(), entries(&[]));
}

#[test]
fn names_that_are_no_text_are_copied_as_they_are() {
    let mut world = World::new("tools");
    let source = world.source("image src", "", &[]);
    let name = OsStr::from_bytes(b"a\xff\n");
    fs::create_dir(source.join(name)).unwrap();
    fs::write(source.join(name).join(name), "x").unwrap();
    assert_eq!(world.stage().unwrap().roots, ["a\u{fffd}\n"]);
    assert_eq!(fs::read_to_string(world.volume().join(name).join(name)).unwrap(), "x");
}

#[test]
fn a_folder_deeper_than_any_path_can_say_is_copied() {
    const LEVELS: usize = 300;
    let name = OsStr::new("a-folder-name-of-some-length");
    let mut world = World::new("data");
    let source = world.source("image src", "", &[]);
    let mut folder = Folder::open(&source).unwrap();
    for _ in 0..LEVELS {
        folder.make(name, Mode::RWXU).unwrap();
        folder = folder.descend(Path::new(name)).unwrap();
    }
    folder.create(OsStr::new("bottom"), Mode::RUSR).unwrap();

    assert_eq!(world.stage().unwrap().files, 1);

    let deep: PathBuf = std::iter::repeat_n(name, LEVELS).collect();
    assert!(deep.as_os_str().len() > 4096);
    let bottom = Folder::open(&world.volume()).unwrap().descend(&deep).unwrap();
    assert_eq!(bottom.names().unwrap(), ["bottom"]);
}

#[test]
fn large_files_are_compared_and_copied_whole() {
    let content: Vec<_> = (0..100_000).map(|number| number.to_string()).collect();
    let content = content.join("\n");
    let mut world = World::new("data");
    world.source("image one", "", &[("large", &content)]);
    world.source("image two", "", &[("large", &content)]);
    world.stage().unwrap();
    assert_eq!(fs::read_to_string(world.volume().join("large")).unwrap(), content);

    let changed = format!("{}X", &content[..content.len() - 1]);
    write(&world.base.path().join("sources/data/1/large"), &changed);
    world.manifest.digest = "sha256:two".into();
    assert_eq!(world.refusal(), "image one and image two put different content at large of the volume data");
}

#[test]
fn a_full_volume_is_named_with_what_was_being_written() {
    for full in [Errno::NOSPC, Errno::DQUOT] {
        let mut world = World::new("data");
        world.source("image src", "code", &[("big", "x")]);
        let outcome = stage(&world.manifest, &mut |step| match step {
            Step::Change(path) if path.ends_with("big") => Err(full.into()),
            _ => Ok(()),
        });
        let message = crate::sandboxd::sentence(&outcome.unwrap_err());
        assert_eq!(message, "no space left on the volume data while writing code/big");
    }
}

/// SMB and FUSE give every file the mode of a mount option, whatever it is created with.
#[test]
fn storage_that_fixes_modes_is_filled_if_sandboxes_can_read_what_is_written() {
    for (mode, refused) in [(0o666, false), (0o640, false), (0o604, false), (0o600, true), (0o620, true)] {
        let mut world = World::new("data");
        world.source("image src", "code", &[("x", "1")]);
        let part = world.volume().join(PART);
        let outcome = stage(&world.manifest, &mut |step| {
            if matches!(step, Step::Change(path) if path == Path::new(PART)) && part.exists() {
                set_mode(&part, mode);
            }
            Ok(())
        });
        let group = rustix::process::getegid();
        let expected = format!(
            "what is written to the volume data gets the mode {mode:o} and the group {group}, so sandboxes could not read it"
        );
        match outcome {
            Ok(_) => assert!(!refused, "{mode:o}"),
            Err(error) => {
                assert_eq!((crate::sandboxd::sentence(&error), refused), (expected, true));
                assert_eq!(error.fault(), Fault::Storage("data".into()));
                assert_eq!(tree(&world.volume()), entries(&[]), "nothing is written");
            }
        }
    }
}

#[test]
fn a_volume_that_refuses_the_first_file_is_at_fault_and_not_a_source() {
    for (refusal, fault) in [
        (Errno::ACCESS, Fault::Root("data".into())),
        (Errno::PERM, Fault::Root("data".into())),
        (Errno::ROFS, Fault::Storage("data".into())),
        (Errno::IO, Fault::Storage("data".into())),
        (Errno::NOSPC, Fault::Size("data".into())),
    ] {
        let mut world = World::new("data");
        symlink("/etc/passwd", world.source("image bad", "", &[]).join("out")).unwrap();
        let error = stage(&world.manifest, &mut |_| Err(refusal.into())).unwrap_err();
        assert_eq!(error.fault(), fault, "{error}");
    }
}

/// The program may enter a root by an access ACL, or because it is root. What its mode says does not count then.
#[test]
fn who_may_enter_the_root_of_another_user_is_for_its_owner_to_say() {
    let mut world = World::new("data");
    world.source("image src", "code", &[("x", "1")]);
    let volume = world.volume();
    let close = || {
        let mode = fs::metadata(&volume).unwrap().permissions().mode() & 0o7777;
        // The mode would be widened, if it were not the owner's who does not want that.
        let _ = rustix::fs::chmod(&volume, Mode::from_raw_mode(0o700));
        mode
    };
    let staged = |world: &World| {
        stage(&world.manifest, &mut |step| {
            if matches!(step, Step::Change(path) if path == Path::new(PART)) {
                close();
            }
            Ok(())
        })
    };
    let error = staged(&world).unwrap_err();
    assert!(matches!(error, Error::NotShared { mode: 0o700, .. }), "{error}");
    if std::os::unix::fs::chown(&volume, Some(12345), None).is_err() {
        println!("skipped: only root can give a folder away");
        return;
    }
    staged(&world).unwrap();
}

#[test]
fn all_volumes_are_tried_out_before_a_source_is_read() {
    let mut world = World::new("data");
    world.source("image bad", "", &[]);
    symlink("/etc/passwd", world.base.path().join("sources/data/0/out")).unwrap();
    UnixListener::bind(world.base.path().join("sources/data/0/socket")).unwrap();
    world.add_volume("tools");
    let mut tried = 0;
    let error = stage(&world.manifest, &mut |step| {
        tried += i32::from(matches!(step, Step::Change(_)));
        if tried > 2 { Err(Errno::ROFS.into()) } else { Ok(()) }
    });
    assert_eq!(error.unwrap_err().fault(), Fault::Storage("tools".into()));
}

#[test]
fn storage_without_symbolic_links_is_at_fault_and_not_the_source_of_a_link() {
    for (refusal, is_of_storage) in [(Errno::PERM, true), (Errno::OPNOTSUPP, true), (Errno::ACCESS, false)] {
        let error = Error::link("data", Path::new("code/link"), refusal.into());
        let expected = if is_of_storage { Fault::Storage("data".into()) } else { Fault::Folder("data".into()) };
        assert_eq!(error.fault(), expected);
        let message = crate::sandboxd::sentence(&error);
        let words = "the volume data cannot hold the symbolic link code/link: ";
        assert_eq!(message.starts_with(words), is_of_storage, "{message}");
    }
}

/// What the ACL permits is tested with the built program, which other users can run.
#[test]
fn new_folders_of_the_data_volume_get_a_default_acl_and_others_stay_as_they_are() {
    const DEFAULT_ACL: &str = "system.posix_acl_default";
    let default_acl = |folder: &Path| {
        let mut acl = [0; 256];
        let size = rustix::fs::getxattr(folder, DEFAULT_ACL, &mut acl[..]);
        size.map(|size| acl[..size].to_vec())
    };
    for (volume, is_shared) in [("data", true), ("tools", false)] {
        let mut world = World::new(volume);
        world.source("image src", "code", &[("lib/x", "1")]);
        world.stage().unwrap();
        let found = default_acl(&world.volume().join("code/lib"));
        if found == Err(Errno::OPNOTSUPP) {
            println!("skipped: the temporary folder is on a file system without ACLs");
            return;
        }
        assert_eq!(found.is_ok(), is_shared, "{volume}: {found:?}");
        let Ok(mut acl) = found else { continue };
        // Another one: the permissions of the group are r-x.
        let group = acl.len() - 3 * 8;
        assert_eq!(acl[group..group + 4], [8, 0, 7, 0]);
        acl[group + 2] = 5;
        let folder = world.volume().join("code");
        rustix::fs::setxattr(&folder, DEFAULT_ACL, &acl, rustix::fs::XattrFlags::empty()).unwrap();
        rustix::fs::removexattr(folder.join("lib"), DEFAULT_ACL).unwrap();
        world.source("image more", "code", &[("new/x", "1"), ("lib/y", "1")]);
        world.manifest.digest = "sha256:two".into();
        world.stage().unwrap();
        let found = ["", "new", "lib"].map(|path| default_acl(&folder.join(path)));
        assert_eq!(
            found,
            [Ok(acl.clone()), Ok(acl), Err(Errno::NODATA)],
            "what somebody has set stays, and is inherited"
        );
    }
    let mut world = World::new("data");
    world.source("image src", "code", &[("lib/x", "1")]);
    write(&world.volume().join("code/lib/"), "");
    world.stage().unwrap();
    let folder = world.volume().join("code/lib");
    assert!(default_acl(&folder).is_ok(), "a folder that an interrupted first run has created");
}

#[test]
fn folders_of_the_name_of_the_temporary_file_are_in_nobodys_way() {
    let mut world = World::new("data");
    world.source("image src", "", &[("a", "1"), ("b", "2")]);
    let volume = world.volume();
    write(&volume.join(format!("{PART}/")), "");
    world.stage().unwrap();
    assert_eq!(fs::read_to_string(volume.join("b")).unwrap(), "2");
    let mut names: Vec<_> = fs::read_dir(&volume).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, [MARKER, PART, "a", "b"].map(std::ffi::OsString::from));
}

#[test]
fn a_root_that_an_agent_asks_for_may_be_missing_and_one_that_the_session_names_may_not() {
    let mut world = World::new("tools");
    world.source("image src", "", &[("fuzz/SKILL.md", "x"), ("other/SKILL.md", "x")]);
    world.choose(&["fuzz", "typo"]);
    assert!(world.refusal().contains("typo"), "{}", world.refusal());
    world.manifest.volumes[0].optional_roots = ["typo".to_string()].into();
    assert_eq!(world.stage().unwrap().roots, ["fuzz"]);
}

#[test]
fn what_a_sandbox_writes_during_the_copy_is_kept() {
    let mut world = World::new("data");
    let root = world.source("image src", "", &[("a", "source"), ("b", "source"), ("same", "source")]);
    std::os::unix::fs::symlink("a", root.join("link")).unwrap();
    let volume = world.volume();
    let mut kept = Vec::new();
    stage(&world.manifest, &mut |step| {
        match step {
            // The last step about a file: the file is copied, but does not have its final name yet.
            Step::Change(path) if path == Path::new("same") => write(&volume.join(path), "source"),
            Step::Change(path) if path != Path::new("b") => write(&volume.join(path), "sandbox"),
            Step::Keep { path, .. } => kept.push(path.display().to_string()),
            _ => {}
        }
        Ok(())
    })
    .unwrap();
    let found = ["a", "b", "link", "same"].map(|name| fs::read_to_string(volume.join(name)).unwrap());
    assert_eq!(found, ["sandbox", "source", "sandbox", "source"]);
    assert_eq!(world.tree().len(), found.len(), "nothing is left of the copying");
    assert_eq!(kept, ["a", "link", "same"]);
}

#[test]
fn each_source_is_reported_with_what_became_of_its_files() {
    let mut world = World::new("data");
    world.source("image one", "", &[("new", "123"), ("same", "x"), ("other", "y")]);
    world.source("image two", "two", &[("a", "1")]);
    write(&world.volume().join("same"), "x");
    write(&world.volume().join("other"), "z");
    let mut reported = Vec::new();
    stage(&world.manifest, &mut |step| {
        match step {
            Step::Done { source, tally, .. } => reported.push(format!("{} {tally:?}", source.description)),
            Step::Keep { path, source, .. } => reported.push(format!("{} {}", source.description, path.display())),
            _ => {}
        }
        Ok(())
    })
    .unwrap();
    assert_eq!(
        reported,
        [
            "image one other",
            "image one Tally { written: 1, bytes: 3, same: 1, kept: 1 }",
            "image two Tally { written: 1, bytes: 1, same: 0, kept: 0 }",
        ]
    );
}

/// A manifest with everything that is written in a different way.
fn rich_world() -> World {
    let mut world = World::new("data");
    let code = world.source("image src", "code", &[("lib/a.c", "int a;"), ("lib/b.c", ""), ("run", "#!")]);
    set_mode(&code.join("run"), 0o755);
    symlink("lib/a.c", code.join("link")).unwrap();
    symlink("/usr/bin/python3", code.join("lib/python3")).unwrap();
    world.source("configMap poc", "", &[("code/run", "#!"), ("poc", "AAAA")]);
    world.add_volume("tools");
    world.source("image tools", "", &[("fuzz/x", "x")]);
    world
}

/// Ends a run at the step with that number, as a crash would.
fn crash_at(world: &World, step: usize) -> bool {
    let mut steps = 0..step;
    let outcome = stage(&world.manifest, &mut |_| match steps.next() {
        Some(_) => Ok(()),
        None => Err(io::ErrorKind::Interrupted.into()),
    });
    outcome.is_err()
}

#[test]
fn a_crash_at_any_point_and_another_later_end_in_the_same_tree() {
    let smooth = rich_world();
    smooth.stage().unwrap();
    let expected = tree(&smooth.base.path().join("volumes"));

    let mut points = 0;
    for first in 0.. {
        for second in (0..).step_by(3) {
            let world = rich_world();
            let crashed = crash_at(&world, first);
            let crashed_again = crash_at(&world, second);
            let volumes = stage(&world.manifest, &mut |_| Ok(())).unwrap();

            assert_eq!(tree(&world.base.path().join("volumes")), expected, "crashes at {first} and {second}");
            assert!(volumes.values().all(|staged| staged.kept == 0), "our own files are not taken for a sandbox's");
            assert_eq!(volumes["tools"].roots, ["fuzz"]);
            points += 1;
            if !crashed {
                assert!(points > 100, "only {points} pairs of crashes");
                return;
            }
            if !crashed_again {
                break;
            }
        }
    }
}

#[test]
fn a_crashed_run_has_no_marker() {
    for step in 0.. {
        let world = rich_world();
        if !crash_at(&world, step) {
            break;
        }
        let marked = world.volume().join(MARKER).exists();
        let complete = world.volume().join("poc").exists();
        assert!(complete || !marked, "crash at {step}");
    }
}
