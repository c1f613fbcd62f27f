//! Size limits of an object. One object costs a bounded amount of time and memory, regardless of who wrote it: docs/security.md,
//! "One object never stops the operator".
//!
//! The limits apply to what the user wrote: the whole object as JSON, without `metadata.managedFields`, without the annotation in
//! which `kubectl apply` keeps its last configuration, and without `status`, which has its own limits.

use serde_json::Value;

/// The maximum number of bytes of JSON that a user may write in one object.
pub const OBJECT_BYTES: usize = 256 * 1024;

/// The maximum number of JSON values in one object: maps, lists, strings, numbers and booleans. A small map takes eight bytes in
/// the API server and about six hundred bytes in memory, so the number of bytes alone says little.
pub const OBJECT_VALUES: usize = 16_000;

/// The maximum nesting depth of the maps and lists of an object. The API server accepts 10,000 levels; a Pod needs about 20.
pub const OBJECT_DEPTH: usize = 100;

/// The maximum number of bytes, and of values, of a `status`. The status holds all that a configuration file adds, and what the
/// operator reports about the object.
pub const STATUS_BYTES: usize = 2 * OBJECT_BYTES;
/// See [`STATUS_BYTES`].
pub const STATUS_VALUES: usize = 2 * OBJECT_VALUES;

/// The maximum number of bytes of `sandboxDefaults`, which are merged under each of up to 32 types.
pub const DEFAULTS_BYTES: usize = 64 * 1024;

/// The maximum number of bytes, and of values, that a configuration file may add to a session.
pub const CONFIGURATION_BYTES: usize = OBJECT_BYTES;
/// See [`CONFIGURATION_BYTES`].
pub const CONFIGURATION_VALUES: usize = OBJECT_VALUES;

/// The maximum number of bytes, and of values, of the template that results from a type, its defaults and its profile. The Sandbox
/// that holds the template needs space for its labels and owner references as well.
pub const TEMPLATE_BYTES: usize = OBJECT_BYTES - 8 * 1024;
/// See [`TEMPLATE_BYTES`].
pub const TEMPLATE_VALUES: usize = OBJECT_VALUES - 500;

/// The number of values in a JSON tree, including the tree itself.
pub fn values(tree: &Value) -> usize {
    match tree {
        Value::Object(fields) => 1 + fields.values().map(values).sum::<usize>(),
        Value::Array(entries) => 1 + entries.iter().map(values).sum::<usize>(),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => 1,
    }
}
