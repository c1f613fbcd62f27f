//! The sources of a session's volumes.

use super::EffectiveSession;
use crate::{
    api::session::{ContainerSource, SourceKind, VolumeSource},
    plan::{Settings, template::check_security_context, volumes::SharedVolume},
};

/// All sources in the order in which they are staged, each with a unique name, its volume, and its index in the volume's list.
pub fn sources(session: &EffectiveSession) -> impl Iterator<Item = (String, SharedVolume, usize, &VolumeSource)> {
    SharedVolume::ALL.into_iter().flat_map(move |volume| {
        let sources = session.volume(volume).sources.iter().enumerate();
        sources.map(move |(index, source)| (format!("source-{volume}-{index}"), volume, index, source))
    })
}

/// Checks the sources for what this cluster does not support, and for security contexts that are not allowed.
pub(super) fn check(session: &EffectiveSession, settings: &Settings) -> Result<(), String> {
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
