//! One watch per kind (and watched namespace), which all controllers share: the watch's cache, and the reconciles that a change enqueues.
//!
//! `owns` and `watches` of the kube runtime start a watch for each controller, and after a lost connection they do not report objects
//! that were deleted meanwhile. Here one watch serves all controllers. A change carries the object before and after, and a controller
//! enqueues a reconcile only if the fields that it reads have changed.
//!
//! Decided in docs/adr/0003-own-watches.md.

mod budget;
mod dispatcher;
mod health;
mod index;
mod scope;
mod source;
mod starting_pods;
mod store_writer;
mod stored;
mod text;
mod watching;

use std::sync::Arc;

use futures::{FutureExt, future::BoxFuture};
use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        core::v1::{PersistentVolumeClaim, Pod, Service},
        networking::v1::NetworkPolicy,
    },
};
use kube::{Client, Resource, api::ObjectMeta, runtime::reflector};

use self::{
    budget::{MemoryBudget, Share},
    watching::{Cluster, watch},
};
pub use self::{
    dispatcher::Dispatcher,
    health::Health,
    index::{AgentsIn, EntriesIn, SandboxesIn},
    scope::Scope,
    starting_pods::StartingPods,
    stored::{Cache, Found, Stored},
};
use super::{
    kind::{KindCache, Reconciled, VisitKind, each_kind},
    read_your_writes::ReadYourWrites,
    work_queue::WorkQueue,
};
use crate::{
    api::{Agent, AigiseSession, Sandbox, meta},
    plan::name::Label,
    reading::Kept,
};

/// The caches of the cluster's objects, and the indexes that are derived from them.
pub struct Caches {
    /// All sessions.
    pub sessions: KindCache<AigiseSession>,
    /// All Sandboxes.
    pub sandboxes: KindCache<Sandbox>,
    /// All agents.
    pub agents: KindCache<Agent>,
    /// The Pods that the operator manages.
    pub pods: Arc<Cache<Pod>>,
    /// The claims that the operator manages.
    pub claims: Arc<Cache<PersistentVolumeClaim>>,
    /// The Services that the operator manages.
    pub services: Arc<Cache<Service>>,
    /// The network policies that the operator manages.
    pub policies: Arc<Cache<NetworkPolicy>>,
    /// Which Sandboxes belong to a session.
    pub sandboxes_in: Arc<SandboxesIn>,
    /// Which claims hold caches.
    pub entries_in: Arc<EntriesIn>,
    /// How many Pods of each namespace are starting.
    pub starting_pods: Arc<StartingPods>,
    /// Which agents belong to a session or to another agent.
    pub agents_in: Arc<AgentsIn>,
    /// Which watches are failing.
    pub health: Arc<Health>,
}

impl Caches {
    /// The first sandboxes of a type in a session: only these are ever used.
    pub fn first_of_type(&self, namespace: &str, session: &str, label: &Label) -> impl Iterator<Item = Arc<Sandbox>> {
        let names = self.sandboxes_in.first_of_type(namespace, session, label).into_iter();
        names.filter_map(|name| self.sandboxes.get(&name, namespace).object())
    }

    /// Waits until every cache is filled.
    ///
    /// # Errors
    /// When a watch has ended.
    pub async fn synced(&self) -> Result<(), reflector::store::WriterDropped> {
        let mut kinds = Filling { caches: self, stores: vec![] };
        each_kind(&mut kinds);
        for store in kinds.stores {
            store.await?;
        }
        self.pods.store().wait_until_ready().await?;
        self.claims.store().wait_until_ready().await?;
        self.services.store().wait_until_ready().await?;
        self.policies.store().wait_until_ready().await
    }
}

/// The stores of the kinds that have a controller, while they are filled.
struct Filling<'a> {
    caches: &'a Caches,
    stores: Vec<BoxFuture<'a, Result<(), reflector::store::WriterDropped>>>,
}

impl VisitKind for Filling<'_> {
    fn kind<K: Reconciled>(&mut self) {
        let cache = K::of(self.caches);
        self.stores.push(async { cache.objects.store().wait_until_ready().await }.boxed());
    }
}

/// A change: an object that was created, changed or deleted.
pub struct Change<'a, K> {
    /// The object before the change, unless it was created.
    pub before: Option<&'a K>,
    /// The object after the change, unless it was deleted.
    pub after: Option<&'a K>,
}

impl<K: Resource> Change<'_, K> {
    /// The object after the change, or its last state if it was deleted.
    pub fn object(&self) -> Option<&K> {
        self.after.or(self.before)
    }

    /// Whether this part of the object has changed. Creating or deleting the object counts as a change.
    pub fn touches<T: PartialEq>(&self, part: impl Fn(&K) -> T) -> bool {
        match (self.before, self.after) {
            (Some(before), Some(after)) => part(before) != part(after),
            _ => true,
        }
    }

    /// Whether anything but the status has changed: what users and the garbage collector write.
    pub fn touches_spec(&self) -> bool {
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

/// The futures that keep the caches up to date. They run until they are dropped.
pub type Watches = Vec<BoxFuture<'static, ()>>;

/// Creates the caches and watches of everything that the controllers read.
pub fn watch_all(client: &Client, scope: &Scope) -> (Caches, Watches) {
    let health = Arc::new(Health::default());
    let budget = Arc::new(MemoryBudget::default());
    let dispatcher = Arc::new(Dispatcher::new());
    let mut watching = Watching {
        cluster: Cluster { client, scope, budget, health: health.clone() },
        dispatcher: dispatcher.clone(),
        watches: vec![],
    };
    let caches = Caches {
        sessions: watching.reconciled(),
        sandboxes: watching.reconciled(),
        agents: watching.reconciled(),
        pods: watching.children(Dispatcher::pod_changed),
        claims: watching.children(Dispatcher::claim_changed),
        services: watching.children(Dispatcher::service_changed),
        policies: watching.children(Dispatcher::policy_changed),
        sandboxes_in: dispatcher.sandboxes_in.clone(),
        entries_in: dispatcher.entries_in.clone(),
        starting_pods: dispatcher.starting_pods.clone(),
        agents_in: dispatcher.agents_in.clone(),
        health,
    };
    (caches, watching.watches)
}

/// The watches that were begun.
struct Watching<'a> {
    cluster: Cluster<'a>,
    dispatcher: Arc<Dispatcher>,
    watches: Watches,
}

impl Watching<'_> {
    /// Watches a kind that has a controller.
    fn reconciled<K: Reconciled>(&mut self) -> KindCache<K> {
        let (dispatcher, queue) = (self.dispatcher.clone(), self.dispatcher.queue::<K>());
        let (written, unreadable) = (Arc::new(ReadYourWrites::default()), queue.clone());
        let own = written.clone();
        let changed = move |change: Change<'_, K>| {
            if let Some(object) = change.object() {
                own.observe(object, change.after.is_none());
            }
            K::changed(&dispatcher, &change);
        };
        let wake = move |it: &ObjectMeta| {
            unreadable.add(it.namespace.as_deref().unwrap_or_default(), it.name.as_deref().unwrap_or_default());
        };
        let (objects, watch) = watch(&self.cluster, Share(self.watches.len()), None, changed, wake);
        self.watches.push(watch);
        KindCache { objects, written, queue }
    }

    /// Watches a kind of children: those with the operator's label.
    fn children<K: Kept + Resource<Scope = NamespaceResourceScope>>(
        &mut self,
        changed: fn(&Dispatcher, &Change<'_, K>),
    ) -> Arc<Cache<K>> {
        let (ours, dispatcher) = (format!("{}={}", meta::MANAGED_BY, meta::MANAGER), self.dispatcher.clone());
        let changed = move |change: Change<'_, K>| changed(&dispatcher, &change);
        // An unreadable object of these kinds is reported by the objects that need it.
        let nobody = |_: &ObjectMeta| {};
        let (objects, watch) = watch(&self.cluster, Share(self.watches.len()), Some(&ours), changed, nobody);
        self.watches.push(watch);
        objects
    }
}
