//! Questions about one Agent, as it is stored.

use kube::ResourceExt;

use super::session;
use crate::{
    api::{
        Agent,
        agent::{Runner, SeenParent},
        sandbox::SeenSession,
    },
    plan::{Settings, digest, name},
};

/// The sandbox that every agent works in.
pub const MAIN: &str = "main";

/// The session that the agent belongs to, according to its status.
pub fn seen_session(agent: &Agent) -> Option<&SeenSession> {
    agent.status.as_ref()?.session.as_ref()
}

/// The parent according to the agent's status, unless the agent now names another parent.
pub fn seen_parent(agent: &Agent) -> Option<&SeenParent> {
    agent.status.as_ref()?.parent.as_ref().filter(|seen| Some(&seen.name) == agent.spec.parent.as_ref())
}

/// Whether the agent belonged to an earlier session with this session's name.
pub fn belonged_to_other_session(agent: &Agent, session: &impl ResourceExt) -> bool {
    session::is_other_session(seen_session(agent), session)
}

/// Whether the agent had an earlier parent with this parent's name.
pub fn had_other_parent(agent: &Agent, parent: &Agent) -> bool {
    seen_parent(agent).is_some_and(|seen| Some(&seen.uid) != parent.metadata.uid.as_ref())
}

/// The name of an agent's Sandbox, of its Pod, and of the objects of its exec access.
pub fn runner_name(agent: &Agent) -> String {
    name::child(&agent.spec.session, runner_type(agent))
}

/// The type of an agent's Sandbox. Types of sessions never begin with `agent-`.
pub fn runner_type(agent: &Agent) -> String {
    format!("agent-{}", &digest::short(&agent.name_any())[..12])
}

/// Whether the agent's Pod gets exec access: the agent requests it, and the operator's settings allow it.
pub fn may_exec(agent: &Agent, settings: &Settings) -> bool {
    settings.allow_runner_exec && agent.spec.runner.as_ref().is_some_and(Runner::may_exec)
}

/// The skills that an agent uses.
pub fn skills(agent: &Agent) -> &[String] {
    agent.spec.config.as_ref().map_or(&[], |config| &config.enabled_skills)
}

/// The tools that an agent uses.
pub fn tools(agent: &Agent) -> &[String] {
    agent.spec.config.as_ref().map_or(&[], |config| &config.tool_names)
}
