//! The agents of a session, as far as the session reports and uses them: their number, their states, and whether one is active.

use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use kube::ResourceExt;

use super::Observed;
use crate::{
    api::{
        Agent,
        agent::AgentState,
        condition::{ConditionType, Reason},
        session::AgentCounts,
    },
    plan::{
        facts::agent::belonged_to_other_session,
        status::{ConditionValue, condition_value},
    },
};

/// The session's own agents, without agents of an earlier session with the same name.
fn own(observed: &Observed) -> impl Iterator<Item = &Arc<Agent>> {
    observed.agents.values().filter(|agent| !belonged_to_other_session(agent, &observed.session))
}

fn state(agent: &Agent) -> AgentState {
    agent.status.as_ref().and_then(|status| status.status).unwrap_or(AgentState::Created)
}

/// The numbers of agents, by state.
pub(super) fn counts(observed: &Observed) -> Option<AgentCounts> {
    let mut counts = BTreeMap::new();
    for agent in own(observed) {
        *counts.entry(state(agent).to_string()).or_insert(0) += 1;
    }
    (!counts.is_empty()).then(|| AgentCounts { total: counts.values().sum(), counts })
}

/// Whether an agent is active.
pub(super) fn is_any_active(observed: &Observed) -> bool {
    own(observed).any(|agent| state(agent) == AgentState::Active)
}

/// When an agent was last created, edited, or changed its state.
pub(super) fn last_activity(observed: &Observed) -> Option<Timestamp> {
    let times = own(observed).flat_map(|agent| {
        let updated = agent.status.as_ref().and_then(|status| status.updated_at.as_ref());
        [updated, agent.metadata.creation_timestamp.as_ref()]
    });
    times.flatten().map(|time| time.0).max()
}

/// The condition `AgentsReady`: whether every agent is active, paused or stopped. A session can be ready without it, since agents may be
/// created at any time.
pub(super) fn agents_ready(observed: &Observed) -> ConditionValue {
    let kind = ConditionType::AgentsReady;
    let is_waiting = |agent: &&Arc<Agent>| match state(agent) {
        AgentState::Active | AgentState::Paused | AgentState::Stopped => false,
        AgentState::Created | AgentState::Error | AgentState::PendingTools => true,
    };
    let waiting: Vec<_> = own(observed).filter(is_waiting).collect();
    match (waiting.first(), own(observed).count()) {
        (_, 0) => condition_value(kind, true, Reason::NoAgents, "The session has no agents."),
        (None, total) => {
            condition_value(kind, true, Reason::Ready, format!("All agents are active, paused or stopped ({total})."))
        }
        // The agent's own message is not repeated: otherwise each change of an agent would cause a status write for the session.
        (Some(first), total) => {
            let message =
                format!("{} of {total} agents cannot work; the first is {}.", waiting.len(), first.name_any());
            condition_value(kind, false, Reason::AgentsNotReady, message)
        }
    }
}
