//! What the operator says of a session.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::{raw::RawJson, sandbox::SandboxState};

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

    /// What the configuration file says, as it was last understood.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configuration: Option<ConfigurationStatus>,

    /// The sandboxes that the session wants.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sandboxes: Option<SandboxCounts>,

    /// With `launch.mode: OnDemand`: the types that have been started so far.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub launched: Vec<String>,

    /// The agents of the session.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agents: Option<AgentCounts>,

    /// The session's volumes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub volumes: Option<VolumesStatus>,

    /// The DNS name under which the sandboxes find each other: `<type>.<this>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,

    /// When the sandboxes were last started: at the creation of the session, or when it was resumed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,

    /// When the time of the session ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Time>,

    /// When all sandboxes were ready for the first time since they were started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_at: Option<Time>,

    /// Since when nothing is on its way in the session: it is ready, or needs a person. Idleness counts from here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settled_at: Option<Time>,
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
    /// The sandboxes run, and some have something to do before they are ready.
    Initializing,
    /// All sandboxes are ready.
    Ready,
    /// Some sandboxes failed; the others can be worked in.
    Degraded,
    /// It will not become ready by itself.
    Error,
    /// Its Pods are gone, its volumes stay.
    Suspended,
    /// Its time is over: its Pods and volumes are gone.
    Expired,
    /// It is being deleted.
    Terminating,
}

/// What a configuration file says of the session.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ConfigurationStatus {
    /// Fields of a specification, which those of `spec` lie over. Of secrets it has references and never a value.
    #[schemars(schema_with = "crate::api::template::any_object")]
    pub spec: RawJson,
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
    pub states: BTreeMap<String, SandboxState>,
}

/// How many agents there are and how they are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AgentCounts {
    /// How many there are.
    pub total: i32,
    /// How many have each status.
    #[serde(default)]
    pub counts: BTreeMap<String, i32>,
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
    /// The first-level folders of the tools volume that its sources brought.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roots: Vec<String>,
    /// The skills in the tools volume, as far as they were staged: folders with a `SKILL.md`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skills: Vec<String>,
}
