//! One watch per kind (and watched namespace), shared by all controllers: its cache, and who is told about a change.
//!
//! The runtime's own relations start a watch for each controller, and after a lost connection they do not tell of what was
//! deleted meanwhile. Here one watch serves all, and a change is told with the object before and after, so that a controller is
//! only woken by what it reads.

mod index;
mod intake;
mod scope;
mod teller;
mod watching;

use std::sync::Arc;

use k8s_openapi::api::{
    core::v1::{PersistentVolumeClaim, Pod, Service},
    networking::v1::NetworkPolicy,
};
use kube::{
    Client, Resource,
    runtime::{
        reflector::{self, ObjectRef, Store},
        watcher,
    },
};

pub use self::{
    index::{AgentsIn, SandboxesIn},
    scope::Scope,
    teller::Triggers,
};
use self::{teller::Teller, watching::watch};
use super::{packed::PackedPod, written::Written};
use crate::api::{Agent, AigiseSession, Sandbox, meta};

/// What the operator knows of the cluster.
pub struct Caches {
    /// All sessions.
    pub sessions: Store<AigiseSession>,
    /// All Sandboxes.
    pub sandboxes: Store<Sandbox>,
    /// All agents.
    pub agents: Store<Agent>,
    /// The Pods that are ours, as text.
    pods: Store<PackedPod>,
    /// The claims that are ours.
    pub claims: Store<PersistentVolumeClaim>,
    /// The Services that are ours.
    pub services: Store<Service>,
    /// The policies that are ours.
    pub policies: Store<NetworkPolicy>,
    /// Which Sandboxes belong to a session.
    pub sandboxes_in: Arc<SandboxesIn>,
    /// Which agents belong to a session or an agent.
    pub agents_in: Arc<AgentsIn>,
    /// Sessions whose status was written a moment ago.
    pub written_sessions: Arc<Written<AigiseSession>>,
    /// Sandboxes whose status was written a moment ago.
    pub written_sandboxes: Arc<Written<Sandbox>>,
    /// Agents whose status was written a moment ago.
    pub written_agents: Arc<Written<Agent>>,
}

impl Caches {
    /// The session of this name, as it is known now: its own controller may have said more of it than the watch has told yet.
    #[must_use]
    pub fn session(&self, name: &str, namespace: &str) -> Option<Arc<AigiseSession>> {
        let cached = self.sessions.get(&ObjectRef::new(name).within(namespace))?;
        Some(self.written_sessions.newest(cached, &self.sessions))
    }

    /// The Pod of ours with this name.
    #[must_use]
    pub fn pod(&self, name: &str, namespace: &str) -> Option<Arc<Pod>> {
        self.pods.get(&ObjectRef::new(name).within(namespace))?.unpack().map(Arc::new)
    }

    /// Waits until every cache has been filled once.
    ///
    /// # Errors
    /// When a watch has ended.
    pub async fn synced(&self) -> Result<(), reflector::store::WriterDropped> {
        self.sessions.wait_until_ready().await?;
        self.sandboxes.wait_until_ready().await?;
        self.agents.wait_until_ready().await?;
        self.pods.wait_until_ready().await?;
        self.claims.wait_until_ready().await?;
        self.services.wait_until_ready().await?;
        self.policies.wait_until_ready().await
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
pub fn watch_all(client: &Client, scope: &Scope, triggers: Triggers) -> (Caches, Watches) {
    let cluster = &(client, scope);
    let all = watcher::Config::default;
    let ours = || watcher::Config::default().labels(&format!("{}={}", meta::MANAGED_BY, meta::MANAGER));
    let teller = Arc::new(Teller::new(triggers));

    let of = teller.clone();
    let (sessions, watch_sessions) = watch(cluster, all(), move |change| of.session_changed(&change));
    let of = teller.clone();
    let (sandboxes, watch_sandboxes) = watch(cluster, all(), move |change| of.sandbox_changed(&change));
    let of = teller.clone();
    let (agents, watch_agents) = watch(cluster, all(), move |change| of.agent_changed(&change));
    let of = teller.clone();
    let (pods, watch_pods) = watch(cluster, ours(), move |change: Change<'_, PackedPod>| {
        let [before, after] = [change.before, change.after].map(|packed| packed.and_then(PackedPod::unpack));
        of.pod_changed(&Change { before: before.as_ref(), after: after.as_ref() });
    });
    let of = teller.clone();
    let (claims, watch_claims) = watch(cluster, ours(), move |change| of.claim_changed(&change));
    let of = teller.clone();
    let (services, watch_services) = watch(cluster, ours(), move |change| of.service_changed(&change));
    let of = teller.clone();
    let (policies, watch_policies) = watch(cluster, ours(), move |change| of.policy_changed(&change));
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
        sandboxes_in: teller.sandboxes_in.clone(),
        agents_in: teller.agents_in.clone(),
        written_sessions: teller.written_sessions.clone(),
        written_sandboxes: teller.written_sandboxes.clone(),
        written_agents: teller.written_agents.clone(),
    };
    (caches, watches)
}
