//! What belongs to a session and was made by its users. It has no owner reference: nothing of a user's is written. So each
//! remembers in its status which session it belongs to, and when that is gone, what was to become of it.

use kube::ResourceExt;

use crate::api::{AigiseSession, sandbox::SeenSession};

/// Whether this session, which has the name, is another than the one that was seen.
#[must_use]
pub fn is_other_session(seen: Option<&SeenSession>, session: &AigiseSession) -> bool {
    seen.is_some_and(|seen| Some(&seen.uid) != session.metadata.uid.as_ref())
}

/// The session as it is; of one that is gone, what was last seen of it.
#[must_use]
pub fn remembered(seen: Option<&SeenSession>, session: Option<&AigiseSession>) -> Option<SeenSession> {
    let present = session.filter(|session| !is_other_session(seen, session));
    let now = present
        .map(|session| SeenSession { uid: session.uid().unwrap_or_default(), auto_cleanup: session.spec.cleans_up() });
    now.or_else(|| seen.cloned())
}
