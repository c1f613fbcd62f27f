//! The process: what it is told, what it waits for, what it serves, and how it ends.

pub mod args;
mod helper;
mod ready;
mod server;
mod telemetry;

use std::{sync::Arc, time::Duration};

use futures::{FutureExt, channel::mpsc, future};
use kube::{
    Client,
    runtime::events::{Recorder, Reporter},
};
use tokio::sync::watch;
use tracing::{info, warn};

use self::args::RunArgs;
use crate::{
    api::meta,
    controllers::{
        Context, Shared,
        cache::{self, Caches, Triggers},
        metrics::Metrics,
        sandbox, session,
    },
    plan::Settings,
};

/// How long reconciles that have begun may take when the process is told to stop.
const DRAIN: Duration = Duration::from_secs(8);

/// Why the process ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No cluster could be found in the environment.
    #[error("no Kubernetes cluster is configured (KUBECONFIG, or a service account)")]
    Configure(#[source] kube::Error),
    /// The port for probes and metrics could not be opened.
    #[error("listening on {address} failed")]
    Listen {
        /// The address.
        address: std::net::SocketAddr,
        /// The system's words.
        #[source]
        source: std::io::Error,
    },
    /// Signals could not be listened for.
    #[error("listening for signals failed")]
    Signals(#[source] std::io::Error),
    /// A watch, or the server, ended by itself.
    #[error("{0} ended unexpectedly")]
    Ended(&'static str),
}

/// Runs the operator until it is told to stop.
///
/// # Errors
/// When it cannot start, or a part that never ends has ended.
pub async fn run(args: RunArgs) -> Result<(), Error> {
    telemetry::init(args.log_format);
    let client = Client::try_default().await.map_err(Error::Configure)?;
    let metrics = Arc::new(Metrics::default());
    let (filled, is_filled) = watch::channel(None);
    let stopped = stop_signal()?;

    let serving = server::serve(args.listen, is_filled, metrics.clone()).await?;
    tokio::pin!(serving);
    let controlling = control(args, client, metrics, filled, stopped.clone());
    tokio::select! {
        result = &mut serving => result.and(Err(Error::Ended("the server for probes and metrics"))),
        result = controlling => result,
    }
}

async fn control(
    args: RunArgs,
    client: Client,
    metrics: Arc<Metrics>,
    filled: watch::Sender<Option<Arc<Caches>>>,
    stopped: future::Shared<future::BoxFuture<'static, ()>>,
) -> Result<(), Error> {
    let helper_mount = tokio::select! {
        mount = async { ready::wait_for_crds(&client).await; helper::mount(&client, args.helper_mount).await } => mount,
        () = stopped.clone() => return Ok(()),
    };
    let settings = Settings { helper_image: args.helper_image, helper_mount };
    info!(version = env!("CARGO_PKG_VERSION"), ?settings, "the operator starts");

    let (sessions, session_triggers) = mpsc::unbounded();
    let (sandboxes, sandbox_triggers) = mpsc::unbounded();
    let (caches, watches) = cache::watch_all(&client, &Triggers { sessions, sandboxes });
    let caches = Arc::new(caches);
    let reporter = Reporter { controller: meta::MANAGER.into(), instance: args.instance };
    let recorder = Recorder::new(client.clone(), reporter);

    let (written_sessions, written_sandboxes) = (caches.written_sessions.clone(), caches.written_sandboxes.clone());
    let shared = Shared { client, caches: caches.clone(), settings, metrics, recorder };
    let session_context = Context::new("session", shared.clone(), caches.sessions.clone(), written_sessions);
    let sandbox_context = Context::new("sandbox", shared, caches.sandboxes.clone(), written_sandboxes);
    let controllers = async {
        let filled_in = tokio::select! {
            result = caches.synced() => result.is_ok(),
            () = stopped.clone() => false,
        };
        if !filled_in {
            return;
        }
        filled.send_replace(Some(caches.clone()));
        info!("the caches are filled");
        let session = session::run(Arc::new(session_context), session_triggers, args.concurrency, stopped.clone());
        let sandbox = sandbox::run(Arc::new(sandbox_context), sandbox_triggers, args.concurrency, stopped.clone());
        future::join(session, sandbox).await;
    };
    let too_long = async {
        stopped.clone().await;
        tokio::time::sleep(DRAIN).await;
    };
    tokio::select! {
        () = controllers => {}
        _ = future::select_all(watches) => return Err(Error::Ended("a watch")),
        () = too_long => warn!("reconciles took too long to end; they go on after the next start"),
    }
    if stopped.now_or_never().is_none() { Err(Error::Ended("the controllers")) } else { Ok(()) }
}

/// Resolves when the process is asked to end, for everybody who asks.
fn stop_signal() -> Result<future::Shared<future::BoxFuture<'static, ()>>, Error> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).map_err(Error::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Error::Signals)?;
    let signalled = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        info!("asked to stop");
    };
    Ok(signalled.boxed().shared())
}
