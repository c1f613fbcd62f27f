//! One watch of one kind: lists and events, from the API server into the cache.

use std::time::Duration;

use futures::{
    StreamExt,
    stream::{self, BoxStream, Stream},
};
use k8s_openapi::NamespaceResourceScope;
use kube::{
    Client, Resource,
    runtime::{
        WatchStreamExt,
        reflector::{ObjectRef, Store},
        watcher::{self, Event, watcher},
    },
};
use tracing::warn;

use super::{Change, Scope, intake::Intake};
use crate::controllers::reading::{Cached, Reading};

/// The longest time until a list that was refused is tried again.
const REFUSED_POLL: Duration = Duration::from_secs(60);

/// A page of a list is held as text and as objects at the same time. 500, the usual number, cost 4 MB more for 2,000 sandboxes
/// and were no faster.
const PAGE: u32 = 100;

pub(super) fn watch<K: Cached + Resource<Scope = NamespaceResourceScope>>(
    &(client, scope): &(&Client, &Scope),
    config: watcher::Config,
    tell: impl Fn(Change<'_, K>) + Send + 'static,
) -> (Store<K>, futures::future::BoxFuture<'static, ()>) {
    let (namespaces, apis): (Vec<_>, Vec<_>) = scope.apis::<Reading<K>>(client).into_iter().unzip();
    let mut intake = Intake::new(namespaces.clone());
    let store = intake.store();
    let events = apis.into_iter().enumerate().map(|(source, api)| -> BoxStream<'static, _> {
        patiently(watcher(api, config.clone().page_size(PAGE)))
            .default_backoff()
            .map(move |event| (source, event))
            .boxed()
    });
    let mut events = stream::select_all(events);
    let watching = async move {
        while let Some((source, event)) = events.next().await {
            match event {
                Ok(event) => {
                    if let Some(event) = readable(event, &intake.store()) {
                        intake.take_in(source, event, &tell);
                    }
                }
                Err(error) => {
                    let namespace = namespaces[source].as_deref();
                    warn!(kind = %K::kind(&()), namespace, error = words(&error), "watching failed; it is tried again");
                    // A namespace that is gone, and with it our role there, keeps nobody else waiting.
                    if namespace.is_some() && is_forbidden(&error) {
                        intake.is_refused(source);
                    }
                }
            }
        }
    };
    (store, Box::pin(watching))
}

/// What is refused is tried again less and less often. The runtime's backoff does not grow: it begins anew with each list.
fn patiently<K: Send + 'static>(
    events: impl Stream<Item = watcher::Result<Event<K>>> + Send,
) -> impl Stream<Item = watcher::Result<Event<K>>> + Send {
    let mut refusals = 0;
    events.then(move |event| {
        let mut pause = Duration::ZERO;
        match &event {
            Err(error) if is_forbidden(error) => {
                pause = Duration::from_secs(refusals * refusals).min(REFUSED_POLL);
                refusals += 1;
            }
            Ok(Event::InitDone) => refusals = 0,
            _ => {} // nothing that tells whether it may be listed
        }
        async move {
            // A sleep of no time takes up to a millisecond: of each object of a list.
            if !pause.is_zero() {
                tokio::time::sleep(pause).await;
            }
            event
        }
    })
}

fn is_forbidden(error: &watcher::Error) -> bool {
    matches!(error, watcher::Error::InitialListFailed(kube::Error::Api(status)) if status.is_forbidden())
}

/// The API server's own words, where the error is its answer.
fn words(error: &watcher::Error) -> String {
    use watcher::Error::{InitialListFailed, NoResourceVersion, WatchError, WatchFailed, WatchStartFailed};
    match error {
        InitialListFailed(kube::Error::Api(status))
        | WatchStartFailed(kube::Error::Api(status))
        | WatchFailed(kube::Error::Api(status))
        | WatchError(status) => status.message.clone(),
        InitialListFailed(_) | WatchStartFailed(_) | WatchFailed(_) | NoResourceVersion => error.to_string(),
    }
}

/// An event of an object that can be read. One that cannot (written by a newer version, or by hand) is as good as gone: it must
/// not keep the operator from all the others.
fn readable<K: Cached>(event: Event<Reading<K>>, cache: &Store<K>) -> Option<Event<K>> {
    let read = |reading: Reading<K>| {
        reading.0.map_err(|unreadable| {
            let name = unreadable.metadata.name.unwrap_or_default();
            let namespace = unreadable.metadata.namespace.unwrap_or_default();
            warn!(kind = %K::kind(&()), name, namespace, error = %unreadable.error, "an object cannot be read and is left alone");
            ObjectRef::new(&name).within(&namespace)
        })
    };
    match event {
        Event::Apply(object) => match read(object) {
            Ok(object) => Some(Event::Apply(object)),
            Err(unreadable) => cache.get(&unreadable).map(|object| Event::Delete(K::clone(&object))),
        },
        Event::Delete(object) => match read(object) {
            Ok(object) => Some(Event::Delete(object)),
            Err(unreadable) => cache.get(&unreadable).map(|object| Event::Delete(K::clone(&object))),
        },
        Event::InitApply(object) => read(object).ok().map(Event::InitApply),
        Event::Init => Some(Event::Init),
        Event::InitDone => Some(Event::InitDone),
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn what_is_not_refused_is_passed_on_without_a_pause() {
        let events = stream::iter((0..1000).map(|_| Ok(Event::InitApply(()))));
        assert_eq!(patiently(events).count().now_or_never(), Some(1000));
    }
}
