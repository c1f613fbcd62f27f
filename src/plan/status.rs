//! Conditions. Every reconcile builds all conditions of an object; a transition time changes only when the condition's status changes.

mod reworded;

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use super::{Failure, Foreign, ObjectEvent, Report, Requeue, StatusWrite, Transition};
use crate::api::condition::{ConditionType, Reason};

/// A condition without its transition time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConditionValue {
    /// The type of the condition.
    pub kind: ConditionType,
    /// The status of the condition; `None` is `Unknown`.
    pub holds: Option<bool>,
    /// The reason.
    pub reason: Reason,
    /// The message: a sentence.
    pub message: String,
}

/// Builds a condition value with a printable message.
pub fn condition_value(
    kind: ConditionType,
    holds: impl Into<Option<bool>>,
    reason: Reason,
    message: impl Into<String>,
) -> ConditionValue {
    ConditionValue { kind, holds: holds.into(), reason, message: printable(&message.into()) }
}

/// Replaces characters that would control the reader's terminal, and characters that the API server rejects in YAML, the format as which
/// it parses applied objects. Many messages contain output of programs in a sandbox.
pub fn printable(text: &str) -> String {
    let is_fine = |c: char| (!c.is_control() || c == '\n' || c == '\t') && !matches!(c, '\u{fffe}' | '\u{ffff}');
    text.chars().map(|c| if is_fine(c) { c } else { char::REPLACEMENT_CHARACTER }).collect()
}

/// The three standard conditions, `Ready`, `Reconciling` and `Stalled`. An inactive object has no `Ready`, so kstatus reads it as
/// Current.
pub fn standard(kstatus: KStatus, reason: Reason, message: &str) -> Vec<ConditionValue> {
    let yes = |kind| condition_value(kind, true, reason, message);
    let not_ready = || condition_value(ConditionType::Ready, false, reason, message);
    let at_rest = || condition_value(ConditionType::Reconciling, false, Reason::AsExpected, "Nothing is in progress.");
    let well = || condition_value(ConditionType::Stalled, false, Reason::AsExpected, "No user action is needed.");
    match kstatus {
        KStatus::Ready => vec![yes(ConditionType::Ready), at_rest(), well()],
        KStatus::InProgress => vec![not_ready(), yes(ConditionType::Reconciling), well()],
        KStatus::Stalled => vec![not_ready(), at_rest(), yes(ConditionType::Stalled)],
        KStatus::Current => vec![at_rest(), well()],
    }
}

/// The state of an object in the sense of kstatus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KStatus {
    /// Everything that the spec asks for is there.
    Ready,
    /// The operator or the cluster is working on the object.
    InProgress,
    /// The user has to act.
    Stalled,
    /// The object is inactive, as its spec asks.
    Current,
}

/// Whether the object's only condition is still the `Ready` that the schema sets by default. This default has no field manager, and
/// server-side apply can only remove fields that the manager has applied once. An object that is inactive from the start therefore
/// gets `Ready=False` first, which the next reconcile removes.
pub fn is_untouched(before: &[Condition]) -> bool {
    ready(before).is_none_or(|condition| condition.reason == Reason::Pending.to_string())
        && before.iter().all(|condition| condition.type_ == ConditionType::Ready.to_string())
}

/// How one lifecycle is reported to users.
#[derive(Clone, Debug)]
pub struct View<P> {
    /// The phase of the object.
    pub phase: P,
    /// The state in the sense of kstatus.
    pub kstatus: KStatus,
    /// The reason in `Ready`.
    pub reason: Reason,
    /// The message for users.
    pub message: String,
    /// When to reconcile again.
    pub requeue: Requeue,
}

impl<P: PartialEq + Into<&'static str>> View<P> {
    /// A view of an object that is reconciled when something changes.
    pub fn new(phase: P, kstatus: KStatus, reason: Reason, message: impl Into<String>) -> Self {
        Self { phase, kstatus, reason, message: message.into(), requeue: Requeue::AwaitChange }
    }

    /// The same view of an object that is requeued.
    pub fn requeued(self, requeue: Requeue) -> Self {
        Self { requeue, ..self }
    }

    /// The same view, adjusted for [`is_untouched`]: an object that is inactive from the start is reported as in progress once, and
    /// reconciled again at once. The first report applies `Ready`, so the second can remove it.
    pub fn with_first_ready(self, before: &[Condition]) -> Self {
        if self.kstatus == KStatus::Current && is_untouched(before) {
            Self { kstatus: KStatus::InProgress, requeue: Requeue::After(Duration::ZERO), ..self }
        } else {
            self
        }
    }

    /// The conditions that every kind has.
    pub fn standard(&self) -> Vec<ConditionValue> {
        standard(self.kstatus, self.reason, &self.message)
    }

    /// The report with a status. `before` is the phase and the conditions of the status before. An event is recorded when the reason has
    /// changed and the user waits for nothing more, or should know why the wait takes longer.
    pub fn report<S>(self, status: S, before: (Option<P>, &[Condition]), write: StatusWrite) -> Report<S> {
        let Self { phase, kstatus, reason, message, requeue } = self;
        let is_new = headline(before.1).is_none_or(|condition| condition.reason != reason.to_string());
        let is_worth_an_event =
            kstatus != KStatus::InProgress || matches!(reason, Reason::ImagePull | Reason::Restarting);
        let has_moved = is_new || before.0.as_ref() != Some(&phase);
        let transition = has_moved.then(|| Transition { phase: phase.into(), reason, message: message.clone() });
        let event = (is_new && is_worth_an_event).then_some(ObjectEvent {
            warning: !matches!(kstatus, KStatus::Ready | KStatus::Current),
            reason,
            message,
        });
        Report { status, transition, events: event.into_iter().collect(), requeue, write }
    }
}

/// What a failed read or write means for an object: whether the user has to act, and when the operator retries.
pub fn of_failure(failure: &Failure) -> (KStatus, Requeue) {
    match failure.reason {
        Reason::Refused | Reason::Unreadable => (KStatus::Stalled, Requeue::After(REFUSED_POLL)),
        // The user has to change something, perhaps in an object that the operator does not watch.
        Reason::Forbidden => (KStatus::Stalled, Requeue::Backoff),
        // The namespace or the owner is being deleted.
        Reason::Terminating => (KStatus::InProgress, Requeue::AwaitChange),
        // Other failures resolve without the user.
        _ => (KStatus::InProgress, Requeue::Backoff),
    }
}

/// What a foreign object means for an object that needs its name: `owner` is `session`, `sandbox` or `agent`, and `needed_by` says which
/// part of it needs the name. An object that is being deleted frees the name soon.
pub fn name_taken(foreign: &Foreign, owner: &str, needed_by: &str) -> (KStatus, Requeue, String) {
    let Foreign { object, leaving } = foreign;
    if *leaving {
        let message = format!("The {owner} waits until {object} of an earlier owner is gone.");
        (KStatus::InProgress, Requeue::After(Duration::from_secs(1)), message)
    } else {
        let message = format!(
            "{object} does not belong to this {owner} and has a name that {needed_by} needs; delete it, or rename the {owner}."
        );
        (KStatus::Stalled, Requeue::After(Duration::from_secs(30)), message)
    }
}

/// The delay before the operator retries a write that the API server refused, or a read of an unreadable object. The cause may have been
/// a policy of the cluster, which the operator does not watch.
const REFUSED_POLL: Duration = Duration::from_secs(300);

/// Removes the conditions of other managers from the list. They stay on the object, and the operator ignores them.
pub fn retain_ours(conditions: &mut Vec<Condition>) {
    conditions.retain(|condition| condition.type_.parse::<ConditionType>().is_ok());
}

/// The conditions to write. `before` are the conditions of the previous reconcile: a condition whose status has not changed keeps its
/// transition time. Nothing else in `before` is used.
pub fn conditions(
    conditions: impl IntoIterator<Item = ConditionValue>,
    before: &[Condition],
    generation: Option<i64>,
    now: Timestamp,
) -> Vec<Condition> {
    conditions
        .into_iter()
        .map(|value| {
            let type_ = value.kind.to_string();
            let status = match value.holds {
                Some(true) => "True",
                Some(false) => "False",
                None => "Unknown",
            };
            let since = before.iter().find(|old| old.type_ == type_ && old.status == status);
            let (reason, message) = (value.reason.to_string(), clip(value.message, 32_768));
            let same = since.filter(|old| old.reason == reason && reworded::says_the_same(&old.message, &message));
            Condition {
                last_transition_time: since.map_or(Time(now), |old| old.last_transition_time.clone()),
                message: same.map_or(message, |old| old.message.clone()),
                observed_generation: generation,
                reason,
                status: status.to_string(),
                type_,
            }
        })
        .collect()
}

/// The longest interval between two reads of an object that is not watched.
const LONGEST_POLL: Duration = Duration::from_secs(60);

/// The delay until the next read of an object that is not watched: at least `shortest`, and longer the longer ago the condition last
/// changed.
pub fn poll(shortest: Duration, conditions: &[Condition], kind: ConditionType, now: Timestamp) -> Duration {
    let kind: &str = kind.into();
    let since = conditions.iter().find(|condition| condition.type_ == kind);
    let age = since.map(|condition| Duration::try_from(now.duration_since(condition.last_transition_time.0)));
    (age.and_then(Result::ok).unwrap_or_default() / 4).clamp(shortest, LONGEST_POLL)
}

/// The condition `Ready` in a status.
pub fn ready(conditions: &[Condition]) -> Option<&Condition> {
    let ready: &str = ConditionType::Ready.into();
    conditions.iter().find(|condition| condition.type_ == ready)
}

/// The condition that explains the state of an object: `Ready`, or `Suspended` if the object is inactive.
fn headline(conditions: &[Condition]) -> Option<&Condition> {
    let suspended =
        |condition: &&Condition| condition.type_ == ConditionType::Suspended.to_string() && condition.status == "True";
    ready(conditions).or_else(|| conditions.iter().find(suspended))
}

/// Shortens a text to at most `limit` bytes.
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
