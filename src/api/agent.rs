//! `Agent`: a dynamic agent of a session.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{EnvFromSource, EnvVar, ResourceRequirements, SecurityContext},
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{crds::rule, raw::RawJson, sandbox::SeenSession, session::SKILL, template::Restart};

/// The specification of an agent: what the agent is and what it needs.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "aigise.dev",
    version = "v1alpha1",
    kind = "Agent",
    plural = "agents",
    shortname = "aag",
    category = "aigise",
    namespaced,
    status = "AgentStatus",
    derive = "Default",
    derive = "PartialEq",
    doc = "A dynamic agent of a session: what the agent is, its parent, what it needs, and its current state.",
    selectable = ".spec.session",
    selectable = ".spec.creator",
    selectable = ".status.status",
    printcolumn = r#"{"name": "Session", "type": "string", "jsonPath": ".spec.session"}"#,
    printcolumn = r#"{"name": "Status", "type": "string", "jsonPath": ".status.status"}"#,
    printcolumn = r#"{"name": "Parent", "type": "string", "jsonPath": ".spec.parent"}"#,
    printcolumn = r#"{"name": "Children", "type": "integer", "jsonPath": ".status.children.total"}"#,
    printcolumn = r#"{"name": "Name", "type": "string", "jsonPath": ".spec.name", "priority": 1}"#,
    printcolumn = r#"{"name": "Creator", "type": "string", "jsonPath": ".spec.creator", "priority": 1}"#,
    printcolumn = r#"{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}"#,
    printcolumn = r#"{"name": "Message", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Ready\")].message", "priority": 1}"#
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    rule("self.session == oldSelf.session", "session cannot change"),
]))]
pub struct AgentSpec {
    /// The session that the agent works in. The session may be created after the agent. The agent is deleted with the session,
    /// unless the session's `autoCleanup` is `false`. This field is immutable.
    #[schemars(length(min = 1, max = 40), regex(pattern = super::OBJECT_NAME))]
    pub session: String,

    /// The display name of the agent; several agents may have the same name. Default: the name of the object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub name: Option<String>,

    /// The kind of the agent, as the framework names it: `aigise_agent`.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub agent_type: Option<String>,

    /// The creator of the agent: the name of an agent, or a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub creator: Option<String>,

    /// The purpose of the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub description: Option<String>,

    /// The parent of the agent: the object name of another agent of the same session. The agent starts once its parent exists. An
    /// agent cannot be its own ancestor, and can have at most 32 ancestors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = super::OBJECT_NAME))]
    pub parent: Option<String>,

    /// What happens to the agent when its parent is deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_parent_deleted: Option<OnParentDeleted>,

    /// The configuration of the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<AgentConfig>,

    /// What must be ready before the agent starts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requires: Option<Requires>,

    /// The status that the user wants the agent to have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub desired_status: Option<DesiredStatus>,

    /// The Pod that runs the agent. If absent, a program outside the operator reads the status of the agent and runs the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runner: Option<Runner>,
}

/// What happens to an agent whose parent is deleted. `Orphan` (the default): the agent stays, and its condition `ParentFound`
/// reports that the parent is gone. `Delete`: the agent is deleted as well.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnParentDeleted {
    /// The agent stays.
    #[default]
    Orphan,
    /// The agent is deleted as well.
    Delete,
}

/// The status that a user wants an agent to have. Default: `active`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DesiredStatus {
    /// The agent works as soon as it has what it requires.
    #[default]
    Active,
    /// The agent does nothing until it is set to `active` again.
    Paused,
    /// The agent has finished its work.
    Stopped,
}

/// The configuration of an agent. Fields other than these are kept unchanged.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AgentConfig {
    /// The model of the agent: one of the session's models, the provider's name of a model, or `inherit` for the model of the
    /// agent's creator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub model: Option<String>,

    /// The instruction that the agent follows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 65536))]
    pub instruction: Option<String>,

    /// The tools that the agent uses. While the session does not have one of them, the agent is `pending_tools`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(min = 1, max = 255)))]
    pub tool_names: Vec<String>,

    /// The skills that the agent uses: `all`, or folders of the tools volume, each including all skills below it. While the session
    /// has not enabled one of them, the agent is `pending_tools`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 255), regex(pattern = SKILL)))]
    pub enabled_skills: Vec<String>,

    /// All other fields.
    #[serde(flatten)]
    pub other: BTreeMap<String, RawJson>,
}

/// The Pod that runs an agent. The Pod is a sandbox of its own, separate from the sandboxes that the agent works in, and mounts
/// none of their volumes. The environment variable `AIGISE_CONFIG` names a file with the session's configuration in the framework's
/// format, `AIGISE_AGENT` holds the name of the agent, `AIGISE_<TYPE>_HOST` the hosts of the sandboxes, and
/// `AIGISE_<MODEL>_API_KEY` the keys of the models.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Runner {
    /// The container image.
    #[schemars(length(min = 1, max = 512))]
    pub image: String,

    /// The program and its arguments, run without a shell. If absent, the image's own command runs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 32768)))]
    pub command: Vec<String>,

    /// Environment variables, as in a Pod's container.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub env: Vec<EnvVar>,

    /// Environment variables from whole ConfigMaps and Secrets, as in a Pod's container.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub env_from: Vec<EnvFromSource>,

    /// CPU, memory and other resources, as in a Pod's container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,

    /// Security settings of the container, as in a Pod's container, with the same restrictions as for a sandbox.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub security_context: Option<SecurityContext>,

    /// What happens when the program ends. The default of `policy` is `OnFailure`. When the program ended with exit code 0 and is
    /// not started again, the agent is `stopped`; when the program failed too often, the agent is in `error`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart: Option<Restart>,

    /// `true`: the program may run commands in the sandboxes of its session with `kubectl exec`; its token grants nothing else. The
    /// operator must be installed with `agents.runnerExec`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox_exec: Option<bool>,

    /// A Pod template that is merged over the Pod last, by the rules of a sandbox's `podTemplate`. The container is called
    /// `sandbox`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "super::template::any_object")]
    pub pod_template: Option<RawJson>,
}

impl Runner {
    /// Whether the program may run commands in the sandboxes.
    pub fn may_exec(&self) -> bool {
        self.sandbox_exec == Some(true)
    }
}

/// What must be ready before an agent starts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Requires {
    /// Types of the session's sandboxes that must be ready. The type `main` is always required if the session has it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 21)))]
    pub sandboxes: Vec<String>,
}

impl AgentSpec {
    /// The status that the user wants the agent to have.
    pub fn desired_status(&self) -> DesiredStatus {
        self.desired_status.unwrap_or_default()
    }

    /// What happens to the agent when its parent is deleted.
    pub fn on_parent_deleted(&self) -> OnParentDeleted {
        self.on_parent_deleted.unwrap_or_default()
    }

    /// The types of sandboxes that the agent names as required.
    pub fn required_sandboxes(&self) -> &[String] {
        self.requires.as_ref().map_or(&[], |requires| &requires.sandboxes)
    }
}

/// The status of an agent, as the operator last observed it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AgentStatus {
    /// The generation of the specification that this status refers to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// The state of the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<AgentState>,

    /// When the agent was created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at: Option<Time>,

    /// When the agent was last edited or last changed its state.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updated_at: Option<Time>,

    /// The session that the agent belongs to, as last observed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SeenSession>,

    /// The parent of the agent, as last observed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<SeenParent>,

    /// The children of the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub children: Option<Children>,

    /// The name of the Pod that runs the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_name: Option<String>,

    /// The last exit code of the program that runs the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,

    /// The current conditions of the agent, with their reasons. A program that runs the agent may add a condition `RuntimeHealthy`
    /// of its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// The parent of an agent, as last observed. After the parent is deleted, this shows that the parent existed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SeenParent {
    /// The name of the parent.
    pub name: String,
    /// The UID of the parent. Another agent with the same name is not the same parent.
    pub uid: String,
}

/// The direct children of an agent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Children {
    /// The number of children.
    pub total: i32,
    /// The names of the first twenty children.
    #[serde(default)]
    pub names: Vec<String>,
}

/// The state of an agent.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Serialize,
    Deserialize,
    JsonSchema,
    strum::Display,
    strum::IntoStaticStr,
    strum::EnumIter,
)]
#[serde(rename_all = "snake_case")]
#[strum(serialize_all = "snake_case")]
pub enum AgentState {
    /// The agent waits for its session, for its parent, or for sandboxes.
    Created,
    /// The agent has everything that it requires.
    Active,
    /// The agent does nothing because its user paused it.
    Paused,
    /// The agent has finished its work.
    Stopped,
    /// The agent cannot work as specified, or the program that runs it reports that the agent is unhealthy.
    Error,
    /// The agent needs tools or skills that its session does not have.
    PendingTools,
}
