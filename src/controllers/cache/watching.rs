//! The watch of one kind: it fills the cache with what the API server sends, and reports each change.
//!
//! The watcher of the kube runtime parses a page of a list as a whole. So one object that cannot be read makes the list fail for ever,
//! and a page of large objects takes as much memory as its users like. Here the objects arrive one by one ([`Source`]), and each is
//! parsed separately (docs/adr/0011-one-object-is-one-object.md).

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use futures::future;
use k8s_openapi::NamespaceResourceScope;
use kube::{
    Client, Resource, ResourceExt,
    api::ObjectMeta,
    runtime::{reflector::ObjectRef, watcher::Event},
};
use tracing::{debug, warn};

use super::{
    Cache, Change, Health, Scope, Stored,
    budget::{MemoryBudget, NAMESPACE_BYTES, Share},
    source::Source,
    store_writer::StoreWriter,
};
use crate::reading::{self, Kept, Unreadable, Why, live::requests};

/// What all watches share.
pub(super) struct Cluster<'a> {
    pub(super) client: &'a Client,
    pub(super) scope: &'a Scope,
    pub(super) budget: Arc<MemoryBudget>,
    pub(super) health: Arc<Health>,
}

/// Watches a kind. Returns its cache, and the future that keeps the cache up to date. The first callback gets every change, the second
/// the metadata of objects that cannot be read.
pub(super) fn watch<K: Kept + Resource<Scope = NamespaceResourceScope>>(
    cluster: &Cluster<'_>,
    share: Share,
    labels: Option<&str>,
    dispatch: impl Fn(Change<'_, K>) + Send + Sync + 'static,
    enqueue: impl Fn(&ObjectMeta) + Send + Sync + 'static,
) -> (Arc<Cache<K>>, future::BoxFuture<'static, ()>) {
    let namespaces = cluster.scope.namespaces();
    let writer = StoreWriter::new(namespaces.clone());
    let cache = Arc::new(Cache::of(writer.store()));
    let watched = Watched {
        writer: Mutex::new(writer),
        cache: cache.clone(),
        budget: cluster.budget.clone(),
        share,
        crowded: Mutex::default(),
        // With several sources, the store writer reports each list when it is complete.
        first_list: Mutex::new((namespaces.len() == 1).then(Vec::new)),
        dispatch,
        enqueue,
    };
    let (watched, health) = (Arc::new(watched), cluster.health.clone());
    let sources = namespaces.into_iter().enumerate().map(|(index, namespace)| Source {
        client: cluster.client.clone(),
        requests: requests::<K>(namespace.as_deref()),
        labels: labels.map(String::from),
        index,
        namespace,
        watched: watched.clone(),
        health: health.clone(),
    });
    let follow: Vec<_> = sources.map(Source::follow).collect();
    (cache, Box::pin(async move { _ = future::join_all(follow).await }))
}

/// The cache of a kind, and the callbacks for its changes.
pub(super) struct Watched<K: Kept, Dispatch, Enqueue> {
    writer: Mutex<StoreWriter<Stored<K>>>,
    cache: Arc<Cache<K>>,
    budget: Arc<MemoryBudget>,
    share: Share,
    /// The namespaces in which an object did not fit into the memory budget.
    crowded: Mutex<BTreeSet<String>>,
    /// The objects that the first list has returned so far, while it runs. They are reported at once, so no object is parsed twice.
    first_list: Mutex<Option<Vec<Stored<K>>>>,
    dispatch: Dispatch,
    enqueue: Enqueue,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<K: Kept, Dispatch: Fn(Change<'_, K>), Enqueue: Fn(&ObjectMeta)> Watched<K, Dispatch, Enqueue> {
    pub(super) fn list_begins(&self, source: usize, namespace: Option<&str>) {
        self.budget.list_begins(self.share, namespace);
        // The previous list did not complete: report its objects as deleted.
        for stored in lock(&self.first_list).iter_mut().flat_map(std::mem::take) {
            if let Some(before) = self.cache.read_last(&stored) {
                (self.dispatch)(Change { before: Some(&*before), after: None });
            }
        }
        self.update(source, Event::Init, None);
    }

    pub(super) fn list_has(&self, source: usize, text: &[u8]) {
        let known = self.known(text).map(|stored| (stored, None));
        let Some((stored, object)) = known.or_else(|| self.read(text, true)) else { return };
        self.budget.listed(&stored.namespace().unwrap_or_default(), self.share, stored.bytes());
        if let Some(first_list) = &mut *lock(&self.first_list) {
            first_list.push(stored.clone());
            if let Some(object) = object {
                self.cache.keep(&object, &stored);
                (self.dispatch)(Change { before: None, after: Some(&*object) });
            } else {
                (self.enqueue)(stored.meta());
            }
        }
        self.update(source, Event::InitApply(stored), None);
    }

    pub(super) fn list_ends(&self, source: usize, namespace: Option<&str>) {
        self.budget.list_ends(self.share, namespace);
        if lock(&self.first_list).take().is_some() {
            lock(&self.writer).update(source, Event::InitDone, |_| {}); // all objects are reported already
        } else {
            self.update(source, Event::InitDone, None);
        }
    }

    /// Records that a source may not list. The cache counts as filled without it.
    pub(super) fn mark_forbidden(&self, source: usize) {
        lock(&self.writer).mark_forbidden(source);
    }

    /// The cached object, if it has the same UID and version as the text. This holds for most objects of a repeated list.
    fn known(&self, text: &[u8]) -> Option<Stored<K>> {
        if self.cache.store().is_empty() {
            return None;
        }
        let metadata = reading::identity(text);
        let kept = self.kept(&metadata)?;
        let is_same = kept.meta().uid == metadata.uid && kept.meta().resource_version == metadata.resource_version;
        let is_read = kept.unreadable().is_none();
        (is_same && is_read && metadata.resource_version.is_some()).then(|| Stored::clone(&kept))
    }

    /// Processes an object that was created or changed. Returns its resource version.
    pub(super) fn applied(&self, source: usize, text: &[u8]) -> Option<String> {
        let Some((stored, object)) = self.read(text, false) else { return reading::identity(text).resource_version };
        let version = stored.resource_version();
        let before = self.kept(stored.meta()).map(|before| before.bytes());
        self.budget.replace(&stored.namespace().unwrap_or_default(), self.share, before, Some(stored.bytes()));
        self.update(source, Event::Apply(stored), object);
        version
    }

    /// Processes an object that was deleted. Returns its last resource version.
    pub(super) fn deleted(&self, source: usize, text: &[u8]) -> Option<String> {
        let metadata = reading::identity(text);
        if let Some(kept) = self.kept(&metadata) {
            self.budget.replace(&kept.namespace().unwrap_or_default(), self.share, Some(kept.bytes()), None);
            self.update(source, Event::Delete(Stored::clone(&kept)), None);
        }
        metadata.resource_version
    }

    /// The cached object of this name.
    fn kept(&self, metadata: &ObjectMeta) -> Option<Arc<Stored<K>>> {
        let name = metadata.name.as_ref()?;
        self.cache.store().get(&ObjectRef::new(name).within(metadata.namespace.as_deref().unwrap_or_default()))
    }

    /// Reads an object, if it has a name. An object that cannot be read is cached as unreadable.
    fn read(&self, text: &[u8], in_list: bool) -> Option<(Stored<K>, Option<Arc<K>>)> {
        let unreadable = |unreadable: Box<Unreadable>| {
            let ObjectMeta { name, namespace, uid, .. } = &unreadable.metadata;
            debug!(kind = %K::kind(&()), name, namespace, why = %unreadable.why, "an object cannot be read and is not touched");
            let before = self.kept(&unreadable.metadata).filter(|before| before.meta().uid == *uid);
            Stored::Unreadable(Arc::new(*unreadable), before.and_then(|before| before.last().cloned()))
        };
        let (stored, object) = match reading::read::<K>(text) {
            Ok(read) => {
                let (stored, object) = Stored::packed(read);
                (stored, Some(object))
            }
            Err(why) => (unreadable(why), None),
        };
        let namespace = stored.namespace().unwrap_or_default();
        if stored.meta().name.is_none() {
            warn!(kind = %K::kind(&()), namespace, "an object without a name cannot be read and is not touched");
            return None;
        }
        let before = self.kept(stored.meta());
        // During a list, the budget does not count the previous version.
        let replaced = before.as_ref().filter(|_| !in_list).map(|before| before.bytes());
        if self.budget.fits(&namespace, self.share, in_list, replaced, stored.bytes()) {
            return Some((stored, object));
        }
        lock(&self.crowded).insert(namespace.clone());
        let why = Why::TooMany(NAMESPACE_BYTES);
        let marker = unreadable(Box::new(Unreadable { why, ..reading::skimmed::<K>(text) }));
        // Markers are bounded as well. But an object that was cached before always gets one: without a marker, it would look deleted.
        (before.is_some() || self.budget.fits_marker(&namespace, self.share, in_list)).then_some((marker, None))
    }

    /// Applies an event to the store, and reports the changes. `read` is the object of the event, if it was just parsed.
    fn update(&self, source: usize, event: Event<Stored<K>>, read: Option<Arc<K>>) {
        let object = |stored: Option<&Stored<K>>| stored.and_then(|stored| self.cache.read_last(stored));
        lock(&self.writer).update(source, event, |change| {
            let before = object(change.before);
            if let (Some(read), Some(stored)) = (&read, change.after) {
                self.cache.keep(read, stored);
            }
            let after = object(change.after);
            let dispatch = |before: Option<&K>, after: Option<&K>| {
                if before.is_some() || after.is_some() {
                    (self.dispatch)(Change { before, after });
                }
            };
            if let (Some(Stored::Unreadable(..)), Some(Stored::Text(_))) = (change.before, change.after) {
                // The objects that need it found it unreadable: report it as deleted and created, which enqueues all of them.
                dispatch(before.as_deref(), None);
                dispatch(None, after.as_deref());
            } else {
                dispatch(before.as_deref(), after.as_deref());
            }
            match (change.before, change.after) {
                (_, Some(Stored::Unreadable(unreadable, _))) => (self.enqueue)(&unreadable.metadata),
                (Some(gone), None) => self.cache.forget(gone),
                _ => {} // already reported
            }
        });
    }

    /// Whether a namespace of the source in which an object did not fit has headroom again.
    pub(super) fn has_headroom_again(&self, namespace: Option<&str>) -> bool {
        let mut crowded = lock(&self.crowded);
        let before = crowded.len();
        let is_its_own = |other: &str| namespace.is_none_or(|namespace| namespace == other);
        crowded.retain(|other| !(is_its_own(other) && self.budget.has_headroom(other)));
        crowded.len() < before
    }
}
