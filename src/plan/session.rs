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
pub mod exec;
mod lifecycle;
mod lifetime;
mod network;
mod observed;
mod sandboxes;
mod staging;
mod summary;
mod volumes;

pub use self::{
    lifecycle::Lifecycle,
    observed::{ConfigMapContent, Observed},
    staging::{Staging, config_maps, content_hash, wants_sources},
};
use super::{Applied, ChildState, Created, Failure, Foreign, Report, Write, name, volumes::SharedVolume};
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
}

impl Situation {
    /// Derives the situation.
    #[must_use]
    pub fn of(observed: &Observed) -> Self {
        let staging = Staging::of(observed);
        Self { lifecycle: Lifecycle::of(observed, &staging), staging }
    }
}

/// The writes that move the session forward, in the order in which they are made: network policies come before Pods.
#[must_use]
pub fn plan(observed: &Observed, situation: &Situation) -> Vec<Write> {
    match &situation.lifecycle {
        Lifecycle::Terminating | Lifecycle::Unconfigured(_) | Lifecycle::Blocked(_) | Lifecycle::NameTaken(_) => vec![],
        Lifecycle::Expired { then: OnExpiry::Delete, .. } => {
            vec![Write::delete(&observed.session)]
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
            sandboxes::writes(observed, false),
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
            staging::writes(observed, &situation.staging),
            sandboxes::writes(observed, situation.lifecycle.is_staged()),
            // Many storage classes forbid expansion. This comes last: its failure must not block other writes.
            volumes::growth(observed),
        ]
        .concat(),
    }
}

/// What to report about the session.
#[must_use]
pub fn report(observed: &Observed, situation: &Situation) -> Report<AigiseSessionStatus> {
    summary::report(observed, situation)
}

/// Whether an object that the session's status reports is missing. A user may have deleted it; or the session itself is gone, the
/// garbage collector is deleting its children, and the watch event is late.
#[must_use]
pub fn child_disappeared(observed: &Observed) -> bool {
    let Some(said) = observed.session.status() else { return false };
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
