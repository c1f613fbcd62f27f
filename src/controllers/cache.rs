//! One watch per kind (and watched namespace), shared by all controllers: its cache, and who is told about a change.
//!
//! The runtime's own relations start a watch for each controller, and after a lost connection they do not tell of what was
//! deleted meanwhile. Here one watch serves all, and a change is told with the object before and after, so that a controller is
//! only woken by what it reads.

mod intake;
mod scope;

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex},
    time::Duration,
};

use futures::{
    StreamExt,
    channel::mpsc::UnboundedSender,
    stream::{self, BoxStream, Stream},
};
use k8s_openapi::api::{
    core::v1::{PersistentVolumeClaim, Pod, Service},
    networking::v1::NetworkPolicy,
};
use kube::{
    Client, Resource, ResourceExt,
    runtime::{
        WatchStreamExt,
        reflector::{self, ObjectRef, Store},
        watcher::{self, Event, watcher},
    },
};
use tracing::warn;

use self::intake::Intake;
pub use self::scope::Scope;
use super::{
    reading::{Cached, Reading},
    written::Written,
};
use crate::{
    api::{AigiseSession, Sandbox, meta},
    apply::Object,
    plan::{
        name::Label,
        ownership, pod,
        session::{has_failed, has_volumes, is_at_rest},
    },
};

/// The longest time until a list that was refused is tried again.
const REFUSED_POLL: Duration = Duration::from_secs(60);

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
    /// Which Sandboxes belong to a session.
    pub sandboxes_in: Arc<SandboxesIn>,
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
        for child in [change.before, change.after].into_iter().flatten() {
            match ownership::controller(child.meta()) {
                Some(owner) if owner.kind == "AigiseSession" => self.session(&owner.name, child.namespace()),
                Some(owner) if owner.kind == "Sandbox" => self.sandbox(&owner.name, child.namespace()),
                Some(_) => {} // somebody else's
                // What is to outlive its session has only a label.
                None => {
                    if let Some(session) = ownership::label(child.meta(), meta::SESSION) {
                        self.session(session, child.namespace());
                    }
                }
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
pub fn watch_all(client: &Client, scope: &Scope, triggers: &Triggers) -> (Caches, Watches) {
    let cluster = &(client, scope);
    let ours = || watcher::Config::default().labels(&format!("{}={}", meta::MANAGED_BY, meta::MANAGER));
    let sandboxes_in = Arc::new(SandboxesIn::default());

    let (written_sessions, written_sandboxes) = (Arc::new(Written::default()), Arc::new(Written::default()));

    let tell = triggers.clone();
    let (index, written) = (sandboxes_in.clone(), written_sessions.clone());
    let (sessions, watch_sessions) =
        watch(cluster, watcher::Config::default(), move |change: Change<'_, AigiseSession>| {
            let Some(session) = change.object() else { return };
            written.seen(session, change.after.is_none());
            if change.touches_wish() {
                tell.session(&session.name_any(), session.namespace());
            }
            // What a sandbox reads of its session once its Pod is made. With its session goes only what was made by hand: the rest
            // is the garbage collector's.
            let hand_made_only = change.after.is_none()
                || !change.touches(|session| {
                    let has = (session.spec.mcp_services.clone(), session.spec.enabled_skills.clone());
                    let from_file = session.status.as_ref().and_then(|status| status.configuration.clone());
                    (session.uid(), is_at_rest(session), has_failed(session), restart_wish(session), has, from_file)
                });
            if hand_made_only && !change.touches(|session| (session.metadata.generation, has_volumes(session))) {
                return;
            }
            let namespace = session.namespace().unwrap_or_default();
            for name in index.of_session(&namespace, &session.name_any()) {
                // What a session makes has `--` in its name.
                if !hand_made_only || !name.contains("--") {
                    tell.sandbox(&name, session.namespace());
                }
            }
        });
    let tell = triggers.clone();
    let (index, written) = (sandboxes_in.clone(), written_sandboxes.clone());
    let (sandboxes, watch_sandboxes) =
        watch(cluster, watcher::Config::default(), move |change: Change<'_, Sandbox>| {
            index.take_in(&change);
            let Some(sandbox) = change.object() else { return };
            written.seen(sandbox, change.after.is_none());
            if change.touches_wish() && change.after.is_some() {
                tell.sandbox(&sandbox.name_any(), sandbox.namespace());
            }
            if change.touches_wish() || change.touches(|sandbox| sandbox.status.clone()) {
                tell.owners(&change);
            }
            if change.touches(|sandbox| sandbox.status.as_ref().and_then(|status| status.state)) {
                for name in index.dependents(sandbox) {
                    tell.sandbox(&name, sandbox.namespace());
                }
            }
            // The type of a session that one leaves is another's.
            if let (None, Some(session)) = (change.after, &sandbox.spec.session) {
                let namespace = sandbox.namespace().unwrap_or_default();
                for name in index.of_session(&namespace, session).into_iter().filter(|name| !name.contains("--")) {
                    tell.sandbox(&name, sandbox.namespace());
                }
            }
        });
    let tell = triggers.clone();
    let (pods, watch_pods) = watch(cluster, ours(), move |change: Change<'_, Pod>| {
        if change.touches_wish() || change.touches(pod::reading) {
            tell.owners(&change);
        }
    });
    let tell = triggers.clone();
    let (claims, watch_claims) = watch(cluster, ours(), move |change: Change<'_, PersistentVolumeClaim>| {
        // The scheduler and the binder write annotations, which nobody here reads.
        if change.touches(|claim| {
            (
                claim.uid(),
                claim.metadata.deletion_timestamp.clone(),
                claim.metadata.owner_references.clone(),
                claim.spec.clone(),
                volume_phase(claim),
            )
        }) {
            tell.owners(&change);
        }
    });
    let tell = triggers.clone();
    let (services, watch_services) = watch(cluster, ours(), move |change: Change<'_, Service>| {
        if change.touches(|service| service.spec.clone()) {
            tell.owners(&change);
        }
    });
    let tell = triggers.clone();
    let (policies, watch_policies) = watch(cluster, ours(), move |change: Change<'_, NetworkPolicy>| {
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
        sandboxes_in,
        written_sessions,
        written_sandboxes,
    };
    (caches, vec![watch_sessions, watch_sandboxes, watch_pods, watch_claims, watch_services, watch_policies])
}

fn restart_wish(session: &AigiseSession) -> Option<String> {
    session.annotations().get(meta::RESTART).cloned()
}

/// A page of a list is held as text and as objects at the same time. 500, the usual number, cost 4 MB more for 2,000 sandboxes
/// and were no faster.
const PAGE: u32 = 100;

fn volume_phase(claim: &PersistentVolumeClaim) -> Option<String> {
    claim.status.as_ref()?.phase.clone()
}

fn watch<K: Object + Cached>(
    &(client, scope): &(&Client, &Scope),
    config: watcher::Config,
    tell: impl Fn(Change<'_, K>) + Send + 'static,
) -> (Store<K>, futures::future::BoxFuture<'static, ()>) {
    let (namespaces, apis): (Vec<_>, Vec<_>) = scope.apis::<Reading<K>>(client).into_iter().unzip();
    let mut intake = Intake::new(namespaces.clone());
    let store = intake.store();
    let events = apis.into_iter().enumerate().map(|(source, api)| -> BoxStream<'static, _> {
        patiently(watcher(api, config.clone().page_size(PAGE)))
            .default_backoff()
            .map(move |event| (source, event))
            .boxed()
    });
    let mut events = stream::select_all(events);
    let watching = async move {
        while let Some((source, event)) = events.next().await {
            match event {
                Ok(event) => {
                    if let Some(event) = readable(event, &intake.store()) {
                        intake.take_in(source, event, &tell);
                    }
                }
                Err(error) => {
                    let namespace = namespaces[source].as_deref();
                    warn!(kind = %K::kind(&()), namespace, error = words(&error), "watching failed; it is tried again");
                    // A namespace that is gone, and with it our role there, keeps nobody else waiting.
                    if namespace.is_some() && is_forbidden(&error) {
                        intake.is_refused(source);
                    }
                }
            }
        }
    };
    (store, Box::pin(watching))
}

/// What is refused is tried again less and less often. The runtime's backoff does not grow: it begins anew with each list.
fn patiently<K: Send + 'static>(
    events: impl Stream<Item = watcher::Result<Event<K>>> + Send,
) -> impl Stream<Item = watcher::Result<Event<K>>> + Send {
    let mut refusals = 0;
    events.then(move |event| {
        let mut pause = Duration::ZERO;
        match &event {
            Err(error) if is_forbidden(error) => {
                pause = Duration::from_secs(refusals * refusals).min(REFUSED_POLL);
                refusals += 1;
            }
            Ok(Event::InitDone) => refusals = 0,
            _ => {} // nothing that tells whether it may be listed
        }
        async move {
            // A sleep of no time takes up to a millisecond: of each object of a list.
            if !pause.is_zero() {
                tokio::time::sleep(pause).await;
            }
            event
        }
    })
}

fn is_forbidden(error: &watcher::Error) -> bool {
    matches!(error, watcher::Error::InitialListFailed(kube::Error::Api(status)) if status.is_forbidden())
}

/// The API server's own words, where the error is its answer.
fn words(error: &watcher::Error) -> String {
    use watcher::Error::{InitialListFailed, NoResourceVersion, WatchError, WatchFailed, WatchStartFailed};
    match error {
        InitialListFailed(kube::Error::Api(status))
        | WatchStartFailed(kube::Error::Api(status))
        | WatchFailed(kube::Error::Api(status))
        | WatchError(status) => status.message.clone(),
        InitialListFailed(_) | WatchStartFailed(_) | WatchFailed(_) | NoResourceVersion => error.to_string(),
    }
}

/// An event of an object that can be read. One that cannot (written by a newer version, or by hand) is as good as gone: it must
/// not keep the operator from all the others.
fn readable<K: Cached>(event: Event<Reading<K>>, cache: &Store<K>) -> Option<Event<K>> {
    let read = |reading: Reading<K>| {
        reading.0.map_err(|unreadable| {
            let name = unreadable.metadata.name.unwrap_or_default();
            let namespace = unreadable.metadata.namespace.unwrap_or_default();
            warn!(kind = %K::kind(&()), name, namespace, error = %unreadable.error, "an object cannot be read and is left alone");
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

/// Which Sandboxes belong to a session, so that finding them costs the same however many others there are.
#[derive(Debug, Default)]
pub struct SandboxesIn(Mutex<HashMap<Membership, BTreeSet<String>>>);

/// How a Sandbox belongs to a session.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Membership {
    /// The session with this UID owns it.
    Owned(String),
    /// It names a session, in this namespace and by this name.
    Named(String, String),
    /// Likewise, and depends on the sandbox with this DNS label.
    DependsOn(String, String, Label),
}

impl SandboxesIn {
    /// The names of the Sandboxes whose owner has this UID.
    #[must_use]
    pub fn owned_by(&self, session_uid: &str) -> BTreeSet<String> {
        self.get(&Membership::Owned(session_uid.into()))
    }

    /// The names of the Sandboxes that name a session.
    #[must_use]
    pub fn of_session(&self, namespace: &str, session: &str) -> BTreeSet<String> {
        self.get(&Membership::Named(namespace.into(), session.into()))
    }

    /// The names of the Sandboxes that depend on this one.
    #[must_use]
    pub fn dependents(&self, sandbox: &Sandbox) -> BTreeSet<String> {
        let (Some(session), Ok(label)) = (&sandbox.spec.session, Label::of(&sandbox.spec.sandbox_type)) else {
            return BTreeSet::new();
        };
        self.get(&Membership::DependsOn(sandbox.namespace().unwrap_or_default(), session.clone(), label))
    }

    fn get(&self, membership: &Membership) -> BTreeSet<String> {
        self.0.lock().ok().and_then(|index| index.get(membership).cloned()).unwrap_or_default()
    }

    fn take_in(&self, change: &Change<'_, Sandbox>) {
        let Ok(mut index) = self.0.lock() else { return };
        let memberships = |sandbox: &Sandbox| {
            let owned = ownership::owner_uid(&sandbox.metadata).map(|uid| Membership::Owned(uid.into()));
            let namespace = sandbox.namespace().unwrap_or_default();
            let session = sandbox.spec.session.clone();
            let needed = session.clone().into_iter().flat_map(|session| {
                let labels = sandbox.spec.template.depends_on.iter().filter_map(|needed| Label::of(needed).ok());
                let namespace = namespace.clone();
                labels.map(move |label| Membership::DependsOn(namespace.clone(), session.clone(), label))
            });
            let named = session.map(|session| Membership::Named(namespace.clone(), session));
            owned.into_iter().chain(named).chain(needed).collect::<Vec<_>>()
        };
        for (membership, before) in
            change.before.into_iter().flat_map(|before| memberships(before).into_iter().map(move |m| (m, before)))
        {
            if let Some(names) = index.get_mut(&membership) {
                names.remove(&before.name_any());
                if names.is_empty() {
                    index.remove(&membership);
                }
            }
        }
        for (membership, after) in
            change.after.into_iter().flat_map(|after| memberships(after).into_iter().map(move |m| (m, after)))
        {
            index.entry(membership).or_default().insert(after.name_any());
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn what_is_not_refused_is_passed_on_without_a_pause() {
        let events = stream::iter((0..1000).map(|_| Ok(Event::InitApply(()))));
        assert_eq!(patiently(events).count().now_or_never(), Some(1000));
    }
}
