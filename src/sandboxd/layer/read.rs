//! Reads a tar archive of anybody as entries that are valid, without a disk. Everything that is kept of it is bounded.

use std::borrow::Cow;
use std::io::{self, Read};

use tar::{EntryType, GnuExtSparseHeader, GnuSparseHeader, Header};

use super::entry::{Attributes, Entry, Kind, Part, Shape, Time};
use super::{Error, MAX_ENTRIES, MAX_PARTS, MAX_PATH, MAX_PAX, OPAQUE, WHITEOUT, push, split};

const BLOCK: usize = 512;

/// The largest number of a size or an offset.
const MAX_SIZE: u64 = i64::MAX as u64;

/// An archive that is read.
pub struct Archive<R> {
    input: R,
    /// How many bytes of it may still be read.
    left: u64,
    /// How many bytes of the current file have not been read, and how many bytes follow up to the next header.
    unread: u64,
    padding: u64,
    entries: u64,
}

/// What precedes the header of an entry and overrides it.
#[derive(Default)]
struct Overrides {
    path: Option<Vec<u8>>,
    target: Option<Vec<u8>>,
    size: Option<u64>,
    owner: Option<u32>,
    group: Option<u32>,
    modified: Option<Time>,
    extended: Vec<(Vec<u8>, Vec<u8>)>,
}

impl<R: Read> Archive<R> {
    /// Reads at most `limit` bytes.
    pub fn new(input: R, limit: u64) -> Self {
        Self { input, left: limit, unread: 0, padding: 0, entries: 0 }
    }

    /// The next entry; `None` at the end, when everything was read. What was not read of the current file is skipped.
    pub fn next(&mut self) -> Result<Option<Entry>, Error> {
        self.skip()?;
        let mut overrides = Overrides::default();
        let mut is_begun = false;
        loop {
            let Some(header) = self.header()? else {
                return if is_begun { Err(corrupt("it ends before an entry that was begun")) } else { self.end() };
            };
            self.entries += 1;
            if self.entries > MAX_ENTRIES {
                return Err(Error::too_large(b"", "the layer has more than 2,000,000 entries"));
            }
            let size = header.entry_size().map_err(|_| corrupt("a size is not a number"))?;
            match header.entry_type() {
                EntryType::XHeader => overrides.extend(&self.text(size, MAX_PAX)?)?,
                // Comments, as `git archive` writes them.
                EntryType::XGlobalHeader => {
                    self.text(size, MAX_PAX)?;
                    continue;
                }
                EntryType::GNULongName => overrides.path = Some(self.c_string(size)?),
                EntryType::GNULongLink => overrides.target = Some(self.c_string(size)?),
                _ => return self.entry(&header, size, overrides).map(Some),
            }
            is_begun = true;
        }
    }

    /// Reads content of the current file.
    pub fn content(&mut self, buffer: &mut [u8]) -> Result<usize, Error> {
        let length = usize::try_from(self.unread).unwrap_or(usize::MAX).min(buffer.len());
        self.fill(&mut buffer[..length])?;
        self.unread -= length as u64;
        Ok(length)
    }

    fn entry(&mut self, header: &Header, size: u64, overrides: Overrides) -> Result<Entry, Error> {
        let path = overrides.path.unwrap_or_else(|| header.path_bytes().into_owned());
        let ends_with_slash = path.ends_with(b"/");
        let path = normal(&path)?;
        let size = overrides.size.unwrap_or(size);
        if size > MAX_SIZE {
            return Err(corrupt("a size is too large"));
        }
        let target = overrides.target.or_else(|| header.link_name_bytes().map(Cow::into_owned)).unwrap_or_default();
        let kind = match header.entry_type() {
            EntryType::Regular if ends_with_slash => Kind::Folder,
            EntryType::Regular | EntryType::Continuous => Kind::File(Shape::whole(size)),
            EntryType::GNUSparse => Kind::File(self.shape(header, size)?),
            EntryType::Directory => Kind::Folder,
            EntryType::Symlink if target.is_empty() || target.len() > MAX_PATH || target.contains(&0) => {
                return Err(Error::refused(&path, "the target of the link is not valid"));
            }
            EntryType::Symlink => Kind::Symlink(target),
            EntryType::Link => Kind::Link(normal(&target)?),
            EntryType::Fifo => Kind::Fifo,
            EntryType::Char | EntryType::Block => return Err(Error::refused(&path, "it is a device")),
            _ => return Err(Error::refused(&path, "its type is unknown")),
        };
        let content = if let Kind::File(shape) = &kind { shape.stored() } else { 0 };
        if content != size {
            return Err(corrupt("the size of an entry is not that of its content"));
        }
        if content > self.left {
            return Err(over_limit(&path));
        }
        if path.is_empty() && kind != Kind::Folder {
            return Err(Error::refused(&path, "the root is not a folder"));
        }
        self.unread = content;
        self.padding = padding(content);
        let attributes = Attributes {
            mode: header.mode().map_err(|_| corrupt("a mode is not a number"))? & 0o7777,
            owner: id(overrides.owner, header.uid())?,
            group: id(overrides.group, header.gid())?,
            modified: match overrides.modified {
                Some(time) => time,
                None => Time {
                    seconds: header.mtime().map_err(|_| corrupt("a time is not a number"))?.cast_signed(),
                    nanoseconds: 0,
                },
            },
            extended: overrides.extended,
        };
        whiteout(Entry { path, kind, attributes })
    }

    /// Where the content of a file with holes is.
    fn shape(&mut self, header: &Header, stored: u64) -> Result<Shape, Error> {
        let gnu = header.as_gnu().ok_or(corrupt("a file with holes has another header"))?;
        let size = gnu.real_size().ok().filter(|&size| size <= MAX_SIZE).ok_or(corrupt("a size is too large"))?;
        let mut shape = Shape { size, parts: vec![] };
        shape.add(&gnu.sparse)?;
        let mut is_extended = gnu.is_extended();
        while is_extended {
            let mut block = GnuExtSparseHeader::new();
            self.fill(block.as_mut_bytes())?;
            shape.add(block.sparse())?;
            is_extended = block.is_extended();
        }
        if shape.parts.iter().rev().skip(1).any(|part| !part.length.is_multiple_of(BLOCK as u64))
            || shape.stored() != stored
        {
            return Err(corrupt("the parts of a file with holes are not its content"));
        }
        Ok(shape)
    }

    /// The next header; `None` for a block of zeros.
    fn header(&mut self) -> Result<Option<Header>, Error> {
        let mut header = Header::new_old();
        self.fill(header.as_mut_bytes())?;
        let bytes = header.as_bytes();
        if bytes.iter().all(|&byte| byte == 0) {
            return Ok(None);
        }
        let sum: u32 = bytes[..148].iter().chain(&[b' '; 8]).chain(&bytes[156..]).map(|&byte| u32::from(byte)).sum();
        if header.cksum().is_ok_and(|stored| stored == sum) {
            Ok(Some(header))
        } else {
            Err(corrupt("a header is not valid"))
        }
    }

    /// Reads what follows the first block of zeros: zeros.
    fn end(&mut self) -> Result<Option<Entry>, Error> {
        let mut block = [0; BLOCK];
        self.fill(&mut block)?;
        let mut buffer = [0; 16 * 1024];
        let mut read: &[u8] = &block;
        loop {
            if read.iter().any(|&byte| byte != 0) {
                return Err(corrupt("something follows its end"));
            }
            let length = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len() - 1) + 1;
            let length = retry(|| self.input.read(&mut buffer[..length])).map_err(unreadable)?;
            if length == 0 {
                return Ok(None);
            }
            self.left = self.left.checked_sub(length as u64).ok_or_else(|| over_limit(b""))?;
            read = &buffer[..length];
        }
    }

    /// Reads the content of an entry that describes the next one.
    fn text(&mut self, size: u64, limit: usize) -> Result<Vec<u8>, Error> {
        let length = usize::try_from(size).ok().filter(|&size| size <= limit);
        let mut text =
            vec![0; length.ok_or_else(|| Error::too_large(b"", "an extended header is larger than 64 KiB"))?];
        self.fill(&mut text)?;
        self.padding = padding(size);
        self.skip()?;
        Ok(text)
    }

    fn c_string(&mut self, size: u64) -> Result<Vec<u8>, Error> {
        let mut text = self.text(size, MAX_PATH + 1)?;
        if text.last() == Some(&0) {
            text.pop();
        }
        Ok(text)
    }

    fn skip(&mut self) -> Result<(), Error> {
        let mut left = std::mem::take(&mut self.unread) + std::mem::take(&mut self.padding);
        let mut buffer = [0; 16 * 1024];
        while left > 0 {
            let length = usize::try_from(left).unwrap_or(usize::MAX).min(buffer.len());
            self.fill(&mut buffer[..length])?;
            left -= length as u64;
        }
        Ok(())
    }

    fn fill(&mut self, buffer: &mut [u8]) -> Result<(), Error> {
        self.left = self.left.checked_sub(buffer.len() as u64).ok_or_else(|| over_limit(b""))?;
        self.input.read_exact(buffer).map_err(unreadable)
    }
}

impl Shape {
    /// Adds the parts of a table, which is full or has empty fields at its end.
    fn add(&mut self, table: &[GnuSparseHeader]) -> Result<(), Error> {
        const WRONG: Error = corrupt("the parts of a file with holes are not valid");
        for field in table.iter().filter(|field| !field.is_empty()) {
            let (Ok(offset), Ok(length)) = (field.offset(), field.length()) else { return Err(WRONG) };
            let before = self.parts.last().map_or(0, |last| last.offset + last.length);
            if offset < before || offset.checked_add(length).is_none_or(|end| end > self.size) {
                return Err(WRONG);
            }
            if self.parts.len() == MAX_PARTS {
                return Err(Error::too_large(b"", "a file has more than 65,536 parts"));
            }
            if length > 0 {
                self.parts.push(Part { offset, length });
            }
        }
        Ok(())
    }
}

impl Overrides {
    /// Adds the records of an extended header.
    fn extend(&mut self, mut text: &[u8]) -> Result<(), Error> {
        const WRONG: Error = corrupt("an extended header is not valid");
        while !text.is_empty() {
            let space = text.iter().position(|&byte| byte == b' ').ok_or(WRONG)?;
            let length: usize = number(&text[..space]).ok_or(WRONG)?;
            if length <= space + 1 || length > text.len() || text[length - 1] != b'\n' {
                return Err(WRONG);
            }
            let record = &text[space + 1..length - 1];
            let equals = record.iter().position(|&byte| byte == b'=').ok_or(WRONG)?;
            self.set(&record[..equals], &record[equals + 1..]).ok_or(WRONG)?;
            text = &text[length..];
        }
        Ok(())
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        match key {
            b"path" => self.path = Some(value.to_vec()),
            b"linkpath" => self.target = Some(value.to_vec()),
            b"size" => self.size = Some(number(value)?),
            b"uid" => self.owner = Some(number(value)?),
            b"gid" => self.group = Some(number(value)?),
            b"mtime" => self.modified = Some(time(value)?),
            _ if key.starts_with(b"GNU.sparse.") => return None,
            _ => {
                if let Some(name) = key.strip_prefix(b"SCHILY.xattr.") {
                    if name.is_empty() || name.contains(&0) {
                        return None;
                    }
                    self.extended.push((name.to_vec(), value.to_vec()));
                }
            }
        }
        Some(())
    }
}

/// A path in its normal form.
fn normal(path: &[u8]) -> Result<Vec<u8>, Error> {
    let short = &path[..path.len().min(MAX_PATH)];
    if path.starts_with(b"/") {
        return Err(Error::refused(short, "the path is absolute"));
    }
    if path.len() > MAX_PATH + 1 {
        return Err(Error::too_large(short, "the path is longer than 4 KiB"));
    }
    if path.is_empty() || path.contains(&0) {
        return Err(Error::refused(short, "the path is not valid"));
    }
    let mut normal = Vec::with_capacity(path.len());
    for name in path.split(|&byte| byte == b'/').filter(|name| !name.is_empty() && *name != b".") {
        if name == b".." {
            return Err(Error::refused(short, "the path leads upward"));
        }
        push(&mut normal, name);
    }
    Ok(normal)
}

/// Recognises whiteouts by their names.
fn whiteout(mut entry: Entry) -> Result<Entry, Error> {
    let reserved = |path: &[u8]| path.split(|&byte| byte == b'/').any(|name| name.starts_with(WHITEOUT));
    let (folder, name) = split(&entry.path);
    let target = if let Kind::Link(target) = &entry.kind { target } else { folder };
    if reserved(folder) || reserved(target) {
        return Err(Error::refused(&entry.path, "a whiteout is not a folder or a file"));
    }
    let Some(hidden) = name.strip_prefix(WHITEOUT) else { return Ok(entry) };
    let is_empty = matches!(&entry.kind, Kind::File(shape) if shape.size == 0);
    let mut path = folder.to_vec();
    if name == OPAQUE && is_empty {
        entry.kind = Kind::Opaque;
    } else if is_empty && !matches!(hidden, b"" | b"." | b"..") && !hidden.starts_with(WHITEOUT) {
        push(&mut path, hidden);
        entry.kind = Kind::Whiteout;
    } else {
        return Err(Error::refused(&entry.path, "the whiteout is not valid"));
    }
    entry.path = path;
    Ok(entry)
}

/// Seconds as a decimal number.
fn time(text: &[u8]) -> Option<Time> {
    let text = str::from_utf8(text).ok()?;
    let (is_negative, digits) = text.strip_prefix('-').map_or((false, text), |digits| (true, digits));
    let (whole, rest) = digits.split_once('.').unwrap_or((digits, "0"));
    let whole: i64 = number(whole.as_bytes())?;
    if !rest.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let nanoseconds: u32 = format!("{rest:0<9.9}").parse().ok()?;
    Some(match (is_negative, nanoseconds) {
        (false, _) => Time { seconds: whole, nanoseconds },
        (true, 0) => Time { seconds: -whole, nanoseconds },
        (true, _) => Time { seconds: -whole - 1, nanoseconds: 1_000_000_000 - nanoseconds },
    })
}

/// A number of decimal digits alone.
fn number<N: std::str::FromStr>(text: &[u8]) -> Option<N> {
    if text.iter().all(u8::is_ascii_digit) { str::from_utf8(text).ok()?.parse().ok() } else { None }
}

fn id(overriding: Option<u32>, stored: io::Result<u64>) -> Result<u32, Error> {
    let id = overriding.or_else(|| u32::try_from(stored.ok()?).ok());
    id.ok_or(corrupt("an owner is not a number"))
}

fn padding(size: u64) -> u64 {
    size.next_multiple_of(BLOCK as u64) - size
}

fn retry<T>(mut work: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match work() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

const fn corrupt(reason: &'static str) -> Error {
    Error::Corrupt { reason }
}

fn unreadable(error: io::Error) -> Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => corrupt("it ends too early"),
        // Errors of zstd; those of the system have a number.
        _ if error.raw_os_error().is_none() => corrupt("it cannot be decompressed"),
        _ => Error::archive(error),
    }
}

fn over_limit(path: &[u8]) -> Error {
    Error::too_large(path, "the layer is larger unpacked than it may be")
}
