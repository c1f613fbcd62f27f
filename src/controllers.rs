//! The controllers: each reconciles the objects of one kind in the steps observe → plan → apply → report. The rules about sessions
//! and sandboxes are in [`plan`](crate::plan), not here.

mod backoff;
pub mod cache;
mod collection;
mod configuration;
mod cpu_time;
mod event_recorder;
pub mod kind;
mod live;
mod memo;
pub mod metrics;
pub mod read;
pub mod read_your_writes;
mod turns;
mod unreadable;
pub mod work_queue;

use std::{marker::PhantomData, sync::Arc, time::Duration};

use futures::{FutureExt, future};
use jiff::Timestamp;
use kube::{Client, Resource, ResourceExt, api::ObjectMeta, runtime::reflector::ObjectRef};
use serde::Serialize;
use tokio::{sync::watch, task::JoinSet};
use tracing::{Instrument, Level, Span, debug, enabled, field, info, info_span, warn};

use self::{
    backoff::Backoff,
    cache::{Caches, Found, Scope, Stored},
    configuration::Configurations,
    cpu_time::CpuTime,
    event_recorder::EventRecorder,
    kind::{Reconciled, VisitKind, each_kind},
    live::LiveReads,
    memo::Memo,
    metrics::Metrics,
    turns::Turns,
    work_queue::{Action, Request},
};
use crate::{
    api::{RawJson, session::VolumeLayout},
    apply::{
        self, Object, WriteCounter,
        log::{LineLimit, short},
        throttle::Throttle,
    },
    plan::{
        Lookup, Report, Requeue, Settings, StatusWrite, Transition,
        effective::{Decided, EffectiveSession},
        session::Pull,
    },
    reading::Kept,
};

/// A reconcile that takes longer than this is cancelled and retried: a request that hangs must not block its object for ever.
const RECONCILE_TIMEOUT: Duration = Duration::from_secs(30);

/// The state that all controllers share.
#[derive(Clone)]
pub struct Shared {
    /// The client for writes, and for reads that no cache can answer.
    pub client: Client,
    /// The caches of all watched objects.
    pub caches: Arc<Caches>,
    /// The operator's settings.
    pub settings: Arc<Settings>,
    /// The configuration files of sessions, as they were last read.
    configurations: Arc<Configurations>,
    /// Reads objects that are not cached.
    live: Arc<LiveReads>,
    /// The decisions that follow from the specs of sessions, by generation and configuration file.
    decided: Arc<Memo<Specification, Decided>>,
    /// Admits one expensive decision at a time. These run outside the thread of the reconciles.
    turns: Arc<Turns>,
    /// The effective sessions, by resource version and layout.
    effective: Arc<Memo<(Option<String>, VolumeLayout), EffectiveSession>>,
    /// What became of pulling images beside the stage Pods, by their UIDs.
    pulls: Arc<Memo<(), Pull>>,
    /// Throttles the creation of Pods for one sandbox.
    pod_creations: Arc<Throttle>,
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// Records events.
    event_recorder: Arc<EventRecorder>,
    /// Which lines about an object are logged.
    lines: Arc<LineLimit>,
    /// The clock.
    pub clock: Clock,
}

/// Identifies the spec of a session: its generation, and the fields that its configuration file adds.
type Specification = (Option<i64>, Option<RawJson>);

/// Returns the current time. Time is an input: a test passes its own clock to let time pass faster.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// The system clock. Decisions read the time from nowhere else.
#[expect(clippy::disallowed_methods, reason = "the edge at which time enters; below it is a value")]
pub fn wall_clock() -> Clock {
    Arc::new(Timestamp::now)
}

/// The arguments of [`run_all`].
pub struct Start {
    /// The client of the API server.
    pub client: Client,
    /// The operator's settings.
    pub settings: Arc<Settings>,
    /// The namespaces that the operator watches.
    pub scope: Scope,
    /// The metrics.
    pub metrics: Arc<Metrics>,
    /// The name of this process in events.
    pub instance: Option<String>,
    /// How many objects of one kind are reconciled at the same time.
    pub concurrency: u16,
    /// The clock.
    pub clock: Clock,
}

/// A future that resolves when the controllers have to stop. All clones resolve.
pub type Stop = future::Shared<future::BoxFuture<'static, ()>>;

/// A part of the controllers ended before `stop` resolved.
#[derive(Debug, thiserror::Error)]
#[error("{0} ended unexpectedly")]
pub struct Ended(&'static str);

/// How long running reconciles may take to finish when the controllers have to stop.
const DRAIN: Duration = Duration::from_secs(8);

/// Fills the caches, publishes them in `filled`, and runs the controllers until `stop` resolves.
///
/// # Errors
/// When a watch or the controllers end before `stop` resolves.
pub async fn run_all(start: Start, filled: watch::Sender<Option<Arc<Caches>>>, stop: Stop) -> Result<(), Ended> {
    let Start { client, settings, scope, metrics, instance, concurrency, clock } = start;
    let (caches, watches) = cache::watch_all(&client, &scope);
    // Each watch is a separate task: the lists are read concurrently, and no reconcile waits for a list.
    let mut watching = JoinSet::new();
    for watch in watches {
        watching.spawn(watch);
    }
    let caches = Arc::new(caches);
    let event_recorder = Arc::new(EventRecorder::new(&client, instance.as_deref()));

    let shared = Shared {
        configurations: Arc::default(),
        live: Arc::new(LiveReads::new(client.clone(), scope == Scope::Cluster)),
        decided: Arc::new(Memo::of(DECIDED_BYTES)),
        turns: Arc::default(),
        pod_creations: Arc::new(Throttle::of(POD_BURST, POD_REFILL)),
        effective: Arc::new(Memo::of(EFFECTIVE_BYTES)),
        pulls: Arc::new(Memo::of(PULL_BYTES)),
        client,
        caches: caches.clone(),
        settings,
        metrics,
        event_recorder,
        lines: Arc::default(),
        clock,
    };
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
        let collection = collection::run(shared.clone(), stop.clone());
        let mut controllers = Controllers { shared, concurrency, stop: stop.clone(), tasks: JoinSet::new() };
        each_kind(&mut controllers);
        controllers.tasks.spawn(collection);
        controllers.tasks.join_all().await;
    };
    let too_long = async {
        stop.clone().await;
        tokio::time::sleep(DRAIN).await;
    };
    tokio::select! {
        () = controllers => {}
        _ = watching.join_next() => return Err(Ended("a watch")),
        () = too_long => warn!("some reconciles did not finish in time; they are retried after the next start"),
    }
    if stop.now_or_never().is_none() { Err(Ended("the controllers")) } else { Ok(()) }
}

/// The running controllers. Each is a separate task: an event for one controller does not poll the others.
struct Controllers {
    shared: Shared,
    concurrency: u16,
    stop: Stop,
    tasks: JoinSet<()>,
}

impl VisitKind for Controllers {
    fn kind<K: Reconciled>(&mut self) {
        let context = Arc::new(Context::<K>::new(self.shared.clone()));
        self.tasks.spawn(run(context, self.concurrency, self.stop.clone()));
    }
}

/// The memory for decisions that follow from specs: enough for some hundred usual sessions.
const DECIDED_BYTES: u32 = 8 * 1024 * 1024;

/// The memory for what became of pulling images: some hundred stage Pods at the same time.
const PULL_BYTES: u32 = 1024 * 1024;

/// The memory for effective sessions.
const EFFECTIVE_BYTES: u32 = 4 * 1024 * 1024;

impl Shared {
    /// The current time in whole seconds, which is the precision of the API server.
    fn now(&self) -> Timestamp {
        Timestamp::from_second((self.clock)().as_second()).unwrap_or_default()
    }

    fn counter(&self) -> &WriteCounter {
        &self.metrics.writes
    }

    /// Whether the API server no longer has the object. The children of an object that is gone must not be created again.
    async fn is_gone<K: Object>(&self, object: &K) -> bool {
        match self.look::<K>(&object.namespace().unwrap_or_default(), &object.name_any()).await {
            Lookup::Found(live) => live.uid() != object.uid(),
            Lookup::Missing => true,
            Lookup::NotNamed | Lookup::Failed(_) => false, // unknown
        }
    }
}

/// The state that all reconciles of one kind share.
pub struct Context<K> {
    shared: Shared,
    backoff: Backoff,
    /// Throttles status writes that contain only minor changes.
    minor_statuses: Throttle,
    /// Throttles all status writes.
    statuses: Throttle,
    /// Throttles reports about unreadable objects.
    rare: Throttle,
    kind: PhantomData<fn() -> K>,
}

/// Why a reconcile failed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The status could not be written.
    #[error("writing the status failed")]
    WriteStatus(#[source] kube::Error),
    /// The reconcile took longer than [`RECONCILE_TIMEOUT`].
    #[error("the reconcile took longer than {} s", RECONCILE_TIMEOUT.as_secs())]
    Timeout,
}

impl Error {
    /// The value of the metric label `outcome`.
    pub fn category(&self) -> &'static str {
        match self {
            Error::WriteStatus(_) => "write_status",
            Error::Timeout => "timeout",
        }
    }
}

impl<K: Reconciled> Context<K> {
    fn new(shared: Shared) -> Self {
        Self {
            shared,
            backoff: Backoff::default(),
            minor_statuses: Throttle::of(1, MINOR_STATUS_INTERVAL),
            statuses: Throttle::of(STATUS_BURST, STATUS_REFILL),
            rare: Throttle::of(1, unreadable::INTERVAL),
            kind: PhantomData,
        }
    }

    /// Records the stage of the object's life cycle in the span of the reconcile and in the metrics.
    fn enters(&self, stage: &'static str) {
        Span::current().record("stage", stage);
        self.shared.metrics.entered(K::CONTROLLER, stage);
    }

    /// Returns the delay until the object with this UID is retried, and records the failure in the metrics.
    fn back_off(&self, uid: &str) -> Duration {
        let (delay, failures) = self.backoff.next(uid);
        self.shared.metrics.backs_off(K::CONTROLLER, failures);
        delay
    }

    /// Writes the status and the event of a report, and returns when to reconcile again.
    async fn publish<S: Serialize>(&self, object: &K, report: Report<S>) -> Result<Action, Error> {
        let uid = object.uid().unwrap_or_default();
        let wait = match report.write {
            StatusWrite::Now => self.statuses.wait(&uid),
            StatusWrite::Throttled => self.minor_statuses.wait(&uid).max(self.statuses.wait(&uid)),
            StatusWrite::Skip => None,
        };
        // The next reconcile computes the status anew.
        if let Some(wait) = wait {
            return Ok(Action::requeue(wait));
        }
        if report.write != StatusWrite::Skip {
            let live = apply::status(&self.shared.client, self.shared.counter(), object, &report.status).await;
            match live {
                Ok(live) => {
                    self.minor_statuses.done(uid.clone());
                    self.statuses.done(uid.clone());
                    self.forget_unreadable(object).await;
                    // If the object has become unreadable meanwhile, its watch notices.
                    if let Ok(live) = live {
                        let kind = K::of(&self.shared.caches);
                        kind.written.record(live, &kind.objects);
                    }
                }
                Err(kube::Error::Api(status)) if status.is_not_found() => return Ok(Action::await_change()),
                // The object has changed meanwhile: the next reconcile computes its status anew.
                Err(kube::Error::Api(status)) if status.is_conflict() => {
                    return Ok(Action::requeue(self.back_off(&uid)));
                }
                Err(error) => return Err(Error::WriteStatus(error)),
            }
            if let Some(Transition { phase, reason, message }) = &report.transition {
                self.shared
                    .lines
                    .log(&uid, |dropped| info!(phase, %reason, status = short(message), dropped, "status changed"));
            }
            for event in &report.events {
                self.shared.event_recorder.record(&object.object_ref(&()), event).await;
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
            Requeue::Backoff => Action::requeue(self.back_off(&uid)),
        })
    }
}

/// The shortest time between two status writes with minor changes. A change of phase is written at once.
const MINOR_STATUS_INTERVAL: Duration = Duration::from_secs(1);

/// The burst of status writes for one object, and the time after which one more write is allowed. This is more than any life cycle
/// needs and less than an object that flaps would write.
const STATUS_BURST: u32 = 20;
const STATUS_REFILL: Duration = Duration::from_secs(3);

/// The burst of Pods that are created for one sandbox, and the time after which one more is allowed, however often its template
/// changes, it is suspended and resumed, or a user requests a restart.
const POD_BURST: u32 = 10;
const POD_REFILL: Duration = Duration::from_secs(10);

/// An object with more children than this waits between two reconciles, since each reconcile reads all of its children.
const MANY: usize = 64;

/// How long an object with many children waits: many children change at about the same time, and one reconcile handles all changes.
const REST: Duration = Duration::from_secs(1);

/// How long an object with so many children waits between two reconciles.
fn rest_of(children: usize) -> Duration {
    if children > MANY { REST } else { Duration::ZERO }
}

/// Runs the controller of one kind until `stop` resolves and the running reconciles have finished.
async fn run<K: Reconciled>(context: Arc<Context<K>>, concurrency: u16, stop: Stop) {
    let (context, name) = (&context, K::CONTROLLER);
    let kind = K::of(&context.shared.caches);
    let handle = |Request { namespace, name: object }| async move {
        let object = ObjectRef::new(&object).within(&namespace);
        let Some(stored) = kind.objects.store().get(&object) else {
            debug!(controller = name, %object, "the object is gone");
            return Action::await_change();
        };
        let span = span(name, &stored);
        let reconciled = async {
            let (outcome, action) = match reconcile_one(&stored, context).await {
                Ok(action) => (action.outcome(), action),
                Err(error) => {
                    let delay = context.back_off(&stored.uid().unwrap_or_default());
                    warn!(%error, source = std::error::Error::source(&error).map(|source| short(&source.to_string())), ?delay, "reconcile failed; it is retried");
                    (error.category(), Action::requeue(delay))
                }
            };
            // Each field that is recorded formats the span anew.
            if enabled!(Level::DEBUG) {
                Span::current().record("outcome", outcome);
                debug!("reconciled");
            }
            action
        };
        reconciled.instrument(span).await
    };
    info!(controller = name, concurrency, "controller started");
    kind.queue.work(concurrency.into(), stop, handle).await;
    info!(controller = name, "controller stopped");
}

/// The span of a reconcile, whose fields are in all of the reconcile's log lines. `name` is recorded after the span is created: otherwise
/// the formatter would overwrite the field with the name of the span.
fn span<K: Kept>(controller: &'static str, stored: &Stored<K>) -> Span {
    let ObjectMeta { name, namespace, uid, .. } = stored.meta();
    let empty = field::Empty;
    let span = info_span!(
        "reconcile",
        controller,
        namespace,
        name = empty,
        uid,
        generation = empty,
        stage = empty,
        outcome = empty
    );
    span.record("name", name.as_deref());
    span
}

async fn reconcile_one<K: Reconciled>(stored: &Stored<K>, context: &Arc<Context<K>>) -> Result<Action, Error> {
    let (kind, metrics) = (K::of(&context.shared.caches), &context.shared.metrics);
    let object = match kind.written.latest(stored, &kind.objects) {
        Found::Object(object) => object,
        Found::Unreadable(unreadable) => {
            let reported = tokio::time::timeout(RECONCILE_TIMEOUT, context.report_unreadable(&unreadable)).await;
            return reported.map_err(|_| Error::Timeout);
        }
        Found::Absent => return Ok(Action::await_change()),
    };
    let timer = metrics.reconcile_started(K::CONTROLLER);
    Span::current().record("generation", object.meta().generation);
    let (pass, cpu_time) = CpuTime::of(kind::reconcile(object, context.clone()));
    let result = tokio::time::timeout(RECONCILE_TIMEOUT, pass).await;
    let result = result.unwrap_or(Err(Error::Timeout));
    timer.ended(result.as_ref().err().map_or("ok", Error::category));
    if let Some(spent) = cpu_time.too_much() {
        metrics.slow_reconcile(K::CONTROLLER);
        warn!(?spent, "a reconcile used too much CPU time");
    }
    result
}
