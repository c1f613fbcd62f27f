//! Measured by hand, in release mode: `cargo test --release --lib layer::tests::measure -- --ignored --nocapture`.

use std::fs;
use std::io::sink;
use std::time::{Duration, Instant};

use super::*;

/// Text that compresses by about a half.
pub fn fill(path: &Path, size: usize, seed: u64) {
    let mut state = seed | 1;
    let mut bytes = Vec::with_capacity(size + 8);
    while bytes.len() < size {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend((state & 0x0f0f_0f0f_0f0f_0f0f).to_le_bytes());
    }
    fs::write(path, &bytes[..size]).unwrap();
}

fn shell(command: &str) -> Duration {
    let begin = Instant::now();
    assert!(Command::new("bash").args(["-c", command]).status().unwrap().success());
    begin.elapsed()
}

fn best(mut work: impl FnMut() -> Duration) -> Duration {
    (0..3).map(|_| work()).min().unwrap()
}

#[test]
#[ignore = "it measures"]
fn beside_tar() {
    for (files, size) in [(8_u64, 128 << 20), (50_000, 4 << 10)] {
        let base = tempfile::Builder::new().tempdir_in("/var/tmp").unwrap();
        let tree = base.path().join("tree");
        for file in 0..files {
            let folder = tree.join((file / 500).to_string());
            fs::create_dir_all(&folder).unwrap();
            fill(&folder.join(file.to_string()), size, file + 1);
        }
        let (at, layer, into) = (tree.display(), base.path().join("layer"), base.path().join("into"));
        let tar = best(|| {
            shell(&format!("tar -C {at} -c . | zstd -q -1 | tee {}.tar | sha256sum >/dev/null", layer.display()))
        });
        let ours = best(|| {
            let begin = Instant::now();
            let root = Folder::open(&tree).unwrap();
            let mut packer = Packer::new(fs::File::create(&layer).unwrap()).unwrap();
            packer.add(&Tree { root: &root, prefix: Path::new(""), since: None, exclude: &[] }).unwrap();
            packer.finish().unwrap();
            begin.elapsed()
        });
        println!(
            "pack {files} files of {size}: tar {tar:?}, ours {ours:?}, ratio {:.2}",
            tar.as_secs_f64() / ours.as_secs_f64()
        );
        // Each into a new folder, and nothing is removed: ext4 searches long for inodes beside those that were removed a moment ago.
        let mut folders = (0..).map(|number| {
            let folder = into.join(format!("{number}"));
            fs::create_dir_all(&folder).unwrap();
            folder
        });
        let tar = best(|| {
            let into = folders.next().unwrap();
            shell(&format!("zstd -q -dc {} | tar -xp -C {}", layer.display(), into.display()))
        });
        let ours = best(|| {
            let into = folders.next().unwrap();
            let begin = Instant::now();
            let folder = Folder::open(&into).unwrap();
            let file = fs::File::open(&layer).unwrap();
            unpack(file, &[Target { prefix: Path::new(""), folder: &folder }], Owners::Keep, u64::MAX).unwrap();
            begin.elapsed()
        });
        println!(
            "unpack {files} files of {size}: tar {tar:?}, ours {ours:?}, ratio {:.2}",
            tar.as_secs_f64() / ours.as_secs_f64()
        );
    }
}

/// How much more memory this process had at its peak, in KiB. Each shape needs a process of its own.
fn peak(work: impl FnOnce()) -> u64 {
    let read = |key: &str| {
        let status = fs::read_to_string("/proc/self/status").unwrap();
        let line = status.lines().find(|line| line.starts_with(key)).unwrap().to_owned();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap()
    };
    fs::write("/proc/self/clear_refs", "5").unwrap();
    let before = read("VmRSS");
    work();
    read("VmHWM").saturating_sub(before)
}

fn pack_and_unpack(shape: &str, make: impl FnOnce(&Path)) {
    let base = tempfile::Builder::new().tempdir_in("/var/tmp").unwrap();
    let tree = base.path().join("tree");
    fs::create_dir(&tree).unwrap();
    make(&tree);
    let root = Folder::open(&tree).unwrap();
    let file = fs::File::create_new(base.path().join("baseline")).unwrap();
    let begin = Instant::now();
    let names = baseline::write(&root, &file).unwrap();
    let (took, size) = (begin.elapsed(), file.metadata().unwrap().len());
    let file = fs::File::open(base.path().join("baseline")).unwrap();
    let pack = |since| {
        let begin = Instant::now();
        let peak = peak(|| {
            let mut packer = Packer::new(sink()).unwrap();
            packer.add(&Tree { root: &root, prefix: Path::new(""), since, exclude: &[] }).unwrap();
            packer.finish().unwrap();
        });
        (peak, begin.elapsed())
    };
    let nothing = pack(Some(Since { baseline: &file, moment: NEVER }));
    let all = pack(Some(Since { baseline: &file, moment: Time::default() }));
    println!(
        "{shape}: {names} names, baseline {size} bytes in {took:?}; packing nothing (KiB, time) {nothing:?}, all {all:?}"
    );
}

#[test]
#[ignore = "it measures"]
fn memory_of_one_folder() {
    pack_and_unpack("one folder", |tree| {
        (0..100_000).for_each(|file| fs::write(tree.join(format!("a file of some length {file}")), "").unwrap());
    });
}

#[test]
#[ignore = "it measures"]
fn memory_of_hard_links() {
    pack_and_unpack("hard links", |tree| {
        for file in 0..50_000 {
            let name = tree.join(format!("a file of some length {file}"));
            fs::write(&name, "").unwrap();
            fs::hard_link(&name, tree.join(format!("another name {file}"))).unwrap();
        }
    });
}

#[test]
#[ignore = "it measures"]
fn memory_of_a_million_names() {
    pack_and_unpack("a million", |tree| {
        for folder in 0..1000 {
            let folder = tree.join(format!("folder {folder}"));
            fs::create_dir(&folder).unwrap();
            (0..1000).for_each(|file| fs::write(folder.join(format!("file number {file}")), "").unwrap());
        }
    });
}
