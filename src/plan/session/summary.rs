//! The status of a session: how its lifecycle is reported to users.

use std::time::Duration;

use super::{
    Lifecycle, Observed, Situation, agents, cache, configuration,
    lifetime::{self, SuspendReason},
    network::service_name,
    sandboxes,
    staging::{self, Staging},
    volumes::{self, unbound},
};
use crate::{
    api::{
        AigiseSessionStatus,
        condition::{ConditionType, Reason},
        sandbox::SandboxState,
        session::{OnExpiry, SandboxCounts, SessionPhase, VolumeLayout, VolumeStatus, VolumesStatus},
    },
    plan::{
        Failure, Report, Requeue, StatusWrite,
        status::{self, ConditionValue, KStatus, View, condition_value},
        volumes::SharedVolume,
    },
};

/// The interval at which a session checks whether a missing source exists, or a failed source has been fixed. ConfigMaps are read by name
/// and not watched, since the operator does not need the other ConfigMaps.
const SOURCE_POLL: Duration = Duration::from_secs(5);

/// Builds the status, the event and the requeue.
pub(super) fn report(observed: &Observed, situation: &Situation) -> Report<AigiseSessionStatus> {
    let (session, now) = (&observed.session, observed.now);
    let Situation { lifecycle, staging, caching } = situation;
    let mut before = session.status().cloned().unwrap_or_default();
    status::retain_ours(&mut before.conditions);
    let counts = counts(observed);
    let view = view(observed, lifecycle, &counts);
    let view = troubled(observed, lifecycle, view).with_first_ready(&before.conditions);
    let conditions = view.standard().into_iter().chain([
        configuration::config_valid(observed),
        volumes_ready(observed, situation, &view),
        sandboxes_ready(lifecycle, &counts, &view),
        agents::agents_ready(observed),
        degraded(lifecycle),
        suspended(lifecycle, &view),
        expiring(observed, lifecycle),
    ]);
    let conditions = conditions.chain(cache::condition(observed, caching));
    let settled_at = lifetime::settled_at(observed, view.phase);
    let conditions = status::conditions(conditions, &before.conditions, session.metadata().generation, now);
    let polls =
        matches!(lifecycle, Lifecycle::ClaimMissing(_) | Lifecycle::SourceMissing(_) | Lifecycle::StagingFailed { .. });
    let requeue = match view.requeue {
        // A failed write causes no watch event, so it has to be retried. The sandboxes that wait for the role report that themselves.
        _ if observed.write_error.is_some()
            || observed.exec.as_ref().is_some_and(|exec| exec.role.failure().is_some()) =>
        {
            Requeue::Backoff
        }
        Requeue::After(shortest) if polls => {
            Requeue::After(status::poll(shortest, &conditions, ConditionType::Ready, now))
        }
        next => next,
    };
    let requeue = requeue.within(lifetime::next(observed, settled_at.as_ref()));
    let requeue = requeue.within(configuration::next(observed, &conditions));
    // The next reconcile finds the record in the status.
    let requeue = requeue.within(staging::is_held(observed, staging).then_some(Duration::ZERO));
    let requeue = requeue.within(staging::pull::due_in(observed, staging).filter(|delay| !delay.is_zero()));
    let requeue = requeue.within(cache::next(observed, caching));
    let requeue = requeue.within(volumes::next_read(observed).filter(|_| is_running(lifecycle)));
    let status = AigiseSessionStatus {
        observed_generation: session.metadata().generation,
        phase: Some(view.phase),
        conditions,
        configuration: configuration::kept(observed),
        sandboxes: Some(counts),
        launched: session.recorded_types(),
        agents: agents::counts(observed),
        volumes: Some(filled_volumes(observed, staging)).filter(|volumes| *volumes != VolumesStatus::default()),
        cache: cache::status(observed, caching),
        service: Some(service_name(observed)),
        started_at: lifetime::started_at(observed),
        expires_at: lifetime::expires_at(session),
        ready_at: lifetime::ready_at(observed, *lifecycle == Lifecycle::Ready),
        settled_at,
        future_activity: lifetime::future_activity(session, now),
    };
    let write = match before.phase {
        // The session was deleted a moment ago: nobody can read its status, or the watch event of the deletion follows.
        _ if matches!(lifecycle, Lifecycle::Expired { then: OnExpiry::Delete, .. })
            && observed.write_error.is_none() =>
        {
            StatusWrite::Skip
        }
        _ if without_claim_phases(before.clone()) == without_claim_phases(status.clone()) => StatusWrite::Skip,
        phase if phase == status.phase => StatusWrite::Throttled,
        _ => StatusWrite::Now,
    };
    let of_caches = cache::event(&status.conditions, &before.conditions);
    let mut report = view.requeued(requeue).report(status, (before.phase, &before.conditions), write);
    report.events.extend(of_caches);
    report
}

/// Reports what a person has to know of a running session: its configuration file cannot be used, so the session continues with the file's
/// last usable content; or one of its claims is being deleted. The session is stalled then, and its phase still depends on its sandboxes.
fn troubled(observed: &Observed, lifecycle: &Lifecycle, view: View<SessionPhase>) -> View<SessionPhase> {
    let has_say = matches!(view.kstatus, KStatus::Ready | KStatus::InProgress)
        && is_running(lifecycle)
        && !matches!(lifecycle, Lifecycle::Unconfigured(_));
    if let Some(Failure { reason, message }) = volumes::loss(observed).filter(|_| has_say) {
        return View { kstatus: KStatus::Stalled, reason, message, ..view };
    }
    match configuration::trouble(observed).filter(|failure| has_say && failure.reason != Reason::ApiError) {
        Some(failure) => View {
            kstatus: KStatus::Stalled,
            reason: failure.reason,
            message: format!("{} The session continues unchanged.", failure.message),
            ..view
        },
        None => view,
    }
}

/// Whether the session may have Pods.
fn is_running(lifecycle: &Lifecycle) -> bool {
    !matches!(lifecycle, Lifecycle::Terminating | Lifecycle::Expired { .. } | Lifecycle::Suspended { .. })
}

/// The status without the phases of claims. Claims are bound one after the other, which alone is not worth a status write; the next write
/// includes the phases.
fn without_claim_phases(mut status: AigiseSessionStatus) -> AigiseSessionStatus {
    if let Some(VolumesStatus { layout: _, scripts, data, tools, staged_digest: _, filled: _ }) = &mut status.volumes {
        [scripts, data, tools].into_iter().flatten().for_each(|volume| volume.phase = None);
    }
    status
}

fn view(observed: &Observed, lifecycle: &Lifecycle, counts: &SandboxCounts) -> View<SessionPhase> {
    use KStatus::{InProgress, Stalled};
    use SessionPhase::{Error, Pending, Staging, Starting};

    match lifecycle {
        Lifecycle::Expired { .. } | Lifecycle::Suspended { .. } => inactive(observed, lifecycle),
        Lifecycle::ClaimMissing(name) => {
            let message = format!("The claim {name}, which the session uses, does not exist yet.");
            View::new(Pending, InProgress, Reason::ClaimNotFound, message).requeued(Requeue::After(SOURCE_POLL))
        }
        Lifecycle::Terminating => {
            View::new(SessionPhase::Terminating, InProgress, Reason::Terminating, "The session is being deleted.")
        }
        // The file may be about to be created.
        Lifecycle::Unconfigured(failure) if matches!(failure.reason, Reason::ConfigNotFound | Reason::ApiError) => {
            View::new(Pending, InProgress, failure.reason, &failure.message)
        }
        Lifecycle::Unconfigured(failure) | Lifecycle::Blocked(failure) => {
            View::new(Error, Stalled, failure.reason, &failure.message)
        }
        Lifecycle::NameTaken(foreign) => {
            let (kstatus, requeue, message) = status::name_taken(foreign, "session", "the session");
            let phase = if kstatus == Stalled { Error } else { Pending };
            View::new(phase, kstatus, Reason::NameTaken, message).requeued(requeue)
        }
        Lifecycle::Failed(failure) => {
            let (kstatus, requeue) = status::of_failure(failure);
            let phase = match kstatus {
                Stalled => Error,
                _ if failure.reason == Reason::Terminating => SessionPhase::Terminating,
                _ => Pending,
            };
            View::new(phase, kstatus, failure.reason, &failure.message).requeued(requeue)
        }
        Lifecycle::SourceMissing(name) => {
            let message = format!("The ConfigMap {name}, a source of the volumes, does not exist yet.");
            View::new(Pending, InProgress, Reason::SourceNotFound, message).requeued(Requeue::After(SOURCE_POLL))
        }
        Lifecycle::CacheMissing(reason) => {
            View::new(Pending, Stalled, Reason::CacheMissing, cache::required_in_words(*reason))
        }
        Lifecycle::Restoring(message) => View::new(Staging, InProgress, Reason::Restoring, message),
        Lifecycle::SavingCache(message) => View::new(Starting, InProgress, Reason::SavingCache, message),
        Lifecycle::NotStaged => {
            let view = View::new(Staging, InProgress, Reason::Staging, "The volumes are about to be filled.");
            // The stage Pod is created when the status no longer has the previous record.
            if staging::is_recorded(observed) { view.requeued(Requeue::After(Duration::ZERO)) } else { view }
        }
        Lifecycle::Staging(progress) => {
            let words = staging::in_words(observed, progress);
            let message =
                staging::pull::missing_image(observed).map_or(words.clone(), |missing| format!("{words} {missing}"));
            let view = View::new(Staging, InProgress, Reason::Staging, message);
            view.requeued(Requeue::AwaitChange.within(staging::event_reads(observed).next(observed.now)))
        }
        Lifecycle::StagingInterrupted(message) => {
            let message = format!("{message} The Pod that fills the volumes is recreated.");
            View::new(Staging, InProgress, Reason::Staging, message).requeued(Requeue::After(staging::rest(observed)))
        }
        Lifecycle::StagingFailed { message, fault } => {
            let Failure { reason, message } = staging::failed_in_words(observed, message, fault);
            View::new(Error, Stalled, reason, message).requeued(Requeue::After(SOURCE_POLL))
        }
        Lifecycle::Starting { cause } if sandboxes::only_initialize(observed) && unbound(observed).is_none() => {
            View::new(SessionPhase::Initializing, InProgress, Reason::SandboxesNotReady, cause)
        }
        Lifecycle::Starting { cause } => View::new(Starting, InProgress, Reason::SandboxesNotReady, cause),
        Lifecycle::SandboxFailed { cause } => View::new(Error, Stalled, Reason::SandboxFailed, cause),
        Lifecycle::Degraded { cause, waits_for: Some(waiting) } => {
            View::new(Starting, InProgress, Reason::SandboxesNotReady, format!("{waiting} Failed: {cause}"))
        }
        Lifecycle::Degraded { cause, waits_for: None } => {
            let message = format!("{} sandboxes are ready. Failed: {cause}", counts.summary);
            View::new(SessionPhase::Degraded, Stalled, Reason::Degraded, message)
        }
        Lifecycle::Ready if counts.ready == counts.total => {
            let message = format!("All sandboxes are ready ({}).", counts.summary);
            View::new(SessionPhase::Ready, KStatus::Ready, Reason::Ready, message)
        }
        Lifecycle::Ready => {
            let finished: Vec<_> = sandboxes::wanted(observed).filter(sandboxes::Wanted::is_inactive).collect();
            let finished = finished.iter().map(|wanted| format!(" {}: {}", wanted.sandbox_type, wanted.message()));
            let message = format!("{} sandboxes are ready.{}", counts.summary, finished.collect::<String>());
            View::new(SessionPhase::Ready, KStatus::Ready, Reason::Ready, message)
        }
    }
}

/// The view of a session that is suspended or expired.
fn inactive(observed: &Observed, lifecycle: &Lifecycle) -> View<SessionPhase> {
    use KStatus::{Current, InProgress};
    use SessionPhase::{Expired, Suspended};

    // A deletion that failed is retried.
    let trouble = observed
        .failure()
        .or(observed.write_error.as_ref())
        .map(|failure| (Requeue::Backoff, format!(" {}", failure.message)));
    let (requeue, trouble) = trouble.unwrap_or((Requeue::AwaitChange, String::new()));
    let (phase, kstatus, reason, message) = match lifecycle {
        Lifecycle::Expired { then: OnExpiry::Delete, .. } => {
            let message = "The lifetime of the session is over; the session is being deleted.";
            (Expired, InProgress, Reason::Expired, message.to_string())
        }
        Lifecycle::Expired { then: OnExpiry::Release, going: false } => {
            let message = "The lifetime of the session is over; its Pods are gone, and so are the volumes that are not retained. A longer lifetime.ttl starts the session again.";
            (Expired, Current, Reason::Expired, message.to_string())
        }
        Lifecycle::Suspended { by, active, invalid } => {
            let (reason, why) = match by {
                SuspendReason::Wanted => (Reason::Suspended, "The session is suspended until spec.suspend is false"),
                SuspendReason::Idle => {
                    (Reason::Idle, "The session was idle and is suspended until aigise.dev/last-activity is newer")
                }
            };
            let invalid = invalid.as_ref().map(|message| format!(" {message}")).unwrap_or_default();
            if let Some(name) = active {
                (Suspended, InProgress, reason, format!("{why}; the Pod {name} is not gone yet.{invalid}"))
            } else {
                let failed = sandboxes::failed_init(observed).map_or(String::new(), |types| {
                    format!(" The initialiser of {types} had failed; status.init of the Sandbox has the evidence.")
                });
                (Suspended, Current, reason, format!("{why}; the volumes are kept.{failed}{invalid}"))
            }
        }
        // Expired, and some objects still exist.
        _ => {
            let message = "The lifetime of the session is over; its Pods and volumes are being deleted.";
            (Expired, InProgress, Reason::Expired, message.to_string())
        }
    };
    View { phase, kstatus, reason, message: message + &trouble, requeue }
}

fn counts(observed: &Observed) -> SandboxCounts {
    let states: std::collections::BTreeMap<_, _> =
        sandboxes::wanted(observed).map(|wanted| (wanted.sandbox_type.to_string(), wanted.state())).collect();
    let count = |state| i32::try_from(states.values().filter(|&&other| other == state).count()).unwrap_or(i32::MAX);
    let (total, ready, error) =
        (i32::try_from(states.len()).unwrap_or(i32::MAX), count(SandboxState::Ready), count(SandboxState::Error));
    SandboxCounts { total, ready, error, summary: format!("{ready}/{total}"), states }
}

fn filled_volumes(observed: &Observed, staging: &Staging) -> VolumesStatus {
    let filled = staging::filled(observed, staging);
    let (digest, roots, skills) = match staging.clone() {
        Staging::Done { digest, roots, skills, kept: _, request: _ } => (Some(digest), roots, skills),
        Staging::Unneeded
        | Staging::NotStarted
        | Staging::InProgress(_)
        | Staging::Superseded
        | Staging::Interrupted(_)
        | Staging::Failed { .. } => {
            let before = observed.session.status().and_then(|status| status.volumes.clone()).unwrap_or_default();
            let tools = before.tools.unwrap_or_default();
            // Roots that agents once requested are staged again, so the list of sources does not change.
            if filled.is_some() {
                (before.staged_digest, tools.roots, tools.skills)
            } else {
                (None, tools.roots, vec![])
            }
        }
    };
    let volume = |volume: SharedVolume| {
        let claim = observed.claim(volume)?;
        Some(VolumeStatus {
            claim_name: observed.session.claim_name(volume),
            folder: observed.session.folder(volume),
            phase: claim.status.as_ref().and_then(|status| status.phase.clone()),
            roots: if volume == SharedVolume::Tools { roots.clone() } else { vec![] },
            skills: if volume == SharedVolume::Tools { skills.clone() } else { vec![] },
        })
    };
    VolumesStatus {
        layout: observed.session.is_single().then_some(VolumeLayout::Single),
        scripts: volume(SharedVolume::Scripts),
        data: volume(SharedVolume::Data),
        tools: volume(SharedVolume::Tools),
        staged_digest: digest,
        filled,
    }
}

fn volumes_ready(observed: &Observed, situation: &Situation, view: &View<SessionPhase>) -> ConditionValue {
    let Situation { lifecycle, staging, .. } = situation;
    // The volumes of a suspended session are filled, and so are those of a session that only waits for the expansion of a claim.
    let is_suspended = matches!(lifecycle, Lifecycle::Suspended { .. });
    let is_small = matches!(lifecycle, Lifecycle::Failed(failure) if Some(failure) == observed.write_error.as_ref());
    let filled = matches!(staging, Staging::Unneeded | Staging::Done { .. });
    if !(filled && (lifecycle.is_staged() || is_suspended || is_small)) {
        condition_value(ConditionType::VolumesReady, false, view.reason, view.message.clone())
    } else if let Some(Failure { reason, message }) = volumes::loss(observed).filter(|_| !is_suspended) {
        condition_value(ConditionType::VolumesReady, false, reason, message)
    } else if let Some(cause) = unbound(observed) {
        condition_value(ConditionType::VolumesReady, false, Reason::VolumesPending, cause)
    } else {
        let words = staging::done_in_words(&observed.session, staging);
        let size = volumes::size_without_effect(observed).unwrap_or_default();
        condition_value(ConditionType::VolumesReady, true, Reason::Staged, format!("{words}{size}"))
    }
}

fn sandboxes_ready(lifecycle: &Lifecycle, counts: &SandboxCounts, view: &View<SessionPhase>) -> ConditionValue {
    let kind = ConditionType::SandboxesReady;
    if counts.total > 0 && counts.ready == counts.total {
        condition_value(kind, true, Reason::Ready, format!("{} sandboxes are ready.", counts.summary))
    } else if *lifecycle == Lifecycle::Ready {
        // The other sandboxes are inactive, as their users asked.
        condition_value(kind, true, Reason::Ready, view.message.clone())
    } else if lifecycle.is_staged() || matches!(lifecycle, Lifecycle::Suspended { .. } | Lifecycle::Expired { .. }) {
        condition_value(kind, false, view.reason, view.message.clone())
    } else {
        condition_value(kind, false, view.reason, "Sandboxes start when the volumes are filled.")
    }
}

fn degraded(lifecycle: &Lifecycle) -> ConditionValue {
    let kind = ConditionType::Degraded;
    if let Lifecycle::Degraded { cause, .. } = lifecycle {
        condition_value(kind, true, Reason::SandboxFailed, cause.clone())
    } else {
        condition_value(kind, false, Reason::AsExpected, "The session is not degraded.")
    }
}

fn suspended(lifecycle: &Lifecycle, view: &View<SessionPhase>) -> ConditionValue {
    let kind = ConditionType::Suspended;
    if matches!(lifecycle, Lifecycle::Suspended { .. } | Lifecycle::Expired { .. }) {
        condition_value(kind, true, view.reason, view.message.clone())
    } else {
        condition_value(kind, false, Reason::Active, "The session is not suspended.")
    }
}

fn expiring(observed: &Observed, lifecycle: &Lifecycle) -> ConditionValue {
    let kind = ConditionType::Expiring;
    let end = lifetime::expires_at(&observed.session).map(|end| end.0);
    match (lifecycle, end) {
        (Lifecycle::Expired { .. }, _) => {
            condition_value(kind, true, Reason::Expired, "The lifetime of the session is over.")
        }
        (_, Some(end)) if lifetime::expires_soon(observed) => {
            condition_value(kind, true, Reason::ExpiresSoon, format!("The lifetime of the session ends at {end}."))
        }
        (_, Some(end)) => {
            condition_value(kind, false, Reason::NotExpiring, format!("The lifetime of the session ends at {end}."))
        }
        (_, None) => condition_value(kind, false, Reason::NotExpiring, "The session has no lifetime limit."),
    }
}
