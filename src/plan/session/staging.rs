//! The stage Pod: it fills the volumes, once for each digest of their sources, and ends.

use std::{collections::BTreeSet, time::Duration};

use k8s_openapi::api::core::v1::{ConfigMap, Pod};

use kube::ResourceExt;

use super::{ChildState, ConfigMapContent, Created, Observed, Write};
use crate::{
    api::{AigiseSession, condition::Reason, meta},
    plan::{
        digest,
        pod::{Progress, annotation, failed_init, how},
        status::printable,
        volumes::SharedVolume,
    },
    protocol::staging::StagingReport,
};

mod pod;
mod sources;
mod walls;

pub(super) use self::sources::check;

/// How far staging is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Staging {
    /// No volume has a source, so there is nothing to do: every sandbox can write to an empty volume by its group.
    Unneeded,
    /// The stage Pod is missing.
    NotStarted,
    /// The stage Pod is on its way.
    InProgress(Progress),
    /// The stage Pod speaks of something that is no more: it is made anew.
    Superseded,
    /// The cluster took the stage Pod away before it was through: it is made anew.
    Interrupted(String),
    /// It ended badly: the same sources would end it in the same way.
    Failed(String),
    /// The volumes hold what their sources gave.
    Done {
        /// The digest of the sources.
        digest: String,
        /// The first-level folders of the tools volume.
        roots: Vec<String>,
        /// The skills in the tools volume, as far as they were reported.
        skills: Vec<String>,
        /// How many files were there with other content, and were left as they were.
        kept: i64,
    },
}

impl Staging {
    /// Reads the stage Pod.
    #[must_use]
    pub fn of(observed: &Observed) -> Self {
        let Some(pod) = observed.stage_pod.owned() else {
            return if is_needed(&observed.session) { Staging::NotStarted } else { Staging::Unneeded };
        };
        let progress = Progress::of(pod, meta::STAGE_CONTAINER);
        let is_busy = match progress {
            Progress::Initializing { .. } | Progress::Running | Progress::Ready | Progress::Terminating => true,
            Progress::Created
            | Progress::Unschedulable { .. }
            | Progress::Waiting { .. }
            | Progress::Silent
            | Progress::Ended { .. } => false,
        };
        if !is_busy && (speaks_of_other_sources(pod, &observed.session) || is_older_than_a_claim(pod, observed)) {
            return Staging::Superseded;
        }
        match progress {
            Progress::Ended { success, message, last_words, reason, when: _ } => {
                match failed_source(pod, &observed.session) {
                    Some(failure) if reason != Reason::PodLost => Staging::Failed(failure),
                    Some(_) | None => of_report(pod, success, reason, message, last_words.as_deref()),
                }
            }
            progress => Staging::InProgress(progress),
        }
    }
}

/// What `sandboxd` says at its end. Where it says nothing, something ended it: the next run goes on where this one was. Only a
/// run that needs more memory than there is would end again in the same way.
fn of_report(pod: &Pod, success: bool, reason: Reason, message: String, last_words: Option<&str>) -> Staging {
    match last_words.and_then(|words| serde_json::from_str(words).ok()) {
        Some(StagingReport::Staged { volumes }) if success => Staging::Done {
            digest: annotation(pod, meta::SOURCES_DIGEST).unwrap_or_default().to_string(),
            roots: volumes.get("tools").map(|staged| names(&staged.roots)).unwrap_or_default(),
            skills: volumes.get("tools").map(|staged| names(&staged.skills)).unwrap_or_default(),
            kept: volumes.values().map(|staged| staged.kept).sum(),
        },
        Some(StagingReport::Failed { message }) => Staging::Failed(message),
        Some(StagingReport::Staged { .. }) | None if reason == Reason::OutOfMemory => Staging::Failed(message),
        Some(StagingReport::Staged { .. }) | None => Staging::Interrupted(message),
    }
}

/// Names of folders, as sources have them.
fn names(folders: &[String]) -> Vec<String> {
    folders.iter().map(|folder| printable(folder)).collect()
}

/// The container source that failed, how, and the last lines of what it said.
fn failed_source(pod: &Pod, session: &AigiseSession) -> Option<String> {
    let (name, terminated) = failed_init(pod)?;
    let source = sources::sources(session).find(|(source, ..)| source == name);
    let description =
        source.map_or_else(|| name.to_string(), |(_, volume, index, source)| sources::describe(volume, index, source));
    let failure = format!("{description} {}", how(terminated));
    let said = terminated.message.as_deref().unwrap_or_default();
    let lines: Vec<_> = said.lines().map(str::trim_end).filter(|line| !line.is_empty()).collect();
    let last = lines[lines.len().saturating_sub(LAST_LINES)..].join("; ");
    let last: String = last.chars().filter(|letter| !letter.is_control()).collect();
    // The runtime's own words are told already.
    Some(if last.is_empty() || failure.ends_with(said) { failure } else { format!("{failure}: {last}") })
}

/// How many of the last lines of a container source are told: the rest is in its log.
const LAST_LINES: usize = 5;

/// The list of sources was edited after the Pod was made.
fn speaks_of_other_sources(pod: &Pod, session: &AigiseSession) -> bool {
    annotation(pod, meta::SOURCES_LIST) != Some(sources::list(session).as_str())
}

/// A claim was deleted and made anew: what was staged is not in it.
fn is_older_than_a_claim(pod: &Pod, observed: &Observed) -> bool {
    let claims = own_volumes(&observed.session).filter_map(|volume| observed.claims.get(&volume)?.owned());
    claims.into_iter().any(|claim| claim.metadata.creation_timestamp > pod.metadata.creation_timestamp)
}

/// Whether the content of the ConfigMaps matters now: the volumes are to be staged, or failed to be and may be mended.
#[must_use]
pub fn wants_sources(observed: &Observed) -> bool {
    match Staging::of(observed) {
        Staging::NotStarted | Staging::Superseded | Staging::Interrupted(_) | Staging::Failed(_) => true,
        Staging::Unneeded | Staging::InProgress(_) | Staging::Done { .. } => false,
    }
}

/// A chosen root without a source is an error, which staging reports.
fn is_needed(session: &AigiseSession) -> bool {
    sources::sources(session).next().is_some()
        || session.spec.tools_top_roots.as_ref().is_some_and(|roots| !roots.is_empty())
}

/// The names of the ConfigMaps among a session's sources.
#[must_use]
pub fn config_maps(session: &AigiseSession) -> BTreeSet<String> {
    let sources = SharedVolume::ALL.into_iter().flat_map(|volume| &volume.spec(session).sources);
    sources.filter_map(|source| Some(source.config_map.as_ref()?.name.clone())).collect()
}

/// Whether the stage Pod may be there and has not ended.
pub(super) fn is_awake(observed: &Observed) -> bool {
    match &observed.stage_pod {
        ChildState::Owned(pod) => !matches!(Progress::of(pod, meta::STAGE_CONTAINER), Progress::Ended { .. }),
        other => other.may_be_there(),
    }
}

/// Takes the stage Pod away, where it is not done, or speaks of a claim that somebody has deleted: also an ended Pod keeps a claim
/// from going. It is made anew when the session goes on.
pub(super) fn interruptions(observed: &Observed) -> Vec<Write> {
    let own = own_volumes(&observed.session).filter_map(|volume| observed.claims.get(&volume)?.owned());
    let loses_a_claim = own.into_iter().any(|claim| claim.metadata.deletion_timestamp.is_some());
    if is_awake(observed) || loses_a_claim { removals(observed) } else { vec![] }
}

/// Takes the stage Pod away, whatever it has become meanwhile: what it was doing goes on in the next one. Were it left for a
/// status that changed just now, nobody might tell us to try again.
pub(super) fn removals(observed: &Observed) -> Vec<Write> {
    let pod = observed.stage_pod.owned().filter(|pod| pod.metadata.deletion_timestamp.is_none());
    pod.map(|pod| Write::delete_any_version(&**pod)).into_iter().collect()
}

/// Names what a ConfigMap holds.
#[must_use]
pub fn content_hash(config_map: &ConfigMap) -> String {
    digest::short(&(&config_map.data, &config_map.binary_data))
}

/// The first ConfigMap that is not there.
pub(super) fn missing_source(observed: &Observed) -> Option<&str> {
    let missing = observed.config_maps.iter().find(|(_, content)| **content == ConfigMapContent::Missing);
    missing.map(|(name, _)| name.as_str())
}

/// How long a stage Pod that the cluster took away is left, so that a node which refuses it is not asked several times a second.
const REST: Duration = Duration::from_secs(10);

/// How much of [`REST`] is left for a stage Pod that the cluster took away.
pub(super) fn rest(observed: &Observed) -> Duration {
    let made = observed.stage_pod.owned().and_then(|pod| pod.metadata.creation_timestamp.as_ref());
    let age = made.map(|made| Duration::try_from(observed.now.duration_since(made.0)).unwrap_or_default());
    age.map_or(Duration::ZERO, |age| REST.saturating_sub(age))
}

/// What a person is told of a stage Pod that is on its way.
pub(super) fn in_words(session: &AigiseSession, progress: &Progress) -> String {
    match progress {
        // In the scheduler's words: `0/3 nodes are available: 3 Insufficient memory.`
        Progress::Unschedulable { message, .. } if pod::asks_for_room(session) && message.contains("Insufficient ") => {
            format!("The Pod that fills the volumes asks for the room of all sandboxes: {message}")
        }
        Progress::Unschedulable { message, .. } => format!("The Pod that fills the volumes has no node: {message}"),
        Progress::Silent => "The node of the Pod that fills the volumes does not answer.".to_string(),
        Progress::Waiting { reason: Reason::ImagePull | Reason::ContainerConfig, message } => {
            format!("The Pod that fills the volumes cannot start: {message}")
        }
        Progress::Terminating
        | Progress::Created
        | Progress::Waiting { .. }
        | Progress::Initializing { .. }
        | Progress::Running
        | Progress::Ready
        | Progress::Ended { .. } => "The volumes are being filled.".to_string(),
    }
}

/// What a person is told of volumes that are filled.
pub(super) fn done_in_words(observed: &Observed) -> String {
    let kept = match Staging::of(observed) {
        Staging::Done { kept, .. } => kept,
        Staging::Unneeded
        | Staging::NotStarted
        | Staging::InProgress(_)
        | Staging::Superseded
        | Staging::Interrupted(_)
        | Staging::Failed(_) => 0,
    };
    let files = match kept {
        0 => return "The volumes hold what their sources gave.".to_string(),
        1 => "1 file that was".to_string(),
        kept => format!("{kept} files that were"),
    };
    let pod = Observed::stage_pod_name(&observed.session);
    format!(
        "The volumes hold what their sources gave, but for {files} there with other content (the log of {pod} has the names)."
    )
}

/// Makes the stage Pod when it is missing, and takes it away when it speaks of something that is no more.
pub(super) fn writes(observed: &Observed) -> Vec<Write> {
    let known = observed.config_maps.values().all(|content| matches!(content, ConfigMapContent::Hash(_)));
    let pod = match &observed.stage_pod {
        ChildState::Absent if known && is_needed(&observed.session) => {
            return vec![Write::Create(Created::Pod(Box::new(pod::stage_pod(observed))))];
        }
        ChildState::Owned(pod) => pod,
        ChildState::Absent | ChildState::Foreign(_) | ChildState::Failed(_) => return vec![],
    };
    let remove = match Staging::of(observed) {
        Staging::Superseded => true,
        Staging::Interrupted(_) => rest(observed).is_zero(),
        // The list is the same, so it is a ConfigMap that was mended.
        Staging::Failed(_) => {
            let mended =
                known && annotation(pod, meta::SOURCES_DIGEST) != Some(sources::manifest(observed).digest.as_str());
            mended || annotation(pod, meta::SESSION_RESTART) != restart(&observed.session)
        }
        // It cannot start, and would be made in another way now: a newer operator brings another helper, or a template asks for
        // less.
        Staging::InProgress(
            Progress::Unschedulable { .. }
            | Progress::Waiting { reason: Reason::ImagePull | Reason::ContainerConfig, .. },
        ) => annotation(pod, meta::STAGE_HASH) != Some(pod::hash(observed).as_str()),
        Staging::Unneeded | Staging::NotStarted | Staging::InProgress(_) | Staging::Done { .. } => false,
    };
    if remove { removals(observed) } else { vec![] }
}

/// What the user last said to have everything that is not ready started again.
fn restart(session: &AigiseSession) -> Option<&str> {
    session.annotations().get(meta::RESTART).map(String::as_str)
}

/// The volumes that are filled: an existing claim is used as it is.
fn own_volumes(session: &AigiseSession) -> impl Iterator<Item = SharedVolume> {
    SharedVolume::ALL.into_iter().filter(|volume| volume.existing(session).is_none())
}
