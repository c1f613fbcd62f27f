//! Questions about one Sandbox, as it is stored.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time};
use kube::ResourceExt;

use super::session;
use crate::{
    api::{Sandbox, init::InitOutcome, meta},
    plan::{
        name::{self, Label},
        ownership,
    },
};

/// Whether a user created the sandbox: the Sandboxes of sessions and agents record their owner.
pub fn is_hand_made(sandbox: &Sandbox) -> bool {
    ownership::owner_uid(&sandbox.metadata).is_none()
}

/// Whether an agent created the sandbox, to run in it.
pub fn is_runner(sandbox: &Sandbox) -> bool {
    let controller = ownership::controller(&sandbox.metadata);
    controller.is_some_and(|owner| owner.kind == "Agent" && owner.api_version.starts_with(meta::GROUP))
}

/// The Sandbox with the changes that its creator requires; `None` if it needs no change. The user's `suspend`, labels and annotations are
/// kept.
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

/// Whether the sandbox belongs to this session: the session created it, or a user created it for this session.
pub fn belongs_to(sandbox: &Sandbox, session: &impl ResourceExt) -> bool {
    match ownership::owner_uid(&sandbox.metadata) {
        Some(owner) => session.meta().uid.as_deref() == Some(owner),
        None => !belonged_to_other_session(sandbox, session),
    }
}

/// Whether a user created the sandbox for an earlier session with this session's name. The sandbox follows that session, not this one.
pub fn belonged_to_other_session(sandbox: &Sandbox, session: &impl ResourceExt) -> bool {
    let seen = sandbox.status.as_ref().and_then(|status| status.session.as_ref());
    is_hand_made(sandbox) && session::is_other_session(seen, session)
}

/// Whether the sandbox's status reports that its last initialiser failed.
pub fn has_failed_init(sandbox: &Sandbox) -> bool {
    let init = sandbox.status.as_ref().and_then(|status| status.init.as_ref());
    init.is_some_and(|init| init.outcome == InitOutcome::Failed)
}

/// The order of sandboxes of one session and type: the session's own sandbox first, then sandboxes that users created; among these,
/// sandboxes that are being deleted last, and older sandboxes before younger ones.
pub type Rank = (bool, bool, Option<Time>, String);

/// The rank of a sandbox; `None` if its session does not count it as a sandbox of the type.
pub fn rank(sandbox: &Sandbox) -> Option<Rank> {
    let (session, label) = (sandbox.spec.session.as_ref()?, Label::of(&sandbox.spec.sandbox_type).ok()?);
    let is_hand_made = is_hand_made(sandbox);
    if is_runner(sandbox) || !(is_hand_made || sandbox.name_any() == name::child(session, label)) {
        return None;
    }
    let ObjectMeta { creation_timestamp, deletion_timestamp, .. } = &sandbox.metadata;
    Some((is_hand_made, deletion_timestamp.is_some(), creation_timestamp.clone(), sandbox.name_any()))
}
