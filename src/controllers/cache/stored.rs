//! Cached objects. They are cached as JSON text, since the Rust types of Kubernetes take much memory even if most fields are empty: a
//! Pod takes 6 KB as an object and less than 1 KB as text. Objects in use are also kept parsed for a while.

use std::{
    borrow::Cow,
    fmt,
    sync::{Arc, Mutex, Weak},
};

use kube::{
    Resource,
    api::ObjectMeta,
    runtime::reflector::{ObjectRef, Store},
};

use super::text::Text;
use crate::{
    controllers::memo::Memo,
    plan::{ChildState, Lookup, ownership},
    reading::{Kept, Read, Unreadable},
};

/// A cached object, or why it cannot be read.
pub enum Stored<K> {
    /// The object was read.
    Text(Arc<Packed<K>>),
    /// The object cannot be read. Its last readable version is kept to find the objects that a change affects; no reconcile uses it.
    Unreadable(Arc<Unreadable>, Option<Arc<Packed<K>>>),
}

/// An object as text, and the metadata by which it is found.
pub struct Packed<K> {
    metadata: ObjectMeta,
    text: Text,
    values: usize,
    phase: &'static str,
    /// The parsed object, for as long as it is in use: concurrent reconciles share it.
    object: Mutex<Weak<K>>,
}

impl<K: Kept> Stored<K> {
    /// Packs an object that was read. Returns the entry for the cache and the object.
    pub(in crate::controllers) fn packed(Read { object, text, values }: Read<K>) -> (Self, Arc<K>) {
        let ObjectMeta { name, namespace, uid, resource_version, .. } = object.meta();
        let metadata = ObjectMeta {
            name: name.clone(),
            namespace: namespace.clone(),
            uid: uid.clone(),
            resource_version: resource_version.clone(),
            ..ObjectMeta::default()
        };
        let packed = Packed { metadata, text: Text::of(text), values, phase: object.phase(), object: Mutex::default() };
        (Self::Text(Arc::new(packed)), Arc::new(object))
    }

    /// The last readable version.
    pub(super) fn last(&self) -> Option<&Arc<Packed<K>>> {
        match self {
            Stored::Text(packed) => Some(packed),
            Stored::Unreadable(_, last) => last.as_ref(),
        }
    }

    /// How many bytes of its text are cached.
    pub(super) fn bytes(&self) -> usize {
        self.last().map_or(0, |packed| packed.text.bytes())
    }

    /// The phase of the object; `None` if the object cannot be read.
    pub fn phase(&self) -> Option<&'static str> {
        match self {
            Stored::Text(packed) => Some(packed.phase),
            Stored::Unreadable(..) => None,
        }
    }

    /// Why the object cannot be read; `None` if it can.
    pub fn unreadable(&self) -> Option<&Arc<Unreadable>> {
        match self {
            Stored::Text(_) => None,
            Stored::Unreadable(unreadable, _) => Some(unreadable),
        }
    }
}

impl<K> Clone for Stored<K> {
    fn clone(&self) -> Self {
        match self {
            Stored::Text(packed) => Stored::Text(packed.clone()),
            Stored::Unreadable(unreadable, last) => Stored::Unreadable(unreadable.clone(), last.clone()),
        }
    }
}

impl<K> fmt::Debug for Stored<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Stored::Text(packed) => write!(f, "{:?}", packed.metadata.name),
            Stored::Unreadable(unreadable, _) => unreadable.fmt(f),
        }
    }
}

impl<K: Kept> Resource for Stored<K> {
    type DynamicType = ();
    type Scope = K::Scope;

    fn kind((): &()) -> Cow<'_, str> {
        K::kind(&())
    }

    fn group((): &()) -> Cow<'_, str> {
        K::group(&())
    }

    fn version((): &()) -> Cow<'_, str> {
        K::version(&())
    }

    fn plural((): &()) -> Cow<'_, str> {
        K::plural(&())
    }

    fn meta(&self) -> &ObjectMeta {
        match self {
            Stored::Text(packed) => &packed.metadata,
            Stored::Unreadable(unreadable, _) => &unreadable.metadata,
        }
    }

    #[expect(clippy::unimplemented, reason = "what is kept is never changed; the runtime only reads")]
    fn meta_mut(&mut self) -> &mut ObjectMeta {
        unimplemented!("a cached object is replaced as a whole")
    }
}

/// What the cache has under a name.
#[derive(Clone, Debug)]
pub enum Found<K> {
    /// The cache has no object of this name.
    Absent,
    /// The object.
    Object(Arc<K>),
    /// An object that cannot be read.
    Unreadable(Arc<Unreadable>),
}

impl<K> Found<K> {
    /// The object, if the cache has it and it can be read.
    pub fn object(self) -> Option<Arc<K>> {
        if let Found::Object(object) = self { Some(object) } else { None }
    }
}

impl<K: Resource<DynamicType = ()>> Found<K> {
    /// The state of this child for the object that would own it.
    pub fn child_state(self, owner: &ObjectMeta) -> ChildState<K> {
        match self {
            Found::Absent => ChildState::Absent,
            Found::Object(object) => ownership::child_state(Some(object), owner),
            Found::Unreadable(unreadable) => ChildState::Failed(unreadable.failure()),
        }
    }
}

impl<K> From<Found<K>> for Lookup<K> {
    fn from(found: Found<K>) -> Self {
        match found {
            Found::Absent => Lookup::Missing,
            Found::Object(object) => Lookup::Found(object),
            Found::Unreadable(unreadable) => Lookup::Failed(unreadable.failure()),
        }
    }
}

/// The memory for parsed objects of one kind, as estimated by [`Cache::weight`].
const OBJECTS_BYTES: u32 = 4 * 1024 * 1024;

/// The cache of all objects of a kind.
pub struct Cache<K: Kept> {
    store: Store<Stored<K>>,
    objects: Memo<String, K>,
}

impl<K: Kept> Cache<K> {
    /// A cache over this store.
    pub fn of(store: Store<Stored<K>>) -> Self {
        Self { store, objects: Memo::of(OBJECTS_BYTES) }
    }

    /// The store, which has the objects as text.
    pub fn store(&self) -> &Store<Stored<K>> {
        &self.store
    }

    /// The object of this name.
    pub fn get(&self, name: &str, namespace: &str) -> Found<K> {
        match self.store.get(&ObjectRef::new(name).within(namespace)) {
            Some(stored) => self.read(&stored),
            None => Found::Absent,
        }
    }

    /// Unpacks a cached object.
    pub fn read(&self, stored: &Stored<K>) -> Found<K> {
        match stored {
            Stored::Text(packed) => self.unpack(packed).map_or(Found::Absent, Found::Object),
            Stored::Unreadable(unreadable, _) => Found::Unreadable(unreadable.clone()),
        }
    }

    /// Unpacks the last readable version of a cached object.
    pub(super) fn read_last(&self, stored: &Stored<K>) -> Option<Arc<K>> {
        self.unpack(stored.last()?)
    }

    fn unpack(&self, packed: &Packed<K>) -> Option<Arc<K>> {
        let (uid, version) = (packed.metadata.uid.as_ref(), packed.metadata.resource_version.as_ref());
        let remembered = uid.zip(version).and_then(|(uid, version)| self.objects.get(uid, version));
        let shared = || packed.object.lock().ok()?.upgrade();
        remembered.or_else(shared).or_else(|| {
            // The text was readable when it was packed.
            let object = Arc::new(serde_json::from_str::<K>(&packed.text.read()?).ok()?);
            self.remember(&object, packed);
            Some(object)
        })
    }

    /// Keeps an object that was just parsed: it will be needed again soon.
    pub(super) fn keep(&self, object: &Arc<K>, stored: &Stored<K>) {
        if let Stored::Text(packed) = stored {
            self.remember(object, packed);
        }
    }

    /// Forgets an object that is gone.
    pub(super) fn forget(&self, stored: &Stored<K>) {
        self.objects.forget(stored.meta().uid.as_deref().unwrap_or_default());
    }

    fn remember(&self, object: &Arc<K>, packed: &Packed<K>) {
        if let Ok(mut shared) = packed.object.lock() {
            *shared = Arc::downgrade(object);
        }
        if let (Some(uid), Some(version)) = (&packed.metadata.uid, &packed.metadata.resource_version) {
            self.objects.put(uid, version.clone(), object.clone(), Self::weight(packed));
        }
    }

    /// The estimated bytes that the parsed object takes in memory.
    fn weight(packed: &Packed<K>) -> usize {
        1024 + packed.text.bytes() + 128 * packed.values
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::Pod;
    use kube::runtime::{reflector, watcher::Event};
    use serde_json::json;

    use super::*;
    use crate::reading;

    fn read(object: &serde_json::Value) -> Read<Pod> {
        reading::read(object.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn what_is_read_again_is_what_was_kept() {
        let object = json!({
            "apiVersion": "v1", "kind": "Pod",
            "metadata": {"name": "a", "namespace": "n", "uid": "u", "resourceVersion": "7", "annotations": {"aigise.dev/k": "v"}},
            "spec": {"nodeName": "node-1", "containers": [{"name": "c", "image": "a:1"}]},
            "status": {"phase": "Running", "podIP": "10.0.0.1"},
        });
        let (store, mut writer) = reflector::store();
        let cache = Cache::of(store);
        let (stored, object) = Stored::packed(read(&object));
        writer.apply_watcher_event(&Event::Apply(stored));
        for _ in 0..2 {
            assert_eq!(cache.get("a", "n").object().unwrap(), object);
        }
        assert!(matches!(cache.get("b", "n"), Found::Absent));
    }

    #[test]
    fn a_newer_version_is_not_taken_for_the_one_that_is_remembered() {
        let (store, mut writer) = reflector::store();
        let cache = Cache::of(store);
        for (version, phase) in [("1", "Pending"), ("2", "Running")] {
            let metadata = json!({"name": "a", "namespace": "n", "uid": "u", "resourceVersion": version});
            let kept = read(&json!({"metadata": metadata, "status": {"phase": phase}}));
            writer.apply_watcher_event(&Event::Apply(Stored::packed(kept).0));
            let found = cache.get("a", "n").object().unwrap();
            assert_eq!(found.status.as_ref().unwrap().phase.as_deref(), Some(phase));
        }
    }
}
