//! `AigiseSession`: one unit of work.

mod cache;
mod status;
mod volumes;

use std::collections::BTreeMap;

use k8s_openapi::api::networking::v1::{NetworkPolicyEgressRule, NetworkPolicyIngressRule};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use self::{
    cache::{
        CacheResult, CacheRetention, CacheSave, CacheSpec, CacheStatus, CacheStorage, CachedPart, CachedRoot,
        MissReason, RestoreMode, SandboxCache, SaveMode, SaveState,
    },
    status::{
        AgentCounts, AigiseSessionStatus, ConfigurationStatus, FilledStatus, FutureActivity, SandboxCounts,
        SessionPhase, VolumeStatus, VolumesStatus,
    },
    volumes::{
        AccessMode, ClaimSource, ConfigMapSource, ContainerSource, ImageSource, PullPolicy, Reclaim, SourceKind,
        VolumeLayout, VolumeSource, VolumeSpec, Volumes,
    },
};
use super::{
    config::{Build, ConfigFrom, Model, Variable},
    crds::rule,
    template::SandboxTemplate,
};

/// The specification of a session.
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
    doc = "One unit of work: typed sandboxes over three shared volumes. Apply it, wait for the condition Ready, work in the sandboxes with kubectl exec. Deleting it leaves nothing behind.",
    printcolumn = r#"{"name": "Phase", "type": "string", "jsonPath": ".status.phase"}"#,
    printcolumn = r#"{"name": "Sandboxes", "type": "string", "jsonPath": ".status.sandboxes.summary", "description": "ready / wanted"}"#,
    printcolumn = r#"{"name": "Agents", "type": "integer", "jsonPath": ".status.agents.total"}"#,
    printcolumn = r#"{"name": "Expires", "type": "string", "jsonPath": ".status.expiresAt", "priority": 1}"#,
    printcolumn = r#"{"name": "Cache", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Cached\")].reason", "priority": 1}"#,
    printcolumn = r#"{"name": "Task", "type": "string", "jsonPath": ".spec.taskName", "priority": 1}"#,
    printcolumn = r#"{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}"#,
    printcolumn = r#"{"name": "Message", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Ready\")].message", "priority": 1}"#
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules()))]
pub struct AigiseSessionSpec {
    /// The task that the session works on. Every object that the session creates has it as a label. Default: the session's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$"))]
    pub task_name: Option<String>,

    /// The framework's own configuration file. The session's own fields override the values of the file, one by one. The condition
    /// `ConfigValid` reports a file that cannot be used; a session that runs then continues unchanged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_from: Option<ConfigFrom>,

    /// The values of the `${NAME}` variables in the configuration file.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub variables: Vec<Variable>,

    /// The sandboxes, by type: `main`, `gdb_mcp`, `fuzz`, … Each type becomes one Pod, which the other sandboxes reach as
    /// `<type>.<session>` (in lower case, with `_` and `.` replaced by `-`). A type has letters, digits, `-`, `_` and `.`, begins
    /// with a letter, has at most 21 characters and is not `stage`, `pull`, `save`, `restore`, `config`, `data`, `scripts`, `tools` or
    /// `agent-…`. Required here or in the configuration file.
    #[schemars(extend("minProperties" = 1, "maxProperties" = 32), extend("x-kubernetes-validations" = [
        rule("self.all(t, t.matches('^[A-Za-z]([-A-Za-z0-9_.]*[A-Za-z0-9])?$') && size(t) <= 21)",
            "sandboxes: a type has letters, digits, `-`, `_` and `.`, begins with a letter, ends with a letter or digit and has at most 21 characters"),
        rule("self.all(t, !t.matches('^(?i)(stage|pull|save|restore|config|data|scripts|tools|agent[-_.].*)$'))",
            "sandboxes: the types stage, pull, save, restore, config, data, scripts, tools and agent-… are reserved"),
    ]))]
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sandboxes: BTreeMap<String, SessionSandbox>,

    /// The defaults of all types. A type overrides them: maps merge deeply, `env` merges by name, and another list of the type
    /// replaces the default list. At most 64 KiB.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = super::template::rules()))]
    pub sandbox_defaults: Option<SandboxTemplate>,

    /// MCP services that sandboxes offer, by name. A sandbox that names a service in its `mcpServices` is ready only when the service
    /// answers.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64), extend("x-kubernetes-validations" = [
        rule("self.all(s, s.matches('^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$') && size(s) <= 63)",
            "mcpServices: a service's name has letters, digits, `-`, `_` and `.`, begins and ends with a letter or digit and has at most 63 characters"),
    ]))]
    pub mcp_services: BTreeMap<String, McpService>,

    /// The models that agents may use, by the name that agents use for them: `main`, `summarize`, …
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 64))]
    pub models: BTreeMap<String, Model>,

    /// How the target is built and run. Initialisers and agents use these values.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build: Option<Build>,

    /// Which types are started. Default: all types.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub launch: Option<Launch>,

    /// Whether the other sandboxes continue when one fails. `true`: the session is `Degraded` and the other sandboxes can be used.
    /// `false` (the default): the session is in `Error`; sandboxes that run are left running.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub continue_on_error: Option<bool>,

    /// `true`: all Pods are deleted; the volumes and their data stay. `false` starts the sandboxes again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,

    /// How long the session lives. Default: until it is deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lifetime: Option<Lifetime>,

    /// What the sandboxes may connect to, and what may connect to them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub network: Option<Network>,

    /// Whether deleting the session deletes its sandboxes and volumes. `true` is the default. `false`: they stay, and keep running,
    /// when the session is deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub auto_cleanup: Option<bool>,

    /// The three shared volumes of all sandboxes. The volumes exist even if this field is absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volumes: Option<Volumes>,

    /// Caches of the state after the initialisers, for later sessions of the task. Absent: no caches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<CacheSpec>,

    /// First-level folders of the tools sources that are staged. Absent: everything is staged; empty: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 255), regex(pattern = r"^[^/]+$")))]
    pub tools_top_roots: Option<Vec<String>>,

    /// Skills whose dependencies are installed before the sandboxes that the skills are for become ready: folders of the tools
    /// volume, each including all skills below it, or `all`. Absent: no skills. A skill is a folder with a `SKILL.md`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 255), regex(pattern = SKILL)))]
    pub enabled_skills: Option<Vec<String>>,

    /// The tools that the session's agents can rely on, besides its skills and MCP services. Absent: any tool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512), inner(length(min = 1, max = 255)))]
    pub tools: Option<Vec<String>>,
}

/// The pattern of a relative path to a folder that cannot lead out of its parent: a name may begin with one dot, as in `.claude`.
pub(super) const SKILL: &str = r"^\.?[A-Za-z0-9_][-A-Za-z0-9_.]*(/\.?[A-Za-z0-9_][-A-Za-z0-9_.]*)*$";

/// An MCP service that a sandbox offers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct McpService {
    /// The type of the sandbox that offers the service.
    #[schemars(length(min = 1, max = 21))]
    pub sandbox: String,

    /// The port that the service listens on.
    #[schemars(range(min = 1, max = 65535))]
    pub port: i32,

    /// The path at which a session begins: of the event stream, or of streamable HTTP. Default: `/mcp` with the transport `HTTP`,
    /// otherwise `/sse`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 255), regex(pattern = "^/[-A-Za-z0-9._~!$&'()*+,;=:@%/]*$"))]
    pub path: Option<String>,

    /// The transport of MCP that the service speaks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transport: Option<McpTransport>,
}

/// A transport of MCP. `SSE`: an event stream, the transport of MCP's first version. `HTTP`: streamable HTTP. `Auto` (the default):
/// whichever the service answers over. The first request is one of SSE, unless the path ends with `/mcp`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum McpTransport {
    /// Whichever the service answers over.
    #[default]
    Auto,
    /// An event stream.
    #[serde(rename = "SSE")]
    Sse,
    /// Streamable HTTP.
    #[serde(rename = "HTTP")]
    Http,
}

impl McpService {
    /// The path at which a session with the service begins.
    pub fn path(&self) -> &str {
        self.path.as_deref().unwrap_or(match self.transport.unwrap_or_default() {
            McpTransport::Auto | McpTransport::Sse => "/sse",
            McpTransport::Http => "/mcp",
        })
    }
}

fn rules() -> serde_json::Value {
    let mut rules = volumes::rules();
    rules.extend(cache::rules());
    rules.push(rule(
        "has(self.configFrom) || has(self.sandboxes)",
        "sandboxes: at least one type is required, here or in configFrom",
    ));
    rules.push(rule(
        "has(self.configFrom) || !has(self.variables) || size(self.variables) == 0",
        "variables: they require a configuration file (configFrom)",
    ));
    rules.push(rule(
        "has(self.configFrom) || !has(self.sandboxes) || (has(self.sandboxDefaults) && has(self.sandboxDefaults.image)) || self.sandboxes.all(t, has(self.sandboxes[t].image) || has(self.sandboxes[t].attach) || (has(self.sandboxes[t].enabled) && !self.sandboxes[t].enabled))",
        "sandboxes: image is required, for each type or in sandboxDefaults",
    ));
    rules.push(rule(
        "has(self.configFrom) || !has(self.sandboxes) || !has(self.launch) || !has(self.launch.types) || self.launch.types.all(t, t in self.sandboxes)",
        "launch.types: each type must be one of sandboxes",
    ));
    rules.into()
}

/// The template of one type of a session's sandboxes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("x-kubernetes-validations" = super::template::rules()))]
pub struct SessionSandbox {
    /// `false`: the type is left out, as if it were absent. Default: `true`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub enabled: Option<bool>,

    /// How the type takes part in the caches of the session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<SandboxCache>,

    /// The template of the sandbox.
    #[serde(flatten)]
    pub template: SandboxTemplate,
}

/// Which types are started, and when.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Launch {
    /// When the types are started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<LaunchMode>,

    /// The types that are started, together with the types that they depend on. Absent: all types; with `OnDemand`: `main`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 32), inner(length(min = 1, max = 21)))]
    pub types: Option<Vec<String>>,
}

/// When the types of a session are started. `All` (the default): at once. `OnDemand`: the types in `launch.types` at once, and each
/// other type when the first agent requires it. A type that was started stays when its agents are gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum LaunchMode {
    /// All types are started at once.
    #[default]
    All,
    /// Some types are started when the first agent requires them.
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

    /// What happens when the session's time ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_expiry: Option<OnExpiry>,

    /// After this long without activity the session is suspended; the next activity starts it again. Activity is a newer time (RFC
    /// 3339) in the session's annotation `aigise.dev/last-activity`, and anything in progress in the session, such as an
    /// initialiser. A time that is more than five minutes in the future counts from when it was first observed. A plain `kubectl exec` is
    /// not noticed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 32), regex(pattern = super::DURATION))]
    pub idle: Option<String>,
}

/// What happens when the time of a session ends. `Release` (the default): Pods and volumes are deleted, and the session stays with
/// its status; volumes with `reclaim: Retain` stay. `Delete`: the session is deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnExpiry {
    /// Pods and volumes are deleted; the session stays.
    #[default]
    Release,
    /// The session is deleted.
    Delete,
}

/// The network of a session's sandboxes. A sandbox can always resolve names inside the cluster and connect to the other sandboxes
/// of its session.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Network {
    /// Whether the operator creates a NetworkPolicy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<PolicyMode>,

    /// What the sandboxes may connect to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub egress: Option<Egress>,

    /// Additional destinations that the sandboxes may connect to, as in a NetworkPolicy.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub allow_egress: Vec<NetworkPolicyEgressRule>,

    /// Additional sources that may connect to the sandboxes, as in a NetworkPolicy.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub allow_ingress: Vec<NetworkPolicyIngressRule>,
}

/// Whether the operator creates the NetworkPolicy of a session. `Managed` (the default): the operator creates it. `Unmanaged`: the
/// operator creates none; use this where another kind of policy does the work.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PolicyMode {
    /// The operator creates a NetworkPolicy.
    #[default]
    Managed,
    /// The operator creates no NetworkPolicy.
    Unmanaged,
}

/// What sandboxes may connect to besides their session. `Internet` (the default): everything except private and link-local
/// addresses, so neither the cluster nor its nodes. `SessionOnly`: nothing; commands that fill the volumes can still reach the
/// internet. `Any`: everything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Egress {
    /// Everything except private and link-local addresses.
    #[default]
    Internet,
    /// Nothing.
    SessionOnly,
    /// Everything.
    Any,
}

impl AigiseSessionSpec {
    /// Whether the operator creates the NetworkPolicy.
    pub fn network_policy(&self) -> PolicyMode {
        self.network.as_ref().and_then(|network| network.policy).unwrap_or_default()
    }

    /// What the sandboxes may connect to.
    pub fn egress(&self) -> Egress {
        self.network.as_ref().and_then(|network| network.egress).unwrap_or_default()
    }

    /// What happens when the session's time ends.
    pub fn on_expiry(&self) -> OnExpiry {
        self.lifetime.as_ref().and_then(|lifetime| lifetime.on_expiry).unwrap_or_default()
    }

    /// Whether the objects that the session created are deleted with it.
    pub fn cleans_up(&self) -> bool {
        self.auto_cleanup != Some(false)
    }

    /// Whether the user suspended the session.
    pub fn is_suspended(&self) -> bool {
        self.suspend == Some(true)
    }

    /// Whether a shared volume has content from the start: its own claim or sources.
    fn has_content(volume: Option<&VolumeSpec>) -> bool {
        volume.is_some_and(|volume| volume.claim_name.is_some() || !volume.sources.is_empty())
    }

    /// Whether `/sandbox_scripts` has content.
    pub fn has_scripts(&self) -> bool {
        Self::has_content(self.volumes.as_ref().and_then(|volumes| volumes.scripts.as_ref()))
    }

    /// Whether `/bash_tools` has content when the sandboxes start.
    pub fn has_tools(&self) -> bool {
        Self::has_content(self.volumes.as_ref().and_then(|volumes| volumes.tools.as_ref()))
    }

    /// Whether the other sandboxes continue when one fails.
    pub fn continues_on_error(&self) -> bool {
        self.continue_on_error == Some(true)
    }
}
