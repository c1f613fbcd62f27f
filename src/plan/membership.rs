//! Objects that belong to a session but were created by users. They have no owner reference, since the operator does not change users'
//! objects. Instead, the status of each records which session it belongs to, and what happens to the object when that session is gone.

use kube::ResourceExt;

use crate::api::{AigiseSession, sandbox::SeenSession};

/// Whether this session is not the recorded one, but another session with the same name.
#[must_use]
pub fn is_other_session(seen: Option<&SeenSession>, session: &AigiseSession) -> bool {
    seen.is_some_and(|seen| Some(&seen.uid) != session.metadata.uid.as_ref())
}

/// What to record about the session: its present state, or, if the session is gone, the last record.
#[must_use]
pub fn remembered(seen: Option<&SeenSession>, session: Option<&AigiseSession>) -> Option<SeenSession> {
    let present = session.filter(|session| !is_other_session(seen, session));
    let now = present
        .map(|session| SeenSession { uid: session.uid().unwrap_or_default(), auto_cleanup: session.spec.cleans_up() });
    now.or_else(|| seen.cloned())
}
