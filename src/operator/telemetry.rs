//! Logging.

use tracing::Subscriber;
use tracing_subscriber::{
    EnvFilter, Layer, fmt::MakeWriter, layer::SubscriberExt, registry::LookupSpan, util::SubscriberInitExt,
};

use super::args::LogFormat;

/// The default filter. Below the level `error`, the kube client logs objects that it cannot parse, with all that users wrote in them.
pub const DEFAULT_FILTER: &str = "info,kube=warn,kube_client=error,kube_runtime=error";

/// Logs to standard error. `RUST_LOG` overrides the default filter.
pub(super) fn init(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(DEFAULT_FILTER));
    let registry = tracing_subscriber::registry().with(filter);
    let result = match format {
        LogFormat::Text => registry.with(tracing_subscriber::fmt::layer().with_writer(std::io::stderr)).try_init(),
        LogFormat::Json => registry.with(json(std::io::stderr)).try_init(),
    };
    if result.is_err() {
        tracing::debug!("logging is already set up");
    }
}

/// Logs as JSON: a line contains the fields of its event and, under `span`, the fields of its reconcile.
pub fn json<S, W>(writer: W) -> impl Layer<S>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
    W: for<'writer> MakeWriter<'writer> + Send + Sync + 'static,
{
    let layer = json_subscriber::fmt::layer().with_writer(writer);
    layer.flatten_event(true).with_current_span(true).with_span_list(false)
}
