//! `AigiseSession`: one unit of work.

mod status;
mod volumes;

use std::collections::BTreeMap;

use k8s_openapi::api::networking::v1::{NetworkPolicyEgressRule, NetworkPolicyIngressRule};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::{
    status::{
        AgentCounts, AigiseSessionStatus, ConfigurationStatus, SandboxCounts, SessionPhase, VolumeStatus, VolumesStatus,
    },
    volumes::{
        AccessMode, ClaimSource, ConfigMapSource, ContainerSource, ImageSource, PullPolicy, Reclaim, VolumeSource,
        VolumeSpec, Volumes,
    },
};
use super::{
    config::{Build, ConfigFrom, Model, Variable},
    crds::rule,
    template::SandboxTemplate,
};

/// What the session is made of.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "aigise.dev",
    version = "v1alpha1",
    kind = "AigiseSession",
    plural = "aigisesessions",
    shortname = "asess",
    category = "aigise",
    namespaced,
    status = "AigiseSessionStatus",
    derive = "Default",
    derive = "PartialEq",
    doc = "One unit of work: typed sandboxes over three shared volumes. Apply it, wait for the condition Ready, work in the sandboxes with kubectl exec; delete it and nothing is left.",
    printcolumn = r#"{"name": "Phase", "type": "string", "jsonPath": ".status.phase"}"#,
    printcolumn = r#"{"name": "Sandboxes", "type": "string", "jsonPath": ".status.sandboxes.summary", "description": "ready / wanted"}"#,
    printcolumn = r#"{"name": "Agents", "type": "integer", "jsonPath": ".status.agents.total"}"#,
    printcolumn = r#"{"name": "Expires", "type": "string", "jsonPath": ".status.expiresAt", "priority": 1}"#,
    printcolumn = r#"{"name": "Task", "type": "string", "jsonPath": ".spec.taskName", "priority": 1}"#,
    printcolumn = r#"{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}"#,
    printcolumn = r#"{"name": "Message", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Ready\")].message", "priority": 1}"#
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules()))]
pub struct AigiseSessionSpec {
    /// The task that the session works on; a label on everything that it creates. Default: the session's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$"))]
    pub task_name: Option<String>,

    /// The framework's own configuration file. What it says lies under the fields of the session, one by one: what is said here
    /// wins. A file that cannot be used is told in the condition `ConfigValid`; a session that runs goes on as it was.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_from: Option<ConfigFrom>,

    /// What the `${NAME}`s in the configuration file stand for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub variables: Vec<Variable>,

    /// The sandboxes, by type: `main`, `gdb_mcp`, `fuzz`, … Each becomes one Pod, reached from the others as
    /// `<type>.<session>` (in lower case, `_` and `.` as `-`). A type has letters, digits, `-`, `_` and `.`, begins with a letter,
    /// has at most 21 characters and is none of `stage`, `config`, `data`, `scripts`, `tools` and `agent-…`. Required here or in the
    /// configuration file.
    #[schemars(extend("minProperties" = 1, "maxProperties" = 32), extend("x-kubernetes-validations" = [
        rule("self.all(t, t.matches('^[A-Za-z]([-A-Za-z0-9_.]*[A-Za-z0-9])?$') && size(t) <= 21)",
            "sandboxes: a type has letters, digits, `-`, `_` and `.`, begins with a letter, ends with a letter or digit and has at most 21 characters"),
        rule("self.all(t, !t.matches('^(?i)(stage|config|data|scripts|tools|agent[-_.].*)$'))",
            "sandboxes: the types stage, config, data, scripts, tools and agent-… are reserved"),
    ]))]
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sandboxes: BTreeMap<String, SessionSandbox>,

    /// What every type has unless it says otherwise: maps merge deeply, `env` by name, other lists are the type's if it has one. At
    /// most 64 KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = super::template::rules()))]
    pub sandbox_defaults: Option<SandboxTemplate>,

    /// MCP services that sandboxes offer over SSE, by name. A sandbox that names one in its `mcpServices` is ready when it answers.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64), extend("x-kubernetes-validations" = [
        rule("self.all(s, s.matches('^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$') && size(s) <= 63)",
            "mcpServices: a service's name has letters, digits, `-`, `_` and `.`, begins and ends with a letter or digit and has at most 63 characters"),
    ]))]
    pub mcp_services: BTreeMap<String, McpService>,

    /// The models that agents may use, by the name that they know them by: `main`, `summarize`, …
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    pub models: BTreeMap<String, Model>,

    /// How the target is built and run, for initialisers and agents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build: Option<Build>,

    /// Which of the types are started. Default: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub launch: Option<Launch>,

    /// Whether the other sandboxes go on when one fails. `true`: the session is `Degraded` and the rest can be worked in. `false`
    /// (the default): the session is in `Error`; what runs is left running.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub continue_on_error: Option<bool>,

    /// `true`: all Pods go, volumes and their data stay. `false` starts the sandboxes again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,

    /// How long the session lives. Default: until it is deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lifetime: Option<Lifetime>,

    /// What the sandboxes may connect to, and who may connect to them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<Network>,

    /// Whether deleting the session deletes its sandboxes and volumes. `true` is the default; `false`: they stay, and go on
    /// running, when the session is deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auto_cleanup: Option<bool>,

    /// The three shared volumes of all sandboxes. They exist also when nothing is said about them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volumes: Option<Volumes>,

    /// First-level folders of the tools sources that are staged. Absent: all; empty: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 255), regex(pattern = r"^[^/]+$")))]
    pub tools_top_roots: Option<Vec<String>>,

    /// Skills whose dependencies are installed in the sandboxes that they are for, before these are ready: folders of the tools
    /// volume, each with all skills below it, or `all`. Absent: none. A skill is a folder with a `SKILL.md`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 255), regex(pattern = SKILL)))]
    pub enabled_skills: Option<Vec<String>>,

    /// The tools that the session's agents may count on, besides its skills and MCP services. Absent: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512), inner(length(min = 1, max = 255)))]
    pub tools: Option<Vec<String>>,
}

/// A folder below another, by a path that leads nowhere else.
pub(super) const SKILL: &str = "^[A-Za-z0-9_][-A-Za-z0-9_.]*(/[A-Za-z0-9_][-A-Za-z0-9_.]*)*$";

/// A service of a sandbox that speaks MCP over SSE.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct McpService {
    /// The type of the sandbox that offers it.
    #[schemars(length(min = 1, max = 21))]
    pub sandbox: String,

    /// The port that it listens on.
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,

    /// The path of its event stream. Default: `/sse`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255), regex(pattern = "^/[-A-Za-z0-9._~!$&'()*+,;=:@%/]*$"))]
    pub path: Option<String>,
}

impl McpService {
    /// The path of its event stream.
    #[must_use]
    pub fn path(&self) -> &str {
        self.path.as_deref().unwrap_or("/sse")
    }
}

fn rules() -> serde_json::Value {
    let mut rules = volumes::rules();
    rules.push(rule(
        "has(self.configFrom) || has(self.sandboxes)",
        "sandboxes: at least one type is required, here or in configFrom",
    ));
    rules.push(rule(
        "has(self.configFrom) || !has(self.variables) || size(self.variables) == 0",
        "variables: they stand for what is in a configuration file, and there is none (configFrom)",
    ));
    rules.push(rule(
        "has(self.configFrom) || !has(self.sandboxes) || (has(self.sandboxDefaults) && has(self.sandboxDefaults.image)) || self.sandboxes.all(t, has(self.sandboxes[t].image) || has(self.sandboxes[t].attach) || (has(self.sandboxes[t].enabled) && !self.sandboxes[t].enabled))",
        "sandboxes: image is required, for each type or in sandboxDefaults",
    ));
    rules.push(rule(
        "has(self.configFrom) || !has(self.sandboxes) || !has(self.launch) || !has(self.launch.types) || self.launch.types.all(t, t in self.sandboxes)",
        "launch.types: a type that is not among sandboxes",
    ));
    rules.into()
}

/// The template of one type of a session's sandboxes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("x-kubernetes-validations" = super::template::rules()))]
pub struct SessionSandbox {
    /// `false` leaves the type out, as if it were not there. Default: `true`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,

    /// What the sandbox is made of.
    #[serde(flatten)]
    pub template: SandboxTemplate,
}

/// Which types are started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Launch {
    /// When they are started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<LaunchMode>,

    /// These types, and those that they depend on. Absent: all; with `OnDemand`: `main`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32), inner(length(min = 1, max = 21)))]
    pub types: Option<Vec<String>>,
}

/// When the types of a session are started. `All` (the default): at once. `OnDemand`: `launch.types` at once, and each other type
/// when the first agent requires it. What was started stays when its agents are gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum LaunchMode {
    /// At once.
    #[default]
    All,
    /// Some when the first agent requires them.
    OnDemand,
}

/// How long a session lives. A duration is written as `90s`, `30m`, `1h30m`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Lifetime {
    /// How long after its creation the session ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 32), regex(pattern = super::DURATION))]
    pub ttl: Option<String>,

    /// What its end is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_expiry: Option<OnExpiry>,

    /// After this long without activity the session is suspended, and started again by the next one. Activity is a newer time
    /// (RFC 3339) in the annotation `aigise.dev/last-activity` of the session, and whatever is on its way in it, such as an
    /// initialiser; a plain `kubectl exec` is not seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 32), regex(pattern = super::DURATION))]
    pub idle: Option<String>,
}

/// What the end of a session's time is. `Release` (the default): Pods and volumes go, the object stays with what it says of
/// itself; volumes with `reclaim: Retain` stay. `Delete`: the session is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnExpiry {
    /// Pods and volumes go, the object stays.
    #[default]
    Release,
    /// The session is deleted.
    Delete,
}

/// The network of a session's sandboxes. The names inside the cluster and the sandboxes of the same session can always be reached.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Network {
    /// Whether the operator makes a NetworkPolicy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<PolicyMode>,

    /// What the sandboxes may connect to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress: Option<Egress>,

    /// What else the sandboxes may connect to, as in a NetworkPolicy.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub allow_egress: Vec<NetworkPolicyEgressRule>,

    /// Who else may connect to the sandboxes, as in a NetworkPolicy.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub allow_ingress: Vec<NetworkPolicyIngressRule>,
}

/// Who makes the NetworkPolicy of a session. `Managed` (the default): the operator. `Unmanaged`: nobody; use it where another
/// kind of policy does the work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PolicyMode {
    /// The operator makes one.
    #[default]
    Managed,
    /// There is none of ours.
    Unmanaged,
}

/// What sandboxes may connect to besides their session. `Internet` (the default): everything but private and link-local addresses, so
/// neither the cluster nor its nodes. `SessionOnly`: nothing; commands that fill the volumes still reach the internet. `Any`: everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Egress {
    /// Everything but private and link-local addresses.
    #[default]
    Internet,
    /// Nothing.
    SessionOnly,
    /// Everything.
    Any,
}

impl AigiseSessionSpec {
    /// What the user says of the network.
    #[must_use]
    pub fn network_policy(&self) -> PolicyMode {
        self.network.as_ref().and_then(|network| network.policy).unwrap_or_default()
    }

    /// What the sandboxes may connect to.
    #[must_use]
    pub fn egress(&self) -> Egress {
        self.network.as_ref().and_then(|network| network.egress).unwrap_or_default()
    }

    /// What the end of the session's time is.
    #[must_use]
    pub fn on_expiry(&self) -> OnExpiry {
        self.lifetime.as_ref().and_then(|lifetime| lifetime.on_expiry).unwrap_or_default()
    }

    /// Whether what the session made goes with it.
    #[must_use]
    pub fn cleans_up(&self) -> bool {
        self.auto_cleanup != Some(false)
    }

    /// Whether the user wants it suspended.
    #[must_use]
    pub fn is_suspended(&self) -> bool {
        self.suspend == Some(true)
    }

    /// The claim, or the sources, of a shared volume: whether there is anything in it from the start.
    fn has_content(volume: Option<&VolumeSpec>) -> bool {
        volume.is_some_and(|volume| volume.claim_name.is_some() || !volume.sources.is_empty())
    }

    /// Whether there is anything at `/sandbox_scripts`.
    #[must_use]
    pub fn has_scripts(&self) -> bool {
        Self::has_content(self.volumes.as_ref().and_then(|volumes| volumes.scripts.as_ref()))
    }

    /// Whether there is anything at `/bash_tools` when the sandboxes start.
    #[must_use]
    pub fn has_tools(&self) -> bool {
        Self::has_content(self.volumes.as_ref().and_then(|volumes| volumes.tools.as_ref()))
    }

    /// Whether the others go on when a sandbox fails.
    #[must_use]
    pub fn continues_on_error(&self) -> bool {
        self.continue_on_error == Some(true)
    }
}
