//! An API server in memory: a tower service for [`kube::Client::new`], with the objects of a small cluster.
//!
//! It serves what the operator uses, and refuses what a real one refuses: `tests/support/scenarios.rs` is run against both. What it
//! does not know is answered with 404, 405 or 415, never with a guess. Time is tokio's, so a test that pauses it does not wait.

mod builtin;
pub mod faults;
mod fields;
mod refusal;
mod request;
mod resource;
mod schema;
mod store;
mod verbs;
mod watching;

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard},
    time::Duration,
};

use axum::{
    body::Body as Answer,
    http::{Request, Response, header},
};
use jiff::Timestamp;
use kube::{
    Client,
    client::{Body, retry::RetryPolicy},
};
use serde_json::{Value, json};
use tokio::{sync::watch, time::Instant};
use tower::{BoxError, retry::Retry, service_fn};

pub use self::{
    faults::Seen,
    request::Verb,
    store::{Key, is_deleting, text},
    verbs::owner_is_there,
};
use self::{
    faults::{Chaos, Crash, Effect, Fault, LastWrite},
    refusal::Refusal,
    request::Ask,
    store::Store,
    verbs::{Call, PatchKind},
};

/// How long a client waits for an answer that does not come; the client of the operator has this from its library.
const CLIENT_PATIENCE: Duration = Duration::from_secs(295);

/// The server; its clones are the same server.
#[derive(Clone)]
pub struct ApiServer(Arc<Inner>);

struct Inner {
    state: Mutex<State>,
    version: watch::Sender<u64>,
    started: Instant,
}

/// What a request meets.
#[derive(Default)]
struct State {
    store: Store,
    seen: Vec<Seen>,
    faults: Vec<Fault>,
    chaos: Option<Chaos>,
    crash: Option<Crash>,
    /// A write of a process that has ended.
    late: Option<Late>,
    dead: BTreeSet<String>,
    /// Counts how often all watches were cut.
    cuts: u64,
    /// How late watches report changes.
    lag: Duration,
}

/// A write that is still on its way.
struct Late {
    client: String,
    ask: Ask,
    content: String,
    body: Result<Value, Refusal>,
}

/// What becomes of a request.
enum Fate {
    Answered(Result<(u16, Value), Refusal>),
    Watched(Ask),
    /// Nobody waits for the answer any more.
    Never,
    /// The answer does not come.
    Lost,
    Late(Duration),
}

impl ApiServer {
    /// A server with one node, our CRDs and the namespaces `default` and `lab`.
    pub fn new() -> Self {
        let mut store = Store::default();
        let mut put = |plural, name: &str, mut object: Value| {
            let resource = resource::of(plural);
            object["apiVersion"] = json!(resource.api_version());
            object["kind"] = json!(resource.kind);
            object["metadata"] =
                json!({"name": name, "uid": store.birth(), "creationTimestamp": "2026-01-01T00:00:00Z"});
            store.put(Key { plural, namespace: String::new(), name: name.into() }, object, vec![]);
        };
        for name in ["default", "lab"] {
            put("namespaces", name, json!({"spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}}));
        }
        put("nodes", "node-1", json!({"status": {"nodeInfo": {"containerRuntimeVersion": "containerd://2.1.0"}}}));
        for name in ["aigisesessions.aigise.dev", "sandboxes.aigise.dev", "agents.aigise.dev"] {
            let established = json!({"conditions": [{"type": "Established", "status": "True"}]});
            put("customresourcedefinitions", name, json!({"status": established}));
        }
        let version = watch::Sender::new(store.version());
        let state = Mutex::new(State { store, ..State::default() });
        Self(Arc::new(Inner { state, version, started: Instant::now() }))
    }

    /// The time in the cluster.
    pub fn now(&self) -> Timestamp {
        let start: Timestamp = "2026-01-01T00:00:00Z".parse().expect("a time");
        start + self.0.started.elapsed()
    }

    /// A client of this name, which tries again what the operator's own client would try again.
    pub fn client(&self, name: &str) -> Client {
        let (server, name) = (self.clone(), name.to_string());
        let service = service_fn(move |request: Request<Body>| {
            let (server, name) = (server.clone(), name.clone());
            async move { server.serve(&name, request).await }
        });
        Client::new(Retry::new(RetryPolicy::server_retry(), service), "default")
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().expect("no request panics")
    }

    /// Does something to the state, and notifies the watches.
    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state();
        let result = act(&mut state);
        let version = state.store.version();
        drop(state);
        self.0.version.send_if_modified(|known| std::mem::replace(known, version) != version);
        result
    }

    async fn serve(&self, client: &str, request: Request<Body>) -> Result<Response<Answer>, BoxError> {
        let (head, body) = request.into_parts();
        if head.uri.path() == "/version" {
            return Ok(answer(
                200,
                &json!({"major": "1", "minor": "35", "gitVersion": "v1.35.0", "gitCommit": "", "gitTreeState": "", "buildDate": "", "goVersion": "", "compiler": "", "platform": ""}),
            ));
        }
        let mut ask = match Ask::read(&head.method, &head.uri) {
            Ok(ask) => ask,
            Err(refusal) => return Ok(refused(&refusal)),
        };
        let accepts = head.headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
        ask.metadata_only = accepts.contains("as=PartialObjectMetadata;");
        let content = head.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let body = read_body(body.collect_bytes().await?.as_ref());
        if let (Verb::Create, Ok(object)) = (ask.verb, &body) {
            ask.key.name = text(object, "/metadata/name").into();
        }
        let mut effect = self.with(|state| state.meets(client, &ask));
        loop {
            match self.with(|state| state.carry_out(client, &ask, content, &body, effect.take(), self.now())) {
                Fate::Answered(Ok((code, body))) => return Ok(answer(code, &body)),
                Fate::Answered(Err(refusal)) => return Ok(refused(&refusal)),
                Fate::Watched(ask) => return Ok(streamed(self.watch(client.to_string(), ask))),
                Fate::Never => std::future::pending().await,
                Fate::Lost => {
                    tokio::time::sleep(CLIENT_PATIENCE).await;
                    return Err("the answer did not come".into());
                }
                Fate::Late(delay) => tokio::time::sleep(delay).await,
            }
        }
    }
}

impl State {
    /// A request comes in, and may meet a fault.
    fn meets(&mut self, client: &str, ask: &Ask) -> Option<Effect> {
        let seen = Seen {
            client: client.into(),
            verb: ask.verb,
            key: ask.key.clone(),
            subresource: ask.subresource,
            metadata_only: ask.metadata_only,
            code: None,
        };
        if let Some(fault) = self.faults.iter_mut().find(|fault| fault.times > 0 && (fault.matches)(&seen)) {
            fault.times -= 1;
            return Some(fault.effect.clone());
        }
        let is_operator = client.starts_with("operator");
        self.chaos.as_mut().filter(|_| is_operator).and_then(|chaos| chaos.effect(&seen))
    }

    fn carry_out(
        &mut self,
        client: &str,
        ask: &Ask,
        content: &str,
        body: &Result<Value, Refusal>,
        effect: Option<Effect>,
        now: Timestamp,
    ) -> Fate {
        if self.dead.contains(client) {
            return Fate::Never;
        }
        let crashes = self.crashes(client, ask.verb);
        match crashes {
            Some(LastWrite::IsLost) => return Fate::Never,
            Some(LastWrite::LandsLater) => {
                let (client, content) = (client.to_string(), content.to_string());
                self.late = Some(Late { client, ask: ask.clone(), content, body: body.clone() });
                return Fate::Never;
            }
            Some(LastWrite::Lands) | None => {}
        }
        let mut version = self.store.version();
        let mut loses = false;
        match effect {
            Some(Effect::Delay(delay)) if crashes.is_none() => return Fate::Late(delay),
            Some(Effect::Hang) => return Fate::Lost,
            Some(Effect::Refuse(refusal)) => return Fate::Answered(Err(refusal)),
            Some(Effect::Stale(versions)) => version = version.saturating_sub(versions).max(self.store.compacted),
            Some(Effect::LoseAnswer) => loses = true,
            Some(Effect::Delay(_)) | None => {}
        }
        let result = match ask.verb {
            Verb::Watch => return Fate::Watched(ask.clone()),
            Verb::List => watching::list(&self.store, ask, version).map(|list| (200, list)),
            Verb::Get if version < self.store.version() => watching::read_at(&self.store, ask, version),
            _ => self.write(ask, content, body.clone(), now),
        };
        self.note(client, ask, &result);
        let result =
            result.map(|(code, object)| if ask.metadata_only { (code, metadata_of(&object)) } else { (code, object) });
        if crashes.is_some() {
            return Fate::Never;
        }
        if loses { Fate::Lost } else { Fate::Answered(result) }
    }

    fn note(&mut self, client: &str, ask: &Ask, result: &Result<(u16, Value), Refusal>) {
        let code = result.as_ref().map_or_else(|refusal| refusal.code, |(code, _)| *code);
        self.seen.push(Seen {
            client: client.into(),
            verb: ask.verb,
            key: ask.key.clone(),
            subresource: ask.subresource,
            metadata_only: ask.metadata_only,
            code: Some(code),
        });
    }

    /// Whether the client's process ends with this request, and if so, what becomes of the request.
    fn crashes(&mut self, client: &str, verb: Verb) -> Option<LastWrite> {
        let crash = self.crash.as_mut().filter(|crash| verb.writes() && crash.client == client)?;
        if crash.after > 1 {
            crash.after -= 1;
            return None;
        }
        let last = crash.last;
        self.crash = None;
        self.dead.insert(client.into());
        Some(last)
    }

    fn write(
        &mut self,
        ask: &Ask,
        content: &str,
        body: Result<Value, Refusal>,
        now: Timestamp,
    ) -> Result<(u16, Value), Refusal> {
        let manager = match ask.option("fieldManager") {
            "" => "unknown",
            name => name,
        };
        let mut call =
            Call { resource: ask.resource, key: ask.key.clone(), subresource: ask.subresource, manager, now };
        let answered = match ask.verb {
            Verb::Get => call.get(&self.store),
            Verb::Create => call.create(&mut self.store, body?),
            Verb::Update => call.replace(&mut self.store, body?),
            Verb::Delete => call.delete(&mut self.store, &body?),
            Verb::Patch => {
                let force = ask.option("force") == "true";
                let kind = match content {
                    "application/apply-patch+yaml" if ask.option("fieldManager").is_empty() => {
                        return Err(Refusal::new(
                            422,
                            "Invalid",
                            "fieldManager: Required value: is required for apply patch",
                        ));
                    }
                    "application/apply-patch+yaml" => PatchKind::Apply { force },
                    "application/merge-patch+json" => PatchKind::Merge,
                    "application/json-patch+json" => PatchKind::Json,
                    other => {
                        return Err(Refusal::new(
                            415,
                            "UnsupportedMediaType",
                            format!("patches of the type {other} are not served"),
                        ));
                    }
                };
                call.patch(&mut self.store, kind, &body?)
            }
            Verb::List | Verb::Watch => unreachable!("answered elsewhere"),
        };
        answered.map(|(code, object)| (code, Value::clone(&object)))
    }
}

/// What a real one gives who asks for metadata only.
fn metadata_of(object: &Value) -> Value {
    json!({"apiVersion": "meta.k8s.io/v1", "kind": "PartialObjectMetadata", "metadata": object["metadata"]})
}

fn read_body(bytes: &[u8]) -> Result<Value, Refusal> {
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_slice(bytes).map_err(|error| Refusal::bad_request(error.to_string()))
}

fn answer(code: u16, body: &Value) -> Response<Answer> {
    let response = Response::builder().status(code).header(header::CONTENT_TYPE, "application/json");
    response.body(Answer::from(body.to_string())).expect("a response")
}

fn refused(refusal: &Refusal) -> Response<Answer> {
    let mut response = answer(refusal.code, &refusal.status());
    if let Some(seconds) = refusal.retry_after {
        response.headers_mut().insert(header::RETRY_AFTER, seconds.into());
    }
    response
}

fn streamed(body: Answer) -> Response<Answer> {
    Response::builder().header(header::CONTENT_TYPE, "application/json").body(body).expect("a response")
}

/// What a test does to the server, and looks up in it.
impl ApiServer {
    /// An object as it is.
    pub fn get(&self, plural: &'static str, namespace: &str, name: &str) -> Option<Arc<Value>> {
        let key = Key { plural, namespace: namespace.into(), name: name.into() };
        self.state().store.get(&key).map(|stored| stored.object.clone())
    }

    /// All objects, with where they are.
    pub fn all(&self) -> Vec<(Key, Arc<Value>)> {
        self.state().store.all().map(|(key, stored)| (key.clone(), stored.object.clone())).collect()
    }

    /// Whether an object's owner is there.
    pub fn has_owner(&self, namespace: &str, owner: &Value) -> bool {
        owner_is_there(&self.state().store, namespace, owner)
    }

    /// Objects that another server stored, as this one shows them with its own CRDs: UIDs, versions and status are kept.
    pub fn restore(&self, mut objects: Vec<Value>) {
        objects.sort_by_key(|object| text(object, "/metadata/resourceVersion").parse::<u64>().unwrap_or_default());
        self.with(|state| {
            for mut object in objects {
                let (api_version, kind) = (text(&object, "/apiVersion"), text(&object, "/kind"));
                let resource = resource::of_kind(api_version, kind).unwrap_or_else(|| panic!("{kind} is not served"));
                let (namespace, name) = (text(&object, "/metadata/namespace"), text(&object, "/metadata/name"));
                let key = Key { plural: resource.plural, namespace: namespace.into(), name: name.into() };
                if let Some(schema) = &resource.schema {
                    schema.prune_and_default(&mut object);
                }
                state.store.put_stored(key, object);
            }
        });
    }

    /// The cluster changes an object: what only it may change, without admission. It owns nothing by that.
    pub fn edit(&self, key: &Key, change: impl FnOnce(&mut Value)) {
        self.with(|state| {
            let Some(live) = state.store.get(key).cloned() else { return };
            let mut new = Value::clone(&live.object);
            change(&mut new);
            if new != *live.object {
                verbs::keep_edited(&mut state.store, key, new, live.managers);
            }
        });
    }

    /// The cluster deletes an object, with the grace that it asks for.
    pub fn delete(&self, key: &Key, options: &Value) {
        let now = self.now();
        self.with(|state| {
            let resource = resource::of(key.plural);
            let call = Call { resource, key: key.clone(), subresource: None, manager: "cluster", now };
            let _ = call.delete(&mut state.store, options);
        });
    }

    /// Reports every change.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.0.version.subscribe()
    }

    /// All requests that were answered so far, reads and watches left out.
    pub fn writes(&self) -> Vec<Seen> {
        self.state().seen.iter().filter(|seen| seen.verb.writes()).cloned().collect()
    }

    /// All requests that were answered so far.
    pub fn requests(&self) -> Vec<Seen> {
        self.state().seen.clone()
    }

    /// The next requests that match go wrong.
    pub fn fault(&self, times: usize, effect: Effect, matches: impl Fn(&Seen) -> bool + Send + 'static) {
        self.state().faults.push(Fault { matches: Box::new(matches), effect, times });
    }

    /// From now on requests and watches of the operator go wrong by chance; never, with none.
    pub fn chaos(&self, chaos: Option<Chaos>) {
        self.state().chaos = chaos;
    }

    /// The process with this client ends at its n-th write from now.
    pub fn crash(&self, crash: Crash) {
        self.state().crash = Some(crash);
    }

    /// The last write of the process that ended lands, if it is still on its way.
    pub fn land_late(&self) {
        let now = self.now();
        self.with(|state| {
            if let Some(Late { client, ask, content, body }) = state.late.take() {
                let result = state.write(&ask, &content, body, now);
                state.note(&client, &ask, &result);
            }
        });
    }

    /// The process with this client has ended: its requests are not answered any more.
    pub fn kill(&self, client: &str) {
        self.state().dead.insert(client.into());
    }

    /// Whether the process with this client has ended.
    pub fn is_dead(&self, client: &str) -> bool {
        self.state().dead.contains(client)
    }

    /// Wakes whoever waits for a change: the cluster has changed where the server does not see it.
    pub fn nudge(&self) {
        self.0.version.send_modify(|_| {});
    }

    /// Cuts all watches.
    pub fn cut_watches(&self) {
        self.state().cuts += 1;
        self.nudge();
    }

    /// Watches and lists from before now are answered with 410 Gone.
    pub fn compact(&self) {
        let mut state = self.state();
        state.store.compacted = state.store.version();
    }

    /// From now on watches report changes this late.
    pub fn lag(&self, lag: Duration) {
        self.state().lag = lag;
    }
}
