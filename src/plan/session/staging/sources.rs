//! The sources of the volumes: their names, their mount paths in the stage Pod, and the digest of all sources.

use std::collections::{BTreeMap, BTreeSet};

use super::super::{ConfigMapContent, Observed};
use crate::{
    api::{
        AigiseSession, meta,
        session::{ContainerSource, SourceKind, VolumeSource},
    },
    plan::{Settings, digest, sandbox::check_security_context, volumes::SharedVolume},
    protocol::staging::{self, Access, Manifest},
};

/// All sources in the order in which they are staged, each with a unique name, its volume, and its index in the volume's list.
pub(super) fn sources(session: &AigiseSession) -> impl Iterator<Item = (String, SharedVolume, usize, &VolumeSource)> {
    SharedVolume::ALL.into_iter().flat_map(move |volume| {
        let sources = volume.spec(session).sources.iter().enumerate();
        sources.map(move |(index, source)| (format!("source-{volume}-{index}"), volume, index, source))
    })
}

/// Checks the sources for what this cluster does not support, and for security contexts that are not allowed.
pub(crate) fn check(session: &AigiseSession, settings: &Settings) -> Result<(), String> {
    for (_, volume, index, source) in sources(session) {
        let field = format!("spec.volumes.{volume}.sources[{index}]");
        match source.kind() {
            SourceKind::Image(_) if !settings.image_volumes => {
                return Err(format!(
                    "{field}.image: this cluster cannot mount images, according to the operator's settings; use a container source instead."
                ));
            }
            SourceKind::Container(ContainerSource { security_context: Some(context), .. })
                if !settings.allow_privileged_templates =>
            {
                check_security_context(context)
                    .map_err(|message| format!("{field}.container.securityContext.{message}"))?;
            }
            SourceKind::ConfigMap(_)
            | SourceKind::PersistentVolumeClaim(_)
            | SourceKind::Image(_)
            | SourceKind::Container(_)
            | SourceKind::Empty => {}
        }
    }
    Ok(())
}

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

/// The manifest for the stage Pod. Its digest covers the manifest, the sources as they were written, and the content of the ConfigMaps.
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
    let digest = digest::whole(&(list(&observed.session), contents.collect::<BTreeMap<_, _>>()));
    Manifest { digest, volumes }
}

/// The digest of the list of sources as they were written, including commands and environments, and of how they are staged.
pub(super) fn list(session: &AigiseSession) -> String {
    let written: Vec<_> = sources(session).map(|(_, _, _, source)| source).collect();
    digest::short(&(volumes(session), written))
}

fn volumes(session: &AigiseSession) -> Vec<staging::Volume> {
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
        top_roots: session.spec.tools_top_roots.clone().filter(|_| volume == SharedVolume::Tools),
        // The digest does not depend on whether the session or an agent requests a root.
        optional_roots: BTreeSet::new(),
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
