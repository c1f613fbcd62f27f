//! HTTP as this program speaks it: one request to one host, in the clear, within a time, and nothing that a server could use to lead
//! it elsewhere or to make it grow.

use std::io;
use std::time::Duration;

use ureq::{Agent, Error, Timeout};

/// How long a connection may take. The framework's own limit.
const CONNECT: Duration = Duration::from_secs(5);

/// How long the head of an answer may be. Less than the buffer that it is read into, or a longer one would be taken for no answer.
const HEAD: usize = 12 * 1024;

const BUFFER: usize = 16 * 1024;

/// How much of what a stranger says is told.
const BRIEF: usize = 200;

/// Who asks. Neither a proxy of the environment nor a redirect is followed: what is asked for is the host that is named, and no
/// other; a sandbox's `HTTP_PROXY` is meant for the internet.
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
    // The address of an IPv6 host has brackets in a URL.
    let (open, close) = if host.contains(':') && !host.starts_with('[') { ("[", "]") } else { ("", "") };
    format!("http://{open}{host}{close}:{port}")
}

/// Why there is no answer, in words that follow a colon. `late` is said when the time is over.
pub fn words(error: Error, late: impl FnOnce() -> String) -> String {
    match error {
        Error::Timeout(Timeout::Connect) => format!("no connection within {} s", CONNECT.as_secs()),
        Error::Timeout(Timeout::Resolve) => format!("its host name is not found within {} s", CONNECT.as_secs()),
        Error::Timeout(_) => late(),
        Error::HostNotFound => "its host name is not known".into(),
        Error::Io(error) => io_words(&error),
        Error::Protocol(_) | Error::LargeResponseHeader(..) => "does not speak HTTP".into(),
        Error::BadUri(_) | Error::Http(_) => "its address is not one".into(),
        other => brief(&other.to_string()),
    }
}

/// The same for what the system says.
pub fn io_words(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::ConnectionRefused => "connection refused".into(),
        io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted | io::ErrorKind::BrokenPipe => {
            "the connection was broken off".into()
        }
        io::ErrorKind::UnexpectedEof => "the connection was closed".into(),
        io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable => "its host is out of reach".into(),
        io::ErrorKind::TimedOut => format!("no connection within {} s", CONNECT.as_secs()),
        // Its text names what could not be looked up, and why.
        _ => brief(&error.to_string()),
    }
}

/// What a stranger says, in one line of bearable length.
pub fn brief(text: &str) -> String {
    let line: String = text.trim().chars().take(BRIEF).map(|c| if c.is_control() { ' ' } else { c }).collect();
    if text.trim().chars().nth(BRIEF).is_some() { format!("{line}…") } else { line }
}

/// A time in seconds; a part of one counts as a whole one.
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
