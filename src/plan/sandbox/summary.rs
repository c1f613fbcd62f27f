//! What a sandbox's stage means to its user.

use std::time::Duration;

use jiff::Timestamp;
use kube::ResourceExt;

use super::{Observed, Progress, Stage, is_outdated};
use crate::{
    api::{
        SandboxStatus,
        condition::{ConditionType, Reason},
        sandbox::{SandboxPhase, SandboxState},
    },
    plan::{
        Next, Note, Report, When,
        pod::node,
        status::{self, Outlook, REFUSED_POLL, verdict},
    },
};

/// How long the scheduler may be silent before we say that the Pod waits for it. It speaks within milliseconds, or when the
/// claims are provisioned, which takes some seconds; what it says is worth a status, that the Pod was made is not.
const SCHEDULER_PATIENCE: Duration = Duration::from_secs(10);

/// What one stage means.
struct View {
    state: SandboxState,
    phase: SandboxPhase,
    outlook: Outlook,
    reason: Reason,
    message: String,
    next: Next,
}

/// The status, the event and the next look.
#[must_use]
pub fn report(observed: &Observed, now: Timestamp) -> Report<SandboxStatus> {
    let stage = Stage::of(observed);
    let view = view(&stage);
    let sandbox = &observed.sandbox;
    let mut before = sandbox.status.clone().unwrap_or_default();
    status::retain_ours(&mut before.conditions);
    let pod = observed.pod.ours();
    let verdicts = status::standard(view.outlook, view.reason, &view.message)
        .into_iter()
        .chain([scheduled(&stage), up_to_date(observed)]);
    let status = SandboxStatus {
        observed_generation: sandbox.metadata.generation,
        state: Some(view.state),
        phase: Some(view.phase),
        pod_name: pod.map(|pod| pod.name_any()),
        pod_uid: pod.and_then(|pod| pod.uid()),
        node_name: pod.and_then(|pod| node(pod)),
        pod_ip: pod.and_then(|pod| pod.status.as_ref()?.pod_ip.clone()),
        hostname: observed.hostname(),
        conditions: status::conditions(verdicts, &before.conditions, sandbox.metadata.generation, now),
    };
    let young = pod
        .is_some_and(|pod| age(pod.metadata.creation_timestamp.as_ref().map(|time| time.0), now) < SCHEDULER_PATIENCE);
    // Nobody has been told more than that it is on its way, and the scheduler is about to say more.
    let unheard = before.state.is_none_or(|state| state == SandboxState::Uninitialized);
    let when = match &stage {
        _ if before == status => When::Later,
        Stage::Pod(Progress::Created) if young && unheard => When::Later,
        _ => When::Now,
    };
    let changed = status::has_news(&before.conditions, view.reason);
    let worth_an_event = view.outlook != Outlook::Moving || view.reason == Reason::ImagePull;
    Report {
        status,
        note: (changed && worth_an_event).then(|| Note {
            warning: view.outlook != Outlook::Ready,
            reason: view.reason,
            message: view.message,
        }),
        next: view.next,
        when,
    }
}

fn age(created: Option<Timestamp>, now: Timestamp) -> Duration {
    created.and_then(|created| now.duration_since(created).try_into().ok()).unwrap_or_default()
}

fn view(stage: &Stage) -> View {
    let view = |state, phase, outlook, reason, message: &str| View {
        state,
        phase,
        outlook,
        reason,
        message: message.to_string(),
        next: Next::OnChange,
    };
    let waiting =
        |phase, reason, message: &str| view(SandboxState::Uninitialized, phase, Outlook::Moving, reason, message);
    let stalled =
        |reason, message: &str| view(SandboxState::Error, SandboxPhase::Error, Outlook::Stalled, reason, message);
    match stage {
        Stage::Terminating => waiting(SandboxPhase::Terminating, Reason::Terminating, "The sandbox is being deleted."),
        Stage::Blocked(failure) => stalled(failure.reason, &failure.message),
        Stage::NameTaken(foreign) if foreign.leaving => {
            let message = format!("Waits until {} of an earlier owner is gone.", foreign.object);
            View {
                next: Next::In(Duration::from_secs(1)),
                ..waiting(SandboxPhase::Pending, Reason::NameTaken, &message)
            }
        }
        Stage::NameTaken(foreign) => {
            let message = format!(
                "{} is not ours and has the name that the sandbox's Pod needs; delete or rename it.",
                foreign.object
            );
            View { next: Next::In(Duration::from_secs(30)), ..stalled(Reason::NameTaken, &message) }
        }
        Stage::Failed(failure) if failure.reason == Reason::Refused => {
            View { next: Next::In(REFUSED_POLL), ..stalled(failure.reason, &failure.message) }
        }
        Stage::Failed(failure) if failure.reason == Reason::Terminating => {
            waiting(SandboxPhase::Terminating, failure.reason, "The namespace is being deleted.")
        }
        Stage::Failed(failure) => {
            View { next: Next::Backoff, ..waiting(SandboxPhase::Pending, failure.reason, &failure.message) }
        }
        Stage::NoPod(_) => waiting(SandboxPhase::Pending, Reason::NoPod, "The Pod is about to be made."),
        Stage::Pod(progress) => match progress {
            Progress::Terminating => waiting(
                SandboxPhase::Pending,
                Reason::PodTerminating,
                "The previous Pod is still ending; a new one follows.",
            ),
            Progress::Created => View {
                next: Next::In(SCHEDULER_PATIENCE),
                ..waiting(
                    SandboxPhase::Pending,
                    Reason::PodCreated,
                    "The Pod waits for the scheduler, or for its claims to be provisioned.",
                )
            },
            Progress::Unschedulable { message } => {
                let message = format!("No node fits now: {message}");
                waiting(SandboxPhase::Pending, Reason::Unschedulable, &message)
            }
            Progress::Waiting { reason, message } => waiting(SandboxPhase::Starting, *reason, message),
            Progress::Running => {
                waiting(SandboxPhase::Starting, Reason::NotReady, "The container runs and is not ready yet.")
            }
            Progress::Ready => view(
                SandboxState::Ready,
                SandboxPhase::Ready,
                Outlook::Ready,
                Reason::Ready,
                "The sandbox can be worked in.",
            ),
            Progress::Ended { reason, message, .. } => {
                let message = format!("{message} Delete the Pod to start the sandbox again.");
                stalled(*reason, &message)
            }
        },
    }
}

fn scheduled(stage: &Stage) -> status::Verdict {
    let kind = ConditionType::PodScheduled;
    match stage {
        Stage::Pod(progress) if progress.is_scheduled() => {
            verdict(kind, true, Reason::Scheduled, "The Pod has a node.")
        }
        Stage::Pod(Progress::Unschedulable { message }) => verdict(kind, false, Reason::Unschedulable, message.clone()),
        Stage::Pod(_) => verdict(kind, None, Reason::PodCreated, "The scheduler has not spoken yet."),
        Stage::Terminating | Stage::Blocked(_) | Stage::NameTaken(_) | Stage::Failed(_) | Stage::NoPod(_) => {
            verdict(kind, false, Reason::NoPod, "There is no Pod.")
        }
    }
}

fn up_to_date(observed: &Observed) -> status::Verdict {
    let kind = ConditionType::OutOfDate;
    if observed.pod.ours().is_none() {
        verdict(kind, false, Reason::NoPod, "There is no Pod.")
    } else if is_outdated(observed) {
        let message = "The template changed after the Pod started; delete the Pod to start with the new one.";
        verdict(kind, true, Reason::TemplateChanged, message)
    } else {
        verdict(kind, false, Reason::UpToDate, "The Pod is made from the present template.")
    }
}
