//! Lists, whole or by pages, and watches, held open.

use std::{sync::Arc, time::Duration};

use axum::body::{Body, Bytes};
use futures::stream;
use serde_json::{Value, json};
use tokio::{sync::watch, time::Instant};

use super::{
    ApiServer,
    faults::{Chaos, WatchEffect},
    refusal::Refusal,
    request::Ask,
    store::{Change, Store},
};

/// How often a watch without changes gets a bookmark.
const BOOKMARK_EVERY: Duration = Duration::from_secs(60);

/// A list as it was at a version.
pub fn list(store: &Store, ask: &Ask, version: u64) -> Result<Value, Refusal> {
    let (version, from) = match ask.option("continue") {
        "" => (version, 0),
        token => {
            let numbers =
                token.split_once('-').and_then(|(version, from)| Some((version.parse().ok()?, from.parse().ok()?)));
            numbers.ok_or_else(|| Refusal::bad_request("continue key is not valid"))?
        }
    };
    if version < store.compacted {
        return Err(Refusal::gone());
    }
    let namespace = Some(ask.key.namespace.as_str()).filter(|namespace| !namespace.is_empty());
    let all: Vec<_> =
        store.at(version, ask.key.plural, namespace).into_iter().filter(|object| ask.selects(object)).collect();
    let limit = ask.option("limit").parse().ok().filter(|&limit| limit > 0).unwrap_or(usize::MAX);
    let page: Vec<_> = all.iter().skip(from).take(limit).map(|object| Value::clone(object)).collect();
    let mut metadata = json!({"resourceVersion": version.to_string()});
    let next = from + page.len();
    if next < all.len() {
        metadata["continue"] = json!(format!("{version}-{next}"));
        metadata["remainingItemCount"] = json!(all.len() - next);
    }
    Ok(json!({
        "apiVersion": ask.resource.api_version(),
        "kind": format!("{}List", ask.resource.kind),
        "metadata": metadata,
        "items": page,
    }))
}

/// An object as it was at a version.
pub fn read_at(store: &Store, ask: &Ask, version: u64) -> Result<(u16, Value), Refusal> {
    let all = store.at(version, ask.key.plural, Some(&ask.key.namespace));
    let found = all.into_iter().find(|object| object["metadata"]["name"] == ask.key.name);
    let found = found.ok_or_else(|| Refusal::not_found(ask.key.plural, &ask.key.name))?;
    Ok((200, Value::clone(&found)))
}

struct Watch {
    server: ApiServer,
    client: String,
    ask: Ask,
    /// Everything up to here was sent.
    sent: u64,
    versions: watch::Receiver<u64>,
    cuts: u64,
    ends: Instant,
    is_over: bool,
    is_too_old: bool,
    initial: Vec<Arc<Value>>,
}

impl ApiServer {
    pub(super) fn watch(&self, client: String, ask: Ask) -> Body {
        let state = self.state();
        let from = ask.option("resourceVersion").parse().unwrap_or(0u64);
        let namespace = Some(ask.key.namespace.as_str()).filter(|namespace| !namespace.is_empty());
        let now = state.store.version();
        let initial = if from == 0 { state.store.at(now, ask.key.plural, namespace) } else { vec![] };
        let seconds = ask.option("timeoutSeconds").parse().unwrap_or(300);
        let watch = Watch {
            server: self.clone(),
            client,
            sent: if from == 0 { now } else { from },
            versions: self.changes(),
            cuts: state.cuts,
            ends: Instant::now() + Duration::from_secs(seconds),
            is_over: false,
            is_too_old: from != 0 && from < state.store.compacted,
            initial: initial.into_iter().filter(|object| ask.selects(object)).collect(),
            ask,
        };
        drop(state);
        Body::from_stream(stream::unfold(watch, |mut watch| async move {
            let events = watch.next().await?;
            Some((Ok::<_, std::convert::Infallible>(events), watch))
        }))
    }
}

impl Watch {
    /// The next events, in lines; none at the end.
    async fn next(&mut self) -> Option<Bytes> {
        let initial: Vec<_> = std::mem::take(&mut self.initial).iter().map(|object| event("ADDED", object)).collect();
        if !initial.is_empty() {
            return Some(initial.concat().into());
        }
        if self.is_too_old {
            self.is_too_old = false;
            return Some(self.gone());
        }
        while !self.is_over {
            self.versions.mark_unchanged();
            if self.server.is_dead(&self.client) {
                std::future::pending::<()>().await;
            }
            if self.server.state().cuts != self.cuts {
                return None;
            }
            let (lag, effect) = self.whims();
            match effect {
                Some(WatchEffect::Ends) => return None,
                Some(WatchEffect::IsGone) => return Some(self.gone()),
                Some(WatchEffect::IsLate(delay)) => tokio::time::sleep(delay + lag).await,
                None if !lag.is_zero() => tokio::time::sleep(lag).await,
                None => {}
            }
            let events = self.events();
            if !events.is_empty() {
                return Some(events.concat().into());
            }
            tokio::select! {
                changed = self.versions.changed() => changed.ok()?,
                () = tokio::time::sleep_until(self.ends) => return None,
                () = tokio::time::sleep(BOOKMARK_EVERY) => {
                    if self.ask.option("allowWatchBookmarks") == "true" {
                        return Some(self.bookmark().into());
                    }
                }
            }
        }
        None
    }

    /// A watch that is too far behind is ended with an event that says so, whenever that turns out.
    fn gone(&mut self) -> Bytes {
        self.is_over = true;
        event("ERROR", &Refusal::gone().status()).into()
    }

    /// How late this watch is now, and what goes wrong; only where there is something to send.
    fn whims(&self) -> (Duration, Option<WatchEffect>) {
        let mut state = self.server.state();
        let is_operator = self.client.starts_with("operator");
        if !is_operator || !state.store.changes_after(self.sent).iter().any(|change| self.word(change).is_some()) {
            return (Duration::ZERO, None);
        }
        (state.lag, state.chaos.as_mut().and_then(Chaos::watch_effect))
    }

    fn events(&mut self) -> Vec<String> {
        let server = self.server.clone();
        let state = server.state();
        let events = state.store.changes_after(self.sent).iter().filter_map(|change| self.event_of(change)).collect();
        self.sent = state.store.version();
        events
    }

    fn event_of(&self, change: &Change) -> Option<String> {
        Some(event(self.word(change)?, &change.after))
    }

    /// What a change is to this watch: labels may bring an object into its view, or take it out.
    fn word(&self, change: &Change) -> Option<&'static str> {
        if change.key.plural != self.ask.key.plural {
            return None;
        }
        let was_there = change.before.as_ref().is_some_and(|before| self.ask.selects(before));
        let is_there = !change.is_deleted && self.ask.selects(&change.after);
        match (was_there, is_there) {
            (false, true) => Some("ADDED"),
            (true, true) => Some("MODIFIED"),
            (true, false) => Some("DELETED"),
            (false, false) => None,
        }
    }

    fn bookmark(&self) -> String {
        let resource = self.ask.resource;
        let version = self.sent.to_string();
        let bookmark = json!({"apiVersion": resource.api_version(), "kind": resource.kind, "metadata": {"resourceVersion": version, "creationTimestamp": null}, "spec": {}});
        event("BOOKMARK", &bookmark)
    }
}

fn event(word: &str, object: &Value) -> String {
    format!("{}\n", json!({"type": word, "object": object}))
}
