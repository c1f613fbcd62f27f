//! The profiles of sandbox types: the framework's initialisers, in a data file.

use std::{collections::BTreeMap, sync::LazyLock};

use serde::Deserialize;

use super::EffectiveSession;
use crate::api::{
    SandboxTemplate, init,
    session::{CachedRoot, McpService},
};

/// The profile of a type.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Profile {
    /// The template beneath the type's own, as written in the file.
    pub(super) template: SandboxTemplate,
    /// More types that the type waits for, if the session has them.
    #[serde(default)]
    pub(super) after: Vec<String>,
    /// What becomes of the type's root file system in caches.
    pub(super) root: Option<CachedRoot>,
    /// MCP services that the type provides.
    #[serde(default)]
    pub(super) services: BTreeMap<String, McpService>,
}

const FILE: &str = include_str!("profiles.yaml");

#[expect(clippy::expect_used, reason = "the file is part of the program, and a test reads it")]
static PROFILES: LazyLock<BTreeMap<String, Profile>> =
    LazyLock::new(|| serde_yaml::from_str(FILE).expect("profiles.yaml is well-formed"));

/// The profile of a type, if the session has scripts for it and the profile is not disabled.
pub(super) fn of(session: &EffectiveSession, sandbox_type: &str) -> Option<&'static Profile> {
    let own = &session.spec().sandboxes.get(sandbox_type)?.template;
    let request = |template: &SandboxTemplate| template.init.as_ref().and_then(|init| init.profile);
    let request = request(own).or_else(|| request(session.spec().sandbox_defaults.as_ref()?)).unwrap_or_default();
    let applies = session.spec().has_scripts() && own.attach.is_none() && request == init::Profile::Type;
    applies.then(|| PROFILES.get(sandbox_type)).flatten()
}

impl Profile {
    /// The profile's template in this session: the session's `build` replaces the placeholders in its steps.
    pub(super) fn template(&self, session: &EffectiveSession) -> SandboxTemplate {
        let build = session.spec().build.as_ref();
        let source = build.and_then(|build| build.source_dir.as_deref()).unwrap_or("/shared/code");
        let compile = build.and_then(|build| build.compile_command.as_deref()).unwrap_or("arvo compile");
        let mut template = self.template.clone();
        let steps = template.init.iter_mut().flat_map(|init| &mut init.steps);
        for argument in steps.flat_map(|step| &mut step.command) {
            match argument.as_str() {
                "$SOURCE_DIR" => *argument = source.into(),
                "$COMPILE_COMMAND" => *argument = compile.into(),
                _ => {} // not a placeholder
            }
        }
        template
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    /// Whether every field of one value is in the other.
    fn is_part(part: &Value, whole: &Value) -> bool {
        match (part, whole) {
            (Value::Object(part), Value::Object(whole)) => {
                part.iter().all(|(key, value)| whole.get(key).is_some_and(|of_whole| is_part(value, of_whole)))
            }
            (part, whole) => part == whole,
        }
    }

    #[test]
    fn the_file_says_nothing_that_is_not_understood() {
        let file: Value = serde_yaml::from_str(FILE).unwrap();
        for (sandbox_type, profile) in &*PROFILES {
            let understood = serde_json::to_value(&profile.template).unwrap();
            assert!(is_part(&file[sandbox_type]["template"], &understood), "{sandbox_type}: {understood:#}");
            // The API server would set the default, so the Sandbox would differ and be written in every reconcile.
            assert!(profile.template.ports.iter().all(|port| port.protocol.is_some()), "{sandbox_type}");
            for name in &profile.template.mcp_services {
                assert_eq!(&profile.services[name].sandbox, sandbox_type);
            }
        }
        assert_eq!(PROFILES.len(), 7);
    }

    #[test]
    fn a_profile_is_for_sessions_with_scripts_and_can_be_switched_off() {
        let session = |spec: Value| -> EffectiveSession {
            EffectiveSession::stored(json!({"metadata": {"name": "demo"}, "spec": spec}))
        };
        let applies = |spec: Value| of(&session(spec), "fuzz").is_some();
        let scripts = json!({"scripts": {"claimName": "s"}});
        assert!(applies(json!({"sandboxes": {"fuzz": {}}, "volumes": scripts})));
        assert!(!applies(json!({"sandboxes": {"fuzz": {}}})), "there is nothing to run");
        assert!(!applies(json!({"sandboxes": {"fuzz": {"init": {"profile": "None"}}}, "volumes": scripts})));
        let defaults = json!({"init": {"profile": "None"}});
        assert!(!applies(json!({"sandboxes": {"fuzz": {}}, "sandboxDefaults": defaults, "volumes": scripts})));
        let own = json!({"fuzz": {"init": {"profile": "Type"}}});
        assert!(applies(json!({"sandboxes": own, "sandboxDefaults": defaults, "volumes": scripts})));
        let attached = json!({"fuzz": {"attach": {"podName": "p"}}});
        assert!(!applies(json!({"sandboxes": attached, "volumes": scripts})));
    }

    #[test]
    fn the_steps_are_about_what_the_session_builds() {
        let session = |build: Value| -> EffectiveSession {
            let spec = json!({"sandboxes": {"joern": {}, "codeql": {}}, "volumes": {"scripts": {"claimName": "s"}}, "build": build});
            EffectiveSession::stored(json!({"metadata": {"name": "demo"}, "spec": spec}))
        };
        let last = |session: &EffectiveSession, sandbox_type: &str| {
            let template = of(session, sandbox_type).unwrap().template(session);
            template.init.unwrap().steps.last().unwrap().command.last().unwrap().clone()
        };
        let unsaid = session(json!(null));
        assert_eq!((last(&unsaid, "joern"), last(&unsaid, "codeql")), ("/shared/code".into(), "arvo compile".into()));
        let said = session(json!({"sourceDir": "/src", "compileCommand": "make -j2"}));
        assert_eq!((last(&said, "joern"), last(&said, "codeql")), ("/src".into(), "make -j2".into()));
    }
}
