//! Logs.

use tracing_subscriber::EnvFilter;

use super::args::LogFormat;

/// The client logs what it cannot read, with all that its users wrote.
const DEFAULT: &str = "info,kube=warn,kube_client=error,kube_runtime=error";

/// Logs go to standard error; `RUST_LOG` chooses what is logged.
pub(super) fn init(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new(DEFAULT));
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let result = match format {
        LogFormat::Text => builder.try_init(),
        LogFormat::Json => builder.json().flatten_event(true).with_current_span(false).try_init(),
    };
    if result.is_err() {
        tracing::debug!("somebody else set up the logs already");
    }
}
