//! The sources of a session's volumes.

use super::EffectiveSession;
use crate::{
    api::session::{ContainerSource, SourceKind, VolumeSource},
    plan::{
        Below, Invalid, Settings, reserved::SOURCE_PREFIX, template::check_security_context, volumes::SharedVolume,
    },
};

/// All sources in the order in which they are staged, each with a unique name, its volume, and its index in the volume's list.
pub fn sources(session: &EffectiveSession) -> impl Iterator<Item = (String, SharedVolume, usize, &VolumeSource)> {
    SharedVolume::ALL.into_iter().flat_map(move |volume| {
        let sources = session.volume(volume).sources.iter().enumerate();
        sources.map(move |(index, source)| (format!("{SOURCE_PREFIX}{volume}-{index}"), volume, index, source))
    })
}

/// Checks the sources for what this cluster does not support, and for security contexts that are not allowed.
pub(super) fn check(session: &EffectiveSession, settings: &Settings) -> Result<(), Invalid> {
    for (_, volume, index, source) in sources(session) {
        let found = match source.kind() {
            SourceKind::Image(_) if !settings.image_volumes => Err(Invalid::new(
                "image",
                "this cluster cannot mount images, according to the operator's settings; use a container source instead.",
            )),
            SourceKind::Container(ContainerSource { security_context: Some(context), .. })
                if !settings.allow_privileged_templates =>
            {
                check_security_context(context).below("container.securityContext")
            }
            SourceKind::ConfigMap(_)
            | SourceKind::PersistentVolumeClaim(_)
            | SourceKind::Image(_)
            | SourceKind::Container(_)
            | SourceKind::Empty => Ok(()),
        };
        found.at(index).below(format_args!("spec.volumes.{volume}.sources"))?;
    }
    Ok(())
}
