//! Archives of somebody who wants out of the folder, or all of the memory or disk. They are in `tests/corpus/layer` as well.

use std::fs;
use std::io::Write;
use std::os::fd::AsFd;
use std::os::unix::fs::symlink;

use rustix::fs::{CWD, FileType, Mode};
use tar::{EntryType, Header};

use super::*;

/// An archive that is made by hand.
#[derive(Clone, Default)]
pub struct Forged(pub Vec<u8>);

impl Forged {
    pub fn entry(self, kind: EntryType, path: &str, target: &str, content: &[u8]) -> Self {
        self.with(kind, path, target, content, |_| ())
    }

    pub fn with(
        mut self,
        kind: EntryType,
        path: &str,
        target: &str,
        content: &[u8],
        change: impl FnOnce(&mut Header),
    ) -> Self {
        let mut header = Header::new_gnu();
        header.set_entry_type(kind);
        header.set_mode(0o755);
        header.set_uid(rustix::process::geteuid().as_raw().into());
        header.set_gid(rustix::process::getegid().as_raw().into());
        header.set_mtime(1);
        header.set_size(content.len() as u64);
        header.as_old_mut().name[..path.len()].copy_from_slice(path.as_bytes());
        header.as_old_mut().linkname[..target.len()].copy_from_slice(target.as_bytes());
        change(&mut header);
        header.set_cksum();
        self.0.extend(header.as_bytes());
        self.0.extend(content);
        self.0.resize(self.0.len().next_multiple_of(512), 0);
        self
    }

    pub fn file(self, path: &str, content: &[u8]) -> Self {
        self.entry(EntryType::Regular, path, "", content)
    }

    pub fn folder(self, path: &str) -> Self {
        self.entry(EntryType::Directory, path, "", b"")
    }

    pub fn pax(self, record: &str) -> Self {
        self.entry(EntryType::XHeader, "pax", "", record.as_bytes())
    }

    pub fn end(mut self) -> Vec<u8> {
        self.0.extend([0; 1024]);
        self.0
    }
}

/// The archives that are refused.
pub fn refused() -> Vec<(&'static str, Vec<u8>)> {
    let new = Forged::default;
    let device = |kind| new().entry(kind, "device", "", b"").end();
    vec![
        ("upward", new().file("../canary", b"x").end()),
        ("upward-within", new().folder("a/").file("a/../../canary", b"x").end()),
        ("absolute", new().file("/tmp/canary-of-layers", b"x").end()),
        ("through-link", new().entry(EntryType::Symlink, "l", "..", b"").file("l/canary", b"x").end()),
        ("through-two-links", new().entry(EntryType::Symlink, "l", "../outside", b"").folder("l/d/").end()),
        (
            "through-link-within",
            new().folder("a/b/").entry(EntryType::Symlink, "l", "a", b"").file("l/b/x", b"x").end(),
        ),
        ("folder-over-link", new().entry(EntryType::Symlink, "l", "../outside", b"").file("l/d/e", b"x").end()),
        ("link-outside", new().entry(EntryType::Link, "l", "../canary", b"").end()),
        (
            "link-through-link",
            new().entry(EntryType::Symlink, "l", "..", b"").entry(EntryType::Link, "c", "l/canary", b"").end(),
        ),
        ("link-through-planted", new().entry(EntryType::Link, "c", "planted/canary", b"").file("c", b"x").end()),
        ("through-planted", new().file("planted/canary", b"x").end()),
        ("whiteout-through-planted", new().file("planted/.wh.canary", b"").end()),
        ("opaque-through-planted", new().file("planted/.wh..wh..opq", b"").end()),
        ("link-to-itself", new().file("a", b"x").entry(EntryType::Link, "a", "a", b"").end()),
        ("link-to-folder", new().folder("a/").entry(EntryType::Link, "b", "a", b"").end()),
        ("link-to-nothing", new().entry(EntryType::Link, "b", "nothing", b"").end()),
        ("block-device", device(EntryType::Block)),
        ("character-device", device(EntryType::Char)),
        ("unknown-type", device(EntryType::new(b'Z'))),
        ("whiteout-of-root", new().file(".wh..", b"").end()),
        ("whiteout-of-parent", new().file(".wh...", b"").end()),
        ("whiteout-of-nothing", new().file(".wh.", b"").end()),
        ("whiteout-of-parent-below", new().folder("a/").file("a/.wh...", b"").end()),
        ("whiteout-with-content", new().file(".wh.a", b"x").end()),
        ("whiteout-folder", new().folder(".wh.a/").file(".wh.a/b", b"x").end()),
        ("root-is-a-file", new().file(".", b"x").end()),
        ("root-is-a-link", new().entry(EntryType::Symlink, "./", "..", b"").end()),
        ("file-as-folder", new().file("a", b"x").file("a/b", b"x").end()),
        ("pax-path-upward", new().pax("18 path=../canary\n").file("fine", b"x").end()),
        ("pax-link-upward", new().pax("22 linkpath=../canary\n").entry(EntryType::Link, "fine", "x", b"").end()),
        ("pax-size-small", new().pax("10 size=1\n").file("fine", &[b'x'; 1024]).end()),
        ("pax-size-large", new().pax("17 size=99999999\n").file("fine", b"x").end()),
        ("pax-size-of-folder", new().pax("12 size=512\n").folder("a/").file("fine", b"x").end()),
        ("pax-length", new().pax("99 path=fine\n").file("fine", b"x").end()),
        ("pax-length-zero", new().pax("0 path=fine\n").file("fine", b"x").end()),
        ("pax-without-end", new().pax("11 path=fine").file("fine", b"x").end()),
        ("pax-sparse", new().pax("22 GNU.sparse.major=1\n").file("fine", b"x").end()),
        ("pax-trusted", new().pax("27 SCHILY.xattr.trusted.a=\n").file("fine", b"x").end()),
        ("pax-of-nothing", new().pax("13 path=fine\n").end()),
        ("size-beyond", new().with(EntryType::Regular, "fine", "", b"", |header| header.set_size(u64::MAX)).end()),
        ("size-of-link", new().entry(EntryType::Symlink, "l", "x", b"content").end()),
        ("sparse-overlaps", sparse(&[(0, 512), (256, 512)], 4096, 1024)),
        ("sparse-beyond", sparse(&[(4096, 512)], 4096, 512)),
        ("sparse-lies", sparse(&[(0, 512)], 4096, 1024)),
        ("checksum", {
            let mut bytes = new().file("fine", b"x").end();
            bytes[0] = b'g';
            bytes
        }),
        ("ends-early", new().file("fine", &[1; 600]).end()[..600].to_vec()),
        ("without-end", new().file("fine", b"x").0),
        ("something-after-the-end", [new().file("fine", b"x").end(), new().file("more", b"x").end()].concat()),
        ("nul-in-path", new().pax("12 path=a\0b\n").file("fine", b"x").end()),
    ]
}

fn sparse(parts: &[(u64, u64)], size: u64, stored: usize) -> Vec<u8> {
    let forge = |header: &mut Header| {
        let gnu = header.as_gnu_mut().unwrap();
        gnu.set_real_size(size);
        for (field, (offset, length)) in gnu.sparse.iter_mut().zip(parts) {
            field.set_offset(*offset);
            field.set_length(*length);
        }
    };
    Forged::default().with(EntryType::GNUSparse, "sparse", "", &vec![7; stored], forge).end()
}

/// Archives that are strange and valid.
pub fn accepted() -> Vec<(&'static str, Vec<u8>)> {
    let new = Forged::default;
    vec![
        ("twice", new().file("a", b"1").file("a", b"2").end()),
        (
            "every-type-under-one-name",
            new()
                .file("a", b"1")
                .folder("a/")
                .file("a/b", b"2")
                .entry(EntryType::Symlink, "a", "..", b"")
                .entry(EntryType::Fifo, "a", "", b"")
                .file("a", b"3")
                .end(),
        ),
        ("without-parents", new().file("x/y/z", b"1").end()),
        ("dots", new().folder("./").file("./a//b/./c", b"1").end()),
        ("opaque", new().folder("d/").file("d/old", b"1").file("d/.wh..wh..opq", b"").file("d/new", b"2").end()),
        ("whiteout-of-planted", new().file(".wh.planted", b"").end()),
        ("over-planted", new().file("planted", b"x").end()),
        ("folder-over-planted", new().folder("planted/").file("planted/canary", b"x").end()),
        ("sparse", sparse(&[(512, 512), (2048, 100)], 4096, 612)),
        ("pax", new().pax("20 path=line\nfeed=\n\n").file("fine", b"x").end()),
        ("empty", new().end()),
    ]
}

/// A folder for the target, beside things that have to stay as they are.
pub struct Cell(pub TempDir);

impl Cell {
    pub fn new() -> Self {
        let base = tempfile::tempdir().unwrap();
        fs::write(base.path().join("canary"), "alive").unwrap();
        fs::create_dir(base.path().join("outside")).unwrap();
        fs::create_dir(base.path().join("in")).unwrap();
        symlink("..", base.path().join("in/planted")).unwrap();
        Self(base)
    }

    pub fn target(&self) -> PathBuf {
        self.0.path().join("in")
    }

    /// Unpacks, and checks that nothing outside changed.
    pub fn unpack(&self, archive: &[u8], limit: u64) -> Result<Unpacked, Error> {
        let look = || {
            let mut found = tree::snapshot(self.0.path());
            found.retain(|path, _| !path.starts_with("in"));
            found
        };
        let before = look();
        let result = untar(archive, &self.target(), limit);
        assert_eq!(before, look());
        assert!(!Path::new("/tmp/canary-of-layers").exists());
        result
    }
}

#[test]
fn hostile_archives_are_refused_and_nothing_outside_changes() {
    for (name, archive) in refused() {
        let error = Cell::new().unpack(&archive, 1 << 20).expect_err(name);
        let is_typed = matches!(error, Error::Refused { .. } | Error::Corrupt { .. } | Error::TooLarge { .. });
        assert!(is_typed, "{name}: {error}");
    }
}

#[test]
fn strange_archives_are_unpacked_twice_alike() {
    for (name, archive) in accepted() {
        let cell = Cell::new();
        cell.unpack(&archive, 1 << 20).unwrap_or_else(|error| panic!("{name}: {error}"));
        let once = tree::snapshot(&cell.target());
        cell.unpack(&archive, 1 << 20).unwrap_or_else(|error| panic!("{name} again: {error}"));
        assert_eq!(
            once.keys().collect::<Vec<_>>(),
            tree::snapshot(&cell.target()).keys().collect::<Vec<_>>(),
            "{name}"
        );
    }
}

#[test]
fn a_device_is_not_made_even_by_root() {
    let cell = Cell::new();
    cell.unpack(&Forged::default().entry(EntryType::Char, "null", "", b"").end(), 1 << 20).unwrap_err();
    assert!(rustix::fs::statat(CWD, cell.target().join("null"), rustix::fs::AtFlags::empty()).is_err());
    if is_root() {
        rustix::fs::mknodat(CWD, cell.target().join("there"), FileType::CharacterDevice, Mode::RUSR, 0).unwrap();
        assert_eq!(pack(&cell.target()).1.special, 1);
    }
}

#[test]
fn a_bomb_does_not_exceed_its_bound() {
    let mut header = Forged::default().with(EntryType::Regular, "zeros", "", b"", |header| header.set_size(10 << 30)).0;
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    encoder.write_all(&header).unwrap();
    header.clear();
    for _ in 0..64 {
        encoder.write_all(&vec![0; 1 << 20]).unwrap();
    }
    let cell = Cell::new();
    let error = unpack_to(&encoder.finish().unwrap(), &cell.target(), 32 << 20).unwrap_err();
    assert!(matches!(error, Error::TooLarge { .. }), "{error}");
    assert!(!cell.target().join("zeros").exists());
    // Zeros after the end, extended headers and small entries count as well.
    let many: Vec<_> = (0..2000).map(|_| Forged::default().file("a", b"x").0).collect();
    for archive in [vec![0; 1 << 20], many.concat()] {
        let error = cell.unpack(&archive, 1 << 19).unwrap_err();
        assert!(matches!(error, Error::TooLarge { .. }), "{error}");
    }
}

#[test]
fn a_window_that_is_too_large_is_refused() {
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    encoder.window_log(27).unwrap();
    encoder.write_all(&vec![0; 200 << 20]).unwrap();
    let error = unpack_to(&encoder.finish().unwrap(), &Cell::new().target(), 1 << 30).unwrap_err();
    assert!(matches!(error, Error::Corrupt { .. }), "{error}");
}

#[test]
fn paths_have_a_bound() {
    let deep = "d/".repeat(100_000);
    let long = |kind, path: &str| Forged::default().entry(kind, "long", "", path.as_bytes()).file("x", b"").end();
    let record = |length: usize| format!("{length} path={}\n", "d/".repeat((length - 12) / 2));
    for archive in [
        long(EntryType::GNULongName, &deep),
        long(EntryType::XHeader, &record(60_010)),
        long(EntryType::XHeader, &deep),
    ] {
        let error = Cell::new().unpack(&archive, 1 << 30).unwrap_err();
        assert!(matches!(error, Error::TooLarge { .. } | Error::Corrupt { .. }), "{error}");
    }
    let cell = Cell::new();
    cell.unpack(&long(EntryType::GNULongName, &"d/".repeat(2000)), 1 << 30).unwrap();
    cell.unpack(&Forged::default().file(".wh.d", b"").end(), 1 << 20).unwrap();
    assert!(!cell.target().join("d").exists());
}

/// Where a kernel, or a profile of seccomp, does not have `openat2`.
#[test]
fn folders_are_opened_name_by_name_as_they_are_by_one_call() {
    let base = tempfile::tempdir().unwrap();
    fs::create_dir_all(base.path().join("in/a/b")).unwrap();
    fs::write(base.path().join("in/file"), "").unwrap();
    symlink("a", base.path().join("in/within")).unwrap();
    symlink("..", base.path().join("in/outward")).unwrap();
    let [inside, root] = [base.path().join("in"), "/".into()].map(|path| Folder::open(&path).unwrap());
    let all =
        ["", "a", "a/b", "nothing", "a/nothing", "file", "file/x", "within", "within/b", "outward", "outward/in", ".."];
    for (folder, path) in all.map(|path| (&inside, path)).into_iter().chain([(&root, "proc"), (&root, "proc/self")]) {
        let path = OsStr::new(path);
        let opened =
            |opened: Result<_, Errno>| opened.map(|found| fs::File::from(found).metadata().unwrap().ino()).ok();
        let by_call = opened(unpack::open_beneath(folder.as_fd(), path));
        let by_name =
            opened(unpack::open_by_name(folder.as_fd(), if path.is_empty() { OsStr::new(".") } else { path }));
        assert_eq!(by_call, by_name, "{}", path.display());
        assert_eq!(by_call.is_some(), ["", "a", "a/b"].iter().any(|fine| path == *fine), "{}", path.display());
    }
}
