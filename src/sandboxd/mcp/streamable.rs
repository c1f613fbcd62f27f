//! MCP over streamable HTTP: one path for everything.
//!
//! ```text
//! POST /mcp, initialize ──────► 200, the result as JSON or as an event; perhaps Mcp-Session-Id
//! POST /mcp, initialized ─────► 2xx
//! DELETE /mcp ────────────────► ends the session, if there is one and the server can do that
//! ```

use std::io::Read;
use std::time::Duration;

use ureq::Body;
use ureq::http::header::{ACCEPT, CONTENT_TYPE};
use ureq::http::{HeaderValue, Response, StatusCode};

use super::events::{Events, LINE};
use super::{
    Attempt, HandshakeError, InitializeResult, Reply, answer, content_type, described, failed, initialize, initialized,
    url,
};
use crate::protocol::init::Service;

/// The protocol version that is offered: the first with this transport. A server may answer with another version.
const VERSION: &str = "2025-03-26";

/// The header with the version that the server answered with.
const PROTOCOL_HEADER: &str = "mcp-protocol-version";

/// The header with the session that the server began.
const SESSION_HEADER: &str = "mcp-session-id";

/// The statuses that redirect a POST and leave it one.
const REDIRECTS: [StatusCode; 2] = [StatusCode::TEMPORARY_REDIRECT, StatusCode::PERMANENT_REDIRECT];

/// How long the end of a session may take, at least.
const END: Duration = Duration::from_secs(1);

/// Performs one handshake. However it goes, it leaves no session behind.
///
/// # Errors
/// Why the service is not ready.
pub fn connect(service: &Service) -> Result<(), HandshakeError> {
    let mut attempt = Attempt::at(service);
    let mut headers = vec![];
    let response = attempt.send_first(&REDIRECTS, |attempt| post(attempt, &[], &initialize(VERSION)))?;
    headers.extend(response.headers().get(SESSION_HEADER).map(|session| (SESSION_HEADER, session.clone())));
    let has_session = !headers.is_empty();
    let result = result(response).and_then(|result| {
        // All versions are dates.
        let version = result.protocol_version.filter(|version| version.len() == VERSION.len());
        headers.extend(version.and_then(|version| Some((PROTOCOL_HEADER, HeaderValue::from_str(&version).ok()?))));
        let status = post(&attempt, &headers, &initialized())?.status();
        if status.is_success() { Ok(()) } else { Err(HandshakeError::Refused(status.as_u16())) }
    });
    if has_session {
        end(&attempt, &headers);
    }
    result
}

type Headers = [(&'static str, HeaderValue)];

fn post(attempt: &Attempt, headers: &Headers, message: &str) -> Result<Response<Body>, HandshakeError> {
    let mut request = attempt.agent.post(url(&attempt.service)).header(CONTENT_TYPE, "application/json");
    request = request.header(ACCEPT, "application/json, text/event-stream");
    for (name, value) in headers {
        request = request.header(*name, value);
    }
    // The time limit includes reading the answer.
    let response = request.config().timeout_global(Some(attempt.left())).build().send(message);
    response.map_err(|error| failed(error, HandshakeError::Silent))
}

/// Reads the answer to the first message.
fn result(response: Response<Body>) -> Result<InitializeResult, HandshakeError> {
    let content_type = content_type(response.headers());
    let is_json = content_type.as_deref() == Some("application/json");
    match response.status() {
        status if status.is_success() => {}
        StatusCode::NOT_FOUND => return Err(HandshakeError::NotHere),
        status => {
            let has_method = !matches!(status, StatusCode::METHOD_NOT_ALLOWED | StatusCode::NOT_IMPLEMENTED);
            // The server may explain in a message why it refuses.
            let refusal = (has_method && is_json).then(|| read(response).ok()?.error).flatten();
            return Err(refusal.map_or(HandshakeError::Status(status.as_u16()), HandshakeError::from));
        }
    }
    match content_type.as_deref() {
        Some("text/event-stream") => answer(&mut Events::new(response.into_body().into_reader()), true),
        Some("application/json") => {
            let other = || HandshakeError::NotMcp("JSON of another kind".into());
            read(response)?.answer().ok_or_else(other)?
        }
        other => Err(HandshakeError::NotMcp(described(other))),
    }
}

/// Reads a message that is not longer than an event may be.
fn read(response: Response<Body>) -> Result<Reply, HandshakeError> {
    let mut text = vec![];
    let longest = u64::try_from(LINE).unwrap_or(u64::MAX);
    let read = response.into_body().into_reader().take(longest + 1).read_to_end(&mut text);
    read.map_err(|error| failed(error.into(), HandshakeError::NoAnswer))?;
    if text.len() > LINE {
        return Err(HandshakeError::TooMuch);
    }
    serde_json::from_slice(&text).map_err(|_| HandshakeError::NotMcp("JSON of another kind".into()))
}

/// Ends the session. A server that does not offer this answers with 405, and forgets the session in its own time.
fn end(attempt: &Attempt, headers: &Headers) {
    let mut request = attempt.agent.delete(url(&attempt.service));
    for (name, value) in headers {
        request = request.header(*name, value);
    }
    let _ = request.config().timeout_global(Some(attempt.left().max(END))).build().call();
}
