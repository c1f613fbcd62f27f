//! Where a session is in its life, in one ordered chain: the first that holds is the one that a user reads.

use std::collections::BTreeMap;

use kube::ResourceExt;

use super::{Failure, Foreign, Observed, sandboxes, staging, staging::Staging, volumes};
use crate::{
    api::{AigiseSession, condition::Reason, sandbox::SandboxState},
    plan::{name, pod::Progress, sandbox::check_template},
};

/// Where a session is in its life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It is being deleted: what it made goes with it by garbage collection.
    Terminating,
    /// Its specification cannot work; nothing is made or changed.
    Blocked(Failure),
    /// An object that is not ours has one of its names. Waits, and touches nothing.
    NameTaken(Foreign),
    /// Something could not be read or written.
    Failed(Failure),
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
    /// All sandboxes are ready.
    Ready,
}

impl Stage {
    /// Where the session is.
    #[must_use]
    pub fn of(observed: &Observed) -> Self {
        let session = &observed.session;
        if session.metadata.deletion_timestamp.is_some() {
            return Stage::Terminating;
        }
        if let Err(message) = check(session) {
            return Stage::Blocked(Failure { reason: Reason::InvalidSpec, message });
        }
        if let Some(foreign) = observed.foreign() {
            return Stage::NameTaken(foreign.clone());
        }
        if let Some(failure) = observed.failure() {
            return Stage::Failed(failure.clone());
        }
        match Staging::of(observed) {
            Staging::Failed(message) => Stage::StagingFailed(message),
            Staging::NotStarted => match staging::missing_source(observed) {
                Some(name) => Stage::SourceMissing(name.to_string()),
                None => Stage::NotStaged,
            },
            Staging::Superseded => Stage::NotStaged,
            Staging::Interrupted(message) => Stage::StagingInterrupted(message),
            Staging::InProgress(progress) => Stage::Staging(progress),
            Staging::Unneeded | Staging::Done { .. } => of_sandboxes(observed),
        }
    }

    /// Whether the volumes hold what their sources gave.
    #[must_use]
    pub fn is_staged(&self) -> bool {
        match self {
            Stage::Starting { .. } | Stage::SandboxFailed { .. } | Stage::Ready => true,
            Stage::Terminating
            | Stage::Blocked(_)
            | Stage::NameTaken(_)
            | Stage::Failed(_)
            | Stage::SourceMissing(_)
            | Stage::NotStaged
            | Stage::Staging(_)
            | Stage::StagingInterrupted(_)
            | Stage::StagingFailed(_) => false,
        }
    }
}

fn of_sandboxes(observed: &Observed) -> Stage {
    let say = |wanted: &sandboxes::Wanted<'_>| format!("{}: {}", wanted.sandbox_type, wanted.message());
    let all: Vec<_> = sandboxes::wanted(observed).collect();
    let failed: Vec<_> = all.iter().filter(|wanted| wanted.state() == SandboxState::Error).map(say).collect();
    if !failed.is_empty() {
        return Stage::SandboxFailed { cause: failed.join(" ") };
    }
    match all.iter().find(|wanted| wanted.state() != SandboxState::Ready) {
        Some(first) => Stage::Starting { cause: say(first) },
        None => match volumes::unbound(observed) {
            Some(cause) => Stage::Starting { cause },
            None => Stage::Ready,
        },
    }
}

/// The rules that admission cannot hold, or that are younger than the object.
fn check(session: &AigiseSession) -> Result<(), String> {
    name::check_session(&session.name_any()).map_err(|error| format!("metadata.name: {error}."))?;
    let mut labels = BTreeMap::new();
    for (sandbox_type, sandbox) in &session.spec.sandboxes {
        let label = name::Label::of(sandbox_type).map_err(|error| format!("spec.sandboxes: {error}."))?;
        if let Some(other) = labels.insert(label.to_string(), sandbox_type) {
            return Err(format!(
                "spec.sandboxes: `{other}` and `{sandbox_type}` have the same DNS name {label}; rename one of them."
            ));
        }
        check_template(&sandbox.template).map_err(|message| format!("spec.sandboxes.{sandbox_type}.{message}"))?;
    }
    Ok(())
}
