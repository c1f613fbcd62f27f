//! A small world: the objects of one namespace, what users and the cluster do to them, and both controllers' decisions carried
//! out by hand. No client and no clock; the same events always give the same transcript.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    sync::Arc,
    time::Duration,
};

use secrecy::SecretString;

use aigise_operator::{
    api::{
        Agent, AigiseSession, Sandbox,
        condition::{RUNTIME_HEALTHY, Reason},
        meta,
        session::VolumeLayout,
    },
    apply::Object,
    controllers::{
        kind::Reconciled,
        read::{Busy, ConfigRead, Read},
    },
    plan::{
        self, Applied, ChildState, Created, Decide, Failure, Lookup, ObjectEvent, Outcome, Report, Requeue, Settings,
        StatusWrite, Target, Write, agent,
        effective::{
            Decided, EffectiveSession,
            configuration::{self, Configuration, Contents, Reference},
        },
        facts, name, ownership,
        pod::has_reporter,
        pod_event::PodEvent,
        reserved::INIT_REPORTER,
        sandbox,
        session::{self, ConfigMapContent, Pull, configuration::ConfigSecret},
    },
    protocol::{self, staging},
};
use futures::FutureExt;
use jiff::Timestamp;
use k8s_openapi::{
    api::{
        core::v1::{
            Container, ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting,
            ContainerStatus, PersistentVolumeClaim, PersistentVolumeClaimStatus, Pod, PodCondition, PodSpec, PodStatus,
            Secret, Service, ServiceAccount,
        },
        networking::v1::NetworkPolicy,
        rbac::v1::{Role, RoleBinding},
    },
    apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta, Time},
};
use kube::ResourceExt;
use serde::Deserialize;

use crate::support::cluster::root_report;

/// Something that a user or the cluster does.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Event {
    /// A user applies a session.
    ApplySession(Box<AigiseSession>),
    /// A user applies a Sandbox of their own.
    ApplySandbox(Box<Sandbox>),
    /// A user applies an agent.
    ApplyAgent(Box<Agent>),
    /// A user deletes an agent.
    DeleteAgent(String),
    /// A program that runs an agent says how it is: a condition of its own.
    AgentSays { agent: String, healthy: bool, message: String },
    /// A user makes or changes a ConfigMap.
    ConfigMap { name: String, content: String },
    /// A user makes or changes a Secret; each of its keys has this text.
    Secret { name: String, content: String },
    /// A user deletes a ConfigMap.
    DeleteConfigMap(String),
    /// Somebody else makes an object of this kind and name.
    Foreign { kind: Kind, name: String },
    /// A user sets an annotation.
    Annotate { session: Option<String>, sandbox: Option<String>, key: String, value: String },
    /// A user deletes a claim, and its Pods are gone.
    DeleteClaim(String),
    /// A user makes a Pod that may be attached to, or makes it anew.
    MakePod { name: String, attachable: Option<String> },
    /// The API server refuses all writes of children from now on: 422, 403 or 500.
    #[serde(skip)]
    Refuses(Option<Reason>),
    /// The scheduler finds a node.
    Scheduled(String),
    /// The scheduler finds none.
    Unschedulable { pod: String, message: String },
    /// The kubelet cannot pull an image.
    ImageMissing(String),
    /// The container runs, and its startup probe has not succeeded.
    Initializes(String),
    /// Its init work fails: the kubelet ends the container.
    InitFailed { pod: String, failure: protocol::init::InitFailure },
    /// The container runs; without a probe that is all that readiness asks.
    Running(String),
    /// What is asked for its readiness does not answer any more.
    NotReady(String),
    /// The stage Pod ends well.
    Staged { pod: String, roots: Vec<String> },
    /// The stage Pod ends with a message.
    StagingFailed {
        pod: String,
        message: String,
        /// What has to change.
        #[serde(default)]
        fault: staging::Fault,
    },
    /// The Pod that restores a cache ends well.
    Restored(String),
    /// The Pod that restores a cache ends with a message.
    RestoreFailed { pod: String, fault: protocol::cache::RestoreFault, message: String },
    /// The Pod that restores a cache ends well, but for the root file systems of these types.
    RestoredWithout { pod: String, labels: Vec<String> },
    /// The Pod that saves a cache ends well, but for the root file systems of these types.
    SavedWithout { pod: String, labels: Vec<String> },
    /// The init work of a sandbox succeeds, but its root file system could not be packed.
    NotPacked { pod: String, reason: protocol::cache::SaveFault, message: String },
    /// The Pod that saves a cache ends well.
    Saved(String),
    /// The Pod that saves a cache ends with a message.
    SaveFailed { pod: String, reason: protocol::cache::SaveFault, message: String },
    /// A container ends.
    Exited {
        pod: String,
        code: i32,
        /// For how many seconds it had run.
        #[serde(default)]
        after: u32,
    },
    /// A container beside the working one ends.
    BesideEnded { pod: String, name: String, code: i32 },
    /// A container is killed for memory.
    OutOfMemory(String),
    /// The kubelet evicts a Pod.
    Evicted(String),
    /// The kubelet refuses a Pod.
    PodRefused { pod: String, reason: String, message: String },
    /// A Pod is asked to end.
    DeletePod(String),
    /// Somebody sets finalizers on a Pod.
    Held { pod: String, by: Vec<String> },
    /// A Pod has ended and is gone.
    PodGone(String),
    /// A user deletes a Sandbox; garbage collection takes its Pod.
    DeleteSandbox(String),
    /// A user deletes the session; garbage collection takes what it owns.
    DeleteSession(String),
    /// Time passes.
    After(u32),
    /// The kubelet no longer answers.
    NodeSilent(String),
    /// The operator restarts: all is reconciled again.
    Restart,
}

/// A kind of child.
#[derive(Clone, Copy, Debug, Deserialize)]
pub enum Kind {
    Pod,
    Claim,
    Service,
    NetworkPolicy,
    Secret,
    Sandbox,
}

/// The objects, by name.
#[derive(Default)]
pub struct World {
    pub now: Timestamp,
    pub sessions: BTreeMap<String, AigiseSession>,
    pub sandboxes: BTreeMap<String, Sandbox>,
    pub agents: BTreeMap<String, Agent>,
    pub pods: BTreeMap<String, Pod>,
    pub claims: BTreeMap<String, PersistentVolumeClaim>,
    pub services: BTreeMap<String, Service>,
    pub policies: BTreeMap<String, NetworkPolicy>,
    pub config_maps: BTreeMap<String, String>,
    /// The events about Pods, by the Pods' UIDs.
    pub events: BTreeMap<String, Vec<PodEvent>>,
    /// The images that every node lists.
    pub node_images: BTreeSet<String>,
    /// What the operator remembers about pulling images, by the UIDs of stage Pods.
    pub pulls: BTreeMap<String, Pull>,
    /// What users' Secrets hold.
    pub secret_texts: BTreeMap<String, String>,
    /// Secrets that are ours, or in our way.
    pub secrets: BTreeMap<String, Secret>,
    pub accounts: BTreeMap<String, ServiceAccount>,
    pub roles: BTreeMap<String, Role>,
    pub bindings: BTreeMap<String, RoleBinding>,
    /// Writes so far, status included.
    pub writes: usize,
    /// What the API server says to every write of a child.
    pub refuses: Option<Reason>,
    uids: usize,
    pub log: String,
}

/// What is planned for an object.
pub fn planned(observed: &impl Decide) -> Vec<Write> {
    observed.plan(&observed.situation())
}

/// What is reported about an object.
pub fn reported<D: Decide>(observed: &D) -> Report<D::Status> {
    observed.report(&observed.situation())
}

pub const NAMESPACE: &str = "lab";

pub fn settings() -> Settings {
    Settings {
        helper_image: "registry.example/aigise-operator:1".into(),
        helper_mount: plan::HelperMount::Image,
        helper_resources: plan::HelperResources::default(),
        image_volumes: true,
        allow_privileged_templates: false,
        allow_runner_exec: true,
        cluster_ranges: vec![],
        volume_layout: VolumeLayout::Separate,
        cache_limits: plan::CacheLimits::default(),
    }
}

fn found<K: Clone>(objects: &BTreeMap<String, K>, name: &str) -> Lookup<K> {
    objects.get(name).map_or(Lookup::Missing, |object| Lookup::Found(Arc::new(object.clone())))
}

/// Everything is known, and nothing is out of date.
impl Read for World {
    fn session(&self, name: &str) -> Lookup<AigiseSession> {
        found(&self.sessions, name)
    }

    fn sandbox(&self, name: &str) -> Lookup<Sandbox> {
        found(&self.sandboxes, name)
    }

    fn agent(&self, name: &str) -> Lookup<Agent> {
        found(&self.agents, name)
    }

    fn pod(&self, name: &str) -> Lookup<Pod> {
        found(&self.pods, name)
    }

    fn claim(&self, name: &str) -> Lookup<PersistentVolumeClaim> {
        found(&self.claims, name)
    }

    fn service(&self, name: &str) -> Lookup<Service> {
        found(&self.services, name)
    }

    fn policy(&self, name: &str) -> Lookup<NetworkPolicy> {
        found(&self.policies, name)
    }

    fn sandboxes_owned_by(&self, uid: &str) -> BTreeSet<String> {
        let owned = |sandbox: &&Sandbox| ownership::owner_uid(&sandbox.metadata) == Some(uid);
        self.sandboxes.values().filter(owned).map(ResourceExt::name_any).collect()
    }

    fn sandboxes_of(&self, session: &str) -> BTreeSet<String> {
        let of_session = |sandbox: &&Sandbox| sandbox.spec.session.as_deref() == Some(session);
        self.sandboxes.values().filter(of_session).map(ResourceExt::name_any).collect()
    }

    fn first_of_type(&self, session: &str, label: &name::Label) -> Vec<Arc<Sandbox>> {
        let is_of_type = |sandbox: &&Sandbox| {
            sandbox.spec.session.as_deref() == Some(session)
                && name::Label::of(&sandbox.spec.sandbox_type).as_ref() == Ok(label)
        };
        let ranked = self.sandboxes.values().filter(is_of_type);
        let mut ranked: Vec<_> = ranked.filter_map(|sandbox| Some((facts::sandbox::rank(sandbox)?, sandbox))).collect();
        ranked.sort_by(|(one, _), (other, _)| one.cmp(other));
        ranked.into_iter().take(sandbox::FIRST).map(|(_, sandbox)| Arc::new(sandbox.clone())).collect()
    }

    fn entries(&self, key: &str) -> Vec<String> {
        let of_key = |claim: &&PersistentVolumeClaim| ownership::label(&claim.metadata, meta::CACHE_KEY) == Some(key);
        self.claims.values().filter(of_key).map(ResourceExt::name_any).collect()
    }

    fn agents_of(&self, session: &str) -> BTreeSet<String> {
        let of_session = |agent: &&Agent| agent.spec.session == session;
        self.agents.values().filter(of_session).map(ResourceExt::name_any).collect()
    }

    fn children_of(&self, agent: &str) -> BTreeSet<String> {
        let is_child = |other: &&Agent| other.spec.parent.as_deref() == Some(agent);
        self.agents.values().filter(is_child).map(ResourceExt::name_any).collect()
    }

    fn starting_pods(&self, _: Timestamp) -> usize {
        1
    }

    async fn look<K: Object>(&self, name: &str) -> Lookup<K> {
        let object = match &*K::kind(&()) {
            "AigiseSession" => self.sessions.get(name).map(serde_json::to_value),
            "Agent" => self.agents.get(name).map(serde_json::to_value),
            "Role" => self.roles.get(name).map(serde_json::to_value),
            "RoleBinding" => self.bindings.get(name).map(serde_json::to_value),
            "ServiceAccount" => self.accounts.get(name).map(serde_json::to_value),
            kind => panic!("nobody looks for a {kind}"),
        };
        object
            .map_or(Lookup::Missing, |object| Lookup::Found(Arc::new(serde_json::from_value(object.unwrap()).unwrap())))
    }

    async fn attached_pod(&self, name: &str) -> Result<Lookup<Pod>, Busy> {
        Ok(found(&self.pods, name))
    }

    async fn existing_claim(&self, name: &str) -> Result<Lookup<PersistentVolumeClaim>, Busy> {
        Ok(found(&self.claims, name))
    }

    async fn pod_events(&self, uid: &str) -> Vec<PodEvent> {
        self.events.get(uid).cloned().unwrap_or_default()
    }

    async fn node_images(&self, _: &str) -> Option<BTreeSet<String>> {
        Some(self.node_images.clone())
    }

    fn pull(&self, stage_pod: &str) -> Pull {
        self.pulls.get(stage_pod).cloned().unwrap_or_default()
    }

    async fn config_maps(&self, names: BTreeSet<String>) -> Result<BTreeMap<String, ConfigMapContent>, Busy> {
        let content = |name: String| {
            let content = self.config_maps.get(&name).cloned();
            (name, content.map_or(ConfigMapContent::Missing, ConfigMapContent::Hash))
        };
        Ok(names.into_iter().map(content).collect())
    }

    async fn configuration(&self, session: &Arc<AigiseSession>, has_runner: bool) -> Result<ConfigRead, Busy> {
        let mut contents = Contents::new();
        for reference in configuration::references(session) {
            let text = match &reference {
                Reference::ConfigMap(name, _) => self.config_maps.get(name),
                Reference::Secret(name, _) => self.secret_texts.get(name),
            };
            contents.insert(reference, Ok(text.map(|text| SecretString::from(text.clone()))));
        }
        let (configuration, wanted) = configuration::read(session, &contents, has_runner);
        let child = found(&self.secrets, &facts::session::secret_name(&**session)).child_state(&session.metadata);
        let is_read = matches!(configuration, Configuration::Read { .. }) || !wanted.is_empty();
        let config_secret = is_read.then(|| ConfigSecret { wanted, child });
        Ok(ConfigRead { configuration, config_secret, remembered: None })
    }

    async fn decided(&self, session: &EffectiveSession, _: &Configuration) -> Result<Arc<Decided>, Busy> {
        Ok(Arc::new(Decided::of(session, &settings())))
    }

    fn effective(&self, session: Arc<AigiseSession>) -> Arc<EffectiveSession> {
        let layout = self.layout(&session);
        Arc::new(EffectiveSession::of(session).laid_out(layout))
    }

    fn settings(&self) -> Arc<Settings> {
        Arc::new(settings())
    }

    fn now(&self) -> Timestamp {
        self.now
    }
}

impl World {
    pub fn new() -> Self {
        Self { now: "2026-01-01T00:00:00Z".parse().unwrap(), ..Self::default() }
    }

    fn birth(&mut self, meta: &mut ObjectMeta) {
        self.uids += 1;
        meta.uid = Some(format!("uid-{}", self.uids));
        meta.namespace = Some(NAMESPACE.into());
        meta.creation_timestamp = Some(Time(self.now));
        meta.generation = Some(1);
    }

    /// Something happens, and the operator reacts until nothing is left to do.
    pub fn happens(&mut self, event: Event) {
        self.change(event);
        let rounds = self.settle();
        assert!(rounds < 20, "the operator does not come to rest:\n{}", self.log);
    }

    /// Something happens, and nobody has reacted yet.
    #[expect(clippy::too_many_lines, reason = "an arm for each event")]
    pub fn change(&mut self, event: Event) {
        match event {
            Event::ApplySession(session) => {
                let name = session.name_any();
                match self.sessions.get_mut(&name) {
                    Some(live) if live.spec != session.spec => {
                        live.spec = session.spec;
                        live.metadata.generation = live.metadata.generation.map(|generation| generation + 1);
                    }
                    Some(_) => {}
                    None => {
                        let mut session = *session;
                        self.birth(&mut session.metadata);
                        self.sessions.insert(name, session);
                    }
                }
            }
            Event::ApplySandbox(sandbox) => {
                // What the API server does not let through does not happen.
                let fixed = |sandbox: &Sandbox| (sandbox.spec.session.clone(), sandbox.spec.sandbox_type.clone());
                if self.sandboxes.get(&sandbox.name_any()).is_none_or(|live| fixed(live) == fixed(&sandbox)) {
                    self.put_sandbox(*sandbox);
                }
            }
            Event::ApplyAgent(agent) => self.put_agent(*agent),
            Event::DeleteAgent(name) => self.remove_agent(&name),
            Event::AgentSays { agent, healthy, message } => {
                if let Some(agent) = self.agents.get_mut(&agent) {
                    let conditions = &mut agent.status.get_or_insert_default().conditions;
                    conditions.retain(|condition| condition.type_ != RUNTIME_HEALTHY);
                    conditions.push(Condition {
                        type_: RUNTIME_HEALTHY.into(),
                        status: if healthy { "True" } else { "False" }.into(),
                        reason: "Runtime".into(),
                        message,
                        last_transition_time: Time(self.now),
                        observed_generation: None,
                    });
                }
            }
            Event::ConfigMap { name, content } => {
                self.config_maps.insert(name, content);
            }
            Event::Secret { name, content } => {
                self.secret_texts.insert(name, content);
            }
            Event::DeleteConfigMap(name) => {
                self.config_maps.remove(&name);
            }
            Event::Foreign { kind, name } => self.put_foreign(kind, name),
            Event::DeleteClaim(name) => {
                self.claims.remove(&name);
            }
            Event::Annotate { session, sandbox, key, value } => {
                if let Some(session) = session.and_then(|name| self.sessions.get_mut(&name)) {
                    session.annotations_mut().insert(key.clone(), value.clone());
                }
                if let Some(sandbox) = sandbox.and_then(|name| self.sandboxes.get_mut(&name)) {
                    sandbox.annotations_mut().insert(key, value);
                }
            }
            Event::MakePod { name, attachable } => {
                let mut metadata = ObjectMeta { name: Some(name.clone()), ..ObjectMeta::default() };
                self.birth(&mut metadata);
                let annotation = attachable.map(|of| (meta::ATTACHABLE.to_string(), of));
                metadata.annotations = Some(annotation.into_iter().collect());
                let container = Container { name: "work".into(), ..Container::default() };
                let spec = PodSpec { containers: vec![container], ..PodSpec::default() };
                self.pods.insert(name, Pod { metadata, spec: Some(spec), status: Some(PodStatus::default()) });
            }
            Event::NodeSilent(name) => {
                let at = self.now;
                self.pod(&name, |pod| {
                    condition(pod, "ContainersReady", "True", "", at);
                    condition(pod, "Ready", "False", "", at);
                });
            }
            Event::Refuses(reason) => self.refuses = reason,
            Event::Scheduled(name) => {
                let at = self.now;
                self.pod(&name, |pod| {
                    pod.spec.get_or_insert_default().node_name = Some("node-1".into());
                    condition(pod, "PodScheduled", "True", "", at);
                });
            }
            Event::Unschedulable { pod, message } => {
                let at = self.now;
                self.pod(&pod, |pod| condition(pod, "PodScheduled", "False", &message, at));
            }
            Event::ImageMissing(name) => self.container(&name, |_| ContainerState {
                waiting: Some(ContainerStateWaiting {
                    reason: Some("ImagePullBackOff".into()),
                    message: Some("Back-off pulling image".into()),
                }),
                ..ContainerState::default()
            }),
            Event::Initializes(name) => {
                let at = self.now;
                self.container(&name, |status| {
                    status.started = Some(false);
                    let running = ContainerStateRunning { started_at: Some(Time(at)) };
                    ContainerState { running: Some(running), ..ContainerState::default() }
                });
            }
            Event::InitFailed { pod, failure } => {
                let at = self.now;
                let words = protocol::init::TerminationMessage { failure }.text();
                self.container(&pod, |_| terminated(143, Some("Error"), Some(words), at, 1));
            }
            Event::Running(name) => {
                // The kubelet speaks again, if it was silent.
                self.pod(&name, |pod| {
                    let conditions = pod.status.get_or_insert_default().conditions.get_or_insert_default();
                    conditions.retain(|condition| !["Ready", "ContainersReady"].contains(&condition.type_.as_str()));
                });
                self.reports(&name, root_report);
                self.container(&name, |status| {
                    (status.ready, status.started) = (true, Some(true));
                    ContainerState { running: Some(ContainerStateRunning::default()), ..ContainerState::default() }
                });
            }
            Event::NotPacked { pod, reason, message } => {
                self.reports(&pod, |_| Some(protocol::cache::RootReport::NotSaved { reason, message }));
                self.container(&pod, |status| {
                    (status.ready, status.started) = (true, Some(true));
                    ContainerState { running: Some(ContainerStateRunning::default()), ..ContainerState::default() }
                });
            }
            Event::NotReady(name) => self.container(&name, |status| {
                status.ready = false;
                ContainerState { running: Some(ContainerStateRunning::default()), ..ContainerState::default() }
            }),
            Event::Staged { pod, roots } => {
                let staged = staging::Staged { files: 3, kept: 0, roots, ..Default::default() };
                let report = staging::StagingReport::Staged { volumes: [("tools".to_string(), staged)].into() };
                let at = self.now;
                self.container(&pod, |_| terminated(0, None, Some(serde_json::to_string(&report).unwrap()), at, 1));
            }
            Event::StagingFailed { pod, message, fault } => {
                let report = staging::StagingReport::Failed { message, fault };
                let at = self.now;
                self.container(&pod, |_| terminated(1, None, Some(serde_json::to_string(&report).unwrap()), at, 1));
            }
            Event::Restored(pod) => self.change(Event::RestoredWithout { pod, labels: vec![] }),
            Event::RestoredWithout { pod, labels } => {
                let volumes = ["data", "tools"].map(|volume| (volume.to_string(), 1000));
                let left_out = labels.into_iter().collect();
                let report = protocol::cache::RestoreReport::Restored { volumes: volumes.into(), left_out };
                self.ends_with(&pod, 0, &report);
            }
            Event::RestoreFailed { pod, fault, message } => {
                let report = protocol::cache::RestoreReport::Failed { fault, part: None, message, wrote: false };
                self.ends_with(&pod, 1, &report);
            }
            Event::Saved(pod) => self.change(Event::SavedWithout { pod, labels: vec![] }),
            Event::SavedWithout { pod, labels } => {
                let part = |volume: &str| protocol::cache::Part {
                    file: format!("{volume}.tar.zst"),
                    sha256: "0".repeat(64),
                    packed: 500,
                    unpacked: 1000,
                };
                let volumes = ["data", "tools"].map(|volume| (volume.to_string(), part(volume)));
                let report = protocol::cache::SaveReport::Saved {
                    arch: "x86_64".into(),
                    volumes: volumes.into(),
                    left_out: labels.into_iter().collect(),
                };
                self.ends_with(&pod, 0, &report);
            }
            Event::SaveFailed { pod, reason, message } => {
                self.ends_with(&pod, 1, &protocol::cache::SaveReport::Failed { reason, message });
            }
            Event::Exited { pod, code, after } => {
                let (at, reason) = (self.now, if code == 0 { "Completed" } else { "Error" });
                self.container(&pod, |_| terminated(code, Some(reason), None, at, after));
            }
            Event::BesideEnded { pod, name, code } => {
                let at = self.now;
                self.pod(&pod, |pod| {
                    condition(pod, "ContainersReady", "False", "", at);
                    condition(pod, "Ready", "False", "", at);
                    let state = Some(terminated(code, None, None, at, 1));
                    let status = ContainerStatus { name, state, ..ContainerStatus::default() };
                    pod.status.get_or_insert_default().container_statuses.get_or_insert_default().push(status);
                });
            }
            Event::OutOfMemory(name) => {
                let at = self.now;
                self.container(&name, |_| terminated(137, Some("OOMKilled"), None, at, 1));
            }
            Event::Evicted(name) => self.pod(&name, |pod| {
                let status = pod.status.get_or_insert_default();
                status.phase = Some("Failed".into());
                status.reason = Some("Evicted".into());
                status.message = Some("The node was low on memory.".into());
            }),
            Event::PodRefused { pod, reason, message } => self.pod(&pod, |pod| {
                let status = pod.status.get_or_insert_default();
                status.phase = Some("Failed".into());
                (status.reason, status.message) = (Some(reason), Some(message));
            }),
            Event::DeletePod(name) => {
                let now = self.now;
                self.pod(&name, |pod| pod.metadata.deletion_timestamp = Some(Time(now)));
            }
            Event::Held { pod, by } => self.pod(&pod, |pod| pod.metadata.finalizers = Some(by)),
            Event::PodGone(name) => {
                self.pods.remove(&name);
            }
            Event::DeleteSandbox(name) => self.remove_sandbox(&name),
            Event::DeleteSession(name) => self.remove_session(&name),
            Event::After(seconds) => self.now += Duration::from_secs(seconds.into()),
            Event::Restart => self.pulls.clear(),
        }
    }

    /// A Pod of the operator ends with a report.
    fn ends_with(&mut self, pod: &str, code: i32, report: &impl serde::Serialize) {
        let at = self.now;
        self.container(pod, |_| terminated(code, None, Some(serde_json::to_string(report).unwrap()), at, 1));
    }

    fn remove_session(&mut self, name: &str) {
        if let Some(uid) = self.sessions.remove(name).and_then(|session| session.uid()) {
            let owned = |meta: &ObjectMeta| ownership::controller(meta).is_some_and(|owner| owner.uid == uid);
            self.claims.retain(|_, claim| !owned(&claim.metadata));
            self.services.retain(|_, service| !owned(&service.metadata));
            self.policies.retain(|_, policy| !owned(&policy.metadata));
            self.secrets.retain(|_, secret| !owned(&secret.metadata));
            self.pods.retain(|_, pod| !owned(&pod.metadata));
            let sandboxes: Vec<_> =
                self.sandboxes.values().filter(|sandbox| owned(&sandbox.metadata)).map(ResourceExt::name_any).collect();
            for name in sandboxes {
                self.remove_sandbox(&name);
            }
        }
    }

    fn put_foreign(&mut self, kind: Kind, name: String) {
        let mut metadata = ObjectMeta { name: Some(name.clone()), ..ObjectMeta::default() };
        self.birth(&mut metadata);
        match kind {
            Kind::Pod => _ = self.pods.entry(name).or_insert(Pod { metadata, ..Pod::default() }),
            Kind::Claim => {
                _ = self
                    .claims
                    .entry(name)
                    .or_insert(PersistentVolumeClaim { metadata, ..PersistentVolumeClaim::default() });
            }
            Kind::Service => _ = self.services.entry(name).or_insert(Service { metadata, ..Service::default() }),
            Kind::NetworkPolicy => {
                _ = self.policies.entry(name).or_insert(NetworkPolicy { metadata, ..NetworkPolicy::default() });
            }
            Kind::Secret => {
                _ = self.secrets.entry(name).or_insert(Secret { metadata, ..Secret::default() });
            }
            Kind::Sandbox => {
                _ = self.sandboxes.entry(name).or_insert(Sandbox { metadata, ..Sandbox::default() });
            }
        }
    }

    fn put_sandbox(&mut self, mut sandbox: Sandbox) {
        let name = sandbox.name_any();
        if let Some(live) = self.sandboxes.get_mut(&name) {
            if live.spec != sandbox.spec {
                live.metadata.generation = live.metadata.generation.map(|generation| generation + 1);
            }
            live.spec = sandbox.spec;
            live.metadata.labels = sandbox.metadata.labels;
            live.metadata.owner_references = sandbox.metadata.owner_references;
        } else {
            self.birth(&mut sandbox.metadata);
            self.sandboxes.insert(name, sandbox);
        }
    }

    fn put_agent(&mut self, mut agent: Agent) {
        let name = agent.name_any();
        match self.agents.get_mut(&name) {
            // What the API server does not let through does not happen.
            Some(live) if live.spec.session != agent.spec.session || live.spec == agent.spec => {}
            Some(live) => {
                live.spec = agent.spec;
                live.metadata.generation = live.metadata.generation.map(|generation| generation + 1);
            }
            None => {
                self.birth(&mut agent.metadata);
                self.agents.insert(name, agent);
            }
        }
    }

    fn remove_agent(&mut self, name: &str) {
        let Some(uid) = self.agents.remove(name).and_then(|agent| agent.uid()) else { return };
        let owned = |meta: &ObjectMeta| ownership::controller(meta).is_some_and(|owner| owner.uid == uid);
        let sandboxes: Vec<_> =
            self.sandboxes.values().filter(|sandbox| owned(&sandbox.metadata)).map(ResourceExt::name_any).collect();
        for name in sandboxes {
            self.remove_sandbox(&name);
        }
    }

    /// What it owned alone goes with it.
    fn remove_sandbox(&mut self, name: &str) {
        let Some(uid) = self.sandboxes.remove(name).and_then(|sandbox| sandbox.uid()) else { return };
        let owned = |meta: &ObjectMeta| ownership::controller(meta).is_some_and(|owner| owner.uid == uid);
        self.pods.retain(|_, pod| !owned(&pod.metadata));
        self.policies.retain(|_, policy| !owned(&policy.metadata));
        self.accounts.retain(|_, account| !owned(&account.metadata));
        self.bindings.retain(|_, binding| !owned(&binding.metadata));
        self.roles.retain(|_, role| {
            role.owner_references_mut().retain(|owner| owner.uid != uid);
            !role.owner_references().is_empty()
        });
    }

    fn pod(&mut self, name: &str, change: impl FnOnce(&mut Pod)) {
        // What the cluster does to a Pod that is not there, or not ours, does not happen.
        if let Some(pod) = self.pods.get_mut(name).filter(|pod| pod.spec.is_some()) {
            change(pod);
        }
    }

    /// The kubelet has started the container again that reported the success of the init work.
    fn reports(
        &mut self,
        name: &str,
        root: impl FnOnce(&protocol::cache::RootWork) -> Option<protocol::cache::RootReport>,
    ) {
        self.pod(name, |pod| {
            if !has_reporter(pod) {
                return;
            }
            let work = pod.annotations().get(meta::GATE).and_then(|work| serde_json::from_str(work).ok());
            let root = work.and_then(|work: protocol::init::Work| root(&work.root?));
            let message = protocol::init::Success::with(root).text();
            let reported = serde_json::json!({"terminated": {"exitCode": 0, "message": message}});
            let status = serde_json::json!({
                "name": INIT_REPORTER, "image": "helper", "imageID": "", "restartCount": 1, "ready": true,
                "state": {"running": {}}, "lastState": reported,
            });
            let statuses = serde_json::from_value(serde_json::json!([status])).ok();
            pod.status.get_or_insert_default().init_container_statuses = statuses;
        });
    }

    fn container(&mut self, name: &str, state: impl FnOnce(&mut ContainerStatus) -> ContainerState) {
        self.pod(name, |pod| {
            let containers: Vec<_> = match name.rsplit_once("--") {
                Some((_, "stage")) => vec![meta::STAGE_CONTAINER.to_string()],
                Some((_, "save" | "restore")) => vec![meta::CACHE_CONTAINER.to_string()],
                Some((_, "pull")) => {
                    pod.spec.iter().flat_map(|spec| &spec.containers).map(|c| c.name.clone()).collect()
                }
                _ => vec![meta::SANDBOX_CONTAINER.to_string()],
            };
            let mut status = ContainerStatus::default();
            status.state = Some(state(&mut status));
            let image = |name: &str| {
                let mut containers = pod.spec.iter().flat_map(|spec| &spec.containers);
                containers.find(|container| container.name == name).and_then(|container| container.image.clone())
            };
            let statuses = containers.into_iter().map(|name| {
                let image = image(&name).unwrap_or_default();
                ContainerStatus { name, image, ..status.clone() }
            });
            let statuses: Vec<_> = statuses.collect();
            pod.status.get_or_insert_default().container_statuses = Some(statuses);
        });
    }

    /// Both controllers, over everything, until a round writes nothing. Gives the number of rounds that wrote.
    pub fn settle(&mut self) -> usize {
        for round in 0..20 {
            let before = self.writes;
            for name in self.sessions.keys().cloned().collect::<Vec<_>>() {
                self.reconcile_session(&name);
            }
            for name in self.sandboxes.keys().cloned().collect::<Vec<_>>() {
                self.reconcile_sandbox(&name);
            }
            for name in self.agents.keys().cloned().collect::<Vec<_>>() {
                self.reconcile_agent(&name);
            }
            if self.writes == before {
                return round;
            }
        }
        20
    }

    pub fn observe_session(&self, name: &str) -> session::Observed {
        self.observe(self.sessions[name].clone())
    }

    pub fn observe_sandbox(&self, name: &str) -> sandbox::Observed {
        self.observe(self.sandboxes[name].clone())
    }

    pub fn observe_agent(&self, name: &str) -> agent::Observed {
        self.observe(self.agents[name].clone())
    }

    /// What the operator's own controller observes in this world, in which nothing has to be waited for.
    fn observe<K: Reconciled>(&self, object: K) -> K::Observed {
        let observed = K::observe(Arc::new(object), self).now_or_never();
        observed.expect("the world answers at once").expect("the world is never busy").0
    }

    fn reconcile_session(&mut self, name: &str) {
        let mut observed = self.observe_session(name);
        let (owner, lifecycle) = (observed.session.metadata().clone(), observed.situation().lifecycle);
        let report = self.carry_out("session", &owner, &lifecycle, &mut observed);
        if let Some(uid) = observed.stage_pod.owned().and_then(|pod| pod.uid()) {
            self.pulls.insert(uid, observed.pull.clone());
        }
        let before = observed.session.status().cloned().unwrap_or_default();
        times_move_with_status(&before.conditions, &report.status.conditions);
        if report.write != StatusWrite::Skip {
            self.writes += 1;
            let phase = report.status.phase.map(|phase| phase.to_string());
            self.note_status(
                "session",
                name,
                phase,
                &before.conditions,
                &report.status.conditions,
                report.events,
                report.requeue,
            );
            if let Some(session) = self.sessions.get_mut(name) {
                session.status = Some(report.status);
            }
        }
    }

    fn reconcile_sandbox(&mut self, name: &str) {
        let mut observed = self.observe_sandbox(name);
        let (owner, lifecycle) = (observed.sandbox.metadata.clone(), observed.situation().lifecycle);
        let report = self.carry_out("sandbox", &owner, &lifecycle, &mut observed);
        let before = observed.sandbox.status.clone().unwrap_or_default();
        times_move_with_status(&before.conditions, &report.status.conditions);
        if report.write != StatusWrite::Skip {
            self.writes += 1;
            let phase = report.status.state.map(|state| format!("state={state}"));
            self.note_status(
                "sandbox",
                name,
                phase,
                &before.conditions,
                &report.status.conditions,
                report.events,
                report.requeue,
            );
            if let Some(sandbox) = self.sandboxes.get_mut(name) {
                sandbox.status = Some(report.status);
            }
        }
    }

    fn reconcile_agent(&mut self, name: &str) {
        let mut observed = self.observe_agent(name);
        let (owner, lifecycle) = (observed.agent.metadata.clone(), observed.situation());
        let report = self.carry_out("agent", &owner, &lifecycle, &mut observed);
        let before = observed.agent.status.clone().unwrap_or_default();
        times_move_with_status(&before.conditions, &report.status.conditions);
        if report.write != StatusWrite::Skip {
            self.writes += 1;
            let state = report.status.status.map(|state| format!("status={state}"));
            let said = &report.status.conditions;
            self.note_status("agent", name, state, &before.conditions, said, report.events, report.requeue);
            if let Some(agent) = self.agents.get_mut(name) {
                // Conditions of others stay.
                let foreign = before.conditions.into_iter().filter(|condition| condition.type_ == RUNTIME_HEALTHY);
                let mut status = report.status;
                status.conditions.extend(foreign);
                agent.status = Some(status);
            }
        }
    }

    /// Carries out the writes of a reconcile, and returns what it reports.
    fn carry_out<D: Decide>(
        &mut self,
        kind: &str,
        owner: &ObjectMeta,
        lifecycle: &dyn std::fmt::Debug,
        observed: &mut D,
    ) -> Report<D::Status> {
        let writes = [observed.independent_writes(), planned(observed)].concat();
        self.note_stage(kind, owner.name.as_deref().unwrap_or_default(), &format!("{lifecycle:?}"), &writes);
        let restores = format!("{lifecycle:?}").starts_with("Restoring(");
        for write in writes {
            if let Write::Delete(Target { kind: plan::Kind::PersistentVolumeClaim, name, .. }) = &write {
                assert!(!restores || !self.is_in_use(name), "{name} is deleted, and a sandbox has worked in it");
            }
            let name = write.name().to_string();
            let outcome = self.write(owner, write);
            observed.record(&name, outcome);
        }
        reported(observed)
    }

    /// Whether a sandbox has the claim.
    fn is_in_use(&self, claim: &str) -> bool {
        let mounts = |pod: &Pod| {
            let mut volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
            volumes.any(|volume| {
                volume.persistent_volume_claim.as_ref().is_some_and(|mounted| mounted.claim_name == claim)
            })
        };
        let is_sandbox = |pod: &&Pod| pod.labels().get(meta::COMPONENT).is_some_and(|component| component == "sandbox");
        self.pods.values().filter(is_sandbox).any(mounts)
    }

    /// Carries out one write as the API server would, and sees to it that nothing is touched that is not the owner's (P4).
    fn write(&mut self, owner: &ObjectMeta, write: Write) -> Outcome {
        // What is refused changes nothing, and is tried again.
        self.writes += usize::from(self.refuses.is_none() || matches!(write, Write::Delete(_)));
        let failed = self.refuses.map(|reason| Failure { reason, message: "The API server refused it.".into() });
        match write {
            Write::Create(Created::Claim(mut claim)) => {
                self.birth(&mut claim.metadata);
                // An admission plugin of the API server.
                claim.spec.get_or_insert_default().storage_class_name.get_or_insert("standard".into());
                let phase = Some("Bound".into());
                claim.status = Some(PersistentVolumeClaimStatus { phase, ..PersistentVolumeClaimStatus::default() });
                Outcome::Claim(create(&mut self.claims, *claim, owner, failed))
            }
            Write::Create(Created::Pod(mut pod)) => {
                self.birth(&mut pod.metadata);
                pod.status = Some(PodStatus { phase: Some("Pending".into()), ..PodStatus::default() });
                Outcome::Pod(create(&mut self.pods, *pod, owner, failed))
            }
            Write::Create(Created::Sandbox(mut sandbox)) => {
                self.birth(&mut sandbox.metadata);
                Outcome::Sandbox(create(&mut self.sandboxes, *sandbox, owner, failed))
            }
            Write::Apply(applied) => self.apply(owner, applied, failed),
            Write::Replace(sandbox) => {
                let name = sandbox.name_any();
                assert_ours(&self.sandboxes[&name], owner);
                if let Some(failure) = failed {
                    return Outcome::Sandbox(ChildState::Failed(failure));
                }
                self.put_sandbox(*sandbox);
                Outcome::Sandbox(ownership::child_state(self.sandboxes.get(&name).cloned().map(Arc::new), owner))
            }
            Write::PatchClaim(claim) => {
                let live = &self.claims[&claim.name_any()];
                if live.annotations().contains_key(meta::CACHE) {
                    // A committed cache belongs to nobody, and any session may say that it is damaged.
                    assert_eq!((live.owner_references(), &live.spec), (&[][..], &claim.spec));
                    self.claims.insert(claim.name_any(), *claim);
                    return Outcome::Claim(ChildState::Absent);
                }
                assert_ours(live, owner);
                Outcome::Claim(update(&mut self.claims, *claim, owner, failed))
            }
            Write::PatchPod(pod) => {
                assert_ours(&self.pods[&pod.name_any()], owner);
                assert_eq!(self.pods[&pod.name_any()].spec, pod.spec, "a Pod cannot be changed");
                Outcome::Pod(update(&mut self.pods, *pod, owner, failed))
            }
            Write::Delete(target) => self.delete(owner, &target),
        }
    }

    fn apply(&mut self, owner: &ObjectMeta, applied: Applied, failed: Option<Failure>) -> Outcome {
        match applied {
            Applied::Service(mut service) => {
                may_write(self.services.get(&service.name_any()), &service.metadata, owner);
                self.birth(&mut service.metadata);
                Outcome::Service(apply(&mut self.services, *service, owner, failed))
            }
            Applied::NetworkPolicy(mut policy) => {
                may_write(self.policies.get(&policy.name_any()), &policy.metadata, owner);
                self.birth(&mut policy.metadata);
                Outcome::NetworkPolicy(apply(&mut self.policies, *policy, owner, failed))
            }
            Applied::Secret(mut secret) => {
                may_write(self.secrets.get(&secret.name_any()), &secret.metadata, owner);
                self.birth(&mut secret.metadata);
                Outcome::Secret(apply(&mut self.secrets, *secret, owner, failed))
            }
            Applied::ServiceAccount(mut account) => {
                may_write(self.accounts.get(&account.name_any()), &account.metadata, owner);
                self.birth(&mut account.metadata);
                Outcome::ServiceAccount(apply(&mut self.accounts, *account, owner, failed))
            }
            Applied::Role(mut role) => {
                may_write(self.roles.get(&role.name_any()), &role.metadata, owner);
                self.birth(&mut role.metadata);
                Outcome::Role(apply(&mut self.roles, *role, owner, failed))
            }
            Applied::RoleBinding(mut binding) => {
                may_write(self.bindings.get(&binding.name_any()), &binding.metadata, owner);
                self.birth(&mut binding.metadata);
                Outcome::RoleBinding(apply(&mut self.bindings, *binding, owner, failed))
            }
        }
    }

    fn delete(&mut self, owner: &ObjectMeta, Target { kind, name, uid, .. }: &Target) -> Outcome {
        match kind {
            plan::Kind::Pod => {
                let pod = self.pods.get_mut(name).unwrap();
                assert_ours(pod, owner);
                let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
                let has_ended =
                    |status: &ContainerStatus| status.state.as_ref().is_some_and(|state| state.terminated.is_some());
                if statuses.is_some_and(|statuses| statuses.iter().all(has_ended)) {
                    self.pods.remove(name);
                    return Outcome::Pod(ChildState::Absent);
                }
                pod.metadata.deletion_timestamp = Some(Time(self.now));
                Outcome::Pod(ChildState::Owned(Arc::new(pod.clone())))
            }
            plan::Kind::Sandbox => {
                let live = &self.sandboxes[name];
                // One that was made by hand deletes itself when its session is gone.
                if live.uid() != owner.uid {
                    assert_ours(live, owner);
                }
                self.remove_sandbox(name);
                Outcome::Sandbox(ChildState::Absent)
            }
            plan::Kind::PersistentVolumeClaim => Outcome::Claim(remove(&mut self.claims, name, owner)),
            plan::Kind::NetworkPolicy => Outcome::NetworkPolicy(remove(&mut self.policies, name, owner)),
            plan::Kind::Secret => Outcome::Secret(remove(&mut self.secrets, name, owner)),
            plan::Kind::ServiceAccount => Outcome::ServiceAccount(remove(&mut self.accounts, name, owner)),
            plan::Kind::Role => Outcome::Role(remove(&mut self.roles, name, owner)),
            plan::Kind::RoleBinding => Outcome::RoleBinding(remove(&mut self.bindings, name, owner)),
            plan::Kind::AigiseSession => {
                assert_eq!(*uid, owner.uid, "a session deletes itself and no other");
                self.remove_session(name);
                Outcome::Session(ChildState::Absent)
            }
            plan::Kind::Agent => {
                assert_eq!(*uid, owner.uid, "an agent deletes itself and no other");
                self.remove_agent(name);
                Outcome::Agent(ChildState::Absent)
            }
            plan::Kind::Service => panic!("nothing deletes a Service"),
        }
    }

    fn note_stage(&mut self, kind: &str, name: &str, stage: &str, writes: &[Write]) {
        if writes.is_empty() {
            return;
        }
        // The Pod that is made has a snapshot of its own.
        let stage = if stage.starts_with("NoPod(") { "NoPod" } else { stage };
        let _ = writeln!(self.log, "  {kind} {name}: {stage}");
        for write in writes {
            let kind: &str = write.kind().into();
            let _ = writeln!(self.log, "    {} {kind} {}", write.verb(), write.name());
        }
    }

    #[expect(clippy::too_many_arguments, reason = "one line of a transcript")]
    fn note_status(
        &mut self,
        kind: &str,
        name: &str,
        phase: Option<String>,
        before: &[Condition],
        after: &[Condition],
        events: Vec<ObjectEvent>,
        requeue: Requeue,
    ) {
        let _ = writeln!(self.log, "  {kind} {name} says {}", phase.unwrap_or_default());
        for condition in after {
            let same = before.iter().any(|old| {
                (&old.type_, &old.status, &old.reason, &old.message)
                    == (&condition.type_, &condition.status, &condition.reason, &condition.message)
            });
            if !same {
                let Condition { type_, status, reason, message, .. } = condition;
                let _ = writeln!(self.log, "    {type_}={status} {reason}: {message}");
            }
        }
        for event in events {
            let kind = if event.warning { "Warning" } else { "Normal" };
            let _ = writeln!(self.log, "    event {kind} {}", event.reason);
        }
        if requeue != Requeue::AwaitChange {
            let _ = writeln!(self.log, "    requeue {requeue:?}");
        }
    }
}

/// In its own words, so that a mistake in `plan::ownership` does not hide itself.
fn assert_ours<K: ResourceExt>(live: &K, owner: &ObjectMeta) {
    let controllers = live.owner_references().iter().filter(|reference| reference.controller == Some(true));
    let controllers: Vec<_> = controllers.map(|reference| Some(&reference.uid)).collect();
    let outlives = controllers.is_empty()
        && live.labels().get("app.kubernetes.io/managed-by").is_some_and(|manager| manager == "aigise-operator")
        && live.labels().get("aigise.dev/session-uid") == owner.uid.as_ref();
    assert!(outlives || controllers == [owner.uid.as_ref()], "P4: {} is not ours", live.name_any());
}

/// What a desired object says of its owner.
fn has_owner(desired: &ObjectMeta, owner: &ObjectMeta) {
    assert_eq!(ownership::owner_uid(desired), owner.uid.as_deref(), "every child has its owner");
}

/// The first apply reads before it writes; a later one has the UID of the object.
fn may_write<K: ResourceExt>(live: Option<&K>, desired: &ObjectMeta, owner: &ObjectMeta) {
    has_owner(desired, owner);
    if let Some(live) = live {
        assert_ours(live, owner);
        assert_eq!(desired.uid, live.uid(), "a later apply is pinned");
        assert_eq!(desired.resource_version, live.resource_version(), "to the version that was decided about");
    }
}

/// What POST leaves: where the name is taken, what has it.
fn create<K>(objects: &mut BTreeMap<String, K>, object: K, owner: &ObjectMeta, failed: Option<Failure>) -> ChildState<K>
where
    K: kube::Resource<DynamicType = ()> + Clone,
{
    has_owner(object.meta(), owner);
    let live = objects.get(&object.name_any()).cloned();
    match failed {
        Some(failure) if live.is_none() => ChildState::Failed(failure),
        _ => ownership::child_state(Some(Arc::new(objects.entry(object.name_any()).or_insert(object).clone())), owner),
    }
}

/// What a deletion leaves.
fn remove<K>(objects: &mut BTreeMap<String, K>, name: &str, owner: &ObjectMeta) -> ChildState<K>
where
    K: kube::Resource<DynamicType = ()>,
{
    assert_ours(&objects[name], owner);
    objects.remove(name);
    ChildState::Absent
}

/// What an update leaves.
fn update<K>(objects: &mut BTreeMap<String, K>, object: K, owner: &ObjectMeta, failed: Option<Failure>) -> ChildState<K>
where
    K: kube::Resource<DynamicType = ()> + Clone,
{
    has_owner(object.meta(), owner);
    if let Some(failure) = failed {
        return ChildState::Failed(failure);
    }
    objects.insert(object.name_any(), object.clone());
    ownership::child_state(Some(Arc::new(object)), owner)
}

/// What server-side apply leaves.
fn apply<K>(
    objects: &mut BTreeMap<String, K>,
    mut object: K,
    owner: &ObjectMeta,
    failed: Option<Failure>,
) -> ChildState<K>
where
    K: kube::Resource<DynamicType = ()> + Clone,
{
    if let Some(failure) = failed {
        return ChildState::Failed(failure);
    }
    let name = object.name_any();
    let version = objects.get(&name).and_then(|live| live.resource_version()?.parse::<u64>().ok());
    if let Some(live) = objects.get(&name) {
        object.meta_mut().uid = live.uid();
    }
    object.meta_mut().resource_version = Some(version.map_or(1, |version| version + 1).to_string());
    objects.insert(name, object.clone());
    ownership::child_state(Some(Arc::new(object)), owner)
}

/// P7: the transition time moves if and only if the status moves.
fn times_move_with_status(before: &[Condition], after: &[Condition]) {
    for new in after {
        if let Some(old) = before.iter().find(|old| old.type_ == new.type_) {
            let moved = old.last_transition_time != new.last_transition_time;
            let same_moment = old.last_transition_time == new.last_transition_time && old.status != new.status;
            assert!(same_moment || moved == (old.status != new.status), "{}: {old:?} {new:?}", new.type_);
        }
    }
}

fn condition(pod: &mut Pod, type_: &str, status: &str, message: &str, at: Timestamp) {
    let conditions = pod.status.get_or_insert_default().conditions.get_or_insert_default();
    conditions.retain(|condition| condition.type_ != type_);
    conditions.push(PodCondition {
        type_: type_.into(),
        status: status.into(),
        message: (!message.is_empty()).then(|| message.into()),
        last_transition_time: Some(Time(at)),
        ..PodCondition::default()
    });
}

fn terminated(code: i32, reason: Option<&str>, message: Option<String>, at: Timestamp, after: u32) -> ContainerState {
    ContainerState {
        terminated: Some(ContainerStateTerminated {
            started_at: Some(Time(at - Duration::from_secs(after.into()))),
            finished_at: Some(Time(at)),
            exit_code: code,
            reason: reason.map(Into::into),
            message,
            ..ContainerStateTerminated::default()
        }),
        ..ContainerState::default()
    }
}
