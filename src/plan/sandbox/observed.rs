//! What decisions about a sandbox depend on, and how the outcomes of writes change it.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

use super::ExecAccess;
use crate::{
    api::{Agent, Sandbox},
    plan::{
        ChildState, Lookup, Settings,
        agent::runner,
        effective::EffectiveSession,
        facts::{
            agent::may_exec,
            sandbox::{is_hand_made, is_runner},
        },
        name::{self, Label},
        ownership,
        pod_event::PodEvent,
    },
};

/// What a sandbox is to others.
#[derive(Clone, Copy, Debug)]
pub(super) enum Workload<'a> {
    /// It belongs to no session, or its session is gone.
    Alone,
    /// It is a sandbox of this session, and agents work in it.
    Member(&'a EffectiveSession),
    /// It runs an agent of this session. The Pod has secrets, so it shares no files with sandboxes, which run untrusted code.
    Runner(&'a EffectiveSession),
}

impl<'a> Workload<'a> {
    /// The session.
    pub(super) fn session(self) -> Option<&'a EffectiveSession> {
        match self {
            Workload::Alone => None,
            Workload::Member(session) | Workload::Runner(session) => Some(session),
        }
    }

    /// The session whose volumes are mounted.
    pub(super) fn member_of(self) -> Option<&'a EffectiveSession> {
        if let Workload::Member(session) = self { Some(session) } else { None }
    }

    /// The session whose agent runs here.
    pub(super) fn runner_for(self) -> Option<&'a EffectiveSession> {
        if let Workload::Runner(session) = self { Some(session) } else { None }
    }
}

/// Everything that decisions about a sandbox depend on.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The Sandbox itself.
    pub sandbox: Arc<Sandbox>,
    /// The session that the sandbox names.
    pub session: Lookup<EffectiveSession>,
    /// The other sandboxes of the session on which decisions depend: [`siblings`](super::siblings).
    pub siblings: Vec<Arc<Sandbox>>,
    /// The sandbox's Pod, which has the same name.
    pub pod: ChildState<Pod>,
    /// The Pod to which the sandbox attaches.
    pub attached: Lookup<Pod>,
    /// The agent that the sandbox runs, if it belongs to an agent.
    pub agent: Option<Arc<Agent>>,
    /// The events about the Pod; read only when [`event_reads`](super::event_reads) are due.
    pub events: Vec<PodEvent>,
    /// The exec access of the Pod to the sandboxes of its session; absent if the Pod gets none.
    pub exec_access: Option<ExecAccess>,
    /// The operator's settings.
    pub settings: Arc<Settings>,
    /// How many Pods in the namespace were created [recently](super::burst_begins) and do not run yet, including the sandbox's own.
    pub on_their_way: usize,
    /// The time.
    pub now: Timestamp,
}

impl Observed {
    /// What the sandbox is to others.
    pub(super) fn workload(&self) -> Workload<'_> {
        match self.session.found() {
            None => Workload::Alone,
            Some(session) if is_runner(&self.sandbox) => Workload::Runner(session),
            Some(session) => Workload::Member(session),
        }
    }

    pub(super) fn label(&self) -> Result<Label, name::NameError> {
        let sandbox_type = &self.sandbox.spec.sandbox_type;
        if is_runner(&self.sandbox) { Label::of_runner(sandbox_type) } else { Label::of(sandbox_type) }
    }

    /// Whether the Pod may run commands in the other sandboxes of the session.
    pub(super) fn may_exec(&self) -> bool {
        self.agent.as_ref().is_some_and(|agent| may_exec(agent, &self.settings))
    }

    /// Whether the sandbox's agent requests this exact Sandbox. Always true for a sandbox without an agent.
    pub(super) fn is_requested(&self) -> bool {
        let agent = self.agent.as_deref().zip(self.session.found());
        let asks = |(agent, session): (&Agent, &Arc<EffectiveSession>)| {
            runner::is_requested(&self.sandbox, agent, session, &self.settings)
        };
        !is_runner(&self.sandbox) || agent.is_some_and(asks)
    }

    /// The DNS name of the sandbox's Pod, if the sandbox belongs to a session.
    pub fn hostname(&self) -> Option<String> {
        let session = self.pod.owned().and(self.sandbox.spec.session.as_ref())?;
        let label = self.label().ok()?;
        Some(name::host(&label, session, &self.sandbox.namespace().unwrap_or_default()))
    }

    /// Whether a user created the sandbox.
    pub(super) fn is_hand_made(&self) -> bool {
        is_hand_made(&self.sandbox)
    }

    /// Whether the session created the sandbox.
    pub(super) fn is_sessions_own(&self, session: &EffectiveSession) -> bool {
        ownership::owner_uid(&self.sandbox.metadata) == session.metadata().uid.as_deref()
    }
}

#[cfg(test)]
impl Observed {
    /// A sandbox without a Pod, for tests.
    pub(super) fn example(sandbox: Sandbox, session: Lookup<EffectiveSession>) -> Self {
        Self {
            sandbox: Arc::new(sandbox),
            session,
            siblings: vec![],
            pod: ChildState::Absent,
            attached: Lookup::NotNamed,
            agent: None,
            events: vec![],
            exec_access: None,
            settings: Arc::new(Settings::example()),
            on_their_way: 1,
            now: Timestamp::UNIX_EPOCH,
        }
    }
}
