//! What is done in a sandbox before it is ready, and what came of it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What is done in the working container before the sandbox is ready: an initialiser. It begins when the sandboxes that
/// `dependsOn` names are ready, and runs once for each start of the sandbox. When a step fails, so does the sandbox; it stays
/// `error`, with the evidence in `status.init`, until it is started again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Init {
    /// Commands, one after the other.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub steps: Vec<InitStep>,

    /// How long all of it may take once it has begun. Default: `1h`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 32), regex(pattern = super::DURATION))]
    pub timeout: Option<String>,

    /// What a sandbox of a session with scripts (`volumes.scripts`) has by its type. `Type` (the default): the steps over
    /// `/sandbox_scripts`, dependencies, ports and MCP services that the framework gives to `gdb_mcp`, `pdb_mcp`, `fuzz`, `coverage`,
    /// `joern`, `codeql` and `neo4j`, each unless the template or `sandboxDefaults` say otherwise. `None`: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile: Option<Profile>,

    /// `true`: nothing of it is done, and nothing is waited for. To look around after a failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skip: Option<bool>,
}

/// What a sandbox of a session with scripts (`volumes.scripts`) has by its type. `Type` (the default): the steps over
/// `/sandbox_scripts`, dependencies, ports and MCP services that the framework gives to `gdb_mcp`, `pdb_mcp`, `fuzz`, `coverage`,
/// `joern`, `codeql` and `neo4j`, each unless the template or `sandboxDefaults` say otherwise. `None`: nothing.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Profile {
    /// What the framework does for the type.
    #[default]
    Type,
    /// Nothing.
    None,
}

/// One command of an initialiser.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct InitStep {
    /// What it is called, in the status and in the log.
    #[schemars(length(min = 1, max = 63), regex(pattern = "^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$"))]
    pub name: String,

    /// The program and its arguments, run without a shell, in the folder and with the environment of the working container.
    #[schemars(length(min = 1, max = 64), inner(length(max = 32768)))]
    pub command: Vec<String>,

    /// How long it may take; then it is told to end, and 5 seconds later it is killed. Default: as long as the whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 32), regex(pattern = super::DURATION))]
    pub timeout: Option<String>,

    /// Further environment variables. What comes from a Secret belongs into the sandbox's own `env`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub env: Vec<StepVariable>,
}

/// An environment variable of a step, as it is: nothing in it is replaced.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct StepVariable {
    /// Its name.
    #[schemars(length(min = 1, max = 255), regex(pattern = "^[^=]+$"))]
    pub name: String,

    /// Its value.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 32768))]
    pub value: String,
}

/// How far the initialiser of a sandbox is.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema, strum::Display, strum::IntoStaticStr,
)]
pub enum InitOutcome {
    /// It has not begun: its container is not there yet, or sandboxes that it depends on are not ready.
    #[default]
    Waiting,
    /// It has begun.
    Running,
    /// All of it is done.
    Succeeded,
    /// It is not, and will not be.
    Failed,
    /// `init.skip` wanted nothing of it.
    Skipped,
}

/// What came of the initialiser.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct InitStatus {
    /// How far it is.
    pub outcome: InitOutcome,

    /// The step that failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,

    /// The exit code of that step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exit_code: Option<i32>,

    /// The signal that ended that step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<i32>,

    /// The last lines that the step printed. Values of environment variables that come from Secrets are left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tail: Option<String>,

    /// When it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,

    /// When it was seen to have ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Time>,
}
