//! The Sandboxes of a session: one for each type, applied as the session says.

use std::sync::Arc;

use super::{Child, Observed, Slot, Write, stage::Stage};
use crate::{
    api::{
        Sandbox, SandboxSpec,
        meta::{self, Component},
        sandbox::SandboxState,
    },
    plan::{name::Label, ownership, status},
};

/// A type that the session wants, and its Sandbox as it is.
pub(super) struct Wanted<'a> {
    pub(super) sandbox_type: &'a str,
    pub(super) name: String,
    pub(super) slot: &'a Slot<Sandbox>,
}

impl Wanted<'_> {
    /// The Sandbox, if it says something about the specification that it has now.
    fn current(&self) -> Option<&Arc<Sandbox>> {
        let sandbox = self.slot.ours()?;
        let observed = sandbox.status.as_ref()?.observed_generation;
        (sandbox.metadata.deletion_timestamp.is_none() && observed == sandbox.metadata.generation).then_some(sandbox)
    }

    pub(super) fn state(&self) -> SandboxState {
        let status = self.current().and_then(|sandbox| sandbox.status.as_ref());
        status.and_then(|status| status.state).unwrap_or_default()
    }

    /// What the Sandbox says of itself.
    pub(super) fn message(&self) -> &str {
        if self.slot.ours().is_none() {
            return "The sandbox is being made.";
        }
        let status = self.current().and_then(|sandbox| sandbox.status.as_ref());
        let ready = status.and_then(|status| status::ready(&status.conditions));
        ready.map_or("The sandbox takes in its specification.", |condition| condition.message.as_str())
    }
}

/// The types that the session wants.
pub(super) fn wanted(observed: &Observed) -> impl Iterator<Item = Wanted<'_>> {
    observed.session.spec.sandboxes.keys().filter_map(|sandbox_type| {
        let name = observed.child_name(Label::of(sandbox_type).ok()?);
        let slot = observed.sandboxes.get(&name).unwrap_or(&Slot::Absent);
        Some(Wanted { sandbox_type, name, slot })
    })
}

/// Sandboxes of types that the session no longer wants.
pub(super) fn removals(observed: &Observed) -> Vec<Write> {
    let names: Vec<_> = wanted(observed).map(|wanted| wanted.name).collect();
    let left = observed.sandboxes.iter().filter(|(name, _)| !names.contains(name)).filter_map(|(_, slot)| slot.ours());
    let left = left.filter(|sandbox| sandbox.metadata.deletion_timestamp.is_none());
    left.map(|sandbox| {
        let mut sandbox = Sandbox::clone(sandbox);
        sandbox.metadata.resource_version = None; // whatever it has become meanwhile
        Write::Delete(Child::Sandbox(Box::new(sandbox)))
    })
    .collect()
}

/// Sandboxes that are missing, once the volumes are staged, and those that are not as the session says.
pub(super) fn writes(observed: &Observed) -> Vec<Write> {
    let staged = Stage::of(observed).is_staged();
    let desired = wanted(observed).filter_map(|wanted| {
        let desired = sandbox(observed, &wanted);
        let needed = match wanted.slot {
            Slot::Absent => staged,
            Slot::Ours(live) => live.metadata.deletion_timestamp.is_none() && differs(live, &desired),
            Slot::Foreign(_) | Slot::Failed(_) => false,
        };
        needed.then(|| Write::Ensure(Child::Sandbox(Box::new(ownership::pinned(desired, wanted.slot)))))
    });
    desired.collect()
}

fn sandbox(observed: &Observed, wanted: &Wanted<'_>) -> Sandbox {
    let session = &*observed.session;
    let mut labels = ownership::labels(Some(session), Component::Sandbox);
    labels.insert(meta::SANDBOX_TYPE.into(), wanted.sandbox_type.to_string());
    let template = session.spec.sandboxes.get(wanted.sandbox_type).map(|sandbox| sandbox.template.clone());
    Sandbox {
        metadata: ownership::child_meta(session, wanted.name.clone(), labels),
        spec: SandboxSpec {
            session: session.metadata.name.clone(),
            sandbox_type: wanted.sandbox_type.to_string(),
            template: template.unwrap_or_default(),
        },
        status: None,
    }
}

fn differs(live: &Sandbox, desired: &Sandbox) -> bool {
    let labels = |sandbox: &Sandbox| sandbox.metadata.labels.clone().unwrap_or_default();
    let live_labels = labels(live);
    live.spec != desired.spec || labels(desired).iter().any(|(key, value)| live_labels.get(key) != Some(value))
}
