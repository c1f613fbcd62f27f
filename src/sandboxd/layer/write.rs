//! Writes entries as a tar archive: ustar headers; before them, where these do not suffice, PAX headers; and old GNU headers for files
//! with holes, which every reader knows.

use std::io::{self, Write};

use tar::{EntryType, GnuExtSparseHeader, GnuSparseHeader, Header};

use super::entry::{Attributes, Entry, Kind, Part, Time};
use super::{Error, MAX_ENTRIES, MAX_PAX, OPAQUE, WHITEOUT, push, split};

const BLOCK: usize = 512;

/// What a header holds in octal digits: owners, and sizes and times.
const MAX_OWNER: u64 = 0o777_7777;
const MAX_NUMBER: u64 = 0o777_7777_7777;

/// An archive that is written.
pub struct Archive<W> {
    out: W,
    /// The size up to now, in bytes.
    pub size: u64,
    /// How many entries were written.
    pub entries: u64,
    pax: Vec<u8>,
}

impl<W: Write> Archive<W> {
    pub fn new(out: W) -> Self {
        Self { out, size: 0, entries: 0, pax: vec![] }
    }

    /// Writes an entry. The parts of a file have to follow, and then [`pad`](Self::pad).
    pub fn entry(&mut self, entry: &Entry) -> Result<(), Error> {
        self.entries += 1;
        if self.entries > MAX_ENTRIES {
            return Err(Error::too_large(&entry.path, "the layer has more than 2,000,000 entries"));
        }
        self.pax.clear();
        let is_sparse = matches!(&entry.kind, Kind::File(shape) if shape.is_sparse());
        let mut header = if is_sparse { Header::new_gnu() } else { Header::new_ustar() };
        self.describe(&mut header, entry);
        if let Kind::File(shape) = &entry.kind
            && let Some(gnu) = header.as_gnu_mut()
        {
            gnu.set_real_size(shape.size);
            let rest = fill(&mut gnu.sparse, &shape.parts, shape.size);
            gnu.set_is_extended(rest.is_some());
            header.set_cksum();
            self.headers(entry, &header)?;
            return self.map(rest, shape.size).map_err(Error::archive);
        }
        header.set_cksum();
        self.headers(entry, &header)
    }

    /// Sets what all headers have in common, and adds to the extended header what does not fit.
    fn describe(&mut self, header: &mut Header, entry: &Entry) {
        let Attributes { mode, owner, group, modified, extended } = &entry.attributes;
        let path = stored_path(entry);
        self.text(&mut header.as_old_mut().name, "path", &path);
        let (kind, size) = match &entry.kind {
            Kind::Folder => (EntryType::Directory, 0),
            Kind::File(shape) if shape.is_sparse() => (EntryType::GNUSparse, shape.stored()),
            Kind::File(shape) => (EntryType::Regular, shape.size),
            Kind::Symlink(target) => {
                self.text(&mut header.as_old_mut().linkname, "linkpath", target);
                (EntryType::Symlink, 0)
            }
            Kind::Link(target) => {
                self.text(&mut header.as_old_mut().linkname, "linkpath", target);
                (EntryType::Link, 0)
            }
            Kind::Fifo => (EntryType::Fifo, 0),
            Kind::Whiteout | Kind::Opaque => (EntryType::Regular, 0),
        };
        header.set_entry_type(kind);
        header.set_mode(*mode);
        header.set_size(size);
        if size > MAX_NUMBER && kind == EntryType::Regular {
            self.record(b"size", size.to_string().as_bytes());
        }
        for (key, id) in [("uid", *owner), ("gid", *group)] {
            let id = u64::from(id);
            if id > MAX_OWNER {
                self.record(key.as_bytes(), id.to_string().as_bytes());
            }
            if key == "uid" { header.set_uid(id) } else { header.set_gid(id) }
        }
        let seconds = u64::try_from(modified.seconds).unwrap_or_default();
        header.set_mtime(seconds.min(MAX_NUMBER));
        if *modified != (Time { seconds: seconds.min(MAX_NUMBER).cast_signed(), nanoseconds: 0 }) {
            self.record(b"mtime", decimal(*modified).as_bytes());
        }
        for (name, value) in extended {
            self.record(&[b"SCHILY.xattr.", &**name].concat(), value);
        }
    }

    /// Puts a text into a field, and as a record if the field is too short.
    fn text(&mut self, field: &mut [u8], key: &str, value: &[u8]) {
        let length = value.len().min(field.len());
        field[..length].copy_from_slice(&value[..length]);
        if length < value.len() {
            self.record(key.as_bytes(), value);
        }
    }

    /// Adds a record to the extended header. It begins with its own length.
    fn record(&mut self, key: &[u8], value: &[u8]) {
        let rest = key.len() + value.len() + 3;
        let mut length = rest + 1;
        while rest + length.to_string().len() != length {
            length = rest + length.to_string().len();
        }
        self.pax.extend_from_slice(length.to_string().as_bytes());
        for part in [b" ", key, b"=", value, b"\n"] {
            self.pax.extend_from_slice(part);
        }
    }

    /// Writes the extended header, if there is one, and the header.
    fn headers(&mut self, entry: &Entry, header: &Header) -> Result<(), Error> {
        let pax = std::mem::take(&mut self.pax);
        if pax.len() > MAX_PAX {
            return Err(Error::too_large(&entry.path, "the extended attributes are larger than 64 KiB"));
        }
        if !pax.is_empty() {
            let mut extended = Header::new_ustar();
            extended.set_entry_type(EntryType::XHeader);
            extended.set_mode(0o644);
            extended.set_size(pax.len() as u64);
            extended.as_old_mut().name[..3].copy_from_slice(b"pax");
            extended.set_cksum();
            self.write(extended.as_bytes())
                .and_then(|()| self.write(&pax))
                .and_then(|()| self.pad())
                .map_err(Error::archive)?;
        }
        self.pax = pax;
        self.write(header.as_bytes()).map_err(Error::archive)
    }

    /// Writes the parts that the header of a file with holes could not hold.
    fn map(&mut self, mut rest: Option<&[Part]>, size: u64) -> io::Result<()> {
        while let Some(parts) = rest {
            let mut block = GnuExtSparseHeader::new();
            rest = fill(block.sparse_mut(), parts, size);
            block.set_is_extended(rest.is_some());
            self.write(block.as_bytes())?;
        }
        Ok(())
    }

    /// Writes content.
    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.size += bytes.len() as u64;
        self.out.write_all(bytes)
    }

    /// Writes zeros up to the end of the block.
    pub fn pad(&mut self) -> io::Result<()> {
        let over = usize::try_from(self.size % BLOCK as u64).unwrap_or_default();
        self.write(&[0; BLOCK][..(BLOCK - over) % BLOCK])
    }

    /// Ends the archive, and returns where it was written.
    pub fn finish(mut self) -> io::Result<W> {
        self.write(&[0; 2 * BLOCK])?;
        Ok(self.out)
    }
}

/// Fills a table with parts, and returns those that did not fit. A file that ends with a hole has an empty part at its end.
fn fill<'p>(table: &mut [GnuSparseHeader], parts: &'p [Part], size: u64) -> Option<&'p [Part]> {
    let (now, later) = parts.split_at(parts.len().min(table.len()));
    for (field, part) in table.iter_mut().zip(now) {
        field.set_offset(part.offset);
        field.set_length(part.length);
    }
    let ends_with_hole = parts.last().is_none_or(|last| last.offset + last.length < size);
    match table.get_mut(now.len()) {
        Some(field) if ends_with_hole => {
            field.set_offset(size);
            field.set_length(0);
            None
        }
        Some(_) => None,
        None => (!later.is_empty() || ends_with_hole).then_some(later),
    }
}

/// The path as it is in the archive.
fn stored_path(entry: &Entry) -> Vec<u8> {
    let mut path = entry.path.clone();
    match entry.kind {
        Kind::Folder if path.is_empty() => path.extend(b"./"),
        Kind::Folder => path.push(b'/'),
        Kind::Whiteout => {
            let (folder, name) = split(&entry.path);
            path = folder.to_vec();
            push(&mut path, &[WHITEOUT, name].concat());
        }
        Kind::Opaque => push(&mut path, OPAQUE),
        _ => {}
    }
    path
}

/// Seconds as a decimal number.
fn decimal(Time { seconds, nanoseconds }: Time) -> String {
    let (sign, whole, rest) = match (seconds, nanoseconds) {
        (..0, 1..) => ("-", (seconds + 1).unsigned_abs(), 1_000_000_000 - nanoseconds),
        (..0, 0) => ("-", seconds.unsigned_abs(), 0),
        _ => ("", seconds.unsigned_abs(), nanoseconds),
    };
    if rest == 0 { format!("{sign}{whole}") } else { format!("{sign}{whole}.{rest:09}") }
}
