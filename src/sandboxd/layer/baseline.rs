//! The baseline: the names and inode numbers of a file system at one moment, in the order of a walk.
//!
//! It is one zstd frame. For each name: how many bytes of its path are those of the path before, how many follow, these bytes, the type,
//! and the difference of the inode number to the one before. A record of type 0 is the end. Numbers are LEB128.

use std::fs::File;
use std::io::{self, BufReader, BufWriter, Read, Seek, Write};

use rustix::fs::FileType;
use sha2::{Digest, Sha256};
use zstd::stream::{read::Decoder, write::Encoder};

use super::walk::{Found, Step, Walk};
use super::{Error, MAX_PATH, hex};
use crate::sandboxd::folder::Folder;

/// The most bytes of a baseline.
pub const MAX_SIZE: u64 = 16 * 1024 * 1024;

/// Within how many seconds a runtime creates a container.
const AT_ONCE: i64 = 5;

/// The types, by their numbers in a record.
const KINDS: [FileType; 8] = [
    FileType::Unknown,
    FileType::RegularFile,
    FileType::Directory,
    FileType::Symlink,
    FileType::Fifo,
    FileType::Socket,
    FileType::CharacterDevice,
    FileType::BlockDevice,
];

/// Writes the baseline of the file system of a folder, and returns the number of names. It holds nothing of what is mounted below the
/// folder, and nothing below a folder that this process may not list.
///
/// # Errors
/// [`Error::TooLarge`], if it would exceed [`MAX_SIZE`], or those of the system.
pub fn write(root: &Folder, out: impl Write) -> Result<u64, Error> {
    let out = Encoder::new(Limited { out, left: MAX_SIZE }, 1).map_err(failed)?;
    let mut out = BufWriter::with_capacity(64 * 1024, out);
    let mut walk = Walk::begin(root, b"")?;
    let (mut before, mut inode, mut names) = (Vec::new(), 0, 0);
    let mut record = Vec::new();
    while let Some(step) = walk.next()? {
        let Step::Found(found) = step else { continue };
        let Some(kind) = KINDS.iter().position(|&kind| kind == found.kind && kind != FileType::Unknown) else {
            continue;
        };
        let path = walk.path();
        let shared = path.iter().zip(&before).take_while(|(one, other)| one == other).count();
        put(&mut record, shared as u64);
        put(&mut record, (path.len() - shared) as u64);
        record.extend_from_slice(&path[shared..]);
        put(&mut record, kind as u64);
        put(&mut record, zigzag(found.inode.wrapping_sub(inode).cast_signed()));
        out.write_all(&record).map_err(failed)?;
        record.clear();
        path.clone_into(&mut before);
        inode = found.inode;
        names += 1;
        if found.kind == FileType::Directory {
            walk.enter()?;
        }
    }
    out.write_all(&[0, 0, 0]).map_err(failed)?;
    let encoder = out.into_inner().map_err(|error| failed(error.into_error()))?;
    encoder.finish().and_then(|mut limited| limited.out.flush()).map_err(failed)?;
    Ok(names)
}

/// Identifies the files of an image: the names and types below a folder, and the sizes and times of its files. It covers what a baseline
/// holds. What the runtime has made when it created the container differs from node to node: the times of folders are not in it, nor the
/// sizes and times of files that are about as young as the root, in which it makes folders to mount something.
///
/// # Errors
/// Those of the system.
pub fn identity(root: &Folder) -> Result<String, Error> {
    let mut hash = Sha256::new();
    let mut walk = Walk::begin(root, b"")?;
    let created = walk.root().map(|stat| stat.stx_mtime.tv_sec)?;
    let is_young = |seconds: i64| seconds >= created.saturating_sub(AT_ONCE);
    while let Some(step) = walk.next()? {
        let Step::Found(found) = step else { continue };
        let Some(stat) = walk.stat()? else { continue };
        let kind = KINDS.iter().position(|&kind| kind == found.kind).unwrap_or_default();
        let path = walk.path();
        hash.update((path.len() as u64).to_le_bytes());
        hash.update(path);
        hash.update([kind.to_le_bytes()[0]]);
        let is_of_image = !walk.is_elsewhere(&stat) && !is_young(stat.stx_mtime.tv_sec);
        if found.kind == FileType::RegularFile && is_of_image {
            hash.update(stat.stx_size.to_le_bytes());
            hash.update(stat.stx_mtime.tv_sec.to_le_bytes());
        }
        if found.kind == FileType::Directory {
            walk.enter()?;
        }
    }
    Ok(hex(hash.finalize()))
}

fn failed(error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::FileTooLarge => Error::too_large(b"", "the baseline is larger than 16 MiB"),
        _ => Error::archive(error),
    }
}

/// A baseline that is read, one name at a time.
pub struct Baseline<'f> {
    input: BufReader<Decoder<'static, BufReader<&'f File>>>,
    path: Vec<u8>,
    /// How long the path of the root is in `path`.
    prefix: usize,
    found: Option<Found>,
    inode: u64,
}

impl<'f> Baseline<'f> {
    /// Begins to read a baseline, whose root has the path `prefix`.
    ///
    /// # Errors
    /// [`Error::Corrupt`], or those of the system.
    pub fn open(mut file: &'f File, prefix: &[u8]) -> Result<Self, Error> {
        file.rewind().map_err(Error::archive)?;
        let input = BufReader::with_capacity(16 * 1024, Decoder::new(file).map_err(Error::archive)?);
        let path = if prefix.is_empty() { vec![] } else { [prefix, b"/"].concat() };
        let mut baseline = Self { input, prefix: path.len(), path, found: None, inode: 0 };
        baseline.advance()?;
        Ok(baseline)
    }

    /// The current name; `None` after the last.
    pub fn current(&self) -> Option<(&[u8], Found)> {
        self.found.map(|found| (&*self.path, found))
    }

    /// Goes to the next name.
    ///
    /// # Errors
    /// [`Error::Corrupt`].
    pub fn advance(&mut self) -> Result<(), Error> {
        self.found = self.record().map_err(|_| CORRUPT)?;
        Ok(())
    }

    fn record(&mut self) -> io::Result<Option<Found>> {
        let invalid = || io::Error::from(io::ErrorKind::InvalidData);
        let shared = usize::try_from(self.number()?).map_err(|_| invalid())?;
        let length = usize::try_from(self.number()?).map_err(|_| invalid())?;
        if shared > (self.path.len() - self.prefix).min(MAX_PATH) || length > MAX_PATH - shared {
            return Err(invalid());
        }
        self.path.truncate(self.prefix + shared);
        self.path.resize(self.prefix + shared + length, 0);
        self.input.read_exact(&mut self.path[self.prefix + shared..])?;
        let kind = usize::try_from(self.number()?).ok().and_then(|kind| KINDS.get(kind)).ok_or_else(invalid)?;
        if *kind == FileType::Unknown {
            return Ok(None);
        }
        self.inode = self.inode.wrapping_add(unzigzag(self.number()?).cast_unsigned());
        Ok(Some(Found { inode: self.inode, kind: *kind }))
    }

    fn number(&mut self) -> io::Result<u64> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let mut byte = [0];
            self.input.read_exact(&mut byte)?;
            number |= u64::from(byte[0] & 0x7f) << shift;
            if byte[0] < 0x80 {
                return Ok(number);
            }
        }
        Err(io::ErrorKind::InvalidData.into())
    }
}

const CORRUPT: Error = Error::Corrupt { reason: "the baseline is incomplete" };

fn put(record: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        record.push(number.to_le_bytes()[0] | 0x80);
        number >>= 7;
    }
    record.push(number.to_le_bytes()[0]);
}

/// A number with a sign as one without, small if it is near 0.
fn zigzag(number: i64) -> u64 {
    ((number << 1) ^ (number >> 63)).cast_unsigned()
}

fn unzigzag(number: u64) -> i64 {
    (number >> 1).cast_signed() ^ -(number & 1).cast_signed()
}

/// A writer that fails with `FileTooLarge` instead of exceeding its size.
struct Limited<W> {
    out: W,
    left: u64,
}

impl<W: Write> Write for Limited<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.left = self.left.checked_sub(bytes.len() as u64).ok_or(io::ErrorKind::FileTooLarge)?;
        self.out.write_all(bytes)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}
