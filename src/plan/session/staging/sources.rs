//! The sources of the volumes: their names, their mount paths in the stage Pod, and the digest of all sources.

use std::collections::{BTreeMap, BTreeSet};

use super::super::{ConfigMapContent, Observed};
use crate::{
    api::{
        meta,
        session::{SourceKind, VolumeSource},
    },
    plan::{
        digest,
        effective::{EffectiveSession, sources::sources},
        volumes::SharedVolume,
    },
    protocol::staging::{self, Access, Manifest},
};

/// The description of a source for users.
pub(super) fn describe(volume: SharedVolume, index: usize, source: &VolumeSource) -> String {
    match source.kind() {
        SourceKind::ConfigMap(config_map) => format!("configMap {}", config_map.name),
        SourceKind::PersistentVolumeClaim(claim) => format!("persistentVolumeClaim {}", claim.claim_name),
        SourceKind::Image(image) => format!("image {}", image.reference),
        // Several commands may run in the same image, so the index is included.
        SourceKind::Container(container) => format!("container {} ({volume}.sources[{index}])", container.image),
        SourceKind::Empty => "an empty source".to_string(),
    }
}

/// Where the stage Pod mounts a source.
pub(super) fn mount_path(name: &str) -> String {
    format!("/sources/{name}")
}

/// The manifest for the stage Pod. Its digest covers the manifest, the sources as they were written, the content of the ConfigMaps, and the
/// request to fill the volumes again.
pub(super) fn manifest(observed: &Observed) -> Manifest {
    let mut volumes = volumes(&observed.session);
    let own = observed.decided.roots();
    for volume in &mut volumes {
        let chosen = volume.top_roots.iter().flatten();
        volume.optional_roots = chosen.filter(|root| !own.contains(*root)).cloned().collect();
    }
    let contents = observed.config_maps.iter().map(|(name, content)| match content {
        ConfigMapContent::Hash(hash) => (name, hash.as_str()),
        ConfigMapContent::Missing | ConfigMapContent::Unknown(_) => (name, ""),
    });
    let (list, contents) = (list(&observed.session), contents.collect::<BTreeMap<_, _>>());
    // `sandboxd` leaves a volume alone that was filled with this digest, so a request to fill it again has to change the digest.
    let digest = match super::request(&observed.session) {
        None => digest::whole(&(list, contents)),
        Some(request) => digest::whole(&(list, contents, request)),
    };
    Manifest { digest, volumes }
}

/// The digest of the list of sources as they were written, including commands and environments, and of how they are staged.
pub(super) fn list(session: &EffectiveSession) -> String {
    let written: Vec<_> = sources(session).map(|(_, _, _, source)| source).collect();
    digest::short(&(volumes(session), written))
}

fn volumes(session: &EffectiveSession) -> Vec<staging::Volume> {
    let volume = |volume: SharedVolume| staging::Volume {
        name: volume.to_string(),
        mount_path: meta::stage_volume_path(&volume.to_string()),
        access: if volume == SharedVolume::Scripts { Access::Read } else { Access::Write },
        sources: sources(session)
            .filter(|(_, of, ..)| *of == volume)
            .map(|(name, volume, index, source)| staging::Source {
                description: describe(volume, index, source),
                mount_path: folder(&name, source),
                path: source.path.clone().unwrap_or_default(),
            })
            .collect(),
        top_roots: session.tools_top_roots().cloned().filter(|_| volume == SharedVolume::Tools),
        // The digest does not depend on whether the session or an agent requests a root.
        optional_roots: BTreeSet::new(),
        restored: None,
    };
    super::own_volumes(session).map(volume).collect()
}

/// The folder that is copied: the mount path of the source, or a folder below it.
fn folder(name: &str, source: &VolumeSource) -> String {
    let within = match source.kind() {
        SourceKind::PersistentVolumeClaim(claim) => claim.path.as_deref(),
        SourceKind::Image(image) => image.path.as_deref(),
        SourceKind::ConfigMap(_) | SourceKind::Container(_) | SourceKind::Empty => None,
    };
    match within.map(|path| path.trim_start_matches('/')) {
        None | Some("") => mount_path(name),
        Some(path) => format!("{}/{path}", mount_path(name)),
    }
}
