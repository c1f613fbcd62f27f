//! Agents: what the agent controller reads, and what a change of an agent enqueues.

use std::sync::Arc;

use kube::ResourceExt;

use super::{KindCache, Reconciled};
use crate::{
    api::{
        Agent, AigiseSession, Sandbox,
        agent::{AgentState, Runner},
        condition::RUNTIME_HEALTHY,
    },
    apply::Object,
    controllers::{
        Shared,
        cache::{Caches, Change, Dispatcher, Found},
        live::Busy,
    },
    plan::{
        ChildState, Lookup,
        agent::{self, LegacyExecAccess, Observed, runner},
        facts::agent::{belonged_to_other_session, had_other_parent, runner_name},
    },
};

impl Reconciled for Agent {
    const CONTROLLER: &'static str = "agent";
    type Observed = Observed;
    type Memory = ();
    type Phase = AgentState;

    fn of(caches: &Caches) -> &KindCache<Self> {
        &caches.agents
    }

    fn changed(dispatcher: &Dispatcher, change: &Change<'_, Self>) {
        dispatcher.agents_in.update(change);
        let Some(agent) = change.object() else { return };
        let namespace = agent.namespace().unwrap_or_default();
        if change.after.is_some() && (change.touches_spec() || change.touches(health)) {
            dispatcher.enqueue_all::<Agent>([agent.name_any()], &namespace);
        }
        if change.touches(|agent| (agent.uid(), agent.spec.parent.clone(), agent.spec.session.clone())) {
            let above =
                [change.before, change.after].into_iter().flatten().filter_map(|agent| agent.spec.parent.clone());
            let below = dispatcher.agents_in.descendants(&namespace, &agent.name_any());
            dispatcher.enqueue_all::<Agent>(below.into_iter().chain(above), &namespace);
        }
        // The exec access of the agent's Pod is not part of its Sandbox.
        if change.touches(|agent| agent.spec.runner.as_ref().map(Runner::may_exec)) && agent.spec.runner.is_some() {
            dispatcher.enqueue::<Sandbox>(&runner_name(agent), &namespace);
        }
        if change.touches(|agent| (agent.metadata.generation, agent.uid(), agent.status.clone())) {
            dispatcher.enqueue::<AigiseSession>(&agent.spec.session, &namespace);
        }
    }

    async fn observe(agent: Arc<Self>, shared: &Shared) -> Result<(Observed, ()), Busy> {
        let caches = &shared.caches;
        let namespace = agent.namespace().unwrap_or_default();
        let cached = |name: &str| caches.agents.get(name, &namespace).object();
        // A session or parent that is gone, or was replaced by another of the same name, has consequences, and the cache may be
        // stale. So the API server is asked in this case.
        let session = match caches.sessions.latest(&agent.spec.session, &namespace) {
            Found::Object(session) if !belonged_to_other_session(&agent, &*session) => Lookup::Found(session),
            Found::Unreadable(unreadable) => Lookup::Failed(unreadable.failure()),
            Found::Object(_) | Found::Absent => shared.look(&namespace, &agent.spec.session).await,
        };
        let parent = match agent.spec.parent.as_deref() {
            None => Lookup::NotNamed,
            Some(name) => match caches.agents.get(name, &namespace) {
                Found::Object(parent) if !had_other_parent(&agent, &parent) => Lookup::Found(parent),
                Found::Unreadable(unreadable) => Lookup::Failed(unreadable.failure()),
                Found::Object(_) | Found::Absent => shared.look(&namespace, name).await,
            },
        };
        let runner = runner_name(&agent);
        let live = caches.sandboxes.get(&runner, &namespace).child_state(&agent.metadata);
        let policy = caches.policies.get(&runner, &namespace).child_state(&agent.metadata);
        let legacy_exec_access = if runner::is_over(&policy, &agent, &live, &shared.settings) {
            let (account, role) = (child(&agent, shared).await, child(&agent, shared).await);
            Some(LegacyExecAccess { policy, account, role, binding: child(&agent, shared).await })
        } else {
            None
        };
        let observed = Observed {
            runner: live,
            legacy_exec_access,
            settings: shared.settings.clone(),
            session: session.map(|session| shared.effective(session)),
            parent,
            ancestors: agent::ancestors(&agent, cached),
            children: caches.agents_in.children(&namespace, &agent.name_any()),
            sandboxes: agent::read_types(&agent)
                .iter()
                .flat_map(|label| caches.first_of_type(&namespace, &agent.spec.session, label))
                .collect(),
            write_error: None,
            now: shared.now(),
            agent,
        };
        Ok((observed, ()))
    }
}

/// The condition that the program which runs an agent reports about it.
fn health(agent: &Agent) -> Option<(String, String, String)> {
    let mut conditions = agent.status.iter().flat_map(|status| &status.conditions);
    let health = conditions.find(|condition| condition.type_ == RUNTIME_HEALTHY)?;
    Some((health.status.clone(), health.reason.clone(), health.message.clone()))
}

/// Reads a child that has no watch. All children of an agent have the name of its runner.
async fn child<K: Object>(agent: &Agent, shared: &Shared) -> ChildState<K> {
    let namespace = agent.namespace().unwrap_or_default();
    shared.look::<K>(&namespace, &runner_name(agent)).await.child_state(&agent.metadata)
}
