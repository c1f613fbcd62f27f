//! The Pod of a sandbox, whole.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Container, EmptyDirVolumeSource, EnvVar, ImageVolumeSource, Pod, PodSpec, Volume, VolumeMount,
};
use kube::ResourceExt;

use super::Observed;
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

const HELPER_VOLUME: &str = "aigise-helper";

/// The sandbox's Pod.
#[must_use]
pub fn pod(observed: &Observed, label: &Label, settings: &Settings) -> Pod {
    let sandbox = &*observed.sandbox;
    let session = observed.session.as_deref();
    let mut labels = ownership::labels(session, Component::Sandbox);
    labels.insert(meta::SANDBOX_TYPE.into(), sandbox.spec.sandbox_type.clone());
    let mut metadata = ownership::child_meta(sandbox, sandbox.name_any(), labels);
    metadata.annotations = Some(BTreeMap::from([
        (meta::TEMPLATE_HASH.into(), template_hash(&sandbox.spec.template)),
        (meta::DEFAULT_CONTAINER.into(), meta::SANDBOX_CONTAINER.into()),
    ]));

    let (helper_volume, helper_installer) = helper(settings);
    let volumes = session.into_iter().flat_map(|session| {
        SharedVolume::ALL.map(|volume| claim_volume(session, volume, volume == SharedVolume::Scripts))
    });
    Pod {
        metadata,
        spec: Some(PodSpec {
            hostname: session.map(|_| label.to_string()),
            subdomain: session.map(ResourceExt::name_any),
            init_containers: helper_installer.map(|container| vec![container]),
            containers: vec![container(observed, &sandbox.spec.template)],
            volumes: Some(volumes.chain([helper_volume]).collect()),
            ..base_spec(session)
        }),
        status: None,
    }
}

fn container(observed: &Observed, template: &SandboxTemplate) -> Container {
    let shared = observed.session.iter().flat_map(|_| SharedVolume::ALL);
    let mounts = shared.map(|volume| VolumeMount {
        name: volume.to_string(),
        mount_path: volume.mount_path().into(),
        read_only: (volume == SharedVolume::Scripts).then_some(true),
        ..VolumeMount::default()
    });
    let helper = VolumeMount {
        name: HELPER_VOLUME.into(),
        mount_path: meta::HELPER_PATH.into(),
        read_only: Some(true),
        ..VolumeMount::default()
    };
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
        ports: (!template.ports.is_empty()).then(|| template.ports.clone()),
        working_dir: template.working_dir.clone(),
        resources: template.resources.clone(),
        security_context: template.security_context.clone(),
        volume_mounts: Some(mounts.chain([helper]).collect()),
        ..Container::default()
    }
}

/// What every container of a session finds in its environment, before the template's own variables, so that these can refer to
/// it as `$(AIGISE_MAIN_HOST)`.
fn environment(observed: &Observed) -> impl Iterator<Item = EnvVar> {
    let session = observed.session.as_deref();
    let variable = |name: String, value: String| EnvVar { name, value: Some(value), value_from: None };
    let own = [
        session.map(|session| variable("AIGISE_SESSION".into(), session.name_any())),
        Some(variable("AIGISE_SANDBOX_TYPE".into(), observed.sandbox.spec.sandbox_type.clone())),
    ];
    let hosts = session.into_iter().flat_map(move |session| {
        session.spec.sandboxes.keys().filter_map(move |sandbox_type| {
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
                name: "install-helper".into(),
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

/// Names a template. It covers what the user wrote and nothing that is derived, so that a new sibling or another helper image
/// makes no sandbox out of date.
#[must_use]
pub fn template_hash(template: &SandboxTemplate) -> String {
    digest::short(template)
}
