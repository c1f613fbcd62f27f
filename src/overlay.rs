//! Merges one JSON tree over another, without client and clock. A pod template is merged over the Pod that the operator built, and
//! a session's `sandboxDefaults` are merged under the template of each type.
//!
//! | what | rule |
//! |---|---|
//! | maps | merge deeply |
//! | `containers`, `initContainers`, `imagePullSecrets` | merge by `name` |
//! | `volumeMounts` | merge by `mountPath` |
//! | `env`, `volumes` | merge by `name`; the overlay's variable or volume replaces the base's as a whole |
//! | `requiredDuring…`, `preferredDuring…` of an affinity | terms are appended |
//! | `nodeSelectorTerms` | a node has to satisfy both sides |
//! | other lists | the overlay's replaces the base's |
//! | fields that exclude each other | the overlay's field removes the base's |
//! | `null` | counts as absent: the base is kept |
//!
//! Entries of the base keep their order, new entries come last. Any two trees can be merged: a value of an unexpected shape is kept
//! as it is, and the code that knows the shape reports it.
//!
//! Decided in docs/adr/0013-by-hand-although-a-library-is-near.md.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value};

/// The maximum number of `nodeSelectorTerms` that result from two lists. Both lists have to hold, so the result would have as many
/// terms as the product of both. Leaving terms out makes the selector stricter, never more permissive. A pod template that has more
/// terms itself is refused.
pub const MAX_NODE_TERMS: usize = 16;

/// How the entries of a list are merged.
enum ListRule {
    /// Entries with the same value of this field are merged.
    ByKey(&'static str),
    /// New entries are appended.
    Append,
    /// The entries are alternatives; both sides have to hold.
    Both,
    /// The overlay's entries replace the base's.
    Replace,
}

fn list_rule(field: &str) -> ListRule {
    match field {
        "requiredDuringSchedulingIgnoredDuringExecution" | "preferredDuringSchedulingIgnoredDuringExecution" => {
            ListRule::Append
        }
        "nodeSelectorTerms" => ListRule::Both,
        _ => key(field).map_or(ListRule::Replace, ListRule::ByKey),
    }
}

/// The field that identifies the entries of a list, if its entries are merged.
pub fn key(list: &str) -> Option<&'static str> {
    match list {
        "containers" | "initContainers" | "imagePullSecrets" | "env" | "volumes" => Some("name"),
        "volumeMounts" => Some("mountPath"),
        _ => None,
    }
}

/// Objects that are replaced as a whole: a mixture of base and overlay would say something that neither of them says, such as the
/// `localhostProfile` of one with the `type` of the other. For `env` and `volumes`, this applies to the entries.
fn is_one_statement(field: &str) -> bool {
    matches!(field, "env" | "volumes" | "seccompProfile" | "appArmorProfile" | "postStart" | "preStop")
}

/// The fields of an object that exclude each other.
fn rivals(field: &str) -> &'static [&'static str] {
    match field {
        "livenessProbe" | "readinessProbe" | "startupProbe" => &["exec", "grpc", "httpGet", "tcpSocket"],
        // The template of a sandbox.
        "" => &["command", "entrypoint"],
        _ => &[],
    }
}

/// Merges `overlay` over `base`, by the rules above.
pub fn merge(base: &mut Value, overlay: &Value) {
    merge_field(base, overlay, "");
}

fn merge_field(base: &mut Value, overlay: &Value, field: &str) {
    match overlay {
        Value::Null => {}
        Value::Object(overlay) => {
            if !base.is_object() || is_one_statement(field) {
                *base = Value::Object(Map::new());
            }
            if let Value::Object(base) = base {
                merge_object(base, overlay, field);
            }
        }
        Value::Array(overlay) => {
            if !base.is_array() {
                *base = Value::Array(vec![]);
            }
            if let Value::Array(base) = base {
                merge_list(base, overlay, field);
            }
        }
        Value::Bool(_) | Value::Number(_) | Value::String(_) => *base = overlay.clone(),
    }
}

fn merge_object(base: &mut Map<String, Value>, overlay: &Map<String, Value>, field: &str) {
    let says = |key: &str| overlay.get(key).is_some_and(|value| !value.is_null());
    let rivals = rivals(field);
    if rivals.iter().any(|rival| says(rival)) {
        base.retain(|key, _| !rivals.contains(&key.as_str()) || says(key));
    }
    for (key, value) in overlay.iter().filter(|(_, value)| !value.is_null()) {
        merge_field(base.entry(key).or_insert(Value::Null), value, key);
    }
}

fn merge_list(base: &mut Vec<Value>, overlay: &[Value], field: &str) {
    match list_rule(field) {
        ListRule::ByKey(key) => merge_by_key(base, overlay, field, key),
        ListRule::Append => append(base, overlay, field),
        ListRule::Both => both(base, overlay, field),
        ListRule::Replace => *base = overlay.iter().map(|entry| fresh(entry, field)).collect(),
    }
}

/// The result of merging a value over nothing.
fn fresh(value: &Value, field: &str) -> Value {
    let mut base = Value::Null;
    merge_field(&mut base, value, field);
    base
}

fn merge_by_key(base: &mut Vec<Value>, overlay: &[Value], field: &str, key: &str) {
    let key_of = |entry: &Value| entry.get(key).and_then(Value::as_str).map(ToString::to_string);
    // Kubernetes uses the last of several variables with one name, so that is the one to change.
    let positions = base.iter().enumerate().filter_map(|(position, entry)| Some((key_of(entry)?, position)));
    let mut positions: BTreeMap<String, usize> = positions.collect();
    let mut nameless = vec![];
    for entry in overlay {
        let Some(name) = key_of(entry) else {
            nameless.push(entry.clone());
            continue;
        };
        if let Some(present) = positions.get(&name).and_then(|position| base.get_mut(*position)) {
            merge_field(present, entry, field);
            continue;
        }
        // Variables with one name may build on each other, so all of them are kept.
        if !is_one_statement(field) {
            positions.insert(name, base.len());
        }
        base.push(fresh(entry, field));
    }
    append(base, &nameless, field);
}

/// Appends the entries that are not there yet, so merging the same overlay twice changes nothing.
fn append(base: &mut Vec<Value>, overlay: &[Value], field: &str) {
    let mut present: BTreeSet<String> = base.iter().map(Value::to_string).collect();
    for entry in overlay.iter().map(|entry| fresh(entry, field)) {
        if present.insert(entry.to_string()) {
            base.push(entry);
        }
    }
}

/// Combines the terms of a node selector, which are alternatives. Appending them would allow nodes that the base rules out; so each
/// term of the base is narrowed by each term of the overlay, and a node that fits satisfies a term of each side.
fn both(base: &mut Vec<Value>, overlay: &[Value], field: &str) {
    let overlay: Vec<Value> = overlay.iter().map(|term| fresh(term, field)).collect();
    if base.is_empty() {
        *base = overlay;
        return;
    }
    if overlay.is_empty() || *base == overlay {
        return;
    }
    if !base.iter().chain(&overlay).all(Value::is_object) {
        append(base, &overlay, field);
        return;
    }
    // A term without expressions fits no node.
    let said = |term| Some((term, expressions(term))).filter(|(_, expressions)| !expressions.is_empty());
    let present: Vec<_> = base.iter().filter_map(said).collect();
    let wanted: Vec<_> = overlay.iter().take(MAX_NODE_TERMS).filter_map(said).collect();
    if present.iter().all(|(_, present)| wanted.iter().any(|(_, wanted)| wanted.is_subset(present))) {
        return;
    }
    let mut narrowed = vec![];
    for (term, _) in present {
        for (other, _) in &wanted {
            if narrowed.len() < MAX_NODE_TERMS {
                append(&mut narrowed, &[narrow(term, other)], field);
            }
        }
    }
    if narrowed.is_empty() {
        narrowed.push(Value::Object(Map::new()));
    }
    *base = narrowed;
}

/// The expressions of a term; a node has to satisfy all of them.
fn expressions(term: &Value) -> BTreeSet<(&str, String)> {
    let fields = term.as_object().into_iter().flatten();
    let lists = fields.filter_map(|(field, list)| Some((field.as_str(), list.as_array()?)));
    lists.flat_map(|(field, list)| list.iter().map(move |expression| (field, expression.to_string()))).collect()
}

fn narrow(term: &Value, other: &Value) -> Value {
    let mut narrowed = term.clone();
    if let (Value::Object(narrowed), Value::Object(other)) = (&mut narrowed, other) {
        for (field, list) in other {
            let Value::Array(list) = list else { continue };
            let present = narrowed.entry(field).or_insert_with(|| Value::Array(vec![]));
            if let Value::Array(present) = present {
                append(present, list, field);
            }
        }
    }
    narrowed
}

#[cfg(test)]
mod tests;
