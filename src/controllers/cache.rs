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

use k8s_openapi::api::{
    core::v1::{PersistentVolumeClaim, Pod, Service},
    networking::v1::NetworkPolicy,
};
use kube::{Client, Resource, api::ObjectMeta, runtime::reflector};

use self::{
    budget::{MemoryBudget, Share},
    dispatcher::Dispatcher,
    watching::{Cluster, watch},
};
pub use self::{
    dispatcher::WorkQueues,
    health::Health,
    index::{AgentsIn, SandboxesIn},
    scope::Scope,
    starting_pods::StartingPods,
    stored::{Cache, Found, Stored},
};
use super::{read_your_writes::ReadYourWrites, work_queue::WorkQueue};
use crate::{
    api::{Agent, AigiseSession, Sandbox, meta},
    plan::name::Label,
};

/// The caches of the cluster's objects, and the indexes that are derived from them.
pub struct Caches {
    /// All sessions.
    pub sessions: Arc<Cache<AigiseSession>>,
    /// All Sandboxes.
    pub sandboxes: Arc<Cache<Sandbox>>,
    /// All agents.
    pub agents: Arc<Cache<Agent>>,
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
    /// How many Pods of each namespace are starting.
    pub starting_pods: Arc<StartingPods>,
    /// Which agents belong to a session or to another agent.
    pub agents_in: Arc<AgentsIn>,
    /// Sessions whose status was written a moment ago.
    pub written_sessions: Arc<ReadYourWrites<AigiseSession>>,
    /// Sandboxes whose status was written a moment ago.
    pub written_sandboxes: Arc<ReadYourWrites<Sandbox>>,
    /// Agents whose status was written a moment ago.
    pub written_agents: Arc<ReadYourWrites<Agent>>,
    /// Which watches are failing.
    pub health: Arc<Health>,
}

impl Caches {
    /// The latest known version of a session: the status that the session controller wrote last may be newer than the cache.
    #[must_use]
    pub fn session(&self, name: &str, namespace: &str) -> Found<AigiseSession> {
        self.written_sessions.latest_of(self.sessions.get(name, namespace))
    }

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
        self.sessions.store().wait_until_ready().await?;
        self.sandboxes.store().wait_until_ready().await?;
        self.agents.store().wait_until_ready().await?;
        self.pods.store().wait_until_ready().await?;
        self.claims.store().wait_until_ready().await?;
        self.services.store().wait_until_ready().await?;
        self.policies.store().wait_until_ready().await
    }
}

/// A change: an object that was created, changed or deleted.
struct Change<'a, K> {
    before: Option<&'a K>,
    after: Option<&'a K>,
}

impl<K: Resource> Change<'_, K> {
    /// The object after the change, or its last state if it was deleted.
    fn object(&self) -> Option<&K> {
        self.after.or(self.before)
    }

    /// Whether this part of the object has changed. Creating or deleting the object counts as a change.
    fn touches<T: PartialEq>(&self, part: impl Fn(&K) -> T) -> bool {
        match (self.before, self.after) {
            (Some(before), Some(after)) => part(before) != part(after),
            _ => true,
        }
    }

    /// Whether anything but the status has changed: what users and the garbage collector write.
    fn touches_spec(&self) -> bool {
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
pub type Watches = Vec<futures::future::BoxFuture<'static, ()>>;

/// Creates the caches and watches of everything that the controllers read.
#[must_use]
pub fn watch_all(client: &Client, scope: &Scope, work_queues: WorkQueues) -> (Caches, Watches) {
    let health = Arc::new(Health::default());
    let cluster = &Cluster { client, scope, budget: Arc::new(MemoryBudget::default()), health: health.clone() };
    let ours = format!("{}={}", meta::MANAGED_BY, meta::MANAGER);
    let ours = Some(ours.as_str());
    let dispatcher = &Arc::new(Dispatcher::new(work_queues));

    let (of, to) = (dispatcher.clone(), dispatcher.clone());
    let wake = move |it: &ObjectMeta| {
        to.enqueue_session(&it.name.clone().unwrap_or_default(), &it.namespace.clone().unwrap_or_default());
    };
    let (sessions, watch_sessions) = watch(cluster, Share(0), None, move |change| of.session_changed(&change), wake);
    let (of, to) = (dispatcher.clone(), dispatcher.clone());
    let wake = move |it: &ObjectMeta| {
        to.enqueue_sandbox(&it.name.clone().unwrap_or_default(), &it.namespace.clone().unwrap_or_default());
    };
    let (sandboxes, watch_sandboxes) = watch(cluster, Share(1), None, move |change| of.sandbox_changed(&change), wake);
    let (of, to) = (dispatcher.clone(), dispatcher.clone());
    let wake = move |it: &ObjectMeta| {
        to.enqueue_agents([it.name.clone().unwrap_or_default()], &it.namespace.clone().unwrap_or_default());
    };
    let (agents, watch_agents) = watch(cluster, Share(2), None, move |change| of.agent_changed(&change), wake);
    // An unreadable object of these kinds is reported by the objects that need it.
    let nobody = |_: &ObjectMeta| {};
    let of = dispatcher.clone();
    let (pods, watch_pods) = watch(cluster, Share(3), ours, move |change| of.pod_changed(&change), nobody);
    let of = dispatcher.clone();
    let (claims, watch_claims) = watch(cluster, Share(4), ours, move |change| of.claim_changed(&change), nobody);
    let of = dispatcher.clone();
    let (services, watch_services) = watch(cluster, Share(5), ours, move |change| of.service_changed(&change), nobody);
    let of = dispatcher.clone();
    let (policies, watch_policies) = watch(cluster, Share(6), ours, move |change| of.policy_changed(&change), nobody);
    let watches =
        vec![watch_sessions, watch_sandboxes, watch_agents, watch_pods, watch_claims, watch_services, watch_policies];
    let caches = Caches {
        sessions,
        sandboxes,
        agents,
        pods,
        claims,
        services,
        policies,
        sandboxes_in: dispatcher.sandboxes_in.clone(),
        starting_pods: dispatcher.starting_pods.clone(),
        agents_in: dispatcher.agents_in.clone(),
        written_sessions: dispatcher.written_sessions.clone(),
        written_sandboxes: dispatcher.written_sandboxes.clone(),
        written_agents: dispatcher.written_agents.clone(),
        health,
    };
    (caches, watches)
}
