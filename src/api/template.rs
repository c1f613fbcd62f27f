//! What a sandbox is made of: the fields that a session's template and a Sandbox share.

use k8s_openapi::api::core::v1::{ContainerPort, EnvFromSource, EnvVar, Probe, ResourceRequirements, SecurityContext};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{crds::rule, init::Init, raw::RawJson};

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

    /// Environment variables from whole ConfigMaps and Secrets, as in a Pod's container.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub env_from: Vec<EnvFromSource>,

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

    /// When the sandbox is ready, as in a Pod's container. Default: as soon as its container runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub readiness_probe: Option<Probe>,

    /// A Pod template, laid over the Pod of the sandbox last, for what has no field of its own: maps merge deeply, lists of
    /// named things (containers, volumes, env) merge by name, volumeMounts by path, terms of affinity are added, other lists
    /// replace. The working container is called `sandbox`. A field that does not exist is an error, and so is what the operator
    /// keeps for itself or what leads out of the sandbox; the condition Stalled names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "any_object")]
    pub pod_template: Option<RawJson>,

    /// What is done before the sandbox is ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init: Option<Init>,

    /// Types of the same session that this one needs: they are started with it when only some types are launched, and its
    /// initialiser begins when they are ready. One that is lost later undoes nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 21)))]
    pub depends_on: Vec<String>,

    /// MCP services of the session that have to answer before the sandbox is ready, and for as long as it is; most often those
    /// that it offers itself. With a `readinessProbe` both count.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 63)))]
    pub mcp_services: Vec<String>,

    /// What happens when the working container ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart: Option<Restart>,

    /// When a changed template is taken.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update_policy: Option<UpdatePolicy>,

    /// A Pod that is there already, instead of one of the sandbox's own. It is watched and never changed. Excludes everything
    /// that describes a Pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attach: Option<Attach>,
}

impl SandboxTemplate {
    /// What runs when there is no command.
    #[must_use]
    pub fn entrypoint(&self) -> Entrypoint {
        self.entrypoint.unwrap_or_default()
    }

    /// What happens when the working container ends.
    #[must_use]
    pub fn restart_policy(&self) -> RestartPolicy {
        self.restart.as_ref().and_then(|restart| restart.policy).unwrap_or_default()
    }

    /// How many restarts in a row there may be.
    #[must_use]
    pub fn restart_limit(&self) -> i32 {
        self.restart.as_ref().and_then(|restart| restart.limit).unwrap_or(3)
    }

    /// When a changed template is taken.
    #[must_use]
    pub fn update_policy(&self) -> UpdatePolicy {
        self.update_policy.unwrap_or_default()
    }
}

/// When the operator starts a sandbox again whose working container ended, with a new Pod. `Always` (the default), `OnFailure`:
/// not when it ended with 0, which is then `Finished`; `Never`. A Pod that somebody deleted is always made anew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RestartPolicy {
    /// However it ended.
    #[default]
    Always,
    /// When it did not end with 0.
    OnFailure,
    /// Not at all.
    Never,
}

/// Starting a sandbox again whose working container ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Restart {
    /// When it is started again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<RestartPolicy>,

    /// How many times in a row, before the sandbox is in the state `error`. Default: 3. The count begins anew when the sandbox was
    /// ready for ten minutes, or the template changed. Between two starts is a pause of 2 seconds at first, doubled each time, 5
    /// minutes at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000))]
    pub limit: Option<i32>,
}

/// When a changed template is taken by a sandbox that is ready. `Manual` (the default): at its next start; until then it is
/// `OutOfDate`. `Recreate`: at once, by a new Pod. A sandbox that is not ready takes it at once in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum UpdatePolicy {
    /// At the next start.
    #[default]
    Manual,
    /// At once.
    Recreate,
}

/// A Pod that is there already. It has to carry the annotation `aigise.dev/attachable` with the name of the session or the
/// sandbox as its value, which is its owner's consent. It is pinned by its UID: another Pod of the name is an error until the
/// annotation `aigise.dev/restart` of the sandbox changes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Attach {
    /// The name of the Pod, in the same namespace.
    #[schemars(length(min = 1, max = 253), regex(pattern = super::OBJECT_NAME))]
    pub pod_name: String,

    /// The container that is worked in. Default: the only one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub container: Option<String>,
}

/// Any object: the API server keeps what it does not know.
pub(super) fn any_object(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}

/// What CEL can say about a template, wherever it is embedded.
pub(super) fn rules() -> serde_json::Value {
    // Lists and maps that are empty are as good as absent, but telling so would cost more than it is worth.
    let described = [
        "image",
        "entrypoint",
        "command",
        "env",
        "envFrom",
        "workingDir",
        "resources",
        "securityContext",
        "readinessProbe",
        "podTemplate",
        "init",
        "mcpServices",
        "restart",
    ];
    let described = described.map(|field| format!("has(self.{field})")).join(" || ");
    serde_json::json!([
        rule(
            "!(has(self.entrypoint) && self.entrypoint == 'Image' && has(self.command) && size(self.command) > 0)",
            "entrypoint: Image and a command exclude each other",
        ),
        rule(
            &format!("!has(self.attach) || !({described})"),
            "attach excludes image, entrypoint, command, env, envFrom, workingDir, resources, securityContext, readinessProbe, podTemplate, init, mcpServices and restart: the Pod is there already",
        ),
    ])
}
