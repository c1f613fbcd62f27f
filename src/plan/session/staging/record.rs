//! The record in the session's status that its volumes are filled: from which sources, and in which claims. It outlives the stage Pod.

use super::{Observed, Staging, asks_anew, own_volumes, sources::list};
use crate::{
    api::session::{FilledStatus, VolumesStatus},
    plan::{ChildState, session::configuration},
};

/// [`Staging::Done`] if the volumes are filled according to the record, and nothing asks to fill them again.
pub(super) fn read(observed: &Observed) -> Option<Staging> {
    let VolumesStatus { tools, staged_digest, filled, .. } = observed.session.status()?.volumes.as_ref()?;
    let filled = filled.as_ref()?;
    let tools = tools.clone().unwrap_or_default();
    let is_same = filled.sources == list(&observed.session) || nothing_was_edited(observed, &tools.roots);
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
    own_volumes(&observed.session).all(|volume| match observed.claims.get(&volume) {
        Some(ChildState::Owned(claim)) => claim.metadata.uid.as_ref() == filled.claims.get(&volume.to_string()),
        Some(ChildState::Failed(_)) => true,
        Some(ChildState::Absent | ChildState::Foreign(_)) | None => false,
    })
}

/// The record for volumes that are filled.
pub(in crate::plan::session) fn write(observed: &Observed, staging: &Staging) -> Option<FilledStatus> {
    let Staging::Done { kept, request, .. } = staging else { return None };
    let claims = own_volumes(&observed.session).filter_map(|volume| {
        let known = || observed.session.status()?.volumes.as_ref()?.filled.as_ref()?.claims.get(&volume.to_string());
        let claim = observed.claims.get(&volume)?;
        let uid = claim.owned().map_or_else(|| known().cloned(), |claim| claim.metadata.uid.clone());
        Some((volume.to_string(), uid?))
    });
    Some(FilledStatus {
        sources: list(&observed.session),
        claims: claims.collect(),
        request: request.clone(),
        kept: *kept,
    })
}
