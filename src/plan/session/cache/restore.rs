//! Restoring: which entry the volumes of a new session come from, and what its Pod says.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use jiff::SignedDuration;
use k8s_openapi::api::core::v1::{PersistentVolumeClaim, Pod};
use kube::ResourceExt;

use super::{
    Caching,
    entry::{Choice, Entry, choose, total},
    fingerprints, pod, removal,
};
use crate::{
    api::{
        condition::Reason,
        init::RootState,
        meta,
        session::{CacheResult, CacheSpec, MissReason, RestoreMode},
    },
    plan::{
        facts::session::may_be_worked_in,
        name::Label,
        pod::{Progress, annotation},
        session::{ChildState, Created, Observed, Write, lifetime, sandboxes, staging},
        status::printable,
        volumes::SharedVolume,
    },
    protocol::cache::{RestoreFault, RestoreReport},
};

/// How long the restore Pod may take to start: half of the time that it saves, within these bounds. Other sessions may have the entry.
const WAITS: [SignedDuration; 2] = [SignedDuration::from_mins(2), SignedDuration::from_mins(30)];

/// Stands on a claim for the entry, if there is none.
const COLD: &str = "none";

/// What keeps an entry that fits from being restored.
pub(super) const FAILURES: [MissReason; 8] = [
    MissReason::Corrupt,
    MissReason::TooLarge,
    MissReason::NoSpace,
    MissReason::FormatUnknown,
    MissReason::ArchDiffers,
    MissReason::ImageChanged,
    MissReason::EntryUnreachable,
    MissReason::RestoreFailed,
];

/// Where restoring is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Restore {
    /// Nothing is to be restored.
    #[default]
    Over,
    /// No cache fits, and the session requires one: nothing is created.
    Required(MissReason),
    /// The content of the sources is not known yet, so neither is what fits.
    Undecided,
    /// An entry was chosen: the claims are created with its name.
    Chosen(Box<Entry>),
    /// The restore Pod is to be created, or is on its way.
    Running(Box<Entry>, Option<Progress>),
    /// The restore Pod has restored so many bytes, and not the root file systems of these types.
    Restored(Box<Entry>, u64, BTreeSet<String>),
    /// Restoring failed: the claims are deleted and created again. `is_late`: sandboxes have been started over them.
    Failed { reason: MissReason, message: String, is_late: bool },
    /// The claims of a restore that failed are being deleted.
    Discarding,
    /// They are gone, with the sandboxes over them. Nothing is created until the status says so.
    Discarded,
}

/// The entry that a claim is restored from.
pub(super) fn entry_of(claim: &PersistentVolumeClaim) -> Option<&str> {
    claim.annotations().get(meta::CACHE_FROM).map(String::as_str).filter(|id| *id != COLD)
}

/// Whether somebody may have worked in the volumes: then nothing is restored into them, and nothing of them is deleted, whatever the status
/// says of caches, or has lost.
fn is_used(observed: &Observed) -> bool {
    let status = observed.session.status();
    let is_filled = status.and_then(|status| status.volumes.as_ref()).is_some_and(|volumes| volumes.filled.is_some());
    is_filled || status.is_some_and(|status| status.ready_at.is_some()) || sandboxes::exist(observed)
}

/// Where restoring is in a session that does not ask for caches any more: what is half restored is given up.
pub(super) fn given_up(observed: &Observed) -> Restore {
    let data = observed.cache_record().and_then(|record| record.data.as_ref());
    if let Some(discarding) = discarding(observed) {
        return discarding;
    }
    if is_used(observed) || chosen_by_claims(observed).is_none_or(|id| id == COLD) {
        return Restore::Over;
    }
    match data.map(|data| data.result) {
        None => {
            let message = "The session does not ask for a cache any more.".into();
            Restore::Failed { reason: MissReason::NotAsked, message, is_late: false }
        }
        Some(CacheResult::Missing) => Restore::Discarding,
        Some(CacheResult::Restored | CacheResult::Data | CacheResult::Excluded | CacheResult::Discarded) => {
            Restore::Over
        }
    }
}

/// That volumes over which sandboxes have been started are still being deleted, if the status says so.
fn discarding(observed: &Observed) -> Option<Restore> {
    let data = observed.cache_record().and_then(|record| record.data.as_ref());
    let is_discarded = data.is_some_and(|data| data.result == CacheResult::Discarded);
    let remains = |claim: &ChildState<PersistentVolumeClaim>| match claim {
        ChildState::Owned(claim) => entry_of(claim).is_some(),
        ChildState::Absent => false,
        ChildState::Foreign(_) | ChildState::Failed(_) => true,
    };
    let left = volumes(observed).any(remains) || sandboxes::exist(observed) || observed.stage_pod.may_be_there();
    let next = if left { Restore::Discarding } else { Restore::Discarded };
    (is_discarded && !is_worked_in(observed)).then_some(next)
}

fn is_worked_in(observed: &Observed) -> bool {
    observed.session.status().is_some_and(may_be_worked_in)
}

/// The types whose sandboxes could not restore their root file systems, each with the reason and a message.
pub(super) fn broken(observed: &Observed) -> BTreeMap<String, (MissReason, String)> {
    let parts = observed.cache_record().map(|record| &record.sandboxes);
    let is_restored = |name: &str| parts.and_then(|parts| parts.get(name)?.root.as_ref()).is_some();
    let broken = sandboxes::wanted(observed).filter(|wanted| is_restored(wanted.sandbox_type)).filter_map(|wanted| {
        let root = wanted.root()?.clone();
        let message = format!("{}: {}", wanted.sandbox_type, root.message.unwrap_or_default());
        let reason = root.reason.and_then(|reason| reason.parse().ok()).unwrap_or(MissReason::RestoreFailed);
        (root.state == RootState::NotRestored).then(|| (wanted.sandbox_type.to_string(), (reason, message)))
    });
    broken.collect()
}

/// What becomes of a session of which a root file system could not be restored: before anybody has worked in it, and unless it takes what
/// fits, all of it starts cold.
fn over(observed: &Observed, cache: &CacheSpec) -> Restore {
    let mut broken = broken(observed).into_values();
    match broken.next() {
        Some((reason, message)) if cache.restore() != RestoreMode::Partial && !is_worked_in(observed) => {
            Restore::Failed { reason, message: printable(&message), is_late: true }
        }
        _ => Restore::Over,
    }
}

/// Where restoring is, and the choice if it was made now.
pub(super) fn of(observed: &Observed, cache: &CacheSpec) -> (Restore, Option<Choice>) {
    let record = observed.cache_record().and_then(|record| record.data.as_ref());
    if let Some(discarding) = discarding(observed) {
        return (discarding, None);
    }
    match (record.map(|data| data.result), chosen_by_claims(observed)) {
        (None, Some(id)) if id != COLD && is_used(observed) => (Restore::Over, None),
        (None, Some(id)) if id != COLD => (running(observed, id), rest_of_choice(observed, cache, id)),
        (None, chosen) => chosen_now(observed, cache, chosen.is_some()),
        (Some(CacheResult::Missing), Some(id)) if id != COLD && !is_used(observed) => (Restore::Discarding, None),
        (Some(CacheResult::Missing), None) if cache.restore() == RestoreMode::Required && is_new(observed) => {
            let reason = record.and_then(|data| data.reason).filter(|reason| FAILURES.contains(reason));
            (reason.map_or(Restore::Over, Restore::Required), None)
        }
        (Some(CacheResult::Restored), _) => (over(observed, cache), None),
        (Some(_), _) => (Restore::Over, None),
    }
}

/// Chooses where the volumes come from, if that is not on the claims yet.
fn chosen_now(observed: &Observed, cache: &CacheSpec, is_cold: bool) -> (Restore, Option<Choice>) {
    let is_new = is_new(observed);
    let is_known = volumes(observed).all(|claim| matches!(claim, ChildState::Owned(_) | ChildState::Absent))
        && observed.sandboxes.values().all(|sandbox| sandbox.failure().is_none());
    let Some(wanted) = fingerprints(observed, cache).filter(|_| is_known) else {
        return (if is_new || !is_known { Restore::Undecided } else { Restore::Over }, None);
    };
    // The volumes of a session that is older than its field `cache` are filled already.
    if !is_cold && (!is_new || is_used(observed)) {
        return (Restore::Over, Some(Choice { is_late: true, ..Choice::cold(&wanted.launched, MissReason::NotAsked) }));
    }
    let choice = choose(&entries(observed), &wanted, cache.restore());
    match &choice.entry {
        Some(entry) if is_new => (Restore::Chosen(entry.clone().into()), Some(choice)),
        // It was committed after the claims were created.
        Some(_) => (Restore::Over, Some(Choice::cold(&wanted.launched, MissReason::NoEntry))),
        None if cache.restore() == RestoreMode::Required && is_new => {
            (Restore::Required(choice.data.unwrap_or(MissReason::NoEntry)), Some(choice))
        }
        None => (Restore::Over, Some(choice)),
    }
}

/// The claims that are restored.
pub(super) fn volumes(observed: &Observed) -> impl Iterator<Item = &ChildState<PersistentVolumeClaim>> {
    observed.claims.iter().filter(|(volume, _)| **volume != SharedVolume::Scripts).map(|(_, claim)| claim)
}

/// Whether no claim that would be restored exists yet.
pub(super) fn is_new(observed: &Observed) -> bool {
    volumes(observed).all(|claim| *claim == ChildState::Absent)
}

fn entries(observed: &Observed) -> Vec<Entry> {
    observed.entries.iter().filter_map(|claim| Entry::of(claim)).collect()
}

/// What does not fit of the entry that the claims name; `None` if the status says so already.
fn rest_of_choice(observed: &Observed, cache: &CacheSpec, id: &str) -> Option<Choice> {
    if observed.cache_record().is_some_and(|record| !record.sandboxes.is_empty()) {
        return None;
    }
    let entry = entries(observed).into_iter().find(|entry| entry.id == id)?;
    let types = entry.misses(&fingerprints(observed, cache)?);
    Some(Choice { entry: Some(entry), types, ..Choice::default() })
}

/// What the claims say about where their content comes from.
fn chosen_by_claims(observed: &Observed) -> Option<&str> {
    let of = |volume: SharedVolume| {
        let claim = observed.claims.get(&volume)?.owned()?;
        claim.annotations().get(meta::CACHE_FROM).map(String::as_str)
    };
    of(SharedVolume::Data).or_else(|| of(SharedVolume::Tools))
}

/// Where restoring the chosen entry is.
fn running(observed: &Observed, id: &str) -> Restore {
    let entry = entries(observed).into_iter().find(|entry| entry.id == id).map(Box::new);
    let failed = |reason, message: &str| Restore::Failed { reason, message: printable(message), is_late: false };
    match &observed.restore_pod {
        ChildState::Foreign(_) => {
            return failed(MissReason::RestoreFailed, "Another Pod has the name of the Pod that restores.");
        }
        ChildState::Failed(failure) if matches!(failure.reason, Reason::Forbidden | Reason::Refused) => {
            return failed(MissReason::RestoreFailed, &failure.message);
        }
        ChildState::Owned(_) | ChildState::Absent | ChildState::Failed(_) => {}
    }
    let pod = own_pod(observed, id);
    let progress = pod.map(|pod| Progress::of(pod, meta::CACHE_CONTAINER));
    let started = observed.session.status().and_then(|status| status.started_at.as_ref());
    let is_late = started.is_some_and(|started| observed.now.duration_since(started.0) > WAITS[1]);
    if let Some(Progress::Ended { last_words, message, success, reason, .. }) = &progress {
        let report = last_words.as_deref().and_then(|words| serde_json::from_str(words).ok());
        return match (report, entry) {
            (Some(RestoreReport::Restored { volumes, left_out }), Some(entry)) if *success => {
                let is_out = |name: &&String| Label::of(name).is_ok_and(|label| left_out.contains(&label.to_string()));
                let types = entry.manifest.sandboxes.keys().filter(is_out).cloned().collect();
                Restore::Restored(entry, total(volumes.into_values()), types)
            }
            (Some(RestoreReport::Failed { fault, message, .. }), _) => failed(miss(fault), &message),
            // The cluster took the Pod away: the next one completes what it began.
            (None, Some(entry)) if *reason == Reason::PodLost && !is_late => Restore::Running(entry, progress),
            _ => failed(MissReason::RestoreFailed, message),
        };
    }
    let Some(entry) = entry else {
        return failed(MissReason::EntryUnreachable, "The claim of the cache is gone.");
    };
    let has_begun = matches!(
        progress,
        Some(
            Progress::Running
                | Progress::Ready
                | Progress::Silent
                | Progress::Initializing { .. }
                | Progress::HeldBack { .. }
        )
    );
    let waits = match progress {
        // It was taken away, and the next one has its own time.
        Some(Progress::Terminating) => is_late,
        Some(_) => true,
        None => observed.restore_pod.failure().is_some(),
    };
    if waits
        && !has_begun
        && lifetime::rest(observed).is_none()
        && left(observed, &entry).is_some_and(|left| left.is_zero())
    {
        return failed(MissReason::EntryUnreachable, "The Pod that restores the cache could not start in time.");
    }
    Restore::Running(entry, progress)
}

/// The Pod that restores this entry. One of another choice is deleted.
fn own_pod<'a>(observed: &'a Observed, id: &str) -> Option<&'a Arc<Pod>> {
    observed.restore_pod.owned().filter(|pod| annotation(pod, meta::CACHE_FROM) == Some(id))
}

fn miss(fault: RestoreFault) -> MissReason {
    match fault {
        RestoreFault::Corrupt => MissReason::Corrupt,
        RestoreFault::TooLarge => MissReason::TooLarge,
        RestoreFault::NoSpace => MissReason::NoSpace,
        RestoreFault::FormatUnknown => MissReason::FormatUnknown,
        RestoreFault::ArchDiffers => MissReason::ArchDiffers,
        RestoreFault::ImageChanged => MissReason::ImageChanged,
        RestoreFault::RestoreFailed => MissReason::RestoreFailed,
    }
}

/// How much longer the restore Pod may take to start: from its creation, or from the start of the session as long as it is refused.
pub(super) fn left(observed: &Observed, entry: &Entry) -> Option<Duration> {
    let pod = own_pod(observed, &entry.id).and_then(|pod| pod.metadata.creation_timestamp.clone());
    let started = observed.session.status().and_then(|status| status.started_at.clone());
    let since = pod.or(started)?.0;
    let half = SignedDuration::from_secs(i64::try_from(entry.manifest.init_seconds / 2).unwrap_or(i64::MAX));
    let end = since.checked_add(half.clamp(WAITS[0], WAITS[1])).ok()?;
    Some(Duration::try_from(end.duration_since(observed.now)).unwrap_or_default())
}

/// The writes of restoring, before staging.
pub(in crate::plan::session) fn writes(observed: &Observed, caching: &Caching) -> Vec<Write> {
    match &caching.restore {
        Restore::Running(entry, None) => {
            let created = || Write::Create(Created::Pod(Box::new(pod::restore_pod(observed, entry))));
            vec![removal(&observed.restore_pod).unwrap_or_else(created)]
        }
        Restore::Discarding => {
            let late = if is_late(observed) { sandboxes::all_removals(observed) } else { vec![] };
            let pods = [removal(&observed.restore_pod), removal(&observed.stage_pod).filter(|_| is_late(observed))];
            let condemned = condemned(observed).into_iter().chain(late).chain(pods.into_iter().flatten());
            condemned.chain(discarded(observed)).collect()
        }
        Restore::Running(_, Some(Progress::Ended { .. }))
            if !staging::rest_of(observed, &observed.restore_pod).is_zero() =>
        {
            vec![]
        }
        Restore::Over | Restore::Running(_, Some(Progress::Ended { .. })) => {
            removal(&observed.restore_pod).into_iter().collect()
        }
        Restore::Required(_)
        | Restore::Undecided
        | Restore::Chosen(_)
        | Restore::Running(..)
        | Restore::Restored(..)
        | Restore::Discarded
        | Restore::Failed { .. } => vec![],
    }
}

/// Whether sandboxes have been started over what is being discarded.
fn is_late(observed: &Observed) -> bool {
    let data = observed.cache_record().and_then(|record| record.data.as_ref());
    data.is_some_and(|data| data.result == CacheResult::Discarded)
}

/// Records on the entry that the session has started from it, if nobody did today, and which root file systems are damaged. No other write
/// comes after this one, so nothing waits for it if it is refused.
pub(in crate::plan::session) fn use_writes(observed: &Observed, caching: &Caching) -> Vec<Write> {
    let Restore::Restored(entry, _, damaged) = &caching.restore else { return vec![] };
    let used = entry.is_due(observed.now).then(|| (meta::CACHE_USED, observed.now.to_string()));
    let bad = entry.with_bad(damaged).map(|text| (meta::CACHE_BAD, text));
    let is_it = |claim: &&Arc<PersistentVolumeClaim>| Entry::of(claim).is_some_and(|found| found.id == entry.id);
    let found = observed.entries.iter().find(is_it).filter(|_| used.is_some() || bad.is_some());
    let written = found.map(|claim| {
        let mut claim = PersistentVolumeClaim::clone(claim);
        let annotations = used.into_iter().chain(bad).map(|(name, value)| (name.to_string(), value));
        claim.annotations_mut().extend(annotations);
        Write::PatchClaim(Box::new(claim))
    });
    written.into_iter().collect()
}

/// Marks an entry whose content is damaged, so that no session chooses it any more.
fn condemned(observed: &Observed) -> Option<Write> {
    // What a sandbox has found to be damaged may have been damaged by another sandbox.
    let data = observed.cache_record()?.data.as_ref().filter(|data| data.result == CacheResult::Missing)?;
    let id = chosen_by_claims(observed).filter(|_| data.reason == Some(MissReason::Corrupt))?;
    let is_it =
        |claim: &&Arc<PersistentVolumeClaim>| Entry::of(claim).is_some_and(|entry| entry.id == id && !entry.is_bad());
    let mut claim = PersistentVolumeClaim::clone(observed.entries.iter().find(is_it)?);
    claim.annotations_mut().insert(meta::CACHE_BAD.into(), MissReason::Corrupt.to_string());
    Some(Write::PatchClaim(Box::new(claim)))
}

/// Deletes the claims of a restore that failed, so that everything starts cold.
fn discarded(observed: &Observed) -> impl Iterator<Item = Write> {
    let may = is_late(observed) && !is_worked_in(observed) || !is_used(observed);
    let claims = volumes(observed).filter_map(ChildState::owned).filter(move |_| may);
    let chosen = claims.filter(|claim: &&Arc<PersistentVolumeClaim>| {
        entry_of(claim).is_some() && claim.metadata.deletion_timestamp.is_none()
    });
    chosen.map(|claim| Write::delete(&**claim))
}

/// A claim that is about to be created, with the entry from which it is restored.
pub(in crate::plan::session) fn mark(claim: &mut PersistentVolumeClaim, volume: SharedVolume, caching: &Caching) {
    let from = match &caching.restore {
        Restore::Chosen(entry) | Restore::Running(entry, _) => Some(entry.id.as_str()),
        Restore::Over => caching.choice.as_ref().filter(|choice| !choice.is_late).map(|_| COLD),
        _ => None,
    };
    if let Some(id) = from.filter(|_| volume != SharedVolume::Scripts) {
        claim.annotations_mut().insert(meta::CACHE_FROM.into(), id.to_string());
    }
}

/// The message of a session whose volumes are being restored.
pub(in crate::plan::session) fn in_words(observed: &Observed, caching: &Caching) -> String {
    match &caching.restore {
        Restore::Chosen(entry) => format!("The volumes are being restored from the cache {}.", entry.name),
        Restore::Running(entry, progress) => {
            let delay = super::delay(&observed.restore_pod, progress.as_ref());
            format!("The volumes are being restored from the cache {}.{delay}", entry.name)
        }
        Restore::Failed { message, reason, .. } => {
            format!("The volumes could not be restored ({reason}), and are deleted: {message}")
        }
        Restore::Discarding | Restore::Discarded => "The volumes that could not be restored are being deleted.".into(),
        Restore::Undecided => "The sources of the volumes are being read, to find the cache that fits.".into(),
        Restore::Over | Restore::Required(_) | Restore::Restored(..) => "The volumes are being restored.".into(),
    }
}
