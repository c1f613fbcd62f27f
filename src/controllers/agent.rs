//! The agent controller.

use std::sync::Arc;

use kube::ResourceExt;

use super::{
    Context, Error, Stop,
    cache::Found,
    rest_of,
    work_queue::{Action, WorkQueue},
};
use crate::{
    api::Agent,
    apply::{self, Object},
    plan::{
        ChildState, Lookup,
        agent::{self, LegacyExecAccess, Lifecycle, Observed, runner},
        facts::agent::{belonged_to_other_session, had_other_parent, runner_name},
    },
};

/// Runs the agent controller until `stop` resolves.
pub async fn run(context: Arc<Context<Agent>>, requests: Arc<WorkQueue>, concurrency: u16, stop: Stop) {
    super::run(context, requests, concurrency, stop, reconcile).await;
}

async fn reconcile(agent: Arc<Agent>, context: Arc<Context<Agent>>) -> Result<Action, Error> {
    let mut observed = observe(agent, &context).await;
    if agent::child_disappeared(&observed) && context.is_gone(&observed.agent).await {
        return Ok(Action::await_change());
    }
    let rest = rest_of(observed.children.len());
    let mut lifecycle = Lifecycle::of(&observed);
    context.enters((&lifecycle).into());
    let writes = agent::plan(&observed, &lifecycle);
    if !writes.is_empty() {
        let owner = observed.agent.metadata.clone();
        let record = |_: &str, outcome| observed.record(outcome);
        apply::execute(&context.client, context.counter(), &context.lines, &owner, writes, record).await;
        lifecycle = Lifecycle::of(&observed);
    }
    let report = agent::report(&observed, &lifecycle);
    Ok(context.publish(&*observed.agent, report).await?.not_before(rest))
}

async fn observe(agent: Arc<Agent>, context: &Context<Agent>) -> Observed {
    let caches = &context.caches;
    let namespace = agent.namespace().unwrap_or_default();
    let cached = |name: &str| caches.agents.get(name, &namespace).object();
    // A session or parent that is gone, or was replaced by another of the same name, has consequences, and the cache may be
    // stale. So the API server is asked in this case.
    let session = match caches.session(&agent.spec.session, &namespace) {
        Found::Object(session) if !belonged_to_other_session(&agent, &*session) => Lookup::Found(session),
        Found::Unreadable(unreadable) => Lookup::Failed(unreadable.failure()),
        Found::Object(_) | Found::Absent => context.look(&namespace, &agent.spec.session).await,
    };
    let parent = match agent.spec.parent.as_deref() {
        None => Lookup::NotNamed,
        Some(name) => match caches.agents.get(name, &namespace) {
            Found::Object(parent) if !had_other_parent(&agent, &parent) => Lookup::Found(parent),
            Found::Unreadable(unreadable) => Lookup::Failed(unreadable.failure()),
            Found::Object(_) | Found::Absent => context.look(&namespace, name).await,
        },
    };
    let runner = runner_name(&agent);
    let live = caches.sandboxes.get(&runner, &namespace).child_state(&agent.metadata);
    let policy = caches.policies.get(&runner, &namespace).child_state(&agent.metadata);
    let legacy_exec_access = if runner::is_over(&policy, &agent, &live, &context.settings) {
        let (account, role) = (child(&agent, context).await, child(&agent, context).await);
        Some(LegacyExecAccess { policy, account, role, binding: child(&agent, context).await })
    } else {
        None
    };
    Observed {
        runner: live,
        legacy_exec_access,
        settings: context.settings.clone(),
        session: session.map(|session| context.effective(session)),
        parent,
        ancestors: agent::ancestors(&agent, cached),
        children: caches.agents_in.children(&namespace, &agent.name_any()),
        sandboxes: agent::read_types(&agent)
            .iter()
            .flat_map(|label| caches.first_of_type(&namespace, &agent.spec.session, label))
            .collect(),
        write_error: None,
        now: context.now(),
        agent,
    }
}

/// Reads a child that has no watch. All children of an agent have the name of its runner.
async fn child<K: Object>(agent: &Agent, context: &Context<Agent>) -> ChildState<K> {
    let namespace = agent.namespace().unwrap_or_default();
    context.look::<K>(&namespace, &runner_name(agent)).await.child_state(&agent.metadata)
}
