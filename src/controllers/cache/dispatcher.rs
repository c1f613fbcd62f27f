//! Enqueues the objects that a change affects: only those whose reconcile reads what has changed.

use std::sync::Arc;

use k8s_openapi::api::{
    core::v1::{PersistentVolumeClaim, Pod, Service},
    networking::v1::NetworkPolicy,
};
use kube::{Resource, ResourceExt};

use super::{AgentsIn, Change, ReadYourWrites, SandboxesIn, StartingPods, WorkQueue};
use crate::{
    api::{Agent, AigiseSession, Sandbox, agent::Runner, condition::RUNTIME_HEALTHY, meta, sandbox::SandboxState},
    plan::{
        facts::{
            agent::runner_name,
            sandbox::is_runner,
            session::{has_failed, has_volumes, is_inactive},
        },
        ownership::{self, label},
        pod,
    },
};

/// The work queues of the controllers. Clones share the same queues.
#[derive(Clone, Debug, Default)]
pub struct WorkQueues {
    /// The queue of the session controller.
    pub sessions: Arc<WorkQueue>,
    /// The queue of the sandbox controller.
    pub sandboxes: Arc<WorkQueue>,
    /// The queue of the agent controller.
    pub agents: Arc<WorkQueue>,
}

/// Enqueues what a change affects, and maintains the indexes that are derived from the caches.
pub(super) struct Dispatcher {
    work_queues: WorkQueues,
    pub(super) starting_pods: Arc<StartingPods>,
    pub(super) sandboxes_in: Arc<SandboxesIn>,
    pub(super) agents_in: Arc<AgentsIn>,
    pub(super) written_sessions: Arc<ReadYourWrites<AigiseSession>>,
    pub(super) written_sandboxes: Arc<ReadYourWrites<Sandbox>>,
    pub(super) written_agents: Arc<ReadYourWrites<Agent>>,
}

impl Dispatcher {
    pub(super) fn new(work_queues: WorkQueues) -> Self {
        Self {
            work_queues,
            starting_pods: Arc::default(),
            sandboxes_in: Arc::default(),
            agents_in: Arc::default(),
            written_sessions: Arc::default(),
            written_sandboxes: Arc::default(),
            written_agents: Arc::default(),
        }
    }

    pub(super) fn session_changed(&self, change: &Change<'_, AigiseSession>) {
        let Some(session) = change.object() else { return };
        let (name, namespace) = (session.name_any(), session.namespace().unwrap_or_default());
        self.written_sessions.observe(session, change.after.is_none());
        if change.touches_spec() {
            self.enqueue_session(&name, &namespace);
        }
        let from_file =
            |session: &AigiseSession| session.status.as_ref().and_then(|status| status.configuration.clone());
        // These are the fields that a sandbox reads from its session after its Pod is created. When a session is gone, only the Sandboxes
        // that users created need a reconcile: the garbage collector deletes the others.
        let hand_made_only = change.after.is_none()
            || !change.touches(|session| {
                let has = (session.spec.mcp_services.clone(), session.spec.enabled_skills.clone());
                let read_by_children = (is_inactive(session), has_failed(session), from_file(session));
                (session.uid(), restart_request(session), has, read_by_children)
            });
        if !hand_made_only || change.touches(|session| (session.metadata.generation, has_volumes(session))) {
            for sandbox in self.sandboxes_in.of_session(&namespace, &name) {
                // The Sandboxes that a session creates have `--` in their names.
                if !hand_made_only || !sandbox.contains("--") {
                    self.enqueue_sandbox(&sandbox, &namespace);
                }
            }
        }
        if change.touches(|session| {
            let volumes = session.status.as_ref().and_then(|status| status.volumes.as_ref());
            let skills = volumes.and_then(|volumes| Some(volumes.tools.as_ref()?.skills.clone()));
            let read_by_children = (is_inactive(session), has_volumes(session), skills, from_file(session));
            (session.uid(), session.metadata.generation, read_by_children)
        }) {
            self.enqueue_agents(self.agents_in.of_session(&namespace, &name), &namespace);
        }
    }

    pub(super) fn sandbox_changed(&self, change: &Change<'_, Sandbox>) {
        let first_before = self.sandboxes_in.first_beside(change);
        self.sandboxes_in.update(change);
        let first = self.sandboxes_in.first_beside(change);
        let Some(sandbox) = change.object() else { return };
        let namespace = sandbox.namespace().unwrap_or_default();
        self.written_sandboxes.observe(sandbox, change.after.is_none());
        if change.touches_spec() && change.after.is_some() {
            self.enqueue_sandbox(&sandbox.name_any(), &namespace);
        }
        if change.touches_spec() || change.touches(|sandbox| sandbox.status.clone()) {
            self.enqueue_owners(change);
        }
        let Some(session) = &sandbox.spec.session else { return };
        // Only the first sandboxes of a type are read, however many there are.
        let name = sandbox.name_any();
        if change.touches(state) && (first_before.contains(&name) || first.contains(&name)) {
            for sandbox in [change.before, change.after].into_iter().flatten() {
                for name in self.sandboxes_in.dependents(sandbox) {
                    self.enqueue_sandbox(&name, &namespace);
                }
                self.enqueue_agents(self.agents_in.readers(sandbox), &namespace);
            }
        }
        // The session creates its role for agents once an agent has a Sandbox with exec access.
        if is_runner(sandbox) && change.touches(|sandbox| label(&sandbox.metadata, meta::SANDBOX_EXEC).is_some()) {
            self.enqueue_session(session, &namespace);
        }
        // When a sandbox leaves the first of its type, the next sandbox of the type takes its place.
        if !first_before.is_subset(&first) {
            for name in first.iter().filter(|name| !name.contains("--")) {
                self.enqueue_sandbox(name, &namespace);
            }
        }
    }

    pub(super) fn agent_changed(&self, change: &Change<'_, Agent>) {
        self.agents_in.update(change);
        let Some(agent) = change.object() else { return };
        let namespace = agent.namespace().unwrap_or_default();
        self.written_agents.observe(agent, change.after.is_none());
        if change.after.is_some() && (change.touches_spec() || change.touches(health)) {
            self.enqueue_agents([agent.name_any()], &namespace);
        }
        if change.touches(|agent| (agent.uid(), agent.spec.parent.clone(), agent.spec.session.clone())) {
            let above =
                [change.before, change.after].into_iter().flatten().filter_map(|agent| agent.spec.parent.clone());
            let below = self.agents_in.descendants(&namespace, &agent.name_any());
            self.enqueue_agents(below.into_iter().chain(above), &namespace);
        }
        // The exec access of the agent's Pod is not part of its Sandbox.
        if change.touches(|agent| agent.spec.runner.as_ref().map(Runner::may_exec)) && agent.spec.runner.is_some() {
            self.enqueue_sandbox(&runner_name(agent), &namespace);
        }
        if change.touches(|agent| (agent.metadata.generation, agent.uid(), agent.status.clone())) {
            self.enqueue_session(&agent.spec.session, &namespace);
        }
    }

    pub(super) fn pod_changed(&self, change: &Change<'_, Pod>) {
        self.starting_pods.update(change);
        // The owner has just created this Pod, and its own reconcile sees to the requeue.
        let is_unheard_of = change.before.is_none() && change.after.is_some_and(pod::is_unheard_of);
        if !is_unheard_of && (change.touches_spec() || change.touches(pod::facts)) {
            self.enqueue_owners(change);
        }
        // The session's role for agents lists the session's Pods by name.
        let Some(pod) = change.object() else { return };
        let (session, namespace) = (label(&pod.metadata, meta::SESSION), pod.namespace().unwrap_or_default());
        if let Some(session) = session.filter(|session| self.agents_in.any_with_exec(&namespace, session))
            && change.touches(|pod| (pod.uid(), pod.metadata.deletion_timestamp.clone()))
        {
            self.enqueue_session(session, &namespace);
        }
    }

    pub(super) fn claim_changed(&self, change: &Change<'_, PersistentVolumeClaim>) {
        // The scheduler and the volume binder write annotations that no controller here reads.
        if change.touches(|claim| {
            let meta = &claim.metadata;
            let phase = claim.status.as_ref().and_then(|status| status.phase.clone());
            (
                meta.uid.clone(),
                meta.deletion_timestamp.clone(),
                meta.owner_references.clone(),
                claim.spec.clone(),
                phase,
            )
        }) {
            self.enqueue_owners(change);
        }
    }

    pub(super) fn service_changed(&self, change: &Change<'_, Service>) {
        if change.touches(|service| service.spec.clone()) {
            self.enqueue_owners(change);
        }
    }

    pub(super) fn policy_changed(&self, change: &Change<'_, NetworkPolicy>) {
        if change.touches(|policy| policy.spec.clone()) {
            self.enqueue_owners(change);
        }
    }

    pub(super) fn enqueue_session(&self, name: &str, namespace: &str) {
        self.work_queues.sessions.add(namespace, name);
    }

    pub(super) fn enqueue_sandbox(&self, name: &str, namespace: &str) {
        self.work_queues.sandboxes.add(namespace, name);
    }

    pub(super) fn enqueue_agents(&self, names: impl IntoIterator<Item = String>, namespace: &str) {
        for name in names {
            self.work_queues.agents.add(namespace, &name);
        }
    }

    /// Enqueues the owner of a child, and its previous owner.
    fn enqueue_owners<K: Resource>(&self, change: &Change<'_, K>) {
        for child in [change.before, change.after].into_iter().flatten().map(Resource::meta) {
            let namespace = child.namespace.as_deref().unwrap_or_default();
            match ownership::controller(child) {
                Some(owner) if owner.kind == "AigiseSession" => self.enqueue_session(&owner.name, namespace),
                Some(owner) if owner.kind == "Sandbox" => self.enqueue_sandbox(&owner.name, namespace),
                Some(owner) if owner.kind == "Agent" => self.enqueue_agents([owner.name.clone()], namespace),
                Some(_) => {} // another controller's
                // A child that has to outlive its session has only a label.
                None => {
                    if let Some(session) = label(child, meta::SESSION) {
                        self.enqueue_session(session, namespace);
                    }
                }
            }
        }
    }
}

fn state(sandbox: &Sandbox) -> Option<SandboxState> {
    sandbox.status.as_ref()?.state
}

fn restart_request(session: &AigiseSession) -> Option<String> {
    session.annotations().get(meta::RESTART).cloned()
}

/// The condition that the program which runs an agent reports about it.
fn health(agent: &Agent) -> Option<(String, String, String)> {
    let mut conditions = agent.status.iter().flat_map(|status| &status.conditions);
    let health = conditions.find(|condition| condition.type_ == RUNTIME_HEALTHY)?;
    Some((health.status.clone(), health.reason.clone(), health.message.clone()))
}
