//! Old caches are deleted by the real operator over an API server in memory, and those that are needed stay.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};

use super::lives;
use crate::support::{
    apiserver::{
        Seen, Verb,
        faults::{self, Effect},
    },
    life::{World, in_fast_time},
};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// A session of the key `task`, whose cache fits only others of the same epoch.
fn session(name: &str, epoch: &str, suspend: bool) -> Value {
    let init = json!({"profile": "None", "steps": [{"name": "build", "command": ["make"]}]});
    let mut session = lives::session(json!({
        "taskName": "task",
        "suspend": suspend,
        "cache": {"epoch": epoch, "retain": {"generations": 1}},
        "sandboxes": {"main": {"image": "a:1", "cache": {"root": "Data"}, "init": init}},
    }));
    session["metadata"]["name"] = json!(name);
    session
}

/// The cache that a session started from or has saved.
fn entry(world: &World, name: &str) -> String {
    world.get("aigisesessions", name)["status"]["cache"]["entry"].as_str().unwrap_or_default().to_string()
}

fn claim(world: &World, name: &str) -> Value {
    world.get("persistentvolumeclaims", name)
}

fn deletes(world: &World) -> Vec<Seen> {
    let is_it = |seen: &Seen| seen.verb == Verb::Delete && seen.key.plural == "persistentvolumeclaims";
    world.operator_writes().into_iter().filter(is_it).collect()
}

#[test]
fn an_older_cache_goes_when_no_session_is_being_restored_from_it() {
    in_fast_time(async {
        let mut world = World::new();
        world.apply(session("one", "1", false)).await;
        world.settle().await;
        let old = entry(&world, "one");
        assert!(
            claim(&world, &old)["metadata"]["annotations"]["aigise.dev/cache"].as_str().unwrap().contains("retain")
        );
        // Its claims name the old cache, and nothing restores them yet.
        world.apply(session("demo", "1", true)).await;
        world.settle().await;
        let from = claim(&world, "demo--data")["metadata"]["annotations"]["aigise.dev/cache-from"].clone();
        let uid = claim(&world, &old)["metadata"]["uid"].as_str().unwrap().to_string();
        assert!(from.as_str().unwrap().starts_with(&uid), "{from}");
        world.apply(session("two", "2", false)).await;
        world.settle().await;
        let new = entry(&world, "two");
        assert!(old != new && !claim(&world, &old).is_null() && !claim(&world, &new).is_null());
        // A new process knows the same.
        world.restart();
        world.settle().await;
        assert!(deletes(&world).is_empty(), "{}", faults::lines(&deletes(&world)));

        world.apply(session("demo", "1", false)).await;
        world.settle().await;
        assert_eq!(world.get("aigisesessions", "demo")["status"]["cache"]["data"]["result"], "Restored");
        assert!(claim(&world, &old).is_null() && !claim(&world, &new).is_null());
        assert_eq!(deletes(&world).len(), 1, "{}", faults::lines(&deletes(&world)));
        let metrics = world.operator.as_ref().unwrap().metrics.text(None);
        assert!(metrics.contains("aigise_cache_collected_total{reason=\"generations\"} 1\n"), "{metrics}");
        // All sessions go on, and nothing more is written.
        let before = world.version();
        tokio::time::sleep(Duration::from_secs(3600)).await;
        assert_eq!(world.version(), before, "{}", faults::lines(&world.operator_writes()));
    });
}

#[test]
fn a_cache_that_no_session_starts_from_goes_after_a_month() {
    in_fast_time(async {
        let mut world = World::new();
        world.apply(session("one", "1", false)).await;
        world.settle().await;
        let entry = entry(&world, "one");
        tokio::time::sleep(29 * DAY).await;
        assert!(!claim(&world, &entry).is_null());
        tokio::time::sleep(2 * DAY).await;
        assert!(claim(&world, &entry).is_null());
    });
}

#[test]
fn that_a_cache_is_used_is_written_once_a_day_and_nothing_waits_for_it() {
    in_fast_time(async {
        let mut world = World::new();
        world.apply(session("one", "1", false)).await;
        world.settle().await;
        let entry = entry(&world, "one");
        let used = |world: &World| claim(world, &entry)["metadata"]["annotations"]["aigise.dev/cache-used"].clone();
        let result = |world: &World, name: &str| {
            let status = world.get("aigisesessions", name)["status"].clone();
            (status["phase"].clone(), status["cache"]["data"]["result"].clone())
        };
        let restored = (json!("Ready"), json!("Restored"));
        world.apply(session("two", "1", false)).await;
        world.settle().await;
        assert_eq!((result(&world, "two"), used(&world)), (restored.clone(), Value::Null));
        tokio::time::sleep(2 * DAY).await;
        // It is refused: the session does not notice.
        let refuses = Arc::new(AtomicBool::new(true));
        let (name, is_on) = (entry.clone(), refuses.clone());
        let is_mark =
            move |seen: &Seen| is_on.load(Ordering::Relaxed) && seen.verb == Verb::Patch && seen.key.name == name;
        world.api.fault(100, Effect::code(403), is_mark);
        world.apply(session("three", "1", false)).await;
        tokio::time::sleep(Duration::from_secs(60)).await;
        assert_eq!((result(&world, "three"), used(&world)), (restored.clone(), Value::Null));
        refuses.store(false, Ordering::Relaxed);
        world.apply(session("four", "1", false)).await;
        world.settle().await;
        let first = used(&world);
        assert_eq!(result(&world, "four"), restored);
        assert!(first.as_str().unwrap().parse::<jiff::Timestamp>().is_ok(), "{first}");
        world.apply(session("five", "1", false)).await;
        world.settle().await;
        assert_eq!((result(&world, "five"), used(&world)), (restored, first));
    });
}
