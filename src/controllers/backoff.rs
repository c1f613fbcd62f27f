//! How long to wait after a failure, per object: the runtime has one delay for all.

use std::{collections::HashMap, sync::Mutex, time::Duration};

const FIRST: Duration = Duration::from_millis(250);
const LONGEST: Duration = Duration::from_secs(60);

/// Failures in a row, by the object's UID.
#[derive(Debug, Default)]
pub(super) struct Backoff(Mutex<HashMap<String, u32>>);

impl Backoff {
    /// The next delay of an object: twice the last one, and never more than a minute.
    pub(super) fn next(&self, uid: &str) -> Duration {
        let Ok(mut failures) = self.0.lock() else { return LONGEST };
        let count = failures.entry(uid.to_string()).or_default();
        let delay = FIRST.saturating_mul(1 << (*count).min(8)).min(LONGEST);
        *count += 1;
        delay.mul_f64(1.0 + spread(uid, *count))
    }

    /// The object is well, or gone.
    pub(super) fn reset(&self, uid: &str) {
        if let Ok(mut failures) = self.0.lock() {
            failures.remove(uid);
        }
    }
}

/// Up to a fifth more, so that objects which failed together do not come back together. From the UID, which is random already.
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
        let delays: Vec<_> = (0..12).map(|_| backoff.next("u").as_secs_f64()).collect();
        assert!(delays[0] >= 0.25 && delays[0] <= 0.3);
        assert!(delays.windows(2).take(8).all(|pair| pair[1] > pair[0] * 1.6), "{delays:?}");
        assert!(delays[11] >= 60.0 && delays[11] <= 72.0);
        backoff.reset("u");
        assert!(backoff.next("u").as_secs_f64() < 0.31);
    }
}
