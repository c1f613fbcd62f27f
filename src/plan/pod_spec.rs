//! The common parts of sandbox Pods and stage Pods.
//!
//! Decided in docs/adr/0005-shared-group.md.

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
