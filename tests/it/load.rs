//! A namespace under load, and what it costs itself and others: reconciles, wake-ups and writes, counted.

use std::time::Duration;

use serde_json::{Value, json};

use super::lives::{agent, session};
use crate::support::{
    apiserver::Seen,
    life::{World, in_fast_time},
};

/// A sandbox by hand.
fn sandbox(namespace: &str, name: &str, spec: Value) -> Value {
    json!({
        "apiVersion": "aigise.dev/v1alpha1", "kind": "Sandbox",
        "metadata": {"namespace": namespace, "name": name}, "spec": spec,
    })
}

fn alone() -> Value {
    json!({"type": "main", "image": "a:1"})
}

#[test]
fn a_cold_sandbox_beside_a_flood_waits_for_the_reconciles_in_flight() {
    in_fast_time(async {
        let mut world = World::new();
        for name in ["flood", "quiet"] {
            world.apply(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})).await;
        }
        world.kill();
        for n in 0..500 {
            world.apply(sandbox("flood", &format!("s{n}"), alone())).await;
        }
        world.apply(sandbox("quiet", "cold", alone())).await;
        world.start();
        world.until("the cold sandbox has a Pod", |world| world.api.get("pods", "quiet", "cold").is_some()).await;
        let writes = world.operator_writes();
        let before = writes.iter().position(|seen| seen.key.namespace == "quiet").unwrap();
        assert!(before <= 16 + 1, "{before} writes for the flood came before");
    });
}

#[test]
fn a_cold_sandbox_beside_many_that_go_waits_for_the_reconciles_in_flight() {
    in_fast_time(async {
        let mut world = World::new();
        for name in ["flood", "quiet"] {
            world.apply(json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})).await;
        }
        let of_flood = |n: usize| sandbox("flood", &format!("s{n}"), alone());
        for n in 0..300 {
            world.apply(of_flood(n)).await;
        }
        world.settle().await;
        for n in 0..300 {
            world.delete(of_flood(n)).await;
        }
        let (writes, reconciles) = (world.operator_writes().len(), world.reconciles("sandbox"));
        world.apply(sandbox("quiet", "cold", alone())).await;
        world.until("the cold sandbox has a Pod", |world| world.api.get("pods", "quiet", "cold").is_some()).await;
        let new = world.operator_writes().split_off(writes);
        let before = new.iter().position(|seen| seen.key.namespace == "quiet").unwrap();
        let reconciled = world.reconciles("sandbox") - reconciles;
        assert!(before <= 17 && reconciled <= 17 + 1, "{before} writes and {reconciled} reconciles came before");
    });
}

/// A session with so many sandboxes by hand, and what is counted while they all go at once.
fn reconciles_of_a_clean_up(count: usize, sandbox_type: impl Fn(usize) -> String) -> u64 {
    in_fast_time(async {
        let mut world = World::new();
        world.apply(session(json!({"sandboxes": {"main": {"image": "a:1"}}}))).await;
        let by_hand = |n: usize| {
            let spec = json!({"session": "demo", "type": sandbox_type(n), "image": "a:1", "suspend": true});
            sandbox("lab", &format!("s{n}"), spec)
        };
        for n in 0..count {
            world.apply(by_hand(n)).await;
        }
        world.settle().await;
        let before = world.reconciles("sandbox");
        for n in 0..count {
            world.delete(by_hand(n)).await;
        }
        world.settle().await;
        world.reconciles("sandbox") - before
    })
}

#[test]
fn a_sandbox_that_goes_wakes_the_next_of_its_type_and_no_other() {
    // Each of a type of its own, so that nobody waits for one that goes.
    assert_eq!(reconciles_of_a_clean_up(40, |n| format!("t{n}")), 0);
    let reconciles = reconciles_of_a_clean_up(40, |_| "extra".into());
    assert!((1..=40 * 2).contains(&reconciles), "{reconciles} reconciles for 40 of one type");
}

#[test]
fn a_sandbox_that_flaps_wakes_the_agents_that_require_it_and_no_other() {
    in_fast_time(async {
        let mut world = World::new();
        world.apply(session(json!({"sandboxes": {"main": {"image": "a:1"}}}))).await;
        world.apply(sandbox("lab", "mine", json!({"session": "demo", "type": "extra", "image": "a:1"}))).await;
        for n in 0..20 {
            world.apply(agent(&format!("a{n}"), json!({}))).await;
        }
        world.apply(agent("needs", json!({"requires": {"sandboxes": ["extra"]}}))).await;
        world.settle().await;
        assert_eq!(world.get("agents", "needs")["status"]["status"], "active");
        let before = world.reconciles("agent");
        for _ in 0..3 {
            world.cluster.end(&World::key("pods", "mine"), 1);
            world.settle().await;
        }
        let reconciles = world.reconciles("agent") - before;
        assert!((3..=3 * 3).contains(&reconciles), "{reconciles} reconciles of agents");
    });
}

#[test]
fn changes_of_many_agents_are_one_reconcile_of_their_session_in_a_second() {
    in_fast_time(async {
        let mut world = World::new();
        world.apply(session(json!({"sandboxes": {"main": {"image": "a:1"}}}))).await;
        let paused = |n: usize, round: usize| {
            let state = if round.is_multiple_of(2) { "paused" } else { "active" };
            agent(&format!("a{n}"), json!({"desiredStatus": state}))
        };
        for n in 0..100 {
            world.apply(agent(&format!("a{n}"), json!({}))).await;
        }
        world.settle().await;
        let (before, since) = (world.reconciles("session"), tokio::time::Instant::now());
        for round in 0..10 {
            for n in 0..100 {
                world.apply(paused(n, round)).await;
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        }
        let (reconciles, seconds) = (world.reconciles("session") - before, since.elapsed().as_secs());
        assert!((1..=seconds + 2).contains(&reconciles), "{reconciles} reconciles in {seconds} seconds");
        world.settle().await;
        let counts = &world.get("aigisesessions", "demo")["status"]["agents"]["counts"];
        assert_eq!(counts, &json!({"active": 100}), "nothing is lost");
    });
}

#[test]
fn many_sandboxes_at_once_cost_little_more_each_than_one() {
    in_fast_time(async {
        let mut world = World::new();
        world.cluster.slow_down();
        let count = 200;
        for n in 0..count {
            world.apply(sandbox("lab", &format!("s{n}"), alone())).await;
        }
        world.settle().await;
        assert_eq!(world.get("sandboxes", "s0")["status"]["state"], "ready");
        let writes = world.operator_writes().len();
        assert!((2 * count..=22 * count / 10).contains(&writes), "{writes} writes for {count}");
    });
}

/// How often the operator wrote something since a request.
fn count(world: &World, since: usize, is_it: impl Fn(&Seen) -> bool) -> usize {
    let writes = world.api.writes().split_off(since);
    writes.iter().filter(|seen| seen.client.starts_with("operator") && is_it(seen)).count()
}

const MINUTES: usize = 5;

#[test]
fn a_sandbox_that_is_to_start_again_all_the_time_has_so_many_pods_and_events_a_minute() {
    in_fast_time(async {
        let mut world = World::new();
        world.apply(sandbox("lab", "flaps", alone())).await;
        world.settle().await;
        let since = world.api.writes().len();
        for round in 0..MINUTES * 60 * 2 {
            let mut flaps = sandbox("lab", "flaps", alone());
            flaps["metadata"]["annotations"] = json!({"aigise.dev/restart": round.to_string()});
            world.apply(flaps).await;
            tokio::time::sleep(Duration::from_millis(500)).await;
        }
        let pods = count(&world, since, |seen| seen.line() == "create pods/flaps");
        assert!((10..=10 + 6 * MINUTES).contains(&pods), "{pods} Pods in {MINUTES} minutes");
        let events = count(&world, since, |seen| seen.key.plural == "events");
        assert!((1..=25 + 1).contains(&events), "{events} events in {MINUTES} minutes");
        world.settle().await;
        let (pod, sandbox) = (world.get("pods", "flaps"), world.get("sandboxes", "flaps"));
        let last = (MINUTES * 60 * 2 - 1).to_string();
        assert_eq!(pod["metadata"]["annotations"]["aigise.dev/restart"], last, "the last requested restart is done");
        assert_eq!(sandbox["status"]["state"], "ready");
    });
}

#[test]
fn a_sandbox_that_flaps_has_so_many_statuses_a_minute_and_the_last_is_true() {
    in_fast_time(async {
        let mut world = World::new();
        world.apply(sandbox("lab", "flaps", alone())).await;
        world.settle().await;
        let since = world.api.writes().len();
        let set = |world: &World, is_ready: bool| {
            world.api.edit(&World::key("pods", "flaps"), |pod| {
                pod["status"]["containerStatuses"][0]["ready"] = json!(is_ready);
            });
        };
        for round in 0..MINUTES * 60 * 4 {
            set(&world, round % 2 == 1);
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
        let statuses = count(&world, since, |seen| seen.subresource == Some("status"));
        assert!((20..=20 + 20 * MINUTES).contains(&statuses), "{statuses} statuses in {MINUTES} minutes");
        for (is_ready, state) in [(false, "uninitialized"), (true, "ready")] {
            set(&world, is_ready);
            world.settle().await;
            assert_eq!(world.get("sandboxes", "flaps")["status"]["state"], state);
        }
    });
}
