//! Reads a part of a JSON text within limits. What is not kept is skipped without being built, however large or deep it is. What is
//! kept is copied from text to text.

use std::{borrow::Cow, cell::Cell, fmt};

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor},
};

use super::{Limits, Why};
use crate::api::limits::OBJECT_DEPTH;

/// Which part of a value is kept. For a list, it applies to each element.
#[derive(Clone, Copy, Debug)]
pub enum Projection {
    /// All of it.
    All,
    /// All of it, without counting towards the limits.
    Free,
    /// Nothing of it.
    Nothing,
    /// Only these fields.
    Only(Fields),
    /// Only these fields, and nothing of a map without the first of them.
    Having(Fields),
    /// All fields, but only the given part of these fields.
    AllBut(Fields),
    /// Only the fields whose names begin with one of these prefixes.
    Prefixed(&'static [&'static str]),
}

/// Fields, and which part is kept of each.
pub type Fields = &'static [(&'static str, Projection)];

impl Projection {
    fn of(self, field: &str) -> Self {
        let find = |fields: Fields| fields.iter().find(|(name, _)| *name == field).map(|(_, keep)| *keep);
        match self {
            Projection::All | Projection::Free | Projection::Nothing => self,
            Projection::Only(fields) | Projection::Having(fields) => find(fields).unwrap_or(Projection::Nothing),
            Projection::AllBut(fields) => find(fields).unwrap_or(Projection::All),
            Projection::Prefixed(prefixes) if prefixes.iter().any(|prefix| field.starts_with(prefix)) => {
                Projection::All
            }
            Projection::Prefixed(_) => Projection::Nothing,
        }
    }

    /// The field without which nothing of a map is kept.
    fn required(self) -> Option<&'static str> {
        if let Projection::Having(fields) = self { fields.first().map(|(name, _)| *name) } else { None }
    }
}

/// The kept part of an object as text, and how many JSON values the text has.
pub(super) fn prune(text: &[u8], keep: Projection, limits: Limits) -> Result<(String, usize), Why> {
    let (own, status, mut kept) = (Budget::of(limits), Budget::of(Limits::STATUS), Vec::with_capacity(text.len() / 2));
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let end = Root { keep, own: &own, status: &status, kept: &mut kept }.deserialize(&mut deserializer);
    match (own.over.get(), status.over.get()) {
        (Some(over), _) => Err(match over {
            Over::Bytes => Why::TooLarge(limits.bytes),
            Over::Values => Why::TooManyValues(limits.values),
            Over::Depth => Why::TooDeep,
        }),
        (None, Some(Over::Depth)) => Err(Why::TooDeep),
        (None, Some(_)) => Err(Why::StatusTooLarge(Limits::STATUS.bytes, Limits::STATUS.values)),
        (None, None) => {
            let kept = end.ok().and_then(|()| String::from_utf8(kept).ok()).ok_or(Why::NotJson)?;
            Ok((kept, own.used() + status.used()))
        }
    }
}

/// What remains of the limits.
struct Budget {
    limits: Limits,
    bytes: Cell<usize>,
    values: Cell<usize>,
    over: Cell<Option<Over>>,
}

#[derive(Clone, Copy)]
enum Over {
    Bytes,
    Values,
    Depth,
}

impl Budget {
    fn of(limits: Limits) -> Self {
        Self { limits, bytes: Cell::new(limits.bytes), values: Cell::new(limits.values), over: Cell::new(None) }
    }

    fn used(&self) -> usize {
        self.limits.values - self.values.get()
    }

    fn spend_bytes<E: Error>(&self, bytes: usize) -> Result<(), E> {
        match self.bytes.get().checked_sub(bytes) {
            Some(rest) => {
                self.bytes.set(rest);
                Ok(())
            }
            None => self.exceed(Over::Bytes),
        }
    }

    /// Spends one value, which takes so many bytes of text.
    fn spend<E: Error>(&self, bytes: usize) -> Result<(), E> {
        match self.values.get().checked_sub(1) {
            Some(rest) => self.values.set(rest),
            None => return self.exceed(Over::Values),
        }
        self.spend_bytes(bytes)
    }

    fn exceed<E: Error>(&self, over: Over) -> Result<(), E> {
        self.over.set(Some(over));
        Err(E::custom("a limit is exceeded"))
    }
}

/// A string that is borrowed from the input, and only copied if it has escapes.
#[derive(Deserialize)]
pub(super) struct Text<'a>(#[serde(borrow)] pub(super) Cow<'a, str>);

/// The whole object. Its status has a separate budget.
struct Root<'a> {
    keep: Projection,
    own: &'a Budget,
    status: &'a Budget,
    kept: &'a mut Vec<u8>,
}

impl<'de> DeserializeSeed<'de> for Root<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Root<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a Kubernetes object")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        let Root { keep, own, status, kept } = self;
        fields(map, keep, 1, kept, |field| if field == "status" { status } else { own })
    }
}

/// A part of the object, and the buffer for what is kept of it.
struct Part<'a> {
    keep: Projection,
    depth: usize,
    budget: &'a Budget,
    kept: &'a mut Vec<u8>,
}

impl<'de> DeserializeSeed<'de> for Part<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        match self.keep {
            Projection::Nothing => IgnoredAny::deserialize(deserializer).map(|_| ()),
            // This is a string, which the API server limits to 256 KiB.
            Projection::Free => write(self.kept, &Text::deserialize(deserializer)?.0),
            _ => deserializer.deserialize_any(self),
        }
    }
}

/// Writes a value. This does not fail: the value is a JSON value, and the buffer is in memory.
fn write<E: Error>(kept: &mut Vec<u8>, value: &(impl Serialize + ?Sized)) -> Result<(), E> {
    serde_json::to_writer(kept, value).map_err(E::custom)
}

fn fields<'de, 'a, A: MapAccess<'de>>(
    mut map: A,
    keep: Projection,
    depth: usize,
    kept: &mut Vec<u8>,
    budget: impl Fn(&str) -> &'a Budget,
) -> Result<(), A::Error> {
    let (start, required) = (kept.len(), keep.required());
    let mut is_complete = required.is_none();
    kept.push(b'{');
    let mut comma = false;
    while let Some(Text(field)) = map.next_key()? {
        let (keep_of_field, budget, begin) = (keep.of(&field), budget(&field), kept.len());
        if comma {
            kept.push(b',');
        }
        write(kept, &*field)?;
        kept.push(b':');
        let value = kept.len();
        map.next_value_seed(Part { keep: keep_of_field, depth, budget, kept })?;
        // In a value that is kept as a whole, `null` may have a meaning.
        if kept.len() == value || (&kept[value..] == b"null" && !matches!(keep, Projection::All)) {
            kept.truncate(begin);
            continue;
        }
        budget.spend_bytes(field.len() + 3)?;
        comma = true;
        is_complete |= required == Some(&*field);
    }
    kept.push(b'}');
    if !is_complete {
        kept.truncate(start);
    }
    Ok(())
}

impl Part<'_> {
    fn deeper<E: Error>(&mut self) -> Result<(), E> {
        self.budget.spend(2)?;
        if self.depth >= OBJECT_DEPTH {
            self.budget.exceed(Over::Depth)?;
        }
        self.depth += 1;
        Ok(())
    }

    /// Writes a value that takes so many bytes of text.
    fn leaf<E: Error>(self, bytes: usize, value: &(impl Serialize + ?Sized)) -> Result<(), E> {
        self.budget.spend(bytes)?;
        write(self.kept, value)
    }
}

impl<'de> Visitor<'de> for Part<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a JSON value")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, map: A) -> Result<(), A::Error> {
        self.deeper()?;
        fields(map, self.keep, self.depth, self.kept, |_| self.budget)
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<(), A::Error> {
        self.deeper()?;
        let Part { keep, depth, budget, kept } = self;
        let start = kept.len();
        kept.push(b'[');
        let mut end = kept.len();
        loop {
            let element = kept.len();
            if list.next_element_seed(Part { keep, depth, budget, kept })?.is_none() {
                break;
            }
            if kept.len() > element {
                end = kept.len();
                kept.push(b',');
            }
        }
        kept.truncate(end);
        kept.push(b']');
        if keep.required().is_some() && end == start + 1 {
            kept.truncate(start);
        }
        Ok(())
    }

    // If a projection expects fields but finds one of these values, deserializing the object reports the error.
    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        self.leaf(text.len() + 3, text)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        self.leaf(5, &value)
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<(), E> {
        self.leaf(digits(number.unsigned_abs()) + usize::from(number < 0), &number)
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<(), E> {
        self.leaf(digits(number), &number)
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<(), E> {
        self.leaf(number.to_string().len() + 1, &number)
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.leaf(4, &())
    }
}

/// The length of a number with a comma.
fn digits(number: u64) -> usize {
    number.checked_ilog10().map_or(2, |log| log as usize + 2)
}
