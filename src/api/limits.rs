//! How large an object may be. One object costs a bounded amount of time and memory, whoever wrote it: docs/security.md, "One object
//! never stops the operator".
//!
//! What counts is what its user wrote: all of the object as JSON, without `metadata.managedFields`, without the annotation in which
//! `kubectl apply` keeps its last configuration, and without `status`, which has limits of its own.

use serde_json::Value;

/// The most bytes of JSON that a user may write in one object.
pub const OBJECT_BYTES: usize = 256 * 1024;

/// The most values of JSON in them: maps, lists, texts, numbers and truths. A small map takes eight bytes in the API server and some
/// six hundred in memory, so that bytes alone say little.
pub const OBJECT_VALUES: usize = 16_000;

/// How deep the maps and lists of an object may be nested. The API server takes 10,000 levels, a Pod needs some 20.
pub const OBJECT_DEPTH: usize = 100;

/// The most bytes, and values, of a `status`: it holds all that a configuration file adds, and what is said of it besides.
pub const STATUS_BYTES: usize = 2 * OBJECT_BYTES;
/// See [`STATUS_BYTES`].
pub const STATUS_VALUES: usize = 2 * OBJECT_VALUES;

/// The most bytes of `sandboxDefaults`, which are laid under each of up to 32 types.
pub const DEFAULTS_BYTES: usize = 64 * 1024;

/// The most bytes, and values, that a configuration file may add to a session.
pub const CONFIGURATION_BYTES: usize = OBJECT_BYTES;
/// See [`CONFIGURATION_BYTES`].
pub const CONFIGURATION_VALUES: usize = OBJECT_VALUES;

/// The most bytes, and values, of the template that is made of a type, its defaults and its profile. A Sandbox holds it, whose labels
/// and owners need room as well.
pub const TEMPLATE_BYTES: usize = OBJECT_BYTES - 8 * 1024;
/// See [`TEMPLATE_BYTES`].
pub const TEMPLATE_VALUES: usize = OBJECT_VALUES - 500;

/// How many values a tree of JSON has, itself included.
#[must_use]
pub fn values(tree: &Value) -> usize {
    match tree {
        Value::Object(fields) => 1 + fields.values().map(values).sum::<usize>(),
        Value::Array(entries) => 1 + entries.iter().map(values).sum::<usize>(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 1,
    }
}
