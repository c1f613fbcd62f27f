//! `Sandbox`: one Pod with one working container.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{crds::rule, init::InitStatus, template::SandboxTemplate};

/// The specification of a sandbox: what it is made of, and what it is for.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[kube(
    group = "aigise.dev",
    version = "v1alpha1",
    kind = "Sandbox",
    plural = "sandboxes",
    shortname = "asb",
    category = "aigise",
    namespaced,
    status = "SandboxStatus",
    derive = "Default",
    derive = "PartialEq",
    doc = "One Pod with one working container. A session creates a Sandbox for each of its types. A Sandbox that is created by hand without a session has no shared volumes.",
    printcolumn = r#"{"name": "Type", "type": "string", "jsonPath": ".spec.type"}"#,
    printcolumn = r#"{"name": "State", "type": "string", "jsonPath": ".status.state"}"#,
    printcolumn = r#"{"name": "Phase", "type": "string", "jsonPath": ".status.phase"}"#,
    printcolumn = r#"{"name": "Restarts", "type": "integer", "jsonPath": ".status.restarts", "priority": 1}"#,
    printcolumn = r#"{"name": "Node", "type": "string", "jsonPath": ".status.nodeName", "priority": 1}"#,
    printcolumn = r#"{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}"#,
    printcolumn = r#"{"name": "Message", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Ready\")].message", "priority": 1}"#
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules()))]
pub struct SandboxSpec {
    /// The session that the sandbox belongs to. The session's volumes, Service and network policy apply to the sandbox, and the
    /// sandbox is deleted with the session, unless the session's `autoCleanup` is `false`. If absent, the sandbox is on its own.
    /// This field is immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 40), regex(pattern = super::OBJECT_NAME))]
    pub session: Option<String>,

    /// The type of the sandbox: `main`, `gdb_mcp`, `fuzz`, … The type is unique in a session. This field is immutable.
    #[serde(rename = "type")]
    #[schemars(length(min = 1, max = 21), regex(pattern = r"^[A-Za-z]([-A-Za-z0-9_.]*[A-Za-z0-9])?$"))]
    pub sandbox_type: String,

    /// `true`: the Pod is deleted, and created again when this field is `false` again. Users can also set this field on a sandbox
    /// that a session created: the session never writes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,

    /// Existing claims that are mounted into the sandbox, in addition to the volumes of its session.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub volumes: Vec<SandboxVolume>,

    /// The template of the sandbox.
    #[serde(flatten)]
    pub template: SandboxTemplate,
}

/// An existing claim in a sandbox.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SandboxVolume {
    /// The name of the volume. It must not be `scripts`, `data`, `tools`, `aigise-helper`, `aigise-gate`, `aigise-gate-state` or
    /// `aigise-config`.
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,

    /// The name of the claim, in the same namespace.
    #[schemars(length(min = 1, max = 253), regex(pattern = super::OBJECT_NAME))]
    pub claim_name: String,

    /// The absolute path at which the claim is mounted. It must not be `/sandbox_scripts`, `/shared` or `/bash_tools`, and not at or below
    /// `/aigise`, `/run/aigise` or `/etc/aigise`.
    #[schemars(length(min = 2, max = 255), regex(pattern = "^/[^:]*$"))]
    pub mount_path: String,

    /// Whether the claim is mounted read-only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub read_only: Option<bool>,
}

fn rules() -> serde_json::Value {
    let mut rules = super::template::rules();
    if let Some(list) = rules.as_array_mut() {
        list.push(rule("has(self.image) || has(self.attach)", "image is required"));
        list.push(rule("self.type == oldSelf.type", "type cannot change"));
        list.push(rule(
            "has(self.session) == has(oldSelf.session) && (!has(self.session) || self.session == oldSelf.session)",
            "session cannot change",
        ));
    }
    rules
}

/// The status of a sandbox, as the operator last observed it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SandboxStatus {
    /// The generation of the specification that this status refers to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// What an agent can rely on: `ready`, `error` (the sandbox does not recover on its own), or `uninitialized`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<SandboxState>,

    /// Where the sandbox is in its life cycle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<SandboxPhase>,

    /// The name of the sandbox's Pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_name: Option<String>,

    /// The UID of the sandbox's Pod. A different UID means that the sandbox was started again.
    #[serde(default, rename = "podUID", skip_serializing_if = "Option::is_none")]
    pub pod_uid: Option<String>,

    /// The node that the Pod runs on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_name: Option<String>,

    /// The IP address of the Pod.
    #[serde(default, rename = "podIP", skip_serializing_if = "Option::is_none")]
    pub pod_ip: Option<String>,

    /// The DNS name of the sandbox inside the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hostname: Option<String>,

    /// The MCP services of the session that this sandbox offers, by name, with their URLs.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub endpoints: BTreeMap<String, String>,

    /// When the sandbox first became ready in its current Pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_at: Option<Time>,

    /// How many times in a row the sandbox was started again because its container ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restarts: Option<i32>,

    /// The last exit code of the working container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,

    /// The result of the initialiser. The result of a failed initialiser stays until the sandbox has another Pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init: Option<InitStatus>,

    /// The session that the sandbox belongs to, as last observed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SeenSession>,

    /// The Pod that the sandbox is attached to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attached: Option<Pin>,

    /// The current conditions of the sandbox, with their reasons.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// The session of a sandbox or agent, as last observed. After the session is deleted, this decides what happens to the sandbox or
/// agent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SeenSession {
    /// The UID of the session.
    pub uid: String,
    /// Whether the objects that belong to the session are deleted with it.
    pub auto_cleanup: bool,
}

/// The Pod that a sandbox is attached to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Pin {
    /// The name of the Pod.
    pub name: String,
    /// The UID of the Pod. Another Pod with the same name is not the same Pod.
    pub uid: String,
    /// The value of the sandbox's annotation `aigise.dev/restart` when the sandbox was attached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart: Option<String>,
}

/// What an agent can rely on.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, strum::Display, strum::IntoStaticStr,
)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum SandboxState {
    /// The sandbox is not ready yet, or no longer ready; the operator or the cluster is working on it.
    #[default]
    Uninitialized,
    /// The sandbox can be used.
    Ready,
    /// The sandbox does not recover on its own.
    Error,
}

/// Where a sandbox is in its life cycle.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Serialize,
    Deserialize,
    JsonSchema,
    strum::Display,
    strum::IntoStaticStr,
    strum::EnumIter,
)]
pub enum SandboxPhase {
    /// The sandbox has no Pod, or its Pod has no node.
    Pending,
    /// The container is being started.
    Starting,
    /// The container runs, and the init work waits or is in progress.
    Initializing,
    /// The sandbox can be used.
    Ready,
    /// The container ended with exit code 0, and the restart policy requires no restart.
    Finished,
    /// The sandbox does not recover on its own.
    Error,
    /// The sandbox has no Pod because the sandbox or its session is suspended.
    Suspended,
    /// The sandbox is being deleted.
    Terminating,
}

impl SandboxPhase {
    /// The state of a sandbox in this phase, in the words of the framework.
    pub fn state(self) -> SandboxState {
        match self {
            SandboxPhase::Ready => SandboxState::Ready,
            SandboxPhase::Error => SandboxState::Error,
            SandboxPhase::Pending
            | SandboxPhase::Starting
            | SandboxPhase::Initializing
            | SandboxPhase::Finished
            | SandboxPhase::Suspended
            | SandboxPhase::Terminating => SandboxState::Uninitialized,
        }
    }
}

/// The DNS label of a type: `gdb_mcp` and `Gdb.mcp` are both `gdb-mcp`.
pub fn dns_label(sandbox_type: &str) -> String {
    sandbox_type.to_ascii_lowercase().replace(['_', '.'], "-")
}
