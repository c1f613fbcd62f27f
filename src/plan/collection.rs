//! Collection: which caches of a namespace are deleted, and why. An entry belongs to no session, so it says itself how long it is kept, and
//! the operator has limits for each namespace. Whoever may write claims may write anything on them: what makes no sense counts as the default.
//!
//! Decided in docs/adr/0024-an-entry-is-a-claim.md.

use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::ResourceExt;
use strum::IntoStaticStr;

use super::{
    CacheLimits, Kind, Target, duration, ownership,
    session::{Entry, last_used},
};
use crate::api::{meta, session::CacheRetention};

/// How many entries of a key are kept if the entry does not say.
const GENERATIONS: i32 = 1;

/// The most entries of a key that are kept.
const MOST_GENERATIONS: i32 = 100;

/// How long an entry that is not used is kept, if it does not say.
const UNUSED_FOR: SignedDuration = SignedDuration::from_hours(720);

/// Why an entry is deleted: the setting that it exceeds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, IntoStaticStr)]
#[strum(serialize_all = "snake_case")]
pub enum Exceeded {
    /// There are enough newer ones of its key.
    Generations,
    /// No session has started from it for long.
    UnusedFor,
    /// The namespace has too many.
    MaxEntries,
    /// Those of the namespace take too many bytes.
    MaxBytes,
}

/// A committed entry, as far as collecting it is concerned.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Candidate {
    created: Option<Timestamp>,
    name: String,
    uid: Option<String>,
    version: Option<String>,
    /// Identifies the claim and its content.
    id: String,
    key: String,
    used: Option<Timestamp>,
    is_bad: bool,
    bytes: u64,
    generations: usize,
    unused_for: SignedDuration,
}

impl Candidate {
    /// The entry in a claim, if there is one that the operator committed.
    pub fn of(claim: &PersistentVolumeClaim) -> Option<Self> {
        let entry = Entry::of(claim)?;
        // The operator deletes nothing that was not a session's.
        ownership::owner_uid(&claim.metadata)?;
        let CacheRetention { generations, unused_for } = entry.manifest.retain.clone().unwrap_or_default();
        let generations = generations.unwrap_or(GENERATIONS).clamp(1, MOST_GENERATIONS);
        Some(Self {
            created: entry.created,
            uid: claim.uid(),
            version: claim.resource_version(),
            key: ownership::label(&claim.metadata, meta::CACHE_KEY)?.to_string(),
            used: entry.used,
            is_bad: entry.is_bad(),
            generations: usize::try_from(generations).unwrap_or_default(),
            unused_for: unused_for.as_deref().and_then(duration::parse).unwrap_or(UNUSED_FOR),
            bytes: entry.bytes(),
            name: entry.name,
            id: entry.id,
        })
    }

    fn last_used(&self, now: Timestamp) -> Option<Timestamp> {
        last_used(self.created, self.used, now)
    }
}

/// Which of the entries of a namespace are deleted. `in_use` has the ids of those from which sessions are being restored.
pub fn collected(
    mut entries: Vec<Candidate>,
    limits: CacheLimits,
    in_use: &BTreeSet<String>,
    now: Timestamp,
) -> Vec<(Target, Exceeded)> {
    // The newest come first.
    entries.sort_unstable_by(|one, other| (other.created, &other.name).cmp(&(one.created, &one.name)));
    // For each key, how many stay, and how many were counted.
    let mut keys: BTreeMap<String, (usize, usize)> = BTreeMap::new();
    let (mut collected, mut kept) = (vec![], vec![]);
    for entry in entries {
        let (generations, counted) = keys.entry(entry.key.clone()).or_insert((entry.generations, 0));
        // A damaged entry is not a generation, and is kept only as long as there is nothing better.
        let is_superseded = *counted >= if entry.is_bad { 1 } else { *generations };
        *counted += usize::from(!entry.is_bad);
        let is_unused = entry.last_used(now).is_some_and(|last| now.duration_since(last) > entry.unused_for);
        match (is_superseded, is_unused) {
            _ if in_use.contains(&entry.id) => kept.push(entry),
            (true, _) => collected.push((entry, Exceeded::Generations)),
            (false, true) => collected.push((entry, Exceeded::UnusedFor)),
            (false, false) => kept.push(entry),
        }
    }
    let exceeds = |bytes: u128| limits.max_bytes.is_some_and(|most| bytes > most.into());
    let (mut count, mut bytes) = (kept.len(), kept.iter().map(|entry| u128::from(entry.bytes)).sum());
    // One that is too large by itself does not make all others go first.
    kept.sort_by_cached_key(|entry| (Reverse(exceeds(entry.bytes.into())), entry.last_used(now), entry.name.clone()));
    for entry in kept {
        let exceeded = if count > limits.max_entries {
            Exceeded::MaxEntries
        } else if exceeds(bytes) {
            Exceeded::MaxBytes
        } else {
            break;
        };
        if !in_use.contains(&entry.id) {
            count -= 1;
            bytes -= u128::from(entry.bytes);
            collected.push((entry, exceeded));
        }
    }
    let target =
        |Candidate { name, uid, version, .. }| Target { kind: Kind::PersistentVolumeClaim, name, uid, version };
    collected.into_iter().map(|(entry, exceeded)| (target(entry), exceeded)).collect()
}

/// The entry from which the claim of a session is restored, with the name of that session.
pub fn restored(claim: &PersistentVolumeClaim) -> Option<(String, String)> {
    let id = claim.annotations().get(meta::CACHE_FROM)?;
    let owner = ownership::controller(&claim.metadata).map(|owner| owner.name.as_str());
    let session = owner.or_else(|| ownership::label(&claim.metadata, meta::SESSION))?;
    Some((session.to_string(), id.clone()))
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn now() -> Timestamp {
        "2026-11-29T00:00:00Z".parse().unwrap()
    }

    /// A claim that was created so many hours ago, with a manifest.
    fn claim(name: &str, key: &str, hours: i64, manifest: Value) -> PersistentVolumeClaim {
        let created = now() - SignedDuration::from_hours(hours);
        let mut text = json!({
            "format": 1, "fingerprints": {"data": "", "types": {}, "own": {}}, "arch": "x86_64", "initSeconds": 1, "savedBy": "u",
            "volumes": {"data": {"file": "f", "sha256": "0", "packed": 10, "unpacked": 20}},
        });
        text.as_object_mut().unwrap().extend(manifest.as_object().unwrap().clone());
        serde_json::from_value(json!({
            "metadata": {
                "name": name, "uid": format!("uid-{name}"), "resourceVersion": "7", "creationTimestamp": created,
                "labels": {
                    "app.kubernetes.io/managed-by": "aigise-operator",
                    "aigise.dev/session-uid": "u",
                    "aigise.dev/cache-key": key,
                },
                "annotations": {"aigise.dev/cache": text.to_string()},
            },
        }))
        .unwrap()
    }

    fn annotated(mut claim: PersistentVolumeClaim, annotation: &str, value: &str) -> PersistentVolumeClaim {
        claim.annotations_mut().insert(annotation.into(), value.into());
        claim
    }

    fn used(claim: PersistentVolumeClaim, hours: i64) -> PersistentVolumeClaim {
        annotated(claim, meta::CACHE_USED, &(now() - SignedDuration::from_hours(hours)).to_string())
    }

    fn generations(number: i64) -> Value {
        json!({"retain": {"generations": number}})
    }

    fn decided(claims: &[PersistentVolumeClaim], limits: CacheLimits, in_use: &[&str]) -> Vec<(String, Exceeded)> {
        let entries: Vec<_> = claims.iter().filter_map(Candidate::of).collect();
        let in_use = entries.iter().filter(|entry| in_use.contains(&entry.name.as_str()));
        let in_use = in_use.map(|entry| entry.id.clone()).collect();
        let mut collected: Vec<_> = collected(entries, limits, &in_use, now())
            .into_iter()
            .map(|(target, exceeded)| {
                assert_eq!(target.uid, Some(format!("uid-{}", target.name)));
                assert_eq!(target.version.as_deref(), Some("7"));
                (target.name, exceeded)
            })
            .collect();
        collected.sort_by(|one, other| one.0.cmp(&other.0));
        collected
    }

    fn names(claims: &[PersistentVolumeClaim]) -> Vec<String> {
        decided(claims, CacheLimits::default(), &[]).into_iter().map(|(name, _)| name).collect()
    }

    #[test]
    fn of_each_key_the_newest_are_kept_as_the_newest_says() {
        let claims = [
            claim("a1", "a", 5, generations(3)),
            claim("a2", "a", 4, json!({})),
            claim("a3", "a", 3, generations(2)),
            claim("b1", "b", 6, json!({})),
            claim("b2", "b", 2, json!({})),
            claim("c1", "c", 1, json!({})),
        ];
        let expected = [("a1".to_string(), Exceeded::Generations), ("b1".to_string(), Exceeded::Generations)];
        assert_eq!(decided(&claims, CacheLimits::default(), &[]), expected);
        // From one of them a session is being restored.
        assert_eq!(decided(&claims, CacheLimits::default(), &["a1"]), expected[1..]);
    }

    #[test]
    fn what_is_damaged_is_kept_until_there_is_a_newer_one_that_is_not() {
        let bad = |claim| annotated(claim, meta::CACHE_BAD, "Corrupt");
        let older = claim("older", "k", 3, generations(2));
        let damaged = bad(claim("damaged", "k", 2, generations(2)));
        assert!(names(&[older.clone(), damaged.clone()]).is_empty());
        let newer = claim("newer", "k", 1, generations(2));
        assert_eq!(names(&[older.clone(), damaged.clone(), newer.clone()]), ["damaged"]);
        // It does not count as a generation.
        let two = [older, damaged, newer, bad(claim("again", "k", 0, generations(2)))];
        assert_eq!(names(&two), ["damaged"]);
    }

    #[test]
    fn what_is_not_used_for_long_is_not_kept() {
        let claims = [
            claim("by-default", "a", 721, json!({})),
            claim("young", "b", 719, json!({})),
            claim("shorter", "c", 2, json!({"retain": {"unusedFor": "1h"}})),
            claim("longer", "d", 9000, json!({"retain": {"unusedFor": "9001h"}})),
            used(claim("used", "e", 9000, json!({})), 1),
            used(claim("was-used", "f", 9000, json!({})), 721),
            // Its time was made up.
            used(claim("far-ahead", "g", 9000, json!({})), -9000),
            annotated(claim("odd-time", "h", 9000, json!({})), meta::CACHE_USED, "yesterday"),
        ];
        let unused = decided(&claims, CacheLimits::default(), &[]);
        assert!(unused.iter().all(|(_, exceeded)| *exceeded == Exceeded::UnusedFor), "{unused:?}");
        assert_eq!(names(&claims), ["by-default", "far-ahead", "odd-time", "shorter", "was-used"]);
        let kept = decided(&claims, CacheLimits::default(), &["shorter"]);
        assert!(!kept.iter().any(|(name, _)| name == "shorter"));
    }

    #[test]
    fn a_namespace_has_so_many_and_those_go_first_that_were_not_used_for_longest() {
        let claims = [
            used(claim("oldest", "a", 100, json!({})), 1),
            claim("old", "b", 50, json!({})),
            claim("middle", "c", 30, json!({})),
            claim("new", "d", 2, json!({})),
        ];
        let limits = |max_entries, max_bytes| CacheLimits { max_entries, max_bytes };
        let of = |limits, in_use: &[&str]| decided(&claims, limits, in_use);
        let two = [("middle".to_string(), Exceeded::MaxEntries), ("old".to_string(), Exceeded::MaxEntries)];
        assert_eq!(of(limits(2, None), &[]), two);
        // Each has ten bytes.
        assert_eq!(of(limits(100, Some(40)), &[]), []);
        let one = [("old".to_string(), Exceeded::MaxBytes)];
        assert_eq!(of(limits(100, Some(39)), &[]), one);
        assert_eq!(of(limits(100, Some(30)), &[]), one);
        assert_eq!(of(limits(3, Some(20)), &[]).len(), 2);
        // From the first a session is being restored: another goes instead.
        assert_eq!(of(limits(3, None), &["old"]), [("middle".to_string(), Exceeded::MaxEntries)]);
        assert_eq!(of(limits(1, Some(1)), &["old", "middle", "new", "oldest"]), []);
    }

    #[test]
    fn what_is_too_large_by_itself_does_not_drive_the_others_out() {
        let volumes = |packed: u64| json!({"volumes": {"data": {"file": "f", "sha256": "0", "packed": packed, "unpacked": packed}}});
        let claims = [
            claim("small", "a", 9, json!({})),
            claim("large", "b", 1, volumes(1 << 40)),
            claim("endless", "c", 1, volumes(u64::MAX)),
            claim("endless-too", "d", 1, volumes(u64::MAX)),
            claim("and-this", "e", 1, volumes(u64::MAX)),
        ];
        let limits = CacheLimits { max_entries: 100, max_bytes: Some(1 << 30) };
        let gone: Vec<_> = decided(&claims, limits, &[]).into_iter().map(|(name, _)| name).collect();
        assert_eq!(gone, ["and-this", "endless", "endless-too", "large"]);
        assert!(names(&claims).is_empty(), "without a limit, there is none");
    }

    #[test]
    fn of_another_format_only_the_time_is_known() {
        let other = |name: &str, hours| claim(name, "k", hours, json!({"format": 2, "retain": {"generations": 9}}));
        assert_eq!(names(&[other("old", 800)]), ["old"]);
        assert_eq!(names(&[other("older", 20), other("newer", 10)]), ["older"]);
    }

    #[test]
    fn values_that_make_no_sense_are_the_defaults() {
        for (retain, count) in [
            (json!({"generations": 0}), 1),
            (json!({"generations": i32::MIN}), 1),
            (json!({"generations": i32::MAX}), 100),
            (json!({"generations": 3, "unusedFor": "soon", "other": {"a": [1]}}), 3),
            (json!({"unusedFor": "-1h"}), 1),
            (json!({"unusedFor": "99999999999999999999h"}), 1),
            (json!({}), 1),
            (Value::Null, 1),
        ] {
            let claims: Vec<_> =
                (0..102).map(|n| claim(&format!("c{n:03}"), "k", 200 - n, json!({"retain": retain}))).collect();
            let gone = decided(&claims, CacheLimits { max_entries: 1000, max_bytes: None }, &[]);
            assert_eq!(gone.len(), 102 - count, "{retain}");
        }
        // What is not an entry is never touched.
        for odd in [json!({"retain": 5}), json!({"retain": {"generations": "many"}}), json!({"format": -1})] {
            assert_eq!(Candidate::of(&claim("odd", "k", 9999, odd)), None);
        }
        let mut foreign = claim("foreign", "k", 9999, json!({}));
        foreign.labels_mut().remove(meta::SESSION_UID);
        assert_eq!(Candidate::of(&foreign), None);
    }
}
