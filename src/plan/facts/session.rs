//! Questions about one session, as it is stored.

use kube::ResourceExt;

use crate::{
    api::{
        AigiseSession, AigiseSessionStatus,
        condition::{ConditionType, Reason},
        sandbox::SeenSession,
        session::{CacheResult, SaveMode, SaveState, SessionPhase},
    },
    plan::name,
};

/// Whether the session is suspended or expired, according to its spec and status. Its sandboxes then have no Pods.
pub fn is_inactive(session: &AigiseSession) -> bool {
    let phase = session.status.as_ref().and_then(|status| status.phase);
    session.spec.is_suspended() || matches!(phase, Some(SessionPhase::Suspended | SessionPhase::Expired))
}

/// Whether the session has failed, according to its status.
pub fn has_failed(session: &AigiseSession) -> bool {
    session.status.as_ref().and_then(|status| status.phase) == Some(SessionPhase::Error)
}

/// Whether the session has filled its volumes, according to its status.
pub fn has_volumes(session: &AigiseSession) -> bool {
    let conditions = session.status.iter().flat_map(|status| &status.conditions);
    let staged = [Reason::Staged.to_string(), Reason::VolumesPending.to_string()];
    let kind = ConditionType::VolumesReady.to_string();
    conditions.into_iter().any(|condition| condition.type_ == kind && staged.contains(&condition.reason))
}

/// Whether the session saves its cache before anybody works in its sandboxes, and has not done so yet.
pub fn saves_first(session: &AigiseSession) -> bool {
    let asks = session.spec.cache.as_ref().is_some_and(|cache| cache.save() != SaveMode::Never);
    let Some(status) = session.status.as_ref().filter(|_| asks) else { return false };
    match status.cache.as_ref().map(|cache| &cache.save) {
        Some(Some(save)) => save.state == SaveState::Running,
        Some(None) => is_starting(status),
        None => false,
    }
}

/// Whether the session may still discard what it has restored from a cache. Agents and sandboxes that users created wait for that.
pub fn may_discard(session: &AigiseSession) -> bool {
    let Some(status) = session.status.as_ref().filter(|status| !may_be_worked_in(status)) else { return false };
    let data = status.cache.as_ref().and_then(|cache| cache.data.as_ref());
    match data.map(|data| data.result) {
        Some(CacheResult::Restored) => session.spec.cache.is_some(),
        Some(CacheResult::Discarded) => true,
        _ => false,
    }
}

/// Whether somebody may have worked in the session: all of its sandboxes were ready, or agents were no longer held. What became of saving is
/// decided then, and stays when a suspended session forgets since when it was ready.
pub fn may_be_worked_in(status: &AigiseSessionStatus) -> bool {
    status.ready_at.is_some() || status.cache.as_ref().is_some_and(|cache| cache.save.is_some())
}

/// Whether agents, and sandboxes that users created, wait for what the session does about its cache.
pub fn holds_others(session: &AigiseSession) -> bool {
    saves_first(session) || may_discard(session)
}

fn is_starting(status: &AigiseSessionStatus) -> bool {
    !matches!(status.phase, Some(SessionPhase::Error | SessionPhase::Degraded)) && status.ready_at.is_none()
}

/// The name of a session's Secret.
pub fn secret_name(session: &impl ResourceExt) -> String {
    name::child(&session.name_any(), "config")
}

/// The name of the role for the agents of a session.
pub fn role_name(session: &impl ResourceExt) -> String {
    name::child(&session.name_any(), "exec")
}

/// Whether this session is not the recorded one, but another session with the same name.
pub fn is_other_session(seen: Option<&SeenSession>, session: &impl ResourceExt) -> bool {
    seen.is_some_and(|seen| Some(&seen.uid) != session.meta().uid.as_ref())
}
