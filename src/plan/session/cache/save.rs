//! Saving: whether the session saves a cache once it is initialised, and what its Pod says.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use k8s_openapi::{
    api::core::v1::{PersistentVolumeClaim, Pod},
    apimachinery::pkg::apis::meta::v1::Time,
};
use kube::ResourceExt;

use super::{
    Caching, asked,
    entry::{Entry, Manifest},
    entry_name, fingerprint, fingerprint_of, fingerprints, interruption, pod, removal,
    restore::FAILURES,
};
use crate::{
    api::{
        condition::Reason,
        init::{RootState, RootStatus, SavedRoot},
        meta,
        sandbox::SandboxState,
        session::{CacheResult, CacheSave, CacheSpec, CacheStatus, CachedPart, SaveMode, SaveState},
    },
    plan::{
        digest,
        name::Label,
        ownership,
        pod::{Progress, annotation},
        session::{ChildState, Created, Failure, Observed, Write, sandboxes, staging},
        status::printable,
    },
    protocol::cache::{FORMAT, PackedRoot, SaveFault, SaveReport},
};

/// Where saving is.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) enum Save {
    /// It is over, or the session is not initialised yet.
    #[default]
    No,
    /// There is nothing to save, for this reason.
    Skipped(&'static str),
    /// The entry is to be created.
    Due,
    /// The save Pod is to be created, or is on its way.
    Running(Option<Progress>),
    /// The save Pod has written everything.
    Written(Box<Manifest>),
    /// The entry is committed, with so many bytes.
    Committed(u64),
    /// Saving failed.
    Failed { reason: String, message: String },
}

impl Save {
    fn failed(reason: &str, message: &str) -> Self {
        Save::Failed { reason: reason.into(), message: printable(message) }
    }
}

/// Where saving is.
pub(super) fn of(observed: &Observed, cache: &CacheSpec) -> Save {
    let Some(record) = observed.cache_record() else { return Save::No };
    match &record.save {
        Some(save) if save.state != SaveState::Running => Save::No,
        Some(_) if cache.save() == SaveMode::Never || was_ready(observed) => {
            Save::failed("NotAsked", "The session does not ask for it any more.")
        }
        Some(_) => running(observed, cache, record),
        None => match skipped(observed, cache, record) {
            Some(reason) => Save::Skipped(reason),
            None if are_initialised(observed) => Save::Due,
            None => Save::No,
        },
    }
}

/// What agents and users have worked on is not saved: once the session was ready, it is too late.
fn was_ready(observed: &Observed) -> bool {
    observed.session.status().is_some_and(|status| status.ready_at.is_some())
}

/// Why there is nothing to save.
fn skipped(observed: &Observed, cache: &CacheSpec, record: &CacheStatus) -> Option<&'static str> {
    let has_failed = |wanted: sandboxes::Wanted<'_>| wanted.state() == SandboxState::Error;
    if !observed.agents.is_empty() && sandboxes::wanted(observed).any(has_failed) {
        // Agents do not wait for a sandbox that has failed, unless they need it.
        return Some("SandboxFailed");
    }
    if are_changed(observed, record) {
        return Some("InputsChanged");
    }
    if !are_initialised(observed) {
        return None;
    }
    let data = record.data.as_ref();
    // Without a fingerprint, the session is older than its field `cache`.
    if cache.save() == SaveMode::Never || was_ready(observed) || data.is_none_or(|data| data.fingerprint.is_none()) {
        return Some("NotAsked");
    }
    if is_restored(record) && record.missing.is_empty() {
        return Some("AlreadyCached");
    }
    let inputs = inputs_of(record);
    let same = |claim: &&PersistentVolumeClaim| claim.annotations().get(meta::CACHE_INPUTS) == Some(&inputs);
    let others = || observed.entries.iter().map(|claim| &**claim).filter(same);
    // What could not be restored is to be replaced.
    let reasons = data.into_iter().chain(record.sandboxes.values()).filter_map(|part| part.reason);
    let is_useless = reasons.into_iter().any(|reason| FAILURES.contains(&reason));
    let rooted = super::rooted(observed, &mut observed.session.launched_labels().map(|(name, _)| name));
    let serves = |entry: Entry| {
        !entry.is_bad() && entry.is_complete(&rooted) && (!entry.manifest.is_mixed || is_restored(record))
    };
    if !is_useless && others().filter_map(Entry::of).any(serves) {
        return Some("AlreadyCached");
    }
    let uid = observed.session.uid();
    let is_being_saved = |claim: &PersistentVolumeClaim| {
        let owner = ownership::controller(&claim.metadata).map(|owner| owner.uid.clone());
        owner.is_some() && owner != uid && claim.metadata.deletion_timestamp.is_none()
    };
    others().any(is_being_saved).then_some("SavedByAnother")
}

fn is_restored(record: &CacheStatus) -> bool {
    record.data.as_ref().is_some_and(|data| data.result == CacheResult::Restored)
}

/// Whether the session was edited since it was started: its volumes may hold what the first inputs left.
fn are_changed(observed: &Observed, record: &CacheStatus) -> bool {
    let session = &observed.session;
    let is_changed = |(sandbox_type, part): (&String, &CachedPart)| {
        let template = observed.decided.template(sandbox_type);
        let now = template.map(|template| fingerprint_of(template, session.installed_skills()));
        part.fingerprint.is_some() && part.fingerprint != now
    };
    let data = record.data.as_ref().and_then(|data| data.fingerprint.clone());
    let volumes = session.status().and_then(|status| status.volumes.as_ref());
    let staged = volumes.and_then(|volumes| volumes.staged_digest.as_deref());
    let of_staged = staged.zip(session.cache()).map(|(staged, cache)| fingerprint::data(staged, cache));
    record.sandboxes.iter().any(is_changed) || data.zip(of_staged).is_some_and(|(data, staged)| data != staged)
}

/// Identifies what the session was started from.
fn inputs_of(record: &CacheStatus) -> String {
    let data = record.data.as_ref().and_then(|data| data.fingerprint.as_deref());
    let types = record.sandboxes.iter().filter_map(|(name, part)| Some((name.as_str(), part.fingerprint.as_deref()?)));
    digest::whole(&(data, types.collect::<BTreeMap<_, _>>()))
}

fn running(observed: &Observed, cache: &CacheSpec, record: &CacheStatus) -> Save {
    let refused = |failure: &Failure| Save::failed(&failure.reason.to_string(), &failure.message);
    let entry = match &observed.entry {
        ChildState::Owned(claim) => claim,
        ChildState::Foreign(_) => return Save::failed("NameTaken", "Another claim has the name of the cache."),
        ChildState::Failed(failure) if failure.reason != Reason::ApiError => return refused(failure),
        ChildState::Absent | ChildState::Failed(_) => return or_timeout(observed, Save::Due),
    };
    if let Some(entry) = Entry::of(entry) {
        return Save::Committed(entry.bytes());
    }
    if entry.metadata.deletion_timestamp.is_some() {
        return Save::failed("EntryDeleted", "The claim of the cache was deleted.");
    }
    match &observed.save_pod {
        ChildState::Foreign(_) => return Save::failed("NameTaken", "Another Pod has the name of the Pod that saves."),
        ChildState::Failed(failure) if failure.reason != Reason::ApiError => return refused(failure),
        ChildState::Owned(_) | ChildState::Absent | ChildState::Failed(_) => {}
    }
    if !are_initialised(observed) {
        return Save::failed("NotReady", "A sandbox stopped being ready while its volumes were being saved.");
    }
    if are_changed(observed, record) {
        return Save::failed("InputsChanged", "The sources or a type changed since the session was started.");
    }
    let progress = own_pod(observed, entry).map(|pod| Progress::of(pod, meta::CACHE_CONTAINER));
    let Some(Progress::Ended { last_words, message, success, reason, .. }) = &progress else {
        return or_timeout(observed, Save::Running(progress));
    };
    match last_words.as_deref().and_then(|words| serde_json::from_str(words).ok()) {
        Some(SaveReport::Saved { arch, volumes, left_out }) if *success => match fingerprints(observed, cache) {
            Some(wanted) => Save::Written(Box::new(Manifest {
                format: FORMAT,
                fingerprints: wanted.of_record(record).without(&uninitialised(observed)),
                arch,
                volumes,
                init_seconds: init_seconds(observed),
                saved_by: observed.session.uid().unwrap_or_default(),
                is_mixed: is_restored(record),
                roots: roots(observed),
                sandboxes: saved_roots(observed)
                    .filter(|(_, label, _)| !left_out.contains(&label.to_string()))
                    .map(|(name, _, root)| (name, root))
                    .collect(),
                retain: cache.retain.clone(),
            })),
            None => or_timeout(observed, Save::Running(progress)),
        },
        Some(SaveReport::Failed { reason, message }) => Save::failed(&reason.to_string(), &message),
        // The cluster took the Pod away: the next one begins again.
        _ if *reason == Reason::PodLost => or_timeout(observed, Save::Running(progress)),
        _ => Save::failed("Failed", message),
    }
}

/// The Pod that writes this, into this entry. One that writes something else is deleted.
fn own_pod<'a>(observed: &'a Observed, entry: &PersistentVolumeClaim) -> Option<&'a Arc<Pod>> {
    let id = pod::save_id(entry, &packed_roots(observed));
    observed.save_pod.owned().filter(|pod| annotation(pod, meta::CACHE_FROM) == Some(id.as_str()))
}

/// The root file systems that are on the volume, each with its type: those that sandboxes have packed, and those that were restored.
fn saved_roots(observed: &Observed) -> impl Iterator<Item = (String, Label, SavedRoot)> {
    let packed = sandboxes::wanted(observed).filter_map(|wanted| {
        let root = wanted.root().filter(|root| root.state == RootState::Saved)?.saved.clone()?;
        Some((wanted.sandbox_type.to_string(), wanted.label, root))
    });
    let parts = observed.cache_record().into_iter().flat_map(|record| &record.sandboxes);
    let restored = parts
        .filter(|(_, part)| part.result == CacheResult::Restored)
        .filter_map(|(name, part)| Some((name.clone(), Label::of(name).ok()?, part.root.clone()?)));
    packed.chain(restored)
}

fn packed_roots(observed: &Observed) -> Vec<PackedRoot> {
    saved_roots(observed).map(|(_, label, root)| pod::packed_root(&label, &root)).collect()
}

/// The types that the cache is going to lack, each with the reason.
fn errors(observed: &Observed, manifest: Option<&Manifest>) -> Vec<String> {
    let errors = sandboxes::wanted(observed).filter_map(|wanted| {
        let template = observed.decided.template(wanted.sandbox_type)?;
        let has = |manifest: &Manifest| manifest.sandboxes.contains_key(wanted.sandbox_type);
        if !observed.session.caches_root(wanted.sandbox_type, template) || manifest.is_some_and(has) {
            return None;
        }
        let not_it = || "its file on the volume data is not what the sandbox has packed".to_string();
        let Some(RootStatus { reason, message, .. }) = wanted.root().cloned() else {
            return Some(format!("{}: its sandbox has packed nothing.", wanted.sandbox_type));
        };
        let reason = reason.unwrap_or_else(|| SaveFault::Changed.to_string());
        Some(printable(&format!("{}: {reason}: {}", wanted.sandbox_type, message.unwrap_or_else(not_it))))
    });
    errors.collect()
}

fn roots(observed: &Observed) -> Vec<String> {
    let volumes = observed.session.status().and_then(|status| status.volumes.as_ref());
    volumes.and_then(|volumes| Some(volumes.tools.as_ref()?.roots.clone())).unwrap_or_default()
}

fn or_timeout(observed: &Observed, save: Save) -> Save {
    if left(observed).is_some_and(|left| left.is_zero()) {
        let last = in_words_of(observed, &save);
        return Save::failed("Timeout", &format!("It took longer than spec.cache.saveTimeout.{last}"));
    }
    save
}

/// How long the session took until it was initialised, in seconds.
fn init_seconds(observed: &Observed) -> u64 {
    let started = observed.session.status().and_then(|status| status.started_at.as_ref()).map(|started| started.0);
    let saved =
        observed.cache_record().and_then(|record| record.save.as_ref()?.started_at.as_ref()).map(|saved| saved.0);
    let took = started.zip(saved).map(|(started, saved)| saved.duration_since(started).as_secs());
    took.and_then(|seconds| u64::try_from(seconds).ok()).unwrap_or_default()
}

/// The types that were started and whose steps may not have run: their users have suspended them, or their programs have ended meanwhile.
fn uninitialised(observed: &Observed) -> BTreeSet<String> {
    let types = sandboxes::wanted(observed).filter(|wanted| !wanted.is_initialised());
    types.map(|wanted| wanted.sandbox_type.to_string()).collect()
}

/// Whether all sandboxes that the session starts are ready.
fn are_initialised(observed: &Observed) -> bool {
    sandboxes::wanted(observed).all(|wanted| wanted.state() == SandboxState::Ready || wanted.is_inactive())
}

/// How much is left of the time that saving may take.
pub(super) fn left(observed: &Observed) -> Option<Duration> {
    let began = observed.cache_record()?.save.as_ref()?.started_at.as_ref()?.0;
    let end = began.checked_add(observed.session.save_timeout()).ok()?;
    Some(Duration::try_from(end.duration_since(observed.now)).unwrap_or_default())
}

/// The writes of saving.
pub(in crate::plan::session) fn writes(observed: &Observed, caching: &Caching) -> Vec<Write> {
    let Some(cache) = asked(observed) else { return interruption(observed) };
    let (Some(name), Some(key)) = (entry_name(&observed.session), observed.session.cache_key()) else { return vec![] };
    // The status has the start of saving before anything is created.
    let record = observed.cache_record().filter(|record| record.save.is_some());
    match (&caching.save, record) {
        (Save::Due, Some(record)) => {
            let claim = pod::claim(observed, cache, name, key, inputs_of(record));
            vec![Write::Create(Created::Claim(Box::new(claim)))]
        }
        (Save::Running(None), _) => {
            let timeout = u64::try_from(observed.session.save_timeout().as_secs()).unwrap_or_default();
            let created = |entry: &Arc<_>| pod::save_pod(observed, cache, entry, packed_roots(observed), timeout);
            let created = observed.entry.owned().map(|entry| Write::Create(Created::Pod(Box::new(created(entry)))));
            removal(&observed.save_pod).or(created).into_iter().collect()
        }
        (Save::Running(Some(Progress::Ended { .. })), _)
            if !staging::rest_of(observed, &observed.save_pod).is_zero() =>
        {
            vec![]
        }
        (Save::Written(manifest), _) => committed(observed, manifest).into_iter().collect(),
        (Save::No, Some(_)) => removal(&observed.save_pod).into_iter().chain(discarded(observed)).collect(),
        (Save::Committed(_) | Save::Running(Some(Progress::Ended { .. })), _) => {
            removal(&observed.save_pod).into_iter().collect()
        }
        // The status has the failure before its evidence is deleted.
        (Save::Failed { .. } | Save::No | Save::Skipped(_) | Save::Due | Save::Running(_), _) => vec![],
    }
}

/// Deletes the entry of a save that failed, or that is not needed any more. What is committed has no owner.
pub(super) fn discarded(observed: &Observed) -> Option<Write> {
    let entry = observed.entry.owned()?;
    let is_left = ownership::controller(&entry.metadata).is_some() && entry.metadata.deletion_timestamp.is_none();
    is_left.then(|| Write::delete_any_version(&**entry))
}

/// Commits the entry: it belongs to nobody from now on, and says what it holds.
fn committed(observed: &Observed, manifest: &Manifest) -> Option<Write> {
    let mut claim = PersistentVolumeClaim::clone(observed.entry.owned()?);
    claim.metadata.owner_references = None;
    claim.annotations_mut().insert(meta::CACHE.into(), serde_json::to_string(manifest).ok()?);
    Some(Write::PatchClaim(Box::new(claim)))
}

/// Records what became of saving.
pub(super) fn record(observed: &Observed, save: &Save, status: &mut CacheStatus) {
    let now = || Some(Time(observed.now));
    let started_at = status.save.as_ref().and_then(|save| save.started_at.clone()).or_else(now);
    let over = |state, reason: Option<&str>, message: Option<&str>, bytes| CacheSave {
        state,
        reason: reason.map(String::from),
        message: message.map(String::from),
        started_at: started_at.clone(),
        finished_at: now(),
        bytes,
        errors: vec![],
    };
    status.save = Some(match save {
        Save::No => return,
        Save::Skipped(reason) => over(SaveState::Skipped, Some(reason), None, None),
        Save::Due | Save::Running(_) | Save::Written(_) => {
            CacheSave { state: SaveState::Running, started_at, ..CacheSave::default() }
        }
        Save::Committed(bytes) => {
            status.entry = entry_name(&observed.session);
            let entry = observed.entry.owned().and_then(|claim| Entry::of(claim));
            let errors = errors(observed, entry.map(|entry| entry.manifest).as_ref());
            CacheSave { errors, ..over(SaveState::Succeeded, None, None, Some(*bytes)) }
        }
        Save::Failed { reason, message } => over(SaveState::Failed, Some(reason), Some(message), None),
    });
}

/// The message of a session that is ready but for its cache.
pub(in crate::plan::session) fn in_words(observed: &Observed, caching: &Caching) -> String {
    let delay = in_words_of(observed, &caching.save);
    format!("The sandboxes are ready; what their initialisers left is being saved before anybody works in them.{delay}")
}

fn in_words_of(observed: &Observed, save: &Save) -> String {
    match (save, &observed.entry) {
        (Save::Due, ChildState::Failed(failure)) => format!(" The claim cannot be created: {}", failure.message),
        (Save::Running(progress), _) => super::delay(&observed.save_pod, progress.as_ref()),
        _ => String::new(),
    }
}
