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
    /// Session: its configuration file can be used, or it has none.
    ConfigValid,
    /// Session: the three volumes exist and hold what their sources gave.
    VolumesReady,
    /// Session: every sandbox that was asked for is ready. Agent: every one that it requires.
    SandboxesReady,
    /// Session: every agent is as its user wants it.
    AgentsReady,
    /// Session: some sandboxes failed, and the others go on.
    Degraded,
    /// All: it has no Pods or does nothing, because somebody wanted so or its time is over.
    Suspended,
    /// Session: its time is about to end, or over.
    Expiring,
    /// Sandbox: its Pod has a node.
    PodScheduled,
    /// Sandbox: what was to be done before it is ready is done.
    Initialized,
    /// Sandbox: its template changed after its Pod started; the next start takes the change.
    OutOfDate,
    /// Sandbox: it works in a Pod that was there already.
    Attached,
    /// Agent: the session has the tools and skills that it uses.
    ToolsCovered,
    /// Agent: the agent above it is there, or it has none.
    ParentFound,
}

/// The condition that a program which runs an agent sets on it. It is that program's own, and never written here.
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
    /// An admission policy, a limit range or a role of the cluster does not allow the object: a person has to do something. It is
    /// tried again, since that may be done elsewhere.
    Forbidden,
    /// A quota of the namespace does not allow the object now; it is tried again.
    QuotaExceeded,
    /// The API server could not be read or written; it is tried again.
    ApiError,
    /// It is suspended: its Pods are gone or going, its volumes stay.
    Suspended,

    /// The session that the sandbox names does not exist.
    SessionNotFound,
    /// The Pod was made a moment ago and nobody has looked at it yet.
    PodCreated,
    /// The previous Pod is still ending.
    PodTerminating,
    /// No node fits the Pod now.
    Unschedulable,
    /// The node that the session's volumes hold it on has no room for the Pod now.
    NoRoomOnSessionNode,
    /// A claim of the Pod is missing or has no volume.
    ClaimNotReady,
    /// The Pod's node does not answer.
    NodeLost,
    /// The image could not be pulled; the kubelet goes on trying.
    ImagePull,
    /// The kubelet could not make the container, or could not start it.
    ContainerConfig,
    /// The node is mounting the volumes, pulling the image and starting the container.
    ContainerCreating,
    /// The container runs and its readiness is awaited.
    NotReady,
    /// The initialiser runs.
    Initializing,
    /// What was to be done before the sandbox is ready is done.
    Initialized,
    /// Nothing was to be done before the sandbox is ready.
    NoInitializer,
    /// The initialiser waits for sandboxes that it depends on.
    DependencyNotReady,
    /// A sandbox that the initialiser depends on has failed.
    DependencyFailed,
    /// The session has failed, so that no further initialiser is begun.
    SessionFailed,
    /// A step of the initialiser failed, or took too long.
    InitFailed,
    /// The initialiser should have ended long ago, and nothing is heard of it.
    GateNotRunning,
    /// The container ended.
    ContainerEnded,
    /// The container was ended for using more memory than its limit.
    OutOfMemory,
    /// The Pod was ended by the cluster: evicted, preempted or its node went away.
    PodLost,
    /// The container ended, and the sandbox is started again after a pause.
    Restarting,
    /// The container ended with 0, and the restart policy wants no more.
    Finished,
    /// Another sandbox of the session has the type.
    DuplicateType,
    /// The session has not filled its volumes yet.
    VolumesNotReady,
    /// The sandbox has a Pod of its own.
    NotAttached,
    /// The sandbox works in the Pod that `attach` names.
    Attached,
    /// The Pod that `attach` names is not there.
    PodNotFound,
    /// The Pod that `attach` names may not be attached to.
    NotAttachable,
    /// The Pod that the sandbox was attached to is gone, and another has its name.
    PodReplaced,
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
    /// A source of the volumes is not there yet; it is looked for now and then.
    SourceNotFound,
    /// A source could not be staged.
    StagingFailed,
    /// The volumes hold what their sources gave.
    Staged,
    /// An existing claim that the session uses is not there.
    ClaimNotFound,
    /// A claim has no volume: it gets one when the first Pod needs it, or the volume was lost; or it may not grow.
    VolumesPending,
    /// Some sandboxes are not ready yet.
    SandboxesNotReady,
    /// Some sandboxes ended or cannot start.
    SandboxFailed,
    /// Some sandboxes failed, and the others go on.
    Degraded,
    /// It was idle for as long as its lifetime allows.
    Idle,
    /// Nobody wanted it suspended.
    Active,
    /// The time of the session has no end, or is far from it.
    NotExpiring,
    /// The time of the session is about to end.
    ExpiresSoon,
    /// The time of the session is over.
    Expired,

    /// The agent has nothing to do until its user wants it to.
    Paused,
    /// The agent has done its work, by its user's word.
    Stopped,
    /// The session has the tools and skills that the agent uses.
    Covered,
    /// The agent uses a tool or a skill that its session does not have.
    NotCovered,
    /// The agent has no parent.
    NoParent,
    /// The parent of the agent is there.
    ParentFound,
    /// The parent of the agent has not been made yet.
    ParentNotFound,
    /// The parent of the agent was deleted.
    ParentGone,
    /// The Pod that runs the agent is on its way.
    RunnerNotReady,
    /// The program that runs the agent failed, too often or for good.
    RunnerFailed,
    /// The program that runs the agent says that it is not well.
    Unhealthy,
    /// The session has no agents.
    NoAgents,
    /// Some agents wait for something.
    AgentsNotReady,

    /// The object, or one that it needs, is larger or nested deeper than the operator reads, or not of a form that it knows.
    Unreadable,

    /// The session has no configuration file.
    NoConfig,
    /// The configuration file was read.
    ConfigRead,
    /// The configuration file, or a variable in it, comes from something that is not there yet.
    ConfigNotFound,
    /// The configuration file is no TOML.
    Unparsable,
    /// The configuration file is larger or deeper than any configuration, or its variables make it so.
    TooLarge,
    /// The configuration file has a `${NAME}` that nobody defines.
    UnknownVariable,
    /// The configuration file names a backend that the framework does not have.
    UnknownBackend,
    /// The configuration file has a port that is none.
    BadPort,
    /// The configuration file has a value that its key cannot have.
    BadValue,
    /// The configuration file has a secret where everybody could read it.
    SecretInPlainField,
}
