//! Condition types and the reasons that they carry: the words that users see in `status`, events, logs and metrics alike.
//! `docs/conditions.md` says for each what a person can do about it; a test holds the two together.

/// The type of a condition.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    strum::Display,
    strum::IntoStaticStr,
    strum::EnumIter,
    strum::EnumString,
)]
pub enum ConditionType {
    /// All that was asked for is there now.
    Ready,
    /// The operator or the cluster is still working towards it.
    Reconciling,
    /// It needs a person; the message says what to do.
    Stalled,
    /// Session: the three volumes exist and hold what their sources gave.
    VolumesReady,
    /// Session: every sandbox that was asked for is ready.
    SandboxesReady,
    /// Sandbox: its Pod has a node.
    PodScheduled,
    /// Sandbox: its template changed after its Pod started; the next start takes the change.
    OutOfDate,
}

/// Why a condition has its status.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    strum::Display,
    strum::IntoStaticStr,
    strum::EnumIter,
    strum::EnumString,
)]
pub enum Reason {
    /// The operator has not looked at the object yet (the schema's default).
    Pending,
    /// Everything that was asked for is there.
    Ready,
    /// Nothing is in the way of the condition; it says so rather than being absent.
    AsExpected,
    /// The object, or its namespace, is being deleted.
    Terminating,
    /// The specification cannot work as it is written.
    InvalidSpec,
    /// An object that is not ours has a name that we need; it is never touched.
    NameTaken,
    /// The API server refused a Pod, claim or policy as it is written.
    Refused,
    /// A quota, a lock or an admission policy of the cluster does not allow the object now; it is tried again.
    Forbidden,
    /// The API server could not be read or written; it is tried again.
    ApiError,

    /// The session that the sandbox names does not exist.
    SessionNotFound,
    /// The Pod was made a moment ago and nobody has looked at it yet.
    PodCreated,
    /// The previous Pod is still ending.
    PodTerminating,
    /// No node fits the Pod now.
    Unschedulable,
    /// The image could not be pulled; the kubelet goes on trying.
    ImagePull,
    /// The kubelet could not make the container, or could not start it.
    ContainerConfig,
    /// The node is mounting the volumes, pulling the image and starting the container.
    ContainerCreating,
    /// The container runs and its readiness is awaited.
    NotReady,
    /// The container ended.
    ContainerEnded,
    /// The container was ended for using more memory than its limit.
    OutOfMemory,
    /// The Pod was ended by the cluster: evicted, preempted or its node went away.
    PodLost,
    /// The template is the one that the Pod was made from.
    UpToDate,
    /// The template changed after the Pod started.
    TemplateChanged,
    /// The Pod has a node.
    Scheduled,
    /// There is no Pod now.
    NoPod,

    /// The session's volumes are being filled.
    Staging,
    /// A source of the volumes is not there yet; it is looked for every few seconds.
    SourceNotFound,
    /// A source could not be staged.
    StagingFailed,
    /// The volumes hold what their sources gave.
    Staged,
    /// A claim has no volume: it gets one when the first Pod needs it, or the volume was lost.
    VolumesPending,
    /// Some sandboxes are not ready yet.
    SandboxesNotReady,
    /// Some sandboxes ended or cannot start.
    SandboxFailed,
}
