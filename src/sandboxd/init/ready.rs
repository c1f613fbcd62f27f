//! `sandboxd ready`: the readiness probe of a sandbox with init work. Finished work stays finished, but a service may die later;
//! the sandbox is ready as long as all services accept connections and the sandbox's own probe succeeds.
//!
//! A service has answered a handshake when the work was done, and is not asked for another: a handshake is a session with the server,
//! which may have only one, and an agent may be using it. A connection disturbs nobody.
//!
//! Decided in docs/adr/0015-one-handshake-then-the-port.md.

use std::io::ErrorKind;
use std::net::{TcpStream, ToSocketAddrs};
use std::process::ExitCode;
use std::sync::mpsc::{Receiver, channel};
use std::thread;
use std::time::{Duration, Instant};

use super::supervise::{end_of, work_of};
use super::{Places, log::Log, mask::Mask, run, say, sentence, services};
use crate::protocol::init::{Outcome, OwnProbe, PROBE_TIMEOUT, Step};
use crate::sandboxd::{http, mcp};

/// How long a service may take to accept a connection, and the sandbox's own probe if it has no timeout of its own. The kubelet allows a
/// little more, so that the reason of a failure can still be reported.
const LIMIT: Duration = Duration::from_secs(PROBE_TIMEOUT as u64);

/// What is reported of a connection that took too long.
const LATE: &str = "no connection in time";

/// How many bytes of a command's last output are reported.
const TAIL: usize = 1024;

/// Reports in one line on stderr what is not ready.
pub fn ready(places: &Places) -> ExitCode {
    match ask(places) {
        Ok(()) => ExitCode::SUCCESS,
        Err(line) => {
            say(&line);
            ExitCode::FAILURE
        }
    }
}

fn ask(places: &Places) -> Result<(), String> {
    let work = work_of(&places.folder).map_err(|failure| sentence(&failure))?;
    if places.state().read().and_then(|progress| progress.outcome) != Some(Outcome::Succeeded) {
        return Err("the initialiser has not succeeded".into());
    }
    let mask = Mask::of(&work.secrets);
    let services: Vec<_> =
        work.services.iter().map(|service| Connecting::to(&service.host, service.port, LIMIT)).collect();
    if let Some(probe) = &work.probe {
        let limit = work.probe_timeout.map_or(LIMIT, Duration::from_secs);
        ask_probe(probe, limit).map_err(|how| mask.apply(&format!("the readiness probe {how}")))?;
    }
    for (service, connecting) in work.services.iter().zip(services) {
        let (title, url) = (services::title(service), mcp::url(service));
        let connected = connecting.wait();
        connected.map_err(|error| mask.apply(&format!("the {title} is not ready: {error} ({url})")))?;
    }
    Ok(())
}

fn ask_probe(probe: &OwnProbe, limit: Duration) -> Result<(), String> {
    match probe {
        OwnProbe::Exec { command } => exec(command, limit),
        OwnProbe::Tcp { host, port } => {
            let connected = Connecting::to(host, *port, limit).wait();
            connected.map_err(|error| format!("cannot reach {host}:{port}: {error}"))
        }
        OwnProbe::Http { host, port, path, headers } => get(&http::origin(host, *port), path, headers, limit),
    }
}

fn exec(command: &[String], limit: Duration) -> Result<(), String> {
    let step = Step { command: command.to_vec(), timeout: Some(limit.as_secs()), ..Step::default() };
    let log = Log::in_memory();
    // The step has the timeout; there is no other.
    let deadline = Instant::now() + limit + LIMIT;
    run::run(&step, deadline, Duration::ZERO, &log).map_err(|failure| {
        let tail = end_of(&log.tail(), TAIL).replace(|c: char| c.is_control(), " ");
        if tail.is_empty() { failure.how } else { format!("{}: {tail}", failure.how) }
    })
}

/// A connection that is being opened, only to be closed again.
struct Connecting {
    deadline: Instant,
    result: Receiver<Result<(), String>>,
}

impl Connecting {
    /// Begins to connect, in a thread of its own: resolving a name has no time limit.
    fn to(host: &str, port: u16, limit: Duration) -> Self {
        let deadline = Instant::now() + limit;
        let (sender, result) = channel();
        let host = host.to_string();
        thread::spawn(move || sender.send(connect(&host, port, deadline)));
        Self { deadline, result }
    }

    /// Waits for the connection.
    fn wait(self) -> Result<(), String> {
        let left = self.deadline.saturating_duration_since(Instant::now());
        self.result.recv_timeout(left).unwrap_or_else(|_| Err(LATE.into()))
    }
}

/// Tries the addresses one after the other.
fn connect(host: &str, port: u16, deadline: Instant) -> Result<(), String> {
    let addresses = (host, port).to_socket_addrs().map_err(|error| http::io_words(&error))?;
    let mut last = Err("its host name cannot be resolved".to_string());
    for address in addresses {
        // Zero would mean no limit.
        let left = deadline.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
        match TcpStream::connect_timeout(&address, left) {
            Ok(_) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::TimedOut => last = Err(LATE.into()),
            Err(error) => last = Err(http::io_words(&error)),
        }
    }
    last
}

fn get(origin: &str, path: &str, headers: &[(String, String)], limit: Duration) -> Result<(), String> {
    let url = format!("{origin}{path}");
    let mut request = http::agent().get(&url);
    for (name, value) in headers {
        request = request.header(name, value);
    }
    let response = request.config().timeout_global(Some(limit)).build().call().map_err(|error| {
        let how = http::words(error).unwrap_or_else(|| format!("no answer within {} s", http::seconds(limit)));
        format!("cannot reach {url}: {how}")
    })?;
    // The kubelet accepts the same statuses. It follows a redirect within the host, and accepts a redirect to another host as an
    // answer.
    match response.status().as_u16() {
        200..=399 => Ok(()),
        status => Err(format!("got status {status} from {url}")),
    }
}
