//! Nothing that goes wrong on the way changes where it ends, and it ends.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
    time::Duration,
};

use serde_json::{Value, json};

use super::lives::{LIVES, Life, life, phase, sandbox, session, three_of_everything};
use crate::support::{
    apiserver::{
        Seen, Verb,
        faults::{self, Chaos, Effect},
    },
    life::{NAMESPACE, World, in_fast_time, same},
};

/// Lives a life in a world that was made worse, then a while in a good one, and gives how it ended.
fn lived(life: &Life, worsen: impl FnOnce(&World)) -> World {
    in_fast_time(async {
        let mut world = World::new();
        worsen(&world);
        (life.live)(&mut world).await;
        world.api.chaos(None);
        world.api.lag(Duration::ZERO);
        world.settle().await;
        world
    })
}

fn is_ours(seen: &Seen) -> bool {
    seen.client.starts_with("operator")
}

/// Successful requests that made this object.
fn births(world: &World, plural: &str, name: &str) -> usize {
    let made = world.operator_writes().into_iter().filter(|seen| seen.code == Some(201));
    made.filter(|seen| seen.key.plural == plural && seen.key.name == name).count()
}

/// Every write of a life fails once, the first time, in the same way.
#[test]
fn each_write_may_fail_once_in_any_way() {
    let common = [("409", Effect::code(409)), ("403", Effect::code(403)), ("a lost answer", Effect::LoseAnswer)];
    let rare = [
        ("422", Effect::code(422)),
        ("429", Effect::code(429)),
        ("500", Effect::code(500)),
        ("a request that hangs", Effect::Hang),
    ];
    for life in &LIVES {
        let calm = lived(life, |_| {});
        let rare = if life.name == "a session with sources" { rare.as_slice() } else { &[] };
        for (what, effect) in common.iter().chain(rare) {
            let world = lived(life, |world| {
                let known = Arc::new(Mutex::new(BTreeSet::new()));
                let is_first =
                    move |seen: &Seen| is_ours(seen) && seen.verb.writes() && known.lock().unwrap().insert(seen.line());
                world.api.fault(usize::MAX, effect.clone(), is_first);
            });
            let what = format!("{}, {what}", life.name);
            same(&world.end_state(), &calm.end_state(), &what);
            let writes = world.operator_writes().len();
            assert!(writes <= 2 * life.writes, "{what}: {writes} writes");
        }
    }
}

/// Every life, with a few seeds each; those that are rich in writes with some more.
#[test]
fn what_goes_wrong_by_chance_changes_nothing_in_the_end() {
    let rich =
        ["a session with sources", "types come and go", "a session is made anew under its name", "a container ends"];
    for life in &LIVES {
        let calm = lived(life, |_| {});
        for seed in 0..if rich.contains(&life.name) { 4 } else { 2 } {
            let what = format!("{}, seed {seed}", life.name);
            let world = lived(life, |world| world.api.chaos(Some(Chaos::new(seed, 6))));
            same(&world.end_state(), &calm.end_state(), &what);
            // Most where a session is gone and its watch is late: what is made for it meanwhile is collected, and made anew. How
            // often a name is asked for that somebody else has is a matter of time.
            let mut writes = world.operator_writes();
            writes.retain(|seen| seen.code != Some(409));
            assert!(writes.len() <= 4 * life.writes, "{what}: {} writes\n{}", writes.len(), faults::lines(&writes));
        }
    }
}

/// Watches that end, report late or have to begin anew make the operator slow, and nothing worse.
#[test]
fn watches_may_be_late_or_cut_at_any_time() {
    for life in &LIVES {
        let calm = lived(life, |_| {});
        let late = lived(life, |world| world.api.lag(Duration::from_secs(5)));
        let cut = lived(life, |world| {
            let api = world.api.clone();
            tokio::spawn(async move {
                for round in 0..60 {
                    tokio::time::sleep(Duration::from_millis(130)).await;
                    if round % 3 == 0 {
                        api.compact();
                    }
                    api.cut_watches();
                }
            });
        });
        for (what, world) in [("late watches", &late), ("cut watches", &cut)] {
            let what = format!("{}, {what}", life.name);
            same(&world.end_state(), &calm.end_state(), &what);
            let writes = world.operator_writes().len();
            assert!(writes <= 2 * life.writes, "{what}: {writes} writes\n{}", faults::lines(&world.operator_writes()));
            for pod in ["demo--stage", "demo--main", "demo--gdb-mcp", "demo--fuzz"] {
                let made = births(&calm, "pods", pod);
                assert_eq!(births(world, "pods", pod), made, "{what}: {pod} was made as often as ever");
            }
        }
    }
}

/// An operator that starts with lists from long ago does not undo what was done since.
#[test]
fn old_lists_at_a_start_do_no_harm() {
    let life = life("a session with sources");
    for versions in (2..45).step_by(3) {
        in_fast_time(async {
            let mut world = World::new();
            (life.live)(&mut world).await;
            let before = (world.end_state(), uids(&world));
            world.api.fault(6, Effect::Stale(versions), |seen| is_ours(seen) && seen.verb == Verb::List);
            let (all, writes) = (world.api.requests().len(), world.operator_writes().len());
            world.restart();
            world.settle().await;
            assert!(world.api.requests()[all..].iter().filter(|seen| seen.verb == Verb::List).count() >= 6);
            same(&world.end_state(), &before.0, "old lists");
            assert_eq!(uids(&world), before.1, "and nothing was made anew");
            let writes = world.operator_writes().len() - writes;
            assert!(writes <= life.writes, "{versions} versions back: {writes} writes");
        });
    }
}

/// A sandbox that was made by hand goes with its session. That another session has the name is not believed of a cache, which may
/// be older than the session.
#[test]
fn a_sandbox_made_by_hand_is_not_an_orphan_to_an_old_cache() {
    in_fast_time(async {
        let mut world = World::new();
        let demo = || session(json!({"sandboxes": {"main": {"image": "a:1"}}}));
        world.apply(demo()).await;
        world.settle().await;
        let old = *world.api.changes().borrow();
        world.delete(demo()).await;
        world.apply(demo()).await;
        world.apply(sandbox(json!({"session": "demo", "type": "extra", "image": "a:1"}))).await;
        world.settle().await;
        let made = world.get("sandboxes", "alone");
        assert_eq!(made["status"]["state"], "ready");

        let versions = *world.api.changes().borrow() - old;
        world.api.fault(1, Effect::Stale(versions), |seen| is_ours(seen) && seen.line() == "list aigisesessions/");
        world.api.lag(Duration::from_secs(5));
        world.restart();
        world.settle().await;
        let now = world.get("sandboxes", "alone");
        assert_eq!((&now["metadata"]["uid"], &now["status"]["state"]), (&made["metadata"]["uid"], &"ready".into()));
    });
}

fn uids(world: &World) -> Vec<Value> {
    world
        .api
        .all()
        .iter()
        .filter(|(key, _)| key.plural != "events")
        .map(|(_, object)| object["metadata"]["uid"].clone())
        .collect()
}

/// A namespace that goes is left alone: what is refused there is not tried for ever.
#[test]
fn a_namespace_may_go_at_any_time() {
    for after in [0, 300, 1500, 60_000] {
        in_fast_time(async {
            let mut world = World::new();
            world.apply(three_of_everything()).await;
            tokio::time::sleep(Duration::from_millis(after)).await;
            world
                .delete(serde_json::json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}))
                .await;
            world.settle().await;
            let left: Vec<_> =
                world.api.all().into_iter().filter(|(key, _)| key.namespace == NAMESPACE).map(|(key, _)| key).collect();
            assert!(left.is_empty(), "after {after} ms: {left:?}");
            assert!(world.api.get("namespaces", "", NAMESPACE).is_none());
            let refused = world.operator_writes().into_iter().filter(|seen| seen.code == Some(403)).count();
            assert!(refused <= 6, "after {after} ms: {refused} writes were refused");
        });
    }
}

#[test]
fn a_session_that_cannot_be_made_ready_is_left_alone() {
    in_fast_time(async {
        let mut world = World::new();
        world
            .api
            .fault(usize::MAX, Effect::code(422), |seen| is_ours(seen) && seen.line() == "create pods/demo--stage");
        world.apply(serde_json::json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "poc"}})).await;
        world.apply(three_of_everything()).await;
        tokio::time::sleep(Duration::from_secs(3600)).await;
        let condition = &world.get("aigisesessions", "demo")["status"]["conditions"][0];
        assert_eq!((&condition["type"], &condition["reason"]), (&"Ready".into(), &"Refused".into()));
        assert_ne!(phase(&world), "Ready");
        let lasting = world.operator_writes().len();
        assert!(lasting <= 10 + 3600 / 300, "{lasting} writes in an hour");
        world.kill();
    });
}
