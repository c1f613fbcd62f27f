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

/// What the watches keep, by namespace. Each kind has a share of its own.
#[derive(Debug, Default)]
pub(in crate::controllers) struct MemoryBudget(Mutex<HashMap<String, [Kept; KINDS]>>);

/// How many kinds are watched.
const KINDS: usize = 7;

/// What is kept of a kind, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Kept {
    /// As it is now.
    now: usize,
    /// What the list has brought so far that is about to take its place.
    listed: usize,
}

/// The part of one kind: its number, below [`KINDS`].
#[derive(Clone, Copy, Debug)]
pub(in crate::controllers) struct Share(pub(in crate::controllers) usize);

impl MemoryBudget {
    fn shares(&self) -> MutexGuard<'_, HashMap<String, [Kept; KINDS]>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is kept of a namespace, its list in the place of the share where it is listed. Lists of several kinds run beside each
    /// other, and each counts for the others.
    fn kept(&self, namespace: &str, share: Share, in_list: bool) -> usize {
        let shares = self.shares();
        let kept = shares.get(namespace).map_or(&[][..], |shares| shares);
        let of = |index: usize, kept: &Kept| match (index == share.0, in_list) {
            (true, true) => kept.listed,
            (true, false) => kept.now,
            (false, _) => kept.now.max(kept.listed),
        };
        kept.iter().enumerate().map(|(index, kept)| of(index, kept)).sum()
    }

    /// Whether an object with a text of so many bytes fits, in the place of one of so many.
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

    /// Whether it can at least be told that something does not fit: there is an end to that, too.
    pub(super) fn fits_marker(&self, namespace: &str, share: Share, in_list: bool) -> bool {
        self.kept(namespace, share, in_list) + OBJECT_OVERHEAD <= NAMESPACE_BYTES + MARKERS_BYTES
    }

    /// Whether a namespace has a good deal of room.
    pub(super) fn has_headroom(&self, namespace: &str) -> bool {
        let shares = self.shares();
        let kept = shares.get(namespace).map_or(0, |shares| shares.iter().map(|kept| kept.now).sum());
        kept <= NAMESPACE_BYTES / 4 * 3
    }

    /// A list of the kind begins, of one namespace or of all.
    pub(super) fn list_begins(&self, share: Share, namespace: Option<&str>) {
        self.each(share, namespace, |kept| kept.listed = 0);
    }

    /// The list has brought an object of so many bytes.
    pub(super) fn listed(&self, namespace: &str, share: Share, bytes: usize) {
        self.shares().entry(namespace.to_string()).or_default()[share.0].listed += weight(bytes);
    }

    /// The list is over: what it brought is what there is.
    pub(super) fn list_ends(&self, share: Share, namespace: Option<&str>) {
        self.each(share, namespace, |kept| *kept = Kept { now: kept.listed, listed: 0 });
    }

    /// An object of so many bytes takes the place of one of so many.
    pub(super) fn replace(&self, namespace: &str, share: Share, before: Option<usize>, after: Option<usize>) {
        let mut shares = self.shares();
        let kept = &mut shares.entry(namespace.to_string()).or_default()[share.0];
        let [before, after] = [before, after].map(|bytes| bytes.map_or(0, weight));
        kept.now = kept.now.saturating_sub(before) + after;
        if shares.get(namespace).is_some_and(|shares| shares.iter().all(|kept| *kept == Kept::default())) {
            shares.remove(namespace);
        }
    }

    fn each(&self, share: Share, namespace: Option<&str>, change: impl Fn(&mut Kept)) {
        let mut shares = self.shares();
        let is_listed = |other: &str| namespace.is_none_or(|namespace| namespace == other);
        shares.iter_mut().filter(|(other, _)| is_listed(other)).for_each(|(_, shares)| change(&mut shares[share.0]));
        shares.retain(|_, shares| shares.iter().any(|kept| *kept != Kept::default()));
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
        let room = MemoryBudget::default();
        let large = NAMESPACE_BYTES / 2;
        room.replace("a", Share(0), None, Some(large));
        let fits = |namespace, share, in_list, bytes| room.fits(namespace, Share(share), in_list, None, bytes);
        assert!(!fits("a", 1, false, large), "the shares of all kinds count");
        assert!(fits("a", 1, false, large / 2));
        assert!(fits("b", 1, false, large));
        assert!(room.fits("a", Share(0), false, Some(large), large), "it takes the place of what was there");
        assert!(fits("a", 0, true, large), "and so does a list");
        room.replace("a", Share(0), Some(large), Some(1000));
        assert!(fits("a", 1, false, large));
        room.replace("a", Share(0), Some(1000), None);
        assert!(room.shares().is_empty(), "nothing is kept of a namespace without objects");
    }

    #[test]
    fn lists_of_several_kinds_that_run_beside_each_other_share_the_room() {
        let room = MemoryBudget::default();
        let large = NAMESPACE_BYTES / 2;
        for share in [0, 1] {
            room.list_begins(Share(share), None);
        }
        room.listed("a", Share(0), large);
        assert!(!room.fits("a", Share(1), true, None, large));
        room.listed("a", Share(1), large / 2);
        room.list_ends(Share(0), None);
        room.list_ends(Share(1), None);
        // Listed again, with less in it.
        room.list_begins(Share(0), Some("a"));
        room.list_ends(Share(0), Some("a"));
        assert_eq!(room.kept("a", Share(0), false), weight(large / 2));
    }
}
