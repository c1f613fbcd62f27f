//! Reads the identity of an object that cannot be read. Everything else is skipped without being built. If a text ends early or is
//! invalid further on, the part before that is still used.

use std::fmt;

use kube::api::ObjectMeta;
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, IgnoredAny, MapAccess, Visitor},
};

use super::{Kept, Said, Unreadable, Why, prune::Text};

/// The identity of an object that cannot be read. The caller sets the reason.
pub(super) fn skim<K: Kept>(text: &[u8]) -> Unreadable {
    let mut found = Found::default();
    // An error is expected: the text cannot be read.
    let _ = Top(&mut found).deserialize(&mut serde_json::Deserializer::from_slice(text));
    let Found { metadata, conditions } = found;
    // The operator does not write longer messages.
    let said = conditions.into_iter().find(|condition| condition.kind == "Ready" && condition.message.len() < 1024);
    Unreadable {
        kind: K::kind(&()).into_owned(),
        metadata,
        why: Why::NotJson,
        said: said.map(|Condition { kind: _, reason, message, observed_generation }| Said {
            reason,
            message,
            observed_generation,
        }),
    }
}

/// Name, namespace, UID, version and generation.
pub(super) fn identity(text: &[u8]) -> ObjectMeta {
    let mut found = Found::default();
    let _ = Top(&mut found).deserialize(&mut serde_json::Deserializer::from_slice(text));
    found.metadata
}

#[derive(Default)]
struct Found {
    metadata: ObjectMeta,
    conditions: Vec<Condition>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Condition {
    #[serde(rename = "type")]
    kind: String,
    #[serde(default)]
    reason: String,
    #[serde(default)]
    message: String,
    #[serde(default)]
    observed_generation: Option<i64>,
}

/// The most conditions that are read.
const MOST_CONDITIONS: usize = 32;

/// One level of the object, and where its values are stored.
struct Top<'a>(&'a mut Found);
struct Metadata<'a>(&'a mut ObjectMeta);
struct Status<'a>(&'a mut Vec<Condition>);
struct Conditions<'a>(&'a mut Vec<Condition>);

macro_rules! fields {
    ($part:ident) => {
        impl<'de> DeserializeSeed<'de> for $part<'_> {
            type Value = ();

            fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
                deserializer.deserialize_any(self)
            }
        }
    };
}
fields!(Top);
fields!(Metadata);
fields!(Status);
fields!(Conditions);

impl<'de> Visitor<'de> for Top<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a Kubernetes object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(Text(field)) = map.next_key()? {
            match &*field {
                "metadata" => map.next_value_seed(Metadata(&mut self.0.metadata))?,
                "status" => map.next_value_seed(Status(&mut self.0.conditions))?,
                _ => _ = map.next_value::<IgnoredAny>()?,
            }
        }
        Ok(())
    }
}

impl<'de> Visitor<'de> for Metadata<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("metadata")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(Text(field)) = map.next_key()? {
            match &*field {
                "name" => self.0.name = map.next_value()?,
                "namespace" => self.0.namespace = map.next_value()?,
                "uid" => self.0.uid = map.next_value()?,
                "resourceVersion" => self.0.resource_version = map.next_value()?,
                "generation" => self.0.generation = map.next_value()?,
                _ => _ = map.next_value::<IgnoredAny>()?,
            }
        }
        Ok(())
    }
}

impl<'de> Visitor<'de> for Status<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a status")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(Text(field)) = map.next_key()? {
            match &*field {
                "conditions" => map.next_value_seed(Conditions(self.0))?,
                _ => _ = map.next_value::<IgnoredAny>()?,
            }
        }
        Ok(())
    }
}

impl<'de> Visitor<'de> for Conditions<'_> {
    type Value = ();

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("conditions")
    }

    fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut list: A) -> Result<(), A::Error> {
        while self.0.len() < MOST_CONDITIONS {
            let Some(condition) = list.next_element()? else { return Ok(()) };
            self.0.push(condition);
        }
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(())
    }
}
