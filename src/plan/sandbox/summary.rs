//! What a sandbox's lifecycle means to its user.

mod conditions;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::Pod,
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
};
use kube::ResourceExt;

use super::{
    Attachment, ExecAccess, Lifecycle, Observed, Progress, has_failed_init,
    init::{self, InitPhase},
    is_hand_made, is_outdated,
    lifecycle::overdue_at,
    restart,
};
use crate::{
    api::{
        SandboxStatus,
        condition::{ConditionType, Reason},
        meta,
        sandbox::{SandboxPhase, SandboxState, SeenSession},
    },
    plan::{
        ChildState, ObjectEvent, Report, Requeue, StatusWrite, Transition, membership,
        pod::{exit_code, node, scheduled_at},
        status::{self, KStatus},
    },
};

/// How long the scheduler may be silent before we say that the Pod waits for it. It speaks within milliseconds, or when the
/// claims are provisioned, which takes some seconds; what it says is worth a status, that the Pod was made is not.
const SCHEDULER_PATIENCE: Duration = Duration::from_secs(10);

/// How long a kubelet may be silent before we say that the container is on its way. Where the image is there it runs within a
/// second or two, and a status for each of many sandboxes is as many writes.
const KUBELET_PATIENCE: Duration = Duration::from_secs(3);

/// How many Pods that are on their way make everybody wait a second longer: so many are started in one, at least. When a thousand
/// come at once, what each has to say of its waiting would come just when the API server has least room for it.
const A_SECOND: usize = 10;

/// The most that anybody waits.
const LONGEST_PATIENCE: Duration = Duration::from_secs(180);

/// From when on Pods are counted that are on their way: one that is for longer is stuck.
#[must_use]
pub fn burst_begins(now: Timestamp) -> Timestamp {
    now.checked_sub(LONGEST_PATIENCE).unwrap_or(Timestamp::MIN)
}

/// How soon a Pod that is attached to is looked at again.
const ATTACHED_POLL: Duration = Duration::from_secs(5);

/// What one lifecycle means.
struct View {
    state: SandboxState,
    phase: SandboxPhase,
    kstatus: KStatus,
    reason: Reason,
    message: String,
    requeue: Requeue,
}

/// The status, the event and the next look.
pub(super) fn report(observed: &Observed) -> Report<SandboxStatus> {
    let (sandbox, now) = (&observed.sandbox, observed.now);
    let lifecycle = Lifecycle::of(observed);
    let mut before = sandbox.status.clone().unwrap_or_default();
    status::retain_ours(&mut before.conditions);
    let view = view(observed, &lifecycle);
    let (kstatus, requeue) = status::force_first_ready(&before.conditions, view.kstatus, view.requeue);
    let view = View { kstatus, requeue, ..view };
    let conditions = status::standard(view.kstatus, view.reason, &view.message).into_iter().chain([
        conditions::scheduled(&lifecycle),
        conditions::initialized(observed, &lifecycle, &view),
        conditions::up_to_date(observed, &lifecycle),
        conditions::suspended(&lifecycle, &view),
        conditions::attached(&lifecycle, &view),
    ]);
    let pod = pod(observed, &lifecycle);
    let restarts = match &lifecycle {
        Lifecycle::Restarting { count, .. } => *count,
        _ => restart::count(observed),
    };
    let status = SandboxStatus {
        observed_generation: sandbox.metadata.generation,
        state: Some(view.state),
        phase: Some(view.phase),
        pod_name: pod.map(|pod| pod.name_any()),
        pod_uid: pod.and_then(|pod| pod.uid()),
        node_name: pod.and_then(|pod| node(pod)),
        pod_ip: pod.and_then(|pod| pod.status.as_ref()?.pod_ip.clone()),
        hostname: observed.hostname(),
        endpoints: endpoints(observed, &lifecycle),
        ready_at: pod
            .and_then(|pod| restart::ready_at(observed, pod).cloned())
            .or_else(|| (view.state == SandboxState::Ready).then_some(Time(now))),
        restarts: (restarts > 0).then_some(restarts),
        exit_code: pod.and_then(|pod| exit_code(pod, meta::SANDBOX_CONTAINER)).or(before.exit_code),
        init: init::status(observed, &before),
        session: seen_session(observed, &before),
        attached: sandbox.spec.template.attach.as_ref().and_then(|_| match &lifecycle {
            Lifecycle::Attached(attachment) => attachment.pin().cloned().or(before.attached.clone()),
            _ => before.attached.clone(),
        }),
        conditions: status::conditions(conditions, &before.conditions, sandbox.metadata.generation, now),
    };
    // A Pod that is attached to is not among those that are watched.
    let attached = matches!(lifecycle, Lifecycle::Attached(_));
    let poll = attached.then(|| status::poll(ATTACHED_POLL, &status.conditions, ConditionType::Ready, now));
    let is_young = |meta: &ObjectMeta| {
        age(meta.creation_timestamp.as_ref().map(|time| time.0), now)
            < patience(observed.on_their_way, SCHEDULER_PATIENCE)
    };
    let (is_new, young) = (is_young(&sandbox.metadata), pod.is_some_and(|pod| is_young(&pod.metadata)));
    // Nobody has been told more than that it is on its way, and the scheduler or the kubelet is about to say more. Which session it belongs to
    // is remembered at once: the sandbox goes with it.
    let unheard =
        before.state.is_none_or(|state| state == SandboxState::Uninitialized) && before.session == status.session;
    let write = match &lifecycle {
        _ if before == status => StatusWrite::Skip,
        Lifecycle::Pod(Progress::Created) if young && unheard => StatusWrite::Skip,
        // Its agent, or its session, is about to act.
        Lifecycle::WaitsForAgent(_) if is_new => StatusWrite::Skip,
        Lifecycle::Pod(progress) if unheard && kubelet_has(observed, progress).is_some() => StatusWrite::Skip,
        _ => StatusWrite::Now,
    };
    // What lets a Pod in that is there already says nothing of itself when it is made, or cannot be.
    let awaits_access = observed.exec_access.as_ref().is_some_and(ExecAccess::is_awaited);
    let changed = status::has_news(&before.conditions, view.reason);
    let worth_an_event =
        view.kstatus != KStatus::InProgress || matches!(view.reason, Reason::ImagePull | Reason::Restarting);
    let moved = changed || before.phase != Some(view.phase);
    Report {
        status,
        transition: moved.then(|| Transition {
            phase: view.phase.into(),
            reason: view.reason,
            message: view.message.clone(),
        }),
        event: (changed && worth_an_event).then_some(ObjectEvent {
            warning: !matches!(view.kstatus, KStatus::Ready | KStatus::Current),
            reason: view.reason,
            message: view.message,
        }),
        requeue: if awaits_access { Requeue::Backoff } else { view.requeue.within(poll) },
        write,
    }
}

/// The Pod that is worked in.
fn pod<'a>(observed: &'a Observed, lifecycle: &Lifecycle) -> Option<&'a Arc<Pod>> {
    match lifecycle {
        Lifecycle::Attached(Attachment::To { .. }) => observed.attached.found(),
        Lifecycle::Attached(_) => None,
        _ => observed.pod.owned(),
    }
}

/// The MCP services in the sandbox, where others reach them: a Pod that was there already has no name of ours.
fn endpoints(observed: &Observed, lifecycle: &Lifecycle) -> BTreeMap<String, String> {
    let address = || pod(observed, lifecycle)?.status.as_ref()?.pod_ip.clone();
    let host = if let Lifecycle::Attached(_) = lifecycle { address() } else { observed.hostname() };
    let session = observed.session.found();
    host.zip(session).map(|(host, session)| init::endpoints(session, &observed.sandbox, &host)).unwrap_or_default()
}

/// Of a sandbox that was made by hand: the session that it goes with.
fn seen_session(observed: &Observed, before: &SandboxStatus) -> Option<SeenSession> {
    let session = observed.session.found().filter(|_| is_hand_made(&observed.sandbox));
    membership::remembered(before.session.as_ref(), session.map(AsRef::as_ref))
}

/// How long somebody may be silent who may be for so long where one sandbox is alone.
fn patience(on_their_way: usize, alone: Duration) -> Duration {
    let more = u64::try_from(on_their_way.saturating_sub(1) / A_SECOND).unwrap_or(u64::MAX);
    alone.saturating_add(Duration::from_secs(more)).min(LONGEST_PATIENCE)
}

/// For how long the kubelet may still be silent.
fn kubelet_has(observed: &Observed, progress: &Progress) -> Option<Duration> {
    let Progress::Waiting { reason: Reason::ContainerCreating, .. } = progress else { return None };
    let until =
        scheduled_at(observed.pod.owned()?)?.checked_add(patience(observed.on_their_way, KUBELET_PATIENCE)).ok()?;
    until.duration_since(observed.now).try_into().ok().filter(|left| *left > Duration::ZERO)
}

fn age(created: Option<Timestamp>, now: Timestamp) -> Duration {
    created.and_then(|created| now.duration_since(created).try_into().ok()).unwrap_or_default()
}

fn view(observed: &Observed, lifecycle: &Lifecycle) -> View {
    let view = |state, phase, kstatus, reason, message: &str| View {
        state,
        phase,
        kstatus,
        reason,
        message: message.to_string(),
        requeue: Requeue::AwaitChange,
    };
    let waiting =
        |phase, reason, message: &str| view(SandboxState::Uninitialized, phase, KStatus::InProgress, reason, message);
    let stalled =
        |reason, message: &str| view(SandboxState::Error, SandboxPhase::Error, KStatus::Stalled, reason, message);
    let inactive =
        |phase, reason, message: &str| view(SandboxState::Uninitialized, phase, KStatus::Current, reason, message);
    let after = |delay, view: View| View { requeue: Requeue::After(delay), ..view };
    match lifecycle {
        Lifecycle::Terminating => {
            waiting(SandboxPhase::Terminating, Reason::Terminating, "The sandbox is being deleted.")
        }
        Lifecycle::SessionGone => {
            let message = "Its session is gone; the sandbox goes with it.";
            View { requeue: Requeue::Backoff, ..waiting(SandboxPhase::Terminating, Reason::Terminating, message) }
        }
        // What was in the way of taking a Pod away that is one too many may tell nobody when it is gone.
        Lifecycle::Blocked(failure) if matches!(observed.pod, ChildState::Failed(_)) => {
            View { requeue: Requeue::Backoff, ..stalled(failure.reason, &failure.message) }
        }
        Lifecycle::Blocked(failure) | Lifecycle::Attached(Attachment::Refused(failure)) => {
            stalled(failure.reason, &failure.message)
        }
        Lifecycle::Suspended { by_session, ending } => {
            let by = if *by_session { "Its session is suspended or expired" } else { "It is suspended (spec.suspend)" };
            if *ending {
                waiting(SandboxPhase::Pending, Reason::Suspended, &format!("{by}; its Pod is going."))
            } else {
                let failed = if has_failed_init(&observed.sandbox) {
                    " Its initialiser had failed; status.init has the evidence."
                } else {
                    ""
                };
                inactive(SandboxPhase::Suspended, Reason::Suspended, &format!("{by}.{failed}"))
            }
        }
        Lifecycle::NameTaken(foreign) if foreign.leaving => {
            let message = format!("Waits until {} of an earlier owner is gone.", foreign.object);
            after(Duration::from_secs(1), waiting(SandboxPhase::Pending, Reason::NameTaken, &message))
        }
        Lifecycle::NameTaken(foreign) => {
            let message = format!(
                "{} is not ours and has the name that the sandbox's Pod needs; delete or rename it.",
                foreign.object
            );
            after(Duration::from_secs(30), stalled(Reason::NameTaken, &message))
        }
        Lifecycle::Failed(failure) | Lifecycle::Attached(Attachment::Unknown(failure)) => {
            let (kstatus, requeue) = status::of_failure(failure);
            let view = match kstatus {
                KStatus::Stalled => stalled(failure.reason, &failure.message),
                _ if failure.reason == Reason::Terminating => {
                    waiting(SandboxPhase::Terminating, failure.reason, &failure.message)
                }
                _ => waiting(SandboxPhase::Pending, failure.reason, &failure.message),
            };
            View { requeue, ..view }
        }
        Lifecycle::WaitsForVolumes(message) => waiting(SandboxPhase::Pending, Reason::VolumesNotReady, message),
        Lifecycle::WaitsForAgent(message) => {
            View { requeue: Requeue::Backoff, ..waiting(SandboxPhase::Pending, Reason::NoPod, message) }
        }
        Lifecycle::NoPod(_) => waiting(SandboxPhase::Pending, Reason::NoPod, "The Pod is about to be made."),
        Lifecycle::NodeLost { node, ending } => {
            let what = if *ending { "its Pod should be gone and is not" } else { "its Pod was well until then" };
            let message = format!(
                "The node {node} does not answer; {what}. If the node is gone for good, taint it: kubectl taint node {node} node.kubernetes.io/out-of-service=nodeshutdown:NoExecute"
            );
            waiting(SandboxPhase::Pending, Reason::NodeLost, &message)
        }
        Lifecycle::Restarting { message, at, .. } => {
            let pause = at.duration_since(observed.now).try_into().unwrap_or_default();
            after(pause, waiting(SandboxPhase::Pending, Reason::Restarting, message))
        }
        Lifecycle::Finished { message } => inactive(SandboxPhase::Finished, Reason::Finished, message),
        Lifecycle::Initializing(phase) => of_init(observed, phase),
        Lifecycle::InitFailed(failure) => {
            let message = format!(
                "{} Mend it, then change the template or the annotation {} to start it; init.skip starts it without.",
                init::in_words(failure),
                meta::RESTART
            );
            stalled(Reason::InitFailed, &message)
        }
        Lifecycle::Pod(progress)
        | Lifecycle::Orphaned(progress)
        | Lifecycle::Attached(Attachment::To { progress, .. }) => of_pod(observed, lifecycle, progress),
        Lifecycle::Attached(Attachment::Missing(message)) => stalled(Reason::PodNotFound, message),
    }
}

fn of_init(observed: &Observed, init_phase: &InitPhase) -> View {
    let (state, phase) = (SandboxState::Uninitialized, SandboxPhase::Initializing);
    let (kstatus, reason, message) = match init_phase {
        InitPhase::Waits { reason: reason @ Reason::DependencyNotReady, message } => {
            (KStatus::InProgress, *reason, message.clone())
        }
        InitPhase::Waits { reason: reason @ Reason::Initializing, message } => {
            (KStatus::InProgress, *reason, message.clone())
        }
        // A person has to do something, and not here: it goes on by itself when that is done.
        InitPhase::Waits { reason, message } => (KStatus::Stalled, *reason, message.clone()),
        InitPhase::Works { since, .. } => {
            let message = format!(
                "The initialiser runs since {since}; `/aigise/sandboxd status` in the sandbox says how far it is."
            );
            (KStatus::InProgress, Reason::Initializing, message)
        }
        InitPhase::Silent => {
            let message = format!(
                "The initialiser should have ended long ago, and nothing is heard of it: look at the events of the Pod. Change the annotation {} to start it anew.",
                meta::RESTART
            );
            return View {
                state: SandboxState::Error,
                phase: SandboxPhase::Error,
                kstatus: KStatus::Stalled,
                reason: Reason::GateNotRunning,
                message,
                requeue: Requeue::AwaitChange,
            };
        }
    };
    View { state, phase, kstatus, reason, message, requeue: Requeue::AwaitChange.within(init_phase.next(observed.now)) }
}

fn of_pod(observed: &Observed, lifecycle: &Lifecycle, progress: &Progress) -> View {
    let view = |state, phase, kstatus, reason, message: String| View {
        state,
        phase,
        kstatus,
        reason,
        message,
        requeue: Requeue::AwaitChange,
    };
    let waiting =
        |phase, reason, message: String| view(SandboxState::Uninitialized, phase, KStatus::InProgress, reason, message);
    let template = &observed.sandbox.spec.template;
    match progress {
        Progress::Terminating => {
            let overdue = observed.pod.owned().and_then(|pod| overdue_at(pod));
            let wait = overdue.and_then(|at| at.duration_since(observed.now).try_into().ok());
            let message = "The previous Pod is still ending; a new one follows.".into();
            let view = waiting(SandboxPhase::Pending, Reason::PodTerminating, message);
            View { requeue: view.requeue.within(wait), ..view }
        }
        Progress::Created => View {
            requeue: Requeue::After(patience(observed.on_their_way, SCHEDULER_PATIENCE)),
            ..waiting(
                SandboxPhase::Pending,
                Reason::PodCreated,
                "The Pod waits for the scheduler, or for its claims to be provisioned.".into(),
            )
        },
        Progress::Unschedulable { reason, message } => {
            let what = match reason {
                Reason::ClaimNotReady => "Waits for a claim",
                Reason::NoRoomOnSessionNode => "No room on the node that the session's volumes hold it on",
                _ => "No node fits now",
            };
            waiting(SandboxPhase::Pending, *reason, format!("{what}: {message}"))
        }
        Progress::Waiting { reason, message } => {
            let view = waiting(SandboxPhase::Starting, *reason, message.clone());
            View { requeue: view.requeue.within(kubelet_has(observed, progress)), ..view }
        }
        Progress::Running if !template.mcp_services.is_empty() => waiting(
            SandboxPhase::Starting,
            Reason::NotReady,
            format!(
                "The container runs, and not all that has to answer does ({}); the events of its Pod say what.",
                template.mcp_services.join(", ")
            ),
        ),
        Progress::Running if template.readiness_probe.is_some() => waiting(
            SandboxPhase::Starting,
            Reason::NotReady,
            "The container runs and its readinessProbe has not succeeded; its events have the probe's words.".into(),
        ),
        Progress::Running | Progress::Initializing { .. } | Progress::Silent => {
            waiting(SandboxPhase::Starting, Reason::NotReady, "The container runs and is not ready yet.".into())
        }
        Progress::Ready => view(
            SandboxState::Ready,
            SandboxPhase::Ready,
            KStatus::Ready,
            Reason::Ready,
            "The sandbox can be worked in.".into(),
        ),
        Progress::Ended { reason, message, .. } => {
            let hint = match lifecycle {
                Lifecycle::Orphaned(_) => "Its session is gone, so it cannot be started again.".to_string(),
                Lifecycle::Attached(_) => "The Pod is its owner's to start again.".to_string(),
                _ => format!(
                    "{} Change the template or the annotation {} to start it.",
                    restart::exhausted(template),
                    meta::RESTART
                ),
            };
            view(SandboxState::Error, SandboxPhase::Error, KStatus::Stalled, *reason, format!("{message} {hint}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patience_grows_with_how_many_wait_and_ends() {
        let of = |pods| patience(pods, SCHEDULER_PATIENCE).as_secs();
        assert_eq!([0, 1, 10, 11, 1001, usize::MAX].map(of), [10, 10, 10, 11, 110, 180]);
    }
}
