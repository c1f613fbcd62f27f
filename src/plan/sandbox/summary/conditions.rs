//! The conditions of a sandbox besides the standard three.

use super::{Attachment, Observed, Progress, Stage, View, gate, is_outdated};
use crate::{
    api::{
        condition::{ConditionType, Reason},
        init::{InitOutcome, InitStatus},
    },
    plan::status::{Verdict, verdict},
};

pub(super) fn scheduled(stage: &Stage) -> Verdict {
    let kind = ConditionType::PodScheduled;
    let has_node = || verdict(kind, true, Reason::Scheduled, "The Pod has a node.");
    match stage {
        Stage::Restarting { .. }
        | Stage::Finished { .. }
        | Stage::NodeLost { .. }
        | Stage::Initializing(_)
        | Stage::InitFailed(_) => has_node(),
        Stage::Pod(progress) | Stage::LeftBehind(progress) | Stage::Attached(Attachment::To { progress, .. })
            if progress.is_scheduled() =>
        {
            has_node()
        }
        Stage::Pod(Progress::Unschedulable { reason, message }) => verdict(kind, false, *reason, message.clone()),
        Stage::Pod(_) | Stage::LeftBehind(_) | Stage::Attached(Attachment::To { .. }) => {
            verdict(kind, None, Reason::PodCreated, "The scheduler has not spoken yet.")
        }
        Stage::Terminating
        | Stage::Orphaned
        | Stage::Blocked(_)
        | Stage::NameTaken(_)
        | Stage::Failed(_)
        | Stage::Suspended { .. }
        | Stage::WaitsForVolumes(_)
        | Stage::WaitsForAgent(_)
        | Stage::Attached(_)
        | Stage::NoPod(_) => verdict(kind, false, Reason::NoPod, "There is no Pod."),
    }
}

pub(super) fn initialized(observed: &Observed, stage: &Stage, view: &View) -> Verdict {
    let kind = ConditionType::Initialized;
    let has_gate = match observed.pod.ours() {
        Some(pod) => gate::is_gated(pod),
        None => gate::work(observed).is_some(),
    };
    if !has_gate {
        return verdict(kind, true, Reason::NoInitializer, "Nothing has to be done before it is ready.");
    }
    match (stage, gate::status(observed, &observed.sandbox.status.clone().unwrap_or_default())) {
        (Stage::Initializing(_) | Stage::InitFailed(_), _) => verdict(kind, false, view.reason, view.message.clone()),
        (_, Some(InitStatus { outcome: InitOutcome::Succeeded, .. })) => {
            verdict(kind, true, Reason::Initialized, "What was to be done before it is ready is done.")
        }
        (_, Some(InitStatus { outcome: InitOutcome::Failed, .. })) => {
            verdict(kind, false, Reason::InitFailed, "The initialiser failed; status.init has the evidence.")
        }
        _ => verdict(kind, false, Reason::NotReady, "What is to be done before it is ready is not known to be done."),
    }
}

pub(super) fn up_to_date(observed: &Observed, stage: &Stage) -> Verdict {
    let kind = ConditionType::OutOfDate;
    if let Stage::Attached(_) = stage {
        verdict(kind, false, Reason::Attached, "The Pod is not made from a template of ours.")
    } else if observed.pod.ours().is_none() {
        verdict(kind, false, Reason::NoPod, "There is no Pod.")
    } else if is_outdated(observed) {
        let message = "The template changed after the Pod started; the next start takes the change.";
        verdict(kind, true, Reason::TemplateChanged, message)
    } else {
        verdict(kind, false, Reason::UpToDate, "The Pod is made from the present template.")
    }
}

pub(super) fn suspended(stage: &Stage, view: &View) -> Verdict {
    let kind = ConditionType::Suspended;
    if let Stage::Suspended { .. } = stage {
        verdict(kind, true, Reason::Suspended, view.message.clone())
    } else {
        verdict(kind, false, Reason::Active, "It is not suspended.")
    }
}

pub(super) fn attached(stage: &Stage, view: &View) -> Verdict {
    let kind = ConditionType::Attached;
    match stage {
        Stage::Attached(Attachment::To { pin, .. }) => {
            verdict(kind, true, Reason::Attached, format!("It works in the Pod {} (UID {}).", pin.name, pin.uid))
        }
        Stage::Attached(_) => verdict(kind, false, view.reason, view.message.clone()),
        _ => verdict(kind, false, Reason::NotAttached, "It has a Pod of its own."),
    }
}
