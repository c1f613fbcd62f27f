//! What the agents of a session require of it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use super::{EffectiveSession, top_root};
use crate::{
    api::Agent,
    plan::facts::agent::{belonged_to_other_session, skills},
    protocol::init::ALL_SKILLS,
};

/// What the agents of a session require of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Demand {
    /// Types of sandboxes.
    pub sandboxes: BTreeSet<String>,
    /// First-level folders of the tools volume.
    pub tools_roots: BTreeSet<String>,
}

impl Demand {
    /// The demand of these agents on this session. Agents of an earlier session with the same name are ignored.
    pub fn of(agents: &BTreeMap<String, Arc<Agent>>, session: &EffectiveSession) -> Self {
        let present = agents
            .values()
            .filter(|agent| agent.metadata.deletion_timestamp.is_none() && !belonged_to_other_session(agent, session));
        let (mut demand, enabled) = (Demand::default(), Enabled::by(session));
        for agent in present {
            demand.sandboxes.extend(agent.spec.required_sandboxes().iter().cloned());
            // An agent does not get a skill that its session does not enable, even if the skill is staged.
            let skills = skills(agent).iter().filter(|skill| enabled.has(skill));
            demand.tools_roots.extend(skills.filter_map(|skill| top_root(skill)));
        }
        demand
    }
}

/// The skills that a session enables.
pub struct Enabled<'a>(BTreeSet<&'a str>);

impl<'a> Enabled<'a> {
    /// The skills that this session enables.
    pub fn by(session: &'a EffectiveSession) -> Self {
        Self(session.spec().enabled_skills.iter().flatten().map(String::as_str).collect())
    }

    /// Whether a skill is enabled: by its own name, by a folder above it, or by `all`. The skill `all` is only enabled by `all`.
    pub fn has(&self, skill: &str) -> bool {
        let mut above = skill.match_indices('/').map(|(slash, _)| &skill[..slash]);
        self.0.contains(ALL_SKILLS) || self.0.contains(skill) || above.any(|folder| self.0.contains(folder))
    }
}
