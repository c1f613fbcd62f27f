//! The handshake with an MCP server over SSE. A server counts as ready only when it has answered a handshake: an open port, or a
//! page that responds, does not prove that the server is ready.
//!
//! ```text
//! GET /sse ───────────────────────► 200, text/event-stream, which stays open
//!      ◄─────────────────────────── event endpoint: /messages/?session_id=…
//! POST endpoint, initialize ──────► 2xx
//!      ◄─────────────────────────── event message: the result
//! POST endpoint, initialized ─────► 2xx, then the connection is closed
//! ```
//!
//! Decided in docs/adr/0013-by-hand-although-a-library-is-near.md.

use std::io;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use thiserror::Error;
use ureq::Agent;
use ureq::http::Uri;
use ureq::http::header::{ACCEPT, CONTENT_TYPE};

use self::events::{Ended, Events};
use super::http;
use crate::protocol::init::Service;

mod events;

/// How long one attempt may take. This is the framework's own limit.
pub const LIMIT: Duration = Duration::from_secs(10);

/// The protocol version that is offered: that of MCP over SSE. A server may answer with another version.
const VERSION: &str = "2024-11-05";

/// The ID of the only request.
const ID: u64 = 1;

/// The maximum length of an address.
const LONGEST: usize = 2048;

/// Why a service is not ready, as text that follows a colon.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum HandshakeError {
    #[error("{0}")]
    Unreachable(String),
    #[error("does not exist at this path (404)")]
    NotHere,
    #[error("answers with status {0}")]
    Status(u16),
    #[error("does not speak SSE ({0})")]
    NotSse(String),
    #[error("did not answer within {0} s")]
    Silent(u128),
    #[error("sent no endpoint within {0} s")]
    NoEndpoint(u128),
    #[error("sent an endpoint that is not on its own host: {0}")]
    Elsewhere(String),
    #[error("did not answer the handshake within {0} s")]
    NoAnswer(u128),
    #[error("answers the handshake with status {0}")]
    Refused(u16),
    #[error("refused the handshake: {0}")]
    Error(String),
    #[error("ended its stream in the middle of the handshake")]
    Over,
    #[error("sends more data than a handshake needs")]
    TooMuch,
}

/// The URL of a service.
pub fn url(service: &Service) -> String {
    format!("{}{}", http::origin(&service.host, service.port), service.path)
}

/// Performs one handshake with a service.
///
/// # Errors
/// Why the service is not ready.
pub fn connect(service: &Service, limit: Duration) -> Result<(), HandshakeError> {
    let session =
        Session { agent: http::agent(), service, deadline: Instant::now() + limit, limit: http::seconds(limit) };
    let mut events = session.open()?;
    let endpoint = session.endpoint(&mut events)?;
    let version = env!("CARGO_PKG_VERSION");
    session.post(
        &endpoint,
        &json!({"jsonrpc": "2.0", "id": ID, "method": "initialize", "params": {
            "protocolVersion": VERSION, "capabilities": {}, "clientInfo": {"name": "aigise-sandboxd", "version": version},
        }}),
    )?;
    session.answer(&mut events)?;
    session.post(&endpoint, &json!({"jsonrpc": "2.0", "method": "notifications/initialized"}))
}

/// One handshake.
struct Session<'a> {
    agent: Agent,
    service: &'a Service,
    deadline: Instant,
    /// The time limit in seconds, for messages.
    limit: u128,
}

impl Session<'_> {
    /// Opens the stream.
    fn open(&self) -> Result<Events<impl io::Read + use<>>, HandshakeError> {
        let request = self.agent.get(url(self.service)).header(ACCEPT, "text/event-stream");
        // The time limit includes reading the stream.
        let response = request.config().timeout_global(Some(self.left())).build().call();
        let response = response.map_err(|error| self.unreachable(error, HandshakeError::Silent))?;
        match response.status().as_u16() {
            200 => {}
            404 => return Err(HandshakeError::NotHere),
            status => return Err(HandshakeError::Status(status)),
        }
        let content_type = response.headers().get(CONTENT_TYPE).and_then(|value| value.to_str().ok());
        let is_sse =
            |kind: &str| kind.split(';').next().unwrap_or(kind).trim().eq_ignore_ascii_case("text/event-stream");
        match content_type {
            Some(kind) if is_sse(kind) => Ok(Events::new(response.into_body().into_reader())),
            Some(kind) => Err(HandshakeError::NotSse(format!("content type {}", http::brief(kind)))),
            None => Err(HandshakeError::NotSse("no content type".into())),
        }
    }

    /// Waits for the address that messages are sent to.
    fn endpoint(&self, events: &mut Events<impl io::Read>) -> Result<String, HandshakeError> {
        loop {
            let event = events.next().map_err(|ended| self.ended(ended, HandshakeError::NoEndpoint))?;
            if event.name == "endpoint" {
                let endpoint = resolve(self.service, event.data.trim());
                return endpoint.ok_or_else(|| HandshakeError::Elsewhere(http::brief(&event.data)));
            }
        }
    }

    fn post(&self, endpoint: &str, message: &Value) -> Result<(), HandshakeError> {
        let request = self.agent.post(endpoint).header(CONTENT_TYPE, "application/json");
        let response = request.config().timeout_global(Some(self.left())).build().send(message.to_string());
        let status = response.map_err(|error| self.unreachable(error, HandshakeError::NoAnswer))?.status();
        if status.is_success() { Ok(()) } else { Err(HandshakeError::Refused(status.as_u16())) }
    }

    /// Waits for the answer to [`ID`].
    fn answer(&self, events: &mut Events<impl io::Read>) -> Result<(), HandshakeError> {
        loop {
            let event = events.next().map_err(|ended| self.ended(ended, HandshakeError::NoAnswer))?;
            // A server may send notifications and requests of its own before it answers.
            let Ok(reply) = serde_json::from_str::<Reply>(&event.data) else { continue };
            if event.name != "message" || reply.method.is_some() || reply.id != Some(ID.into()) {
                continue;
            }
            match (reply.result, reply.error) {
                (Some(_), None) => return Ok(()),
                (_, Some(error)) => return Err(HandshakeError::Error(http::brief(&error.message))),
                (None, None) => {}
            }
        }
    }

    fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    fn unreachable(&self, error: ureq::Error, late: fn(u128) -> HandshakeError) -> HandshakeError {
        HandshakeError::Unreachable(http::words(error, || late(self.limit).to_string()))
    }

    fn ended(&self, ended: Ended, late: fn(u128) -> HandshakeError) -> HandshakeError {
        match ended {
            Ended::Over => HandshakeError::Over,
            Ended::TooMuch => HandshakeError::TooMuch,
            Ended::Read(error) => self.unreachable(error.into(), late),
        }
    }
}

/// A message from a server.
#[derive(Deserialize)]
struct Reply {
    id: Option<Value>,
    method: Option<IgnoredAny>,
    result: Option<IgnoredAny>,
    error: Option<Refusal>,
}

#[derive(Deserialize)]
struct Refusal {
    #[serde(default)]
    message: String,
}

/// The address of an endpoint, resolved against the address of the stream; `None` if the endpoint is on another host. A server that
/// may name another host could make this program send a message from inside the sandbox to any address.
fn resolve(service: &Service, endpoint: &str) -> Option<String> {
    if endpoint.is_empty() || endpoint.len() > LONGEST || !endpoint.bytes().all(|byte| byte.is_ascii_graphic()) {
        return None;
    }
    let origin = http::origin(&service.host, service.port);
    let endpoint = endpoint.split('#').next().unwrap_or_default();
    let place = service.path.split(['?', '#']).next().unwrap_or_default();
    let before_path = endpoint.split(['/', '?']).next().unwrap_or_default();
    let path = if before_path.ends_with(':') {
        let uri: Uri = endpoint.parse().ok()?;
        let own: Uri = origin.parse().ok()?;
        let is_own = uri.scheme() == own.scheme()
            && uri.host().zip(own.host()).is_some_and(|(one, other)| one.eq_ignore_ascii_case(other))
            && uri.port_u16().unwrap_or(80) == service.port
            && !uri.authority()?.as_str().contains('@');
        uri.path_and_query().filter(|_| is_own)?.to_string()
    } else if endpoint.starts_with("//") {
        return None;
    } else if endpoint.starts_with('/') {
        endpoint.to_string()
    } else if endpoint.starts_with('?') {
        format!("{place}{endpoint}")
    } else {
        let folder = place.rfind('/').map_or("/", |at| &place[..=at]);
        format!("{folder}{endpoint}")
    };
    Some(format!("{origin}{path}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_taken_from_where_the_stream_is() {
        let service = Service { name: "gdb".into(), host: "gdb-mcp".into(), port: 1111, path: "/api/sse?x=1".into() };
        for (endpoint, expected) in [
            ("/messages/?session_id=1", "/messages/?session_id=1"),
            ("messages?id=/a:b", "/api/messages?id=/a:b"),
            ("?id=1", "/api/sse?id=1"),
            ("http://gdb-mcp:1111/m?a=1", "/m?a=1"),
            ("HTTP://GDB-MCP:1111", "/"),
            ("/m#part", "/m"),
            ("/m?to=http://evil/", "/m?to=http://evil/"),
        ] {
            assert_eq!(resolve(&service, endpoint), Some(format!("http://gdb-mcp:1111{expected}")), "{endpoint}");
        }
    }

    #[test]
    fn an_endpoint_of_somebody_else_is_none() {
        let service = Service { name: "gdb".into(), host: "gdb-mcp".into(), port: 1111, path: "/sse".into() };
        for endpoint in [
            "",
            "http://evil:1111/m",
            "http://gdb-mcp:1112/m",
            "http://gdb-mcp/m",
            "https://gdb-mcp:1111/m",
            "http://gdb-mcp:1111@evil/m",
            "http://me@gdb-mcp:1111/m",
            "//evil/m",
            "ftp://gdb-mcp:1111/m",
            "/with blank",
            "/with\nline",
        ] {
            assert_eq!(resolve(&service, endpoint), None, "{endpoint}");
        }
        assert_eq!(resolve(&service, &format!("/{}", "x".repeat(LONGEST))), None);
        let plain = Service { port: 80, ..service };
        assert_eq!(resolve(&plain, "http://gdb-mcp/m"), Some("http://gdb-mcp:80/m".into()));
    }
}
