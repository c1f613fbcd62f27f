//! Where a session is in its life, in one ordered chain: the first that holds is the one that a user reads.

use strum::IntoStaticStr;

use super::{
    Failure, Foreign, Observed, configuration,
    lifetime::{self, SuspendReason},
    sandboxes, staging,
    staging::Staging,
    volumes,
};
use crate::{
    api::{condition::Reason, sandbox::SandboxState, session::OnExpiry},
    plan::pod::Progress,
};

/// Where a session is in its life.
#[derive(Clone, Debug, PartialEq, Eq, IntoStaticStr)]
pub enum Lifecycle {
    /// It is being deleted: what it made goes with it by garbage collection.
    Terminating,
    /// Its time is over: Pods and volumes go, or the session itself.
    Expired {
        /// What is to happen.
        then: OnExpiry,
        /// Something is still there that is to go.
        going: bool,
    },
    /// Its configuration file cannot be used; nothing is made.
    Unconfigured(Failure),
    /// Its specification cannot work; nothing is made or changed.
    Blocked(Failure),
    /// Its Pods go, its volumes stay.
    Suspended {
        /// Why.
        by: SuspendReason,
        /// The first whose Pod may still be there.
        active: Option<String>,
        /// Why it could not go on as it is written.
        invalid: Option<String>,
    },
    /// An object that is not ours has one of its names. Waits, and touches nothing.
    NameTaken(Foreign),
    /// Something could not be read or written.
    Failed(Failure),
    /// An existing claim that it uses is not there yet.
    ClaimMissing(String),
    /// A source is not there yet.
    SourceMissing(String),
    /// The stage Pod is about to be made.
    NotStaged,
    /// The stage Pod is on its way.
    Staging(Progress),
    /// The cluster took the stage Pod away; it is made anew.
    StagingInterrupted(String),
    /// The volumes could not be filled.
    StagingFailed(String),
    /// Some sandboxes are not ready yet.
    Starting {
        /// The first that is not ready, and why.
        cause: String,
    },
    /// Some sandboxes will not come back by themselves.
    SandboxFailed {
        /// Which, and why.
        cause: String,
    },
    /// Likewise, and the session goes on with the others.
    Degraded {
        /// Which, and why.
        cause: String,
        /// The first of the others that is not ready yet, and why.
        waits_for: Option<String>,
    },
    /// All sandboxes are ready.
    Ready,
}

impl Lifecycle {
    /// Where the session is.
    #[must_use]
    pub fn of(observed: &Observed) -> Self {
        let session = &observed.session;
        if session.metadata.deletion_timestamp.is_some() {
            return Lifecycle::Terminating;
        }
        if lifetime::is_expired(observed) {
            let going = sandboxes::exist(observed) || volumes::remaining(observed) || observed.stage_pod.may_be_there();
            return Lifecycle::Expired { then: session.spec.on_expiry(), going };
        }
        let obstacle = configuration::obstacle(observed);
        let invalid = obstacle.map_or_else(|| check(observed).err(), |failure| Some(failure.message.clone()));
        // What is to rest rests, whatever else it says.
        if let Some(by) = lifetime::rest(observed) {
            let stage_pod = staging::is_awake(observed).then(|| Observed::stage_pod_name(session));
            let active = sandboxes::active(observed).map(String::from).or(stage_pod);
            return Lifecycle::Suspended { by, active, invalid };
        }
        if let Some(failure) = obstacle {
            return Lifecycle::Unconfigured(failure.clone());
        }
        if let Some(message) = invalid {
            return Lifecycle::Blocked(Failure { reason: Reason::InvalidSpec, message });
        }
        if let Some(foreign) = observed.foreign() {
            return Lifecycle::NameTaken(foreign.clone());
        }
        if let Some(failure) = observed.failure() {
            return Lifecycle::Failed(failure.clone());
        }
        if let Some(claim) = volumes::missing(observed) {
            return Lifecycle::ClaimMissing(claim.to_string());
        }
        match Staging::of(observed) {
            Staging::Failed(message) => Lifecycle::StagingFailed(message),
            Staging::NotStarted => match staging::missing_source(observed) {
                Some(name) => Lifecycle::SourceMissing(name.to_string()),
                None => Lifecycle::NotStaged,
            },
            Staging::Superseded => Lifecycle::NotStaged,
            Staging::Interrupted(message) => Lifecycle::StagingInterrupted(message),
            Staging::InProgress(progress) => Lifecycle::Staging(progress),
            Staging::Unneeded | Staging::Done { .. } => of_sandboxes(observed),
        }
    }

    /// Whether the volumes hold what their sources gave.
    #[must_use]
    pub fn is_staged(&self) -> bool {
        match self {
            Lifecycle::Starting { .. }
            | Lifecycle::SandboxFailed { .. }
            | Lifecycle::Degraded { .. }
            | Lifecycle::Ready => true,
            Lifecycle::Terminating
            | Lifecycle::Expired { .. }
            | Lifecycle::Unconfigured(_)
            | Lifecycle::Blocked(_)
            | Lifecycle::Suspended { .. }
            | Lifecycle::ClaimMissing(_)
            | Lifecycle::NameTaken(_)
            | Lifecycle::Failed(_)
            | Lifecycle::SourceMissing(_)
            | Lifecycle::NotStaged
            | Lifecycle::Staging(_)
            | Lifecycle::StagingInterrupted(_)
            | Lifecycle::StagingFailed(_) => false,
        }
    }
}

fn of_sandboxes(observed: &Observed) -> Lifecycle {
    let say = |wanted: &sandboxes::Wanted<'_>| format!("{}: {}", wanted.sandbox_type, wanted.message());
    let all: Vec<_> = sandboxes::wanted(observed).collect();
    let failed: Vec<_> = all.iter().filter(|wanted| wanted.state() == SandboxState::Error).map(say).collect();
    let waits =
        |wanted: &&sandboxes::Wanted<'_>| wanted.state() == SandboxState::Uninitialized && !wanted.is_inactive();
    if !failed.is_empty() {
        let cause = failed.join(" ");
        return if observed.session.spec.continues_on_error() {
            // One that waits for a person, as it depends on one that failed, does not move.
            let waits_for = first(all.iter().filter(waits).filter(|wanted| !wanted.is_stalled())).map(say);
            Lifecycle::Degraded { cause, waits_for }
        } else {
            Lifecycle::SandboxFailed { cause }
        };
    }
    if let Some(cause) = first(all.iter().filter(waits)).map(say) {
        return Lifecycle::Starting { cause };
    }
    match (&observed.write_error, volumes::unbound(observed)) {
        (Some(failure), _) => Lifecycle::Failed(failure.clone()),
        (None, Some(cause)) => Lifecycle::Starting { cause },
        (None, None) => Lifecycle::Ready,
    }
}

/// The first that waits for more than for others; what those wait for is what holds it up.
fn first<'a, 'b>(
    mut waiting: impl Iterator<Item = &'a sandboxes::Wanted<'b>> + Clone,
) -> Option<&'a sandboxes::Wanted<'b>> {
    waiting.clone().find(|wanted| !wanted.waits_for_others()).or_else(|| waiting.next())
}

/// What is wrong with the session: by its specification alone, or by what its annotations say.
fn check(observed: &Observed) -> Result<(), String> {
    match observed.decided.invalid() {
        Some(message) => Err(message.to_string()),
        None => lifetime::check(&observed.session),
    }
}
