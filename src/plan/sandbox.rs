//! One Sandbox: from its spec to a Pod that is ready for work.
//!
//! The life of a sandbox whose image is present (`tests/walks/sandbox-happy-path.yaml` has it in full):
//!
//! | observed | lifecycle | writes | reports |
//! |---|---|---|---|
//! | no Pod | `NoPod` | creates the Pod | nothing yet: the scheduler will report soon |
//! | a Pod with a node | `Pod(Waiting)` | | `Ready=False`, `ContainerCreating` |
//! | the container runs, and its init work may begin | `Initializing` | releases the init work | `Ready=False`, `Initializing` |
//! | the init work failed | `InitFailed` | | `state: error`, with the evidence |
//! | the container runs and is ready | `Pod(Ready)` | | `Ready=True`; `state: ready` |
//! | the Pod is being deleted | `Pod(Terminating)` | | `Ready=False`, `PodTerminating` |
//! | the container ended | `Restarting` | after a pause: deletes the Pod | `Ready=False`, `Restarting`, with how it ended |
//! | the kubelet refused the Pod | `Restarting` | after a pause: deletes the Pod | `Ready=False`, `Restarting`; this does not count |
//! | the container ended too often | `Pod(Ended)` | ends what still runs beside it | `state: error`, with how it ended |

mod attach;
mod exec_access;
mod init;
mod lifecycle;
mod observed;
mod pod;
mod restart;
mod summary;

use std::{
    collections::{BTreeSet, VecDeque},
    sync::Arc,
};

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

pub use self::{
    attach::Attachment,
    exec_access::{ExecAccess, child_state as exec_access_state, is_of_earlier},
    lifecycle::Lifecycle,
    observed::Observed,
    pod::{helper, helper_mount, pod},
    summary::{burst_begins, event_reads},
};
use super::{
    ChildState, Created, Decide, Failure, Outcome, Report, Write,
    effective::EffectiveSession,
    facts::{restart_request, sandbox::is_hand_made},
    name::Label,
    pod::{Progress, annotation, ended_beside},
};
use crate::api::{Sandbox, SandboxStatus, condition::Reason, meta, template::UpdatePolicy};

/// What follows from the observed objects, derived once for the writes, and again for the report if anything was written.
#[derive(Clone, Debug, PartialEq)]
pub struct Situation {
    /// Where the sandbox is in its life.
    pub lifecycle: Lifecycle,
    /// Whether the Pod was created from another template than the Sandbox has now.
    pub is_outdated: bool,
}

impl Decide for Observed {
    type Situation = Situation;
    type Status = SandboxStatus;

    fn situation(&self) -> Situation {
        Situation { lifecycle: Lifecycle::of(self), is_outdated: is_outdated(self) }
    }

    fn stage(situation: &Situation) -> &'static str {
        (&situation.lifecycle).into()
    }

    fn plan(&self, situation: &Situation) -> Vec<Write> {
        let write = write(self, situation);
        let access = if self.is_requested() { exec_access::writes(self) } else { vec![] };
        match write {
            // The exec access of a Pod is created before the Pod.
            Some(write @ Write::Create(_)) => access.into_iter().chain([write]).collect(),
            write => write.into_iter().chain(access).collect(),
        }
    }

    /// A sandbox writes only its Pod and the Pod's exec access.
    fn record(&mut self, _: &str, outcome: Outcome) {
        // What the sandbox is does not depend on whether the containers beside it could be ended.
        if matches!(outcome, Outcome::Pod(ChildState::Failed(_))) && ends_others(self, &self.situation()).is_some() {
            return;
        }
        match (outcome, &mut self.exec_access) {
            (Outcome::Pod(child), _) => self.pod = child,
            (Outcome::ServiceAccount(child), Some(access)) => access.account = child,
            (Outcome::RoleBinding(child), Some(access)) => access.binding = child,
            (Outcome::NetworkPolicy(child), Some(access)) => access.policy = child,
            (Outcome::Role(child), Some(access)) => access.earlier_role = child,
            _ => {} // a sandbox writes no other children
        }
    }

    fn report(&self, situation: &Situation) -> Report<SandboxStatus> {
        summary::report(self, situation)
    }

    fn child_disappeared(&self) -> bool {
        let status = self.sandbox.status.as_ref();
        self.pod == ChildState::Absent
            && status.is_some_and(|status| status.pod_name.is_some() && status.attached.is_none())
    }
}

/// How many sandboxes of a type are considered: the session's own, and the first that a user created.
pub const FIRST: usize = 2;

/// The limit on the number of types that are followed along `dependsOn`.
const MOST_TYPES: usize = 128;

/// The other sandboxes of the session on which decisions about a sandbox depend: those of its own type if a user created it, those of the
/// types that it depends on, and of the types that these depend on. `first` returns the [first](FIRST) sandboxes of a type by [`rank`](super::facts::sandbox::rank).
pub fn siblings(sandbox: &Sandbox, first: impl Fn(&Label) -> Vec<Arc<Sandbox>>) -> Vec<Arc<Sandbox>> {
    let needed = |sandbox: &Sandbox| {
        let labels = sandbox.spec.template.depends_on.iter().filter_map(|needed| Label::of(needed).ok());
        labels.collect::<Vec<_>>()
    };
    let own = Label::of(&sandbox.spec.sandbox_type).ok();
    let of_own = own.iter().filter(|_| is_hand_made(sandbox)).flat_map(&first);
    let mut found: Vec<_> = of_own.filter(|other| other.metadata.name != sandbox.metadata.name).collect();
    let mut followed: BTreeSet<_> = own.into_iter().collect();
    let mut waiting = VecDeque::from(needed(sandbox));
    while followed.len() < MOST_TYPES
        && let Some(label) = waiting.pop_front()
    {
        if followed.insert(label.clone()) {
            let siblings = first(&label);
            waiting.extend(siblings.iter().flat_map(|sibling| needed(sibling)));
            found.extend(siblings);
        }
    }
    found
}

/// The write for the Pod, or for the Sandbox itself.
fn write(observed: &Observed, situation: &Situation) -> Option<Write> {
    let delete = || observed.pod.owned().map(|pod| Write::delete(&**pod));
    let is_going = || observed.pod.owned().is_some_and(|pod| pod.metadata.deletion_timestamp.is_some());
    let wants_new_pod = || wants_new_pod(observed, situation.is_outdated);
    match &situation.lifecycle {
        Lifecycle::NoPod(pod) => Some(Write::Create(Created::Pod(pod.clone()))),
        Lifecycle::SessionGone => Some(Write::delete(&*observed.sandbox)),
        Lifecycle::Suspended { .. } | Lifecycle::Attached(_) => delete().filter(|_| !is_going()),
        // The DNS name would resolve to either of the two Pods.
        Lifecycle::Blocked(Failure { reason: Reason::DuplicateType, .. }) => delete().filter(|_| !is_going()),
        Lifecycle::Restarting { count, at, .. } => {
            let is_due = *at <= observed.now && restart::is_counted(observed, *count);
            delete().filter(|_| is_due || wants_new_pod())
        }
        Lifecycle::NotRestored(_) => delete().filter(|_| init::is_given_up(observed) || wants_new_pod()),
        Lifecycle::Finished { .. } | Lifecycle::InitFailed(_) | Lifecycle::Pod(_) | Lifecycle::Initializing(_)
            if wants_new_pod() =>
        {
            delete()
        }
        Lifecycle::Finished { .. } | Lifecycle::InitFailed(_) | Lifecycle::Pod(Progress::Ended { .. }) => {
            ends_others(observed, situation).map(|pod| Write::PatchPod(Box::new(pod)))
        }
        Lifecycle::Pod(Progress::Ready) => acknowledge_session_restart(observed).map(Write::PatchPod),
        Lifecycle::Pod(_) | Lifecycle::Initializing(_) => init::release(observed).map(Write::PatchPod),
        Lifecycle::Orphaned(_)
        | Lifecycle::NodeLost { .. }
        | Lifecycle::WaitsForVolumes(_)
        | Lifecycle::WaitsForAgent(_)
        | Lifecycle::Terminating
        | Lifecycle::Blocked(_)
        | Lifecycle::NameTaken(_)
        | Lifecycle::Failed(_) => None,
    }
}

/// The Pod with the deadline that ends the containers beside the sandbox's own, if the sandbox has ended for good.
fn ends_others(observed: &Observed, situation: &Situation) -> Option<Pod> {
    let has_ended = matches!(
        situation.lifecycle,
        Lifecycle::Finished { .. } | Lifecycle::InitFailed(_) | Lifecycle::Pod(Progress::Ended { .. })
    );
    let pod = observed.pod.owned().filter(|_| has_ended && !wants_new_pod(observed, situation.is_outdated))?;
    ended_beside(pod, meta::SANDBOX_CONTAINER)
}

/// Whether the Pod is to be replaced by a new one now: the user requested a restart of the sandbox, or the Pod is not ready and the
/// template, or a restart request on the session, is newer than the Pod.
fn wants_new_pod(observed: &Observed, is_outdated: bool) -> bool {
    let Some(pod) = observed.pod.owned().filter(|_| observed.is_requested()) else { return false };
    let sandbox = &observed.sandbox;
    let update = sandbox.spec.template.update_policy() == UpdatePolicy::Recreate;
    match Progress::of(pod, meta::SANDBOX_CONTAINER) {
        Progress::Terminating => false,
        Progress::Ready => restart_requested(pod, meta::RESTART, &**sandbox) || (update && is_outdated),
        _ => {
            restart_requested(pod, meta::RESTART, &**sandbox)
                || is_outdated
                || observed.session.found().is_some_and(|session| session_restart_requested(pod, session))
        }
    }
}

/// Whether the user has changed the annotation that requests a restart since the Pod was created.
fn restart_requested(pod: &Pod, recorded: &str, object: &impl ResourceExt) -> bool {
    restart_request(object).is_some_and(|request| annotation(pod, recorded) != Some(request))
}

fn session_restart_requested(pod: &Pod, session: &EffectiveSession) -> bool {
    restart_requested(pod, meta::SESSION_RESTART, session)
}

/// Records the session's restart request on a ready Pod. The request concerns Pods that are not ready, so a ready Pod has nothing to do.
fn acknowledge_session_restart(observed: &Observed) -> Option<Box<Pod>> {
    let pod = observed.pod.owned()?;
    let session = observed.session.found().filter(|session| session_restart_requested(pod, session))?;
    let request = restart_request(&**session)?.to_string();
    let mut pod = Pod::clone(pod);
    pod.annotations_mut().insert(meta::SESSION_RESTART.into(), request);
    Some(Box::new(pod))
}

/// Whether the Pod was created from another template than the Sandbox has now.
fn is_outdated(observed: &Observed) -> bool {
    // If the session is gone, the template's hash cannot be computed, and the Pod could not be recreated.
    let is_known = observed.sandbox.spec.session.is_none() || observed.session.found().is_some();
    let is_of_template =
        |pod: &Pod| annotation(pod, meta::TEMPLATE_HASH).is_some_and(|hash| pod::is_of_template(observed, hash));
    observed.pod.owned().is_some_and(|pod| is_known && !is_of_template(pod))
}
