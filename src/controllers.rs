//! The loops that carry what is decided to the cluster: observe → plan → apply → report. No rule about sessions or sandboxes
//! lives here.

pub mod agent;
mod backoff;
pub mod cache;
mod configuration;
mod cpu_time;
mod event_recorder;
mod live;
mod memo;
pub mod metrics;
pub mod read_your_writes;
pub mod sandbox;
pub mod session;
mod throttle;
mod turns;
mod unreadable;
pub mod work_queue;

use std::{sync::Arc, time::Duration};

use futures::{FutureExt, future};
use jiff::Timestamp;
use kube::{Client, ResourceExt, runtime::reflector::ObjectRef};
use serde::Serialize;
use tokio::{sync::watch, task::JoinSet};
use tracing::{debug, info, warn};

use self::{
    backoff::Backoff,
    cache::{Cache, Caches, Found, Scope, Stored, WorkQueues},
    configuration::Configurations,
    cpu_time::CpuTime,
    event_recorder::EventRecorder,
    live::{LiveReads, size_of},
    memo::Memo,
    metrics::Metrics,
    read_your_writes::ReadYourWrites,
    throttle::Throttle,
    turns::Turns,
    work_queue::{Action, Request, WorkQueue},
};
use crate::{
    api::{AigiseSession, RawJson},
    apply::{self, Object, WriteCounter},
    plan::{self, Lookup, Report, Requeue, Settings, StatusWrite, session::Decided},
    reading::live as single,
};

/// A reconcile that takes longer than this is given up and tried again: a hung request must not hold its object for ever.
const RECONCILE_TIMEOUT: Duration = Duration::from_secs(30);

/// What the controllers share.
#[derive(Clone)]
pub struct Shared {
    /// For writes, and for reads that no cache serves.
    pub client: Client,
    /// What is known of the cluster.
    pub caches: Arc<Caches>,
    /// What the operator was told.
    pub settings: Arc<Settings>,
    /// What was read of sessions' configuration files.
    configurations: Arc<Configurations>,
    /// What is read past the caches.
    live: Arc<LiveReads>,
    /// What the specifications of sessions decide, by generation and what their files add.
    decided: Arc<Memo<Specification, Decided>>,
    /// Whose turn it is to decide much, beside the thread of the passes.
    turns: Arc<Turns>,
    /// Sessions in effect, by version.
    effective: Arc<Memo<Option<String>, AigiseSession>>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Where events go.
    event_recorder: Arc<EventRecorder>,
    /// What time it is.
    pub clock: Clock,
}

/// What a specification is known by: its generation, and what a file adds to it.
type Specification = (Option<i64>, Option<RawJson>);

/// Tells the time. Time is an input: a test that lets it pass faster says how.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// The clock on the wall; the only place that reads it for a decision.
#[must_use]
#[expect(clippy::disallowed_methods, reason = "the edge at which time enters; below it is a value")]
pub fn wall_clock() -> Clock {
    Arc::new(Timestamp::now)
}

/// What the controllers are started with.
pub struct Start {
    /// The API server.
    pub client: Client,
    /// What the operator was told.
    pub settings: Arc<Settings>,
    /// Where it works.
    pub scope: Scope,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// The name of this process in events.
    pub instance: Option<String>,
    /// How many objects of one kind are worked on at once.
    pub concurrency: u16,
    /// What time it is.
    pub clock: Clock,
}

/// A future that resolves, for everybody who asks, when the controllers are to stop.
pub type Stop = future::Shared<future::BoxFuture<'static, ()>>;

/// How the controllers ended by themselves.
#[derive(Debug, thiserror::Error)]
#[error("{0} ended unexpectedly")]
pub struct Ended(&'static str);

/// How long reconciles that have begun may take when the controllers are told to stop.
const DRAIN: Duration = Duration::from_secs(8);

/// Fills the caches, shows them in `filled`, and runs the controllers over them until they are told to stop.
///
/// # Errors
/// When a part that never ends has ended.
pub async fn run_all(start: Start, filled: watch::Sender<Option<Arc<Caches>>>, stop: Stop) -> Result<(), Ended> {
    let Start { client, settings, scope, metrics, instance, concurrency, clock } = start;
    let work_queues = WorkQueues::default();
    let (caches, watches) = cache::watch_all(&client, &scope, work_queues.clone());
    // Each is a task of its own, so that lists are read beside each other and no reconcile waits for one.
    let mut watching = JoinSet::new();
    for watch in watches {
        watching.spawn(watch);
    }
    let caches = Arc::new(caches);
    let event_recorder = Arc::new(EventRecorder::new(&client, instance.as_deref()));

    let shared = Shared {
        configurations: Arc::default(),
        live: Arc::new(LiveReads::new(client.clone())),
        decided: Arc::new(Memo::of(DECIDED_BYTES)),
        turns: Arc::default(),
        effective: Arc::new(Memo::of(EFFECTIVE_BYTES)),
        client,
        caches: caches.clone(),
        settings,
        metrics,
        event_recorder,
        clock,
    };
    let session_context =
        Context::new("session", shared.clone(), caches.sessions.clone(), caches.written_sessions.clone());
    let sandbox_context =
        Context::new("sandbox", shared.clone(), caches.sandboxes.clone(), caches.written_sandboxes.clone());
    let agent_context = Context::new("agent", shared, caches.agents.clone(), caches.written_agents.clone());
    let controllers = async {
        let filled_in = tokio::select! {
            result = caches.synced() => result.is_ok(),
            () = stop.clone() => false,
        };
        if !filled_in {
            return;
        }
        filled.send_replace(Some(caches.clone()));
        info!("the caches are filled");
        // Each is a task of its own, so that what wakes one is not asked of the others.
        let mut controllers = JoinSet::new();
        controllers.spawn(session::run(Arc::new(session_context), work_queues.sessions, concurrency, stop.clone()));
        controllers.spawn(sandbox::run(Arc::new(sandbox_context), work_queues.sandboxes, concurrency, stop.clone()));
        controllers.spawn(agent::run(Arc::new(agent_context), work_queues.agents, concurrency, stop.clone()));
        controllers.join_all().await;
    };
    let too_long = async {
        stop.clone().await;
        tokio::time::sleep(DRAIN).await;
    };
    tokio::select! {
        () = controllers => {}
        _ = watching.join_next() => return Err(Ended("a watch")),
        () = too_long => warn!("reconciles took too long to end; they go on after the next start"),
    }
    if stop.now_or_never().is_none() { Err(Ended("the controllers")) } else { Ok(()) }
}

/// How much is remembered of what specifications decide: of some hundred usual sessions.
const DECIDED_BYTES: u32 = 8 * 1024 * 1024;

/// How much is remembered of sessions in effect.
const EFFECTIVE_BYTES: u32 = 4 * 1024 * 1024;

impl Shared {
    /// Looks at an object by its name, past every cache.
    async fn look<K: Object>(&self, namespace: &str, name: &str) -> Lookup<K> {
        match single::get::<K>(&self.client, namespace, name, K::PROJECTION).await {
            Ok(Some(Ok(object))) => Lookup::Found(Arc::new(object)),
            Ok(Some(Err(unreadable))) => Lookup::Failed(unreadable.failure()),
            Ok(None) => Lookup::Missing,
            Err(error) => Lookup::Failed(apply::failure(&error)),
        }
    }

    /// A session in effect: its own fields over those of its configuration file, worked out once for each version.
    fn effective(&self, session: Arc<AigiseSession>) -> Arc<AigiseSession> {
        // Of one without a file it is no work.
        let Some(from_file) = session.status.as_ref().and_then(|status| status.configuration.as_ref()) else {
            return plan::session::effective(session);
        };
        let bytes = 8 * from_file.spec.text().len() + size_of(&session.spec);
        let (uid, version) = (session.uid().unwrap_or_default(), session.resource_version());
        self.effective.get_or(&uid, version, || (plan::session::effective(session.clone()), 16 * 1024 + bytes))
    }
}

/// What all reconciles of one kind share.
pub struct Context<K: Object> {
    shared: Shared,
    cache: Arc<Cache<K>>,
    written: Arc<ReadYourWrites<K>>,
    backoff: Backoff,
    /// Of small news in a status.
    minor_statuses: Throttle,
    /// Of all that is written in a status.
    statuses: Throttle,
    /// Of Pods that are made.
    pods: Throttle,
    /// Of what is said of objects that cannot be read.
    rare: Throttle,
    name: &'static str,
}

impl<K: Object> std::ops::Deref for Context<K> {
    type Target = Shared;

    fn deref(&self) -> &Shared {
        &self.shared
    }
}

/// A reconcile that ended early.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The status could not be written.
    #[error("writing the status failed")]
    WriteStatus(#[source] kube::Error),
    /// It took longer than [`RECONCILE_TIMEOUT`].
    #[error("the reconcile took longer than {} s", RECONCILE_TIMEOUT.as_secs())]
    Timeout,
}

impl Error {
    /// The word for metrics.
    #[must_use]
    pub fn category(&self) -> &'static str {
        match self {
            Error::WriteStatus(_) => "write_status",
            Error::Timeout => "timeout",
        }
    }
}

impl<K: Object> Context<K> {
    fn new(name: &'static str, shared: Shared, cache: Arc<Cache<K>>, written: Arc<ReadYourWrites<K>>) -> Self {
        Self {
            shared,
            cache,
            written,
            backoff: Backoff::default(),
            minor_statuses: Throttle::of(1, MINOR_STATUS_INTERVAL),
            statuses: Throttle::of(STATUS_BURST, STATUS_REFILL),
            pods: Throttle::of(POD_BURST, POD_REFILL),
            rare: Throttle::of(1, unreadable::INTERVAL),
            name,
        }
    }

    /// The time, as the API server keeps it: whole seconds.
    fn now(&self) -> Timestamp {
        Timestamp::from_second((self.clock)().as_second()).unwrap_or_default()
    }

    fn counter(&self) -> &WriteCounter {
        &self.metrics.writes
    }

    /// Whether the object is gone, past every cache: what it has lost is not made again for something that is not there.
    async fn is_gone(&self, object: &K) -> bool {
        match self.look::<K>(&object.namespace().unwrap_or_default(), &object.name_any()).await {
            Lookup::Found(live) => live.uid() != object.uid(),
            Lookup::Missing => true,
            Lookup::NotNamed | Lookup::Failed(_) => false, // nobody knows
        }
    }

    /// Says what there is to say, and tells when to look again.
    async fn publish<S: Serialize>(&self, object: &K, report: Report<S>) -> Result<Action, Error> {
        let uid = object.uid().unwrap_or_default();
        let wait = match report.write {
            StatusWrite::Now => self.statuses.wait(&uid),
            StatusWrite::Throttled => self.minor_statuses.wait(&uid).max(self.statuses.wait(&uid)),
            StatusWrite::Skip => None,
        };
        // What is to be said then is decided then.
        if let Some(wait) = wait {
            return Ok(Action::requeue(wait));
        }
        if report.write != StatusWrite::Skip {
            let live = apply::status(&self.client, self.counter(), object, &report.status).await;
            match live {
                Ok(live) => {
                    self.minor_statuses.done(uid.clone());
                    self.statuses.done(uid.clone());
                    self.forget_unreadable(object).await;
                    // Where it has become unreadable meanwhile, its watch says so.
                    if let Ok(live) = live {
                        self.written.record(live, &self.cache);
                    }
                }
                Err(kube::Error::Api(status)) if status.is_not_found() => return Ok(Action::await_change()),
                // It changed a moment ago; what is to be said of it now is decided anew.
                Err(kube::Error::Api(status)) if status.is_conflict() => {
                    return Ok(Action::requeue(self.backoff.next(&uid)));
                }
                Err(error) => return Err(Error::WriteStatus(error)),
            }
            if let Some(event) = &report.event {
                self.event_recorder.record(&object.object_ref(&()), event).await;
            }
        }
        Ok(match report.requeue {
            Requeue::AwaitChange => {
                self.backoff.reset(&uid);
                Action::await_change()
            }
            Requeue::After(delay) => {
                self.backoff.reset(&uid);
                Action::requeue(delay)
            }
            Requeue::Backoff => Action::requeue(self.backoff.next(&uid)),
        })
    }
}

/// At most one write of small news in this time. A change of phase is written at once.
const MINOR_STATUS_INTERVAL: Duration = Duration::from_secs(1);

/// So many writes of one object's status may come one after the other, and one more in each time: more than any life needs, and not as
/// many as something that flaps would have.
const STATUS_BURST: u32 = 20;
const STATUS_REFILL: Duration = Duration::from_secs(3);

/// So many Pods are made for one sandbox one after the other, and one more in each time, however often its template changes, it is
/// suspended and goes on, or somebody wants it to start again.
const POD_BURST: u32 = 10;
const POD_REFILL: Duration = Duration::from_secs(10);

/// What has more children than this rests between its passes, since each pass looks at all of them.
const MANY: usize = 64;

/// For how long it rests: news of many children come many at once, and one pass is for all of them.
const REST: Duration = Duration::from_secs(1);

/// How long an object with so many children rests after a pass.
fn rest_of(children: usize) -> Duration {
    if children > MANY { REST } else { Duration::ZERO }
}

/// Runs one kind's controller until it is told to stop and its reconciles have ended.
async fn run<K, F>(
    context: Arc<Context<K>>,
    requests: Arc<WorkQueue>,
    concurrency: u16,
    stop: impl Future<Output = ()>,
    reconcile: impl Fn(Arc<K>, Arc<Context<K>>) -> F,
) where
    K: Object,
    F: Future<Output = Result<Action, Error>>,
{
    let name = context.name;
    let (context, reconcile) = (&context, &reconcile);
    let pass = |Request { namespace, name: object }| async move {
        let object = ObjectRef::new(&object).within(&namespace);
        let Some(stored) = context.cache.store().get(&object) else {
            debug!(controller = name, %object, "it is gone");
            return Action::await_change();
        };
        match reconcile_one(&stored, context, reconcile).await {
            Ok(action) => {
                debug!(controller = name, %object, "reconciled");
                action
            }
            Err(error) => {
                let delay = context.backoff.next(&stored.uid().unwrap_or_default());
                warn!(controller = name, object = %stored.name_any(), namespace, %error,
                    source = std::error::Error::source(&error).map(tracing::field::display), ?delay, "reconcile failed; it is tried again");
                Action::requeue(delay)
            }
        }
    };
    info!(controller = name, concurrency, "controller starts");
    requests.work(concurrency.into(), stop, pass).await;
    info!(controller = name, "controller stopped");
}

async fn reconcile_one<K, F>(
    stored: &Stored<K>,
    context: &Arc<Context<K>>,
    reconcile: impl Fn(Arc<K>, Arc<Context<K>>) -> F,
) -> Result<Action, Error>
where
    K: Object,
    F: Future<Output = Result<Action, Error>>,
{
    let object = match context.written.latest(stored, &context.cache) {
        Found::Object(object) => object,
        Found::Unreadable(unreadable) => {
            let told = tokio::time::timeout(RECONCILE_TIMEOUT, context.tell_unreadable(&unreadable)).await;
            return told.map_err(|_| Error::Timeout);
        }
        Found::Absent => return Ok(Action::await_change()),
    };
    let timer = context.metrics.reconcile_started(context.name);
    let (object_name, namespace) = (object.name_any(), object.namespace());
    let (pass, cpu_time) = CpuTime::of(reconcile(object, context.clone()));
    let result = tokio::time::timeout(RECONCILE_TIMEOUT, pass).await;
    let result = result.unwrap_or(Err(Error::Timeout));
    timer.ended(result.as_ref().err().map_or("ok", Error::category));
    if let Some(spent) = cpu_time.too_much() {
        context.metrics.slow_pass(context.name);
        warn!(controller = context.name, object = %object_name, namespace, ?spent, "a pass took too much of the processor");
    }
    result
}
