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

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{api::core::v1::Pod, apimachinery::pkg::apis::meta::v1::Time};
use kube::ResourceExt;

use super::{Lifecycle, Observed};
use crate::{
    api::{SandboxTemplate, meta, template::RestartPolicy},
    plan::pod::{End, Progress, annotation},
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
    let ended = when.map(|End { at, .. }| at).or(pod.metadata.creation_timestamp.as_ref().map(|made| made.0));
    Lifecycle::Restarting {
        message: format!("{message} The sandbox is restarted ({count} of {}).", template.restart_limit()),
        count,
        at: ended.unwrap_or(Timestamp::MIN).checked_add(pause(count)).unwrap_or(Timestamp::MAX),
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
    observed.sandbox.status.as_ref().and_then(|status| status.restarts) == Some(count)
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
