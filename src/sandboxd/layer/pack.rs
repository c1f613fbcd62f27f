//! Packs trees into a layer.
//!
//! The archive is written as the tree is walked. A file that was written to meanwhile is written once more, as a further entry of the
//! same path: the last one counts.

use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode, OFlags, SeekFrom, Statx};
use rustix::io::Errno;
use sha2::{Digest, Sha256};
use zstd::stream::write::Encoder;

use super::baseline::Baseline;
use super::entry::{Attributes, Entry, Kind, Part, Shape, Time, is_kept, list};
use super::search::Search;
use super::walk::{Entered, Found, Step, Walk, device, kind, stat};
use super::write::Archive;
use super::{Error, MAX_ATTRIBUTE, MAX_LINKS, MAX_PARTS, WHITEOUT, bytes_of, hex, is_within, path_of, split};
use crate::sandboxd::folder::Folder;

/// How often a file is read at most.
const ATTEMPTS: usize = 3;

/// The unit in which parts of a file begin and end, and in which the system counts what a file occupies.
const BLOCK: u64 = 512;

/// What is packed of a tree.
pub struct Tree<'t> {
    /// The folder.
    pub root: &'t Folder,
    /// Its path in the layer, relative. Empty: it is the root of the layer.
    pub prefix: &'t Path,
    /// Only what changed. `None`: everything.
    pub since: Option<Since<'t>>,
    /// Paths in the layer that are left out, with everything below them.
    pub exclude: &'t [PathBuf],
}

/// The state from which changes count.
#[derive(Clone, Copy)]
pub struct Since<'t> {
    /// The [baseline](super::baseline) of the tree.
    pub baseline: &'t File,
    /// The ctime of a file that was created in the file system before the baseline.
    pub moment: Time,
}

/// What a layer holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Packed {
    /// The SHA-256 of the layer, in hexadecimal digits.
    pub sha256: String,
    /// The size of the layer.
    pub bytes: u64,
    /// Its size before compression: the `limit` with which it can be unpacked.
    pub unpacked: u64,
    /// The entries, whiteouts among them.
    pub entries: u64,
    /// Devices and sockets that were left out.
    pub special: u64,
    /// Extended attributes that were left out.
    pub attributes: u64,
}

/// A layer that is being written. One that was not finished is not valid.
pub struct Packer<W: Write> {
    archive: Archive<BufWriter<Encoder<'static, Hashing<W>>>>,
    packed: Packed,
    buffer: Vec<u8>,
    search: Search,
}

impl<W: Write> Packer<W> {
    /// Begins a layer.
    ///
    /// # Errors
    /// Those of the system.
    pub fn new(out: W) -> Result<Self, Error> {
        let hashing = Hashing { out, hash: Sha256::new(), bytes: 0 };
        let mut encoder = Encoder::new(hashing, 1).map_err(Error::archive)?;
        encoder.include_checksum(true).map_err(Error::archive)?;
        let archive = Archive::new(BufWriter::with_capacity(128 * 1024, encoder));
        Ok(Self { archive, packed: Packed::default(), buffer: vec![0; 256 * 1024], search: Search::default() })
    }

    /// Fails with [`Error::Secret`] if one of these is in a file.
    pub fn without(mut self, secrets: Vec<Vec<u8>>) -> Self {
        self.search = Search::of(secrets);
        self
    }

    /// Adds a tree.
    ///
    /// # Errors
    /// [`Error::TooLarge`], [`Error::Changed`], [`Error::Reserved`] and [`Error::Secret`], or those of the system. The layer cannot be
    /// finished then.
    pub fn add(&mut self, tree: &Tree<'_>) -> Result<(), Error> {
        let prefix = bytes_of(tree.prefix);
        let moved = tree.since.map(|since| moved(tree, since)).transpose()?.unwrap_or_default();
        let baseline = tree.since.map(|since| Baseline::open(since.baseline, prefix)).transpose()?;
        let walk = Walk::begin(tree.root, prefix)?;
        Run { packer: self, tree, walk, baseline, moved, links: Links::default(), passed: None, open: 0 }.run()
    }

    /// Ends the layer, and returns what was written to and what it holds.
    ///
    /// # Errors
    /// Those of the system.
    pub fn finish(self) -> Result<(W, Packed), Error> {
        let mut packed = self.packed;
        packed.entries = self.archive.entries;
        packed.unpacked = self.archive.size + 1024;
        let buffered = self.archive.finish().map_err(Error::archive)?;
        let encoder = buffered.into_inner().map_err(|error| Error::archive(error.into_error()))?;
        let mut hashing = encoder.finish().map_err(Error::archive)?;
        hashing.out.flush().map_err(Error::archive)?;
        packed.bytes = hashing.bytes;
        packed.sha256 = hex(hashing.hash.finalize());
        Ok((hashing.out, packed))
    }
}

/// Creates a file that has its name only when it is complete and on the disk. An interrupted run leaves at most `<name>.part`.
///
/// # Errors
/// Those of the work and of the system.
pub fn save<T>(folder: &Folder, name: &OsStr, work: impl FnOnce(&mut File) -> Result<T, Error>) -> Result<T, Error> {
    let mut part = name.to_owned();
    part.push(".part");
    let failed = |error| Error::io(name.as_bytes(), error);
    folder.remove(&part).map_err(failed)?;
    let mut file = folder.create(&part, Mode::RUSR | Mode::WUSR).map_err(failed)?;
    let done = work(&mut file).and_then(|done| {
        file.sync_all().and_then(|()| folder.rename(&part, folder, name)).map_err(failed)?;
        Ok(done)
    });
    if done.is_err() {
        let _ = folder.remove(&part);
    }
    done
}

/// The files with several names of which one is new under an old ctime, because a folder above it was renamed: by their other names they
/// look unchanged.
fn moved(tree: &Tree<'_>, since: Since<'_>) -> Result<HashSet<Inode>, Error> {
    let mut moved = HashSet::new();
    let mut baseline = Baseline::open(since.baseline, bytes_of(tree.prefix))?;
    let mut walk = Walk::begin(tree.root, bytes_of(tree.prefix))?;
    while let Some(step) = walk.next()? {
        let Step::Found(found) = step else { continue };
        if is_excluded(tree, walk.path()) {
            continue;
        }
        while baseline.current().is_some_and(|(path, _)| in_order(path, walk.path()).is_lt()) {
            baseline.advance()?;
        }
        if found.kind == FileType::Directory {
            walk.enter()?;
        } else if baseline.current() != Some((walk.path(), found))
            && let Some(stat) = walk.stat()?
            && stat.stx_nlink > 1
            && changed(&stat) < since.moment
        {
            moved.insert(inode(&stat));
            if moved.len() * 2 * size_of::<Inode>() > MAX_LINKS {
                return Err(Error::too_large(walk.path(), "too many files have several names"));
            }
        }
    }
    Ok(moved)
}

/// The order of a walk: what is in a folder follows it directly.
fn in_order(one: &[u8], other: &[u8]) -> Ordering {
    let slash_first = |&byte: &u8| if byte == b'/' { 0 } else { byte };
    one.iter().map(slash_first).cmp(other.iter().map(slash_first))
}

/// The packing of one tree.
struct Run<'r, W: Write> {
    packer: &'r mut Packer<W>,
    tree: &'r Tree<'r>,
    walk: Walk,
    baseline: Option<Baseline<'r>>,
    moved: HashSet<Inode>,
    links: Links,
    /// The path below which names of the baseline are not compared.
    passed: Option<Vec<u8>>,
    /// How many of the walk's folders are in the archive.
    open: usize,
}

impl<W: Write> Run<'_, W> {
    fn run(mut self) -> Result<(), Error> {
        // The root has no step of its own.
        let (root, path) = self.walk.folders().next().ok_or(Error::Corrupt { reason: "a walk has no root" })?;
        let stat = stat(root, OsStr::new("")).map_err(|error| Error::io(path, error))?;
        if self.has_changed(&stat) {
            self.open_folders()?;
        }
        if self.tree.since.is_none() && !self.tree.prefix.as_os_str().is_empty() {
            // What is there when the layer is unpacked may have been removed here.
            let path = bytes_of(self.tree.prefix).to_vec();
            self.packer.archive.entry(&Entry { path, kind: Kind::Opaque, attributes: Attributes::default() })?;
        }
        while let Some(step) = self.walk.next()? {
            match step {
                Step::Found(found) => self.found(found)?,
                Step::Leave => {
                    self.remove_until(None)?;
                    self.open = self.open.min(self.walk.folders().len() - 1);
                }
            }
        }
        Ok(())
    }

    fn has_changed(&self, stat: &Statx) -> bool {
        self.tree.since.is_none_or(|since| changed(stat) >= since.moment)
    }

    fn found(&mut self, found: Found) -> Result<(), Error> {
        let is_known = self.remove_until(Some(found))?;
        if is_excluded(self.tree, self.walk.path()) {
            self.pass();
            return Ok(());
        }
        let Some(stat) = self.walk.stat()? else { return self.gone() };
        let is_taken = !is_known || self.has_changed(&stat);
        let entered = match kind(&stat) {
            _ if self.walk.is_elsewhere(&stat) => Entered::Elsewhere,
            FileType::Directory => self.walk.enter()?,
            _ => {
                self.pass();
                let is_taken = is_taken || self.moved.contains(&inode(&stat));
                return if is_taken { self.file(&stat) } else { Ok(()) };
            }
        };
        match entered {
            Entered::Yes if is_taken => return self.open_folders(),
            Entered::Yes => return Ok(()),
            Entered::Gone => return self.gone(),
            Entered::Closed if is_taken => return Err(Error::io(self.walk.path(), Errno::ACCESS)),
            // Who may not list a folder has not changed it.
            Entered::Closed | Entered::Elsewhere => self.pass(),
        }
        Ok(())
    }

    /// Writes whiteouts for the names of the baseline up to the current one, or up to the end of the current folder. Returns whether the
    /// baseline has the current name.
    fn remove_until(&mut self, current: Option<Found>) -> Result<bool, Error> {
        let Some(mut baseline) = self.baseline.take() else { return Ok(false) };
        let mut is_known = false;
        while let Some((path, found)) = baseline.current() {
            let here = self.walk.path();
            match (current, in_order(path, here)) {
                (Some(now), Ordering::Equal) => {
                    is_known = now == found;
                    baseline.advance()?;
                    break;
                }
                (Some(_), Ordering::Greater) => break,
                (None, _) if !is_within(path, here) => break,
                _ => {}
            }
            let is_compared = !self.passed.as_ref().is_some_and(|passed| is_within(path, passed));
            if is_compared && !is_excluded(self.tree, path) {
                self.whiteout(path.to_vec())?;
            }
            baseline.advance()?;
        }
        self.baseline = Some(baseline);
        Ok(is_known)
    }

    /// Ignores what the baseline has below the current path.
    fn pass(&mut self) {
        if self.baseline.is_some() {
            self.passed = Some(self.walk.path().to_vec());
        }
    }

    /// The current name has disappeared since its folder was listed. A whiteout of nothing does no harm.
    fn gone(&mut self) -> Result<(), Error> {
        if self.baseline.is_some() { self.whiteout(self.walk.path().to_vec()) } else { Ok(()) }
    }

    fn whiteout(&mut self, path: Vec<u8>) -> Result<(), Error> {
        reserved(&path)?;
        self.open_folders()?;
        let entry = Entry { path, kind: Kind::Whiteout, attributes: Attributes::default() };
        self.packer.archive.entry(&entry)?;
        self.passed = Some(entry.path);
        Ok(())
    }

    /// Writes the entries of the folders down to the current name, as far as they are not in the archive: so that their times, which
    /// unpacking changes, can be restored.
    fn open_folders(&mut self) -> Result<(), Error> {
        for (folder, path) in self.walk.folders().skip(self.open) {
            reserved(path)?;
            let failed = |error| Error::io(path, error);
            let mut attributes = attributes(&stat(folder, OsStr::new("")).map_err(failed)?);
            self.packer.packed.attributes += extended(folder, &mut attributes).map_err(failed)?;
            self.packer.archive.entry(&Entry { path: path.to_vec(), kind: Kind::Folder, attributes })?;
        }
        self.open = self.walk.folders().len();
        Ok(())
    }

    /// Packs what is not a folder.
    fn file(&mut self, stat: &Statx) -> Result<(), Error> {
        let path = self.walk.path().to_vec();
        reserved(&path)?;
        let content = match kind(stat) {
            FileType::RegularFile => None,
            FileType::Fifo => Some(Kind::Fifo),
            FileType::Symlink => {
                let read = |folder: BorrowedFd<'_>, name: &OsStr| rustix::fs::readlinkat(folder, name, Vec::new());
                let Some(target) = self.walk.here(read)? else { return self.gone() };
                Some(Kind::Symlink(target.into_bytes()))
            }
            _ => {
                self.packer.packed.special += 1;
                return Ok(());
            }
        };
        self.open_folders()?;
        let first = self.links.first.get(&inode(stat)).filter(|_| stat.stx_nlink > 1);
        match first.map(|first| Kind::Link(first.to_vec())).or(content) {
            Some(kind) => {
                self.packer.archive.entry(&Entry { path: path.clone(), kind, attributes: attributes(stat) })?;
            }
            None if self.content(&path)? => {}
            None => return self.gone(),
        }
        if stat.stx_nlink > 1 { self.links.add(stat, &path) } else { Ok(()) }
    }

    /// Packs a file, again if it changed meanwhile. Returns whether it exists.
    fn content(&mut self, path: &[u8]) -> Result<bool, Error> {
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        let open = |folder: BorrowedFd<'_>, name: &OsStr| rustix::fs::openat(folder, name, flags, Mode::empty());
        let Some(file) = self.walk.here(open)? else { return Ok(false) };
        let file = File::from(file);
        let failed = |error| Error::io(path, error);
        let Packer { archive, packed, buffer, search } = &mut *self.packer;
        let mut before = stat(file.as_fd(), OsStr::new("")).map_err(failed)?;
        for _ in 0..ATTEMPTS {
            if kind(&before) != FileType::RegularFile {
                break;
            }
            let shape = Shape::of(&file, &before).map_err(failed)?;
            let mut attributes = attributes(&before);
            packed.attributes += extended(file.as_fd(), &mut attributes).map_err(failed)?;
            let entry = Entry { path: path.to_vec(), kind: Kind::File(shape), attributes };
            archive.entry(&entry)?;
            search.begin();
            if let Kind::File(shape) = &entry.kind {
                for part in &shape.parts {
                    copy(&file, *part, buffer, search, archive, path)?;
                }
            }
            archive.pad().map_err(Error::archive)?;
            let after = stat(file.as_fd(), OsStr::new("")).map_err(failed)?;
            if state(&before) == state(&after) {
                return Ok(true);
            }
            before = after;
        }
        Err(Error::Changed { path: path_of(path) })
    }
}

/// Copies a part of a file. If the file ends before it, zeros take its place: the file has changed, and follows once more.
fn copy<W: Write>(
    file: &File,
    part: Part,
    buffer: &mut [u8],
    search: &mut Search,
    archive: &mut Archive<W>,
    path: &[u8],
) -> Result<(), Error> {
    let (mut offset, end) = (part.offset, part.offset + part.length);
    while offset < end {
        let length = usize::try_from(end - offset).unwrap_or(usize::MAX).min(buffer.len());
        let read = match file.read_at(&mut buffer[..length], offset) {
            Ok(0) => {
                buffer[..length].fill(0);
                length
            }
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(Error::io(path, error)),
        };
        if search.finds(&buffer[..read]) {
            return Err(Error::Secret { path: path_of(path) });
        }
        archive.write(&buffer[..read]).map_err(Error::archive)?;
        offset += read as u64;
    }
    Ok(())
}

impl Shape {
    /// Finds the holes of a file. Small ones are content, if there are more than a layer can describe.
    fn of(file: &File, stat: &Statx) -> Result<Self, Errno> {
        let size = stat.stx_size;
        if stat.stx_blocks.saturating_mul(BLOCK) >= size {
            return Ok(Self::whole(size));
        }
        let (mut shape, mut grain) = (Self { size, parts: vec![] }, BLOCK);
        let mut at = 0;
        while at < size {
            let start = match rustix::fs::seek(file, SeekFrom::Data(at)) {
                Ok(start) => start - start % BLOCK,
                Err(Errno::NXIO) => break,
                Err(Errno::INVAL) => return Ok(Self::whole(size)),
                Err(error) => return Err(error),
            };
            at = rustix::fs::seek(file, SeekFrom::Hole(start.max(at)))?.next_multiple_of(BLOCK).min(size);
            if start < size {
                shape.join(Part { offset: start, length: at.saturating_sub(start) }, grain);
            }
            while shape.parts.len() > MAX_PARTS {
                grain *= 2;
                for part in std::mem::take(&mut shape.parts) {
                    shape.join(part, grain);
                }
            }
        }
        Ok(shape)
    }

    /// Adds a part, or makes the last one longer, if the hole between them is smaller than `grain` bytes.
    fn join(&mut self, part: Part, grain: u64) {
        match self.parts.last_mut() {
            Some(last) if part.offset < last.offset + last.length + grain => {
                last.length = part.offset + part.length - last.offset;
            }
            _ if part.length == 0 => {}
            _ => self.parts.push(part),
        }
    }
}

/// A file, whatever its names.
type Inode = ((u32, u32), u64);

fn inode(stat: &Statx) -> Inode {
    (device(stat), stat.stx_ino)
}

/// The names under which files with several names are in the archive.
#[derive(Default)]
struct Links {
    first: HashMap<Inode, Box<[u8]>>,
    held: usize,
}

impl Links {
    fn add(&mut self, stat: &Statx, path: &[u8]) -> Result<(), Error> {
        self.held += path.len() + 2 * size_of::<(Inode, Box<[u8]>)>();
        if self.held > MAX_LINKS {
            return Err(Error::too_large(path, "too many files have several names"));
        }
        self.first.insert(inode(stat), path.into());
        Ok(())
    }
}

/// What differs when a file was written to.
fn state(stat: &Statx) -> (u64, Time, Time) {
    (stat.stx_size, modified(stat), changed(stat))
}

fn changed(stat: &Statx) -> Time {
    Time { seconds: stat.stx_ctime.tv_sec, nanoseconds: stat.stx_ctime.tv_nsec }
}

fn modified(stat: &Statx) -> Time {
    Time { seconds: stat.stx_mtime.tv_sec, nanoseconds: stat.stx_mtime.tv_nsec }
}

fn attributes(stat: &Statx) -> Attributes {
    Attributes {
        mode: u32::from(stat.stx_mode) & 0o7777,
        owner: stat.stx_uid,
        group: stat.stx_gid,
        modified: modified(stat),
        extended: vec![],
    }
}

/// Adds the extended attributes that are kept, and returns how many are not.
fn extended(file: BorrowedFd<'_>, attributes: &mut Attributes) -> Result<u64, Errno> {
    let mut dropped = 0;
    for name in list(file)? {
        if !is_kept(&name) {
            dropped += 1;
            continue;
        }
        let mut value = vec![0; MAX_ATTRIBUTE];
        match rustix::fs::fgetxattr(file, OsStr::from_bytes(&name), &mut value[..]) {
            Ok(length) => value.truncate(length),
            // Removed meanwhile.
            Err(Errno::NODATA) => continue,
            Err(error) => return Err(error),
        }
        value.shrink_to_fit();
        attributes.extended.push((name, value));
    }
    attributes.extended.sort_unstable();
    Ok(dropped)
}

/// Fails for a name that would be read as a whiteout.
fn reserved(path: &[u8]) -> Result<(), Error> {
    if split(path).1.starts_with(WHITEOUT) { Err(Error::Reserved { path: path_of(path) }) } else { Ok(()) }
}

fn is_excluded(tree: &Tree<'_>, path: &[u8]) -> bool {
    tree.exclude.iter().any(|prefix| is_within(path, bytes_of(prefix)))
}

/// A writer that hashes and counts what passes.
struct Hashing<W> {
    out: W,
    hash: Sha256,
    bytes: u64,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.out.write_all(bytes)?;
        self.hash.update(bytes);
        self.bytes += bytes.len() as u64;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
