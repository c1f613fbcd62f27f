//! What the operator logs: a session can be followed, nothing is logged while nothing happens, and nobody can fill the log.

use std::{
    io::{self, Write},
    sync::{Arc, LazyLock, Mutex},
    time::Duration,
};

use aigise_operator::operator::telemetry;
use serde_json::{Value, json};
use tracing::Dispatch;
use tracing_subscriber::{EnvFilter, layer::SubscriberExt};

use super::lives::{agent, session};
use crate::support::{
    apiserver::{Verb, faults::Effect},
    life::{World, in_fast_time},
};

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Log {
    /// The lines so far, and none of them the next time.
    fn take(&self) -> Vec<Value> {
        let bytes = std::mem::take(&mut *self.0.lock().unwrap());
        bytes.split(|&byte| byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect()
    }
}

/// With a single subscriber, tracing asks only the thread that reaches a line first whether the line is logged, and keeps the answer:
/// a test beside these, which has no subscriber, would silence it for all. With several, it asks them.
static SUBSCRIBERS: LazyLock<[Dispatch; 2]> = LazyLock::new(|| {
    [(); 2].map(|()| {
        let filter = EnvFilter::new(telemetry::DEFAULT_FILTER);
        Dispatch::new(tracing_subscriber::registry().with(filter))
    })
});

/// Lives in a world whose operator logs as it does in a cluster.
fn logged<F: Future<Output = ()>>(live: impl FnOnce(World, Log) -> F) {
    LazyLock::force(&SUBSCRIBERS);
    let log = Log::default();
    let writer = log.clone();
    let filter = EnvFilter::new(telemetry::DEFAULT_FILTER);
    let subscriber = tracing_subscriber::registry().with(filter).with(telemetry::json(move || writer.clone()));
    let _guard = tracing::subscriber::set_default(subscriber);
    in_fast_time(async { live(World::new(), log).await });
}

fn with<'a>(lines: &'a [Value], message: &str) -> Vec<&'a Value> {
    lines.iter().filter(|line| line["message"] == message).collect()
}

#[test]
fn a_session_can_be_followed_from_its_first_write_to_ready() {
    logged(|world, log| async move {
        let mut world = world;
        let env = json!([{"name": "PASSWORD", "value": "hunter2"}]);
        world.apply(session(json!({"sandboxes": {"main": {"image": "a:1", "env": env}}}))).await;
        world.apply(agent("root", json!({}))).await;
        world.settle().await;
        let lines = log.take();
        let written = with(&lines, "wrote");
        let writes = world.operator_writes().into_iter();
        assert_eq!(written.len(), writes.filter(|seen| seen.subresource != Some("status")).count(), "{lines:#?}");
        let pod = written.iter().find(|line| line["kind"] == "Pod").unwrap();
        assert_eq!(
            (&pod["verb"], &pod["name"], &pod["level"]),
            (&json!("create"), &json!("demo--main"), &json!("INFO"))
        );
        let span = &pod["span"];
        for (field, value) in
            [("controller", "sandbox"), ("namespace", "lab"), ("name", "demo--main"), ("stage", "NoPod")]
        {
            assert_eq!(span[field], value, "{span}");
        }
        assert!(span["uid"].is_string() && span["generation"] == 1, "{span}");

        let of_session = |line: &&&Value| line["span"]["controller"] == "session";
        let changed = with(&lines, "status changed");
        let phases: Vec<_> = changed.iter().filter(of_session).map(|line| line["phase"].as_str().unwrap()).collect();
        assert_eq!(phases.last(), Some(&"Ready"), "{phases:?}");
        let events = world.api.writes().into_iter().filter(|seen| seen.key.plural == "events").count();
        assert_eq!(with(&lines, "event").len(), events);
        let text = Value::from(lines).to_string();
        assert!(!text.contains("hunter2"), "a specification is never logged");
    });
}

#[test]
fn what_the_api_server_refuses_is_logged_in_its_words() {
    logged(|world, log| async move {
        let mut world = world;
        world.api.fault(usize::MAX, Effect::code(403), |seen| seen.verb == Verb::Create && seen.key.plural == "pods");
        world.apply(session(json!({"sandboxes": {"main": {"image": "a:1"}}}))).await;
        tokio::time::sleep(Duration::from_secs(3600)).await;
        let lines = log.take();
        let refused = with(&lines, "a write failed");
        let first = refused.first().unwrap();
        assert_eq!((&first["kind"], &first["level"]), (&json!("Pod"), &json!("WARN")));
        assert!(
            first["refusal"].as_str().unwrap().starts_with("Pod demo--main: the API server refused it: "),
            "{first}"
        );
        assert!(lines.len() < 150, "{} lines in an hour", lines.len());
        world.settle().await;
    });
}

#[test]
fn nothing_is_logged_of_sandboxes_that_are_as_they_should_be() {
    logged(|world, log| async move {
        let mut world = world;
        for n in 0..100 {
            let sandbox = json!({
                "apiVersion": "aigise.dev/v1alpha1", "kind": "Sandbox",
                "metadata": {"name": format!("s{n}")}, "spec": {"type": "main", "image": "a:1"},
            });
            world.apply(sandbox).await;
        }
        world.settle().await;
        log.take();
        tokio::time::sleep(Duration::from_secs(3600)).await;
        assert_eq!(log.take(), Vec::<Value>::new());
        world.api.cut_watches();
        world.settle().await;
        assert_eq!(with(&log.take(), "wrote").len(), 0);
    });
}

#[test]
fn an_object_that_flaps_does_not_fill_the_log() {
    logged(|world, log| async move {
        let mut world = world;
        world.apply(session(json!({"sandboxes": {"main": {"image": "a:1"}}}))).await;
        world.settle().await;
        log.take();
        for _ in 0..600 {
            world.api.delete(&World::key("services", "demo"), &json!({}));
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        let lines = log.take();
        let of_session = lines.iter().filter(|line| line["span"]["controller"] == "session").count();
        let services = world.operator_writes().into_iter().filter(|seen| seen.key.plural == "services").count();
        assert!(services > 200, "{services} services were made");
        assert!((60..=2 * 60 + 30).contains(&of_session), "{of_session} lines for {services} writes");
        assert!(lines.iter().any(|line| line["dropped"].as_u64().is_some_and(|dropped| dropped > 0)));
    });
}
