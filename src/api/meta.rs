//! Every label, annotation, manager name and mount path that users or other programs can see, in one place.

/// The API group of all kinds.
pub const GROUP: &str = "aigise.dev";

/// The field manager of everything that the operator writes.
pub const MANAGER: &str = "aigise-operator";

/// The field manager of the status that reports that an object cannot be read.
pub const MANAGER_OF_UNREADABLE: &str = "aigise-operator-unreadable";

/// Label on every child of a session: the session's name.
pub const SESSION: &str = "aigise.dev/session";

/// Label on every child of a session: the session's UID. Selectors use it instead of the name, so a session that is deleted and
/// created again under the same name never selects objects that are still being deleted.
pub const SESSION_UID: &str = "aigise.dev/session-uid";

/// Label on a Sandbox and its Pod: the sandbox's type, as the user wrote it.
pub const SANDBOX_TYPE: &str = "aigise.dev/sandbox-type";

/// Label on the Sandbox of an agent that may run commands in the other sandboxes of its session: `true`. When the agent loses this
/// permission, its Sandbox is recreated, which also removes the exec access.
pub const SANDBOX_EXEC: &str = "aigise.dev/sandbox-exec";

/// Label on every child of a session that has a task name: the task name.
pub const TASK: &str = "aigise.dev/task";

/// Label on every child: its role in the session; the values are [`Component`].
pub const COMPONENT: &str = "app.kubernetes.io/component";

/// Label on every child: [`MANAGER`]. The operator's caches hold only objects that carry it.
pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";

/// Label on every child: `aigise`.
pub const APP: &str = "app.kubernetes.io/name";

/// Annotation on a sandbox's Pod: the hash of the template that the Pod was created from.
pub const TEMPLATE_HASH: &str = "aigise.dev/template-hash";

/// Annotation that users change to restart a sandbox. On a Sandbox: restarts this sandbox. On a session: restarts all of its
/// sandboxes that are not ready. The value is free; the current time is a good value. On a sandbox's Pod: the value of its Sandbox
/// when the Pod was created.
pub const RESTART: &str = "aigise.dev/restart";

/// Annotation that users change on a session to have its volumes filled again. The value is free; the current time is a good value. On a
/// stage Pod: the value of its session when the Pod was created.
pub const RESTAGE: &str = "aigise.dev/restage";

/// Annotation on a Pod: the value of the session's [`RESTART`] that this Pod acknowledges.
pub const SESSION_RESTART: &str = "aigise.dev/session-restart";

/// Annotation on a sandbox's Pod: how many times in a row the sandbox had been started again when the Pod was created.
pub const RESTARTS: &str = "aigise.dev/restarts";

/// Annotation on a sandbox's Pod: the init work ([`Work`](crate::protocol::init::Work)) of the sandbox, as JSON.
pub const GATE: &str = "aigise.dev/gate";

/// Annotation on a sandbox's Pod: since when the init work may run.
pub const RELEASE: &str = "aigise.dev/release";

/// Annotation on a sandbox's Pod that was released after its creation: how many times the release was written again.
pub const RELEASE_REPEATS: &str = "aigise.dev/release-repeats";

/// Annotation on a Pod that a sandbox may attach to: the name of the session or of the sandbox.
pub const ATTACHABLE: &str = "aigise.dev/attachable";

/// Annotation that users and agents set on a session while they work in it: a time in the format of RFC 3339. A time that is more than
/// five minutes in the future counts as the moment at which the operator first observed it.
pub const LAST_ACTIVITY: &str = "aigise.dev/last-activity";

/// Annotation on a stage Pod: the digest of the sources that it stages.
pub const SOURCES_DIGEST: &str = "aigise.dev/sources-digest";

/// Annotation on a stage Pod: identifies the list of sources, without the content of its ConfigMaps.
pub const SOURCES_LIST: &str = "aigise.dev/sources-list";

/// Annotation on a stage Pod: identifies everything that the Pod was created with besides its sources.
pub const STAGE_HASH: &str = "aigise.dev/stage-hash";

/// Annotation on the claim of a session whose volumes are folders of that one claim: `Single`.
pub const LAYOUT: &str = "aigise.dev/layout";

/// Label on the claim of a cache: the key.
pub const CACHE_KEY: &str = "aigise.dev/cache-key";

/// Annotation on the claim of a cache that is complete: what it holds, as JSON.
pub const CACHE: &str = "aigise.dev/cache";

/// Annotation on the claim of a cache: a digest of the inputs of the session that saves it.
pub const CACHE_INPUTS: &str = "aigise.dev/cache-inputs";

/// Annotation on the claim of a cache: the reason why it is not used any more, such as `Corrupt`.
pub const CACHE_BAD: &str = "aigise.dev/cache-bad";

/// Annotation on the claim of a cache: when a session last started from it, as an RFC 3339 time. It is written at most once a day.
pub const CACHE_USED: &str = "aigise.dev/cache-used";

/// Annotation on the claims of a session and on the Pods that save and restore: which cache it is about. Of a claim, `none` if it is restored
/// from none.
pub const CACHE_FROM: &str = "aigise.dev/cache-from";

/// Annotation that `kubectl exec` and `kubectl logs` read when no container is named.
pub const DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";

/// The name of the working container in a sandbox's Pod.
pub const SANDBOX_CONTAINER: &str = "sandbox";

/// The name of the container in a stage Pod.
pub const STAGE_CONTAINER: &str = "stage";

/// The name of the container in a Pod that saves or restores a cache.
pub const CACHE_CONTAINER: &str = "cache";

/// Where the helper `sandboxd` is mounted in each sandbox.
pub const HELPER_PATH: &str = "/aigise";

/// The configuration of git that comes with the helper. It takes the place of the system's, and includes it.
pub const GIT_CONFIG: &str = "/aigise/gitconfig";

/// Where the Pod of an agent finds the configuration of its session.
pub const CONFIG_FOLDER: &str = "/etc/aigise";

/// The key of the configuration in the Secret of a session, and the name of its file in [`CONFIG_FOLDER`].
pub const CONFIG_FILE: &str = "config.toml";

/// Where a stage Pod finds a session's volume.
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
    /// The Pod that has images pulled meanwhile.
    Pull,
    /// A claim.
    Volume,
    /// The claim of a cache, and the Pods that write and read it.
    Cache,
    /// The Service and the network policy.
    Network,
    /// The Secret with the secret parts of a session's configuration.
    Config,
    /// The objects that grant the Pod of an agent exec access to the sandboxes.
    Agent,
}
