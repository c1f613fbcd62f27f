//! Whether a session has the tools and skills that an agent uses. The rules are the framework's.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    api::{Agent, session::McpService},
    plan::{
        effective::{EffectiveSession, Enabled},
        facts::agent::{skills, tools},
        volumes::SharedVolume,
    },
    protocol::init::{ALL_SKILLS, is_at_or_below},
};

/// Tools that every agent has.
const BASELINE: [&str; 5] =
    ["run_terminal_command", "list_background_tasks", "get_background_task_output", "wait_for_background", "complain"];

/// Whether a session has the tools and skills that an agent uses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Coverage {
    /// The session has everything.
    Whole,
    /// The session lacks these tools and skills, described for users.
    Lacks(Vec<String>),
    /// The session has not filled its volumes, and the answer depends on their content.
    Unknown,
}

impl Coverage {
    pub(super) fn of(agent: &Agent, session: &EffectiveSession) -> Self {
        if !session.has_volumes() && depends_on_staging(agent, session) {
            return Coverage::Unknown;
        }
        let missing = missing(agent, session);
        if missing.is_empty() { Coverage::Whole } else { Coverage::Lacks(missing) }
    }
}

/// The tools and skills that the agent uses and the session does not have, described for users.
fn missing(agent: &Agent, session: &EffectiveSession) -> Vec<String> {
    let offered = Offered::by(session);
    let called: BTreeSet<_> = staged(session).into_iter().flatten().flat_map(names_of_skill).collect();
    let has_tool = |tool: &str| offered.has(tool) || called.contains(tool);
    let tools = tools(agent).iter().filter(|tool| !has_tool(tool)).map(|tool| format!("the tool {tool}"));
    let skills =
        skills(agent).iter().filter(|skill| !has_skill(session, skill)).map(|skill| format!("the skill {skill}"));
    tools.chain(skills).collect()
}

/// Whether the coverage depends on the content of the tools volume.
fn depends_on_staging(agent: &Agent, session: &EffectiveSession) -> bool {
    let offered = Offered::by(session);
    !skills(agent).is_empty() || tools(agent).iter().any(|tool| !offered.has(tool))
}

/// The tools that a session has in addition to its staged skills: the tools that it names (all tools if it names none), the baseline
/// tools, and `<MCP service>_<tool>`.
struct Offered<'a> {
    named: Option<BTreeSet<&'a str>>,
    services: BTreeMap<&'a str, &'a McpService>,
}

impl<'a> Offered<'a> {
    fn by(session: &'a EffectiveSession) -> Self {
        let named = session.tools().map(|tools| tools.iter().map(String::as_str).collect());
        Self { named, services: session.services() }
    }

    fn has(&self, tool: &str) -> bool {
        let mut ends = tool.match_indices('_').map(|(end, _)| end);
        self.named.as_ref().is_none_or(|named| named.contains(tool))
            || BASELINE.contains(&tool)
            || ends.any(|end| self.services.contains_key(&tool[..end]))
    }
}

/// The names of a skill: its path, and every suffix of the path that begins at a folder.
fn names_of_skill(skill: &str) -> impl Iterator<Item = &str> {
    std::iter::once(skill).chain(skill.match_indices('/').map(|(slash, _)| &skill[slash + 1..]))
}

/// Whether a session has a skill: the skill must be enabled, and it must be staged if the staged skills are known.
fn has_skill(session: &EffectiveSession, skill: &str) -> bool {
    let is_there = skill == ALL_SKILLS
        || staged(session).is_none_or(|mut skills| skills.any(|known| is_at_or_below(known, skill)));
    Enabled::by(session).has(skill) && is_there
}

/// The skills that were staged; `None` if the session uses an existing claim, whose content is unknown.
fn staged(session: &EffectiveSession) -> Option<impl Iterator<Item = &str>> {
    if session.existing_claim(SharedVolume::Tools).is_some() {
        return None;
    }
    let status = session.status();
    let tools = status.and_then(|status| status.volumes.as_ref()?.tools.as_ref());
    Some(tools.into_iter().flat_map(|tools| &tools.skills).map(String::as_str))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn agent(config: serde_json::Value) -> Agent {
        let spec = json!({"session": "demo", "config": config});
        serde_json::from_value(json!({"metadata": {"name": "a"}, "spec": spec})).unwrap()
    }

    fn session(spec: serde_json::Value, staged: &[&str]) -> EffectiveSession {
        let volumes = json!({"tools": {"claimName": "demo--tools", "skills": staged}});
        EffectiveSession::stored(json!({"metadata": {"name": "demo"}, "spec": spec, "status": {"volumes": volumes}}))
    }

    fn missing_tools(session: &EffectiveSession, tools: &[&str]) -> Vec<String> {
        missing(&agent(json!({"toolNames": tools})), session)
    }

    fn missing_skills(session: &EffectiveSession, skills: &[&str]) -> Vec<String> {
        missing(&agent(json!({"enabledSkills": skills})), session)
    }

    #[test]
    fn without_a_list_of_tools_any_tool_is_there() {
        assert!(missing_tools(&session(json!({}), &[]), &["view_file", "anything"]).is_empty());
    }

    #[test]
    fn tools_are_the_sessions_those_of_everybody_services_and_skills() {
        let session = session(
            json!({"tools": ["view_file"], "mcpServices": {"gdb": {"sandbox": "gdb_mcp", "port": 1}}}),
            &["fuzz/run-campaign", "report"],
        );
        let there = ["view_file", "complain", "gdb_break", "report", "run-campaign", "fuzz/run-campaign"];
        assert!(missing_tools(&session, &there).is_empty());
        assert_eq!(
            missing_tools(&session, &["search", "gdb", "gdbx_break", "campaign", "view"]),
            ["the tool search", "the tool gdb", "the tool gdbx_break", "the tool campaign", "the tool view"]
        );
    }

    #[test]
    fn an_empty_list_of_tools_is_none() {
        assert_eq!(missing_tools(&session(json!({"tools": []}), &[]), &["view_file"]), ["the tool view_file"]);
    }

    #[test]
    fn a_skill_needs_itself_or_a_folder_above_it() {
        let session = session(json!({"enabledSkills": ["fuzz", "static/joern"]}), &["fuzz/run", "static/joern"]);
        assert!(missing_skills(&session, &["fuzz", "fuzz/run", "static/joern"]).is_empty());
        assert_eq!(
            missing_skills(&session, &["static", "fuzzy", "all"]),
            ["the skill static", "the skill fuzzy", "the skill all"]
        );
        assert_eq!(missing_skills(&session, &["fuzz/other"]), ["the skill fuzz/other"], "it was not staged");
    }

    #[test]
    fn all_covers_everything_and_nothing_else_covers_all() {
        let everything = session(json!({"enabledSkills": ["all"]}), &["fuzz"]);
        assert!(missing_skills(&everything, &["all", "fuzz"]).is_empty());
        assert!(missing_skills(&session(json!({}), &[]), &[]).is_empty(), "an agent without skills lacks none");
        assert_eq!(missing_skills(&session(json!({}), &["fuzz"]), &["fuzz"]), ["the skill fuzz"]);
    }

    #[test]
    fn what_is_in_a_claim_of_somebody_else_is_not_known() {
        let spec = json!({"enabledSkills": ["fuzz"], "volumes": {"tools": {"claimName": "team-tools"}}});
        assert!(missing_skills(&session(spec, &[]), &["fuzz/any"]).is_empty());
    }
}
