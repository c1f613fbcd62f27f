//! `sandboxd ready`: the readiness probe of a sandbox with init work. Finished work stays finished, but a service may die later;
//! the sandbox is ready as long as all services answer and the sandbox's own probe succeeds.

use std::net::{TcpStream, ToSocketAddrs};
use std::process::ExitCode;
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use super::supervise::{end_of, work_of};
use super::{Places, log::Log, mask::Mask, run, say, sentence, services};
use crate::protocol::init::{Outcome, OwnProbe, Service, Step};
use crate::sandboxd::{http, mcp};

/// How long the whole probe may take: a little less than the ten seconds that the kubelet allows, so the probe can still report why
/// it failed.
const LIMIT: Duration = Duration::from_millis(9500);

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
    let deadline = Instant::now() + LIMIT;
    let work = work_of(&places.folder).map_err(|failure| sentence(&failure))?;
    if places.state().read().and_then(|progress| progress.outcome) != Some(Outcome::Succeeded) {
        return Err("the initialiser has not succeeded".into());
    }
    let mask = Mask::of(&work.secrets);
    if let Some(probe) = &work.probe {
        ask_probe(probe, deadline).map_err(|how| mask.apply(&format!("the readiness probe {how}")))?;
    }
    ask_services(&work.services, deadline).map_err(|line| mask.apply(&line))
}

/// Asks all services at the same time, and reports the first that is not ready.
fn ask_services(services: &[Service], deadline: Instant) -> Result<(), String> {
    let limit = deadline.saturating_duration_since(Instant::now());
    thread::scope(|scope| {
        let asked: Vec<_> = services.iter().map(|service| scope.spawn(move || mcp::connect(service, limit))).collect();
        for (service, asked) in services.iter().zip(asked) {
            let (title, url) = (services::title(service), mcp::url(service));
            let answer = asked.join().map_err(|_| format!("the {title} could not be asked"))?;
            answer.map_err(|absence| format!("the {title} is not ready: {absence} ({url})"))?;
        }
        Ok(())
    })
}

fn ask_probe(probe: &OwnProbe, deadline: Instant) -> Result<(), String> {
    match probe {
        OwnProbe::Exec { command } => exec(command, deadline),
        OwnProbe::Tcp { host, port } => tcp(host, *port, deadline),
        OwnProbe::Http { host, port, path, headers } => get(&http::origin(host, *port), path, headers, deadline),
    }
}

fn exec(command: &[String], deadline: Instant) -> Result<(), String> {
    let seconds = deadline.saturating_duration_since(Instant::now()).as_secs();
    let step = Step { command: command.to_vec(), timeout: Some(seconds), ..Step::default() };
    let log = Log::in_memory();
    run::run(&step, deadline, Duration::ZERO, &log).map_err(|failure| {
        let tail = end_of(&log.tail(), TAIL).replace(|c: char| c.is_control(), " ");
        if tail.is_empty() { failure.how } else { format!("{}: {tail}", failure.how) }
    })
}

fn tcp(host: &str, port: u16, deadline: Instant) -> Result<(), String> {
    let (sender, answers) = channel();
    let place = host.to_string();
    // Resolving a name has no time limit of its own.
    thread::spawn(move || sender.send(connect(&place, port, deadline)));
    let answer = answers.recv_timeout(deadline.saturating_duration_since(Instant::now()));
    let answer = answer.unwrap_or_else(|_| Err("no connection in time".into()));
    answer.map_err(|error| format!("cannot reach {host}:{port}: {error}"))
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
            Err(error) => last = Err(http::io_words(&error)),
        }
    }
    last
}

fn get(origin: &str, path: &str, headers: &[(String, String)], deadline: Instant) -> Result<(), String> {
    let url = format!("{origin}{path}");
    let limit = deadline.saturating_duration_since(Instant::now());
    let mut request = http::agent().get(&url);
    for (name, value) in headers {
        request = request.header(name, value);
    }
    let response = request.config().timeout_global(Some(limit)).build().call().map_err(|error| {
        let late = || format!("no answer within {} s", http::seconds(limit));
        format!("cannot reach {url}: {}", http::words(error, late))
    })?;
    // The kubelet accepts the same statuses. It follows a redirect within the host, and accepts a redirect to another host as an
    // answer.
    match response.status().as_u16() {
        200..=399 => Ok(()),
        status => Err(format!("got status {status} from {url}")),
    }
}
