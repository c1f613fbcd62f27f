//! Whole lives of sessions and sandboxes: what users and the cluster do, for the real controllers to make the best of.

use futures::future::LocalBoxFuture;
use serde_json::{Value, json};

use crate::support::life::World;

/// A life, from its first object to its end.
pub struct Life {
    pub name: &'static str,
    pub live: for<'a> fn(&'a mut World) -> LocalBoxFuture<'a, ()>,
    /// How many writes it may cost, by the budgets of the contract.
    pub writes: usize,
}

/// All of them.
pub const LIVES: [Life; 25] = [
    Life { name: "a session with sources", live: |world| Box::pin(session_with_sources(world)), writes: 28 },
    Life { name: "a sandbox alone", live: |world| Box::pin(sandbox_alone(world)), writes: 3 },
    Life { name: "types come and go", live: |world| Box::pin(types_come_and_go(world)), writes: 36 },
    Life { name: "an image is missing", live: |world| Box::pin(image_missing(world)), writes: 4 },
    Life { name: "a container ends", live: |world| Box::pin(container_ends(world)), writes: 9 },
    Life {
        name: "a session is deleted while it is staged",
        live: |world| Box::pin(deleted_while_staging(world)),
        writes: 8,
    },
    Life { name: "a session is made anew under its name", live: |world| Box::pin(made_anew(world)), writes: 40 },
    Life { name: "a source comes late", live: |world| Box::pin(source_comes_late(world)), writes: 16 },
    Life { name: "somebody else has a name", live: |world| Box::pin(name_taken(world)), writes: 16 },
    Life { name: "one sandbox waits for another", live: |world| Box::pin(dependencies(world)), writes: 26 },
    Life { name: "a session is suspended and goes on", live: |world| Box::pin(suspended(world)), writes: 26 },
    Life { name: "a session is idle", live: |world| Box::pin(idle(world)), writes: 34 },
    Life { name: "a container is started again", live: |world| Box::pin(started_again(world)), writes: 14 },
    Life { name: "a session is released at its end", live: |world| Box::pin(released(world)), writes: 26 },
    Life { name: "a session is deleted at its end", live: |world| Box::pin(deleted_at_its_end(world)), writes: 18 },
    Life { name: "a session leaves everything behind", live: |world| Box::pin(left_behind(world)), writes: 20 },
    Life { name: "a volume outlives its session", live: |world| Box::pin(volume_kept(world)), writes: 16 },
    Life { name: "a bad source is fixed", live: |world| Box::pin(source_fixed(world)), writes: 24 },
    Life { name: "a template changes and is taken at once", live: |world| Box::pin(recreated(world)), writes: 10 },
    Life { name: "sandboxes are made by hand", live: |world| Box::pin(by_hand(world)), writes: 28 },
    Life {
        name: "an initialiser fails and is tried again",
        live: |world| Box::pin(initialized_again(world)),
        writes: 14,
    },
    Life { name: "agents come and go", live: |world| Box::pin(agents(world)), writes: 44 },
    Life { name: "an agent has a Pod that runs it", live: |world| Box::pin(runner(world)), writes: 56 },
    Life { name: "a session starts from the cache of another", live: |world| Box::pin(cached(world)), writes: 40 },
    Life { name: "a session comes from a file", live: |world| Box::pin(from_file(world)), writes: 24 },
];

pub fn life(name: &str) -> &'static Life {
    LIVES.iter().find(|life| life.name == name).unwrap_or_else(|| panic!("there is no life called {name}"))
}

pub fn session(spec: Value) -> Value {
    json!({"apiVersion": "aigise.dev/v1alpha1", "kind": "AigiseSession", "metadata": {"name": "demo"}, "spec": spec})
}

pub fn sandbox(spec: Value) -> Value {
    json!({"apiVersion": "aigise.dev/v1alpha1", "kind": "Sandbox", "metadata": {"name": "alone"}, "spec": spec})
}

pub fn agent(name: &str, spec: Value) -> Value {
    let mut agent =
        json!({"apiVersion": "aigise.dev/v1alpha1", "kind": "Agent", "metadata": {"name": name}, "spec": spec});
    agent["spec"]["session"] = json!("demo");
    agent
}

pub fn config_map() -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "poc"}, "data": {"crash.txt": "AAAA"}})
}

pub fn corpus() -> Value {
    let spec = json!({"accessModes": ["ReadWriteMany"], "resources": {"requests": {"storage": "1Gi"}}});
    json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "corpus"}, "spec": spec})
}

fn pod(name: &str) -> Value {
    let spec = json!({"containers": [{"name": "c", "image": "a:1"}]});
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name}, "spec": spec})
}

/// Three sandboxes over three volumes that are filled.
pub fn three_of_everything() -> Value {
    session(json!({
        "sandboxes": {"main": {"image": "a:1"}, "gdb_mcp": {"image": "b:1"}, "fuzz": {"image": "c:1"}},
        // What the framework would do for these types has a life of its own.
        "sandboxDefaults": {"init": {"profile": "None"}},
        "volumes": {
            "scripts": {"sources": [{"configMap": {"name": "poc"}}]},
            "data": {"sources": [{"persistentVolumeClaim": {"claimName": "corpus"}}]},
            "tools": {"sources": [{"configMap": {"name": "poc"}, "path": "fuzz"}]},
        },
        "toolsTopRoots": ["fuzz"],
    }))
}

pub fn phase(world: &World) -> String {
    world.get("aigisesessions", "demo")["status"]["phase"].as_str().unwrap_or("gone").to_string()
}

fn state(world: &World) -> String {
    world.get("sandboxes", "alone")["status"]["state"].as_str().unwrap_or("gone").to_string()
}

async fn session_with_sources(world: &mut World) {
    world.apply(config_map()).await;
    world.apply(corpus()).await;
    world.apply(three_of_everything()).await;
    world.settle().await;
    assert_eq!(phase(world), "Ready");
}

async fn sandbox_alone(world: &mut World) {
    world.apply(sandbox(json!({"type": "main", "image": "a:1"}))).await;
    world.settle().await;
    assert_eq!(state(world), "ready");
}

async fn types_come_and_go(world: &mut World) {
    world.apply(session(json!({"sandboxes": {"main": {"image": "a:1"}}}))).await;
    world.settle().await;
    assert_eq!(phase(world), "Ready");
    world.apply(session(json!({"sandboxes": {"main": {"image": "a:1"}, "fuzz": {"image": "b:1"}}}))).await;
    world.settle().await;
    assert_eq!(phase(world), "Ready");
    // A ready type that is edited keeps its Pod until somebody deletes it.
    let edited = json!({"sandboxes": {"main": {"image": "a:2"}, "fuzz": {"image": "b:1"}}});
    world.apply(session(edited)).await;
    world.settle().await;
    assert_eq!(world.get("pods", "demo--main")["spec"]["containers"][0]["image"], "a:1");
    world.delete(pod("demo--main")).await;
    world.settle().await;
    assert_eq!(world.get("pods", "demo--main")["spec"]["containers"][0]["image"], "a:2");
    assert_eq!(phase(world), "Ready");
    world.apply(session(json!({"sandboxes": {"main": {"image": "a:2"}}}))).await;
    world.settle().await;
    assert_eq!(world.get("pods", "demo--fuzz"), Value::Null);
    assert_eq!(phase(world), "Ready");
}

async fn image_missing(world: &mut World) {
    world.cluster.lose_image("a:1");
    world.apply(sandbox(json!({"type": "main", "image": "a:1"}))).await;
    world.settle().await;
    assert_eq!(state(world), "uninitialized");
    world.cluster.push_image("a:1");
    world.settle().await;
    assert_eq!(state(world), "ready");
}

async fn container_ends(world: &mut World) {
    world.apply(sandbox(json!({"type": "main", "image": "a:1", "restart": {"policy": "Never"}}))).await;
    world.settle().await;
    assert_eq!(state(world), "ready");
    world.cluster.end(&World::key("pods", "alone"), 3);
    world.settle().await;
    assert_eq!(state(world), "error");
    world.delete(pod("alone")).await;
    world.settle().await;
    assert_eq!(state(world), "ready");
}

async fn deleted_while_staging(world: &mut World) {
    world.apply(config_map()).await;
    world.apply(corpus()).await;
    world.apply(three_of_everything()).await;
    let runs = |world: &World| world.get("pods", "demo--stage")["status"]["phase"] == "Running";
    world.until("the stage Pod runs", runs).await;
    world.delete(three_of_everything()).await;
    world.settle().await;
    assert_eq!(phase(world), "gone");
}

/// The file, which has a password by a variable. It comes after the session, is broken by an edit, and fixed.
async fn from_file(world: &mut World) {
    let file = |text: &str| json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "arvo"}, "data": {"config.toml": text}});
    let image = |image: &str| {
        format!("[sandbox.sandboxes.main]\nimage = \"{image}\"\nenvironment = {{PASSWORD = \"${{PASSWORD}}\"}}\n")
    };
    world.apply(neo4j("hunter2")).await;
    world.apply(from_file_session()).await;
    world.settle().await;
    assert_eq!(phase(world), "Pending");
    world.apply(file(&image("a:1"))).await;
    world.settle().await;
    assert_eq!(phase(world), "Ready");
    world.apply(file(&image("${NOBODY}"))).await;
    world.settle().await;
    assert_eq!(world.get("pods", "demo--main")["spec"]["containers"][0]["image"], "a:1");
    world.apply(file(&image("a:2"))).await;
    world.settle().await;
    assert_eq!(phase(world), "Ready");
    assert_eq!(world.get("sandboxes", "demo--main")["spec"]["image"], "a:2");
}

/// A user's Secret.
pub fn neo4j(password: &str) -> Value {
    let data = json!({"password": k8s_openapi::ByteString(password.into())});
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "neo4j"}, "data": data})
}

/// A session that says nothing by itself.
pub fn from_file_session() -> Value {
    session(json!({
        "configFrom": {"configMapKeyRef": {"name": "arvo", "key": "config.toml"}},
        "variables": [{"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "neo4j", "key": "password"}}}],
    }))
}

async fn made_anew(world: &mut World) {
    let one = || session(json!({"sandboxes": {"main": {"image": "a:1"}}}));
    world.apply(one()).await;
    world.settle().await;
    let old = world.get("aigisesessions", "demo")["metadata"]["uid"].clone();
    world.delete(one()).await;
    world.apply(one()).await;
    world.settle().await;
    assert_ne!(world.get("aigisesessions", "demo")["metadata"]["uid"], old);
    assert_eq!(phase(world), "Ready");
}

async fn source_comes_late(world: &mut World) {
    let volumes = json!({"data": {"sources": [{"configMap": {"name": "poc"}}]}});
    world.apply(session(json!({"sandboxes": {"main": {"image": "a:1"}}, "volumes": volumes}))).await;
    world.settle().await;
    assert_eq!(phase(world), "Pending");
    world.apply(config_map()).await;
    world.settle().await;
    assert_eq!(phase(world), "Ready");
}

async fn name_taken(world: &mut World) {
    world.apply(pod("demo--main")).await;
    world.apply(session(json!({"sandboxes": {"main": {"image": "a:1"}}}))).await;
    world.settle().await;
    assert_ne!(phase(world), "Ready");
    assert_eq!(world.get("pods", "demo--main")["spec"]["containers"][0]["name"], "c", "it is never touched");
    world.delete(pod("demo--main")).await;
    world.settle().await;
    assert_eq!(phase(world), "Ready");
}

/// `fuzz` has something to do when `main` is ready, which has something to do as well.
async fn dependencies(world: &mut World) {
    let init = json!({"steps": [{"name": "build", "command": ["make"]}]});
    let sandboxes = json!({
        "main": {"image": "a:1", "init": init},
        "fuzz": {"image": "b:1", "init": init, "dependsOn": ["main"]},
    });
    world.apply(session(json!({"sandboxes": sandboxes}))).await;
    world.settle().await;
    assert_eq!(phase(world), "Ready");
    let outcome = |name| world.get("sandboxes", name)["status"]["init"]["outcome"].clone();
    assert_eq!((outcome("demo--main"), outcome("demo--fuzz")), (json!("Succeeded"), json!("Succeeded")));
}

async fn suspended(world: &mut World) {
    let suspend = |suspend: bool| session(json!({"sandboxes": {"main": {"image": "a:1"}}, "suspend": suspend}));
    world.apply(suspend(false)).await;
    world.settle().await;
    assert_eq!(phase(world), "Ready");
    let claim = world.get("persistentvolumeclaims", "demo--data")["metadata"]["uid"].clone();
    world.apply(suspend(true)).await;
    world.settle().await;
    assert_eq!((phase(world).as_str(), world.get("pods", "demo--main")), ("Suspended", Value::Null));
    world.apply(suspend(false)).await;
    world.settle().await;
    assert_eq!(phase(world), "Ready");
    assert_eq!(world.get("persistentvolumeclaims", "demo--data")["metadata"]["uid"], claim);
}

async fn idle(world: &mut World) {
    let mut session = session(json!({"sandboxes": {"main": {"image": "a:1"}}, "lifetime": {"idle": "15m"}}));
    world.apply(session.clone()).await;
    world.until("it is ready", |world| phase(world) == "Ready").await;
    world.until("it is suspended", |world| phase(world) == "Suspended").await;
    world.settle().await;
    assert_eq!((phase(world).as_str(), world.get("pods", "demo--main")), ("Suspended", Value::Null));
    // Somebody works in it again, and goes.
    session["metadata"]["annotations"] = json!({"aigise.dev/last-activity": world.api.now().to_string()});
    world.apply(session).await;
    world.until("it is ready again", |world| phase(world) == "Ready").await;
    world.until("it is suspended again", |world| phase(world) == "Suspended").await;
    world.settle().await;
    assert_eq!((phase(world).as_str(), world.get("pods", "demo--main")), ("Suspended", Value::Null));
}

/// Each death is counted once, and before the Pod that shows it is deleted.
async fn started_again(world: &mut World) {
    let restart = json!({"policy": "Always", "limit": 1});
    world.apply(sandbox(json!({"type": "main", "image": "a:1", "restart": restart}))).await;
    world.settle().await;
    assert_eq!(state(world), "ready");
    let first = world.get("pods", "alone")["metadata"]["uid"].clone();
    world.cluster.end(&World::key("pods", "alone"), 3);
    world.settle().await;
    assert_eq!((state(world).as_str(), &world.get("sandboxes", "alone")["status"]["restarts"]), ("ready", &json!(1)));
    assert_ne!(world.get("pods", "alone")["metadata"]["uid"], first);
    world.cluster.end(&World::key("pods", "alone"), 3);
    world.settle().await;
    assert_eq!((state(world).as_str(), &world.get("sandboxes", "alone")["status"]["restarts"]), ("error", &json!(1)));
}

fn limited(on_expiry: &str) -> Value {
    session(json!({
        "sandboxes": {"main": {"image": "a:1"}},
        "lifetime": {"ttl": "20m", "onExpiry": on_expiry},
        "volumes": {"tools": {"reclaim": "Retain"}},
    }))
}

/// What is there of a kind, by name.
fn names(world: &World, plural: &str) -> Vec<String> {
    world.api.all().into_iter().filter(|(key, _)| key.plural == plural).map(|(key, _)| key.name).collect()
}

async fn released(world: &mut World) {
    world.apply(limited("Release")).await;
    world.until("it is ready", |world| phase(world) == "Ready").await;
    world.until("its time is over", |world| phase(world) == "Expired").await;
    world.settle().await;
    assert_eq!(phase(world), "Expired");
    assert_eq!(names(world, "persistentvolumeclaims"), ["demo--tools"]);
    assert_eq!((names(world, "pods").len(), names(world, "sandboxes").len()), (0, 0));
}

async fn deleted_at_its_end(world: &mut World) {
    world.apply(limited("Delete")).await;
    world.until("it is ready", |world| phase(world) == "Ready").await;
    world.until("its time is over", |world| phase(world) == "gone").await;
    world.settle().await;
    assert_eq!(names(world, "persistentvolumeclaims"), ["demo--tools"]);
    assert_eq!((names(world, "pods").len(), names(world, "sandboxes").len()), (0, 0));
}

async fn left_behind(world: &mut World) {
    let one = || session(json!({"sandboxes": {"main": {"image": "a:1"}}, "autoCleanup": false}));
    world.apply(one()).await;
    world.settle().await;
    assert_eq!(phase(world), "Ready");
    let pod = world.get("pods", "demo--main")["metadata"]["uid"].clone();
    world.delete(one()).await;
    world.settle().await;
    assert_eq!((phase(world).as_str(), &world.get("pods", "demo--main")["metadata"]["uid"]), ("gone", &pod));
    assert_eq!(world.get("sandboxes", "demo--main")["status"]["state"], "ready");
    assert_eq!(names(world, "persistentvolumeclaims").len(), 3);
    // Nobody starts it again.
    world.delete(self::pod("demo--main")).await;
    world.settle().await;
    assert_eq!(names(world, "pods").len(), 0);
    assert_eq!(world.get("sandboxes", "demo--main")["status"]["state"], "error");
}

/// What one session left after its initialisers is where the next one starts.
async fn cached(world: &mut World) {
    let one = || {
        let init = json!({"profile": "None", "steps": [{"name": "build", "command": ["make"]}]});
        session(json!({
            "taskName": "task",
            "cache": {},
            "sandboxes": {"main": {"image": "a:1", "cache": {"root": "Data"}, "init": init}},
            "volumes": {"data": {"sources": [{"configMap": {"name": "poc"}}]}},
        }))
    };
    let said = |world: &World, path: &str| {
        let cache = world.get("aigisesessions", "demo")["status"]["cache"].clone();
        cache.pointer(path).and_then(Value::as_str).unwrap_or_default().to_string()
    };
    world.apply(config_map()).await;
    world.apply(one()).await;
    world.settle().await;
    assert_eq!(phase(world), "Ready");
    // Who is refused its cache goes on without.
    let is_saved = said(world, "/save/state") == "Succeeded";
    assert!(
        is_saved || said(world, "/save/state") == "Failed",
        "{}",
        world.get("aigisesessions", "demo")["status"]["cache"]
    );
    world.delete(one()).await;
    world.settle().await;
    let left = names(world, "persistentvolumeclaims");
    assert_eq!(left.len(), usize::from(is_saved), "whole, or not at all: {left:?}");
    let [entry] = left.as_slice() else { return };
    let annotations = world.get("persistentvolumeclaims", entry)["metadata"]["annotations"].clone();
    assert!(annotations["aigise.dev/cache"].is_string(), "{annotations}");

    world.apply(one()).await;
    world.settle().await;
    assert_eq!(phase(world), "Ready");
    assert_eq!(
        (said(world, "/data/result"), said(world, "/sandboxes/main/result")),
        ("Restored".into(), "Data".into())
    );
    assert_eq!(said(world, "/save/reason"), "AlreadyCached");
    assert_eq!(names(world, "pods"), ["demo--main", "demo--stage"]);
    let annotations = world.get("pods", "demo--main")["metadata"]["annotations"].clone();
    assert_eq!(annotations["aigise.dev/gate"], Value::Null, "its steps are skipped");
    world.delete(one()).await;
    world.delete(json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": entry}})).await;
    world.settle().await;
}

/// A volume that is to be kept, and one that no longer is.
async fn volume_kept(world: &mut World) {
    let one = |data: &str, tools: &str| {
        let volumes = json!({"data": {"reclaim": data}, "tools": {"reclaim": tools}});
        session(json!({"sandboxes": {"main": {"image": "a:1"}}, "volumes": volumes}))
    };
    world.apply(one("Retain", "Delete")).await;
    world.settle().await;
    assert_eq!(phase(world), "Ready");
    world.apply(one("Delete", "Retain")).await;
    world.settle().await;
    world.delete(one("Delete", "Retain")).await;
    world.settle().await;
    assert_eq!(names(world, "persistentvolumeclaims"), ["demo--tools"]);
}

async fn source_fixed(world: &mut World) {
    world.cluster.spoil_sources(true);
    world.apply(config_map()).await;
    let volumes = json!({"data": {"sources": [{"configMap": {"name": "poc"}}]}});
    world.apply(session(json!({"sandboxes": {"main": {"image": "a:1"}}, "volumes": volumes}))).await;
    world.settle().await;
    assert_eq!((phase(world).as_str(), world.get("sandboxes", "demo--main")), ("Error", Value::Null));
    world.cluster.spoil_sources(false);
    let mut fixed = config_map();
    fixed["data"]["crash.txt"] = json!("BBBB");
    world.apply(fixed).await;
    world.settle().await;
    assert_eq!(phase(world), "Ready");
}

async fn recreated(world: &mut World) {
    let of = |image: &str| sandbox(json!({"type": "main", "image": image, "updatePolicy": "Recreate"}));
    world.apply(of("a:1")).await;
    world.settle().await;
    assert_eq!(state(world), "ready");
    world.apply(of("a:2")).await;
    world.settle().await;
    assert_eq!(state(world), "ready");
    assert_eq!(world.get("pods", "alone")["spec"]["containers"][0]["image"], "a:2");
}

/// One that belongs to the session, and one of a type too many. Both go with the session.
async fn by_hand(world: &mut World) {
    let mine = |name: &str, sandbox_type: &str| {
        let mut mine = sandbox(json!({"session": "demo", "type": sandbox_type, "image": "a:1"}));
        mine["metadata"]["name"] = json!(name);
        mine
    };
    world.apply(mine("extra", "tracer")).await;
    world.apply(session(json!({"sandboxes": {"main": {"image": "a:1"}}}))).await;
    world.settle().await;
    world.apply(mine("second", "main")).await;
    world.settle().await;
    let status = |world: &World, name: &str| world.get("sandboxes", name)["status"].clone();
    assert_eq!((phase(world).as_str(), &status(world, "extra")["state"]), ("Ready", &json!("ready")));
    assert_eq!(status(world, "second")["conditions"][0]["reason"], "DuplicateType");
    assert_eq!(world.get("pods", "second"), Value::Null);
    world.delete(session(json!({}))).await;
    world.settle().await;
    assert_eq!((names(world, "sandboxes").len(), names(world, "pods").len()), (0, 0));
}

async fn initialized_again(world: &mut World) {
    world.cluster.break_init("a:1");
    let init = json!({"steps": [{"name": "build", "command": ["make"]}]});
    let mut one = sandbox(json!({"type": "main", "image": "a:1", "init": init}));
    world.apply(one.clone()).await;
    world.settle().await;
    let outcome = |world: &World| world.get("sandboxes", "alone")["status"]["init"]["outcome"].clone();
    assert_eq!((state(world).as_str(), outcome(world)), ("error", json!("Failed")));
    world.cluster.fix_init("a:1");
    one["metadata"]["annotations"] = json!({"aigise.dev/restart": "once"});
    world.apply(one).await;
    world.settle().await;
    assert_eq!((state(world).as_str(), outcome(world)), ("ready", json!("Succeeded")));
}

/// One is there before its session, another has a sandbox started that it needs. Some go with their parent, the rest with the session.
async fn agents(world: &mut World) {
    let one = || {
        session(json!({
            "launch": {"mode": "OnDemand"},
            "sandboxDefaults": {"image": "a:1", "init": {"profile": "None"}},
            "sandboxes": {"main": {}, "gdb_mcp": {}, "fuzz": {}},
        }))
    };
    let status = |world: &World, name: &str| {
        world.get("agents", name)["status"]["status"].as_str().unwrap_or("gone").to_string()
    };
    world.apply(agent("root", json!({}))).await;
    world.settle().await;
    assert_eq!(status(world, "root"), "created");
    world.apply(one()).await;
    world.settle().await;
    assert_eq!((status(world, "root").as_str(), names(world, "sandboxes").len()), ("active", 1));
    let below = json!({"parent": "root", "onParentDeleted": "Delete", "requires": {"sandboxes": ["gdb_mcp"]}});
    world.apply(agent("below", below)).await;
    world.apply(agent("lowest", json!({"parent": "below", "onParentDeleted": "Delete"}))).await;
    world.apply(agent("stays", json!({"parent": "root", "desiredStatus": "paused"}))).await;
    world.settle().await;
    assert_eq!(status(world, "below"), "active");
    assert_eq!(names(world, "sandboxes"), ["demo--gdb-mcp", "demo--main"]);
    let counts = |world: &World| world.get("aigisesessions", "demo")["status"]["agents"]["counts"].clone();
    assert_eq!(counts(world), json!({"active": 3, "paused": 1}));
    world.delete(agent("root", json!({}))).await;
    world.settle().await;
    assert_eq!(names(world, "agents"), ["stays"]);
    assert_eq!(counts(world), json!({"paused": 1}));
    assert_eq!(names(world, "sandboxes").len(), 2, "what was started stays");
    world.delete(one()).await;
    world.settle().await;
    assert_eq!((names(world, "agents").len(), names(world, "sandboxes").len()), (0, 0));
}

/// It fails and is started again, is paused, goes on, and ends.
async fn runner(world: &mut World) {
    let one = || session(json!({"sandboxes": {"main": {"image": "a:1"}}}));
    let of = |desired: &str| {
        let runner = json!({"image": "b:1", "command": ["run"], "sandboxExec": true});
        agent("root", json!({"desiredStatus": desired, "runner": runner}))
    };
    let status = |world: &World| world.get("agents", "root")["status"].clone();
    world.apply(of("active")).await;
    world.apply(one()).await;
    world.settle().await;
    assert_eq!(status(world)["status"], "active");
    let name = status(world)["podName"].as_str().unwrap().to_string();
    assert_eq!(world.get("pods", &name)["spec"]["serviceAccountName"].as_str(), Some(name.as_str()));
    let rule = &world.get("roles", "demo--exec")["rules"][1];
    assert_eq!((&rule["resources"], &rule["resourceNames"]), (&json!(["pods/exec"]), &json!(["demo--main"])));
    assert!(world.get("secrets", "demo--config")["data"]["config.toml"].is_string());
    world.cluster.end(&World::key("pods", &name), 3);
    world.settle().await;
    assert_eq!((&status(world)["status"], &status(world)["exitCode"]), (&json!("active"), &json!(3)));
    world.apply(of("paused")).await;
    world.settle().await;
    assert_eq!((&status(world)["status"], world.get("pods", &name)), (&json!("paused"), Value::Null));
    world.apply(of("active")).await;
    world.settle().await;
    assert_eq!(status(world)["status"], "active");
    world.cluster.end(&World::key("pods", &name), 0);
    world.settle().await;
    assert_eq!((&status(world)["status"], &status(world)["exitCode"]), (&json!("stopped"), &json!(0)));
    world.delete(one()).await;
    world.settle().await;
    assert_eq!((names(world, "agents").len(), names(world, "pods").len(), names(world, "roles").len()), (0, 0, 0));
}
