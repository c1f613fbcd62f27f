//! What the watches told, and when.

use std::{
    collections::HashMap,
    fmt::{self, Debug, Display},
    time::{Duration, Instant},
};

use aigise_operator::api::{AigiseSession, Sandbox};
use futures::StreamExt;
use k8s_openapi::{
    NamespaceResourceScope,
    api::core::v1::{ContainerState, PersistentVolumeClaim, Pod},
    apimachinery::pkg::apis::meta::v1::Condition,
};
use kube::{
    Api, Client, Resource, ResourceExt,
    runtime::{WatchStreamExt, watcher},
};
use serde::de::DeserializeOwned;
use tokio::sync::watch;

use crate::Result;

/// An object: its kind and its name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Object(&'static str, String);

impl Object {
    pub fn session(name: &str) -> Self {
        Self("session", name.into())
    }

    pub fn sandbox(name: &str) -> Self {
        Self("Sandbox", name.into())
    }

    pub fn pod(name: &str) -> Self {
        Self("Pod", name.into())
    }

    fn claim(name: &str) -> Self {
        Self("claim", name.into())
    }
}

impl Display for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.0, self.1)
    }
}

/// An object, and what happened to it.
pub type Mark = (Object, &'static str);

/// When each thing happened first.
pub struct Marks(watch::Sender<HashMap<Mark, Instant>>);

impl Marks {
    /// Watches everything in this namespace from now on.
    pub fn watch(client: &Client, namespace: &str) -> Self {
        let marks = watch::Sender::new(HashMap::new());
        follow(client, namespace, &marks, Object::pod, pod_marks);
        follow(client, namespace, &marks, Object::claim, |claim: &PersistentVolumeClaim| {
            let phase = claim.status.as_ref().and_then(|status| status.phase.as_deref());
            Vec::from_iter((phase == Some("Bound")).then_some("bound"))
        });
        follow(client, namespace, &marks, Object::sandbox, |sandbox: &Sandbox| {
            let conditions = sandbox.status.as_ref().map(|status| status.conditions.as_slice());
            Vec::from_iter(is_true(conditions, "Ready").then_some("Ready"))
        });
        follow(client, namespace, &marks, Object::session, |session: &AigiseSession| {
            let conditions = session.status.as_ref().map(|status| status.conditions.as_slice());
            let staged = is_true(conditions, "VolumesReady").then_some("staged");
            staged.into_iter().chain(is_true(conditions, "Ready").then_some("Ready")).collect()
        });
        Self(marks)
    }

    /// Waits until this has happened, and tells when it did.
    pub async fn wait(&self, object: Object, what: &'static str, patience: Duration) -> Result<Instant> {
        let mark = (object, what);
        let mut seen = self.0.subscribe();
        let waited = tokio::time::timeout(patience, seen.wait_for(|marks| marks.contains_key(&mark))).await;
        match waited.ok().and_then(|seen| seen.ok()?.get(&mark).copied()) {
            Some(at) => Ok(at),
            None => Err(format!("{} was not {what} within {} s", mark.0, patience.as_secs()).into()),
        }
    }

    /// The time from one thing to the other, if both have happened.
    pub fn between(&self, from: &Mark, to: &Mark) -> Option<Duration> {
        let marks = self.0.borrow();
        Some(marks.get(to)?.saturating_duration_since(*marks.get(from)?))
    }

    /// Everything that happened to this session or Pod and its children, in order.
    pub fn of(&self, name: &str) -> Vec<(Instant, Object, &'static str)> {
        let is_ours =
            |object: &Object| object.1.strip_prefix(name).is_some_and(|rest| rest.is_empty() || rest.starts_with("--"));
        let marks = self.0.borrow();
        let ours = marks.iter().filter(|((object, _), _)| is_ours(object));
        let mut ours: Vec<_> = ours.map(|((object, what), at)| (*at, object.clone(), *what)).collect();
        ours.sort_by_key(|(at, ..)| *at);
        ours
    }

    /// The time from the first Pod's node to Ready, which is the last thing that happened.
    pub fn since_first_node(&self, name: &str) -> Option<Duration> {
        let all = self.of(name);
        let (node, ..) = all.iter().find(|(_, _, what)| *what == "has a node")?;
        let (ready, ..) = all.iter().rfind(|(_, _, what)| *what == "Ready")?;
        Some(ready.saturating_duration_since(*node))
    }

    /// This process did something.
    pub fn add(&self, object: Object, what: &'static str) {
        self.0.send_modify(|marks| {
            marks.entry((object, what)).or_insert_with(Instant::now);
        });
    }
}

fn follow<K>(
    client: &Client,
    namespace: &str,
    marks: &watch::Sender<HashMap<Mark, Instant>>,
    object: fn(&str) -> Object,
    read: impl Fn(&K) -> Vec<&'static str> + Send + 'static,
) where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope> + Clone + Debug + DeserializeOwned + Send + 'static,
{
    let api: Api<K> = Api::namespaced(client.clone(), namespace);
    let marks = marks.clone();
    tokio::spawn(async move {
        let mut changes = watcher(api, watcher::Config::default()).default_backoff().applied_objects().boxed();
        while let Some(change) = changes.next().await {
            let (Ok(changed), now) = (change, Instant::now()) else { continue };
            let object = object(&changed.name_any());
            marks.send_modify(|marks| {
                for what in ["created"].into_iter().chain(read(&changed)) {
                    marks.entry((object.clone(), what)).or_insert(now);
                }
            });
        }
    });
}

fn is_true(conditions: Option<&[Condition]>, kind: &str) -> bool {
    conditions.into_iter().flatten().any(|condition| condition.type_ == kind && condition.status == "True")
}

fn pod_marks(pod: &Pod) -> Vec<&'static str> {
    let status = pod.status.as_ref();
    let has = |kind: &str| {
        let conditions = status.and_then(|status| status.conditions.as_ref());
        conditions.into_iter().flatten().any(|condition| condition.type_ == kind && condition.status == "True")
    };
    let states = status.and_then(|status| status.container_statuses.as_ref()).into_iter().flatten();
    let states: Vec<&ContainerState> = states.filter_map(|container| container.state.as_ref()).collect();
    let facts = [
        ("has a node", has("PodScheduled")),
        ("is known to the kubelet", status.is_some_and(|status| status.host_ip.is_some())),
        ("has its network", has("PodReadyToStartContainers")),
        ("runs", states.iter().any(|state| state.running.is_some())),
        ("Ready", has("Ready")),
        ("ended", states.iter().any(|state| state.terminated.is_some())),
    ];
    facts.into_iter().filter_map(|(what, holds)| holds.then_some(what)).collect()
}
