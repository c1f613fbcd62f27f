//! Caches: a session starts from what an earlier session of its key saved when it was initialised, and saves what the next one starts from.
//!
//! ```text
//! no data claim yet ── an entry fits ──► the claims name it ──► the restore Pod fills them ──► staging, sandboxes without their steps
//!                   └─ none fits ──────► staging, sandboxes with their steps ──► the save Pod writes an entry ──► commit ──► Ready
//! ```
//! The choice is made once, and is on the claims; what came of it is in the status. A cache never keeps a session from starting, except
//! with `restore: Required`.
//!
//! Decided in docs/adr/0024-an-entry-is-a-claim.md.

mod entry;
mod fingerprint;
mod pod;
mod restore;
mod save;

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use k8s_openapi::{
    api::core::v1::{PersistentVolumeClaim, Pod},
    apimachinery::pkg::apis::meta::v1::Condition,
};
use kube::ResourceExt;

use self::{
    entry::{Choice, Wanted},
    fingerprint::Fingerprints,
    restore::Restore,
    save::Save,
};
use super::{ChildState, Observed, Write, staging};
use crate::{
    api::{
        SandboxTemplate,
        condition::{ConditionType, Reason},
        meta,
        session::{
            CacheResult, CacheSave, CacheSpec, CacheStatus, CachedPart, CachedRoot, MissReason, RestoreMode, SaveState,
        },
    },
    plan::{
        ObjectEvent, digest,
        effective::{
            EffectiveSession,
            cache::{fingerprint as fingerprint_of, runs_image},
        },
        name,
        pod::Progress,
        status::{ConditionValue, condition_value},
        volumes::SharedVolume,
    },
};

/// How often a session that requires a cache looks for one.
const POLL: Duration = Duration::from_secs(30);

/// When a write that was refused is repeated.
const RETRY: Duration = Duration::from_secs(5);

/// What caches are to a session now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Caching {
    /// Where restoring is.
    restore: Restore,
    /// What the session saves, when it is initialised.
    save: Save,
    /// The choice, if it was made in this reconcile.
    choice: Option<Choice>,
    /// The types whose root file systems could not be restored, so that they start cold.
    broken: BTreeMap<String, MissReason>,
}

impl Observed {
    /// The name of the Pod that restores a cache.
    pub fn restore_pod_name(session: &impl ResourceExt) -> String {
        name::child(&session.name_any(), "restore")
    }

    /// The name of the Pod that saves a cache.
    pub fn save_pod_name(session: &impl ResourceExt) -> String {
        name::child(&session.name_any(), "save")
    }

    fn cache_record(&self) -> Option<&CacheStatus> {
        self.session.status()?.cache.as_ref()
    }
}

/// The name of the claim that this session saves its cache in.
pub fn entry_name(session: &EffectiveSession) -> Option<String> {
    let (of_key, of_session) = (digest::short(&session.cache_key()?), digest::short(&session.uid()?));
    Some(format!("aigise-cache-{}-{}", &of_key[..10], &of_session[..12]))
}

impl Caching {
    /// Derives what caches are to the session from its claims, Pods and status.
    pub(super) fn of(observed: &Observed) -> Self {
        let Some(cache) = asked(observed) else {
            let requires = observed.session.cache().is_some_and(|cache| cache.restore() == RestoreMode::Required);
            let restore = if requires && restore::is_new(observed) {
                Restore::Required(MissReason::NotCacheable)
            } else {
                restore::given_up(observed)
            };
            return Self { restore, ..Self::default() };
        };
        let (restore, choice) = restore::of(observed, cache);
        let save = if restore == Restore::Over { save::of(observed, cache) } else { Save::No };
        let broken = restore::broken(observed).into_iter().map(|(name, (reason, _))| (name, reason)).collect();
        Self { restore, save, choice, broken }
    }

    /// Whether claims may be created and filled.
    pub(super) fn lets_create_claims(&self) -> bool {
        !matches!(
            self.restore,
            Restore::Required(_)
                | Restore::Undecided
                | Restore::Failed { .. }
                | Restore::Discarding
                | Restore::Discarded
        )
    }

    /// Whether staging and the sandboxes wait for the restore.
    pub(super) fn is_restoring(&self) -> bool {
        self.restore != Restore::Over
    }

    /// Why no cache fits, if the session requires one.
    pub(super) fn required(&self) -> Option<MissReason> {
        if let Restore::Required(reason) = self.restore { Some(reason) } else { None }
    }

    /// Whether the session requires a cache, and none fits, or that is not known yet: then nothing is created.
    pub(super) fn may_be_missing(&self, session: &EffectiveSession) -> bool {
        let requires = session.cache().is_some_and(|cache| cache.restore() == RestoreMode::Required);
        requires && matches!(self.restore, Restore::Undecided | Restore::Required(_))
    }

    /// Whether the session is held until its cache is saved.
    pub(super) fn is_saving(&self) -> bool {
        matches!(self.save, Save::Due | Save::Running(_) | Save::Written(_))
    }
}

pub(in crate::plan) use self::entry::{Entry, last_used};
pub(super) use self::{
    restore::{in_words as restoring_in_words, mark, use_writes, writes as restore_writes},
    save::{in_words as saving_in_words, writes as save_writes},
};

/// The type whose part in caches is not clear: it has steps, runs the image's own program, and says nothing about its root file system.
fn not_cacheable(observed: &Observed) -> Option<&str> {
    let session = &observed.session;
    let mut types = session.launched_labels().map(|(sandbox_type, _)| sandbox_type);
    types.find(|sandbox_type| {
        let Some(template) = observed.decided.template(sandbox_type) else { return false };
        let has_steps = template.init.as_ref().is_some_and(|init| init.skip != Some(true) && !init.steps.is_empty());
        let is_auto = session.cached_root(sandbox_type) == CachedRoot::Auto;
        has_steps && is_auto && runs_image(template)
    })
}

/// The cache that a session asks for, if all types that it started with can take part.
fn asked(observed: &Observed) -> Option<&CacheSpec> {
    let has_begun = observed.cache_record().is_some_and(|record| record.data.is_some());
    observed.session.cache().filter(|_| has_begun || not_cacheable(observed).is_none())
}

/// The fingerprints of the session; `None` as long as the content of its sources is not known.
fn fingerprints(observed: &Observed, cache: &CacheSpec) -> Option<Wanted> {
    let session = &observed.session;
    let data = fingerprint::data(&staging::known_digest(observed)?, cache);
    let of = |types: &mut dyn Iterator<Item = &str>| {
        let types = types.filter_map(|sandbox_type| Some((sandbox_type, part_of_caches(observed, sandbox_type)?)));
        Fingerprints::of(data.clone(), &types.collect(), session.installed_skills())
    };
    let (rooted, mut dependents) = (rooted(observed, &mut session.launchable().into_iter()), dependents(observed));
    Some(Wanted {
        launched: of(&mut session.launched_labels().map(|(sandbox_type, _)| sandbox_type)),
        launchable: of(&mut session.launchable().into_iter()),
        rooted: rooted.into_iter().map(|name| (name.clone(), dependents.remove(&name).unwrap_or_default())).collect(),
    })
}

/// For each type, the types that depend on it.
fn dependents(observed: &Observed) -> BTreeMap<String, BTreeSet<String>> {
    let types = observed.session.launchable().into_iter();
    fingerprint::dependents(&types.filter_map(|name| Some((name, part_of_caches(observed, name)?))).collect())
}

/// The types whose root file systems are in caches.
fn rooted<'a>(observed: &'a Observed, types: &mut dyn Iterator<Item = &'a str>) -> BTreeSet<String> {
    let is_rooted = |name: &&str| {
        let template = observed.decided.template(name);
        template.is_some_and(|template| observed.session.caches_root(name, template))
    };
    types.filter(is_rooted).map(String::from).collect()
}

/// The template of a type, if the type takes part in caches.
fn part_of_caches<'a>(observed: &'a Observed, sandbox_type: &str) -> Option<&'a SandboxTemplate> {
    let takes_part = observed.session.cached_root(sandbox_type) != CachedRoot::None;
    observed.decided.template(sandbox_type).filter(|template| takes_part && template.attach.is_none())
}

/// Whether the volumes of data and tools were restored from these sources, and so hold them already.
pub(super) fn holds_sources(observed: &Observed, sources: &str) -> bool {
    let data = observed.cache_record().and_then(|record| record.data.as_ref());
    let restored = data.filter(|data| data.result == CacheResult::Restored);
    let from = observed.session.cache().zip(restored);
    from.is_some_and(|(cache, data)| data.fingerprint == Some(fingerprint::data(sources, cache)))
        && volumes_are_replaced(observed) == Some(false)
}

/// Whether a volume of data or tools is another one than that which was restored; `None` if that is not known.
fn volumes_are_replaced(observed: &Observed) -> Option<bool> {
    restore::volumes(observed).try_fold(false, |is_replaced, claim| match claim {
        ChildState::Owned(claim) => Some(is_replaced || restore::entry_of(claim).is_none()),
        ChildState::Absent => Some(true),
        ChildState::Foreign(_) | ChildState::Failed(_) => None,
    })
}

/// Deletes the Pods of a session that is suspended or released.
pub(super) fn interruption(observed: &Observed) -> Vec<Write> {
    removal(&observed.restore_pod).into_iter().chain(removal(&observed.save_pod)).collect()
}

/// Deletes what is not committed when the session is over.
pub(super) fn discarded(observed: &Observed) -> Vec<Write> {
    save::discarded(observed).into_iter().collect()
}

/// The first Pod that saves or restores and may still run.
pub(super) fn active(observed: &Observed) -> Option<String> {
    let pods = [&observed.restore_pod, &observed.save_pod].into_iter().filter_map(ChildState::owned);
    let mut running = pods.filter(|pod| !matches!(Progress::of(pod, meta::CACHE_CONTAINER), Progress::Ended { .. }));
    running.next().map(|pod| pod.name_any())
}

/// The first-level folders of the restored tools that came from sources.
pub(super) fn restored_roots(observed: &Observed) -> Vec<String> {
    observed.cache_record().map(|record| record.roots.clone()).unwrap_or_default()
}

/// Deletes a Pod that is not needed any more.
fn removal(pod: &ChildState<Pod>) -> Option<Write> {
    let pod = pod.owned().filter(|pod| pod.metadata.deletion_timestamp.is_none())?;
    Some(Write::delete_any_version(&**pod))
}

/// Why a Pod that restores or saves does not work yet, as the end of a message.
fn delay(pod: &ChildState<Pod>, progress: Option<&Progress>) -> String {
    match (pod, progress) {
        (ChildState::Failed(failure), _) => format!(" Its Pod cannot be created: {}", failure.message),
        (_, Some(Progress::Unschedulable { message, .. } | Progress::HeldBack { message, .. })) => {
            format!(" Its Pod waits: {message}")
        }
        (_, Some(Progress::Waiting { message, reason })) if *reason != Reason::ContainerCreating => {
            format!(" Its Pod waits: {message}")
        }
        (_, Some(Progress::Silent)) => " The node of its Pod does not respond.".into(),
        _ => String::new(),
    }
}

/// When the session has to be looked at again because of its cache.
pub(super) fn next(observed: &Observed, caching: &Caching) -> Option<Duration> {
    let refused = [observed.restore_pod.failure(), observed.save_pod.failure(), observed.entry.failure()];
    let retry = refused.into_iter().flatten().next().map(|_| RETRY);
    let next = match (&caching.restore, &caching.save) {
        (Restore::Required(_), _) => Some(POLL),
        // The next reconcile finds the record in the status.
        (Restore::Restored(..) | Restore::Failed { .. } | Restore::Discarded, _) | (_, Save::Failed { .. }) => {
            Some(Duration::ZERO)
        }
        (Restore::Running(_, Some(Progress::Ended { .. })), _) => {
            Some(staging::rest_of(observed, &observed.restore_pod))
        }
        (_, Save::Running(Some(Progress::Ended { .. }))) => Some(staging::rest_of(observed, &observed.save_pod)),
        (Restore::Running(entry, _), _) => restore::left(observed, entry).filter(|left| !left.is_zero()),
        // The entry is created when the status says since when it is being saved.
        (_, Save::Due) if observed.cache_record().is_none_or(|record| record.save.is_none()) => Some(Duration::ZERO),
        (_, Save::Running(_) | Save::Written(_) | Save::Due) => save::left(observed),
        _ => None,
    };
    next.into_iter().chain(retry).min()
}

/// What the status says of caches. What was said once stays, also if the session does not ask for caches any more: the claims that were
/// restored are still there.
pub(super) fn status(observed: &Observed, caching: &Caching) -> Option<CacheStatus> {
    let before = observed.cache_record().cloned();
    let cache = asked(observed);
    if cache.is_none() && caching.restore == Restore::Over {
        return before;
    }
    let mut status = before.unwrap_or_default();
    status.key = observed.session.cache_key().map(String::from).unwrap_or(status.key);
    if let Restore::Required(_) = caching.restore {
        // Nothing is decided yet.
        if let Some(choice) = &caching.choice {
            status.missing = choice.types.keys().cloned().collect();
        }
        return Some(status);
    }
    if let Some((choice, cache)) = caching.choice.as_ref().zip(cache) {
        chosen_status(observed, cache, choice, &mut status);
    }
    let missing = |part: &CachedPart, reason| CachedPart {
        result: CacheResult::Missing,
        reason: Some(reason),
        fingerprint: part.fingerprint.clone(),
        ..CachedPart::default()
    };
    let mut miss = None;
    match &caching.restore {
        Restore::Restored(entry, bytes, left_out) => {
            status.entry = Some(entry.name.clone());
            status.roots.clone_from(&entry.manifest.roots);
            let fingerprint = Some(entry.manifest.fingerprints.data.clone());
            let restored = CachedPart { result: CacheResult::Restored, ..CachedPart::default() };
            status.data = Some(CachedPart { bytes: Some(*bytes), fingerprint, ..restored });
            let dependents = if left_out.is_empty() { BTreeMap::new() } else { dependents(observed) };
            let depends =
                |name| left_out.iter().filter_map(|needed| dependents.get(needed)).any(|by| by.contains(name));
            for (name, part) in &mut status.sandboxes {
                if left_out.contains(name) {
                    *part = missing(part, MissReason::Corrupt);
                } else if depends(name) {
                    *part = missing(part, MissReason::DependencyChanged);
                }
            }
        }
        Restore::Failed { reason, is_late, .. } => {
            let wanted = cache.and_then(|cache| fingerprints(observed, cache)).map(|wanted| wanted.launched.data);
            let before = status.data.take().and_then(|data| data.fingerprint);
            let data = CachedPart { fingerprint: wanted.or(before), ..CachedPart::default() };
            let result = if *is_late { CacheResult::Discarded } else { CacheResult::Missing };
            status.data = Some(CachedPart { result, ..missing(&data, *reason) });
            status.entry = None;
            miss = Some(*reason);
        }
        Restore::Over => {
            miss = cache.and_then(|cache| outdated(observed, cache));
            for (name, reason) in &caching.broken {
                if let Some(part) = status.sandboxes.get_mut(name) {
                    *part = missing(part, *reason);
                }
            }
        }
        Restore::Discarded => {
            if let Some(data) = &mut status.data {
                data.result = CacheResult::Missing;
            }
        }
        Restore::Required(_) | Restore::Undecided | Restore::Chosen(_) | Restore::Running(..) | Restore::Discarding => {
        }
    }
    if let Some(reason) = miss {
        let parts = status.sandboxes.values_mut();
        for part in parts.filter(|part| matches!(part.result, CacheResult::Restored | CacheResult::Data)) {
            *part = missing(part, reason);
        }
    }
    let types = status.sandboxes.iter().filter(|(_, part)| part.result == CacheResult::Missing);
    status.missing = types.map(|(sandbox_type, _)| sandbox_type.clone()).collect();
    save::record(observed, &caching.save, &mut status);
    Some(status)
}

/// Why the volumes are not any more what was restored: the steps of a sandbox that starts now run.
fn outdated(observed: &Observed, cache: &CacheSpec) -> Option<MissReason> {
    let data = observed.cache_record()?.data.as_ref().filter(|data| data.result == CacheResult::Restored)?;
    if volumes_are_replaced(observed)? {
        return Some(MissReason::VolumesReplaced);
    }
    let now = fingerprint::data(&staging::known_digest(observed)?, cache);
    (data.fingerprint.as_ref() != Some(&now)).then_some(MissReason::SourcesChanged)
}

/// What the choice means for each part.
fn chosen_status(observed: &Observed, cache: &CacheSpec, choice: &Choice, status: &mut CacheStatus) {
    let session = &observed.session;
    status.entry = choice.entry.as_ref().map(|entry| entry.name.clone());
    let wanted = fingerprints(observed, cache);
    status.data = choice.data.map(|reason| CachedPart {
        result: CacheResult::Missing,
        reason: Some(reason),
        fingerprint: wanted.map(|wanted| wanted.launched.data).filter(|_| !choice.is_late),
        ..CachedPart::default()
    });
    let launched: BTreeSet<_> = session.launched_labels().map(|(sandbox_type, _)| sandbox_type).collect();
    let manifest = choice.entry.as_ref().map(|entry| &entry.manifest);
    let parts = session.launchable().into_iter().filter_map(|sandbox_type| {
        let template = observed.decided.template(sandbox_type)?;
        let excluded =
            |reason| CachedPart { result: CacheResult::Excluded, reason: Some(reason), ..CachedPart::default() };
        let is_launched = launched.contains(sandbox_type);
        let part = if template.attach.is_some() {
            excluded(MissReason::Attached)
        } else if part_of_caches(observed, sandbox_type).is_none() {
            excluded(MissReason::StepsRunAlways)
        } else if is_launched || manifest.is_some_and(|manifest| manifest.fingerprints.types.contains_key(sandbox_type))
        {
            let root = manifest.and_then(|manifest| manifest.sandboxes.get(sandbox_type));
            let is_rooted = session.caches_root(sandbox_type, template);
            let reason = choice.types.get(sandbox_type).copied();
            let reason = reason.or_else(|| (is_rooted && root.is_none()).then_some(MissReason::NotSaved));
            let root = root.cloned().filter(|_| is_rooted && reason.is_none());
            let result = match &root {
                _ if reason.is_some() => CacheResult::Missing,
                Some(_) => CacheResult::Restored,
                None => CacheResult::Data,
            };
            let fingerprint = Some(fingerprint_of(template, session.installed_skills()));
            CachedPart { result, reason, fingerprint, root, ..CachedPart::default() }
        } else {
            return None;
        };
        Some((sandbox_type.to_string(), part))
    });
    status.sandboxes = parts.collect::<BTreeMap<_, _>>();
}

/// The condition `Cached`, for a session that asks for caches.
pub(super) fn condition(observed: &Observed, caching: &Caching) -> Option<ConditionValue> {
    observed.session.cache()?;
    let value = |holds: bool, reason, message: String| condition_value(ConditionType::Cached, holds, reason, message);
    if asked(observed).is_none() {
        let sandbox_type = not_cacheable(observed)?;
        let message = format!(
            "The type {sandbox_type} has an initialiser beside the image's own program, and spec.sandboxes.{sandbox_type}.cache.root does not say what becomes of it: Data, if its steps leave everything on /shared and /bash_tools; Live, if its root file system can be restored while that program runs; None, if the steps can run over restored data."
        );
        return Some(value(false, Reason::NotCacheable, message));
    }
    let status = status(observed, caching)?;
    let entry = status.entry.clone().unwrap_or_default();
    let types = if status.missing.is_empty() { String::new() } else { format!(": {}", status.missing.join(", ")) };
    Some(match (&caching.restore, &status.save, &status.data) {
        (Restore::Required(reason), ..) => value(false, Reason::CacheMissing, required_in_words(*reason)),
        (Restore::Undecided | Restore::Running(..) | Restore::Chosen(_), ..) => {
            value(false, Reason::Restoring, restoring_in_words(observed, caching))
        }
        (_, Some(CacheSave { state: SaveState::Succeeded, errors, .. }), _) if !errors.is_empty() => {
            let message = format!("The cache {entry} was saved without these types: {}", errors.join(" "));
            value(false, Reason::SaveIncomplete, message)
        }
        (_, Some(CacheSave { state: SaveState::Succeeded, .. }), _) => {
            value(true, Reason::Saved, format!("The state after the initialisers was saved in the cache {entry}."))
        }
        (_, Some(CacheSave { state: SaveState::Running, .. }), _) => {
            value(false, Reason::SavingCache, "The state after the initialisers is being saved.".into())
        }
        (_, Some(CacheSave { state: SaveState::Failed, message, .. }), _) => {
            let why = message.clone().unwrap_or_default();
            value(false, Reason::SaveFailed, format!("The state after the initialisers could not be saved: {why}"))
        }
        (_, _, Some(CachedPart { result: CacheResult::Restored, .. })) if status.missing.is_empty() => {
            value(true, Reason::Restored, format!("The session started from the cache {entry}."))
        }
        (_, _, Some(CachedPart { result: CacheResult::Restored, .. })) => {
            let message =
                format!("The data is from the cache {entry}, and types started, or will start, without one{types}.");
            value(false, Reason::CacheMissing, message)
        }
        (_, _, data) => {
            let reason = data.as_ref().and_then(|data| data.reason).unwrap_or(MissReason::NoEntry);
            value(false, Reason::CacheMissing, format!("The session started without a cache ({reason}){types}."))
        }
    })
}

/// The event for what became of the cache, if that has just been decided.
pub(super) fn event(now: &[Condition], before: &[Condition]) -> Option<ObjectEvent> {
    let of = |conditions: &[Condition]| {
        let mut conditions = conditions.iter();
        conditions.find(|condition| condition.type_ == ConditionType::Cached.to_string()).cloned()
    };
    let now = of(now).filter(|now| of(before).is_none_or(|before| before.reason != now.reason))?;
    let reason = now.reason.parse().ok()?;
    let warning = matches!(reason, Reason::SaveFailed | Reason::SaveIncomplete | Reason::NotCacheable);
    let is_decided = warning || matches!(reason, Reason::Restored | Reason::Saved | Reason::CacheMissing);
    is_decided.then_some(ObjectEvent { warning, reason, message: now.message })
}

/// The message of a session that requires a cache.
pub(super) fn required_in_words(reason: MissReason) -> String {
    format!("No cache fits ({reason}), and spec.cache.restore is Required: nothing is started.")
}

/// Whether the content of ConfigMaps is needed to know what fits.
pub(super) fn wants_sources(observed: &Observed) -> bool {
    asked(observed).is_some()
        && (observed.cache_record().is_none_or(|record| record.data.is_none()) || observed.save_pod.owned().is_some())
}

/// Whether the Pods of caches have to be read: the session asks for caches, or its volumes are being restored.
pub fn concerns(
    session: &EffectiveSession,
    claims: &BTreeMap<SharedVolume, ChildState<PersistentVolumeClaim>>,
) -> bool {
    let is_marked = |claim: &ChildState<PersistentVolumeClaim>| {
        claim.owned().is_some_and(|claim| claim.annotations().contains_key(meta::CACHE_FROM))
    };
    session.cache().is_some() || claims.values().any(is_marked)
}
