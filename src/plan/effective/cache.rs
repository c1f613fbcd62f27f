//! What a session says about caches, and what its sandboxes have from one.

use jiff::SignedDuration;
use serde::Serialize;
use serde_json::Value;

use super::{EffectiveSession, profile};
use crate::{
    api::{
        SandboxTemplate,
        init::SavedRoot,
        session::{CacheResult, CacheSpec, CachedRoot, SaveMode, SaveState},
        template::Entrypoint,
    },
    plan::{digest, duration},
    protocol::cache::Root,
};

/// How long saving may take if the session does not say.
const SAVE_TIMEOUT: SignedDuration = SignedDuration::from_mins(10);

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

    /// What becomes of a type's root file system and its steps, as the type says, or its profile.
    pub fn cached_root(&self, sandbox_type: &str) -> CachedRoot {
        let own = self.spec().sandboxes.get(sandbox_type).and_then(|own| own.cache.as_ref()?.root);
        own.or_else(|| profile::of(self, sandbox_type)?.root).unwrap_or_default()
    }

    /// Whether the data of the session was restored from a cache.
    pub fn has_restored_data(&self) -> bool {
        let data = self.status().and_then(|status| status.cache.as_ref()?.data.as_ref());
        data.is_some_and(|data| data.result == CacheResult::Restored)
    }

    /// How long saving may take.
    pub fn save_timeout(&self) -> SignedDuration {
        let said = self.cache().and_then(|cache| duration::parse(cache.save_timeout.as_deref()?));
        said.unwrap_or(SAVE_TIMEOUT)
    }

    /// Whether caches have what the steps of a type leave in its root file system.
    pub fn caches_root(&self, sandbox_type: &str, template: &SandboxTemplate) -> bool {
        let is_asked = match self.cached_root(sandbox_type) {
            CachedRoot::Auto => !runs_image(template),
            CachedRoot::Live => true,
            CachedRoot::Data | CachedRoot::None => false,
        };
        let init = template.init.as_ref();
        let has_steps = init.is_some_and(|init| !init.steps.is_empty()) || self.installed_skills().is_some();
        let is_skipped = init.is_some_and(|init| init.skip == Some(true)) || template.attach.is_some();
        self.cache().is_some() && is_asked && has_steps && !is_skipped
    }

    /// From what a type is restored, so that its steps do not run; `None` if they run.
    pub fn restored(&self, sandbox_type: &str, template: &SandboxTemplate) -> Option<RestoredType> {
        let part = self.status().filter(|_| self.has_restored_data())?.cache.as_ref()?.sandboxes.get(sandbox_type)?;
        if part.fingerprint.as_deref() != Some(&fingerprint(template, self.installed_skills())) {
            return None;
        }
        match (part.result, &part.root) {
            // An edit of the session may ask for more, or less, than was restored.
            (CacheResult::Restored, Some(root)) if self.caches_root(sandbox_type, template) => {
                Some(RestoredType::Root(root.clone()))
            }
            (CacheResult::Data, _) if !self.caches_root(sandbox_type, template) => Some(RestoredType::Data),
            _ => None,
        }
    }

    /// Whether the root file system of a type that starts cold now is packed for the cache that the session is going to save.
    pub fn saves_root(&self, sandbox_type: &str, template: &SandboxTemplate) -> bool {
        let saves = self.cache().is_some_and(|cache| cache.save() != SaveMode::Never);
        let status = self.status();
        let was_ready = status.is_some_and(|status| status.ready_at.is_some());
        let record = status.and_then(|status| status.cache.as_ref());
        let is_over =
            record.and_then(|record| record.save.as_ref()).is_some_and(|save| save.state != SaveState::Running);
        // A session that is older than its field `cache` saves nothing.
        let is_late = record.and_then(|record| record.data.as_ref()).is_some_and(|data| data.fingerprint.is_none());
        saves && !was_ready && !is_over && !is_late && self.caches_root(sandbox_type, template)
    }
}

impl From<SavedRoot> for Root {
    fn from(SavedRoot { sha256, packed, unpacked, image }: SavedRoot) -> Self {
        Self { sha256, packed, unpacked, image }
    }
}

impl From<Root> for SavedRoot {
    fn from(Root { sha256, packed, unpacked, image }: Root) -> Self {
        Self { sha256, packed, unpacked, image }
    }
}

/// From what a type is restored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RestoredType {
    /// From the volumes alone.
    Data,
    /// From the volumes and this root file system.
    Root(SavedRoot),
}

/// Whether the image's own program runs in a type.
pub fn runs_image(template: &SandboxTemplate) -> bool {
    template.command.is_empty() && template.entrypoint() != Entrypoint::Idle
}
