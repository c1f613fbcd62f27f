//! Who owns which field: the sets behind `managedFields`, and what server-side apply does with them.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

use super::resource::Resource;

/// One step into an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// A field of an object.
    Field(String),
    /// An item of a list, by its keys, as JSON.
    Key(String),
    /// An item of a set, as JSON.
    Value(String),
}

/// A way into an object.
pub type Path = Vec<Step>;

/// What one manager owns, by one kind of request.
#[derive(Clone, Debug, PartialEq)]
pub struct Manager {
    pub name: String,
    pub applies: bool,
    pub subresource: Option<&'static str>,
    pub fields: BTreeSet<Path>,
}

impl Manager {
    /// As `managedFields` shows it.
    pub fn shown(&self, api_version: &str) -> Value {
        let mut fields = json!({});
        for path in &self.fields {
            let mut node = &mut fields;
            for step in path {
                let name = match step {
                    Step::Field(name) => format!("f:{name}"),
                    Step::Key(key) => format!("k:{key}"),
                    Step::Value(value) => format!("v:{value}"),
                };
                let map = node.as_object_mut().expect("a tree of objects");
                node = map.entry(name).or_insert_with(|| json!({}));
            }
            if matches!(path.last(), Some(Step::Key(_))) {
                node["."] = json!({});
            }
        }
        let mut shown = json!({
            "manager": self.name,
            "operation": if self.applies { "Apply" } else { "Update" },
            "apiVersion": api_version,
            "fieldsType": "FieldsV1",
            "fieldsV1": fields,
        });
        if let Some(subresource) = self.subresource {
            shown["subresource"] = json!(subresource);
        }
        shown
    }
}

/// How a list, or a map, is merged.
#[derive(Clone, Debug, PartialEq)]
enum Merge {
    Atomic,
    Granular,
    Set,
    Keys(Vec<String>),
}

/// How the field at a path is merged: by the schema of our kinds, by what is known of the others.
fn merge_of(resource: &Resource, path: &[Step], is_list: bool) -> Merge {
    let names: Vec<_> =
        path.iter().filter_map(|step| if let Step::Field(name) = step { Some(name.as_str()) } else { None }).collect();
    let keys = |keys: &[&str]| Merge::Keys(keys.iter().map(ToString::to_string).collect());
    if names.first() == Some(&"metadata") {
        return match names.get(1) {
            Some(&"ownerReferences") if names.len() == 2 => keys(&["uid"]),
            Some(&"finalizers") => Merge::Set,
            _ => Merge::Granular,
        };
    }
    if let Some(schema) = &resource.schema {
        let node = schema.at(names.iter().copied());
        let word = |name: &str| node.and_then(|node| node.get(name)?.as_str());
        return match (is_list, word("x-kubernetes-list-type"), word("x-kubernetes-map-type")) {
            (true, Some("map"), _) => {
                let listed = node.and_then(|node| node.get("x-kubernetes-list-map-keys")?.as_array());
                let listed = listed.into_iter().flatten().filter_map(Value::as_str);
                Merge::Keys(listed.map(ToString::to_string).collect())
            }
            (true, Some("set"), _) => Merge::Set,
            (true, ..) | (false, _, Some("atomic")) => Merge::Atomic,
            (false, ..) => Merge::Granular,
        };
    }
    match (resource.kind, names.as_slice()) {
        ("Pod" | "PersistentVolumeClaim" | "Service", ["status", "conditions"]) => keys(&["type"]),
        (
            "Pod",
            ["spec", "containers" | "initContainers" | "volumes"] | ["spec", "containers" | "initContainers", "env"],
        ) => keys(&["name"]),
        ("Pod", ["spec", "containers" | "initContainers", "volumeMounts"]) => keys(&["mountPath"]),
        ("Service", ["spec", "ports"]) => keys(&["port", "protocol"]),
        ("Service" | "PersistentVolumeClaim", ["spec", "selector"]) | ("NetworkPolicy", ["spec", "podSelector"]) => {
            Merge::Atomic
        }
        _ if is_list => Merge::Atomic,
        _ => Merge::Granular,
    }
}

fn key_of(item: &Value, keys: &[String]) -> String {
    let map: Map<_, _> = keys.iter().filter_map(|key| Some((key.clone(), item.get(key)?.clone()))).collect();
    Value::Object(map).to_string()
}

/// Every field of an object that somebody can own, with its value: scalars, lists and maps that are replaced as a whole, and
/// the items of the others.
pub fn leaves(resource: &Resource, object: &Value) -> BTreeMap<Path, Value> {
    let mut found = BTreeMap::new();
    collect(resource, object, &mut vec![], &mut found);
    found
}

/// What the server says of every object belongs to nobody.
const UNOWNED: [&str; 10] = [
    "name",
    "namespace",
    "uid",
    "resourceVersion",
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "managedFields",
    "selfLink",
];

/// The fields of a map that somebody can own.
fn owned<'a>(map: &'a Map<String, Value>, path: &[Step]) -> impl Iterator<Item = (&'a String, &'a Value)> + use<'a> {
    let skipped: &[&str] = match path {
        [] => &["apiVersion", "kind"],
        [Step::Field(parent)] if parent == "metadata" => &UNOWNED,
        _ => &[],
    };
    map.iter().filter(|(name, _)| !skipped.contains(&name.as_str()))
}

fn collect(resource: &Resource, value: &Value, path: &mut Path, found: &mut BTreeMap<Path, Value>) {
    match value {
        Value::Object(map) if !map.is_empty() && merge_of(resource, path, false) != Merge::Atomic => {
            for (name, value) in owned(map, path) {
                path.push(Step::Field(name.clone()));
                collect(resource, value, path, found);
                path.pop();
            }
        }
        Value::Array(items) => match merge_of(resource, path, true) {
            Merge::Keys(keys) => {
                for item in items {
                    path.push(Step::Key(key_of(item, &keys)));
                    found.insert(path.clone(), Value::Null); // that it is there
                    collect(resource, item, path, found);
                    path.pop();
                }
            }
            Merge::Set => {
                for item in items {
                    path.push(Step::Value(item.to_string()));
                    found.insert(path.clone(), item.clone());
                    path.pop();
                }
            }
            Merge::Atomic | Merge::Granular => _ = found.insert(path.clone(), value.clone()),
        },
        // What holds nothing that can be owned is not there.
        Value::Object(map) if path.is_empty() || (path.len() == 1 && map.is_empty()) => {}
        _ => _ = found.insert(path.clone(), value.clone()),
    }
}

/// What an apply asks for.
pub struct Apply<'a> {
    pub resource: &'a Resource,
    pub manager: &'a str,
    pub subresource: Option<&'static str>,
    pub force: bool,
    pub config: &'a Value,
}

/// A field that another manager owns and says otherwise: its owner and where it is.
pub type Conflict = (String, String);

impl Apply<'_> {
    /// The object as it is after the apply, and who owns what then; or who is in the way.
    pub fn to(&self, live: &Value, managers: &[Manager]) -> Result<(Value, Vec<Manager>), Vec<Conflict>> {
        let wanted = leaves(self.resource, self.config);
        let is_us = |manager: &Manager| {
            manager.applies && manager.name == self.manager && manager.subresource == self.subresource
        };
        let current = leaves(self.resource, live);
        let differs = |path: &Path| current.get(path) != wanted.get(path);
        let mut managers = managers.to_vec();
        let mut conflicts = vec![];
        for other in managers.iter_mut().filter(|manager| !is_us(manager)) {
            let lost: Vec<_> =
                other.fields.iter().filter(|path| wanted.contains_key(*path) && differs(path)).cloned().collect();
            for path in lost {
                other.fields.remove(&path);
                conflicts.push((other.name.clone(), shown(&path)));
            }
        }
        if !self.force && !conflicts.is_empty() {
            return Err(conflicts);
        }

        let mut merged = live.clone();
        merge(self.resource, &mut merged, self.config, &mut vec![]);
        let before = managers.iter().find(|manager| is_us(manager)).map(|manager| manager.fields.clone());
        let dropped = before.into_iter().flatten().filter(|path| !wanted.contains_key(path));
        let is_shared = |path: &Path| managers.iter().any(|manager| !is_us(manager) && manager.fields.contains(path));
        // An item goes before its inside, which goes with it.
        let mut dropped: Vec<_> = dropped.filter(|path| !is_shared(path)).collect();
        dropped.sort_by_key(Vec::len);
        for path in dropped {
            let inside = |other: &Path| other.len() > path.len() && other.starts_with(&path);
            let is_item = matches!(path.last(), Some(Step::Key(_)));
            // Somebody else says something about the item: it stays.
            if !(is_item && managers.iter().any(|manager| !is_us(manager) && manager.fields.iter().any(inside))) {
                remove(&mut merged, &path);
            }
        }
        managers.retain(|manager| !is_us(manager) && !manager.fields.is_empty());
        let fields: BTreeSet<_> = wanted.into_keys().collect();
        if !fields.is_empty() {
            let (name, subresource) = (self.manager.to_string(), self.subresource);
            managers.push(Manager { name, applies: true, subresource, fields });
        }
        managers.sort_by(|a, b| (&a.name, a.applies, a.subresource).cmp(&(&b.name, b.applies, b.subresource)));
        Ok((merged, managers))
    }
}

fn shown(path: &[Step]) -> String {
    path.iter().fold(String::new(), |text, step| match step {
        Step::Field(name) => format!("{text}.{name}"),
        Step::Key(key) => format!("{text}[{key}]"),
        Step::Value(value) => format!("{text}[{value}]"),
    })
}

fn merge(resource: &Resource, live: &mut Value, applied: &Value, path: &mut Path) {
    match (live, applied) {
        (Value::Object(live), Value::Object(applied)) if merge_of(resource, path, false) != Merge::Atomic => {
            for (name, value) in owned(applied, path) {
                path.push(Step::Field(name.clone()));
                match live.get_mut(name) {
                    Some(live) => merge(resource, live, value, path),
                    None => _ = live.insert(name.clone(), value.clone()),
                }
                path.pop();
            }
        }
        (Value::Array(live), Value::Array(applied)) => match merge_of(resource, path, true) {
            Merge::Keys(keys) => {
                for item in applied {
                    let key = key_of(item, &keys);
                    path.push(Step::Key(key.clone()));
                    match live.iter_mut().find(|live| key_of(live, &keys) == key) {
                        Some(live) => merge(resource, live, item, path),
                        None => live.push(item.clone()),
                    }
                    path.pop();
                }
            }
            Merge::Set => applied.iter().for_each(|item| {
                if !live.contains(item) {
                    live.push(item.clone());
                }
            }),
            Merge::Atomic | Merge::Granular => live.clone_from(applied),
        },
        (live, applied) => live.clone_from(applied),
    }
}

/// Takes a field out, and what is empty without it.
fn remove(value: &mut Value, path: &[Step]) {
    let Some((step, rest)) = path.split_first() else { return };
    match (value, step) {
        (Value::Object(map), Step::Field(name)) => {
            if rest.is_empty() {
                map.remove(name);
            } else if let Some(child) = map.get_mut(name) {
                remove(child, rest);
                let is_empty =
                    child.as_object().is_some_and(Map::is_empty) || child.as_array().is_some_and(Vec::is_empty);
                if is_empty {
                    map.remove(name);
                }
            }
        }
        (Value::Array(items), Step::Key(key)) => {
            let Ok(Value::Object(key)) = serde_json::from_str(key) else { return };
            let is_it = |item: &Value| key.iter().all(|(name, value)| item.get(name) == Some(value));
            if rest.is_empty() {
                items.retain(|item| !is_it(item));
            } else if let Some(item) = items.iter_mut().find(|item| is_it(item)) {
                remove(item, rest);
            }
        }
        (Value::Array(items), Step::Value(value)) => {
            let value: Value = serde_json::from_str(value).unwrap_or_default();
            items.retain(|item| *item != value);
        }
        _ => {}
    }
}

/// Who owns what after a write that was no apply: who changed a field has it.
pub fn after_update(
    resource: &Resource,
    (old, new): (&Value, &Value),
    managers: &[Manager],
    (name, subresource): (&str, Option<&'static str>),
) -> Vec<Manager> {
    let (before, after) = (leaves(resource, old), leaves(resource, new));
    let changed: BTreeSet<_> =
        after.iter().filter(|(path, value)| before.get(*path) != Some(*value)).map(|(path, _)| path.clone()).collect();
    let mut managers = managers.to_vec();
    let is_us = |manager: &Manager| !manager.applies && manager.name == name && manager.subresource == subresource;
    for manager in &mut managers {
        manager.fields.retain(|path| after.contains_key(path) && !changed.contains(path));
    }
    if !changed.is_empty() {
        match managers.iter_mut().find(|manager| is_us(manager)) {
            Some(us) => us.fields.extend(changed),
            None => managers.push(Manager { name: name.into(), applies: false, subresource, fields: changed }),
        }
    }
    managers.retain(|manager| !manager.fields.is_empty());
    managers.sort_by(|a, b| (&a.name, a.applies, a.subresource).cmp(&(&b.name, b.applies, b.subresource)));
    managers
}
