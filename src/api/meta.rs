//! Every label, annotation, manager name and mount path that users or other programs can see, in one place.

/// The API group of all kinds.
pub const GROUP: &str = "aigise.dev";

/// The field manager of everything that the operator writes.
pub const MANAGER: &str = "aigise-operator";

/// Label on every child of a session: the session's name.
pub const SESSION: &str = "aigise.dev/session";

/// Label on every child of a session: the session's UID. Selectors use it rather than the name, so that a session that is
/// deleted and made anew under its old name never selects what is still going away.
pub const SESSION_UID: &str = "aigise.dev/session-uid";

/// Label on a Sandbox and its Pod: the sandbox's type, as the user wrote it.
pub const SANDBOX_TYPE: &str = "aigise.dev/sandbox-type";

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

/// Annotation on a stage Pod: the digest of the sources that it stages.
pub const SOURCES_DIGEST: &str = "aigise.dev/sources-digest";

/// Annotation on a stage Pod: names the list of sources, without the content of its ConfigMaps.
pub const SOURCES_LIST: &str = "aigise.dev/sources-list";

/// Annotation that `kubectl exec` and `kubectl logs` read when no container is named.
pub const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";

/// The working container of a sandbox's Pod.
pub const SANDBOX_CONTAINER: &str = "sandbox";

/// The container of a stage Pod.
pub const STAGE_CONTAINER: &str = "stage";

/// Where the helper `sandboxd` is mounted in each sandbox.
pub const HELPER_PATH: &str = "/aigise";

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
}
