//! The template of a sandbox: what it may contain, and how its `podTemplate` is laid over a Pod. A template stands alone: neither its
//! session nor its Pod matters here.

pub mod pod_template;
mod privilege;
pub mod probe;

use std::collections::BTreeSet;

pub use self::privilege::check_security_context;
use super::{Settings, duration};
use crate::api::{SandboxTemplate, init::InitStep};

/// Checks a template.
///
/// # Errors
/// A sentence that names the field.
pub fn check(template: &SandboxTemplate, settings: &Settings) -> Result<(), String> {
    if template.attach.is_some() {
        return Ok(());
    }
    if template.image.as_deref().is_none_or(str::is_empty) {
        return Err("image: an image is required.".into());
    }
    check_init(template)?;
    if let Some(pod_template) = &template.pod_template {
        pod_template::check(&pod_template.value(), settings.allow_privileged_templates)?;
    }
    if settings.allow_privileged_templates {
        return Ok(());
    }
    if let Some(context) = &template.security_context {
        privilege::check_security_context(context).map_err(|message| format!("securityContext.{message}"))?;
    }
    if let Some(probe) = &template.readiness_probe {
        privilege::check_probe(probe).map_err(|message| format!("readinessProbe.{message}"))?;
    }
    privilege::check_ports(&template.ports)
}

/// Checks the init work of a template.
///
/// # Errors
/// A sentence that names the field.
fn check_init(template: &SandboxTemplate) -> Result<(), String> {
    if !template.mcp_services.is_empty() {
        probe::check(template)?;
    }
    let Some(init) = &template.init else { return Ok(()) };
    if let Some(text) = &init.timeout {
        duration::parse_field("init.timeout", text)?;
    }
    check_steps(&init.steps)
}

fn check_steps(steps: &[InitStep]) -> Result<(), String> {
    let mut names = BTreeSet::new();
    for (index, step) in steps.iter().enumerate() {
        if let Some(text) = &step.timeout {
            duration::parse_field(&format!("init.steps[{index}].timeout"), text)?;
        }
        if step.command.first().is_none_or(String::is_empty) {
            return Err(format!("init.steps[{index}].command: a program is required."));
        }
        if !names.insert(&step.name) {
            return Err(format!("init.steps[{index}].name: another step is called {} as well.", step.name));
        }
    }
    Ok(())
}
