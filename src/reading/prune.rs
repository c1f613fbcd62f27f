//! JSON that is read in part and within limits: what is not kept is skipped as it comes, however large or deep it is, and what is
//! kept goes from text to text.

use std::{borrow::Cow, cell::Cell, fmt};

use serde::{
    Deserialize, Deserializer, Serialize,
    de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor},
};

use super::{Limits, Why};
use crate::api::limits::OBJECT_DEPTH;

/// How much of something is kept. Lists are as their elements.
#[derive(Clone, Copy, Debug)]
pub enum Projection {
    /// All of it.
    All,
    /// All of it, and it does not count.
    Free,
    /// Nothing of it.
    Nothing,
    /// These fields.
    Only(Fields),
    /// All fields, of these only so much.
    AllBut(Fields),
    /// The fields whose names begin in one of these ways.
    Prefixed(&'static [&'static str]),
}

/// Fields, and how much is kept of each.
pub type Fields = &'static [(&'static str, Projection)];

impl Projection {
    fn of(self, field: &str) -> Self {
        let find = |fields: Fields| fields.iter().find(|(name, _)| *name == field).map(|(_, keep)| *keep);
        match self {
            Projection::All | Projection::Free | Projection::Nothing => self,
            Projection::Only(fields) => find(fields).unwrap_or(Projection::Nothing),
            Projection::AllBut(fields) => find(fields).unwrap_or(Projection::All),
            Projection::Prefixed(prefixes) if prefixes.iter().any(|prefix| field.starts_with(prefix)) => {
                Projection::All
            }
            Projection::Prefixed(_) => Projection::Nothing,
        }
    }
}

/// What is kept of an object, as text, and how many values that has.
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

/// How much may still come.
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

    /// One more value, which takes so many bytes of text.
    fn spend<E: Error>(&self, bytes: usize) -> Result<(), E> {
        match self.values.get().checked_sub(1) {
            Some(rest) => self.values.set(rest),
            None => return self.exceed(Over::Values),
        }
        self.spend_bytes(bytes)
    }

    fn exceed<E: Error>(&self, over: Over) -> Result<(), E> {
        self.over.set(Some(over));
        Err(E::custom("a limit is passed"))
    }
}

/// A text that is looked at where it stands, and copied only where it has escapes.
#[derive(Deserialize)]
pub(super) struct Text<'a>(#[serde(borrow)] pub(super) Cow<'a, str>);

/// The object itself: its status has a budget of its own.
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
        formatter.write_str("an object of Kubernetes")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        let Root { keep, own, status, kept } = self;
        fields(map, keep, 1, kept, |field| if field == "status" { status } else { own })
    }
}

/// A part of it, and where what is kept of it is written.
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
            // A text, which the API server holds to 256 KiB.
            Projection::Free => write(self.kept, &Text::deserialize(deserializer)?.0),
            _ => deserializer.deserialize_any(self),
        }
    }
}

/// Nothing that is written here fails: these are values of JSON, and what they are written to is memory.
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
        // Within what is kept whole, `null` may mean something.
        if kept.len() == value || (&kept[value..] == b"null" && !matches!(keep, Projection::All)) {
            kept.truncate(begin);
            continue;
        }
        budget.spend_bytes(field.len() + 3)?;
        comma = true;
    }
    kept.push(b'}');
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

    /// A value that takes so many bytes of text.
    fn leaf<E: Error>(self, bytes: usize, value: &(impl Serialize + ?Sized)) -> Result<(), E> {
        self.budget.spend(bytes)?;
        write(self.kept, value)
    }
}

impl<'de> Visitor<'de> for Part<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a value of JSON")
    }

    fn visit_map<A: MapAccess<'de>>(mut self, map: A) -> Result<(), A::Error> {
        self.deeper()?;
        fields(map, self.keep, self.depth, self.kept, |_| self.budget)
    }

    fn visit_seq<A: SeqAccess<'de>>(mut self, mut list: A) -> Result<(), A::Error> {
        self.deeper()?;
        let Part { keep, depth, budget, kept } = self;
        kept.push(b'[');
        let mut end = kept.len();
        while list.next_element_seed(Part { keep, depth, budget, kept })?.is_some() {
            end = kept.len();
            kept.push(b',');
        }
        kept.truncate(end);
        kept.push(b']');
        Ok(())
    }

    // Where fields are expected and there is something else, the object says so when it is made of this.
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

/// How long a number is, with a comma.
fn digits(number: u64) -> usize {
    number.checked_ilog10().map_or(2, |log| log as usize + 2)
}
