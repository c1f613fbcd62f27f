//! Probes and metrics over HTTP, on a thread of their own: whether the worker is alive is not for the worker to say.

use std::{
    net::{SocketAddr, TcpListener},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use axum::{Router, http::StatusCode, routing::get};
use tokio::sync::{oneshot, watch};

use super::Error;
use crate::controllers::{cache::Caches, metrics::Metrics};

/// How often the worker says that it is alive.
const BEAT: Duration = Duration::from_secs(1);

/// A worker that has not said so for this long is held up by something, and has to be started anew.
const STILL: Duration = Duration::from_secs(20);

/// When the worker last yielded.
#[derive(Clone, Debug)]
pub(super) struct Heartbeat(Arc<Mutex<Instant>>);

impl Heartbeat {
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }

    /// Runs beside all that the worker does, for as long as it yields.
    pub(super) async fn run(self) {
        loop {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
            tokio::time::sleep(BEAT).await;
        }
    }

    fn still_for(&self) -> Option<Duration> {
        let since = self.0.lock().unwrap_or_else(PoisonError::into_inner).elapsed();
        Some(since).filter(|since| *since > STILL)
    }
}

/// Opens the port, serves it on a thread of its own, and gives a future that resolves when that ends: `/livez` (the worker yields),
/// `/readyz` (the caches are filled, and no watch has failed for long), `/metrics`.
pub(super) fn serve(
    address: SocketAddr,
    filled: watch::Receiver<Option<Arc<Caches>>>,
    metrics: Arc<Metrics>,
    heartbeat: Heartbeat,
) -> Result<oneshot::Receiver<Result<(), Error>>, Error> {
    let failed = move |source| Error::Listen { address, source };
    let listener = TcpListener::bind(address).map_err(failed)?;
    listener.set_nonblocking(true).map_err(failed)?;
    let router = router(filled, metrics, heartbeat);
    let (ended, has_ended) = oneshot::channel();
    let serve = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async { axum::serve(tokio::net::TcpListener::from_std(listener)?, router).await })
    };
    let thread = std::thread::Builder::new().name("probes".into());
    thread.spawn(move || _ = ended.send(serve().map_err(failed))).map_err(failed)?;
    Ok(has_ended)
}

fn router(filled: watch::Receiver<Option<Arc<Caches>>>, metrics: Arc<Metrics>, heartbeat: Heartbeat) -> Router {
    let caches = filled.clone();
    let livez = move || async move {
        match heartbeat.still_for() {
            None => (StatusCode::OK, "ok".to_string()),
            Some(since) => {
                let message = format!("the worker has not yielded for {} s", since.as_secs());
                (StatusCode::SERVICE_UNAVAILABLE, message)
            }
        }
    };
    let readyz = move || async move {
        let Some(caches) = filled.borrow().clone() else {
            return (StatusCode::SERVICE_UNAVAILABLE, "the caches are not filled yet".to_string());
        };
        match caches.health.deaf_to().first() {
            None => (StatusCode::OK, "ok".to_string()),
            Some((kind, since)) => {
                let message = format!("the watch of {kind} has failed for {} s", since.as_secs());
                (StatusCode::SERVICE_UNAVAILABLE, message)
            }
        }
    };
    let text = [("content-type", "application/openmetrics-text; version=1.0.0; charset=utf-8")];
    Router::new()
        .route("/livez", get(livez))
        .route("/readyz", get(readyz))
        .route("/metrics", get(move || async move { (text, metrics.text(caches.borrow().as_deref())) }))
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::TcpStream,
    };

    use super::*;

    fn ask(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).unwrap();
        write!(stream, "GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        answer
    }

    #[test]
    fn probes_are_answered_while_the_worker_is_held_up_and_tell_it() {
        let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let heartbeat = Heartbeat::new();
        let (_filled, is_filled) = watch::channel(None);
        // Nobody drives this receiver, or anything else: there is no worker.
        let _serving = serve(free, is_filled, Arc::default(), heartbeat.clone()).unwrap();
        assert!(ask(free, "/livez").starts_with("HTTP/1.1 200"));
        assert!(ask(free, "/readyz").starts_with("HTTP/1.1 503"));
        assert!(ask(free, "/metrics").contains("# EOF"));
        *heartbeat.0.lock().unwrap() = Instant::now().checked_sub(STILL + BEAT).unwrap();
        let answer = ask(free, "/livez");
        assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("has not yielded for 21 s"), "{answer}");
    }
}
