//! The claims of the three shared volumes.

use std::{collections::BTreeMap, time::Duration};

use k8s_openapi::{
    api::core::v1::{PersistentVolumeClaim, PersistentVolumeClaimSpec, VolumeResourceRequirements},
    apimachinery::pkg::api::resource::Quantity,
};

use super::{Caching, ChildState, Created, Observed, Write, cache};
use crate::{
    api::{
        condition::Reason,
        meta::{self, Component},
        session::{AccessMode, VolumeLayout},
    },
    plan::{Failure, Lookup, ownership, quantity::Amount, volumes::SharedVolume},
};

/// The writes for claims that are missing, or that need another owner reference.
pub(super) fn writes(observed: &Observed, caching: &Caching) -> Vec<Write> {
    let writes = observed.claims.iter().filter_map(|(&volume, child)| {
        let mut claim = claim(observed, volume);
        match child {
            ChildState::Absent if !caching.lets_create_claims() => None,
            ChildState::Absent => {
                cache::mark(&mut claim, volume, caching);
                Some(Write::Create(Created::Claim(Box::new(claim))))
            }
            ChildState::Owned(live) => {
                let adopted = adopted(live, claim)?;
                Some(Write::PatchClaim(Box::new(adopted)))
            }
            ChildState::Foreign(_) | ChildState::Failed(_) => None,
        }
    });
    writes.collect()
}

/// The writes that expand claims.
pub(super) fn growth(observed: &Observed) -> Vec<Write> {
    let grown = observed.claims.iter().filter_map(|(&volume, child)| larger(observed, volume, child.owned()?));
    grown.map(|claim| Write::PatchClaim(Box::new(claim))).collect()
}

/// Whether the size is the only thing to change in a claim.
pub(super) fn only_grows(observed: &Observed, volume: SharedVolume, live: &PersistentVolumeClaim) -> bool {
    larger(observed, volume, live).is_some()
}

/// The claim with its desired size, if it is smaller now. The owner reference is patched separately, and first: a storage class that
/// forbids expansion must not block that patch.
fn larger(observed: &Observed, volume: SharedVolume, live: &PersistentVolumeClaim) -> Option<PersistentVolumeClaim> {
    let claim = claim(observed, volume);
    grown(live, claim.clone()).filter(|_| adopted(live, claim).is_none())
}

/// The claim with its desired owner reference, if it has another one now.
fn adopted(live: &PersistentVolumeClaim, desired: PersistentVolumeClaim) -> Option<PersistentVolumeClaim> {
    let owners = |claim: &PersistentVolumeClaim| claim.metadata.owner_references.clone().unwrap_or_default();
    if live.metadata.deletion_timestamp.is_some() || owners(live) == owners(&desired) {
        return None;
    }
    let mut claim = live.clone();
    claim.metadata.owner_references = desired.metadata.owner_references;
    Some(claim)
}

/// The claim with its desired size, if it is smaller now.
fn grown(live: &PersistentVolumeClaim, desired: PersistentVolumeClaim) -> Option<PersistentVolumeClaim> {
    let size = |claim: &PersistentVolumeClaim| {
        claim.spec.as_ref()?.resources.as_ref()?.requests.as_ref()?.get("storage").cloned()
    };
    let (is, wanted) = (size(live)?, size(&desired)?);
    if live.metadata.deletion_timestamp.is_some() || !Amount::parse(&wanted.0)?.exceeds(Amount::parse(&is.0)?) {
        return None;
    }
    let mut claim = live.clone();
    let resources = claim.spec.get_or_insert_default().resources.get_or_insert_default();
    resources.requests.get_or_insert_default().insert("storage".into(), wanted);
    Some(claim)
}

/// Deletes the claims that do not outlive the session.
pub(super) fn removals(observed: &Observed) -> Vec<Write> {
    let going = observed.session.claimed_volumes().filter(|&volume| observed.session.deletes_claim(volume));
    let claims = going.filter_map(|volume| observed.claims.get(&volume)?.owned());
    let claims = claims.filter(|claim| claim.metadata.deletion_timestamp.is_none());
    claims.map(|claim| Write::delete(&**claim)).collect()
}

/// Whether claims that do not outlive the session may still exist.
pub(super) fn remaining(observed: &Observed) -> bool {
    let mut going = observed.session.claimed_volumes().filter(|&volume| observed.session.deletes_claim(volume));
    going.any(|volume| observed.claims.get(&volume).is_some_and(ChildState::may_be_there))
}

/// The first claim that the session uses by name and that does not exist.
pub(super) fn missing(observed: &Observed) -> Option<&str> {
    let (&volume, _) = observed.existing_claims.iter().find(|(_, claim)| **claim == Lookup::Missing)?;
    observed.session.existing_claim(volume)
}

/// The first claim that is being deleted. Kubernetes keeps it until the last Pod that uses it has ended.
fn terminating(observed: &Observed) -> Option<(SharedVolume, &PersistentVolumeClaim)> {
    let mut claims = observed.session.claimed_volumes().filter_map(|volume| Some((volume, &**observed.claim(volume)?)));
    claims.find(|(_, claim)| claim.metadata.deletion_timestamp.is_some())
}

/// What a claim that is being deleted means for the session.
pub(super) fn loss(observed: &Observed) -> Option<Failure> {
    let (volume, claim) = terminating(observed)?;
    let name = claim.metadata.name.as_deref().unwrap_or_default();
    let then = if observed.session.existing_claim(volume).is_some() {
        "then suspend the session, create the claim and resume the session"
    } else {
        "then suspend the session and resume it"
    };
    let message = format!(
        "The claim {name} is being deleted: its data is gone when the last Pod that uses it has ended. Copy what you need, {then}."
    );
    Some(Failure { reason: Reason::ClaimTerminating, message })
}

/// The claim of one of the session's own volumes and its storage class, as a sentence.
pub(super) fn storage_in_words(observed: &Observed, volume: &str) -> Option<String> {
    let volume = SharedVolume::ALL.into_iter().find(|known| <&str>::from(known) == volume)?;
    let spec = observed.claim(volume).and_then(|claim| claim.spec.as_ref());
    let name = observed.session.claim_name(volume);
    // The API server has written the default class into a claim that names none.
    let class = spec.and_then(|spec| spec.storage_class_name.as_deref()).filter(|class| !class.is_empty());
    let of_no_class = spec.and_then(|spec| spec.volume_name.as_deref());
    let folder = observed.session.folder(volume);
    let folder = folder.map(|folder| format!("The volume is the folder {folder} of the claim. ")).unwrap_or_default();
    let claim = match (class, of_no_class) {
        (Some(class), _) => format!("The claim {name} is of the storage class {class}."),
        (None, Some(bound_to)) => format!("The claim {name} is bound to the PersistentVolume {bound_to}."),
        (None, None) => format!("The claim is {name}."),
    };
    Some(format!("{folder}{claim}"))
}

/// What is added to the message for volumes that are filled, if the size of one has no effect.
pub(super) fn size_without_effect(observed: &Observed) -> Option<String> {
    let volume = observed.session.without_own_size()?;
    Some(format!(
        " spec.volumes.{volume}.size has no effect: the volumes are folders of one claim, which has the size of data."
    ))
}

/// When existing claims have to be read again. The operator does not watch them.
pub(super) fn next_read(observed: &Observed) -> Option<Duration> {
    (!observed.existing_claims.is_empty()).then_some(EXISTING_POLL)
}

/// The interval at which existing claims are read.
const EXISTING_POLL: Duration = Duration::from_secs(60);

/// The message for claims with a problem: an expansion that failed, a lost volume, or claims that are not bound yet. The message does not
/// name the claims that are not bound: they are bound one after the other, and each would change the message.
pub(super) fn unbound(observed: &Observed) -> Option<String> {
    if let Some(failure) = &observed.write_error {
        return Some(format!("A claim cannot be expanded: {}", failure.message));
    }
    let phase = |volume| observed.claim(volume)?.status.as_ref()?.phase.as_deref();
    if let Some(lost) = observed.session.claimed_volumes().find(|&volume| phase(volume) == Some("Lost")) {
        return Some(format!("The claim {} has lost its volume.", observed.session.claim_name(lost)));
    }
    let waits = observed.session.claimed_volumes().any(|volume| phase(volume) != Some("Bound"));
    let how = if observed.session.is_single() {
        "The claim gets its volume when the first Pod needs it."
    } else {
        "The claims get their volumes when the first Pod needs them."
    };
    waits.then(|| how.to_string())
}

fn claim(observed: &Observed, volume: SharedVolume) -> PersistentVolumeClaim {
    let session = &observed.session;
    let spec = session.volume(volume);
    let modes: Vec<String> = match spec.access_modes.as_slice() {
        [] => vec![AccessMode::ReadWriteOnce.to_string()],
        modes => modes.iter().map(ToString::to_string).collect(),
    };
    let size = spec.size.clone().unwrap_or_else(|| Quantity("1Gi".into()));
    let labels = session.labels(Component::Volume);
    let mut metadata = ownership::child_meta(session, session.claim_name(volume), labels);
    if !session.deletes_claim(volume) {
        metadata.owner_references = None;
    }
    if session.is_single() {
        metadata.annotations.get_or_insert_default().insert(meta::LAYOUT.into(), VolumeLayout::Single.to_string());
    }
    PersistentVolumeClaim {
        metadata,
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
