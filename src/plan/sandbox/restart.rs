//! Restarts of a sandbox whose container ended.
//!
//! ```text
//! Pod with restarts=n ── its container ended ──► status.restarts = n+1, `Restarting`
//!                                                    │ the pause is over
//!                                                    ▼
//! Pod with restarts=n+1 ◄── recreated ── the old Pod is deleted
//! ```
//! A Pod carries the number of restarts with which it was created. Each end is therefore counted once, in however many reconciles it is
//! observed. The old Pod is deleted only when the new count is in the status, so no count is lost if the operator ends in between.
//!
//! A Pod that its kubelet refused is created again in the same way, but this neither counts nor ends: nothing of the sandbox has failed.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::Time};
use kube::ResourceExt;

use super::{Lifecycle, Observed};
use crate::{
    api::{SandboxTemplate, meta, template::RestartPolicy},
    plan::{
        pod::{End, Progress, annotation, refusal},
        status,
    },
};

/// After a sandbox was ready for this long, the count of restarts begins anew. The time as ready counts, and not the running time: an
/// initialiser, or a server that never responds, can run for longer and fail each time.
const WELL: SignedDuration = SignedDuration::from_mins(10);

/// The pause before the first restart. Each further pause is twice as long.
const FIRST_PAUSE: Duration = Duration::from_secs(2);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);

/// The lifecycle of a sandbox whose container ended.
pub(super) fn after(observed: &Observed, pod: &Pod, progress: Progress) -> Lifecycle {
    let Progress::Ended { message, success, when, .. } = &progress else { return Lifecycle::Pod(progress) };
    let template = &observed.sandbox.spec.template;
    let ended = when.map(|End { at, .. }| at).or(pod.metadata.creation_timestamp.as_ref().map(|made| made.0));
    let ended = ended.unwrap_or(Timestamp::MIN);
    // A Pod that was ready has run, and the kubelet refused it only when it saw it again.
    let may_be_created = template.restart_policy() != RestartPolicy::Never || ready_at(observed, pod).is_none();
    if let Some(words) = refusal(pod).filter(|_| may_be_created) {
        return Lifecycle::Restarting {
            message: format!("{words} The Pod is created again."),
            count: made_with(pod),
            at: ended.checked_add(pause_after_refusal(observed, ended)).unwrap_or(Timestamp::MAX),
        };
    }
    match (template.restart_policy(), success) {
        (RestartPolicy::OnFailure | RestartPolicy::Never, true) => {
            return Lifecycle::Finished { message: message.clone() };
        }
        (RestartPolicy::Never, false) => return Lifecycle::Pod(progress),
        (RestartPolicy::Always, _) | (RestartPolicy::OnFailure, false) => {}
    }
    let ready = ready_at(observed, pod);
    let was_well = when.zip(ready).is_some_and(|(end, ready)| end.at.duration_since(ready.0) >= WELL);
    let count = if was_well { 1 } else { made_with(pod).saturating_add(1) };
    if count > template.restart_limit() {
        return Lifecycle::Pod(progress);
    }
    Lifecycle::Restarting {
        message: format!("{message} The sandbox is restarted ({count} of {}).", template.restart_limit()),
        count,
        at: ended.checked_add(pause(count)).unwrap_or(Timestamp::MAX),
    }
}

/// When the sandbox was ready for the first time in this Pod, according to its status.
pub(super) fn ready_at<'a>(observed: &'a Observed, pod: &Pod) -> Option<&'a Time> {
    let status = observed.sandbox.status.as_ref().filter(|status| status.pod_uid == pod.uid())?;
    status.ready_at.as_ref()
}

fn pause(count: i32) -> Duration {
    let doublings = u32::try_from(count.saturating_sub(1)).unwrap_or_default().min(16);
    FIRST_PAUSE.saturating_mul(1 << doublings).min(LONGEST_PAUSE)
}

/// The pause after a refusal: as long as the sandbox had not been ready then, according to its status. So the pauses grow without a count.
fn pause_after_refusal(observed: &Observed, refused: Timestamp) -> Duration {
    let conditions = observed.sandbox.status.as_ref().map_or(&[][..], |status| &status.conditions);
    let not_ready = status::ready(conditions).filter(|ready| ready.status == "False");
    let waited = not_ready.map(|ready| refused.duration_since(ready.last_transition_time.0));
    let waited = waited.and_then(|waited| Duration::try_from(waited).ok());
    waited.unwrap_or_default().clamp(FIRST_PAUSE, LONGEST_PAUSE)
}

/// The number of restarts with which the Pod was created.
fn made_with(pod: &Pod) -> i32 {
    annotation(pod, meta::RESTARTS).and_then(|count| count.parse().ok()).unwrap_or(0)
}

/// The number of restarts in a row.
pub(super) fn count(observed: &Observed) -> i32 {
    let status = observed.sandbox.status.as_ref();
    match observed.pod.owned() {
        Some(pod) if pod.metadata.deletion_timestamp.is_none() => made_with(pod),
        // A new generation of the Sandbox begins the count anew.
        _ if status.and_then(|status| status.observed_generation) != observed.sandbox.metadata.generation => 0,
        _ => status.and_then(|status| status.restarts).unwrap_or(0),
    }
}

/// Whether the sandbox's status has this count, from which the next Pod takes it.
pub(super) fn is_counted(observed: &Observed, count: i32) -> bool {
    observed.sandbox.status.as_ref().and_then(|status| status.restarts).unwrap_or(0) == count
}

/// Why the sandbox is not restarted again, for users.
pub(super) fn exhausted(template: &SandboxTemplate) -> String {
    match (template.restart_policy(), template.restart_limit()) {
        (RestartPolicy::Never, _) => "The sandbox is not restarted (restart.policy: Never).".into(),
        (RestartPolicy::Always | RestartPolicy::OnFailure, limit) => {
            format!("The sandbox was restarted {limit} times in a row.")
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::{Value, json};

    use super::{super::pod::template_hash, *};
    use crate::plan::{ChildState, Decide, Lookup};

    /// A sandbox whose Pod was refused half a minute after midnight.
    fn refused(policy: &str, status: &Value, now: &str) -> Observed {
        let sandbox = json!({
            "metadata": {"name": "s", "uid": "of-s", "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"type": "main", "image": "a", "restart": {"policy": policy, "limit": 2}},
            "status": status,
        });
        let owner = json!({
            "apiVersion": "aigise.dev/v1alpha1", "kind": "Sandbox", "name": "s", "uid": "of-s", "controller": true,
        });
        let scheduled = json!({"type": "PodScheduled", "status": "True", "lastTransitionTime": "2026-01-01T00:00:30Z"});
        let pod = json!({
            "metadata": {
                "name": "s", "uid": "of-pod", "creationTimestamp": "2026-01-01T00:00:29Z", "ownerReferences": [owner],
                "annotations": {meta::RESTARTS: "2"},
            },
            "spec": {"nodeName": "node-1", "containers": []},
            "status": {
                "phase": "Failed", "reason": "OutOfpods", "message": "Pod was rejected: too many", "conditions": [scheduled],
            },
        });
        let mut observed = Observed::example(serde_json::from_value(sandbox).unwrap(), Lookup::NotNamed);
        observed.now = now.parse().unwrap();
        let mut pod: Pod = serde_json::from_value(pod).unwrap();
        pod.annotations_mut().insert(meta::TEMPLATE_HASH.into(), template_hash(&observed));
        observed.pod = ChildState::Owned(Arc::new(pod));
        observed
    }

    /// The status of a sandbox that has not been ready since this time.
    fn not_ready_since(time: &str, status: &str) -> Value {
        let ready = json!({
            "type": "Ready", "status": status, "lastTransitionTime": time, "reason": "Restarting", "message": "words",
        });
        json!({"podUID": "of-pod", "restarts": 2, "conditions": [ready]})
    }

    fn pause_of(status: &Value) -> SignedDuration {
        match Lifecycle::of(&refused("Always", status, "2026-01-01T00:00:30Z")) {
            Lifecycle::Restarting { at, .. } => at.duration_since("2026-01-01T00:00:30Z".parse().unwrap()),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn the_pause_after_a_refusal_grows_with_the_time_for_which_the_sandbox_was_not_ready() {
        for (since, seconds) in [
            ("2026-01-01T00:00:31Z", 2),
            ("2026-01-01T00:00:29Z", 2),
            ("2026-01-01T00:00:10Z", 20),
            ("2025-12-31T00:00:00Z", 300),
        ] {
            assert_eq!(pause_of(&not_ready_since(since, "False")).as_secs(), seconds, "{since}");
        }
        assert_eq!(pause_of(&not_ready_since("2025-12-31T00:00:00Z", "True")).as_secs(), 2, "it was ready until then");
        assert_eq!(pause_of(&not_ready_since("1970-01-01T00:00:00Z", "Unknown")).as_secs(), 2, "the default");
        assert_eq!(pause_of(&Value::Null).as_secs(), 2);
    }

    /// The Pod has used up its restarts, and is created again in spite of this.
    #[test]
    fn a_refused_pod_is_created_again_under_every_policy_and_does_not_count() {
        let status = not_ready_since("2026-01-01T00:00:10Z", "False");
        for policy in ["Always", "OnFailure", "Never"] {
            let early = refused(policy, &status, "2026-01-01T00:00:49Z");
            assert_eq!(early.plan(&early.situation()), vec![], "{policy}");
            let due = refused(policy, &status, "2026-01-01T00:00:50Z");
            let Lifecycle::Restarting { message, count, .. } = due.situation().lifecycle else { panic!("{policy}") };
            assert_eq!(message, "The kubelet refused the Pod (OutOfpods): too many. The Pod is created again.");
            assert_eq!((count, due.plan(&due.situation()).len()), (2, 1), "{policy}");
            assert_eq!(due.report(&due.situation()).status.restarts, Some(2));
        }
    }

    #[test]
    fn what_ran_is_not_started_again_if_it_is_never_to_be() {
        let mut status = not_ready_since("2026-01-01T00:00:10Z", "True");
        status["readyAt"] = json!("2026-01-01T00:00:10Z");
        let of = |policy| Lifecycle::of(&refused(policy, &status, "2026-01-01T00:00:50Z"));
        assert!(matches!(of("Never"), Lifecycle::Pod(Progress::Ended { .. })));
        assert!(matches!(of("Always"), Lifecycle::Restarting { count: 2, .. }));
    }
}
