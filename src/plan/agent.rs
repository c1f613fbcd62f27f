//! One agent: its place in the tree, what it needs, where it is in its life, and the Pod that runs it where it has one.
//!
//! The walk of an agent whose session is there (`tests/walks/agent-happy-path.yaml` prints it):
//!
//! | sees | lifecycle | says |
//! |---|---|---|
//! | no session, or no parent yet | `Waits` | `status: created` |
//! | a sandbox that it requires is not ready | `Waits` | `status: created` |
//! | a tool or skill that the session does not have | `NotCovered` | `status: pending_tools` |
//! | all is there | `Active` | `status: active`, `Ready=True` |
//! | all is there, and it is to have a Pod | `NoRunner`, then `Waits` | `status: created`; makes its [`runner`] |
//! | its user wants it to rest | `Inactive` | `status: paused` or `stopped` |
//! | its parent was deleted, and it is to go with it | `OwnerGone` | deletes itself |

mod coverage;
mod lifecycle;
pub mod runner;
mod summary;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use jiff::Timestamp;

use self::lifecycle::Inactivity;
pub use self::{lifecycle::Lifecycle, runner::LegacyExecAccess};
use super::{
    ChildState, Failure, Lookup, Outcome, Report, Settings, Write, membership,
    name::Label,
    sandbox::is_hand_made,
    session::{launchable, launched, top_root},
};
use crate::api::{
    Agent, AgentStatus, AigiseSession, Sandbox,
    agent::SeenParent,
    sandbox::{SandboxState, SeenSession},
};

/// The longest line of ancestors.
pub const MAX_DEPTH: usize = 32;

/// All that is known of an agent when it is decided about.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The agent itself.
    pub agent: Arc<Agent>,
    /// The session that it names.
    pub session: Lookup<AigiseSession>,
    /// The agent that it names as its parent.
    pub parent: Lookup<Agent>,
    /// The agents above it, as far as they are known: the parent first, [`MAX_DEPTH`] and one more at most.
    pub ancestors: Vec<Arc<Agent>>,
    /// The names of the agents directly below it.
    pub children: BTreeSet<String>,
    /// The session's sandboxes of the types that it [reads](read_types): the first of each.
    pub sandboxes: Vec<Arc<Sandbox>>,
    /// The Sandbox that runs it.
    pub runner: ChildState<Sandbox>,
    /// What an earlier version let its Pod in by, where that is over.
    pub legacy_exec_access: Option<LegacyExecAccess>,
    /// What the operator was told.
    pub settings: Arc<Settings>,
    /// Why something could not be written just now.
    pub write_error: Option<Failure>,
    /// The time.
    pub now: Timestamp,
}

impl Observed {
    /// The session, if it is there, and not another one of its name.
    fn own_session(&self) -> Option<&AigiseSession> {
        self.session.found().map(AsRef::as_ref).filter(|session| !belonged_to_other_session(&self.agent, session))
    }

    /// Takes in what a write left.
    pub fn record(&mut self, outcome: Outcome) {
        match outcome {
            Outcome::Agent(ChildState::Failed(failure))
            | Outcome::Sandbox(ChildState::Failed(failure))
            | Outcome::NetworkPolicy(ChildState::Failed(failure))
            | Outcome::ServiceAccount(ChildState::Failed(failure))
            | Outcome::Role(ChildState::Failed(failure))
            | Outcome::RoleBinding(ChildState::Failed(failure)) => self.write_error = Some(failure),
            Outcome::Sandbox(child) => self.runner = child,
            _ => {} // nothing else is an agent's to write
        }
    }
}

/// The session that the agent belongs to, as it was last seen.
fn seen_session(agent: &Agent) -> Option<&SeenSession> {
    agent.status.as_ref()?.session.as_ref()
}

/// The parent, as it was last seen. One that the agent no longer names is nothing to it.
fn seen_parent(agent: &Agent) -> Option<&SeenParent> {
    agent.status.as_ref()?.parent.as_ref().filter(|seen| Some(&seen.name) == agent.spec.parent.as_ref())
}

/// Whether the agent belonged to another session than this one, which has its name.
#[must_use]
pub fn belonged_to_other_session(agent: &Agent, session: &AigiseSession) -> bool {
    membership::is_other_session(seen_session(agent), session)
}

/// Whether the agent had another parent than this one, which has its name.
#[must_use]
pub fn had_other_parent(agent: &Agent, parent: &Agent) -> bool {
    seen_parent(agent).is_some_and(|seen| Some(&seen.uid) != parent.metadata.uid.as_ref())
}

/// The types of sandboxes that have to be ready: those that it names, and `main`, where the session has it.
#[must_use]
pub fn required<'a>(agent: &'a Agent, session: &'a AigiseSession) -> BTreeSet<&'a str> {
    let main = launched(session).into_iter().find(|sandbox_type| *sandbox_type == MAIN);
    agent.spec.required_sandboxes().iter().map(String::as_str).chain(main).collect()
}

/// The labels of the types whose sandboxes an agent reads, whatever its session has.
#[must_use]
pub fn read_types(agent: &Agent) -> BTreeSet<Label> {
    let named = agent.spec.required_sandboxes().iter().map(String::as_str);
    named.chain([MAIN]).filter_map(|sandbox_type| Label::of(sandbox_type).ok()).collect()
}

/// The sandbox that every agent works in.
pub const MAIN: &str = "main";

/// The sandboxes that are required, and what each says of itself: nothing of one that is not there yet.
fn required_sandboxes<'a>(
    observed: &'a Observed,
    session: &'a AigiseSession,
) -> impl Iterator<Item = (&'a str, Option<&'a Sandbox>)> {
    // Of several of a type, the one that can be worked in; else the session's own.
    let rank = |sandbox: &Sandbox| (state(sandbox) == SandboxState::Ready, !is_hand_made(sandbox));
    let mut best = BTreeMap::<Label, &Sandbox>::new();
    for sandbox in &observed.sandboxes {
        if let Ok(label) = Label::of(&sandbox.spec.sandbox_type)
            && best.get(&label).is_none_or(|other| rank(other) <= rank(sandbox))
        {
            best.insert(label, sandbox);
        }
    }
    required(&observed.agent, session).into_iter().map(move |sandbox_type| {
        (sandbox_type, Label::of(sandbox_type).ok().and_then(|label| best.get(&label).copied()))
    })
}

/// Those of them that are not ready.
fn unready_sandboxes<'a>(
    observed: &'a Observed,
    session: &'a AigiseSession,
) -> impl Iterator<Item = (&'a str, Option<&'a Sandbox>)> {
    let is_ready = |sandbox: &Sandbox| state(sandbox) == SandboxState::Ready;
    required_sandboxes(observed, session).filter(move |(_, sandbox)| !sandbox.is_some_and(is_ready))
}

fn state(sandbox: &Sandbox) -> SandboxState {
    sandbox.status.as_ref().and_then(|status| status.state).unwrap_or_default()
}

/// Required types that the session does not have, and that nobody made by hand.
fn unknown_types<'a>(observed: &'a Observed, session: &'a AigiseSession) -> Vec<&'a str> {
    let known = launchable(session);
    let missing = required_sandboxes(observed, session).filter(|(_, sandbox)| sandbox.is_none());
    missing.map(|(sandbox_type, _)| sandbox_type).filter(|sandbox_type| !known.contains(sandbox_type)).collect()
}

/// The writes that bring the agent further.
#[must_use]
pub fn plan(observed: &Observed) -> Vec<Write> {
    decide(observed).1
}

/// The name of the lifecycle stage that the object is in, and the writes that bring it further.
#[must_use]
pub fn decide(observed: &Observed) -> (&'static str, Vec<Write>) {
    let lifecycle = Lifecycle::of(observed);
    ((&lifecycle).into(), writes(observed, &lifecycle))
}

fn writes(observed: &Observed, lifecycle: &Lifecycle) -> Vec<Write> {
    let writes = match lifecycle {
        Lifecycle::OwnerGone(_) => vec![Write::delete(&*observed.agent)],
        Lifecycle::NoRunner => runner::start(observed),
        Lifecycle::Inactive(Inactivity::Paused | Inactivity::Stopped) | Lifecycle::Orphaned => runner::removal(observed),
        Lifecycle::Blocked(_)
        // A session that rests has its sandboxes rest, and this is one of them.
        | Lifecycle::Inactive(Inactivity::BySession)
        | Lifecycle::Waits { .. }
        | Lifecycle::NotCovered(_)
        | Lifecycle::Unhealthy(_)
        | Lifecycle::RunnerFailed(_)
        | Lifecycle::Finished(_)
        | Lifecycle::Active => runner::changes(observed),
        Lifecycle::Terminating | Lifecycle::NameTaken(_) | Lifecycle::Failed(_) => vec![],
    };
    writes.into_iter().chain(observed.legacy_exec_access.iter().flat_map(LegacyExecAccess::removal)).collect()
}

/// Whether the Sandbox is missing that the agent says was there: somebody has deleted it, or the agent itself is gone, and the
/// watch is late to tell.
#[must_use]
pub fn child_disappeared(observed: &Observed) -> bool {
    let status = observed.agent.status.as_ref();
    observed.runner == ChildState::Absent && status.is_some_and(|status| status.pod_name.is_some())
}

/// What to say about the agent.
#[must_use]
pub fn report(observed: &Observed) -> Report<AgentStatus> {
    summary::report(observed)
}

/// The agents above one, in the words of whoever knows them by name. It ends where nobody is above, where somebody comes for the
/// second time, and where there are more than an agent may have.
pub fn ancestors(agent: &Agent, find: impl Fn(&str) -> Option<Arc<Agent>>) -> Vec<Arc<Agent>> {
    let mut line: Vec<Arc<Agent>> = vec![];
    let mut next = agent.spec.parent.clone();
    while let Some(above) = next.and_then(|name| find(&name)).filter(|above| above.spec.session == agent.spec.session) {
        let is_known = line.iter().any(|known| known.metadata.name == above.metadata.name);
        next = above.spec.parent.clone().filter(|_| !is_known && line.len() < MAX_DEPTH);
        line.push(above);
    }
    line
}

/// What agents ask of their session.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Demand {
    /// Types of sandboxes.
    pub sandboxes: BTreeSet<String>,
    /// First-level folders of the tools volume.
    pub tools_roots: BTreeSet<String>,
}

impl Demand {
    /// What these agents ask of this session. One that was made for an earlier session of the name asks nothing.
    #[must_use]
    pub fn of(agents: &BTreeMap<String, Arc<Agent>>, session: &AigiseSession) -> Self {
        let present = agents
            .values()
            .filter(|agent| agent.metadata.deletion_timestamp.is_none() && !belonged_to_other_session(agent, session));
        let (mut demand, enabled) = (Demand::default(), coverage::Enabled::by(session));
        for agent in present {
            demand.sandboxes.extend(agent.spec.required_sandboxes().iter().cloned());
            // What its session does not enable, an agent does not get, also if it is staged.
            let skills = coverage::skills(agent).iter().filter(|skill| enabled.has(skill));
            demand.tools_roots.extend(skills.filter_map(|skill| top_root(skill)));
        }
        demand
    }
}
