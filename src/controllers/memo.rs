//! What was worked out a moment ago, and is worked out again when it is forgotten: never more of it than so many bytes.

use std::sync::Arc;

use quick_cache::{
    DefaultHashBuilder, OptionsBuilder, Weighter,
    sync::{Cache, DefaultLifecycle},
};

/// Values by the UID or the name of what they were made of, each good for one state of that.
pub struct Memo<Key, T>(Cache<String, Entry<Key, T>, ByBytes>);

struct Entry<Key, T> {
    state: Key,
    value: Arc<T>,
    bytes: usize,
}

impl<Key: Clone, T> Clone for Entry<Key, T> {
    fn clone(&self) -> Self {
        Self { state: self.state.clone(), value: self.value.clone(), bytes: self.bytes }
    }
}

#[derive(Clone)]
struct ByBytes;

impl<Key, T> Weighter<String, Entry<Key, T>> for ByBytes {
    fn weight(&self, _: &String, entry: &Entry<Key, T>) -> u64 {
        entry.bytes as u64
    }
}

impl<Key: Clone + PartialEq, T> Memo<Key, T> {
    /// Remembers as much as takes so many bytes, by the word of whoever remembers it.
    pub(super) fn of(bytes: u32) -> Self {
        // One value takes a few kilobytes; in one piece, so that a large one fits as well.
        let options = OptionsBuilder::new()
            .estimated_items_capacity(usize::try_from(bytes / 8192).unwrap_or_default().max(16))
            .weight_capacity(bytes.into())
            .shards(1)
            .build();
        let cache =
            |options| Cache::with_options(options, ByBytes, DefaultHashBuilder::default(), DefaultLifecycle::default());
        Self(options.map_or_else(|_| Cache::with_weighter(16, bytes.into(), ByBytes), cache))
    }

    /// What was made of this state.
    pub(super) fn get(&self, of: &str, state: &Key) -> Option<Arc<T>> {
        self.0.get(of).filter(|entry| entry.state == *state).map(|entry| entry.value)
    }

    /// Remembers what was made of a state, in place of what was made of another one.
    pub(super) fn put(&self, of: &str, state: Key, value: Arc<T>, bytes: usize) {
        self.0.insert(of.to_string(), Entry { state, value, bytes });
    }

    /// What was made of this state, or is made now; with the bytes that it takes.
    pub(super) fn get_or(&self, of: &str, state: Key, make: impl FnOnce() -> (Arc<T>, usize)) -> Arc<T> {
        self.get(of, &state).unwrap_or_else(|| {
            let (value, bytes) = make();
            self.put(of, state, value.clone(), bytes);
            value
        })
    }

    /// What it was made of is gone.
    pub(super) fn forget(&self, of: &str) {
        self.0.remove(of);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_good_for_the_state_that_it_was_made_of() {
        let memo = Memo::of(1 << 20);
        let make = |value: i32| move || (Arc::new(value), 8);
        assert_eq!(*memo.get_or("a", 1, make(1)), 1);
        assert_eq!(*memo.get_or("a", 1, make(2)), 1);
        assert_eq!(*memo.get_or("a", 2, make(3)), 3);
        assert_eq!(memo.get("a", &1), None);
        memo.forget("a");
        assert_eq!(memo.get("a", &2), None);
    }

    #[test]
    fn no_more_is_remembered_than_fits() {
        let memo = Memo::of(1 << 20);
        for index in 0..10_000 {
            memo.put(&index.to_string(), (), Arc::new(()), 10_000);
        }
        assert!(memo.0.weight() <= 1 << 20);
        assert!(memo.0.len() >= 90, "{}", memo.0.len());
        memo.put("large", (), Arc::new(()), 2 << 20);
        assert_eq!(memo.get("large", &()), None, "it would drive out all others");
    }
}
