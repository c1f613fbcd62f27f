//! What an agent's lifecycle means to its user.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;

use super::{
    Lifecycle, Lookup, Observed, coverage::Coverage, lifecycle::Rest, membership, required, seen_parent, seen_session,
    unready_sandboxes,
};
use crate::{
    api::{
        AgentStatus,
        agent::{AgentState, Children, SeenParent},
        condition::{ConditionType, Reason},
    },
    plan::{
        Next, Note, Report, When,
        status::{self, Outlook, Verdict, verdict},
    },
};

/// How many children are named in a status.
const SHOWN_CHILDREN: usize = 20;

/// What one lifecycle means.
struct View {
    state: AgentState,
    outlook: Outlook,
    reason: Reason,
    message: String,
    next: Next,
}

/// The status, the event and the next look.
pub(super) fn report(observed: &Observed) -> Report<AgentStatus> {
    let (agent, now) = (&observed.agent, observed.now);
    let lifecycle = Lifecycle::of(observed);
    let mut before = agent.status.clone().unwrap_or_default();
    status::retain_ours(&mut before.conditions);
    let view = view(observed, &lifecycle);
    let (outlook, next) = status::owned_once(&before.conditions, view.outlook, view.next);
    let view = View { outlook, next, ..view };
    let verdicts = status::standard(view.outlook, view.reason, &view.message).into_iter().chain([
        sandboxes_ready(observed),
        tools_covered(observed),
        parent_found(observed),
        suspended(&lifecycle, &view),
    ]);
    let generation = agent.metadata.generation;
    let runner = observed.runner.ours().and_then(|runner| runner.status.as_ref());
    // That its session rests is no news of the agent: a session rests because there was none.
    let became_another = before.status != Some(view.state) && lifecycle != Lifecycle::AtRest(Rest::BySession);
    let is_new = became_another || before.observed_generation != generation;
    let status = AgentStatus {
        observed_generation: generation,
        status: Some(view.state),
        created_at: agent.metadata.creation_timestamp.clone(),
        updated_at: if is_new { Some(Time(now)) } else { before.updated_at.clone() },
        session: membership::remembered(seen_session(agent), observed.session.found().map(AsRef::as_ref)),
        parent: remembered_parent(observed),
        children: children(observed),
        pod_name: runner.and_then(|runner| runner.pod_name.clone()),
        // What it last ended with is worth to be known when it has been started again, or is gone.
        exit_code: runner
            .and_then(|runner| runner.exit_code)
            .or(before.exit_code.filter(|_| agent.spec.runner.is_some())),
        conditions: status::conditions(verdicts, &before.conditions, generation, now),
    };
    let when = match &lifecycle {
        // It was deleted a moment ago: nobody is there to be told.
        Lifecycle::OwnerGone(_) if observed.undone.is_none() => When::Later,
        _ if before == status => When::Later,
        // That a child more or less is there, or that another sandbox is waited for, is small news.
        _ if before.status == status.status && before.parent == status.parent && before.session == status.session => {
            When::Soon
        }
        _ => When::Now,
    };
    let changed = status::has_news(&before.conditions, view.reason);
    Report {
        status,
        note: (changed && view.outlook != Outlook::Moving).then_some(Note {
            warning: view.outlook == Outlook::Stalled,
            reason: view.reason,
            message: view.message,
        }),
        next: view.next,
        when,
    }
}

fn view(observed: &Observed, lifecycle: &Lifecycle) -> View {
    let view = |state, outlook, reason, message: String| View { state, outlook, reason, message, next: Next::OnChange };
    match lifecycle {
        Lifecycle::Terminating => {
            view(AgentState::Stopped, Outlook::Moving, Reason::Terminating, "The agent is being deleted.".into())
        }
        Lifecycle::OwnerGone(why) => {
            let trouble = observed.undone.as_ref().map(|failure| format!(" {}", failure.message)).unwrap_or_default();
            let message = format!("{why}; the agent goes with it.{trouble}");
            View { next: Next::Backoff, ..view(AgentState::Stopped, Outlook::Moving, Reason::Terminating, message) }
        }
        Lifecycle::Orphaned => {
            let message = format!("The session {} is gone and left this agent behind.", observed.agent.spec.session);
            view(AgentState::Stopped, Outlook::AtRest, Reason::SessionNotFound, message)
        }
        Lifecycle::Blocked(failure) => {
            view(AgentState::Error, Outlook::Stalled, failure.reason, failure.message.clone())
        }
        Lifecycle::Failed(failure) => {
            let (outlook, next) = status::of_failure(failure);
            // What passes by itself makes it no other than it was.
            let before = observed.agent.status.as_ref().and_then(|status| status.status);
            let state =
                if outlook == Outlook::Stalled { AgentState::Error } else { before.unwrap_or(AgentState::Created) };
            View { next, ..view(state, outlook, failure.reason, failure.message.clone()) }
        }
        Lifecycle::AtRest(Rest::Paused) => view(
            AgentState::Paused,
            Outlook::AtRest,
            Reason::Paused,
            "It is paused until spec.desiredStatus is active.".into(),
        ),
        Lifecycle::AtRest(Rest::Stopped) => view(
            AgentState::Stopped,
            Outlook::AtRest,
            Reason::Stopped,
            "It is stopped, since spec.desiredStatus says so.".into(),
        ),
        Lifecycle::AtRest(Rest::BySession) => view(
            AgentState::Created,
            Outlook::AtRest,
            Reason::Suspended,
            "Its session is suspended or expired; it goes on with it.".into(),
        ),
        Lifecycle::Waits { reason, stalled, message } => {
            let outlook = if *stalled { Outlook::Stalled } else { Outlook::Moving };
            view(AgentState::Created, outlook, *reason, message.clone())
        }
        Lifecycle::NotCovered(missing) => {
            view(AgentState::PendingTools, Outlook::Stalled, Reason::NotCovered, not_covered(missing))
        }
        Lifecycle::NameTaken(foreign) if foreign.leaving => {
            let message = format!("Waits until {} of an earlier owner is gone.", foreign.object);
            let view = view(AgentState::Created, Outlook::Moving, Reason::NameTaken, message);
            View { next: Next::In(Duration::from_secs(1)), ..view }
        }
        Lifecycle::NameTaken(foreign) => {
            let message = format!(
                "{} is not ours and has a name that the agent's Pod needs; delete or rename it.",
                foreign.object
            );
            let view = view(AgentState::Error, Outlook::Stalled, Reason::NameTaken, message);
            View { next: Next::In(Duration::from_secs(30)), ..view }
        }
        Lifecycle::NoRunner => view(
            AgentState::Created,
            Outlook::Moving,
            Reason::RunnerNotReady,
            "The Pod that runs it is about to be made.".into(),
        ),
        Lifecycle::RunnerFailed(message) => {
            view(AgentState::Error, Outlook::Stalled, Reason::RunnerFailed, message.clone())
        }
        Lifecycle::Finished(message) => view(AgentState::Stopped, Outlook::AtRest, Reason::Finished, message.clone()),
        Lifecycle::Unhealthy(message) => view(AgentState::Error, Outlook::Stalled, Reason::Unhealthy, message.clone()),
        Lifecycle::Active => {
            view(AgentState::Active, Outlook::Ready, Reason::Ready, "The agent has what it needs.".into())
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

fn sandboxes_ready(observed: &Observed) -> Verdict {
    let kind = ConditionType::SandboxesReady;
    let Some(session) = observed.own_session() else {
        return verdict(kind, false, Reason::SessionNotFound, "The session is not there.");
    };
    let required: Vec<_> = required(&observed.agent, session).into_iter().collect();
    let required = required.join(", ");
    if unready_sandboxes(observed, session).next().is_some() {
        verdict(kind, false, Reason::SandboxesNotReady, format!("Not all of these are ready: {required}."))
    } else {
        verdict(kind, true, Reason::Ready, format!("All of these are ready: {required}."))
    }
}

fn tools_covered(observed: &Observed) -> Verdict {
    let kind = ConditionType::ToolsCovered;
    let Some(session) = observed.own_session() else {
        return verdict(kind, None, Reason::SessionNotFound, "The session is not there.");
    };
    match Coverage::of(&observed.agent, session) {
        Coverage::Whole => verdict(kind, true, Reason::Covered, "The session has the tools and skills that it uses."),
        Coverage::Lacks(missing) => verdict(kind, false, Reason::NotCovered, not_covered(&missing)),
        Coverage::Unknown => {
            let message = "What the session has is known when its volumes are filled.";
            verdict(kind, None, Reason::VolumesNotReady, message)
        }
    }
}

fn parent_found(observed: &Observed) -> Verdict {
    let kind = ConditionType::ParentFound;
    let name = observed.agent.spec.parent.as_deref().unwrap_or_default();
    match &observed.parent {
        Lookup::NotNamed => verdict(kind, true, Reason::NoParent, "It has no parent."),
        Lookup::Found(_) => verdict(kind, true, Reason::ParentFound, format!("The agent {name} is there.")),
        Lookup::Missing if seen_parent(&observed.agent).is_some() => {
            verdict(kind, false, Reason::ParentGone, format!("The agent {name} was deleted."))
        }
        Lookup::Missing => verdict(kind, false, Reason::ParentNotFound, format!("There is no agent {name} yet.")),
        Lookup::Failed(failure) => verdict(kind, None, failure.reason, failure.message.clone()),
    }
}

fn suspended(lifecycle: &Lifecycle, view: &View) -> Verdict {
    let kind = ConditionType::Suspended;
    if matches!(lifecycle, Lifecycle::AtRest(_) | Lifecycle::Orphaned | Lifecycle::Finished(_)) {
        verdict(kind, true, view.reason, view.message.clone())
    } else {
        verdict(kind, false, Reason::Active, "It is not suspended.")
    }
}
