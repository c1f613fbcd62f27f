//! MCP over SSE.
//!
//! ```text
//! GET /sse ───────────────────────► 200, text/event-stream, which stays open
//!      ◄─────────────────────────── event endpoint: /messages/?session_id=…
//! POST endpoint, initialize ──────► 2xx
//!      ◄─────────────────────────── event message: the result
//! POST endpoint, initialized ─────► 2xx, then the connection is closed
//! ```

use std::io;

use ureq::http::StatusCode;
use ureq::http::header::{ACCEPT, CONTENT_TYPE};

use super::events::Events;
use super::{
    Attempt, HandshakeError, address, answer, content_type, described, ended, failed, initialize, initialized, url,
    url_of,
};
use crate::protocol::init::Service;
use crate::sandboxd::http;

/// The protocol version that is offered: that of MCP over SSE. A server may answer with another version.
const VERSION: &str = "2024-11-05";

/// The statuses that redirect a GET.
const REDIRECTS: [StatusCode; 5] = [
    StatusCode::MOVED_PERMANENTLY,
    StatusCode::FOUND,
    StatusCode::SEE_OTHER,
    StatusCode::TEMPORARY_REDIRECT,
    StatusCode::PERMANENT_REDIRECT,
];

/// Performs one handshake.
///
/// # Errors
/// Why the service is not ready.
pub fn connect(service: &Service) -> Result<(), HandshakeError> {
    let mut attempt = Attempt::at(service);
    let mut events = open(&mut attempt)?;
    let endpoint = endpoint(&attempt.service, &mut events)?;
    post(&attempt, &endpoint, &initialize(VERSION))?;
    answer(&mut events, false)?;
    post(&attempt, &endpoint, &initialized())
}

/// Opens the stream.
fn open(attempt: &mut Attempt) -> Result<Events<impl io::Read + use<>>, HandshakeError> {
    let response = attempt.send_first(&REDIRECTS, |attempt| {
        let request = attempt.agent.get(url(&attempt.service)).header(ACCEPT, "text/event-stream");
        // The time limit includes reading the stream.
        let response = request.config().timeout_global(Some(attempt.left())).build().call();
        response.map_err(|error| failed(error, HandshakeError::Silent))
    })?;
    match response.status().as_u16() {
        200 => {}
        404 => return Err(HandshakeError::NotHere),
        status => return Err(HandshakeError::Status(status)),
    }
    match content_type(response.headers()).as_deref() {
        Some("text/event-stream") => Ok(Events::new(response.into_body().into_reader())),
        other => Err(HandshakeError::NotSse(described(other))),
    }
}

/// Waits for the URL that messages are sent to.
fn endpoint(service: &Service, events: &mut Events<impl io::Read>) -> Result<String, HandshakeError> {
    loop {
        let event = events.next().map_err(|end| ended(end, HandshakeError::NoEndpoint))?;
        if event.name == "endpoint" {
            let endpoint = address::resolve(service, event.data.trim()).map(|path| url_of(service, &path));
            return endpoint.ok_or_else(|| HandshakeError::Elsewhere(http::brief(&event.data)));
        }
    }
}

fn post(attempt: &Attempt, endpoint: &str, message: &str) -> Result<(), HandshakeError> {
    let request = attempt.agent.post(endpoint).header(CONTENT_TYPE, "application/json");
    let response = request.config().timeout_global(Some(attempt.left())).build().send(message);
    let status = response.map_err(|error| failed(error, HandshakeError::NoAnswer))?.status();
    if status.is_success() { Ok(()) } else { Err(HandshakeError::Refused(status.as_u16())) }
}
