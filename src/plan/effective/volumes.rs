//! The three volumes of a session, and their claims.

use kube::ResourceExt;

use super::EffectiveSession;
use crate::{
    api::session::{AccessMode, Reclaim, VolumeSpec},
    plan::{name, volumes::SharedVolume},
};

/// The spec of a volume that the session does not mention.
static DEFAULT: VolumeSpec = VolumeSpec {
    claim_name: None,
    reclaim: None,
    size: None,
    storage_class_name: None,
    access_modes: Vec::new(),
    sources: Vec::new(),
};

impl EffectiveSession {
    /// The spec of a volume.
    pub fn volume(&self, volume: SharedVolume) -> &VolumeSpec {
        let volumes = self.spec().volumes.as_ref();
        let spec = volumes.and_then(|volumes| match volume {
            SharedVolume::Scripts => volumes.scripts.as_ref(),
            SharedVolume::Data => volumes.data.as_ref(),
            SharedVolume::Tools => volumes.tools.as_ref(),
        });
        spec.unwrap_or(&DEFAULT)
    }

    /// The existing claim that the session uses for a volume.
    pub fn existing_claim(&self, volume: SharedVolume) -> Option<&str> {
        self.volume(volume).claim_name.as_deref()
    }

    /// The name of a volume's claim.
    pub fn claim_name(&self, volume: SharedVolume) -> String {
        self.existing_claim(volume).map_or_else(|| name::child(&self.name_any(), volume), String::from)
    }

    /// Whether a volume's claim is deleted with the session.
    pub fn deletes_claim(&self, volume: SharedVolume) -> bool {
        self.existing_claim(volume).is_none()
            && self.cleans_up()
            && self.volume(volume).reclaim.unwrap_or_default() == Reclaim::Delete
    }

    /// Whether all Pods of the session have to run on one node, because of a claim that cannot be mounted on several.
    pub fn is_on_one_node(&self) -> bool {
        let mut volumes = SharedVolume::ALL.into_iter().map(|volume| self.volume(volume));
        volumes.any(|volume| !volume.access_modes.contains(&AccessMode::ReadWriteMany))
    }
}
