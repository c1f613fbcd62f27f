//! The status of an agent: how its lifecycle is reported to users.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;

use super::{Lifecycle, Lookup, Observed, coverage::Coverage, lifecycle::Inactivity, required, unready_sandboxes};
use crate::{
    api::{
        AgentStatus,
        agent::{AgentState, Children, SeenParent},
        condition::{ConditionType, Reason},
    },
    plan::{
        Report, Requeue, StatusWrite,
        effective::remembered,
        facts::agent::{seen_parent, seen_session},
        status::{self, ConditionValue, KStatus, View, condition_value},
    },
};

/// How many children are named in a status.
const SHOWN_CHILDREN: usize = 20;

/// Builds the status, the event and the requeue.
pub(super) fn report(observed: &Observed, lifecycle: &Lifecycle) -> Report<AgentStatus> {
    let (agent, now) = (&observed.agent, observed.now);
    let mut before = agent.status.clone().unwrap_or_default();
    status::retain_ours(&mut before.conditions);
    let view = view(observed, lifecycle).with_first_ready(&before.conditions);
    let conditions = view.standard().into_iter().chain([
        sandboxes_ready(observed),
        tools_covered(observed),
        parent_found(observed),
        suspended(lifecycle, &view),
    ]);
    let generation = agent.metadata.generation;
    let runner = observed.runner.owned().and_then(|runner| runner.status.as_ref());
    // The suspension of the session does not count as an update of the agent: a session is suspended because nothing happened in it.
    let became_another = before.status != Some(view.phase) && *lifecycle != Lifecycle::Inactive(Inactivity::BySession);
    let is_new = became_another || before.observed_generation != generation;
    let status = AgentStatus {
        observed_generation: generation,
        status: Some(view.phase),
        created_at: agent.metadata.creation_timestamp.clone(),
        updated_at: if is_new { Some(Time(now)) } else { before.updated_at.clone() },
        session: remembered(seen_session(agent), observed.session.found().map(AsRef::as_ref)),
        parent: remembered_parent(observed),
        children: children(observed),
        pod_name: runner.and_then(|runner| runner.pod_name.clone()),
        // The last exit code is still of interest after the program was restarted, or after its Sandbox is gone.
        exit_code: runner
            .and_then(|runner| runner.exit_code)
            .or(before.exit_code.filter(|_| agent.spec.runner.is_some())),
        conditions: status::conditions(conditions, &before.conditions, generation, now),
    };
    let write = match lifecycle {
        // The agent was deleted a moment ago, so nobody can read its status.
        Lifecycle::OwnerGone(_) if observed.write_error.is_none() => StatusWrite::Skip,
        _ if before == status => StatusWrite::Skip,
        // A change in the number of children, or in the sandboxes that the agent waits for, is not urgent.
        _ if before.status == status.status && before.parent == status.parent && before.session == status.session => {
            StatusWrite::Throttled
        }
        _ => StatusWrite::Now,
    };
    view.report(status, (before.status, &before.conditions), write)
}

fn view(observed: &Observed, lifecycle: &Lifecycle) -> View<AgentState> {
    match lifecycle {
        Lifecycle::Terminating => {
            View::new(AgentState::Stopped, KStatus::InProgress, Reason::Terminating, "The agent is being deleted.")
        }
        Lifecycle::OwnerGone(why) => {
            let trouble =
                observed.write_error.as_ref().map(|failure| format!(" {}", failure.message)).unwrap_or_default();
            let message = format!("{why}; the agent is deleted with it.{trouble}");
            View::new(AgentState::Stopped, KStatus::InProgress, Reason::Terminating, message).requeued(Requeue::Backoff)
        }
        Lifecycle::Orphaned => {
            let message = format!("The session {} is gone; this agent was kept.", observed.agent.spec.session);
            View::new(AgentState::Stopped, KStatus::Current, Reason::SessionNotFound, message)
        }
        Lifecycle::Blocked(failure) => {
            View::new(AgentState::Error, KStatus::Stalled, failure.reason, failure.message.clone())
        }
        Lifecycle::Failed(failure) => {
            let (kstatus, requeue) = status::of_failure(failure);
            // A failure that resolves without the user does not change the state.
            let before = observed.agent.status.as_ref().and_then(|status| status.status);
            let state =
                if kstatus == KStatus::Stalled { AgentState::Error } else { before.unwrap_or(AgentState::Created) };
            View::new(state, kstatus, failure.reason, failure.message.clone()).requeued(requeue)
        }
        Lifecycle::Inactive(Inactivity::Paused) => View::new(
            AgentState::Paused,
            KStatus::Current,
            Reason::Paused,
            "The agent is paused until spec.desiredStatus is active.",
        ),
        Lifecycle::Inactive(Inactivity::Stopped) => View::new(
            AgentState::Stopped,
            KStatus::Current,
            Reason::Stopped,
            "The agent is stopped until spec.desiredStatus is active.",
        ),
        Lifecycle::Inactive(Inactivity::BySession) => View::new(
            AgentState::Created,
            KStatus::Current,
            Reason::Suspended,
            "The session is suspended or expired; the agent continues when the session does.",
        ),
        Lifecycle::Waits { reason, stalled, message } => {
            let kstatus = if *stalled { KStatus::Stalled } else { KStatus::InProgress };
            View::new(AgentState::Created, kstatus, *reason, message.clone())
        }
        Lifecycle::NotCovered(missing) => {
            View::new(AgentState::PendingTools, KStatus::Stalled, Reason::NotCovered, not_covered(missing))
        }
        Lifecycle::NameTaken(foreign) => {
            let (kstatus, requeue, message) = status::name_taken(foreign, "agent", "the agent's Pod");
            let state = if kstatus == KStatus::Stalled { AgentState::Error } else { AgentState::Created };
            View::new(state, kstatus, Reason::NameTaken, message).requeued(requeue)
        }
        Lifecycle::NoRunner => View::new(
            AgentState::Created,
            KStatus::InProgress,
            Reason::RunnerNotReady,
            "The agent's Pod is about to be created.",
        ),
        Lifecycle::RunnerFailed(message) => {
            View::new(AgentState::Error, KStatus::Stalled, Reason::RunnerFailed, message.clone())
        }
        Lifecycle::Finished(message) => {
            View::new(AgentState::Stopped, KStatus::Current, Reason::Finished, message.clone())
        }
        Lifecycle::Unhealthy(message) => {
            View::new(AgentState::Error, KStatus::Stalled, Reason::Unhealthy, message.clone())
        }
        Lifecycle::Active => {
            View::new(AgentState::Active, KStatus::Ready, Reason::Ready, "The agent has what it needs.")
        }
    }
}

fn not_covered(missing: &[String]) -> String {
    format!("The session does not have {}: see its tools, mcpServices and enabledSkills.", missing.join(", "))
}

fn remembered_parent(observed: &Observed) -> Option<SeenParent> {
    let agent = &observed.agent;
    let present = observed.parent.found().filter(|parent| parent.spec.session == agent.spec.session);
    let now = present.map(|parent| SeenParent { name: parent.name_any(), uid: parent.uid().unwrap_or_default() });
    now.or_else(|| seen_parent(agent).cloned())
}

fn children(observed: &Observed) -> Option<Children> {
    let names = &observed.children;
    (!names.is_empty()).then(|| Children {
        total: i32::try_from(names.len()).unwrap_or(i32::MAX),
        names: names.iter().take(SHOWN_CHILDREN).cloned().collect(),
    })
}

fn sandboxes_ready(observed: &Observed) -> ConditionValue {
    let kind = ConditionType::SandboxesReady;
    let Some(session) = observed.own_session() else {
        return condition_value(kind, false, Reason::SessionNotFound, "The session does not exist.");
    };
    let required: Vec<_> = required(&observed.agent, session).into_iter().collect();
    let required = required.join(", ");
    if unready_sandboxes(observed, session).next().is_some() {
        condition_value(
            kind,
            false,
            Reason::SandboxesNotReady,
            format!("Not all required sandboxes are ready: {required}."),
        )
    } else {
        condition_value(kind, true, Reason::Ready, format!("All required sandboxes are ready: {required}."))
    }
}

fn tools_covered(observed: &Observed) -> ConditionValue {
    let kind = ConditionType::ToolsCovered;
    let Some(session) = observed.own_session() else {
        return condition_value(kind, None, Reason::SessionNotFound, "The session does not exist.");
    };
    match Coverage::of(&observed.agent, session) {
        Coverage::Whole => {
            condition_value(kind, true, Reason::Covered, "The session has the tools and skills that the agent uses.")
        }
        Coverage::Lacks(missing) => condition_value(kind, false, Reason::NotCovered, not_covered(&missing)),
        Coverage::Unknown => {
            let message = "The tools and skills of the session are known when its volumes are filled.";
            condition_value(kind, None, Reason::VolumesNotReady, message)
        }
    }
}

fn parent_found(observed: &Observed) -> ConditionValue {
    let kind = ConditionType::ParentFound;
    let name = observed.agent.spec.parent.as_deref().unwrap_or_default();
    match &observed.parent {
        Lookup::NotNamed => condition_value(kind, true, Reason::NoParent, "The agent has no parent."),
        Lookup::Found(_) => condition_value(kind, true, Reason::ParentFound, format!("The agent {name} exists.")),
        Lookup::Missing if seen_parent(&observed.agent).is_some() => {
            condition_value(kind, false, Reason::ParentGone, format!("The agent {name} was deleted."))
        }
        Lookup::Missing => {
            condition_value(kind, false, Reason::ParentNotFound, format!("There is no agent {name} yet."))
        }
        Lookup::Failed(failure) => condition_value(kind, None, failure.reason, failure.message.clone()),
    }
}

fn suspended(lifecycle: &Lifecycle, view: &View<AgentState>) -> ConditionValue {
    let kind = ConditionType::Suspended;
    if matches!(lifecycle, Lifecycle::Inactive(_) | Lifecycle::Orphaned | Lifecycle::Finished(_)) {
        condition_value(kind, true, view.reason, view.message.clone())
    } else {
        condition_value(kind, false, Reason::Active, "The agent is not suspended.")
    }
}
