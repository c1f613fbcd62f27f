//! Logging.

use tracing_subscriber::{EnvFilter, layer::SubscriberExt, util::SubscriberInitExt};

use super::args::LogFormat;

/// The default filter. The client logs objects that it cannot decode, with everything that users wrote in them.
const DEFAULT: &str = "info,kube=warn,kube_client=error,kube_runtime=error";

/// Writes logs to standard error; `RUST_LOG` selects what is logged. As JSON, a line holds the fields of its event, and below
/// `span` those of the reconcile that it belongs to.
pub(super) fn init(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(DEFAULT));
    let registry = tracing_subscriber::registry().with(filter);
    let result = match format {
        LogFormat::Text => registry.with(tracing_subscriber::fmt::layer().with_writer(std::io::stderr)).try_init(),
        LogFormat::Json => {
            let layer = json_subscriber::fmt::layer().with_writer(std::io::stderr);
            registry.with(layer.flatten_event(true).with_current_span(true).with_span_list(false)).try_init()
        }
    };
    if result.is_err() {
        tracing::debug!("logging is already set up");
    }
}
