//! The claims of the three shared volumes.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::core::v1::{PersistentVolumeClaim, PersistentVolumeClaimSpec, VolumeResourceRequirements},
    apimachinery::pkg::api::resource::Quantity,
};

use super::{Child, Observed, Slot, Write};
use crate::{
    api::{meta::Component, session::AccessMode},
    plan::{ownership, volumes::SharedVolume},
};

/// The claims that are missing.
pub(super) fn writes(observed: &Observed) -> Vec<Write> {
    let missing = SharedVolume::ALL.into_iter().filter(|volume| observed.claims.get(volume) == Some(&Slot::Absent));
    missing.map(|volume| Write::Ensure(Child::Claim(Box::new(claim(observed, volume))))).collect()
}

/// What is in the way of the claims. A claim that waits is not named: they are bound one after the other, and each would be news.
pub(super) fn unbound(observed: &Observed) -> Option<String> {
    let phase = |volume| {
        let claim = observed.claims.get(&volume).and_then(Slot::ours)?;
        claim.status.as_ref()?.phase.as_deref()
    };
    if let Some(lost) = SharedVolume::ALL.into_iter().find(|&volume| phase(volume) == Some("Lost")) {
        return Some(format!("The claim {} has lost its volume.", observed.child_name(lost)));
    }
    let waits = SharedVolume::ALL.into_iter().any(|volume| phase(volume) != Some("Bound"));
    waits.then(|| "The claims get their volumes when the first Pod needs them.".to_string())
}

fn claim(observed: &Observed, volume: SharedVolume) -> PersistentVolumeClaim {
    let session = &*observed.session;
    let spec = volume.spec(session);
    let modes: Vec<String> = match spec.access_modes.as_slice() {
        [] => vec![AccessMode::ReadWriteOnce.to_string()],
        modes => modes.iter().map(ToString::to_string).collect(),
    };
    let size = spec.size.clone().unwrap_or_else(|| Quantity("1Gi".into()));
    PersistentVolumeClaim {
        metadata: ownership::child_meta(
            session,
            observed.child_name(volume),
            ownership::labels(Some(session), Component::Volume),
        ),
        spec: Some(PersistentVolumeClaimSpec {
            access_modes: Some(modes),
            storage_class_name: spec.storage_class_name.clone(),
            resources: Some(VolumeResourceRequirements {
                requests: Some(BTreeMap::from([("storage".to_string(), size)])),
                ..VolumeResourceRequirements::default()
            }),
            ..PersistentVolumeClaimSpec::default()
        }),
        status: None,
    }
}
