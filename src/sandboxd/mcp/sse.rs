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

use ureq::http::Uri;
use ureq::http::header::{ACCEPT, CONTENT_TYPE};

use super::events::Events;
use super::{Attempt, HandshakeError, answer, content_type, described, ended, failed, initialize, initialized, url};
use crate::protocol::init::Service;
use crate::sandboxd::http;

/// The protocol version that is offered: that of MCP over SSE. A server may answer with another version.
const VERSION: &str = "2024-11-05";

/// The maximum length of an address.
const LONGEST: usize = 2048;

/// Performs one handshake.
///
/// # Errors
/// Why the service is not ready.
pub fn connect(service: &Service) -> Result<(), HandshakeError> {
    let attempt = Attempt::at(service);
    let mut events = open(&attempt)?;
    let endpoint = endpoint(service, &mut events)?;
    post(&attempt, &endpoint, &initialize(VERSION))?;
    answer(&mut events)?;
    post(&attempt, &endpoint, &initialized())
}

/// Opens the stream.
fn open(attempt: &Attempt<'_>) -> Result<Events<impl io::Read + use<>>, HandshakeError> {
    let request = attempt.agent.get(url(attempt.service)).header(ACCEPT, "text/event-stream");
    // The time limit includes reading the stream.
    let response = request.config().timeout_global(Some(attempt.left())).build().call();
    let response = response.map_err(|error| failed(error, HandshakeError::Silent))?;
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

/// Waits for the address that messages are sent to.
fn endpoint(service: &Service, events: &mut Events<impl io::Read>) -> Result<String, HandshakeError> {
    loop {
        let event = events.next().map_err(|end| ended(end, HandshakeError::NoEndpoint))?;
        if event.name == "endpoint" {
            let endpoint = resolve(service, event.data.trim());
            return endpoint.ok_or_else(|| HandshakeError::Elsewhere(http::brief(&event.data)));
        }
    }
}

fn post(attempt: &Attempt<'_>, endpoint: &str, message: &str) -> Result<(), HandshakeError> {
    let request = attempt.agent.post(endpoint).header(CONTENT_TYPE, "application/json");
    let response = request.config().timeout_global(Some(attempt.left())).build().send(message);
    let status = response.map_err(|error| failed(error, HandshakeError::NoAnswer))?.status();
    if status.is_success() { Ok(()) } else { Err(HandshakeError::Refused(status.as_u16())) }
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
        let service = Service {
            name: "gdb".into(),
            host: "gdb-mcp".into(),
            port: 1111,
            path: "/api/sse?x=1".into(),
            ..Service::default()
        };
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
        let service = Service {
            name: "gdb".into(),
            host: "gdb-mcp".into(),
            port: 1111,
            path: "/sse".into(),
            ..Service::default()
        };
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
