//! Which sandboxes a session requires, and the template of each.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use serde_json::Value;

use super::{Demand, EffectiveSession, profile};
use crate::{
    api::{
        AigiseSession, SandboxTemplate, limits,
        session::{LaunchMode, McpService},
    },
    overlay,
    plan::{Invalid, facts::agent::MAIN, name::Label},
    protocol::init::ALL_SKILLS,
};

impl EffectiveSession {
    /// The types that are started: those that `launch` names, or all, and those that they need. Types that are disabled or do not exist
    /// are omitted; [`check`] reports them.
    pub fn launched(&self) -> BTreeSet<&str> {
        let types = self.spec().launch.as_ref().and_then(|launch| launch.types.as_ref());
        let mut waiting: Vec<&str> = match types {
            Some(types) => types.iter().map(String::as_str).collect(),
            None => self.spec().sandboxes.keys().map(String::as_str).collect(),
        };
        let services = self.services();
        let mut launched = BTreeSet::new();
        while let Some(sandbox_type) = waiting.pop() {
            if let Some(known) = enabled(self, sandbox_type)
                && launched.insert(known)
            {
                waiting.extend(depends_on(self, known));
                let services = mcp_services(self, known).into_iter().filter_map(|name| services.get(name));
                waiting.extend(services.map(|service| service.sandbox.as_str()));
            }
        }
        launched
    }

    /// The types that are started, with their labels. A type without a valid label is an error of the session, and is omitted here.
    pub fn launched_labels(&self) -> impl Iterator<Item = (&str, Label)> {
        self.launched().into_iter().filter_map(|sandbox_type| Some((sandbox_type, Label::of(sandbox_type).ok()?)))
    }

    /// The types that may ever be started: all of them if agents may request more types than are started at once.
    pub fn launchable(&self) -> BTreeSet<&str> {
        if starts_on_demand(self) {
            self.spec().sandboxes.keys().filter_map(|sandbox_type| enabled(self, sandbox_type)).collect()
        } else {
            self.launched()
        }
    }

    /// The started types that the status records.
    pub fn recorded_types(&self) -> Vec<String> {
        let launched = if starts_on_demand(self) { self.launched() } else { BTreeSet::new() };
        launched.into_iter().map(String::from).collect()
    }

    /// The MCP services: the session's own, and those of its types' profiles.
    pub fn services(&self) -> BTreeMap<&str, &McpService> {
        let profiles = self.spec().sandboxes.keys().filter_map(|sandbox_type| profile::of(self, sandbox_type));
        let brought = profiles.flat_map(|profile| &profile.services);
        brought.chain(&self.spec().mcp_services).map(|(name, service)| (name.as_str(), service)).collect()
    }

    /// The session with the demand of its agents. With `launch.mode: OnDemand`, the started types are those that `launch.types` names (or
    /// `main`), those that have been started before, and those that agents require. If only some folders of the tools are staged, these
    /// are the folders that the agents and the session itself use. Neither set ever shrinks.
    pub(super) fn with_demand(self, demand: &Demand) -> Self {
        let mut types = None;
        if starts_on_demand(&self) {
            let named = self.spec().launch.as_ref().and_then(|launch| launch.types.clone());
            let started = self.status().into_iter().flat_map(|status| status.launched.iter());
            let asked = started.chain(&demand.sandboxes).filter_map(|sandbox_type| enabled(&self, sandbox_type));
            let mut all: BTreeSet<_> = asked.map(String::from).collect();
            all.extend(named.unwrap_or_else(|| enabled(&self, MAIN).map(String::from).into_iter().collect()));
            types = Some(all.into_iter().collect());
        }
        let tools_top_roots = self.spec().tools_top_roots.as_ref().map(|named| {
            let volumes = self.status().and_then(|status| status.volumes.as_ref());
            let staged = volumes.and_then(|volumes| volumes.tools.as_ref()).map(|tools| tools.roots.clone());
            let more = own_roots(&self).chain(demand.tools_roots.iter().cloned()).chain(staged.unwrap_or_default());
            // The user's folders come first in their order, then the others in a stable order.
            let more: BTreeSet<_> = more.filter(|root| !named.contains(root)).collect();
            named.iter().cloned().chain(more).collect::<Vec<_>>()
        });
        if types.is_none() && tools_top_roots == self.spec().tools_top_roots {
            return self;
        }
        let mut session = AigiseSession::clone(&self.session);
        session.spec.tools_top_roots = tools_top_roots;
        if let (Some(launch), Some(types)) = (&mut session.spec.launch, types) {
            launch.types = Some(types);
        }
        Self { session: Arc::new(session), ..self }
    }
}

fn starts_on_demand(session: &EffectiveSession) -> bool {
    session.spec().launch.as_ref().and_then(|launch| launch.mode) == Some(LaunchMode::OnDemand)
}

/// The first-level folders of the tools that the session names, or in which it enables skills.
pub(super) fn own_roots(session: &EffectiveSession) -> impl Iterator<Item = String> {
    let of_skills = session.spec().enabled_skills.iter().flatten().filter_map(|skill| top_root(skill));
    session.spec().tools_top_roots.iter().flatten().cloned().chain(of_skills)
}

/// The first-level folder of a skill; `None` for `all`.
pub fn top_root(skill: &str) -> Option<String> {
    skill.split('/').next().filter(|root| *root != ALL_SKILLS).map(String::from)
}

/// The type as the session spells it, if the session has the type and has not disabled it.
fn enabled<'a>(session: &'a EffectiveSession, sandbox_type: &str) -> Option<&'a str> {
    let (known, sandbox) = session.spec().sandboxes.get_key_value(sandbox_type)?;
    (sandbox.enabled != Some(false)).then_some(known)
}

/// A list in the type's template, or in the session's defaults; `None` if neither has the list, so the profile's list applies.
fn stated<'a>(
    session: &'a EffectiveSession,
    sandbox_type: &str,
    list: impl Fn(&'a SandboxTemplate) -> &'a Vec<String>,
) -> Option<impl Iterator<Item = &'a str>> {
    let own = session.spec().sandboxes.get(sandbox_type).map(|sandbox| &sandbox.template);
    let defaults = session.spec().sandbox_defaults.as_ref().filter(|_| own.is_some_and(|own| own.attach.is_none()));
    let mut lists = [own, defaults].into_iter().flatten().map(list).filter(|list| !list.is_empty());
    lists.next().map(|list| list.iter().map(String::as_str))
}

/// The types that a type depends on.
fn depends_on<'a>(session: &'a EffectiveSession, sandbox_type: &str) -> Vec<&'a str> {
    if let Some(stated) = stated(session, sandbox_type, |template| &template.depends_on) {
        return stated.collect();
    }
    let Some(profile) = profile::of(session, sandbox_type) else { return vec![] };
    let after = profile.after.iter().filter_map(|after| enabled(session, after));
    profile.template.depends_on.iter().map(String::as_str).chain(after).collect()
}

/// The MCP services that have to respond before a type is ready.
fn mcp_services<'a>(session: &'a EffectiveSession, sandbox_type: &str) -> Vec<&'a str> {
    if let Some(stated) = stated(session, sandbox_type, |template| &template.mcp_services) {
        return stated.collect();
    }
    let profile = profile::of(session, sandbox_type);
    profile.into_iter().flat_map(|profile| &profile.template.mcp_services).map(String::as_str).collect()
}

/// Whether a type waits for an MCP service that runs in its own sandbox.
pub(super) fn awaits_itself(
    session: &EffectiveSession,
    sandbox_type: &str,
    services: &BTreeMap<&str, &McpService>,
) -> bool {
    let own = Label::of(sandbox_type);
    let mut awaited = mcp_services(session, sandbox_type).into_iter().filter_map(|name| services.get(name));
    own.is_ok() && awaited.any(|service| Label::of(&service.sandbox) == own)
}

/// The layers of the templates of a session's types. The defaults of all types are converted once.
pub struct Layers<'a> {
    session: &'a EffectiveSession,
    defaults: Option<Value>,
}

impl<'a> Layers<'a> {
    /// The layers of a session.
    ///
    /// # Errors
    /// When the defaults cannot be written as JSON.
    pub fn of(session: &'a EffectiveSession) -> Result<Self, Invalid> {
        let defaults = session.spec().sandbox_defaults.as_ref().map(serde_json::to_value).transpose()?;
        Ok(Self { session, defaults })
    }

    /// The template of a type: its own fields over the session's defaults, and these over its profile. Also returns the approximate size
    /// in memory, in bytes.
    ///
    /// # Errors
    /// When the layers do not make a valid template together, or the template is too large.
    pub fn template(&self, sandbox_type: &str) -> Result<(SandboxTemplate, usize), Invalid> {
        let session = self.session;
        let own = session.spec().sandboxes.get(sandbox_type).map(|sandbox| &sandbox.template);
        // An existing Pod, to which the sandbox attaches, has its own settings.
        let defaults = self.defaults.as_ref().filter(|_| own.is_none_or(|own| own.attach.is_none()));
        let profile = profile::of(session, sandbox_type).map(|profile| SandboxTemplate {
            depends_on: depends_on(session, sandbox_type).into_iter().map(String::from).collect(),
            ..profile.template(session)
        });
        let [of_profile, of_type] =
            [profile.as_ref(), own].map(|template| template.map(serde_json::to_value).transpose());
        let (of_profile, of_type) = (of_profile?, of_type?);
        let mut merged = serde_json::json!({});
        for layer in [of_profile.as_ref(), defaults, of_type.as_ref()].into_iter().flatten() {
            overlay::merge(&mut merged, layer);
        }
        let size = check_size(&merged)?;
        let is_alone = profile.is_none() && defaults.is_none();
        let merged: SandboxTemplate = serde_json::from_value(merged)?;
        // A single layer stays as it was written, including `null` in a pod template.
        let template = if is_alone || merged.attach.is_some() { own.cloned().unwrap_or_default() } else { merged };
        Ok((template, size))
    }
}

/// Checks that the template fits into a Sandbox, and returns its approximate size in memory, in bytes.
fn check_size(template: &Value) -> Result<usize, Invalid> {
    let (bytes, values) = (template.to_string().len(), limits::values(template));
    if bytes > limits::TEMPLATE_BYTES || values > limits::TEMPLATE_VALUES {
        return Err(Invalid::whole(format!(
            "together with sandboxDefaults and the profile, the template of the type has {bytes} bytes and {values} values, and {} and {} are allowed; make the type or sandboxDefaults smaller.",
            limits::TEMPLATE_BYTES,
            limits::TEMPLATE_VALUES
        )));
    }
    // A pod template is kept in memory as text.
    let of_text = template.get("podTemplate").map_or(0, limits::values);
    Ok(1024 + bytes + 128 * values.saturating_sub(of_text))
}

/// Checks the types that are to be started, and what they need.
///
/// # Errors
/// The field, and the chain of dependencies that leads there.
pub fn check(session: &EffectiveSession) -> Result<(), Invalid> {
    let types = session.spec().launch.iter().flat_map(|launch| launch.types.iter().flatten());
    for sandbox_type in types {
        if enabled(session, sandbox_type).is_none() {
            let why = format!("{sandbox_type} {}.", missing(session, sandbox_type));
            return Err(Invalid::new("spec.launch.types", why));
        }
    }
    let services = session.services();
    let mut followed = BTreeSet::new();
    for sandbox_type in session.launchable() {
        follow(session, sandbox_type, &mut followed)?;
        check_services(session, sandbox_type, &services)?;
    }
    check_skills(session)
}

/// Follows the dependencies of a type, depth first, to find cycles. Each type is visited once: a type in `followed` is known not to lead
/// into a cycle.
fn follow<'a>(
    session: &'a EffectiveSession,
    sandbox_type: &'a str,
    followed: &mut BTreeSet<&'a str>,
) -> Result<(), Invalid> {
    let needs = |of: &'a str| depends_on(session, of).into_iter();
    // The chain that leads to the current type, and the remaining dependencies of each type in the chain.
    let (mut chain, mut waiting) = (vec![sandbox_type], vec![needs(sandbox_type)]);
    let mut in_chain = BTreeSet::from([sandbox_type]);
    while let (Some(&last), Some(rest)) = (chain.last(), waiting.last_mut()) {
        let Some(needed) = rest.next() else {
            followed.insert(last);
            in_chain.remove(last);
            chain.pop();
            waiting.pop();
            continue;
        };
        let complaint = |what: &str| {
            let by_profile = profile::of(session, last).is_some()
                && stated(session, last, |template| &template.depends_on).is_none();
            let hint = if by_profile {
                " The type's profile adds this dependency; init.profile: None removes it."
            } else {
                ""
            };
            let why = format!("{} → {needed}, {what}.{hint}", chain.join(" → "));
            Err(Invalid::new(format_args!("spec.sandboxes.{last}.dependsOn"), why))
        };
        if in_chain.contains(needed) {
            return complaint("which is a cycle");
        }
        let Some(needed) = enabled(session, needed) else {
            return complaint(&format!("which {}", missing(session, needed)));
        };
        if !followed.contains(needed) {
            in_chain.insert(needed);
            chain.push(needed);
            waiting.push(needs(needed));
        }
    }
    Ok(())
}

fn check_services(
    session: &EffectiveSession,
    sandbox_type: &str,
    services: &BTreeMap<&str, &McpService>,
) -> Result<(), Invalid> {
    for name in mcp_services(session, sandbox_type) {
        let Some(service) = services.get(name) else {
            let field = format_args!("spec.sandboxes.{sandbox_type}.mcpServices");
            return Err(Invalid::new(field, format!("{name} is not among spec.mcpServices.")));
        };
        if enabled(session, &service.sandbox).is_none() {
            let why = format!("{} {}.", service.sandbox, missing(session, &service.sandbox));
            return Err(Invalid::new(format_args!("spec.mcpServices.{name}.sandbox"), why));
        }
    }
    Ok(())
}

fn check_skills(session: &EffectiveSession) -> Result<(), Invalid> {
    let named = session.spec().enabled_skills.iter().flatten().find(|skill| *skill != ALL_SKILLS);
    match named {
        Some(skill) if !session.spec().has_tools() => Err(Invalid::new(
            "spec.enabledSkills",
            format!("{skill} is a folder of the tools volume, and the session has no tools (volumes.tools)."),
        )),
        Some(_) | None => Ok(()),
    }
}

fn missing(session: &EffectiveSession, sandbox_type: &str) -> &'static str {
    if session.spec().sandboxes.contains_key(sandbox_type) { "is disabled" } else { "is not among spec.sandboxes" }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn session(spec: &serde_json::Value) -> EffectiveSession {
        let object = json!({"apiVersion": "aigise.dev/v1alpha1", "kind": "AigiseSession", "metadata": {"name": "demo"}, "spec": spec});
        EffectiveSession::stored(object)
    }

    /// `a>b,c` is a type with its dependencies; `-a` is a disabled type.
    fn types(text: &str, launch: &[&str]) -> EffectiveSession {
        let sandboxes: serde_json::Map<_, _> = text
            .split(' ')
            .map(|one| {
                let (name, needs) = one.split_once('>').unwrap_or((one, ""));
                let needs: Vec<_> = needs.split(',').filter(|need| !need.is_empty()).collect();
                let enabled = !name.starts_with('-');
                (
                    name.trim_start_matches('-').to_string(),
                    json!({"image": "a", "dependsOn": needs, "enabled": enabled}),
                )
            })
            .collect();
        let launch = if launch.is_empty() { json!(null) } else { json!({"types": launch}) };
        session(&json!({"sandboxes": sandboxes, "launch": launch}))
    }

    #[test]
    fn a_subset_brings_along_what_it_depends_on() {
        let launched = |text, launch: &[&str]| {
            let session = types(text, launch);
            session.launched().into_iter().map(String::from).collect::<Vec<_>>()
        };
        assert_eq!(launched("main fuzz>main joern>main,neo4j neo4j", &["joern"]), ["joern", "main", "neo4j"]);
        assert_eq!(launched("main fuzz>main codeql>joern joern>main", &["codeql"]), ["codeql", "joern", "main"]);
        assert_eq!(launched("main -fuzz joern", &[]), ["joern", "main"]);
        assert_eq!(launched("a>b b>a", &["a"]), ["a", "b"], "a cycle is followed once");
    }

    #[test]
    fn what_cannot_be_launched_is_refused_with_the_chain() {
        let complaint = |text, launch: &[&str]| check(&types(text, launch)).unwrap_err().to_string();
        assert_eq!(complaint("main", &["fuzz"]), "spec.launch.types: fuzz is not among spec.sandboxes.");
        assert_eq!(complaint("main -fuzz", &["fuzz"]), "spec.launch.types: fuzz is disabled.");
        assert_eq!(complaint("a>b b>c c>a", &["a"]), "spec.sandboxes.c.dependsOn: a → b → c → a, which is a cycle.");
        assert_eq!(
            complaint("main codeql>joern joern>neo4j", &[]),
            "spec.sandboxes.joern.dependsOn: codeql → joern → neo4j, which is not among spec.sandboxes."
        );
        assert!(complaint("main>fuzz -fuzz", &[]).contains("main → fuzz, which is disabled"));
        assert_eq!(check(&types("main fuzz>main joern>main,fuzz", &["joern"])), Ok(()));
        assert_eq!(check(&types("main bad>gone", &["main"])), Ok(()), "types that are not launched are not checked");
    }

    #[test]
    fn defaults_lie_under_every_template() {
        let session = session(&json!({
            "sandboxDefaults": {
                "image": "base", "env": [{"name": "A", "value": "1"}, {"name": "B", "value": "1"}],
                "resources": {"limits": {"cpu": "1", "memory": "1Gi"}}, "command": ["a", "b"],
            },
            "sandboxes": {
                "main": {},
                "fuzz": {
                    "image": "own", "env": [{"name": "B", "value": "2"}, {"name": "C", "value": "2"}],
                    "resources": {"limits": {"memory": "4Gi"}}, "command": ["c"],
                },
                "there": {"attach": {"podName": "p"}},
            },
        }));
        let template =
            |session, sandbox_type| Layers::of(session).unwrap().template(sandbox_type).map(|(template, _)| template);
        assert_eq!(&template(&session, "main").unwrap(), session.spec().sandbox_defaults.as_ref().unwrap());
        let fuzz = template(&session, "fuzz").unwrap();
        assert_eq!(fuzz.image.as_deref(), Some("own"));
        assert_eq!(fuzz.command, ["c"]);
        let env: Vec<_> = fuzz.env.iter().map(|env| (env.name.as_str(), env.value.as_deref().unwrap())).collect();
        assert_eq!(env, [("A", "1"), ("B", "2"), ("C", "2")]);
        let limits = fuzz.resources.unwrap().limits.unwrap();
        assert_eq!((limits["cpu"].0.as_str(), limits["memory"].0.as_str()), ("1", "4Gi"));
        assert_eq!(template(&session, "there").unwrap().image, None, "an existing Pod gets no defaults");
    }
}
