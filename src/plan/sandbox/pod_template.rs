//! A sandbox's `podTemplate`: what it may say, and the Pod that comes of it. No client, no clock.
//!
//! A template is laid over the Pod that we built, by the rules of [`overlay`](crate::overlay). [`check`] refuses
//! beforehand, by name, what would take from the Pod what the operator relies on ([`ours`]), and what leads out of the sandbox
//! ([`privilege`]). [`overlay`] looks at the outcome once more and gives no Pod rather than one that is not ours any longer.
//!
//! Everything that Kubernetes would drop in silence is an error here: a field with a spelling mistake is never ignored, and one
//! that is younger than the Pods this operator knows was never judged.

mod reserved;

pub(super) use self::reserved::segments;
mod shape;

use k8s_openapi::api::core::v1::{Pod, PodTemplateSpec};
use serde_json::Value;

use super::privilege;
use crate::overlay as tree;

/// Whether a template can be laid over a sandbox's Pod. `null`, also within it, means absent.
///
/// # Errors
/// The path of the first field that is in the way, why, and what to do instead.
pub fn check(template: &Value, allow_privileged: bool) -> Result<(), String> {
    let mut said = Value::Null;
    tree::merge(&mut said, template);
    if said.is_null() {
        return Ok(());
    }
    check_said(&said, allow_privileged).map_err(|message| format!("podTemplate{message}"))
}

fn check_said(said: &Value, allow_privileged: bool) -> Result<(), String> {
    let Some(fields) = said.as_object() else {
        return Err(": it has `metadata` and `spec`, like the template of a Deployment.".into());
    };
    if let Some(field) = fields.keys().find(|field| !["metadata", "spec"].contains(&field.as_str())) {
        return Err(format!(".{field}: a template has `metadata` and `spec` and nothing else."));
    }
    let mut metadata = fields.get("metadata").and_then(Value::as_object).into_iter().flat_map(|fields| fields.keys());
    if let Some(field) = metadata.find(|field| !["labels", "annotations"].contains(&field.as_str())) {
        return Err(format!(".metadata.{field}: of a Pod's metadata only labels and annotations can be added to."));
    }
    let PodTemplateSpec { metadata, spec } = shape::read_part(said)?;
    shape::check_names(said)?;
    let (metadata, spec) = (metadata.unwrap_or_default(), spec.unwrap_or_default());
    reserved::check_metadata(&metadata)?;
    reserved::check_spec(&spec)?;
    if allow_privileged {
        return Ok(());
    }
    privilege::check_metadata(&metadata).map_err(|message| format!(".metadata.{message}"))?;
    privilege::check_pod(&spec).map_err(|message| format!(".spec.{message}"))
}

/// The Pod with the template laid over it.
///
/// # Errors
/// When no Pod that Kubernetes knows comes of it, or none that is ours any longer: the path, and a sentence. Some of it only the
/// whole can show: a required field that is missing on both sides, and `args` without the image's own command.
pub fn overlay(pod: Pod, template: &Value, allow_privileged: bool) -> Result<Pod, String> {
    overlaid(&pod, template, allow_privileged).map_err(|message| format!("podTemplate{message}"))
}

fn overlaid(pod: &Pod, template: &Value, allow_privileged: bool) -> Result<Pod, String> {
    let mut merged = serde_json::to_value(pod).map_err(|error| format!(": {error}."))?;
    tree::merge(&mut merged, template);
    let overlaid: Pod = shape::read_whole(&merged)?;
    reserved::check_reserved_kept(pod, &overlaid)?;
    if !allow_privileged {
        privilege::check_metadata(&overlaid.metadata).map_err(|message| format!(".metadata.{message}"))?;
        let spec = overlaid.spec.as_ref();
        spec.map_or(Ok(()), privilege::check_pod).map_err(|message| format!(".spec.{message}"))?;
    }
    Ok(overlaid)
}

#[cfg(test)]
mod tests;
