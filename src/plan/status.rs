//! Conditions: built whole in every pass; a transition time moves only when the status moves.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use super::{Failure, Requeue};
use crate::api::condition::{ConditionType, Reason};

/// One condition before it has a time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConditionValue {
    /// Which condition.
    pub kind: ConditionType,
    /// `None` is `Unknown`.
    pub holds: Option<bool>,
    /// Why.
    pub reason: Reason,
    /// A sentence.
    pub message: String,
}

/// A verdict in one line.
pub fn condition_value(
    kind: ConditionType,
    holds: impl Into<Option<bool>>,
    reason: Reason,
    message: impl Into<String>,
) -> ConditionValue {
    ConditionValue { kind, holds: holds.into(), reason, message: printable(&message.into()) }
}

/// The text without characters that would do something to the terminal of who reads it, or that the API server takes in no YAML,
/// as which it reads what is applied. Much of what is told comes from the programs in a sandbox.
#[must_use]
pub fn printable(text: &str) -> String {
    let is_fine = |c: char| (!c.is_control() || c == '\n' || c == '\t') && !matches!(c, '\u{fffe}' | '\u{ffff}');
    text.chars().map(|c| if is_fine(c) { c } else { char::REPLACEMENT_CHARACTER }).collect()
}

/// The standard three, from one view of the object: what is true, whether work goes on, whether a person is needed. `Ready` is
/// left out of an object at rest, which kstatus then takes for done.
#[must_use]
pub fn standard(kstatus: KStatus, reason: Reason, message: &str) -> Vec<ConditionValue> {
    let yes = |kind| condition_value(kind, true, reason, message);
    let not_ready = || condition_value(ConditionType::Ready, false, reason, message);
    let at_rest = || condition_value(ConditionType::Reconciling, false, Reason::AsExpected, "Nothing is on its way.");
    let well = || condition_value(ConditionType::Stalled, false, Reason::AsExpected, "Nothing needs a person.");
    match kstatus {
        KStatus::Ready => vec![yes(ConditionType::Ready), at_rest(), well()],
        KStatus::InProgress => vec![not_ready(), yes(ConditionType::Reconciling), well()],
        KStatus::Stalled => vec![not_ready(), at_rest(), yes(ConditionType::Stalled)],
        KStatus::Current => vec![at_rest(), well()],
    }
}

/// How an object stands, in the sense of kstatus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KStatus {
    /// All is there.
    Ready,
    /// It goes on by itself.
    InProgress,
    /// It needs a person.
    Stalled,
    /// It is as it was wanted to be, and that is not ready.
    Current,
}

/// Whether `Ready` is still the one that the schema gives to a new object. That has no owner, and only what was owned once can be
/// left out: an object that is at rest from the start says `Ready=False` for a moment.
#[must_use]
pub fn is_untouched(before: &[Condition]) -> bool {
    ready(before).is_none_or(|condition| condition.reason == Reason::Pending.to_string())
        && before.iter().all(|condition| condition.type_ == ConditionType::Ready.to_string())
}

/// How an object stands, and when to look again, once [`is_untouched`] is minded: what rests from the start is on its way for a
/// moment.
#[must_use]
pub fn force_first_ready(before: &[Condition], kstatus: KStatus, requeue: Requeue) -> (KStatus, Requeue) {
    if kstatus == KStatus::Current && is_untouched(before) {
        (KStatus::InProgress, Requeue::After(Duration::ZERO))
    } else {
        (kstatus, requeue)
    }
}

/// What it means that something could not be read or written: whether a person has to do something, and when it is tried again.
#[must_use]
pub fn of_failure(failure: &Failure) -> (KStatus, Requeue) {
    match failure.reason {
        Reason::Refused | Reason::Unreadable => (KStatus::Stalled, Requeue::After(REFUSED_POLL)),
        // Somebody has to do something, and perhaps not here.
        Reason::Forbidden => (KStatus::Stalled, Requeue::Backoff),
        // The namespace or the owner goes.
        Reason::Terminating => (KStatus::InProgress, Requeue::AwaitChange),
        // The rest passes by itself.
        _ => (KStatus::InProgress, Requeue::Backoff),
    }
}

/// What the API server refused, or cannot be read, is tried again after this long: a policy of the cluster may have been what refused it.
const REFUSED_POLL: Duration = Duration::from_secs(300);

/// Leaves out the conditions of other managers: they stay on the object and are none of our business.
pub fn retain_ours(conditions: &mut Vec<Condition>) {
    conditions.retain(|condition| condition.type_.parse::<ConditionType>().is_ok());
}

/// The conditions as they are written. `before` are those of the last pass: their times are kept where the status did not move,
/// and nothing else of them is looked at.
#[must_use]
pub fn conditions(
    conditions: impl IntoIterator<Item = ConditionValue>,
    before: &[Condition],
    generation: Option<i64>,
    now: Timestamp,
) -> Vec<Condition> {
    conditions
        .into_iter()
        .map(|verdict| {
            let type_ = verdict.kind.to_string();
            let status = match verdict.holds {
                Some(true) => "True",
                Some(false) => "False",
                None => "Unknown",
            };
            let since = before.iter().find(|old| old.type_ == type_ && old.status == status);
            Condition {
                last_transition_time: since.map_or(Time(now), |old| old.last_transition_time.clone()),
                message: clip(verdict.message, 32_768),
                observed_generation: generation,
                reason: verdict.reason.to_string(),
                status: status.to_string(),
                type_,
            }
        })
        .collect()
}

/// The longest time between two looks at something that nobody tells of.
const LONGEST_POLL: Duration = Duration::from_secs(60);

/// How long to wait until the next look at something that nobody tells of: at first `shortest`, and longer the longer ago it is that
/// the condition became what it is.
#[must_use]
pub fn poll(shortest: Duration, conditions: &[Condition], kind: ConditionType, now: Timestamp) -> Duration {
    let kind: &str = kind.into();
    let since = conditions.iter().find(|condition| condition.type_ == kind);
    let age = since.map(|condition| Duration::try_from(now.duration_since(condition.last_transition_time.0)));
    (age.and_then(Result::ok).unwrap_or_default() / 4).clamp(shortest, LONGEST_POLL)
}

/// The condition `Ready` in a status.
#[must_use]
pub fn ready(conditions: &[Condition]) -> Option<&Condition> {
    let ready: &str = ConditionType::Ready.into();
    conditions.iter().find(|condition| condition.type_ == ready)
}

/// The condition that says how an object is: `Ready`, or `Suspended` or the like of one at rest.
fn headline(conditions: &[Condition]) -> Option<&Condition> {
    let at_rest =
        |condition: &&Condition| condition.type_ == ConditionType::Suspended.to_string() && condition.status == "True";
    ready(conditions).or_else(|| conditions.iter().find(at_rest))
}

/// Whether the reason for how the object is differs from that of an earlier status.
#[must_use]
pub fn has_news(before: &[Condition], reason: Reason) -> bool {
    headline(before).is_none_or(|condition| condition.reason != reason.to_string())
}

/// A text that is no longer than `limit` bytes.
#[must_use]
pub fn clip(mut text: String, limit: usize) -> String {
    if text.len() > limit {
        let end = (0..=limit.saturating_sub(3)).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_programs_say_reaches_the_status_and_no_terminal() {
        let said = "a\tb\nc\u{1b}[2J\u{7f}\u{85}\u{9b}\u{ffff}\0é🦀";
        assert_eq!(printable(said), "a\tb\nc�[2J�����é🦀");
        assert_eq!(condition_value(ConditionType::Ready, false, Reason::NotReady, "\u{9b}x").message, "�x");
    }
}
