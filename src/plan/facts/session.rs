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

/// Whether the session may still discard what it has restored from a cache.
pub fn may_discard(session: &AigiseSession) -> bool {
    let Some(status) = session.status.as_ref() else { return false };
    let data = status.cache.as_ref().and_then(|cache| cache.data.as_ref());
    let is_restored = data.is_some_and(|data| matches!(data.result, CacheResult::Restored | CacheResult::Discarded));
    is_restored && is_starting(status)
}

/// Whether agents wait for what the session does about its cache.
pub fn holds_agents(session: &AigiseSession) -> bool {
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
