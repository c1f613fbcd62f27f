//! Sandboxes: what the sandbox controller reads, and what a change of a Sandbox enqueues.

use std::{sync::Arc, time::Duration};

use kube::ResourceExt;

use super::{KindCache, Reconciled};
use crate::{
    api::{
        Agent, AigiseSession, Sandbox, meta,
        sandbox::{SandboxPhase, SandboxState},
    },
    controllers::{
        Shared,
        cache::{Caches, Change, Dispatcher},
        live::Busy,
        read::Read,
    },
    plan::{
        ChildState, Created, Lookup, Write,
        facts::{
            agent::may_exec,
            sandbox::{belonged_to_other_session, is_runner},
            session::role_name,
        },
        name,
        ownership::{self, label},
        sandbox::{self, ExecAccess, Observed},
    },
};

impl Reconciled for Sandbox {
    const CONTROLLER: &'static str = "sandbox";
    type Observed = Observed;
    type Memory = ();
    type Phase = SandboxPhase;

    fn of(caches: &Caches) -> &KindCache<Self> {
        &caches.sandboxes
    }

    fn changed(dispatcher: &Dispatcher, change: &Change<'_, Self>) {
        let first_before = dispatcher.sandboxes_in.first_beside(change);
        dispatcher.sandboxes_in.update(change);
        let first = dispatcher.sandboxes_in.first_beside(change);
        let Some(sandbox) = change.object() else { return };
        let namespace = sandbox.namespace().unwrap_or_default();
        if change.touches_spec() && change.after.is_some() {
            dispatcher.enqueue::<Sandbox>(&sandbox.name_any(), &namespace);
        }
        if change.touches_spec() || change.touches(|sandbox| sandbox.status.clone()) {
            dispatcher.enqueue_owners(change);
        }
        let Some(session) = &sandbox.spec.session else { return };
        // Only the first sandboxes of a type are read, however many there are.
        let name = sandbox.name_any();
        if change.touches(state) && (first_before.contains(&name) || first.contains(&name)) {
            for sandbox in [change.before, change.after].into_iter().flatten() {
                for name in dispatcher.sandboxes_in.dependents(sandbox) {
                    dispatcher.enqueue::<Sandbox>(&name, &namespace);
                }
                dispatcher.enqueue_all::<Agent>(dispatcher.agents_in.readers(sandbox), &namespace);
            }
        }
        // The session creates its role for agents once an agent has a Sandbox with exec access.
        if is_runner(sandbox) && change.touches(|sandbox| label(&sandbox.metadata, meta::SANDBOX_EXEC).is_some()) {
            dispatcher.enqueue::<AigiseSession>(session, &namespace);
        }
        // When a sandbox leaves the first of its type, the next sandbox of the type takes its place.
        if !first_before.is_subset(&first) {
            for name in first.iter().filter(|name| !name::is_derived(name)) {
                dispatcher.enqueue::<Sandbox>(name, &namespace);
            }
        }
    }

    async fn observe(sandbox: Arc<Self>, read: &impl Read) -> Result<(Observed, ()), Busy> {
        let session = match sandbox.spec.session.as_deref() {
            None => Lookup::NotNamed,
            Some(name) => match read.session(name) {
                // A session that is gone, or was replaced by another of the same name, has consequences, and the cache may be stale.
                // So the API server is asked in this case.
                Lookup::Found(session) if belonged_to_other_session(&sandbox, &*session) => read.look(name).await,
                Lookup::Missing => read.look(name).await,
                known => known,
            },
        };
        let siblings = sandbox
            .spec
            .session
            .as_deref()
            .map(|session| sandbox::siblings(&sandbox, |label| read.first_of_type(session, label)));
        let attached = match &sandbox.spec.template.attach {
            None => Lookup::NotNamed,
            Some(attach) => read.attached_pod(&attach.pod_name).await?,
        };
        let agent = runs(&sandbox, read);
        let exec_access = match (agent.found(), session.found()) {
            (Some(agent), Some(session)) if may_exec(agent, &read.settings()) => {
                Some(exec_access(&sandbox, agent, session, read).await)
            }
            _ => None,
        };
        // What an unreadable agent requires of its Pod is unknown, so the session counts as unreadable as well.
        let session = if let Lookup::Failed(failure) = &agent { Lookup::Failed(failure.clone()) } else { session };
        let now = read.now();
        let mut observed = Observed {
            events: vec![],
            session: session.map(|session| read.effective(session)),
            siblings: siblings.unwrap_or_default(),
            pod: read.pod(&sandbox.name_any()).child_state(&sandbox.metadata),
            attached,
            agent: agent.found().cloned(),
            exec_access,
            settings: read.settings(),
            on_their_way: read.starting_pods(sandbox::burst_begins(now)),
            now,
            sandbox,
        };
        if sandbox::event_reads(&observed).are_due(observed.now) {
            let uid = observed.pod.owned().and_then(|pod| pod.uid()).unwrap_or_default();
            observed.events = read.pod_events(&uid).await;
        }
        Ok((observed, ()))
    }

    /// The creation of a sandbox's Pod is delayed if many Pods were created for the sandbox recently.
    fn delay(sandbox: &Self, writes: &[Write], shared: &Shared) -> Option<Duration> {
        writes.iter().find(|write| matches!(write, Write::Create(Created::Pod(_))))?;
        let uid = sandbox.uid().unwrap_or_default();
        let wait = shared.pod_creations.wait(&uid);
        if wait.is_none() {
            shared.pod_creations.done(uid);
        }
        wait
    }
}

fn state(sandbox: &Sandbox) -> Option<SandboxState> {
    sandbox.status.as_ref()?.state
}

/// The agent that a sandbox runs.
fn runs(sandbox: &Sandbox, read: &impl Read) -> Lookup<Agent> {
    let owner = ownership::controller(&sandbox.metadata).filter(|_| is_runner(sandbox));
    let Some(owner) = owner else { return Lookup::NotNamed };
    match read.agent(&owner.name) {
        Lookup::Found(agent) if agent.uid().as_ref() != Some(&owner.uid) => Lookup::Missing,
        known => known,
    }
}

/// The objects that give exec access to a sandbox that runs an agent.
async fn exec_access(sandbox: &Sandbox, agent: &Agent, session: &AigiseSession, read: &impl Read) -> ExecAccess {
    let name = sandbox.name_any();
    let binding = sandbox::exec_access_state(read.look(&name).await, sandbox, agent);
    let earlier_role = match binding.owned() {
        Some(binding) if sandbox::is_of_earlier(binding) => {
            sandbox::exec_access_state(read.look(&name).await, sandbox, agent)
        }
        Some(_) | None => ChildState::Absent,
    };
    ExecAccess {
        role: read.look(&role_name(session)).await.child_state(&session.metadata),
        account: sandbox::exec_access_state(read.look(&name).await, sandbox, agent),
        binding,
        policy: sandbox::exec_access_state(read.policy(&name), sandbox, agent),
        earlier_role,
    }
}
