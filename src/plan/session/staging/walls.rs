//! The isolation of the stage Pod: the same that the session's defaults give every sandbox. A container source runs an untrusted image,
//! as a sandbox does. The same holds for the groups that storage of other owners admits: what sandboxes may write, staging may write.

use k8s_openapi::{
    DeepMerge,
    api::core::v1::{Affinity, PodSecurityContext, PodSpec},
};

use crate::plan::effective::EffectiveSession;

/// Whether a profile of seccomp or `AppArmor` restricts the container. A debugger needs `Unconfined`, but a source does not debug.
pub(super) fn is_wall(profile: &str) -> bool {
    profile != "Unconfined"
}

/// The part of `sandboxDefaults.podTemplate` that concerns scheduling, isolation, image pulls and access to the volumes.
pub(super) fn of(session: &EffectiveSession) -> PodSpec {
    let template = session.default_pod_template();
    let spec = template.and_then(|template| serde_json::from_value(template.get("spec")?.clone()).ok());
    // A template that cannot be parsed makes the session invalid, so it is ignored here.
    let spec: PodSpec = spec.unwrap_or_default();
    let node_affinity = spec.affinity.and_then(|affinity| affinity.node_affinity);
    let security = spec.security_context.map(|context| PodSecurityContext {
        app_armor_profile: context.app_armor_profile.filter(|profile| is_wall(&profile.type_)),
        se_linux_options: context.se_linux_options,
        seccomp_profile: context.seccomp_profile.filter(|profile| is_wall(&profile.type_)),
        supplemental_groups: context.supplemental_groups,
        ..PodSecurityContext::default()
    });
    PodSpec {
        affinity: node_affinity.map(|wanted| Affinity { node_affinity: Some(wanted), ..Affinity::default() }),
        host_users: spec.host_users,
        image_pull_secrets: spec.image_pull_secrets,
        node_selector: spec.node_selector,
        runtime_class_name: spec.runtime_class_name,
        security_context: security.filter(|context| *context != PodSecurityContext::default()),
        tolerations: spec.tolerations,
        ..PodSpec::default()
    }
}

/// Adds the isolation to the spec of the Pod.
pub(in crate::plan::session) fn around(mut pod: PodSpec, session: &EffectiveSession) -> PodSpec {
    pod.merge_from(of(session));
    pod
}
