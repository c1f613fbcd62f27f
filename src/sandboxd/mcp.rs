//! The handshake with an MCP server. A server counts as ready only when it has answered a handshake: an open port, or a page that
//! responds, does not prove that the server is ready.
//!
//! There are two transports, [over SSE](sse) and [over streamable HTTP](streamable). A handshake is a whole session with the server, and
//! some servers have only one. So it is performed until it succeeds once, and never again.
//!
//! Decided in docs/adr/0013-by-hand-although-a-library-is-near.md and docs/adr/0015-one-handshake-then-the-port.md.

use std::io;
use std::time::{Duration, Instant};

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};
use thiserror::Error;
use ureq::http::header::{CONTENT_TYPE, LOCATION};
use ureq::http::{HeaderMap, Response, StatusCode};
use ureq::{Agent, Body};

use self::events::{Ended, Events};
use super::http;
use crate::protocol::init::{Service, Transport};

mod address;
mod events;
mod sse;
mod streamable;

/// How long one handshake may take. This is the framework's own limit.
const LIMIT: Duration = Duration::from_secs(10);

/// The ID of the only request.
const ID: u64 = 1;

/// Why a service is not ready, as text that follows a colon, or `it`.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum HandshakeError {
    #[error("{0}")]
    Unreachable(String),
    #[error("does not exist at this path (404)")]
    NotHere,
    #[error("answers with status {0}")]
    Status(u16),
    #[error("sends no event stream ({0})")]
    NotSse(String),
    #[error("sends no message of MCP ({0})")]
    NotMcp(String),
    #[error("did not answer within {0} s")]
    Silent(u128),
    #[error("sent no endpoint within {0} s")]
    NoEndpoint(u128),
    #[error("sent an endpoint that is not on its own host: {0}")]
    Elsewhere(String),
    #[error("redirects to an address that is not on its own host: {0}")]
    RedirectedElsewhere(String),
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
    #[error("over SSE it {sse}; over streamable HTTP it {http}")]
    Neither {
        /// Why there is no handshake over SSE.
        sse: Box<HandshakeError>,
        /// Why there is no handshake over streamable HTTP.
        http: Box<HandshakeError>,
    },
}

impl HandshakeError {
    /// Whether a server that only has the other transport would have answered like this.
    fn suggests_the_other_transport(&self) -> bool {
        match self {
            Self::NotHere | Self::NotSse(_) | Self::NotMcp(_) | Self::NoEndpoint(_) => true,
            // Bad request, method not allowed, not acceptable, unsupported media type, not implemented.
            Self::Status(status) => matches!(status, 400 | 405 | 406 | 415 | 501),
            Self::Unreachable(_)
            | Self::Silent(_)
            | Self::Elsewhere(_)
            | Self::RedirectedElsewhere(_)
            | Self::NoAnswer(_)
            | Self::Refused(_)
            | Self::Error(_)
            | Self::Over
            | Self::TooMuch
            | Self::Neither { .. } => false,
        }
    }
}

/// The URL of a service.
pub fn url(service: &Service) -> String {
    url_of(service, &service.path)
}

/// The URL of a path of a service.
fn url_of(service: &Service, path: &str) -> String {
    format!("{}{path}", http::origin(&service.host, service.port))
}

/// Performs one handshake with a service.
///
/// # Errors
/// Why the service is not ready.
pub fn connect(service: &Service) -> Result<(), HandshakeError> {
    match service.transport {
        Transport::Sse => sse::connect(service),
        Transport::Http => streamable::connect(service),
        Transport::Auto => over_either(service),
    }
}

/// Performs a handshake over the transport that the path suggests, and over the other one if the server does not seem to have the first.
///
/// The first request should do no harm if it is the wrong one. A GET makes some servers of streamable HTTP begin a session that they never
/// end (python-sdk #3059), and others open a stream that stays silent. A POST to the event stream of SSE is refused by most servers, but
/// some begin a session there whatever the method is. So the common path of each transport gets its own request first.
fn over_either(service: &Service) -> Result<(), HandshakeError> {
    let path = service.path.split(['?', '#']).next().unwrap_or_default();
    let http_first = path.trim_end_matches('/').ends_with("/mcp");
    let transports = if http_first { [streamable::connect, sse::connect] } else { [sse::connect, streamable::connect] };
    let [first, second] = transports;
    let first = match first(service) {
        Err(error) if error.suggests_the_other_transport() => error,
        // A server of SSE may hold a POST as it holds the GET of a stream.
        Err(error @ HandshakeError::Silent(_)) if http_first => error,
        done => return done,
    };
    let second = match second(service) {
        // The server is gone: its answer to the first request is out of date.
        Err(error @ HandshakeError::Unreachable(_)) => return Err(error),
        Err(error) => error,
        Ok(()) => return Ok(()),
    };
    let (sse, http) = if http_first { (second, first) } else { (first, second) };
    Err(HandshakeError::Neither { sse: Box::new(sse), http: Box::new(http) })
}

/// One handshake.
struct Attempt {
    agent: Agent,
    /// The service, with the path to which the server has redirected.
    service: Service,
    deadline: Instant,
}

impl Attempt {
    fn at(service: &Service) -> Self {
        Self { agent: http::agent(), service: service.clone(), deadline: Instant::now() + LIMIT }
    }

    fn left(&self) -> Duration {
        self.deadline.saturating_duration_since(Instant::now())
    }

    /// Sends the first request, and sends it again to where the server redirects it: many servers do so with `/mcp` and `/mcp/`. They
    /// may do so once, and only to a path of their own.
    fn send_first(
        &mut self,
        statuses: &[StatusCode],
        send: impl Fn(&Self) -> Result<Response<Body>, HandshakeError>,
    ) -> Result<Response<Body>, HandshakeError> {
        let response = send(self)?;
        if !statuses.contains(&response.status()) {
            return Ok(response);
        }
        let Some(location) = response.headers().get(LOCATION) else { return Ok(response) };
        let location = String::from_utf8_lossy(location.as_bytes());
        let path = address::resolve(&self.service, location.trim());
        self.service.path = path.ok_or_else(|| HandshakeError::RedirectedElsewhere(http::brief(&location)))?;
        send(self)
    }
}

/// Waits for the answer to [`ID`]. `is_posted`: the stream is the response to a POST, in which only a server of SSE names an endpoint.
fn answer(events: &mut Events<impl io::Read>, is_posted: bool) -> Result<InitializeResult, HandshakeError> {
    loop {
        let event = events.next().map_err(|end| ended(end, HandshakeError::NoAnswer))?;
        if is_posted && event.name == "endpoint" {
            return Err(HandshakeError::NotMcp("the event stream of SSE".into()));
        }
        // A server may send notifications and requests of its own before it answers.
        let Ok(reply) = serde_json::from_str::<Reply>(&event.data) else { continue };
        if event.name == "message"
            && let Some(answer) = reply.answer()
        {
            return answer;
        }
    }
}

/// The error for a request that failed; `late` is the error if it took too long.
fn failed(error: ureq::Error, late: fn(u128) -> HandshakeError) -> HandshakeError {
    http::words(error).map_or_else(|| late(http::seconds(LIMIT)), HandshakeError::Unreachable)
}

/// The error for a stream that ended; `late` is the error if it took too long.
fn ended(end: Ended, late: fn(u128) -> HandshakeError) -> HandshakeError {
    match end {
        Ended::Over => HandshakeError::Over,
        Ended::TooMuch => HandshakeError::TooMuch,
        Ended::Read(error) => failed(error.into(), late),
    }
}

/// The first message of a session.
fn initialize(version: &str) -> String {
    let client = json!({"name": "aigise-sandboxd", "version": env!("CARGO_PKG_VERSION")});
    let params = json!({"protocolVersion": version, "capabilities": {}, "clientInfo": client});
    json!({"jsonrpc": "2.0", "id": ID, "method": "initialize", "params": params}).to_string()
}

/// The message that ends the handshake.
fn initialized() -> String {
    json!({"jsonrpc": "2.0", "method": "notifications/initialized"}).to_string()
}

/// The content type of a response, in lower case and without parameters.
fn content_type(headers: &HeaderMap) -> Option<String> {
    let value = headers.get(CONTENT_TYPE)?.to_str().ok()?;
    Some(value.split(';').next().unwrap_or(value).trim().to_ascii_lowercase())
}

/// A content type in a message.
fn described(content_type: Option<&str>) -> String {
    content_type.map_or_else(|| "no content type".into(), |kind| format!("content type {}", http::brief(kind)))
}

/// A message from a server.
#[derive(Deserialize)]
struct Reply {
    id: Option<Value>,
    method: Option<IgnoredAny>,
    result: Option<InitializeResult>,
    error: Option<Refusal>,
}

/// The part of the answer that matters here.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
struct InitializeResult {
    protocol_version: Option<String>,
}

#[derive(Deserialize)]
struct Refusal {
    #[serde(default)]
    message: String,
}

impl Reply {
    /// What the server answered, if this message is the answer to [`ID`].
    fn answer(self) -> Option<Result<InitializeResult, HandshakeError>> {
        if self.method.is_some() || self.id != Some(ID.into()) {
            return None;
        }
        match (self.result, self.error) {
            (_, Some(error)) => Some(Err(error.into())),
            (Some(result), None) => Some(Ok(result)),
            (None, None) => None,
        }
    }
}

impl From<Refusal> for HandshakeError {
    fn from(refusal: Refusal) -> Self {
        Self::Error(http::brief(&refusal.message))
    }
}
