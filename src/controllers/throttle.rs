//! How often something is done for one object: a burst of it, and then one in some time. One that flaps would otherwise be written as often as
//! it does.

use std::time::Duration;

use quick_cache::sync::Cache;
use tokio::time::Instant;

/// Of how many objects it is remembered; of one that is forgotten, the burst begins anew.
const OBJECTS: usize = 4096;

/// How often something was done lately, by the object's UID.
#[derive(Debug)]
pub(super) struct Throttle {
    /// So many at once.
    burst: u32,
    /// And one more in this time.
    each: Duration,
    /// When nothing counts any more of what was done for an object.
    over: Cache<String, Instant>,
}

impl Throttle {
    /// So many at once, and one more in this time.
    pub(super) fn of(burst: u32, each: Duration) -> Self {
        Self { burst, each, over: Cache::new(OBJECTS) }
    }

    /// How long the next has to wait, if it has to.
    pub(super) fn wait(&self, uid: &str) -> Option<Duration> {
        let counts_for = self.over.get(uid)?.saturating_duration_since(Instant::now());
        counts_for.checked_sub(self.each * (self.burst - 1)).filter(|wait| !wait.is_zero())
    }

    /// It was done now.
    pub(super) fn done(&self, uid: String) {
        let now = Instant::now();
        let over = self.over.get(&uid).map_or(now, |over| over.max(now));
        self.over.insert(uid, over + self.each);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// How often it is done in a time, by who wants it a hundred times a second.
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
        assert_eq!(often(&pace, 1).await, 20, "after a rest it may have its burst again");
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
