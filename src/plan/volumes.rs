//! The three volumes that all sandboxes of a session share.

use kube::ResourceExt;

use super::name;
use crate::api::{
    AigiseSession,
    session::{AccessMode, Reclaim, VolumeSpec},
};

/// A volume that all sandboxes of a session share. The mount paths are the framework's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, strum::Display, strum::IntoStaticStr)]
#[strum(serialize_all = "lowercase")]
pub enum SharedVolume {
    /// Scripts that initialisers run.
    Scripts,
    /// Data.
    Data,
    /// Tools.
    Tools,
}

/// The spec of a volume that the session does not mention.
static DEFAULT: VolumeSpec = VolumeSpec {
    claim_name: None,
    reclaim: None,
    size: None,
    storage_class_name: None,
    access_modes: Vec::new(),
    sources: Vec::new(),
};

impl SharedVolume {
    /// All volumes, in the order in which they are created and filled.
    pub const ALL: [SharedVolume; 3] = [SharedVolume::Scripts, SharedVolume::Data, SharedVolume::Tools];

    /// The path at which every sandbox mounts the volume.
    #[must_use]
    pub fn mount_path(self) -> &'static str {
        match self {
            SharedVolume::Scripts => "/sandbox_scripts",
            SharedVolume::Data => "/shared",
            SharedVolume::Tools => "/bash_tools",
        }
    }

    /// The spec of the volume in the session.
    #[must_use]
    pub fn spec(self, session: &AigiseSession) -> &VolumeSpec {
        let volumes = session.spec.volumes.as_ref();
        let spec = volumes.and_then(|volumes| match self {
            SharedVolume::Scripts => volumes.scripts.as_ref(),
            SharedVolume::Data => volumes.data.as_ref(),
            SharedVolume::Tools => volumes.tools.as_ref(),
        });
        spec.unwrap_or(&DEFAULT)
    }

    /// The existing claim that the session uses for the volume.
    #[must_use]
    pub fn existing(self, session: &AigiseSession) -> Option<&str> {
        self.spec(session).claim_name.as_deref()
    }

    /// The name of the volume's claim.
    #[must_use]
    pub fn claim_name(self, session: &AigiseSession) -> String {
        self.existing(session).map_or_else(|| name::child(&session.name_any(), self), String::from)
    }

    /// Whether the volume's claim is deleted with the session.
    #[must_use]
    pub fn goes_with(self, session: &AigiseSession) -> bool {
        self.existing(session).is_none()
            && session.spec.cleans_up()
            && self.spec(session).reclaim.unwrap_or_default() == Reclaim::Delete
    }

    /// Whether all Pods that mount the volume have to run on one node.
    #[must_use]
    pub fn is_on_one_node(self, session: &AigiseSession) -> bool {
        !self.spec(session).access_modes.contains(&AccessMode::ReadWriteMany)
    }
}
