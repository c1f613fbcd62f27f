//! The status of a session.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{cache::CacheStatus, volumes::VolumeLayout};
use crate::api::{raw::RawJson, sandbox::SandboxState};

/// The status of a session, as the operator last observed it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct AigiseSessionStatus {
    /// The generation of the specification that this status refers to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,

    /// Where the session is in its life cycle.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<SessionPhase>,

    /// The current conditions of the session, with their reasons.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,

    /// The values of the configuration file, as it was last read successfully.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub configuration: Option<ConfigurationStatus>,

    /// The sandboxes that the session requests.
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

    /// What the session has from caches, and what it saved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cache: Option<CacheStatus>,

    /// The DNS name under which the sandboxes reach each other: `<type>.<this>`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service: Option<String>,

    /// When the sandboxes were last started: when the session was created, or when it was resumed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,

    /// When the time of the session ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Time>,

    /// When all sandboxes were ready for the first time since they were last started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ready_at: Option<Time>,

    /// Since when nothing is in progress in the session: the session is ready, or needs a person. The idle time starts here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settled_at: Option<Time>,

    /// The activity that the annotation `aigise.dev/last-activity` reports, if it was more than five minutes in the future when it was
    /// first observed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub future_activity: Option<FutureActivity>,
}

/// An activity in the future. It counts from when it was first observed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FutureActivity {
    /// The time in the annotation, in whole seconds.
    pub time: Time,
    /// When the operator first observed it.
    pub observed_at: Time,
}

/// Where a session is in its life cycle.
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
    /// Nothing has been created yet, or something prevents it.
    Pending,
    /// The volumes are being filled.
    Staging,
    /// The sandboxes are starting.
    Starting,
    /// The sandboxes run, and some of them have init work to do before they are ready.
    Initializing,
    /// All sandboxes are ready.
    Ready,
    /// Some sandboxes failed; the others can be used.
    Degraded,
    /// The session does not become ready on its own.
    Error,
    /// The Pods of the session are deleted; its volumes stay.
    Suspended,
    /// The time of the session is over: its Pods and volumes are deleted.
    Expired,
    /// The session is being deleted.
    Terminating,
}

/// The values that a configuration file sets for the session.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct ConfigurationStatus {
    /// Fields of a specification; the fields of `spec` override them. For secrets they hold references and never a value.
    #[schemars(schema_with = "crate::api::template::any_object")]
    pub spec: RawJson,
}

/// How many sandboxes there are, and their states.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SandboxCounts {
    /// How many sandboxes the session requests.
    pub total: i32,
    /// How many sandboxes are ready.
    pub ready: i32,
    /// How many sandboxes are in the state `error`.
    pub error: i32,
    /// `ready/total`.
    pub summary: String,
    /// The state of each sandbox, by type.
    #[serde(default)]
    pub states: BTreeMap<String, SandboxState>,
}

/// How many agents there are, and their states.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct AgentCounts {
    /// How many agents there are.
    pub total: i32,
    /// How many agents are in each state.
    #[serde(default)]
    pub counts: BTreeMap<String, i32>,
}

/// The current state of the session's volumes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VolumesStatus {
    /// How the volumes are laid out on claims, if not `Separate`. It never changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layout: Option<VolumeLayout>,
    /// The scripts volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scripts: Option<VolumeStatus>,
    /// The data volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<VolumeStatus>,
    /// The tools volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tools: Option<VolumeStatus>,
    /// The digest of the content that was staged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub staged_digest: Option<String>,
    /// The record that the volumes were filled. The volumes are filled again only after their sources were edited, a claim was recreated,
    /// or the annotation `aigise.dev/restage` was changed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub filled: Option<FilledStatus>,
}

/// The record that the session's own volumes were filled.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct FilledStatus {
    /// The digest of the sources as they are written in the session, without the content of ConfigMaps.
    pub sources: String,
    /// The UIDs of the claims, by volume.
    #[serde(default)]
    pub claims: BTreeMap<String, String>,
    /// The value of the annotation `aigise.dev/restage` with which the volumes were filled last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request: Option<String>,
    /// How many files already existed with other content and were kept.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub kept: i64,
    /// Whether the volumes are to be filled again, and wait for a source that does not exist.
    #[serde(default, skip_serializing_if = "is_false")]
    pub outdated: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_false(value: &bool) -> bool {
    !*value
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde passes a reference")]
fn is_zero(number: &i64) -> bool {
    *number == 0
}

/// The current state of one volume.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VolumeStatus {
    /// The name of the volume's claim.
    pub claim_name: String,
    /// The folder of the claim that holds the volume. Absent: the whole claim.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub folder: Option<String>,
    /// The phase of the claim: `Pending`, `Bound` or `Lost`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub phase: Option<String>,
    /// The first-level folders of the tools volume that come from its sources.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roots: Vec<String>,
    /// The skills in the tools volume when it was last staged: folders with a `SKILL.md`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skills: Vec<String>,
}
