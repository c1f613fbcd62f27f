//! JSON that is read in part and within limits: what is not kept is skipped as it comes, however large or deep it is.

use std::{borrow::Cow, cell::Cell, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, Error, IgnoredAny, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Value};

use super::{Limits, Why};
use crate::api::limits::OBJECT_DEPTH;

/// How much of something is kept. Lists are as their elements.
#[derive(Clone, Copy, Debug)]
pub enum Keep {
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
pub type Fields = &'static [(&'static str, Keep)];

impl Keep {
    fn of(self, field: &str) -> Self {
        let find = |fields: Fields| fields.iter().find(|(name, _)| *name == field).map(|(_, keep)| *keep);
        match self {
            Keep::All | Keep::Free | Keep::Nothing => self,
            Keep::Only(fields) => find(fields).unwrap_or(Keep::Nothing),
            Keep::AllBut(fields) => find(fields).unwrap_or(Keep::All),
            Keep::Prefixed(prefixes) if prefixes.iter().any(|prefix| field.starts_with(prefix)) => Keep::All,
            Keep::Prefixed(_) => Keep::Nothing,
        }
    }
}

/// What is kept of an object, and how many values that has.
pub(super) fn prune(text: &[u8], keep: Keep, limits: Limits) -> Result<(Value, usize), Why> {
    let (own, status) = (Budget::of(limits), Budget::of(Limits::STATUS));
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let tree = Root { keep, own: &own, status: &status }.deserialize(&mut deserializer);
    match (own.over.get(), status.over.get()) {
        (Some(over), _) => Err(match over {
            Over::Bytes => Why::TooLarge(limits.bytes),
            Over::Values => Why::TooManyValues(limits.values),
            Over::Depth => Why::TooDeep,
        }),
        (None, Some(Over::Depth)) => Err(Why::TooDeep),
        (None, Some(_)) => Err(Why::StatusTooLarge(Limits::STATUS.bytes, Limits::STATUS.values)),
        (None, None) => tree.map(|tree| (tree, own.used() + status.used())).map_err(|_| Why::NotJson),
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

/// The object itself: its status has a budget of its own.
struct Root<'a> {
    keep: Keep,
    own: &'a Budget,
    status: &'a Budget,
}

impl<'de> DeserializeSeed<'de> for Root<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Root<'_> {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("an object of Kubernetes")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Value, A::Error> {
        fields(map, self.keep, 1, |field| if field == "status" { self.status } else { self.own })
    }
}

/// A part of it.
#[derive(Clone, Copy)]
struct Part<'a> {
    keep: Keep,
    depth: usize,
    budget: &'a Budget,
}

impl<'de> DeserializeSeed<'de> for Part<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        match self.keep {
            Keep::Nothing => IgnoredAny::deserialize(deserializer).map(|_| Value::Null),
            // A text, which the API server holds to 256 KiB.
            Keep::Free => String::deserialize(deserializer).map(Value::from),
            _ => deserializer.deserialize_any(self),
        }
    }
}

fn fields<'de, 'a, A: MapAccess<'de>>(
    mut map: A,
    keep: Keep,
    depth: usize,
    budget: impl Fn(&str) -> &'a Budget,
) -> Result<Value, A::Error> {
    let mut object = Map::new();
    while let Some(field) = map.next_key::<Cow<'de, str>>()? {
        let (kept, budget) = (keep.of(&field), budget(&field));
        let value = map.next_value_seed(Part { keep: kept, depth, budget })?;
        // Within what is kept whole, `null` may mean something.
        if matches!(kept, Keep::Nothing) || (value.is_null() && !matches!(keep, Keep::All)) {
            continue;
        }
        budget.spend_bytes(field.len() + 3)?;
        object.insert(field.into_owned(), value);
    }
    Ok(object.into())
}

impl Part<'_> {
    fn deeper<E: Error>(self) -> Result<Self, E> {
        self.budget.spend(2)?;
        if self.depth >= OBJECT_DEPTH {
            self.budget.exceed(Over::Depth)?;
        }
        Ok(Self { depth: self.depth + 1, ..self })
    }
}

impl<'de> Visitor<'de> for Part<'_> {
    type Value = Value;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a value of JSON")
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Value, A::Error> {
        let Part { keep, depth, budget } = self.deeper()?;
        fields(map, keep, depth, |_| budget)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let element = self.deeper()?;
        let mut values = Vec::new();
        while let Some(value) = list.next_element_seed(element)? {
            values.push(value);
        }
        Ok(values.into())
    }

    // Where fields are expected and there is something else, the object says so when it is made of this.
    fn visit_str<E: Error>(self, text: &str) -> Result<Value, E> {
        self.budget.spend(text.len() + 3)?;
        Ok(text.into())
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        self.budget.spend(5)?;
        Ok(value.into())
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Value, E> {
        self.budget.spend(digits(number.unsigned_abs()) + usize::from(number < 0))?;
        Ok(number.into())
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Value, E> {
        self.budget.spend(digits(number))?;
        Ok(number.into())
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Value, E> {
        self.budget.spend(number.to_string().len() + 1)?;
        Ok(number.into())
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        self.budget.spend(4)?;
        Ok(Value::Null)
    }

    fn visit_none<E: Error>(self) -> Result<Value, E> {
        self.visit_unit()
    }
}

/// How long a number is, with a comma.
fn digits(number: u64) -> usize {
    number.checked_ilog10().map_or(2, |log| log as usize + 2)
}
