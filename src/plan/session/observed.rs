//! What decisions about a session depend on, and how the outcomes of writes change it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use jiff::Timestamp;
use k8s_openapi::api::{
    core::v1::{PersistentVolumeClaim, Pod, Service},
    networking::v1::NetworkPolicy,
};
use kube::ResourceExt;

use super::{configuration::ConfigSecret, exec::Exec, network, staging::pull::Pull};
use crate::{
    api::{Agent, Sandbox},
    plan::{
        ChildState, Failure, Foreign, Lookup, Settings,
        effective::{Decided, EffectiveSession, configuration::Configuration},
        name,
        pod_event::PodEvent,
        volumes::SharedVolume,
    },
};

/// Everything that decisions about a session depend on.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The session itself.
    pub session: EffectiveSession,
    /// The decisions that depend only on the session's spec.
    pub decided: Arc<Decided>,
    /// The state of the configuration file. The session above is the effective session, which includes the file's fields.
    pub configuration: Configuration,
    /// The Secret for sensitive values of the file; absent if the file was not read in this reconcile.
    pub config_secret: Option<ConfigSecret>,
    /// The session's own claims.
    pub claims: BTreeMap<SharedVolume, ChildState<PersistentVolumeClaim>>,
    /// The existing claims that the session uses instead. The operator never writes them.
    pub existing_claims: BTreeMap<SharedVolume, Lookup<PersistentVolumeClaim>>,
    /// The Pod that fills the volumes.
    pub stage_pod: ChildState<Pod>,
    /// The Pod that pulls images while the volumes are filled.
    pub pull_pod: ChildState<Pod>,
    /// The committed and uncommitted caches of the session's key; read only if the session asks for caches.
    pub entries: Vec<Arc<PersistentVolumeClaim>>,
    /// The claim in which the session saves its own cache.
    pub entry: ChildState<PersistentVolumeClaim>,
    /// The Pod that restores a cache.
    pub restore_pod: ChildState<Pod>,
    /// The Pod that saves a cache.
    pub save_pod: ChildState<Pod>,
    /// What became of that Pod, or of the attempt to create it.
    pub pull: Pull,
    /// The images that the stage Pod's node lists, if the node exists; read only for the node in
    /// [`node_to_read`](super::node_to_read).
    pub node_images: Option<BTreeSet<String>>,
    /// The events about the stage Pod; read only when [`event_reads`](super::event_reads) are due.
    pub events: Vec<PodEvent>,
    /// The Service that gives the sandboxes their DNS names.
    pub service: ChildState<Service>,
    /// The network policy of the session's Pods.
    pub policy: ChildState<NetworkPolicy>,
    /// The network policy that opens the internet to the stage Pod only.
    pub stage_policy: ChildState<NetworkPolicy>,
    /// The Sandboxes by name: those that the session requires, and those that it owns.
    pub sandboxes: BTreeMap<String, ChildState<Sandbox>>,
    /// The agents of the session, by name.
    pub agents: BTreeMap<String, Arc<Agent>>,
    /// The exec access of the session's agents; absent if no agent has exec access.
    pub exec: Option<Exec>,
    /// The content of the ConfigMaps among the sources, by name, as [`content_hash`](super::content_hash); read only if
    /// [`wants_sources`](super::wants_sources) is true.
    pub config_maps: BTreeMap<String, ConfigMapContent>,
    /// Why a write failed in this reconcile although its object exists: a deletion of the session, or an expansion of a claim.
    pub write_error: Option<Failure>,
    /// The operator's settings.
    pub settings: Arc<Settings>,
    /// The time.
    pub now: Timestamp,
}

/// The content of a ConfigMap.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigMapContent {
    /// The ConfigMap exists, and its content has this hash.
    Hash(String),
    /// The ConfigMap does not exist.
    Missing,
    /// The ConfigMap could not be read.
    Unknown(Failure),
}

impl Observed {
    /// The claim of a volume, if it exists: the session's own, or an existing one.
    pub(super) fn claim(&self, volume: SharedVolume) -> Option<&Arc<PersistentVolumeClaim>> {
        let volume = self.session.on_claim_of(volume);
        let existing = || self.existing_claims.get(&volume).and_then(Lookup::found);
        self.claims.get(&volume).and_then(ChildState::owned).or_else(existing)
    }

    pub(super) fn child_name(&self, part: impl std::fmt::Display) -> String {
        name::child(&self.session.name_any(), part)
    }

    /// The name of the stage Pod, and of its network policy.
    pub fn stage_pod_name(session: &EffectiveSession) -> String {
        name::child(&session.name_any(), "stage")
    }

    /// The first foreign object that has a name which the session needs.
    pub(super) fn foreign(&self) -> Option<&Foreign> {
        let claims = self.claims.values().filter_map(ChildState::foreign);
        let rest = [self.service.foreign(), self.stage_pod.foreign()].into_iter().flatten();
        let policies = network::policies(self).filter_map(ChildState::foreign);
        let secret = self.config_secret.iter().filter_map(|secret| secret.child.foreign());
        secret
            .chain(claims)
            .chain(rest)
            .chain(policies)
            .chain(self.sandboxes.values().filter_map(ChildState::foreign))
            .next()
    }

    /// The first read or write that failed.
    pub(super) fn failure(&self) -> Option<&Failure> {
        let config_maps = self.config_maps.values().filter_map(|content| match content {
            ConfigMapContent::Unknown(failure) => Some(failure),
            ConfigMapContent::Hash(_) | ConfigMapContent::Missing => None,
        });
        let rest =
            [self.service.failure(), self.policy.failure(), self.stage_policy.failure(), self.stage_pod.failure()];
        let claims = self.claims.values().filter_map(ChildState::failure);
        let claims = claims.chain(self.existing_claims.values().filter_map(Lookup::failure));
        let secret = self.config_secret.iter().filter_map(|secret| secret.child.failure());
        secret
            .chain(claims)
            .chain(rest.into_iter().flatten())
            .chain(self.sandboxes.values().filter_map(ChildState::failure))
            .chain(config_maps)
            .next()
    }
}
