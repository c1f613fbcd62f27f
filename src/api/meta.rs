//! Every label, annotation, manager name and mount path that users or other programs can see, in one place.

/// The API group of all kinds.
pub const GROUP: &str = "aigise.dev";

/// The field manager of everything that the operator writes.
pub const MANAGER: &str = "aigise-operator";

/// The field manager of what is said of an object that cannot be read.
pub const MANAGER_OF_UNREADABLE: &str = "aigise-operator-unreadable";

/// Label on every child of a session: the session's name.
pub const SESSION: &str = "aigise.dev/session";

/// Label on every child of a session: the session's UID. Selectors use it rather than the name, so that a session that is
/// deleted and made anew under its old name never selects what is still going away.
pub const SESSION_UID: &str = "aigise.dev/session-uid";

/// Label on a Sandbox and its Pod: the sandbox's type, as the user wrote it.
pub const SANDBOX_TYPE: &str = "aigise.dev/sandbox-type";

/// Label on the Sandbox of an agent that may run commands in the others of its session: `true`. One that has it and may no longer
/// is made anew, so that what let it in goes with it.
pub const SANDBOX_EXEC: &str = "aigise.dev/sandbox-exec";

/// Label on every child of a session that names a task.
pub const TASK: &str = "aigise.dev/task";

/// Label on every child: what it is to the session; the values are [`Component`].
pub const COMPONENT: &str = "app.kubernetes.io/component";

/// Label on every child: [`MANAGER`]. The operator's caches hold only objects that carry it.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";

/// Label on every child: `aigise`.
pub const APP: &str = "app.kubernetes.io/name";

/// Annotation on a sandbox's Pod: the hash of the template that it was made from.
pub const TEMPLATE_HASH: &str = "aigise.dev/template-hash";

/// Annotation that users change to have a sandbox started again. On a Sandbox: this one. On a session: all of its sandboxes that
/// are not ready. The value is free; the time is a good one. On a sandbox's Pod: the value of its Sandbox when it was made.
pub const RESTART: &str = "aigise.dev/restart";

/// Annotation on a Pod: the session's value of [`RESTART`] that it has heeded.
pub const SESSION_RESTART: &str = "aigise.dev/session-restart";

/// Annotation on a sandbox's Pod: how many times in a row the sandbox had been started again when it was made.
pub const RESTARTS: &str = "aigise.dev/restarts";

/// Annotation on a sandbox's Pod: what its gate is to do ([`Work`](crate::protocol::init::Work)), as JSON.
pub const GATE: &str = "aigise.dev/gate";

/// Annotation on a sandbox's Pod: since when its gate may work.
pub const RELEASE: &str = "aigise.dev/release";

/// Annotation on a sandbox's Pod that was released after it was made: how many times that was written again.
pub const RELEASE_REPEATS: &str = "aigise.dev/release-repeats";

/// Annotation on a Pod that a sandbox may attach to: the name of the session or of the sandbox.
pub const ATTACHABLE: &str = "aigise.dev/attachable";

/// Annotation that users and agents set on a session while they work in it: a time, as in RFC 3339.
pub const LAST_ACTIVITY: &str = "aigise.dev/last-activity";

/// Annotation on a stage Pod: the digest of the sources that it stages.
pub const SOURCES_DIGEST: &str = "aigise.dev/sources-digest";

/// Annotation on a stage Pod: names the list of sources, without the content of its ConfigMaps.
pub const SOURCES_LIST: &str = "aigise.dev/sources-list";

/// Annotation on a stage Pod: names what it was made with besides its sources.
pub const STAGE_HASH: &str = "aigise.dev/stage-hash";

/// Annotation that `kubectl exec` and `kubectl logs` read when no container is named.
pub const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";

/// The working container of a sandbox's Pod.
pub const SANDBOX_CONTAINER: &str = "sandbox";

/// The container of a stage Pod.
pub const STAGE_CONTAINER: &str = "stage";

/// Where the helper `sandboxd` is mounted in each sandbox.
pub const HELPER_PATH: &str = "/aigise";

/// Where an agent's Pod finds the configuration of its session.
pub const CONFIG_FOLDER: &str = "/etc/aigise";

/// The key of the configuration in the Secret of a session, and its file in [`CONFIG_FOLDER`].
pub const CONFIG_FILE: &str = "config.toml";

/// Where a stage Pod finds a session's volume.
#[must_use]
pub fn stage_volume_path(volume: &str) -> String {
    format!("/volumes/{volume}")
}

/// The value of [`COMPONENT`] on a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq, strum::Display, strum::IntoStaticStr)]
#[strum(serialize_all = "lowercase")]
pub enum Component {
    /// A Sandbox or its Pod.
    Sandbox,
    /// The Pod that fills the volumes.
    Stage,
    /// A claim.
    Volume,
    /// The Service and the policy.
    Network,
    /// What of a session's configuration is secret.
    Config,
    /// What lets the Pod of an agent into the sandboxes.
    Agent,
}
