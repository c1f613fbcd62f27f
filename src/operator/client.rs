//! The client of the API server. It is built like the default client of kube, except for how much each connection reads ahead.
//!
//! Decided in docs/adr/0006-small-dependencies.md.

use hyper_timeout::TimeoutConnector;
use hyper_util::{
    client::legacy::{Builder, connect::HttpConnector},
    rt::TokioExecutor,
};
use kube::{
    Client, Config,
    client::{ClientBuilder, ConfigExt, retry::RetryPolicy},
};
use tower::{BoxError, ServiceBuilder, retry::RetryLayer};

use super::Error;

/// The most bytes that a connection reads ahead. Seven kinds are listed at the same time. With the library's default of 400 KB, where a
/// buffer may be held twice, they would take 13 MB at every start.
const READ_AHEAD: usize = 64 * 1024;

/// Creates a client for the cluster that the environment configures.
pub(super) async fn new() -> Result<Client, Error> {
    let config = Config::infer().await.map_err(kube::Error::InferConfig).map_err(Error::Configure)?;
    of(config).map_err(Error::Configure)
}

fn of(config: Config) -> kube::Result<Client> {
    let mut connector = HttpConnector::new();
    connector.enforce_http(false);
    let mut connector = TimeoutConnector::new(config.rustls_https_connector_with_connector(connector)?);
    connector.set_connect_timeout(config.connect_timeout);
    connector.set_read_timeout(config.read_timeout);
    connector.set_write_timeout(config.write_timeout);
    connector.set_reset_reader_on_write(config.reset_reader_on_write);
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.default_retry.then(|| RetryLayer::new(RetryPolicy::server_retry())))
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .map_err(BoxError::from)
        .service(Builder::new(TokioExecutor::new()).http1_max_buf_size(READ_AHEAD).build(connector));
    Ok(ClientBuilder::new(service, config.default_namespace).build())
}
