//! One watch per kind (and watched namespace), shared by all controllers: its cache, and who is told about a change.
//!
//! The runtime's own relations start a watch for each controller, and after a lost connection they do not tell of what was
//! deleted meanwhile. Here one watch serves all, and a change is told with the object before and after, so that a controller is
//! only woken by what it reads.

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

/// What the operator knows of the cluster.
pub struct Caches {
    /// All sessions.
    pub sessions: Arc<Cache<AigiseSession>>,
    /// All Sandboxes.
    pub sandboxes: Arc<Cache<Sandbox>>,
    /// All agents.
    pub agents: Arc<Cache<Agent>>,
    /// The Pods that are ours.
    pub pods: Arc<Cache<Pod>>,
    /// The claims that are ours.
    pub claims: Arc<Cache<PersistentVolumeClaim>>,
    /// The Services that are ours.
    pub services: Arc<Cache<Service>>,
    /// The policies that are ours.
    pub policies: Arc<Cache<NetworkPolicy>>,
    /// Which Sandboxes belong to a session.
    pub sandboxes_in: Arc<SandboxesIn>,
    /// How many Pods are on their way.
    pub starting_pods: Arc<StartingPods>,
    /// Which agents belong to a session or an agent.
    pub agents_in: Arc<AgentsIn>,
    /// Sessions whose status was written a moment ago.
    pub written_sessions: Arc<ReadYourWrites<AigiseSession>>,
    /// Sandboxes whose status was written a moment ago.
    pub written_sandboxes: Arc<ReadYourWrites<Sandbox>>,
    /// Agents whose status was written a moment ago.
    pub written_agents: Arc<ReadYourWrites<Agent>>,
    /// Which of the watches fail.
    pub health: Arc<Health>,
}

impl Caches {
    /// The session of this name, as it is known now: its own controller may have said more of it than the watch has told yet.
    #[must_use]
    pub fn session(&self, name: &str, namespace: &str) -> Found<AigiseSession> {
        self.written_sessions.latest_of(self.sessions.get(name, namespace))
    }

    /// The first sandboxes of a session's type, as far as they matter.
    pub fn first_of_type(&self, namespace: &str, session: &str, label: &Label) -> impl Iterator<Item = Arc<Sandbox>> {
        let names = self.sandboxes_in.first_of_type(namespace, session, label).into_iter();
        names.filter_map(|name| self.sandboxes.get(&name, namespace).object())
    }

    /// Waits until every cache has been filled once.
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

/// The futures that keep the caches filled; they end only by being dropped.
pub type Watches = Vec<futures::future::BoxFuture<'static, ()>>;

/// Starts to watch everything that the controllers read.
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
    // Who needs one of these that cannot be read says so.
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
