//! Limits how often an action is done for one object: a burst, and then once in each interval. Without the limit, an object that flaps
//! would be written at each change.

use std::time::Duration;

use quick_cache::sync::Cache;
use tokio::time::Instant;

/// How many objects are remembered. For an object that was forgotten, the burst begins anew.
const OBJECTS: usize = 4096;

/// Throttles an action, by the UID of its object.
#[derive(Debug)]
pub struct Throttle {
    /// How many actions are allowed at once.
    burst: u32,
    /// After this time, one more action is allowed.
    each: Duration,
    /// When the past actions for an object no longer count.
    over: Cache<String, Instant>,
}

impl Throttle {
    /// Allows `burst` actions at once, and one more after each interval.
    pub fn of(burst: u32, each: Duration) -> Self {
        Self { burst, each, over: Cache::new(OBJECTS) }
    }

    /// How long the next action has to wait, if it has to.
    pub fn wait(&self, uid: &str) -> Option<Duration> {
        let counts_for = self.over.get(uid)?.saturating_duration_since(Instant::now());
        counts_for.checked_sub(self.each * (self.burst - 1)).filter(|wait| !wait.is_zero())
    }

    /// Records that the action was done now.
    pub fn done(&self, uid: String) {
        let now = Instant::now();
        let over = self.over.get(&uid).map_or(now, |over| over.max(now));
        self.over.insert(uid, over + self.each);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// How often the action is done in this many seconds, if it is attempted a hundred times a second.
    async fn often(pace: &Throttle, seconds: u32) -> u32 {
        let mut done = 0;
        for _ in 0..seconds * 100 {
            if pace.wait("a").is_none() {
                pace.done("a".into());
                done += 1;
            }
            tokio::time::advance(SECOND / 100).await;
        }
        done
    }

    #[tokio::test(start_paused = true)]
    async fn small_news_come_once_a_second() {
        let pace = Throttle::of(1, SECOND);
        assert_eq!(often(&pace, 60).await, 60);
        pace.done("a".into());
        assert_eq!((pace.wait("a"), pace.wait("b")), (Some(SECOND), None));
    }

    #[tokio::test(start_paused = true)]
    async fn there_is_a_burst_and_then_one_in_its_time() {
        let pace = Throttle::of(20, SECOND * 3);
        assert_eq!(often(&pace, 60).await, 20 + 60 / 3 - 1);
        assert_eq!(often(&pace, 60).await, 60 / 3);
        tokio::time::advance(SECOND * 60).await;
        assert_eq!(often(&pace, 1).await, 20, "after an idle minute, the burst is allowed again");
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_is_kept_than_of_some_thousand_objects() {
        let pace = Throttle::of(1, SECOND);
        for uid in 0..10 * OBJECTS {
            pace.done(uid.to_string());
        }
        assert!(pace.over.len() <= OBJECTS);
    }
}
