//! Where a session is in its life. The checks are in order, and users read the first that applies.

use strum::IntoStaticStr;

use super::{
    Caching, Failure, Foreign, Observed, cache, configuration,
    lifetime::{self, SuspendReason},
    sandboxes, staging,
    staging::Staging,
    volumes,
};
use crate::{
    api::{
        condition::Reason,
        sandbox::SandboxState,
        session::{MissReason, OnExpiry},
    },
    plan::pod::Progress,
    protocol::staging::Fault,
};

/// Where a session is in its life.
#[derive(Clone, Debug, PartialEq, Eq, IntoStaticStr)]
pub enum Lifecycle {
    /// The session is being deleted; garbage collection deletes its children.
    Terminating,
    /// The lifetime of the session is over: its Pods and volumes are deleted, or the session itself.
    Expired {
        /// What is deleted.
        then: OnExpiry,
        /// Whether an object that is to be deleted still exists.
        going: bool,
    },
    /// The configuration file cannot be used; nothing is created.
    Unconfigured(Failure),
    /// The spec cannot work; nothing is created or changed.
    Blocked(Failure),
    /// The session is suspended: its Pods are deleted, its volumes are kept.
    Suspended {
        /// Why the session is suspended.
        by: SuspendReason,
        /// The first Pod that may still exist.
        active: Option<String>,
        /// Why the session could not be resumed with its present spec.
        invalid: Option<String>,
    },
    /// A foreign object has a name that the session needs. The session waits and changes nothing.
    NameTaken(Foreign),
    /// An object could not be read or written.
    Failed(Failure),
    /// A claim that the session uses by name does not exist yet.
    ClaimMissing(String),
    /// A source does not exist yet.
    SourceMissing(String),
    /// The session requires a cache, and none fits.
    CacheMissing(MissReason),
    /// The volumes are being restored from a cache, which this message describes.
    Restoring(String),
    /// The sandboxes are ready, and what their initialisers left is being saved, which this message describes.
    SavingCache(String),
    /// The stage Pod is about to be created.
    NotStaged,
    /// The stage Pod is starting or running.
    Staging(Progress),
    /// The cluster ended the stage Pod; it is recreated.
    StagingInterrupted(String),
    /// The volumes could not be filled.
    StagingFailed {
        /// What went wrong.
        message: String,
        /// What has to change.
        fault: Fault,
    },
    /// Some sandboxes are not ready yet.
    Starting {
        /// The first sandbox that is not ready, and why.
        cause: String,
    },
    /// Some sandboxes have failed and do not recover without the user.
    SandboxFailed {
        /// The sandboxes that failed, and why.
        cause: String,
    },
    /// Some sandboxes have failed, and the session continues with the others.
    Degraded {
        /// The sandboxes that failed, and why.
        cause: String,
        /// The first other sandbox that is not ready yet, and why.
        waits_for: Option<String>,
    },
    /// All sandboxes are ready.
    Ready,
}

impl Lifecycle {
    /// Derives the lifecycle of the session.
    pub(super) fn of(observed: &Observed, staging: &Staging, caching: &Caching) -> Self {
        let session = &observed.session;
        if session.metadata().deletion_timestamp.is_some() {
            return Lifecycle::Terminating;
        }
        if lifetime::is_expired(observed) {
            let going = sandboxes::exist(observed)
                || volumes::remaining(observed)
                || observed.stage_pod.may_be_there()
                || observed.pull_pod.owned().is_some()
                || cache::active(observed).is_some();
            return Lifecycle::Expired { then: session.on_expiry(), going };
        }
        let obstacle = configuration::obstacle(observed);
        let invalid = obstacle.map_or_else(|| invalid(observed), |failure| Some(failure.message.clone()));
        // Suspension takes precedence: it works even if the rest of the spec is invalid.
        if let Some(by) = lifetime::rest(observed) {
            let active = sandboxes::active(observed).map(String::from);
            let active = active.or_else(|| staging::active(observed)).or_else(|| cache::active(observed));
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
        if let Some(reason) = caching.required() {
            return Lifecycle::CacheMissing(reason);
        }
        if caching.is_restoring() && staging::missing_source(observed).is_none() {
            return Lifecycle::Restoring(cache::restoring_in_words(observed, caching));
        }
        match staging {
            Staging::Failed { message, fault } => {
                Lifecycle::StagingFailed { message: message.clone(), fault: fault.clone() }
            }
            Staging::NotStarted | Staging::Superseded => match staging::missing_source(observed) {
                Some(name) => Lifecycle::SourceMissing(name.to_string()),
                None => Lifecycle::NotStaged,
            },
            Staging::Interrupted(message) => Lifecycle::StagingInterrupted(message.clone()),
            Staging::InProgress(progress) => Lifecycle::Staging(progress.clone()),
            Staging::Unneeded | Staging::Done { .. } => match of_sandboxes(observed) {
                Lifecycle::Ready if caching.is_saving() => {
                    Lifecycle::SavingCache(cache::saving_in_words(observed, caching))
                }
                lifecycle => lifecycle,
            },
        }
    }

    /// Whether the volumes hold the files of their sources.
    pub fn is_staged(&self) -> bool {
        match self {
            Lifecycle::Starting { .. }
            | Lifecycle::SandboxFailed { .. }
            | Lifecycle::Degraded { .. }
            | Lifecycle::SavingCache(_)
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
            | Lifecycle::CacheMissing(_)
            | Lifecycle::Restoring(_)
            | Lifecycle::NotStaged
            | Lifecycle::Staging(_)
            | Lifecycle::StagingInterrupted(_)
            | Lifecycle::StagingFailed { .. } => false,
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
        return if observed.session.continues_on_error() {
            // A stalled sandbox, such as one whose dependency failed, makes no progress, so the session does not wait for it.
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

/// The first sandbox that does not only wait for other sandboxes, since these others are the cause; otherwise the first one.
fn first<'a, 'b>(
    mut waiting: impl Iterator<Item = &'a sandboxes::Wanted<'b>> + Clone,
) -> Option<&'a sandboxes::Wanted<'b>> {
    waiting.clone().find(|wanted| !wanted.waits_for_others()).or_else(|| waiting.next())
}

/// What is wrong with the session's spec and annotations.
fn invalid(observed: &Observed) -> Option<String> {
    let of_spec = observed.decided.invalid().cloned();
    of_spec.or_else(|| observed.session.last_activity().err()).map(|invalid| invalid.to_string())
}
