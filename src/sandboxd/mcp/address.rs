//! The addresses that a server names: where messages are sent to, and where a request is redirected to. A server that could name
//! another host could make this program send a message from inside the sandbox to any address.

use ureq::http::Uri;

use crate::protocol::init::Service;
use crate::sandboxd::http;

/// The maximum length of an address.
const LONGEST: usize = 2048;

/// The path of an address, resolved against the service's own path; `None` if the address is on another host.
pub fn resolve(service: &Service, address: &str) -> Option<String> {
    if address.is_empty() || address.len() > LONGEST || !address.bytes().all(|byte| byte.is_ascii_graphic()) {
        return None;
    }
    let address = address.split('#').next().unwrap_or_default();
    let place = service.path.split(['?', '#']).next().unwrap_or_default();
    let before_path = address.split(['/', '?']).next().unwrap_or_default();
    if before_path.ends_with(':') {
        let uri: Uri = address.parse().ok()?;
        let own: Uri = http::origin(&service.host, service.port).parse().ok()?;
        let is_own = uri.scheme() == own.scheme()
            && uri.host().zip(own.host()).is_some_and(|(one, other)| one.eq_ignore_ascii_case(other))
            && uri.port_u16().unwrap_or(80) == service.port
            && !uri.authority()?.as_str().contains('@');
        Some(uri.path_and_query().filter(|_| is_own)?.to_string())
    } else if address.starts_with("//") {
        None
    } else if address.starts_with('/') {
        Some(address.to_string())
    } else if address.starts_with('?') {
        Some(format!("{place}{address}"))
    } else {
        let folder = place.rfind('/').map_or("/", |at| &place[..=at]);
        Some(format!("{folder}{address}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_resolved_against_the_path_of_the_service() {
        let service = Service {
            name: "gdb".into(),
            host: "gdb-mcp".into(),
            port: 1111,
            path: "/api/sse?x=1".into(),
            ..Service::default()
        };
        for (address, expected) in [
            ("/messages/?session_id=1", "/messages/?session_id=1"),
            ("messages?id=/a:b", "/api/messages?id=/a:b"),
            ("?id=1", "/api/sse?id=1"),
            ("http://gdb-mcp:1111/m?a=1", "/m?a=1"),
            ("HTTP://GDB-MCP:1111", "/"),
            ("/m#part", "/m"),
            ("/m?to=http://evil/", "/m?to=http://evil/"),
        ] {
            assert_eq!(resolve(&service, address), Some(expected.to_string()), "{address}");
        }
    }

    #[test]
    fn an_address_of_somebody_else_is_none() {
        let service = Service {
            name: "gdb".into(),
            host: "gdb-mcp".into(),
            port: 1111,
            path: "/sse".into(),
            ..Service::default()
        };
        for address in [
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
            assert_eq!(resolve(&service, address), None, "{address}");
        }
        assert_eq!(resolve(&service, &format!("/{}", "x".repeat(LONGEST))), None);
        let plain = Service { port: 80, ..service };
        assert_eq!(resolve(&plain, "http://gdb-mcp/m"), Some("/m".into()));
    }
}
