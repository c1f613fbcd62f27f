//! `AigiseSession`: one unit of work.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::{
    api::resource::Quantity,
    apis::meta::v1::{Condition, Time},
};
use kube::CustomResource;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{crds::rule, template::SandboxTemplate};

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
    printcolumn = r#"{"name": "Task", "type": "string", "jsonPath": ".spec.taskName", "priority": 1}"#,
    printcolumn = r#"{"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}"#,
    printcolumn = r#"{"name": "Message", "type": "string", "jsonPath": ".status.conditions[?(@.type==\"Ready\")].message", "priority": 1}"#
)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = volume_rules()))]
pub struct AigiseSessionSpec {
    /// The task that the session works on; a label on everything that it creates. Default: the session's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$"))]
    pub task_name: Option<String>,

    /// The sandboxes, by type: `main`, `gdb_mcp`, `fuzz`, … Each becomes one Pod, reached from the others as
    /// `<type>.<session>` (in lower case, `_` and `.` as `-`). A type has letters, digits, `-`, `_` and `.`, begins with a letter,
    /// has at most 21 characters and is none of `stage`, `config`, `data`, `scripts`, `tools` and `agent-…`.
    #[schemars(extend("minProperties" = 1, "maxProperties" = 32), extend("x-kubernetes-validations" = [
        rule("self.all(t, t.matches('^[A-Za-z]([-A-Za-z0-9_.]*[A-Za-z0-9])?$') && size(t) <= 21)",
            "sandboxes: a type has letters, digits, `-`, `_` and `.`, begins with a letter, ends with a letter or digit and has at most 21 characters"),
        rule("self.all(t, !t.matches('^(?i)(stage|config|data|scripts|tools|agent[-_.].*)$'))",
            "sandboxes: the types stage, config, data, scripts, tools and agent-… are reserved"),
    ]))]
    pub sandboxes: BTreeMap<String, SessionSandbox>,

    /// The three shared volumes of all sandboxes. They exist also when nothing is said about them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volumes: Option<Volumes>,

    /// First-level folders of the tools sources that are staged. Absent: all; empty: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), inner(length(min = 1, max = 255), regex(pattern = r"^[^/]+$")))]
    pub tools_top_roots: Option<Vec<String>>,
}

/// What a claim was made with cannot be changed. The rules stand on the specification and not on the volume, so that they also
/// hold where a volume is mentioned for the first time or for the last time.
fn volume_rules() -> serde_json::Value {
    let fields = [("size", "'1Gi'"), ("storageClassName", "''"), ("accessModes", "['ReadWriteOnce']")];
    let rules = ["scripts", "data", "tools"].into_iter().flat_map(|volume| {
        fields.into_iter().map(move |(field, default)| {
            let value = |of: &str| {
                format!(
                    "(has({of}.volumes) && has({of}.volumes.{volume}) && has({of}.volumes.{volume}.{field}) ? {of}.volumes.{volume}.{field} : {default})"
                )
            };
            rule(&format!("{} == {}", value("self"), value("oldSelf")), &format!("volumes.{volume}.{field} cannot change"))
        })
    });
    rules.collect()
}

/// The template of one type of a session's sandboxes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[schemars(extend("x-kubernetes-validations" = super::template::rules()))]
pub struct SessionSandbox {
    /// What the sandbox is made of.
    #[serde(flatten)]
    pub template: SandboxTemplate,
}

/// The three shared volumes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Volumes {
    /// Scripts, mounted read-only at `/sandbox_scripts`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scripts: Option<VolumeSpec>,
    /// Data that the sandboxes share, mounted at `/shared`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<VolumeSpec>,
    /// Tools, mounted at `/bash_tools`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tools: Option<VolumeSpec>,
}

/// One shared volume: a claim and what it is filled with.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VolumeSpec {
    /// How much room the volume asks for. Default: `1Gi`. Cannot change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", length(max = 32), extend("x-kubernetes-validations" = [
        rule("isQuantity(self) && quantity(self).isGreaterThan(quantity('0'))", "a positive quantity, such as 1Gi"),
    ]))]
    pub size: Option<Quantity>,

    /// The storage class of the claim. Default: the cluster's default class. Cannot change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub storage_class_name: Option<String>,

    /// The access modes of the claim, one of `ReadWriteOnce` (the default: all Pods of the session run on one node) and
    /// `ReadWriteMany` (they may run anywhere; the storage class has to offer it). Cannot change.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 2))]
    pub access_modes: Vec<AccessMode>,

    /// What the volume is filled with before any sandbox starts, copied in this order. Two sources that put a different file at
    /// the same place are an error. What sandboxes wrote is never overwritten. When the list changes, what is missing is added
    /// at once; a changed ConfigMap is taken when the volumes are staged the next time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub sources: Vec<VolumeSource>,
}

/// How a claim may be mounted.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, strum::Display, strum::IntoStaticStr,
)]
pub enum AccessMode {
    /// By the Pods of one node.
    ReadWriteOnce,
    /// By Pods of any node.
    ReadWriteMany,
}

/// One thing that a volume is filled with: exactly one of `configMap` and `persistentVolumeClaim`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    rule("has(self.configMap) != has(self.persistentVolumeClaim)", "exactly one of configMap and persistentVolumeClaim"),
]))]
pub struct VolumeSource {
    /// Each key of a ConfigMap of the same namespace becomes a file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map: Option<ConfigMapSource>,

    /// The files of another claim of the same namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persistent_volume_claim: Option<ClaimSource>,

    /// The folder of the volume that the files are put into: relative, without `..`. Default: the root of the volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = [super::crds::relative_path()]), length(max = 255))]
    pub path: Option<String>,
}

/// The operator asks for objects by these names: nothing that could be read as a path or a query is let through.
const OBJECT_NAME: &str = "^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$";

/// A ConfigMap as a source.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ConfigMapSource {
    /// The name of the ConfigMap.
    #[schemars(length(min = 1, max = 253), regex(pattern = OBJECT_NAME))]
    pub name: String,
}

/// A claim as a source.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClaimSource {
    /// The name of the claim. It is mounted read-only.
    #[schemars(length(min = 1, max = 253), regex(pattern = OBJECT_NAME))]
    pub claim_name: String,

    /// The folder of the claim that is copied. Default: all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = [super::crds::relative_path()]), length(max = 255))]
    pub path: Option<String>,
}

/// What the operator last saw of a session.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AigiseSessionStatus {
    /// The generation of the specification that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// Where the session is in its life.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<SessionPhase>,

    /// What is true of the session now, and why.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,

    /// The sandboxes that the session wants.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandboxes: Option<SandboxCounts>,

    /// The session's volumes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volumes: Option<VolumesStatus>,

    /// The DNS name under which the sandboxes find each other: `<type>.<this>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,

    /// When all sandboxes were ready for the first time.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_at: Option<Time>,
}

/// Where a session is in its life.
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
pub enum SessionPhase {
    /// Nothing has been created yet, or something is in the way of it.
    Pending,
    /// The volumes are being filled.
    Staging,
    /// The sandboxes are starting.
    Starting,
    /// All sandboxes are ready.
    Ready,
    /// It will not become ready by itself.
    Error,
    /// It is being deleted.
    Terminating,
}

/// How many sandboxes there are and how they are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SandboxCounts {
    /// How many the session wants.
    pub total: i32,
    /// How many are ready.
    pub ready: i32,
    /// How many are in the state `error`.
    pub error: i32,
    /// `ready/total`.
    pub summary: String,
    /// The state of each, by type.
    #[serde(default)]
    pub states: BTreeMap<String, super::sandbox::SandboxState>,
}

/// The session's volumes as they are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VolumesStatus {
    /// The scripts volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scripts: Option<VolumeStatus>,
    /// The data volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<VolumeStatus>,
    /// The tools volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tools: Option<VolumeStatus>,
    /// Names the content that was staged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub staged_digest: Option<String>,
}

/// One volume as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VolumeStatus {
    /// The name of its claim.
    pub claim_name: String,
    /// The phase of the claim: `Pending`, `Bound` or `Lost`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
    /// The first-level folders of the tools volume.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roots: Vec<String>,
}
