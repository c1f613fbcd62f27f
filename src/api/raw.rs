//! Fields without a schema, kept as text: as a tree, a small map takes a hundred times the memory of its text.

use std::{fmt, sync::Arc};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;

/// JSON of an unknown schema, kept as text. Two of these are equal if their values are equal, because the keys of maps are sorted.
#[derive(Clone, PartialEq, Eq)]
pub struct RawJson(Arc<str>);

impl RawJson {
    /// The value.
    pub fn value(&self) -> Value {
        // The text was written from a value, so parsing it does not fail.
        serde_json::from_str(&self.0).unwrap_or_default()
    }

    /// The text.
    pub fn text(&self) -> &str {
        &self.0
    }
}

impl From<&Value> for RawJson {
    fn from(value: &Value) -> Self {
        Self(value.to_string().into())
    }
}

impl Default for RawJson {
    fn default() -> Self {
        Self::from(&Value::Null)
    }
}

impl fmt::Debug for RawJson {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl Serialize for RawJson {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.value().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for RawJson {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Value::deserialize(deserializer).map(|value| Self::from(&value))
    }
}

impl JsonSchema for RawJson {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "AnyValue".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!(true)
    }

    fn inline_schema() -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn it_is_written_as_a_tree_would_be() {
        for text in [r#"{"b":1,"a":[{"d":null,"c":"ü\n"},1.50,-3,true]}"#, "null", "18446744073709551615"] {
            let (raw, tree): (RawJson, Value) =
                (serde_json::from_str(text).unwrap(), serde_json::from_str(text).unwrap());
            assert_eq!(serde_json::to_vec(&raw).unwrap(), serde_json::to_vec(&tree).unwrap());
            assert_eq!(raw.value(), tree);
        }
    }

    #[test]
    fn the_order_of_keys_makes_no_difference() {
        let read = |text| serde_json::from_str::<RawJson>(text).unwrap();
        assert_eq!(read(r#"{"a": 1, "b": 2}"#), read(r#"{"b":2,"a":1}"#));
        assert_ne!(read(r#"{"a": 1}"#), read(r#"{"a": 2}"#));
        assert_eq!(RawJson::from(&json!({"a": 1})).text(), r#"{"a":1}"#);
    }
}
