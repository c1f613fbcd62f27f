//! A small world: the objects of one namespace, what users and the cluster do to them, and both controllers' decisions carried
//! out by hand. No client and no clock; the same events always give the same transcript.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::Write as _,
    sync::Arc,
    time::Duration,
};

use aigise_operator::{
    api::{AigiseSession, Sandbox, condition::Reason, meta},
    plan::{
        self, Child, Failure, Landed, Next, Note, Settings, Slot, When, Write, name, ownership, sandbox,
        session::{self, ConfigMapContent},
        volumes::SharedVolume,
    },
    staging,
};
use jiff::Timestamp;
use k8s_openapi::{
    api::{
        core::v1::{
            ContainerState, ContainerStateRunning, ContainerStateTerminated, ContainerStateWaiting, ContainerStatus,
            PersistentVolumeClaim, PersistentVolumeClaimStatus, Pod, PodCondition, PodStatus, Service,
        },
        networking::v1::NetworkPolicy,
    },
    apimachinery::pkg::apis::meta::v1::{Condition, ObjectMeta, Time},
};
use kube::ResourceExt;
use serde::Deserialize;

/// Something that a user or the cluster does.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Event {
    /// A user applies a session.
    ApplySession(Box<AigiseSession>),
    /// A user applies a Sandbox of their own.
    ApplySandbox(Box<Sandbox>),
    /// A user makes or changes a ConfigMap.
    ConfigMap { name: String, content: String },
    /// Somebody else makes an object of this kind and name.
    Foreign { kind: Kind, name: String },
    /// A user deletes a claim, and its Pods are gone.
    DeleteClaim(String),
    /// The API server refuses all writes of children from now on: 422, 403 or 500.
    #[serde(skip)]
    Refuses(Option<Reason>),
    /// The scheduler finds a node.
    Scheduled(String),
    /// The scheduler finds none.
    Unschedulable { pod: String, message: String },
    /// The kubelet cannot pull an image.
    ImageMissing(String),
    /// The container runs; without a probe that is all that readiness asks.
    Running(String),
    /// The stage Pod ends well.
    Staged { pod: String, roots: Vec<String> },
    /// The stage Pod ends with a message.
    StagingFailed { pod: String, message: String },
    /// A container ends.
    Exited { pod: String, code: i32 },
    /// A container is killed for memory.
    OutOfMemory(String),
    /// The kubelet evicts a Pod.
    Evicted(String),
    /// A Pod is asked to end.
    DeletePod(String),
    /// A Pod has ended and is gone.
    PodGone(String),
    /// A user deletes a Sandbox; garbage collection takes its Pod.
    DeleteSandbox(String),
    /// A user deletes the session; garbage collection takes what it owns.
    DeleteSession(String),
    /// Time passes.
    After(u32),
    /// The operator restarts: all is looked at again.
    Restart,
}

/// A kind of child.
#[derive(Clone, Copy, Debug, Deserialize)]
pub enum Kind {
    Pod,
    Claim,
    Service,
    NetworkPolicy,
    Sandbox,
}

/// The objects, by name.
#[derive(Default)]
pub struct World {
    pub now: Timestamp,
    pub sessions: BTreeMap<String, AigiseSession>,
    pub sandboxes: BTreeMap<String, Sandbox>,
    pub pods: BTreeMap<String, Pod>,
    pub claims: BTreeMap<String, PersistentVolumeClaim>,
    pub services: BTreeMap<String, Service>,
    pub policies: BTreeMap<String, NetworkPolicy>,
    pub config_maps: BTreeMap<String, String>,
    /// Writes so far, status included.
    pub writes: usize,
    /// What the API server says to every write of a child.
    pub refuses: Option<Reason>,
    uids: usize,
    pub log: String,
}

pub const NAMESPACE: &str = "lab";

pub fn settings() -> Settings {
    Settings { helper_image: "registry.example/aigise-operator:1".into(), helper_mount: plan::HelperMount::Image }
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

    fn change(&mut self, event: Event) {
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
            Event::ApplySandbox(sandbox) => self.put_sandbox(*sandbox),
            Event::ConfigMap { name, content } => {
                self.config_maps.insert(name, content);
            }
            Event::Foreign { kind, name } => self.put_foreign(kind, name),
            Event::DeleteClaim(name) => {
                self.claims.remove(&name);
            }
            Event::Refuses(reason) => self.refuses = reason,
            Event::Scheduled(name) => self.pod(&name, |pod| {
                pod.spec.get_or_insert_default().node_name = Some("node-1".into());
                condition(pod, "PodScheduled", "True", "");
            }),
            Event::Unschedulable { pod, message } => {
                self.pod(&pod, |pod| condition(pod, "PodScheduled", "False", &message));
            }
            Event::ImageMissing(name) => self.container(&name, |_| ContainerState {
                waiting: Some(ContainerStateWaiting {
                    reason: Some("ImagePullBackOff".into()),
                    message: Some("Back-off pulling image".into()),
                }),
                ..ContainerState::default()
            }),
            Event::Running(name) => self.container(&name, |status| {
                status.ready = true;
                ContainerState { running: Some(ContainerStateRunning::default()), ..ContainerState::default() }
            }),
            Event::Staged { pod, roots } => {
                let staged = staging::Staged { files: 3, kept: 0, roots };
                let report = staging::Report::Staged { volumes: [("tools".to_string(), staged)].into() };
                self.container(&pod, |_| terminated(0, None, Some(serde_json::to_string(&report).unwrap())));
            }
            Event::StagingFailed { pod, message } => {
                let report = staging::Report::Failed { message };
                self.container(&pod, |_| terminated(1, None, Some(serde_json::to_string(&report).unwrap())));
            }
            Event::Exited { pod, code } => self.container(&pod, |_| terminated(code, Some("Error"), None)),
            Event::OutOfMemory(name) => self.container(&name, |_| terminated(137, Some("OOMKilled"), None)),
            Event::Evicted(name) => self.pod(&name, |pod| {
                let status = pod.status.get_or_insert_default();
                status.phase = Some("Failed".into());
                status.reason = Some("Evicted".into());
                status.message = Some("The node was low on memory.".into());
            }),
            Event::DeletePod(name) => {
                let now = self.now;
                self.pod(&name, |pod| pod.metadata.deletion_timestamp = Some(Time(now)));
            }
            Event::PodGone(name) => {
                self.pods.remove(&name);
            }
            Event::DeleteSandbox(name) => self.remove_sandbox(&name),
            Event::DeleteSession(name) => {
                if let Some(uid) = self.sessions.remove(&name).and_then(|session| session.uid()) {
                    let owned = |meta: &ObjectMeta| ownership::controller(meta).is_some_and(|owner| owner.uid == uid);
                    self.claims.retain(|_, claim| !owned(&claim.metadata));
                    self.services.retain(|_, service| !owned(&service.metadata));
                    self.policies.retain(|_, policy| !owned(&policy.metadata));
                    self.pods.retain(|_, pod| !owned(&pod.metadata));
                    let sandboxes: Vec<_> = self
                        .sandboxes
                        .values()
                        .filter(|sandbox| owned(&sandbox.metadata))
                        .map(ResourceExt::name_any)
                        .collect();
                    for name in sandboxes {
                        self.remove_sandbox(&name);
                    }
                }
            }
            Event::After(seconds) => self.now += Duration::from_secs(seconds.into()),
            Event::Restart => {}
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
        } else {
            self.birth(&mut sandbox.metadata);
            self.sandboxes.insert(name, sandbox);
        }
    }

    fn remove_sandbox(&mut self, name: &str) {
        if let Some(uid) = self.sandboxes.remove(name).and_then(|sandbox| sandbox.uid()) {
            self.pods.retain(|_, pod| ownership::controller(&pod.metadata).is_none_or(|owner| owner.uid != uid));
        }
    }

    fn pod(&mut self, name: &str, change: impl FnOnce(&mut Pod)) {
        // What the cluster does to a Pod that is not there, or not ours, does not happen.
        if let Some(pod) = self.pods.get_mut(name).filter(|pod| ownership::controller(&pod.metadata).is_some()) {
            change(pod);
        }
    }

    fn container(&mut self, name: &str, state: impl FnOnce(&mut ContainerStatus) -> ContainerState) {
        self.pod(name, |pod| {
            let container = if name.ends_with("--stage") { meta::STAGE_CONTAINER } else { meta::SANDBOX_CONTAINER };
            let mut status = ContainerStatus {
                name: container.into(),
                image: "registry.example/image:1".into(),
                ..ContainerStatus::default()
            };
            status.state = Some(state(&mut status));
            pod.status.get_or_insert_default().container_statuses = Some(vec![status]);
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
            if self.writes == before {
                return round;
            }
        }
        20
    }

    pub fn observe_session(&self, name: &str) -> session::Observed {
        let session = &self.sessions[name];
        let slot = |found: Option<&Pod>| ownership::slot(found.cloned().map(Arc::new), &session.metadata);
        let mut names: BTreeSet<_> = self
            .sandboxes
            .values()
            .filter(|sandbox| ownership::controller(&sandbox.metadata).map(|owner| owner.uid.clone()) == session.uid())
            .map(ResourceExt::name_any)
            .collect();
        names.extend(session.spec.sandboxes.keys().filter_map(|t| Some(name::child(name, name::Label::of(t).ok()?))));
        let claims = SharedVolume::ALL.map(|volume| {
            let found = self.claims.get(&name::child(name, volume)).cloned().map(Arc::new);
            (volume, ownership::slot(found, &session.metadata))
        });
        let mut observed = session::Observed {
            session: Arc::new(session.clone()),
            claims: claims.into(),
            stage_pod: slot(self.pods.get(&name::child(name, "stage"))),
            service: ownership::slot(self.services.get(name).cloned().map(Arc::new), &session.metadata),
            policy: ownership::slot(self.policies.get(name).cloned().map(Arc::new), &session.metadata),
            sandboxes: names
                .into_iter()
                .map(|name| {
                    let found = self.sandboxes.get(&name).cloned().map(Arc::new);
                    let slot = ownership::slot(found, &session.metadata);
                    (name, slot)
                })
                .collect(),
            config_maps: BTreeMap::new(),
        };
        if session::wants_sources(&observed) {
            let content = |name: &String| match self.config_maps.get(name) {
                Some(content) => ConfigMapContent::Hash(content.clone()),
                None => ConfigMapContent::Missing,
            };
            observed.config_maps =
                session::config_maps(session).into_iter().map(|name| (name.clone(), content(&name))).collect();
        }
        observed
    }

    pub fn observe_sandbox(&self, name: &str) -> sandbox::Observed {
        let sandbox = &self.sandboxes[name];
        sandbox::Observed {
            session: sandbox.spec.session.as_ref().and_then(|name| self.sessions.get(name)).cloned().map(Arc::new),
            pod: ownership::slot(self.pods.get(name).cloned().map(Arc::new), &sandbox.metadata),
            sandbox: Arc::new(sandbox.clone()),
        }
    }

    fn reconcile_session(&mut self, name: &str) {
        let mut observed = self.observe_session(name);
        let writes = session::plan(&observed, &settings(), self.now);
        self.note_stage("session", name, &format!("{:?}", session::Stage::of(&observed)), &writes);
        let owner = observed.session.metadata.clone();
        for write in writes {
            let name = write.child().name().to_string();
            let landed = self.write(&owner, write);
            observed.absorb(&name, landed);
        }
        let report = session::report(&observed, self.now);
        let before = observed.session.status.clone().unwrap_or_default();
        times_move_with_status(&before.conditions, &report.status.conditions);
        if report.when != When::Later {
            self.writes += 1;
            let phase = report.status.phase.map(|phase| phase.to_string());
            self.note_status(
                "session",
                name,
                phase,
                &before.conditions,
                &report.status.conditions,
                report.note,
                report.next,
            );
            if let Some(session) = self.sessions.get_mut(name) {
                session.status = Some(report.status);
            }
        }
    }

    fn reconcile_sandbox(&mut self, name: &str) {
        let mut observed = self.observe_sandbox(name);
        let writes = sandbox::plan(&observed, &settings());
        self.note_stage("sandbox", name, &format!("{:?}", sandbox::Stage::of(&observed)), &writes);
        let owner = observed.sandbox.metadata.clone();
        for write in writes {
            let landed = self.write(&owner, write);
            observed.absorb(landed);
        }
        let report = sandbox::report(&observed, self.now);
        let before = observed.sandbox.status.clone().unwrap_or_default();
        times_move_with_status(&before.conditions, &report.status.conditions);
        if report.when != When::Later {
            self.writes += 1;
            let phase = report.status.state.map(|state| format!("state={state}"));
            self.note_status(
                "sandbox",
                name,
                phase,
                &before.conditions,
                &report.status.conditions,
                report.note,
                report.next,
            );
            if let Some(sandbox) = self.sandboxes.get_mut(name) {
                sandbox.status = Some(report.status);
            }
        }
    }

    /// Carries out one write as the API server would, and sees to it that nothing is touched that is not the owner's (P4).
    fn write(&mut self, owner: &ObjectMeta, write: Write) -> Landed {
        // What is refused changes nothing, and is tried again.
        self.writes += usize::from(self.refuses.is_none() || matches!(write, Write::Delete(_)));
        let failed = self.refuses.map(|reason| Failure { reason, message: "The API server refused it.".into() });
        match write {
            Write::Ensure(child) => match child {
                Child::Claim(mut claim) => {
                    self.birth(&mut claim.metadata);
                    let phase = Some("Bound".into());
                    claim.status =
                        Some(PersistentVolumeClaimStatus { phase, ..PersistentVolumeClaimStatus::default() });
                    Landed::Claim(create(&mut self.claims, *claim, owner, failed))
                }
                Child::Pod(mut pod) => {
                    self.birth(&mut pod.metadata);
                    pod.status = Some(PodStatus { phase: Some("Pending".into()), ..PodStatus::default() });
                    Landed::Pod(create(&mut self.pods, *pod, owner, failed))
                }
                Child::Service(mut service) => {
                    may_write(self.services.get(&service.name_any()), &service.metadata, owner);
                    self.birth(&mut service.metadata);
                    Landed::Service(apply(&mut self.services, *service, owner, failed))
                }
                Child::NetworkPolicy(mut policy) => {
                    may_write(self.policies.get(&policy.name_any()), &policy.metadata, owner);
                    self.birth(&mut policy.metadata);
                    Landed::NetworkPolicy(apply(&mut self.policies, *policy, owner, failed))
                }
                Child::Sandbox(sandbox) => {
                    let name = sandbox.name_any();
                    may_write(self.sandboxes.get(&name), &sandbox.metadata, owner);
                    if let Some(failure) = failed {
                        return Landed::Sandbox(Slot::Failed(failure));
                    }
                    self.put_sandbox(*sandbox);
                    Landed::Sandbox(ownership::slot(self.sandboxes.get(&name).cloned().map(Arc::new), owner))
                }
            },
            Write::Delete(child) => match child {
                Child::Pod(mut pod) => {
                    let name = pod.name_any();
                    assert_ours(&self.pods[&name], owner);
                    let statuses = pod.status.as_ref().and_then(|status| status.container_statuses.as_ref());
                    let has_ended = |status: &ContainerStatus| {
                        status.state.as_ref().is_some_and(|state| state.terminated.is_some())
                    };
                    if statuses.is_some_and(|statuses| statuses.iter().all(has_ended)) {
                        self.pods.remove(&name);
                        return Landed::Pod(Slot::Absent);
                    }
                    pod.metadata.deletion_timestamp = Some(Time(self.now));
                    self.pods.insert(name, Pod::clone(&pod));
                    Landed::Pod(Slot::Ours(Arc::new(*pod)))
                }
                Child::Sandbox(sandbox) => {
                    assert_ours(&self.sandboxes[&sandbox.name_any()], owner);
                    self.remove_sandbox(&sandbox.name_any());
                    Landed::Sandbox(Slot::Absent)
                }
                other => panic!("nothing deletes a {}", other.kind()),
            },
        }
    }

    fn note_stage(&mut self, kind: &str, name: &str, stage: &str, writes: &[Write]) {
        if writes.is_empty() {
            return;
        }
        let _ = writeln!(self.log, "  {kind} {name}: {stage}");
        for write in writes {
            let (verb, child) = match write {
                Write::Ensure(child) => ("ensure", child),
                Write::Delete(child) => ("delete", child),
            };
            let _ = writeln!(self.log, "    {verb} {} {}", child.kind(), child.name());
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
        note: Option<Note>,
        next: Next,
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
        if let Some(note) = note {
            let kind = if note.warning { "Warning" } else { "Normal" };
            let _ = writeln!(self.log, "    event {kind} {}", note.reason);
        }
        if next != Next::OnChange {
            let _ = writeln!(self.log, "    next {next:?}");
        }
    }
}

/// In its own words, so that a mistake in `plan::ownership` does not hide itself.
fn assert_ours<K: ResourceExt>(live: &K, owner: &ObjectMeta) {
    let controllers = live.owner_references().iter().filter(|reference| reference.controller == Some(true));
    let controllers: Vec<_> = controllers.map(|reference| Some(&reference.uid)).collect();
    assert_eq!(controllers, [owner.uid.as_ref()], "P4: {} is not ours", live.name_any());
}

/// The first apply looks before it writes; a later one names the UID of what it speaks of.
fn may_write<K: ResourceExt>(live: Option<&K>, desired: &ObjectMeta, owner: &ObjectMeta) {
    assert_eq!(ownership::controller(desired).map(|owner| &owner.uid), owner.uid.as_ref(), "every child has its owner");
    if let Some(live) = live {
        assert_ours(live, owner);
        assert_eq!(desired.uid, live.uid(), "a later apply is pinned");
    }
}

/// What POST leaves: where the name is taken, what has it.
fn create<K>(objects: &mut BTreeMap<String, K>, object: K, owner: &ObjectMeta, failed: Option<Failure>) -> Slot<K>
where
    K: kube::Resource<DynamicType = ()> + Clone,
{
    assert_eq!(
        ownership::controller(object.meta()).map(|owner| &owner.uid),
        owner.uid.as_ref(),
        "every child has its owner"
    );
    let live = objects.get(&object.name_any()).cloned();
    match failed {
        Some(failure) if live.is_none() => Slot::Failed(failure),
        _ => ownership::slot(Some(Arc::new(objects.entry(object.name_any()).or_insert(object).clone())), owner),
    }
}

/// What server-side apply leaves.
fn apply<K>(objects: &mut BTreeMap<String, K>, mut object: K, owner: &ObjectMeta, failed: Option<Failure>) -> Slot<K>
where
    K: kube::Resource<DynamicType = ()> + Clone,
{
    if let Some(failure) = failed {
        return Slot::Failed(failure);
    }
    let name = object.name_any();
    if let Some(live) = objects.get(&name) {
        object.meta_mut().uid = live.uid();
    }
    objects.insert(name, object.clone());
    ownership::slot(Some(Arc::new(object)), owner)
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

fn condition(pod: &mut Pod, type_: &str, status: &str, message: &str) {
    let conditions = pod.status.get_or_insert_default().conditions.get_or_insert_default();
    conditions.retain(|condition| condition.type_ != type_);
    conditions.push(PodCondition {
        type_: type_.into(),
        status: status.into(),
        message: (!message.is_empty()).then(|| message.into()),
        ..PodCondition::default()
    });
}

fn terminated(code: i32, reason: Option<&str>, message: Option<String>) -> ContainerState {
    ContainerState {
        terminated: Some(ContainerStateTerminated {
            exit_code: code,
            reason: reason.map(Into::into),
            message,
            ..ContainerStateTerminated::default()
        }),
        ..ContainerState::default()
    }
}
