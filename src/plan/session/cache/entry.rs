//! Entries: the claims that hold a cache. A committed entry belongs to nobody and has its manifest as an annotation, so what fits is known
//! before any Pod starts.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::ResourceExt;
use serde::{Deserialize, Serialize};

use super::fingerprint::Fingerprints;
use crate::{
    api::{
        init::SavedRoot,
        meta,
        session::{CacheResult, CacheRetention, CacheStatus, MissReason, RestoreMode},
    },
    plan::{digest, ownership},
    protocol::cache::{FORMAT, Part},
};

/// The longest manifest that is read, in bytes. One of a session with all types that it may have is much shorter.
const LONGEST: usize = 32 * 1024;

/// How often it is recorded that an entry is used, at most.
const DAY: SignedDuration = SignedDuration::from_hours(24);

/// What is in an entry, as its annotation says.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(in crate::plan) struct Manifest {
    /// The form of the entry: [`FORMAT`].
    pub(super) format: u32,
    /// The inputs from which it was made.
    pub(super) fingerprints: Fingerprints,
    /// The architecture of the node on which it was saved.
    pub(super) arch: String,
    /// The files of the entry, by volume.
    pub(in crate::plan) volumes: BTreeMap<String, Part>,
    /// How long the session that saved it took from its start until it was initialised, in seconds.
    pub(super) init_seconds: u64,
    /// The UID of the session that saved it.
    pub(super) saved_by: String,
    /// Whether steps ran over data that was restored: then it is not what a cold start leaves.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) is_mixed: bool,
    /// The first-level folders of the tools that came from sources.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) roots: Vec<String>,
    /// The root file systems, by the types of their sandboxes.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(super) sandboxes: BTreeMap<String, SavedRoot>,
    /// How long it is kept, if the session that saved it says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::plan) retain: Option<CacheRetention>,
}

/// A committed entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::plan) struct Entry {
    /// The name of the claim.
    pub(in crate::plan) name: String,
    /// Identifies the claim and its content.
    pub(in crate::plan) id: String,
    /// What it holds.
    pub(in crate::plan) manifest: Manifest,
    /// Since when there is the claim.
    pub(in crate::plan) created: Option<Timestamp>,
    /// When a session last started from it.
    pub(in crate::plan) used: Option<Timestamp>,
    /// What restoring it has shown to be damaged.
    bad: Bad,
}

/// What is damaged of an entry.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Bad {
    /// Its volumes, so that all of it is of no use.
    is_whole: bool,
    /// The root file systems of these types.
    types: BTreeSet<String>,
}

impl Bad {
    /// Reads the annotation: `Corrupt` for the whole entry, `main=Corrupt,fuzz=Corrupt` for root file systems.
    fn read(text: &str) -> Self {
        let types = text.split(',').filter_map(|part| part.split_once('=')).map(|(name, _)| name.to_string()).collect();
        Self { is_whole: !text.contains('='), types }
    }
}

impl Entry {
    /// The entry in a claim, if there is one that the operator committed.
    pub(in crate::plan) fn of(claim: &PersistentVolumeClaim) -> Option<Self> {
        #[derive(Deserialize)]
        struct Format {
            format: u32,
        }
        let is_free = ownership::controller(&claim.metadata).is_none() && claim.metadata.deletion_timestamp.is_none();
        let is_ours = is_free && ownership::label(&claim.metadata, meta::MANAGED_BY) == Some(meta::MANAGER);
        let text = claim.annotations().get(meta::CACHE).filter(|text| is_ours && text.len() <= LONGEST)?;
        let Format { format } = serde_json::from_str(text).ok()?;
        // Of another format, only its number is known.
        let other = || Manifest { format, ..Manifest::default() };
        let manifest = if format == FORMAT { serde_json::from_str(text).ok()? } else { other() };
        Some(Self {
            name: claim.name_any(),
            id: format!("{}/{}", claim.uid()?, digest::short(&text)),
            manifest,
            created: claim.metadata.creation_timestamp.as_ref().map(|created| created.0),
            used: claim.annotations().get(meta::CACHE_USED).and_then(|used| used.parse().ok()),
            bad: claim.annotations().get(meta::CACHE_BAD).map(|text| Bad::read(text)).unwrap_or_default(),
        })
    }
}

impl Entry {
    /// Whether restoring it has shown that all of it is of no use.
    pub(in crate::plan) fn is_bad(&self) -> bool {
        self.bad.is_whole
    }

    /// The value of the annotation when these types are damaged as well; `None` if it says so already.
    pub(super) fn with_bad(&self, types: &BTreeSet<String>) -> Option<String> {
        let all: BTreeSet<_> = self.bad.types.union(types).collect();
        let words = all.iter().map(|name| format!("{name}={}", MissReason::Corrupt)).collect::<Vec<_>>();
        (!self.bad.is_whole && all.len() > self.bad.types.len()).then(|| words.join(","))
    }

    /// Whether it has all types whose root file systems a session restores.
    pub(super) fn is_complete(&self, rooted: &BTreeSet<String>) -> bool {
        rooted.iter().all(|name| self.manifest.sandboxes.contains_key(name) && !self.bad.types.contains(name))
    }

    /// Why it has nothing for a type.
    pub(super) fn misses(&self, wanted: &Wanted) -> BTreeMap<String, MissReason> {
        let mut misses = wanted.launched.misses(&self.manifest.fingerprints);
        let is_launched = |name: &String| wanted.launched.types.contains_key(name);
        let mut dependents = BTreeSet::new();
        for (name, by) in wanted.rooted.iter().filter(|(name, _)| is_launched(name)) {
            let reason = if !self.manifest.sandboxes.contains_key(name) {
                MissReason::NotSaved
            } else if self.bad.types.contains(name) {
                MissReason::Corrupt
            } else {
                continue;
            };
            misses.entry(name.clone()).or_insert(reason);
            dependents.extend(by.iter().filter(|name| is_launched(name)));
        }
        for name in dependents {
            misses.entry(name.clone()).or_insert(MissReason::DependencyChanged);
        }
        misses
    }

    /// The size of its files.
    pub(in crate::plan) fn bytes(&self) -> u64 {
        let Manifest { volumes, sandboxes, .. } = &self.manifest;
        total(volumes.values().map(|part| part.packed).chain(sandboxes.values().map(|root| root.packed)))
    }

    /// Whether it is to be recorded that it is used now.
    pub(super) fn is_due(&self, now: Timestamp) -> bool {
        last_used(self.created, self.used, now).is_none_or(|last| now.duration_since(last) > DAY)
    }
}

/// When an entry was last used, or else created. A time that is more than a day ahead was made up.
pub(in crate::plan) fn last_used(
    created: Option<Timestamp>,
    used: Option<Timestamp>,
    now: Timestamp,
) -> Option<Timestamp> {
    created.max(used.filter(|used| used.duration_since(now) <= DAY))
}

/// The sum of sizes that a manifest or a report says, as the API server stores numbers: whoever writes them may write anything.
pub(in crate::plan) fn total(sizes: impl Iterator<Item = u64>) -> u64 {
    sizes.fold(0, u64::saturating_add).min(i64::MAX.unsigned_abs())
}

/// From which entry a session starts, and what does not fit.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Choice {
    /// The entry.
    pub(super) entry: Option<Entry>,
    /// Why the data does not come from an entry.
    pub(super) data: Option<MissReason>,
    /// Why a type starts cold.
    pub(super) types: BTreeMap<String, MissReason>,
    /// Whether the volumes were filled before the session asked for caches.
    pub(super) is_late: bool,
}

/// The fingerprints of a session that is about to start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Of the types that it starts.
    pub(super) launched: Fingerprints,
    /// Of all types that it may ever start.
    pub(super) launchable: Fingerprints,
    /// The types whose root file systems are restored, each with those that depend on it.
    pub(super) rooted: BTreeMap<String, BTreeSet<String>>,
}

impl Wanted {
    /// What the volumes hold now: the work of the types that were started, and of those that were restored.
    pub(super) fn of_record(self, record: &CacheStatus) -> Fingerprints {
        let Self { mut launched, launchable, .. } = self;
        let was_restored = |name: &String| {
            record
                .sandboxes
                .get(name)
                .is_some_and(|part| matches!(part.result, CacheResult::Restored | CacheResult::Data))
        };
        launched.types.extend(launchable.types.into_iter().filter(|(name, _)| was_restored(name)));
        launched.own.extend(launchable.own.into_iter().filter(|(name, _)| was_restored(name)));
        launched
    }
}

impl Choice {
    /// Everything starts cold for this reason.
    pub(super) fn cold(wanted: &Fingerprints, reason: MissReason) -> Self {
        let types = wanted.types.keys().map(|sandbox_type| (sandbox_type.clone(), reason)).collect();
        Self { data: Some(reason), types, ..Self::default() }
    }
}

/// Chooses the entry from which a session starts: with `Partial` that with most of its types, otherwise one in which everything fits; of
/// several the newest.
pub(super) fn choose(entries: &[Entry], wanted: &Wanted, mode: RestoreMode) -> Choice {
    let Wanted { launched, launchable, .. } = wanted;
    if mode == RestoreMode::Never {
        return Choice::cold(launched, MissReason::NotAsked);
    }
    let misses = |entry: &Entry| entry.misses(wanted);
    let age = |entry: &&Entry| (entry.created, entry.name.clone());
    let fits = entries.iter().filter(|entry| obstacle(entry, launched).is_none());
    let chosen = if mode == RestoreMode::Partial {
        fits.min_by_key(|entry| (misses(entry).len(), std::cmp::Reverse(age(entry))))
    } else {
        let is_whole = |entry: &&Entry| {
            let manifest = &entry.manifest;
            misses(entry).is_empty() && !manifest.is_mixed && launchable.has_all_of(&manifest.fingerprints)
        };
        fits.filter(is_whole).max_by_key(age)
    };
    match (chosen, entries.iter().max_by_key(age)) {
        (Some(entry), _) => Choice { entry: Some(entry.clone()), types: misses(entry), ..Choice::default() },
        (None, None) => Choice::cold(launched, MissReason::NoEntry),
        // The newest entry is the one that one expects to fit.
        (None, Some(newest)) => {
            let of_data = obstacle(newest, launched);
            let types = misses(newest);
            let reason = of_data.or_else(|| types.values().next().copied()).unwrap_or(MissReason::NotSaved);
            let mut cold = Choice::cold(launched, reason);
            // Of a whole that does not fit, each type has its own reason; the others start cold with it.
            if of_data.is_none() {
                cold.types.extend(types);
            }
            cold
        }
    }
}

/// Why the data of an entry cannot be used.
fn obstacle(entry: &Entry, wanted: &Fingerprints) -> Option<MissReason> {
    if entry.is_bad() {
        Some(MissReason::Corrupt)
    } else if entry.manifest.format != FORMAT {
        Some(MissReason::FormatUnknown)
    } else if entry.manifest.fingerprints.data != wanted.data {
        Some(MissReason::SourcesChanged)
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn fingerprints(data: &str, types: &[(&str, &str)]) -> Fingerprints {
        let types: BTreeMap<_, _> = types.iter().map(|(name, of)| ((*name).to_string(), (*of).to_string())).collect();
        Fingerprints { data: data.into(), own: types.clone(), types }
    }

    fn claim(name: &str, minute: u32, fingerprints: &Fingerprints) -> PersistentVolumeClaim {
        let manifest = json!({
            "format": FORMAT, "fingerprints": fingerprints, "arch": "x86_64", "volumes": {},
            "initSeconds": 10, "savedBy": "u",
        });
        serde_json::from_value(json!({
            "metadata": {
                "name": name, "uid": name, "creationTimestamp": format!("2026-11-29T00:{minute:02}:00Z"),
                "labels": {"app.kubernetes.io/managed-by": "aigise-operator"},
                "annotations": {meta::CACHE: manifest.to_string()},
            },
        }))
        .expect("a claim")
    }

    fn chosen(claims: &[PersistentVolumeClaim], mode: RestoreMode) -> Choice {
        let entries: Vec<_> = claims.iter().filter_map(Entry::of).collect();
        let launched = fingerprints("d", &[("main", "1"), ("fuzz", "1")]);
        let launchable = fingerprints("d", &[("main", "1"), ("fuzz", "1"), ("coverage", "1")]);
        choose(&entries, &Wanted { launched, launchable, ..Wanted::default() }, mode)
    }

    fn name(choice: &Choice) -> Option<&str> {
        choice.entry.as_ref().map(|entry| entry.name.as_str())
    }

    #[test]
    fn only_what_was_committed_is_an_entry() {
        let whole = claim("e", 0, &fingerprints("d", &[]));
        assert!(Entry::of(&whole).is_some());
        let owned = |claim: &mut PersistentVolumeClaim| {
            let owner = json!([{"apiVersion": "aigise.dev/v1alpha1", "kind": "AigiseSession", "name": "s", "uid": "u", "controller": true}]);
            claim.metadata.owner_references = serde_json::from_value(owner).expect("an owner");
        };
        let unfinished = |claim: &mut PersistentVolumeClaim| claim.metadata.annotations = None;
        let odd = |claim: &mut PersistentVolumeClaim| {
            claim.annotations_mut().insert(meta::CACHE.into(), "{}".into());
        };
        let long = |claim: &mut PersistentVolumeClaim| {
            let text = claim.annotations()[meta::CACHE].clone() + &" ".repeat(LONGEST);
            claim.annotations_mut().insert(meta::CACHE.into(), text);
        };
        let by_hand = |claim: &mut PersistentVolumeClaim| claim.metadata.labels = None;
        let going = |claim: &mut PersistentVolumeClaim| {
            claim.metadata.deletion_timestamp = claim.metadata.creation_timestamp.clone();
        };
        for change in [owned, unfinished, odd, long, by_hand, going] {
            let mut changed = whole.clone();
            change(&mut changed);
            assert_eq!(Entry::of(&changed), None);
        }
        // Another content of the annotation is another entry.
        let other = claim("e", 0, &fingerprints("e", &[]));
        assert_ne!(Entry::of(&whole).map(|entry| entry.id), Entry::of(&other).map(|entry| entry.id));
    }

    #[test]
    fn sizes_that_somebody_made_up_have_a_sum() {
        assert_eq!(total([500, 700].into_iter()), 1200);
        assert_eq!(total([u64::MAX, 1].into_iter()), i64::MAX.unsigned_abs());
    }

    #[test]
    fn whole_takes_the_newest_in_which_everything_fits() {
        let all = [("main", "1"), ("fuzz", "1")];
        let claims = [
            claim("older", 1, &fingerprints("d", &all)),
            claim("newer", 2, &fingerprints("d", &all)),
            claim("other-step", 3, &fingerprints("d", &[("main", "2"), ("fuzz", "1")])),
            claim("more", 4, &fingerprints("d", &[("main", "1"), ("fuzz", "1"), ("joern", "1")])),
        ];
        for mode in [RestoreMode::Whole, RestoreMode::Required] {
            let choice = chosen(&claims, mode);
            assert_eq!((name(&choice), choice.types.len()), (Some("newer"), 0));
        }
        // Its data would have what a type left that the session does not have.
        let choice = chosen(&claims[3..], RestoreMode::Whole);
        assert_eq!((name(&choice), choice.data), (None, Some(MissReason::NotSaved)));
        // A type that starts when an agent needs it fits, and its work is there already.
        let on_demand = claim("on-demand", 5, &fingerprints("d", &[("main", "1"), ("fuzz", "1"), ("coverage", "1")]));
        assert_eq!(name(&chosen(std::slice::from_ref(&on_demand), RestoreMode::Whole)), Some("on-demand"));
        // Steps that ran over old results are for those who ask for that.
        let mut mixed = on_demand;
        let text = mixed.annotations()[meta::CACHE].replace("\"savedBy\"", "\"isMixed\":true,\"savedBy\"");
        mixed.annotations_mut().insert(meta::CACHE.into(), text);
        assert_eq!(chosen(std::slice::from_ref(&mixed), RestoreMode::Whole).data, Some(MissReason::NotSaved));
        assert_eq!(name(&chosen(&[mixed], RestoreMode::Partial)), Some("on-demand"));
        // What fits starts cold as well, for the reason of what does not.
        let choice = chosen(&claims[2..3], RestoreMode::Whole);
        assert_eq!(choice.data, Some(MissReason::InitChanged));
        assert!(choice.types.values().all(|reason| *reason == MissReason::InitChanged) && choice.types.len() == 2);
        assert_eq!(chosen(&claims, RestoreMode::Never).data, Some(MissReason::NotAsked));
        assert_eq!(chosen(&[], RestoreMode::Whole).data, Some(MissReason::NoEntry));
    }

    #[test]
    fn partial_takes_most_and_then_the_newest() {
        let claims = [
            claim("all", 1, &fingerprints("d", &[("main", "1"), ("fuzz", "1")])),
            claim("one", 2, &fingerprints("d", &[("main", "1")])),
            claim("other-data", 3, &fingerprints("e", &[("main", "1"), ("fuzz", "1")])),
        ];
        assert_eq!(name(&chosen(&claims, RestoreMode::Partial)), Some("all"));
        let choice = chosen(&claims[1..], RestoreMode::Partial);
        assert_eq!(name(&choice), Some("one"));
        assert_eq!(choice.types, BTreeMap::from([("fuzz".to_string(), MissReason::NotSaved)]));
        assert_eq!(chosen(&claims[2..], RestoreMode::Partial).data, Some(MissReason::SourcesChanged));
    }

    #[test]
    fn what_is_damaged_or_of_another_format_is_left_alone() {
        let whole = claim("e", 0, &fingerprints("d", &[("main", "1"), ("fuzz", "1")]));
        let mut bad = whole.clone();
        bad.annotations_mut().insert(meta::CACHE_BAD.into(), "Corrupt".into());
        assert_eq!(chosen(&[bad], RestoreMode::Whole).data, Some(MissReason::Corrupt));
        let mut newer = whole;
        let text =
            newer.annotations()[meta::CACHE].replace("\"format\":1", "\"format\":2").replace("\"arch\"", "\"new\"");
        newer.annotations_mut().insert(meta::CACHE.into(), text);
        assert_eq!(chosen(&[newer], RestoreMode::Partial).data, Some(MissReason::FormatUnknown));
    }
}
