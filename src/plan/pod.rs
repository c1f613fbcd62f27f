//! What a Pod tells about itself: one reading for sandboxes and for the stage Pod.
//!
//! The outcome is read from the working container's `terminated` state and never from the Pod's phase, which says `Succeeded`
//! for a container that ended with 0 and `Running` while a sidecar lives.

use k8s_openapi::api::core::v1::{ContainerStateTerminated, ContainerStatus, Pod, PodCondition};
use kube::ResourceExt;

use crate::api::condition::Reason;

/// Where a Pod is in its life, seen from its working container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Progress {
    /// It is being deleted.
    Terminating,
    /// It was made a moment ago; the scheduler has not spoken.
    Created,
    /// No node fits.
    Unschedulable {
        /// The scheduler's words.
        message: String,
    },
    /// It has a node and its container does not run yet.
    Waiting {
        /// [`Reason::ContainerCreating`], [`Reason::ImagePull`] or [`Reason::ContainerConfig`].
        reason: Reason,
        /// What is in the way.
        message: String,
    },
    /// The container runs and is not ready.
    Running,
    /// The container runs and is ready.
    Ready,
    /// The container ended, or never will run.
    Ended {
        /// [`Reason::ContainerEnded`], [`Reason::OutOfMemory`] or [`Reason::PodLost`].
        reason: Reason,
        /// How it ended.
        message: String,
        /// It ended with 0.
        success: bool,
        /// What the container wrote to its termination log.
        last_words: Option<String>,
    },
}

impl Progress {
    /// Reads a Pod whose working container has this name.
    #[must_use]
    pub fn of(pod: &Pod, container: &str) -> Self {
        if pod.metadata.deletion_timestamp.is_some() {
            return Progress::Terminating;
        }
        let Some(status) = &pod.status else { return Progress::Created };
        let working = find(status.container_statuses.as_deref(), container);
        if let Some(terminated) = working.and_then(|c| c.state.as_ref()?.terminated.as_ref()) {
            return ended(terminated, status.reason.as_deref(), status.message.as_deref());
        }
        let inits = status.init_container_statuses.iter().flatten();
        let failed_init =
            inits.filter_map(|c| c.state.as_ref()?.terminated.as_ref()).find(|ended| ended.exit_code != 0);
        if let Some(terminated) = failed_init {
            return ended(terminated, status.reason.as_deref(), status.message.as_deref());
        }
        if status.phase.as_deref() == Some("Failed") {
            return Progress::Ended {
                reason: Reason::PodLost,
                message: lost(status.reason.as_deref(), status.message.as_deref()),
                success: false,
                last_words: None,
            };
        }
        if let Some(running) = working.filter(|c| c.state.as_ref().is_some_and(|state| state.running.is_some())) {
            // On a node that no longer answers, the container's own word is the last one before; the Pod's condition is newer.
            let doubted = condition(pod, "Ready").is_some_and(|condition| condition.status == "False");
            return if running.ready && !doubted { Progress::Ready } else { Progress::Running };
        }
        match condition(pod, "PodScheduled") {
            None => Progress::Created,
            Some(condition) if condition.status != "True" => {
                Progress::Unschedulable { message: condition.message.clone().unwrap_or_default() }
            }
            Some(_) => waiting(pod, working),
        }
    }

    /// Whether the Pod holds a place on a node, as far as anybody knows.
    #[must_use]
    pub fn is_scheduled(&self) -> bool {
        match self {
            Progress::Created | Progress::Unschedulable { .. } => false,
            Progress::Terminating
            | Progress::Waiting { .. }
            | Progress::Running
            | Progress::Ready
            | Progress::Ended { .. } => true,
        }
    }
}

fn find<'a>(statuses: Option<&'a [ContainerStatus]>, name: &str) -> Option<&'a ContainerStatus> {
    statuses?.iter().find(|status| status.name == name)
}

fn condition<'a>(pod: &'a Pod, type_: &str) -> Option<&'a PodCondition> {
    pod.status.as_ref()?.conditions.as_ref()?.iter().find(|condition| condition.type_ == type_)
}

/// The first container that waits for more than its turn: an init container holds up all that come after it.
fn waiting(pod: &Pod, working: Option<&ContainerStatus>) -> Progress {
    let inits = pod.status.iter().flat_map(|status| status.init_container_statuses.iter().flatten());
    for container in inits.chain(working) {
        let Some(waiting) = container.state.as_ref().and_then(|state| state.waiting.as_ref()) else { continue };
        let words = waiting.message.as_deref().unwrap_or("the kubelet gives no detail");
        let reason = match waiting.reason.as_deref() {
            Some(
                "ImagePullBackOff" | "ErrImagePull" | "InvalidImageName" | "ErrImageNeverPull" | "ImageInspectError",
            ) => Reason::ImagePull,
            None | Some("ContainerCreating" | "PodInitializing") => continue,
            // The kubelet's other reasons: CreateContainerConfigError, RunContainerError, …
            Some(_) => Reason::ContainerConfig,
        };
        let message = match reason {
            // The kubelet says the same in two ways by turns; only the cause is news.
            Reason::ImagePull => {
                let cause = words.split_once("ErrImagePull: ").map_or(words, |(_, cause)| cause);
                format!("The image {} cannot be pulled: {cause}", container.image)
            }
            _ => format!("The container cannot be started: {words}"),
        };
        return Progress::Waiting { reason, message };
    }
    let node = pod.spec.as_ref().and_then(|spec| spec.node_name.as_deref()).unwrap_or("a node");
    let message = format!("{node} mounts the volumes, pulls the image and starts the container.");
    Progress::Waiting { reason: Reason::ContainerCreating, message }
}

fn ended(terminated: &ContainerStateTerminated, pod_reason: Option<&str>, pod_message: Option<&str>) -> Progress {
    let last_words = terminated.message.clone().filter(|text| !text.is_empty());
    let (reason, how) = match (terminated.reason.as_deref(), terminated.signal.filter(|&signal| signal != 0)) {
        (Some("OOMKilled"), _) => (Reason::OutOfMemory, "was ended for using more memory than its limit".to_string()),
        _ if pod_reason.is_some() => (Reason::PodLost, lost(pod_reason, pod_message)),
        (_, Some(signal)) => (Reason::ContainerEnded, format!("was ended by signal {signal}")),
        (Some("Completed" | "Error") | None, None) => {
            (Reason::ContainerEnded, format!("ended with exit code {}", terminated.exit_code))
        }
        // The runtime's own reasons, such as StartError: the command is not in the image.
        (Some(other), None) => {
            let words = last_words.as_deref().unwrap_or("the runtime gives no detail");
            (Reason::ContainerConfig, format!("could not be started ({other}): {words}"))
        }
    };
    let message = if reason == Reason::PodLost { how } else { format!("The container {how}.") };
    Progress::Ended { reason, message, success: terminated.exit_code == 0, last_words }
}

fn lost(reason: Option<&str>, message: Option<&str>) -> String {
    match (reason, message) {
        (Some(reason), Some(message)) => format!("The cluster ended the Pod ({reason}): {message}"),
        (Some(text), None) | (None, Some(text)) => format!("The cluster ended the Pod: {text}"),
        (None, None) => "The cluster ended the Pod.".to_string(),
    }
}

/// All that is read of a Pod: what else changes in it wakes nobody.
#[must_use]
pub fn reading(pod: &Pod) -> impl PartialEq + use<> {
    let container = pod.spec.as_ref().and_then(|spec| spec.containers.first());
    let progress = container.map(|container| Progress::of(pod, &container.name));
    (progress, node(pod), pod.status.as_ref().and_then(|status| status.pod_ip.clone()))
}

/// The name of the Pod's node.
#[must_use]
pub fn node(pod: &Pod) -> Option<String> {
    pod.spec.as_ref()?.node_name.clone()
}

/// An annotation of the Pod.
#[must_use]
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
            (json!({"exitCode": 137, "signal": 9}), Reason::ContainerEnded, "ended by signal 9"),
            (json!({"exitCode": 137, "reason": "OOMKilled"}), Reason::OutOfMemory, "more memory than its limit"),
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

    #[test]
    fn what_is_in_the_way_of_a_container_is_told_apart() {
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
    fn a_pod_that_the_cluster_took_away_says_who_did() {
        let evicted = read(json!({"phase": "Failed", "reason": "Evicted", "message": "low on memory"}));
        let Progress::Ended { reason: Reason::PodLost, message, .. } = evicted else { panic!("{evicted:?}") };
        assert!(message.contains("Evicted") && message.contains("low on memory"));
        assert_eq!(read(json!({"phase": "Pending"})), Progress::Created);
    }
}
