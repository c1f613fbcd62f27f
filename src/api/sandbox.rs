//! `Sandbox`: one Pod with one working container.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{crds::rule, init::InitStatus, template::SandboxTemplate};

/// What the sandbox is made of, and for what.
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
    doc = "One Pod with one working container. A session makes one for each of its types; one made by hand, without a session, has no shared volumes.",
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
    /// The session that the sandbox belongs to: its volumes, service and policy apply, and the sandbox goes with it. Absent: it
    /// stands alone. Cannot change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 40), regex(pattern = super::OBJECT_NAME))]
    pub session: Option<String>,

    /// What the sandbox is for: `main`, `gdb_mcp`, `fuzz`, … Unique in a session. Cannot change.
    #[serde(rename = "type")]
    #[schemars(length(min = 1, max = 21), regex(pattern = r"^[A-Za-z]([-A-Za-z0-9_.]*[A-Za-z0-9])?$"))]
    pub sandbox_type: String,

    /// `true`: the Pod goes until it is `false` again. Also for a sandbox that a session made: the session leaves this field to
    /// its users.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub suspend: Option<bool>,

    /// Existing claims that are mounted into the sandbox, besides the volumes of its session.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub volumes: Vec<SandboxVolume>,

    /// What the sandbox is made of.
    #[serde(flatten)]
    pub template: SandboxTemplate,
}

/// An existing claim in a sandbox.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SandboxVolume {
    /// A name for it; none of `scripts`, `data`, `tools` and `aigise-helper`.
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,

    /// The claim, in the same namespace.
    #[schemars(length(min = 1, max = 253), regex(pattern = super::OBJECT_NAME))]
    pub claim_name: String,

    /// Where it is mounted: an absolute path, and none of `/sandbox_scripts`, `/shared`, `/bash_tools` and `/aigise`.
    #[schemars(length(min = 2, max = 255), regex(pattern = "^/[^:]*$"))]
    pub mount_path: String,

    /// Whether it can only be read.
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

/// What the operator last saw of a sandbox.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SandboxStatus {
    /// The generation of the specification that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// What an agent may count on: `ready`, `error` (it will not come back by itself), or `uninitialized`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub state: Option<SandboxState>,

    /// Where the sandbox is in its life.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<SandboxPhase>,

    /// The name of its Pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod_name: Option<String>,

    /// The UID of its Pod: another one means another start.
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

    /// The MCP services of the session that are in this sandbox, by name, with their URLs.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub endpoints: BTreeMap<String, String>,

    /// When the sandbox was ready for the first time in this Pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_at: Option<Time>,

    /// How many times in a row the sandbox was started again because its container ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restarts: Option<i32>,

    /// What its container last ended with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,

    /// What came of its initialiser; of one that failed, until there is another Pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init: Option<InitStatus>,

    /// The session that the sandbox belongs to, as it was last seen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub session: Option<SeenSession>,

    /// The Pod that the sandbox is attached to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attached: Option<Pin>,

    /// What is true of the sandbox now, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// A session as a sandbox last saw it: when it is gone, this says what becomes of the sandbox.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SeenSession {
    /// Its UID.
    pub uid: String,
    /// Whether what belongs to it goes with it.
    pub auto_cleanup: bool,
}

/// The Pod that a sandbox is attached to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Pin {
    /// Its name.
    pub name: String,
    /// Its UID: another Pod of the same name is not the same.
    pub uid: String,
    /// The value of the sandbox's annotation `aigise.dev/restart` when it was attached.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart: Option<String>,
}

/// What an agent may count on.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, strum::Display, strum::IntoStaticStr,
)]
#[serde(rename_all = "lowercase")]
#[strum(serialize_all = "lowercase")]
pub enum SandboxState {
    /// Not ready yet, or not any more; the operator or the cluster is working on it.
    #[default]
    Uninitialized,
    /// It can be worked in.
    Ready,
    /// It will not come back by itself.
    Error,
}

/// Where a sandbox is in its life.
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
    /// It has no Pod, or its Pod has no node.
    Pending,
    /// Its container is being started.
    Starting,
    /// Its container runs, and what is to be done before it is ready is waited for or done.
    Initializing,
    /// It can be worked in.
    Ready,
    /// Its container ended with 0, and its restart policy wants no more.
    Finished,
    /// It will not come back by itself.
    Error,
    /// It has no Pod because it, or its session, is suspended.
    Suspended,
    /// It is being deleted.
    Terminating,
}
