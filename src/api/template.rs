//! The template of a sandbox: the fields that the types of a session and a Sandbox have in common.

use k8s_openapi::api::core::v1::{ContainerPort, EnvFromSource, EnvVar, Probe, ResourceRequirements, SecurityContext};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{crds::rule, init::Init, raw::RawJson};

/// What runs when `command` is empty. `Idle` (the default): a helper that waits, which makes the sandbox usable with `kubectl
/// exec`. `Image`: the image's own entrypoint. `ImageThenIdle`: the image's ENTRYPOINT, which gets the helper as its arguments in place
/// of the image's CMD; for an ENTRYPOINT that starts services and then runs its arguments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Entrypoint {
    /// A helper that only waits, which makes the sandbox usable with `kubectl exec`.
    #[default]
    Idle,
    /// The image's own entrypoint.
    Image,
    /// The image's ENTRYPOINT, with the helper as its arguments.
    ImageThenIdle,
}

/// The working container of a sandbox.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SandboxTemplate {
    /// The container image of the sandbox.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    pub image: Option<String>,

    /// What runs when `command` is empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Entrypoint>,

    /// The program and its arguments, run without a shell. Cannot be combined with `entrypoint: Image` or `ImageThenIdle`.
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

    /// The working directory of commands. Default: the image's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub working_dir: Option<String>,

    /// CPU, memory and other resources, as in a Pod's container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,

    /// Security settings of the working container, as in a Pod's container. Settings that lead out of the sandbox are refused:
    /// `privileged`, `procMount`, `windowsOptions.hostProcess`, and capabilities other than those of the Pod Security Standard
    /// `baseline`, `SYS_NICE` and `SYS_PTRACE`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub security_context: Option<SecurityContext>,

    /// The readiness probe, as in a Pod's container. Default: the sandbox is ready as soon as its container runs. In a sandbox with
    /// an initialiser, `dependsOn`, skills or `mcpServices` the defaults of `timeoutSeconds`, `periodSeconds` and `failureThreshold`
    /// are 10, 5 and 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub readiness_probe: Option<Probe>,

    /// A Pod template for settings that have no field of their own. It is merged over the Pod of the sandbox last: maps merge
    /// deeply, lists of named objects (containers, volumes, env) merge by name, volumeMounts merge by path, affinity terms are
    /// appended, and other lists are replaced. The working container is called `sandbox`. A field that does not exist is an error,
    /// and so is a field that the operator reserves or that leads out of the sandbox; the condition Stalled names it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "any_object")]
    pub pod_template: Option<RawJson>,

    /// The init work that is done before the sandbox is ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub init: Option<Init>,

    /// Types of the same session that this type needs. They are started with this type when only some types are launched, and the
    /// initialiser starts when they are ready. Losing one of them later has no effect on this sandbox.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), inner(length(min = 1, max = 21)))]
    pub depends_on: Vec<String>,

    /// MCP services of the session that must answer a handshake before the sandbox is ready, and accept connections as long as it
    /// is ready; most often the services that the sandbox itself offers. If there is a `readinessProbe` too, both must succeed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 63)))]
    pub mcp_services: Vec<String>,

    /// What happens when the working container ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restart: Option<Restart>,

    /// When a changed template is applied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub update_policy: Option<UpdatePolicy>,

    /// An existing Pod that the sandbox uses instead of a Pod of its own. The Pod is watched and never changed. Cannot be combined
    /// with fields that describe a Pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attach: Option<Attach>,
}

impl SandboxTemplate {
    /// What runs when there is no command.
    pub fn entrypoint(&self) -> Entrypoint {
        self.entrypoint.unwrap_or_default()
    }

    /// What happens when the working container ends.
    pub fn restart_policy(&self) -> RestartPolicy {
        self.restart.as_ref().and_then(|restart| restart.policy).unwrap_or_default()
    }

    /// The maximum number of restarts in a row.
    pub fn restart_limit(&self) -> i32 {
        self.restart.as_ref().and_then(|restart| restart.limit).unwrap_or(3)
    }

    /// When a changed template is applied.
    pub fn update_policy(&self) -> UpdatePolicy {
        self.update_policy.unwrap_or_default()
    }
}

/// When the operator starts a sandbox again, with a new Pod, after its working container ended. `Always` (the default).
/// `OnFailure`: not when the container ended with exit code 0; the sandbox is then `Finished`. `Never`. A Pod that a user deleted
/// is always created again.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RestartPolicy {
    /// However the container ended.
    #[default]
    Always,
    /// Only when the container did not end with exit code 0.
    OnFailure,
    /// Never.
    Never,
}

/// When, and how often, a sandbox is started again after its working container ended.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Restart {
    /// When the sandbox is started again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<RestartPolicy>,

    /// The maximum number of restarts in a row; after that the sandbox is in the state `error`. Default: 3. The count starts again
    /// when the sandbox was ready for ten minutes, or when the template changed. The pause between two starts is 2 seconds at first
    /// and doubles each time, up to 5 minutes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0, max = 1000))]
    pub limit: Option<i32>,
}

/// When a sandbox that is ready applies a changed template. `Manual` (the default): at its next start; until then the sandbox is
/// `OutOfDate`. `Recreate`: at once, with a new Pod. A sandbox that is not ready always applies it at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum UpdatePolicy {
    /// At the next start.
    #[default]
    Manual,
    /// At once.
    Recreate,
}

/// An existing Pod. The Pod must carry the annotation `aigise.dev/attachable`, whose value is the name of the session or of the
/// sandbox; it is the consent of the Pod's owner. The sandbox is pinned to the UID of the Pod: another Pod with the same name is an
/// error until the annotation `aigise.dev/restart` of the sandbox changes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Attach {
    /// The name of the Pod, in the same namespace.
    #[schemars(length(min = 1, max = 253), regex(pattern = super::OBJECT_NAME))]
    pub pod_name: String,

    /// The container that is used. Default: the only container of the Pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub container: Option<String>,
}

/// The schema of any object: the API server keeps unknown fields.
pub(super) fn any_object(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({"type": "object", "x-kubernetes-preserve-unknown-fields": true})
}

/// The CEL rules of a template, wherever the template is embedded.
pub(super) fn rules() -> serde_json::Value {
    // Empty lists and maps count as absent, but checking for that would cost more than it is worth.
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
            "!(has(self.entrypoint) && self.entrypoint != 'Idle' && has(self.command) && size(self.command) > 0)",
            "entrypoint: Image or ImageThenIdle and a command exclude each other",
        ),
        rule(
            &format!("!has(self.attach) || !({described})"),
            "attach excludes image, entrypoint, command, env, envFrom, workingDir, resources, securityContext, readinessProbe, podTemplate, init, mcpServices and restart: the Pod exists already",
        ),
    ])
}
