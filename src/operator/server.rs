//! Probes and metrics over HTTP.

use std::{net::SocketAddr, sync::Arc};

use axum::{Router, http::StatusCode, routing::get};
use tokio::{net::TcpListener, sync::watch};

use super::Error;
use crate::controllers::{cache::Caches, metrics::Metrics};

/// Opens the port, and gives the future that serves it: `/livez` (the process runs), `/readyz` (the caches are filled),
/// `/metrics`.
pub(super) async fn serve(
    address: SocketAddr,
    filled: watch::Receiver<Option<Arc<Caches>>>,
    metrics: Arc<Metrics>,
) -> Result<impl Future<Output = Result<(), Error>>, Error> {
    let listener = TcpListener::bind(address).await.map_err(|source| Error::Listen { address, source })?;
    let caches = filled.clone();
    let readyz = move || async move {
        if filled.borrow().is_some() {
            (StatusCode::OK, "ok")
        } else {
            (StatusCode::SERVICE_UNAVAILABLE, "the caches are not filled yet")
        }
    };
    let text = [("content-type", "application/openmetrics-text; version=1.0.0; charset=utf-8")];
    let router = Router::new()
        .route("/livez", get(|| async { "ok" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(move || async move { (text, metrics.text(caches.borrow().as_deref())) }));
    Ok(async move { axum::serve(listener, router).await.map_err(|source| Error::Listen { address, source }) })
}
