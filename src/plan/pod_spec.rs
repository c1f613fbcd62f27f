//! The common parts of sandbox Pods and stage Pods.
//!
//! Decided in docs/adr/0005-shared-group.md.

use std::collections::BTreeMap;

use super::{Settings, effective::EffectiveSession, volumes::SharedVolume};
use k8s_openapi::{
    api::core::v1::{
        Affinity, Capabilities, Container, PersistentVolumeClaimVolumeSource, PodAffinity, PodAffinityTerm,
        PodSecurityContext, PodSpec, SeccompProfile, SecurityContext, Volume,
    },
    apimachinery::pkg::apis::meta::v1::LabelSelector,
};

/// The user and the group of the stage Pod, and a supplementary group of every sandbox. Every sandbox can therefore write the files that
/// staging wrote, whichever user its image runs as.
pub const SHARED_GROUP: i64 = 65532;

/// The termination grace period in seconds. A sandbox has nothing to save: its data is on the volumes.
pub const GRACE_SECONDS: i64 = 5;

/// The common spec of sandbox Pods and stage Pods. The Pod is not restarted when its container ends, has no credentials, shares a group
/// for the volumes, and runs on the session's node if a claim can only be mounted on one node.
pub fn base_spec(session: Option<&EffectiveSession>) -> PodSpec {
    PodSpec {
        restart_policy: Some("Never".into()),
        termination_grace_period_seconds: Some(GRACE_SECONDS),
        automount_service_account_token: Some(false),
        enable_service_links: Some(false),
        security_context: Some(PodSecurityContext {
            fs_group: Some(SHARED_GROUP),
            fs_group_change_policy: Some("OnRootMismatch".into()),
            seccomp_profile: Some(SeccompProfile { type_: "RuntimeDefault".into(), ..SeccompProfile::default() }),
            ..PodSecurityContext::default()
        }),
        affinity: session.filter(|session| session.is_on_one_node()).map(same_node),
        ..PodSpec::default()
    }
}

fn same_node(session: &EffectiveSession) -> Affinity {
    Affinity {
        pod_affinity: Some(PodAffinity {
            required_during_scheduling_ignored_during_execution: Some(vec![PodAffinityTerm {
                topology_key: "kubernetes.io/hostname".into(),
                label_selector: Some(LabelSelector {
                    match_labels: Some(session.members()),
                    ..LabelSelector::default()
                }),
                ..PodAffinityTerm::default()
            }]),
            ..PodAffinity::default()
        }),
        ..Affinity::default()
    }
}

/// The Pod volume for one of the session's claims.
pub fn claim_volume(session: &EffectiveSession, volume: SharedVolume, read_only: bool) -> Volume {
    Volume {
        name: volume.to_string(),
        persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
            claim_name: session.claim_name(volume),
            read_only: read_only.then_some(true),
        }),
        ..Volume::default()
    }
}

/// Lays the volumes of a finished Pod out on the claims of the session. The Pod was built, and its template was laid over it, as if each
/// volume had a claim. If they are folders of one claim, only the volume of that claim stays, and each mount of one of the three becomes a
/// mount of its folder, also in the containers of the user. So nothing mounts the root of the claim.
///
/// The kubelet creates a missing folder with the mode, the setgid bit and the group of the root, as it has prepared them by `fsGroup`.
pub fn lay_out(spec: &mut PodSpec, session: &EffectiveSession) {
    if !session.is_single() {
        return;
    }
    let shared = |name: &str| SharedVolume::ALL.into_iter().find(|volume| <&str>::from(volume) == name);
    let (data, mut read_only) = (SharedVolume::Data, BTreeMap::new());
    spec.volumes.get_or_insert_default().retain_mut(|volume| {
        let Some(of) = shared(&volume.name) else { return true };
        let is_first = read_only.is_empty();
        read_only.insert(of, volume.persistent_volume_claim.as_ref().and_then(|claim| claim.read_only));
        *volume = claim_volume(session, data, false);
        is_first
    });
    let containers = spec.init_containers.iter_mut().flatten().chain(&mut spec.containers);
    for mount in containers.flat_map(|container| container.volume_mounts.iter_mut().flatten()) {
        let Some(volume) = shared(&mount.name) else { continue };
        let below = |path: &String| format!("{volume}/{}", path.trim_start_matches('/'));
        match (&mut mount.sub_path, &mut mount.sub_path_expr) {
            (_, Some(path)) | (Some(path), _) if !path.is_empty() => *path = below(path),
            (path, _) => *path = Some(volume.to_string()),
        }
        mount.name = data.to_string();
        mount.read_only = read_only.get(&volume).copied().flatten().or(mount.read_only);
    }
}

/// A container that runs the helper image, without any privileges.
pub fn helper_container(settings: &Settings) -> Container {
    Container {
        image: Some(settings.helper_image.clone()),
        image_pull_policy: Some("IfNotPresent".into()),
        resources: Some(settings.helper_resources.requirements()),
        security_context: Some(SecurityContext {
            allow_privilege_escalation: Some(false),
            capabilities: Some(Capabilities { drop: Some(vec!["ALL".into()]), add: None }),
            read_only_root_filesystem: Some(true),
            run_as_group: Some(SHARED_GROUP),
            run_as_non_root: Some(true),
            run_as_user: Some(SHARED_GROUP),
            ..SecurityContext::default()
        }),
        ..Container::default()
    }
}
