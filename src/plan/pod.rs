//! Interprets the status of a Pod, for sandboxes and for the stage Pod.
//!
//! The outcome is read from the working container's `terminated` state and never from the Pod's phase. The phase is `Succeeded` for
//! every container that ended with exit code 0, and `Running` for as long as a sidecar runs.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Container, ContainerStateTerminated, ContainerStatus, Pod, PodCondition, PodStatus};
use kube::ResourceExt;

use super::reserved;
use crate::{
    api::{
        condition::Reason,
        meta::{self, Component},
    },
    protocol::init::Success,
};

/// Where a Pod is in its life, as its working container shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// The Pod is being deleted.
    Terminating,
    /// The Pod was created a moment ago, and the scheduler has not reported anything.
    Created,
    /// No node fits.
    Unschedulable {
        /// [`Reason::Unschedulable`], [`Reason::NoRoomOnSessionNode`] or [`Reason::ClaimNotReady`].
        reason: Reason,
        /// The scheduler's message.
        message: String,
    },
    /// The Pod has a node, and its container does not run yet.
    Waiting {
        /// [`Reason::ContainerCreating`], [`Reason::ImagePull`] or [`Reason::ContainerConfig`].
        reason: Reason,
        /// What the Pod waits for.
        message: String,
    },
    /// The container runs, and its startup probe has not succeeded yet.
    Initializing {
        /// Since when the container runs.
        since: Option<Timestamp>,
    },
    /// The container runs and is not ready.
    Running,
    /// The container runs and is ready, and a container beside it keeps the Pod from being ready.
    HeldBack {
        /// [`Reason::NotReady`], [`Reason::ImagePull`] or [`Reason::ContainerConfig`].
        reason: Reason,
        /// Which container it is, and why it is not ready.
        message: String,
        /// Whether that container has ended and is not restarted.
        is_final: bool,
    },
    /// The container ran and was ready when its node last reported.
    Silent,
    /// The container runs and is ready.
    Ready,
    /// The container ended, or will never run.
    Ended {
        /// [`Reason::ContainerEnded`], [`Reason::OutOfMemory`] or [`Reason::PodLost`].
        reason: Reason,
        /// How the container ended.
        message: String,
        /// Whether the exit code was 0.
        success: bool,
        /// The container's termination message.
        last_words: Option<String>,
        /// When the container ended.
        when: Option<End>,
    },
}

/// The exit code of a container that has ended.
pub fn exit_code(pod: &Pod, container: &str) -> Option<i32> {
    let status = find(pod.status.as_ref()?.container_statuses.as_deref(), container)?;
    Some(status.state.as_ref()?.terminated.as_ref()?.exit_code)
}

/// The end of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct End {
    /// When the container ended.
    pub at: Timestamp,
}

impl Progress {
    /// Reads a Pod whose working container has this name. The working container counts as ready when the whole Pod is ready.
    pub fn of(pod: &Pod, container: &str) -> Self {
        Self::read(pod, container, true)
    }

    /// Reads one container of a Pod that does not belong to the operator, and ignores the other containers.
    pub fn of_container(pod: &Pod, container: &str) -> Self {
        Self::read(pod, container, false)
    }

    fn read(pod: &Pod, container: &str, as_a_whole: bool) -> Self {
        if pod.metadata.deletion_timestamp.is_some() {
            return Progress::Terminating;
        }
        let Some(status) = &pod.status else { return Progress::Created };
        let working = find(status.container_statuses.as_deref(), container);
        if let Some(terminated) = working.and_then(|c| c.state.as_ref()?.terminated.as_ref()) {
            // The operator ended the other containers afterwards.
            let of_pod = status.reason.as_deref().filter(|reason| !(is_to_end(pod) && *reason == "DeadlineExceeded"));
            return ended(terminated, of_pod, status.message.as_deref());
        }
        if status.phase.as_deref() == Some("Failed") {
            if let Some((_, terminated)) = failed_init(pod) {
                return ended(terminated, status.reason.as_deref(), status.message.as_deref());
            }
            return Progress::Ended {
                reason: Reason::PodLost,
                message: lost(status.reason.as_deref(), status.message.as_deref()),
                success: false,
                last_words: None,
                when: last_change(status),
            };
        }
        if let Some(running) = working.filter(|c| c.state.as_ref().is_some_and(|state| state.running.is_some())) {
            if running.started == Some(false) {
                return Progress::Initializing { since: running_since(pod, container) };
            }
            // On a node that no longer responds, the container's status is from before the outage; the Pod's condition is newer.
            let doubt = condition(pod, "Ready").filter(|condition| condition.status == "False");
            return match doubt {
                None if running.ready => Progress::Ready,
                // The kubelet did not set this condition: it would have set `ContainersReady` to `False` as well.
                Some(doubt)
                    if running.ready
                        && doubt.reason.is_none()
                        && condition(pod, "ContainersReady").is_some_and(|ready| ready.status == "True") =>
                {
                    Progress::Silent
                }
                Some(_) if running.ready && !as_a_whole => Progress::Ready,
                Some(_) if running.ready && only_reporter_is_unready(pod) => Progress::Ready,
                Some(_) if running.ready => held_back(pod, container).unwrap_or(Progress::Running),
                _ => Progress::Running,
            };
        }
        match condition(pod, "PodScheduled") {
            None => Progress::Created,
            Some(condition) if condition.status != "True" => unschedulable(pod, condition),
            Some(_) => waiting(pod, container, as_a_whole),
        }
    }

    /// Whether the Pod is known to have a node.
    pub fn is_scheduled(&self) -> bool {
        match self {
            Progress::Created | Progress::Unschedulable { .. } => false,
            Progress::Terminating
            | Progress::Waiting { .. }
            | Progress::Initializing { .. }
            | Progress::Running
            | Progress::HeldBack { .. }
            | Progress::Silent
            | Progress::Ready
            | Progress::Ended { .. } => true,
        }
    }
}

/// The init container that runs and delays the containers after it, and since when it runs.
pub fn running_init(pod: &Pod) -> Option<(&str, Timestamp)> {
    let mut inits = init_statuses(pod).filter(|container| delays(pod, container));
    inits.find_map(|container| {
        Some((container.name.as_str(), container.state.as_ref()?.running.as_ref()?.started_at.as_ref()?.0))
    })
}

/// The Pod, to be patched so that the kubelet ends its other containers: the working container has ended, and an ordinary container beside it
/// runs and keeps the Pod's resources. The Pod itself stays, with its logs. `None` if there is nothing to end.
pub fn ended_beside(pod: &Pod, working: &str) -> Option<Pod> {
    find(pod.status.as_ref()?.container_statuses.as_deref(), working)?.state.as_ref()?.terminated.as_ref()?;
    let mut beside = statuses(pod).filter(|container| container.name != working);
    let keeps_on = beside.any(|container| container.state.as_ref().is_none_or(|state| state.terminated.is_none()));
    if !keeps_on || pod.metadata.deletion_timestamp.is_some() || is_to_end(pod) {
        return None;
    }
    let mut pod = pod.clone();
    pod.spec.get_or_insert_default().active_deadline_seconds = Some(AT_ONCE);
    Some(pod)
}

/// The deadline with which the kubelet ends all containers of a Pod: the shortest that the API server accepts. It counts from the start of
/// the Pod.
const AT_ONCE: i64 = 1;

/// Whether the operator has asked the kubelet to end the containers of the Pod.
fn is_to_end(pod: &Pod) -> bool {
    pod.spec.as_ref().is_some_and(|spec| spec.active_deadline_seconds == Some(AT_ONCE))
}

/// The name of the init container that waits for something else than the containers before it.
pub fn blocked_init(pod: &Pod) -> Option<&str> {
    let blocked = init_statuses(pod).find(|container| obstacle(container, false).is_some());
    blocked.map(|container| container.name.as_str())
}

/// The name of the init container that failed, and how it ended. A native sidecar never fails: the kubelet restarts it, and stops it at
/// the end of the Pod.
pub fn failed_init(pod: &Pod) -> Option<(&str, &ContainerStateTerminated)> {
    let inits = init_statuses(pod).filter(|container| !is_sidecar(pod, &container.name));
    let ended = inits.filter_map(|c| Some((c.name.as_str(), c.state.as_ref()?.terminated.as_ref()?)));
    ended.into_iter().find(|(_, ended)| ended.exit_code != 0)
}

/// Whether the Pod has the container that reports the success of its init work. Pods of earlier versions do not have it.
pub fn has_reporter(pod: &Pod) -> bool {
    is_sidecar(pod, reserved::INIT_REPORTER)
}

/// What that container has reported, if the init work has succeeded. The kubelet restarts it afterwards.
pub fn reported_success(pod: &Pod) -> Option<Success> {
    let container = reporter(pod)?;
    let states = [container.state.as_ref(), container.last_state.as_ref()];
    let mut words = states.into_iter().flatten().filter_map(|state| state.terminated.as_ref()?.message.as_deref());
    words.find_map(Success::read)
}

/// Whether that container has reported the success of the init work.
pub fn reports_success(pod: &Pod) -> bool {
    reported_success(pod).is_some()
}

/// Whether the Pod is not ready only because the kubelet restarts that container, which delays nobody.
fn only_reporter_is_unready(pod: &Pod) -> bool {
    let sidecars = init_statuses(pod).filter(|container| is_sidecar(pod, &container.name));
    let mut unready = sidecars.chain(statuses(pod)).filter(|container| !container.ready);
    unready.next().is_some_and(|container| container.name == reserved::INIT_REPORTER) && unready.next().is_none()
}

fn reporter(pod: &Pod) -> Option<&ContainerStatus> {
    init_statuses(pod).find(|container| container.name == reserved::INIT_REPORTER)
}

fn init_statuses(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    pod.status.iter().flat_map(|status| status.init_container_statuses.iter().flatten())
}

fn statuses(pod: &Pod) -> impl Iterator<Item = &ContainerStatus> {
    pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten())
}

/// Whether an init container is a native sidecar, which only the Pod's spec shows.
fn is_sidecar(pod: &Pod, name: &str) -> bool {
    let inits = pod.spec.as_ref().and_then(|spec| spec.init_containers.as_deref());
    restart_policy(inits.unwrap_or_default(), name) == Some("Always")
}

/// Whether a container beside the working one has a restart policy of its own, so that the kubelet may restart it.
fn may_be_restarted(pod: &Pod, name: &str) -> bool {
    pod.spec.as_ref().is_some_and(|spec| restart_policy(&spec.containers, name).is_some())
}

fn restart_policy<'a>(containers: &'a [Container], name: &str) -> Option<&'a str> {
    containers.iter().find(|container| container.name == name)?.restart_policy.as_deref()
}

fn find<'a>(statuses: Option<&'a [ContainerStatus]>, name: &str) -> Option<&'a ContainerStatus> {
    statuses?.iter().find(|status| status.name == name)
}

fn condition<'a>(pod: &'a Pod, type_: &str) -> Option<&'a PodCondition> {
    pod.status.as_ref()?.conditions.as_ref()?.iter().find(|condition| condition.type_ == type_)
}

/// Since when the working container runs.
pub fn running_since(pod: &Pod, container: &str) -> Option<Timestamp> {
    let working = find(pod.status.as_ref()?.container_statuses.as_deref(), container)?;
    working.state.as_ref()?.running.as_ref()?.started_at.as_ref().map(|time| time.0)
}

/// Interprets the scheduler's message.
fn unschedulable(pod: &Pod, condition: &PodCondition) -> Progress {
    let words = condition.message.clone().unwrap_or_default();
    // The scheduler's write conflicted with another one, for example on a claim that was being bound. It retries at once, so this is not
    // a cause.
    if words.contains("the object has been modified") {
        return Progress::Created;
    }
    let has_session = pod.labels().contains_key(meta::SESSION);
    let reason = if words.to_ascii_lowercase().contains("persistentvolumeclaim") {
        Reason::ClaimNotReady
    } else if has_session && words.contains("didn't match pod affinity rules") {
        Reason::NoRoomOnSessionNode
    } else {
        Reason::Unschedulable
    };
    Progress::Unschedulable { reason, message: words }
}

/// The end of a Pod without container statuses: the time of the last change in its status.
fn last_change(status: &PodStatus) -> Option<End> {
    let changes = status.conditions.iter().flatten().filter_map(|condition| condition.last_transition_time.as_ref());
    let at = changes.map(|time| time.0).chain(status.start_time.as_ref().map(|time| time.0)).max()?;
    Some(End { at })
}

/// What the Pod waits for: the first container that waits for something else than the containers before it, or an init container that
/// runs. An init container delays all containers after it.
fn waiting(pod: &Pod, working: &str, as_a_whole: bool) -> Progress {
    let inits = init_statuses(pod).map(|container| (container, true));
    let (own, beside): (Vec<_>, Vec<_>) = statuses(pod).partition(|container| container.name == working);
    let beside = beside.into_iter().filter(|_| as_a_whole);
    for (container, is_init) in inits.chain(own.into_iter().chain(beside).map(|container| (container, false))) {
        let is_sidecar = is_init && is_sidecar(pod, &container.name);
        let is_named = as_a_whole && (is_sidecar || !is_of_operator(&container.name, is_init, working));
        if let Some((reason, message)) = obstacle(container, is_named) {
            return Progress::Waiting { reason, message };
        }
        let running = container.state.as_ref().and_then(|state| state.running.as_ref());
        if let Some(running) = running.filter(|_| is_init && is_named && delays(pod, container)) {
            let since = running.started_at.as_ref().map(|time| format!(" since {}", time.0)).unwrap_or_default();
            let is_waited_for = if is_sidecar { ", and its startup probe has not succeeded" } else { "" };
            let message = format!("The init container {} has been running{since}{is_waited_for}.", container.name);
            return Progress::Waiting { reason: Reason::ContainerCreating, message };
        }
    }
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or("a node");
    let message = format!("{node} mounts the volumes, pulls the image and starts the container.");
    Progress::Waiting { reason: Reason::ContainerCreating, message }
}

/// Whether a running init container delays the containers after it. A native sidecar does so until it has started.
fn delays(pod: &Pod, container: &ContainerStatus) -> bool {
    !is_sidecar(pod, &container.name) || container.started == Some(false)
}

/// Whether the operator wrote this container of its Pod.
fn is_of_operator(name: &str, is_init: bool, working: &str) -> bool {
    let is_source = is_init && working == meta::STAGE_CONTAINER && name.starts_with(reserved::SOURCE_PREFIX);
    is_source || name == working || name == reserved::HELPER_INSTALLER
}

/// Why a container that waits cannot start, unless it only waits for its turn. The message names the container on request.
fn obstacle(container: &ContainerStatus, is_named: bool) -> Option<(Reason, String)> {
    let waiting = container.state.as_ref()?.waiting.as_ref()?;
    let words = waiting.message.as_deref().unwrap_or("the kubelet gives no detail");
    let reason = match waiting.reason.as_deref() {
        Some("ImagePullBackOff" | "ErrImagePull" | "InvalidImageName" | "ErrImageNeverPull" | "ImageInspectError") => {
            Reason::ImagePull
        }
        None | Some("ContainerCreating" | "PodInitializing") => return None,
        // The kubelet's other reasons: CreateContainerConfigError, RunContainerError, …
        Some(_) => Reason::ContainerConfig,
    };
    let name = &container.name;
    let message = match reason {
        // The kubelet alternates between two messages for the same failure; the cause in them is the same.
        Reason::ImagePull => {
            let cause = words.split_once("ErrImagePull: ").map_or(words, |(_, cause)| cause);
            match failing_image(&container.image, cause) {
                Some(image) if is_named => format!("The container {name}: the image {image} cannot be pulled: {cause}"),
                None if is_named => format!("The container {name}: an image cannot be pulled: {cause}"),
                Some(image) => format!("The image {image} cannot be pulled: {cause}"),
                None => format!("An image cannot be pulled: {cause}"),
            }
        }
        _ if is_named && keeps_ending(container) => is_restarted(name),
        _ if is_named => format!("The container {name} cannot be started: {words}"),
        _ => format!("The container cannot be started: {words}"),
    };
    Some((reason, message))
}

/// Whether the kubelet pauses before it restarts the container. Its message has the length of the pause, which grows.
fn keeps_ending(container: &ContainerStatus) -> bool {
    let waiting = container.state.as_ref().and_then(|state| state.waiting.as_ref());
    waiting.is_some_and(|waiting| waiting.reason.as_deref() == Some("CrashLoopBackOff"))
}

fn is_restarted(name: &str) -> String {
    format!("The container {name} ended, and the kubelet restarts it; its log shows why it ended.")
}

/// The container beside the working one that keeps the Pod from being ready: one that will never be ready, else one that cannot start,
/// else the first.
fn held_back(pod: &Pod, working: &str) -> Option<Progress> {
    let is_beside = |container: &&ContainerStatus| container.name != reserved::INIT_REPORTER;
    let sidecars = init_statuses(pod).filter(is_beside).filter(|container| is_sidecar(pod, &container.name));
    let beside = statuses(pod).filter(|container| container.name != working);
    let restarted = beside.map(|container| (container, may_be_restarted(pod, &container.name)));
    let all = sidecars.map(|container| (container, true)).chain(restarted).filter(|(container, _)| !container.ready);
    let found = all.map(|(container, may_be_restarted)| hindrance(container, may_be_restarted));
    let (reason, message, is_final) =
        found.min_by_key(|(reason, _, is_final)| (!is_final, *reason == Reason::NotReady))?;
    Some(Progress::HeldBack { reason, message, is_final })
}

/// Why a container is not ready, and whether it has ended and is not restarted.
fn hindrance(container: &ContainerStatus, may_be_restarted: bool) -> (Reason, String, bool) {
    let name = &container.name;
    let state = container.state.as_ref();
    let ended = state.and_then(|state| state.terminated.as_ref());
    if may_be_restarted && (ended.is_some() || keeps_ending(container)) {
        return (Reason::NotReady, is_restarted(name), false);
    }
    if let Some(ended) = ended {
        let message = format!(
            "The container {name} {}. It is not restarted, so the Pod cannot become ready.",
            how(ended).trim_end_matches('.')
        );
        return (Reason::NotReady, message, true);
    }
    if let Some((reason, message)) = obstacle(container, true) {
        return (reason, message, false);
    }
    let message = if state.is_some_and(|state| state.running.is_some()) {
        format!("The container {name} runs, but is not ready yet; the events of the Pod show why.")
    } else {
        format!("The container {name} has not started yet.")
    };
    (Reason::NotReady, message, false)
}

/// The container's own image, if the kubelet's message is about it. The kubelet usually quotes the image, with or without a registry.
/// Another image is mounted as a volume; the container waits for this as well.
fn failing_image<'a>(own: &'a str, words: &str) -> Option<&'a str> {
    let is_another = words.contains("image \"") && !words.contains(&format!("{own}\""));
    (!is_another).then_some(own)
}

fn ended(terminated: &ContainerStateTerminated, pod_reason: Option<&str>, pod_message: Option<&str>) -> Progress {
    let message = format!("The container {}.", how(terminated));
    let (reason, message) = match terminated.reason.as_deref() {
        Some("OOMKilled") => (Reason::OutOfMemory, message),
        _ if pod_reason.is_some() => (Reason::PodLost, lost(pod_reason, pod_message)),
        // The node lost track of the container, for example in a reboot.
        Some("ContainerStatusUnknown" | "Unknown") => {
            (Reason::PodLost, lost(terminated.reason.as_deref(), terminated.message.as_deref()))
        }
        Some("Completed" | "Error") | None => (Reason::ContainerEnded, message),
        Some(_) if terminated.signal.is_some_and(|signal| signal != 0) => (Reason::ContainerEnded, message),
        Some(_) => (Reason::ContainerConfig, message),
    };
    let last_words = last_words(terminated).map(ToString::to_string);
    // A runtime may report the epoch as the end of a container that never ran.
    let when = terminated.finished_at.as_ref().map(|time| time.0).filter(|time| time.as_second() > 0);
    let when = when.map(|at| End { at });
    Progress::Ended { reason, message, success: terminated.exit_code == 0, last_words, when }
}

/// The exit code of a process that SIGKILL ended. Nearly always the kernel killed it because memory ran out; the runtime may not notice.
const KILLED: i32 = 128 + 9;

/// How a container ended: `ended with exit code 1`.
pub fn how(terminated: &ContainerStateTerminated) -> String {
    match (terminated.reason.as_deref(), terminated.signal.filter(|&signal| signal != 0)) {
        (Some("OOMKilled"), _) => "was ended for using more memory than its limit".to_string(),
        (_, Some(signal)) => format!("was ended by signal {signal}"),
        (Some("Completed" | "Error") | None, None) if terminated.exit_code == KILLED => {
            format!("ended with exit code {KILLED} (SIGKILL, which most often means that it ran out of memory)")
        }
        (Some("Completed" | "Error") | None, None) => format!("ended with exit code {}", terminated.exit_code),
        // The runtime's own reasons, such as StartError: the command is not in the image.
        (Some(other), None) => {
            let words = last_words(terminated).unwrap_or("the runtime gives no detail");
            format!("could not be started ({other}): {words}")
        }
    }
}

fn last_words(terminated: &ContainerStateTerminated) -> Option<&str> {
    terminated.message.as_deref().filter(|text| !text.is_empty())
}

fn lost(reason: Option<&str>, message: Option<&str>) -> String {
    match (reason, message) {
        (Some(reason), Some(message)) => format!("The cluster ended the Pod ({reason}): {message}"),
        (Some(text), None) | (None, Some(text)) => format!("The cluster ended the Pod: {text}"),
        (None, None) => "The cluster ended the Pod.".to_string(),
    }
}

/// The kubelet's message, if it evicted the Pod because the Pod exceeded a limit of its own, and not because the node lacked resources.
/// Only the message distinguishes these causes.
pub fn passed_limit(pod: &Pod) -> Option<&str> {
    const WAYS: [&str; 3] =
        ["exceeds the limit", "exceeds the total limit", "exceeded its local ephemeral storage limit"];
    let status = pod.status.as_ref().filter(|status| status.reason.as_deref() == Some("Evicted"))?;
    status.message.as_deref().filter(|words| WAYS.iter().any(|way| words.contains(way)))
}

/// The reasons with which a kubelet refuses a Pod, or gives it up before a container runs, for something that may pass: devices or labels
/// that are not there yet, resources that others use, a shutdown of the node. What no other Pod of the same spec can cure is left out.
const REFUSALS: [&str; 12] = [
    "InvalidNodeInfo",
    "NodeAffinity",
    "NodeName",
    "NodePorts",
    "NodeShutdown",
    "Preempting",
    "TaintToleration",
    "Terminated",
    "TopologyAffinityError",
    "UnexpectedAdmissionError",
    "UnexpectedPredicateFailureType",
    "UnknownReason",
];

/// Why the kubelet refused the Pod, if it did: no container of the Pod has run.
pub fn refusal(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref().filter(|status| status.phase.as_deref() == Some("Failed"))?;
    let (reason, words) = (status.reason.as_deref()?, status.message.as_deref().unwrap_or_default());
    let is_refusal = match reason {
        // The reason of an eviction is also that of a refusal by a node that is low on something.
        "Evicted" => words.contains("The node had condition"),
        // OutOfcpu, OutOfpods, …: the name of the resource follows.
        _ => REFUSALS.contains(&reason) || reason.starts_with("OutOf"),
    };
    let mut states = init_statuses(pod).chain(statuses(pod)).filter_map(|container| container.state.as_ref());
    if !is_refusal || states.any(|state| state.running.is_some() || state.terminated.is_some()) {
        return None;
    }
    let words = words.strip_prefix("Pod was rejected: ").unwrap_or(words).trim().trim_end_matches('.');
    let separator = if words.is_empty() { "" } else { ": " };
    Some(format!("The kubelet refused the Pod ({reason}){separator}{words}."))
}

/// What a Pod that is being deleted waits for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Hold {
    /// Finalizers: in words.
    Finalizers(String),
    /// The kubelet has reported that all containers have ended, and has to remove the Pod.
    Removal,
    /// The containers are not known to have ended.
    Containers,
}

/// How many finalizers are named.
const MOST_FINALIZERS: usize = 3;

/// What the Pod waits for, if it is being deleted.
pub fn hold(pod: &Pod) -> Option<Hold> {
    pod.metadata.deletion_timestamp.as_ref()?;
    let has_ended =
        |container: &ContainerStatus| container.state.as_ref().is_some_and(|state| state.terminated.is_some());
    let runs = |container: &ContainerStatus| container.state.as_ref().is_some_and(|state| state.running.is_some());
    Some(match pod.finalizers() {
        [] if statuses(pod).next().is_some() && statuses(pod).all(has_ended) && !init_statuses(pod).any(runs) => {
            Hold::Removal
        }
        [] => Hold::Containers,
        [only] => Hold::Finalizers(format!("the finalizer {only}; whoever set it has to remove it")),
        many => {
            let named = many[..many.len().min(MOST_FINALIZERS)].join(", ");
            let more = many.len().saturating_sub(MOST_FINALIZERS);
            let more = if more > 0 { format!(" and {more} more") } else { String::new() };
            Hold::Finalizers(format!("the finalizers {named}{more}; whoever set them has to remove them"))
        }
    })
}

/// How far the images of a Pod are pulled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pulls {
    /// Whether nothing is left to wait for: each image is there or cannot be pulled, or the Pod has ended.
    pub are_over: bool,
    /// The first image that cannot be pulled.
    pub failed: Option<FailedPull>,
}

/// An image that cannot be pulled.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FailedPull {
    /// The container that has the image.
    pub container: String,
    /// The image.
    pub image: String,
    /// Why it cannot be pulled, as a sentence.
    pub message: String,
}

impl Pulls {
    /// Reads a Pod whose containers are there only to have their images pulled.
    pub fn of(pod: &Pod) -> Self {
        let failure = |container: &ContainerStatus| match obstacle(container, false) {
            Some((Reason::ImagePull, message)) => {
                Some(FailedPull { container: container.name.clone(), image: container.image.clone(), message })
            }
            _ => None, // what else keeps a container from starting comes after its image was pulled
        };
        let is_awaited = |container: &ContainerStatus| {
            let state = container.state.clone().unwrap_or_default();
            state.running.is_none() && state.terminated.is_none() && obstacle(container, false).is_none()
        };
        let has_ended = pod.status.as_ref().and_then(|status| status.phase.as_deref());
        let has_ended = matches!(has_ended, Some("Succeeded" | "Failed"));
        let has_begun = statuses(pod).next().is_some();
        Self {
            are_over: has_ended || (has_begun && !statuses(pod).any(is_awaited)),
            failed: statuses(pod).find_map(failure),
        }
    }
}

/// Everything that decisions read from a Pod. Other changes of the Pod do not trigger a reconcile.
pub fn facts(pod: &Pod) -> impl PartialEq + use<> {
    let address = pod.status.as_ref().and_then(|status| status.pod_ip.clone());
    let pulls = is_of(pod, Component::Pull).then(|| Pulls::of(pod));
    (Progress::of(pod, container(pod)), node(pod), address, hold(pod), refusal(pod), reports_success(pod), pulls)
}

/// The name of the working container in a Pod of the operator.
fn container(pod: &Pod) -> &'static str {
    if is_of(pod, Component::Stage) {
        meta::STAGE_CONTAINER
    } else if is_of(pod, Component::Cache) {
        meta::CACHE_CONTAINER
    } else {
        meta::SANDBOX_CONTAINER
    }
}

fn is_of(pod: &Pod, component: Component) -> bool {
    pod.labels().get(meta::COMPONENT).is_some_and(|of_pod| *of_pod == component.to_string())
}

/// Whether neither the scheduler nor a kubelet has reported anything about the Pod.
pub fn is_unheard_of(pod: &Pod) -> bool {
    let has_conditions =
        pod.status.as_ref().and_then(|status| status.conditions.as_ref()).is_some_and(|all| !all.is_empty());
    node(pod).is_none() && !has_conditions && pod.metadata.deletion_timestamp.is_none()
}

/// Whether somebody waits for the Pod, and the Pod for the scheduler or for a kubelet, without a known problem.
pub fn is_on_its_way(pod: &Pod) -> bool {
    let progress = Progress::of(pod, container(pod));
    !is_of(pod, Component::Pull)
        && matches!(progress, Progress::Created | Progress::Waiting { reason: Reason::ContainerCreating, .. })
}

/// Since when the Pod has a node.
pub fn scheduled_at(pod: &Pod) -> Option<Timestamp> {
    let scheduled = condition(pod, "PodScheduled").filter(|scheduled| scheduled.status == "True")?;
    scheduled.last_transition_time.as_ref().map(|time| time.0)
}

/// The name of the Pod's node.
pub fn node(pod: &Pod) -> Option<String> {
    pod.spec.as_ref()?.node_name.clone()
}

/// An annotation of the Pod.
pub fn annotation<'a>(pod: &'a Pod, key: &str) -> Option<&'a str> {
    pod.annotations().get(key).map(String::as_str)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(status: serde_json::Value) -> Progress {
        let pod =
            json!({"metadata": {"name": "p"}, "spec": {"nodeName": "node-1", "containers": []}, "status": status});
        Progress::of(&serde_json::from_value(pod).unwrap(), "sandbox")
    }

    fn with_state(state: serde_json::Value) -> Progress {
        read(json!({
            "phase": "Running",
            "conditions": [{"type": "PodScheduled", "status": "True"}],
            "containerStatuses": [
                {"name": "sidecar", "image": "s", "imageID": "", "ready": true, "restartCount": 0, "state": {"running": {}}},
                {"name": "sandbox", "image": "a", "imageID": "", "ready": false, "restartCount": 0, "state": state},
            ],
        }))
    }

    /// The scheduler retries within seconds. A report would cost a status write and alarm the user.
    #[test]
    fn a_write_conflict_of_the_scheduler_is_not_a_cause() {
        let observed = |message: &str| {
            let conditions =
                json!([{"type": "PodScheduled", "status": "False", "reason": "SchedulerError", "message": message}]);
            let pod = json!({"metadata": {"name": "s"}, "status": {"conditions": conditions}});
            Progress::of(&serde_json::from_value(pod).unwrap(), "sandbox")
        };
        let met = "running PreBind plugin \"VolumeBinding\": Operation cannot be fulfilled on persistentvolumeclaims \"s--scripts\": the object has been modified; please apply your changes to the latest version and try again";
        assert_eq!(observed(met), Progress::Created);
        let late = observed("running PreBind plugin \"VolumeBinding\": binding volumes: context deadline exceeded");
        assert!(matches!(late, Progress::Unschedulable { .. }), "{late:?}");
    }

    #[test]
    fn the_working_container_decides_and_not_the_phase_of_the_pod() {
        assert_eq!(with_state(json!({"running": {}})), Progress::Running);
        let Progress::Ended { success, .. } = with_state(json!({"terminated": {"exitCode": 0, "reason": "Completed"}}))
        else {
            panic!("a sidecar that lives does not keep the sandbox alive");
        };
        assert!(success);
    }

    #[test]
    fn how_a_container_ended_is_said_in_words() {
        let cases = [
            (json!({"exitCode": 3, "reason": "Error"}), Reason::ContainerEnded, "ended with exit code 3"),
            (json!({"exitCode": 137, "reason": "Error"}), Reason::ContainerEnded, "ran out of memory"),
            (json!({"exitCode": 137, "signal": 9}), Reason::ContainerEnded, "ended by signal 9"),
            (json!({"exitCode": 137, "reason": "OOMKilled"}), Reason::OutOfMemory, "more memory than its limit"),
            (json!({"exitCode": 255, "reason": "Unknown"}), Reason::PodLost, "The cluster ended the Pod: Unknown"),
            (
                json!({"exitCode": 128, "reason": "StartError", "message": "no such file: bash"}),
                Reason::ContainerConfig,
                "could not be started (StartError): no such file: bash",
            ),
        ];
        for (state, expected, words) in cases {
            let Progress::Ended { reason, message, .. } = with_state(json!({ "terminated": state })) else {
                panic!("{words}");
            };
            assert_eq!(reason, expected);
            assert!(message.contains(words), "{message}");
        }
    }

    /// The kubelet restarts the sidecar. Until then it looks like an init container that failed.
    #[test]
    fn a_sidecar_that_ends_does_not_end_the_sandbox() {
        let status = |phase: &str, sandbox: serde_json::Value| {
            let ended = json!({"terminated": {"exitCode": 1, "reason": "Error"}});
            let container = |name: &str, ready: bool, state: serde_json::Value| json!({"name": name, "image": "a", "imageID": "", "ready": ready, "restartCount": 0, "state": state});
            read(json!({
                "phase": phase,
                "conditions": [{"type": "PodScheduled", "status": "True"}],
                "initContainerStatuses": [container("sidecar", false, ended)],
                "containerStatuses": [container("sandbox", true, sandbox)],
            }))
        };
        assert_eq!(status("Running", json!({"running": {}})), Progress::Ready);
        let starts = status("Pending", json!({"waiting": {"reason": "PodInitializing"}}));
        assert!(matches!(starts, Progress::Waiting { reason: Reason::ContainerCreating, .. }), "{starts:?}");
        let failed = status("Failed", json!({"waiting": {"reason": "PodInitializing"}}));
        assert!(matches!(failed, Progress::Ended { reason: Reason::ContainerEnded, .. }), "{failed:?}");
    }

    fn container(name: &str, ready: bool, state: &serde_json::Value) -> serde_json::Value {
        json!({"name": name, "image": format!("{name}:1"), "imageID": "", "ready": ready, "restartCount": 0, "state": state})
    }

    /// A Pod in which `mesh` is a native sidecar and `log` has a restart policy of its own.
    fn beside(phase: &str, inits: serde_json::Value, containers: serde_json::Value) -> Pod {
        let spec = json!({
            "nodeName": "node-1",
            "initContainers": [{"name": "mesh", "restartPolicy": "Always"}, {"name": "wait-for-db"}],
            "containers": [{"name": "log", "restartPolicy": "OnFailure"}],
        });
        let conditions = json!([
            {"type": "PodScheduled", "status": "True"},
            {"type": "Ready", "status": "False", "reason": "ContainersNotReady"},
        ]);
        let status = json!({
            "phase": phase, "conditions": conditions, "initContainerStatuses": inits, "containerStatuses": containers,
        });
        serde_json::from_value(json!({"metadata": {"name": "p"}, "spec": spec, "status": status})).unwrap()
    }

    /// The kubelet stops native sidecars at the end of the Pod, and they often end with 143.
    #[test]
    fn a_native_sidecar_is_never_a_failed_init_container() {
        let ended = |code: i32| json!({"terminated": {"exitCode": code, "reason": "Error"}});
        let mesh = || container("mesh", false, &ended(143));
        let waits = || container("sandbox", false, &json!({"waiting": {"reason": "PodInitializing"}}));
        let real = json!([mesh(), container("wait-for-db", false, &ended(7))]);
        let failed = beside("Failed", real, json!([waits()]));
        assert_eq!(failed_init(&failed).map(|(name, ended)| (name, ended.exit_code)), Some(("wait-for-db", 7)));
        let Progress::Ended { message, .. } = Progress::of(&failed, "sandbox") else { panic!() };
        assert_eq!(message, "The container ended with exit code 7.");
        for phase in ["Pending", "Running", "Succeeded", "Failed"] {
            let pod = beside(phase, json!([mesh()]), json!([container("sandbox", false, &ended(0))]));
            assert_eq!(failed_init(&pod), None, "{phase}");
        }
    }

    #[test]
    fn what_keeps_a_pod_from_starting_is_named() {
        let says = |inits: serde_json::Value, containers: serde_json::Value| {
            let pod = beside("Pending", inits, containers);
            match Progress::of(&pod, "sandbox") {
                Progress::Waiting { reason, message } => (reason, message),
                other => panic!("{other:?}"),
            }
        };
        let turn = json!({"waiting": {"reason": "PodInitializing"}});
        let image = json!({"waiting": {"reason": "ErrImagePull", "message": "not found"}});
        let config = json!({"waiting": {"reason": "CreateContainerConfigError", "message": "secret \"s\" not found"}});
        let running = json!({"running": {"startedAt": "2026-01-01T00:00:00Z"}});
        let paused = |pause: &str| {
            let words = format!("back-off {pause} restarting failed container=mesh pod=p");
            json!({"waiting": {"reason": "CrashLoopBackOff", "message": words}})
        };
        let sandbox = || json!([container("sandbox", false, &turn)]);
        let (pull, creating) = (Reason::ImagePull, Reason::ContainerCreating);
        let usual = "node-1 mounts the volumes, pulls the image and starts the container.";
        for (inits, containers, reason, message) in [
            (json!([container("mesh", true, &running)]), sandbox(), creating, usual),
            (
                json!([container("mesh", false, &image), container("wait-for-db", false, &turn)]),
                sandbox(),
                pull,
                "The container mesh: the image mesh:1 cannot be pulled: not found",
            ),
            (
                json!([container("mesh", true, &running), container("wait-for-db", false, &running)]),
                sandbox(),
                creating,
                "The init container wait-for-db has been running since 2026-01-01T00:00:00Z.",
            ),
            (
                json!([container("wait-for-db", false, &config)]),
                sandbox(),
                Reason::ContainerConfig,
                "The container wait-for-db cannot be started: secret \"s\" not found",
            ),
            (
                json!([container("install-helper", false, &image)]),
                sandbox(),
                pull,
                "The image install-helper:1 cannot be pulled: not found",
            ),
            (json!([container("install-helper", false, &running)]), sandbox(), creating, usual),
            (
                json!([]),
                json!([container("exporter", false, &image), container("sandbox", false, &turn)]),
                pull,
                "The container exporter: the image exporter:1 cannot be pulled: not found",
            ),
            (
                json!([]),
                json!([container("exporter", false, &image), container("sandbox", false, &image)]),
                pull,
                "The image sandbox:1 cannot be pulled: not found",
            ),
        ] {
            assert_eq!(says(inits, containers), (reason, message.to_string()));
        }
        let restarts = |pause: &str| says(json!([container("mesh", false, &paused(pause))]), sandbox());
        assert_eq!(restarts("10s"), restarts("20s"), "the pause grows");
        assert!(restarts("10s").1.contains("the kubelet restarts it"));
    }

    /// The init containers of the stage Pod are the operator's own, and its owner decides about a Pod to which a sandbox attaches.
    #[test]
    fn containers_of_the_operator_and_of_others_are_not_named() {
        let image = json!({"waiting": {"reason": "ErrImagePull", "message": "not found"}});
        let running = json!({"running": {"startedAt": "2026-01-01T00:00:00Z"}});
        let turn = json!({"waiting": {"reason": "ContainerCreating"}});
        let message = |progress: Progress| match progress {
            Progress::Waiting { message, .. } => message,
            other => panic!("{other:?}"),
        };
        let pod = beside("Pending", json!([container("source-data-0", false, &image)]), json!([]));
        let words = "The image source-data-0:1 cannot be pulled: not found";
        assert_eq!(message(Progress::of(&pod, meta::STAGE_CONTAINER)), words);
        assert_eq!(message(Progress::of_container(&pod, "work")), words);
        let containers = json!([container("exporter", false, &image), container("work", false, &turn)]);
        let pod = beside("Pending", json!([container("wait-for-db", false, &running)]), containers);
        let usual = "node-1 mounts the volumes, pulls the image and starts the container.";
        assert_eq!(message(Progress::of_container(&pod, "work")), usual);
    }

    #[test]
    fn what_keeps_a_pod_from_being_ready_is_named() {
        let running = json!({"running": {"startedAt": "2026-01-01T00:00:00Z"}});
        let ended = json!({"terminated": {"exitCode": 0, "reason": "Completed"}});
        let image = json!({"waiting": {"reason": "ErrImageNeverPull", "message": "not present"}});
        let progress = |mesh: (bool, &serde_json::Value), others: &[serde_json::Value], is_ready: bool| {
            let inits = json!([container("mesh", mesh.0, mesh.1), container("wait-for-db", false, &ended)]);
            let containers = [others, &[container("sandbox", is_ready, &running)]].concat();
            Progress::of(&beside("Running", inits, json!(containers)), "sandbox")
        };
        let up = (true, &running);
        assert_eq!(progress(up, &[], true), Progress::Running, "another condition of the Pod");
        assert_eq!(progress(up, &[container("sync", false, &ended)], false), Progress::Running);
        let held = |reason, message: &str, is_final| Progress::HeldBack { reason, message: message.into(), is_final };
        let syncs = "The container sync ended with exit code 0. It is not restarted, so the Pod cannot become ready.";
        let pull = "The container exporter: the image exporter:1 cannot be pulled: not present";
        let probed = "The container exporter runs, but is not ready yet; the events of the Pod show why.";
        let restarted = |name: &str| {
            format!("The container {name} ended, and the kubelet restarts it; its log shows why it ended.")
        };
        let exporter = |state: &serde_json::Value| container("exporter", false, state);
        for (found, expected) in [
            (progress(up, &[container("sync", false, &ended)], true), held(Reason::NotReady, syncs, true)),
            (progress(up, &[exporter(&image)], true), held(Reason::ImagePull, pull, false)),
            (progress(up, &[exporter(&running)], true), held(Reason::NotReady, probed, false)),
            (
                progress(up, &[exporter(&json!({"waiting": {"reason": "ContainerCreating"}}))], true),
                held(Reason::NotReady, "The container exporter has not started yet.", false),
            ),
            (
                progress((false, &ended), &[exporter(&image), container("sync", false, &ended)], true),
                held(Reason::NotReady, syncs, true),
            ),
            (progress((false, &ended), &[exporter(&image)], true), held(Reason::ImagePull, pull, false)),
            (progress((false, &ended), &[], true), held(Reason::NotReady, &restarted("mesh"), false)),
            (
                progress(
                    (false, &json!({"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 10s"}})),
                    &[],
                    true,
                ),
                held(Reason::NotReady, &restarted("mesh"), false),
            ),
            (progress(up, &[container("log", false, &ended)], true), held(Reason::NotReady, &restarted("log"), false)),
        ] {
            assert_eq!(found, expected);
        }
        let pod = beside("Running", json!([]), json!([container("sandbox", true, &running), exporter(&image)]));
        assert_eq!(Progress::of_container(&pod, "sandbox"), Progress::Ready);
    }

    #[test]
    fn what_is_in_the_way_of_a_container_is_distinguished() {
        let waiting = |reason: &str| match with_state(json!({"waiting": {"reason": reason, "message": "words"}})) {
            Progress::Waiting { reason, .. } => reason,
            other => panic!("{other:?}"),
        };
        assert_eq!(waiting("ContainerCreating"), Reason::ContainerCreating);
        assert_eq!(waiting("ErrImagePull"), Reason::ImagePull);
        assert_eq!(waiting("InvalidImageName"), Reason::ImagePull);
        assert_eq!(waiting("CreateContainerConfigError"), Reason::ContainerConfig);
    }

    #[test]
    fn what_the_kubelet_says_of_an_image_by_turns_is_one_message() {
        let say = |reason: &str, message: &str| with_state(json!({"waiting": {"reason": reason, "message": message}}));
        let back_off = "Back-off pulling image \"a:1\": ErrImagePull: not found";
        assert_eq!(say("ErrImagePull", "not found"), say("ImagePullBackOff", back_off));
    }

    #[test]
    fn an_image_that_is_mounted_is_not_taken_for_the_containers_own() {
        for (words, image) in [
            ("Container image \"src:1\" is not present with pull policy of Never", None),
            ("failed to pull and unpack image \"docker.io/library/src:2\": not found", None),
            ("failed to pull and unpack image \"docker.io/library/own:1\": not found", Some("own:1")),
            ("no route to host", Some("own:1")),
        ] {
            assert_eq!(failing_image("own:1", words), image, "{words}");
        }
    }

    #[test]
    fn a_pod_that_the_cluster_took_away_says_who_did() {
        let evicted = read(json!({"phase": "Failed", "reason": "Evicted", "message": "low on memory"}));
        let Progress::Ended { reason: Reason::PodLost, message, .. } = evicted else { panic!("{evicted:?}") };
        assert!(message.contains("Evicted") && message.contains("low on memory"));
        assert_eq!(read(json!({"phase": "Pending"})), Progress::Created);
    }

    /// The conditions of a Pod whose node has stopped responding: the node lifecycle controller sets Ready to False without a reason.
    #[test]
    fn a_pod_whose_node_went_silent_is_distinguished_from_one_that_is_not_ready() {
        let with = |ready: serde_json::Value, containers_ready: &str| {
            let say = |kind: &str, status: &str| json!({"type": kind, "status": status, "lastTransitionTime": "2026-01-01T00:00:00Z"});
            read(json!({
                "phase": "Running",
                "podIP": "10.244.1.7",
                "conditions": [
                    say("PodReadyToStartContainers", "True"),
                    say("Initialized", "True"),
                    ready,
                    say("ContainersReady", containers_ready),
                    say("PodScheduled", "True"),
                ],
                "containerStatuses": [{
                    "name": "sandbox", "image": "a", "imageID": "", "ready": containers_ready == "True", "started": true,
                    "restartCount": 0, "state": {"running": {"startedAt": "2026-01-01T00:00:00Z"}},
                }],
            }))
        };
        let silent = json!({"type": "Ready", "status": "False", "lastTransitionTime": "2026-01-01T00:05:00Z"});
        assert_eq!(with(silent, "True"), Progress::Silent);
        let doubts = |reason: &str| json!({"type": "Ready", "status": "False", "reason": reason, "message": "words"});
        assert_eq!(with(doubts("ContainersNotReady"), "False"), Progress::Running);
        assert_eq!(with(doubts("ReadinessGatesNotReady"), "True"), Progress::Running);
        assert_eq!(with(json!({"type": "Ready", "status": "True"}), "True"), Progress::Ready);
    }

    #[test]
    fn a_pod_that_the_kubelet_refused_is_distinguished_from_one_that_ran() {
        let of = |reason: &str, message: &str, state: Option<serde_json::Value>| {
            let statuses: Vec<_> = state.iter().map(|state| container("sandbox", false, state)).collect();
            let mut pod = beside("Failed", json!([]), json!(statuses));
            let status = pod.status.as_mut().unwrap();
            (status.reason, status.message) = (Some(reason.into()), Some(message.into()));
            refusal(&pod)
        };
        let words =
            "Pod was rejected: Node didn't have enough resource: cpu, requested: 4000, used: 950, capacity: 1000";
        assert_eq!(
            of("OutOfcpu", words, None).unwrap(),
            "The kubelet refused the Pod (OutOfcpu): Node didn't have enough resource: cpu, requested: 4000, used: 950, capacity: 1000."
        );
        assert_eq!(of("NodeAffinity", "", None).unwrap(), "The kubelet refused the Pod (NodeAffinity).");
        for reason in ["UnexpectedAdmissionError", "OutOfephemeral-storage", "NodeShutdown", "Terminated", "NodePorts"]
        {
            assert!(of(reason, words, None).is_some(), "{reason}");
            assert!(of(reason, words, Some(json!({"waiting": {"reason": "ContainerCreating"}}))).is_some(), "{reason}");
            assert_eq!(of(reason, words, Some(json!({"running": {}}))), None, "{reason}");
            assert_eq!(of(reason, words, Some(json!({"terminated": {"exitCode": 137}}))), None, "{reason}");
        }
        for reason in ["Evicted", "DeadlineExceeded", "NodeLost", "PodOSNotSupported", "SysctlForbidden"] {
            assert_eq!(of(reason, "The node was low on resource: memory.", None), None, "{reason}");
        }
        assert!(of("Evicted", "Pod was rejected: The node had condition: [DiskPressure]. ", None).is_some());
    }

    #[test]
    fn what_a_pod_that_is_being_deleted_waits_for_is_distinguished() {
        let running = json!({"running": {}});
        let ended = json!({"terminated": {"exitCode": 143}});
        let of = |finalizers: &[&str], mesh: &serde_json::Value, sandbox: &serde_json::Value| {
            let containers = json!([container("sandbox", false, sandbox)]);
            let mut pod = beside("Running", json!([container("mesh", false, mesh)]), containers);
            pod.metadata.finalizers = Some(finalizers.iter().map(ToString::to_string).collect());
            let before = (hold(&pod), facts(&pod));
            pod.metadata.deletion_timestamp = serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap();
            assert!(before.0.is_none() && before.1 != facts(&pod));
            hold(&pod).unwrap()
        };
        assert_eq!(of(&[], &ended, &ended), Hold::Removal);
        assert_eq!(of(&[], &running, &ended), Hold::Containers);
        assert_eq!(of(&[], &ended, &running), Hold::Containers);
        let words = |finalizers: &[&str]| match of(finalizers, &ended, &ended) {
            Hold::Finalizers(words) => words,
            other => panic!("{other:?}"),
        };
        assert_eq!(words(&["a.io/b"]), "the finalizer a.io/b; whoever set it has to remove it");
        assert_eq!(words(&["a", "b"]), "the finalizers a, b; whoever set them has to remove them");
        assert_eq!(
            words(&["a", "b", "c", "d", "e"]),
            "the finalizers a, b, c and 2 more; whoever set them has to remove them"
        );
    }

    #[test]
    fn what_the_scheduler_says_is_distinguished() {
        let says = |labels: serde_json::Value, words: &str| {
            let condition =
                json!({"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": words});
            let pod = json!({
                "metadata": {"name": "p", "labels": labels},
                "spec": {"containers": []},
                "status": {"phase": "Pending", "conditions": [condition]},
            });
            match Progress::of(&serde_json::from_value(pod).unwrap(), "sandbox") {
                Progress::Unschedulable { reason, message } => {
                    assert_eq!(message, words);
                    reason
                }
                other => panic!("{words}: {other:?}"),
            }
        };
        let of_session = || json!({meta::SESSION: "s"});
        let no_capacity = "0/3 nodes are available: 1 Insufficient memory, 2 node(s) didn't match pod affinity rules. preemption: 0/3 nodes are available: 1 No preemption victims found for incoming pod, 2 Preemption is not helpful for scheduling.";
        assert_eq!(says(of_session(), no_capacity), Reason::NoRoomOnSessionNode);
        assert_eq!(says(json!({}), no_capacity), Reason::Unschedulable, "it has no session");
        for (words, reason) in [
            ("0/2 nodes are available: 2 Insufficient cpu.", Reason::Unschedulable),
            ("0/2 nodes are available: 2 node(s) had untolerated taint(s).", Reason::Unschedulable),
            ("0/2 nodes are available: persistentvolumeclaim \"gone\" not found. not found", Reason::ClaimNotReady),
            (
                "0/2 nodes are available: pod has unbound immediate PersistentVolumeClaims. not found",
                Reason::ClaimNotReady,
            ),
        ] {
            assert_eq!(says(of_session(), words), reason, "{words}");
        }
    }

    #[test]
    fn what_keeps_on_beside_a_container_that_has_ended_is_ended_once() {
        let pod = |state: serde_json::Value, beside: serde_json::Value| -> Pod {
            let status = |name: &str, state: serde_json::Value| json!({"name": name, "image": "a", "imageID": "", "ready": false, "restartCount": 0, "state": state});
            let statuses = [status("sandbox", state), status("beside", beside)];
            let pod = json!({
                "metadata": {"name": "p"},
                "spec": {"containers": []},
                "status": {"phase": "Running", "containerStatuses": statuses},
            });
            serde_json::from_value(pod).unwrap()
        };
        let (running, ended) =
            (|| json!({"running": {}}), || json!({"terminated": {"exitCode": 0, "reason": "Completed"}}));
        assert_eq!(ended_beside(&pod(running(), running()), "sandbox"), None);
        assert_eq!(ended_beside(&pod(running(), ended()), "sandbox"), None);
        assert_eq!(ended_beside(&pod(ended(), ended()), "sandbox"), None);
        let before = pod(ended(), running());
        let mut pod = ended_beside(&before, "sandbox").unwrap();
        assert_eq!(ended_beside(&pod, "sandbox"), None, "the kubelet ends the container soon");
        // What the kubelet then reports about the whole Pod does not change how the sandbox ended.
        let status = pod.status.as_mut().unwrap();
        status.phase = Some("Failed".into());
        status.reason = Some("DeadlineExceeded".into());
        status.message = Some("Pod was active on the node longer than the specified deadline".into());
        assert_eq!(Progress::of(&pod, "sandbox"), Progress::of(&before, "sandbox"));
        pod.spec.as_mut().unwrap().active_deadline_seconds = Some(600);
        let Progress::Ended { reason, .. } = Progress::of(&pod, "sandbox") else { panic!("it ended") };
        assert_eq!(reason, Reason::PodLost, "a deadline of the user's own");
    }
}
