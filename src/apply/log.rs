//! Log lines about writes, rate-limited per object: an object that flaps must not fill the log.

use std::time::Duration;

use quick_cache::sync::Cache;
use tracing::{info, warn};

use super::throttle::Throttle;
use crate::plan::{Failure, Outcome, Trouble, Write, status};

/// The burst of lines about one object, and the time after which one more line is allowed. This is twice what the start of a session
/// takes.
const BURST: u32 = 60;
const REFILL: Duration = Duration::from_secs(2);

/// The number of objects for which dropped lines are counted.
const OBJECTS: usize = 4096;

/// The longest message of the API server in a line, in bytes.
const MESSAGE_BYTES: usize = 300;

/// Decides which lines about an object are logged.
#[derive(Debug)]
pub struct LineLimit {
    throttle: Throttle,
    /// Lines that were dropped since the last one that was logged, by the object's UID.
    dropped: Cache<String, u64>,
}

impl Default for LineLimit {
    fn default() -> Self {
        Self { throttle: Throttle::of(BURST, REFILL), dropped: Cache::new(OBJECTS) }
    }
}

impl LineLimit {
    /// Logs a line about the object with this UID, unless there were too many; `log` gets the number of lines that were dropped
    /// since the last one.
    pub fn log(&self, uid: &str, log: impl FnOnce(Option<u64>)) {
        if self.throttle.wait(uid).is_some() {
            let dropped = self.dropped.get(uid).unwrap_or_default() + 1;
            self.dropped.insert(uid.to_string(), dropped);
            return;
        }
        self.throttle.done(uid.to_string());
        log(self.dropped.remove(uid).map(|(_, dropped)| dropped));
    }
}

/// A message for a log line: printable, and not too long. The message may contain text from users and programs.
pub fn short(message: &str) -> String {
    status::clip(status::printable(message), MESSAGE_BYTES).replace(['\n', '\t'], " ")
}

/// What a log line says about a write. The line is logged after the write was consumed.
pub(super) struct Line {
    verb: &'static str,
    kind: &'static str,
    name: String,
}

impl Line {
    pub(super) fn of(write: &Write) -> Self {
        Self { verb: write.verb(), kind: write.kind().into(), name: write.name().into() }
    }

    /// Logs how the write ended, for the object with this UID that caused it.
    pub(super) fn log(&self, limit: &LineLimit, uid: &str, outcome: &Outcome) {
        let Self { verb, kind, name } = self;
        limit.log(uid, |dropped| match outcome.trouble() {
            None => info!(verb, kind, name, dropped, "wrote"),
            Some(Trouble::Failed(Failure { reason, message })) => {
                warn!(verb, kind, name, %reason, refusal = short(message), dropped, "a write failed");
            }
            Some(Trouble::Foreign(foreign)) => {
                warn!(verb, kind, name, found = foreign.object, dropped, "the name is taken");
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn an_object_has_so_many_lines_a_minute_and_the_dropped_ones_are_counted() {
        let limit = LineLimit::default();
        let (mut lines, mut counted) = (0, 0);
        for _ in 0..6000 {
            limit.log("a", |dropped| {
                lines += 1;
                counted += dropped.unwrap_or_default();
            });
            tokio::time::advance(Duration::from_millis(10)).await;
        }
        assert_eq!(lines, 60 + 30 - 1, "in one minute");
        let mut other = false;
        limit.log("b", |dropped| other = dropped.is_none());
        assert!(other, "one object does not silence another");
        tokio::time::advance(Duration::from_secs(60)).await;
        limit.log("a", |dropped| counted += dropped.unwrap_or_default());
        assert_eq!(lines + counted, 6000);
    }

    #[test]
    fn a_message_is_short_and_on_one_line() {
        let message = short(&format!("a\u{1b}[2J\n{}", "ä".repeat(1000)));
        assert!(message.starts_with("a\u{fffd}[2J ä") && message.len() <= MESSAGE_BYTES, "{message}");
    }
}
