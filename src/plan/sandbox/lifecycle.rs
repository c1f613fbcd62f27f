//! Where a sandbox is in its life. The checks are in order, and users read the first that applies.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;
use strum::IntoStaticStr;

use super::{
    Observed, Progress,
    attach::Attachment,
    init::{self, InitPhase, failure, has_init},
    pod, restart,
};
use crate::{
    api::{Sandbox, condition::Reason, meta},
    plan::{
        Below, ChildState, Failure, Foreign, Invalid, Lookup,
        effective::EffectiveSession,
        facts::sandbox::{is_hand_made, is_runner},
        name::{self, Label},
        ownership,
        pod::{Hold, hold, running_since},
        reserved, template,
    },
    protocol::init::InitFailure,
};

/// How long after its grace period a Pod may still exist before its node is considered lost.
const OVERDUE: SignedDuration = SignedDuration::from_secs(60);

/// Where a sandbox is in its life.
#[derive(Clone, Debug, PartialEq, IntoStaticStr)]
pub enum Lifecycle {
    /// The Sandbox is being deleted; garbage collection deletes its Pod.
    Terminating,
    /// A user created the sandbox for a session that is gone: the sandbox is deleted as well.
    SessionGone,
    /// The Sandbox itself has a problem; nothing is created.
    Blocked(Failure),
    /// The sandbox attaches to an existing Pod.
    Attached(Attachment),
    /// The sandbox is suspended and must have no Pod.
    Suspended {
        /// Whether the session, and not the sandbox, is suspended.
        by_session: bool,
        /// Whether the Pod still exists.
        ending: bool,
    },
    /// A foreign object has the name of the Pod or of its exec access. The sandbox waits and changes nothing.
    NameTaken(Foreign),
    /// The Pod, its exec access or the session could not be read or written.
    Failed(Failure),
    /// A user created the sandbox, and its session has not filled the volumes yet.
    WaitsForVolumes(String),
    /// The sandbox is to run an agent; the agent does not request this Sandbox, or the exec access does not exist yet.
    WaitsForAgent(String),
    /// There is no Pod: this Pod is created.
    NoPod(Box<Pod>),
    /// There is a Pod with this progress.
    Pod(Progress),
    /// The container runs, and the init work has not succeeded yet.
    Initializing(InitPhase),
    /// The init work failed. It is not retried without the user.
    InitFailed(InitFailure),
    /// The root file system could not be restored from the session's cache. The session decides what starts without it.
    NotRestored(InitFailure),
    /// There is a Pod, and its session is gone: the Pod could not be recreated, so it is left as it is.
    Orphaned(Progress),
    /// The node of the Pod does not respond.
    NodeLost {
        /// The node.
        node: String,
        /// Whether the Pod should have been deleted.
        ending: bool,
    },
    /// The container ended, or the kubelet refused the Pod: the sandbox is restarted after a pause.
    Restarting {
        /// What happened.
        message: String,
        /// The number of restarts in a row with which the next Pod is created. A refused Pod does not raise it.
        count: i32,
        /// When the pause is over.
        at: Timestamp,
    },
    /// The container ended with exit code 0, and is not restarted.
    Finished {
        /// How the container ended.
        message: String,
    },
}

/// The relation of a sandbox to a session.
enum Membership<'a> {
    /// The sandbox belongs to no session.
    Alone,
    /// The sandbox belongs to this session.
    Of(&'a EffectiveSession),
    /// The session is gone, and the sandbox was kept.
    Orphaned,
}

impl Lifecycle {
    /// Derives the lifecycle of the sandbox.
    pub fn of(observed: &Observed) -> Self {
        let sandbox = &observed.sandbox;
        if sandbox.metadata.deletion_timestamp.is_some() {
            return Lifecycle::Terminating;
        }
        let label = match observed.label() {
            Ok(label) => label,
            Err(error) => return Lifecycle::Blocked(Invalid::new("spec.type", format!("{error}.")).into()),
        };
        let membership = match membership(observed, &label) {
            Ok(membership) => membership,
            Err(lifecycle) => return *lifecycle,
        };
        let session = match membership {
            Membership::Of(session) => Some(session),
            Membership::Alone | Membership::Orphaned => None,
        };
        // Suspension takes precedence: it works even if the rest of the spec is invalid.
        let by_session = session.is_some_and(EffectiveSession::is_inactive);
        if by_session || sandbox.spec.suspend == Some(true) {
            return match &observed.pod {
                ChildState::Failed(failure) => Lifecycle::Failed(failure.clone()),
                child => Lifecycle::Suspended { by_session, ending: child.owned().is_some() },
            };
        }
        if let Err(invalid) = check(observed, &label, session) {
            return Lifecycle::Blocked(invalid.into());
        }
        if let Some(attach) = &sandbox.spec.template.attach {
            return Lifecycle::Attached(Attachment::of(observed, attach));
        }
        match &observed.pod {
            ChildState::Absent => absent(observed, &label, &membership),
            ChildState::Owned(pod) if matches!(membership, Membership::Orphaned) => {
                Lifecycle::Orphaned(Progress::of(pod, meta::SANDBOX_CONTAINER))
            }
            ChildState::Owned(pod) => present(observed, pod),
            ChildState::Foreign(foreign) => Lifecycle::NameTaken(foreign.clone()),
            ChildState::Failed(failure) => Lifecycle::Failed(failure.clone()),
        }
    }
}

fn absent(observed: &Observed, label: &Label, membership: &Membership<'_>) -> Lifecycle {
    let sandbox = &observed.sandbox;
    let blocked = |reason, message| Lifecycle::Blocked(Failure { reason, message });
    let name = sandbox.spec.session.as_deref().unwrap_or_default();
    match membership {
        Membership::Orphaned => {
            let message = format!("The session {name} and the Pod are gone, so the sandbox cannot be started again.");
            return blocked(Reason::SessionNotFound, message);
        }
        Membership::Of(session) if session.metadata().deletion_timestamp.is_some() => {
            let message = format!("The session {name} is being deleted.");
            return Lifecycle::Failed(Failure { reason: Reason::Terminating, message });
        }
        Membership::Of(session) if is_hand_made(sandbox) && !session.has_volumes() => {
            return Lifecycle::WaitsForVolumes(format!("The session {name} has not filled its volumes yet."));
        }
        Membership::Of(session) if is_hand_made(sandbox) && session.holds_others() => {
            return Lifecycle::WaitsForVolumes(format!(
                "The session {name} has not saved its cache yet, or may still discard what it has restored from one."
            ));
        }
        Membership::Of(_) | Membership::Alone => {}
    }
    if let Some(lifecycle) = waits_for_agent(observed) {
        return lifecycle;
    }
    match pod::pod(observed, label) {
        Ok(pod) => Lifecycle::NoPod(Box::new(pod)),
        Err(invalid) => Lifecycle::Blocked(invalid.into()),
    }
}

/// What the Pod of an agent needs before it can be created.
fn waits_for_agent(observed: &Observed) -> Option<Lifecycle> {
    if !observed.is_requested() {
        let name = ownership::controller(&observed.sandbox.metadata).map_or("", |agent| &agent.name);
        return Some(Lifecycle::WaitsForAgent(format!(
            "The agent {name} does not request this Sandbox with its present spec, so no Pod is created."
        )));
    }
    let access = observed.exec_access.as_ref()?;
    if let Some(foreign) = access.foreign() {
        return Some(Lifecycle::NameTaken(foreign.clone()));
    }
    if let Some(failure) = access.failure() {
        return Some(Lifecycle::Failed(failure.clone()));
    }
    let has_role = access.role.owned().is_some();
    let message = "The sandbox waits for the role that its session creates for agents.";
    (!has_role).then(|| Lifecycle::WaitsForAgent(message.into()))
}

fn present(observed: &Observed, pod: &Pod) -> Lifecycle {
    let node = || pod.spec.as_ref().and_then(|spec| spec.node_name.clone()).unwrap_or_default();
    let progress = Progress::of(pod, meta::SANDBOX_CONTAINER);
    if let Some(failure) = failure(observed, pod, &progress) {
        let not_restored = failure.restore.is_some();
        return if not_restored { Lifecycle::NotRestored(failure) } else { Lifecycle::InitFailed(failure) };
    }
    match progress {
        Progress::Initializing { since } if has_init(pod) && !init::is_recorded(observed, pod) => {
            Lifecycle::Initializing(InitPhase::of(observed, pod, since))
        }
        Progress::Running | Progress::HeldBack { .. } | Progress::Ready
            if init::awaits_success(observed, pod, &progress) =>
        {
            Lifecycle::Initializing(InitPhase::of(observed, pod, running_since(pod, meta::SANDBOX_CONTAINER)))
        }
        Progress::Terminating if is_lost(observed, pod) => Lifecycle::NodeLost { node: node(), ending: true },
        Progress::Silent => Lifecycle::NodeLost { node: node(), ending: false },
        progress => restart::after(observed, pod, progress),
    }
}

/// When a Pod that is being deleted becomes overdue. Its deletion timestamp includes the grace period.
pub(super) fn overdue_at(pod: &Pod) -> Option<Timestamp> {
    pod.metadata.deletion_timestamp.as_ref()?.0.checked_add(OVERDUE).ok()
}

/// Whether a Pod that is being deleted is still there although it should be gone.
pub(super) fn is_overdue(observed: &Observed, pod: &Pod) -> bool {
    overdue_at(pod).is_some_and(|at| at <= observed.now)
}

/// Whether an overdue Pod can only wait for its node.
fn is_lost(observed: &Observed, pod: &Pod) -> bool {
    let has_node = pod.spec.as_ref().is_some_and(|spec| spec.node_name.is_some());
    has_node && is_overdue(observed, pod) && hold(pod) == Some(Hold::Containers)
}

/// Checks the rules that admission cannot enforce, and rules that may be newer than the object.
fn check(observed: &Observed, label: &Label, session: Option<&EffectiveSession>) -> Result<(), Invalid> {
    let sandbox = &observed.sandbox;
    template::check(&sandbox.spec.template, &observed.settings).below("spec")?;
    check_volumes(sandbox).below("spec.volumes")?;
    init::check_needs(sandbox, label)?;
    session.map_or(Ok(()), |session| init::check_session_needs(observed, session))
}

fn membership<'a>(observed: &'a Observed, label: &Label) -> Result<Membership<'a>, Box<Lifecycle>> {
    let sandbox = &observed.sandbox;
    let blocked = |reason, message| Box::new(Lifecycle::Blocked(Failure { reason, message }));
    let failed = |failure| Box::new(Lifecycle::Failed(failure));
    let hand_made = is_hand_made(sandbox);
    if hand_made && name::is_derived(&sandbox.name_any()) {
        let message = "metadata.name: names with `--` are reserved for the sandboxes of sessions; use another name.";
        return Err(blocked(Reason::InvalidSpec, message.into()));
    }
    let Some(name) = &sandbox.spec.session else { return Ok(Membership::Alone) };
    let session = match &observed.session {
        Lookup::Found(session) => Some(session),
        Lookup::Failed(failure) => return Err(failed(failure.clone())),
        Lookup::Missing | Lookup::NotNamed => None,
    };
    let misnamed = || {
        let expected = name::child(name, label);
        let message = format!("metadata.name must be {expected}: it is derived from session and type.");
        blocked(Reason::InvalidSpec, message)
    };
    if is_runner(sandbox) {
        return match session {
            Some(session) if sandbox.name_any() == name::child(name, label) => Ok(Membership::Of(session)),
            Some(_) => Err(misnamed()),
            // The Sandbox is deleted with its agent.
            None => Ok(Membership::Orphaned),
        };
    }
    let own = session.filter(|session| observed.is_sessions_own(session));
    if let Some(session) = own {
        return if sandbox.name_any() == name::child(name, label) {
            Ok(Membership::Of(session))
        } else {
            Err(misnamed())
        };
    }
    if !hand_made {
        return if ownership::controller(&sandbox.metadata).is_none() {
            Ok(Membership::Orphaned)
        } else {
            let message = format!("The session {name} was deleted; this sandbox is deleted with it.");
            Err(failed(Failure { reason: Reason::Terminating, message }))
        };
    }
    let seen = sandbox.status.as_ref().and_then(|status| status.session.as_ref());
    if let Some(seen) = seen.filter(|seen| session.and_then(|session| session.uid()).as_ref() != Some(&seen.uid)) {
        return if seen.auto_cleanup { Err(Box::new(Lifecycle::SessionGone)) } else { Ok(Membership::Orphaned) };
    }
    let Some(session) = session else {
        return Err(blocked(Reason::SessionNotFound, format!("There is no session {name} in this namespace.")));
    };
    match rival(observed, session, label) {
        Some(rival) => {
            let message = format!(
                "The session {name} has a sandbox of the type {} already: {rival}. Delete one of them.",
                sandbox.spec.sandbox_type
            );
            Err(blocked(Reason::DuplicateType, message))
        }
        None => Ok(Membership::Of(session)),
    }
}

/// The sandbox with which a user's sandbox competes for its type: the session's own, or the user's oldest sandbox of the type.
fn rival(observed: &Observed, session: &EffectiveSession, label: &Label) -> Option<String> {
    if session.launched_labels().any(|(_, own)| own == *label) {
        return Some(name::child(&session.name_any(), label));
    }
    let age = |sandbox: &Sandbox| (sandbox.metadata.creation_timestamp.clone(), sandbox.name_any());
    let same = observed.siblings.iter().filter(|sibling| {
        is_hand_made(sibling)
            && sibling.metadata.deletion_timestamp.is_none()
            && Label::of(&sibling.spec.sandbox_type).as_ref() == Ok(label)
            && age(sibling) < age(&observed.sandbox)
    });
    same.min_by_key(|sibling| age(sibling)).map(|sibling| sibling.name_any())
}

/// Checks the claims that a sandbox mounts in addition to those of its session.
fn check_volumes(sandbox: &Sandbox) -> Result<(), Invalid> {
    let volumes = &sandbox.spec.volumes;
    for (index, volume) in volumes.iter().enumerate() {
        let place = reserved::segments(&volume.mount_path);
        if reserved::is_volume(&volume.name) {
            let why = format!("{} is reserved for a volume of the operator.", volume.name);
            return Err(Invalid::new("name", why).at(index));
        }
        if reserved::is_taken(&volume.mount_path) {
            let why = format!("{} is reserved for the operator.", volume.mount_path);
            return Err(Invalid::new("mountPath", why).at(index));
        }
        let earlier = &volumes[..index];
        if earlier.iter().any(|other| other.name == volume.name || reserved::segments(&other.mount_path) == place) {
            return Err(Invalid::whole("another volume has the same name or mountPath.").at(index));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_claim_is_mounted_over_nothing_of_ours_and_nothing_twice() {
        let complaint = |volumes: &[(&str, &str)]| {
            let volumes: Vec<_> =
                volumes.iter().map(|(name, path)| json!({"name": name, "claimName": "c", "mountPath": path})).collect();
            let spec = json!({"type": "main", "image": "a", "volumes": volumes});
            let sandbox = serde_json::from_value(json!({"metadata": {"name": "s"}, "spec": spec})).unwrap();
            check_volumes(&sandbox).map_err(|invalid| invalid.to_string())
        };
        assert_eq!(complaint(&[("a", "/a"), ("b", "/shared/b"), ("c", "/b/../c")]), Ok(()));
        for path in ["/", "/shared", "/aigise/", "/aigise/.", "//run/aigise/.", "/a/../shared", "/run/aigise/pod/"] {
            assert!(complaint(&[("a", path)]).unwrap_err().contains("is reserved"), "{path}");
        }
        for path in ["/a", "/a/.", "/b/../a/"] {
            assert!(complaint(&[("a", "/a"), ("b", path)]).unwrap_err().contains("another volume"), "{path}");
        }
    }
}
