//! Services: they answer a handshake before a sandbox is ready, and accept connections for as long as it is.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::{Duration, Instant};

use aigise_operator::protocol::init::{OwnProbe, Secrets, Service, Transport, Work};

use super::mcp_server::{Http, Manner, Server, closed_port, service};
use crate::{Ground, eventually, shell, work};

fn with_services(services: &[Service]) -> Work {
    Work { services: services.to_vec(), ..work(vec![]) }
}

/// Asks whether a sandbox is ready: the exit code, and what it says.
fn ready(ground: &Ground) -> (Option<i32>, String) {
    let began = Instant::now();
    let output = ground.sandboxd(&["ready"]).output().unwrap();
    assert!(began.elapsed() < Duration::from_secs(12), "{:?}", began.elapsed());
    assert!(output.stdout.is_empty());
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(said.lines().count(), usize::from(!output.status.success()), "{said}");
    (output.status.code(), said.trim_end().into())
}

fn status(ground: &Ground) -> String {
    String::from_utf8(ground.sandboxd(&["status"]).output().unwrap().stdout).unwrap()
}

#[test]
fn the_init_work_shakes_hands_with_every_service_after_the_steps() {
    let servers = [Server::start(Manner::Polite), Server::start(Manner::Talkative)];
    let services = [servers[0].service("gdb"), servers[1].service("pdb")];
    let ground = Ground::released(&Work { steps: vec![shell("one", "true")], ..with_services(&services) });
    assert!(ground.init().status.success());
    for server in &servers {
        let seen = server.seen();
        assert_eq!(seen[0], "GET /sse HTTP/1.1");
        assert_eq!((seen[2].as_str(), seen[4].as_str()), ("initialize", "notifications/initialized"), "{seen:?}");
    }
    let progress = ground.progress().unwrap();
    let names: Vec<_> = progress.steps.iter().map(|run| run.name.as_str()).collect();
    assert_eq!(names, ["one", "service gdb", "service pdb"]);
    assert!(progress.steps.iter().all(|run| run.ended.is_some() && run.error.is_none()), "{progress:?}");
    assert!(status(&ground).starts_with("The initialiser has succeeded."));
    assert_eq!(ready(&ground), (Some(0), String::new()));
}

#[test]
fn a_service_that_opens_late_is_waited_for_and_status_says_what_is_wrong_meanwhile() {
    let port = closed_port();
    let ground = Ground::released(&with_services(&[service("gdb", port)]));
    let mut init = ground.begin();
    eventually("it is asked", || status(&ground).contains("s so far: connection refused").then_some(()));
    assert!(status(&ground).contains("1. service gdb"), "{}", status(&ground));
    let server = Server::start_at(port, Manner::Polite);
    let opened = Instant::now();
    assert!(init.wait().unwrap().success());
    assert!(opened.elapsed() < Duration::from_secs(8), "{:?}", opened.elapsed());
    assert!(!status(&ground).contains("refused"), "{}", status(&ground));
    drop(server);
}

#[test]
fn a_service_that_never_answers_fails_the_work_with_what_was_wrong_last() {
    let server = Server::start(Manner::Polite);
    let port = closed_port();
    let services = [server.service("pdb"), service("gdb", port)];
    let ground = Ground::released(&Work { timeout: 2, ..with_services(&services) });
    let failure = ground.failure();
    assert_eq!(failure.step.as_deref(), Some("service gdb"));
    let (time, error) = failure.how.split_once(" s: ").unwrap();
    assert!(time.starts_with("did not answer for "), "{time}");
    assert_eq!(error, format!("connection refused (http://127.0.0.1:{port}/sse)"));
    let said = status(&ground);
    assert!(said.starts_with("The initialiser has failed: the service gdb did not answer"), "{said}");
}

#[test]
fn services_have_a_limit_of_their_own() {
    let services = [service("gdb", closed_port())];
    let ground = Ground::released(&Work { timeout: 600, service_timeout: Some(1), ..with_services(&services) });
    assert!(ground.failure().how.starts_with("did not answer for 1 s: connection refused"));
}

#[test]
fn a_service_that_says_nothing_at_all_does_not_block_the_init_work_longer_than_its_timeout() {
    let server = Server::start(Manner::Mute);
    let ground = Ground::released(&Work { timeout: 1, ..with_services(&[server.service("gdb")]) });
    let began = Instant::now();
    let how = ground.failure().how;
    assert!(how.starts_with("did not answer for "), "{how}");
    assert!(how.contains(" s (http://"), "nothing is known of it: {how}");
    assert!(began.elapsed() < Duration::from_secs(8), "{:?}", began.elapsed());
}

/// Why the init work fails over this service, whose address is at the end of the message.
fn failure_of(service: &Service, timeout: u64) -> String {
    let services = [service.clone()];
    let ground = Ground::released(&Work { service_timeout: Some(timeout), ..with_services(&services) });
    let how = ground.failure().how;
    let url = format!(" (http://127.0.0.1:{}{})", service.port, service.path);
    let error = how.strip_suffix(&url).and_then(|how| how.split_once(" s: ")).unwrap_or_else(|| panic!("{how}")).1;
    error.to_string()
}

/// Finds the expected errors of these servers, all at the same time.
fn assert_failures(cases: &[(Manner, &str)], service: impl Fn(&Server) -> Service + Sync, timeout: u64) {
    thread::scope(|scope| {
        for (manner, expected) in cases {
            let service = &service;
            scope.spawn(move || {
                let server = Server::start(*manner);
                assert_eq!(failure_of(&service(&server), timeout), *expected, "{manner:?}");
                assert!(server.sessions() <= 1, "only a handshake that the end of the work cut off leaves a session");
            });
        }
    });
}

fn over_sse(server: &Server) -> Service {
    Service { transport: Transport::Sse, ..server.service("gdb") }
}

fn at_mcp(server: &Server) -> Service {
    Service { path: "/mcp".into(), ..server.service("gdb") }
}

fn over_http(server: &Server) -> Service {
    Service { transport: Transport::Http, ..at_mcp(server) }
}

#[test]
fn what_only_looks_like_a_service_is_distinguished() {
    let cases = [
        (Manner::Status(500), "answers with status 500"),
        (Manner::Status(404), "does not exist at this path (404)"),
        (Manner::Status(204), "answers with status 204"),
        (Manner::Redirects("http://evil/sse"), "redirects to an address that is not on its own host: http://evil/sse"),
        (Manner::Redirects("/in/a/circle#"), "answers with status 302"),
        (Manner::Page, "sends no event stream (content type text/html)"),
        (Manner::Untyped, "sends no event stream (no content type)"),
        (Manner::Garbage, "does not speak HTTP"),
        (Manner::LongHeader, "does not speak HTTP"),
        (Manner::LongLine, "sends more data than a handshake needs"),
        (Manner::Chatter, "sends more data than a handshake needs"),
        (Manner::HangsUp, "ended its stream in the middle of the handshake"),
        (Manner::Refuses, "refused the handshake: Unsupported protocol version"),
        (Manner::TakesNone, "answers the handshake with status 400"),
    ];
    assert_failures(&cases, over_sse, 1);
}

#[test]
fn what_only_looks_like_a_service_over_streamable_http_is_distinguished() {
    let cases = [
        (Manner::Http(Http::Refuses), "refused the handshake: Not today"),
        (Manner::Http(Http::RefusesTheNext), "answers the handshake with status 500"),
        (Manner::Http(Http::OtherJson), "sends no message of MCP (JSON of another kind)"),
        (Manner::Http(Http::LongJson), "sends more data than a handshake needs"),
        (Manner::TakesNone, "answers with status 400"),
        (Manner::Polite, "sends no message of MCP (no content type)"),
        (Manner::Garbage, "does not speak HTTP"),
    ];
    assert_failures(&cases, over_http, 1);
}

#[test]
fn a_server_that_has_neither_transport_is_described_by_its_answer_over_each() {
    let cases = [
        (
            Manner::Status(405),
            "over SSE it answers with status 405; over streamable HTTP it sends no message of MCP (no content type)",
        ),
        (
            Manner::Http(Http::Json),
            "over SSE it does not exist at this path (404); over streamable HTTP it does not exist at this path (404)",
        ),
        // What is not about the transport is the same over the other one.
        (Manner::Status(500), "answers with status 500"),
        (Manner::Refuses, "refused the handshake: Unsupported protocol version"),
    ];
    assert_failures(&cases, |server| server.service("gdb"), 1);
    let cases = [
        (
            Manner::Page,
            "over SSE it sends no event stream (content type text/html); over streamable HTTP it sends no message of MCP (no content type)",
        ),
        (Manner::Http(Http::Refuses), "refused the handshake: Not today"),
    ];
    assert_failures(&cases, at_mcp, 1);
}

#[test]
fn who_keeps_a_handshake_waiting_is_given_up_after_ten_seconds() {
    thread::scope(|scope| {
        scope.spawn(|| {
            let cases = [
                (Manner::Mute, "did not answer within 10 s"),
                (Manner::Silent, "sent no endpoint within 10 s"),
                (Manner::NeverAnswers, "did not answer the handshake within 10 s"),
            ];
            assert_failures(&cases, over_sse, 12);
        });
        scope.spawn(|| {
            let cases = [
                (Manner::Mute, "did not answer within 10 s"),
                (Manner::Http(Http::NeverAnswers), "did not answer the handshake within 10 s"),
            ];
            assert_failures(&cases, over_http, 12);
        });
    });
}

#[test]
fn an_endpoint_of_somebody_else_is_not_spoken_to() {
    let other = TcpListener::bind("127.0.0.1:0").unwrap();
    other.set_nonblocking(true).unwrap();
    let port = other.local_addr().unwrap().port();
    let server = Server::start(Manner::Elsewhere(port));
    let error = failure_of(&server.service("gdb"), 1);
    assert_eq!(error, format!("sent an endpoint that is not on its own host: http://127.0.0.1:{port}/messages"));
    assert!(other.accept().is_err(), "nobody came");
}

/// What a server has seen when the init work has succeeded.
fn seen_by(server: &Server, service: Service) -> Vec<String> {
    let ground = Ground::released(&with_services(&[service]));
    let output = ground.init();
    assert!(output.status.success(), "{output:?}");
    server.seen().iter().map(|line| line.trim_end_matches(" HTTP/1.1").to_string()).collect()
}

#[test]
fn a_server_of_streamable_http_answers_a_handshake_and_has_no_session_afterwards() {
    let whole = ["POST /mcp", "initialize", "POST /mcp", "notifications/initialized", "DELETE /mcp"];
    for manner in [Http::Json, Http::Events] {
        for service in [over_http, at_mcp] {
            let server = Server::start(Manner::Http(manner));
            assert_eq!(seen_by(&server, service(&server)), whole, "no GET, which might begin a session: {manner:?}");
            assert_eq!(server.sessions(), 0);
        }
    }
    let server = Server::start(Manner::Http(Http::Stateless));
    assert_eq!(seen_by(&server, at_mcp(&server)), whole[..4], "there is no session to end");
    let server = Server::start(Manner::Http(Http::KeepsSessions));
    assert_eq!(seen_by(&server, at_mcp(&server)), whole);
    assert_eq!(server.sessions(), 1, "the server forgets it in its own time");
}

#[test]
fn the_transport_that_the_server_has_is_found() {
    let over_sse = ["initialize", "POST /messages", "notifications/initialized"];
    let server = Server::start(Manner::Polite);
    let seen = seen_by(&server, server.service("gdb"));
    assert_eq!(seen[0], "GET /sse");
    assert!(seen.iter().all(|line| line != "POST /sse"), "nothing else than before is asked: {seen:?}");
    let server = Server::start(Manner::Polite);
    let seen = seen_by(&server, at_mcp(&server));
    assert_eq!(seen[..3], ["POST /mcp", "initialize", "GET /mcp"], "a server of SSE may be there");
    assert_eq!(seen.iter().filter(|line| over_sse.iter().any(|part| line.starts_with(part))).count(), 5, "{seen:?}");
    let server = Server::start(Manner::Http(Http::Json));
    let other = Service { path: "/mcp?key=1".into(), ..server.service("gdb") };
    let error = failure_of(&other, 1);
    assert!(server.seen()[0].starts_with("POST /mcp?key=1"), "what follows the path does not matter: {error}");
}

#[test]
fn a_server_of_sse_at_the_path_of_streamable_http_is_found_whatever_it_does_with_a_post() {
    thread::scope(|scope| {
        for manner in [Manner::OpensForPost, Manner::HoldsPost] {
            scope.spawn(move || {
                let server = Server::start(manner);
                let seen = seen_by(&server, at_mcp(&server));
                assert_eq!(seen.last().map(String::as_str), Some("notifications/initialized"), "{manner:?}: {seen:?}");
            });
        }
    });
}

#[test]
fn a_redirect_to_another_path_is_followed_once() {
    let server = Server::start(Manner::Redirects("/events"));
    let seen = seen_by(&server, over_sse(&server));
    assert_eq!(seen[..2], ["GET /sse", "GET /events"]);
    for service in [at_mcp, over_http] {
        let server = Server::start(Manner::RedirectsToSlash);
        let seen = seen_by(&server, service(&server));
        let (with_slash, without): (Vec<_>, Vec<_>) =
            seen.iter().filter(|line| line.contains('/') && line.contains(' ')).partition(|line| line.ends_with('/'));
        assert_eq!(without, ["POST /mcp"]);
        assert_eq!(with_slash, ["POST /mcp/", "POST /mcp/", "DELETE /mcp/"]);
        assert_eq!(server.sessions(), 0);
    }
}

/// A debugger has one session, which whoever connects next takes away.
#[test]
fn the_live_session_of_a_server_with_only_one_is_not_disturbed_by_readiness() {
    let server = Server::start(Manner::OneSession);
    let ground = Ground::released(&with_services(&[server.service("gdb")]));
    assert!(ground.init().status.success());
    let sessions = || server.seen().iter().filter(|line| line.starts_with("GET")).count();
    assert_eq!(sessions(), 1, "the handshake of the init work");

    let mut agent = TcpStream::connect(("127.0.0.1", server.port())).unwrap();
    agent.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    write!(agent, "GET /sse HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
    let mut events = BufReader::new(agent);
    let mut until = |text: &str| {
        let mut line = String::new();
        while !line.contains(text) {
            line.clear();
            assert!(events.read_line(&mut line).unwrap() > 0, "the stream ended");
        }
    };
    until("event: endpoint");
    for _ in 0..100 {
        assert_eq!(ready(&ground), (Some(0), String::new()));
    }
    // A probe that is started again by a kubelet, and the probe of the reporter.
    assert!(ground.init().status.success());
    assert!(ground.sandboxd(&["awaited"]).status().unwrap().success());
    assert_eq!(sessions(), 2, "its own, and no other");
    server.say("still-here");
    until("event: still-here");
}

#[test]
fn a_service_that_dies_takes_the_readiness_along_and_brings_it_back() {
    let server = Server::start(Manner::Polite);
    let port = server.port();
    let ground = Ground::released(&with_services(&[server.service("gdb")]));
    assert!(ground.init().status.success());
    assert_eq!(ready(&ground).0, Some(0));
    drop(server);
    let (code, said) = ready(&ground);
    let expected = format!("the service gdb is not ready: connection refused (http://127.0.0.1:{port}/sse)");
    assert_eq!((code, said), (Some(1), expected));
    let server = Server::start_at(port, Manner::Polite);
    assert_eq!(ready(&ground), (Some(0), String::new()));
    assert!(server.seen().is_empty(), "the port is enough after the first handshake: {:?}", server.seen());
}

#[test]
fn a_proxy_of_the_environment_is_not_asked() {
    let server = Server::start(Manner::Polite);
    let ground = Ground::released(&with_services(&[server.service("gdb")]));
    let mut command = ground.sandboxd(&["gate"]);
    for name in ["http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy", "https_proxy", "HTTPS_PROXY"] {
        command.env(name, format!("http://127.0.0.1:{}", closed_port()));
    }
    assert!(command.env_remove("NO_PROXY").env_remove("no_proxy").status().unwrap().success());
}

#[test]
fn a_host_that_is_not_known_is_said_so() {
    let nowhere = Service { host: "no-such-host.invalid".into(), ..service("gdb", 1) };
    let (code, said) = ready(&Ground::done(&with_services(&[nowhere])));
    assert_eq!(code, Some(1));
    assert!(said.contains("failed to lookup address") || said.contains("its host name is not"), "{said}");
}

fn with_probe(probe: OwnProbe) -> Ground {
    Ground::done(&Work { probe: Some(probe), ..with_services(&[]) })
}

fn command(script: &str) -> OwnProbe {
    OwnProbe::Exec { command: ["sh", "-c", script].map(String::from).to_vec() }
}

#[test]
fn the_sandboxs_own_probe_is_asked_as_well() {
    let server = Server::start(Manner::Polite);
    let page = Server::start(Manner::Page);
    let moved = Server::start(Manner::Redirects("/other"));
    let broken = Server::start(Manner::Status(500));
    let (open, closed) = (server.port(), closed_port());
    let host = || "127.0.0.1".to_string();
    let tcp = |port| OwnProbe::Tcp { host: host(), port };
    let http = |server: &Server| OwnProbe::Http {
        host: host(),
        port: server.port(),
        path: "/healthz?x=1".into(),
        headers: vec![("X-OwnProbe".into(), "yes".into())],
    };
    for probe in [command("exit 0"), tcp(open), http(&page), http(&moved)] {
        assert_eq!(ready(&with_probe(probe.clone())), (Some(0), String::new()), "{probe:?}");
    }
    assert_eq!(page.seen(), ["GET /healthz?x=1 HTTP/1.1"]);
    let broken_port = broken.port();
    for (probe, expected) in [
        (command("echo no; echo 'not yet' >&2; exit 3"), "ended with exit code 3: no not yet".to_string()),
        (command("kill -KILL $$"), "was ended by signal 9".into()),
        (OwnProbe::Exec { command: vec!["/no/such".into()] }, "cannot be started: No such file".into()),
        (tcp(closed), format!("cannot reach 127.0.0.1:{closed}: connection refused")),
        (http(&broken), format!("got status 500 from http://127.0.0.1:{broken_port}/healthz?x=1")),
    ] {
        let (code, said) = ready(&with_probe(probe));
        assert_eq!(code, Some(1));
        assert!(said.starts_with(&format!("the readiness probe {expected}")), "{said}");
    }
    let services = vec![service("gdb", closed)];
    let ground = Ground::done(&Work { probe: Some(command("true")), services, ..work(vec![]) });
    assert!(ready(&ground).1.starts_with("the service gdb is not ready"), "both are asked");
}

#[test]
fn a_probe_that_hangs_or_shouts_is_ended_and_reveals_no_secrets() {
    let (code, said) = ready(&with_probe(command("trap '' TERM; sleep 60")));
    assert!(code == Some(1) && said.contains("did not end within its timeout"), "{said}");
    let secrets = Secrets { names: ["TOKEN".to_string()].into(), all_but: None };
    let probe = Some(command("head -c 10000000 /dev/zero | tr '\\0' x; echo; echo $TOKEN; exit 1"));
    let ground = Ground::done(&Work { probe, secrets, ..with_services(&[]) });
    let output = ground.sandboxd(&["ready"]).env("TOKEN", "hunter2").output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.ends_with("***\n") && said.len() < 1500 && said.lines().count() == 1, "{said}");
    assert_eq!(fs::read_dir(ground.path("state")).unwrap().count(), 1, "it writes nothing down");
}

#[test]
fn a_probe_has_the_timeout_that_its_user_gave_it() {
    let with_timeout =
        |probe, seconds| Ground::done(&Work { probe: Some(probe), probe_timeout: Some(seconds), ..with_services(&[]) });
    let mute = Server::start(Manner::Mute);
    let (host, port) = ("127.0.0.1".to_string(), mute.port());
    let http = OwnProbe::Http { host, port, path: "/".into(), headers: vec![] };
    let began = Instant::now();
    let (code, said) = ready(&with_timeout(command("sleep 60"), 1));
    assert_eq!((code, said.as_str()), (Some(1), "the readiness probe did not end within its timeout, after 1 s"));
    let (code, said) = ready(&with_timeout(http, 1));
    assert!(code == Some(1) && said.ends_with("no answer within 1 s"), "{said}");
    assert!(began.elapsed() < Duration::from_secs(6), "{:?}", began.elapsed());
    // Longer than the default.
    assert_eq!(ready(&with_timeout(command("sleep 10.7"), 20)), (Some(0), String::new()));
}

/// A kubelet that is restarted probes while the init work is still running.
#[test]
fn nothing_is_ready_before_the_init_work_has_succeeded() {
    let ground = Ground::new(&work(vec![shell("slow", "sleep 0.5")]));
    let not_yet = (Some(1), "the initialiser has not succeeded".to_string());
    assert_eq!(ready(&ground), not_yet);
    let mut init = ground.begin();
    ground.release();
    eventually("the step has begun", || (ground.progress()?.steps.len() == 1).then_some(()));
    assert_eq!(ready(&ground), not_yet);
    assert!(init.wait().unwrap().success());
    assert_eq!(ready(&ground), (Some(0), String::new()));
    let failed = Ground::released(&work(vec![shell("bad", "exit 1")]));
    assert!(!failed.init().status.success());
    assert_eq!(ready(&failed), not_yet);
}

#[test]
fn without_work_nothing_is_ready() {
    let ground = Ground::done(&work(vec![]));
    assert_eq!(ready(&ground), (Some(0), String::new()));
    fs::remove_file(ground.path("pod/work")).unwrap();
    assert_eq!(ready(&ground), (Some(1), "the initialiser found no work to do".into()));
    assert_eq!(status(&ground), "This sandbox has no initialiser.\n");
}
