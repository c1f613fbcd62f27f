//! The record in the session's status that its volumes are filled: from which sources, and in which claims. It outlives the stage Pod.
//! It is removed before the next stage Pod is created, and not before: if a source of an edited list does not exist, taking the edit back is
//! enough.

use super::{Observed, Staging, are_sources_known, asks_anew, own_claims, sources::list};
use crate::{
    api::session::{FilledStatus, VolumesStatus},
    plan::{ChildState, session::configuration},
};

/// [`Staging::Done`] if the volumes are filled according to the record, and nothing asks to fill them again.
pub(super) fn read(observed: &Observed) -> Option<Staging> {
    let VolumesStatus { tools, staged_digest, .. } = observed.session.status()?.volumes.as_ref()?;
    let filled = stored(observed)?;
    let tools = tools.clone().unwrap_or_default();
    let is_same =
        filled.sources == list(&observed.session) || (!filled.outdated && nothing_was_edited(observed, &tools.roots));
    if !is_same || asks_anew(&observed.session, filled.request.as_deref()) || !has_same_claims(observed, filled) {
        return None;
    }
    Some(Staging::Done {
        digest: staged_digest.clone().unwrap_or_default(),
        roots: tools.roots,
        skills: tools.skills,
        kept: filled.kept,
        request: filled.request.clone(),
    })
}

/// Whether the session is as it was when the record was written. A digest that differs nevertheless was computed by another version of the
/// operator.
fn nothing_was_edited(observed: &Observed, staged_roots: &[String]) -> bool {
    let session = &observed.session;
    let status = session.status();
    let requested_roots = session.tools_top_roots().into_iter().flatten();
    status.is_some_and(|status| {
        status.observed_generation == session.metadata().generation
            && status.configuration == configuration::kept(observed)
    }) && requested_roots.into_iter().all(|root| staged_roots.contains(root))
}

/// Whether the claims are those that were filled. A claim that cannot be read is not taken for another one.
fn has_same_claims(observed: &Observed, filled: &FilledStatus) -> bool {
    own_claims(&observed.session).all(|volume| match observed.claims.get(&volume) {
        Some(ChildState::Owned(claim)) => claim.metadata.uid.as_ref() == filled.claims.get(&volume.to_string()),
        Some(ChildState::Failed(_)) => true,
        Some(ChildState::Absent | ChildState::Foreign(_)) | None => false,
    })
}

/// Whether the status has a record, though perhaps an outdated one.
pub(in crate::plan::session) fn is_stored(observed: &Observed) -> bool {
    stored(observed).is_some()
}

/// The record in the status.
fn stored(observed: &Observed) -> Option<&FilledStatus> {
    observed.session.status()?.volumes.as_ref()?.filled.as_ref()
}

/// The record for the status: of volumes that are filled, or the previous one while the next stage Pod waits for a source.
pub(in crate::plan::session) fn write(observed: &Observed, staging: &Staging) -> Option<FilledStatus> {
    let (kept, request) = match staging {
        Staging::Done { kept, request, .. } => (kept, request),
        Staging::NotStarted | Staging::Superseded if !are_sources_known(observed) => {
            return stored(observed).map(|record| FilledStatus { outdated: true, ..record.clone() });
        }
        Staging::Unneeded
        | Staging::NotStarted
        | Staging::Superseded
        | Staging::InProgress(_)
        | Staging::Interrupted(_)
        | Staging::Failed { .. } => return None,
    };
    let claims = own_claims(&observed.session).filter_map(|volume| {
        let known = || stored(observed)?.claims.get(&volume.to_string());
        let claim = observed.claims.get(&volume)?;
        let uid = claim.owned().map_or_else(|| known().cloned(), |claim| claim.metadata.uid.clone());
        Some((volume.to_string(), uid?))
    });
    Some(FilledStatus {
        sources: list(&observed.session),
        claims: claims.collect(),
        request: request.clone(),
        kept: *kept,
        outdated: false,
    })
}
