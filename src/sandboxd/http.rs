//! The HTTP client of this program: one request to one host, in clear text, within a time limit. A server cannot lead the client to
//! another host or make it use much memory.

use std::io;
use std::time::Duration;

use ureq::{Agent, Error, Timeout};

/// How long connecting may take. This is the framework's own limit.
const CONNECT: Duration = Duration::from_secs(5);

/// The maximum length of a response's header. It is smaller than the input buffer; otherwise a longer header would not be
/// recognised as a response.
const HEAD: usize = 12 * 1024;

const BUFFER: usize = 16 * 1024;

/// How many characters of an untrusted text are shown.
const BRIEF: usize = 200;

/// The HTTP agent. It uses no proxy of the environment and follows no redirect: it only contacts the host that is named. A
/// sandbox's `HTTP_PROXY` is for the internet.
pub fn agent() -> Agent {
    Agent::config_builder()
        .proxy(None)
        .max_redirects(0)
        .http_status_as_error(false)
        .max_idle_connections(0)
        .timeout_resolve(Some(CONNECT))
        .timeout_connect(Some(CONNECT))
        .max_response_header_size(HEAD)
        .input_buffer_size(BUFFER)
        .output_buffer_size(BUFFER)
        .user_agent(concat!("aigise-sandboxd/", env!("CARGO_PKG_VERSION")))
        .build()
        .into()
}

/// The beginning of a URL.
pub fn origin(host: &str, port: u16) -> String {
    // An IPv6 address has brackets in a URL.
    let (open, close) = if host.contains(':') && !host.starts_with('[') { ("[", "]") } else { ("", "") };
    format!("http://{open}{host}{close}:{port}")
}

/// Why there is no response, as text that follows a colon; `None` if it did not arrive in time.
pub fn words(error: Error) -> Option<String> {
    Some(match error {
        Error::Timeout(Timeout::Connect) => format!("no connection within {} s", CONNECT.as_secs()),
        Error::Timeout(Timeout::Resolve) => format!("its host name was not resolved within {} s", CONNECT.as_secs()),
        Error::Timeout(_) => return None,
        Error::HostNotFound => "its host name cannot be resolved".into(),
        Error::Io(error) => io_words(&error),
        Error::Protocol(_) | Error::LargeResponseHeader(..) => "does not speak HTTP".into(),
        Error::BadUri(_) | Error::Http(_) => "its address is not valid".into(),
        other => brief(&other.to_string()),
    })
}

/// The text for an I/O error.
pub fn io_words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".into(),
        io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted | io::ErrorKind::BrokenPipe => {
            "the connection was reset".into()
        }
        io::ErrorKind::UnexpectedEof => "the connection was closed".into(),
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => "its host is unreachable".into(),
        io::ErrorKind::TimedOut => format!("no connection within {} s", CONNECT.as_secs()),
        // The text of the error names what could not be resolved, and why.
        _ => brief(&error.to_string()),
    }
}

/// An untrusted text, as one line of limited length.
pub fn brief(text: &str) -> String {
    let text = text.trim();
    let line = one_line(&text.chars().take(BRIEF).collect::<String>());
    if text.chars().nth(BRIEF).is_some() { format!("{line}…") } else { line }
}

/// An untrusted text, as one line that does nothing to a terminal.
pub fn one_line(text: &str) -> String {
    text.replace(char::is_control, " ")
}

/// A duration in seconds, rounded up.
pub fn seconds(time: Duration) -> u128 {
    time.as_millis().div_ceil(1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_strangers_say_stays_one_line() {
        assert_eq!(brief(" no\nway\u{1b}[2J "), "no way [2J");
        assert_eq!(brief(&"ü".repeat(1000)).chars().count(), BRIEF + 1);
    }

    #[test]
    fn an_address_is_written_with_brackets() {
        assert_eq!(origin("gdb-mcp", 1111), "http://gdb-mcp:1111");
        assert_eq!(origin("fd00::1", 80), "http://[fd00::1]:80");
    }
}
