//! The init work of a sandbox, and its result.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The init work of a sandbox (an initialiser): what runs in the working container before the sandbox is ready. The initialiser
/// starts when the sandboxes in `dependsOn` are ready, and runs once for each start of the sandbox. When a step fails, the sandbox
/// fails too: it stays in `error`, with the evidence in `status.init`, until it is started again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Init {
    /// Commands that run one after the other.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub steps: Vec<InitStep>,

    /// How long the whole initialiser may take once it has started. Default: `1h`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 32), regex(pattern = super::DURATION))]
    pub timeout: Option<String>,

    /// How long the initialiser waits for the services of `mcpServices` after its steps, within `timeout`. Default: `15m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 32), regex(pattern = super::DURATION))]
    pub service_timeout: Option<String>,

    /// What a sandbox gets for its type if its session has scripts (`volumes.scripts`). `Type` (the default): the steps over
    /// `/sandbox_scripts`, dependencies, ports and MCP services that the framework defines for `gdb_mcp`, `pdb_mcp`, `fuzz`,
    /// `coverage`, `joern`, `codeql` and `neo4j`; the template and `sandboxDefaults` can override each of them. `None`: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<Profile>,

    /// `true`: the sandbox skips its initialiser and waits for nothing. Use this to look around after a failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skip: Option<bool>,
}

/// What a sandbox gets for its type if its session has scripts (`volumes.scripts`). `Type` (the default): the steps over
/// `/sandbox_scripts`, dependencies, ports and MCP services that the framework defines for `gdb_mcp`, `pdb_mcp`, `fuzz`,
/// `coverage`, `joern`, `codeql` and `neo4j`; the template and `sandboxDefaults` can override each of them. `None`: nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Profile {
    /// What the framework defines for the type.
    #[default]
    Type,
    /// Nothing.
    None,
}

/// One command of an initialiser.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct InitStep {
    /// The name of the step in the status and in the log.
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$"))]
    pub name: String,

    /// The program and its arguments, run without a shell, in the folder and with the environment of the working container.
    #[schemars(length(min = 1, max = 64), inner(length(max = 32768)))]
    pub command: Vec<String>,

    /// How long the step may take. After that the step is asked to end, and 5 seconds later it is killed. Default: as long as the
    /// whole initialiser.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 32), regex(pattern = super::DURATION))]
    pub timeout: Option<String>,

    /// Whether the step runs when the session starts from a cache. `Cold` (the default): it does not, since what it
    /// leaves is restored. `Always`: it does. Use this for servers that a step leaves running.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<StepRun>,

    /// Additional environment variables. Values from a Secret belong in the sandbox's own `env`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub env: Vec<StepVariable>,
}

/// Whether a step runs when the session starts from a cache. `Cold` (the default): it does not. `Always`: it does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum StepRun {
    /// Not when what it leaves is restored.
    #[default]
    Cold,
    /// At every start.
    Always,
}

/// An environment variable of a step. Its value is used as it is: no reference in it is expanded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StepVariable {
    /// The name of the variable.
    #[schemars(length(min = 1, max = 255), regex(pattern = "^[^=]+$"))]
    pub name: String,

    /// The value of the variable.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 32768))]
    pub value: String,
}

/// The progress of a sandbox's initialiser.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, strum::Display, strum::IntoStaticStr,
)]
pub enum InitOutcome {
    /// The initialiser has not started: its container does not run yet, or sandboxes that it depends on are not ready.
    #[default]
    Waiting,
    /// The initialiser is running.
    Running,
    /// The initialiser has finished all of its work.
    Succeeded,
    /// The initialiser has failed.
    Failed,
    /// `init.skip` skipped the initialiser.
    Skipped,
}

/// The result of an initialiser.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct InitStatus {
    /// The progress of the initialiser.
    pub outcome: InitOutcome,

    /// The step that failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,

    /// The exit code of the failed step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,

    /// The signal that ended the failed step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,

    /// The last lines that the failed step printed. Values of environment variables that come from Secrets are removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tail: Option<String>,

    /// When the initialiser started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,

    /// When the operator observed that the initialiser had ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Time>,

    /// What became of the root file system, if the session has caches.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<RootStatus>,
}

/// What became of the root file system of a sandbox in caches.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RootStatus {
    /// What became of it.
    pub state: RootState,

    /// Why it was not saved, or not restored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,

    /// The same in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,

    /// What was saved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub saved: Option<SavedRoot>,
}

/// What became of a root file system. `Saved`: it is packed on the volume `data`, for the cache. `NotSaved`. `Restored`.
/// `NotRestored`: the sandbox is started again without it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RootState {
    /// It is packed on the volume.
    Saved,
    /// It could not be packed.
    #[default]
    NotSaved,
    /// It is as it was saved.
    Restored,
    /// It could not be restored.
    NotRestored,
}

/// A root file system as it was saved: what differs from the image, and the volumes of the sandbox alone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SavedRoot {
    /// The SHA-256 of its file, in hexadecimal digits.
    pub sha256: String,

    /// The size of the file, in bytes.
    pub packed: u64,

    /// The size before compression, in bytes.
    pub unpacked: u64,

    /// Identifies the files of the image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
}
