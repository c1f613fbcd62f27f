//! The init work of a sandbox: its steps, and what the session adds to them.

use std::collections::{BTreeMap, BTreeSet};

use jiff::SignedDuration;
use k8s_openapi::api::core::v1::{EnvFromSource, EnvVar, VolumeMount};
use serde::Deserialize;
use serde_json::Value;

use crate::{
    api::{Sandbox, SandboxTemplate, init::StepRun, meta, session::McpTransport},
    plan::{
        duration,
        effective::{
            EffectiveSession,
            cache::{RestoredType, runs_image},
        },
        facts::sandbox::is_hand_made,
        name::Label,
        sandbox::{Observed, observed::Workload},
        template::probe,
    },
    protocol::{
        cache::RootWork,
        init::{Secrets, Service, Skills, Step, Transport, Work},
    },
};

/// The default timeout of the init work. The framework's own limit is 3600 s.
pub(super) const TIMEOUT: SignedDuration = SignedDuration::from_hours(1);

/// The variable of a step that runs over data that was restored from a cache.
const RESTORED: &str = "AIGISE_DATA_RESTORED";

/// The init work of the sandbox; `None` if there is none.
pub(in crate::plan::sandbox) fn work(observed: &Observed) -> Option<Work> {
    let template = &observed.sandbox.spec.template;
    let init = template.init.clone().unwrap_or_default();
    // The Pod of an agent has no init work: skills and services are for sandboxes in which agents work.
    let session = match observed.workload() {
        Workload::Alone => None,
        Workload::Member(session) => Some(session),
        Workload::Runner(_) => return None,
    };
    // The cache is that of the session's own sandboxes.
    let own = session.filter(|_| !is_hand_made(&observed.sandbox));
    let restored = own.and_then(|session| session.restored(&observed.sandbox.spec.sandbox_type, template));
    let steps = init.steps.into_iter().filter(|step| restored.is_none() || step.run == Some(StepRun::Always));
    let steps: Vec<_> = steps.collect();
    let variable =
        session.is_some_and(EffectiveSession::has_restored_data).then(|| (RESTORED.to_string(), "1".to_string()));
    let root = own.and_then(|session| root(observed, session, restored));
    let skills = session.and_then(|session| skills(session, &observed.sandbox));
    let services: Vec<_> = session.map(|session| services(session, &observed.sandbox)).unwrap_or_default();
    let is_idle = steps.is_empty()
        && template.depends_on.is_empty()
        && skills.is_none()
        && services.is_empty()
        && root.as_ref().is_none_or(|root| root.restore.is_none());
    if is_idle || init.skip == Some(true) || template.attach.is_some() {
        return None;
    }
    let seconds = |text: &Option<String>| {
        let duration = text.as_deref().and_then(duration::parse)?;
        u64::try_from(duration.as_secs()).ok().map(|seconds| seconds.max(1))
    };
    let steps = steps.iter().map(|step| Step {
        name: step.name.clone(),
        command: step.command.clone(),
        timeout: seconds(&step.timeout),
        env: step
            .env
            .iter()
            .map(|variable| (variable.name.clone(), variable.value.clone()))
            .chain(variable.clone())
            .collect(),
        always: step.run == Some(StepRun::Always),
    });
    let probe = probe::asked(template, observed.label().ok().as_ref());
    Some(Work {
        timeout: seconds(&init.timeout).unwrap_or(TIMEOUT.as_secs().unsigned_abs()),
        steps: steps.collect(),
        service_timeout: seconds(&init.service_timeout),
        skills,
        probe_timeout: probe.as_ref().and_then(|_| probe::timeout(template)),
        probe,
        services,
        secrets: secrets(template),
        root,
    })
}

/// What the sandbox does about its root file system: it restores it, or packs what its steps leave.
fn root(observed: &Observed, session: &EffectiveSession, restored: Option<RestoredType>) -> Option<RootWork> {
    let Sandbox { spec, .. } = &*observed.sandbox;
    let template = &spec.template;
    let (restore, save) = match restored {
        Some(RestoredType::Root(root)) => (Some(root.into()), false),
        None if session.saves_root(&spec.sandbox_type, template) => (None, true),
        Some(RestoredType::Data) | None => return None,
    };
    let overlay = overlay_of(template);
    let is_empty_dir = |mount: &&VolumeMount| {
        let mut volumes = overlay.volumes.iter();
        volumes.any(|volume| volume["name"] == mount.name.as_str() && volume.get("emptyDir").is_some())
    };
    let volumes = overlay.volume_mounts.iter().filter(is_empty_dir).map(|mount| mount.mount_path.clone());
    Some(RootWork {
        label: observed.label().ok()?.to_string(),
        restore,
        save,
        exclude: session.cache().map(|cache| cache.exclude.clone()).unwrap_or_default(),
        volumes: volumes.collect(),
        timeout: session.save_timeout().as_secs().unsigned_abs(),
        is_live: runs_image(template) || overlay.command.is_some() || overlay.args.is_some(),
    })
}

/// The skills whose dependencies are installed in the sandbox.
fn skills(session: &EffectiveSession, sandbox: &Sandbox) -> Option<Skills> {
    let enabled = session.installed_skills()?.to_vec();
    Some(Skills { sandbox_type: sandbox.spec.sandbox_type.clone(), enabled })
}

/// The MCP services that have to answer before the sandbox is ready. A service in the sandbox itself has the short host name, which is
/// in `/etc/hosts` from the start; other services have their DNS names.
fn services(session: &EffectiveSession, sandbox: &Sandbox) -> Vec<Service> {
    let all = session.services();
    let own = Label::of(&sandbox.spec.sandbox_type);
    let names = sandbox.spec.template.mcp_services.iter();
    let services = names.filter_map(|name| {
        let service = all.get(name.as_str())?;
        let label = Label::of(&service.sandbox).ok()?;
        let host = if own.as_ref() == Ok(&label) { label.to_string() } else { session.host(&label) };
        Some(Service {
            name: name.clone(),
            host,
            port: u16::try_from(service.port).ok()?,
            path: service.path().to_string(),
            transport: match service.transport.unwrap_or_default() {
                McpTransport::Auto => Transport::Auto,
                McpTransport::Sse => Transport::Sse,
                McpTransport::Http => Transport::Http,
            },
        })
    });
    services.collect()
}

/// The services in the sandbox, with their URLs at this host.
pub(in crate::plan::sandbox) fn endpoints(
    session: &EffectiveSession,
    sandbox: &Sandbox,
    host: &str,
) -> BTreeMap<String, String> {
    let own = Label::of(&sandbox.spec.sandbox_type);
    let here = session.services().into_iter().filter(|(_, service)| Label::of(&service.sandbox) == own);
    here.map(|(name, service)| (name.to_string(), format!("http://{host}:{}{}", service.port, service.path())))
        .collect()
}

/// The environment variables whose values come from Secrets, including those of the podTemplate. The variables that a whole Secret
/// (`envFrom`) adds are unknown here, so in that case all variables are considered secret except those that are known not to be.
pub(super) fn secrets(template: &SandboxTemplate) -> Secrets {
    let overlay = overlay_of(template);
    let is_secret = |variable: &EnvVar| variable.value_from.as_ref().is_some_and(|from| from.secret_key_ref.is_some());
    let variables = || template.env.iter().chain(&overlay.env);
    let name = |variable: &EnvVar| variable.name.clone();
    let names: BTreeSet<_> = variables().filter(|variable| is_secret(variable)).map(name).collect();
    let whole = template.env_from.iter().chain(&overlay.env_from).any(|source| source.secret_ref.is_some());
    let plain = || variables().map(name).filter(|name| !names.contains(name)).collect();
    Secrets { all_but: whole.then(plain), names }
}

fn overlay_of(template: &SandboxTemplate) -> Overlay {
    template.pod_template.as_ref().and_then(|pod_template| overlay(&pod_template.value())).unwrap_or_default()
}

/// What a podTemplate adds to the sandbox's container.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct Overlay {
    env: Vec<EnvVar>,
    env_from: Vec<EnvFromSource>,
    volume_mounts: Vec<VolumeMount>,
    /// Those of the Pod.
    #[serde(skip)]
    volumes: Vec<Value>,
    command: Option<Value>,
    args: Option<Value>,
}

fn overlay(pod_template: &Value) -> Option<Overlay> {
    let containers = pod_template.pointer("/spec/containers")?.as_array()?;
    let working = containers.iter().find(|container| container["name"] == meta::SANDBOX_CONTAINER)?;
    let volumes = pod_template.pointer("/spec/volumes").and_then(Value::as_array).cloned().unwrap_or_default();
    Some(Overlay { volumes, ..Overlay::deserialize(working).ok()? })
}
