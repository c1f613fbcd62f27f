//! The effective session: what a session says together with its configuration file, the profiles of its types, and the demand of its
//! agents. All rules about a session's spec stand here; everything after this module asks the effective session and never the spec.
//!
//! The session controller resolves a session from its file; the sandbox and agent controllers resolve it from what its status recorded.

pub mod cache;
pub mod configuration;
mod decided;
mod demand;
mod launch;
mod lifetime;
mod profile;
pub mod sources;
pub mod volumes;

use std::{borrow::Cow, collections::BTreeMap, sync::Arc};

use k8s_openapi::{api::core::v1::SecurityContext, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{Resource, ResourceExt};
use serde_json::Value;

use self::configuration::{Configuration, over};
pub use self::{
    decided::{Decided, bytes_to_decide},
    demand::{Demand, Enabled},
    launch::top_root,
    lifetime::Lifetime,
};
use super::{
    Kind, Writable, facts,
    name::{self, Label},
    ownership,
};
use crate::api::{
    Agent, AigiseSession, AigiseSessionSpec, AigiseSessionStatus, SandboxTemplate,
    config::Model,
    meta::{self, Component},
    sandbox::SeenSession,
    session::{Egress, Network, OnExpiry, PolicyMode, VolumeLayout},
};

/// A session whose spec is complete: its own fields over those of its file, and the types and folders that its agents require. Only this
/// module sees the spec.
#[derive(Clone, Debug, PartialEq)]
pub struct EffectiveSession {
    session: Arc<AigiseSession>,
    layout: VolumeLayout,
    /// The types for which [`ImageThenIdle`](crate::api::template::Entrypoint::ImageThenIdle) follows from the file.
    serving: Vec<String>,
}

impl EffectiveSession {
    /// The session with what its status recorded: the content of its file, as it was last read successfully, and the started types.
    pub fn of(session: Arc<AigiseSession>) -> Self {
        Self::last_read(session).with_demand(&Demand::default())
    }

    /// The session with the present content of its file.
    pub fn reading(session: Arc<AigiseSession>, configuration: &Configuration) -> Self {
        match configuration {
            Configuration::None => session.into(),
            Configuration::Read { spec, .. } => over(&session, spec).unwrap_or_else(|| session.into()),
            Configuration::Unusable(_) => Self::last_read(session),
        }
    }

    /// The session from its stored object, as JSON, without what its status recorded.
    #[cfg(test)]
    pub(super) fn stored(session: Value) -> Self {
        Arc::new(serde_json::from_value::<AigiseSession>(session).unwrap()).into()
    }

    fn last_read(session: Arc<AigiseSession>) -> Self {
        let from_file = session.status.as_ref().and_then(|status| status.configuration.as_ref());
        let effective = from_file.and_then(|from_file| over(&session, &from_file.spec));
        effective.unwrap_or_else(|| session.into())
    }

    /// The session with its volumes laid out on claims in this way: [`layout`](volumes::layout).
    #[must_use]
    pub fn laid_out(self, layout: VolumeLayout) -> Self {
        Self { layout, ..self }
    }

    /// The session with the types and folders that its agents require.
    pub fn demanded_by(self, agents: &BTreeMap<String, Arc<Agent>>) -> Self {
        let demand = Demand::of(agents, &self);
        self.with_demand(&demand)
    }

    /// The metadata of the stored session.
    pub fn metadata(&self) -> &ObjectMeta {
        &self.session.metadata
    }

    fn spec(&self) -> &AigiseSessionSpec {
        &self.session.spec
    }

    /// The last status.
    pub fn status(&self) -> Option<&AigiseSessionStatus> {
        self.session.status.as_ref()
    }

    /// Whether the ENTRYPOINT of a type's image runs because the type's service is in the file and nothing else could start it.
    pub fn is_served_by_its_image(&self, sandbox_type: &str) -> bool {
        self.serving.iter().any(|serving| serving == sandbox_type)
    }

    /// The object from which the session's configuration file is read.
    pub fn config_file(&self) -> Option<configuration::Reference> {
        configuration::file(&self.session)
    }

    /// Whether the session is suspended or expired, according to its spec and status. Its sandboxes then have no Pods.
    pub fn is_inactive(&self) -> bool {
        facts::session::is_inactive(&self.session)
    }

    /// Whether the user suspended the session.
    pub fn is_suspended(&self) -> bool {
        self.spec().is_suspended()
    }

    /// Whether the session saves its cache before anybody works in its sandboxes, and has not done so yet.
    pub fn saves_first(&self) -> bool {
        facts::session::saves_first(&self.session)
    }

    /// Whether the session may still discard what it has restored from a cache.
    pub fn may_discard(&self) -> bool {
        facts::session::may_discard(&self.session)
    }

    /// Whether agents, and sandboxes that users created, wait for what the session does about its cache.
    pub fn holds_others(&self) -> bool {
        facts::session::holds_others(&self.session)
    }

    /// Whether the session has failed, according to its status.
    pub fn has_failed(&self) -> bool {
        facts::session::has_failed(&self.session)
    }

    /// Whether the session has filled its volumes, according to its status.
    pub fn has_volumes(&self) -> bool {
        facts::session::has_volumes(&self.session)
    }

    /// Whether the objects that the session created are deleted with it.
    pub fn cleans_up(&self) -> bool {
        self.spec().cleans_up()
    }

    /// Whether the other sandboxes continue when one fails.
    pub fn continues_on_error(&self) -> bool {
        self.spec().continues_on_error()
    }

    /// What happens when the session's time ends.
    pub fn on_expiry(&self) -> OnExpiry {
        self.spec().on_expiry()
    }

    /// Whether the operator manages the network policies of the session.
    pub fn has_own_policy(&self) -> bool {
        self.spec().network_policy() == PolicyMode::Managed
    }

    /// What the sandboxes may connect to.
    pub fn egress(&self) -> Egress {
        self.spec().egress()
    }

    /// The network rules that the user adds.
    pub fn network(&self) -> Network {
        self.spec().network.clone().unwrap_or_default()
    }

    /// The models that agents may use.
    pub fn models(&self) -> &BTreeMap<String, Model> {
        &self.spec().models
    }

    /// The tools that agents can rely on; `None` if that is any tool.
    pub fn tools(&self) -> Option<&[String]> {
        self.spec().tools.as_deref()
    }

    /// The skills whose dependencies are installed in the sandboxes; `None` if there are none.
    pub fn installed_skills(&self) -> Option<&[String]> {
        self.spec().enabled_skills.as_deref().filter(|enabled| !enabled.is_empty() && self.spec().has_tools())
    }

    /// Whether a step of a type's initialiser comes with the framework's profile of the type, and not from the user.
    pub fn profile_brings(&self, sandbox_type: &str, step: &str) -> bool {
        let has = |template: &SandboxTemplate| {
            template.init.as_ref().is_some_and(|init| init.steps.iter().any(|own| own.name == step))
        };
        let own = self.spec().sandboxes.get(sandbox_type).map(|own| &own.template);
        let of_user = own.into_iter().chain(&self.spec().sandbox_defaults).any(has);
        !of_user && profile::of(self, sandbox_type).is_some_and(|profile| has(&profile.template))
    }

    /// The first-level folders of the tools sources that are staged; `None` if that is all of them.
    pub fn tools_top_roots(&self) -> Option<&Vec<String>> {
        self.spec().tools_top_roots.as_ref()
    }

    /// The security context of every sandbox that has none of its own.
    pub fn default_security_context(&self) -> SecurityContext {
        let defaults = self.spec().sandbox_defaults.as_ref();
        defaults.and_then(|defaults| defaults.security_context.clone()).unwrap_or_default()
    }

    /// The `podTemplate` of every sandbox, beneath its own.
    pub fn default_pod_template(&self) -> Option<Value> {
        Some(self.spec().sandbox_defaults.as_ref()?.pod_template.as_ref()?.value())
    }

    /// The DNS name of the sandbox of a type.
    pub fn host(&self, label: &Label) -> String {
        name::host(label, &self.name_any(), &self.namespace().unwrap_or_default())
    }

    /// The types whose sandboxes have a DNS name, by their labels.
    pub fn addressed_types(&self) -> impl Iterator<Item = Label> {
        let types = self.spec().sandboxes.iter();
        let types = types.filter(|(_, sandbox)| sandbox.enabled != Some(false) && sandbox.template.attach.is_none());
        types.filter_map(|(sandbox_type, _)| Label::of(sandbox_type).ok())
    }

    /// The labels of the session's children.
    pub fn labels(&self, component: Component) -> BTreeMap<String, String> {
        let mut labels = ownership::labels(component);
        labels.extend(self.members());
        let task = self.spec().task_name.clone().unwrap_or_else(|| self.name_any());
        labels.insert(meta::TASK.to_string(), task);
        labels.insert(meta::SESSION.to_string(), self.name_any());
        labels
    }

    /// The labels that select the Pods of the session. They contain the session's UID, so a session never selects the Pods of an earlier
    /// session with the same name.
    pub fn members(&self) -> BTreeMap<String, String> {
        BTreeMap::from([(meta::SESSION_UID.to_string(), self.uid().unwrap_or_default())])
    }
}

/// A session whose spec is complete.
impl From<Arc<AigiseSession>> for EffectiveSession {
    fn from(session: Arc<AigiseSession>) -> Self {
        Self { session, layout: VolumeLayout::default(), serving: vec![] }
    }
}

/// What to record about the session in the status of an object that belongs to it and that a user created: its present state, or, if the
/// session is gone, the last record.
pub fn remembered(seen: Option<&SeenSession>, session: Option<&EffectiveSession>) -> Option<SeenSession> {
    let present = session.filter(|session| !facts::session::is_other_session(seen, *session));
    let now = present
        .map(|session| SeenSession { uid: session.uid().unwrap_or_default(), auto_cleanup: session.cleans_up() });
    now.or_else(|| seen.cloned())
}

/// The metadata is that of the stored session.
impl Resource for EffectiveSession {
    type DynamicType = ();
    type Scope = <AigiseSession as Resource>::Scope;

    fn kind((): &()) -> Cow<'_, str> {
        AigiseSession::kind(&())
    }

    fn group((): &()) -> Cow<'_, str> {
        AigiseSession::group(&())
    }

    fn version((): &()) -> Cow<'_, str> {
        AigiseSession::version(&())
    }

    fn plural((): &()) -> Cow<'_, str> {
        AigiseSession::plural(&())
    }

    fn meta(&self) -> &ObjectMeta {
        self.session.meta()
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        Arc::make_mut(&mut self.session).meta_mut()
    }
}

impl Writable for EffectiveSession {
    const KIND: Kind = Kind::AigiseSession;
}
