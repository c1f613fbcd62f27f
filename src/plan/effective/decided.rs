//! The decisions that depend only on a session's spec, and not on its agents, its sandboxes or the time. They are made once for each
//! generation, since they are most of the work: up to 32 templates are laid over defaults of up to 64 KiB each, and checked.

use std::collections::{BTreeMap, BTreeSet};

use kube::ResourceExt;

use super::{EffectiveSession, launch, lifetime, sources, volumes};
use crate::{
    api::{SandboxTemplate, limits},
    plan::{Below, Invalid, Settings, name, template},
};

/// The decisions that depend only on a session's spec.
#[derive(Clone, Debug, PartialEq)]
pub struct Decided {
    invalid: Option<Invalid>,
    templates: BTreeMap<String, SandboxTemplate>,
    roots: BTreeSet<String>,
    size: usize,
}

impl Decided {
    /// Decides for an effective session, which includes the fields of its configuration file.
    pub fn of(session: &EffectiveSession, settings: &Settings) -> Self {
        let roots = launch::own_roots(session).collect::<BTreeSet<_>>();
        let size = 1024 + roots.iter().map(|root| 64 + root.len()).sum::<usize>();
        let mut decided = Self { invalid: None, templates: BTreeMap::new(), roots, size };
        decided.invalid = check(session, settings, &mut decided).err();
        decided
    }

    /// What is wrong with the spec.
    pub fn invalid(&self) -> Option<&Invalid> {
        self.invalid.as_ref()
    }

    /// The template of a type that may be started, if nothing is wrong with the session.
    pub fn template(&self, sandbox_type: &str) -> Option<&SandboxTemplate> {
        self.templates.get(sandbox_type)
    }

    /// The first-level folders of the tools that the session itself requests. Agents request other folders.
    pub fn roots(&self) -> &BTreeSet<String> {
        &self.roots
    }

    /// The approximate size in memory, in bytes.
    pub fn size(&self) -> usize {
        self.size
    }
}

/// The approximate number of bytes of templates that have to be processed to decide: the defaults once for each type, and the types' own
/// templates.
pub fn bytes_to_decide(session: &EffectiveSession) -> usize {
    let bytes = |template: &SandboxTemplate| template.pod_template.as_ref().map_or(0, |template| template.text().len());
    let defaults = session.spec().sandbox_defaults.as_ref().map_or(0, bytes);
    session.spec().sandboxes.values().map(|sandbox| defaults + bytes(&sandbox.template)).sum()
}

/// Checks the rules that admission cannot enforce, and rules that may be newer than the object.
fn check(session: &EffectiveSession, settings: &Settings, decided: &mut Decided) -> Result<(), Invalid> {
    name::check_session(&session.name_any()).map_err(|error| Invalid::new("metadata.name", format!("{error}.")))?;
    if session.spec().sandboxes.is_empty() {
        let why = "at least one type is required, here or in the configuration file";
        let which = if session.config_file().is_some() { ", which has no sandboxes." } else { "." };
        return Err(Invalid::new("spec.sandboxes", format!("{why}{which}")));
    }
    let mut labels = BTreeMap::new();
    for sandbox_type in session.spec().sandboxes.keys() {
        let label =
            name::Label::of(sandbox_type).map_err(|error| Invalid::new("spec.sandboxes", format!("{error}.")))?;
        if let Some(other) = labels.insert(label.to_string(), sandbox_type) {
            let why = format!("`{other}` and `{sandbox_type}` have the same DNS name {label}; rename one of them.");
            return Err(Invalid::new("spec.sandboxes", why));
        }
    }
    if let Some((name, _)) = session.spec().models.iter().find(|(_, model)| model.model_name.is_none()) {
        let why = "a name is required, here or in the configuration file.";
        return Err(Invalid::new("modelName", why).below(name).below("spec.models"));
    }
    launch::check(session)?;
    check_defaults(session)?;
    let layers = launch::Layers::of(session)?;
    for sandbox_type in session.launchable() {
        let field = format!("spec.sandboxes.{sandbox_type}");
        let (template, size) = layers.template(sandbox_type).below(&field)?;
        template::check(&template, settings).below(&field)?;
        decided.templates.insert(sandbox_type.to_string(), template);
        decided.size += size;
    }
    volumes::check(session)?;
    sources::check(session, settings)?;
    lifetime::check(session)
}

/// Checks the size of the defaults: they are part of every type, so large defaults are multiplied.
fn check_defaults(session: &EffectiveSession) -> Result<(), Invalid> {
    let defaults = serde_json::to_vec(&session.spec().sandbox_defaults)?;
    if defaults.len() > limits::DEFAULTS_BYTES {
        let why = format!(
            "the defaults have {} bytes, and {} are allowed, since they are part of every type.",
            defaults.len(),
            limits::DEFAULTS_BYTES
        );
        return Err(Invalid::new("spec.sandboxDefaults", why));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn invalid(spec: Value) -> Option<String> {
        let session = json!({"metadata": {"name": "demo"}, "spec": spec});
        Decided::of(&EffectiveSession::stored(session), &Settings::example()).invalid().map(ToString::to_string)
    }

    #[test]
    fn the_largest_session_is_small_enough_to_be_remembered() {
        let containers: Vec<_> = (0..1900).map(|index| json!({"name": format!("c{index}"), "image": "a"})).collect();
        let types: BTreeMap<_, _> = (0..32).map(|index| (format!("t{index}"), json!({}))).collect();
        let defaults = json!({"image": "a", "podTemplate": {"spec": {"containers": containers}}});
        let session = json!({"metadata": {"name": "demo"}, "spec": {"sandboxes": types, "sandboxDefaults": defaults}});
        let session = EffectiveSession::stored(session);
        let decided = Decided::of(&session, &Settings::example());
        assert_eq!(decided.invalid(), None);
        assert!((1_500_000..4_000_000).contains(&bytes_to_decide(&session)), "{}", bytes_to_decide(&session));
        assert!((1_500_000..4_000_000).contains(&decided.size()), "{}", decided.size());
    }

    #[test]
    fn defaults_and_templates_have_a_limit() {
        let template = |bytes: usize| json!({"metadata": {"annotations": {"a": "x".repeat(bytes)}}});
        let defaults = |bytes| json!({"sandboxes": {"main": {"image": "a"}, "fuzz": {"image": "b"}}, "sandboxDefaults": {"podTemplate": template(bytes)}});
        assert_eq!(invalid(defaults(limits::DEFAULTS_BYTES - 200)), None);
        let message = invalid(defaults(limits::DEFAULTS_BYTES)).unwrap();
        assert!(message.starts_with("spec.sandboxDefaults: the defaults have 65"), "{message}");
        let own = |bytes| json!({"sandboxes": {"main": {"image": "a", "podTemplate": template(bytes)}}});
        assert_eq!(invalid(own(limits::TEMPLATE_BYTES - 200)), None);
        let message = invalid(own(limits::TEMPLATE_BYTES)).unwrap();
        assert!(message.starts_with("spec.sandboxes.main: together with sandboxDefaults"), "{message}");
    }
}
