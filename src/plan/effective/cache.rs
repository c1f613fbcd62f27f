//! What a session says about caches, and what its sandboxes have from one.

use serde::Serialize;
use serde_json::Value;

use super::EffectiveSession;
use crate::{
    api::{
        SandboxTemplate,
        session::{CacheResult, CacheSpec, CachedRoot},
    },
    plan::digest,
};

/// The fields of a template that decide nothing about what its initialiser leaves. A field that is not here counts, so a field that is
/// added to templates makes a cache miss rather than fit wrongly.
const IRRELEVANT: [&str; 7] =
    ["resources", "readinessProbe", "ports", "mcpServices", "restart", "updatePolicy", "dependsOn"];

/// The fingerprint of a type alone: of its template, and of the skills that are installed in it.
pub fn fingerprint(template: &SandboxTemplate, skills: Option<&[String]>) -> String {
    #[derive(Serialize)]
    struct Inputs<'a>(u32, Value, Option<&'a [String]>);
    let mut fields = serde_json::to_value(template).unwrap_or_default();
    if let Value::Object(fields) = &mut fields {
        for field in IRRELEVANT {
            fields.remove(field);
        }
    }
    digest::short(&Inputs(1, fields, skills))
}

impl EffectiveSession {
    /// The caches that the session asks for.
    pub fn cache(&self) -> Option<&CacheSpec> {
        self.spec().cache.as_ref()
    }

    /// The key of the session's caches.
    pub fn cache_key(&self) -> Option<&str> {
        let cache = self.cache()?;
        let named = cache.key.as_deref().or(self.spec().task_name.as_deref());
        named.or(self.metadata().name.as_deref())
    }

    /// What a type says about its root file system and its steps.
    pub fn cached_root(&self, sandbox_type: &str) -> Option<CachedRoot> {
        self.spec().sandboxes.get(sandbox_type)?.cache.as_ref()?.root
    }

    /// Whether the data of the session was restored from a cache.
    pub fn has_restored_data(&self) -> bool {
        let data = self.status().and_then(|status| status.cache.as_ref()?.data.as_ref());
        data.is_some_and(|data| data.result == CacheResult::Restored)
    }

    /// Whether everything that the steps of this template leave was restored, so that they do not run.
    pub fn skips_steps(&self, sandbox_type: &str, template: &SandboxTemplate) -> bool {
        let part = self.status().and_then(|status| status.cache.as_ref()?.sandboxes.get(sandbox_type));
        let fits = part.filter(|part| matches!(part.result, CacheResult::Restored | CacheResult::Data));
        self.has_restored_data()
            && fits.is_some_and(|part| {
                part.fingerprint.as_deref() == Some(&fingerprint(template, self.installed_skills()))
            })
    }
}
