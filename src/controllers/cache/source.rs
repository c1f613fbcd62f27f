//! Lists the objects of one namespace, or of all namespaces, and then watches them for ever.

use std::{sync::Arc, time::Duration};

use futures::AsyncBufRead;
use http::{HeaderValue, header::ACCEPT_ENCODING};
use kube::{
    Client,
    api::{ListParams, ObjectMeta, Request, WatchParams},
    core::Status,
    runtime::{utils::Backoff as _, watcher::DefaultBackoff},
};
use serde::Deserialize;
use tokio::time::{Instant, timeout};
use tracing::warn;

use super::{Change, Health, watching::Watched};
use crate::reading::{
    self, Kept,
    objects::{Form, Objects, Part},
};

/// The longest time until a forbidden list is retried.
const REFUSED_POLL: Duration = Duration::from_secs(60);

/// The page size of lists. The API server holds a page in memory as one text; here the objects are read one by one. The usual size,
/// 500, was not faster.
const PAGE: u32 = 100;

/// How long a watch lasts. Then the API server ends it, and a new watch continues from the last resource version.
const WATCH_SECONDS: u32 = 290;

/// A connection on which nothing has arrived for this long is closed.
const SILENCE: Duration = Duration::from_secs(330);

/// After a watch that lasted less than this, there is a short pause before the next watch.
const SHORT: Duration = Duration::from_secs(1);

/// A watch that has lasted this long counts as working, even if no event has arrived.
const LASTS: Duration = Duration::from_secs(10);

/// Objects that did not fit into the memory budget are listed again at most this often.
const READ_AGAIN: Duration = Duration::from_secs(60);

/// The list and watch of one namespace, or of all namespaces.
pub(super) struct Source<K: Kept, Dispatch, Enqueue> {
    pub(super) client: Client,
    pub(super) requests: Request,
    pub(super) labels: Option<String>,
    pub(super) index: usize,
    pub(super) namespace: Option<String>,
    pub(super) watched: Arc<Watched<K, Dispatch, Enqueue>>,
    pub(super) health: Arc<Health>,
}

/// Why a list or a watch failed.
struct Trouble {
    error: Error,
    /// The resource version from which the watch can continue. `None`: everything has to be listed again.
    version: Option<String>,
}

#[derive(Debug, thiserror::Error)]
enum Error {
    #[error("{}", words(.0))]
    Request(#[from] kube::Error),
    #[error("the connection broke: {0}")]
    Stream(#[from] std::io::Error),
    #[error("the API server reported an error: {}", .0.message)]
    Status(Box<Status>),
    #[error("the API server sent nothing for {} s", SILENCE.as_secs())]
    Silent,
    #[error("the answer is not a list")]
    NoList,
}

/// The message of an error: the API server's own message if the error is its answer.
fn words(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => status.message.clone(),
        other => other.to_string(),
    }
}

impl Error {
    fn code(&self) -> u16 {
        match self {
            Error::Request(kube::Error::Api(status)) | Error::Status(status) => status.code,
            _ => 0,
        }
    }
}

impl From<Error> for Trouble {
    fn from(error: Error) -> Self {
        Self { error, version: None }
    }
}

/// The JSON around the objects of a list.
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

/// The JSON around the object of a watch event.
#[derive(Deserialize)]
struct EventEnvelope {
    #[serde(rename = "type")]
    kind: Option<String>,
}

impl<K: Kept, Dispatch: Fn(Change<'_, K>), Enqueue: Fn(&ObjectMeta)> Source<K, Dispatch, Enqueue> {
    /// Lists the objects and then watches them, for ever.
    pub(super) async fn follow(self) {
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
                    warn!(%kind, namespace, %error, "the list or watch failed; it is retried");
                    // For one namespace, a forbidden watch is like a forbidden list: the namespace and the operator's role in it are gone.
                    let is_refused = error.code() == 403 && (is_list || namespace.is_some());
                    if is_refused {
                        version = None;
                    }
                    // A namespace that is gone, with the operator's role in it, must not hold up the other namespaces.
                    if is_refused && namespace.is_some() {
                        self.watched.mark_forbidden(self.index);
                        self.health.is_well(&kind, namespace);
                    } else if error.code() != 410 {
                        self.health.fails(&kind, namespace);
                    }
                    // The delay grows with each refusal.
                    let patience = Duration::from_secs(refusals * refusals).min(REFUSED_POLL);
                    refusals = if is_refused { refusals + 1 } else { 0 };
                    backoff.next().unwrap_or(REFUSED_POLL).max(if is_refused { patience } else { Duration::ZERO })
                }
            };
            if pause.is_zero() {
                // A sleep of zero would take up to a millisecond.
                continue;
            }
            tokio::time::sleep(pause).await;
            if begun.elapsed() > Duration::from_secs(120) {
                backoff.reset();
            }
        }
    }

    /// Lists everything, and returns the resource version of the list.
    async fn list(&self) -> Result<String, Trouble> {
        self.watched.list_begins(self.index, self.namespace.as_deref());
        let mut next = None;
        loop {
            let params = ListParams {
                label_selector: self.labels.clone(),
                limit: Some(PAGE),
                continue_token: next,
                ..ListParams::default()
            };
            let request = self.requests.list(&params).map_err(kube::Error::BuildRequest).map_err(Error::from)?;
            let mut objects = Objects::new(Box::pin(self.stream(request).await?), Form::List);
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

    /// Watches from this version until the watch ends. Returns the last version, or `None` if everything has to be listed again.
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
        // With gzip, each event would be a separate gzip member, and the client does not decode several members.
        request.headers_mut().insert(ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        let stream = self.stream(request).await.map_err(|error| resume(error, &version))?;
        let mut objects = Objects::new(Box::pin(stream), Form::Watch);
        let begun = Instant::now();
        let mut is_well = false;
        loop {
            let next = part(&mut objects);
            // A watch that starts and breaks at once does not count as working.
            let next = if is_well { next.await } else { self.well_after(next).await };
            is_well = true;
            match next.map_err(|error| resume(error, &version))? {
                None => return Ok(Some(version)),
                Some(Part::Object) => {}
                Some(Part::End) => {
                    let seen = self.event(&objects).map_err(|error| resume(error, &version))?;
                    version = seen.unwrap_or(version);
                }
            }
            if begun.elapsed() > READ_AGAIN && self.watched.has_headroom_again(self.namespace.as_deref()) {
                return Ok(None);
            }
        }
    }

    /// Sends a request whose answer is a stream.
    async fn stream(
        &self,
        request: http::Request<Vec<u8>>,
    ) -> Result<impl AsyncBufRead + use<K, Dispatch, Enqueue>, Error> {
        Ok(timeout(SILENCE, self.client.request_stream(request)).await.map_err(|_| Error::Silent)??)
    }

    /// Waits for the first event of a watch, and records that the watch works when the event arrives or after [`LASTS`].
    async fn well_after<T>(&self, first: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let well = || self.health.is_well(&K::kind(&()), self.namespace.as_deref());
        let mut first = std::pin::pin!(first);
        if let Ok(first) = timeout(LASTS, first.as_mut()).await {
            if first.is_ok() {
                well();
            }
            return first;
        }
        well();
        first.await
    }

    /// Processes an event, and returns its resource version.
    fn event<R: AsyncBufRead + Unpin>(&self, objects: &Objects<R>) -> Result<Option<String>, Error> {
        let envelope: Option<EventEnvelope> = serde_json::from_slice(objects.envelope()).ok();
        Ok(match envelope.and_then(|envelope| envelope.kind).as_deref() {
            Some("ADDED" | "MODIFIED") => self.watched.applied(self.index, objects.object()),
            Some("DELETED") => self.watched.deleted(self.index, objects.object()),
            Some("BOOKMARK") => reading::identity(objects.object()).resource_version,
            Some("ERROR") => {
                let status: Option<Status> = serde_json::from_slice(objects.object()).ok();
                return Err(Error::Status(Box::new(status.unwrap_or_default())));
            }
            _ => None, // an event type that this version does not know
        })
    }
}

async fn part<R: AsyncBufRead + Unpin>(objects: &mut Objects<R>) -> Result<Option<Part>, Error> {
    Ok(timeout(SILENCE, objects.next()).await.map_err(|_| Error::Silent)??)
}
