//! Killed at any moment: the test program starts itself again, and ends that process with SIGKILL.
//!
//! `LAYER_KILLS` is the number of moments; a few by default.

use std::fs::{self, File};
use std::io::BufReader;
use std::os::unix::fs::{FileExt, symlink};
use std::time::{Duration, Instant};

use super::*;

/// What the other process has to do, and in which folder.
const WORK: &str = "LAYER_WORK";

#[test]
#[ignore = "it is the process that is killed"]
fn the_process_that_is_killed() {
    let Some(work) = std::env::var_os(WORK) else { return };
    let base = PathBuf::from(std::env::var_os("LAYER_FOLDER").unwrap());
    work_on(work.to_str().unwrap(), &base);
}

fn work_on(work: &str, base: &Path) {
    if work == "pack" {
        let root = Folder::open(&base.join("tree")).unwrap();
        save(&Folder::open(base).unwrap(), "layer".as_ref(), |file| {
            let mut packer = Packer::new(file)?;
            packer.add(&Tree { root: &root, prefix: Path::new(""), since: None, exclude: &[] })?;
            packer.finish().map(|_| ())
        })
        .unwrap();
    } else {
        let layer = BufReader::new(File::open(base.join("layer")).unwrap());
        let folder = Folder::open(&base.join("copy")).unwrap();
        unpack(layer, &[Target { prefix: Path::new(""), folder: &folder }], Owners::Keep, u64::MAX).unwrap();
    }
}

/// Kills the work within the time that it takes: a run that was faster than its kill shows that it takes less. Returns whether it was
/// killed.
fn kill_within(work: &str, base: &Path, takes: &mut Duration, part: u32, parts: u32) -> bool {
    let pause = *takes * part / parts;
    let was_faster = kill_after(work, base, pause);
    if was_faster {
        *takes = pause;
    }
    !was_faster
}

/// Starts the work, and kills it after a while. Returns whether it was faster.
fn kill_after(work: &str, base: &Path, pause: Duration) -> bool {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "sandboxd::layer::tests::killed::the_process_that_is_killed", "--ignored", "--quiet"])
        .env(WORK, work)
        .env("LAYER_FOLDER", base)
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    std::thread::sleep(pause);
    child.kill().unwrap();
    child.wait().unwrap().success()
}

#[test]
fn a_layer_is_whole_or_absent_and_a_second_run_completes_a_tree() {
    let kills: u32 = std::env::var("LAYER_KILLS").ok().and_then(|kills| kills.parse().ok()).unwrap_or(20);
    let base = tempfile::tempdir().unwrap();
    let (tree, copy, layer) = (base.path().join("tree"), base.path().join("copy"), base.path().join("layer"));
    for number in 0..400_usize {
        let folder = tree.join(format!("{}/{}", number % 7, number % 40));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join(format!("file {number}")), vec![number.to_le_bytes()[0]; number * 50]).unwrap();
        symlink("..", folder.join(format!("link {number}"))).unwrap();
        fs::hard_link(folder.join(format!("file {number}")), tree.join(format!("hard {number}"))).unwrap();
    }
    File::create(tree.join("sparse")).unwrap().write_at(b"x", 1 << 30).unwrap();
    // What is there already gives way.
    let restart = || {
        let _ = fs::remove_dir_all(&copy);
        fs::create_dir_all(copy.join("hard 7/x/y")).unwrap();
        fs::write(copy.join("3"), "a file").unwrap();
    };
    let whole = |work: &str| {
        let begin = Instant::now();
        assert!(!kill_after(work, base.path(), Duration::ZERO));
        kill_after(work, base.path(), Duration::from_millis(1));
        work_on(work, base.path());
        begin.elapsed()
    };
    restart();
    let (mut to_pack, mut to_unpack) = (whole("pack"), whole("unpack"));
    tree::assert_same(&tree, &copy);
    let (mut packs, mut unpacks) = (0, 0);
    for kill in 0..kills {
        let _ = fs::remove_file(&layer);
        packs += u32::from(kill_within("pack", base.path(), &mut to_pack, kill, kills));
        if layer.exists() {
            work_on("unpack", base.path());
            tree::assert_same(&tree, &copy);
        }
        work_on("pack", base.path());
        restart();
        unpacks += u32::from(kill_within("unpack", base.path(), &mut to_unpack, kill, kills));
        work_on("unpack", base.path());
        tree::assert_same(&tree, &copy);
    }
    println!("killed {packs} times while packing, {unpacks} times while unpacking");
    assert!(packs * 4 > kills && unpacks * 4 > kills, "{packs} and {unpacks} of {kills}");
}
