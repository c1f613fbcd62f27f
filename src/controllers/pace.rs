//! How often one object's status is written: a session with many sandboxes would otherwise be written once for each step of each.

use std::{collections::HashMap, sync::Mutex, time::Duration};

use tokio::time::Instant;

/// At most one write of small news in this time. A change of phase is written at once.
const SHORTEST: Duration = Duration::from_secs(1);

/// When each object's status was last written, by UID, for as long as it matters.
#[derive(Debug, Default)]
pub(super) struct Pace(Mutex<HashMap<String, Instant>>);

impl Pace {
    /// How long small news have to wait, if they have to.
    pub(super) fn wait(&self, uid: &str) -> Option<Duration> {
        let since = self.0.lock().ok()?.get(uid)?.elapsed();
        SHORTEST.checked_sub(since).filter(|wait| !wait.is_zero())
    }

    /// The status was written now.
    pub(super) fn written(&self, uid: String) {
        if let Ok(mut last) = self.0.lock() {
            last.retain(|_, at| at.elapsed() < SHORTEST);
            last.insert(uid, Instant::now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_news_wait_and_nothing_is_kept_of_what_was_long_ago() {
        let pace = Pace::default();
        assert_eq!(pace.wait("a"), None);
        pace.written("a".into());
        assert!(pace.wait("a").is_some_and(|wait| wait <= SHORTEST));
        pace.0.lock().unwrap().insert("b".into(), Instant::now().checked_sub(SHORTEST).unwrap());
        assert_eq!(pace.wait("b"), None);
        pace.written("c".into());
        assert!(!pace.0.lock().unwrap().contains_key("b"));
    }
}
