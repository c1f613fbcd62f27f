//! Makes reconciles read their own writes. A status that was just written arrives through the watch a little later. A reconcile in
//! between would compare with the old status and write the new status again.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use kube::{ResourceExt, runtime::reflector::ObjectRef};

use super::cache::{Cache, Found, Stored};
use crate::reading::Kept;

/// The last version of each object that a write returned, for as long as the cache has an older version.
#[derive(Debug)]
pub struct ReadYourWrites<K>(Mutex<HashMap<String, Arc<K>>>);

impl<K> Default for ReadYourWrites<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Kept> ReadYourWrites<K> {
    /// Records an object that a write returned, unless the cache already has this version or the object is gone.
    pub fn record(&self, object: K, cache: &Cache<K>) {
        let (Some(uid), Ok(mut written)) = (object.uid(), self.0.lock()) else { return };
        let cached =
            cache.store().get(&ObjectRef::new(&object.name_any()).within(&object.namespace().unwrap_or_default()));
        // This happens under the lock: an event that is not in the cache yet reaches `observe` afterwards.
        if cached.is_some_and(|cached| cached.uid().as_ref() == Some(&uid) && version(&*cached) < version(&object)) {
            written.insert(uid, Arc::new(object));
        }
    }

    /// Observes an object from the watch: a recorded write that is not newer is forgotten.
    pub fn observe(&self, object: &K, gone: bool) {
        if let (Some(uid), Ok(mut written)) = (object.uid(), self.0.lock())
            && written.get(&uid).is_some_and(|ours| gone || version(ours.as_ref()) <= version(object))
        {
            written.remove(&uid);
        }
    }

    /// The latest known version of an object. `handed` was read before the reconcile began, so the cache is read again. It is read after
    /// the recorded write, since a write is forgotten only once the cache has it.
    pub fn latest(&self, handed: &Stored<K>, cache: &Cache<K>) -> Found<K> {
        let ours = handed.uid().and_then(|uid| self.0.lock().ok()?.get(&uid).cloned());
        newer(ours, cache.get(&handed.name_any(), &handed.namespace().unwrap_or_default()))
    }

    /// The object that was found, or a newer version that was written since.
    pub fn latest_of(&self, found: Found<K>) -> Found<K> {
        let uid = if let Found::Object(object) = &found { object.uid() } else { None };
        newer(uid.and_then(|uid| self.0.lock().ok()?.get(&uid).cloned()), found)
    }
}

fn newer<K: Kept>(ours: Option<Arc<K>>, found: Found<K>) -> Found<K> {
    match (ours, found) {
        (Some(ours), Found::Object(cached)) if ours.uid() == cached.uid() && version(&*ours) > version(&*cached) => {
            Found::Object(ours)
        }
        (_, found) => found,
    }
}

/// Resource versions of one kind can be compared as numbers. A version that is not a number is never newer.
fn version(object: &impl ResourceExt) -> Option<u64> {
    object.resource_version()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use kube::runtime::{reflector, watcher::Event};
    use serde_json::json;

    use super::*;
    use crate::{
        api::Sandbox,
        reading::{Read, read},
    };

    fn sandbox(version: &str) -> Read<Sandbox> {
        let metadata = json!({"name": "demo", "uid": "u", "resourceVersion": version});
        read(json!({"metadata": metadata, "spec": {"type": "main"}}).to_string().as_bytes()).unwrap()
    }

    #[test]
    fn what_was_written_is_read_until_the_watch_has_caught_up() {
        let (store, mut writer) = reflector::store();
        let cache = Cache::of(store);
        let written = ReadYourWrites::default();
        let mut observe = |version| {
            writer.apply_watcher_event(&Event::Apply(Stored::packed(sandbox(version)).0));
            written.observe(&sandbox(version).object, false);
        };
        let read = || written.latest(&Stored::packed(sandbox("8")).0, &cache).object().unwrap().resource_version();
        observe("8");
        written.record(sandbox("10").object, &cache);
        assert_eq!(read().as_deref(), Some("10"));
        observe("9");
        assert_eq!(read().as_deref(), Some("10"), "an older event changes nothing");
        observe("10");
        assert_eq!(read().as_deref(), Some("10"), "the handed object is older");
        assert!(written.0.lock().unwrap().is_empty());
        observe("11");
        assert_eq!(read().as_deref(), Some("11"), "a newer version in the cache wins");
    }

    #[test]
    fn nothing_is_kept_of_an_object_that_is_gone_or_known_already() {
        let (store, mut writer) = reflector::store();
        let cache = Cache::of(store);
        let written = ReadYourWrites::default();
        written.record(sandbox("10").object, &cache);
        assert!(written.0.lock().unwrap().is_empty(), "it was deleted before the answer came");
        writer.apply_watcher_event(&Event::Apply(Stored::packed(sandbox("10")).0));
        written.record(sandbox("10").object, &cache);
        assert!(written.0.lock().unwrap().is_empty(), "the watch was faster than the answer");
        written.record(sandbox("12").object, &cache);
        written.observe(&sandbox("4").object, true);
        assert!(written.0.lock().unwrap().is_empty(), "it is gone");
    }
}
