//! The conditions of a sandbox in addition to the three standard ones.

use super::{Attachment, Lifecycle, Observed, Progress, View, init};
use crate::{
    api::{
        condition::{ConditionType, Reason},
        init::{InitOutcome, InitStatus},
    },
    plan::status::{ConditionValue, condition_value},
};

pub(super) fn scheduled(lifecycle: &Lifecycle) -> ConditionValue {
    let kind = ConditionType::PodScheduled;
    let has_node = || condition_value(kind, true, Reason::Scheduled, "The Pod has a node.");
    match lifecycle {
        Lifecycle::Restarting { .. }
        | Lifecycle::Finished { .. }
        | Lifecycle::NodeLost { .. }
        | Lifecycle::Initializing(_)
        | Lifecycle::NotRestored(_)
        | Lifecycle::InitFailed(_) => has_node(),
        Lifecycle::Pod(progress)
        | Lifecycle::Orphaned(progress)
        | Lifecycle::Attached(Attachment::To { progress, .. })
            if progress.is_scheduled() =>
        {
            has_node()
        }
        Lifecycle::Pod(Progress::Unschedulable { reason, message }) => {
            condition_value(kind, false, *reason, message.clone())
        }
        Lifecycle::Pod(_) | Lifecycle::Orphaned(_) | Lifecycle::Attached(Attachment::To { .. }) => {
            condition_value(kind, None, Reason::PodCreated, "The scheduler has not reported yet.")
        }
        Lifecycle::Terminating
        | Lifecycle::SessionGone
        | Lifecycle::Blocked(_)
        | Lifecycle::NameTaken(_)
        | Lifecycle::Failed(_)
        | Lifecycle::Suspended { .. }
        | Lifecycle::WaitsForVolumes(_)
        | Lifecycle::WaitsForAgent(_)
        | Lifecycle::Attached(_)
        | Lifecycle::NoPod(_) => condition_value(kind, false, Reason::NoPod, "There is no Pod."),
    }
}

pub(super) fn initialized(observed: &Observed, lifecycle: &Lifecycle, view: &View) -> ConditionValue {
    let kind = ConditionType::Initialized;
    let has_init = match observed.pod.owned() {
        Some(pod) => init::has_init(pod),
        None => init::work(observed).is_some(),
    };
    if !has_init {
        return condition_value(kind, true, Reason::NoInitializer, "The sandbox has no init work.");
    }
    match (lifecycle, init::status(observed, &observed.sandbox.status.clone().unwrap_or_default())) {
        (Lifecycle::Initializing(_) | Lifecycle::InitFailed(_) | Lifecycle::NotRestored(_), _) => {
            condition_value(kind, false, view.reason, view.message.clone())
        }
        (_, Some(InitStatus { outcome: InitOutcome::Succeeded, .. })) => {
            condition_value(kind, true, Reason::Initialized, "The init work has succeeded.")
        }
        (_, Some(InitStatus { outcome: InitOutcome::Failed, .. })) => {
            condition_value(kind, false, Reason::InitFailed, "The initialiser failed; status.init has the evidence.")
        }
        _ => condition_value(kind, false, Reason::NotReady, "The init work is not known to have succeeded."),
    }
}

pub(super) fn up_to_date(observed: &Observed, lifecycle: &Lifecycle, is_outdated: bool) -> ConditionValue {
    let kind = ConditionType::OutOfDate;
    if let Lifecycle::Attached(_) = lifecycle {
        condition_value(kind, false, Reason::Attached, "The Pod was not created from the sandbox's template.")
    } else if observed.pod.owned().is_none() {
        condition_value(kind, false, Reason::NoPod, "There is no Pod.")
    } else if is_outdated {
        let message = "The template changed after the Pod started; the next Pod uses the new template.";
        condition_value(kind, true, Reason::TemplateChanged, message)
    } else {
        condition_value(kind, false, Reason::UpToDate, "The Pod was created from the present template.")
    }
}

pub(super) fn suspended(lifecycle: &Lifecycle, view: &View) -> ConditionValue {
    let kind = ConditionType::Suspended;
    if let Lifecycle::Suspended { .. } = lifecycle {
        condition_value(kind, true, Reason::Suspended, view.message.clone())
    } else {
        condition_value(kind, false, Reason::Active, "The sandbox is not suspended.")
    }
}

pub(super) fn attached(lifecycle: &Lifecycle, view: &View) -> ConditionValue {
    let kind = ConditionType::Attached;
    match lifecycle {
        Lifecycle::Attached(Attachment::To { pin, .. }) => condition_value(
            kind,
            true,
            Reason::Attached,
            format!("The sandbox is attached to the Pod {} (UID {}).", pin.name, pin.uid),
        ),
        Lifecycle::Attached(_) => condition_value(kind, false, view.reason, view.message.clone()),
        _ => condition_value(kind, false, Reason::NotAttached, "The sandbox has a Pod of its own."),
    }
}
