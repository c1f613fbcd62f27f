//! Logging.

use tracing_subscriber::EnvFilter;

use super::args::LogFormat;

/// The default filter. Below the level `error`, the kube client logs objects that it cannot parse, with all that users wrote in them.
const DEFAULT: &str = "info,kube=warn,kube_client=error,kube_runtime=error";

/// Logs to standard error. `RUST_LOG` overrides the default filter.
pub(super) fn init(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(DEFAULT));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let result = match format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).with_current_span(false).try_init(),
    };
    if result.is_err() {
        tracing::debug!("logging is already set up");
    }
}
