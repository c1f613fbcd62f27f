//! The claim of a cache, and the Pods that write and read it. Each Pod lives for seconds and is deleted when its outcome is recorded, so
//! that no Pod that has ended holds a claim.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{
        Container, EnvVar, PersistentVolumeClaim, PersistentVolumeClaimSpec, PersistentVolumeClaimVolumeSource, Pod,
        PodSpec, Volume, VolumeMount, VolumeResourceRequirements,
    },
    apimachinery::pkg::api::resource::Quantity,
};
use kube::ResourceExt;
use serde::Serialize;

use super::entry::Entry;
use crate::{
    api::{
        init::SavedRoot,
        meta::{self, Component},
        session::{AccessMode, CacheResult, CacheSpec, RestoreMode},
    },
    plan::{
        digest,
        name::Label,
        ownership,
        pod_spec::{base_spec, claim_volume, helper_container, lay_out},
        session::{Observed, staging},
        volumes::SharedVolume,
    },
    protocol::cache::{PackedRoot, RESTORE_ENV, RestoreWork, RestoredVolume, SAVE_ENV, SaveWork, SavedVolume},
};

/// The volumes that are saved and restored. Scripts come from their sources.
const SAVED: [SharedVolume; 2] = [SharedVolume::Data, SharedVolume::Tools];

/// Where the Pods find the entry.
const ENTRY_PATH: &str = "/entry";

/// The volume of the entry.
const ENTRY_VOLUME: &str = "entry";

/// After how many seconds a Pod that hangs is ended.
const DEADLINE: i64 = 3600;

/// The default size of an entry.
const DEFAULT_SIZE: &str = "5Gi";

/// The claim for the session's cache. It belongs to the session until it is committed, so it goes with a session that never commits it.
pub(super) fn claim(
    observed: &Observed,
    cache: &CacheSpec,
    name: String,
    key: &str,
    inputs: String,
) -> PersistentVolumeClaim {
    let storage = cache.storage.clone().unwrap_or_default();
    let modes = if storage.access_modes.is_empty() { vec![AccessMode::ReadWriteOnce] } else { storage.access_modes };
    let mut labels = ownership::labels(Component::Cache);
    labels.insert(meta::CACHE_KEY.into(), key.to_string());
    labels.extend(observed.session.members());
    let mut metadata = ownership::child_meta(&observed.session, name, labels);
    metadata.annotations = Some(BTreeMap::from([(meta::CACHE_INPUTS.to_string(), inputs)]));
    let size = storage.size.unwrap_or_else(|| Quantity(DEFAULT_SIZE.into()));
    PersistentVolumeClaim {
        metadata,
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(modes.iter().map(ToString::to_string).collect()),
            storage_class_name: storage.storage_class_name,
            resources: Some(VolumeResourceRequirements {
                requests: Some(BTreeMap::from([("storage".into(), size)])),
                ..VolumeResourceRequirements::default()
            }),
            ..PersistentVolumeClaimSpec::default()
        }),
        status: None,
    }
}

/// The Pod that saves the volumes into an entry.
pub(super) fn save_pod(
    observed: &Observed,
    cache: &CacheSpec,
    entry: &PersistentVolumeClaim,
    roots: Vec<PackedRoot>,
    timeout: u64,
) -> Pod {
    let volume = |volume: SharedVolume| {
        let own = cache.exclude.iter().filter_map(|path| path.strip_prefix(volume.mount_path())?.strip_prefix('/'));
        SavedVolume {
            name: volume.to_string(),
            mount_path: meta::stage_volume_path(volume.into()),
            exclude: own.map(|path| path.trim_end_matches('/').to_string()).collect(),
        }
    };
    let id = save_id(entry, &roots);
    let work = SaveWork { volumes: SAVED.into_iter().map(volume).collect(), roots, entry: ENTRY_PATH.into(), timeout };
    let name = Observed::save_pod_name(&observed.session);
    let mut pod = pod(observed, name, "save", (SAVE_ENV, &work), &entry.name_any(), &id);
    // The operator deletes it then, unless it is down.
    let deadline = i64::try_from(timeout).unwrap_or(i64::MAX).saturating_add(60);
    pod.spec.get_or_insert_default().active_deadline_seconds = Some(deadline);
    pod
}

/// Identifies what a Pod saves, and where.
pub(super) fn save_id(entry: &PersistentVolumeClaim, roots: &[PackedRoot]) -> String {
    let uid = entry.uid().unwrap_or_default();
    if roots.is_empty() { uid } else { format!("{uid}/{}", digest::short(&roots)) }
}

/// A root file system as the Pods know it.
pub(super) fn packed_root(label: &Label, root: &SavedRoot) -> PackedRoot {
    PackedRoot { label: label.to_string(), root: root.clone().into() }
}

/// The Pod that restores an entry into the volumes.
pub(super) fn restore_pod(observed: &Observed, entry: &Entry) -> Pod {
    let parts = observed.cache_record().map(|record| &record.sandboxes);
    let fits = |name: &str| {
        let part = parts.and_then(|parts| parts.get(name));
        part.is_none_or(|part| part.result == CacheResult::Restored)
    };
    let saved = entry.manifest.sandboxes.iter().filter(|(name, _)| fits(name));
    let roots = saved.filter_map(|(name, root)| Some(packed_root(&Label::of(name).ok()?, root)));
    let volumes = SAVED.into_iter().filter_map(|volume| {
        let part = entry.manifest.volumes.get(<&str>::from(volume))?.clone();
        Some(RestoredVolume { name: volume.to_string(), mount_path: meta::stage_volume_path(volume.into()), part })
    });
    let work = RestoreWork {
        entry: ENTRY_PATH.into(),
        arch: entry.manifest.arch.clone(),
        format: entry.manifest.format,
        volumes: volumes.collect(),
        roots: roots.collect(),
        partial: observed.session.cache().is_some_and(|cache| cache.restore() == RestoreMode::Partial),
        digest: entry.id.clone(),
    };
    let name = Observed::restore_pod_name(&observed.session);
    pod(observed, name, "restore", (RESTORE_ENV, &work), &entry.name, &entry.id)
}

fn pod(
    observed: &Observed,
    name: String,
    verb: &str,
    (variable, work): (&str, &impl Serialize),
    entry: &str,
    id: &str,
) -> Pod {
    let saves = verb == "save";
    let session = &observed.session;
    let mut metadata = ownership::child_meta(session, name, session.labels(Component::Cache));
    metadata.annotations = Some(BTreeMap::from([
        (meta::DEFAULT_CONTAINER.to_string(), meta::CACHE_CONTAINER.to_string()),
        (meta::CACHE_FROM.to_string(), id.to_string()),
    ]));
    let entry = Volume {
        name: ENTRY_VOLUME.into(),
        persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
            claim_name: entry.to_string(),
            read_only: (!saves).then_some(true),
        }),
        ..Volume::default()
    };
    let mount = |name: &str, mount_path: String, read_only: bool| VolumeMount {
        name: name.into(),
        mount_path,
        read_only: read_only.then_some(true),
        ..VolumeMount::default()
    };
    let volumes = SAVED.into_iter().map(|volume| claim_volume(session, volume, false));
    let mounts = SAVED.into_iter().map(|volume| mount(volume.into(), meta::stage_volume_path(volume.into()), saves));
    let container = helper_container(&observed.settings);
    // The first Pod that mounts the volumes decides where all others run.
    let container = if saves { container } else { staging::with_requests_of_all(container, observed) };
    let mut spec = PodSpec {
        containers: vec![Container {
            name: meta::CACHE_CONTAINER.into(),
            command: Some(vec!["/sandboxd".into(), verb.into()]),
            env: Some(vec![EnvVar {
                name: variable.into(),
                // The kubelet expands `$(NAME)` in values; `$$` is a plain dollar.
                value: serde_json::to_string(work).ok().map(|json| json.replace('$', "$$")),
                value_from: None,
            }]),
            volume_mounts: Some(mounts.chain([mount(ENTRY_VOLUME, ENTRY_PATH.into(), !saves)]).collect()),
            ..container
        }],
        volumes: Some(volumes.chain([entry]).collect()),
        active_deadline_seconds: Some(DEADLINE),
        ..staging::around(base_spec(Some(session)), session)
    };
    lay_out(&mut spec, session);
    Pod { metadata, spec: Some(spec), status: None }
}
