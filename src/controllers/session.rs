//! The session controller.

use std::{collections::BTreeMap, sync::Arc};

use futures::channel::mpsc::UnboundedReceiver;
use k8s_openapi::api::core::v1::{ConfigMap, PersistentVolumeClaim};
use kube::{
    Api, Resource, ResourceExt,
    runtime::{
        controller::Action,
        reflector::{ObjectRef, Store},
    },
};

use super::{
    Context, Error,
    configuration::{self, Reading},
};
use crate::{
    api::AigiseSession,
    apply::{self, Object},
    plan::{
        Slot, name, ownership,
        session::{self, ConfigMapContent, Observed},
        volumes::SharedVolume,
    },
};

/// Runs the controller until it is told to stop.
pub async fn run(
    context: Arc<Context<AigiseSession>>,
    triggers: UnboundedReceiver<ObjectRef<AigiseSession>>,
    concurrency: u16,
    stop: impl Future<Output = ()> + Send + Sync + 'static,
) {
    super::run(context, triggers, concurrency, stop, reconcile).await;
}

async fn reconcile(session: Arc<AigiseSession>, context: Arc<Context<AigiseSession>>) -> Result<Action, Error> {
    let (mut observed, read) = observe(session, &context).await;
    if session::has_lost_something(&observed) && context.is_gone(&observed.session).await {
        return Ok(Action::await_change());
    }
    let writes = session::plan(&observed);
    let owner = observed.session.metadata.clone();
    apply::execute(&context.client, context.counter(), &owner, writes, |name, landed| observed.absorb(name, landed))
        .await;
    if session::configuration::is_kept(&observed) {
        context.configurations.remember(&observed.session, read);
    }
    let report = session::report(&observed);
    context.publish(&*observed.session, report).await
}

async fn observe(
    session: Arc<AigiseSession>,
    context: &Context<AigiseSession>,
) -> (Observed, Option<configuration::Remembered>) {
    let caches = &context.caches;
    let (name, namespace) = (session.name_any(), session.namespace().unwrap_or_default());
    let agents = caches.agents_in.of_session(&namespace, &name).into_iter();
    let agents: BTreeMap<_, _> = agents
        .filter_map(|name| Some((name.clone(), caches.agents.get(&ObjectRef::new(&name).within(&namespace))?)))
        .collect();
    let has_runner = agents.values().any(|agent| agent.spec.runner.is_some());
    let Reading { configuration, config_secret, remembered } = configuration::read(&session, has_runner, context).await;
    let session = session::meant_now(session, &configuration, &agents);
    let mut claims = BTreeMap::new();
    for volume in SharedVolume::ALL {
        let slot = match volume.existing(&session) {
            Some(existing) => existing_claim(&session, existing, context).await,
            None => child(&caches.claims, &session, &volume.claim_name(&session)),
        };
        claims.insert(volume, slot);
    }
    let labels = session::launched(&session).into_iter().filter_map(|sandbox_type| name::Label::of(sandbox_type).ok());
    let mut sandboxes = caches.sandboxes_in.owned_by(&session.uid().unwrap_or_default());
    sandboxes.extend(labels.map(|label| name::child(&name, label)));
    let mut observed = Observed {
        configuration,
        config_secret,
        claims,
        stage_pod: ownership::slot(caches.pod(&Observed::stage_pod_name(&session), &namespace), session.meta()),
        service: child(&caches.services, &session, &name),
        policy: child(&caches.policies, &session, &name),
        stage_policy: child(&caches.policies, &session, &Observed::stage_pod_name(&session)),
        sandboxes: sandboxes
            .into_iter()
            .map(|name| {
                let slot = child(&caches.sandboxes, &session, &name);
                (name, slot)
            })
            .collect(),
        agents,
        config_maps: BTreeMap::new(),
        undone: None,
        settings: context.settings.clone(),
        now: context.now(),
        session,
    };
    if session::wants_sources(&observed) {
        observed.config_maps = config_maps(&observed.session, context).await;
    }
    (observed, remembered)
}

fn child<K: Object>(store: &Store<K>, session: &AigiseSession, name: &str) -> Slot<K> {
    let namespace = session.namespace().unwrap_or_default();
    ownership::slot(store.get(&ObjectRef::new(name).within(&namespace)), session.meta())
}

/// A claim that a user made: read by its name, since only our own are watched.
async fn existing_claim(
    session: &AigiseSession,
    name: &str,
    context: &Context<AigiseSession>,
) -> Slot<PersistentVolumeClaim> {
    let namespace = session.namespace().unwrap_or_default();
    match Api::<PersistentVolumeClaim>::namespaced(context.client.clone(), &namespace).get_opt(name).await {
        Ok(Some(claim)) => Slot::Ours(Arc::new(claim)),
        Ok(None) => Slot::Absent,
        Err(error) => Slot::Failed(apply::failure(&error)),
    }
}

/// The ConfigMaps among the sources, read one by one: the operator may get them by name and neither list nor watch them.
async fn config_maps(session: &AigiseSession, context: &Context<AigiseSession>) -> BTreeMap<String, ConfigMapContent> {
    let api: Api<ConfigMap> = Api::namespaced(context.client.clone(), &session.namespace().unwrap_or_default());
    let mut contents = BTreeMap::new();
    for name in session::config_maps(session) {
        let content = match api.get_opt(&name).await {
            Ok(Some(config_map)) => ConfigMapContent::Hash(session::content_hash(&config_map)),
            Ok(None) => ConfigMapContent::Missing,
            Err(error) => ConfigMapContent::Unknown(apply::failure(&error)),
        };
        contents.insert(name, content);
    }
    contents
}
