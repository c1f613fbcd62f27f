//! One watch per kind, shared by all controllers: its cache, and who is told about a change.
//!
//! The runtime's own relations start a watch for each controller, and after a lost connection they do not tell of what was
//! deleted meanwhile. Here one watch serves all, and a change is told with the object before and after, so that a controller is
//! only woken by what it reads.

use std::{
    collections::{BTreeSet, HashMap},
    fmt::Debug,
    sync::{Arc, Mutex},
};

use futures::{StreamExt, channel::mpsc::UnboundedSender};
use k8s_openapi::api::{
    core::v1::{PersistentVolumeClaim, Pod, Service},
    networking::v1::NetworkPolicy,
};
use kube::{
    Api, Client, Resource, ResourceExt,
    core::DeserializeGuard,
    runtime::{
        WatchStreamExt,
        reflector::{self, ObjectRef, Store},
        watcher::{self, Event, watcher},
    },
};
use serde::de::DeserializeOwned;
use tracing::warn;

use super::written::Written;
use crate::{
    api::{AigiseSession, Sandbox, meta},
    plan::{name, ownership, pod},
};

/// What the operator knows of the cluster.
pub struct Caches {
    /// All sessions.
    pub sessions: Store<AigiseSession>,
    /// All Sandboxes.
    pub sandboxes: Store<Sandbox>,
    /// The Pods that are ours.
    pub pods: Store<Pod>,
    /// The claims that are ours.
    pub claims: Store<PersistentVolumeClaim>,
    /// The Services that are ours.
    pub services: Store<Service>,
    /// The policies that are ours.
    pub policies: Store<NetworkPolicy>,
    /// The names of a session's Sandboxes, by the session's UID.
    pub sandboxes_of: Arc<SandboxesOf>,
    /// Sessions whose status was written a moment ago.
    pub written_sessions: Arc<Written<AigiseSession>>,
    /// Sandboxes whose status was written a moment ago.
    pub written_sandboxes: Arc<Written<Sandbox>>,
}

impl Caches {
    /// Waits until every cache has been filled once.
    ///
    /// # Errors
    /// When a watch has ended.
    pub async fn synced(&self) -> Result<(), reflector::store::WriterDropped> {
        self.sessions.wait_until_ready().await?;
        self.sandboxes.wait_until_ready().await?;
        self.pods.wait_until_ready().await?;
        self.claims.wait_until_ready().await?;
        self.services.wait_until_ready().await?;
        self.policies.wait_until_ready().await
    }
}

/// Who is told.
#[derive(Clone)]
pub struct Triggers {
    /// The session controller.
    pub sessions: UnboundedSender<ObjectRef<AigiseSession>>,
    /// The sandbox controller.
    pub sandboxes: UnboundedSender<ObjectRef<Sandbox>>,
}

impl Triggers {
    fn session(&self, name: &str, namespace: Option<String>) {
        let _ = self.sessions.unbounded_send(ObjectRef::new(name).within(&namespace.unwrap_or_default()));
    }

    fn sandbox(&self, name: &str, namespace: Option<String>) {
        let _ = self.sandboxes.unbounded_send(ObjectRef::new(name).within(&namespace.unwrap_or_default()));
    }

    /// Wakes the owner of a child, and the one that it had before.
    fn owners<K: ResourceExt>(&self, change: &Change<'_, K>) {
        let owners = [change.before, change.after]
            .map(|child| child.and_then(|child| Some((child, ownership::controller(child.meta())?))));
        for (child, owner) in owners.into_iter().flatten() {
            match owner.kind.as_str() {
                "AigiseSession" => self.session(&owner.name, child.namespace()),
                "Sandbox" => self.sandbox(&owner.name, child.namespace()),
                _ => {} // somebody else's
            }
        }
    }
}

/// An object that was made, changed or deleted.
struct Change<'a, K> {
    before: Option<&'a K>,
    after: Option<&'a K>,
}

impl<K: Resource> Change<'_, K> {
    /// The object, as it is or as it last was.
    fn object(&self) -> Option<&K> {
        self.after.or(self.before)
    }

    /// Whether one of these parts is another than before. Something made or deleted always is.
    fn touches<T: PartialEq>(&self, part: impl Fn(&K) -> T) -> bool {
        match (self.before, self.after) {
            (Some(before), Some(after)) => part(before) != part(after),
            _ => true,
        }
    }

    /// Whether what a user or the garbage collector says of the object is another than before: all but status.
    fn touches_wish(&self) -> bool {
        self.touches(|object| {
            let meta = object.meta();
            (
                meta.uid.clone(),
                meta.generation,
                meta.deletion_timestamp.clone(),
                meta.labels.clone(),
                meta.annotations.clone(),
            )
        })
    }
}

/// The futures that keep the caches filled; they end only by being dropped.
pub type Watches = Vec<futures::future::BoxFuture<'static, ()>>;

/// Starts to watch everything that the controllers read.
#[must_use]
pub fn watch_all(client: &Client, triggers: &Triggers) -> (Caches, Watches) {
    let ours = || watcher::Config::default().labels(&format!("{}={}", meta::MANAGED_BY, meta::MANAGER));
    let sandboxes_of = Arc::new(SandboxesOf::default());

    let (written_sessions, written_sandboxes) = (Arc::new(Written::default()), Arc::new(Written::default()));

    let tell = triggers.clone();
    let written = written_sessions.clone();
    let (sessions, watch_sessions) =
        watch(client, watcher::Config::default(), move |change: Change<'_, AigiseSession>| {
            change.object().into_iter().for_each(|session| written.seen(session, change.after.is_none()));
            let Some(session) = change.object().filter(|_| change.touches_wish()) else { return };
            tell.session(&session.name_any(), session.namespace());
            // Sandboxes wait for a session that is not there yet, and read no more of it once their Pods are made.
            if change.before.is_none() {
                for label in session.spec.sandboxes.keys().filter_map(|sandbox_type| name::Label::of(sandbox_type).ok())
                {
                    tell.sandbox(&name::child(&session.name_any(), label), session.namespace());
                }
            }
        });
    let tell = triggers.clone();
    let (index, written) = (sandboxes_of.clone(), written_sandboxes.clone());
    let (sandboxes, watch_sandboxes) = watch(client, watcher::Config::default(), move |change: Change<'_, Sandbox>| {
        index.take_in(&change);
        let Some(sandbox) = change.object() else { return };
        written.seen(sandbox, change.after.is_none());
        if change.touches_wish() && change.after.is_some() {
            tell.sandbox(&sandbox.name_any(), sandbox.namespace());
        }
        if change.touches_wish() || change.touches(|sandbox| sandbox.status.clone()) {
            tell.owners(&change);
        }
    });
    let tell = triggers.clone();
    let (pods, watch_pods) = watch(client, ours(), move |change: Change<'_, Pod>| {
        if change.touches_wish() || change.touches(pod::reading) {
            tell.owners(&change);
        }
    });
    let tell = triggers.clone();
    let (claims, watch_claims) = watch(client, ours(), move |change: Change<'_, PersistentVolumeClaim>| {
        // The scheduler and the binder write annotations, which nobody here reads.
        if change.touches(|claim| (claim.uid(), claim.metadata.deletion_timestamp.clone(), volume_phase(claim))) {
            tell.owners(&change);
        }
    });
    let tell = triggers.clone();
    let (services, watch_services) = watch(client, ours(), move |change: Change<'_, Service>| {
        if change.touches(|service| service.spec.clone()) {
            tell.owners(&change);
        }
    });
    let tell = triggers.clone();
    let (policies, watch_policies) = watch(client, ours(), move |change: Change<'_, NetworkPolicy>| {
        if change.touches(|policy| policy.spec.clone()) {
            tell.owners(&change);
        }
    });
    let caches = Caches {
        sessions,
        sandboxes,
        pods,
        claims,
        services,
        policies,
        sandboxes_of,
        written_sessions,
        written_sandboxes,
    };
    (caches, vec![watch_sessions, watch_sandboxes, watch_pods, watch_claims, watch_services, watch_policies])
}

fn volume_phase(claim: &PersistentVolumeClaim) -> Option<String> {
    claim.status.as_ref()?.phase.clone()
}

fn watch<K>(
    client: &Client,
    config: watcher::Config,
    tell: impl Fn(Change<'_, K>) + Send + 'static,
) -> (Store<K>, futures::future::BoxFuture<'static, ()>)
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug + Send + Sync + 'static,
{
    let (store, mut writer) = reflector::store();
    let api: Api<DeserializeGuard<K>> = Api::all(client.clone());
    let reader = store.clone();
    let watching = async move {
        let mut events = watcher(api, config).default_backoff().boxed();
        let mut known: HashMap<ObjectRef<K>, Arc<K>> = HashMap::new(); // what was cached before a list, while one is running
        while let Some(event) = events.next().await {
            let event = match event.map(|event| readable(event, &reader)) {
                Ok(Some(event)) => event,
                Ok(None) => continue,
                Err(error) => {
                    warn!(kind = %K::kind(&()), %error, "watching failed; it is tried again");
                    continue;
                }
            };
            match &event {
                Event::Apply(object) => {
                    let before = reader.get(&ObjectRef::from_obj(object));
                    writer.apply_watcher_event(&event);
                    tell(Change { before: before.as_deref(), after: Some(object) });
                }
                Event::Delete(object) => {
                    writer.apply_watcher_event(&event);
                    tell(Change { before: Some(object), after: None });
                }
                Event::Init => {
                    known = reader.state().into_iter().map(|object| (ObjectRef::from_obj(&*object), object)).collect();
                    writer.apply_watcher_event(&event);
                }
                Event::InitApply(_) => writer.apply_watcher_event(&event),
                Event::InitDone => {
                    writer.apply_watcher_event(&event);
                    for object in reader.state() {
                        let before = known.remove(&ObjectRef::from_obj(&*object));
                        tell(Change { before: before.as_deref(), after: Some(&*object) });
                    }
                    for (_, gone) in known.drain() {
                        tell(Change { before: Some(&*gone), after: None });
                    }
                }
            }
        }
    };
    (store, Box::pin(watching))
}

/// An event of an object that can be read. One that cannot (written by a newer version, or by hand) is as good as gone: it must
/// not keep the operator from all the others.
fn readable<K>(event: Event<DeserializeGuard<K>>, cache: &Store<K>) -> Option<Event<K>>
where
    K: Resource<DynamicType = ()> + Clone + Debug + 'static,
{
    let read = |guarded: DeserializeGuard<K>| {
        guarded.0.map(stripped).map_err(|invalid| {
            let name = invalid.metadata.name.unwrap_or_default();
            let namespace = invalid.metadata.namespace.unwrap_or_default();
            warn!(kind = %K::kind(&()), name, namespace, error = %invalid.error, "an object cannot be read and is left alone");
            ObjectRef::new(&name).within(&namespace)
        })
    };
    match event {
        Event::Apply(object) => match read(object) {
            Ok(object) => Some(Event::Apply(object)),
            Err(unreadable) => cache.get(&unreadable).map(|object| Event::Delete(K::clone(&object))),
        },
        Event::Delete(object) => match read(object) {
            Ok(object) => Some(Event::Delete(object)),
            Err(unreadable) => cache.get(&unreadable).map(|object| Event::Delete(K::clone(&object))),
        },
        Event::InitApply(object) => read(object).ok().map(Event::InitApply),
        Event::Init => Some(Event::Init),
        Event::InitDone => Some(Event::InitDone),
    }
}

/// managedFields are half of an object, and nobody here reads them.
fn stripped<K: ResourceExt>(mut object: K) -> K {
    object.meta_mut().managed_fields = None;
    object
}

/// Which Sandboxes a session owns, so that finding them costs the same however many others there are.
#[derive(Debug, Default)]
pub struct SandboxesOf(Mutex<HashMap<String, BTreeSet<String>>>);

impl SandboxesOf {
    /// The names of the Sandboxes whose controller has this UID.
    #[must_use]
    pub fn names(&self, session_uid: &str) -> BTreeSet<String> {
        self.0.lock().ok().and_then(|index| index.get(session_uid).cloned()).unwrap_or_default()
    }

    fn take_in(&self, change: &Change<'_, Sandbox>) {
        let Ok(mut index) = self.0.lock() else { return };
        let owner = |sandbox: &Sandbox| ownership::controller(&sandbox.metadata).map(|owner| owner.uid.clone());
        if let Some((uid, before)) = change.before.and_then(|before| Some((owner(before)?, before)))
            && let Some(names) = index.get_mut(&uid)
        {
            names.remove(&before.name_any());
            if names.is_empty() {
                index.remove(&uid);
            }
        }
        if let Some((uid, after)) = change.after.and_then(|after| Some((owner(after)?, after))) {
            index.entry(uid).or_default().insert(after.name_any());
        }
    }
}
