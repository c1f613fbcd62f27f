//! Condition types and their reasons: the words that users see in `status`, events, logs and metrics. `docs/conditions.md` explains
//! what the user can do about each of them; a test keeps both in sync.

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
    /// Everything that was requested is ready now.
    Ready,
    /// The operator or the cluster is still working towards the requested state.
    Reconciling,
    /// A person has to act; the message says what to do.
    Stalled,
    /// Session: its configuration file can be used, or the session has none.
    ConfigValid,
    /// Session: the three volumes exist and hold the content of their sources.
    VolumesReady,
    /// Session: it started from a cache, or has saved one.
    Cached,
    /// Session: every requested sandbox is ready. Agent: every sandbox that it requires is ready.
    SandboxesReady,
    /// Session: every agent has the status that its user wants.
    AgentsReady,
    /// Session: some sandboxes failed, and the others continue.
    Degraded,
    /// All kinds: the object has no Pods or does nothing, because a user requested it or because its time is over.
    Suspended,
    /// Session: its time is about to end, or is over.
    Expiring,
    /// Sandbox: its Pod is scheduled to a node.
    PodScheduled,
    /// Sandbox: the init work is done.
    Initialized,
    /// Sandbox: its template changed after its Pod started; the next start applies the change.
    OutOfDate,
    /// Sandbox: it works in an existing Pod.
    Attached,
    /// Agent: the session has the tools and skills that the agent uses.
    ToolsCovered,
    /// Agent: its parent exists, or the agent has no parent.
    ParentFound,
}

/// The condition that a program which runs an agent sets on the agent. It belongs to that program; the operator never writes it.
pub const RUNTIME_HEALTHY: &str = "RuntimeHealthy";

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
    /// The operator has not reconciled the object yet (the default in the CRD's schema).
    Pending,
    /// Everything that was requested is ready.
    Ready,
    /// There is no problem to report. The condition says so instead of being absent.
    AsExpected,
    /// The object, or its namespace, is being deleted.
    Terminating,
    /// The specification cannot be carried out as it is written.
    InvalidSpec,
    /// An object that does not belong to the operator has a name that the operator needs; the operator never touches that object.
    NameTaken,
    /// The API server rejected a Pod, claim or policy as invalid.
    Refused,
    /// An admission policy, a limit range or a role of the cluster does not allow the object, so a person has to act. The operator
    /// retries, since the fix may be made elsewhere.
    Forbidden,
    /// A quota of the namespace does not allow the object now; the operator retries.
    QuotaExceeded,
    /// The API server could not be read or written; the operator retries.
    ApiError,
    /// The object is suspended: its Pods are deleted or terminating, its volumes stay.
    Suspended,

    /// The session that the sandbox names does not exist.
    SessionNotFound,
    /// The Pod was created a moment ago, and neither the scheduler nor the kubelet has reported on it yet.
    PodCreated,
    /// The previous Pod is still terminating.
    PodTerminating,
    /// No node fits the Pod now.
    Unschedulable,
    /// The Pod must run on the node of the session's volumes, and that node has too few free resources for it now.
    NoRoomOnSessionNode,
    /// A claim of the Pod is missing or has no volume.
    ClaimNotReady,
    /// The Pod's node does not respond.
    NodeLost,
    /// The image could not be pulled; the kubelet keeps retrying.
    ImagePull,
    /// The kubelet could not create or start the container.
    ContainerConfig,
    /// The node is mounting the volumes, pulling the image and starting the container.
    ContainerCreating,
    /// The container runs but is not ready yet, or a container beside it is not.
    NotReady,
    /// The initialiser is running.
    Initializing,
    /// The init work is done.
    Initialized,
    /// The sandbox has no init work.
    NoInitializer,
    /// The initialiser waits for sandboxes that it depends on.
    DependencyNotReady,
    /// A sandbox that the initialiser depends on has failed.
    DependencyFailed,
    /// The session has failed, so no further initialiser is started.
    SessionFailed,
    /// A step of the initialiser failed or took too long.
    InitFailed,
    /// The initialiser should have ended long ago, and does not report anything.
    GateNotRunning,
    /// The container ended.
    ContainerEnded,
    /// The container was killed because it used more memory than its limit.
    OutOfMemory,
    /// The cluster ended the Pod: the Pod was evicted or preempted, or its node is gone.
    PodLost,
    /// The container ended, and the sandbox is started again after a pause.
    Restarting,
    /// The container ended with exit code 0, and the restart policy requires no restart.
    Finished,
    /// Another sandbox of the session has the same type.
    DuplicateType,
    /// The session has not filled its volumes yet.
    VolumesNotReady,
    /// The sandbox has its own Pod.
    NotAttached,
    /// The sandbox works in the Pod that `attach` names.
    Attached,
    /// The Pod that `attach` names does not exist.
    PodNotFound,
    /// The sandbox may not attach to the Pod that `attach` names.
    NotAttachable,
    /// The Pod that the sandbox was attached to is gone, and another Pod has its name.
    PodReplaced,
    /// The Pod was created from the current template.
    UpToDate,
    /// The template changed after the Pod started.
    TemplateChanged,
    /// The Pod is scheduled to a node.
    Scheduled,
    /// The sandbox has no Pod now.
    NoPod,

    /// The session's volumes are being filled.
    Staging,
    /// A source of the volumes does not exist yet; the operator looks for it again from time to time.
    SourceNotFound,
    /// A source could not be staged.
    StagingFailed,
    /// The storage of a volume does not let staging write into it, or does not let sandboxes read what staging writes.
    VolumeNotWritable,
    /// The volumes hold the content of their sources.
    Staged,
    /// The claim that the session names in `claimName` does not exist.
    ClaimNotFound,
    /// A claim of the session is being deleted while Pods still use it.
    ClaimTerminating,
    /// A claim has no volume (the claim gets one when the first Pod needs it, or its volume was lost), or the claim cannot grow.
    VolumesPending,
    /// Some sandboxes are not ready yet.
    SandboxesNotReady,
    /// Some sandboxes ended or cannot start.
    SandboxFailed,
    /// Some sandboxes failed, and the others continue.
    Degraded,
    /// The session was idle for as long as its lifetime allows.
    Idle,
    /// Nothing suspends the object.
    Active,
    /// The time of the session has no end, or its end is far away.
    NotExpiring,
    /// The time of the session is about to end.
    ExpiresSoon,
    /// The time of the session is over.
    Expired,

    /// The agent does nothing until its user sets it to `active`.
    Paused,
    /// The agent has finished its work: its user set it to `stopped`.
    Stopped,
    /// The session has the tools and skills that the agent uses.
    Covered,
    /// The agent uses a tool or a skill that its session does not have.
    NotCovered,
    /// The agent has no parent.
    NoParent,
    /// The parent of the agent exists.
    ParentFound,
    /// The parent of the agent has not been created yet.
    ParentNotFound,
    /// The parent of the agent was deleted.
    ParentGone,
    /// The Pod that runs the agent is not ready yet.
    RunnerNotReady,
    /// The program that runs the agent failed, too often or permanently.
    RunnerFailed,
    /// The program that runs the agent reports that the agent is unhealthy.
    Unhealthy,
    /// The session has no agents.
    NoAgents,
    /// Some agents cannot work yet.
    AgentsNotReady,

    /// The object, or another object that it needs, is larger or nested deeper than the operator reads, or has an unknown form.
    Unreadable,

    /// The session's volumes are being restored from a cache.
    Restoring,
    /// The session started from a cache.
    Restored,
    /// The sandboxes are ready, and their state is being saved before anybody works in them.
    SavingCache,
    /// The state after the initialisers was saved.
    Saved,
    /// The state after the initialisers could not be saved.
    SaveFailed,
    /// The cache was saved without some of the types.
    SaveIncomplete,
    /// The root file system of the sandbox could not be restored from the session's cache.
    NotRestored,
    /// No cache fits.
    CacheMissing,
    /// A type does not say what becomes of its steps when the session starts from a cache.
    NotCacheable,
    /// The session has no configuration file.
    NoConfig,
    /// The configuration file was read.
    ConfigRead,
    /// The configuration file, or the source of one of its variables, does not exist yet.
    ConfigNotFound,
    /// The configuration file is not valid TOML.
    Unparsable,
    /// The configuration file is larger or nested deeper than the limits allow, or its variables make it so.
    TooLarge,
    /// The configuration file uses a `${NAME}` that is not defined.
    UnknownVariable,
    /// The configuration file names a backend that the framework does not have.
    UnknownBackend,
    /// The configuration file has a port that is not valid.
    BadPort,
    /// The configuration file has a value that is not valid for its key.
    BadValue,
    /// The configuration file has a secret in a place that everybody could read.
    SecretInPlainField,
}
