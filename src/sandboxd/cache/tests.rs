//! Save and restore over temporary folders.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::PathBuf;

use tempfile::TempDir;

use super::*;
use crate::protocol::cache::{FORMAT, MANIFEST, Part, RESTORED, RestoreWork, RestoredVolume, SaveWork, SavedVolume};

/// Two saved volumes, an entry, and two volumes that are restored.
struct World(TempDir);

impl World {
    fn new() -> Self {
        let world = Self(tempfile::tempdir().unwrap());
        for folder in ["data/src/deep", "tools", "entry", "new/data", "new/tools"] {
            fs::create_dir_all(world.path(folder)).unwrap();
        }
        fs::write(world.path("data/src/deep/main.c"), "int main;").unwrap();
        fs::write(world.path("data/.aigise-staged"), "sha256:x").unwrap();
        fs::write(world.path("tools/run"), vec![7; 300_000]).unwrap();
        world
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    fn text(&self, path: &str) -> String {
        self.path(path).to_str().unwrap().to_owned()
    }

    fn save_work(&self) -> SaveWork {
        let volume = |name: &str| SavedVolume { name: name.into(), mount_path: self.text(name), exclude: vec![] };
        SaveWork {
            volumes: ["data", "tools"].map(volume).into(),
            entry: self.text("entry"),
            timeout: 600,
            ..SaveWork::default()
        }
    }

    /// Saves, and returns the work that restores.
    fn saved(&self) -> RestoreWork {
        let report = save(&self.save_work());
        let SaveReport::Saved { arch, volumes, .. } = report else { panic!("{report:?}") };
        let volume =
            |(name, part): (String, Part)| RestoredVolume { mount_path: self.text(&format!("new/{name}")), name, part };
        let volumes = volumes.into_iter().map(volume).collect();
        RestoreWork {
            entry: self.text("entry"),
            arch,
            format: FORMAT,
            volumes,
            digest: "sha256:one".into(),
            ..RestoreWork::default()
        }
    }

    fn save_failure(&self, work: &SaveWork) -> (SaveFault, String) {
        let report = save(work);
        assert!(!self.path("entry").join(MANIFEST).exists());
        let SaveReport::Failed { reason, message } = report else { panic!("{report:?}") };
        (reason, message)
    }

    /// How a restore fails that writes nothing.
    fn refusal(&self, work: &RestoreWork) -> (RestoreFault, Option<String>, String) {
        let report = restore(work);
        for volume in ["new/data", "new/tools"] {
            assert_eq!(fs::read_dir(self.path(volume)).unwrap().count(), 0, "{report:?}");
        }
        let RestoreReport::Failed { fault, part, message, wrote: false } = report else { panic!("{report:?}") };
        (fault, part, message)
    }
}

#[test]
fn what_was_saved_is_restored_with_a_marker_and_left_alone_then() {
    let world = World::new();
    let work = world.saved();
    let sizes = work.volumes.iter().map(|volume| (volume.name.clone(), volume.part.unpacked)).collect();
    let restored = RestoreReport::Restored { volumes: sizes, left_out: BTreeSet::new() };
    assert_eq!(restore(&work), restored);
    assert_eq!(fs::read_to_string(world.path("new/data/src/deep/main.c")).unwrap(), "int main;");
    assert_eq!(fs::read_to_string(world.path("new/data/.aigise-staged")).unwrap(), "sha256:x");
    assert_eq!(fs::read(world.path("new/tools/run")).unwrap(), vec![7; 300_000]);
    for volume in ["new/data", "new/tools"] {
        assert_eq!(fs::read_to_string(world.path(volume).join(RESTORED)).unwrap(), "sha256:one\n");
        assert!(!world.path(volume).join(RESTORING).exists());
    }

    fs::write(world.path("new/tools/run"), "of a sandbox").unwrap();
    fs::remove_dir_all(world.path("entry")).unwrap();
    fs::create_dir(world.path("entry")).unwrap();
    assert_eq!(restore(&work), restored, "the entry is not needed any more");
    assert_eq!(fs::read_to_string(world.path("new/tools/run")).unwrap(), "of a sandbox");
    assert!(matches!(
        restore(&RestoreWork { digest: "sha256:two".into(), ..work }),
        RestoreReport::Failed { fault: RestoreFault::Corrupt, wrote: false, .. }
    ));
}

#[test]
fn the_manifest_is_the_report_and_leftovers_are_replaced() {
    let world = World::new();
    fs::write(world.path("entry/data.tar.zst.part"), "half").unwrap();
    fs::write(world.path("entry/manifest.json.part"), "half").unwrap();
    let first = save(&world.save_work());
    let manifest =
        || serde_json::from_slice::<SaveReport>(&fs::read(world.path("entry/manifest.json")).unwrap()).unwrap();
    assert_eq!(manifest(), first);
    fs::write(world.path("tools/run"), "shorter").unwrap();
    let second = save(&world.save_work());
    assert_ne!(second, first);
    assert_eq!(manifest(), second);
    let mut names: Vec<_> =
        fs::read_dir(world.path("entry")).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["data.tar.zst", "manifest.json", "tools.tar.zst"]);
}

#[test]
fn what_is_left_out_is_not_restored() {
    let world = World::new();
    for folder in [".aigise-cache", "lost+found", "src/lost+found", "build", "build-2"] {
        fs::create_dir_all(world.path("data").join(folder)).unwrap();
        fs::write(world.path("data").join(folder).join("file"), "x").unwrap();
    }
    fs::write(world.path("data/.aigise-restored"), "sha256:old").unwrap();
    fs::write(world.path("data/.aigise-restored.part"), "sha256:old").unwrap();
    let mut save_work = world.save_work();
    save_work.volumes[0].exclude = vec!["build/".into(), "src/deep/main.c".into(), "absent".into()];
    let SaveReport::Saved { volumes, .. } = save(&save_work) else { panic!() };
    let mut work = world.saved();
    save(&save_work);
    work.volumes[0].part = volumes["data"].clone();
    assert!(matches!(restore(&work), RestoreReport::Restored { .. }));
    let exists = |path: &str| world.path("new/data").join(path).exists();
    let kept = ["src/lost+found/file", "build-2/file", "src/deep", ".aigise-staged"];
    assert!(kept.into_iter().all(exists));
    let left_out = [".aigise-cache", "lost+found", "build", "src/deep/main.c"];
    assert!(!left_out.into_iter().any(exists));
    assert_eq!(fs::read_to_string(world.path("new/data/.aigise-restored")).unwrap(), "sha256:one\n");
}

#[test]
fn a_part_that_is_not_what_was_saved_is_named_and_nothing_is_written() {
    let world = World::new();
    let work = world.saved();
    for (volume, file) in [("data", "data.tar.zst"), ("tools", "tools.tar.zst")] {
        let path = world.path("entry").join(file);
        let whole = fs::read(&path).unwrap();
        let corrupt = |message: &str| {
            let expected = format!("{file} of the cache entry {message}");
            assert_eq!(world.refusal(&work), (RestoreFault::Corrupt, Some(volume.into()), expected));
        };
        for at in [0, whole.len() / 2, whole.len() - 1] {
            let mut flipped = whole.clone();
            flipped[at] ^= 1;
            fs::write(&path, flipped).unwrap();
            corrupt("is not what was saved");
        }
        fs::write(&path, &whole[..whole.len() - 1]).unwrap();
        corrupt(&format!("has {} bytes, and had {} when it was saved", whole.len() - 1, whole.len()));
        fs::remove_file(&path).unwrap();
        corrupt("is missing");
        fs::write(&path, whole).unwrap();
    }
    let mut work = work;
    work.volumes[1].part.file = "../data/.aigise-staged".into();
    assert_eq!(world.refusal(&work).0, RestoreFault::Corrupt);
}

#[test]
fn another_format_or_architecture_is_refused() {
    let world = World::new();
    let work = world.saved();
    let (fault, part, message) = world.refusal(&RestoreWork { format: 7, ..work.clone() });
    assert_eq!((fault, part), (RestoreFault::FormatUnknown, None));
    assert_eq!(message, "the cache entry has the format 7, and this version reads 1");
    let (fault, _, message) = world.refusal(&RestoreWork { arch: "sparc".into(), ..work });
    assert_eq!(fault, RestoreFault::ArchDiffers);
    assert_eq!(message, format!("the cache entry was saved on sparc, and this node is {ARCH}"));
}

#[test]
fn a_part_that_is_larger_than_it_says_leaves_volumes_of_no_use() {
    let world = World::new();
    let mut work = world.saved();
    work.volumes[1].part.unpacked -= 1;
    for _ in 0..2 {
        let report = restore(&work);
        let RestoreReport::Failed { fault, part, message, wrote: true } = report else { panic!("{report:?}") };
        assert_eq!((fault, part), (RestoreFault::TooLarge, Some("tools".into())), "{message}");
    }
    fs::remove_file(world.path("entry/tools.tar.zst")).unwrap();
    let report = restore(&work);
    assert!(matches!(report, RestoreReport::Failed { wrote: true, .. }), "an earlier run wrote: {report:?}");
}

#[test]
fn more_than_the_storage_can_hold_is_refused_before_anything_is_written() {
    let world = World::new();
    let mut work = world.saved();
    work.volumes[0].part.unpacked = u64::MAX / 2;
    work.volumes[1].part.unpacked = u64::MAX;
    let (fault, part, message) = world.refusal(&work);
    assert_eq!((fault, part), (RestoreFault::NoSpace, None), "both volumes are on one file system");
    assert!(message.starts_with("18446744.0 TB are needed for data and tools, and "), "{message}");
}

#[test]
fn a_save_that_takes_too_long_is_given_up() {
    let world = World::new();
    let work = SaveWork { timeout: 0, ..world.save_work() };
    let expected = (SaveFault::Timeout, "the volume data could not be saved within 0 s".to_owned());
    assert_eq!(world.save_failure(&work), expected);
    assert_eq!(fs::read_dir(world.path("entry")).unwrap().count(), 0);
    assert!(matches!(save(&SaveWork { timeout: u64::MAX, ..work }), SaveReport::Saved { .. }));
}

#[test]
fn names_that_archives_reserve_and_missing_mounts_are_reported() {
    let world = World::new();
    fs::write(world.path("tools/.wh.run"), "").unwrap();
    let (reason, message) = world.save_failure(&world.save_work());
    assert_eq!(reason, SaveFault::Reserved);
    assert_eq!(message, "the volume tools could not be saved: .wh.run has a name that layers reserve");
    fs::remove_dir_all(world.path("tools")).unwrap();
    let (reason, message) = world.save_failure(&world.save_work());
    assert_eq!(reason, SaveFault::Failed);
    assert!(message.starts_with("the volume tools is not mounted: there is no folder /"), "{message}");
}

#[test]
fn restored_files_are_open_to_all_users() {
    let world = World::new();
    for (path, mode) in [("data/src/deep", 0o700), ("tools/run", 0o4750), ("data/src/deep/main.c", 0o400)] {
        fs::set_permissions(world.path(path), fs::Permissions::from_mode(mode)).unwrap();
    }
    fs::set_permissions(world.path("new/data"), fs::Permissions::from_mode(0o2755)).unwrap();
    assert!(matches!(restore(&world.saved()), RestoreReport::Restored { .. }));
    let mode = |path: &str| fs::metadata(world.path("new").join(path)).unwrap().mode() & 0o7777;
    assert_eq!(mode("data"), 0o2777, "as after staging");
    assert_eq!(mode("data/src/deep") & 0o777, 0o777);
    assert_eq!((mode("tools/run"), mode("data/src/deep/main.c")), (0o777, 0o666));
    assert_eq!(mode("data/.aigise-restored"), 0o644);
}

#[test]
fn a_message_of_any_length_fits_into_a_termination_message() {
    for letter in ["a", "ä", "\u{1}", "\"", "\\", "\u{202e}", "🦀"] {
        let message = printable(&format!("could not read {}", letter.repeat(9000)));
        assert!(message.starts_with("could not read ") && message.ends_with('…'), "{message}");
        assert!(!message.contains(|letter: char| letter.is_control() || letter == '\u{202e}'), "{message}");
        let report = RestoreReport::Failed {
            fault: RestoreFault::RestoreFailed,
            part: Some("tools".into()),
            message,
            wrote: true,
        };
        assert!(serde_json::to_string(&report).unwrap().len() <= 4096);
    }
}

#[test]
fn the_reports_have_this_form() {
    let part = Part { file: "data.tar.zst".into(), sha256: "00ff".into(), packed: 5, unpacked: 9 };
    let saved = SaveReport::Saved {
        arch: "x86_64".into(),
        volumes: [("data".to_owned(), part)].into(),
        left_out: BTreeSet::new(),
    };
    let expected = r#"{"outcome":"saved","arch":"x86_64","volumes":{"data":{"file":"data.tar.zst","sha256":"00ff","packed":5,"unpacked":9}}}"#;
    assert_eq!(serde_json::to_string(&saved).unwrap(), expected);
    let failed =
        RestoreReport::Failed { fault: RestoreFault::NoSpace, part: None, message: "full".into(), wrote: false };
    let expected = r#"{"outcome":"failed","fault":"noSpace","part":null,"message":"full","wrote":false}"#;
    assert_eq!(serde_json::to_string(&failed).unwrap(), expected);
}
