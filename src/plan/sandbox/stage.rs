//! Where a sandbox is in its life, in one ordered chain: the first that holds is the one that a user reads.

use k8s_openapi::api::core::v1::SecurityContext;
use kube::ResourceExt;

use super::{Observed, Progress};
use crate::{
    api::{SandboxTemplate, condition::Reason, meta},
    plan::{
        Failure, Foreign, Slot,
        name::{self, Label},
        ownership,
    },
};

/// Where a sandbox is in its life.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stage {
    /// The Sandbox is being deleted: its Pod goes with it by garbage collection.
    Terminating,
    /// Something about the Sandbox itself is in the way; nothing is made.
    Blocked(Failure),
    /// A Pod that is not ours has the name. Waits, and touches nothing.
    NameTaken(Foreign),
    /// The Pod could not be read or made.
    Failed(Failure),
    /// There is no Pod: it is made.
    NoPod(Label),
    /// There is a Pod, and it tells the rest.
    Pod(Progress),
}

impl Stage {
    /// Where the sandbox is.
    #[must_use]
    pub fn of(observed: &Observed) -> Self {
        if observed.sandbox.metadata.deletion_timestamp.is_some() {
            return Stage::Terminating;
        }
        let label = match check(observed) {
            Ok(label) => label,
            Err(failure) => return Stage::Blocked(failure),
        };
        match &observed.pod {
            Slot::Absent => Stage::NoPod(label),
            Slot::Ours(pod) => Stage::Pod(Progress::of(pod, meta::SANDBOX_CONTAINER)),
            Slot::Foreign(foreign) => Stage::NameTaken(foreign.clone()),
            Slot::Failed(failure) => Stage::Failed(failure.clone()),
        }
    }
}

/// The rules that admission cannot hold, or that are younger than the object.
fn check(observed: &Observed) -> Result<Label, Failure> {
    let sandbox = &observed.sandbox;
    let failure = |reason, message: String| Failure { reason, message };
    let label = observed.label().map_err(|error| failure(Reason::InvalidSpec, format!("spec.type: {error}.")))?;
    check_template(&sandbox.spec.template).map_err(|message| failure(Reason::InvalidSpec, message))?;

    let Some(name) = &sandbox.spec.session else {
        return if sandbox.name_any().contains("--") {
            let message = "Names with `--` belong to the sandboxes of sessions; choose another name.";
            Err(failure(Reason::InvalidSpec, message.into()))
        } else {
            Ok(label)
        };
    };
    let Some(session) = &observed.session else {
        return Err(failure(Reason::SessionNotFound, format!("There is no session {name} in this namespace.")));
    };
    match ownership::controller(&sandbox.metadata) {
        Some(owner)
            if Some(&owner.uid) == session.metadata.uid.as_ref() && sandbox.name_any() == name::child(name, &label) =>
        {
            Ok(label)
        }
        Some(owner) if owner.name == *name => {
            let message = format!("The session {name} was deleted and made anew; this sandbox goes with the old one.");
            Err(failure(Reason::SessionNotFound, message))
        }
        _ => {
            let message = format!(
                "spec.session: the sandboxes of a session are made by it; add the type {} to spec.sandboxes of the session {name}.",
                sandbox.spec.sandbox_type
            );
            Err(failure(Reason::InvalidSpec, message))
        }
    }
}

/// Capabilities that a container may add: those of the Pod Security Standard `baseline`, and what a debugger needs. The others
/// lead out of the container.
const CAPABILITIES: [&str; 15] = [
    "AUDIT_WRITE",
    "CHOWN",
    "DAC_OVERRIDE",
    "FOWNER",
    "FSETID",
    "KILL",
    "MKNOD",
    "NET_BIND_SERVICE",
    "SETFCAP",
    "SETGID",
    "SETPCAP",
    "SETUID",
    "SYS_CHROOT",
    "SYS_NICE",
    "SYS_PTRACE",
];

/// What a template may not ask for.
///
/// # Errors
/// A sentence that names the field.
pub fn check_template(template: &SandboxTemplate) -> Result<(), String> {
    if template.image.as_deref().is_none_or(str::is_empty) {
        return Err("image: an image is required.".into());
    }
    if let Some(context) = &template.security_context {
        check_security_context(context).map_err(|message| format!("securityContext.{message}"))?;
    }
    if template.ports.iter().any(|port| port.host_port.is_some_and(|port| port != 0)) {
        return Err("ports: hostPort would take a port of the node; sandboxes are reached by their DNS names.".into());
    }
    Ok(())
}

fn check_security_context(context: &SecurityContext) -> Result<(), String> {
    if context.privileged == Some(true) {
        return Err("privileged: a sandbox runs code that nobody trusts and is never privileged.".into());
    }
    let added = context.capabilities.iter().flat_map(|capabilities| capabilities.add.iter().flatten());
    if let Some(capability) = added.into_iter().find(|capability| !CAPABILITIES.contains(&capability.as_str())) {
        return Err(format!(
            "capabilities.add: {capability} leads out of the sandbox; allowed are {}.",
            CAPABILITIES.join(", ")
        ));
    }
    if context.proc_mount.as_deref().is_some_and(|mount| mount != "Default") {
        return Err("procMount: a sandbox sees only the Default part of /proc.".into());
    }
    if context.windows_options.as_ref().is_some_and(|options| options.host_process == Some(true)) {
        return Err("windowsOptions.hostProcess: a sandbox is no process of the host.".into());
    }
    Ok(())
}
