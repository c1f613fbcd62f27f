//! The real controllers over an API server in memory: what lives cost, counted against the budgets of the contract.

use serde_json::json;

use super::lives::{LIVES, Life, life, session, three_of_everything};
use crate::support::{
    apiserver::{Seen, faults},
    life::{World, in_fast_time},
};

/// Lives a life, and gives the world as it is then.
async fn lived(life: &Life) -> World {
    let mut world = World::new();
    (life.live)(&mut world).await;
    world
}

fn lines(world: &World) -> String {
    faults::lines(&world.operator_writes())
}

#[test]
fn every_life_costs_no_more_than_its_budget() {
    for life in &LIVES {
        in_fast_time(async {
            let world = lived(life).await;
            // What is refused is looked at below; a name that somebody has is asked for every half a minute.
            let writes = world.operator_writes().iter().filter(|seen| seen.code.is_some_and(|code| code < 400)).count();
            assert!(writes <= life.writes, "{}: {writes} writes\n{}", life.name, lines(&world));
        });
    }
}

/// What is not written cannot be refused: the plan never sends what the API server does not take.
#[test]
fn no_write_of_a_calm_life_is_refused() {
    for life in &LIVES {
        in_fast_time(async {
            let world = lived(life).await;
            let refused = world.operator_writes().into_iter().filter(|seen| seen.code.is_none_or(|code| code >= 400));
            // Where somebody else has the name of a Pod, nobody can know before it is tried: the cache holds only what is ours.
            let is_expected = |seen: &Seen| match life.name {
                "somebody else has a name" => seen.code == Some(409),
                // One that goes with its session says so, and is gone already.
                "sandboxes are made by hand" => seen.code == Some(404) && seen.subresource == Some("status"),
                _ => false,
            };
            let refused: Vec<_> = refused.filter(|seen| !is_expected(seen)).collect();
            assert_eq!(refused.len(), 0, "{}:\n{}", life.name, lines(&world));
        });
    }
}

#[test]
fn a_cold_sandbox_costs_three_writes_and_four_reconciles() {
    in_fast_time(async {
        let world = lived(life("a sandbox alone")).await;
        assert!(world.operator_writes().len() <= 3, "{}", lines(&world));
        assert!(world.reconciles("sandbox") <= 4, "{} reconciles", world.reconciles("sandbox"));
    });
    in_fast_time(async {
        let world = lived(life("a session with sources")).await;
        let of_sandboxes = world.operator_writes().into_iter().filter(|seen| seen.key.name.ends_with("--main")).count();
        assert!(of_sandboxes <= 4, "the session's one, and three of the sandbox itself:\n{}", lines(&world));
        assert!(world.reconciles("sandbox") <= 12, "{} reconciles", world.reconciles("sandbox"));
    });
}

/// A gate says once that it works. One that waits says so besides, and is released; here its work goes on for more than three
/// seconds, so that the release is written a second time.
#[test]
fn a_gate_costs_one_write_more_and_waiting_for_another_three() {
    in_fast_time(async {
        let mut world = World::new();
        let step = json!({"steps": [{"name": "one", "command": ["true"]}]});
        let main = json!({"image": "a:1", "init": step});
        let fuzz = json!({"image": "a:1", "init": step, "dependsOn": ["main"]});
        world.apply(session(json!({"sandboxes": {"main": main, "fuzz": fuzz}}))).await;
        world.settle().await;
        for (name, limit) in [("demo--main", 4), ("demo--fuzz", 7)] {
            assert_eq!(world.get("sandboxes", name)["status"]["init"]["outcome"], "Succeeded");
            // Its Pod and its status; that it is there at all is its session's.
            let is_own = |seen: &Seen| {
                seen.key.name == name && (seen.key.plural == "pods" || seen.subresource == Some("status"))
            };
            let own = world.operator_writes().into_iter().filter(is_own).count();
            assert!(own <= limit, "{own} writes of {name}:\n{}", lines(&world));
        }
    });
}

#[test]
fn a_world_at_rest_costs_nothing() {
    in_fast_time(async {
        let mut world = lived(life("a session with sources")).await;
        world
            .apply(json!({
                "apiVersion": "aigise.dev/v1alpha1", "kind": "Sandbox", "metadata": {"name": "alone"},
                "spec": {"type": "main", "image": "a:1"},
            }))
            .await;
        world.settle().await;
        let rest = world.operator_writes().len();
        let nothing_new = |world: &World, what: &str| {
            let new = world.operator_writes().split_off(rest).iter().map(Seen::line).collect::<Vec<_>>();
            assert!(new.is_empty(), "{what}: {new:?}");
        };
        tokio::time::sleep(std::time::Duration::from_secs(3600)).await;
        nothing_new(&world, "an hour");
        world.restart();
        world.settle().await;
        assert!(world.reconciles("sandbox") >= 4, "it has looked at all of them");
        nothing_new(&world, "a restart");
        world.api.cut_watches();
        world.settle().await;
        nothing_new(&world, "cut watches");
        let lists = |world: &World| world.api.requests().iter().filter(|seen| seen.line() == "list sandboxes/").count();
        let before = lists(&world);
        world.apply(json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "other"}})).await;
        world.api.compact();
        world.api.cut_watches();
        world.settle().await;
        assert!(lists(&world) > before, "everything was listed anew");
        nothing_new(&world, "a relist");
        world.apply(three_of_everything()).await;
        world.settle().await;
        nothing_new(&world, "the same session, applied again");
    });
}

/// A sandbox reads of its session what it has to ask; its own object does not change with it.
#[test]
fn what_a_session_offers_reaches_its_sandboxes_when_it_changes() {
    in_fast_time(async {
        let mut world = World::new();
        let at = |port: u16| {
            let main = json!({"image": "a:1", "mcpServices": ["gdb"]});
            session(json!({"sandboxes": {"main": main}, "mcpServices": {"gdb": {"sandbox": "main", "port": port}}}))
        };
        world.apply(at(1111)).await;
        world.settle().await;
        let main = world.get("sandboxes", "demo--main");
        assert_eq!(main["status"]["endpoints"]["gdb"], "http://main.demo.lab.svc:1111/sse");
        world.apply(at(2222)).await;
        world.settle().await;
        let main = world.get("sandboxes", "demo--main");
        assert_eq!(main["status"]["endpoints"]["gdb"], "http://main.demo.lab.svc:2222/sse");
        let conditions = main["status"]["conditions"].as_array().unwrap();
        let outdated = conditions.iter().find(|condition| condition["type"] == "OutOfDate").unwrap();
        assert_eq!(outdated["status"], "True", "the Pod asks at the old place");
    });
}
