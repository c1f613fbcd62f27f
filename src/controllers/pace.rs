//! How often one object's status is written: a session with many sandboxes would otherwise be written once for each step of each.

use std::{collections::HashMap, sync::Mutex, time::Duration};

use tokio::time::Instant;

/// When each object's status was last written, by UID, for as long as it matters.
#[derive(Debug)]
pub(super) struct Pace {
    /// At most one write in this time.
    shortest: Duration,
    last: Mutex<HashMap<String, Instant>>,
}

impl Pace {
    /// One write in this time.
    pub(super) fn of(shortest: Duration) -> Self {
        Self { shortest, last: Mutex::default() }
    }

    /// How long small news have to wait, if they have to.
    pub(super) fn wait(&self, uid: &str) -> Option<Duration> {
        let since = self.last.lock().ok()?.get(uid)?.elapsed();
        self.shortest.checked_sub(since).filter(|wait| !wait.is_zero())
    }

    /// The status was written now.
    pub(super) fn written(&self, uid: String) {
        if let Ok(mut last) = self.last.lock() {
            last.retain(|_, at| at.elapsed() < self.shortest);
            last.insert(uid, Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORTEST: Duration = Duration::from_secs(1);

    #[test]
    fn small_news_wait_and_nothing_is_kept_of_what_was_long_ago() {
        let pace = Pace::of(SHORTEST);
        assert_eq!(pace.wait("a"), None);
        pace.written("a".into());
        assert!(pace.wait("a").is_some_and(|wait| wait <= SHORTEST));
        pace.last.lock().unwrap().insert("b".into(), Instant::now().checked_sub(SHORTEST).unwrap());
        assert_eq!(pace.wait("b"), None);
        pace.written("c".into());
        assert!(!pace.last.lock().unwrap().contains_key("b"));
    }
}
