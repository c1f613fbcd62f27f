//! What decisions about an agent depend on, and how the outcomes of writes change it.

use std::{collections::BTreeSet, sync::Arc};

use jiff::Timestamp;

use super::LegacyExecAccess;
use crate::{
    api::{Agent, Sandbox},
    plan::{
        ChildState, Failure, Lookup, Settings, effective::EffectiveSession, facts::agent::belonged_to_other_session,
    },
};

/// Everything that decisions about an agent depend on.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The agent itself.
    pub agent: Arc<Agent>,
    /// The session that the agent names.
    pub session: Lookup<EffectiveSession>,
    /// The agent that this agent names as its parent.
    pub parent: Lookup<Agent>,
    /// The known ancestors of the agent: the parent first, at most [`MAX_DEPTH`](super::MAX_DEPTH) and one more.
    pub ancestors: Vec<Arc<Agent>>,
    /// The names of the agent's direct children.
    pub children: BTreeSet<String>,
    /// The session's sandboxes of the types that the agent [reads](super::read_types): the first of each type.
    pub sandboxes: Vec<Arc<Sandbox>>,
    /// The agent's Sandbox.
    pub runner: ChildState<Sandbox>,
    /// The exec access that an earlier version of the operator created, if it is no longer in use.
    pub legacy_exec_access: Option<LegacyExecAccess>,
    /// The operator's settings.
    pub settings: Arc<Settings>,
    /// Why a write failed in this reconcile.
    pub write_error: Option<Failure>,
    /// The time.
    pub now: Timestamp,
}

impl Observed {
    /// The agent's session, if it exists, and is not another session with the same name.
    pub(super) fn own_session(&self) -> Option<&EffectiveSession> {
        self.session.found().map(AsRef::as_ref).filter(|session| !belonged_to_other_session(&self.agent, *session))
    }
}
