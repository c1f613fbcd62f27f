//! The kinds that have a controller. What the operator does with a kind stands in its [`Reconciled`] implementation, in a file of its own
//! below; the list of kinds is [`each_kind`]. A further kind needs a line there, a cache in [`Caches`], its types in `api`, and its
//! decisions ([`Decide`]) in `plan`.

mod agent;
mod sandbox;
mod session;

use std::{sync::Arc, time::Duration};

use kube::{CustomResourceExt, api::ObjectMeta};
use serde::Serialize;
use strum::IntoEnumIterator;

use super::{
    Context, Error, Shared,
    cache::{Cache, Caches, Change, Dispatcher, Found},
    live::{BUSY, Busy},
    read::{InNamespace, Read},
    read_your_writes::ReadYourWrites,
    rest_of,
    work_queue::{Action, WorkQueue},
};
use crate::{
    api::{Agent, AigiseSession, Sandbox},
    apply::{self, Object},
    plan::{Decide, Write},
    reading::Kept,
};

/// A kind whose objects have a controller.
pub trait Reconciled: Object + CustomResourceExt {
    /// The name of the controller in logs and metrics.
    const CONTROLLER: &'static str;
    /// What decisions about an object depend on.
    type Observed: Decide<Status: Serialize + Send + Sync, Situation: Send> + Send + Sync;
    /// What a reconcile leaves to the next one, apart from the status.
    type Memory: Send;
    /// The phases of an object. An object without a status is in the first.
    type Phase: IntoEnumIterator + Into<&'static str>;

    /// The objects of the kind.
    fn of(caches: &Caches) -> &KindCache<Self>;

    /// Enqueues what a change affects.
    fn changed(dispatcher: &Dispatcher, change: &Change<'_, Self>);

    /// Reads what decisions about the object depend on.
    fn observe(
        object: Arc<Self>,
        read: &impl Read,
    ) -> impl Future<Output = Result<(Self::Observed, Self::Memory), Busy>> + Send;

    /// How long the writes have to wait.
    fn delay(_object: &Self, _writes: &[Write], _shared: &Shared) -> Option<Duration> {
        None
    }

    /// Keeps what the next reconcile needs, after the writes.
    fn remember(_memory: Self::Memory, _observed: &Self::Observed, _shared: &Shared) {}
}

/// Calls `visit` for every kind that has a controller.
pub fn each_kind(visit: &mut impl VisitKind) {
    visit.kind::<AigiseSession>();
    visit.kind::<Sandbox>();
    visit.kind::<Agent>();
}

/// What to do for every kind.
pub trait VisitKind {
    /// Does it for one kind.
    fn kind<K: Reconciled>(&mut self);
}

/// The objects of a kind, and those that wait for a reconcile.
pub struct KindCache<K: Kept> {
    /// All objects.
    pub objects: Arc<Cache<K>>,
    /// The objects whose status was written a moment ago.
    pub written: Arc<ReadYourWrites<K>>,
    /// The requests to reconcile an object.
    pub queue: Arc<WorkQueue>,
}

impl<K: Kept> KindCache<K> {
    /// The cached object with this name.
    pub fn get(&self, name: &str, namespace: &str) -> Found<K> {
        self.objects.get(name, namespace)
    }

    /// The latest known version of an object: a status that was written a moment ago may be newer than the cache.
    pub fn latest(&self, name: &str, namespace: &str) -> Found<K> {
        self.written.latest_of(self.get(name, namespace))
    }
}

/// Reconciles one object: observe, plan, apply, report.
pub(super) async fn reconcile<K: Reconciled>(object: Arc<K>, context: Arc<Context<K>>) -> Result<Action, Error> {
    let shared = &context.shared;
    let read = InNamespace { shared, namespace: object.meta().namespace.clone().unwrap_or_default() };
    let Ok((mut observed, memory)) = K::observe(object.clone(), &read).await else {
        return Ok(Action::requeue(BUSY));
    };
    if observed.child_disappeared() && shared.is_gone(&*object).await {
        return Ok(Action::await_change());
    }
    let rest = rest_of(observed.children());
    let owner = object.meta();
    let independent = observed.independent_writes();
    execute(independent, &mut observed, owner, shared).await;
    let mut situation = observed.situation();
    context.enters(K::Observed::stage(&situation));
    let writes = observed.plan(&situation);
    let delay = K::delay(&object, &writes, shared);
    if delay.is_none() && !writes.is_empty() {
        execute(writes, &mut observed, owner, shared).await;
        situation = observed.situation();
    }
    K::remember(memory, &observed, shared);
    let report = observed.report(&situation);
    Ok(context.publish(&*object, report).await?.not_before(rest).within(delay))
}

async fn execute(writes: Vec<Write>, observed: &mut impl Decide, owner: &ObjectMeta, shared: &Shared) {
    let record = |name: &str, outcome| observed.record(name, outcome);
    apply::execute(&shared.client, shared.counter(), &shared.lines, owner, writes, record).await;
}
