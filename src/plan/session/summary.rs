//! What a session's stage means to its user.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use super::{
    Observed, Stage,
    network::service_name,
    sandboxes,
    staging::{self, Staging},
    volumes::unbound,
};
use crate::{
    api::{
        AigiseSessionStatus,
        condition::{ConditionType, Reason},
        sandbox::SandboxState,
        session::{SandboxCounts, SessionPhase, VolumeStatus, VolumesStatus},
    },
    plan::{
        Next, Note, Report, Slot, When,
        pod::Progress,
        status::{self, Outlook, REFUSED_POLL, Verdict, verdict},
        volumes::SharedVolume,
    },
};

/// How often a session looks whether a source has come, or a failed one has been mended. ConfigMaps are read by name and not
/// watched: the operator has no business with the others.
const SOURCE_POLL: Duration = Duration::from_secs(5);

/// What one stage means.
struct View {
    phase: SessionPhase,
    outlook: Outlook,
    reason: Reason,
    message: String,
    next: Next,
}

/// The status, the event and the next look.
pub(super) fn report(observed: &Observed, now: Timestamp) -> Report<AigiseSessionStatus> {
    let session = &observed.session;
    let stage = Stage::of(observed);
    let mut before = session.status.clone().unwrap_or_default();
    status::retain_ours(&mut before.conditions);
    let counts = counts(observed);
    let view = view(&stage, &counts, staging::rest(observed, now));
    let verdicts = status::standard(view.outlook, view.reason, &view.message)
        .into_iter()
        .chain([volumes_ready(observed, &stage, &view), sandboxes_ready(&stage, &counts, &view)]);
    let ready_at = before.ready_at.clone().or_else(|| (stage == Stage::Ready).then_some(Time(now)));
    let status = AigiseSessionStatus {
        observed_generation: session.metadata.generation,
        phase: Some(view.phase),
        conditions: status::conditions(verdicts, &before.conditions, session.metadata.generation, now),
        sandboxes: Some(counts),
        volumes: Some(volumes(observed)).filter(|volumes| *volumes != VolumesStatus::default()),
        service: Some(service_name(observed)),
        ready_at,
    };
    let when = match before.phase {
        _ if without_claim_phases(before.clone()) == without_claim_phases(status.clone()) => When::Later,
        phase if phase == status.phase => When::Soon,
        _ => When::Now,
    };
    let changed = status::has_news(&before.conditions, view.reason);
    Report {
        status,
        note: (changed && view.outlook != Outlook::Moving).then(|| Note {
            warning: view.outlook == Outlook::Stalled,
            reason: view.reason,
            message: view.message,
        }),
        next: view.next,
        when,
    }
}

/// Claims are bound one after the other, which is no news by itself: what else there is to say carries it along.
fn without_claim_phases(mut status: AigiseSessionStatus) -> AigiseSessionStatus {
    if let Some(VolumesStatus { scripts, data, tools, staged_digest: _ }) = &mut status.volumes {
        [scripts, data, tools].into_iter().flatten().for_each(|volume| volume.phase = None);
    }
    status
}

fn view(stage: &Stage, counts: &SandboxCounts, rest: Duration) -> View {
    use Outlook::{Moving, Stalled};
    use SessionPhase::{Error, Pending, Staging, Starting};

    let view = |phase, outlook, reason, message: &str| View {
        phase,
        outlook,
        reason,
        message: message.to_string(),
        next: Next::OnChange,
    };
    let after = |next, view: View| View { next, ..view };
    match stage {
        Stage::Terminating => {
            view(SessionPhase::Terminating, Moving, Reason::Terminating, "The session is being deleted.")
        }
        Stage::Blocked(failure) => view(Error, Stalled, failure.reason, &failure.message),
        Stage::NameTaken(foreign) if foreign.leaving => {
            let message = format!("Waits until {} of an earlier owner is gone.", foreign.object);
            after(Next::In(Duration::from_secs(1)), view(Pending, Moving, Reason::NameTaken, &message))
        }
        Stage::NameTaken(foreign) => {
            let message = format!(
                "{} is not ours and has a name that the session needs; delete it or rename the session.",
                foreign.object
            );
            after(Next::In(Duration::from_secs(30)), view(Error, Stalled, Reason::NameTaken, &message))
        }
        Stage::Failed(failure) if failure.reason == Reason::Refused => {
            after(Next::In(REFUSED_POLL), view(Error, Stalled, failure.reason, &failure.message))
        }
        Stage::Failed(failure) if failure.reason == Reason::Terminating => {
            view(SessionPhase::Terminating, Moving, failure.reason, "The namespace is being deleted.")
        }
        Stage::Failed(failure) => after(Next::Backoff, view(Pending, Moving, failure.reason, &failure.message)),
        Stage::SourceMissing(name) => {
            let message = format!("The ConfigMap {name}, a source of the volumes, is not there yet.");
            after(Next::In(SOURCE_POLL), view(Pending, Moving, Reason::SourceNotFound, &message))
        }
        Stage::NotStaged => view(Staging, Moving, Reason::Staging, "The volumes are about to be filled."),
        Stage::Staging(progress) => {
            let message = match progress {
                Progress::Unschedulable { message } => format!("The Pod that fills the volumes has no node: {message}"),
                Progress::Waiting { reason: Reason::ImagePull | Reason::ContainerConfig, message } => {
                    format!("The Pod that fills the volumes cannot start: {message}")
                }
                Progress::Terminating
                | Progress::Created
                | Progress::Waiting { .. }
                | Progress::Running
                | Progress::Ready
                | Progress::Ended { .. } => "The volumes are being filled.".to_string(),
            };
            view(Staging, Moving, Reason::Staging, &message)
        }
        Stage::StagingInterrupted(message) => {
            let message = format!("{message} The Pod that fills the volumes is made anew.");
            after(Next::In(rest), view(Staging, Moving, Reason::Staging, &message))
        }
        Stage::StagingFailed(message) => {
            let message = message.trim_end_matches('.');
            let message =
                format!("The volumes could not be filled: {message}. Mend the source, and it is tried again.");
            after(Next::In(SOURCE_POLL), view(Error, Stalled, Reason::StagingFailed, &message))
        }
        Stage::Starting { cause } => view(Starting, Moving, Reason::SandboxesNotReady, cause),
        Stage::SandboxFailed { cause } => view(Error, Stalled, Reason::SandboxFailed, cause),
        Stage::Ready => {
            let message = format!("All sandboxes are ready ({}).", counts.summary);
            view(SessionPhase::Ready, Outlook::Ready, Reason::Ready, &message)
        }
    }
}

fn counts(observed: &Observed) -> SandboxCounts {
    let states: std::collections::BTreeMap<_, _> =
        sandboxes::wanted(observed).map(|wanted| (wanted.sandbox_type.to_string(), wanted.state())).collect();
    let count = |state| i32::try_from(states.values().filter(|&&other| other == state).count()).unwrap_or(i32::MAX);
    let (total, ready, error) =
        (i32::try_from(states.len()).unwrap_or(i32::MAX), count(SandboxState::Ready), count(SandboxState::Error));
    SandboxCounts { total, ready, error, summary: format!("{ready}/{total}"), states }
}

fn volumes(observed: &Observed) -> VolumesStatus {
    let (digest, roots) = match Staging::of(observed) {
        Staging::Done { digest, roots } => (Some(digest), roots),
        Staging::Unneeded
        | Staging::NotStarted
        | Staging::InProgress(_)
        | Staging::Superseded
        | Staging::Interrupted(_)
        | Staging::Failed(_) => (None, vec![]),
    };
    let volume = |volume: SharedVolume| {
        let claim = observed.claims.get(&volume).and_then(Slot::ours)?;
        Some(VolumeStatus {
            claim_name: observed.child_name(volume),
            phase: claim.status.as_ref().and_then(|status| status.phase.clone()),
            roots: if volume == SharedVolume::Tools { roots.clone() } else { vec![] },
        })
    };
    VolumesStatus {
        scripts: volume(SharedVolume::Scripts),
        data: volume(SharedVolume::Data),
        tools: volume(SharedVolume::Tools),
        staged_digest: digest,
    }
}

fn volumes_ready(observed: &Observed, stage: &Stage, view: &View) -> Verdict {
    if !stage.is_staged() {
        verdict(ConditionType::VolumesReady, false, view.reason, view.message.clone())
    } else if let Some(cause) = unbound(observed) {
        verdict(ConditionType::VolumesReady, false, Reason::VolumesPending, cause)
    } else {
        verdict(ConditionType::VolumesReady, true, Reason::Staged, "The volumes hold what their sources gave.")
    }
}

fn sandboxes_ready(stage: &Stage, counts: &SandboxCounts, view: &View) -> Verdict {
    let kind = ConditionType::SandboxesReady;
    if counts.total > 0 && counts.ready == counts.total {
        verdict(kind, true, Reason::Ready, format!("{} sandboxes are ready.", counts.summary))
    } else if stage.is_staged() {
        verdict(kind, false, view.reason, view.message.clone())
    } else {
        verdict(kind, false, view.reason, "Sandboxes start when the volumes are filled.")
    }
}
