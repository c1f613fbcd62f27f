//! Parses JSON as a Kubernetes type, without losing any field.

use std::collections::BTreeSet;

use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{
    overlay,
    plan::{Below, Invalid},
};

/// Parses an overlay: required fields may come from the object beneath it.
pub(super) fn read_part<T: DeserializeOwned + Serialize>(value: &Value) -> Result<T, Invalid> {
    read(value).map(|(read, _)| read)
}

/// Parses a complete object: required fields must be present.
pub(super) fn read_whole<T: DeserializeOwned + Serialize>(value: &Value) -> Result<T, Invalid> {
    let (read, understood) = read(value)?;
    check_present(&understood, value, "the field is required.")?;
    Ok(read)
}

/// The parsed object, and its JSON form.
fn read<T: DeserializeOwned + Serialize>(value: &Value) -> Result<(T, Value), Invalid> {
    let read: T = serde_path_to_error::deserialize(value).map_err(|error| match error.path().to_string().as_str() {
        "." => Invalid::whole(format!("{}.", error.inner())),
        path => Invalid::new(path, format!("{}.", error.inner())),
    })?;
    let understood = serde_json::to_value(&read)?;
    check_present(value, &understood, "this operator does not know this field of a Pod; check the spelling.")?;
    Ok((read, understood))
}

/// Checks that another tree has all paths of a tree. Values are not compared: a quantity may be written as a number.
fn check_present(tree: &Value, other: &Value, why: &str) -> Result<(), Invalid> {
    let absent = || Err(Invalid::whole(why));
    let check = |value, other: Option<&Value>| other.map_or_else(absent, |other| check_present(value, other, why));
    match (tree, other) {
        (Value::Object(tree), Value::Object(other)) => {
            tree.iter().filter(|(_, value)| !value.is_null()).try_for_each(|(key, value)| {
                let found = check(value, other.get(key));
                if key.contains(['.', '/']) { found.at(key) } else { found.below(key) }
            })
        }
        (Value::Array(tree), Value::Array(other)) => {
            let mut entries = tree.iter().enumerate();
            entries.try_for_each(|(position, value)| check(value, other.get(position)).at(position))
        }
        (Value::Object(_) | Value::Array(_), _) => absent(),
        (Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_), _) => Ok(()),
    }
}

/// Checks that the entries of lists that merge by a key have this key, each with a different value.
pub(super) fn check_names(value: &Value) -> Result<(), Invalid> {
    match value {
        Value::Object(fields) => fields
            .iter()
            .try_for_each(|(field, value)| check_list(value, field).and_then(|()| check_names(value)).below(field)),
        Value::Array(entries) => {
            entries.iter().enumerate().try_for_each(|(position, entry)| check_names(entry).at(position))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => Ok(()),
    }
}

fn check_list(value: &Value, field: &str) -> Result<(), Invalid> {
    let (Some(key), Some(entries)) = (overlay::key(field), value.as_array()) else { return Ok(()) };
    let mut names = BTreeSet::new();
    for (position, entry) in entries.iter().enumerate() {
        let name = entry.get(key).and_then(Value::as_str).unwrap_or_default();
        if name.is_empty() {
            let why = format!("the entry has no `{key}`, by which entries are merged.");
            return Err(Invalid::whole(why).at(position));
        }
        // If a variable occurs several times, Kubernetes uses the last one.
        if !names.insert(name) && field != "env" {
            let why = format!("another entry has the {key} `{name}` as well; merge the two.");
            return Err(Invalid::whole(why).at(position));
        }
    }
    Ok(())
}
