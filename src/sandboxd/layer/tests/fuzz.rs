//! Archives that were damaged in any way, by a generator that is the same each time. `LAYER_FUZZ` is the number of runs; a few by default.
//!
//! They start from `tests/corpus/layer`, which `write_the_corpus` makes.

use std::fs;

use tar::Header;

use super::super::read::Archive;
use super::hostile::{Cell, accepted, refused};
use super::*;

/// What may be read of a damaged archive: more than any archive of the corpus has.
const LIMIT: u64 = 1 << 20;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/layer")
}

fn corpus() -> Vec<Vec<u8>> {
    let mut paths: Vec<_> = fs::read_dir(folder()).unwrap().map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    assert!(paths.len() > 40);
    paths.iter().map(|path| zstd::stream::decode_all(&*fs::read(path).unwrap()).unwrap()).collect()
}

#[test]
#[ignore = "it writes the corpus"]
fn write_the_corpus() {
    let cell = Cell::new();
    fs::write(cell.target().join("file"), vec![b'x'; 700]).unwrap();
    rustix::fs::setxattr(cell.target().join("file"), "user.a", b"value", rustix::fs::XattrFlags::empty()).unwrap();
    let packed = zstd::stream::decode_all(&*pack(&cell.target()).0).unwrap();
    for (name, archive) in refused().into_iter().chain(accepted()).chain([("packed", packed)]) {
        fs::write(folder().join(format!("{name}.tar.zst")), zstd::stream::encode_all(&*archive, 19).unwrap()).unwrap();
    }
}

/// xorshift64*.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_F491_4F6C_DD1D) >> 33) as usize % end.max(1)
    }
}

/// The fields of a header: where each begins, and where the last ends.
const FIELDS: [usize; 20] =
    [0, 8, 100, 108, 116, 124, 136, 148, 156, 157, 257, 263, 265, 345, 386, 398, 410, 482, 483, 512];

/// What stands in fields of archives that lie.
const VALUES: [&[u8]; 14] = [
    b"../",
    b"/",
    b".wh.",
    b".wh..wh..opq",
    b"a/b",
    b"planted/x",
    b"77777777777\0",
    b"-1",
    b"\x80\0\0\0\0\0\0\0\0\0\x10\0",
    b"\xff\xff\xff\xff\xff\xff\xff\xff",
    b"00000001000\0",
    b"",
    b"10 size=1\n",
    b"18 path=../canary\n",
];

/// Damages an archive: mostly a field of a block, whose checksum is then made right.
fn damage(archive: &mut Vec<u8>, random: &mut Random, other: &[u8]) {
    for _ in 0..=random.below(3) {
        let block = random.below(archive.len() / 512) * 512;
        if archive.len() < block + 512 {
            return;
        }
        match random.below(10) {
            0 => archive[block + random.below(512)] ^= 1 << random.below(8),
            1 => archive.truncate(random.below(archive.len())),
            2 => {
                let from = random.below(other.len() / 512) * 512;
                archive.splice(block..block, other[from..].iter().copied().take(512 * (1 + random.below(4))));
            }
            3 => drop(archive.drain(block..block + 512)),
            kind => {
                let field = random.below(FIELDS.len() - 1);
                let (start, end) = (block + FIELDS[field], block + FIELDS[field + 1]);
                match kind {
                    4..=6 => {
                        let value = VALUES[random.below(VALUES.len())];
                        let length = value.len().min(end - start);
                        archive[start..start + length].copy_from_slice(&value[..length]);
                    }
                    7 => archive[start] = b"01234567xgLKS\0\x80\xff"[random.below(16)],
                    // The type.
                    8 => archive[block + 156] = b"01234567xgLKS\0Z"[random.below(15)],
                    _ => archive[start + random.below(end - start)] = random.below(256).to_le_bytes()[0],
                }
                let mut header = Header::new_old();
                header.as_mut_bytes().copy_from_slice(&archive[block..block + 512]);
                header.set_cksum();
                archive[block..block + 512].copy_from_slice(header.as_bytes());
            }
        }
    }
}

fn runs(default: u64) -> u64 {
    std::env::var("LAYER_FUZZ").ok().and_then(|runs| runs.parse().ok()).unwrap_or(default)
}

/// A reader that counts.
struct Counted<'r>(&'r [u8], u64);

impl std::io::Read for Counted<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let read = self.0.read(buffer)?;
        self.1 += read as u64;
        Ok(read)
    }
}

#[test]
fn every_entry_of_a_damaged_archive_is_valid() {
    let (corpus, mut random) = (corpus(), Random(1));
    let (mut valid, mut buffer, mut archive) = (0_u64, vec![0; 4096], vec![]);
    for _ in 0..runs(100_000) {
        corpus[random.below(corpus.len())].clone_into(&mut archive);
        let other = random.below(corpus.len());
        damage(&mut archive, &mut random, &corpus[other]);
        let limit = [LIMIT, 2048][usize::from(random.below(8) == 0)];
        let mut input = Counted(&archive, 0);
        let mut reader = Archive::new(&mut input, limit);
        while let Ok(Some(entry)) = reader.next() {
            check(&entry);
            valid += 1;
            while reader.content(&mut buffer).is_ok_and(|read| read > 0) {}
        }
        // One byte more shows that there is more.
        assert!(input.1 <= limit + 1);
    }
    println!("{valid} entries were valid");
}

fn check(entry: &entry::Entry) {
    let is_safe = |path: &[u8]| {
        path.len() <= MAX_PATH
            && !path.contains(&0)
            && (path.is_empty() || path.split(|&byte| byte == b'/').all(|name| !matches!(name, b"" | b"." | b"..")))
    };
    assert!(is_safe(&entry.path), "{entry:?}");
    let is_reserved = |path: &[u8]| path.split(|&byte| byte == b'/').any(|name| name.starts_with(WHITEOUT));
    assert!(!is_reserved(&entry.path), "{entry:?}");
    match &entry.kind {
        entry::Kind::Link(target) => assert!(is_safe(target) && !is_reserved(target)),
        entry::Kind::File(shape) => {
            let ends = shape.parts.iter().map(|part| (part.offset, part.offset + part.length));
            let last = ends.fold(0, |before, (start, end)| {
                assert!(before <= start && start < end);
                end
            });
            assert!(last <= shape.size && i64::try_from(shape.size).is_ok());
        }
        _ => {}
    }
}

#[test]
fn nothing_outside_changes_by_a_damaged_archive() {
    let (corpus, mut random) = (corpus(), Random(2));
    let mut cell = Cell::new();
    let mut unpacked = 0;
    for run in 0..runs(0).clamp(1500, 20_000) {
        if run % 50 == 0 {
            cell = Cell::new();
        }
        let mut archive = corpus[random.below(corpus.len())].clone();
        let other = random.below(corpus.len());
        damage(&mut archive, &mut random, &corpus[other]);
        unpacked += u32::from(cell.unpack(&archive, LIMIT).is_ok());
    }
    assert!(unpacked > 50, "{unpacked}");
}

/// Compressed archives, damaged as they are.
#[test]
fn a_damaged_layer_is_an_error() {
    let cell = Cell::new();
    let (layer, packed) = pack(&cell.target());
    let whole = unpack_to(&layer, &cell.target(), packed.unpacked).unwrap();
    let mut random = Random(3);
    for _ in 0..2000 {
        let mut damaged = layer.clone();
        let at = random.below(damaged.len());
        damaged[at] ^= 1 << random.below(8);
        damaged.truncate(layer.len() - random.below(2) * random.below(layer.len()));
        // A few bits of a frame have no effect.
        let result = unpack_to(&damaged, &cell.target(), packed.unpacked);
        assert!(result.is_err() || damaged.len() == layer.len() && result.is_ok_and(|unpacked| unpacked == whole));
    }
}
