//! One session: from its spec to filled volumes and ready sandboxes.
//!
//! The life of a session whose images are present (`tests/walks/session-happy-path.yaml` has it in full):
//!
//! | observed | lifecycle | writes | reports |
//! |---|---|---|---|
//! | nothing | `NotStaged` | Service, policy, three claims, the stage Pod | `Ready=False`, `Staging` |
//! | the stage Pod runs | `Staging` | | `Ready=False`, `Staging` |
//! | the stage Pod has succeeded | `Starting` | a Sandbox for each type | `Ready=False`, `SandboxesNotReady`, with the first cause |
//! | all Sandboxes are ready | `Ready` | | `Ready=True` |
//! | a type was added, edited, removed | `Starting` | creates, replaces or deletes its Sandbox | |

mod agents;
pub mod configuration;
mod decided;
pub mod exec;
mod launch;
mod lifecycle;
mod lifetime;
mod network;
mod profile;
mod sandboxes;
mod staging;
mod summary;
mod volumes;

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use k8s_openapi::api::{
    core::v1::{PersistentVolumeClaim, Pod, Service},
    networking::v1::NetworkPolicy,
};
use kube::ResourceExt;

use self::{
    configuration::{ConfigSecret, Configuration},
    exec::Exec,
    launch::with_demand,
};
pub use self::{
    decided::{Decided, bytes_to_decide},
    launch::{launchable, launched, services, top_root},
    lifecycle::Lifecycle,
    network::has_own_policy,
    staging::{config_maps, content_hash, wants_sources},
};
use super::{
    Applied, ChildState, Created, Failure, Foreign, Outcome, Report, Settings, Write, agent::Demand, name,
    volumes::SharedVolume,
};
use crate::api::{
    Agent, AigiseSession, AigiseSessionStatus, Sandbox,
    condition::{ConditionType, Reason},
    sandbox::SandboxState,
    session::{OnExpiry, SessionPhase},
};

/// Everything that decisions about a session depend on.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The session itself.
    pub session: Arc<AigiseSession>,
    /// The decisions that depend only on the session's spec.
    pub decided: Arc<Decided>,
    /// The state of the configuration file. The session above is the effective session, which includes the file's fields.
    pub configuration: Configuration,
    /// The Secret for sensitive values of the file; absent if the file was not read in this reconcile.
    pub config_secret: Option<ConfigSecret>,
    /// The session's claims, and the existing claims that the session uses, which the operator does not change.
    pub claims: BTreeMap<SharedVolume, ChildState<PersistentVolumeClaim>>,
    /// The Pod that fills the volumes.
    pub stage_pod: ChildState<Pod>,
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
    /// The content of the ConfigMaps among the sources, by name, as [`content_hash`]; read only if [`wants_sources`] is true.
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
    /// Records the outcome of a write of the child with this name.
    pub fn record(&mut self, name: &str, outcome: Outcome) {
        match outcome {
            Outcome::Claim(child) => {
                let volume = SharedVolume::ALL.into_iter().find(|volume| volume.claim_name(&self.session) == name);
                let live = volume.and_then(|volume| Some((volume, self.claims.get(&volume)?.owned()?)));
                match (child, live) {
                    (ChildState::Failed(failure), Some((volume, live))) if volumes::only_grows(self, volume, live) => {
                        self.write_error = Some(failure);
                    }
                    (child, _) => _ = volume.map(|volume| self.claims.insert(volume, child)),
                }
            }
            Outcome::Pod(child) => self.stage_pod = child,
            Outcome::Service(child) => self.service = child,
            Outcome::NetworkPolicy(child) if name == self.session.name_any() => self.policy = child,
            Outcome::NetworkPolicy(child) => self.stage_policy = child,
            Outcome::Sandbox(child) => {
                self.sandboxes.insert(name.to_string(), child);
            }
            Outcome::Secret(child) => {
                if let Some(secret) = &mut self.config_secret {
                    secret.child = child;
                }
            }
            Outcome::Role(child) => {
                if let Some(exec) = &mut self.exec {
                    exec.role = child;
                }
            }
            Outcome::Session(ChildState::Failed(failure)) => self.write_error = Some(failure),
            // The watch reports the deletion of the session. A session does not write the other kinds.
            Outcome::Session(_) | Outcome::Agent(_) | Outcome::ServiceAccount(_) | Outcome::RoleBinding(_) => {}
        }
    }

    fn child_name(&self, part: impl std::fmt::Display) -> String {
        name::child(&self.session.name_any(), part)
    }

    /// The name of the stage Pod, and of its network policy.
    #[must_use]
    pub fn stage_pod_name(session: &AigiseSession) -> String {
        name::child(&session.name_any(), "stage")
    }

    /// The first foreign object that has a name which the session needs.
    fn foreign(&self) -> Option<&Foreign> {
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
    fn failure(&self) -> Option<&Failure> {
        let config_maps = self.config_maps.values().filter_map(|content| match content {
            ConfigMapContent::Unknown(failure) => Some(failure),
            ConfigMapContent::Hash(_) | ConfigMapContent::Missing => None,
        });
        let rest =
            [self.service.failure(), self.policy.failure(), self.stage_policy.failure(), self.stage_pod.failure()];
        let claims = self.claims.values().filter_map(ChildState::failure);
        let secret = self.config_secret.iter().filter_map(|secret| secret.child.failure());
        secret
            .chain(claims)
            .chain(rest.into_iter().flatten())
            .chain(self.sandboxes.values().filter_map(ChildState::failure))
            .chain(config_maps)
            .next()
    }
}

/// The writes that move the session forward, in the order in which they are made: network policies come before Pods.
#[must_use]
pub fn plan(observed: &Observed) -> Vec<Write> {
    decide(observed).1
}

/// The name of the session's lifecycle variant, and the writes that move the session forward.
#[must_use]
pub fn decide(observed: &Observed) -> (&'static str, Vec<Write>) {
    let lifecycle = Lifecycle::of(observed);
    ((&lifecycle).into(), writes(observed, &lifecycle))
}

fn writes(observed: &Observed, lifecycle: &Lifecycle) -> Vec<Write> {
    match lifecycle {
        Lifecycle::Terminating | Lifecycle::Unconfigured(_) | Lifecycle::Blocked(_) | Lifecycle::NameTaken(_) => vec![],
        Lifecycle::Expired { then: OnExpiry::Delete, .. } => {
            vec![Write::delete(&*observed.session)]
        }
        // The policy is kept, since Pods may still be ending.
        Lifecycle::Expired { then: OnExpiry::Release, .. } => {
            [sandboxes::all_removals(observed), staging::removals(observed), volumes::removals(observed)].concat()
        }
        // The sandboxes read from the session that it is suspended. Nothing is created from an invalid spec.
        Lifecycle::Suspended { invalid: Some(_), .. } => staging::interruptions(observed),
        Lifecycle::Suspended { .. } => [
            network::writes(observed),
            configuration::writes(observed),
            volumes::writes(observed),
            sandboxes::removals(observed),
            staging::interruptions(observed),
            sandboxes::writes(observed),
            volumes::growth(observed),
        ]
        .concat(),
        Lifecycle::Failed(_)
        | Lifecycle::ClaimMissing(_)
        | Lifecycle::NotStaged
        | Lifecycle::SourceMissing(_)
        | Lifecycle::Staging(_)
        | Lifecycle::StagingInterrupted(_)
        | Lifecycle::StagingFailed(_)
        | Lifecycle::Starting { .. }
        | Lifecycle::SandboxFailed { .. }
        | Lifecycle::Degraded { .. }
        | Lifecycle::Ready => [
            network::writes(observed),
            configuration::writes(observed),
            volumes::writes(observed),
            sandboxes::removals(observed),
            staging::writes(observed),
            sandboxes::writes(observed),
            // Many storage classes forbid expansion. This comes last: its failure must not block other writes.
            volumes::growth(observed),
        ]
        .concat(),
    }
}

/// The effective session, from the session and its status: its own fields over those of its file, and the types that it has started.
#[must_use]
pub fn effective(session: Arc<AigiseSession>) -> Arc<AigiseSession> {
    with_demand(configuration::effective(session), &Demand::default())
}

/// The session with the demand of its agents.
#[must_use]
pub fn as_demanded(session: Arc<AigiseSession>, agents: &BTreeMap<String, Arc<Agent>>) -> Arc<AigiseSession> {
    let demand = Demand::of(agents, &session);
    with_demand(session, &demand)
}

/// What to report about the session.
#[must_use]
pub fn report(observed: &Observed) -> Report<AigiseSessionStatus> {
    summary::report(observed)
}

/// Whether an object that the session's status reports is missing. A user may have deleted it; or the session itself is gone, the
/// garbage collector is deleting its children, and the watch event is late.
#[must_use]
pub fn child_disappeared(observed: &Observed) -> bool {
    let Some(said) = &observed.session.status else { return false };
    let volumes = said.volumes.clone().unwrap_or_default();
    let claims = [
        (SharedVolume::Scripts, volumes.scripts),
        (SharedVolume::Data, volumes.data),
        (SharedVolume::Tools, volumes.tools),
    ];
    let is_absent = |volume| matches!(observed.claims.get(&volume), Some(ChildState::Absent));
    let states = said.sandboxes.iter().flat_map(|counts| &counts.states);
    let mut sandboxes = states.filter(|(_, state)| **state != SandboxState::Uninitialized);
    let lacks = |sandbox_type: &str| {
        let name = name::Label::of(sandbox_type).map(|label| observed.child_name(label));
        name.is_ok_and(|name| matches!(observed.sandboxes.get(&name), Some(ChildState::Absent)))
    };
    (said.service.is_some() && observed.service == ChildState::Absent)
        || (said.phase == Some(SessionPhase::Staging) && observed.stage_pod == ChildState::Absent)
        || claims.into_iter().any(|(volume, said)| said.is_some() && is_absent(volume))
        || sandboxes.any(|(sandbox_type, _)| lacks(sandbox_type))
}

/// Whether the session is suspended or expired, according to its spec and status. Its sandboxes then have no Pods.
#[must_use]
pub fn is_inactive(session: &AigiseSession) -> bool {
    let phase = session.status.as_ref().and_then(|status| status.phase);
    session.spec.is_suspended() || matches!(phase, Some(SessionPhase::Suspended | SessionPhase::Expired))
}

/// Whether the session has failed, according to its status.
#[must_use]
pub fn has_failed(session: &AigiseSession) -> bool {
    session.status.as_ref().and_then(|status| status.phase) == Some(SessionPhase::Error)
}

/// Whether the session has filled its volumes, according to its status.
#[must_use]
pub fn has_volumes(session: &AigiseSession) -> bool {
    let conditions = session.status.iter().flat_map(|status| &status.conditions);
    let staged = [Reason::Staged.to_string(), Reason::VolumesPending.to_string()];
    let kind = ConditionType::VolumesReady.to_string();
    conditions.into_iter().any(|condition| condition.type_ == kind && staged.contains(&condition.reason))
}
