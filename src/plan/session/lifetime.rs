//! The lifetime of a session, and its suspension when idle. All times are derived from objects in the API server, so they are independent
//! of restarts of the operator.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;

use super::{Observed, agents};
use crate::{
    api::session::{FutureActivity, SessionPhase},
    plan::effective::EffectiveSession,
};

/// Why a session is suspended: its Pods are deleted, its volumes are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SuspendReason {
    /// `spec.suspend`.
    Wanted,
    /// Nothing happened in it for as long as its lifetime allows.
    Idle,
}

/// How long before its end a session is expiring: a tenth of its lifetime, but at most this.
const SOON: SignedDuration = SignedDuration::from_mins(10);

/// How much later a session may end than its lifetime says: up to a twentieth of the lifetime, but at most this. Sessions that were
/// created together therefore do not end together.
const SPREAD: SignedDuration = SignedDuration::from_mins(1);

/// How far the clock of another machine may be ahead. An activity up to this time in the future is taken as it is, which costs no
/// write of the status: the session is suspended that much later.
const CLOCK_SKEW: SignedDuration = SignedDuration::from_mins(5);

/// The lifetime of the session, and when it ends.
fn end(session: &EffectiveSession) -> Option<(SignedDuration, Timestamp)> {
    let ttl = session.lifetime().ttl?;
    let created = session.metadata().creation_timestamp.as_ref()?.0;
    let most = (ttl / 20).min(SPREAD).as_secs();
    // The UID is random already.
    let random =
        session.uid().unwrap_or_default().bytes().fold(7_i64, |sum, byte| (sum * 31 + i64::from(byte)) % 65_521);
    let spread = SignedDuration::from_secs(random % (most + 1));
    Some((ttl, created.checked_add(ttl).and_then(|end| end.checked_add(spread)).unwrap_or(Timestamp::MAX)))
}

/// When the lifetime of the session ends.
pub(super) fn expires_at(session: &EffectiveSession) -> Option<Time> {
    // The API server stores whole seconds.
    end(session).and_then(|(_, end)| Timestamp::from_second(end.as_second()).ok()).map(Time)
}

/// Whether the session is expiring.
pub(super) fn expires_soon(observed: &Observed) -> bool {
    soon(&observed.session).is_some_and(|soon| soon <= observed.now)
}

fn soon(session: &EffectiveSession) -> Option<Timestamp> {
    let (ttl, end) = end(session)?;
    end.checked_sub((ttl / 10).min(SOON)).ok()
}

/// Whether the session has expired.
pub(super) fn is_expired(observed: &Observed) -> bool {
    end(&observed.session).is_some_and(|(_, end)| end <= observed.now)
}

/// When the sandboxes were last started: the time in the status, unless the user has suspended the session.
pub(super) fn started_at(observed: &Observed) -> Option<Time> {
    if observed.session.is_suspended() {
        return None;
    }
    let before = observed.session.status().and_then(|status| status.started_at.clone());
    Some(before.unwrap_or(Time(observed.now)))
}

/// When all sandboxes were ready for the first time since they were started.
pub(super) fn ready_at(observed: &Observed, is_ready: bool) -> Option<Time> {
    if observed.session.is_suspended() {
        return None;
    }
    let before = observed.session.status().and_then(|status| status.ready_at.clone());
    before.or_else(|| is_ready.then_some(Time(observed.now)))
}

/// Since when the session has been settled, which is the start of its idle time. A session is not settled while it is staging, starting
/// or initialising, however long that takes, or while one of its agents is active. An idle session keeps the time because of which it was
/// suspended, otherwise it would become active again at once. A failed read or write keeps the time as well.
pub(super) fn settled_at(observed: &Observed, phase: SessionPhase) -> Option<Time> {
    let before = observed.session.status().and_then(|status| status.settled_at.clone());
    match phase {
        // A session with an active agent is not idle.
        SessionPhase::Ready | SessionPhase::Degraded | SessionPhase::Error if agents::is_any_active(observed) => None,
        SessionPhase::Ready | SessionPhase::Degraded | SessionPhase::Error => {
            Some(before.unwrap_or(Time(observed.now)))
        }
        SessionPhase::Suspended if !observed.session.is_suspended() => before,
        SessionPhase::Pending | SessionPhase::Terminating => before,
        SessionPhase::Staging
        | SessionPhase::Starting
        | SessionPhase::Initializing
        | SessionPhase::Suspended
        | SessionPhase::Expired => None,
    }
}

/// The activity in the annotation, if it was in the future when it was first observed. Taken as it is, a mistaken year would keep the
/// session from ever becoming idle; taken as the present in each reconcile, it would as well. So the status has the moment at which it was
/// first observed, until the annotation changes.
pub(super) fn future_activity(session: &EffectiveSession, now: Timestamp) -> Option<FutureActivity> {
    session.lifetime().idle?;
    // The API server stores whole seconds.
    let time = Timestamp::from_second(session.last_activity().ok()??.as_second()).ok()?;
    let before = session.status().and_then(|status| status.future_activity.clone());
    before.filter(|before| before.time.0 == time).or_else(|| {
        (time.duration_since(now) > CLOCK_SKEW).then_some(FutureActivity { time: Time(time), observed_at: Time(now) })
    })
}

/// When somebody last worked in the session, according to its annotation.
fn activity(session: &EffectiveSession, now: Timestamp) -> Option<Timestamp> {
    match future_activity(session, now) {
        Some(future) => Some(future.observed_at.0),
        None => session.last_activity().unwrap_or_default(),
    }
}

/// When a session that settled at this time becomes idle.
fn idle_at(observed: &Observed, settled: Option<&Time>) -> Option<Timestamp> {
    let session = &observed.session;
    let idle = session.lifetime().idle?;
    let activity = activity(session, observed.now);
    let times = [Some(settled?.0), activity, agents::last_activity(observed)];
    let last = times.into_iter().flatten().max()?;
    Some(last.checked_add(idle).unwrap_or(Timestamp::MAX))
}

/// Why the session is suspended, if it is.
pub(super) fn rest(observed: &Observed) -> Option<SuspendReason> {
    let session = &observed.session;
    if session.is_suspended() {
        return Some(SuspendReason::Wanted);
    }
    let settled = session.status().and_then(|status| status.settled_at.as_ref());
    idle_at(observed, settled).filter(|&at| at <= observed.now).map(|_| SuspendReason::Idle)
}

/// The delay until the next change that depends only on time. `settled` may have been determined in this reconcile.
pub(super) fn next(observed: &Observed, settled: Option<&Time>) -> Option<Duration> {
    let session = &observed.session;
    let times = [soon(session), end(session).map(|(_, end)| end), idle_at(observed, settled)];
    let next = times.into_iter().flatten().filter(|&at| at > observed.now).min()?;
    let wait = Duration::try_from(next.duration_since(observed.now)).ok()?;
    // The operator's time has whole seconds.
    Some(Duration::from_secs(wait.as_secs() + u64::from(wait.subsec_nanos() > 0)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn session(uid: &str, ttl: u32) -> EffectiveSession {
        let session = json!({
            "apiVersion": "aigise.dev/v1alpha1",
            "kind": "AigiseSession",
            "metadata": {"name": "s", "uid": uid, "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"sandboxes": {}, "lifetime": {"ttl": format!("{ttl}s")}},
        });
        EffectiveSession::stored(session)
    }

    /// After how many seconds it ends.
    fn ends_after(session: &EffectiveSession) -> i64 {
        let created = session.metadata().creation_timestamp.as_ref().unwrap().0;
        expires_at(session).unwrap().0.duration_since(created).as_secs()
    }

    proptest! {
        #[test]
        fn a_session_ends_within_a_twentieth_of_its_time_after_it_and_always_at_the_same_moment(
            uid in "[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}",
            ttl in 1_u32..10_000_000,
        ) {
            let end = ends_after(&session(&uid, ttl));
            let (earliest, most) = (i64::from(ttl), i64::from(ttl / 20).min(60));
            prop_assert!((earliest..=earliest + most).contains(&end), "{} s after {} s", end, ttl);
            prop_assert_eq!(ends_after(&session(&uid, ttl)), end);
            // The spread does not change at random with the lifetime: a longer lifetime never ends earlier.
            prop_assert!(ends_after(&session(&uid, ttl + 3600)) > end);
        }
    }

    #[test]
    fn sessions_that_were_made_together_do_not_end_together() {
        let ends: std::collections::BTreeSet<_> =
            (0..500).map(|n| ends_after(&session(&format!("1b9d6bcd-bbfd-4b2d-9b5d-{n:012}"), 3600))).collect();
        assert!(ends.len() > 50, "only {} moments of 61", ends.len());
    }

    fn active(annotation: &str, status: &serde_json::Value) -> EffectiveSession {
        EffectiveSession::stored(json!({
            "metadata": {"name": "s", "annotations": {"aigise.dev/last-activity": annotation}},
            "spec": {"sandboxes": {}, "lifetime": {"idle": "10m"}},
            "status": status,
        }))
    }

    fn at(time: &str) -> Timestamp {
        time.parse().unwrap()
    }

    #[test]
    fn an_activity_in_the_future_counts_from_when_it_was_first_observed() {
        let now = at("2026-01-01T12:00:00Z");
        // A clock that is a little ahead costs no write.
        for near in ["2026-01-01T11:00:00Z", "2026-01-01T12:00:00.9Z", "2026-01-01T12:05:00Z"] {
            let session = active(near, &json!({}));
            assert_eq!(future_activity(&session, now), None, "{near}");
            assert_eq!(activity(&session, now), Some(at(near)));
        }
        for far in
            ["2026-01-01T12:05:01Z", "2026-01-01T14:00:00.5+01:00", "2100-01-01T00:00:00Z", "9999-12-30T00:00:00Z"]
        {
            let first = future_activity(&active(far, &json!({})), now).expect(far);
            assert_eq!(activity(&active(far, &json!({})), now), Some(now), "{far}");
            // The status is stored, and read an hour later, when some of these times are in the past.
            let status = json!({"futureActivity": first});
            let later = at("2026-01-01T13:10:00Z");
            assert_eq!(future_activity(&active(far, &status), later), Some(first), "{far}");
            assert_eq!(activity(&active(far, &status), later), Some(now), "{far}");
            // Another value is another activity.
            let other = active("2099-01-01T00:00:00Z", &status);
            assert_eq!(activity(&other, later), Some(later));
            let usual = active("2026-01-01T13:09:00Z", &status);
            assert_eq!(future_activity(&usual, later), None);
            assert_eq!(activity(&usual, later), Some(at("2026-01-01T13:09:00Z")));
        }
    }

    #[test]
    fn nothing_is_recorded_of_a_session_that_is_never_idle() {
        let session = EffectiveSession::stored(json!({
            "metadata": {"name": "s", "annotations": {"aigise.dev/last-activity": "2100-01-01T00:00:00Z"}},
            "spec": {"sandboxes": {}},
        }));
        assert_eq!(future_activity(&session, at("2026-01-01T12:00:00Z")), None);
    }
}
