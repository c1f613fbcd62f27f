//! An MCP server over SSE, played by threads of the test; and others that only look like one.

use std::collections::HashMap;
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
    /// Sends who asks to another place of its own.
    Redirects,
}

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
}

pub fn service(name: &str, port: u16) -> Service {
    Service { name: name.into(), host: "127.0.0.1".into(), port, path: "/sse".into() }
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
        let (first, length) = head(&mut reader)?;
        self.seen.lock().unwrap().push(first.clone());
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        if first.starts_with("GET") { self.open(id, stream) } else { self.take(&first, &body, stream) }
    }

    fn open(&self, id: u64, mut stream: TcpStream) -> std::io::Result<()> {
        const OPEN: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream; charset=utf-8\r\n\r\n";
        match self.manner {
            Manner::Status(status) => {
                return write!(stream, "HTTP/1.1 {status} X\r\nContent-Length: 4\r\n\r\noops");
            }
            Manner::Page => {
                let head = "HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 4\r\n\r\n";
                return write!(stream, "{head}page");
            }
            Manner::Untyped => return write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\npage"),
            Manner::Redirects => {
                return write!(stream, "HTTP/1.1 307 X\r\nLocation: /other\r\nContent-Length: 0\r\n\r\n");
            }
            Manner::LongLine => return flood(&mut stream, OPEN, &[b'x'; 4096]),
            Manner::Chatter => return flood(&mut stream, OPEN, &b": ping\n\n".repeat(100)),
            _ => stream.write_all(OPEN)?,
        }
        match self.manner {
            Manner::HangsUp => return Ok(()),
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

/// The first line of a request, and the length of what follows its head.
fn head(reader: &mut impl BufRead) -> std::io::Result<(String, usize)> {
    let mut first = String::new();
    reader.read_line(&mut first)?;
    let mut length = 0;
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 || line.trim().is_empty() {
            return Ok((first.trim().into(), length));
        }
        let line = line.to_ascii_lowercase();
        if let Some(value) = line.strip_prefix("content-length:") {
            length = value.trim().parse().unwrap();
        }
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
