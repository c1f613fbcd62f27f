//! The work queue of a controller. Namespaces take turns: a namespace with thousands of enqueued objects delays another namespace by one
//! reconcile.
//!
//! Decided in docs/adr/0012-a-queue-by-namespace.md.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::{StreamExt, stream::FuturesUnordered};
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

/// A request to reconcile an object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Request {
    /// The namespace of the object.
    pub namespace: String,
    /// The name of the object.
    pub name: String,
}

/// When an object is reconciled again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Action {
    after: Option<Duration>,
    rest: Duration,
}

impl Action {
    /// After this time, or earlier if it is enqueued.
    pub fn requeue(after: Duration) -> Self {
        Self { after: Some(after), rest: Duration::ZERO }
    }

    /// When it is enqueued.
    pub fn await_change() -> Self {
        Self { after: None, rest: Duration::ZERO }
    }

    /// The value of the log field `outcome`.
    pub fn outcome(self) -> &'static str {
        if self.after.is_some() { "requeue" } else { "await_change" }
    }

    /// The same, but after this time at the latest.
    pub fn within(self, limit: Option<Duration>) -> Self {
        Self { after: self.after.into_iter().chain(limit).min(), ..self }
    }

    /// The same, but not before this time has passed, even if it is enqueued.
    pub fn not_before(self, rest: Duration) -> Self {
        Self { rest, ..self }
    }
}

/// The state of an object in the queue.
#[derive(Debug)]
enum Place {
    /// It waits for a free worker.
    Waiting,
    /// It waits until `at`; then it is reconciled if it `is_wanted`, else it leaves the queue. If it is enqueued earlier, it is
    /// reconciled as soon as `from` has passed.
    Later { at: Instant, is_wanted: bool, from: Instant },
    /// It is being reconciled; `again` if it was enqueued since.
    Working { again: bool },
}

/// The requests of one controller: at most one for each object, and no object is reconciled twice at the same time.
#[derive(Debug, Default)]
struct Queue {
    places: HashMap<Request, Place>,
    /// The names of waiting objects, by namespace, in the order in which they were enqueued.
    waiting: HashMap<String, VecDeque<String>>,
    /// The namespaces with waiting objects; the next namespace is in front.
    turns: VecDeque<String>,
    /// The objects that wait for a time.
    later: BTreeSet<(Instant, Request)>,
}

impl Queue {
    /// Enqueues an object.
    fn add(&mut self, request: Request, now: Instant) {
        match self.places.get_mut(&request) {
            Some(Place::Waiting) => {}
            Some(Place::Working { again }) => *again = true,
            Some(Place::Later { at, from, .. }) => {
                let (at, from) = (*at, *from);
                self.later.remove(&(at, request.clone()));
                if from > now {
                    self.wait_until(request, at.min(from), true, from);
                } else {
                    self.wait(request);
                }
            }
            None => self.wait(request),
        }
    }

    /// The next object to reconcile. It counts as being reconciled until [`done`](Self::done).
    fn next(&mut self, now: Instant) -> Option<Request> {
        while self.later.first().is_some_and(|(at, _)| *at <= now)
            && let Some((_, request)) = self.later.pop_first()
        {
            if let Some(Place::Later { is_wanted: true, .. }) = self.places.get(&request) {
                self.wait(request);
            } else {
                self.places.remove(&request);
            }
        }
        let namespace = self.turns.pop_front()?;
        let names = self.waiting.get_mut(&namespace)?;
        let name = names.pop_front()?;
        if names.is_empty() {
            self.waiting.remove(&namespace);
        } else {
            self.turns.push_back(namespace.clone());
        }
        let request = Request { namespace, name };
        self.places.insert(request.clone(), Place::Working { again: false });
        Some(request)
    }

    /// The reconcile of an object has ended. If the object was enqueued meanwhile, it is reconciled once more.
    fn done(&mut self, request: Request, action: Action, now: Instant) {
        let again = matches!(self.places.remove(&request), Some(Place::Working { again: true }));
        let from = now + action.rest;
        match action.after {
            _ if again && action.rest.is_zero() => self.wait(request),
            _ if again => self.wait_until(request, from, true, from),
            Some(after) => self.wait_until(request, now + after, true, from),
            None if action.rest.is_zero() => {}
            None => self.wait_until(request, from, false, from),
        }
    }

    /// When the first of the objects that wait for a time is due.
    fn due(&self) -> Option<Instant> {
        self.later.first().map(|(at, _)| *at)
    }

    fn wait_until(&mut self, request: Request, at: Instant, is_wanted: bool, from: Instant) {
        self.places.insert(request.clone(), Place::Later { at, is_wanted, from });
        self.later.insert((at, request));
    }

    fn wait(&mut self, request: Request) {
        self.places.insert(request.clone(), Place::Waiting);
        let Request { namespace, name } = request;
        let names = self.waiting.entry(namespace.clone()).or_default();
        if names.is_empty() {
            self.turns.push_back(namespace);
        }
        names.push_back(name);
    }
}

/// The work queue of one controller.
#[derive(Debug, Default)]
pub struct WorkQueue {
    queue: Mutex<Queue>,
    news: Notify,
}

impl WorkQueue {
    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Enqueues an object.
    pub(super) fn add(&self, namespace: &str, name: &str) {
        self.queue().add(Request { namespace: namespace.into(), name: name.into() }, Instant::now());
        self.news.notify_one();
    }

    /// Reconciles enqueued objects, at most `slots` at the same time, until `stop` resolves and the running reconciles have finished.
    pub(super) async fn work<F: Future<Output = Action>>(
        &self,
        slots: usize,
        stop: impl Future<Output = ()>,
        reconcile: impl Fn(Request) -> F,
    ) {
        let mut running = FuturesUnordered::new();
        let mut stop = std::pin::pin!(stop);
        loop {
            while running.len() < slots {
                let Some(request) = self.queue().next(Instant::now()) else { break };
                let ended = reconcile(request.clone());
                running.push(async move { (request, ended.await) });
            }
            let is_full = running.len() >= slots;
            let due = self.queue().due();
            tokio::select! {
                biased;
                () = &mut stop => break,
                Some((request, action)) = running.next() => {
                    self.queue().done(request, action, Instant::now());
                    // Let the watches process the events of its writes that have arrived, before the next reconcile begins.
                    tokio::task::yield_now().await;
                }
                () = self.news.notified(), if !is_full => {}
                () = sleep_until(due.unwrap_or_else(Instant::now)), if !is_full && due.is_some() => {}
            }
        }
        while running.next().await.is_some() {}
    }
}

#[cfg(test)]
mod tests {
    use std::{cell::Cell, collections::BTreeMap};

    use proptest::prelude::*;

    use super::*;

    fn request(namespace: &str, name: impl ToString) -> Request {
        Request { namespace: namespace.into(), name: name.to_string() }
    }

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_namespace_waits_for_the_reconciles_in_flight_and_one_of_each_that_waits() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        let others = 5;
        for name in 0..10_000 {
            queue.add(request("flood", name), now);
            queue.add(request(&format!("other-{}", name % others), name), now);
        }
        // All workers are busy, and each object is enqueued again when its reconcile ends.
        let mut flying: VecDeque<_> = (0..16).filter_map(|_| queue.next(now)).collect();
        queue.add(request("cold", "sandbox"), now);
        let mut begun = 0;
        loop {
            let ended = flying.pop_front().unwrap();
            queue.add(ended.clone(), now);
            queue.done(ended, Action::await_change(), now);
            let next = queue.next(now).unwrap();
            begun += 1;
            assert!(begun < 100, "the namespace never has its turn");
            if next.namespace == "cold" {
                break;
            }
            flying.push_back(next);
        }
        assert_eq!(begun, 1 + others + 1, "one reconcile of each waiting namespace, and then its own");
    }

    #[test]
    fn what_is_requested_many_times_is_one_entry_and_one_reconcile() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        for _ in 0..1000 {
            queue.add(request("a", "x"), now);
        }
        let x = queue.next(now).unwrap();
        assert_eq!(queue.next(now), None);
        for _ in 0..1000 {
            queue.add(x.clone(), now);
        }
        assert_eq!(queue.next(now), None, "it is being reconciled");
        queue.done(x.clone(), Action::requeue(SECOND), now);
        assert_eq!(queue.next(now).as_ref(), Some(&x), "once more, at once");
        queue.done(x, Action::await_change(), now);
        assert_eq!(
            (queue.next(now), queue.places.len(), queue.due()),
            (None, 0, None),
            "the queue has no entry for it"
        );
    }

    #[test]
    fn the_earliest_request_counts_and_its_reconcile_serves_all() {
        let (mut queue, now) = (Queue::default(), Instant::now());
        queue.add(request("a", "x"), now);
        let x = queue.next(now).unwrap();
        queue.done(x.clone(), Action::requeue(SECOND), now);
        assert_eq!((queue.next(now), queue.due()), (None, Some(now + SECOND)));
        assert_eq!(queue.next(now + SECOND).as_ref(), Some(&x), "it is due");
        queue.done(x.clone(), Action::requeue(SECOND), now);
        queue.add(x.clone(), now);
        assert_eq!(queue.next(now).as_ref(), Some(&x), "it was enqueued before");
        queue.done(x, Action::await_change(), now);
        assert_eq!(
            (queue.next(now + 2 * SECOND), queue.due()),
            (None, None),
            "that reconcile also serves the later request"
        );
    }

    #[test]
    fn an_idle_object_has_one_reconcile_for_all_requests_meanwhile_and_the_first_is_at_once() {
        let (mut queue, mut now) = (Queue::default(), Instant::now());
        let mut reconciles = 0;
        // It is enqueued a hundred times a second, for ten seconds.
        for _ in 0..1000 {
            queue.add(request("a", "x"), now);
            while let Some(x) = queue.next(now) {
                reconciles += 1;
                queue.done(x, Action::await_change().not_before(SECOND), now);
            }
            now += SECOND / 100;
        }
        assert_eq!(reconciles, 10);
        now += SECOND;
        let x = queue.next(now).unwrap();
        queue.done(x, Action::await_change().not_before(SECOND), now);
        assert_eq!(
            (queue.next(now + SECOND), queue.places.len(), queue.due()),
            (None, 0, None),
            "the queue has no entry for it"
        );
    }

    #[derive(Clone, Debug)]
    enum Step {
        Add(u8, u8),
        Begin,
        End(usize, Option<u8>, u8),
        Wait(u8),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..3u8, 0..4u8).prop_map(|(namespace, name)| Step::Add(namespace, name)),
            3 => Just(Step::Begin),
            3 => (any::<usize>(), proptest::option::of(0..5u8), 0..3u8).prop_map(|(which, after, rest)| Step::End(which, after, rest)),
            1 => (0..5u8).prop_map(Step::Wait),
        ]
    }

    proptest! {
        /// Each object that is enqueued has a reconcile that begins afterwards, and no object is reconciled twice at the same time.
        #[test]
        fn nothing_is_lost_and_nothing_is_worked_on_twice_at_once(steps in proptest::collection::vec(step(), 0..200)) {
            let (mut queue, mut now) = (Queue::default(), Instant::now());
            let mut working = Vec::new();
            // From when on a reconcile of each object is due. The entry is removed when the reconcile begins.
            let mut owed = BTreeMap::<Request, Instant>::new();
            // The time before which each object must not be reconciled.
            let mut delayed = BTreeMap::<Request, Instant>::new();
            let owe = |owed: &mut BTreeMap<Request, Instant>, request: Request, at: Instant| {
                let known = owed.entry(request).or_insert(at);
                *known = at.min(*known);
            };
            for step in steps {
                match step {
                    Step::Add(namespace, name) => {
                        let request = request(&namespace.to_string(), name);
                        let at = delayed.get(&request).map_or(now, |until| now.max(*until));
                        owe(&mut owed, request.clone(), at);
                        queue.add(request, now);
                    }
                    Step::Begin => {
                        let begun = queue.next(now);
                        let is_due = |(request, at): (&Request, &Instant)| *at <= now && !working.contains(request);
                        prop_assert_eq!(begun.is_some(), owed.iter().any(is_due));
                        if let Some(begun) = begun {
                            prop_assert!(!working.contains(&begun), "twice at once");
                            prop_assert!(owed.remove(&begun).is_some_and(|at| at <= now), "it was not enqueued");
                            working.push(begun);
                        }
                    }
                    Step::End(which, after, rest) if !working.is_empty() => {
                        let ended = working.remove(which % working.len());
                        let rest = SECOND * u32::from(rest);
                        delayed.insert(ended.clone(), now + rest);
                        // If it was enqueued meanwhile, it waits until that time.
                        if let Some(at) = owed.get_mut(&ended) {
                            *at = now + rest;
                        } else if let Some(after) = after {
                            owe(&mut owed, ended.clone(), now + SECOND * u32::from(after));
                        }
                        let after = after.map(|seconds| SECOND * u32::from(seconds));
                        let action = after.map_or(Action::await_change(), Action::requeue);
                        queue.done(ended, action.not_before(rest), now);
                    }
                    Step::End(..) => {}
                    Step::Wait(seconds) => now += SECOND * u32::from(seconds),
                }
                prop_assert!(queue.places.len() <= 3 * 4, "at most one entry for each object");
            }
            now += SECOND * 10;
            while let Some(ended) = working.pop() {
                queue.done(ended, Action::await_change(), now);
            }
            while let Some(begun) = queue.next(now) {
                owed.remove(&begun);
                queue.done(begun, Action::await_change(), now);
            }
            prop_assert!(owed.is_empty(), "lost: {:?}", owed);
            prop_assert!(queue.places.is_empty() && queue.waiting.is_empty() && queue.turns.is_empty());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn what_has_begun_ends_and_nothing_begins_when_it_is_to_stop() {
        let requests = WorkQueue::default();
        for name in 0..10 {
            requests.add("a", &name.to_string());
        }
        let ended = Cell::new(0);
        let reconcile = async |_: Request| {
            tokio::time::sleep(SECOND * 2).await;
            ended.set(ended.get() + 1);
            Action::await_change()
        };
        requests.work(3, tokio::time::sleep(SECOND), reconcile).await;
        assert_eq!(ended.get(), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn all_slots_are_used_and_no_more() {
        let requests = WorkQueue::default();
        let (flying, most, reconciles) = (Cell::new(0), Cell::new(0), Cell::new(0));
        let reconcile = async |_: Request| {
            flying.set(flying.get() + 1);
            most.set(most.get().max(flying.get()));
            tokio::time::sleep(SECOND).await;
            flying.set(flying.get() - 1);
            reconciles.set(reconciles.get() + 1);
            Action::requeue(SECOND * 3)
        };
        let ask = async {
            tokio::time::sleep(SECOND / 2).await;
            for name in 0..5 {
                requests.add("a", &name.to_string());
            }
            tokio::time::sleep(SECOND * 5).await;
        };
        requests.work(4, ask, reconcile).await;
        assert_eq!((most.get(), reconciles.get()), (4, 9), "four at once, and each again after its delay");
    }
}
