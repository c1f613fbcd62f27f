//! `Sandbox`: one Pod with one working container.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{crds::rule, template::SandboxTemplate};

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
    printcolumn = r#"{"name": "Node", "type": "string", "jsonPath": ".status.nodeName", "priority": 1}"#,
    printcolumn = r#"{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}"#,
    printcolumn = r#"{"name": "Message", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Ready\")].message", "priority": 1}"#
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = rules()))]
pub struct SandboxSpec {
    /// The session that made the sandbox: its volumes, service and policy apply. A sandbox made by hand leaves it out. Cannot
    /// change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 40))]
    pub session: Option<String>,

    /// What the sandbox is for: `main`, `gdb_mcp`, `fuzz`, … Unique in a session. Cannot change.
    #[serde(rename = "type")]
    #[schemars(length(min = 1, max = 21), regex(pattern = r"^[A-Za-z]([-A-Za-z0-9_.]*[A-Za-z0-9])?$"))]
    pub sandbox_type: String,

    /// What the sandbox is made of.
    #[serde(flatten)]
    pub template: SandboxTemplate,
}

fn rules() -> serde_json::Value {
    let mut rules = super::template::rules();
    if let Some(list) = rules.as_array_mut() {
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

    /// What is true of the sandbox now, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
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
    /// It can be worked in.
    Ready,
    /// It will not come back by itself.
    Error,
    /// It is being deleted.
    Terminating,
}
