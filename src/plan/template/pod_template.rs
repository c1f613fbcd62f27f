//! A sandbox's `podTemplate`: what it may contain, and the Pod that results from it. No client, no clock.
//!
//! A template is laid over the Pod that the operator built, by the rules of [`overlay`](crate::overlay). [`check`] refuses in advance
//! fields that would change what the operator relies on ([`reserved`]), and fields that break the isolation of the sandbox
//! ([`privilege`]). [`overlay`] checks the resulting Pod again, and fails if the operator could no longer rely on it.
//!
//! Everything that Kubernetes would silently drop is an error here: a misspelled field is never ignored, and neither is a field that is
//! newer than the Pod API this operator knows, since nobody has checked what it allows.

mod reserved;
mod shape;

use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use serde_json::Value;

use super::privilege;
use crate::{
    overlay as tree,
    plan::{Below, Invalid},
};

/// Checks that a template can be laid over a sandbox's Pod. `null` means absent, for the template and for each field.
///
/// # Errors
/// The first refused field, why it is refused, and what to do instead.
pub fn check(template: &Value, allow_privileged: bool) -> Result<(), Invalid> {
    let mut said = Value::Null;
    tree::merge(&mut said, template);
    if said.is_null() {
        return Ok(());
    }
    check_said(&said, allow_privileged).below("podTemplate")
}

fn check_said(said: &Value, allow_privileged: bool) -> Result<(), Invalid> {
    let Some(fields) = said.as_object() else {
        return Err(Invalid::whole("a template has `metadata` and `spec`, like the template of a Deployment."));
    };
    if let Some(field) = fields.keys().find(|field| !["metadata", "spec"].contains(&field.as_str())) {
        return Err(Invalid::new(field, "a template has `metadata` and `spec` and nothing else."));
    }
    let mut metadata = fields.get("metadata").and_then(Value::as_object).into_iter().flat_map(|fields| fields.keys());
    if let Some(field) = metadata.find(|field| !["labels", "annotations"].contains(&field.as_str())) {
        let why = "a template can only add labels and annotations to the Pod's metadata.";
        return Err(Invalid::new(field, why).below("metadata"));
    }
    let PodTemplateSpec { metadata, spec } = shape::read_part(said)?;
    shape::check_names(said)?;
    let (metadata, spec) = (metadata.unwrap_or_default(), spec.unwrap_or_default());
    reserved::check_metadata(&metadata).below("metadata")?;
    reserved::check_spec(&spec).below("spec")?;
    if allow_privileged {
        return Ok(());
    }
    privilege::check_metadata(&metadata).below("metadata")?;
    privilege::check_pod(&spec).below("spec")
}

/// Lays the template over the Pod.
///
/// # Errors
/// When the result is not a valid Pod, or changes what the operator relies on. Some errors only show in the result: a required field that
/// is missing on both sides, and `args` without the image's own command.
pub fn overlay(pod: Pod, template: &Value, allow_privileged: bool) -> Result<Pod, Invalid> {
    overlaid(&pod, template, allow_privileged).below("podTemplate")
}

fn overlaid(pod: &Pod, template: &Value, allow_privileged: bool) -> Result<Pod, Invalid> {
    let mut merged = serde_json::to_value(pod)?;
    tree::merge(&mut merged, template);
    let overlaid: Pod = shape::read_whole(&merged)?;
    reserved::check_reserved_kept(pod, &overlaid)?;
    if !allow_privileged {
        privilege::check_metadata(&overlaid.metadata).below("metadata")?;
        overlaid.spec.as_ref().map_or(Ok(()), privilege::check_pod).below("spec")?;
    }
    Ok(overlaid)
}

#[cfg(test)]
mod tests;
