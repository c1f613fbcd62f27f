//! One Sandbox: from its specification to a Pod that can be worked in.
//!
//! The walk of a sandbox whose image is there (`tests/walks/sandbox-happy-path.yaml` prints it):
//!
//! | sees | lifecycle | does | says |
//! |---|---|---|---|
//! | no Pod | `NoPod` | creates the Pod | nothing yet: the scheduler is about to speak |
//! | a Pod with a node | `Pod(Waiting)` | | `Ready=False`, `ContainerCreating` |
//! | the container runs, and its gate may begin | `Initializing` | releases the gate | `Ready=False`, `Initializing` |
//! | the gate failed | `InitFailed` | | `state: error`, with the evidence |
//! | the container runs and is ready | `Pod(Ready)` | | `Ready=True`; `state: ready` |
//! | the Pod is being deleted | `Pod(Terminating)` | | `Ready=False`, `PodTerminating` |
//! | the container ended | `Restarting` | after a pause: deletes the Pod | `Ready=False`, `Restarting`, with how it ended |
//! | it ended too often | `Pod(Ended)` | | `state: error`, with how it ended |

mod attach;
mod exec_access;
mod init;
mod lifecycle;
mod pod;
mod pod_template;
mod privilege;
mod restart;
mod summary;

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::Pod,
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
};
use kube::ResourceExt;

pub use self::{
    attach::Attachment,
    exec_access::{ExecAccess, child_state as exec_access_state, is_of_earlier},
    lifecycle::{Lifecycle, check_template},
    pod::pod,
    privilege::check_security_context,
    summary::burst_begins,
};
use super::{
    ChildState, Created, Failure, Lookup, Outcome, Report, Settings, Write,
    agent::runner,
    membership,
    name::{self, Label},
    ownership,
    pod::{Progress, annotation},
};
use crate::api::{
    Agent, AigiseSession, Sandbox, SandboxStatus, condition::Reason, init::InitOutcome, meta, template::UpdatePolicy,
};

/// All that is known of a sandbox when it is decided about.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The Sandbox itself.
    pub sandbox: Arc<Sandbox>,
    /// The session that it names.
    pub session: Lookup<AigiseSession>,
    /// The others of its session that matter: [`siblings`].
    pub siblings: Vec<Arc<Sandbox>>,
    /// Its Pod, which has its name.
    pub pod: ChildState<Pod>,
    /// The Pod that it is to attach to.
    pub attached: Lookup<Pod>,
    /// The agent that it runs, if it is made for one.
    pub agent: Option<Arc<Agent>>,
    /// What lets it into the sandboxes of its session; absent where nothing is to.
    pub exec_access: Option<ExecAccess>,
    /// What the operator was told.
    pub settings: Arc<Settings>,
    /// How many Pods in the namespace were made [lately](burst_begins) and do not run yet, its own among them.
    pub on_their_way: usize,
    /// The time.
    pub now: Timestamp,
}

impl Observed {
    /// Takes in what a write left: a sandbox makes nothing but its Pod, and what lets that in.
    pub fn record(&mut self, outcome: Outcome) {
        match (outcome, &mut self.exec_access) {
            (Outcome::Pod(child), _) => self.pod = child,
            (Outcome::ServiceAccount(child), Some(access)) => access.account = child,
            (Outcome::RoleBinding(child), Some(access)) => access.binding = child,
            (Outcome::NetworkPolicy(child), Some(access)) => access.policy = child,
            (Outcome::Role(child), Some(access)) => access.earlier_role = child,
            _ => {} // nothing else is a sandbox's to write
        }
    }

    fn label(&self) -> Result<Label, name::NameError> {
        let sandbox_type = &self.sandbox.spec.sandbox_type;
        if is_runner(&self.sandbox) { Label::of_runner(sandbox_type) } else { Label::of(sandbox_type) }
    }

    /// Whether its Pod may run commands in the others of the session.
    fn may_exec(&self) -> bool {
        self.agent.as_ref().is_some_and(|agent| runner::may_exec(agent, &self.settings))
    }

    /// Whether the agent that it runs asks for it as it is; a sandbox that runs none needs nobody to.
    fn is_requested(&self) -> bool {
        let agent = self.agent.as_deref().zip(self.session.found());
        let asks = |(agent, session): (&Agent, &Arc<AigiseSession>)| {
            runner::is_requested(&self.sandbox, agent, session, &self.settings)
        };
        !is_runner(&self.sandbox) || agent.is_some_and(asks)
    }

    /// The DNS name of the sandbox's Pod, if it has a session to be found in.
    #[must_use]
    pub fn hostname(&self) -> Option<String> {
        let session = self.pod.owned().and(self.sandbox.spec.session.as_ref())?;
        let label = self.label().ok()?;
        Some(name::host(&label, session, &self.sandbox.namespace().unwrap_or_default()))
    }

    /// Whether somebody made the sandbox by hand.
    fn is_hand_made(&self) -> bool {
        is_hand_made(&self.sandbox)
    }

    /// Whether the session made the sandbox.
    fn is_sessions_own(&self, session: &AigiseSession) -> bool {
        ownership::owner_uid(&self.sandbox.metadata) == session.metadata.uid.as_deref()
    }
}

/// Whether somebody made the sandbox by hand: what a session makes says so.
#[must_use]
pub fn is_hand_made(sandbox: &Sandbox) -> bool {
    ownership::owner_uid(&sandbox.metadata).is_none()
}

/// Whether the sandbox was made to run an agent.
#[must_use]
pub fn is_runner(sandbox: &Sandbox) -> bool {
    let controller = ownership::controller(&sandbox.metadata);
    controller.is_some_and(|owner| owner.kind == "Agent" && owner.api_version.starts_with(meta::GROUP))
}

/// The Sandbox as its maker says, if that is another way than it is. A user may suspend it, and add labels and annotations.
#[must_use]
pub fn changed(live: &Sandbox, mut desired: Sandbox) -> Option<Sandbox> {
    desired.spec.suspend = live.spec.suspend;
    let mut labels = live.metadata.labels.clone().unwrap_or_default();
    labels.extend(desired.metadata.labels.unwrap_or_default());
    let metadata = ObjectMeta {
        labels: Some(labels),
        owner_references: desired.metadata.owner_references,
        ..live.metadata.clone()
    };
    (live.spec != desired.spec || live.metadata != metadata).then_some(Sandbox {
        metadata,
        spec: desired.spec,
        status: None,
    })
}

/// Whether the sandbox belongs to this very session: made by it, or by hand for it.
#[must_use]
pub fn belongs_to(sandbox: &Sandbox, session: &AigiseSession) -> bool {
    match ownership::owner_uid(&sandbox.metadata) {
        Some(owner) => session.metadata.uid.as_deref() == Some(owner),
        None => !belonged_to_other_session(sandbox, session),
    }
}

/// Whether the sandbox was made by hand for another session than this one, which has its name: so it would go with the other.
#[must_use]
pub fn belonged_to_other_session(sandbox: &Sandbox, session: &AigiseSession) -> bool {
    let seen = sandbox.status.as_ref().and_then(|status| status.session.as_ref());
    is_hand_made(sandbox) && membership::is_other_session(seen, session)
}

/// The writes that bring the sandbox further.
#[must_use]
pub fn plan(observed: &Observed) -> Vec<Write> {
    decide(observed).1
}

/// The name of the lifecycle stage that the object is in, and the writes that bring it further.
#[must_use]
pub fn decide(observed: &Observed) -> (&'static str, Vec<Write>) {
    let lifecycle = Lifecycle::of(observed);
    ((&lifecycle).into(), writes(observed, lifecycle))
}

fn writes(observed: &Observed, lifecycle: Lifecycle) -> Vec<Write> {
    let pod = || observed.pod.owned().map(|pod| Box::new(Pod::clone(pod)));
    let delete = || observed.pod.owned().map(|pod| Write::delete(&**pod));
    let is_going = || observed.pod.owned().is_some_and(|pod| pod.metadata.deletion_timestamp.is_some());
    let write = match lifecycle {
        Lifecycle::NoPod(pod) => Some(Write::Create(Created::Pod(pod))),
        Lifecycle::SessionGone => Some(Write::delete(&*observed.sandbox)),
        Lifecycle::Suspended { .. } | Lifecycle::Attached(_) => delete().filter(|_| !is_going()),
        Lifecycle::Restarting { .. }
        | Lifecycle::Finished { .. }
        | Lifecycle::Pod(_)
        | Lifecycle::Initializing(_)
        | Lifecycle::InitFailed(_)
            if wants_new_pod(observed) =>
        {
            delete()
        }
        Lifecycle::Restarting { count, at, .. } if at <= observed.now && restart::is_counted(observed, count) => {
            delete()
        }
        Lifecycle::Pod(Progress::Ready) => {
            pod().and_then(|pod| acknowledge_session_restart(observed, pod)).map(Write::PatchPod)
        }
        Lifecycle::Pod(_) | Lifecycle::Initializing(_) => init::release(observed).map(Write::PatchPod),
        // Two Pods of one name would take turns in being found by it.
        Lifecycle::Blocked(Failure { reason: Reason::DuplicateType, .. }) => delete().filter(|_| !is_going()),
        Lifecycle::Restarting { .. }
        | Lifecycle::Finished { .. }
        | Lifecycle::InitFailed(_)
        | Lifecycle::Orphaned(_)
        | Lifecycle::NodeLost { .. }
        | Lifecycle::WaitsForVolumes(_)
        | Lifecycle::WaitsForAgent(_)
        | Lifecycle::Terminating
        | Lifecycle::Blocked(_)
        | Lifecycle::NameTaken(_)
        | Lifecycle::Failed(_) => None,
    };
    let access = if observed.is_requested() { exec_access::writes(observed) } else { vec![] };
    match write {
        // What lets a Pod in is there before it.
        Some(write @ Write::Create(_)) => access.into_iter().chain([write]).collect(),
        write => write.into_iter().chain(access).collect(),
    }
}

/// What to say about the sandbox.
#[must_use]
pub fn report(observed: &Observed) -> Report<SandboxStatus> {
    summary::report(observed)
}

/// Whether the Pod is missing that the sandbox says was there: it has ended, or the sandbox itself is gone, and the watch is late
/// to tell.
#[must_use]
pub fn child_disappeared(observed: &Observed) -> bool {
    let status = observed.sandbox.status.as_ref();
    observed.pod == ChildState::Absent
        && status.is_some_and(|status| status.pod_name.is_some() && status.attached.is_none())
}

/// Whether the last initialiser of the sandbox failed, as it says.
#[must_use]
pub fn has_failed_init(sandbox: &Sandbox) -> bool {
    let init = sandbox.status.as_ref().and_then(|status| status.init.as_ref());
    init.is_some_and(|init| init.outcome == InitOutcome::Failed)
}

/// Where a sandbox stands among those of its session and type: the session's own before those that were made by hand, one that goes
/// behind all others, and the older before the younger.
pub type Rank = (bool, bool, Option<Time>, String);

/// The rank of a sandbox; none of one that its session does not take for one of the type.
#[must_use]
pub fn rank(sandbox: &Sandbox) -> Option<Rank> {
    let (session, label) = (sandbox.spec.session.as_ref()?, Label::of(&sandbox.spec.sandbox_type).ok()?);
    let is_hand_made = is_hand_made(sandbox);
    if is_runner(sandbox) || !(is_hand_made || sandbox.name_any() == name::child(session, label)) {
        return None;
    }
    let ObjectMeta { creation_timestamp, deletion_timestamp, .. } = &sandbox.metadata;
    Some((is_hand_made, deletion_timestamp.is_some(), creation_timestamp.clone(), sandbox.name_any()))
}

/// How many of a type matter: the session's own, and the first of those that were made by hand.
pub const FIRST: usize = 2;

/// How many types are followed from what a sandbox depends on.
const MOST_TYPES: usize = 128;

/// The others of its session that matter to a sandbox, in the words of whoever knows the [first](FIRST) of a type by their
/// [`rank`]: of its own type where it was made by hand, of those that it depends on, and of what these depend on.
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

/// Whether the Pod is to make room for a new one now: its user asked for a start, or it is not ready and its template, or its
/// session's request, is newer.
fn wants_new_pod(observed: &Observed) -> bool {
    let Some(pod) = observed.pod.owned().filter(|_| observed.is_requested()) else { return false };
    let sandbox = &observed.sandbox;
    let update = sandbox.spec.template.update_policy() == UpdatePolicy::Recreate;
    match Progress::of(pod, meta::SANDBOX_CONTAINER) {
        Progress::Terminating => false,
        Progress::Ready => {
            restart_requested(pod, meta::RESTART, sandbox.annotations()) || (update && is_outdated(observed))
        }
        _ => {
            restart_requested(pod, meta::RESTART, sandbox.annotations())
                || is_outdated(observed)
                || observed.session.found().is_some_and(|session| session_restart_requested(pod, session))
        }
    }
}

/// Whether the user has changed the annotation that asks for a start since the Pod was made.
fn restart_requested(pod: &Pod, recorded: &str, annotations: &BTreeMap<String, String>) -> bool {
    annotations.get(meta::RESTART).is_some_and(|request| annotation(pod, recorded) != Some(request))
}

fn session_restart_requested(pod: &Pod, session: &AigiseSession) -> bool {
    restart_requested(pod, meta::SESSION_RESTART, session.annotations())
}

/// A session's request is for those that are not ready: one that is ready has heeded it by going on.
fn acknowledge_session_restart(observed: &Observed, mut pod: Box<Pod>) -> Option<Box<Pod>> {
    let session = observed.session.found().filter(|session| session_restart_requested(&pod, session))?;
    let request = session.annotations().get(meta::RESTART)?.clone();
    pod.annotations_mut().insert(meta::SESSION_RESTART.into(), request);
    Some(pod)
}

/// Whether the Pod was made from another template than the Sandbox has now.
fn is_outdated(observed: &Observed) -> bool {
    // Without its session nobody knows what it was made from, and nothing can be made anew.
    let is_known = observed.sandbox.spec.session.is_none() || observed.session.found().is_some();
    observed.pod.owned().is_some_and(|pod| {
        is_known && annotation(pod, meta::TEMPLATE_HASH) != Some(pod::template_hash(observed).as_str())
    })
}
