//! The sandbox controller.

use std::{sync::Arc, time::Duration};

use kube::ResourceExt;

use super::{
    Context, Error, Stop,
    cache::Found,
    live::{BUSY, Busy},
    work_queue::{Action, WorkQueue},
};
use crate::{
    api::{Agent, AigiseSession, Sandbox},
    apply::{self, Object},
    plan::{
        ChildState, Created, Lookup, Write,
        facts::{
            agent::may_exec,
            sandbox::{belonged_to_other_session, is_runner},
            session::role_name,
        },
        ownership,
        sandbox::{self, ExecAccess, Observed, Situation},
    },
};

/// Runs the sandbox controller until `stop` resolves.
pub async fn run(context: Arc<Context<Sandbox>>, requests: Arc<WorkQueue>, concurrency: u16, stop: Stop) {
    super::run(context, requests, concurrency, stop, reconcile).await;
}

async fn reconcile(sandbox: Arc<Sandbox>, context: Arc<Context<Sandbox>>) -> Result<Action, Error> {
    let Ok(mut observed) = observe(sandbox, &context).await else { return Ok(Action::requeue(BUSY)) };
    if sandbox::child_disappeared(&observed) && context.is_gone(&observed.sandbox).await {
        return Ok(Action::await_change());
    }
    let mut situation = Situation::of(&observed);
    context.enters((&situation.lifecycle).into());
    let mut writes = sandbox::plan(&observed, &situation);
    let wait = next_pod_waits(&writes, &observed.sandbox, &context);
    if wait.is_some() {
        writes.clear();
    }
    if !writes.is_empty() {
        let owner = observed.sandbox.metadata.clone();
        let record = |_: &str, outcome| observed.record(outcome);
        apply::execute(&context.client, context.counter(), &context.lines, &owner, writes, record).await;
        situation = Situation::of(&observed);
    }
    let report = sandbox::report(&observed, &situation);
    Ok(context.publish(&*observed.sandbox, report).await?.within(wait))
}

/// How long the creation of a sandbox's Pod is delayed because many Pods were created for the sandbox recently.
fn next_pod_waits(writes: &[Write], sandbox: &Sandbox, context: &Context<Sandbox>) -> Option<Duration> {
    writes.iter().find(|write| matches!(write, Write::Create(Created::Pod(_))))?;
    let uid = sandbox.uid().unwrap_or_default();
    let wait = context.pods.wait(&uid);
    if wait.is_none() {
        context.pods.done(uid);
    }
    wait
}

async fn observe(sandbox: Arc<Sandbox>, context: &Context<Sandbox>) -> Result<Observed, Busy> {
    let caches = &context.caches;
    let namespace = sandbox.namespace().unwrap_or_default();
    let session = match sandbox.spec.session.as_deref() {
        None => Lookup::NotNamed,
        Some(name) => match caches.session(name, &namespace) {
            Found::Object(session) if !belonged_to_other_session(&sandbox, &*session) => Lookup::Found(session),
            Found::Unreadable(unreadable) => Lookup::Failed(unreadable.failure()),
            // A session that is gone, or was replaced by another of the same name, has consequences, and the cache may be stale.
            // So the API server is asked in this case.
            Found::Object(_) | Found::Absent => context.look(&namespace, name).await,
        },
    };
    let siblings =
        sandbox.spec.session.as_deref().map(|session| {
            sandbox::siblings(&sandbox, |label| caches.first_of_type(&namespace, session, label).collect())
        });
    let attached = match &sandbox.spec.template.attach {
        None => Lookup::NotNamed,
        Some(attach) => context.live.pod(&namespace, &attach.pod_name).await?,
    };
    let agent = runs(&sandbox, context);
    let exec_access = match (agent.found(), session.found()) {
        (Some(agent), Some(session)) if may_exec(agent, &context.settings) => {
            Some(grant(&sandbox, agent, session, context).await)
        }
        _ => None,
    };
    // What an unreadable agent requires of its Pod is unknown, so the session counts as unreadable as well.
    let session = if let Lookup::Failed(failure) = &agent { Lookup::Failed(failure.clone()) } else { session };
    let now = context.now();
    Ok(Observed {
        session: session.map(|session| context.effective(session)),
        siblings: siblings.unwrap_or_default(),
        pod: caches.pods.get(&sandbox.name_any(), &namespace).child_state(&sandbox.metadata),
        attached,
        agent: agent.found().cloned(),
        exec_access,
        settings: context.settings.clone(),
        on_their_way: caches.starting_pods.since(&namespace, sandbox::burst_begins(now)),
        now,
        sandbox,
    })
}

/// The agent that a sandbox runs.
fn runs(sandbox: &Sandbox, context: &Context<Sandbox>) -> Lookup<Agent> {
    let owner = ownership::controller(&sandbox.metadata).filter(|_| is_runner(sandbox));
    let Some(owner) = owner else { return Lookup::NotNamed };
    match context.caches.agents.get(&owner.name, &sandbox.namespace().unwrap_or_default()) {
        Found::Object(agent) if agent.uid().as_ref() == Some(&owner.uid) => Lookup::Found(agent),
        Found::Object(_) | Found::Absent => Lookup::Missing,
        Found::Unreadable(unreadable) => Lookup::Failed(unreadable.failure()),
    }
}

/// The objects that give exec access to a sandbox that runs an agent.
async fn grant(sandbox: &Sandbox, agent: &Agent, session: &AigiseSession, context: &Context<Sandbox>) -> ExecAccess {
    let (name, namespace) = (sandbox.name_any(), sandbox.namespace().unwrap_or_default());
    let policy = match context.caches.policies.get(&name, &namespace) {
        Found::Object(policy) => sandbox::exec_access_state(Some(policy), sandbox, agent),
        other => other.child_state(&sandbox.metadata),
    };
    let binding = child(sandbox, agent, context).await;
    let earlier_role = match binding.owned() {
        Some(binding) if sandbox::is_of_earlier(binding) => child(sandbox, agent, context).await,
        Some(_) | None => ChildState::Absent,
    };
    ExecAccess {
        role: context.look(&namespace, &role_name(session)).await.child_state(&session.metadata),
        account: child(sandbox, agent, context).await,
        binding,
        policy,
        earlier_role,
    }
}

/// Reads a child that has no watch. All children of a sandbox have the name of the sandbox.
async fn child<K: Object>(sandbox: &Sandbox, agent: &Agent, context: &Context<Sandbox>) -> ChildState<K> {
    match context.look::<K>(&sandbox.namespace().unwrap_or_default(), &sandbox.name_any()).await {
        Lookup::Found(found) => sandbox::exec_access_state(Some(found), sandbox, agent),
        other => other.child_state(&sandbox.metadata),
    }
}
