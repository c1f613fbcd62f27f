//! What a sandbox needs of the others of its session before its gate may begin.

use std::collections::{BTreeMap, BTreeSet};

use kube::ResourceExt;

use crate::{
    api::{AigiseSession, Sandbox, condition::Reason, sandbox::SandboxState},
    plan::{
        name::Label,
        sandbox::Observed,
        session::{self, has_failed},
    },
};

/// What is wrong with what the sandbox depends on, as far as it knows by itself; a session knows more of its own.
///
/// # Errors
/// A sentence that names the field.
pub(in crate::plan::sandbox) fn check_needs(sandbox: &Sandbox, label: &Label) -> Result<(), String> {
    let template = &sandbox.spec.template;
    for (field, needed) in [("dependsOn", &template.depends_on), ("mcpServices", &template.mcp_services)] {
        if sandbox.spec.session.is_none() && !needed.is_empty() {
            return Err(format!("spec.{field}: it names what a session has, and this sandbox has none."));
        }
    }
    if template.depends_on.iter().any(|needed| Label::of(needed).as_ref() == Ok(label)) {
        return Err("spec.dependsOn: a sandbox cannot wait for itself.".into());
    }
    Ok(())
}

/// What is wrong with what the sandbox needs of its session and of the others there. A session looks after its own, but nobody
/// else does after those that were made by hand.
///
/// # Errors
/// A sentence that names the field, and the chain of dependencies that leads there.
pub(in crate::plan::sandbox) fn check_session_needs(
    observed: &Observed,
    session: &AigiseSession,
) -> Result<(), String> {
    let template = &observed.sandbox.spec.template;
    let services = session::services(session);
    if let Some(name) = template.mcp_services.iter().find(|name| !services.contains_key(name.as_str())) {
        let session = session.name_any();
        return Err(format!("spec.mcpServices: {name} is not among spec.mcpServices of the session {session}."));
    }
    circle(observed).map_or(Ok(()), |chain| Err(format!("spec.dependsOn: {}, which is a circle.", chain.join(" → "))))
}

/// The others of a session, by their types' DNS labels.
struct Siblings<'a>(BTreeMap<Label, Vec<&'a Sandbox>>);

impl<'a> Siblings<'a> {
    fn of(observed: &'a Observed) -> Self {
        let mut by_label = BTreeMap::<_, Vec<_>>::new();
        for sibling in &observed.siblings {
            if let Ok(label) = Label::of(&sibling.spec.sandbox_type) {
                by_label.entry(label).or_default().push(&**sibling);
            }
        }
        Self(by_label)
    }

    /// Those that have a type.
    fn of_type(&self, sandbox_type: &str) -> &[&'a Sandbox] {
        Label::of(sandbox_type).ok().and_then(|label| self.0.get(&label)).map_or(&[], Vec::as_slice)
    }
}

/// The chain of types that leads from the sandbox back to itself. Each type is followed once: one that has led nowhere leads
/// nowhere from another place either.
fn circle(observed: &Observed) -> Option<Vec<&str>> {
    let spec = &observed.sandbox.spec;
    if spec.template.depends_on.is_empty() {
        return None;
    }
    let siblings = Siblings::of(observed);
    let own = Label::of(&spec.sandbox_type).ok()?;
    let mut followed = BTreeSet::from([own.clone()]);
    let (mut chain, mut waiting) = (vec![spec.sandbox_type.as_str()], vec![spec.template.depends_on.iter()]);
    while let Some(rest) = waiting.last_mut() {
        let Some(needed) = rest.next() else {
            chain.pop();
            waiting.pop();
            continue;
        };
        let Ok(label) = Label::of(needed) else { continue };
        if label == own {
            return Some(chain.into_iter().chain([needed.as_str()]).collect());
        }
        if followed.insert(label)
            && let [next, ..] = siblings.of_type(needed)
        {
            chain.push(needed);
            waiting.push(next.spec.template.depends_on.iter());
        }
    }
    None
}

/// Whether the work may begin; what is in the way is told by the names of all that it depends on, so that it is told once.
pub(super) fn may_begin(observed: &Observed) -> Result<(), (Reason, String)> {
    let needed = &observed.sandbox.spec.template.depends_on;
    if needed.is_empty() {
        return Ok(());
    }
    let siblings = Siblings::of(observed);
    let state = |needed: &str| {
        let states = siblings.of_type(needed).iter().map(|sibling| current_state(sibling));
        states.max_by_key(|state| match state {
            SandboxState::Ready => 2,
            SandboxState::Uninitialized => 1,
            SandboxState::Error => 0,
        })
    };
    let failed: Vec<_> = needed.iter().filter(|needed| state(needed) == Some(SandboxState::Error)).cloned().collect();
    if !failed.is_empty() {
        let message = format!("It depends on {}, which failed; it goes on when that is ready.", failed.join(", "));
        return Err((Reason::DependencyFailed, message));
    }
    if let Some(session) = observed.session.found()
        && !session.spec.continues_on_error()
        && has_failed(session)
    {
        let message = "The session has failed, and continueOnError is not set: no further initialiser is begun.";
        return Err((Reason::SessionFailed, message.into()));
    }
    let missing: Vec<_> = needed.iter().filter(|needed| state(needed).is_none()).cloned().collect();
    if !missing.is_empty() && observed.is_hand_made() {
        let message = format!("It depends on {}, which the session does not have.", missing.join(", "));
        return Err((Reason::DependencyNotReady, message));
    }
    if needed.iter().any(|needed| state(needed) != Some(SandboxState::Ready)) {
        let message =
            format!("Its initialiser begins when the sandboxes it depends on are ready: {}.", needed.join(", "));
        return Err((Reason::DependencyNotReady, message));
    }
    Ok(())
}

/// What a sandbox says of itself, if it says so of the specification that it has now.
fn current_state(sandbox: &Sandbox) -> SandboxState {
    let status = sandbox.status.as_ref().filter(|status| status.observed_generation == sandbox.metadata.generation);
    status.and_then(|status| status.state).unwrap_or_default()
}
