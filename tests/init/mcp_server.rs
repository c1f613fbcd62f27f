//! MCP servers, played by threads of the test; and others that only look like one.

use std::collections::{BTreeSet, HashMap};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use aigise_operator::protocol::init::Service;
use serde_json::{Value, json};

/// How it behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Manner {
    /// As it should.
    Polite,
    /// As it should, with more words than needed: comments, other events, a request of its own, an absolute endpoint.
    Talkative,
    /// Answers every request for a stream with this and a page.
    Status(u16),
    /// A page that is found.
    Page,
    /// A stream without type.
    Untyped,
    /// Something else than HTTP, without end and without a line.
    Garbage,
    /// A stream of one line without end.
    LongLine,
    /// A stream of comments without end.
    Chatter,
    /// A header without end.
    LongHeader,
    /// Takes the connection and says nothing.
    Mute,
    /// Opens the stream and says nothing.
    Silent,
    /// Opens the stream, and ends it.
    HangsUp,
    /// Names an endpoint on another port.
    Elsewhere(u16),
    /// Answers the handshake with an error of JSON-RPC.
    Refuses,
    /// Does not take messages.
    TakesNone,
    /// Takes the message and never answers it.
    NeverAnswers,
    /// Redirects a GET to this address.
    Redirects(&'static str),
    /// Is one of streamable HTTP at `/mcp/`, and redirects requests for `/mcp` to it.
    RedirectsToSlash,
    /// Opens its stream whatever the method is.
    OpensForPost,
    /// Does not answer a POST to the address of its stream.
    HoldsPost,
    /// Has one session: a newer one takes the place of the one before.
    OneSession,
    /// Speaks streamable HTTP, and nothing else.
    Http(Http),
}

/// How a server of streamable HTTP behaves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Http {
    /// Answers with JSON.
    Json,
    /// Answers with events, some of which are of no interest, and keeps the stream open.
    Events,
    /// Has no sessions, and opens a stream for every GET that stays silent.
    Stateless,
    /// Ends no session on request.
    KeepsSessions,
    /// Refuses with an error of JSON-RPC.
    Refuses,
    /// Accepts the first message and refuses the next.
    RefusesTheNext,
    /// Answers with JSON of another kind.
    OtherJson,
    /// Answers with JSON without end.
    LongJson,
    /// Does not answer the first message.
    NeverAnswers,
}

const JSON: &str = "Content-Type: application/json\r\n";

const OPEN: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n\r\n";

pub struct Server {
    address: SocketAddr,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
}

struct Shared {
    manner: Manner,
    port: u16,
    is_over: AtomicBool,
    /// Who listens, by session.
    streams: Mutex<HashMap<u64, TcpStream>>,
    /// The first line of every request, and of a message its method.
    seen: Mutex<Vec<String>>,
    /// The sessions over streamable HTTP that have not ended.
    sessions: Mutex<BTreeSet<String>>,
}

impl Server {
    pub fn start(manner: Manner) -> Self {
        Self::start_at(0, manner)
    }

    /// Opens at this port; 0: at any.
    pub fn start_at(port: u16, manner: Manner) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", port)).unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            manner,
            port: address.port(),
            is_over: AtomicBool::new(false),
            streams: Mutex::default(),
            seen: Mutex::default(),
            sessions: Mutex::default(),
        });
        let accepting = thread::spawn({
            let shared = shared.clone();
            move || {
                for (id, stream) in (0..).zip(listener.incoming()) {
                    if shared.is_over.load(Ordering::SeqCst) {
                        return;
                    }
                    let shared = shared.clone();
                    // Who asks may be gone before it is answered.
                    thread::spawn(move || stream.and_then(|stream| shared.serve(id, stream)));
                }
            }
        });
        Self { address, shared, accepting: Some(accepting) }
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    pub fn service(&self, name: &str) -> Service {
        service(name, self.port())
    }

    pub fn seen(&self) -> Vec<String> {
        self.shared.seen.lock().unwrap().clone()
    }

    /// How many sessions over streamable HTTP have not ended.
    pub fn sessions(&self) -> usize {
        self.shared.sessions.lock().unwrap().len()
    }

    /// Says something to everybody who listens.
    pub fn say(&self, event: &str) {
        for stream in self.shared.streams.lock().unwrap().values_mut() {
            let _ = write!(stream, "event: {event}\ndata: 1\n\n");
        }
    }
}

pub fn service(name: &str, port: u16) -> Service {
    Service { name: name.into(), host: "127.0.0.1".into(), port, path: "/sse".into(), ..Service::default() }
}

/// A port at which nobody listens.
pub fn closed_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        if let Some(accepting) = self.accepting.take() {
            accepting.join().unwrap();
        }
        self.shared.streams.lock().unwrap().clear();
    }
}

impl Shared {
    fn serve(&self, id: u64, mut stream: TcpStream) -> std::io::Result<()> {
        match self.manner {
            Manner::Mute => {
                self.hold(id, stream);
                return Ok(());
            }
            Manner::Garbage => return flood(&mut stream, b"", &[b'x'; 4096]),
            Manner::LongHeader => return flood(&mut stream, b"HTTP/1.1 200 OK\r\nx: ", &[b'x'; 4096]),
            _ => {}
        }
        let mut reader = BufReader::new(stream.try_clone()?);
        let (first, headers) = head(&mut reader)?;
        if first.is_empty() {
            return Ok(());
        }
        self.seen.lock().unwrap().push(first.clone());
        let mut body = vec![0; headers.get("content-length").map_or(0, |length| length.parse().unwrap())];
        reader.read_exact(&mut body)?;
        if let Manner::Http(manner) = self.manner {
            return self.serve_http(manner, id, &first, &headers, &body, stream);
        }
        let to_stream = !first.contains("/messages");
        match self.manner {
            Manner::Redirects(to) if first.starts_with("GET") && !first.contains(&format!("{to} ")) => {
                write!(stream, "HTTP/1.1 302 X\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n")
            }
            Manner::RedirectsToSlash if first.contains("/mcp ") => {
                let to = format!("http://127.0.0.1:{}/mcp/", self.port);
                write!(stream, "HTTP/1.1 307 X\r\nLocation: {to}\r\nContent-Length: 0\r\n\r\n")
            }
            Manner::RedirectsToSlash => {
                let first = first.replace("/mcp/", "/mcp");
                self.serve_http(Http::Json, id, &first, &headers, &body, stream)
            }
            Manner::HoldsPost if to_stream && first.starts_with("POST") => {
                self.hold(id, stream);
                Ok(())
            }
            Manner::OpensForPost if to_stream => self.open(id, stream),
            _ if first.starts_with("GET") => self.open(id, stream),
            _ => self.take(&first, &body, stream),
        }
    }

    fn open(&self, id: u64, mut stream: TcpStream) -> std::io::Result<()> {
        match self.manner {
            Manner::Status(status) => {
                return write!(stream, "HTTP/1.1 {status} X\r\nContent-Length: 4\r\n\r\noops");
            }
            Manner::Page => {
                let head = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 4\r\n\r\n";
                return write!(stream, "{head}page");
            }
            Manner::Untyped => return write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\npage"),
            Manner::LongLine => return flood(&mut stream, OPEN, &[b'x'; 4096]),
            Manner::Chatter => return flood(&mut stream, OPEN, &b": ping\n\n".repeat(100)),
            _ => stream.write_all(OPEN)?,
        }
        match self.manner {
            Manner::HangsUp => return Ok(()),
            Manner::OneSession => {
                self.streams.lock().unwrap().clear();
                write!(stream, "event: endpoint\ndata: /messages?id={id}\n\n")?;
            }
            Manner::Silent => {}
            Manner::Elsewhere(port) => write!(stream, "event: endpoint\ndata: http://127.0.0.1:{port}/messages\n\n")?,
            Manner::Talkative => write!(
                stream,
                ": hello\r\n\r\nevent: ping\r\ndata: 1\r\n\r\nevent: endpoint\r\ndata: http://127.0.0.1:{}/messages?id={id}\r\n\r\n",
                self.port
            )?,
            _ => write!(stream, "event: endpoint\ndata: /messages?id={id}\n\n")?,
        }
        self.hold(id, stream);
        Ok(())
    }

    fn serve_http(
        &self,
        manner: Http,
        id: u64,
        first: &str,
        headers: &HashMap<String, String>,
        body: &[u8],
        mut stream: TcpStream,
    ) -> std::io::Result<()> {
        let mut answer = |status: &str, headers: &str, body: &str| {
            write!(stream, "HTTP/1.1 {status} X\r\n{headers}Content-Length: {}\r\n\r\n{body}", body.len())
        };
        let (verb, path) = first.split_once(' ').unwrap();
        if path != "/mcp HTTP/1.1" {
            return answer("404", "", "");
        }
        let of_session = headers.get("mcp-session-id").cloned();
        match verb {
            "GET" if manner == Http::Stateless => {
                stream.write_all(OPEN)?;
                self.hold(id, stream);
                return Ok(());
            }
            "POST" => {}
            "DELETE" if manner != Http::KeepsSessions => {
                let ended = self.sessions.lock().unwrap().remove(&of_session.unwrap());
                return answer(if ended { "200" } else { "404" }, "", "");
            }
            _ => return answer("405", "Allow: POST\r\n", ""),
        }
        assert_eq!(headers["accept"], "application/json, text/event-stream");
        assert_eq!(headers["content-type"], "application/json");
        let message: Value = serde_json::from_slice(body)?;
        self.seen.lock().unwrap().push(message["method"].as_str().unwrap().into());
        if message["method"] != "initialize" {
            let known = of_session.is_some_and(|session| self.sessions.lock().unwrap().contains(&session));
            assert_eq!(known, manner != Http::Stateless);
            assert_eq!(headers["mcp-protocol-version"], "2025-06-18");
            return answer(if manner == Http::RefusesTheNext { "500" } else { "202" }, "", "");
        }
        assert_eq!(message["params"]["protocolVersion"], "2025-03-26");
        if manner == Http::Refuses {
            let error = json!({"jsonrpc": "2.0", "id": null, "error": {"code": -32000, "message": "Not\ntoday"}});
            return answer("400", JSON, &error.to_string());
        }
        let session = if manner == Http::Stateless {
            String::new()
        } else {
            self.sessions.lock().unwrap().insert(format!("s-{id}"));
            format!("Mcp-Session-Id: s-{id}\r\n")
        };
        let reply = json!({"jsonrpc": "2.0", "id": message["id"], "result": {"protocolVersion": "2025-06-18"}});
        match manner {
            Http::Events => {
                write!(stream, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n{session}\r\nid: 1\ndata:\n\n")?;
                let note = json!({"jsonrpc": "2.0", "method": "notifications/message", "params": {}});
                write!(stream, ": ping\n\ndata: {note}\n\nevent: message\ndata: {reply}\n\n")?;
                self.hold(id, stream);
                Ok(())
            }
            Http::NeverAnswers => {
                write!(stream, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n{session}\r\n")?;
                self.hold(id, stream);
                Ok(())
            }
            Http::OtherJson => answer("200", &(session + JSON), "{\"status\": \"fine\"}"),
            Http::LongJson => {
                let head = format!("HTTP/1.1 200 OK\r\n{session}{JSON}\r\n");
                flood(&mut stream, head.as_bytes(), &[b' '; 4096])
            }
            _ => answer("200", &(session + JSON), &reply.to_string()),
        }
    }

    fn hold(&self, id: u64, stream: TcpStream) {
        self.streams.lock().unwrap().insert(id, stream);
    }

    fn take(&self, first: &str, body: &[u8], mut stream: TcpStream) -> std::io::Result<()> {
        if self.manner == Manner::TakesNone {
            return write!(stream, "HTTP/1.1 400 X\r\nContent-Length: 4\r\n\r\noops");
        }
        write!(stream, "HTTP/1.1 202 Accepted\r\nContent-Length: 8\r\n\r\nAccepted")?;
        let message: Value = serde_json::from_slice(body)?;
        assert_eq!(message["jsonrpc"], "2.0", "{message}");
        self.seen.lock().unwrap().push(message["method"].as_str().unwrap().into());
        let session: u64 = first.split(['=', ' ']).nth(2).and_then(|id| id.parse().ok()).unwrap_or_default();
        let mut streams = self.streams.lock().unwrap();
        let Some(to) = streams.get_mut(&session).filter(|_| message["id"].is_number()) else { return Ok(()) };
        let mut say = |data: Value| write!(to, "event: message\ndata: {data}\n\n");
        match self.manner {
            Manner::NeverAnswers => Ok(()),
            Manner::Refuses => {
                let error = json!({"code": -32602, "message": "Unsupported\nprotocol version"});
                say(json!({"jsonrpc": "2.0", "id": message["id"], "error": error}))
            }
            _ => {
                if self.manner == Manner::Talkative {
                    say(json!({"jsonrpc": "2.0", "method": "notifications/message", "params": {}}))?;
                    say(json!({"jsonrpc": "2.0", "id": message["id"], "method": "ping"}))?;
                    say(json!({"jsonrpc": "2.0", "id": 77, "result": {}}))?;
                    say(json!("a text"))?;
                }
                let version = &message["params"]["protocolVersion"];
                assert_eq!(version, "2024-11-05");
                say(json!({"jsonrpc": "2.0", "id": message["id"], "result": {"protocolVersion": version}}))
            }
        }
    }
}

/// The first line of a request, and its headers.
fn head(reader: &mut impl BufRead) -> std::io::Result<(String, HashMap<String, String>)> {
    let mut first = String::new();
    reader.read_line(&mut first)?;
    let mut headers = HashMap::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 || line.trim().is_empty() {
            return Ok((first.trim().into(), headers));
        }
        let (name, value) = line.split_once(':').unwrap();
        headers.insert(name.to_ascii_lowercase(), value.trim().to_string());
    }
}

/// Writes without end, until nobody takes it any more.
fn flood(stream: &mut TcpStream, first: &[u8], rest: &[u8]) -> std::io::Result<()> {
    stream.set_write_timeout(Some(Duration::from_secs(20)))?;
    stream.write_all(first)?;
    loop {
        stream.write_all(rest)?;
    }
}
