//! Sessions: what the session controller reads, and what a change of a session enqueues.

use std::{collections::BTreeMap, sync::Arc};

use kube::ResourceExt;

use super::{KindCache, Reconciled};
use crate::{
    api::{Agent, AigiseSession, Sandbox, meta, session::SessionPhase},
    controllers::{
        Shared,
        cache::{Cache, Caches, Change, Dispatcher, Found},
        configuration::{self, ConfigRead},
        live::Busy,
    },
    plan::{
        ChildState,
        effective::{Decided, EffectiveSession, bytes_to_decide, configuration::Configuration},
        facts::{
            agent::{belonged_to_other_session, may_exec, runner_name},
            session::{has_failed, has_volumes, is_inactive, role_name},
        },
        name,
        session::{self, Observed, configuration::is_kept, exec::Exec},
        volumes::SharedVolume,
    },
    reading::Kept,
};

impl Reconciled for AigiseSession {
    const CONTROLLER: &'static str = "session";
    type Observed = Observed;
    type Memory = Option<configuration::Remembered>;
    type Phase = SessionPhase;

    fn of(caches: &Caches) -> &KindCache<Self> {
        &caches.sessions
    }

    fn changed(dispatcher: &Dispatcher, change: &Change<'_, Self>) {
        let Some(session) = change.object() else { return };
        let (name, namespace) = (session.name_any(), session.namespace().unwrap_or_default());
        if change.touches_spec() {
            dispatcher.enqueue::<AigiseSession>(&name, &namespace);
        }
        let from_file =
            |session: &AigiseSession| session.status.as_ref().and_then(|status| status.configuration.clone());
        // These are the fields that a sandbox reads from its session after its Pod is created. When a session is gone, only the Sandboxes
        // that users created need a reconcile: the garbage collector deletes the others.
        let hand_made_only = change.after.is_none()
            || !change.touches(|session| {
                let has = (session.spec.mcp_services.clone(), session.spec.enabled_skills.clone());
                let read_by_children = (is_inactive(session), has_failed(session), from_file(session));
                (session.uid(), restart_request(session), has, read_by_children)
            });
        if !hand_made_only || change.touches(|session| (session.metadata.generation, has_volumes(session))) {
            for sandbox in dispatcher.sandboxes_in.of_session(&namespace, &name) {
                // The Sandboxes that a session creates have `--` in their names.
                if !hand_made_only || !sandbox.contains("--") {
                    dispatcher.enqueue::<Sandbox>(&sandbox, &namespace);
                }
            }
        }
        if change.touches(|session| {
            let volumes = session.status.as_ref().and_then(|status| status.volumes.as_ref());
            let skills = volumes.and_then(|volumes| Some(volumes.tools.as_ref()?.skills.clone()));
            let read_by_children = (is_inactive(session), has_volumes(session), skills, from_file(session));
            (session.uid(), session.metadata.generation, read_by_children)
        }) {
            dispatcher.enqueue_all::<Agent>(dispatcher.agents_in.of_session(&namespace, &name), &namespace);
        }
    }

    async fn observe(session: Arc<Self>, shared: &Shared) -> Result<(Observed, Self::Memory), Busy> {
        let caches = &shared.caches;
        let (name, namespace) = (session.name_any(), session.namespace().unwrap_or_default());
        let mut agents = BTreeMap::new();
        // An agent that cannot be read may have a runner, whose Pod reads the configuration.
        let mut has_runner = false;
        for name in caches.agents_in.of_session(&namespace, &name) {
            match caches.agents.get(&name, &namespace) {
                Found::Object(agent) => {
                    has_runner |= agent.spec.runner.is_some();
                    agents.insert(name, agent);
                }
                Found::Unreadable(_) => has_runner = true,
                Found::Absent => {}
            }
        }
        let ConfigRead { configuration, config_secret, remembered } =
            configuration::read(&session, has_runner, shared).await?;
        let session = EffectiveSession::reading(session, &configuration);
        let decided = decided(&session, &configuration, shared).await?;
        let session = session.demanded_by(&agents);
        let (mut claims, mut existing_claims) = (BTreeMap::new(), BTreeMap::new());
        for volume in SharedVolume::ALL {
            match session.existing_claim(volume) {
                Some(existing) => _ = existing_claims.insert(volume, shared.live.claim(&namespace, existing).await?),
                None => _ = claims.insert(volume, child(&caches.claims, &session, &session.claim_name(volume))),
            }
        }
        let exec = exec(&session, &agents, shared).await;
        let labels = session.launched().into_iter().filter_map(|sandbox_type| name::Label::of(sandbox_type).ok());
        let mut sandboxes = caches.sandboxes_in.owned_by(&session.uid().unwrap_or_default());
        sandboxes.extend(labels.map(|label| name::child(&name, label)));
        let mut observed = Observed {
            decided,
            configuration,
            config_secret,
            claims,
            existing_claims,
            stage_pod: child(&caches.pods, &session, &Observed::stage_pod_name(&session)),
            service: child(&caches.services, &session, &name),
            policy: child(&caches.policies, &session, &name),
            stage_policy: child(&caches.policies, &session, &Observed::stage_pod_name(&session)),
            sandboxes: sandboxes
                .into_iter()
                .map(|name| {
                    let child = child(&caches.sandboxes.objects, &session, &name);
                    (name, child)
                })
                .collect(),
            agents,
            exec,
            config_maps: BTreeMap::new(),
            write_error: None,
            settings: shared.settings.clone(),
            now: shared.now(),
            session,
        };
        if session::wants_sources(&observed) {
            let names = session::config_maps(&observed.session);
            observed.config_maps = shared.live.config_maps(&namespace, names).await?;
        }
        Ok((observed, remembered))
    }

    fn remember(memory: Self::Memory, observed: &Observed, shared: &Shared) {
        if is_kept(observed) {
            shared.configurations.remember(observed, memory);
        }
    }
}

fn restart_request(session: &AigiseSession) -> Option<String> {
    session.annotations().get(meta::RESTART).cloned()
}

/// The exec access of a session's agents to its sandboxes, or `None` if no agent has exec access.
async fn exec(session: &EffectiveSession, agents: &BTreeMap<String, Arc<Agent>>, shared: &Shared) -> Option<Exec> {
    let (caches, namespace) = (&shared.caches, session.namespace().unwrap_or_default());
    let with_exec =
        agents.values().filter(|agent| may_exec(agent, &shared.settings) && !belonged_to_other_session(agent, session));
    let runners = with_exec.filter_map(|agent| {
        let live = caches.sandboxes.get(&runner_name(agent), &namespace).child_state(&agent.metadata);
        live.owned().filter(|live| live.metadata.deletion_timestamp.is_none()).cloned()
    });
    let runners: Vec<_> = runners.collect();
    if runners.is_empty() {
        return None;
    }
    let sandboxes = caches.sandboxes_in.of_session(&namespace, &session.name_any()).into_iter();
    let sandboxes: Vec<_> = sandboxes.filter_map(|name| caches.sandboxes.get(&name, &namespace).object()).collect();
    let pod = |sandbox: &Sandbox| caches.pods.get(&sandbox.name_any(), &namespace).child_state(&sandbox.metadata);
    let pods = session::exec::open_pods(session, &sandboxes, pod);
    let role = shared.look(&namespace, &role_name(session)).await.child_state(session.metadata());
    Some(Exec { role, runners, pods })
}

/// The decisions that follow from the session's spec and its configuration file, computed once for each version of these. An
/// expensive decision runs outside the thread that all reconciles share, for one session at a time.
async fn decided(
    session: &EffectiveSession,
    configuration: &Configuration,
    shared: &Shared,
) -> Result<Arc<Decided>, Busy> {
    let from_file = match configuration {
        Configuration::None => None,
        Configuration::Read { spec, .. } => Some(spec.clone()),
        Configuration::Unusable(_) => {
            session.status().and_then(|status| Some(status.configuration.as_ref()?.spec.clone()))
        }
    };
    let of = (session.metadata().generation, from_file);
    let uid = session.uid().unwrap_or_default();
    if let Some(decided) = shared.decided.get(&uid, &of) {
        return Ok(decided);
    }
    let decided = if bytes_to_decide(session) > MUCH {
        let _turn = shared.turns.turn(&session.namespace().unwrap_or_default()).await?;
        let (session, settings) = (session.clone(), shared.settings.clone());
        tokio::task::spawn_blocking(move || Decided::of(&session, &settings)).await.map_err(|_| Busy)?
    } else {
        Decided::of(session, &shared.settings)
    };
    let (bytes, decided) = (decided.size(), Arc::new(decided));
    shared.decided.put(&uid, of, decided.clone(), bytes);
    Ok(decided)
}

/// A session whose templates have more bytes than this is expensive to decide: about 60 ms, estimated from the longest session.
const MUCH: usize = 256 * 1024;

fn child<K: Kept>(cache: &Cache<K>, session: &EffectiveSession, name: &str) -> ChildState<K> {
    cache.get(name, &session.namespace().unwrap_or_default()).child_state(session.metadata())
}
