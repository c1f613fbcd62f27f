//! One session: from its specification to volumes that are filled and sandboxes that are ready.
//!
//! The walk of a session whose images are there (`tests/walks/session-happy-path.yaml` prints it):
//!
//! | sees | stage | does | says |
//! |---|---|---|---|
//! | nothing | `NotStaged` | Service, policy, three claims, the stage Pod | `Ready=False`, `Staging` |
//! | the stage Pod runs | `Staging` | | `Ready=False`, `Staging` |
//! | the stage Pod ended well | `Starting` | a Sandbox for each type | `Ready=False`, `SandboxesNotReady`, with the first cause |
//! | all Sandboxes are ready | `Ready` | | `Ready=True` |
//! | a type was added, edited, removed | `Starting` | applies or deletes its Sandbox | |

mod network;
mod sandboxes;
mod stage;
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

pub use self::{
    stage::Stage,
    staging::{config_maps, content_hash, wants_sources},
};
use super::{Child, Failure, Foreign, Landed, Report, Settings, Slot, Write, name, volumes::SharedVolume};
use crate::api::{AigiseSession, AigiseSessionStatus, Sandbox};

/// All that is known of a session when it is decided about.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The session itself.
    pub session: Arc<AigiseSession>,
    /// Its claims.
    pub claims: BTreeMap<SharedVolume, Slot<PersistentVolumeClaim>>,
    /// The Pod that fills them.
    pub stage_pod: Slot<Pod>,
    /// The Service that gives the sandboxes their names.
    pub service: Slot<Service>,
    /// The policy around its Pods.
    pub policy: Slot<NetworkPolicy>,
    /// Its Sandboxes by name: each that it wants, and each that it owns.
    pub sandboxes: BTreeMap<String, Slot<Sandbox>>,
    /// What the ConfigMaps among the sources hold, by name, as [`content_hash`]; looked up only when [`wants_sources`] says so.
    pub config_maps: BTreeMap<String, ConfigMapContent>,
}

/// What a ConfigMap holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ConfigMapContent {
    /// It is there, and this names its content.
    Hash(String),
    /// It is not there.
    Missing,
    /// It could not be read.
    Unknown(Failure),
}

impl Observed {
    /// Takes in what a write of the child of this name left.
    pub fn absorb(&mut self, name: &str, landed: Landed) {
        match landed {
            Landed::Claim(slot) => {
                let volume = SharedVolume::ALL.into_iter().find(|&volume| self.child_name(volume) == name);
                if let Some(volume) = volume {
                    self.claims.insert(volume, slot);
                }
            }
            Landed::Pod(slot) => self.stage_pod = slot,
            Landed::Service(slot) => self.service = slot,
            Landed::NetworkPolicy(slot) => self.policy = slot,
            Landed::Sandbox(slot) => {
                self.sandboxes.insert(name.to_string(), slot);
            }
        }
    }

    fn child_name(&self, part: impl std::fmt::Display) -> String {
        name::child(&self.session.name_any(), part)
    }

    /// The name of the stage Pod.
    #[must_use]
    pub fn stage_pod_name(session: &AigiseSession) -> String {
        name::child(&session.name_any(), "stage")
    }

    /// The first of our names that somebody else has.
    fn foreign(&self) -> Option<&Foreign> {
        fn of<K>(slot: &Slot<K>) -> Option<&Foreign> {
            if let Slot::Foreign(foreign) = slot { Some(foreign) } else { None }
        }
        let claims = self.claims.values().filter_map(of);
        let rest = [of(&self.service), of(&self.policy), of(&self.stage_pod)];
        claims.chain(rest.into_iter().flatten()).chain(self.sandboxes.values().filter_map(of)).next()
    }

    /// The first read or write that failed.
    fn failure(&self) -> Option<&Failure> {
        fn of<K>(slot: &Slot<K>) -> Option<&Failure> {
            if let Slot::Failed(failure) = slot { Some(failure) } else { None }
        }
        let config_maps = self.config_maps.values().filter_map(|content| match content {
            ConfigMapContent::Unknown(failure) => Some(failure),
            ConfigMapContent::Hash(_) | ConfigMapContent::Missing => None,
        });
        let rest = [of(&self.service), of(&self.policy), of(&self.stage_pod)];
        let claims = self.claims.values().filter_map(of);
        claims.chain(rest.into_iter().flatten()).chain(self.sandboxes.values().filter_map(of)).chain(config_maps).next()
    }
}

/// The writes that bring the session further, in the order in which they are made: what protects comes before what runs.
#[must_use]
pub fn plan(observed: &Observed, settings: &Settings, now: Timestamp) -> Vec<Write> {
    match Stage::of(observed) {
        Stage::Terminating | Stage::Blocked(_) | Stage::NameTaken(_) => vec![],
        Stage::Failed(_)
        | Stage::NotStaged
        | Stage::SourceMissing(_)
        | Stage::Staging(_)
        | Stage::StagingInterrupted(_)
        | Stage::StagingFailed(_)
        | Stage::Starting { .. }
        | Stage::SandboxFailed { .. }
        | Stage::Ready => [
            network::writes(observed),
            volumes::writes(observed),
            sandboxes::removals(observed),
            staging::writes(observed, settings, now),
            sandboxes::writes(observed),
        ]
        .concat(),
    }
}

/// What to say about the session.
#[must_use]
pub fn report(observed: &Observed, now: Timestamp) -> Report<AigiseSessionStatus> {
    summary::report(observed, now)
}
