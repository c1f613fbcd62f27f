//! The operator as a process over the API server in memory: it starts, it is killed, it starts again.

use std::{sync::Arc, time::Duration};

use aigise_operator::{
    api::session::VolumeLayout,
    controllers::{
        self, Start,
        cache::{Caches, Scope},
        metrics::Metrics,
    },
    plan::{CacheLimits, HelperMount, HelperResources, Settings},
};
use futures::FutureExt;
use kube::{
    Api,
    api::{ApiResource, DeleteParams, DynamicObject, Patch, PatchParams},
};
use serde_json::Value;
use tokio::{sync::watch, task::JoinHandle, time::Instant};

use super::{
    apiserver::{
        ApiServer, Key, Seen,
        faults::{Crash, LastWrite, lines},
        text,
    },
    cluster::Cluster,
};

/// Longer than anything is left alone that could still be written: what the API server refused is tried again after 300 seconds.
const LONGEST_POLL: Duration = Duration::from_secs(400);
const LOOK_EVERY: Duration = Duration::from_millis(500);

pub const NAMESPACE: &str = "lab";

/// A cluster with a running operator.
pub struct World {
    pub api: ApiServer,
    pub cluster: Cluster,
    /// A user's client.
    pub user: kube::Client,
    pub operator: Option<Operator>,
    /// Whether the operator is started with the right to give agents exec access.
    pub allow_runner_exec: bool,
    /// The layout of the volumes of sessions that name none, from the next start on.
    pub volume_layout: VolumeLayout,
    starts: usize,
    hands: JoinHandle<()>,
}

/// A running process.
pub struct Operator {
    pub client: String,
    pub metrics: Arc<Metrics>,
    /// What it knows, once its caches are filled.
    pub caches: watch::Receiver<Option<Arc<Caches>>>,
    task: JoinHandle<()>,
}

impl Drop for World {
    fn drop(&mut self) {
        self.hands.abort();
        self.kill();
    }
}

impl World {
    /// A cluster, and the operator in it.
    pub fn new() -> Self {
        let api = ApiServer::new();
        let cluster = Cluster::new(&api);
        let hands = tokio::spawn(cluster.clone().run());
        let mut world = Self {
            user: api.client("user"),
            api,
            cluster,
            operator: None,
            allow_runner_exec: true,
            volume_layout: VolumeLayout::Separate,
            starts: 0,
            hands,
        };
        world.start();
        world
    }

    /// The operator starts.
    pub fn start(&mut self) {
        self.starts += 1;
        let client = format!("operator/{}", self.starts);
        let metrics = Arc::new(Metrics::default());
        let api = self.api.clone();
        let start = Start {
            client: api.client(&client),
            settings: Arc::new(Settings {
                helper_image: "registry.example/aigise-operator:1".into(),
                helper_mount: HelperMount::Image,
                helper_resources: HelperResources::default(),
                image_volumes: true,
                allow_privileged_templates: false,
                allow_runner_exec: self.allow_runner_exec,
                cluster_ranges: vec![],
                volume_layout: self.volume_layout,
                cache_limits: CacheLimits::default(),
            }),
            scope: Scope::of(vec![]),
            metrics: metrics.clone(),
            instance: Some(client.clone()),
            concurrency: 16,
            clock: Arc::new(move || api.now()),
        };
        let never = std::future::pending().boxed().shared();
        let (filled, caches) = watch::channel(None);
        let task = tokio::spawn(async move {
            let ended = controllers::run_all(start, filled, never).await;
            panic!("the operator ended by itself: {ended:?}");
        });
        self.operator = Some(Operator { client, metrics, caches, task });
    }

    /// The operator's process ends, whatever it is doing.
    pub fn kill(&mut self) {
        if let Some(operator) = self.operator.take() {
            self.api.kill(&operator.client);
            operator.task.abort();
        }
    }

    pub fn restart(&mut self) {
        self.kill();
        self.start();
    }

    /// The running operator is killed at its n-th write from now.
    pub fn crash_at(&self, after: usize, last: LastWrite) {
        let client = self.operator.as_ref().unwrap().client.clone();
        self.api.crash(Crash { client, after, last });
    }

    /// Waits until nothing is written any more, and starts the operator anew where it was killed.
    pub async fn settle(&mut self) {
        let mut idle_since = (Instant::now(), self.version());
        // Many failures in a row make long delays.
        for _ in 0..20_000 {
            tokio::time::sleep(LOOK_EVERY).await;
            if self.is_dead() {
                self.restart();
            }
            if idle_since.1 != self.version() {
                idle_since = (Instant::now(), self.version());
            } else if idle_since.0.elapsed() > LONGEST_POLL {
                return;
            }
        }
        panic!("the operator does not come to rest; its last writes:\n{}", self.last_writes());
    }

    /// Waits until something holds, and starts the operator anew where it was killed.
    pub async fn until(&mut self, what: &str, holds: impl Fn(&World) -> bool) {
        for _ in 0..20_000 {
            if holds(self) {
                return;
            }
            tokio::time::sleep(LOOK_EVERY).await;
            if self.is_dead() {
                self.restart();
            }
        }
        panic!("gave up waiting until {what}; the operator's last writes:\n{}", self.last_writes());
    }

    /// The version of the newest object.
    pub fn version(&self) -> u64 {
        *self.api.changes().borrow()
    }

    fn is_dead(&self) -> bool {
        self.operator.as_ref().is_none_or(|operator| self.api.is_dead(&operator.client) || operator.task.is_finished())
    }

    fn last_writes(&self) -> String {
        let writes = self.operator_writes();
        lines(writes.iter().rev().take(30))
    }

    /// A user applies an object, as `kubectl apply --server-side` does.
    pub async fn apply(&self, object: Value) {
        let (api, object) = self.api_of(object);
        let name = object.metadata.name.clone().unwrap();
        api.patch(&name, &PatchParams::apply("user"), &Patch::Apply(&object)).await.unwrap();
    }

    /// A user deletes an object.
    #[expect(clippy::disallowed_methods, reason = "a user needs no precondition")]
    pub async fn delete(&self, object: Value) {
        let (api, object) = self.api_of(object);
        api.delete(object.metadata.name.as_deref().unwrap(), &DeleteParams::background()).await.unwrap();
    }

    fn api_of(&self, object: Value) -> (Api<DynamicObject>, DynamicObject) {
        let object: DynamicObject = serde_json::from_value(object).unwrap();
        let resource = ApiResource::from_gvk(&object.types.as_ref().unwrap().try_into().unwrap());
        if resource.kind == "Namespace" {
            return (Api::all_with(self.user.clone(), &resource), object);
        }
        let namespace = object.metadata.namespace.as_deref().unwrap_or(NAMESPACE);
        (Api::namespaced_with(self.user.clone(), namespace, &resource), object)
    }

    /// All writes of all operators so far, events left out.
    pub fn operator_writes(&self) -> Vec<Seen> {
        let writes = self.api.writes().into_iter();
        writes.filter(|seen| seen.client.starts_with("operator") && seen.key.plural != "events").collect()
    }

    /// An object of the namespace, as it is.
    pub fn get(&self, plural: &'static str, name: &str) -> Value {
        self.api.get(plural, NAMESPACE, name).map_or(Value::Null, |object| Value::clone(&object))
    }

    pub fn key(plural: &'static str, name: &str) -> Key {
        Key { plural, namespace: NAMESPACE.into(), name: name.into() }
    }

    /// How often a controller of the running operator reconciled something.
    pub fn reconciles(&self, controller: &str) -> u64 {
        let text = self.operator.as_ref().unwrap().metrics.text(None);
        let of_it = format!("aigise_reconciles_total{{controller=\"{controller}\"");
        let counts = text
            .lines()
            .filter(|line| line.starts_with(&of_it))
            .filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok());
        counts.sum()
    }

    /// Everything in the namespace that stays the same whichever way it came about: no UIDs, versions, times; no events.
    pub fn end_state(&self) -> Vec<Value> {
        let all = self.api.all();
        let names: std::collections::BTreeMap<_, _> = all
            .iter()
            .map(|(key, object)| {
                (text(object, "/metadata/uid").to_string(), format!("uid of {}/{}", key.plural, key.name))
            })
            .collect();
        let here = all.iter().filter(|(key, _)| key.namespace == NAMESPACE && key.plural != "events");
        here.map(|(_, object)| normal(object, &names)).collect()
    }
}

/// What differs between two lives that are the same to a user: fields that say when, which and how often.
const INCIDENTAL: [&str; 15] = [
    "resourceVersion",
    "creationTimestamp",
    "lastTransitionTime",
    "managedFields",
    "startedAt",
    "finishedAt",
    "startTime",
    "readyAt",
    "settledAt",
    "createdAt",
    "updatedAt",
    "clusterIP",
    "aigise.dev/last-activity",
    "aigise.dev/release",
    // How long the work went on is a matter of time as well.
    "aigise.dev/release-repeats",
];

fn normal(value: &Value, names: &std::collections::BTreeMap<String, String>) -> Value {
    match value {
        Value::Object(map) => {
            let kept = map.iter().filter(|(name, _)| !INCIDENTAL.contains(&name.as_str()));
            Value::Object(kept.map(|(name, value)| (name.clone(), normal(value, names))).collect())
        }
        Value::Array(items) => Value::Array(items.iter().map(|item| normal(item, names)).collect()),
        Value::String(text) => Value::String(names.get(text).unwrap_or(text).clone()),
        other => other.clone(),
    }
}

/// Runs a test in a runtime of its own, whose time passes as fast as there is nothing to do.
pub fn in_fast_time<T>(life: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build().unwrap().block_on(life)
}

/// Two worlds that are the same to a user.
#[track_caller]
pub fn same(ended: &[Value], calm: &[Value], when: &str) {
    for (ended, calm) in ended.iter().zip(calm) {
        assert_eq!(ended, calm, "{when}");
    }
    let names = |objects: &[Value]| {
        objects.iter().map(|object| format!("{} {}", object["kind"], object["metadata"]["name"])).collect::<Vec<_>>()
    };
    assert_eq!(names(ended), names(calm), "{when}: nothing twice, nothing left behind, nothing missing");
}
