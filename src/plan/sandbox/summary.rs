//! The status of a sandbox: how its lifecycle is reported to users.

mod conditions;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::Pod,
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
};
use kube::ResourceExt;

use super::{
    Attachment, ExecAccess, Lifecycle, Observed, Progress, Situation, ends_others,
    init::{self, InitPhase},
    lifecycle::{is_overdue, overdue_at},
    pod::template_hash,
    restart,
};
use crate::{
    api::{
        SandboxStatus,
        condition::{ConditionType, Reason},
        meta,
        sandbox::{SandboxPhase, SandboxState, SeenSession},
        template::Entrypoint,
    },
    plan::{
        ChildState, Report, Requeue, StatusWrite,
        effective::{EffectiveSession, remembered},
        facts::sandbox::{has_failed_init, is_hand_made},
        pod::{Hold, annotation, exit_code, hold, node, scheduled_at},
        pod_event::{self, Reads},
        status::{self, KStatus},
    },
    protocol::init::InitFailure,
};

/// How long the scheduler may take before the status reports that the Pod waits for it. The scheduler reports within milliseconds, or
/// when the claims are provisioned, which takes some seconds. Its report is worth a status write; the creation of the Pod is not.
const SCHEDULER_PATIENCE: Duration = Duration::from_secs(10);

/// How long a kubelet may take before the status reports that the container is starting. If the image is present, the container runs
/// within a second or two. One more status write per sandbox would be many writes if many sandboxes start.
const KUBELET_PATIENCE: Duration = Duration::from_secs(3);

/// How many starting Pods extend the patience by a second: at least this many Pods start per second. If a thousand Pods start at once, a
/// status write about each waiting Pod would come just when the API server has the least capacity.
const A_SECOND: usize = 10;

/// The longest patience.
const LONGEST_PATIENCE: Duration = Duration::from_secs(180);

/// The earliest creation time of Pods that count as starting: a Pod that has been starting for longer is stuck.
pub fn burst_begins(now: Timestamp) -> Timestamp {
    now.checked_sub(LONGEST_PATIENCE).unwrap_or(Timestamp::MIN)
}

/// The shortest interval between two reads of a Pod to which a sandbox attaches.
const ATTACHED_POLL: Duration = Duration::from_secs(5);

/// What is added to the failure of a step that the user did not write.
const STEP_OF_PROFILE: &str = " The step is the framework's for this type; init.profile: None leaves it out.";

/// How one lifecycle is reported.
type View = status::View<SandboxPhase>;

/// A sandbox on which the operator or the cluster works.
fn waiting(phase: SandboxPhase, reason: Reason, message: impl Into<String>) -> View {
    View::new(phase, KStatus::InProgress, reason, message)
}

/// A sandbox about which the user has to do something.
fn stalled(reason: Reason, message: impl Into<String>) -> View {
    View::new(SandboxPhase::Error, KStatus::Stalled, reason, message)
}

/// A sandbox that is inactive, as its user asked.
fn inactive(phase: SandboxPhase, reason: Reason, message: impl Into<String>) -> View {
    View::new(phase, KStatus::Current, reason, message)
}

/// Builds the status, the event and the requeue.
pub(super) fn report(observed: &Observed, situation: &Situation) -> Report<SandboxStatus> {
    let (sandbox, now) = (&observed.sandbox, observed.now);
    let Situation { lifecycle, is_outdated } = situation;
    let mut before = sandbox.status.clone().unwrap_or_default();
    status::retain_ours(&mut before.conditions);
    let view = view(observed, lifecycle).with_first_ready(&before.conditions);
    let conditions = view.standard().into_iter().chain([
        conditions::scheduled(lifecycle),
        conditions::initialized(observed, lifecycle, &view),
        conditions::up_to_date(observed, lifecycle, *is_outdated),
        conditions::suspended(lifecycle, &view),
        conditions::attached(lifecycle, &view),
    ]);
    let pod = pod(observed, lifecycle);
    let restarts = match lifecycle {
        Lifecycle::Restarting { count, .. } => *count,
        _ => restart::count(observed),
    };
    let status = SandboxStatus {
        observed_generation: sandbox.metadata.generation,
        state: Some(view.phase.state()),
        phase: Some(view.phase),
        pod_name: pod.map(|pod| pod.name_any()),
        pod_uid: pod.and_then(|pod| pod.uid()),
        node_name: pod.and_then(|pod| node(pod)),
        pod_ip: pod.and_then(|pod| pod.status.as_ref()?.pod_ip.clone()),
        hostname: observed.hostname(),
        endpoints: endpoints(observed, lifecycle),
        ready_at: pod
            .and_then(|pod| restart::ready_at(observed, pod).cloned())
            .or_else(|| (view.phase == SandboxPhase::Ready).then_some(Time(now))),
        restarts: (restarts > 0).then_some(restarts),
        exit_code: pod.and_then(|pod| exit_code(pod, meta::SANDBOX_CONTAINER)).or(before.exit_code),
        init: init::status(observed, &before),
        session: seen_session(observed, &before),
        attached: sandbox.spec.template.attach.as_ref().and_then(|_| match lifecycle {
            Lifecycle::Attached(attachment) => attachment.pin().cloned().or(before.attached.clone()),
            _ => before.attached.clone(),
        }),
        conditions: status::conditions(conditions, &before.conditions, sandbox.metadata.generation, now),
    };
    // The operator does not watch the Pod to which a sandbox attaches, so it polls.
    let attached = matches!(lifecycle, Lifecycle::Attached(_));
    let poll = attached.then(|| status::poll(ATTACHED_POLL, &status.conditions, ConditionType::Ready, now));
    let is_young = |meta: &ObjectMeta| {
        age(meta.creation_timestamp.as_ref().map(|time| time.0), now)
            < patience(observed.on_their_way, SCHEDULER_PATIENCE)
    };
    let (is_new, young) = (is_young(&sandbox.metadata), pod.is_some_and(|pod| is_young(&pod.metadata)));
    // Nothing more than `uninitialized` has been reported, and the scheduler or the kubelet will soon report more. The session is
    // recorded at once, since the sandbox is deleted with it.
    let unheard =
        before.state.is_none_or(|state| state == SandboxState::Uninitialized) && before.session == status.session;
    let write = match lifecycle {
        _ if before == status => StatusWrite::Skip,
        Lifecycle::Pod(Progress::Created) if young && unheard => StatusWrite::Skip,
        // The agent or the session will act soon.
        Lifecycle::WaitsForAgent(_) if is_new => StatusWrite::Skip,
        Lifecycle::Pod(progress) if unheard && kubelet_has(observed, progress).is_some() => StatusWrite::Skip,
        _ => StatusWrite::Now,
    };
    // The objects of the exec access do not trigger a reconcile of the sandbox when they are created, or when that fails.
    let awaits_access = observed.exec_access.as_ref().is_some_and(ExecAccess::is_awaited);
    // A failed patch causes no watch event.
    let requeue = if awaits_access || ends_others(observed, situation).is_some() {
        Requeue::Backoff
    } else {
        view.requeue.within(poll)
    };
    view.requeued(requeue).report(status, (before.phase, &before.conditions), write)
}

/// The Pod of the sandbox, or the Pod to which the sandbox attaches.
fn pod<'a>(observed: &'a Observed, lifecycle: &Lifecycle) -> Option<&'a Arc<Pod>> {
    match lifecycle {
        Lifecycle::Attached(Attachment::To { .. }) => observed.attached.found(),
        Lifecycle::Attached(_) => None,
        _ => observed.pod.owned(),
    }
}

/// The MCP services in the sandbox, with the addresses at which others reach them. A Pod to which the sandbox attaches does not have the
/// sandbox's DNS name, so its IP address is used.
fn endpoints(observed: &Observed, lifecycle: &Lifecycle) -> BTreeMap<String, String> {
    let address = || pod(observed, lifecycle)?.status.as_ref()?.pod_ip.clone();
    let host = if let Lifecycle::Attached(_) = lifecycle { address() } else { observed.hostname() };
    let session = observed.session.found();
    host.zip(session).map(|(host, session)| init::endpoints(session, &observed.sandbox, &host)).unwrap_or_default()
}

/// The session with which a user's sandbox is deleted.
fn seen_session(observed: &Observed, before: &SandboxStatus) -> Option<SeenSession> {
    let session = observed.session.found().filter(|_| is_hand_made(&observed.sandbox));
    remembered(before.session.as_ref(), session.map(AsRef::as_ref))
}

/// How long the scheduler or a kubelet may take: `alone` for a single sandbox, and longer if many Pods are starting.
fn patience(on_their_way: usize, alone: Duration) -> Duration {
    let more = u64::try_from(on_their_way.saturating_sub(1) / A_SECOND).unwrap_or(u64::MAX);
    alone.saturating_add(Duration::from_secs(more)).min(LONGEST_PATIENCE)
}

/// How much longer the kubelet may take before the status reports that the container is starting.
fn kubelet_has(observed: &Observed, progress: &Progress) -> Option<Duration> {
    let Progress::Waiting { reason: Reason::ContainerCreating, .. } = progress else { return None };
    let until =
        scheduled_at(observed.pod.owned()?)?.checked_add(patience(observed.on_their_way, KUBELET_PATIENCE)).ok()?;
    until.duration_since(observed.now).try_into().ok().filter(|left| *left > Duration::ZERO)
}

/// When the events about the Pod are read: while it waits for something that its status does not show.
pub fn event_reads(observed: &Observed) -> Reads {
    let waits_since = observed.pod.owned().and_then(|pod| {
        let prepares = pod_event::prepares_since(pod, meta::SANDBOX_CONTAINER);
        prepares.or_else(|| init::asks_services_since(observed, pod))
    });
    Reads::of(waits_since, patience(observed.on_their_way, pod_event::FIRST_READ))
}

fn age(created: Option<Timestamp>, now: Timestamp) -> Duration {
    created.and_then(|created| now.duration_since(created).try_into().ok()).unwrap_or_default()
}

/// A sandbox that could not restore its root file system.
fn not_restored(failure: &InitFailure) -> View {
    let message = format!("{} The sandbox starts again without the cache.", init::in_words(failure));
    waiting(SandboxPhase::Initializing, Reason::NotRestored, message)
}

fn view(observed: &Observed, lifecycle: &Lifecycle) -> View {
    match lifecycle {
        Lifecycle::Terminating => {
            waiting(SandboxPhase::Terminating, Reason::Terminating, "The sandbox is being deleted.")
        }
        Lifecycle::SessionGone => {
            let message = "The session is gone; the sandbox is deleted with it.";
            waiting(SandboxPhase::Terminating, Reason::Terminating, message).requeued(Requeue::Backoff)
        }
        // The deletion of a surplus Pod failed, and its cause may disappear without a watch event.
        Lifecycle::Blocked(failure) if matches!(observed.pod, ChildState::Failed(_)) => {
            stalled(failure.reason, &failure.message).requeued(Requeue::Backoff)
        }
        Lifecycle::Blocked(failure) | Lifecycle::Attached(Attachment::Refused(failure)) => {
            stalled(failure.reason, &failure.message)
        }
        Lifecycle::Suspended { by_session, ending } => {
            let by = if *by_session {
                "The session is suspended or expired"
            } else {
                "The sandbox is suspended (spec.suspend)"
            };
            if *ending {
                let pod = observed.pod.owned();
                let message = match pod.and_then(|pod| hold(pod).filter(|_| is_overdue(observed, pod))) {
                    Some(Hold::Finalizers(words)) => format!("{by}; the Pod is still there because of {words}."),
                    Some(Hold::Removal | Hold::Containers) | None => format!("{by}; the Pod is ending."),
                };
                let overdue = pod.and_then(|pod| overdue_at(pod)).filter(|at| *at > observed.now);
                let wait = overdue.and_then(|at| at.duration_since(observed.now).try_into().ok());
                waiting(SandboxPhase::Pending, Reason::Suspended, message).requeued(Requeue::AwaitChange.within(wait))
            } else {
                let failed = if has_failed_init(&observed.sandbox) {
                    " The initialiser had failed; status.init has the evidence."
                } else {
                    ""
                };
                inactive(SandboxPhase::Suspended, Reason::Suspended, format!("{by}.{failed}"))
            }
        }
        Lifecycle::NameTaken(foreign) => {
            let (kstatus, requeue, message) = status::name_taken(foreign, "sandbox", "the sandbox");
            let view = match kstatus {
                KStatus::Stalled => stalled(Reason::NameTaken, message),
                _ => waiting(SandboxPhase::Pending, Reason::NameTaken, message),
            };
            view.requeued(requeue)
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
            view.requeued(requeue)
        }
        Lifecycle::WaitsForVolumes(message) => waiting(SandboxPhase::Pending, Reason::VolumesNotReady, message),
        Lifecycle::WaitsForAgent(message) => {
            waiting(SandboxPhase::Pending, Reason::NoPod, message).requeued(Requeue::Backoff)
        }
        Lifecycle::NoPod(_) => waiting(SandboxPhase::Pending, Reason::NoPod, "The Pod is about to be created."),
        Lifecycle::NodeLost { node, ending } => {
            let what = if *ending { "the Pod should be gone and is not" } else { "the Pod was ready until then" };
            let message = format!(
                "The node {node} does not respond; {what}. If the node is gone for good, taint it: kubectl taint node {node} node.kubernetes.io/out-of-service=nodeshutdown:NoExecute"
            );
            waiting(SandboxPhase::Pending, Reason::NodeLost, message)
        }
        Lifecycle::Restarting { message, at, .. } => {
            let pause = at.duration_since(observed.now).try_into().unwrap_or_default();
            let hint = of_entrypoint(observed).unwrap_or_default();
            let message = format!("{message}{hint}");
            waiting(SandboxPhase::Pending, Reason::Restarting, message).requeued(Requeue::After(pause))
        }
        Lifecycle::Finished { message } => inactive(SandboxPhase::Finished, Reason::Finished, message),
        Lifecycle::Initializing(phase) => of_init(observed, phase),
        Lifecycle::NotRestored(failure) => not_restored(failure),
        Lifecycle::InitFailed(failure) => {
            let session = observed.session.found();
            let is_of_profile = failure.step.as_deref().is_some_and(|step| {
                session.is_some_and(|session| session.profile_brings(&observed.sandbox.spec.sandbox_type, step))
            });
            let profile = if is_of_profile { STEP_OF_PROFILE } else { "" };
            let is_service = failure.step.as_deref().is_some_and(|step| step.starts_with("service "));
            let entrypoint = of_entrypoint(observed).filter(|_| is_service).unwrap_or_default();
            let message = format!(
                "{}{profile}{entrypoint} Fix the initialiser, then change the template or the annotation {} to restart the sandbox; with init.skip, the sandbox starts without its initialiser.",
                init::in_words(failure),
                meta::RESTART
            );
            stalled(Reason::InitFailed, message)
        }
        Lifecycle::Pod(progress)
        | Lifecycle::Orphaned(progress)
        | Lifecycle::Attached(Attachment::To { progress, .. }) => of_pod(observed, lifecycle, progress),
        Lifecycle::Attached(Attachment::Missing(message)) => stalled(Reason::PodNotFound, message),
    }
}

/// What is added to the failure of a sandbox that has never been ready, if its Pod runs the ENTRYPOINT of its image with the helper as
/// arguments.
fn of_entrypoint(observed: &Observed) -> Option<String> {
    let (template, pod) = (&observed.sandbox.spec.template, observed.pod.owned()?);
    let runs_it = template.command.is_empty()
        && template.entrypoint() == Entrypoint::ImageThenIdle
        && annotation(pod, meta::TEMPLATE_HASH) == Some(template_hash(observed).as_str());
    if !runs_it || restart::ready_at(observed, pod).is_some() {
        return None;
    }
    let is_from_file =
        |session: &EffectiveSession| session.config_file().is_some() && observed.is_sessions_own(session);
    let place = if observed.session.found().is_some_and(|session| is_from_file(session)) {
        format!(" in [sandbox.sandboxes.{}] of the configuration file", observed.sandbox.spec.sandbox_type)
    } else {
        String::new()
    };
    Some(format!(
        " The ENTRYPOINT of its image has to start its services and then to run its arguments; if it does not, set `command`{place}."
    ))
}

fn of_init(observed: &Observed, init_phase: &InitPhase) -> View {
    let (kstatus, reason, message) = match init_phase {
        InitPhase::Waits { reason: reason @ (Reason::DependencyNotReady | Reason::Initializing), message } => {
            (KStatus::InProgress, *reason, message.clone())
        }
        // The user has to fix another object; then the sandbox continues.
        InitPhase::Waits { reason, message } => (KStatus::Stalled, *reason, message.clone()),
        InitPhase::Works { since, .. } => {
            let awaited = pod_event::awaited_service(&observed.events);
            let awaited = awaited.map(|service| format!(" It waits: {service}.")).unwrap_or_default();
            let message = format!(
                "The initialiser has been running since {since}; `/aigise/sandboxd status` in the sandbox shows its progress.{awaited}"
            );
            (KStatus::InProgress, Reason::Initializing, message)
        }
        InitPhase::Silent => {
            let message = format!(
                "The initialiser should have ended long ago and has not reported anything: look at the events of the Pod. Change the annotation {} to restart the sandbox.",
                meta::RESTART
            );
            return stalled(Reason::GateNotRunning, message);
        }
    };
    let requeue =
        Requeue::AwaitChange.within(init_phase.next(observed.now)).within(event_reads(observed).next(observed.now));
    View::new(SandboxPhase::Initializing, kstatus, reason, message).requeued(requeue)
}

/// Why a sandbox that its session left behind stays as it is.
const NOT_RESTARTED: &str = "The session is gone, so the sandbox cannot be restarted.";

fn of_pod(observed: &Observed, lifecycle: &Lifecycle, progress: &Progress) -> View {
    let template = &observed.sandbox.spec.template;
    match progress {
        Progress::Terminating => of_terminating(observed),
        Progress::Created => waiting(
            SandboxPhase::Pending,
            Reason::PodCreated,
            "The Pod waits for the scheduler, or for its claims to be provisioned.",
        )
        .requeued(Requeue::After(patience(observed.on_their_way, SCHEDULER_PATIENCE))),
        Progress::Unschedulable { reason, message } => {
            let what = match reason {
                Reason::ClaimNotReady => "The Pod waits for a claim",
                Reason::NoRoomOnSessionNode => "The node to which the session's volumes tie the Pod lacks capacity",
                _ => "No node fits the Pod now",
            };
            waiting(SandboxPhase::Pending, *reason, format!("{what}: {message}"))
        }
        Progress::Waiting { reason, message } => {
            let message = match pod_event::obstacle(&observed.events) {
                Some(cause) if *reason == Reason::ContainerCreating => format!("{message} {cause}"),
                _ => message.clone(),
            };
            let view = waiting(SandboxPhase::Starting, *reason, message);
            let requeue = Requeue::AwaitChange.within(kubelet_has(observed, progress));
            view.requeued(requeue.within(event_reads(observed).next(observed.now)))
        }
        Progress::Running if !template.mcp_services.is_empty() => waiting(
            SandboxPhase::Starting,
            Reason::NotReady,
            format!(
                "The container runs, but not all services respond yet ({}); the events of the Pod show what is missing.",
                template.mcp_services.join(", ")
            ),
        ),
        Progress::Running if template.readiness_probe.is_some() => waiting(
            SandboxPhase::Starting,
            Reason::NotReady,
            "The container runs, but its readinessProbe has not succeeded yet; the events of the Pod show why.",
        ),
        Progress::Running | Progress::Initializing { .. } | Progress::Silent => {
            waiting(SandboxPhase::Starting, Reason::NotReady, "The container runs, but is not ready yet.")
        }
        Progress::HeldBack { reason, message, is_final: false } => {
            waiting(SandboxPhase::Starting, *reason, message.clone())
        }
        Progress::HeldBack { reason, message, is_final: true } => {
            let hint = match lifecycle {
                Lifecycle::Orphaned(_) => NOT_RESTARTED.to_string(),
                _ => format!(
                    "Take it out of the podTemplate, or make it a native sidecar (an init container with restartPolicy: Always). Change the template or the annotation {} to restart the sandbox.",
                    meta::RESTART
                ),
            };
            stalled(*reason, format!("{message} {hint}"))
        }
        Progress::Ready => View::new(SandboxPhase::Ready, KStatus::Ready, Reason::Ready, "The sandbox is ready."),
        Progress::Ended { reason, message, .. } => {
            let hint = match lifecycle {
                Lifecycle::Orphaned(_) => NOT_RESTARTED.to_string(),
                Lifecycle::Attached(_) => "Only the owner of the Pod can restart it.".to_string(),
                _ => format!(
                    "{}{} Change the template or the annotation {} to restart it.",
                    restart::exhausted(template),
                    of_entrypoint(observed).unwrap_or_default(),
                    meta::RESTART
                ),
            };
            stalled(*reason, format!("{message} {hint}"))
        }
    }
}

fn of_terminating(observed: &Observed) -> View {
    let moving = |message: String| waiting(SandboxPhase::Pending, Reason::PodTerminating, message);
    let usual = || moving("The previous Pod is still ending; a new Pod follows.".into());
    let Some(pod) = observed.pod.owned() else { return usual() };
    match hold(pod).filter(|_| is_overdue(observed, pod)) {
        Some(Hold::Finalizers(words)) => {
            stalled(Reason::PodTerminating, format!("The previous Pod is still there because of {words}."))
        }
        Some(Hold::Removal) => moving(format!(
            "The containers of the previous Pod have ended, but {} has not removed the Pod yet; the events of the Pod show why.",
            node(pod).as_deref().unwrap_or("its node")
        )),
        Some(Hold::Containers) | None => {
            let wait = overdue_at(pod).and_then(|at| at.duration_since(observed.now).try_into().ok());
            usual().requeued(Requeue::AwaitChange.within(wait))
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
