//! Sessions: what the session controller reads, and what a change of a session enqueues.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::ResourceExt;

use super::{KindCache, Reconciled};
use crate::{
    api::{Agent, AigiseSession, Sandbox, session::SessionPhase},
    controllers::{
        Shared,
        cache::{Caches, Change, Dispatcher},
        configuration::Remembered,
        live::Busy,
        read::{ConfigRead, Read},
    },
    plan::{
        ChildState, Lookup,
        effective::EffectiveSession,
        facts::{
            agent::{belonged_to_other_session, may_exec, runner_name},
            restart_request,
            session::{has_failed, has_volumes, holds_others, is_inactive, role_name},
        },
        name,
        session::{self, Observed, Pull, concerns_caches, configuration::is_kept, exec::Exec},
    },
};

impl Reconciled for AigiseSession {
    const CONTROLLER: &'static str = "session";
    type Observed = Observed;
    type Memory = Option<Remembered>;
    type Phase = SessionPhase;

    fn of(caches: &Caches) -> &KindCache<Self> {
        &caches.sessions
    }

    fn changed(dispatcher: &Dispatcher, change: &Change<'_, Self>) {
        dispatcher.entries_in.session_changed(change);
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
                let cached = session.status.as_ref().and_then(|status| status.cache.as_ref());
                let from_cache = cached.map(|cache| (cache.data.clone(), cache.sandboxes.clone()));
                let read_by_children = (is_inactive(session), has_failed(session), from_file(session), from_cache);
                (session.uid(), restart_request(session).map(String::from), has, read_by_children)
            });
        if !hand_made_only
            || change.touches(|session| (session.metadata.generation, has_volumes(session), holds_others(session)))
        {
            for sandbox in dispatcher.sandboxes_in.of_session(&namespace, &name) {
                if !hand_made_only || !name::is_derived(&sandbox) {
                    dispatcher.enqueue::<Sandbox>(&sandbox, &namespace);
                }
            }
        }
        if change.touches(|session| {
            let volumes = session.status.as_ref().and_then(|status| status.volumes.as_ref());
            let skills = volumes.and_then(|volumes| Some(volumes.tools.as_ref()?.skills.clone()));
            let read_by_children =
                (is_inactive(session), has_volumes(session), holds_others(session), skills, from_file(session));
            (session.uid(), session.metadata.generation, read_by_children)
        }) {
            dispatcher.enqueue_all::<Agent>(dispatcher.agents_in.of_session(&namespace, &name), &namespace);
        }
    }

    async fn observe(session: Arc<Self>, read: &impl Read) -> Result<(Observed, Self::Memory), Busy> {
        let name = session.name_any();
        let mut agents = BTreeMap::new();
        // An agent that cannot be read may have a runner, whose Pod reads the configuration.
        let mut has_runner = false;
        for name in read.agents_of(&name) {
            match read.agent(&name) {
                Lookup::Found(agent) => {
                    has_runner |= agent.spec.runner.is_some();
                    agents.insert(name, agent);
                }
                Lookup::Failed(_) => has_runner = true,
                Lookup::Missing | Lookup::NotNamed => {}
            }
        }
        let ConfigRead { configuration, config_secret, remembered } = read.configuration(&session, has_runner).await?;
        let layout = read.layout(&session);
        let session = EffectiveSession::reading(session, &configuration).laid_out(layout);
        let decided = read.decided(&session, &configuration).await?;
        let session = session.demanded_by(&agents);
        let owner = session.metadata();
        let (mut claims, mut existing_claims) = (BTreeMap::new(), BTreeMap::new());
        for volume in session.claimed_volumes() {
            match session.existing_claim(volume) {
                Some(existing) => _ = existing_claims.insert(volume, read.existing_claim(existing).await?),
                None => _ = claims.insert(volume, read.claim(&session.claim_name(volume)).child_state(owner)),
            }
        }
        let mut sandboxes = read.sandboxes_owned_by(owner.uid.as_deref().unwrap_or_default());
        sandboxes.extend(session.launched_labels().map(|(_, label)| name::child(&name, label)));
        let sandboxes = sandboxes.into_iter().map(|name| {
            let child = read.sandbox(&name).child_state(owner);
            (name, child)
        });
        let stage_pod = Observed::stage_pod_name(&session);
        let caches = concerns_caches(&session, &claims);
        let pod = |name: String| if caches { read.pod(&name).child_state(owner) } else { ChildState::Absent };
        let mut observed = Observed {
            decided,
            configuration,
            config_secret,
            claims,
            existing_claims,
            stage_pod: read.pod(&stage_pod).child_state(owner),
            pull_pod: read.pod(&Observed::pull_pod_name(&session)).child_state(owner),
            entry: session::entry_name(&session)
                .map_or(ChildState::Absent, |name| read.claim(&name).child_state(owner)),
            entries: entries(&session, read),
            restore_pod: pod(Observed::restore_pod_name(&session)),
            save_pod: pod(Observed::save_pod_name(&session)),
            pull: Pull::default(),
            node_images: None,
            service: read.service(&name).child_state(owner),
            policy: read.policy(&name).child_state(owner),
            stage_policy: read.policy(&stage_pod).child_state(owner),
            sandboxes: sandboxes.collect(),
            exec: exec(&session, &agents, read).await,
            agents,
            config_maps: BTreeMap::new(),
            events: vec![],
            write_error: None,
            settings: read.settings(),
            now: read.now(),
            session: session.clone(),
        };
        let uid = observed.stage_pod.owned().and_then(|pod| pod.uid()).unwrap_or_default();
        observed.pull = Pull::of(read.pull(&uid), &observed.pull_pod);
        if let Some(node) = session::node_to_read(&observed) {
            observed.node_images = read.node_images(&node).await;
        }
        if session::event_reads(&observed).are_due(observed.now) {
            observed.events = read.pod_events(&uid).await;
        }
        if session::wants_sources(&observed) {
            observed.config_maps = read.config_maps(session::config_maps(&session)).await?;
        }
        Ok((observed, remembered))
    }

    fn remember(memory: Self::Memory, observed: &Observed, shared: &Shared) {
        if is_kept(observed) {
            shared.configurations.remember(observed, memory);
        }
        let stage_pod = observed.stage_pod.owned().and_then(|pod| pod.uid());
        if let Some(uid) = stage_pod.filter(|_| observed.pull.tried) {
            let bytes =
                512 + observed.pull.failed.as_ref().map_or(0, |missing| missing.image.len() + missing.message.len());
            shared.pulls.put(&uid, (), Arc::new(observed.pull.clone()), bytes);
        }
    }
}

/// The claims that hold caches of the session's key.
fn entries(session: &EffectiveSession, read: &impl Read) -> Vec<Arc<PersistentVolumeClaim>> {
    let names = session.cache_key().map(|key| read.entries(key)).unwrap_or_default();
    names.into_iter().filter_map(|name| read.claim(&name).found().cloned()).collect()
}

/// The exec access of a session's agents to its sandboxes, or `None` if no agent has exec access.
async fn exec(session: &EffectiveSession, agents: &BTreeMap<String, Arc<Agent>>, read: &impl Read) -> Option<Exec> {
    let settings = read.settings();
    let with_exec =
        agents.values().filter(|agent| may_exec(agent, &settings) && !belonged_to_other_session(agent, session));
    let runners = with_exec.filter_map(|agent| {
        let live = read.sandbox(&runner_name(agent)).child_state(&agent.metadata);
        live.owned().filter(|live| live.metadata.deletion_timestamp.is_none()).cloned()
    });
    let runners: Vec<_> = runners.collect();
    if runners.is_empty() {
        return None;
    }
    let sandboxes = read.sandboxes_of(&session.name_any()).into_iter();
    let sandboxes: Vec<_> = sandboxes.filter_map(|name| read.sandbox(&name).found().cloned()).collect();
    let pod = |sandbox: &Sandbox| read.pod(&sandbox.name_any()).child_state(&sandbox.metadata);
    let pods = session::exec::open_pods(session, &sandboxes, pod);
    Some(Exec { role: read.look(&role_name(session)).await.child_state(session.metadata()), runners, pods })
}
