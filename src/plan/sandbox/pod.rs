//! The Pod of a sandbox, whole.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Container, EmptyDirVolumeSource, EnvVar, ImageVolumeSource, PersistentVolumeClaimVolumeSource, Pod, PodSpec,
    Volume, VolumeMount,
};
use kube::ResourceExt;

use super::{
    Observed,
    gate::{self, STATE_VOLUME, WORK_VOLUME},
    pod_template, restart,
};
use crate::{
    api::{
        SandboxTemplate,
        meta::{self, Component},
        template::Entrypoint,
    },
    plan::{
        HelperMount, Settings, digest,
        name::{self, Label},
        ownership,
        pod_spec::{base_spec, claim_volume, helper_container},
        volumes::SharedVolume,
    },
};

/// The volume that holds `sandboxd`.
pub(super) const HELPER_VOLUME: &str = "aigise-helper";

/// The init container that fills it where the cluster cannot mount an image.
pub(super) const HELPER_INSTALLER: &str = "install-helper";

/// The names of the volumes that every sandbox of a session has.
pub(super) const VOLUMES: [&str; 6] = ["scripts", "data", "tools", HELPER_VOLUME, WORK_VOLUME, STATE_VOLUME];
/// Where they are.
pub(super) const MOUNT_PATHS: [&str; 5] =
    ["/sandbox_scripts", "/shared", "/bash_tools", meta::HELPER_PATH, crate::gate::FOLDER];

/// The sandbox's Pod.
///
/// # Errors
/// When its podTemplate does not fit: a sentence that names the field.
pub fn pod(observed: &Observed, label: &Label) -> Result<Pod, String> {
    let sandbox = &*observed.sandbox;
    let session = observed.session.found().map(|session| &**session);
    let mut labels = ownership::labels(session, Component::Sandbox);
    labels.insert(meta::SANDBOX_TYPE.into(), sandbox.spec.sandbox_type.clone());
    let mut metadata = ownership::child_meta(sandbox, sandbox.name_any(), labels);
    let gate = gate::annotations(observed);
    let gate_volumes = (!gate.is_empty()).then(gate::volumes).into_iter().flatten();
    metadata.annotations = Some(annotations(observed).chain(gate).collect());

    let (helper_volume, helper_installer) = helper(&observed.settings);
    let shared = session.into_iter().flat_map(|session| {
        SharedVolume::ALL.map(|volume| claim_volume(session, volume, volume == SharedVolume::Scripts))
    });
    let own = sandbox.spec.volumes.iter().map(|volume| Volume {
        name: volume.name.clone(),
        persistent_volume_claim: Some(PersistentVolumeClaimVolumeSource {
            claim_name: volume.claim_name.clone(),
            read_only: volume.read_only,
        }),
        ..Volume::default()
    });
    let pod = Pod {
        metadata,
        spec: Some(PodSpec {
            hostname: session.map(|_| label.to_string()),
            subdomain: session.map(ResourceExt::name_any),
            init_containers: helper_installer.map(|container| vec![container]),
            containers: vec![container(observed, &sandbox.spec.template)],
            volumes: Some(shared.chain(own).chain([helper_volume]).chain(gate_volumes).collect()),
            ..base_spec(session)
        }),
        status: None,
    };
    match &sandbox.spec.template.pod_template {
        Some(template) => pod_template::overlay(pod, template, observed.settings.allow_privileged_templates)
            .map_err(|message| format!("spec.{message}")),
        None => Ok(pod),
    }
}

fn annotations(observed: &Observed) -> impl Iterator<Item = (String, String)> {
    let restarts = restart::count(observed);
    let wish = |annotations: &BTreeMap<String, String>| annotations.get(meta::RESTART).cloned();
    [
        (meta::TEMPLATE_HASH, Some(template_hash(observed))),
        (meta::DEFAULT_CONTAINER, Some(meta::SANDBOX_CONTAINER.to_string())),
        (meta::RESTARTS, (restarts > 0).then(|| restarts.to_string())),
        (meta::RESTART, wish(observed.sandbox.annotations())),
        (meta::SESSION_RESTART, observed.session.found().and_then(|session| wish(session.annotations()))),
    ]
    .into_iter()
    .filter_map(|(key, value)| Some((key.to_string(), value?)))
}

fn container(observed: &Observed, template: &SandboxTemplate) -> Container {
    let shared = observed.session.found().into_iter().flat_map(|_| SharedVolume::ALL).map(|volume| VolumeMount {
        name: volume.to_string(),
        mount_path: volume.mount_path().into(),
        read_only: (volume == SharedVolume::Scripts).then_some(true),
        ..VolumeMount::default()
    });
    let own = observed.sandbox.spec.volumes.iter().map(|volume| VolumeMount {
        name: volume.name.clone(),
        mount_path: volume.mount_path.clone(),
        read_only: volume.read_only,
        ..VolumeMount::default()
    });
    let helper = VolumeMount {
        name: HELPER_VOLUME.into(),
        mount_path: meta::HELPER_PATH.into(),
        read_only: Some(true),
        ..VolumeMount::default()
    };
    let has_gate = gate::work(observed).is_some();
    let gate_mounts = has_gate.then(gate::mounts).into_iter().flatten();
    let command = match template.entrypoint() {
        _ if !template.command.is_empty() => Some(template.command.clone()),
        Entrypoint::Idle => Some(vec![format!("{}/sandboxd", meta::HELPER_PATH), "idle".into()]),
        Entrypoint::Image => None,
    };
    Container {
        name: meta::SANDBOX_CONTAINER.into(),
        image: template.image.clone(),
        command,
        env: Some(environment(observed).chain(template.env.iter().cloned()).collect()),
        env_from: (!template.env_from.is_empty()).then(|| template.env_from.clone()),
        ports: (!template.ports.is_empty()).then(|| template.ports.clone()),
        working_dir: template.working_dir.clone(),
        resources: template.resources.clone(),
        readiness_probe: if has_gate {
            Some(gate::readiness_probe(template))
        } else {
            template.readiness_probe.clone()
        },
        startup_probe: has_gate.then(gate::startup_probe),
        security_context: template.security_context.clone(),
        volume_mounts: Some(shared.chain(own).chain([helper]).chain(gate_mounts).collect()),
        ..Container::default()
    }
}

/// What every container of a session finds in its environment, before the template's own variables, so that these can refer to
/// it as `$(AIGISE_MAIN_HOST)`.
fn environment(observed: &Observed) -> impl Iterator<Item = EnvVar> {
    let session = observed.session.found().map(|session| &**session);
    let variable = |name: String, value: String| EnvVar { name, value: Some(value), value_from: None };
    let own = [
        session.map(|session| variable("AIGISE_SESSION".into(), session.name_any())),
        Some(variable("AIGISE_SANDBOX_TYPE".into(), observed.sandbox.spec.sandbox_type.clone())),
    ];
    let hosts = session.into_iter().flat_map(move |session| {
        let types = session
            .spec
            .sandboxes
            .iter()
            .filter(|(_, sandbox)| sandbox.enabled != Some(false) && sandbox.template.attach.is_none());
        types.filter_map(move |(sandbox_type, _)| {
            let label = Label::of(sandbox_type).ok()?;
            let host = name::host(&label, &session.name_any(), &session.namespace().unwrap_or_default());
            Some(variable(label.host_variable(), host))
        })
    });
    own.into_iter().flatten().chain(hosts)
}

/// The volume that holds `sandboxd`, and what fills it where the cluster cannot mount an image.
fn helper(settings: &Settings) -> (Volume, Option<Container>) {
    let volume = Volume { name: HELPER_VOLUME.into(), ..Volume::default() };
    match settings.helper_mount {
        HelperMount::Image => {
            let image = ImageVolumeSource {
                reference: Some(settings.helper_image.clone()),
                pull_policy: Some("IfNotPresent".into()),
            };
            (Volume { image: Some(image), ..volume }, None)
        }
        HelperMount::Copy => {
            let installer = Container {
                name: HELPER_INSTALLER.into(),
                command: Some(vec!["/sandboxd".into(), "install".into(), meta::HELPER_PATH.into()]),
                volume_mounts: Some(vec![VolumeMount {
                    name: HELPER_VOLUME.into(),
                    mount_path: meta::HELPER_PATH.into(),
                    ..VolumeMount::default()
                }]),
                ..helper_container(settings)
            };
            (Volume { empty_dir: Some(EmptyDirVolumeSource::default()), ..volume }, Some(installer))
        }
    }
}

/// Names a template. It covers what the user wrote and what becomes of it in a Pod, and nothing that is derived: a new sibling,
/// another helper image or another restart policy makes no sandbox out of date. What a gate has to ask and to install besides its
/// steps stands in the session.
pub(super) fn template_hash(observed: &Observed) -> String {
    let spec = &observed.sandbox.spec;
    let of_the_pod = SandboxTemplate {
        restart: None,
        update_policy: None,
        depends_on: vec![],
        attach: None,
        ..spec.template.clone()
    };
    let work = gate::work(observed).unwrap_or_default();
    let of_the_session = (work.skills, work.services);
    match (spec.volumes.is_empty(), of_the_session == <_>::default()) {
        (true, true) => digest::short(&of_the_pod),
        (false, true) => digest::short(&(of_the_pod, &spec.volumes)),
        (_, false) => digest::short(&(of_the_pod, &spec.volumes, of_the_session)),
    }
}
