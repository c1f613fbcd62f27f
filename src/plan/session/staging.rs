//! Staging: the stage Pod fills the volumes once, and ends. The status [records](record) that they are filled.
//!
//! Decided in docs/adr/0014-status-is-the-record-of-staging.md, which supersedes docs/adr/0004-stage-pod-is-the-record.md.

use std::{collections::BTreeSet, time::Duration};

use jiff::SignedDuration;
use k8s_openapi::api::core::v1::{ConfigMap, Pod};

use kube::ResourceExt;

use super::{ChildState, ConfigMapContent, Created, Observed, Situation, Write, cache, sandboxes, volumes};
use crate::{
    api::{condition::Reason, meta, session::SourceKind},
    plan::{
        Failure, digest,
        effective::{EffectiveSession, sources::sources as sources_of},
        facts::restart_request,
        pod::{Hold, Progress, annotation, blocked_init, failed_init, hold, how, running_init},
        pod_event::{self, Reads},
        pod_spec::SHARED_GROUP,
        status::printable,
        volumes::SharedVolume,
    },
    protocol::staging::{Fault, StagingReport},
};

mod pod;
pub mod pull;
mod record;
mod sources;
mod walls;

pub(super) use self::record::{is_stored as is_recorded, write as filled};
pub(super) use self::{pod::with_requests_of_all, walls::around};

/// The progress of staging.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Staging {
    /// No volume has a source, so there is nothing to stage. Every sandbox can write to an empty volume because of its group.
    Unneeded,
    /// The stage Pod does not exist.
    NotStarted,
    /// The stage Pod is starting or running.
    InProgress(Progress),
    /// The stage Pod is for other sources or another claim, or older than the request to fill the volumes again: it is recreated.
    Superseded,
    /// The cluster ended the stage Pod before it was done: it is recreated.
    Interrupted(String),
    /// The stage Pod failed, and would fail again.
    Failed {
        /// What went wrong.
        message: String,
        /// What has to change.
        fault: Fault,
    },
    /// The volumes hold the files of their sources.
    Done {
        /// The digest of the sources.
        digest: String,
        /// The first-level folders of the tools volume.
        roots: Vec<String>,
        /// The skills in the tools volume, as far as they were reported.
        skills: Vec<String>,
        /// The number of files that already existed with other content, and were kept.
        kept: i64,
        /// The value of [`meta::RESTAGE`] with which the volumes were filled.
        request: Option<String>,
    },
}

impl Staging {
    /// Derives the progress from the status, and from the stage Pod if the status has no record that the volumes are filled.
    pub fn of(observed: &Observed) -> Self {
        if let Some(done) = record::read(observed) {
            return done;
        }
        let Some(pod) = observed.stage_pod.owned() else {
            return if is_needed(&observed.session) { Staging::NotStarted } else { Staging::Unneeded };
        };
        let progress = Progress::of(pod, meta::STAGE_CONTAINER);
        let is_busy = match progress {
            Progress::Initializing { .. }
            | Progress::Running
            | Progress::HeldBack { .. }
            | Progress::Ready
            | Progress::Terminating => true,
            Progress::Created
            | Progress::Unschedulable { .. }
            | Progress::Waiting { .. }
            | Progress::Silent
            | Progress::Ended { .. } => false,
        };
        let is_outdated = has_other_sources(pod, &observed.session)
            || is_older_than_a_claim(pod, observed)
            || asks_anew(&observed.session, annotation(pod, meta::RESTAGE));
        if !is_busy && is_outdated {
            return Staging::Superseded;
        }
        match progress {
            Progress::Ended { success, message, last_words, reason, when: _ } => {
                match failed_source(pod, &observed.session) {
                    Some(message) if reason != Reason::PodLost => Staging::Failed { message, fault: Fault::Source },
                    Some(_) | None => of_report(pod, success, reason, message, last_words.as_deref()),
                }
            }
            progress => Staging::InProgress(progress),
        }
    }
}

/// Interprets the report of `sandboxd`. Without a report, `sandboxd` was interrupted, and the next run continues its work; only a run
/// that ran out of memory would fail again.
fn of_report(pod: &Pod, success: bool, reason: Reason, message: String, last_words: Option<&str>) -> Staging {
    match last_words.and_then(|words| serde_json::from_str(words).ok()) {
        Some(StagingReport::Staged { volumes }) if success => Staging::Done {
            digest: annotation(pod, meta::SOURCES_DIGEST).unwrap_or_default().to_string(),
            roots: volumes.get("tools").map(|staged| names(&staged.roots)).unwrap_or_default(),
            skills: volumes.get("tools").map(|staged| names(&staged.skills)).unwrap_or_default(),
            kept: volumes.values().map(|staged| staged.kept).sum(),
            request: annotation(pod, meta::RESTAGE).map(String::from),
        },
        Some(StagingReport::Failed { message, fault }) => Staging::Failed { message, fault },
        Some(StagingReport::Staged { .. }) | None if reason == Reason::OutOfMemory => {
            Staging::Failed { message, fault: Fault::Source }
        }
        Some(StagingReport::Staged { .. }) | None => Staging::Interrupted(message),
    }
}

/// Printable names of folders; sources may contain any names.
fn names(folders: &[String]) -> Vec<String> {
    folders.iter().map(|folder| printable(folder)).collect()
}

/// The message for a container source that failed: which source, how it ended, and the last lines of its output.
fn failed_source(pod: &Pod, session: &EffectiveSession) -> Option<String> {
    let (name, terminated) = failed_init(pod)?;
    let description = describe(session, name).unwrap_or_else(|| format!("the init container {name}"));
    let failure = format!("{description} {}", how(terminated));
    let said = terminated.message.as_deref().unwrap_or_default();
    let lines: Vec<_> = said.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    let last = lines[lines.len().saturating_sub(LAST_LINES)..].join("; ");
    let last: String = last.chars().filter(|letter| !letter.is_control()).collect();
    // The message may already contain the runtime's explanation.
    Some(if last.is_empty() || failure.ends_with(said) { failure } else { format!("{failure}: {last}") })
}

/// How many of the last lines of a container source are reported. The other lines are in its log.
const LAST_LINES: usize = 5;

/// Whether the list of sources was edited after the Pod was created.
fn has_other_sources(pod: &Pod, session: &EffectiveSession) -> bool {
    annotation(pod, meta::SOURCES_LIST) != Some(sources::list(session).as_str())
}

/// Whether a claim was recreated after the Pod was created: the staged files are not in it.
fn is_older_than_a_claim(pod: &Pod, observed: &Observed) -> bool {
    observed
        .claims
        .values()
        .filter_map(ChildState::owned)
        .any(|claim| claim.metadata.creation_timestamp > pod.metadata.creation_timestamp)
}

/// Whether the session's annotation asks to fill the volumes again, although they were filled with this value of it. Its removal asks for
/// nothing.
fn asks_anew(session: &EffectiveSession, filled_with: Option<&str>) -> bool {
    let request = request(session);
    request.is_some() && request != filled_with
}

fn request(session: &EffectiveSession) -> Option<&str> {
    session.annotations().get(meta::RESTAGE).map(String::as_str)
}

/// Whether the content of the ConfigMaps is needed now: staging is due, or it failed and its sources may have been fixed.
pub fn wants_sources(observed: &Observed) -> bool {
    if cache::wants_sources(observed) {
        return true;
    }
    match Staging::of(observed) {
        Staging::NotStarted | Staging::Superseded | Staging::Interrupted(_) | Staging::Failed { .. } => true,
        Staging::Unneeded | Staging::InProgress(_) | Staging::Done { .. } => false,
    }
}

/// Whether there is something to stage. A chosen root without a source counts: staging reports it as an error.
fn is_needed(session: &EffectiveSession) -> bool {
    sources_of(session).next().is_some() || session.tools_top_roots().is_some_and(|roots| !roots.is_empty())
}

/// The names of the ConfigMaps among a session's sources.
pub fn config_maps(session: &EffectiveSession) -> BTreeSet<String> {
    let sources = SharedVolume::ALL.into_iter().flat_map(|volume| &session.volume(volume).sources);
    let names = sources.filter_map(|source| match source.kind() {
        SourceKind::ConfigMap(config_map) => Some(config_map.name.clone()),
        _ => None, // the content of the other kinds is not read
    });
    names.collect()
}

/// Whether the session lacks Sandboxes, whose images may have to be pulled. A session that has a type of the reserved name is older than the
/// reservation.
fn is_needed_by(observed: &Observed) -> bool {
    let mut wanted = sandboxes::wanted(observed);
    let has_name = observed.session.launched_labels().any(|(_, label)| label.to_string() == pull::PART);
    !has_name && wanted.any(|wanted| wanted.child.owned().is_none())
}

/// The first Pod that fills the volumes, or pulls images meanwhile, and may exist and has not ended.
pub(super) fn active(observed: &Observed) -> Option<String> {
    let (session, pulls) = (&observed.session, observed.pull_pod.owned().is_some());
    let stage_pod = is_active(observed).then(|| Observed::stage_pod_name(session));
    stage_pod.or_else(|| pulls.then(|| Observed::pull_pod_name(session)))
}

/// Whether the stage Pod may exist and has not ended.
pub(super) fn is_active(observed: &Observed) -> bool {
    match &observed.stage_pod {
        ChildState::Owned(pod) => !matches!(Progress::of(pod, meta::STAGE_CONTAINER), Progress::Ended { .. }),
        other => other.may_be_there(),
    }
}

/// Deletes the stage Pod of a suspended session, if the Pod has not ended, or if one of its claims is being deleted: even an ended Pod
/// blocks the deletion of a claim. The Pod is recreated when the session is resumed.
pub(super) fn interruptions(observed: &Observed) -> Vec<Write> {
    let own = observed.claims.values().filter_map(ChildState::owned);
    let loses_a_claim = own.into_iter().any(|claim| claim.metadata.deletion_timestamp.is_some());
    if is_active(observed) || loses_a_claim { removals(observed) } else { vec![] }
}

/// Deletes the stage Pod even if it has changed: the next stage Pod continues its work. A deletion that failed because the Pod's status
/// has just changed might not be retried.
pub(super) fn removals(observed: &Observed) -> Vec<Write> {
    let pod = observed.stage_pod.owned().filter(|pod| pod.metadata.deletion_timestamp.is_none());
    pod.map(|pod| Write::delete_any_version(&**pod)).into_iter().collect()
}

/// The hash of a ConfigMap's content.
pub fn content_hash(config_map: &ConfigMap) -> String {
    digest::short(&(&config_map.data, &config_map.binary_data))
}

/// Whether the stage Pod can be created: the content of all ConfigMaps is known.
fn are_sources_known(observed: &Observed) -> bool {
    observed.config_maps.values().all(|content| matches!(content, ConfigMapContent::Hash(_)))
}

/// The digest of the sources, if the content of all ConfigMaps among them is known.
pub(super) fn known_digest(observed: &Observed) -> Option<String> {
    let is_read = |name: &String| observed.config_maps.contains_key(name);
    let is_known = are_sources_known(observed) && config_maps(&observed.session).iter().all(is_read);
    is_known.then(|| sources::manifest(observed).digest)
}

/// The first ConfigMap that does not exist.
pub(super) fn missing_source(observed: &Observed) -> Option<&str> {
    let missing = observed.config_maps.iter().find(|(_, content)| **content == ConfigMapContent::Missing);
    missing.map(|(name, _)| name.as_str())
}

/// The minimum age at which an interrupted stage Pod is recreated. Without it, a node that rejects the Pod would get several Pods a
/// second.
const REST: Duration = Duration::from_secs(10);

/// How much of [`REST`] is left for an interrupted stage Pod.
pub(super) fn rest(observed: &Observed) -> Duration {
    rest_of(observed, &observed.stage_pod)
}

/// The same for another Pod of which the cluster takes one after the other away.
pub(super) fn rest_of(observed: &Observed, pod: &ChildState<Pod>) -> Duration {
    let made = pod.owned().and_then(|pod| pod.metadata.creation_timestamp.as_ref());
    let age = made.map(|made| Duration::try_from(observed.now.duration_since(made.0)).unwrap_or_default());
    age.map_or(Duration::ZERO, |age| REST.saturating_sub(age))
}

/// When the events about the stage Pod are read: while it waits for its containers to be started.
pub fn event_reads(observed: &Observed) -> Reads {
    let pod = observed.stage_pod.owned();
    let waits_since = pod.and_then(|pod| pod_event::prepares_since(pod, meta::STAGE_CONTAINER));
    Reads::of(waits_since, pod_event::FIRST_READ)
}

/// The init container that runs, if it has been running for so long that it is worth a word: the command of a source, or one that a webhook
/// injected.
fn slow_init(observed: &Observed) -> Option<String> {
    let (name, since) = running_init(observed.stage_pod.owned()?)?;
    let patience = SignedDuration::try_from(pod_event::FIRST_READ).unwrap_or_default();
    let is_slow = observed.now.duration_since(since) >= patience;
    let what = describe(&observed.session, name).unwrap_or_else(|| format!("init container {name}"));
    is_slow.then(|| format!(" The {what} has been running since {since}."))
}

/// The description of the source with this container.
fn describe(session: &EffectiveSession, container: &str) -> Option<String> {
    let (_, volume, index, source) = sources_of(session).find(|(name, ..)| name == container)?;
    Some(sources::describe(volume, index, source))
}

/// The message for a stage Pod that is starting or running.
pub(super) fn in_words(observed: &Observed, progress: &Progress) -> String {
    let session = &observed.session;
    match progress {
        Progress::Waiting { reason: Reason::ContainerCreating, .. } => {
            let cause = slow_init(observed)
                .or_else(|| pod_event::obstacle(&observed.events).map(|cause| format!(" {cause}")))
                .unwrap_or_default();
            format!("The volumes are being filled.{cause}")
        }
        // The scheduler's message: `0/3 nodes are available: 3 Insufficient memory.`
        Progress::Unschedulable { message, .. }
            if pod::requests_resources(session) && message.contains("Insufficient ") =>
        {
            format!("The Pod that fills the volumes requests the resources of all sandboxes: {message}")
        }
        Progress::Unschedulable { message, .. } => format!("The Pod that fills the volumes has no node: {message}"),
        Progress::Silent => "The node of the Pod that fills the volumes does not respond.".to_string(),
        Progress::Waiting { reason: Reason::ImagePull | Reason::ContainerConfig, message } => {
            let blocked = observed.stage_pod.owned().and_then(|pod| blocked_init(pod));
            let source = blocked.and_then(|container| describe(session, container));
            let source = source.map(|source| format!("{source}: ")).unwrap_or_default();
            format!("The Pod that fills the volumes cannot start: {source}{message}")
        }
        Progress::Terminating => match observed.stage_pod.owned().and_then(|pod| hold(pod)) {
            Some(Hold::Finalizers(words)) => {
                format!("The previous Pod that fills the volumes is still there because of {words}.")
            }
            Some(Hold::Removal | Hold::Containers) | None => "The volumes are being filled.".to_string(),
        },
        Progress::Created
        | Progress::Waiting { .. }
        | Progress::Initializing { .. }
        | Progress::Running
        | Progress::HeldBack { .. }
        | Progress::Ready
        | Progress::Ended { .. } => "The volumes are being filled.".to_string(),
    }
}

/// The reason and the message for volumes that could not be filled.
pub(super) fn failed_in_words(observed: &Observed, message: &str, fault: &Fault) -> Failure {
    let retry =
        format!("kubectl annotate asess {} --overwrite {}=\"$(date)\"", observed.session.name_any(), meta::RESTART);
    let storage = |volume: &str| volumes::storage_in_words(observed, volume);
    let (storage, way_on) = match fault {
        Fault::Source => (None, "Fix the source; staging is retried.".to_string()),
        Fault::Root(volume) => {
            let way_on = format!(
                "Give the root folder of the volume to the group (chgrp {SHARED_GROUP}, chmod g+rwxs), or use a storage class that applies fsGroup; then: {retry}"
            );
            (storage(volume), way_on)
        }
        Fault::Folder(_) => {
            (None, format!("Open the folder in the sandbox that owns it (chmod -R a+rwX); then: {retry}"))
        }
        Fault::Obstacle(_) => {
            (None, format!("Remove it in a sandbox, or change the path of the source; then: {retry}"))
        }
        Fault::Size(volume) => (
            storage(volume),
            format!("Raise its size, if the storage class can expand volumes, then: {retry}; or stage less."),
        ),
        Fault::Storage(volume) => {
            (storage(volume), format!("Use another storage class or other mount options; then: {retry}"))
        }
    };
    let reason = match fault {
        Fault::Source | Fault::Obstacle(_) | Fault::Size(_) => Reason::StagingFailed,
        Fault::Root(_) | Fault::Folder(_) | Fault::Storage(_) => Reason::VolumeNotWritable,
    };
    let storage = storage.map(|storage| format!("{storage} ")).unwrap_or_default();
    let message = format!("The volumes could not be filled: {}. {storage}{way_on}", message.trim_end_matches('.'));
    Failure { reason, message }
}

/// The message for volumes that are filled.
pub(super) fn done_in_words(session: &EffectiveSession, staging: &Staging) -> String {
    let kept = match staging {
        Staging::Done { kept, .. } => *kept,
        Staging::Unneeded
        | Staging::NotStarted
        | Staging::InProgress(_)
        | Staging::Superseded
        | Staging::Interrupted(_)
        | Staging::Failed { .. } => 0,
    };
    let files = match kept {
        0 => return "The volumes hold the files of their sources.".to_string(),
        1 => "1 file".to_string(),
        kept => format!("{kept} files"),
    };
    let pod = Observed::stage_pod_name(session);
    format!(
        "The volumes hold the files of their sources, except for {files} already there with other content (the log of {pod} has the names)."
    )
}

/// Creates the stage Pod if it is missing, and deletes it if it has to be recreated.
pub(super) fn writes(observed: &Observed, situation: &Situation) -> Vec<Write> {
    let staging = &situation.staging;
    if situation.caching.is_restoring() {
        return vec![];
    }
    let known = are_sources_known(observed);
    let pod = match &observed.stage_pod {
        ChildState::Absent if known && *staging == Staging::NotStarted && !record::is_stored(observed) => {
            return vec![Write::Create(Created::Pod(Box::new(pod::stage_pod(observed))))];
        }
        ChildState::Owned(pod) => pod,
        ChildState::Absent | ChildState::Foreign(_) | ChildState::Failed(_) => return vec![],
    };
    let remove = match staging {
        // Until the sources are there, the Pod shows what the volumes were filled with.
        Staging::Superseded => known,
        Staging::Interrupted(_) => rest(observed).is_zero(),
        // The list of sources is the same, so a different digest means that a ConfigMap was changed.
        Staging::Failed { .. } => {
            let is_fixed =
                known && annotation(pod, meta::SOURCES_DIGEST) != Some(sources::manifest(observed).digest.as_str());
            is_fixed || annotation(pod, meta::SESSION_RESTART) != restart_request(&observed.session)
        }
        // The Pod cannot start, and a new Pod would differ: a newer operator has another helper image or other resources for
        // it, or a template requests less.
        Staging::InProgress(
            Progress::Unschedulable { .. }
            | Progress::Waiting { reason: Reason::ImagePull | Reason::ContainerConfig, .. },
        ) => annotation(pod, meta::STAGE_HASH) != Some(pod::hash(observed).as_str()),
        // The volumes are filled, and another container of the Pod still occupies its resources.
        Staging::Done { .. } => is_held(observed, staging) && record::read(observed).is_some(),
        Staging::Unneeded | Staging::NotStarted | Staging::InProgress(_) => false,
    };
    if remove { removals(observed) } else { vec![] }
}

/// Whether the volumes are filled, and a container beside the operator's own, such as a sidecar that a webhook injected, keeps the stage Pod
/// from ending. The kubelet ends native sidecars by itself.
pub(super) fn is_held(observed: &Observed, staging: &Staging) -> bool {
    let Staging::Done { .. } = staging else { return false };
    let pod = observed.stage_pod.owned().filter(|pod| pod.metadata.deletion_timestamp.is_none());
    pod.is_some_and(|pod| {
        let containers = pod.status.iter().flat_map(|status| status.container_statuses.iter().flatten());
        let mut beside = containers.filter(|container| container.name != meta::STAGE_CONTAINER);
        beside.any(|container| container.state.as_ref().is_some_and(|state| state.terminated.is_none()))
    })
}

/// The volumes whose claims are the session's own.
fn own_claims(session: &EffectiveSession) -> impl Iterator<Item = SharedVolume> {
    session.claimed_volumes().filter(|&volume| session.existing_claim(volume).is_none())
}

/// The volumes that are staged. Existing claims are used as they are.
fn own_volumes(session: &EffectiveSession) -> impl Iterator<Item = SharedVolume> {
    SharedVolume::ALL.into_iter().filter(|&volume| session.existing_claim(volume).is_none())
}
