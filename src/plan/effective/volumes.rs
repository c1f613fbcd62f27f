//! The three volumes of a session, and their claims.
//!
//! Decided in docs/adr/0022-three-folders-of-one-claim.md.

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::ResourceExt;

use super::EffectiveSession;
use crate::{
    api::{
        AigiseSession, meta,
        session::{AccessMode, Reclaim, VolumeLayout, VolumeSpec, Volumes},
    },
    plan::{Invalid, Lookup, name, volumes::SharedVolume},
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

/// How the volumes of a session are laid out on claims, given the claims with the operator's label by their names. A session that does
/// not say it keeps the layout that its status has recorded; before the first status, that of the claims that are there already. Only
/// without either, the default counts, as far as the session's volumes can be laid out like that.
pub fn layout(
    session: &AigiseSession,
    claim: impl Fn(&str) -> Lookup<PersistentVolumeClaim>,
    default: VolumeLayout,
) -> VolumeLayout {
    let volumes = session.spec.volumes.as_ref();
    if let Some(layout) = volumes.and_then(|volumes| volumes.layout) {
        return layout;
    }
    if let Some(said) = session.status.as_ref().and_then(|status| status.volumes.as_ref()) {
        return said.layout.unwrap_or_default();
    }
    let claim = |volume: SharedVolume| {
        claim(&name::child(&session.name_any(), volume)).child_state(&session.metadata).owned().cloned()
    };
    if let Some(claim) = claim(SharedVolume::Data) {
        let is_single =
            claim.annotations().get(meta::LAYOUT).is_some_and(|layout| *layout == VolumeLayout::Single.to_string());
        return if is_single { VolumeLayout::Single } else { VolumeLayout::Separate };
    }
    let has_other = [SharedVolume::Scripts, SharedVolume::Tools].into_iter().any(|volume| claim(volume).is_some());
    if has_other || volumes.is_some_and(|volumes| excluded_by_single(volumes).next().is_some()) {
        return VolumeLayout::Separate;
    }
    default
}

/// The fields that a session with one claim cannot have.
fn excluded_by_single(volumes: &Volumes) -> impl Iterator<Item = (SharedVolume, &'static str)> {
    let folders = [(SharedVolume::Scripts, &volumes.scripts), (SharedVolume::Tools, &volumes.tools)];
    let fields = folders
        .into_iter()
        .flat_map(|(volume, spec)| spec.iter().flat_map(VolumeSpec::claim_fields).map(move |field| (volume, field)));
    let existing = volumes.data.as_ref().is_some_and(|data| data.claim_name.is_some());
    fields.chain(existing.then_some((SharedVolume::Data, "claimName")))
}

/// Checks that a session with one claim asks for nothing that requires three. Admission refuses this where the session itself names the
/// layout. A size that was added later could not be removed again, since admission only lets sizes grow: it has no effect instead.
pub(super) fn check(session: &EffectiveSession) -> Result<(), Invalid> {
    let volumes = session.spec().volumes.as_ref().filter(|_| session.is_single());
    let mut excluded = volumes.into_iter().flat_map(excluded_by_single).filter(|(_, field)| *field != "size");
    match excluded.next() {
        None => Ok(()),
        Some((volume, field)) => {
            let why = format!(
                "the volumes of this session are folders of one claim (layout Single), which data configures; so remove {field}, or create a session with layout Separate."
            );
            Err(Invalid::new(format_args!("spec.volumes.{volume}.{field}"), why))
        }
    }
}

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

    /// Whether the volumes are folders of one claim.
    pub fn is_single(&self) -> bool {
        self.layout == VolumeLayout::Single
    }

    /// The first volume whose size has no effect, because it is a folder of the claim of another one.
    pub fn without_own_size(&self) -> Option<SharedVolume> {
        let is_folder = |volume| self.on_claim_of(volume) != volume;
        SharedVolume::ALL.into_iter().find(|&volume| is_folder(volume) && self.volume(volume).size.is_some())
    }

    /// The volume that has the claim on which a volume is.
    pub fn on_claim_of(&self, volume: SharedVolume) -> SharedVolume {
        if self.is_single() { SharedVolume::Data } else { volume }
    }

    /// The folder of its claim that holds a volume; `None` if that is the whole claim.
    pub fn folder(&self, volume: SharedVolume) -> Option<String> {
        self.is_single().then(|| volume.to_string())
    }

    /// The volumes that have a claim.
    pub fn claimed_volumes(&self) -> impl Iterator<Item = SharedVolume> {
        SharedVolume::ALL.into_iter().filter(|&volume| self.on_claim_of(volume) == volume)
    }

    /// The existing claim that the session uses for a volume.
    pub fn existing_claim(&self, volume: SharedVolume) -> Option<&str> {
        self.volume(volume).claim_name.as_deref()
    }

    /// The name of a volume's claim.
    pub fn claim_name(&self, volume: SharedVolume) -> String {
        let own = || name::child(&self.name_any(), self.on_claim_of(volume));
        self.existing_claim(volume).map_or_else(own, String::from)
    }

    /// Whether a volume's claim is deleted with the session.
    pub fn deletes_claim(&self, volume: SharedVolume) -> bool {
        self.existing_claim(volume).is_none()
            && self.cleans_up()
            && self.volume(volume).reclaim.unwrap_or_default() == Reclaim::Delete
    }

    /// Whether all Pods of the session have to run on one node, because of a claim that cannot be mounted on several.
    pub fn is_on_one_node(&self) -> bool {
        let mut volumes = self.claimed_volumes().map(|volume| self.volume(volume));
        volumes.any(|volume| !volume.access_modes.contains(&AccessMode::ReadWriteMany))
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, sync::Arc};

    use serde_json::{Value, json};

    use super::*;
    use crate::plan::{Settings, effective::Decided};

    fn session(volumes: &Value, status: &Value) -> AigiseSession {
        let session = json!({
            "metadata": {"name": "demo", "uid": "u"},
            "spec": {"sandboxes": {"main": {"image": "a"}}, "volumes": volumes},
            "status": {"volumes": status},
        });
        serde_json::from_value(session).unwrap()
    }

    /// A claim of the session, or of an earlier one with its name.
    fn claim(name: &str, annotation: Option<&str>, session_uid: &str) -> (String, PersistentVolumeClaim) {
        let annotations: BTreeMap<_, _> = annotation.map(|layout| (meta::LAYOUT, layout)).into_iter().collect();
        let labels = json!({meta::SESSION_UID: session_uid, meta::MANAGED_BY: meta::MANAGER});
        let metadata = json!({"name": name, "labels": labels, "annotations": annotations});
        (name.to_string(), serde_json::from_value(json!({"metadata": metadata})).unwrap())
    }

    #[test]
    fn the_layout_of_a_session_is_that_of_its_claims_and_never_changes() {
        use VolumeLayout::{Separate, Single};
        let (nothing, none) = (json!({}), Value::Null);
        let of = |volumes: &Value, status: &Value, claims: Vec<(String, PersistentVolumeClaim)>, default| {
            let claims: BTreeMap<_, _> = claims.into_iter().collect();
            let claim =
                |name: &str| claims.get(name).map_or(Lookup::Missing, |claim| Lookup::Found(Arc::new(claim.clone())));
            layout(&session(volumes, status), claim, default)
        };
        for (default, other) in [(Separate, Single), (Single, Separate)] {
            assert_eq!(of(&nothing, &none, vec![], default), default);
            let named = json!({"layout": other});
            assert_eq!(of(&named, &none, vec![], default), other, "the session names it");
            let data = |layout| vec![claim("demo--data", layout, "u")];
            assert_eq!(of(&nothing, &none, data(None), default), Separate, "a claim of an earlier version");
            assert_eq!(of(&nothing, &none, data(Some("Single")), default), Single);
            assert_eq!(of(&nothing, &none, vec![claim("demo--tools", None, "u")], default), Separate);
            let others = vec![claim("demo--data", Some("Single"), "x"), claim("demo--tools", None, "x")];
            assert_eq!(of(&nothing, &none, others, default), default, "claims of an earlier session");
            // The claims are gone, or somebody has changed them.
            let (recorded, unrecorded) = (json!({"layout": "Single"}), json!({}));
            for claims in [vec![], data(None), data(Some("Single"))] {
                assert_eq!(of(&nothing, &recorded, claims.clone(), default), Single);
                assert_eq!(of(&nothing, &unrecorded, claims, default), Separate);
            }
        }
        for volumes in [
            json!({"data": {"claimName": "c"}}),
            json!({"scripts": {"reclaim": "Retain"}}),
            json!({"tools": {"accessModes": ["ReadWriteMany"]}}),
            json!({"tools": {"size": "2Gi"}}),
        ] {
            assert_eq!(of(&volumes, &none, vec![], Single), Separate, "{volumes}");
        }
        let volumes = json!({"data": {"size": "2Gi"}, "tools": {"sources": [{"configMap": {"name": "a"}}]}});
        assert_eq!(of(&volumes, &none, vec![], Single), Single);
    }

    #[test]
    fn one_claim_is_configured_by_data_alone() {
        let invalid = |volumes| {
            let session = EffectiveSession::from(Arc::new(session(&volumes, &Value::Null)));
            let decided = Decided::of(&session.laid_out(VolumeLayout::Single), &Settings::example());
            decided.invalid().map(ToString::to_string)
        };
        assert_eq!(invalid(json!({"data": {"size": "2Gi", "reclaim": "Retain"}, "tools": {"sources": []}})), None);
        assert_eq!(invalid(json!({"tools": {"size": "2Gi"}})), None, "it cannot be removed again");
        for (volumes, path) in [
            (json!({"tools": {"size": "2Gi", "reclaim": "Retain"}}), "spec.volumes.tools.reclaim: "),
            (json!({"scripts": {"claimName": "c"}}), "spec.volumes.scripts.claimName: "),
            (json!({"data": {"claimName": "c"}}), "spec.volumes.data.claimName: "),
        ] {
            let message = invalid(volumes).unwrap();
            assert!(message.starts_with(path), "{message}");
        }
    }
}
