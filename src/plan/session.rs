//! One session: from its spec to filled volumes and ready sandboxes.
//!
//! The life of a session whose images are present (`tests/walks/session-happy-path.yaml` has it in full):
//!
//! | observed | lifecycle | writes | reports |
//! |---|---|---|---|
//! | nothing | `NotStaged` | Service, policy, three claims, the stage Pod | `Ready=False`, `Staging` |
//! | the stage Pod runs | `Staging` | for long: the Pod that pulls images meanwhile | `Ready=False`, `Staging` |
//! | the stage Pod has succeeded | `Starting` | a Sandbox for each type | `Ready=False`, `SandboxesNotReady`, with the first cause |
//! | all Sandboxes are ready | `Ready` | | `Ready=True` |
//! | a type was added, edited, removed | `Starting` | creates, replaces or deletes its Sandbox | |

mod agents;
mod cache;
pub mod configuration;
pub mod exec;
mod lifecycle;
mod lifetime;
mod network;
mod observed;
mod sandboxes;
mod staging;
mod summary;
mod volumes;

use kube::ResourceExt;

pub(super) use self::cache::{Entry, last_used};
use self::staging::pull;
pub use self::{
    cache::{Caching, concerns as concerns_caches, entry_name},
    lifecycle::Lifecycle,
    observed::{ConfigMapContent, Observed},
    staging::{
        Staging, config_maps, content_hash, event_reads,
        pull::{Pull, node_to_read},
        wants_sources,
    },
};
use super::{
    Applied, ChildState, Created, Decide, Failure, Foreign, Outcome, Report, Write, name, volumes::SharedVolume,
};
use crate::api::{
    AigiseSessionStatus,
    sandbox::SandboxState,
    session::{OnExpiry, SessionPhase},
};

/// What follows from the observed objects, derived once for the writes, and again for the report if anything was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Situation {
    /// Where the session is in its life.
    pub lifecycle: Lifecycle,
    /// The progress of staging.
    pub staging: Staging,
    /// What caches are to the session.
    pub caching: Caching,
}

impl Decide for Observed {
    type Situation = Situation;
    type Status = AigiseSessionStatus;

    fn situation(&self) -> Situation {
        let staging = Staging::of(self);
        let caching = Caching::of(self);
        Situation { lifecycle: Lifecycle::of(self, &staging, &caching), staging, caching }
    }

    fn stage(situation: &Situation) -> &'static str {
        (&situation.lifecycle).into()
    }

    /// The role for agents depends on no other child, and no other child depends on the role.
    fn independent_writes(&self) -> Vec<Write> {
        exec::writes(self)
    }

    /// Network policies come before Pods.
    fn plan(&self, situation: &Situation) -> Vec<Write> {
        match &situation.lifecycle {
            Lifecycle::Terminating
            | Lifecycle::Unconfigured(_)
            | Lifecycle::Blocked(_)
            | Lifecycle::NameTaken(_)
            | Lifecycle::CacheMissing(_) => {
                vec![]
            }
            Lifecycle::Expired { then: OnExpiry::Delete, .. } => {
                vec![Write::delete(&self.session)]
            }
            // The policy is kept, since Pods may still be ending.
            Lifecycle::Expired { then: OnExpiry::Release, .. } => [
                sandboxes::all_removals(self),
                staging::removals(self),
                pull::interruption(self),
                cache::interruption(self),
                cache::discarded(self),
                volumes::removals(self),
            ]
            .concat(),
            // The sandboxes read from the session that it is suspended. Nothing is created from an invalid spec.
            Lifecycle::Suspended { invalid: Some(_), .. } => {
                [staging::interruptions(self), pull::interruption(self), cache::interruption(self)].concat()
            }
            Lifecycle::Suspended { .. } => [
                network::writes(self),
                configuration::writes(self),
                volumes::writes(self, &situation.caching),
                sandboxes::removals(self),
                staging::interruptions(self),
                pull::interruption(self),
                cache::interruption(self),
                sandboxes::writes(self, false),
                volumes::growth(self),
            ]
            .concat(),
            Lifecycle::Failed(_)
            | Lifecycle::Restoring(_)
            | Lifecycle::SourceMissing(_)
            | Lifecycle::ClaimMissing(_)
                if situation.caching.may_be_missing(&self.session) =>
            {
                vec![]
            }
            Lifecycle::Failed(_)
            | Lifecycle::ClaimMissing(_)
            | Lifecycle::NotStaged
            | Lifecycle::SourceMissing(_)
            | Lifecycle::Staging(_)
            | Lifecycle::StagingInterrupted(_)
            | Lifecycle::StagingFailed { .. }
            | Lifecycle::Restoring(_)
            | Lifecycle::SavingCache(_)
            | Lifecycle::Starting { .. }
            | Lifecycle::SandboxFailed { .. }
            | Lifecycle::Degraded { .. }
            | Lifecycle::Ready => [
                network::writes(self),
                configuration::writes(self),
                volumes::writes(self, &situation.caching),
                sandboxes::removals(self),
                cache::restore_writes(self, &situation.caching),
                staging::writes(self, situation),
                sandboxes::writes(self, situation.lifecycle.is_staged()),
                pull::removal(self, &situation.staging),
                cache::save_writes(self, &situation.caching),
                // Many storage classes forbid expansion. This comes late: its failure must not block other writes.
                volumes::growth(self),
                pull::creation(self, &situation.staging),
                cache::use_writes(self, &situation.caching),
            ]
            .concat(),
        }
    }

    fn record(&mut self, name: &str, outcome: Outcome) {
        match outcome {
            Outcome::Claim(child) if entry_name(&self.session).as_deref() == Some(name) => self.entry = child,
            Outcome::Claim(child) => {
                // An existing claim of another volume may have the same name.
                let volume = self.claims.keys().copied().find(|&volume| self.session.claim_name(volume) == name);
                let live = volume.and_then(|volume| Some((volume, self.claims.get(&volume)?.owned()?)));
                match (child, live) {
                    (ChildState::Failed(failure), Some((volume, live))) if volumes::only_grows(self, volume, live) => {
                        self.write_error = Some(failure);
                    }
                    (child, _) => _ = volume.map(|volume| self.claims.insert(volume, child)),
                }
            }
            Outcome::Pod(child) if name == Self::pull_pod_name(&self.session) => match (&self.pull_pod, child) {
                (ChildState::Owned(_), ChildState::Failed(failure)) => self.write_error = Some(failure),
                (ChildState::Owned(_), child) => self.pull_pod = child,
                // It was to be created. A quota, a policy or another object of its name is not an error.
                (_, child) => {
                    self.pull.tried = true;
                    self.pull_pod = child.owned().cloned().map_or(ChildState::Absent, ChildState::Owned);
                }
            },
            Outcome::Pod(child) if name == Self::restore_pod_name(&self.session) => self.restore_pod = child,
            Outcome::Pod(child) if name == Self::save_pod_name(&self.session) => self.save_pod = child,
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

    fn report(&self, situation: &Situation) -> Report<AigiseSessionStatus> {
        summary::report(self, situation)
    }

    fn child_disappeared(&self) -> bool {
        let Some(said) = self.session.status() else { return false };
        let volumes = said.volumes.clone().unwrap_or_default();
        let claims = [
            (SharedVolume::Scripts, volumes.scripts),
            (SharedVolume::Data, volumes.data),
            (SharedVolume::Tools, volumes.tools),
        ];
        let is_absent = |volume| matches!(self.claims.get(&volume), Some(ChildState::Absent));
        let states = said.sandboxes.iter().flat_map(|counts| &counts.states);
        let mut sandboxes = states.filter(|(_, state)| **state != SandboxState::Uninitialized);
        let lacks = |sandbox_type: &str| {
            let name = name::Label::of(sandbox_type).map(|label| self.child_name(label));
            name.is_ok_and(|name| matches!(self.sandboxes.get(&name), Some(ChildState::Absent)))
        };
        (said.service.is_some() && self.service == ChildState::Absent)
            || (said.phase == Some(SessionPhase::Staging)
                && self.stage_pod == ChildState::Absent
                && said.cache.as_ref().is_none_or(|cache| cache.data.is_some()))
            || claims.into_iter().any(|(volume, said)| said.is_some() && is_absent(volume))
            || sandboxes.any(|(sandbox_type, _)| lacks(sandbox_type))
    }

    fn children(&self) -> usize {
        self.agents.len() + self.sandboxes.len()
    }
}
