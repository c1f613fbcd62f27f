//! Where an agent is in its life. The checks are in order, and users read the first that applies.

use kube::ResourceExt;
use strum::IntoStaticStr;

use super::{MAX_DEPTH, Observed, coverage::Coverage, required, runner, state, unknown_types, unready_sandboxes};
use crate::{
    api::{
        Agent,
        agent::{DesiredStatus, OnParentDeleted},
        condition::{RUNTIME_HEALTHY, Reason},
        sandbox::{SandboxPhase, SandboxState},
    },
    plan::{
        ChildState, Failure, Foreign, Lookup,
        effective::EffectiveSession,
        facts::agent::{had_other_parent, seen_parent, seen_session},
        status,
    },
};

/// Where an agent is in its life.
#[derive(Clone, Debug, PartialEq, Eq, IntoStaticStr)]
pub enum Lifecycle {
    /// The agent is being deleted.
    Terminating,
    /// The agent's session or parent is gone: the agent is deleted as well.
    OwnerGone(String),
    /// The agent's session is gone, and the agent was kept.
    Orphaned,
    /// The agent itself has a problem.
    Blocked(Failure),
    /// The agent's session or parent could not be read, or an object of its Pod could not be read or written.
    Failed(Failure),
    /// The agent is paused, stopped or suspended.
    Inactive(Inactivity),
    /// An object that the agent needs is not there yet.
    Waits {
        /// The reason in the conditions.
        reason: Reason,
        /// Whether the user has to fix another object.
        stalled: bool,
        /// What the agent waits for.
        message: String,
    },
    /// The session does not have these tools and skills.
    NotCovered(Vec<String>),
    /// A foreign Sandbox has the name of the agent's Sandbox.
    NameTaken(Foreign),
    /// The agent has everything that it needs, and its Sandbox is created.
    NoRunner,
    /// The agent's Sandbox has failed and does not recover without the user.
    RunnerFailed(String),
    /// The agent's program has ended with exit code 0.
    Finished(String),
    /// The agent's program reports that it is not healthy.
    Unhealthy(String),
    /// The agent has everything that it needs.
    Active,
}

/// Why an agent is inactive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inactivity {
    /// `desiredStatus: paused`.
    Paused,
    /// `desiredStatus: stopped`.
    Stopped,
    /// The session is suspended or expired.
    BySession,
}

impl Lifecycle {
    /// Derives the lifecycle of the agent.
    pub fn of(observed: &Observed) -> Self {
        match (Self::of_what_is(observed), &observed.write_error) {
            // This includes an inactive agent: it is not inactive yet if its Pod could not be deleted.
            (lifecycle, Some(failure)) if !matches!(lifecycle, Lifecycle::OwnerGone(_)) => {
                Lifecycle::Failed(failure.clone())
            }
            (lifecycle, _) => lifecycle,
        }
    }

    fn of_what_is(observed: &Observed) -> Self {
        let agent = &observed.agent;
        if agent.metadata.deletion_timestamp.is_some() {
            return Lifecycle::Terminating;
        }
        let session = match session(observed) {
            Ok(session) => session,
            Err(lifecycle) => return *lifecycle,
        };
        if let Err(lifecycle) = parent(observed) {
            return *lifecycle;
        }
        match agent.spec.desired_status() {
            DesiredStatus::Paused => return Lifecycle::Inactive(Inactivity::Paused),
            DesiredStatus::Stopped => return Lifecycle::Inactive(Inactivity::Stopped),
            DesiredStatus::Active => {}
        }
        if let Some(message) = misplaced(observed) {
            return Lifecycle::Blocked(Failure { reason: Reason::InvalidSpec, message });
        }
        let Some(session) = session else {
            let message = format!("The agent waits for the session {}, which does not exist yet.", agent.spec.session);
            return waits(Reason::SessionNotFound, message);
        };
        if session.is_inactive() {
            return Lifecycle::Inactive(Inactivity::BySession);
        }
        if let Some(name) = agent.spec.parent.as_ref().filter(|_| never_had_parent(observed)) {
            return waits(
                Reason::ParentNotFound,
                format!("The agent waits for its parent, the agent {name}, which does not exist yet."),
            );
        }
        if let [first, ..] = unknown_types(observed, session).as_slice() {
            let message = format!(
                "spec.requires.sandboxes: the session {} has no sandbox of the type {first}.",
                agent.spec.session
            );
            return Lifecycle::Blocked(Failure { reason: Reason::InvalidSpec, message });
        }
        let coverage = Coverage::of(agent, session);
        if let Coverage::Lacks(missing) = coverage {
            return Lifecycle::NotCovered(missing);
        }
        if let Some(wait) = sandboxes(observed, session) {
            return wait;
        }
        if session.saves_first() {
            let message = format!("The agent waits until the session {} has saved its cache.", session.name_any());
            return waits(Reason::SavingCache, message);
        }
        if session.may_discard() {
            let message = format!(
                "The agent waits until the session {} is ready for the first time, since what was restored from a cache may still be discarded.",
                session.name_any()
            );
            return waits(Reason::Restoring, message);
        }
        if coverage == Coverage::Unknown {
            let message = format!("The session {} has not filled its volumes yet.", session.name_any());
            return waits(Reason::VolumesNotReady, message);
        }
        if let Some(lifecycle) = of_runner(observed) {
            return lifecycle;
        }
        match unhealthy(agent) {
            Some(message) => Lifecycle::Unhealthy(message),
            None => Lifecycle::Active,
        }
    }
}

/// The lifecycle that follows from the agent's Sandbox; `None` if the Sandbox is ready, or the agent has no runner.
fn of_runner(observed: &Observed) -> Option<Lifecycle> {
    let runner = observed.agent.spec.runner.as_ref()?;
    if let Err(failure) = runner::check(runner, &observed.settings) {
        return Some(Lifecycle::Blocked(failure));
    }
    let live = match &observed.runner {
        ChildState::Absent => return Some(Lifecycle::NoRunner),
        ChildState::Foreign(foreign) => return Some(Lifecycle::NameTaken(foreign.clone())),
        ChildState::Failed(failure) => return Some(Lifecycle::Failed(failure.clone())),
        ChildState::Owned(live) => live,
    };
    let status = live.status.as_ref().filter(|status| status.observed_generation == live.metadata.generation);
    let words = status.and_then(|status| status::ready(&status.conditions)).map(|ready| ready.message.clone());
    match (status.and_then(|status| status.state), status.and_then(|status| status.phase)) {
        (Some(SandboxState::Ready), _) => None,
        (Some(SandboxState::Error), _) => Some(Lifecycle::RunnerFailed(words.unwrap_or_default())),
        (_, Some(SandboxPhase::Finished)) => {
            Some(Lifecycle::Finished("The program of the agent has ended with exit code 0.".into()))
        }
        (Some(SandboxState::Uninitialized) | None, _) => {
            let not_observed = "The sandbox controller has not observed the latest specification yet.";
            let words = words.unwrap_or_else(|| not_observed.into());
            Some(waits(Reason::RunnerNotReady, format!("The agent's Pod is not ready: {words}")))
        }
    }
}

fn waits(reason: Reason, message: String) -> Lifecycle {
    Lifecycle::Waits { reason, stalled: false, message }
}

/// The agent's session, if it exists; or the lifecycle that follows from its absence.
fn session(observed: &Observed) -> Result<Option<&EffectiveSession>, Box<Lifecycle>> {
    let agent = &observed.agent;
    if let Lookup::Failed(failure) = &observed.session {
        return Err(Box::new(Lifecycle::Failed(failure.clone())));
    }
    match (observed.own_session(), seen_session(agent)) {
        (None, Some(seen)) if seen.auto_cleanup => {
            Err(Box::new(Lifecycle::OwnerGone(format!("The session {} is gone", agent.spec.session))))
        }
        (None, Some(_)) => Err(Box::new(Lifecycle::Orphaned)),
        (session, _) => Ok(session),
    }
}

/// Checks the agent's parent: an agent may have to be deleted with it.
fn parent(observed: &Observed) -> Result<(), Box<Lifecycle>> {
    let agent = &observed.agent;
    let is_gone = match &observed.parent {
        Lookup::Failed(failure) => return Err(Box::new(Lifecycle::Failed(failure.clone()))),
        Lookup::Found(parent) => had_other_parent(agent, parent),
        Lookup::Missing => seen_parent(agent).is_some(),
        Lookup::NotNamed => false,
    };
    if is_gone && agent.spec.on_parent_deleted() == OnParentDeleted::Delete {
        let name = agent.spec.parent.as_deref().unwrap_or_default();
        return Err(Box::new(Lifecycle::OwnerGone(format!("The parent, the agent {name}, is gone"))));
    }
    Ok(())
}

/// Whether the parent does not exist and never did.
fn never_had_parent(observed: &Observed) -> bool {
    observed.parent.found().is_none() && seen_parent(&observed.agent).is_none()
}

/// What is wrong with the agent's place in the tree, if anything.
fn misplaced(observed: &Observed) -> Option<String> {
    let agent = &observed.agent;
    let parent = agent.spec.parent.as_deref()?;
    if let Some(found) = observed.parent.found().filter(|found| found.spec.session != agent.spec.session) {
        return Some(format!("spec.parent: {parent} is an agent of another session, {}.", found.spec.session));
    }
    let names: Vec<_> = observed.ancestors.iter().map(|above| above.name_any()).collect();
    let own = agent.name_any();
    if let Some(at) = names.iter().position(|name| *name == own) {
        return Some(format!("spec.parent: {own} → {}, which is a cycle.", names[..=at].join(" → ")));
    }
    if let Some((last, others)) = names.split_last().filter(|(last, others)| others.contains(last)) {
        return Some(format!("spec.parent: {last} is among its own ancestors ({}).", others.join(" → ")));
    }
    (names.len() > MAX_DEPTH).then(|| format!("spec.parent: the agent has more than {MAX_DEPTH} ancestors."))
}

/// Checks the required sandboxes. The message does not say which of them are ready, or why not: otherwise each change of a sandbox would
/// cause a status write for every agent of the session.
fn sandboxes(observed: &Observed, session: &EffectiveSession) -> Option<Lifecycle> {
    let waiting: Vec<_> = unready_sandboxes(observed, session).collect();
    let failed =
        waiting.iter().find(|(_, sandbox)| sandbox.is_some_and(|sandbox| state(sandbox) == SandboxState::Error));
    match (failed, waiting.is_empty()) {
        (Some((sandbox_type, _)), _) => Some(Lifecycle::Waits {
            reason: Reason::SandboxFailed,
            stalled: true,
            message: format!("The sandbox {sandbox_type}, which the agent requires, has failed."),
        }),
        (None, true) => None,
        (None, false) => {
            let required: Vec<_> = required(&observed.agent, session).into_iter().collect();
            Some(waits(
                Reason::SandboxesNotReady,
                format!("The agent waits until these sandboxes are ready: {}.", required.join(", ")),
            ))
        }
    }
}

/// What the agent's program reports, if it is not healthy.
fn unhealthy(agent: &Agent) -> Option<String> {
    let conditions = agent.status.iter().flat_map(|status| &status.conditions);
    let mut reports = conditions.filter(|condition| condition.type_ == RUNTIME_HEALTHY && condition.status == "False");
    reports.next().map(|report| format!("{}: {}", report.reason, report.message))
}
