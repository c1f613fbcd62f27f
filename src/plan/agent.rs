//! One agent: its place in the tree, its requirements, its lifecycle, and its Pod if it has a runner.
//!
//! The life of an agent whose session exists (`tests/walks/agent-happy-path.yaml` has it in full):
//!
//! | observed | lifecycle | reports |
//! |---|---|---|
//! | no session, or no parent yet | `Waits` | `status: created` |
//! | a sandbox that the agent requires is not ready | `Waits` | `status: created` |
//! | a tool or skill that the session does not have | `NotCovered` | `status: pending_tools` |
//! | everything is there | `Active` | `status: active`, `Ready=True` |
//! | everything is there, and the agent has a runner | `NoRunner`, then `Waits` | `status: created`; creates its [`runner`] |
//! | the user paused or stopped the agent | `Inactive` | `status: paused` or `stopped` |
//! | the parent was deleted, with `onParentDeleted: Delete` | `OwnerGone` | deletes the agent |

mod coverage;
mod lifecycle;
mod observed;
pub mod runner;
mod summary;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use self::lifecycle::Inactivity;
pub use self::{lifecycle::Lifecycle, observed::Observed, runner::LegacyExecAccess};
use super::{
    ChildState, Decide, Failure, Lookup, Outcome, Report, Trouble, Write,
    effective::EffectiveSession,
    facts::{agent::MAIN, sandbox::is_hand_made},
    name::Label,
};
use crate::api::{Agent, AgentStatus, Sandbox, sandbox::SandboxState};

/// The largest number of ancestors of an agent.
pub const MAX_DEPTH: usize = 32;

/// The types of sandboxes that have to be ready: those that the agent names, and `main` if the session has it.
pub fn required<'a>(agent: &'a Agent, session: &'a EffectiveSession) -> BTreeSet<&'a str> {
    let main = session.launched().into_iter().find(|sandbox_type| *sandbox_type == MAIN);
    agent.spec.required_sandboxes().iter().map(String::as_str).chain(main).collect()
}

/// The labels of the types whose sandboxes an agent reads, whether or not its session has them.
pub fn read_types(agent: &Agent) -> BTreeSet<Label> {
    let named = agent.spec.required_sandboxes().iter().map(String::as_str);
    named.chain([MAIN]).filter_map(|sandbox_type| Label::of(sandbox_type).ok()).collect()
}

/// The required types of sandboxes, each with its Sandbox if that exists.
fn required_sandboxes<'a>(
    observed: &'a Observed,
    session: &'a EffectiveSession,
) -> impl Iterator<Item = (&'a str, Option<&'a Sandbox>)> {
    // Of several sandboxes of a type, a ready one is preferred, then the session's own.
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

/// The required types whose sandbox is not ready.
fn unready_sandboxes<'a>(
    observed: &'a Observed,
    session: &'a EffectiveSession,
) -> impl Iterator<Item = (&'a str, Option<&'a Sandbox>)> {
    let is_ready = |sandbox: &Sandbox| state(sandbox) == SandboxState::Ready;
    required_sandboxes(observed, session).filter(move |(_, sandbox)| !sandbox.is_some_and(is_ready))
}

fn state(sandbox: &Sandbox) -> SandboxState {
    sandbox.status.as_ref().and_then(|status| status.state).unwrap_or_default()
}

/// Required types that the session does not have, and of which no user created a sandbox.
fn unknown_types<'a>(observed: &'a Observed, session: &'a EffectiveSession) -> Vec<&'a str> {
    let known = session.launchable();
    let missing = required_sandboxes(observed, session).filter(|(_, sandbox)| sandbox.is_none());
    missing.map(|(sandbox_type, _)| sandbox_type).filter(|sandbox_type| !known.contains(sandbox_type)).collect()
}

impl Decide for Observed {
    type Situation = Lifecycle;
    type Status = AgentStatus;

    fn situation(&self) -> Lifecycle {
        Lifecycle::of(self)
    }

    fn stage(lifecycle: &Lifecycle) -> &'static str {
        lifecycle.into()
    }

    fn plan(&self, lifecycle: &Lifecycle) -> Vec<Write> {
        let writes = match lifecycle {
            Lifecycle::OwnerGone(_) => vec![Write::delete(&*self.agent)],
            Lifecycle::NoRunner => runner::start(self),
            Lifecycle::Inactive(Inactivity::Paused | Inactivity::Stopped) | Lifecycle::Orphaned => runner::removal(self),
            Lifecycle::Blocked(_)
            // A suspended session suspends its sandboxes, including the agent's.
            | Lifecycle::Inactive(Inactivity::BySession)
            | Lifecycle::Waits { .. }
            | Lifecycle::NotCovered(_)
            | Lifecycle::Unhealthy(_)
            | Lifecycle::RunnerFailed(_)
            | Lifecycle::Finished(_)
            | Lifecycle::Active => runner::changes(self),
            Lifecycle::Terminating | Lifecycle::NameTaken(_) | Lifecycle::Failed(_) => vec![],
        };
        writes.into_iter().chain(self.legacy_exec_access.iter().flat_map(LegacyExecAccess::removal)).collect()
    }

    fn record(&mut self, _: &str, outcome: Outcome) {
        if let Some(Trouble::Failed(failure)) = outcome.trouble() {
            self.write_error = Some(failure.clone());
        } else if let Outcome::Sandbox(child) = outcome {
            self.runner = child;
        }
    }

    fn report(&self, lifecycle: &Lifecycle) -> Report<AgentStatus> {
        summary::report(self, lifecycle)
    }

    fn child_disappeared(&self) -> bool {
        let status = self.agent.status.as_ref();
        self.runner == ChildState::Absent && status.is_some_and(|status| status.pod_name.is_some())
    }

    fn children(&self) -> usize {
        self.children.len()
    }
}

/// The ancestors of an agent, the parent first; `find` returns an agent by name. The list ends at an agent without a parent, at the first
/// agent that occurs twice, and after one more ancestor than an agent may have.
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
