//! One watch of one kind: lists and events, from the API server into the cache.
//!
//! The runtime's own watcher takes a page of a list as one text and reads it as a whole, so that one object which cannot be read
//! is the end of the list, for ever, and a page of large ones takes as much memory as its users like. Here objects come one by one,
//! and each is read by itself (docs/adr/0011-one-object-is-one-object.md).

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use futures::{AsyncBufRead, future};
use http::{HeaderValue, header::ACCEPT_ENCODING};
use k8s_openapi::NamespaceResourceScope;
use kube::{
    Client, Resource, ResourceExt,
    api::{ListParams, ObjectMeta, Request, WatchParams},
    core::Status,
    runtime::{
        reflector::ObjectRef,
        utils::Backoff as _,
        watcher::{DefaultBackoff, Event},
    },
};
use serde::Deserialize;
use tokio::time::{Instant, timeout};
use tracing::{debug, warn};

use super::{
    Cache, Change, Health, Stored,
    intake::Intake,
    room::{Room, Share},
};
use crate::{
    controllers::cache::Scope,
    reading::{
        self, Kept, Unreadable, Why,
        live::requests,
        objects::{Form, Objects, Part},
    },
};

/// The longest time until a list that was refused is tried again.
const REFUSED_POLL: Duration = Duration::from_secs(60);

/// How many objects the API server is asked for at once. It holds that many as one text; here they come one by one. 500, the usual
/// number, was no faster.
const PAGE: u32 = 100;

/// How long a watch lasts; the API server ends it then, and it is begun again where it was.
const WATCH_SECONDS: u32 = 290;

/// After this long without a word the connection is given up.
const SILENCE: Duration = Duration::from_secs(330);

/// A watch that ends sooner than this is not begun again at once.
const SHORT: Duration = Duration::from_secs(1);

/// What is not read for want of room is read again no oftener than this.
const READ_AGAIN: Duration = Duration::from_secs(60);

/// What all watches have in common.
pub(super) struct Cluster<'a> {
    pub(super) client: &'a Client,
    pub(super) scope: &'a Scope,
    pub(super) room: Arc<Room>,
    pub(super) health: Arc<Health>,
}

/// Watches a kind: what is known of it, and the future that keeps that up to date. `tell` hears of every change, and `wake` of objects
/// that cannot be read.
pub(super) fn watch<K: Kept + Resource<Scope = NamespaceResourceScope>>(
    cluster: &Cluster<'_>,
    share: Share,
    labels: Option<&str>,
    tell: impl Fn(Change<'_, K>) + Send + Sync + 'static,
    wake: impl Fn(&ObjectMeta) + Send + Sync + 'static,
) -> (Arc<Cache<K>>, future::BoxFuture<'static, ()>) {
    let namespaces = cluster.scope.namespaces();
    let intake = Intake::new(namespaces.clone());
    let cache = Arc::new(Cache::of(intake.store()));
    let watched = Watched {
        intake: Mutex::new(intake),
        cache: cache.clone(),
        room: cluster.room.clone(),
        share,
        listed: Mutex::default(),
        crowded: Mutex::default(),
        tell,
        wake,
    };
    let (watched, health) = (Arc::new(watched), cluster.health.clone());
    let sources = namespaces.into_iter().enumerate().map(|(index, namespace)| Source {
        client: cluster.client.clone(),
        requests: requests::<K>(namespace.as_deref()),
        labels: labels.map(String::from),
        index,
        namespace,
        watched: watched.clone(),
        health: health.clone(),
    });
    let follow: Vec<_> = sources.map(Source::follow).collect();
    (cache, Box::pin(async move { _ = future::join_all(follow).await }))
}

/// What is known of a kind, and who hears of it.
struct Watched<K: Kept, Tell, Wake> {
    intake: Mutex<Intake<Stored<K>>>,
    cache: Arc<Cache<K>>,
    room: Arc<Room>,
    share: Share,
    /// What the list of each source has brought so far, in bytes by namespace.
    listed: Mutex<HashMap<usize, HashMap<String, usize>>>,
    /// Namespaces in which something did not fit.
    crowded: Mutex<BTreeSet<String>>,
    tell: Tell,
    wake: Wake,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl<K: Kept, Tell: Fn(Change<'_, K>), Wake: Fn(&ObjectMeta)> Watched<K, Tell, Wake> {
    fn list_begins(&self, source: usize) {
        lock(&self.listed).insert(source, HashMap::new());
        self.take_in(source, Event::Init, None);
    }

    fn list_has(&self, source: usize, text: &[u8]) {
        let known = self.known(text);
        let read = known.or_else(|| self.read(text, Some(source)).map(|(stored, _)| stored));
        let Some(stored) = read else { return };
        let namespace = stored.namespace().unwrap_or_default();
        if let Some(listed) = lock(&self.listed).get_mut(&source) {
            *listed.entry(namespace).or_default() += super::room::weight(stored.bytes());
        }
        self.take_in(source, Event::InitApply(stored), None);
    }

    fn list_ends(&self, source: usize, namespace: Option<&str>) {
        let listed = lock(&self.listed).remove(&source).unwrap_or_default();
        self.room.set(self.share, namespace, &listed);
        self.take_in(source, Event::InitDone, None);
    }

    /// What is kept already, in this very version: most of what is listed anew.
    fn known(&self, text: &[u8]) -> Option<Stored<K>> {
        if self.cache.store().is_empty() {
            return None;
        }
        let metadata = reading::identity(text);
        let kept = self.cache.store().get(&reference(&metadata)?)?;
        let is_same = kept.meta().uid == metadata.uid && kept.meta().resource_version == metadata.resource_version;
        let is_read = kept.unreadable().is_none();
        (is_same && is_read && metadata.resource_version.is_some()).then(|| Stored::clone(&kept))
    }

    /// An object that was made or changed. Gives its version.
    fn applied(&self, source: usize, text: &[u8]) -> Option<String> {
        let Some((stored, object)) = self.read(text, None) else { return self.deleted(source, text) };
        let version = stored.resource_version();
        self.take_in(source, Event::Apply(stored), object);
        version
    }

    /// An object that was deleted. Gives its last version.
    fn deleted(&self, source: usize, text: &[u8]) -> Option<String> {
        let metadata = reading::identity(text);
        let kept = self.cache.store().get(&reference(&metadata)?);
        if let Some(kept) = kept {
            self.room.replace(&metadata.namespace.unwrap_or_default(), self.share, Some(kept.bytes()), None);
            self.take_in(source, Event::Delete(Stored::clone(&kept)), None);
        }
        metadata.resource_version
    }

    /// Reads an object, if it has a name. What cannot be read is kept as that.
    fn read(&self, text: &[u8], list: Option<usize>) -> Option<(Stored<K>, Option<Arc<K>>)> {
        let (stored, object) = match reading::read::<K>(text) {
            Ok(read) => (Stored::packed(&read), Some(Arc::new(read.object))),
            Err(unreadable) => (unreadable_one(unreadable), None),
        };
        let namespace = stored.namespace().unwrap_or_default();
        let reference = reference(stored.meta());
        let before = reference.as_ref().and_then(|reference| self.cache.store().get(reference));
        let listed = list.map(|list| lock(&self.listed).get(&list)?.get(&namespace).copied());
        let listed = listed.map(Option::unwrap_or_default);
        if list.is_none() {
            self.room.replace(&namespace, self.share, before.map(|before| before.bytes()), None);
        }
        let stored = if reference.is_none() {
            warn!(kind = %K::kind(&()), %namespace, "an object without a name cannot be read and is left alone");
            None
        } else if self.room.fits(&namespace, self.share, listed, stored.bytes()) {
            Some(stored)
        } else {
            lock(&self.crowded).insert(namespace.clone());
            let why = Why::TooMany(super::room::NAMESPACE_BYTES);
            let marker = unreadable_one::<K>(Box::new(Unreadable { why, ..reading::skimmed::<K>(text) }));
            // There is an end to telling, too.
            self.room.fits_marker(&namespace, self.share, listed).then_some(marker)
        };
        if let (None, Some(stored)) = (list, &stored) {
            self.room.replace(&namespace, self.share, None, Some(stored.bytes()));
        }
        stored.map(|stored| {
            let object = object.filter(|_| stored.unreadable().is_none());
            (stored, object)
        })
    }

    /// Takes an event in and tells of it. `read` is the object that it brings, where that was just read.
    fn take_in(&self, source: usize, event: Event<Stored<K>>, read: Option<Arc<K>>) {
        let object = |stored: Option<&Stored<K>>| stored.and_then(|stored| self.cache.read(stored).object());
        lock(&self.intake).take_in(source, event, |change| {
            let before = object(change.before);
            if let (Some(read), Some(stored)) = (&read, change.after) {
                self.cache.keep(read.clone(), stored);
            }
            let after = object(change.after);
            if before.is_some() || after.is_some() {
                (self.tell)(Change { before: before.as_deref(), after: after.as_deref() });
            }
            match (change.before, change.after) {
                (_, Some(Stored::Unreadable(unreadable))) => (self.wake)(&unreadable.metadata),
                (Some(gone), None) => self.cache.forget(gone),
                _ => {} // it was told
            }
        });
    }

    /// Whether something that did not fit would fit now.
    fn has_room_again(&self) -> bool {
        let mut crowded = lock(&self.crowded);
        let before = crowded.len();
        crowded.retain(|namespace| !self.room.is_roomy(namespace));
        crowded.len() < before
    }
}

/// Names of users go into the log, one line for each time that an object is met.
fn unreadable_one<K: Kept>(unreadable: Box<Unreadable>) -> Stored<K> {
    let ObjectMeta { name, namespace, .. } = &unreadable.metadata;
    debug!(kind = %K::kind(&()), name, namespace, why = %unreadable.why, "an object cannot be read and is left alone");
    Stored::Unreadable(Arc::new(*unreadable))
}

fn reference<K: Kept>(metadata: &ObjectMeta) -> Option<ObjectRef<Stored<K>>> {
    let name = metadata.name.as_ref()?;
    Some(ObjectRef::new(name).within(metadata.namespace.as_deref().unwrap_or_default()))
}

/// The objects of one namespace, or of all.
struct Source<K: Kept, Tell, Wake> {
    client: Client,
    requests: Request,
    labels: Option<String>,
    index: usize,
    namespace: Option<String>,
    watched: Arc<Watched<K, Tell, Wake>>,
    health: Arc<Health>,
}

/// What became of a list or a watch.
struct Trouble {
    error: Error,
    /// From where the watch can go on; absent: everything is to be listed again.
    version: Option<String>,
}

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("{}", words(.0))]
    Request(#[from] kube::Error),
    #[error("the connection broke: {0}")]
    Stream(#[from] std::io::Error),
    #[error("the API server says: {}", .0.message)]
    Told(Box<Status>),
    #[error("the API server said nothing for {} s", SILENCE.as_secs())]
    Silent,
    #[error("the answer is not a list")]
    NoList,
}

/// The API server's own words, where the error is its answer.
fn words(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

impl Error {
    fn code(&self) -> u16 {
        match self {
            Error::Request(kube::Error::Api(status)) | Error::Told(status) => status.code,
            _ => 0,
        }
    }
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self { error, version: None }
    }
}

/// What is around the objects of a list.
#[derive(Deserialize)]
struct ListEnvelope {
    metadata: ListMetadata,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ListMetadata {
    resource_version: Option<String>,
    #[serde(rename = "continue")]
    next: Option<String>,
}

/// What is around the object of an event.
#[derive(Deserialize)]
struct EventEnvelope {
    #[serde(rename = "type")]
    kind: Option<String>,
}

impl<K: Kept, Tell: Fn(Change<'_, K>), Wake: Fn(&ObjectMeta)> Source<K, Tell, Wake> {
    /// Lists once, and then watches, for ever.
    async fn follow(self) {
        let kind = K::kind(&());
        let (mut version, mut refusals, mut backoff) = (None::<String>, 0, DefaultBackoff::default());
        loop {
            let begun = Instant::now();
            let outcome = match &version {
                None => self.list().await.map(Some),
                Some(version) => self.watch(version).await,
            };
            let pause = match outcome {
                Ok(next) => {
                    let was_watching = version.is_some();
                    version = next;
                    refusals = 0;
                    let is_short = was_watching && begun.elapsed() < SHORT;
                    if is_short { Duration::from_millis(100) } else { Duration::ZERO }
                }
                Err(Trouble { error, version: resume }) => {
                    let is_list = version.is_none();
                    version = resume.filter(|_| error.code() != 410);
                    let namespace = self.namespace.as_deref();
                    warn!(%kind, namespace, %error, "watching failed; it is tried again");
                    let is_refused = is_list && error.code() == 403;
                    // A namespace that is gone, and with it our role there, keeps nobody else waiting.
                    if is_refused && namespace.is_some() {
                        lock(&self.watched.intake).is_refused(self.index);
                        self.health.is_well(&kind, namespace);
                    } else if error.code() != 410 {
                        self.health.fails(&kind, namespace);
                    }
                    // What is refused is tried again less and less often.
                    let patience = Duration::from_secs(refusals * refusals).min(REFUSED_POLL);
                    refusals = if is_refused { refusals + 1 } else { 0 };
                    backoff.next().unwrap_or(REFUSED_POLL).max(if is_refused { patience } else { Duration::ZERO })
                }
            };
            if pause.is_zero() {
                // A sleep of no time takes up to a millisecond.
                continue;
            }
            tokio::time::sleep(pause).await;
            if begun.elapsed() > Duration::from_secs(120) {
                backoff.reset();
            }
        }
    }

    /// Lists everything, and gives the version that it was listed at.
    async fn list(&self) -> Result<String, Trouble> {
        self.watched.list_begins(self.index);
        let mut next = None;
        loop {
            let params = ListParams {
                label_selector: self.labels.clone(),
                limit: Some(PAGE),
                continue_token: next,
                ..ListParams::default()
            };
            let request = self.requests.list(&params).map_err(kube::Error::BuildRequest).map_err(Error::from)?;
            let stream = self.client.request_stream(request).await.map_err(Error::from)?;
            let mut objects = Objects::new(Box::pin(stream), Form::List);
            while part(&mut objects).await?.ok_or(Error::NoList)? == Part::Object {
                self.watched.list_has(self.index, objects.object());
            }
            let ListEnvelope { metadata } =
                serde_json::from_slice(objects.envelope()).map_err(|_| Trouble::from(Error::NoList))?;
            next = metadata.next.filter(|next| !next.is_empty());
            let version = metadata.resource_version.filter(|version| !version.is_empty());
            match (&next, version) {
                (Some(_), _) => {}
                (None, Some(version)) => {
                    self.watched.list_ends(self.index, self.namespace.as_deref());
                    self.health.is_well(&K::kind(&()), self.namespace.as_deref());
                    return Ok(version);
                }
                (None, None) => return Err(Error::NoList.into()),
            }
        }
    }

    /// Watches from this version on, until the watch ends: the version that it came to, or nothing where all is to be listed again.
    async fn watch(&self, from: &str) -> Result<Option<String>, Trouble> {
        let mut version = from.to_string();
        let resume = |error, version: &str| Trouble { error, version: Some(version.to_string()) };
        let params = WatchParams {
            label_selector: self.labels.clone(),
            timeout: Some(WATCH_SECONDS),
            bookmarks: true,
            ..WatchParams::default()
        };
        let request = self.requests.watch(&params, from).map_err(kube::Error::BuildRequest);
        let mut request = request.map_err(|error| resume(error.into(), &version))?;
        // A member of gzip for each event is more than the client decodes.
        request.headers_mut().insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let stream = self.client.request_stream(request).await.map_err(|error| resume(error.into(), &version))?;
        self.health.is_well(&K::kind(&()), self.namespace.as_deref());
        let mut objects = Objects::new(Box::pin(stream), Form::Watch);
        let begun = Instant::now();
        loop {
            match part(&mut objects).await.map_err(|error| resume(error, &version))? {
                None => return Ok(Some(version)),
                Some(Part::Object) => {}
                Some(Part::End) => {
                    let seen = self.event(&objects).map_err(|error| resume(error, &version))?;
                    version = seen.unwrap_or(version);
                }
            }
            if begun.elapsed() > READ_AGAIN && self.watched.has_room_again() {
                return Ok(None);
            }
        }
    }

    /// Takes in an event, and gives the version that it brings.
    fn event<R: AsyncBufRead + Unpin>(&self, objects: &Objects<R>) -> Result<Option<String>, Error> {
        let envelope: Option<EventEnvelope> = serde_json::from_slice(objects.envelope()).ok();
        Ok(match envelope.and_then(|envelope| envelope.kind).as_deref() {
            Some("ADDED" | "MODIFIED") => self.watched.applied(self.index, objects.object()),
            Some("DELETED") => self.watched.deleted(self.index, objects.object()),
            Some("BOOKMARK") => reading::identity(objects.object()).resource_version,
            Some("ERROR") => {
                let status: Option<Status> = serde_json::from_slice(objects.object()).ok();
                return Err(Error::Told(Box::new(status.unwrap_or_default())));
            }
            _ => None, // a kind of event that is younger than this
        })
    }
}

async fn part<R: AsyncBufRead + Unpin>(objects: &mut Objects<R>) -> Result<Option<Part>, Error> {
    Ok(timeout(SILENCE, objects.next()).await.map_err(|_| Error::Silent)??)
}
