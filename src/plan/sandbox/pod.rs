//! Builds the Pod of a sandbox.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::{
    Container, EmptyDirVolumeSource, EnvVar, EnvVarSource, ImageVolumeSource, KeyToPath,
    PersistentVolumeClaimVolumeSource, Pod, PodSpec, ResourceRequirements, SecretKeySelector, SecretVolumeSource,
    Volume, VolumeMount,
};
use k8s_openapi::apimachinery::pkg::api::resource::Quantity;
use kube::ResourceExt;

use super::{Observed, init, restart};
use crate::{
    api::{
        SandboxTemplate,
        config::KeyRef,
        meta::{self, Component},
        template::Entrypoint,
    },
    plan::{
        Below, HelperMount, Invalid, Settings, digest,
        effective::EffectiveSession,
        facts::{restart_request, session::secret_name},
        name::Label,
        ownership,
        pod_spec::{base_spec, claim_volume, helper_container, lay_out},
        quantity::Amount,
        reserved,
        template::{pod_template, probe},
        volumes::SharedVolume,
    },
};

/// Builds the sandbox's Pod.
///
/// # Errors
/// When the podTemplate does not fit.
pub fn pod(observed: &Observed, label: &Label) -> Result<Pod, Invalid> {
    let sandbox = &*observed.sandbox;
    let workload = observed.workload();
    let session = workload.session();
    let mut labels =
        session.map_or_else(|| ownership::labels(Component::Sandbox), |session| session.labels(Component::Sandbox));
    labels.insert(meta::SANDBOX_TYPE.into(), sandbox.spec.sandbox_type.clone());
    let mut metadata = ownership::child_meta(sandbox, sandbox.name_any(), labels);
    let init = init::annotations(observed);
    let has_init = !init.is_empty();
    let init_volumes = has_init.then(init::volumes).into_iter().flatten();
    metadata.annotations = Some(annotations(observed).chain(init).collect());

    let config = workload.runner_for().map(config_volume);
    let (helper_volume, helper_installer) = helper(&observed.settings);
    let has_services = init::work(observed).is_some_and(|work| !work.services.is_empty());
    let reporter = has_init.then(|| init::reporter(&observed.settings, has_services));
    let init_containers: Vec<_> = helper_installer.into_iter().chain(reporter).collect();
    let shared = workload.member_of().into_iter().flat_map(|session| {
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
            init_containers: Some(init_containers).filter(|containers| !containers.is_empty()),
            containers: vec![container(observed, &sandbox.spec.template)],
            volumes: Some(shared.chain(own).chain([helper_volume]).chain(config).chain(init_volumes).collect()),
            ..base_spec(workload.member_of())
        }),
        status: None,
    };
    let mut pod = match &sandbox.spec.template.pod_template {
        Some(template) => {
            pod_template::overlay(pod, &template.value(), observed.settings.allow_privileged_templates).below("spec")?
        }
        None => pod,
    };
    if let Some(spec) = &mut pod.spec {
        keep_guaranteed(spec, &observed.settings);
        if let Some(session) = workload.member_of() {
            lay_out(spec, session);
        }
    }
    // A template cannot request a token. This token is the agent's own, and grants exec access to the sandboxes of its session only.
    if let Some(spec) = pod.spec.as_mut().filter(|_| observed.may_exec()) {
        spec.service_account_name = Some(sandbox.name_any());
        spec.automount_service_account_token = Some(true);
    }
    Ok(pod)
}

/// Makes the requests of the operator's sidecar equal to its limits if those of all other containers are: otherwise the Pod would not have
/// the quality of service `Guaranteed`, on which exclusive CPUs depend.
fn keep_guaranteed(spec: &mut PodSpec, settings: &Settings) {
    let is_guaranteed = |container: &Container| {
        let of = |list: fn(&ResourceRequirements) -> &Option<BTreeMap<String, Quantity>>, resource: &str| {
            Amount::parse(&list(container.resources.as_ref()?).as_ref()?.get(resource)?.0)
        };
        ["cpu", "memory"].into_iter().all(|resource| {
            let limit = of(|resources| &resources.limits, resource);
            limit.is_some()
                && of(|resources| &resources.requests, resource).is_none_or(|request| Some(request) == limit)
        })
    };
    let (reporters, others): (Vec<_>, Vec<_>) = spec
        .init_containers
        .iter_mut()
        .flatten()
        .chain(&mut spec.containers)
        .partition(|container| container.name == reserved::INIT_REPORTER);
    if others.iter().all(|container| is_guaranteed(container)) {
        for reporter in reporters {
            reporter.resources = Some(settings.helper_resources.of_reporter(true).requirements());
        }
    }
}

/// The volume with the session's configuration file.
fn config_volume(session: &EffectiveSession) -> Volume {
    let file = KeyToPath { key: meta::CONFIG_FILE.into(), path: meta::CONFIG_FILE.into(), ..KeyToPath::default() };
    let secret = SecretVolumeSource {
        secret_name: Some(secret_name(session)),
        items: Some(vec![file]),
        ..SecretVolumeSource::default()
    };
    Volume { name: reserved::CONFIG_VOLUME.into(), secret: Some(secret), ..Volume::default() }
}

fn annotations(observed: &Observed) -> impl Iterator<Item = (String, String)> {
    let restarts = restart::count(observed);
    [
        (meta::TEMPLATE_HASH, Some(template_hash(observed))),
        (meta::DEFAULT_CONTAINER, Some(meta::SANDBOX_CONTAINER.to_string())),
        (meta::RESTARTS, (restarts > 0).then(|| restarts.to_string())),
        (meta::RESTART, restart_request(&*observed.sandbox).map(String::from)),
        (
            meta::SESSION_RESTART,
            observed.session.found().and_then(|session| restart_request(&**session)).map(String::from),
        ),
    ]
    .into_iter()
    .filter_map(|(key, value)| Some((key.to_string(), value?)))
}

fn container(observed: &Observed, template: &SandboxTemplate) -> Container {
    let workload = observed.workload();
    let config = workload.runner_for().map(|_| VolumeMount {
        name: reserved::CONFIG_VOLUME.into(),
        mount_path: meta::CONFIG_FOLDER.into(),
        read_only: Some(true),
        ..VolumeMount::default()
    });
    let shared = workload.member_of().into_iter().flat_map(|_| SharedVolume::ALL).map(|volume| VolumeMount {
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
    let work = init::work(observed);
    let (has_init, has_root) = (work.is_some(), work.is_some_and(|work| work.root.is_some()));
    let init_mounts = has_init.then(init::mounts).into_iter().flatten();
    let idle = || Some(vec![format!("{}/sandboxd", meta::HELPER_PATH), "idle".into()]);
    let (command, args) = match template.entrypoint() {
        _ if !template.command.is_empty() && has_root => {
            let run = [format!("{}/sandboxd", meta::HELPER_PATH), "run".into(), "--".into()];
            (Some(run.into_iter().chain(template.command.iter().cloned()).collect()), None)
        }
        _ if !template.command.is_empty() => (Some(template.command.clone()), None),
        Entrypoint::Idle => (idle(), None),
        Entrypoint::Image => (None, None),
        Entrypoint::ImageThenIdle => (None, idle()),
    };
    Container {
        name: meta::SANDBOX_CONTAINER.into(),
        image: template.image.clone(),
        command,
        args,
        env: Some(environment(observed).chain(git(observed)).chain(template.env.iter().cloned()).collect()),
        env_from: (!template.env_from.is_empty()).then(|| template.env_from.clone()),
        ports: (!template.ports.is_empty()).then(|| template.ports.clone()),
        working_dir: template.working_dir.clone(),
        resources: template.resources.clone(),
        readiness_probe: if has_init {
            Some(probe::readiness_probe(template))
        } else {
            template.readiness_probe.clone()
        },
        startup_probe: has_init.then(init::startup_probe),
        security_context: template.security_context.clone(),
        volume_mounts: Some(shared.chain(own).chain([helper_mount()]).chain(config).chain(init_mounts).collect()),
        ..Container::default()
    }
}

/// The environment variables of every container of a session. They precede the template's own variables, which can therefore refer to
/// them, for example as `$(AIGISE_MAIN_HOST)`.
fn environment(observed: &Observed) -> impl Iterator<Item = EnvVar> {
    let workload = observed.workload();
    let session = workload.session();
    let variable = |name: String, value: String| EnvVar { name, value: Some(value), value_from: None };
    let own = [
        session.map(|session| variable("AIGISE_SESSION".into(), session.name_any())),
        Some(variable("AIGISE_SANDBOX_TYPE".into(), observed.sandbox.spec.sandbox_type.clone())),
        observed.agent.as_ref().map(|agent| variable("AIGISE_AGENT".into(), agent.name_any())),
        workload
            .runner_for()
            .map(|_| variable("AIGISE_CONFIG".into(), format!("{}/{}", meta::CONFIG_FOLDER, meta::CONFIG_FILE))),
    ];
    let keys = workload.runner_for().into_iter().flat_map(model_keys);
    let hosts = session.into_iter().flat_map(move |session| {
        session.addressed_types().map(move |label| variable(label.host_variable(), session.host(&label)))
    });
    own.into_iter().flatten().chain(hosts).chain(keys)
}

/// Allow git to work in the repositories of the volumes. Their files belong to other users than that of the image: staged files to 65532,
/// other files to the user of the sandbox that wrote them. Variables of the template replace these ([ADR 0020](../../../docs/adr/0020-git-in-shared-volumes.md)).
fn git(observed: &Observed) -> impl Iterator<Item = EnvVar> {
    let spec = &observed.sandbox.spec;
    let mounts_claims = observed.workload().member_of().is_some() || !spec.volumes.is_empty();
    let of_system = [("GIT_CONFIG_SYSTEM", meta::GIT_CONFIG)];
    let counted = [("GIT_CONFIG_COUNT", "1"), ("GIT_CONFIG_KEY_0", "safe.directory"), ("GIT_CONFIG_VALUE_0", "*")];
    // What `envFrom` brings is unknown. Settings that are counted there would be hidden.
    let counted = counted.into_iter().filter(|_| spec.template.env_from.is_empty());
    of_system
        .into_iter()
        .chain(counted)
        .filter(move |(name, _)| mounts_claims && spec.template.env.iter().all(|own| own.name != *name))
        .map(|(name, value)| EnvVar { name: name.into(), value: Some(value.into()), value_from: None })
}

/// The keys of the session's models, for the Pod of an agent: `AIGISE_<MODEL>_API_KEY`.
fn model_keys(session: &EffectiveSession) -> impl Iterator<Item = EnvVar> {
    session.models().iter().filter_map(|(name, model)| {
        let KeyRef { name: secret, key } = model.api_key_secret_ref.clone()?;
        let word: String =
            name.chars().map(|c| if c.is_ascii_alphanumeric() { c.to_ascii_uppercase() } else { '_' }).collect();
        let selector = SecretKeySelector { name: secret, key, ..SecretKeySelector::default() };
        let source = EnvVarSource { secret_key_ref: Some(selector), ..EnvVarSource::default() };
        Some(EnvVar { name: format!("AIGISE_{word}_API_KEY"), value: None, value_from: Some(source) })
    })
}

/// The volume that holds `sandboxd`, and the init container that fills it if the cluster cannot mount images.
pub fn helper(settings: &Settings) -> (Volume, Option<Container>) {
    let volume = Volume { name: reserved::HELPER_VOLUME.into(), ..Volume::default() };
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
                name: reserved::HELPER_INSTALLER.into(),
                command: Some(vec!["/sandboxd".into(), "install".into(), meta::HELPER_PATH.into()]),
                volume_mounts: Some(vec![VolumeMount {
                    name: reserved::HELPER_VOLUME.into(),
                    mount_path: meta::HELPER_PATH.into(),
                    ..VolumeMount::default()
                }]),
                ..helper_container(settings)
            };
            (Volume { empty_dir: Some(EmptyDirVolumeSource::default()), ..volume }, Some(installer))
        }
    }
}

/// Where a container finds `sandboxd`.
pub fn helper_mount() -> VolumeMount {
    VolumeMount {
        name: reserved::HELPER_VOLUME.into(),
        mount_path: meta::HELPER_PATH.into(),
        read_only: Some(true),
        ..VolumeMount::default()
    }
}

/// The hash of a template. It covers the fields that the user wrote and that affect the Pod, and nothing that is derived: a new sibling,
/// another helper image or another restart policy does not make a sandbox out of date. The MCP services and skills of the init work are
/// in the session, and are covered as well.
pub(super) fn template_hash(observed: &Observed) -> String {
    hash_of(observed, observed.sandbox.spec.template.clone())
}

/// Whether a Pod with this hash was created from the sandbox's template.
///
/// Where a configuration file has no `command`, earlier versions replaced the ENTRYPOINT of images that offer services: they had no
/// `entrypoint: ImageThenIdle`. The Pods that they created are kept.
pub(super) fn is_of_template(observed: &Observed, hash: &str) -> bool {
    let template = &observed.sandbox.spec.template;
    let earlier = || hash_of(observed, SandboxTemplate { entrypoint: None, ..template.clone() });
    hash == template_hash(observed) || (is_served_by_its_image(observed) && hash == earlier())
}

/// Whether the sandbox runs the ENTRYPOINT of its image because of the configuration file of its session.
fn is_served_by_its_image(observed: &Observed) -> bool {
    let of_session = observed.session.found().filter(|session| observed.is_sessions_own(session));
    of_session.is_some_and(|session| session.is_served_by_its_image(&observed.sandbox.spec.sandbox_type))
}

fn hash_of(observed: &Observed, template: SandboxTemplate) -> String {
    let spec = &observed.sandbox.spec;
    let of_the_pod =
        SandboxTemplate { restart: None, update_policy: None, depends_on: vec![], attach: None, ..template };
    if observed.may_exec() {
        // This string is hashed: a change would make every Pod with exec access out of date.
        return digest::short(&(of_the_pod, "is let in"));
    }
    let work = init::work(observed).unwrap_or_default();
    let of_the_session = (work.skills, work.services);
    match (spec.volumes.is_empty(), of_the_session == <_>::default()) {
        (true, true) => digest::short(&of_the_pod),
        (false, true) => digest::short(&(of_the_pod, &spec.volumes)),
        (_, false) => digest::short(&(of_the_pod, &spec.volumes, of_the_session)),
    }
}
