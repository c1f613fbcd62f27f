//! Objects that cannot be read, as anybody may store them: each is reported by its name, and no other object notices.

use std::{
    io::Write,
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::{Value, json};

use super::lives::{agent, phase, sandbox, session, three_of_everything};
use crate::support::{
    apiserver::{Seen, faults::Effect},
    life::{World, in_fast_time},
};

/// A word that stands in every object that cannot be read, and nowhere else.
const SECRET: &str = "hunter2";

fn deep(levels: usize) -> Value {
    (0..levels).fold(json!(SECRET), |inner, _| json!({ "a": inner }))
}

fn maps(count: usize) -> Value {
    json!({ SECRET: vec![json!({"a": 0}); count] })
}

/// What makes an object unreadable, and the words that report it.
fn poisons() -> [(&'static str, Value, &'static str); 4] {
    [
        ("deep", deep(140), "nested more than 100 levels deep"),
        ("many", maps(20_000), "more than 16000 values"),
        ("large", json!({ SECRET: "x".repeat(300_000) }), "more than 262144 bytes"),
        ("odd", json!(SECRET), "the field spec"),
    ]
}

fn named(mut object: Value, name: &str) -> Value {
    object["metadata"]["name"] = json!(name);
    object
}

/// An object of each kind that its users write, under a name.
fn of_each_kind(name: &str) -> [(&'static str, Value); 3] {
    [
        ("sandboxes", named(sandbox(json!({"type": "main", "image": "a:1"})), name)),
        ("aigisesessions", named(session(json!({"sandboxes": {"main": {"image": "a:1"}}})), name)),
        ("agents", agent(name, json!({}))),
    ]
}

/// Puts something into an object that the API server takes and nobody here can read.
fn poison(world: &World, plural: &'static str, name: &str, with: &Value) {
    world.api.edit(&World::key(plural, name), |object| match (plural, with) {
        (_, Value::String(_)) => object["spec"] = with.clone(),
        ("sandboxes", _) => object["spec"]["podTemplate"] = with.clone(),
        ("agents", _) => object["spec"]["config"] = with.clone(),
        _ => object["spec"]["sandboxes"]["main"]["podTemplate"] = with.clone(),
    });
}

fn condition(world: &World, plural: &'static str, name: &str, kind: &str) -> (String, String) {
    let object = world.get(plural, name);
    let mut conditions = object["status"]["conditions"].as_array().into_iter().flatten();
    let found = conditions.find(|condition| condition["type"] == kind).cloned().unwrap_or_default();
    let word = |field: &str| found[field].as_str().unwrap_or_default().to_string();
    (word("reason"), word("message"))
}

fn events(world: &World) -> Vec<String> {
    let events = world.api.all().into_iter().filter(|(key, _)| key.plural == "events");
    events.map(|(_, event)| format!("{} {}", event["regarding"]["name"], event["note"])).collect()
}

/// A sandbox that somebody else makes now, and that has to become ready.
async fn others_are_served(world: &mut World, name: &str) {
    world.apply(named(sandbox(json!({"type": "main", "image": "a:1"})), name)).await;
    let is_ready = |world: &World| world.get("sandboxes", name)["status"]["state"] == "ready";
    world.until("another sandbox is ready", is_ready).await;
}

/// All that is logged while this runs, at the level that is the default.
#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    fn of<T>(test: impl FnOnce() -> T) -> (T, String) {
        let log = Self::default();
        let writer = log.clone();
        let subscriber = tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).finish();
        let result = tracing::subscriber::with_default(subscriber, test);
        let text = String::from_utf8(log.0.lock().unwrap().clone()).unwrap();
        (result, text)
    }
}

#[test]
fn what_cannot_be_read_is_reported_by_its_name_and_everybody_else_is_served() {
    let ((), log) = Log::of(|| {
        in_fast_time(async {
            let mut world = World::new();
            for (name, with, _) in poisons() {
                for (plural, object) in of_each_kind(name) {
                    world.apply(object).await;
                    poison(&world, plural, name, &with);
                }
            }
            // In a watch.
            others_are_served(&mut world, "first").await;
            world.settle().await;
            let are_reported = |world: &World| {
                // The API server takes no status of an object without a specification.
                for (name, _, words) in poisons().into_iter().filter(|(name, ..)| *name != "odd") {
                    for (plural, _) in of_each_kind(name) {
                        for kind in ["Ready", "Stalled"] {
                            let (reason, message) = condition(world, plural, name, kind);
                            assert_eq!(reason, "Unreadable", "{plural}/{name} {kind}");
                            assert!(message.contains(words) && !message.contains(SECRET), "{plural}/{name}: {message}");
                        }
                    }
                }
            };
            are_reported(&world);
            let events = events(&world);
            assert!(events.iter().all(|event| !event.contains(SECRET)), "{events:?}");
            for (name, _, words) in poisons() {
                let of_it = |event: &&String| event.contains(&format!("\"{name}\"")) && event.contains(words);
                assert_eq!(events.iter().filter(of_it).count(), 3, "{name}: {events:#?}");
            }
            // In a list.
            let writes = world.operator_writes().len();
            world.restart();
            others_are_served(&mut world, "second").await;
            world.settle().await;
            are_reported(&world);
            let new = world.operator_writes().split_off(writes);
            // What the API server did not take is tried once more.
            let of_others = |seen: &Seen| ["second", "odd"].contains(&seen.key.name.as_str());
            assert!(
                new.iter().all(of_others),
                "nothing is reported again: {}",
                crate::support::apiserver::faults::lines(&new)
            );
            let metrics = world.operator.as_ref().unwrap();
            let text = metrics.metrics.text(metrics.caches.borrow().as_deref());
            for why in ["too_deep", "too_many_values", "too_large", "unknown_value"] {
                let line = format!("aigise_unreadable_objects{{kind=\"Sandbox\",why=\"{why}\"}} 1");
                assert!(text.contains(&line), "{line}\n{text}");
            }
        });
    });
    assert!(!log.contains(SECRET), "{log}");
    assert!(log.len() < 100_000, "{} bytes", log.len());
}

#[test]
fn what_was_read_and_can_no_longer_be_is_not_acted_on() {
    in_fast_time(async {
        let mut world = World::new();
        for object in [super::lives::config_map(), super::lives::corpus(), three_of_everything()] {
            world.apply(object).await;
        }
        world.apply(agent("helper", json!({}))).await;
        world.settle().await;
        let pods = || -> Vec<Value> {
            let all = world.api.all().into_iter().filter(|(key, _)| key.plural == "pods");
            all.map(|(_, pod)| pod["metadata"]["uid"].clone()).collect()
        };
        let before = pods();
        assert!(before.len() >= 3);
        poison(&world, "aigisesessions", "demo", &deep(140));
        poison(&world, "sandboxes", "demo--fuzz", &maps(20_000));
        world.settle().await;
        world.restart();
        world.settle().await;
        let all = world.api.all().into_iter().filter(|(key, _)| key.plural == "pods");
        let after: Vec<_> = all.map(|(_, pod)| pod["metadata"]["uid"].clone()).collect();
        assert_eq!(after, before, "no Pod went and none came");
        // What it said before is kept, for when it can be read again.
        assert_eq!(phase(&world), "Ready");
        let volumes = &world.get("aigisesessions", "demo")["status"]["volumes"];
        assert!(volumes["stagedDigest"].is_string(), "{volumes}");
        assert_eq!(condition(&world, "aigisesessions", "demo", "Ready").0, "Unreadable");
        // Once it is fixed, it goes on where it was.
        for (plural, name) in [("aigisesessions", "demo"), ("sandboxes", "demo--fuzz")] {
            world.api.edit(&World::key(plural, name), |object| {
                object["spec"].as_object_mut().unwrap().remove("podTemplate");
                if let Some(main) = object["spec"]["sandboxes"].get_mut("main") {
                    main.as_object_mut().unwrap().remove("podTemplate");
                }
            });
        }
        world.settle().await;
        assert_eq!(condition(&world, "aigisesessions", "demo", "Ready").0, "Ready");
        assert_eq!(condition(&world, "sandboxes", "demo--fuzz", "Ready").0, "Ready");
        let all = world.api.all().into_iter().filter(|(key, _)| key.plural == "pods");
        let after: Vec<_> = all.map(|(_, pod)| pod["metadata"]["uid"].clone()).collect();
        assert_eq!(after, before, "nothing was staged again either");
    });
}

#[test]
fn what_is_fixed_and_suspended_says_nothing_of_it_any_more() {
    in_fast_time(async {
        let mut world = World::new();
        world.apply(named(sandbox(json!({"type": "main", "image": "a:1", "suspend": true})), "deep")).await;
        world.settle().await;
        poison(&world, "sandboxes", "deep", &deep(140));
        world.settle().await;
        assert_eq!(condition(&world, "sandboxes", "deep", "Ready").0, "Unreadable");
        world.api.edit(&World::key("sandboxes", "deep"), |object| {
            object["spec"].as_object_mut().unwrap().remove("podTemplate");
        });
        world.settle().await;
        let writes = crate::support::apiserver::faults::lines(&world.operator_writes());
        assert_eq!(
            condition(&world, "sandboxes", "deep", "Ready").0,
            "",
            "a suspended one has no such condition: {writes}"
        );
        assert_eq!(world.get("sandboxes", "deep")["status"]["phase"], "Suspended");
    });
}

#[test]
fn the_pod_of_an_agent_that_can_no_longer_be_read_goes_on() {
    in_fast_time(async {
        let mut world = World::new();
        world.apply(session(json!({"sandboxes": {"main": {"image": "a:1"}}}))).await;
        world.apply(agent("runs", json!({"runner": {"image": "a:1", "sandboxExec": true}}))).await;
        world.settle().await;
        let pods = |world: &World| {
            let all = world.api.all().into_iter().filter(|(key, _)| key.plural == "pods");
            all.map(|(key, pod)| (key.name, pod["metadata"]["uid"].clone())).collect::<Vec<_>>()
        };
        let secret = world.get("secrets", "demo--config");
        let before = pods(&world);
        assert_eq!(before.len(), 2);
        poison(&world, "agents", "runs", &deep(140));
        world.settle().await;
        world.restart();
        world.settle().await;
        assert_eq!(pods(&world), before);
        assert_eq!(world.get("secrets", "demo--config")["data"], secret["data"]);
        // Its end is noticed as that of any other.
        world.delete(agent("runs", json!({}))).await;
        world.settle().await;
        assert_eq!(pods(&world).len(), 1);
    });
}

#[test]
fn the_deletion_of_what_cannot_be_read_is_noticed() {
    in_fast_time(async {
        let mut world = World::new();
        world.apply(named(sandbox(json!({"type": "main", "image": "a:1"})), "deep")).await;
        poison(&world, "sandboxes", "deep", &deep(140));
        world.settle().await;
        let unreadable = |world: &World| {
            let operator = world.operator.as_ref().unwrap();
            operator
                .metrics
                .text(operator.caches.borrow().as_deref())
                .contains("aigise_unreadable_objects{kind=\"Sandbox\"")
        };
        assert!(unreadable(&world));
        world.delete(named(sandbox(json!({})), "deep")).await;
        world.settle().await;
        assert!(!unreadable(&world));
        world.apply(named(sandbox(json!({"type": "main", "image": "a:1"})), "deep")).await;
        world.settle().await;
        assert_eq!(world.get("sandboxes", "deep")["status"]["state"], "ready");
    });
}

#[test]
fn an_object_that_changes_all_the_time_is_reported_once_a_minute() {
    in_fast_time(async {
        let mut world = World::new();
        world.apply(named(sandbox(json!({"type": "main", "image": "a:1"})), "deep")).await;
        world.settle().await;
        let before = world.operator_writes().len();
        for round in 0..300 {
            poison(&world, "sandboxes", "deep", &deep(140 + round % 2));
            world.api.edit(&World::key("sandboxes", "deep"), |object| {
                object["metadata"]["generation"] = json!(round + 10);
            });
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        let writes = world.operator_writes().len() - before;
        assert!((1..=6).contains(&writes), "{writes} writes in five minutes");
    });
}

#[test]
fn a_watch_that_fails_for_long_is_reported() {
    in_fast_time(async {
        let mut world = World::new();
        others_are_served(&mut world, "first").await;
        let deaf = |world: &World| {
            let caches = world.operator.as_ref().unwrap().caches.borrow().clone().unwrap();
            caches.health.deaf_to().into_iter().map(|(kind, _)| kind).collect::<Vec<_>>()
        };
        let is_of_pods = |seen: &Seen| {
            seen.client.starts_with("operator") && (seen.line() == "watch pods/" || seen.line() == "list pods/")
        };
        world.api.fault(usize::MAX, Effect::code(500), is_of_pods);
        world.api.cut_watches();
        tokio::time::sleep(Duration::from_secs(30)).await;
        assert_eq!(deaf(&world), Vec::<String>::new(), "a failure that is over soon is nobody's business");
        tokio::time::sleep(Duration::from_secs(90)).await;
        assert_eq!(deaf(&world), ["Pod"]);
    });
}

#[test]
fn what_is_read_by_name_is_read_once_for_each_version_and_less_and_less_often() {
    in_fast_time(async {
        let mut world = World::new();
        let large = "x".repeat(500_000);
        let names: Vec<_> = (0..15).map(|index| format!("source-{index}")).collect();
        for name in &names {
            let object =
                json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"a": large}});
            world.apply(object).await;
        }
        let sources: Vec<_> = names
            .iter()
            .map(String::as_str)
            .chain(["missing"])
            .map(|name| json!({"configMap": {"name": name}}))
            .collect();
        world
            .apply(session(json!({"sandboxes": {"main": {"image": "a:1"}}, "volumes": {"data": {"sources": sources}}})))
            .await;
        tokio::time::sleep(Duration::from_secs(3600)).await;
        let count = |what: &str| {
            let is_it = |seen: &&Seen| seen.client.starts_with("operator") && seen.line() == what;
            world.api.requests().iter().filter(is_it).count()
        };
        for name in &names {
            assert_eq!(count(&format!("get configmaps/{name}")), 1, "the content of {name}");
        }
        let looks = count("get-metadata configmaps/missing");
        assert!((60..=90).contains(&looks), "{looks} looks in an hour");
        world
            .apply(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "missing"}, "data": {}}))
            .await;
        tokio::time::sleep(Duration::from_secs(61)).await;
        world.settle().await;
        assert_eq!(phase(&world), "Ready");
    });
}

#[test]
fn sessions_that_are_much_work_are_all_decided() {
    in_fast_time(async {
        let mut world = World::new();
        let types: serde_json::Map<_, _> = (0..8).map(|index| (format!("t{index}"), json!({}))).collect();
        let large = json!({"metadata": {"annotations": {"a": "x".repeat(60_000)}}});
        let spec = json!({"sandboxes": types, "sandboxDefaults": {"image": "a:1", "podTemplate": large}});
        let names = ["large-0", "large-1", "large-2"];
        for name in names {
            world.apply(named(session(spec.clone()), name)).await;
        }
        world.apply(named(session(json!({"sandboxes": {"main": {"image": "a:1"}}})), "small")).await;
        world.settle().await;
        for name in names.into_iter().chain(["small"]) {
            assert_eq!(world.get("aigisesessions", name)["status"]["phase"], "Ready", "{name}");
        }
    });
}
