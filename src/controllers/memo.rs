//! Remembers computed values, up to a number of bytes. A value that was evicted is computed again.

use std::sync::Arc;

use quick_cache::{
    DefaultHashBuilder, OptionsBuilder, Weighter,
    sync::{Cache, DefaultLifecycle},
};

/// Values by the UID or the name of the object that they were computed from. Each value is valid for one state of the object.
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
    /// A memo for so many bytes, as estimated by the callers.
    pub(super) fn of(bytes: u32) -> Self {
        // A value takes a few kilobytes. There is only one shard: a large value would not fit into one of several.
        let options = OptionsBuilder::new()
            .estimated_items_capacity(usize::try_from(bytes / 8192).unwrap_or_default().max(16))
            .weight_capacity(bytes.into())
            .shards(1)
            .build();
        let cache =
            |options| Cache::with_options(options, ByBytes, DefaultHashBuilder::default(), DefaultLifecycle::default());
        Self(options.map_or_else(|_| Cache::with_weighter(16, bytes.into(), ByBytes), cache))
    }

    /// The value that was computed from this state.
    pub(super) fn get(&self, of: &str, state: &Key) -> Option<Arc<T>> {
        self.0.get(of).filter(|entry| entry.state == *state).map(|entry| entry.value)
    }

    /// Remembers the value of a state, in place of the value of any other state.
    pub(super) fn put(&self, of: &str, state: Key, value: Arc<T>, bytes: usize) {
        self.0.insert(of.to_string(), Entry { state, value, bytes });
    }

    /// The value of this state. If it is not remembered, `make` computes it, and returns it with its size in bytes.
    pub(super) fn get_or(&self, of: &str, state: Key, make: impl FnOnce() -> (Arc<T>, usize)) -> Arc<T> {
        self.get(of, &state).unwrap_or_else(|| {
            let (value, bytes) = make();
            self.put(of, state, value.clone(), bytes);
            value
        })
    }

    /// Forgets the value of an object that is gone.
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
        assert_eq!(memo.get("large", &()), None, "it would evict all others");
    }
}
