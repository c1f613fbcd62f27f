//! What a sandbox needs from the other sandboxes of its session before its init work may begin.

use std::collections::{BTreeMap, BTreeSet};

use kube::ResourceExt;

use crate::{
    api::{Sandbox, condition::Reason, sandbox::SandboxState},
    plan::{Below, Invalid, effective::EffectiveSession, name::Label, sandbox::Observed},
};

/// Checks the dependencies of a sandbox without its session. A session checks more for its own sandboxes.
///
/// # Errors
/// The field that cannot be used.
pub(in crate::plan::sandbox) fn check_needs(sandbox: &Sandbox, label: &Label) -> Result<(), Invalid> {
    let template = &sandbox.spec.template;
    for (field, needed) in [("dependsOn", &template.depends_on), ("mcpServices", &template.mcp_services)] {
        if sandbox.spec.session.is_none() && !needed.is_empty() {
            return Err(Invalid::new(field, "the field refers to a session, and this sandbox has none.").below("spec"));
        }
    }
    if template.depends_on.iter().any(|needed| Label::of(needed).as_ref() == Ok(label)) {
        return Err(Invalid::new("spec.dependsOn", "a sandbox cannot wait for itself."));
    }
    Ok(())
}

/// Checks what the sandbox needs from its session and from the other sandboxes there. A session checks its own sandboxes; this check
/// also covers sandboxes that users created.
///
/// # Errors
/// The field, and the chain of dependencies that leads there.
pub(in crate::plan::sandbox) fn check_session_needs(
    observed: &Observed,
    session: &EffectiveSession,
) -> Result<(), Invalid> {
    let template = &observed.sandbox.spec.template;
    let services = session.services();
    if let Some(name) = template.mcp_services.iter().find(|name| !services.contains_key(name.as_str())) {
        let why = format!("{name} is not among spec.mcpServices of the session {}.", session.name_any());
        return Err(Invalid::new("spec.mcpServices", why));
    }
    circle(observed).map_or(Ok(()), |chain| {
        Err(Invalid::new("spec.dependsOn", format!("{}, which is a cycle.", chain.join(" → "))))
    })
}

/// The other sandboxes of a session, by the DNS labels of their types.
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

    /// The sandboxes of a type.
    fn of_type(&self, sandbox_type: &str) -> &[&'a Sandbox] {
        Label::of(sandbox_type).ok().and_then(|label| self.0.get(&label)).map_or(&[], Vec::as_slice)
    }
}

/// The chain of types that leads from the sandbox back to itself. Each type is followed only once: a type that does not lead back does
/// not lead back on another path either.
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

/// Whether the init work may begin. If not, the message names all dependencies at once, so that it does not change with each of them.
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
        let message = format!(
            "The sandbox depends on {}, which failed. The initialiser starts when every dependency is ready.",
            failed.join(", ")
        );
        return Err((Reason::DependencyFailed, message));
    }
    if let Some(session) = observed.session.found()
        && !session.continues_on_error()
        && session.has_failed()
    {
        let message = "The session has failed and continueOnError is not set, so no further initialiser starts.";
        return Err((Reason::SessionFailed, message.into()));
    }
    let missing: Vec<_> = needed.iter().filter(|needed| state(needed).is_none()).cloned().collect();
    if !missing.is_empty() && observed.is_hand_made() {
        let message = format!("The sandbox depends on {}, which the session does not have.", missing.join(", "));
        return Err((Reason::DependencyNotReady, message));
    }
    if needed.iter().any(|needed| state(needed) != Some(SandboxState::Ready)) {
        let message = format!("The initialiser starts when these sandboxes are ready: {}.", needed.join(", "));
        return Err((Reason::DependencyNotReady, message));
    }
    Ok(())
}

/// The state in a sandbox's status, if the status is about the present generation.
fn current_state(sandbox: &Sandbox) -> SandboxState {
    let status = sandbox.status.as_ref().filter(|status| status.observed_generation == sandbox.metadata.generation);
    status.and_then(|status| status.state).unwrap_or_default()
}
