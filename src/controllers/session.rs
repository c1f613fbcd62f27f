//! The session controller.

use std::{collections::BTreeMap, sync::Arc};

use kube::{ResourceExt, api::ObjectMeta};

use super::{
    Context, Error, Stop,
    cache::{Cache, Found},
    configuration::{self, ConfigRead},
    live::{BUSY, Busy},
    rest_of,
    work_queue::{Action, WorkQueue},
};
use crate::{
    api::{Agent, AigiseSession, Sandbox},
    apply,
    plan::{
        ChildState, Write,
        effective::{Decided, EffectiveSession, bytes_to_decide, configuration::Configuration},
        facts::{
            agent::{belonged_to_other_session, may_exec, runner_name},
            session::role_name,
        },
        name,
        session::{self, Observed, Situation, exec::Exec},
        volumes::SharedVolume,
    },
    reading::Kept,
};

/// Runs the session controller until `stop` resolves.
pub async fn run(context: Arc<Context<AigiseSession>>, requests: Arc<WorkQueue>, concurrency: u16, stop: Stop) {
    super::run(context, requests, concurrency, stop, reconcile).await;
}

async fn reconcile(session: Arc<AigiseSession>, context: Arc<Context<AigiseSession>>) -> Result<Action, Error> {
    let Ok((mut observed, read)) = observe(session.clone(), &context).await else { return Ok(Action::requeue(BUSY)) };
    if session::child_disappeared(&observed) && context.is_gone(&session).await {
        return Ok(Action::await_change());
    }
    let rest = rest_of(observed.agents.len() + observed.sandboxes.len());
    let owner = session.metadata.clone();
    // The role for agents depends on no other child, and no other child depends on the role.
    let role = session::exec::writes(&observed);
    execute(role, &mut observed, &owner, &context).await;
    let mut situation = Situation::of(&observed);
    context.enters((&situation.lifecycle).into());
    let writes = session::plan(&observed, &situation);
    if !writes.is_empty() {
        execute(writes, &mut observed, &owner, &context).await;
        situation = Situation::of(&observed);
    }
    if session::configuration::is_kept(&observed) {
        context.configurations.remember(&observed, read);
    }
    let report = session::report(&observed, &situation);
    Ok(context.publish(&*session, report).await?.not_before(rest))
}

async fn execute(writes: Vec<Write>, observed: &mut Observed, owner: &ObjectMeta, context: &Context<AigiseSession>) {
    let record = |name: &str, outcome| observed.record(name, outcome);
    apply::execute(&context.client, context.counter(), &context.lines, owner, writes, record).await;
}

async fn observe(
    session: Arc<AigiseSession>,
    context: &Context<AigiseSession>,
) -> Result<(Observed, Option<configuration::Remembered>), Busy> {
    let caches = &context.caches;
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
        configuration::read(&session, has_runner, context).await?;
    let session = EffectiveSession::reading(session, &configuration);
    let decided = decided(&session, &configuration, context).await?;
    let session = session.demanded_by(&agents);
    let (mut claims, mut existing_claims) = (BTreeMap::new(), BTreeMap::new());
    for volume in SharedVolume::ALL {
        match session.existing_claim(volume) {
            Some(existing) => _ = existing_claims.insert(volume, context.live.claim(&namespace, existing).await?),
            None => _ = claims.insert(volume, child(&caches.claims, &session, &session.claim_name(volume))),
        }
    }
    let exec = exec(&session, &agents, context).await;
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
                let child = child(&caches.sandboxes, &session, &name);
                (name, child)
            })
            .collect(),
        agents,
        exec,
        config_maps: BTreeMap::new(),
        write_error: None,
        settings: context.settings.clone(),
        now: context.now(),
        session,
    };
    if session::wants_sources(&observed) {
        let names = session::config_maps(&observed.session);
        observed.config_maps = context.live.config_maps(&namespace, names).await?;
    }
    Ok((observed, remembered))
}

/// The exec access of a session's agents to its sandboxes, or `None` if no agent has exec access.
async fn exec(
    session: &EffectiveSession,
    agents: &BTreeMap<String, Arc<Agent>>,
    context: &Context<AigiseSession>,
) -> Option<Exec> {
    let (caches, namespace) = (&context.caches, session.namespace().unwrap_or_default());
    let with_exec = agents
        .values()
        .filter(|agent| may_exec(agent, &context.settings) && !belonged_to_other_session(agent, session));
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
    let role = context.look(&namespace, &role_name(session)).await.child_state(session.metadata());
    Some(Exec { role, runners, pods })
}

/// The decisions that follow from the session's spec and its configuration file, computed once for each version of these. An
/// expensive decision runs outside the thread that all reconciles share, for one session at a time.
async fn decided(
    session: &EffectiveSession,
    configuration: &Configuration,
    context: &Context<AigiseSession>,
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
    if let Some(decided) = context.decided.get(&uid, &of) {
        return Ok(decided);
    }
    let decided = if bytes_to_decide(session) > MUCH {
        let _turn = context.turns.turn(&session.namespace().unwrap_or_default()).await?;
        let (session, settings) = (session.clone(), context.settings.clone());
        tokio::task::spawn_blocking(move || Decided::of(&session, &settings)).await.map_err(|_| Busy)?
    } else {
        Decided::of(session, &context.settings)
    };
    let (bytes, decided) = (decided.size(), Arc::new(decided));
    context.decided.put(&uid, of, decided.clone(), bytes);
    Ok(decided)
}

/// A session whose templates have more bytes than this is expensive to decide: about 60 ms, estimated from the longest session.
const MUCH: usize = 256 * 1024;

fn child<K: Kept>(cache: &Cache<K>, session: &EffectiveSession, name: &str) -> ChildState<K> {
    cache.get(name, &session.namespace().unwrap_or_default()).child_state(session.metadata())
}
