//! How long a session lives.

use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;

use super::EffectiveSession;
use crate::{
    api::meta,
    plan::{Below, Invalid, duration},
};

/// The time limits of a session. A limit that is not a duration is an error of the session, and no limit here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lifetime {
    /// How long after its creation the session ends.
    pub ttl: Option<SignedDuration>,
    /// After which time without activity the session is suspended.
    pub idle: Option<SignedDuration>,
}

impl EffectiveSession {
    /// The time limits.
    pub fn lifetime(&self) -> Lifetime {
        let parse = |text: &Option<String>| text.as_deref().and_then(duration::parse);
        let lifetime = self.spec().lifetime.as_ref();
        lifetime.map_or_else(Lifetime::default, |lifetime| Lifetime {
            ttl: parse(&lifetime.ttl),
            idle: parse(&lifetime.idle),
        })
    }

    /// The time of the last activity, according to the annotation.
    ///
    /// # Errors
    /// When the annotation is not a time.
    pub fn last_activity(&self) -> Result<Option<Timestamp>, Invalid> {
        let Some(text) = self.annotations().get(meta::LAST_ACTIVITY) else { return Ok(None) };
        text.parse().map(Some).map_err(|_| {
            let annotation = meta::LAST_ACTIVITY;
            let why = format!("`{text}` in {annotation} is not a valid RFC 3339 time, such as 2026-01-31T12:00:00Z.");
            Invalid::new("metadata.annotations", why)
        })
    }
}

/// Checks the time limits.
pub(super) fn check(session: &EffectiveSession) -> Result<(), Invalid> {
    let Some(lifetime) = &session.spec().lifetime else { return Ok(()) };
    duration::check(lifetime.ttl.as_deref()).below("spec.lifetime.ttl")?;
    duration::check(lifetime.idle.as_deref()).below("spec.lifetime.idle")
}
