//! The objects, and everything that ever happened to them: what watches report, and what a read from an older version sees.

use std::{collections::BTreeMap, sync::Arc};

use serde_json::{Value, json};

use super::fields::Manager;

/// Where an object is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    pub plural: &'static str,
    pub namespace: String,
    pub name: String,
}

/// An object, and who owns which of its fields.
#[derive(Clone, Debug)]
pub struct Stored {
    pub object: Arc<Value>,
    pub managers: Vec<Manager>,
    /// Whether defaults are shown that are not written down yet: the next write does that, also where it changes nothing.
    pub is_bare: bool,
}

/// An object was made, changed or deleted.
#[derive(Clone, Debug)]
pub struct Change {
    pub version: u64,
    pub key: Key,
    pub before: Option<Arc<Value>>,
    /// Also of a deleted object, as it last was.
    pub after: Arc<Value>,
    pub is_deleted: bool,
}

/// All objects.
#[derive(Default)]
pub struct Store {
    objects: BTreeMap<Key, Stored>,
    log: Vec<Change>,
    /// What is older than this cannot be watched or listed any more.
    pub compacted: u64,
    version: u64,
    births: u64,
}

impl Store {
    pub fn version(&self) -> u64 {
        self.version
    }

    pub fn get(&self, key: &Key) -> Option<&Stored> {
        self.objects.get(key)
    }

    pub fn all(&self) -> impl Iterator<Item = (&Key, &Stored)> {
        self.objects.iter()
    }

    /// All changes after a version.
    pub fn changes_after(&self, version: u64) -> &[Change] {
        let from = self.log.partition_point(|change| change.version <= version);
        &self.log[from..]
    }

    /// The objects of a kind as they were at a version.
    pub fn at(&self, version: u64, plural: &str, namespace: Option<&str>) -> Vec<Arc<Value>> {
        let is_asked = |key: &Key| key.plural == plural && namespace.is_none_or(|namespace| key.namespace == namespace);
        if version >= self.version {
            let found = self.objects.iter().filter(|(key, _)| is_asked(key));
            return found.map(|(_, stored)| stored.object.clone()).collect();
        }
        let mut found = BTreeMap::new();
        for change in
            self.log.iter().take_while(|change| change.version <= version).filter(|change| is_asked(&change.key))
        {
            if change.is_deleted {
                found.remove(&change.key);
            } else {
                found.insert(change.key.clone(), change.after.clone());
            }
        }
        found.into_values().collect()
    }

    /// A new UID, and a suffix for a generated name.
    pub fn birth(&mut self) -> String {
        self.births += 1;
        format!("{:08x}-0000-4000-8000-{:012x}", self.births, self.births)
    }

    /// Keeps an object under a new version.
    pub fn put(&mut self, key: Key, mut object: Value, managers: Vec<Manager>) -> Arc<Value> {
        self.version += 1;
        object["metadata"]["resourceVersion"] = json!(self.version.to_string());
        let object = Arc::new(object);
        let stored = Stored { object: object.clone(), managers, is_bare: false };
        let before = self.objects.insert(key.clone(), stored).map(|stored| stored.object);
        self.log.push(Change { version: self.version, key, before, after: object.clone(), is_deleted: false });
        object
    }

    /// Keeps an object that another server stored, under the version that it had there. Those of lower versions come first.
    pub fn put_stored(&mut self, key: Key, object: Value) -> Arc<Value> {
        let version = text(&object, "/metadata/resourceVersion").parse().unwrap_or_default();
        self.version = self.version.max(u64::saturating_sub(version, 1));
        self.put(key, object, vec![])
    }

    /// Keeps a new object whose default status is not written down.
    pub fn put_bare(&mut self, key: Key, object: Value, managers: Vec<Manager>) -> Arc<Value> {
        let kept = self.put(key.clone(), object, managers);
        if let Some(stored) = self.objects.get_mut(&key) {
            stored.is_bare = true;
        }
        kept
    }

    /// Forgets an object.
    pub fn remove(&mut self, key: &Key) -> Option<Arc<Value>> {
        let before = self.objects.remove(key)?.object;
        self.version += 1;
        let mut last = Value::clone(&before);
        last["metadata"]["resourceVersion"] = json!(self.version.to_string());
        let after = Arc::new(last);
        let key = key.clone();
        self.log.push(Change {
            version: self.version,
            key,
            before: Some(before),
            after: after.clone(),
            is_deleted: true,
        });
        Some(after)
    }
}

/// The text at a JSON pointer; empty where there is none.
pub fn text<'a>(object: &'a Value, pointer: &str) -> &'a str {
    object.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

pub fn is_deleting(object: &Value) -> bool {
    object["metadata"]["deletionTimestamp"].is_string()
}
