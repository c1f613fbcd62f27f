//! Fills one store from several watches, each of a different namespace.
//!
//! The store writer of the kube runtime takes each list as the complete content of the store, so the list of one namespace would drop
//! the objects of every other namespace. Here a list replaces only the objects of its own namespace. Objects that are missing from the
//! list were deleted meanwhile, and are reported as deleted.

use std::{collections::HashMap, fmt::Debug, sync::Arc};

use kube::{
    Resource, ResourceExt,
    runtime::{
        reflector::{self, ObjectRef, Store, store::Writer},
        watcher::Event,
    },
};

use super::Change;

/// Writes the events of several watches into one store.
pub(super) struct StoreWriter<K: Resource<DynamicType = ()> + Clone + 'static> {
    writer: Writer<K>,
    store: Store<K>,
    sources: Vec<Source<K>>,
    is_open: bool,
}

/// One of the watches.
struct Source<K: Resource<DynamicType = ()>> {
    /// `None`: it watches all namespaces.
    namespace: Option<String>,
    /// The objects that its running list has returned so far.
    listing: HashMap<ObjectRef<K>, K>,
    /// It has completed a list, or may not list at all.
    synced: bool,
}

impl<K: Resource<DynamicType = ()>> Source<K> {
    fn speaks_for(&self, object: &K) -> bool {
        self.namespace.is_none() || self.namespace == object.namespace()
    }
}

impl<K: Resource<DynamicType = ()> + Clone + Debug + 'static> StoreWriter<K> {
    /// An empty store with a source for each namespace; `None` stands for all namespaces.
    pub(super) fn new(namespaces: impl IntoIterator<Item = Option<String>>) -> Self {
        let (store, writer) = reflector::store();
        let source = |namespace| Source { namespace, listing: HashMap::new(), synced: false };
        Self { writer, store, sources: namespaces.into_iter().map(source).collect(), is_open: false }
    }

    /// The store for reading. It counts as filled when every source is synced.
    pub(super) fn store(&self) -> Store<K> {
        self.store.clone()
    }

    /// Applies an event of a source, and reports the changes.
    pub(super) fn update(&mut self, source: usize, event: Event<K>, dispatch: impl Fn(Change<'_, K>)) {
        match event {
            Event::Apply(ref object) => {
                let before = self.store.get(&ObjectRef::from_obj(object));
                self.writer.apply_watcher_event(&event);
                dispatch(Change { before: before.as_deref(), after: Some(object) });
            }
            Event::Delete(ref object) => {
                self.writer.apply_watcher_event(&event);
                dispatch(Change { before: Some(object), after: None });
            }
            Event::Init | Event::InitApply(_) if self.sources.len() == 1 => self.writer.apply_watcher_event(&event),
            Event::InitDone if self.sources.len() == 1 => self.swap(dispatch),
            Event::Init => self.sources[source].listing.clear(),
            Event::InitApply(object) => {
                self.sources[source].listing.insert(ObjectRef::from_obj(&object), object);
            }
            Event::InitDone => {
                self.replace(source, dispatch);
                self.mark_synced(source);
            }
        }
    }

    /// Records that a source may not list. The store counts as filled without it.
    pub(super) fn mark_forbidden(&mut self, source: usize) {
        self.mark_synced(source);
    }

    /// Replaces the content of the store by what the only source has listed. Reports every listed object and every object that is gone.
    fn swap(&mut self, dispatch: impl Fn(Change<'_, K>)) {
        let known = self.store.state().into_iter();
        let mut known: HashMap<_, Arc<K>> = known.map(|object| (ObjectRef::from_obj(&*object), object)).collect();
        self.writer.apply_watcher_event(&Event::InitDone);
        self.is_open = true;
        for object in self.store.state() {
            let before = known.remove(&ObjectRef::from_obj(&*object));
            dispatch(Change { before: before.as_deref(), after: Some(&object) });
        }
        for gone in known.values() {
            dispatch(Change { before: Some(gone), after: None });
        }
    }

    /// Replaces the source's part of the store by what the source has listed. Reports every listed object and every object that is
    /// gone.
    fn replace(&mut self, source: usize, dispatch: impl Fn(Change<'_, K>)) {
        let source = &mut self.sources[source];
        let known = self.store.state().into_iter().filter(|object| source.speaks_for(object));
        let mut known: HashMap<_, Arc<K>> = known.map(|object| (ObjectRef::from_obj(&*object), object)).collect();
        let mut listed = Vec::with_capacity(source.listing.len());
        for (reference, object) in std::mem::take(&mut source.listing) {
            self.writer.apply_watcher_event(&Event::Apply(object));
            listed.push(reference);
        }
        let changes: Vec<_> = listed.iter().map(|reference| (known.remove(reference), reference)).collect();
        for gone in known.values() {
            self.writer.apply_watcher_event(&Event::Delete(K::clone(gone)));
        }
        for (before, reference) in changes {
            let after = self.store.get(reference);
            dispatch(Change { before: before.as_deref(), after: after.as_deref() });
        }
        for gone in known.values() {
            dispatch(Change { before: Some(gone), after: None });
        }
    }

    /// Marks a source as synced, and opens the store if it was the last one. Only a complete list opens the store of the kube runtime,
    /// so the content of the store is listed to it once more.
    fn mark_synced(&mut self, source: usize) {
        self.sources[source].synced = true;
        if self.is_open || !self.sources.iter().all(|source| source.synced) {
            return;
        }
        self.is_open = true;
        self.writer.apply_watcher_event(&Event::Init);
        for object in self.store.state() {
            self.writer.apply_watcher_event(&Event::InitApply(Arc::unwrap_or_clone(object)));
        }
        self.writer.apply_watcher_event(&Event::InitDone);
    }
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;

    use futures::FutureExt;
    use k8s_openapi::api::core::v1::ConfigMap;

    use super::*;

    /// The sources of the writers below.
    const A: usize = 0;
    const B: usize = 1;

    /// `name` or `name=version`, in a namespace.
    fn object(namespace: &str, text: &str) -> ConfigMap {
        let (name, version) = text.split_once('=').unwrap_or((text, ""));
        let mut object = ConfigMap::default();
        object.metadata.name = Some(name.into());
        object.metadata.namespace = Some(namespace.into());
        object.metadata.resource_version = Some(version.into()).filter(|version: &String| !version.is_empty());
        object
    }

    fn word(object: &ConfigMap) -> String {
        let version = object.resource_version().map(|version| format!("={version}")).unwrap_or_default();
        format!("{}/{}{version}", object.namespace().unwrap(), object.name_any())
    }

    /// A writer. An update returns the reported changes: `+` created, `~` changed or listed again, `-` deleted.
    struct Watched(StoreWriter<ConfigMap>);

    impl Watched {
        fn a_and_b() -> Self {
            Self(StoreWriter::new(["a", "b"].map(|namespace| Some(namespace.to_string()))))
        }

        fn update(&mut self, source: usize, event: Event<ConfigMap>) -> Vec<String> {
            let dispatched = RefCell::new(vec![]);
            self.0.update(source, event, |change| {
                dispatched.borrow_mut().push(match (change.before, change.after) {
                    (None, Some(after)) => format!("+{}", word(after)),
                    (Some(before), Some(after)) => format!("~{} {}", word(before), word(after)),
                    (Some(before), None) => format!("-{}", word(before)),
                    (None, None) => "nothing".into(),
                });
            });
            let mut dispatched = dispatched.into_inner();
            dispatched.sort();
            dispatched
        }

        fn lists(&mut self, source: usize, names: &[&str]) -> Vec<String> {
            self.begins_to_list(source, names);
            self.update(source, Event::InitDone)
        }

        fn begins_to_list(&mut self, source: usize, names: &[&str]) {
            let namespace = self.0.sources[source].namespace.clone().unwrap();
            assert!(self.update(source, Event::Init).is_empty());
            for name in names {
                assert!(self.update(source, Event::InitApply(object(&namespace, name))).is_empty());
            }
        }

        fn cached(&self) -> Vec<String> {
            let mut words: Vec<_> = self.0.store().state().iter().map(|object| word(object)).collect();
            words.sort();
            words
        }

        fn is_open(&self) -> bool {
            self.0.store().wait_until_ready().now_or_never().is_some()
        }
    }

    #[test]
    fn a_list_of_one_namespace_leaves_the_objects_of_another_alone() {
        let mut watched = Watched::a_and_b();
        assert_eq!(watched.lists(A, &["one"]), ["+a/one"]);
        assert_eq!(watched.lists(B, &["one", "two"]), ["+b/one", "+b/two"]);
        assert_eq!(watched.cached(), ["a/one", "b/one", "b/two"]);
        watched.begins_to_list(A, &[]);
        assert_eq!(watched.cached(), ["a/one", "b/one", "b/two"], "an incomplete list changes nothing");
        assert_eq!(watched.update(A, Event::InitDone), ["-a/one"]);
        assert_eq!(watched.cached(), ["b/one", "b/two"]);
    }

    #[test]
    fn a_list_reports_what_was_made_changed_and_deleted_meanwhile() {
        let mut watched = Watched::a_and_b();
        watched.lists(B, &["one"]);
        watched.lists(A, &["changes=x", "goes", "stays"]);
        let dispatched = watched.lists(A, &["changes=y", "comes", "stays"]);
        assert_eq!(dispatched, ["+a/comes", "-a/goes", "~a/changes=x a/changes=y", "~a/stays a/stays"]);
        assert_eq!(watched.cached(), ["a/changes=y", "a/comes", "a/stays", "b/one"]);
    }

    #[test]
    fn lists_that_run_at_the_same_time_or_begin_anew_do_not_mix() {
        let mut watched = Watched::a_and_b();
        watched.lists(A, &["one"]);
        watched.lists(B, &["one"]);
        watched.begins_to_list(A, &["given-up"]);
        watched.begins_to_list(B, &["two"]);
        watched.begins_to_list(A, &["one", "three"]);
        assert_eq!(watched.update(B, Event::Apply(object("b", "late"))), ["+b/late"]);
        assert_eq!(watched.update(A, Event::InitDone), ["+a/three", "~a/one a/one"]);
        assert_eq!(watched.cached(), ["a/one", "a/three", "b/late", "b/one"]);
    }

    #[test]
    fn changes_are_reported_with_what_was_before() {
        let mut watched = Watched::a_and_b();
        watched.lists(A, &["one=x"]);
        assert_eq!(watched.update(A, Event::Apply(object("a", "one=y"))), ["~a/one=x a/one=y"]);
        assert_eq!(watched.update(B, Event::Apply(object("b", "one"))), ["+b/one"]);
        assert_eq!(watched.update(A, Event::Delete(object("a", "one=y"))), ["-a/one=y"]);
        assert_eq!(watched.cached(), ["b/one"]);
    }

    #[test]
    fn it_is_filled_when_every_namespace_has_synced_and_keeps_what_came_before() {
        let mut watched = Watched::a_and_b();
        watched.lists(A, &["one", "two"]);
        watched.update(A, Event::Delete(object("a", "two")));
        assert!(!watched.is_open());
        watched.begins_to_list(B, &["one"]);
        assert!(!watched.is_open());
        watched.update(B, Event::InitDone);
        assert!(watched.is_open());
        assert_eq!(watched.cached(), ["a/one", "b/one"]);
    }

    #[test]
    fn a_namespace_that_refuses_keeps_no_other_waiting_and_may_come_back() {
        let mut watched = Watched::a_and_b();
        watched.lists(A, &["one"]);
        watched.begins_to_list(B, &["half"]);
        watched.0.mark_forbidden(B);
        assert!(watched.is_open());
        assert_eq!(watched.cached(), ["a/one"]);
        assert_eq!(watched.lists(B, &["one"]), ["+b/one"]);
        // The cached objects of the namespace stay when a later list is forbidden: a failed read does not mean that they are gone.
        watched.0.mark_forbidden(B);
        assert_eq!(watched.cached(), ["a/one", "b/one"]);
    }

    #[test]
    fn a_watch_of_all_namespaces_speaks_for_all() {
        let mut watched = Watched(StoreWriter::new([None]));
        let list = |watched: &mut Watched, objects: &[(&str, &str)]| {
            watched.update(0, Event::Init);
            for (namespace, name) in objects {
                watched.update(0, Event::InitApply(object(namespace, name)));
            }
            watched.update(0, Event::InitDone)
        };
        assert_eq!(list(&mut watched, &[("a", "one"), ("b", "one")]), ["+a/one", "+b/one"]);
        assert!(watched.is_open());
        assert_eq!(list(&mut watched, &[("c", "one"), ("b", "one")]), ["+c/one", "-a/one", "~b/one b/one"]);
        assert_eq!(watched.cached(), ["b/one", "c/one"]);
    }
}
