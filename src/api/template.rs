//! What a sandbox is made of: the fields that a session's template and a Sandbox share.

use k8s_openapi::api::core::v1::{ContainerPort, EnvVar, ResourceRequirements, SecurityContext};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::crds::rule;

/// What runs when `command` is empty. `Idle` (the default): a helper that waits, so that the sandbox can be worked in with
/// `kubectl exec`. `Image`: the image's own entrypoint.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Entrypoint {
    /// A helper that does nothing but wait, so that the sandbox can be worked in.
    #[default]
    Idle,
    /// What the image itself starts.
    Image,
}

/// The working container of a sandbox.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SandboxTemplate {
    /// The container image that the sandbox works in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub image: Option<String>,

    /// What runs when `command` is empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Entrypoint>,

    /// The program and its arguments, run without a shell. Not together with `entrypoint: Image`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 32768)))]
    pub command: Vec<String>,

    /// Environment variables, as in a Pod's container.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub env: Vec<EnvVar>,

    /// Ports that the sandbox listens on, as in a Pod's container.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub ports: Vec<ContainerPort>,

    /// The folder that commands start in. Default: the image's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub working_dir: Option<String>,

    /// CPU, memory and other resources, as in a Pod's container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,

    /// Security settings of the working container, as in a Pod's container. Refused is what leads out of the
    /// sandbox: `privileged`, `procMount`, `windowsOptions.hostProcess`, and capabilities other than those of the Pod Security
    /// Standard `baseline`, `SYS_NICE` and `SYS_PTRACE`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub security_context: Option<SecurityContext>,
}

impl SandboxTemplate {
    /// What runs when there is no command.
    #[must_use]
    pub fn entrypoint(&self) -> Entrypoint {
        self.entrypoint.unwrap_or_default()
    }
}

/// What CEL can say about a template, wherever it is embedded.
pub(super) fn rules() -> serde_json::Value {
    serde_json::json!([
        rule("has(self.image)", "image is required"),
        rule(
            "!(has(self.entrypoint) && self.entrypoint == 'Image' && has(self.command) && size(self.command) > 0)",
            "entrypoint: Image and a command exclude each other",
        ),
    ])
}
