//! Reading one's own writes. A status that was just written comes back through the watch a little later; a reconcile in between
//! would compare with the old one and write it again.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
};

use kube::{
    Resource, ResourceExt,
    runtime::reflector::{ObjectRef, Store},
};

/// The last version of each object that a write gave back, for as long as the cache has an older one.
#[derive(Debug)]
pub struct Written<K>(Mutex<HashMap<String, Arc<K>>>);

impl<K> Default for Written<K> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<K: Resource<DynamicType = ()> + Clone + 'static> Written<K> {
    /// A write gave this back. Where the watch was faster than the answer, there is nothing to remember.
    pub fn remember(&self, object: K, cache: &Store<K>) {
        let (Some(uid), Ok(mut written)) = (object.uid(), self.0.lock()) else { return };
        let cached = cache.get(&ObjectRef::from_obj(&object));
        // Under the lock: an event that is not in the cache yet comes to `seen` after this.
        if cached.is_some_and(|cached| cached.uid().as_ref() == Some(&uid) && version(&*cached) < version(&object)) {
            written.insert(uid, Arc::new(object));
        }
    }

    /// The watch told this.
    pub fn seen(&self, object: &K, gone: bool) {
        if let (Some(uid), Ok(mut written)) = (object.uid(), self.0.lock())
            && written.get(&uid).is_some_and(|ours| gone || version(ours.as_ref()) <= version(object))
        {
            written.remove(&uid);
        }
    }

    /// The object as it is known now. What the runtime hands to a reconcile was read before the reconcile was spawned, so it is
    /// read again; and after what was written, since a write is forgotten only once the cache has it.
    #[must_use]
    pub fn newest(&self, handed: Arc<K>, cache: &Store<K>) -> Arc<K> {
        let ours = handed.uid().and_then(|uid| self.0.lock().ok()?.get(&uid).cloned());
        let cached = cache.get(&ObjectRef::from_obj(&*handed)).unwrap_or(handed);
        ours.filter(|ours| ours.uid() == cached.uid() && version(&**ours) > version(&*cached)).unwrap_or(cached)
    }
}

/// Resource versions of one kind can be compared as numbers; one that is no number is never newer.
fn version(object: &impl ResourceExt) -> Option<u64> {
    object.resource_version()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use kube::{
        api::ObjectMeta,
        runtime::{reflector, watcher::Event},
    };

    use super::*;
    use crate::api::Sandbox;

    fn sandbox(version: &str) -> Sandbox {
        let metadata = ObjectMeta {
            name: Some("demo".into()),
            uid: Some("u".into()),
            resource_version: Some(version.into()),
            ..ObjectMeta::default()
        };
        Sandbox { metadata, ..Sandbox::default() }
    }

    #[test]
    fn what_was_written_is_read_until_the_watch_has_caught_up() {
        let (cache, mut writer) = reflector::store();
        let written = Written::default();
        let mut tell = |version| {
            writer.apply_watcher_event(&Event::Apply(sandbox(version)));
            written.seen(&sandbox(version), false);
        };
        let read = || written.newest(Arc::new(sandbox("8")), &cache).resource_version();
        tell("8");
        written.remember(sandbox("10"), &cache);
        assert_eq!(read().as_deref(), Some("10"));
        tell("9");
        assert_eq!(read().as_deref(), Some("10"), "an older event changes nothing");
        tell("10");
        assert_eq!(read().as_deref(), Some("10"), "what was handed over before that is old now");
        assert!(written.0.lock().unwrap().is_empty());
        tell("11");
        assert_eq!(read().as_deref(), Some("11"), "a newer one in the cache wins");
    }

    #[test]
    fn nothing_is_kept_of_an_object_that_is_gone_or_known_already() {
        let (cache, mut writer) = reflector::store();
        let written = Written::default();
        written.remember(sandbox("10"), &cache);
        assert!(written.0.lock().unwrap().is_empty(), "it was deleted before the answer came");
        writer.apply_watcher_event(&Event::Apply(sandbox("10")));
        written.remember(sandbox("10"), &cache);
        assert!(written.0.lock().unwrap().is_empty(), "the watch was faster than the answer");
        written.remember(sandbox("12"), &cache);
        written.seen(&sandbox("4"), true);
        assert!(written.0.lock().unwrap().is_empty(), "it is gone");
    }
}
