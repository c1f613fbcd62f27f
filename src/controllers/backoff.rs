//! The delay before a failed reconcile is retried, for each object. The kube runtime has one delay for all objects.

use std::{collections::HashMap, sync::Mutex, time::Duration};

use tokio::time::Instant;

const FIRST: Duration = Duration::from_millis(250);
const LONGEST: Duration = Duration::from_secs(60);
/// The failures of an object are forgotten if it has not failed for this long after its last delay.
const FORGET: Duration = Duration::from_secs(300);

/// The consecutive failures of objects, by UID.
#[derive(Debug, Default)]
pub(super) struct Backoff(Mutex<HashMap<String, Failures>>);

#[derive(Debug)]
struct Failures {
    count: u32,
    due: Instant,
}

impl Backoff {
    /// The next delay of an object, and how often the object has failed in a row. The delay is twice the last delay, and at most a
    /// minute. A failure before the last delay has passed was caused by a change of another object, and does not count.
    pub(super) fn next(&self, uid: &str) -> (Duration, u32) {
        self.next_at(uid, Instant::now())
    }

    fn next_at(&self, uid: &str, now: Instant) -> (Duration, u32) {
        let Ok(mut failures) = self.0.lock() else { return (LONGEST, 0) };
        failures.retain(|_, failures| now.saturating_duration_since(failures.due) < FORGET);
        let failures = failures.entry(uid.to_string()).or_insert(Failures { count: 0, due: now });
        if now >= failures.due {
            let delay = FIRST.saturating_mul(1 << failures.count.min(8)).min(LONGEST);
            failures.count += 1;
            failures.due = now + delay.mul_f64(1.0 + spread(uid, failures.count));
        }
        (failures.due - now, failures.count)
    }

    /// Forgets the failures of an object whose reconcile succeeded.
    pub(super) fn reset(&self, uid: &str) {
        if let Ok(mut failures) = self.0.lock() {
            failures.remove(uid);
        }
    }
}

/// Jitter: up to a fifth of the delay. Objects that failed together are then not retried together. It is derived from the UID, which is
/// random already.
fn spread(uid: &str, count: u32) -> f64 {
    let sum = uid.bytes().fold(count, |sum, byte| sum.wrapping_mul(31).wrapping_add(u32::from(byte)));
    f64::from(sum % 100) / 500.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_delay_doubles_up_to_a_minute_and_starts_again_after_a_success() {
        let backoff = Backoff::default();
        let mut now = Instant::now();
        let mut delays = Vec::new();
        for _ in 0..12 {
            let delay = backoff.next_at("u", now).0;
            now += delay;
            delays.push(delay.as_secs_f64());
        }
        assert!(delays[0] >= 0.25 && delays[0] <= 0.3);
        assert!(delays.windows(2).take(8).all(|pair| pair[1] > pair[0] * 1.6), "{delays:?}");
        assert!(delays[11] >= 60.0 && delays[11] <= 72.0);
        backoff.reset("u");
        assert!(backoff.next_at("u", now).0.as_secs_f64() < 0.31);
    }

    #[test]
    fn failures_in_between_do_not_make_the_delay_longer() {
        let backoff = Backoff::default();
        let now = Instant::now();
        let first = backoff.next_at("u", now).0;
        let sooner = backoff.next_at("u", now + first / 2).0;
        assert_eq!(sooner.as_millis(), (first / 2).as_millis(), "only the remaining delay");
    }

    #[test]
    fn objects_that_are_gone_are_forgotten() {
        let backoff = Backoff::default();
        let now = Instant::now();
        backoff.next_at("gone", now);
        backoff.next_at("u", now + FORGET * 2);
        assert_eq!(backoff.0.lock().unwrap().len(), 1);
    }
}
