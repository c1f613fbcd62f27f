//! How much of each namespace is kept: no more than so much, so that one namespace cannot take the memory of all.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// The most bytes of text that are kept of a namespace's objects, all kinds together.
pub(in crate::controllers) const NAMESPACE_BYTES: usize = 32 * 1024 * 1024;

/// Besides its text, an object takes about so much.
const OBJECT_OVERHEAD: usize = 512;

/// Beyond that, so many bytes tell what does not fit.
const MARKERS_BYTES: usize = 8 * 1024 * 1024;

/// What the watches keep, by namespace. Each watch has a share of its own.
#[derive(Debug, Default)]
pub(in crate::controllers) struct Room(Mutex<HashMap<String, Vec<usize>>>);

/// The part of one watch.
#[derive(Clone, Copy, Debug)]
pub(in crate::controllers) struct Share(pub(in crate::controllers) usize);

impl Room {
    fn shares(&self) -> MutexGuard<'_, HashMap<String, Vec<usize>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether an object with a text of so many bytes still fits. `listed` is what a list, which is about to take the place of the
    /// share, has brought so far.
    pub(super) fn fits(&self, namespace: &str, share: Share, listed: Option<usize>, bytes: usize) -> bool {
        self.kept(namespace, share, listed) + weight(bytes) <= NAMESPACE_BYTES
    }

    fn kept(&self, namespace: &str, share: Share, listed: Option<usize>) -> usize {
        let shares = self.shares();
        let kept = shares.get(namespace).map_or(&[][..], Vec::as_slice);
        let others: usize = kept.iter().enumerate().filter(|(index, _)| *index != share.0).map(|(_, kept)| kept).sum();
        others + listed.unwrap_or_else(|| kept.get(share.0).copied().unwrap_or_default())
    }

    /// Whether it can at least be told that something does not fit: there is an end to that, too.
    pub(super) fn fits_marker(&self, namespace: &str, share: Share, listed: Option<usize>) -> bool {
        self.kept(namespace, share, listed) + OBJECT_OVERHEAD <= NAMESPACE_BYTES + MARKERS_BYTES
    }

    /// Whether a namespace has a good deal of room.
    pub(super) fn is_roomy(&self, namespace: &str) -> bool {
        let kept = self.shares().get(namespace).map_or(0, |shares| shares.iter().sum());
        kept <= NAMESPACE_BYTES / 4 * 3
    }

    /// A list has brought this: the share is that now, in one namespace or in all.
    pub(super) fn set(&self, share: Share, namespace: Option<&str>, listed: &HashMap<String, usize>) {
        let mut shares = self.shares();
        let is_listed = |other: &str| namespace.is_none_or(|namespace| namespace == other);
        for (_, kept) in shares.iter_mut().filter(|(other, _)| is_listed(other)) {
            if let Some(kept) = kept.get_mut(share.0) {
                *kept = 0;
            }
        }
        for (namespace, bytes) in listed {
            let kept = shares.entry(namespace.clone()).or_default();
            if kept.len() <= share.0 {
                kept.resize(share.0 + 1, 0);
            }
            kept[share.0] = *bytes;
        }
        shares.retain(|_, kept| kept.iter().any(|kept| *kept > 0));
    }

    /// An object of so many bytes takes the place of one of so many.
    pub(super) fn replace(&self, namespace: &str, share: Share, before: Option<usize>, after: Option<usize>) {
        let mut shares = self.shares();
        let kept = shares.entry(namespace.to_string()).or_default();
        if kept.len() <= share.0 {
            kept.resize(share.0 + 1, 0);
        }
        let [before, after] = [before, after].map(|bytes| bytes.map_or(0, weight));
        kept[share.0] = kept[share.0].saturating_sub(before) + after;
        if kept.iter().all(|kept| *kept == 0) {
            shares.remove(namespace);
        }
    }
}

/// What an object with a text of so many bytes takes.
pub(super) fn weight(bytes: usize) -> usize {
    bytes + OBJECT_OVERHEAD
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_has_so_much_and_no_other_notices() {
        let room = Room::default();
        let large = NAMESPACE_BYTES / 2;
        room.replace("a", Share(0), None, Some(large));
        assert!(!room.fits("a", Share(1), None, large), "the shares of all kinds count");
        assert!(room.fits("a", Share(1), None, large / 2));
        assert!(room.fits("b", Share(1), None, large));
        assert!(room.fits("a", Share(0), Some(0), large), "a list takes the place of what was there");
        room.replace("a", Share(0), Some(large), Some(1000));
        assert!(room.fits("a", Share(1), None, large));
        room.replace("a", Share(0), Some(1000), None);
        assert!(room.shares().is_empty(), "nothing is kept of a namespace without objects");
    }
}
