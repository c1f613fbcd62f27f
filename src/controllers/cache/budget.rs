//! Limits the memory for the cached objects of each namespace: one namespace cannot use up the memory of all.

use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// The most bytes of text that are cached for a namespace, over all kinds.
pub(in crate::controllers) const NAMESPACE_BYTES: usize = 32 * 1024 * 1024;

/// The estimated bytes that a cached object takes in addition to its text.
const OBJECT_OVERHEAD: usize = 512;

/// How many bytes beyond [`NAMESPACE_BYTES`] the markers of objects that do not fit may take.
const MARKERS_BYTES: usize = 8 * 1024 * 1024;

/// How many bytes the watches cache, by namespace. Each kind has its own share.
#[derive(Debug, Default)]
pub(in crate::controllers) struct MemoryBudget(Mutex<HashMap<String, Shares>>);

/// What is cached of a namespace, by the numbers of the kinds' shares.
type Shares = Vec<Kept>;

/// How many bytes are cached of a kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Kept {
    /// The current objects.
    now: usize,
    /// The objects that a running list has returned so far. They replace the current objects when the list ends.
    listed: usize,
}

/// The share of one kind: its number among the watched kinds.
#[derive(Clone, Copy, Debug)]
pub(in crate::controllers) struct Share(pub(in crate::controllers) usize);

impl Share {
    fn of(self, shares: &mut Shares) -> &mut Kept {
        if shares.len() <= self.0 {
            shares.resize(self.0 + 1, Kept::default());
        }
        &mut shares[self.0]
    }
}

impl MemoryBudget {
    fn shares(&self) -> MutexGuard<'_, HashMap<String, Shares>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many bytes are cached of a namespace. Of the kind with this share, only the list counts if `in_list`, else only the current
    /// objects. The other kinds may be listed at the same time: of each, the larger number counts.
    fn kept(&self, namespace: &str, share: Share, in_list: bool) -> usize {
        let shares = self.shares();
        let kept = shares.get(namespace).map_or(&[][..], Vec::as_slice);
        let of = |index: usize, kept: &Kept| match (index == share.0, in_list) {
            (true, true) => kept.listed,
            (true, false) => kept.now,
            (false, _) => kept.now.max(kept.listed),
        };
        kept.iter().enumerate().map(|(index, kept)| of(index, kept)).sum()
    }

    /// Whether an object with a text of `bytes` bytes fits when it replaces an object of `replaced` bytes.
    pub(super) fn fits(
        &self,
        namespace: &str,
        share: Share,
        in_list: bool,
        replaced: Option<usize>,
        bytes: usize,
    ) -> bool {
        let kept = self.kept(namespace, share, in_list).saturating_sub(replaced.map_or(0, weight));
        kept + weight(bytes) <= NAMESPACE_BYTES
    }

    /// Whether a marker for an object that does not fit still fits: markers are bounded as well.
    pub(super) fn fits_marker(&self, namespace: &str, share: Share, in_list: bool) -> bool {
        self.kept(namespace, share, in_list) + OBJECT_OVERHEAD <= NAMESPACE_BYTES + MARKERS_BYTES
    }

    /// Whether at least a quarter of the namespace's budget is free.
    pub(super) fn has_headroom(&self, namespace: &str) -> bool {
        let shares = self.shares();
        let kept = shares.get(namespace).map_or(0, |shares| shares.iter().map(|kept| kept.now).sum());
        kept <= NAMESPACE_BYTES / 4 * 3
    }

    /// Records that a list of the kind begins, in one namespace or in all namespaces.
    pub(super) fn list_begins(&self, share: Share, namespace: Option<&str>) {
        self.each(share, namespace, |kept| kept.listed = 0);
    }

    /// Records that the list returned an object of so many bytes.
    pub(super) fn listed(&self, namespace: &str, share: Share, bytes: usize) {
        share.of(self.shares().entry(namespace.to_string()).or_default()).listed += weight(bytes);
    }

    /// Records that the list has ended: its objects replace the current objects.
    pub(super) fn list_ends(&self, share: Share, namespace: Option<&str>) {
        self.each(share, namespace, |kept| *kept = Kept { now: kept.listed, listed: 0 });
    }

    /// Records that an object of `after` bytes replaces an object of `before` bytes.
    pub(super) fn replace(&self, namespace: &str, share: Share, before: Option<usize>, after: Option<usize>) {
        let mut shares = self.shares();
        let kept = share.of(shares.entry(namespace.to_string()).or_default());
        let [before, after] = [before, after].map(|bytes| bytes.map_or(0, weight));
        kept.now = kept.now.saturating_sub(before) + after;
        if shares.get(namespace).is_some_and(|shares| shares.iter().all(|kept| *kept == Kept::default())) {
            shares.remove(namespace);
        }
    }

    fn each(&self, share: Share, namespace: Option<&str>, change: impl Fn(&mut Kept)) {
        let mut shares = self.shares();
        let is_listed = |other: &str| namespace.is_none_or(|namespace| namespace == other);
        shares.iter_mut().filter(|(other, _)| is_listed(other)).for_each(|(_, shares)| change(share.of(shares)));
        shares.retain(|_, shares| shares.iter().any(|kept| *kept != Kept::default()));
    }
}

/// The estimated bytes that an object with a text of so many bytes takes.
pub(super) fn weight(bytes: usize) -> usize {
    bytes + OBJECT_OVERHEAD
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_namespace_has_so_much_and_no_other_notices() {
        let budget = MemoryBudget::default();
        let large = NAMESPACE_BYTES / 2;
        budget.replace("a", Share(0), None, Some(large));
        let fits = |namespace, share, in_list, bytes| budget.fits(namespace, Share(share), in_list, None, bytes);
        assert!(!fits("a", 1, false, large), "the shares of all kinds count");
        assert!(fits("a", 1, false, large / 2));
        assert!(fits("b", 1, false, large));
        assert!(budget.fits("a", Share(0), false, Some(large), large), "it replaces the previous version");
        assert!(fits("a", 0, true, large), "and so does a list");
        budget.replace("a", Share(0), Some(large), Some(1000));
        assert!(fits("a", 1, false, large));
        budget.replace("a", Share(0), Some(1000), None);
        assert!(budget.shares().is_empty(), "a namespace without objects has no entry");
    }

    #[test]
    fn lists_of_several_kinds_that_run_beside_each_other_share_the_budget() {
        let budget = MemoryBudget::default();
        let large = NAMESPACE_BYTES / 2;
        for share in [0, 1] {
            budget.list_begins(Share(share), None);
        }
        budget.listed("a", Share(0), large);
        assert!(!budget.fits("a", Share(1), true, None, large));
        budget.listed("a", Share(1), large / 2);
        budget.list_ends(Share(0), None);
        budget.list_ends(Share(1), None);
        // A second list returns fewer objects.
        budget.list_begins(Share(0), Some("a"));
        budget.list_ends(Share(0), Some("a"));
        assert_eq!(budget.kept("a", Share(0), false), weight(large / 2));
    }
}
