//! Events about a Pod. They name the cause of a wait that the Pod's status does not show, and nothing is decided by them: anybody may write
//! an event, and the API server forgets it after an hour.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;

use super::{
    pod::{Progress, running_init, scheduled_at},
    reserved::INIT_REPORTER,
    status::printable,
};
use crate::api::condition::Reason;

/// How long a Pod waits before its events are read. Most Pods are ready by then.
pub const FIRST_READ: Duration = Duration::from_secs(20);

/// The shortest interval between two reads of the events of one Pod.
pub const READ_INTERVAL: Duration = Duration::from_secs(60);

/// The longest message that is shown, in characters.
const LONGEST: usize = 600;

/// The reasons for which a kubelet, or the attach controller, cannot prepare a Pod for its containers.
const CANNOT_PREPARE: [&str; 5] =
    ["FailedMount", "FailedAttachVolume", "FailedMapVolume", "FailedCreatePodSandBox", "FailedPodSandBoxStatus"];

/// The reasons of a kubelet that has prepared a Pod.
const COMES_FURTHER: [&str; 4] = ["Pulling", "Pulled", "Created", "Started"];

/// An event about a Pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodEvent {
    /// The reason: `FailedMount`.
    pub reason: String,
    /// The message.
    pub message: String,
    /// Which part of the Pod the event is about: `spec.initContainers{init-report}`.
    pub part: String,
    /// When it happened last.
    pub last: Option<Timestamp>,
}

/// Since when a Pod with a node waits for its first container to be started.
pub fn prepares_since(pod: &Pod, container: &str) -> Option<Timestamp> {
    if running_init(pod).is_some() {
        return None;
    }
    let prepares = matches!(Progress::of(pod, container), Progress::Waiting { reason: Reason::ContainerCreating, .. });
    scheduled_at(pod).filter(|_| prepares)
}

/// When the events of a Pod are read: from a first time on, and then once per [`READ_INTERVAL`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reads {
    from: Option<Timestamp>,
}

impl Reads {
    /// The reads for a Pod that has been waiting since then, after this much patience.
    pub fn of(waits_since: Option<Timestamp>, patience: Duration) -> Self {
        Self { from: waits_since.and_then(|since| since.checked_add(patience).ok()) }
    }

    /// Whether the events are needed now.
    pub fn are_due(self, now: Timestamp) -> bool {
        self.from.is_some_and(|from| from <= now)
    }

    /// How long until the events have to be read.
    pub fn next(self, now: Timestamp) -> Option<Duration> {
        let left = Duration::try_from(self.from?.duration_since(now)).ok().filter(|left| !left.is_zero());
        Some(left.unwrap_or(READ_INTERVAL))
    }
}

/// Why the Pod cannot be prepared for its containers: the newest trouble, unless the kubelet has come further since.
pub fn obstacle(events: &[PodEvent]) -> Option<String> {
    let last = |reasons: &[&str]| {
        let about = events.iter().filter(|event| reasons.contains(&event.reason.as_str()));
        about.filter_map(|event| event.last).max()
    };
    let is_over = last(&COMES_FURTHER) > last(&CANNOT_PREPARE);
    newest(events, |event| CANNOT_PREPARE.contains(&event.reason.as_str())).filter(|_| !is_over)
}

/// What the initialiser waits for, as the probe of the reporter says.
pub fn awaited_service(events: &[PodEvent]) -> Option<String> {
    let part = format!("spec.initContainers{{{INIT_REPORTER}}}");
    let message = newest(events, |event| event.reason == "Unhealthy" && event.part == part)?;
    Some(message.strip_prefix("Liveness probe failed: ")?.trim().to_string())
}

fn newest(events: &[PodEvent], is_about: impl Fn(&PodEvent) -> bool) -> Option<String> {
    let event = events.iter().filter(|event| is_about(event)).max_by_key(|event| event.last)?;
    let text = printable(&event.message);
    let text: String = text.chars().take(LONGEST).collect();
    Some(text).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_event_of_a_kind_counts_and_others_do_not() {
        let event = |reason: &str, message: &str, part: &str, second: i64| PodEvent {
            reason: reason.into(),
            message: message.into(),
            part: part.into(),
            last: Timestamp::from_second(second).ok(),
        };
        let events = [
            event("FailedMount", "new\u{1b}[2J", "", 2),
            event("FailedMount", "old", "", 1),
            event("Pulled", "before", "", 1),
            event(
                "Unhealthy",
                "Liveness probe failed: the service gdb: connection refused\n",
                "spec.initContainers{init-report}",
                1,
            ),
            event("Unhealthy", "Readiness probe failed: no", "spec.containers{sandbox}", 2),
        ];
        let obstacle = obstacle(&events).unwrap();
        assert!(obstacle.starts_with("new") && !obstacle.contains('\u{1b}'), "{obstacle}");
        assert_eq!(awaited_service(&events).as_deref(), Some("the service gdb: connection refused"));
        assert_eq!(awaited_service(&events[..3]), None);
        let pulls = [&events[..], &[event("Pulling", "the image", "", 3)]].concat();
        assert_eq!(super::obstacle(&pulls), None, "the volumes are mounted by now");
        assert_eq!(super::obstacle(&[event("FailedMount", &"x".repeat(5000), "", 1)]).unwrap().len(), LONGEST);
    }
}
