//! Where a reconcile reads from: the caches of one namespace, and the API server for what is not cached. The simulated world of the tests
//! implements it as well, so both observe with the same functions.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use jiff::Timestamp;
use k8s_openapi::api::{
    core::v1::{PersistentVolumeClaim, Pod, Service},
    networking::v1::NetworkPolicy,
};
use kube::ResourceExt;

use super::{Shared, configuration, live::size_of};
pub use super::{configuration::ConfigRead, live::Busy};
use crate::{
    api::{Agent, AigiseSession, Sandbox, session::VolumeLayout},
    apply::{self, Object},
    plan::{
        Lookup, Settings,
        effective::{Decided, EffectiveSession, bytes_to_decide, configuration::Configuration, volumes::layout},
        name::Label,
        pod_event::PodEvent,
        session::{ConfigMapContent, Pull},
    },
    reading::live as single,
};

/// What a reconcile reads of one namespace.
pub trait Read: Sync {
    /// The latest known version of a session.
    fn session(&self, name: &str) -> Lookup<AigiseSession>;
    /// A Sandbox.
    fn sandbox(&self, name: &str) -> Lookup<Sandbox>;
    /// An agent.
    fn agent(&self, name: &str) -> Lookup<Agent>;
    /// A Pod with the operator's label.
    fn pod(&self, name: &str) -> Lookup<Pod>;
    /// A claim with the operator's label.
    fn claim(&self, name: &str) -> Lookup<PersistentVolumeClaim>;
    /// A Service with the operator's label.
    fn service(&self, name: &str) -> Lookup<Service>;
    /// A network policy with the operator's label.
    fn policy(&self, name: &str) -> Lookup<NetworkPolicy>;

    /// The names of the Sandboxes whose owner has this UID.
    fn sandboxes_owned_by(&self, uid: &str) -> BTreeSet<String>;
    /// The names of the Sandboxes that name this session.
    fn sandboxes_of(&self, session: &str) -> BTreeSet<String>;
    /// The first sandboxes of a type in a session: only these are ever used.
    fn first_of_type(&self, session: &str, label: &Label) -> Vec<Arc<Sandbox>>;
    /// The names of the newest claims that hold caches of this key.
    fn entries(&self, key: &str) -> Vec<String>;
    /// The names of the agents that name this session.
    fn agents_of(&self, session: &str) -> BTreeSet<String>;
    /// The names of an agent's direct children.
    fn children_of(&self, agent: &str) -> BTreeSet<String>;
    /// How many Pods were created since then and do not run yet.
    fn starting_pods(&self, since: Timestamp) -> usize;

    /// Reads an object from the API server and not from a cache.
    fn look<K: Object>(&self, name: &str) -> impl Future<Output = Lookup<K>> + Send;
    /// A Pod to which a sandbox attaches.
    fn attached_pod(&self, name: &str) -> impl Future<Output = Result<Lookup<Pod>, Busy>> + Send;
    /// A claim that a session uses by name.
    fn existing_claim(&self, name: &str) -> impl Future<Output = Result<Lookup<PersistentVolumeClaim>, Busy>> + Send;
    /// The events about a Pod with this UID, at most a minute old. None if they cannot be read: they only name causes.
    fn pod_events(&self, uid: &str) -> impl Future<Output = Vec<PodEvent>> + Send;
    /// The images that a node lists, at most a minute old; `None` if the node does not exist. An operator that may not read nodes knows of
    /// none: the images only show what need not be pulled.
    fn node_images(&self, node: &str) -> impl Future<Output = Option<BTreeSet<String>>> + Send;
    /// What is remembered about pulling images beside the stage Pod with this UID.
    fn pull(&self, stage_pod: &str) -> Pull;
    /// The content of ConfigMaps.
    fn config_maps(
        &self,
        names: BTreeSet<String>,
    ) -> impl Future<Output = Result<BTreeMap<String, ConfigMapContent>, Busy>> + Send;
    /// The configuration of a session.
    fn configuration(
        &self,
        session: &Arc<AigiseSession>,
        has_runner: bool,
    ) -> impl Future<Output = Result<ConfigRead, Busy>> + Send;

    /// The decisions that depend only on a session's spec and its configuration file.
    fn decided(
        &self,
        session: &EffectiveSession,
        configuration: &Configuration,
    ) -> impl Future<Output = Result<Arc<Decided>, Busy>> + Send;
    /// How the volumes of a session are laid out on claims.
    fn layout(&self, session: &AigiseSession) -> VolumeLayout {
        layout(session, |name| self.claim(name), self.settings().volume_layout)
    }
    /// The session with what its status recorded.
    fn effective(&self, session: Arc<AigiseSession>) -> Arc<EffectiveSession>;

    /// The operator's settings.
    fn settings(&self) -> Arc<Settings>;
    /// The time.
    fn now(&self) -> Timestamp;
}

/// The caches and the API server, in one namespace.
pub(super) struct InNamespace<'a> {
    pub(super) shared: &'a Shared,
    pub(super) namespace: String,
}

impl Read for InNamespace<'_> {
    fn session(&self, name: &str) -> Lookup<AigiseSession> {
        self.shared.caches.sessions.latest(name, &self.namespace).into()
    }

    fn sandbox(&self, name: &str) -> Lookup<Sandbox> {
        self.shared.caches.sandboxes.get(name, &self.namespace).into()
    }

    fn agent(&self, name: &str) -> Lookup<Agent> {
        self.shared.caches.agents.get(name, &self.namespace).into()
    }

    fn pod(&self, name: &str) -> Lookup<Pod> {
        self.shared.caches.pods.get(name, &self.namespace).into()
    }

    fn claim(&self, name: &str) -> Lookup<PersistentVolumeClaim> {
        self.shared.caches.claims.get(name, &self.namespace).into()
    }

    fn service(&self, name: &str) -> Lookup<Service> {
        self.shared.caches.services.get(name, &self.namespace).into()
    }

    fn policy(&self, name: &str) -> Lookup<NetworkPolicy> {
        self.shared.caches.policies.get(name, &self.namespace).into()
    }

    fn sandboxes_owned_by(&self, uid: &str) -> BTreeSet<String> {
        self.shared.caches.sandboxes_in.owned_by(uid)
    }

    fn sandboxes_of(&self, session: &str) -> BTreeSet<String> {
        self.shared.caches.sandboxes_in.of_session(&self.namespace, session)
    }

    fn first_of_type(&self, session: &str, label: &Label) -> Vec<Arc<Sandbox>> {
        self.shared.caches.first_of_type(&self.namespace, session, label).collect()
    }

    fn entries(&self, key: &str) -> Vec<String> {
        self.shared.caches.entries_in.of_key(&self.namespace, key)
    }

    fn agents_of(&self, session: &str) -> BTreeSet<String> {
        self.shared.caches.agents_in.of_session(&self.namespace, session)
    }

    fn children_of(&self, agent: &str) -> BTreeSet<String> {
        self.shared.caches.agents_in.children(&self.namespace, agent)
    }

    fn starting_pods(&self, since: Timestamp) -> usize {
        self.shared.caches.starting_pods.since(&self.namespace, since)
    }

    async fn look<K: Object>(&self, name: &str) -> Lookup<K> {
        self.shared.look(&self.namespace, name).await
    }

    async fn attached_pod(&self, name: &str) -> Result<Lookup<Pod>, Busy> {
        self.shared.live.pod(&self.namespace, name).await
    }

    async fn existing_claim(&self, name: &str) -> Result<Lookup<PersistentVolumeClaim>, Busy> {
        self.shared.live.claim(&self.namespace, name).await
    }

    async fn pod_events(&self, uid: &str) -> Vec<PodEvent> {
        self.shared.live.pod_events(&self.namespace, uid, self.shared.now()).await
    }

    async fn node_images(&self, node: &str) -> Option<BTreeSet<String>> {
        self.shared.live.node_images(node, self.shared.now()).await
    }

    fn pull(&self, stage_pod: &str) -> Pull {
        self.shared.pulls.get(stage_pod, &()).map(|pull| Pull::clone(&pull)).unwrap_or_default()
    }

    async fn config_maps(&self, names: BTreeSet<String>) -> Result<BTreeMap<String, ConfigMapContent>, Busy> {
        self.shared.live.config_maps(&self.namespace, names).await
    }

    async fn configuration(&self, session: &Arc<AigiseSession>, has_runner: bool) -> Result<ConfigRead, Busy> {
        configuration::read(session, has_runner, self.shared).await
    }

    /// Decided once for each version of the spec and the file. An expensive decision runs outside the thread that all reconciles share,
    /// for one session at a time.
    async fn decided(&self, session: &EffectiveSession, configuration: &Configuration) -> Result<Arc<Decided>, Busy> {
        let from_file = match configuration {
            Configuration::None => None,
            Configuration::Read { spec, .. } => Some(spec.clone()),
            Configuration::Unusable(_) => {
                session.status().and_then(|status| Some(status.configuration.as_ref()?.spec.clone()))
            }
        };
        let (of, uid, shared) =
            ((session.metadata().generation, from_file), session.uid().unwrap_or_default(), self.shared);
        if let Some(decided) = shared.decided.get(&uid, &of) {
            return Ok(decided);
        }
        let decided = if bytes_to_decide(session) > MUCH {
            let _turn = shared.turns.turn(&self.namespace).await?;
            let (session, settings) = (session.clone(), shared.settings.clone());
            tokio::task::spawn_blocking(move || Decided::of(&session, &settings)).await.map_err(|_| Busy)?
        } else {
            Decided::of(session, &shared.settings)
        };
        let (bytes, decided) = (decided.size(), Arc::new(decided));
        shared.decided.put(&uid, of, decided.clone(), bytes);
        Ok(decided)
    }

    /// Resolved once for each resource version.
    fn effective(&self, session: Arc<AigiseSession>) -> Arc<EffectiveSession> {
        let layout = self.layout(&session);
        let resolve = |session| Arc::new(EffectiveSession::of(session).laid_out(layout));
        // Without a configuration file, this is cheap.
        let Some(from_file) = session.status.as_ref().and_then(|status| status.configuration.as_ref()) else {
            return resolve(session);
        };
        let bytes = 8 * from_file.spec.text().len() + size_of(&session.spec);
        let (uid, version) = (session.uid().unwrap_or_default(), (session.resource_version(), layout));
        self.shared.effective.get_or(&uid, version, || (resolve(session.clone()), 16 * 1024 + bytes))
    }

    fn settings(&self) -> Arc<Settings> {
        self.shared.settings.clone()
    }

    fn now(&self) -> Timestamp {
        self.shared.now()
    }
}

/// A session whose templates have more bytes than this is expensive to decide: about 60 ms, estimated from the longest session.
const MUCH: usize = 256 * 1024;

impl Shared {
    /// Reads an object by name from the API server and not from a cache.
    pub(super) async fn look<K: Object>(&self, namespace: &str, name: &str) -> Lookup<K> {
        match single::get::<K>(&self.client, namespace, name, K::PROJECTION).await {
            Ok(Some(Ok(object))) => Lookup::Found(Arc::new(object)),
            Ok(Some(Err(unreadable))) => Lookup::Failed(unreadable.failure()),
            Ok(None) => Lookup::Missing,
            Err(error) => Lookup::Failed(apply::failure(&error)),
        }
    }
}
