//! The stage Pod: it fills the volumes, once for each digest of their sources, and ends.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{
    ConfigMap, ConfigMapVolumeSource, Container, EnvVar, PersistentVolumeClaimVolumeSource, Pod, PodSpec, Volume,
    VolumeMount,
};

use super::{Child, ConfigMapContent, Observed, Settings, Slot, Write};
use crate::{
    api::{
        AigiseSession,
        condition::Reason,
        meta::{self, Component},
        session::VolumeSource,
    },
    plan::{
        digest, ownership,
        pod::{Progress, annotation},
        pod_spec::{base_spec, claim_volume, helper_container},
        volumes::SharedVolume,
    },
    staging::{self, Access, Manifest, Report},
};

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
    },
}

impl Staging {
    /// Reads the stage Pod.
    #[must_use]
    pub fn of(observed: &Observed) -> Self {
        let Some(pod) = observed.stage_pod.ours() else {
            return if is_needed(&observed.session) { Staging::NotStarted } else { Staging::Unneeded };
        };
        let progress = Progress::of(pod, meta::STAGE_CONTAINER);
        let is_busy = matches!(progress, Progress::Running | Progress::Ready | Progress::Terminating);
        if !is_busy && (speaks_of_other_sources(pod, &observed.session) || is_older_than_a_claim(pod, observed)) {
            return Staging::Superseded;
        }
        match progress {
            Progress::Ended { success, message, last_words, reason } => {
                match last_words.as_deref().and_then(|words| serde_json::from_str(words).ok()) {
                    Some(Report::Staged { volumes }) if success => Staging::Done {
                        digest: annotation(pod, meta::SOURCES_DIGEST).unwrap_or_default().to_string(),
                        roots: volumes.get("tools").map(|staged| staged.roots.clone()).unwrap_or_default(),
                    },
                    Some(Report::Failed { message }) => Staging::Failed(message),
                    Some(Report::Staged { .. }) | None
                        if matches!(reason, Reason::PodLost | Reason::ContainerConfig) =>
                    {
                        Staging::Interrupted(message)
                    }
                    Some(Report::Staged { .. }) | None => Staging::Failed(message),
                }
            }
            progress => Staging::InProgress(progress),
        }
    }
}

/// The list of sources was edited after the Pod was made.
fn speaks_of_other_sources(pod: &Pod, session: &AigiseSession) -> bool {
    annotation(pod, meta::SOURCES_LIST) != Some(digest::short(&volumes(session)).as_str())
}

/// A claim was deleted and made anew: what was staged is not in it.
fn is_older_than_a_claim(pod: &Pod, observed: &Observed) -> bool {
    let claims = observed.claims.values().filter_map(Slot::ours);
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
    sources(session).next().is_some() || session.spec.tools_top_roots.as_ref().is_some_and(|roots| !roots.is_empty())
}

/// The names of the ConfigMaps among a session's sources.
#[must_use]
pub fn config_maps(session: &AigiseSession) -> BTreeSet<String> {
    let sources = SharedVolume::ALL.into_iter().flat_map(|volume| &volume.spec(session).sources);
    sources.filter_map(|source| Some(source.config_map.as_ref()?.name.clone())).collect()
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
pub(super) fn rest(observed: &Observed, now: Timestamp) -> Duration {
    let made = observed.stage_pod.ours().and_then(|pod| pod.metadata.creation_timestamp.as_ref());
    let age = made.map(|made| Duration::try_from(now.duration_since(made.0)).unwrap_or_default());
    age.map_or(Duration::ZERO, |age| REST.saturating_sub(age))
}

/// Makes the stage Pod when it is missing, and takes it away when it speaks of something that is no more.
pub(super) fn writes(observed: &Observed, settings: &Settings, now: Timestamp) -> Vec<Write> {
    let known = observed.config_maps.values().all(|content| matches!(content, ConfigMapContent::Hash(_)));
    let pod = match &observed.stage_pod {
        Slot::Absent if known && is_needed(&observed.session) => {
            return vec![Write::Ensure(Child::Pod(Box::new(stage_pod(observed, settings))))];
        }
        Slot::Ours(pod) => pod,
        Slot::Absent | Slot::Foreign(_) | Slot::Failed(_) => return vec![],
    };
    let remove = match Staging::of(observed) {
        Staging::Superseded => true,
        Staging::Interrupted(_) => rest(observed, now).is_zero(),
        // The list is the same, so it is a ConfigMap that was mended.
        Staging::Failed(_) => {
            known && annotation(pod, meta::SOURCES_DIGEST) != Some(manifest(observed).digest.as_str())
        }
        // It cannot start, and a newer operator brings another helper.
        Staging::InProgress(Progress::Waiting { .. }) => !runs_helper(pod, settings),
        Staging::Unneeded | Staging::NotStarted | Staging::InProgress(_) | Staging::Done { .. } => false,
    };
    if remove { vec![Write::Delete(Child::Pod(Box::new(Pod::clone(pod))))] } else { vec![] }
}

fn runs_helper(pod: &Pod, settings: &Settings) -> bool {
    let image = pod.spec.as_ref().and_then(|spec| spec.containers.first()?.image.as_ref());
    image == Some(&settings.helper_image)
}

fn stage_pod(observed: &Observed, settings: &Settings) -> Pod {
    let session = &*observed.session;
    let manifest = manifest(observed);
    let mut metadata = ownership::child_meta(
        session,
        Observed::stage_pod_name(session),
        ownership::labels(Some(session), Component::Stage),
    );
    metadata.annotations = Some(BTreeMap::from([
        (meta::SOURCES_DIGEST.to_string(), manifest.digest.clone()),
        (meta::SOURCES_LIST.to_string(), digest::short(&manifest.volumes)),
    ]));

    let claims = SharedVolume::ALL.into_iter().map(|volume| claim_volume(session, volume, false));
    let sources = sources(session).map(|(name, _, source)| source_volume(name, source));
    let claim_mounts = SharedVolume::ALL.into_iter().map(|volume| VolumeMount {
        name: volume.to_string(),
        mount_path: meta::stage_volume_path(&volume.to_string()),
        ..VolumeMount::default()
    });
    let source_mounts = self::sources(session).map(|(name, _, _)| VolumeMount {
        mount_path: source_path(&name),
        name,
        read_only: Some(true),
        ..VolumeMount::default()
    });
    Pod {
        metadata,
        spec: Some(PodSpec {
            containers: vec![Container {
                name: meta::STAGE_CONTAINER.into(),
                command: Some(vec!["/sandboxd".into(), "stage".into()]),
                env: Some(vec![EnvVar {
                    name: staging::MANIFEST_ENV.into(),
                    // The kubelet expands `$(NAME)` in values; `$$` is a plain dollar.
                    value: serde_json::to_string(&manifest).ok().map(|json| json.replace('$', "$$")),
                    value_from: None,
                }]),
                volume_mounts: Some(claim_mounts.chain(source_mounts).collect()),
                ..helper_container(settings)
            }],
            volumes: Some(claims.chain(sources).collect()),
            ..base_spec(Some(session))
        }),
        status: None,
    }
}

/// Every source with a name of its own and the volume that it goes into.
fn sources(session: &AigiseSession) -> impl Iterator<Item = (String, SharedVolume, &VolumeSource)> {
    SharedVolume::ALL.into_iter().flat_map(move |volume| {
        let sources = volume.spec(session).sources.iter().enumerate();
        sources.map(move |(index, source)| (format!("source-{volume}-{index}"), volume, source))
    })
}

fn source_path(name: &str) -> String {
    format!("/sources/{name}")
}

fn source_volume(name: String, source: &VolumeSource) -> Volume {
    Volume {
        name,
        config_map: source.config_map.as_ref().map(|config_map| ConfigMapVolumeSource {
            name: config_map.name.clone(),
            ..ConfigMapVolumeSource::default()
        }),
        persistent_volume_claim: source.persistent_volume_claim.as_ref().map(|claim| {
            PersistentVolumeClaimVolumeSource { claim_name: claim.claim_name.clone(), read_only: Some(true) }
        }),
        ..Volume::default()
    }
}

/// What the stage Pod is told, with the digest that names it together with the content of the ConfigMaps.
fn manifest(observed: &Observed) -> Manifest {
    let volumes = volumes(&observed.session);
    let contents = observed.config_maps.iter().map(|(name, content)| match content {
        ConfigMapContent::Hash(hash) => (name, hash.as_str()),
        ConfigMapContent::Missing | ConfigMapContent::Unknown(_) => (name, ""),
    });
    let digest = digest::whole(&(&volumes, contents.collect::<BTreeMap<_, _>>()));
    Manifest { digest, volumes }
}

fn volumes(session: &AigiseSession) -> Vec<staging::Volume> {
    let volume = |volume: SharedVolume| staging::Volume {
        name: volume.to_string(),
        mount_path: meta::stage_volume_path(&volume.to_string()),
        access: if volume == SharedVolume::Scripts { Access::Read } else { Access::Write },
        sources: sources(session)
            .filter(|(_, of, _)| *of == volume)
            .map(|(name, _, source)| manifest_source(&name, source))
            .collect(),
        top_roots: session.spec.tools_top_roots.clone().filter(|_| volume == SharedVolume::Tools),
    };
    SharedVolume::ALL.map(volume).into()
}

fn manifest_source(name: &str, source: &VolumeSource) -> staging::Source {
    let mounted = source_path(name);
    let (description, mount_path) = match (&source.config_map, &source.persistent_volume_claim) {
        (Some(config_map), _) => (format!("configMap {}", config_map.name), mounted),
        (None, Some(claim)) => {
            let folder = claim.path.as_ref().map_or(mounted.clone(), |path| format!("{mounted}/{path}"));
            (format!("persistentVolumeClaim {}", claim.claim_name), folder)
        }
        (None, None) => ("an empty source".to_string(), mounted),
    };
    staging::Source { description, mount_path, path: source.path.clone().unwrap_or_default() }
}
