//! Reads objects that are not cached: by name, first the version, and the content once for each version.
//!
//! The user who writes a session or a Sandbox decides what is read for it. So the content that a reconcile holds is bounded, and so is
//! the number of reconciles of one namespace that read content at the same time.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{ConfigMap, Event, Node, PersistentVolumeClaim, Pod};
use kube::{
    Client, Resource,
    api::{GetParams, ListParams, Request},
};
use serde::{Deserialize, Serialize};
use tracing::debug;

use super::memo::Memo;
use crate::{
    apply::{self, Object, throttle::Throttle},
    plan::{
        Failure, Lookup,
        pod_event::{PodEvent, READ_INTERVAL},
        session::{self, ConfigMapContent},
    },
    reading::{
        ATTACHED_POD, Kept, Projection,
        live::{self, Version},
    },
};

/// How many reconciles of a namespace may read content at the same time.
const READERS: usize = 4;

/// The most bytes of content that a reconcile holds at the same time.
pub(super) const HELD_BYTES: usize = 4 * 1024 * 1024;

/// When a reconcile is [`Busy`], it is requeued after this time.
pub(super) const BUSY: Duration = Duration::from_secs(1);

/// Too many reconciles of the namespace are reading content, or another one is waiting to make an expensive decision.
#[derive(Debug)]
pub struct Busy;

/// Reads objects that are not cached, and remembers what was read within limits.
pub struct LiveReads {
    client: Client,
    readers: Arc<Mutex<HashMap<String, usize>>>,
    /// The hashes of ConfigMaps' contents, by namespace and name.
    hashes: Memo<Version, String>,
    pods: Memo<Version, Pod>,
    claims: Memo<Version, PersistentVolumeClaim>,
    /// The events of Pods, by the Pods' UIDs, and when they were read.
    events: Memo<(), (Timestamp, Vec<PodEvent>)>,
    /// The images of nodes, by the nodes' names, and when they were read.
    node_images: Memo<(), (Timestamp, Option<BTreeSet<String>>)>,
    /// Whether the operator may read nodes, as far as is known: one that watches some namespaces may not.
    reads_nodes: bool,
    /// Throttles lists of events by namespace: the API server looks through all events of a namespace for each.
    event_lists: Throttle,
}

/// The most events that are read of a Pod. The kubelet counts repetitions of an event in one object.
const EVENTS: u32 = 200;

/// How many lists of events are made for a namespace at once, and then in a minute.
const EVENT_LISTS: u32 = 20;

/// The part of an event that is read.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[derive(Default)]
struct EventItem {
    reason: String,
    message: String,
    involved_object: EventObject,
    last_timestamp: Option<Timestamp>,
    event_time: Option<Timestamp>,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct EventObject {
    field_path: String,
}

#[derive(Deserialize)]
struct EventList {
    items: Vec<EventItem>,
}

/// Lists the events about a Pod. An answer that is longer than any readable object is not read.
async fn list_events(client: &Client, namespace: &str, uid: &str) -> kube::Result<Vec<PodEvent>> {
    let fields = format!("involvedObject.uid={uid}");
    let parameters = ListParams::default().fields(&fields).limit(EVENTS);
    let request = live::requests::<Event>(Some(namespace)).list(&parameters).map_err(kube::Error::BuildRequest)?;
    let text = live::text(client, request).await?;
    let list: EventList = serde_json::from_slice(&text).map_err(kube::Error::SerdeError)?;
    let events = list.items.into_iter().map(|event| PodEvent {
        reason: shortened(&event.reason, 128),
        message: shortened(&event.message, 1024),
        part: shortened(&event.involved_object.field_path, 256),
        last: event.last_timestamp.or(event.event_time),
    });
    Ok(events.collect())
}

/// How long the images of a node are remembered. The kubelet reports them as often.
const IMAGES_INTERVAL: Duration = Duration::from_secs(60);

/// The most names of images that are read of a node. By default, a kubelet reports 50 images, with two names each.
const NODE_IMAGES: usize = 1000;

/// The part of a node that is read.
#[derive(Deserialize)]
struct NodeImages {
    #[serde(default)]
    status: NodeImagesStatus,
}

#[derive(Default, Deserialize)]
struct NodeImagesStatus {
    #[serde(default)]
    images: Vec<NodeImage>,
}

#[derive(Deserialize)]
struct NodeImage {
    #[serde(default)]
    names: Vec<String>,
}

/// Reads the images of a node. An answer that is longer than any readable object is not read.
async fn node_images(client: &Client, node: &str) -> kube::Result<BTreeSet<String>> {
    let request = Request::new(Node::url_path(&(), None)).get(node, &GetParams::default());
    let text = live::text(client, request.map_err(kube::Error::BuildRequest)?).await?;
    let node: NodeImages = serde_json::from_slice(&text).map_err(kube::Error::SerdeError)?;
    let names = node.status.images.into_iter().flat_map(|image| image.names);
    Ok(names.map(|name| shortened(&name, 1024)).take(NODE_IMAGES).collect())
}

/// The API server does not limit the fields of all events.
fn shortened(text: &str, longest: usize) -> String {
    text.chars().take(longest).collect()
}

/// The permission of a reconcile to read content, which ends when it is dropped.
pub(super) struct Permit {
    readers: Arc<Mutex<HashMap<String, usize>>>,
    namespace: String,
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(running) = readers.get_mut(&self.namespace) {
            *running -= 1;
            if *running == 0 {
                readers.remove(&self.namespace);
            }
        }
    }
}

impl LiveReads {
    pub(super) fn new(client: Client, reads_nodes: bool) -> Self {
        Self {
            client,
            readers: Arc::default(),
            hashes: Memo::of(4 * 1024 * 1024),
            pods: Memo::of(1024 * 1024),
            claims: Memo::of(1024 * 1024),
            events: Memo::of(1024 * 1024),
            node_images: Memo::of(1024 * 1024),
            reads_nodes,
            event_lists: Throttle::of(EVENT_LISTS, READ_INTERVAL / EVENT_LISTS),
        }
    }

    /// Permits a reconcile to read content, unless [`READERS`] others of its namespace do.
    pub(super) fn begin(&self, namespace: &str) -> Result<Permit, Busy> {
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        let running = readers.entry(namespace.to_string()).or_default();
        if *running >= READERS {
            return Err(Busy);
        }
        *running += 1;
        Ok(Permit { readers: self.readers.clone(), namespace: namespace.to_string() })
    }

    /// Reads the ConfigMaps among the sources of a session. The operator may get them by name, but may not list or watch them.
    pub(super) async fn config_maps(
        &self,
        namespace: &str,
        names: impl IntoIterator<Item = String>,
    ) -> Result<BTreeMap<String, ConfigMapContent>, Busy> {
        let mut contents = BTreeMap::new();
        for name in names {
            let content = match self.config_map(namespace, &name).await? {
                Ok(Some(hash)) => ConfigMapContent::Hash(String::clone(&hash)),
                Ok(None) => ConfigMapContent::Missing,
                Err(failure) => ConfigMapContent::Unknown(failure),
            };
            contents.insert(name, content);
        }
        Ok(contents)
    }

    async fn config_map(&self, namespace: &str, name: &str) -> Result<Result<Option<Arc<String>>, Failure>, Busy> {
        let hash = |config_map: &ConfigMap| session::content_hash(config_map);
        let bytes = |_: &String| 256;
        self.content(&self.hashes, namespace, name, ConfigMap::PROJECTION, hash, bytes).await
    }

    /// Reads the Pod that a sandbox attaches to.
    pub(super) async fn pod(&self, namespace: &str, name: &str) -> Result<Lookup<Pod>, Busy> {
        let bytes = |pod: &Pod| size_of(pod);
        Ok(match self.content(&self.pods, namespace, name, ATTACHED_POD, Pod::clone, bytes).await? {
            Ok(Some(pod)) => Lookup::Found(pod),
            Ok(None) => Lookup::Missing,
            Err(failure) => Lookup::Failed(failure),
        })
    }

    /// Lists the events about a Pod, unless they were listed within the last minute, or too many lists were made for the namespace. Then
    /// the events are those of the last list.
    pub(super) async fn pod_events(&self, namespace: &str, uid: &str, now: Timestamp) -> Vec<PodEvent> {
        let is_recent = |at: Timestamp| now.duration_since(at).unsigned_abs() < READ_INTERVAL;
        let read = self.events.get(uid, &());
        if let Some(recent) = read.as_ref().filter(|read| is_recent(read.0)) {
            return recent.1.clone();
        }
        let before = || read.as_ref().map(|read| read.1.clone()).unwrap_or_default();
        if self.event_lists.wait(namespace).is_some() {
            return before();
        }
        self.event_lists.done(namespace.to_string());
        let events = list_events(&self.client, namespace, uid).await.unwrap_or_else(|error| {
            debug!(namespace, %error, "the events of a Pod cannot be read");
            before()
        });
        let bytes = |event: &PodEvent| 128 + event.reason.len() + event.message.len() + event.part.len();
        let bytes = 256 + events.iter().map(bytes).sum::<usize>();
        self.events.put(uid, (), Arc::new((now, events.clone())), bytes);
        events
    }

    /// Reads the images of a node, unless they were read within the last minute; `None` if the node does not exist. If they cannot be read,
    /// none is known.
    pub(super) async fn node_images(&self, node: &str, now: Timestamp) -> Option<BTreeSet<String>> {
        if !self.reads_nodes {
            return Some(BTreeSet::new());
        }
        let is_recent = |at: Timestamp| now.duration_since(at).unsigned_abs() < IMAGES_INTERVAL;
        if let Some(read) = self.node_images.get(node, &()).filter(|read| is_recent(read.0)) {
            return read.1.clone();
        }
        let images = match node_images(&self.client, node).await {
            Ok(images) => Some(images),
            Err(kube::Error::Api(status)) if status.is_not_found() => None,
            Err(error) => {
                debug!(node, %error, "the images of a node cannot be read");
                Some(BTreeSet::new())
            }
        };
        let bytes = 256 + images.iter().flatten().map(|image| 64 + image.len()).sum::<usize>();
        self.node_images.put(node, (), Arc::new((now, images.clone())), bytes);
        images
    }

    /// Reads a claim that a user created. It is read by name, since only the operator's own claims are watched.
    pub(super) async fn claim(&self, namespace: &str, name: &str) -> Result<Lookup<PersistentVolumeClaim>, Busy> {
        let (keep, bytes) = (PersistentVolumeClaim::PROJECTION, |claim: &PersistentVolumeClaim| size_of(claim));
        Ok(match self.content(&self.claims, namespace, name, keep, Clone::clone, bytes).await? {
            Ok(Some(claim)) => Lookup::Found(claim),
            Ok(None) => Lookup::Missing,
            Err(failure) => Lookup::Failed(failure),
        })
    }

    /// What `make` derives from an object's content, remembered for each version; `None` if the object does not exist.
    async fn content<K: Object, T>(
        &self,
        memo: &Memo<Version, T>,
        namespace: &str,
        name: &str,
        keep: Projection,
        make: impl Fn(&K) -> T,
        bytes: impl Fn(&T) -> usize,
    ) -> Result<Result<Option<Arc<T>>, Failure>, Busy> {
        let place = format!("{namespace}/{name}");
        let version = match self.version::<K>(namespace, name).await {
            Ok(Some(version)) => version,
            other => return Ok(other.map(|_| None)),
        };
        if let Some(known) = memo.get(&place, &version) {
            return Ok(Ok(Some(known)));
        }
        let _permit = self.begin(namespace)?;
        Ok(match live::get::<K>(&self.client, namespace, name, keep).await {
            Ok(Some(Ok(object))) => {
                let made = Arc::new(make(&object));
                let version = object.meta().uid.clone().zip(object.meta().resource_version.clone());
                if let Some(version) = version {
                    memo.put(&place, version, made.clone(), bytes(&made));
                }
                Ok(Some(made))
            }
            Ok(Some(Err(unreadable))) => Err(unreadable.failure()),
            Ok(None) => Ok(None),
            Err(error) => Err(apply::failure(&error)),
        })
    }

    /// The version of an object, read without its content.
    pub(super) async fn version<K: Object>(&self, namespace: &str, name: &str) -> Result<Option<Version>, Failure> {
        live::version::<K>(&self.client, namespace, name).await.map_err(|error| apply::failure(&error))
    }
}

/// The estimated bytes that an object takes in memory.
pub(super) fn size_of(object: &impl Serialize) -> usize {
    4096 + 8 * serde_json::to_vec(object).map_or(0, |text| text.len())
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use serde_json::json;

    use super::*;

    #[test]
    fn a_namespace_reads_so_much_at_once_and_no_other_waits_for_it() {
        let service = tower::service_fn(|_: http::Request<kube::client::Body>| async {
            Err::<http::Response<kube::client::Body>, _>("there is no server")
        });
        let reads = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap()
            .block_on(async { LiveReads::new(Client::new(service, "default"), true) });
        let mut running: Vec<_> = (0..READERS).map(|_| reads.begin("a").unwrap()).collect();
        assert!(reads.begin("a").is_err());
        assert!(reads.begin("b").is_ok());
        running.pop();
        assert!(reads.begin("a").is_ok());
        running.clear();
        assert!(reads.readers.lock().unwrap().is_empty());
    }

    /// Each list makes the API server look through all events of a namespace, and anybody may write an event of any length.
    #[tokio::test(start_paused = true)]
    async fn lists_of_events_are_throttled_by_namespace_and_what_is_kept_of_an_event_is_bounded() {
        let asked = Arc::new(AtomicUsize::new(0));
        let counted = asked.clone();
        let service = tower::service_fn(move |_: http::Request<kube::client::Body>| {
            counted.fetch_add(1, Ordering::Relaxed);
            let long = "x".repeat(100_000);
            let event = json!({"reason": long, "message": long, "involvedObject": {"fieldPath": long}});
            let list = json!({"items": [event]}).to_string();
            async {
                Ok::<_, std::convert::Infallible>(http::Response::new(kube::client::Body::from(list.into_bytes())))
            }
        });
        let live = LiveReads::new(Client::new(service, "default"), true);
        let first = live.pod_events("hostile", "0", Timestamp::UNIX_EPOCH).await;
        assert!(first[0].reason.len() + first[0].message.len() + first[0].part.len() < 2048);
        for pod in 1..100 {
            live.pod_events("hostile", &pod.to_string(), Timestamp::UNIX_EPOCH).await;
        }
        assert_eq!(asked.load(Ordering::Relaxed), 20);
        assert_eq!(
            live.pod_events("hostile", "0", Timestamp::from_second(61).unwrap()).await,
            first,
            "the last are kept"
        );
        assert_eq!(asked.load(Ordering::Relaxed), 20);
        assert_eq!(
            live.pod_events("other", "a", Timestamp::UNIX_EPOCH).await.len(),
            1,
            "other namespaces are not affected"
        );
    }
}
