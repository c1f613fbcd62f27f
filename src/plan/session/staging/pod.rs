//! Builds the stage Pod.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::api::core::v1::{
    Capabilities, ConfigMapVolumeSource, Container, EmptyDirVolumeSource, EnvVar, ImageVolumeSource,
    PersistentVolumeClaimVolumeSource, Pod, PodSpec, SecurityContext, Volume, VolumeMount,
};

use super::{
    super::{ChildState, Observed, cache, sandboxes},
    own_volumes,
    sources::{manifest, mount_path},
    walls::{self, is_wall},
};
use crate::{
    api::{
        meta::{self, Component},
        session::{ClaimSource, ConfigMapSource, ContainerSource, ImageSource, SourceKind, VolumeSource},
    },
    plan::{
        HelperResources, Lookup, digest,
        effective::{EffectiveSession, sources::sources},
        facts::restart_request,
        name::Label,
        ownership,
        pod_resources::PodResources,
        pod_spec::{base_spec, claim_volume, helper_container, lay_out},
        sandbox,
        volumes::SharedVolume,
    },
    protocol::staging,
};

/// The path at which a container source writes its files.
const CONTAINER_VOLUME: &str = "/volume";

pub(super) fn stage_pod(observed: &Observed) -> Pod {
    let session = &observed.session;
    let mut manifest = manifest(observed);
    // What was restored from a cache is there already.
    let is_restored = cache::holds_sources(observed, &manifest.digest);
    for volume in
        manifest.volumes.iter_mut().filter(|volume| is_restored && volume.name != SharedVolume::Scripts.to_string())
    {
        volume.sources.clear();
        let is_tools = volume.name == SharedVolume::Tools.to_string();
        volume.restored = Some(if is_tools { cache::restored_roots(observed) } else { vec![] });
    }
    let mut metadata =
        ownership::child_meta(session, Observed::stage_pod_name(session), session.labels(Component::Stage));
    let mut annotations = BTreeMap::from([
        (meta::SOURCES_DIGEST.to_string(), manifest.digest.clone()),
        (meta::SOURCES_LIST.to_string(), super::sources::list(session)),
        (meta::STAGE_HASH.to_string(), hash(observed)),
        (meta::DEFAULT_CONTAINER.to_string(), meta::STAGE_CONTAINER.to_string()),
    ]);
    annotations.extend(restart_request(session).map(|value| (meta::SESSION_RESTART.to_string(), value.to_string())));
    annotations.extend(super::request(session).map(|value| (meta::RESTAGE.to_string(), value.to_string())));
    metadata.annotations = Some(annotations);

    let claims = own_volumes(session).map(|volume| claim_volume(session, volume, false));
    let sources = || sources(session).filter(|(_, volume, ..)| !is_restored || *volume == SharedVolume::Scripts);
    let sources_volumes = sources().map(|(name, _, _, source)| source_volume(name, source));
    let runs = sources().filter_map(|(name, _, _, source)| match source.kind() {
        SourceKind::Container(container) => Some(source_container(session, name, container)),
        _ => None, // nothing runs for the other kinds
    });
    let runs: Vec<_> = runs.collect();
    let mut spec = PodSpec {
        init_containers: (!runs.is_empty()).then_some(runs),
        containers: vec![Container {
            name: meta::STAGE_CONTAINER.into(),
            command: Some(vec!["/sandboxd".into(), "stage".into()]),
            env: Some(vec![EnvVar {
                name: staging::MANIFEST_ENV.into(),
                // The kubelet expands `$(NAME)` in values; `$$` is a plain dollar.
                value: serde_json::to_string(&manifest).ok().map(|json| json.replace('$', "$$")),
                value_from: None,
            }]),
            volume_mounts: Some(mounts(session, sources().map(|(name, ..)| name))),
            ..with_requests_of_all(helper_container(&observed.settings), observed)
        }],
        volumes: Some(claims.chain(sources_volumes).collect()),
        ..walls::around(base_spec(Some(session)), session)
    };
    lay_out(&mut spec, session);
    Pod { metadata, spec: Some(spec), status: None }
}

/// The hash of everything that determines the Pod, except its sources. Default walls and resources are left out.
pub(super) fn hash(observed: &Observed) -> String {
    let (image, requests) = (&observed.settings.helper_image, requests(observed));
    let (walls, own) = (walls::of(&observed.session), &observed.settings.helper_resources);
    match (walls == PodSpec::default(), *own == HelperResources::default()) {
        (true, true) => digest::short(&(image, requests)),
        (false, true) => digest::short(&(image, requests, walls)),
        (_, false) => digest::short(&(image, requests, walls, own)),
    }
}

/// The resource requests of the Sandboxes that do not exist yet, if they have to run on the stage Pod's node. An existing Sandbox has its
/// own Pod with its own requests; a Sandbox that attaches to a Pod requests nothing.
fn requests(observed: &Observed) -> PodResources {
    if !requests_resources(&observed.session) {
        return PodResources::default();
    }
    pods_to_come(observed).map(|(_, pod)| PodResources::of_pod(&pod)).sum()
}

/// The Pods of the Sandboxes that do not exist yet, with the labels of their types. A Sandbox that attaches to a Pod has none.
pub(super) fn pods_to_come(observed: &Observed) -> impl Iterator<Item = (Label, PodSpec)> {
    let session = &observed.session;
    let to_come = sandboxes::wanted(observed).filter(|wanted| wanted.child.owned().is_none());
    to_come.filter_map(move |wanted| {
        let sandbox = sandboxes::sandbox(observed, &wanted).filter(|sandbox| sandbox.spec.template.attach.is_none())?;
        let sandbox = sandbox::Observed {
            sandbox: Arc::new(sandbox),
            session: Lookup::Found(Arc::new(session.clone())),
            siblings: vec![],
            pod: ChildState::Absent,
            attached: Lookup::NotNamed,
            agent: None,
            events: vec![],
            exec_access: None,
            settings: observed.settings.clone(),
            on_their_way: 1,
            now: observed.now,
        };
        let pod = sandbox::pod(&sandbox, &wanted.label).ok()?.spec?;
        Some((wanted.label, pod))
    })
}

/// Whether all Pods of the session have to run on the stage Pod's node, so the stage Pod includes their resource requests.
pub(super) fn requests_resources(session: &EffectiveSession) -> bool {
    session.is_on_one_node()
}

/// The container with the requests of all Sandboxes that have to run on its node.
pub(in crate::plan::session) fn with_requests_of_all(container: Container, observed: &Observed) -> Container {
    with_requests(container, &requests(observed))
}

fn with_requests(container: Container, requests: &PodResources) -> Container {
    let own = container.resources.unwrap_or_default();
    Container { resources: Some(requests.requirements(&own)), ..container }
}

/// The mounts of the claims and, read-only, of all sources.
fn mounts(session: &EffectiveSession, sources: impl Iterator<Item = String>) -> Vec<VolumeMount> {
    let claims = own_volumes(session).map(|volume| VolumeMount {
        name: volume.to_string(),
        mount_path: meta::stage_volume_path(&volume.to_string()),
        ..VolumeMount::default()
    });
    let sources = sources.map(|name| VolumeMount {
        mount_path: mount_path(&name),
        name,
        read_only: Some(true),
        ..VolumeMount::default()
    });
    claims.chain(sources).collect()
}

fn source_volume(name: String, source: &VolumeSource) -> Volume {
    let volume = Volume { name, ..Volume::default() };
    match source.kind() {
        SourceKind::ConfigMap(ConfigMapSource { name }) => {
            let config_map = ConfigMapVolumeSource { name: name.clone(), ..ConfigMapVolumeSource::default() };
            Volume { config_map: Some(config_map), ..volume }
        }
        SourceKind::PersistentVolumeClaim(ClaimSource { claim_name, path: _ }) => {
            let claim = PersistentVolumeClaimVolumeSource { claim_name: claim_name.clone(), read_only: Some(true) };
            Volume { persistent_volume_claim: Some(claim), ..volume }
        }
        SourceKind::Image(ImageSource { reference, pull_policy, path: _ }) => {
            let image = ImageVolumeSource {
                reference: Some(reference.clone()),
                pull_policy: pull_policy.map(|policy| policy.to_string()),
            };
            Volume { image: Some(image), ..volume }
        }
        SourceKind::Container(_) => Volume { empty_dir: Some(EmptyDirVolumeSource::default()), ..volume },
        SourceKind::Empty => volume,
    }
}

/// The container of a container source. It runs as the image's own user, unless the source specifies another one, and has only the image
/// and a folder to write to. If it fails, the end of its log becomes the termination message.
fn source_container(session: &EffectiveSession, name: String, source: &ContainerSource) -> Container {
    let session_name =
        EnvVar { name: "AIGISE_SESSION".into(), value: session.metadata().name.clone(), value_from: None };
    Container {
        image: Some(source.image.clone()),
        command: Some(source.command.clone()),
        env: Some([vec![session_name], source.env.clone()].concat()),
        working_dir: source.working_dir.clone(),
        resources: source.resources.clone(),
        volume_mounts: Some(vec![VolumeMount {
            name: name.clone(),
            mount_path: CONTAINER_VOLUME.into(),
            ..VolumeMount::default()
        }]),
        security_context: Some(confined(source.security_context.clone().unwrap_or_default(), session)),
        termination_message_policy: Some("FallbackToLogsOnError".into()),
        name,
        ..Container::default()
    }
}

/// The security context of a container source. What the source does not specify gets restrictive defaults, and the profiles of the
/// session's `sandboxDefaults`.
fn confined(asked: SecurityContext, session: &EffectiveSession) -> SecurityContext {
    let defaults = session.default_security_context();
    let Capabilities { add, drop } = asked.capabilities.unwrap_or_default();
    SecurityContext {
        allow_privilege_escalation: asked.allow_privilege_escalation.or(Some(false)),
        app_armor_profile: asked.app_armor_profile.or(defaults.app_armor_profile.filter(|it| is_wall(&it.type_))),
        capabilities: Some(Capabilities { add, drop: drop.or(Some(vec!["ALL".into()])) }),
        seccomp_profile: asked.seccomp_profile.or(defaults.seccomp_profile.filter(|it| is_wall(&it.type_))),
        ..asked
    }
}
