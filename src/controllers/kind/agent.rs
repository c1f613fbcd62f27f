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
    controllers::{
        cache::{Caches, Change, Dispatcher},
        live::Busy,
        read::Read,
    },
    plan::{
        Lookup,
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

    async fn observe(agent: Arc<Self>, read: &impl Read) -> Result<(Observed, ()), Busy> {
        // A session or parent that is gone, or was replaced by another of the same name, has consequences, and the cache may be
        // stale. So the API server is asked in this case.
        let session = match read.session(&agent.spec.session) {
            Lookup::Found(session) if belonged_to_other_session(&agent, &*session) => {
                read.look(&agent.spec.session).await
            }
            Lookup::Missing => read.look(&agent.spec.session).await,
            known => known,
        };
        let parent = match agent.spec.parent.as_deref() {
            None => Lookup::NotNamed,
            Some(name) => match read.agent(name) {
                Lookup::Found(parent) if had_other_parent(&agent, &parent) => read.look(name).await,
                Lookup::Missing => read.look(name).await,
                known => known,
            },
        };
        let name = runner_name(&agent);
        let live = read.sandbox(&name).child_state(&agent.metadata);
        let policy = read.policy(&name).child_state(&agent.metadata);
        let legacy_exec_access = if runner::is_over(&policy, &agent, &live, &read.settings()) {
            let account = read.look(&name).await.child_state(&agent.metadata);
            let role = read.look(&name).await.child_state(&agent.metadata);
            let binding = read.look(&name).await.child_state(&agent.metadata);
            Some(LegacyExecAccess { policy, account, role, binding })
        } else {
            None
        };
        let observed = Observed {
            runner: live,
            legacy_exec_access,
            settings: read.settings(),
            session: session.map(|session| read.effective(session)),
            parent,
            ancestors: agent::ancestors(&agent, |name| read.agent(name).found().cloned()),
            children: read.children_of(&agent.name_any()),
            sandboxes: agent::read_types(&agent)
                .iter()
                .flat_map(|label| read.first_of_type(&agent.spec.session, label))
                .collect(),
            write_error: None,
            now: read.now(),
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
