//! The template of a sandbox: what it may contain, and how its `podTemplate` is laid over a Pod. A template stands alone: neither its
//! session nor its Pod matters here.

pub mod pod_template;
mod privilege;
pub mod probe;

use std::collections::BTreeSet;

pub use self::privilege::check_security_context;
use super::{Below, Invalid, Settings, duration};
use crate::api::{SandboxTemplate, init::InitStep};

/// Checks a template.
///
/// # Errors
/// The first field that cannot be used.
pub fn check(template: &SandboxTemplate, settings: &Settings) -> Result<(), Invalid> {
    if template.attach.is_some() {
        return Ok(());
    }
    if template.image.as_deref().is_none_or(str::is_empty) {
        return Err(Invalid::new("image", "an image is required."));
    }
    check_init(template)?;
    if let Some(pod_template) = &template.pod_template {
        pod_template::check(&pod_template.value(), settings.allow_privileged_templates)?;
    }
    if settings.allow_privileged_templates {
        return Ok(());
    }
    let context = template.security_context.as_ref();
    context.map_or(Ok(()), privilege::check_security_context).below("securityContext")?;
    template.readiness_probe.as_ref().map_or(Ok(()), privilege::check_probe).below("readinessProbe")?;
    privilege::check_ports(&template.ports)
}

/// Checks the init work of a template.
fn check_init(template: &SandboxTemplate) -> Result<(), Invalid> {
    if !template.mcp_services.is_empty() {
        probe::check(template).below("readinessProbe")?;
    }
    let Some(init) = &template.init else { return Ok(()) };
    duration::check(init.timeout.as_deref()).below("init.timeout")?;
    duration::check(init.service_timeout.as_deref()).below("init.serviceTimeout")?;
    check_steps(&init.steps).below("init.steps")
}

fn check_steps(steps: &[InitStep]) -> Result<(), Invalid> {
    let mut names = BTreeSet::new();
    for (index, step) in steps.iter().enumerate() {
        duration::check(step.timeout.as_deref()).below("timeout").at(index)?;
        if step.command.first().is_none_or(String::is_empty) {
            return Err(Invalid::new("command", "a program is required.").at(index));
        }
        if !names.insert(&step.name) {
            return Err(Invalid::new("name", format!("another step is called {} as well.", step.name)).at(index));
        }
    }
    Ok(())
}
