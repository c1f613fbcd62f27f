//! Serves probes and metrics over HTTP, on a separate thread: a worker that is stuck could not answer its liveness probe. Probes and
//! metrics have separate ports. So the port of the metrics can be closed while the probes stay open, and the clients of one port do not
//! use up the connections of the other.

use std::{
    collections::VecDeque,
    io,
    net::{SocketAddr, TcpListener},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use axum::{Router, body::Bytes, http::StatusCode, routing::get, serve::Listener};
use futures::future;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    sync::{oneshot, watch},
    task::AbortHandle,
};

use super::Error;
use crate::controllers::{cache::Caches, metrics::Metrics};

/// The limits for the clients of a port.
const BOUNDS: Bounds = Bounds {
    head: Duration::from_secs(5),
    connection: Duration::from_secs(10),
    connections: 64,
    head_bytes: 16 * 1024,
};

/// How long the text of the metrics is reused before it is generated anew.
const FRESH: Duration = Duration::from_secs(1);

/// How often the worker reports that it is alive.
const BEAT: Duration = Duration::from_secs(1);

/// A worker that has not reported for this long is stuck, and has to be restarted.
const STILL: Duration = Duration::from_secs(20);

/// When the worker last yielded.
#[derive(Clone, Debug)]
pub(super) struct Heartbeat(Arc<Mutex<Instant>>);

impl Heartbeat {
    pub(super) fn new() -> Self {
        Self(Arc::new(Mutex::new(Instant::now())))
    }

    /// Runs concurrently with everything else on the worker, for as long as the worker yields.
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

/// Opens both ports and serves them on a separate thread: `/livez` (the worker yields) and `/readyz` (the caches are filled, and no watch
/// has been failing for long) on one port, `/metrics` on the other. Returns a future that resolves when the thread ends.
pub(super) fn serve(
    probes_at: SocketAddr,
    metrics_at: SocketAddr,
    filled: watch::Receiver<Option<Arc<Caches>>>,
    metrics: Arc<Metrics>,
    heartbeat: Heartbeat,
) -> Result<oneshot::Receiver<Result<(), Error>>, Error> {
    let caches = filled.clone();
    let text = move || metrics.text(caches.borrow().clone().as_deref());
    spawn(vec![
        Port::open(probes_at, probes(filled, heartbeat), BOUNDS)?,
        Port::open(metrics_at, scraped(text, Instant::now), BOUNDS)?,
    ])
}

fn spawn(ports: Vec<Port>) -> Result<oneshot::Receiver<Result<(), Error>>, Error> {
    let (ended, has_ended) = oneshot::channel();
    let serve = move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(future::try_join_all(ports.into_iter().map(Port::serve)))
    };
    let thread = std::thread::Builder::new().name("probes".into());
    thread.spawn(move || _ = ended.send(serve().map(drop).map_err(Error::Serve))).map_err(Error::Serve)?;
    Ok(has_ended)
}

fn probes(filled: watch::Receiver<Option<Arc<Caches>>>, heartbeat: Heartbeat) -> Router {
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
                let message = format!("the watch of {kind} has been failing for {} s", since.as_secs());
                (StatusCode::SERVICE_UNAVAILABLE, message)
            }
        }
    };
    Router::new().route("/livez", get(livez)).route("/readyz", get(readyz))
}

/// Serves the metrics. Their text is generated once in [`FRESH`], however often it is requested.
fn scraped(
    text: impl Fn() -> String + Send + Sync + 'static,
    clock: impl Fn() -> Instant + Send + Sync + 'static,
) -> Router {
    let last = Mutex::new(None::<(Instant, Bytes)>);
    let text = move || {
        let (now, mut last) = (clock(), last.lock().unwrap_or_else(PoisonError::into_inner));
        let fresh = last.take().filter(|(made, _)| now.duration_since(*made) < FRESH);
        last.insert(fresh.unwrap_or_else(|| (now, text().into()))).1.clone()
    };
    let (text, kind) =
        (Arc::new(text), [("content-type", "application/openmetrics-text; version=1.0.0; charset=utf-8")]);
    Router::new().route("/metrics", get(move || async move { (kind, text()) }))
}

/// The limits for the clients of a port.
#[derive(Clone, Copy)]
struct Bounds {
    /// How long a client may take to send the head of its request.
    head: Duration,
    /// How long a connection may last. A connection is for one request.
    connection: Duration,
    /// How many connections may be open at the same time.
    connections: usize,
    /// How many bytes the head of a request may have.
    head_bytes: usize,
}

/// An open port, and what it serves.
struct Port {
    listener: TcpListener,
    router: Router,
    bounds: Bounds,
}

impl Port {
    fn open(address: SocketAddr, router: Router, bounds: Bounds) -> Result<Self, Error> {
        let failed = move |source| Error::Listen { address, source };
        let listener = TcpListener::bind(address).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        Ok(Self { listener, router, bounds })
    }

    /// Serves the clients of the port. If all connections are in use, the oldest connection is closed: an answer takes less than a
    /// millisecond, so its client is not reading the answer. If new connections had to wait for old ones, a client that holds connections
    /// open would keep the kubelet from its probes.
    async fn serve(self) -> io::Result<()> {
        let Self { listener, router, bounds } = self;
        let mut listener = tokio::net::TcpListener::from_std(listener)?;
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new())
            .header_read_timeout(bounds.head)
            .max_buf_size(bounds.head_bytes)
            .keep_alive(false);
        let service = TowerToHyperService::new(router);
        let mut open = VecDeque::<AbortHandle>::new();
        loop {
            let (stream, _) = Listener::accept(&mut listener).await;
            open.retain(|connection| !connection.is_finished());
            if open.len() >= bounds.connections
                && let Some(oldest) = open.pop_front()
            {
                oldest.abort();
            }
            let connection = http.serve_connection(TokioIo::new(stream), service.clone());
            open.push_back(tokio::spawn(tokio::time::timeout(bounds.connection, connection)).abort_handle());
            // Open connections have their turn, however many clients wait to be accepted.
            tokio::task::yield_now().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{ErrorKind, Read, Write},
        net::{Ipv4Addr, TcpStream},
        sync::atomic::{AtomicUsize, Ordering},
    };

    use super::*;

    const NEVER: Duration = Duration::from_secs(3600);

    /// Limits that a test does not reach, unless the test lowers one of them.
    const WIDE: Bounds = Bounds { head: NEVER, connection: NEVER, ..BOUNDS };

    fn any_port() -> SocketAddr {
        (Ipv4Addr::LOCALHOST, 0).into()
    }

    /// Serves the router, and returns its address.
    fn start(router: Router, bounds: Bounds) -> SocketAddr {
        let port = Port::open(any_port(), router, bounds).unwrap();
        let address = port.listener.local_addr().unwrap();
        _ = spawn(vec![port]).unwrap();
        address
    }

    fn hello() -> Router {
        Router::new()
            .route("/hello", get(|| async { "hello" }))
            .route("/long", get(|| async { "a".repeat(1 << 20) + "end" }))
            .route("/never", get(future::pending::<&'static str>))
    }

    /// A client that sends this text and keeps the connection open.
    fn says(address: SocketAddr, what: &str) -> TcpStream {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
        stream.write_all(what.as_bytes()).unwrap();
        stream
    }

    /// All that a client receives until the server closes the connection.
    fn hears(mut stream: TcpStream) -> String {
        let mut answer = String::new();
        match stream.read_to_string(&mut answer) {
            Ok(_) => answer,
            Err(error) if error.kind() == ErrorKind::ConnectionReset => answer,
            Err(error) => panic!("still connected: {error}"),
        }
    }

    fn ask(address: SocketAddr, path: &str) -> String {
        hears(says(address, &format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n")))
    }

    /// The servers of an operator that has no worker. Returns the addresses of the probes and of the metrics.
    fn operator(heartbeat: &Heartbeat) -> (SocketAddr, SocketAddr) {
        let free = || TcpListener::bind(any_port()).unwrap();
        // Both listeners are held until both addresses are known: the addresses must differ.
        let (probes, metrics) = (free(), free());
        let (probes_at, metrics_at) = (probes.local_addr().unwrap(), metrics.local_addr().unwrap());
        drop((probes, metrics));
        let (_, is_filled) = watch::channel(None);
        _ = serve(probes_at, metrics_at, is_filled, Arc::default(), heartbeat.clone()).unwrap();
        (probes_at, metrics_at)
    }

    #[test]
    fn probes_are_answered_while_the_worker_is_held_up_and_report_it() {
        let heartbeat = Heartbeat::new();
        let (probes, metrics) = operator(&heartbeat);
        assert!(ask(probes, "/livez").starts_with("HTTP/1.1 200"));
        assert!(ask(probes, "/readyz").starts_with("HTTP/1.1 503"));
        assert!(ask(metrics, "/metrics").contains("# EOF"));
        *heartbeat.0.lock().unwrap() = Instant::now().checked_sub(STILL + BEAT).unwrap();
        let answer = ask(probes, "/livez");
        assert!(answer.starts_with("HTTP/1.1 503") && answer.contains("has not yielded for 21 s"), "{answer}");
    }

    #[test]
    fn each_port_has_what_is_its_own_and_nothing_else() {
        let (probes, metrics) = operator(&Heartbeat::new());
        for (port, path) in [(probes, "/metrics"), (metrics, "/livez"), (metrics, "/readyz")] {
            assert!(ask(port, path).starts_with("HTTP/1.1 404"), "{path}");
        }
    }

    #[test]
    fn who_holds_all_connections_keeps_nobody_from_the_probes_and_nobody_from_the_metrics() {
        let (probes, metrics) = operator(&Heartbeat::new());
        let hold = |port| (0..2 * BOUNDS.connections).map(move |_| says(port, "GET /")).collect::<Vec<_>>();
        let _of_metrics = hold(metrics);
        assert!(ask(probes, "/livez").starts_with("HTTP/1.1 200"));
        assert!(ask(metrics, "/metrics").starts_with("HTTP/1.1 200"));
        let _of_probes = hold(probes);
        assert!(ask(probes, "/livez").starts_with("HTTP/1.1 200"));
    }

    #[test]
    fn the_oldest_connection_is_closed_for_one_more_than_there_may_be() {
        let port = start(hello(), Bounds { connections: 2, ..WIDE });
        let [first, second, third] = [(); 3].map(|()| says(port, "GET /hello HTTP/1.1\r\n"));
        assert_eq!(hears(first), "");
        // The connection of a client that was answered is free for the next client.
        for _ in 0..3 {
            assert!(ask(port, "/hello").ends_with("hello"));
        }
        assert_eq!(hears(second), "");
        let mut third = third;
        third.write_all(b"Host: a\r\n\r\n").unwrap();
        assert!(hears(third).ends_with("hello"));
    }

    #[test]
    fn of_a_crowd_that_comes_at_once_everybody_is_answered() {
        let port = Port::open(any_port(), hello(), Bounds { connections: 8, ..WIDE }).unwrap();
        let address = port.listener.local_addr().unwrap();
        let crowd = [(); 100].map(|()| says(address, "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n"));
        _ = spawn(vec![port]).unwrap();
        assert_eq!(crowd.map(hears).iter().filter(|answer| answer.ends_with("hello")).count(), 100);
    }

    #[test]
    fn who_does_not_say_what_it_wants_is_dropped() {
        let port = start(hello(), Bounds { head: Duration::from_millis(50), ..WIDE });
        for half in ["", "GET /hello HTTP/1.1\r\nHost"] {
            assert_eq!(hears(says(port, half)), "", "{half}");
        }
        assert!(ask(port, "/hello").ends_with("hello"));
    }

    #[test]
    fn a_connection_ends_in_time_whatever_it_waits_for() {
        let port = start(hello(), Bounds { connection: Duration::from_millis(50), ..WIDE });
        assert_eq!(ask(port, "/never"), "");
        assert_eq!(hears(says(port, "GET /hello HTTP/1.1\r\nHost")), "");
    }

    #[test]
    fn a_connection_is_for_one_request_of_few_bytes() {
        let port = start(hello(), WIDE);
        let request = "GET /hello HTTP/1.1\r\nHost: a\r\n\r\n";
        assert_eq!(hears(says(port, &request.repeat(2))).matches("HTTP/1.1 200").count(), 1);
        let long = "a".repeat(2 * BOUNDS.head_bytes);
        assert!(!ask(port, &format!("/hello?{long}")).contains("HTTP/1.1 200"));
        assert!(ask(port, "/long").ends_with("aend"), "the answer may be longer");
    }

    #[test]
    fn the_text_of_the_metrics_is_made_once_a_second_however_often_it_is_asked_for() {
        let (made, now) = (Arc::new(AtomicUsize::new(0)), Arc::new(Mutex::new(Instant::now())));
        let (counter, clock) = (made.clone(), now.clone());
        let text = move || format!("made {}", counter.fetch_add(1, Ordering::Relaxed) + 1);
        let port = start(scraped(text, move || *clock.lock().unwrap()), WIDE);
        for second in 1..=2 {
            for _ in 0..100 {
                assert!(ask(port, "/metrics").ends_with(&format!("made {second}")));
                *now.lock().unwrap() += FRESH / 100;
            }
            assert_eq!(made.load(Ordering::Relaxed), second);
        }
    }
}
