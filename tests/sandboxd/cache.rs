//! `sandboxd save` and `sandboxd restore`, as the user of their Pods.

use std::ffi::OsStr;
use std::hash::{BuildHasher, RandomState};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::ffi::OsStrExt;

use aigise_operator::protocol::cache::{
    FORMAT, MANIFEST, Part, RESTORE_ENV, RESTORED, RestoreFault, RestoreReport, RestoreWork, RestoredVolume, SAVE_ENV,
    SaveFault, SaveReport, SaveWork, SavedVolume,
};
use serde::de::DeserializeOwned;

use super::super::*;

/// The volume `data` of one session, an entry, and the volume of another session.
struct Cache(TempDir);

fn open(path: &Path) {
    fs::set_permissions(path, fs::Permissions::from_mode(0o777)).unwrap();
}

impl Cache {
    fn new() -> Self {
        let base = tempfile::tempdir().unwrap();
        assert!(Command::new("cp").arg(SANDBOXD).arg(base.path()).status().unwrap().success());
        let cache = Self(base);
        open(cache.0.path());
        for folder in ["data", "entry", "new"] {
            cache.make(folder);
        }
        cache
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    /// A volume as the kubelet prepares it: its root belongs to root and to the shared group.
    fn make(&self, folder: &str) {
        let path = self.path(folder);
        fs::create_dir(&path).unwrap();
        if is_root() {
            chown(&path, Some(0), Some(STAGE_USER)).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o2775)).unwrap();
        }
    }

    fn text(&self, path: &str) -> String {
        self.path(path).to_str().unwrap().to_owned()
    }

    /// A verb under another program, with its work.
    fn command_under(&self, wrapper: &[&str], work: (&str, String)) -> Command {
        let program = self.path("sandboxd");
        let mut command = Command::new(wrapper.first().map_or(program.as_os_str(), OsStr::new));
        if let [_, rest @ ..] = wrapper {
            command.args(rest).arg(&program);
        }
        let verb = if work.0 == SAVE_ENV { "save" } else { "restore" };
        command.args([verb, "--report"]).arg(self.path("report")).env(work.0, work.1).stdout(Stdio::null());
        command
    }

    fn report<R: DeserializeOwned>(&self) -> R {
        let text = fs::read(self.path("report")).unwrap();
        assert!(text.len() <= 4096, "{} bytes", text.len());
        serde_json::from_slice(&text).unwrap()
    }

    fn save_work(&self) -> (&'static str, String) {
        let exclude = vec!["out/cache".into()];
        let volume = SavedVolume { name: "data".into(), mount_path: self.text("data"), exclude };
        let work = SaveWork { volumes: vec![volume], entry: self.text("entry"), timeout: 600, ..SaveWork::default() };
        (SAVE_ENV, serde_json::to_string(&work).unwrap())
    }

    fn save_command(&self) -> Command {
        as_stage_user(self.command_under(&[], self.save_work()))
    }

    fn save(&self) -> SaveReport {
        let mut command = self.save_command();
        command.stderr(Stdio::null()).status().unwrap();
        self.report()
    }

    fn save_failure(&self) -> (SaveFault, String) {
        let report = self.save();
        assert!(!self.path("entry").join(MANIFEST).exists());
        let SaveReport::Failed { reason, message } = report else { panic!("{report:?}") };
        (reason, message)
    }

    fn save_manifest(&self) -> SaveReport {
        serde_json::from_slice(&fs::read(self.path("entry").join(MANIFEST)).unwrap()).unwrap()
    }

    /// The work that restores what the manifest of the entry names.
    fn work(&self) -> RestoreWork {
        let manifest = self.save_manifest();
        let SaveReport::Saved { arch, volumes, .. } = manifest else { panic!("{manifest:?}") };
        let volume = |(name, part): (String, Part)| RestoredVolume { name, mount_path: self.text("new"), part };
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

    fn restore_command(&self, work: &RestoreWork) -> Command {
        as_stage_user(self.command_under(&[], (RESTORE_ENV, serde_json::to_string(work).unwrap())))
    }

    fn restore(&self, work: &RestoreWork) -> RestoreReport {
        self.restore_command(work).stderr(Stdio::null()).status().unwrap();
        self.report()
    }

    fn assert_restored(&self, work: &RestoreWork) {
        let report = self.restore(work);
        assert!(matches!(report, RestoreReport::Restored { .. }), "{report:?}");
        assert_eq!(fs::read_to_string(self.path("new").join(RESTORED)).unwrap(), "sha256:one\n");
        assert_eq!(snapshot(&self.path("data")), snapshot(&self.path("new")));
    }
}

/// What of a file or folder is restored.
#[derive(Debug, PartialEq, Eq)]
struct Node {
    kind: &'static str,
    /// The content, or the target of a link.
    content: Vec<u8>,
    executable: bool,
    has_hole: bool,
    /// In seconds and nanoseconds; of the root, zero.
    modified: (i64, i64),
    /// The first of its names.
    first: PathBuf,
}

fn snapshot(root: &Path) -> BTreeMap<PathBuf, Node> {
    let mut found = BTreeMap::new();
    look(root, Path::new(""), &mut BTreeMap::new(), &mut found);
    found
}

fn look(root: &Path, path: &Path, first: &mut BTreeMap<u64, PathBuf>, found: &mut BTreeMap<PathBuf, Node>) {
    let full = root.join(path);
    let stat = fs::symlink_metadata(&full).unwrap();
    let mut node = Node {
        kind: "folder",
        content: vec![],
        executable: stat.mode() & 0o111 != 0,
        has_hole: false,
        modified: if path == Path::new("") { (0, 0) } else { (stat.mtime(), stat.mtime_nsec()) },
        first: path.to_owned(),
    };
    if stat.is_dir() {
        let mut names: Vec<_> = fs::read_dir(&full).unwrap().map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        for name in names {
            let path = path.join(name);
            let is_left_out =
                [RESTORED, ".aigise-cache", "lost+found", "out/cache"].iter().any(|left| path == Path::new(left));
            if !is_left_out {
                look(root, &path, first, found);
            }
        }
    } else {
        node.first.clone_from(first.entry(stat.ino()).or_insert_with(|| path.to_owned()));
        if stat.is_symlink() {
            node.kind = "link";
            node.content = fs::read_link(&full).unwrap().as_os_str().as_bytes().to_vec();
        } else {
            node.kind = "file";
            node.content = fs::read(&full).unwrap();
            node.has_hole = stat.blocks() * 512 + 4096 < stat.len();
        }
    }
    found.insert(path.to_owned(), node);
}

fn sh(folder: &Path, script: &str) {
    let status = Command::new("sh").args(["-ec", script]).current_dir(folder).status().unwrap();
    assert!(status.success(), "{script}");
}

/// A tree with everything that a volume may hold.
fn everything(root: &Path) {
    let script = r"
        umask 022
        mkdir -p src/a/b/c out/cache .aigise-cache lost+found empty
        echo 'out/prog: src/a/main.c; cp $< $@' >Makefile
        echo 'int main(){}' >src/a/main.c
        printf 'bin' >out/prog; chmod 755 out/prog; ln out/prog out/same
        echo x >out/cache/left; echo x >.aigise-cache/part; echo x >lost+found/inode
        echo sha256:x >.aigise-staged
        ln -s ../src/a src/back; ln -s /no/where dangling; ln dangling second
        printf x >src/read-only; chmod 444 src/read-only
        truncate -s 3M sparse; printf tail >>sparse; truncate -s 4M sparse
        touch -d '2001-02-03 04:05:06.123456789' src/a/main.c
        touch -d '2001-02-03 04:05:06.123456790' out/prog
        touch -h -d '1999-01-01 00:00:00.5' dangling
        touch -d '2031-01-01 00:00:00.000000001' src/a/b/c
        touch -d '2002-01-01 00:00:00.7' src/a src";
    sh(root, script);
    for name in [&b"new\nline"[..], b"\xff\xfe invalid", b"-dash *", &[b'n'; 255]] {
        fs::write(root.join("src/a/b").join(OsStr::from_bytes(name)), name).unwrap();
    }
    fs::write(root.join("empty.txt"), "").unwrap();
}

#[test]
fn a_volume_with_everything_is_restored_as_it_was() {
    let cache = Cache::new();
    everything(&cache.path("data"));
    assert!(matches!(cache.save(), SaveReport::Saved { .. }));
    assert!(snapshot(&cache.path("data"))[Path::new("sparse")].has_hole);
    fs::create_dir(cache.path("new/lost+found")).unwrap();

    cache.assert_restored(&cache.work());

    let new = cache.path("new");
    let make = Command::new("make").args(["--question", "out/prog"]).current_dir(&new).status();
    assert!(make.is_err() || make.unwrap().success(), "it is up to date");
    let user = if is_root() { STAGE_USER } else { geteuid().as_raw() };
    for (path, expected) in [("src/read-only", 0o666), ("out/same", 0o777), ("src/a", 0o777), ("src/a/b/c", 0o777)] {
        assert_eq!(mode(&new.join(path)) & 0o777, expected, "{path}");
        assert_eq!(fs::metadata(new.join(path)).unwrap().uid(), user);
    }
    assert!(!new.join("out/cache").exists() && !new.join(".aigise-cache").exists());
    assert_eq!(fs::read_dir(new.join("lost+found")).unwrap().count(), 0);
}

#[test]
fn what_the_user_may_not_read_is_named() {
    if !is_root() {
        return;
    }
    let cache = Cache::new();
    fs::create_dir(cache.path("data/queue")).unwrap();
    let secret = cache.path("data/queue/crash\n1");
    fs::write(&secret, "x").unwrap();
    chown(&secret, Some(1000), Some(1000)).unwrap();
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o600)).unwrap();
    let message = "the user 65532 could not read queue/crash\\n1 of the volume data".to_owned();
    assert_eq!(cache.save_failure(), (SaveFault::Unreadable, message));

    for (path, closed) in [("queue", "queue"), ("", ".")] {
        let folder = cache.path("data").join(path);
        let before = mode(&folder);
        fs::set_permissions(&folder, fs::Permissions::from_mode(0o700)).unwrap();
        let (reason, message) = cache.save_failure();
        assert_eq!(reason, SaveFault::Unreadable, "{message}");
        assert_eq!(message, format!("the user 65532 could not read {closed} of the volume data"));
        fs::set_permissions(&folder, fs::Permissions::from_mode(before)).unwrap();
    }
}

/// A deep path of long names that JSON writes with several bytes each.
#[test]
fn a_report_is_never_too_long() {
    if !is_root() {
        return;
    }
    let cache = Cache::new();
    let mut path = cache.path("data");
    for _ in 0..10 {
        path.push(OsStr::from_bytes(&[b'\\'; 250]));
        fs::create_dir(&path).unwrap();
    }
    fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
    let (reason, message) = cache.save_failure();
    assert_eq!(reason, SaveFault::Unreadable);
    assert!(message.starts_with("the user 65532 could not read \\\\") && message.ends_with('…'), "{message}");
}

#[test]
fn a_part_that_changed_writes_nothing() {
    let cache = Cache::new();
    everything(&cache.path("data"));
    assert!(matches!(cache.save(), SaveReport::Saved { .. }));
    let work = cache.work();
    let path = cache.path("entry/data.tar.zst");
    let whole = fs::read(&path).unwrap();
    let random = RandomState::new();
    let is_corrupt = |what: &str| {
        let report = cache.restore(&work);
        let RestoreReport::Failed { fault: RestoreFault::Corrupt, part: Some(part), message, wrote: false } = report
        else {
            panic!("{what}: {report:?}")
        };
        assert_eq!(part, "data", "{message}");
        assert_eq!(fs::read_dir(cache.path("new")).unwrap().count(), 0, "{what}");
    };
    for round in 0..20 {
        let at = random.hash_one(round) % whole.len() as u64;
        let mut file = fs::OpenOptions::new().read(true).write(true).open(&path).unwrap();
        let mut byte = [0];
        file.seek(SeekFrom::Start(at)).and_then(|_| file.read_exact(&mut byte)).unwrap();
        file.seek(SeekFrom::Start(at)).and_then(|_| file.write_all(&[byte[0] ^ 0x10])).unwrap();
        is_corrupt(&format!("byte {at}"));
        file.seek(SeekFrom::Start(at)).and_then(|_| file.write_all(&byte)).unwrap();
    }
    fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(whole.len() as u64 / 2).unwrap();
    is_corrupt("truncated");
    fs::remove_file(&path).unwrap();
    is_corrupt("missing");
    let report = cache.restore(&RestoreWork { arch: "other".into(), ..work.clone() });
    assert!(
        matches!(report, RestoreReport::Failed { fault: RestoreFault::ArchDiffers, wrote: false, .. }),
        "{report:?}"
    );
    let report = cache.restore(&RestoreWork { format: FORMAT + 1, ..work });
    assert!(
        matches!(report, RestoreReport::Failed { fault: RestoreFault::FormatUnknown, wrote: false, .. }),
        "{report:?}"
    );
}

#[test]
fn missing_work_is_reported() {
    let cache = Cache::new();
    let save = (
        "the Pod was started without AIGISE_SAVE",
        "AIGISE_SAVE is not valid: missing field `volumes` at line 1 column 2",
    );
    for (work, expected) in [(None, save.0), (Some("{}"), save.1)] {
        let mut command = cache.save_command();
        match work {
            None => command.env_remove(SAVE_ENV),
            Some(text) => command.env(SAVE_ENV, text),
        };
        let output = command.output().unwrap();
        assert_eq!(output.status.code(), Some(1));
        assert_eq!(String::from_utf8(output.stderr).unwrap(), format!("sandboxd: {expected}\n"));
        assert_eq!(
            cache.report::<SaveReport>(),
            SaveReport::Failed { reason: SaveFault::Failed, message: expected.into() }
        );
    }
}

/// Files that cannot be compressed.
fn random_files(folder: &Path, count: u32, blocks: u32) {
    let script = format!("for i in $(seq {count}); do head -c $(({blocks} * 1024)) /dev/urandom >$i; done");
    sh(folder, &script);
}

/// Runs a verb twice in one mount namespace, on a small file system and then on a larger one; `None`: this process may not mount.
fn on_small_storage(cache: &Cache, mount: &str, work: (&str, String)) -> Option<(Vec<u8>, Vec<u8>)> {
    let script = format!(
        "mount -t tmpfs -o size=600k none {mount} && echo mounted; \"$@\"; cp \"$REPORT\" \"$REPORT.full\"; \
         mount -o remount,size=20m {mount} && \"$@\""
    );
    let mut command = cache.command_under(&["unshare", "--mount", "sh", "-c", &script, "sh"], work);
    let output = command.env("REPORT", cache.path("report")).stdout(Stdio::piped()).output().unwrap();
    String::from_utf8_lossy(&output.stdout)
        .contains("mounted")
        .then(|| (fs::read(cache.path("report.full")).unwrap(), fs::read(cache.path("report")).unwrap()))
}

#[test]
fn an_entry_that_is_too_small_is_reported_with_numbers() {
    if !is_root() {
        return;
    }
    let cache = Cache::new();
    random_files(&cache.path("data"), 4, 400);
    let Some((full, then)) = on_small_storage(&cache, &cache.text("entry"), cache.save_work()) else { return };
    let report = serde_json::from_slice(&full).unwrap();
    let SaveReport::Failed { reason: SaveFault::NoSpace, message } = report else { panic!("{report:?}") };
    let beginning = "the cache entry is full: at least ";
    assert!(
        message.starts_with(beginning) && message.ends_with(" KB are needed, and 614.4 KB were available"),
        "{message}"
    );
    let needed: f64 = message[beginning.len()..].split(' ').next().unwrap().parse().unwrap();
    assert!(needed > 614.4, "{message}");
    assert!(matches!(serde_json::from_slice(&then).unwrap(), SaveReport::Saved { .. }));
}

#[test]
fn a_volume_that_is_too_small_is_reported_with_numbers() {
    if !is_root() {
        return;
    }
    // The first is too large, the second needs a page for each small file.
    for (count, blocks, is_foreseen) in [(2, 300, true), (200, 0, false)] {
        let cache = Cache::new();
        random_files(&cache.path("data"), count, blocks);
        if !is_foreseen {
            sh(&cache.path("data"), "for i in *; do echo x >$i; done");
        }
        assert!(matches!(cache.save(), SaveReport::Saved { .. }));
        let work = (RESTORE_ENV, serde_json::to_string(&cache.work()).unwrap());
        let Some((full, then)) = on_small_storage(&cache, &cache.text("new"), work) else { return };
        let report = serde_json::from_slice(&full).unwrap();
        let RestoreReport::Failed { fault: RestoreFault::NoSpace, part: Some(part), message, wrote } = report else {
            panic!("{report:?}")
        };
        assert_eq!((part.as_str(), wrote), ("data", !is_foreseen), "{message}");
        let end = if is_foreseen {
            "552.9 KB are available: 10 % of the storage stay free"
        } else {
            "614.4 KB were available"
        };
        assert!(message.contains(" KB are needed") && message.ends_with(end), "{message}");
        assert!(
            matches!(serde_json::from_slice(&then).unwrap(), RestoreReport::Restored { .. }),
            "the next run continues"
        );
    }
}

/// The rights of a sandbox of another user over what was restored, and over what it creates there.
#[test]
fn sandboxes_of_all_users_edit_each_others_files_in_restored_folders() {
    if !is_root() {
        return;
    }
    let cache = Cache::new();
    let pod = Pod::new();
    fs::write(pod.source().join("staged"), "x").unwrap();
    let mut manifest = pod.manifest.clone();
    manifest.volumes[0].mount_path = cache.text("data");
    let mut stage = pod.command();
    stage.env(MANIFEST_ENV, serde_json::to_string(&manifest).unwrap());
    assert!(stage.status().unwrap().success());
    assert!(matches!(cache.save(), SaveReport::Saved { .. }));
    cache.assert_restored(&cache.work());

    let run = |user: u32, folder: &Path, script: &str| {
        let user = [format!("--reuid={user}"), format!("--regid={user}"), format!("--groups={STAGE_USER}")];
        let script = format!("umask 022; cd {} && {script}", folder.display());
        Command::new("setpriv").args(user).args(["sh", "-c", &script]).stderr(Stdio::null()).status().unwrap().success()
    };
    for root in ["data", "new"] {
        let folder = cache.path(root).join("code");
        assert!(run(1000, &folder, "echo b >>staged; echo a >file; mkdir sub; echo a >sub/file"), "{root}");
        for path in ["staged", "file", "sub/file", "sub/new"] {
            assert!(run(2000, &folder, &format!("echo b >>{path}")), "{root}: {path}");
        }
    }
}

#[test]
fn restored_folders_give_new_files_the_group_of_the_volume() {
    if !is_root() {
        return;
    }
    let cache = Cache::new();
    everything(&cache.path("data"));
    assert!(matches!(cache.save(), SaveReport::Saved { .. }));
    cache.assert_restored(&cache.work());
    for folder in ["src", "src/a/b/c", "empty"] {
        assert_eq!(mode(&cache.path("new").join(folder)), 0o2777, "{folder}");
    }
}

/// Kills a run at a random moment before `limit`; `false` if it had ended.
fn is_killed(mut command: Command, limit: Duration) -> bool {
    let mut run = command.stderr(Stdio::null()).spawn().unwrap();
    let micros = u64::try_from(limit.as_micros()).unwrap();
    std::thread::sleep(Duration::from_micros(RandomState::new().hash_one(0) % micros));
    kill_process(pid_of(&run), Signal::KILL).unwrap();
    run.wait().unwrap().signal().is_some()
}

/// A tree that takes a while.
fn many_files(root: &Path) {
    everything(root);
    for folder in 0..12 {
        let path = root.join(format!("folder-{folder}"));
        fs::create_dir(&path).unwrap();
        for file in 0..20 {
            fs::write(path.join(format!("file-{file}")), format!("{folder}/{file}").repeat(2000)).unwrap();
        }
    }
}

#[test]
fn a_save_that_is_killed_at_any_moment_is_completed_by_the_next() {
    let cache = Cache::new();
    many_files(&cache.path("data"));
    let start = Instant::now();
    let whole = cache.save();
    let limit = start.elapsed();
    let mut kills = 0;
    while kills < 32 {
        if !is_killed(cache.save_command(), limit) {
            continue;
        }
        kills += 1;
        if cache.path("entry").join(MANIFEST).exists() {
            assert_eq!(cache.save_manifest(), whole, "a manifest has its parts");
            let SaveReport::Saved { volumes, .. } = &whole else { panic!("{whole:?}") };
            let length = fs::metadata(cache.path("entry/data.tar.zst")).unwrap().len();
            assert_eq!(length, volumes["data"].packed);
        }
        if kills % 4 == 0 {
            assert_eq!(cache.save(), whole);
            assert_eq!(fs::read_dir(cache.path("entry")).unwrap().count(), 2, "the part and the manifest");
        }
    }
    assert_eq!(cache.save(), whole);
    cache.assert_restored(&cache.work());
}

#[test]
fn a_restore_that_is_killed_at_any_moment_is_completed_by_the_next() {
    let cache = Cache::new();
    many_files(&cache.path("data"));
    assert!(matches!(cache.save(), SaveReport::Saved { .. }));
    let work = cache.work();
    let start = Instant::now();
    cache.assert_restored(&work);
    let limit = start.elapsed();
    let (mut kills, mut halves) = (0, 0);
    while kills < 32 {
        fs::remove_dir_all(cache.path("new")).unwrap();
        cache.make("new");
        if !is_killed(cache.restore_command(&work), limit) {
            continue;
        }
        kills += 1;
        // Every second time it is killed once more.
        kills += u32::from(kills % 2 == 0 && is_killed(cache.restore_command(&work), limit));
        let marked = cache.path("new").join(RESTORED).exists();
        halves += u32::from(!marked && fs::read_dir(cache.path("new")).unwrap().count() > 1);
        cache.assert_restored(&work);
        assert!(!cache.path("new/.aigise-restored.part").exists());
    }
    assert!(halves > 0, "no run was killed in the middle");
}
