//! Where an agent is in its life, in one ordered chain: the first that holds is the one that a user reads.

use kube::ResourceExt;
use strum::IntoStaticStr;

use super::{
    MAX_DEPTH, Observed, coverage::Coverage, had_other_parent, required, runner, seen_parent, seen_session, state,
    unknown_types, unready_sandboxes,
};
use crate::{
    api::{
        Agent, AigiseSession,
        agent::{DesiredStatus, OnParentDeleted},
        condition::{RUNTIME_HEALTHY, Reason},
        sandbox::{SandboxPhase, SandboxState},
    },
    plan::{ChildState, Failure, Foreign, Lookup, session::is_inactive, status},
};

/// Where an agent is in its life.
#[derive(Clone, Debug, PartialEq, Eq, IntoStaticStr)]
pub enum Lifecycle {
    /// It is being deleted.
    Terminating,
    /// What it goes with is gone: it goes as well.
    OwnerGone(String),
    /// Its session is gone and wanted it to stay.
    Orphaned,
    /// Something about it is in the way.
    Blocked(Failure),
    /// Its session or its parent could not be read, or something of its Pod's could not be read or made.
    Failed(Failure),
    /// It does nothing, and nobody wants it to.
    Inactive(Inactivity),
    /// Something that it needs is not there yet.
    Waits {
        /// Which condition says so.
        reason: Reason,
        /// A person has to do something, and not here.
        stalled: bool,
        /// For what.
        message: String,
    },
    /// The session does not have these tools and skills.
    NotCovered(Vec<String>),
    /// A Sandbox that is not ours has the name of its own.
    NameTaken(Foreign),
    /// It has what it needs, and its Sandbox is made.
    NoRunner,
    /// Its Sandbox will not come back by itself.
    RunnerFailed(String),
    /// The program that ran it has ended with 0.
    Finished(String),
    /// The program that runs it says that it is not well.
    Unhealthy(String),
    /// It has what it needs.
    Active,
}

/// Why an agent does nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inactivity {
    /// `desiredStatus: paused`.
    Paused,
    /// `desiredStatus: stopped`.
    Stopped,
    /// Its session is suspended, or its time is over.
    BySession,
}

impl Lifecycle {
    /// Where the agent is.
    #[must_use]
    pub fn of(observed: &Observed) -> Self {
        match (Self::of_what_is(observed), &observed.write_error) {
            // Also one that rests is not there as long as its Pod could not be taken away.
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
            let message = format!("Waits for the session {}, which is not there yet.", agent.spec.session);
            return waits(Reason::SessionNotFound, message);
        };
        if is_inactive(session) {
            return Lifecycle::Inactive(Inactivity::BySession);
        }
        if let Some(name) = agent.spec.parent.as_ref().filter(|_| never_had_parent(observed)) {
            return waits(
                Reason::ParentNotFound,
                format!("Waits for its parent, the agent {name}, which is not there yet."),
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

/// What its Sandbox says, unless it runs.
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
            Some(Lifecycle::Finished("The program that ran it has ended with 0.".into()))
        }
        (Some(SandboxState::Uninitialized) | None, _) => {
            let words = words.unwrap_or_else(|| "it is new.".into());
            Some(waits(Reason::RunnerNotReady, format!("The Pod that runs it is on its way: {words}")))
        }
    }
}

fn waits(reason: Reason, message: String) -> Lifecycle {
    Lifecycle::Waits { reason, stalled: false, message }
}

/// The session, if it is there; or what it means that it is not.
fn session(observed: &Observed) -> Result<Option<&AigiseSession>, Box<Lifecycle>> {
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

/// What becomes of an agent whose parent is gone.
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
        return Err(Box::new(Lifecycle::OwnerGone(format!("Its parent, the agent {name}, is gone"))));
    }
    Ok(())
}

/// Whether its parent is not there and never was.
fn never_had_parent(observed: &Observed) -> bool {
    observed.parent.found().is_none() && seen_parent(&observed.agent).is_none()
}

/// What is wrong with its place in the tree.
fn misplaced(observed: &Observed) -> Option<String> {
    let agent = &observed.agent;
    let parent = agent.spec.parent.as_deref()?;
    if let Some(found) = observed.parent.found().filter(|found| found.spec.session != agent.spec.session) {
        return Some(format!("spec.parent: {parent} is an agent of another session, {}.", found.spec.session));
    }
    let names: Vec<_> = observed.ancestors.iter().map(|above| above.name_any()).collect();
    let own = agent.name_any();
    if let Some(at) = names.iter().position(|name| *name == own) {
        return Some(format!("spec.parent: {own} → {}, which is a circle.", names[..=at].join(" → ")));
    }
    if let Some((last, others)) = names.split_last().filter(|(last, others)| others.contains(last)) {
        return Some(format!("spec.parent: {last} is among its own ancestors ({}).", others.join(" → ")));
    }
    (names.len() > MAX_DEPTH).then(|| format!("spec.parent: there are more than {MAX_DEPTH} agents above it."))
}

/// What it waits for among the sandboxes. Which of them are ready, and what each says of itself, is not repeated: it would be in
/// each agent of a session, at each change.
fn sandboxes(observed: &Observed, session: &AigiseSession) -> Option<Lifecycle> {
    let waiting: Vec<_> = unready_sandboxes(observed, session).collect();
    let failed =
        waiting.iter().find(|(_, sandbox)| sandbox.is_some_and(|sandbox| state(sandbox) == SandboxState::Error));
    match (failed, waiting.is_empty()) {
        (Some((sandbox_type, _)), _) => Some(Lifecycle::Waits {
            reason: Reason::SandboxFailed,
            stalled: true,
            message: format!("The sandbox {sandbox_type} has failed, and the agent needs it."),
        }),
        (None, true) => None,
        (None, false) => {
            let required: Vec<_> = required(&observed.agent, session).into_iter().collect();
            Some(waits(
                Reason::SandboxesNotReady,
                format!("Waits until these sandboxes are ready: {}.", required.join(", ")),
            ))
        }
    }
}

/// What the program that runs it says, if it is not well.
fn unhealthy(agent: &Agent) -> Option<String> {
    let conditions = agent.status.iter().flat_map(|status| &status.conditions);
    let mut reports = conditions.filter(|condition| condition.type_ == RUNTIME_HEALTHY && condition.status == "False");
    reports.next().map(|report| format!("{}: {}", report.reason, report.message))
}
