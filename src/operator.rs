//! The operator's process: its arguments, what it waits for at the start, its probes and metrics, and how it ends.

pub mod args;
mod client;
pub mod config;
mod helper;
mod ready;
pub mod self_test;
mod server;
pub mod telemetry;

use std::sync::Arc;

use futures::FutureExt;
use kube::Client;
use tokio::sync::watch;
use tracing::info;

use self::{args::RunArgs, server::Heartbeat};
use crate::{
    controllers::{
        self, Start, Stop,
        cache::{Caches, Scope},
        metrics::Metrics,
    },
    plan::{CacheLimits, Settings},
};

/// Why the process ended.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The environment does not configure a cluster.
    #[error("no Kubernetes cluster is configured: set KUBECONFIG, or run in a Pod with a service account")]
    Configure(#[source] kube::Error),
    /// The port for probes or the port for metrics could not be opened.
    #[error("listening on {address} failed")]
    Listen {
        /// The address.
        address: std::net::SocketAddr,
        /// The error of the operating system.
        #[source]
        source: std::io::Error,
    },
    /// Probes and metrics could not be served.
    #[error("serving probes and metrics failed")]
    Serve(#[source] std::io::Error),
    /// The signal handlers could not be installed.
    #[error("listening for signals failed")]
    Signals(#[source] std::io::Error),
    /// The server for probes and metrics ended, although it should run for ever.
    #[error("the server for probes and metrics ended unexpectedly")]
    ServerEnded,
    /// The controllers ended, although the process was not asked to stop.
    #[error(transparent)]
    ControllersEnded(#[from] controllers::Ended),
}

/// Runs the operator until the process is asked to stop.
///
/// # Errors
/// When the operator cannot start, or a part that should run for ever has ended.
pub async fn run(args: RunArgs) -> Result<(), Error> {
    telemetry::init(args.log_format);
    let client = client::new().await?;
    let metrics = Arc::new(Metrics::default());
    let (filled, is_filled) = watch::channel(None);
    let stopped = stop_signal()?;

    let heartbeat = Heartbeat::new();
    let serving = server::serve(args.probes_listen, args.listen, is_filled, metrics.clone(), heartbeat.clone())?;
    tokio::spawn(heartbeat.run());
    let controlling = control(args, client, metrics, filled, stopped.clone());
    tokio::select! {
        result = serving => result.unwrap_or(Ok(())).and(Err(Error::ServerEnded)),
        result = controlling => result,
    }
}

async fn control(
    args: RunArgs,
    client: Client,
    metrics: Arc<Metrics>,
    filled: watch::Sender<Option<Arc<Caches>>>,
    stopped: Stop,
) -> Result<(), Error> {
    let scope = Scope::of(args.watch_namespaces);
    let detect = async {
        ready::wait_for_crds(&client, &scope).await;
        helper::image_volumes(&client, args.image_volumes, args.helper_mount).await
    };
    let image_volumes = tokio::select! {
        image_volumes = detect => image_volumes,
        () = stopped.clone() => return Ok(()),
    };
    let settings = Settings {
        helper_image: args.helper_image,
        helper_mount: helper::mount(args.helper_mount, image_volumes),
        helper_resources: args.helper_resources,
        image_volumes,
        allow_privileged_templates: args.allow_privileged_templates,
        allow_runner_exec: args.allow_runner_exec,
        cluster_ranges: args.cluster_ranges,
        volume_layout: args.volume_layout,
        cache_limits: CacheLimits { max_entries: args.cache_max_entries, max_bytes: args.cache_max_bytes },
    };
    info!(version = env!("CARGO_PKG_VERSION"), watching = %scope, ?settings, "the operator starts");

    let start = Start {
        client,
        settings: Arc::new(settings),
        scope,
        metrics,
        instance: args.instance,
        concurrency: args.concurrency,
        clock: controllers::wall_clock(),
    };
    Ok(controllers::run_all(start, filled, stopped).await?)
}

/// Resolves when the process receives SIGTERM or SIGINT. All clones resolve.
fn stop_signal() -> Result<Stop, Error> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate()).map_err(Error::Signals)?;
    let mut interrupt = signal(SignalKind::interrupt()).map_err(Error::Signals)?;
    let signalled = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        info!("received a signal to stop");
    };
    Ok(signalled.boxed().shared())
}
