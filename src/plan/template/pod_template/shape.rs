//! Parses JSON as a Kubernetes type, without losing any field.

use std::collections::BTreeSet;

use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::overlay;

/// Parses an overlay: required fields may come from the object beneath it.
pub(super) fn read_part<T: DeserializeOwned + Serialize>(value: &Value) -> Result<T, String> {
    read(value).map(|(read, _)| read)
}

/// Parses a complete object: required fields must be present.
pub(super) fn read_whole<T: DeserializeOwned + Serialize>(value: &Value) -> Result<T, String> {
    let (read, understood) = read(value)?;
    match first_absent(&understood, value) {
        Some(path) => Err(format!("{path}: the field is required.")),
        None => Ok(read),
    }
}

/// The parsed object, and its JSON form.
fn read<T: DeserializeOwned + Serialize>(value: &Value) -> Result<(T, Value), String> {
    let read: T = serde_path_to_error::deserialize(value).map_err(|error| match error.path().to_string().as_str() {
        "." => format!(": {}.", error.inner()),
        path => format!(".{path}: {}.", error.inner()),
    })?;
    let understood = serde_json::to_value(&read).map_err(|error| format!(": {error}."))?;
    match first_absent(value, &understood) {
        Some(path) => Err(format!("{path}: this operator does not know this field of a Pod; check the spelling.")),
        None => Ok((read, understood)),
    }
}

/// The first path in a tree that another tree does not have. Values are not compared: a quantity may be written as a number.
fn first_absent(tree: &Value, other: &Value) -> Option<String> {
    match (tree, other) {
        (Value::Object(tree), Value::Object(other)) => {
            tree.iter().filter(|(_, value)| !value.is_null()).find_map(|(key, value)| {
                let below = other.get(key).map_or(Some(String::new()), |other| first_absent(value, other))?;
                Some(if key.contains(['.', '/']) { format!("[{key}]{below}") } else { format!(".{key}{below}") })
            })
        }
        (Value::Array(tree), Value::Array(other)) => tree.iter().enumerate().find_map(|(position, value)| {
            let below = other.get(position).map_or(Some(String::new()), |other| first_absent(value, other))?;
            Some(format!("[{position}]{below}"))
        }),
        (Value::Object(_) | Value::Array(_), _) => Some(String::new()),
        (Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_), _) => None,
    }
}

/// Checks that the entries of lists that merge by a key have this key, each with a different value.
pub(super) fn check_names(value: &Value) -> Result<(), String> {
    match value {
        Value::Object(fields) => fields.iter().try_for_each(|(field, value)| {
            check_list(value, field).and_then(|()| check_names(value)).map_err(|message| format!(".{field}{message}"))
        }),
        Value::Array(entries) => entries
            .iter()
            .enumerate()
            .try_for_each(|(position, entry)| check_names(entry).map_err(|message| format!("[{position}]{message}"))),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Ok(()),
    }
}

fn check_list(value: &Value, field: &str) -> Result<(), String> {
    let (Some(key), Some(entries)) = (overlay::key(field), value.as_array()) else { return Ok(()) };
    let mut names = BTreeSet::new();
    for (position, entry) in entries.iter().enumerate() {
        let name = entry.get(key).and_then(Value::as_str).unwrap_or_default();
        if name.is_empty() {
            return Err(format!("[{position}]: the entry has no `{key}`, by which entries are merged."));
        }
        // If a variable occurs several times, Kubernetes uses the last one.
        if !names.insert(name) && field != "env" {
            return Err(format!("[{position}]: another entry has the {key} `{name}` as well; merge the two."));
        }
    }
    Ok(())
}
