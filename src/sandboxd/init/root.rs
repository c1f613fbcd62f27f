//! The root file system of a sandbox in caches: restored before the first step, or packed after the last.
//!
//! ```text
//! restore:  compare the image ──► unpack what is on the data volume, and compare it ──► only the steps that always run
//! save:     baseline ──► steps, skills ──► pack what has changed into a file on the data volume
//! ```
//! A sandbox whose root file system cannot be restored fails: the operator starts another one without the cache. One that cannot be packed
//! is not cached, and that is all.
//!
//! Decided in docs/adr/0025-restored-or-dead.md.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Read, Seek};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::thread;
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

use super::{Places, mask::Mask, state::State};
use crate::protocol::cache::{FOLDER, RestoreFault, Root, RootReport, RootWork, SaveFault, root_file};
use crate::protocol::init::{InitFailure, Secrets, Step};
use crate::sandboxd::cache::{Hashing, OTHER, Saving, printable, shared_folder};
use crate::sandboxd::folder::Folder;
use crate::sandboxd::layer::{self, Error, Owners, Packer, Since, Target, Time, Tree, baseline};
use crate::sandboxd::stage::size;
use crate::sandboxd::{idle, sentence};

/// The variable by which processes that a step leaves behind are found.
const STEP: &str = "AIGISE_INIT_STEP";

/// Values of Secrets that are shorter may be in a file by chance.
const SHORTEST_SECRET: usize = 8;

/// What is mounted by the runtime or by the operator, with everything below it.
const MOUNTED: [&str; 11] = [
    "/proc",
    "/sys",
    "/dev",
    "/run/aigise",
    "/aigise",
    "/shared",
    "/bash_tools",
    "/sandbox_scripts",
    "/etc/hosts",
    "/etc/hostname",
    "/etc/resolv.conf",
];

/// What is in the path, on the node, of a volume that the image declares: with containerd, and with CRI-O.
const OF_IMAGE: [&str; 2] = ["/io.containerd.grpc.v1.cri/containers/", "/overlay-containers/"];

/// What is left out of every root file system.
const LEFT_OUT: &str = "run";

/// How often `run` checks whether the program may start.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The root file system as it was before the first step.
pub struct Baseline {
    names: File,
    /// From when on a change counts.
    moment: Time,
    image: Option<String>,
    /// The [offset](clock) of the clock.
    clock: i128,
}

/// Records the root file system, if it is to be packed later.
pub fn begin(places: &Places, work: &RootWork) -> Result<Baseline, Error> {
    let root = folder(&places.root)?;
    // First of all: what follows creates a file.
    let image = (!work.is_live).then(|| baseline::identity(&root)).transpose()?;
    let clock = clock();
    let moment = moment(&places.root);
    let path = places.folder.join(crate::protocol::init::STATE).join("baseline");
    let failed = |error| Error::Io { path: path.clone(), error };
    let names = OpenOptions::new().read(true).write(true).create_new(true).open(&path).map_err(failed)?;
    fs::remove_file(&path).map_err(failed)?;
    baseline::write(&root, &names)?;
    Ok(Baseline { names, moment, image, clock })
}

/// Restores the root file system.
pub fn restore(places: &Places, work: &RootWork, wanted: &Root) -> Result<(), InitFailure> {
    restored(places, work, wanted).map_err(|(fault, message)| InitFailure {
        how: format!("could not restore the root file system from the cache: {}", printable(&message)),
        restore: Some(fault),
        ..InitFailure::default()
    })
}

fn restored(places: &Places, work: &RootWork, wanted: &Root) -> Result<(), (RestoreFault, String)> {
    let failed = |message: String| (RestoreFault::RestoreFailed, message);
    let root = folder(&places.root).map_err(|error| failed(sentence(&error)))?;
    if let Some(image) = wanted.image.as_ref().filter(|_| !work.is_live) {
        let now = baseline::identity(&root).map_err(|error| failed(sentence(&error)))?;
        if now != *image {
            return Err((RestoreFault::ImageChanged, "the image has other files than when the cache was saved".into()));
        }
    }
    let file = packed_file(places, work).map_err(|error| match error.kind() {
        ErrorKind::NotFound => (RestoreFault::Corrupt, "its file on the data volume is missing".into()),
        _ => failed(error.to_string()),
    })?;
    let length = file.metadata().map_err(|error| failed(error.to_string()))?.len();
    if length != wanted.packed {
        return Err((RestoreFault::Corrupt, format!("its file has {length} bytes, and had {}", wanted.packed)));
    }
    let space = root.space().map_err(|error| failed(error.to_string()))?;
    let mounts = mounts(places, work).map_err(|(_, message)| failed(message))?;
    let folders: Vec<_> = mounts
        .iter()
        .map(|path| Ok((below_root(path), folder(path)?)))
        .collect::<Result<_, Error>>()
        .map_err(|error| failed(sentence(&error)))?;
    let mut targets = vec![Target { prefix: Path::new(""), folder: &root }];
    targets.extend(folders.iter().map(|(prefix, folder)| Target { prefix, folder }));
    let deadline = Instant::now().checked_add(Duration::from_secs(work.timeout));
    // Whoever has written the file may still write to it, and what is unpacked may be used at once: by the image's own program, or by
    // another container that has an emptyDir, too.
    let file =
        if work.is_live || !mounts.is_empty() { private(places, &mounts, file, deadline, wanted)? } else { file };
    let mut hashing = Hashing::new(Timed { input: &file, deadline });
    layer::unpack(&mut hashing, &targets, Owners::Keep, wanted.unpacked).map_err(|error| {
        let (needed, free) = (size(wanted.unpacked), size(space.available));
        match error {
            Error::NoSpace { .. } => {
                (RestoreFault::NoSpace, format!("{}: {needed} are needed, and {free} were available", sentence(&error)))
            }
            Error::Corrupt { .. } => (RestoreFault::Corrupt, sentence(&error)),
            Error::TooLarge { .. } => (RestoreFault::TooLarge, sentence(&error)),
            error => failed(sentence(&error)),
        }
    })?;
    match hashing.finish() {
        Ok(hash) if hash == wanted.sha256 => Ok(()),
        Ok(_) => Err((RestoreFault::Corrupt, format!("its file on the data volume {OTHER}"))),
        Err(error) => Err(failed(error.to_string())),
    }
}

/// A copy of the file that nobody else can open, once it is known to be what was packed.
fn private(
    places: &Places,
    mounts: &[PathBuf],
    file: File,
    deadline: Option<Instant>,
    wanted: &Root,
) -> Result<File, (RestoreFault, String)> {
    let failed = |error: io::Error| match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
            (RestoreFault::NoSpace, format!("no space for a copy of {}", size(wanted.packed)))
        }
        _ => (RestoreFault::RestoreFailed, format!("its file could not be copied: {error}")),
    };
    let create = |folder: &Path| {
        let path = folder.join(format!(".aigise-{}", std::process::id()));
        let copy = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path).ok()?;
        fs::remove_file(&path).ok().map(|()| copy)
    };
    let copy = writable_folders(&places.root).chain(mounts.iter().cloned()).find_map(|folder| create(&folder));
    let mut copy = copy.ok_or_else(|| failed(io::Error::other("no folder can be written to")))?;
    let mut hashing = Hashing::new(Timed { input: &file, deadline });
    io::copy(&mut hashing, &mut copy).map_err(failed)?;
    if hashing.finish().map_err(failed)? != wanted.sha256 {
        return Err((RestoreFault::Corrupt, format!("its file on the data volume {OTHER}")));
    }
    copy.rewind().map_err(failed)?;
    Ok(copy)
}

/// A file that is read until a deadline.
struct Timed<'f> {
    input: &'f File,
    deadline: Option<Instant>,
}

impl Read for Timed<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.deadline.is_some_and(|deadline| Instant::now() >= deadline) {
            return Err(io::Error::new(ErrorKind::TimedOut, "it took too long"));
        }
        self.input.read(buffer)
    }
}

fn packed_file(places: &Places, work: &RootWork) -> io::Result<File> {
    let data = folder(&places.data).map_err(|error| io::Error::other(sentence(&error)))?;
    let shared = data.descend(Path::new(FOLDER)).map_err(|_| ErrorKind::NotFound)?;
    shared.read(OsStr::new(&root_file(&work.label)))
}

/// Packs what has changed since the baseline.
pub fn save(
    places: &Places,
    work: &RootWork,
    baseline: Result<Baseline, Error>,
    secrets: &Secrets,
    mask: &Mask,
) -> RootReport {
    let baseline = baseline.map_err(|error| {
        let reason = if let Error::TooLarge { .. } = error { SaveFault::TooLarge } else { SaveFault::Failed };
        (reason, sentence(&error))
    });
    let saved = baseline.and_then(|baseline| pack(places, work, &baseline, secrets));
    match saved {
        Ok(root) => RootReport::Saved(root),
        Err((reason, message)) => RootReport::NotSaved { reason, message: printable(&mask.apply(&message)) },
    }
}

fn pack(places: &Places, work: &RootWork, baseline: &Baseline, secrets: &Secrets) -> Result<Root, (SaveFault, String)> {
    let failed = |message: String| (SaveFault::Failed, message);
    if let Some(left) = left_process() {
        return Err((SaveFault::StepLeftProcesses, left));
    }
    // What was changed since would look older than the baseline.
    if clock() < baseline.clock - 1_000_000_000 {
        return Err((SaveFault::ClockMoved, "the clock of the node was set back meanwhile".into()));
    }
    let mounts = mounts(places, work)?;
    let open = |path: &Path| folder(path).map_err(|error| failed(sentence(&error)));
    let root = open(&places.root)?;
    let folders: Vec<_> =
        mounts.iter().map(|path| Ok((below_root(path), open(path)?))).collect::<Result<_, (SaveFault, String)>>()?;
    let exclude: Vec<_> = [LEFT_OUT]
        .into_iter()
        .map(PathBuf::from)
        .chain(work.exclude.iter().map(|path| below_root(Path::new(path))))
        .collect();
    let since = Since { baseline: &baseline.names, moment: baseline.moment };
    let changed = Tree { root: &root, prefix: Path::new(""), since: Some(since), exclude: &exclude };
    let whole = folders.iter().map(|(prefix, root)| Tree { root, prefix, since: None, exclude: &exclude });
    let trees: Vec<_> = [changed].into_iter().chain(whole).collect();
    let shared = shared_folder(&open(&places.data)?)
        .map_err(|error| failed(format!("the volume data could not be written: {error}")))?;
    let mut saving = Saving::into(shared, "the volume data", Duration::from_secs(work.timeout))?.leaving_a_tenth()?;
    let packed = saving.file(&root_file(&work.label), "the root file system", |out| {
        let mut packer = Packer::new(out)?.without(values(secrets));
        for tree in &trees {
            packer.add(tree)?;
        }
        Ok(packer.finish()?.1)
    })?;
    let image = baseline.image.clone();
    Ok(Root { sha256: packed.sha256, packed: packed.bytes, unpacked: packed.unpacked, image })
}

/// The values of the variables that come from Secrets.
fn values(secrets: &Secrets) -> Vec<Vec<u8>> {
    let values = secrets.names.iter().filter_map(env::var_os).map(OsString::into_vec);
    values.filter(|value| value.len() >= SHORTEST_SECRET).collect()
}

/// The step, marked so that the processes that it leaves behind are found.
pub fn marked(step: &Step) -> Step {
    let mut step = step.clone();
    step.env.insert(STEP.into(), format!("{} {}", std::process::id(), step.name));
    step
}

/// What a step has left running.
fn left_process() -> Option<String> {
    let mark = format!("{STEP}={} ", std::process::id());
    fs::read_dir("/proc").ok()?.flatten().find_map(|process| {
        let environment = fs::read(process.path().join("environ")).ok()?;
        let step = environment.split(|byte| *byte == 0).find_map(|variable| variable.strip_prefix(mark.as_bytes()))?;
        let line = fs::read(process.path().join("cmdline")).unwrap_or_default();
        let name = line.split(|byte| *byte == 0).next().unwrap_or_default();
        let (step, name) = (String::from_utf8_lossy(step), String::from_utf8_lossy(name));
        Some(format!(
            "the step {step} has left the process {} running; a step that starts a server needs run: Always",
            name.trim()
        ))
    })
}

/// Where volumes of the sandbox alone are mounted: its emptyDirs, and those that the image declares.
fn mounts(places: &Places, work: &RootWork) -> Result<Vec<PathBuf>, (SaveFault, String)> {
    if places.root != Path::new("/") {
        return Ok(vec![]);
    }
    let text = fs::read_to_string("/proc/self/mountinfo")
        .map_err(|error| (SaveFault::Failed, format!("/proc/self/mountinfo could not be read: {error}")))?;
    let mut found = vec![];
    let declared: Vec<PathBuf> = work.volumes.iter().map(|path| Path::new(path).components().collect()).collect();
    for (of_node, point) in text.lines().filter_map(writable) {
        if point == Path::new("/") || MOUNTED.iter().any(|ours| point.starts_with(ours)) {
            continue;
        }
        let is_of_image = OF_IMAGE.iter().any(|part| of_node.contains(part));
        if !point.is_dir() || !(is_of_image || declared.contains(&point)) {
            let why = "it can write to a volume that is neither the session's, nor an emptyDir of its template, nor the image's";
            return Err((SaveFault::OtherVolume, format!("{why}: {}", point.display())));
        }
        found.push(point);
    }
    found.sort();
    found.dedup();
    Ok(found)
}

/// What is mounted, as the path in its file system, and where, by a line of `mountinfo`, if it can be written to.
fn writable(line: &str) -> Option<(&str, PathBuf)> {
    let (mount, file_system) = line.split_once(" - ")?;
    let mut fields = mount.split(' ').skip(3);
    let (root, point, options) = (fields.next()?, fields.next()?, fields.next()?);
    let is_writable = |options: &str| options.split(',').any(|option| option == "rw");
    let of_file_system = file_system.split(' ').nth(2)?;
    let point = PathBuf::from(OsString::from_vec(unescape(point)));
    (is_writable(options) && is_writable(of_file_system)).then_some((root, point))
}

/// The kernel writes some characters as a backslash and three octal digits.
fn unescape(text: &str) -> Vec<u8> {
    let (bytes, mut out) = (text.as_bytes(), vec![]);
    let mut at = 0;
    while at < bytes.len() {
        let digits = bytes.get(at + 1..at + 4).filter(|_| bytes[at] == b'\\');
        let code = digits.and_then(|digits| u8::from_str_radix(std::str::from_utf8(digits).ok()?, 8).ok());
        out.push(code.unwrap_or(bytes[at]));
        at += if code.is_some() { 4 } else { 1 };
    }
    out
}

fn below_root(path: &Path) -> PathBuf {
    path.strip_prefix("/").unwrap_or(path).components().collect()
}

fn folder(path: &Path) -> Result<Folder, Error> {
    Folder::open(path)
        .map_err(|blocked| Error::Io { path: path.to_owned(), error: io::Error::other(sentence(&blocked)) })
}

/// Folders in which a user can usually create a file.
fn writable_folders(root: &Path) -> impl Iterator<Item = PathBuf> {
    let home = env::var_os("HOME").map(PathBuf::from);
    let here = env::current_dir().ok();
    [root.to_owned(), root.join("tmp"), root.join("var/tmp")].into_iter().chain(home).chain(here)
}

/// A moment of the clock by which the file system dates changes: by a file in it, or by that clock where there can be none.
fn moment(root: &Path) -> Time {
    let of_root = fs::metadata(root).map(|root| root.dev()).ok();
    let dated = writable_folders(root).find_map(|folder| {
        let path = folder.join(format!(".aigise-{}", std::process::id()));
        let file = OpenOptions::new().write(true).create_new(true).open(&path).ok()?;
        let stat = file.metadata();
        let _ = fs::remove_file(&path);
        stat.ok().filter(|stat| Some(stat.dev()) == of_root)
    });
    let now = clock_gettime(ClockId::RealtimeCoarse);
    dated.map_or(Time { seconds: now.tv_sec, nanoseconds: u32::try_from(now.tv_nsec).unwrap_or_default() }, |stat| {
        Time { seconds: stat.ctime(), nanoseconds: u32::try_from(stat.ctime_nsec()).unwrap_or_default() }
    })
}

/// By how much the clock is ahead of the time since the start of the node, in nanoseconds.
fn clock() -> i128 {
    let of = |id| {
        let time = clock_gettime(id);
        i128::from(time.tv_sec) * 1_000_000_000 + i128::from(time.tv_nsec)
    };
    of(ClockId::Realtime) - of(ClockId::Boottime)
}

/// `sandboxd run`: starts a program when the root file system is restored, or known not to be.
///
/// # Errors
/// When the program cannot be started.
pub fn run(places: &Places, program: &[OsString]) -> io::Result<ExitCode> {
    idle::end_on_signal()?;
    let state: State = places.state();
    while !state.is_root_ready() {
        thread::sleep(LOOK_EVERY);
    }
    let Some((name, arguments)) = program.split_first() else { return Ok(ExitCode::FAILURE) };
    let error = Command::new(name).args(arguments).exec();
    Err(io::Error::new(error.kind(), format!("{}: {error}", Path::new(name).display())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_read_as_the_kernel_writes_them() {
        let line =
            |options, of_all| format!("36 35 98:0 /mnt1 /a\\040b\\134 {options} master:1 - ext3 /dev/root {of_all}");
        assert_eq!(writable(&line("rw,noatime", "rw,errors=continue")), Some(("/mnt1", PathBuf::from("/a b\\"))));
        assert_eq!(writable(&line("ro,noatime", "rw")), None);
        assert_eq!(writable(&line("rw", "ro")), None);
        assert_eq!(writable("nonsense"), None);
        assert_eq!(unescape("\\04"), b"\\04");
    }
}
