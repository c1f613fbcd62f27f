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

/// What the agent is, and what it needs.
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
    doc = "A dynamic agent of a session: what it is, its place among the others, what it needs, and where it is in its life.",
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
    /// The session that the agent works in. It may be made later than the agent, and the agent goes with it. Cannot change.
    #[schemars(length(min = 1, max = 40), regex(pattern = super::OBJECT_NAME))]
    pub session: String,

    /// What people call it; several agents may have the same. Default: the name of the object.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub name: Option<String>,

    /// What kind of agent it is, in the framework's words: `aigise_agent`.
    #[serde(default, rename = "type", skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub agent_type: Option<String>,

    /// Who made it: the name of an agent, or a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub creator: Option<String>,

    /// What it is for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub description: Option<String>,

    /// The agent above it, of the same session, by the name of its object. It begins when that one is there. An agent is none of
    /// its own ancestors, and has 32 at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = super::OBJECT_NAME))]
    pub parent: Option<String>,

    /// What becomes of it when its parent is deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_parent_deleted: Option<OnParentDeleted>,

    /// What it is made of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config: Option<AgentConfig>,

    /// What has to be there before it begins.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requires: Option<Requires>,

    /// What its user wants it to be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub desired_status: Option<DesiredStatus>,

    /// A Pod that runs it. Absent: whoever reads its status does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runner: Option<Runner>,
}

/// What becomes of an agent whose parent is deleted. `Orphan` (the default): it stays, and its condition `ParentFound` says so.
/// `Delete`: it is deleted as well.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnParentDeleted {
    /// It stays.
    #[default]
    Orphan,
    /// It is deleted as well.
    Delete,
}

/// What a user wants an agent to be. `active` is the default.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum DesiredStatus {
    /// It works, as soon as it has what it needs.
    #[default]
    Active,
    /// It does nothing until it is to be active again.
    Paused,
    /// It has done its work.
    Stopped,
}

/// What an agent is made of. Other fields than these are kept as they are.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AgentConfig {
    /// One of the session's models, a model's own name, or `inherit`: that of its creator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub model: Option<String>,

    /// What it is told to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 65536))]
    pub instruction: Option<String>,

    /// The tools that it uses. While the session does not have one of them, the agent is `pending_tools`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), inner(length(min = 1, max = 255)))]
    pub tool_names: Vec<String>,

    /// The skills that it uses: `all`, or folders of the tools volume, each with all skills below it. While the session has not
    /// enabled one of them, the agent is `pending_tools`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 255), regex(pattern = SKILL)))]
    pub enabled_skills: Vec<String>,

    /// Everything else.
    #[serde(flatten)]
    pub other: BTreeMap<String, RawJson>,
}

/// The Pod that runs an agent: a sandbox of its own, beside those that the agent works in and with none of their volumes. It
/// finds the session's configuration as a file in the framework's form, which `AIGISE_CONFIG` names, its own name in `AIGISE_AGENT`,
/// the hosts of the sandboxes in `AIGISE_<TYPE>_HOST`, and the keys of the models in `AIGISE_<MODEL>_API_KEY`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Runner {
    /// The container image.
    #[schemars(length(min = 1, max = 512))]
    pub image: String,

    /// The program and its arguments, run without a shell. Absent: what the image itself starts.
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

    /// Security settings of the container, as in a Pod's container, with the limits of a sandbox.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub security_context: Option<SecurityContext>,

    /// What happens when the program ends. Default of `policy`: `OnFailure`. One that ended with 0 and is not started again has
    /// `stopped` the agent; one that failed too often is an `error`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart: Option<Restart>,

    /// `true`: the program may run commands in the sandboxes of its session with `kubectl exec`, and has a token for nothing else.
    /// The operator has to be installed with `agents.runnerExec`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandbox_exec: Option<bool>,

    /// A Pod template, laid over the Pod last, by the rules of a sandbox's. The container is called `sandbox`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "super::template::any_object")]
    pub pod_template: Option<RawJson>,
}

impl Runner {
    /// Whether it may run commands in the sandboxes.
    #[must_use]
    pub fn may_exec(&self) -> bool {
        self.sandbox_exec == Some(true)
    }
}

/// What has to be there before an agent begins.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Requires {
    /// Types of the session's sandboxes, which have to be ready. `main` always counts among them, where the session has it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 21)))]
    pub sandboxes: Vec<String>,
}

impl AgentSpec {
    /// What its user wants it to be.
    #[must_use]
    pub fn desired_status(&self) -> DesiredStatus {
        self.desired_status.unwrap_or_default()
    }

    /// What becomes of it when its parent is deleted.
    #[must_use]
    pub fn on_parent_deleted(&self) -> OnParentDeleted {
        self.on_parent_deleted.unwrap_or_default()
    }

    /// The types of sandboxes that it names.
    #[must_use]
    pub fn required_sandboxes(&self) -> &[String] {
        self.requires.as_ref().map_or(&[], |requires| &requires.sandboxes)
    }
}

/// What the operator last saw of an agent.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AgentStatus {
    /// The generation of the specification that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// Where the agent is in its life.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<AgentState>,

    /// When it was made.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_at: Option<Time>,

    /// When it was last edited, or became something else.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub updated_at: Option<Time>,

    /// The session that the agent belongs to, as it was last seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SeenSession>,

    /// The agent above it, as it was last seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<SeenParent>,

    /// The agents below it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub children: Option<Children>,

    /// The Pod that runs it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_name: Option<String>,

    /// What the program that runs it last ended with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,

    /// What is true of the agent now, and why. A program that runs the agent may add a condition `RuntimeHealthy` of its own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// A parent as an agent last saw it: when it is gone, this tells that it was there.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SeenParent {
    /// Its name.
    pub name: String,
    /// Its UID: another agent of the same name is not the same.
    pub uid: String,
}

/// The agents directly below another.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Children {
    /// How many there are.
    pub total: i32,
    /// The names of the first twenty.
    #[serde(default)]
    pub names: Vec<String>,
}

/// Where an agent is in its life.
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
    /// It waits: for its session, for its parent, or for sandboxes.
    Created,
    /// It has what it needs.
    Active,
    /// It does nothing, since its user wants so.
    Paused,
    /// It has done its work.
    Stopped,
    /// It cannot work as it is written, or the program that runs it says that it is not well.
    Error,
    /// It needs tools or skills that its session does not have.
    PendingTools,
}
