//! The Sandboxes of a session: one for each type, kept in line with the session's spec.
//!
//! Decided in docs/adr/0008-sandboxes-are-replaced.md.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

use super::{ChildState, Created, Observed, Write, configuration};
use crate::{
    api::{
        Sandbox, SandboxSpec,
        condition::{ConditionType, Reason},
        init::{InitOutcome, RootStatus},
        meta::{self, Component},
        sandbox::{SandboxPhase, SandboxState},
    },
    plan::{
        facts::sandbox::{changed, has_failed_init},
        name::Label,
        ownership, status,
    },
};

/// A type that the session requires, and the state of its Sandbox.
pub(super) struct Wanted<'a> {
    pub(super) sandbox_type: &'a str,
    pub(super) label: Label,
    pub(super) name: String,
    pub(super) child: &'a ChildState<Sandbox>,
}

impl Wanted<'_> {
    /// The Sandbox, if its status is about its present generation.
    fn current(&self) -> Option<&Arc<Sandbox>> {
        let sandbox = self.child.owned()?;
        let observed = sandbox.status.as_ref()?.observed_generation;
        (sandbox.metadata.deletion_timestamp.is_none() && observed == sandbox.metadata.generation).then_some(sandbox)
    }

    pub(super) fn state(&self) -> SandboxState {
        let status = self.current().and_then(|sandbox| sandbox.status.as_ref());
        status.and_then(|status| status.state).unwrap_or_default()
    }

    fn phase(&self) -> Option<SandboxPhase> {
        self.current().and_then(|sandbox| sandbox.status.as_ref()?.phase)
    }

    /// Whether its steps have run.
    pub(super) fn is_initialised(&self) -> bool {
        let init = self.current().and_then(|sandbox| sandbox.status.as_ref()?.init.as_ref());
        self.state() == SandboxState::Ready
            || (self.phase() == Some(SandboxPhase::Finished)
                && init.is_none_or(|init| init.outcome == InitOutcome::Succeeded))
    }

    /// What became of the root file system in caches.
    pub(super) fn root(&self) -> Option<&RootStatus> {
        self.current()?.status.as_ref()?.init.as_ref()?.root.as_ref()
    }

    /// Whether the Sandbox is inactive, as its user asked: the session does not wait for it.
    pub(super) fn is_inactive(&self) -> bool {
        match self.phase() {
            Some(SandboxPhase::Finished) => true,
            // Suspended by its user. A Sandbox that its session suspended starts when the session is resumed.
            Some(SandboxPhase::Suspended) => self.child.owned().is_some_and(|own| own.spec.suspend == Some(true)),
            _ => false,
        }
    }

    /// Whether the Sandbox reports that the user has to act.
    pub(super) fn is_stalled(&self) -> bool {
        let status = self.current().and_then(|sandbox| sandbox.status.as_ref());
        let stalled = ConditionType::Stalled.to_string();
        let mut conditions = status.into_iter().flat_map(|status| &status.conditions);
        conditions.any(|condition| condition.type_ == stalled && condition.status == "True")
    }

    /// Whether the Sandbox reports that it waits for other sandboxes of the session.
    pub(super) fn waits_for_others(&self) -> bool {
        self.ready().is_some_and(|ready| ready.reason == Reason::DependencyNotReady.to_string())
    }

    fn ready(&self) -> Option<&Condition> {
        status::ready(&self.current()?.status.as_ref()?.conditions)
    }

    /// The message of the Sandbox.
    pub(super) fn message(&self) -> &str {
        if self.child.owned().is_none() {
            return "The sandbox is being created.";
        }
        match self.phase() {
            Some(SandboxPhase::Finished) => return "The sandbox has finished.",
            Some(SandboxPhase::Suspended) => return "The sandbox is suspended.",
            _ => {} // in the other phases, there is a condition Ready
        }
        let not_observed = "The sandbox controller has not observed the latest specification yet.";
        self.ready().map_or(not_observed, |condition| condition.message.as_str())
    }
}

/// The types that the session requires.
pub(super) fn wanted(observed: &Observed) -> impl Iterator<Item = Wanted<'_>> {
    observed.session.launched_labels().map(|(sandbox_type, label)| {
        let name = observed.child_name(&label);
        let child = observed.sandboxes.get(&name).unwrap_or(&ChildState::Absent);
        Wanted { sandbox_type, label, name, child }
    })
}

/// Whether the session only waits for init work of its sandboxes.
pub(super) fn only_initialize(observed: &Observed) -> bool {
    let mut waiting =
        wanted(observed).filter(|wanted| wanted.state() == SandboxState::Uninitialized && !wanted.is_inactive());
    waiting.all(|wanted| wanted.phase() == Some(SandboxPhase::Initializing))
}

/// The types whose last initialiser failed, if there are any.
pub(super) fn failed_init(observed: &Observed) -> Option<String> {
    let failed = wanted(observed).filter(|wanted| wanted.child.owned().is_some_and(|sandbox| has_failed_init(sandbox)));
    let types: Vec<_> = failed.map(|wanted| wanted.sandbox_type).collect();
    (!types.is_empty()).then(|| types.join(", "))
}

/// Deletes the Sandboxes of types that the session no longer requires.
pub(super) fn removals(observed: &Observed) -> Vec<Write> {
    let names: Vec<_> = wanted(observed).map(|wanted| wanted.name).collect();
    removed(observed, |name| !names.contains(name))
}

/// Deletes all Sandboxes of the session.
pub(super) fn all_removals(observed: &Observed) -> Vec<Write> {
    removed(observed, |_| true)
}

fn removed(observed: &Observed, goes: impl Fn(&String) -> bool) -> Vec<Write> {
    let left = observed.sandboxes.iter().filter(|(name, _)| goes(name)).filter_map(|(_, child)| child.owned());
    let left = left.filter(|sandbox| sandbox.metadata.deletion_timestamp.is_none());
    left.map(|sandbox| Write::delete_any_version(&**sandbox)).collect()
}

/// Whether any Sandbox of the session may exist.
pub(super) fn exist(observed: &Observed) -> bool {
    observed.sandboxes.values().any(ChildState::may_be_there)
}

/// The first of the session's own Sandboxes whose Pod may still exist.
pub(super) fn active(observed: &Observed) -> Option<&str> {
    let phase = |sandbox: &Sandbox| sandbox.status.as_ref().and_then(|status| status.phase);
    let is_awake = |child: &ChildState<Sandbox>| match child {
        ChildState::Owned(sandbox) => phase(sandbox) != Some(SandboxPhase::Suspended),
        other => other.may_be_there(),
    };
    observed.sandboxes.iter().find(|(_, child)| is_awake(child)).map(|(name, _)| name.as_str())
}

/// The writes for Sandboxes that are missing, if the volumes are `staged`, and for Sandboxes that are out of date.
pub(super) fn writes(observed: &Observed, staged: bool) -> Vec<Write> {
    if !configuration::is_reported(observed) {
        return vec![];
    }
    let writes = wanted(observed).filter_map(|wanted| {
        let desired = sandbox(observed, &wanted)?;
        match wanted.child {
            ChildState::Absent if staged => Some(Write::Create(Created::Sandbox(Box::new(desired)))),
            ChildState::Owned(live) if live.metadata.deletion_timestamp.is_none() => {
                let changed = changed(live, desired)?;
                Some(Write::Replace(Box::new(changed)))
            }
            ChildState::Absent | ChildState::Owned(_) | ChildState::Foreign(_) | ChildState::Failed(_) => None,
        }
    });
    writes.collect()
}

/// The desired Sandbox of a type.
pub(super) fn sandbox(observed: &Observed, wanted: &Wanted<'_>) -> Option<Sandbox> {
    let session = &observed.session;
    let mut labels = session.labels(Component::Sandbox);
    labels.insert(meta::SANDBOX_TYPE.into(), wanted.sandbox_type.to_string());
    let mut metadata = ownership::child_meta(session, wanted.name.clone(), labels);
    if !session.cleans_up() {
        metadata.owner_references = None;
    }
    Some(Sandbox {
        metadata,
        spec: SandboxSpec {
            session: session.metadata().name.clone(),
            sandbox_type: wanted.sandbox_type.to_string(),
            suspend: None,
            volumes: vec![],
            template: observed.decided.template(wanted.sandbox_type)?.clone(),
        },
        status: None,
    })
}
