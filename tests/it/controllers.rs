//! The real controllers over an API server in memory: what lives cost, counted against the budgets of the contract.

use std::time::Duration;

use aigise_operator::api::Agent;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use serde_json::{Value, json};

use super::lives::{LIVES, Life, agent, config_map, corpus, life, phase, session, three_of_everything};
use crate::support::{
    apiserver::{
        Key, Seen, Verb,
        faults::{self, Effect},
    },
    life::{NAMESPACE, World, in_fast_time},
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
            // What is refused is counted below; a name that somebody has is asked for every half a minute.
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

/// Init work reports once that it runs. One that waits reports that besides, and is released; here it goes on for more than three
/// seconds, so that the release is written a second time.
#[test]
fn init_work_costs_one_write_more_and_waiting_for_another_three() {
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
fn an_idle_world_costs_nothing() {
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
        assert!(world.reconciles("sandbox") >= 4, "it has reconciled all of them");
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

/// The session of the contract's budget, with its two agents.
#[test]
fn a_session_with_agents_keeps_the_budget() {
    in_fast_time(async {
        let mut world = World::new();
        for object in [config_map(), corpus(), three_of_everything()] {
            world.apply(object).await;
        }
        for (name, needed) in [("triager", "gdb_mcp"), ("fuzzer", "fuzz")] {
            world.apply(agent(name, json!({"requires": {"sandboxes": [needed]}}))).await;
        }
        world.settle().await;
        for name in ["triager", "fuzzer"] {
            assert_eq!(world.get("agents", name)["status"]["status"], "active");
        }
        assert!(world.operator_writes().len() <= 24, "{}", lines(&world));
    });
}

/// A root, twenty below it, and 479 below those.
async fn tree_of_500(world: &mut World) {
    world.apply(session(json!({"sandboxes": {"main": {"image": "a:1"}}}))).await;
    world.apply(agent("root", json!({}))).await;
    for n in 0..499 {
        let parent = if n < 20 { "root".to_string() } else { format!("a{}", n % 20) };
        world.apply(agent(&format!("a{n}"), json!({"parent": parent, "onParentDeleted": "Delete"}))).await;
    }
    world.settle().await;
    let status = world.get("aigisesessions", "demo")["status"]["agents"].clone();
    assert_eq!(status, json!({"total": 500, "counts": {"active": 500}}));
}

/// What it cost to delete the root: the deletes, and all other writes. One that is gone and still in the cache may be deleted twice.
async fn cost_of_a_cascade(world: &mut World, writes: usize) -> (usize, usize) {
    world.settle().await;
    assert!(world.api.all().iter().all(|(key, _)| key.plural != "agents"), "all are gone");
    let writes = world.operator_writes().split_off(writes);
    let deletes = writes.iter().filter(|seen| seen.verb == Verb::Delete && seen.key.plural == "agents").count();
    (deletes, writes.len() - deletes)
}

#[test]
fn a_tree_of_agents_goes_with_its_root_by_one_write_for_each() {
    in_fast_time(async {
        let mut world = World::new();
        tree_of_500(&mut world).await;
        let writes = world.operator_writes().len();
        // Each says that it waits and that it is active, or the latter alone; those with children count them, once a second.
        assert!(writes < 500 * 2 + 200, "{writes} writes for 500 agents");
        world.delete(agent("root", json!({}))).await;
        let (deletes, others) = cost_of_a_cascade(&mut world, writes).await;
        assert!((499..=520).contains(&deletes), "{deletes} deletes");
        assert!(others < 50, "{others} writes that are not deletes");
    });
}

#[test]
fn a_tree_of_agents_goes_with_a_root_that_was_deleted_while_nobody_looked() {
    in_fast_time(async {
        let mut world = World::new();
        tree_of_500(&mut world).await;
        world.kill();
        world.delete(agent("root", json!({}))).await;
        let writes = world.operator_writes().len();
        world.start();
        let (deletes, others) = cost_of_a_cascade(&mut world, writes).await;
        assert!((499..=520).contains(&deletes), "{deletes} deletes");
        assert!(others < 50, "{others} writes that are not deletes");
    });
}

/// Each reads what it needs, and none asks about the others' Pods.
#[test]
fn many_agents_with_pods_cost_as_much_each_as_few() {
    let reconciles = |agents: usize| {
        in_fast_time(async {
            let mut world = World::new();
            world.apply(session(json!({"sandboxes": {"main": {"image": "a:1"}}}))).await;
            for n in 0..agents {
                world.apply(agent(&format!("a{n}"), json!({"runner": {"image": "b:1"}}))).await;
            }
            world.settle().await;
            let status = world.get("aigisesessions", "demo")["status"]["agents"].clone();
            assert_eq!(status, json!({"total": agents, "counts": {"active": agents}}));
            world.reconciles("agent")
        })
    };
    let (few, many) = (reconciles(5), reconciles(40));
    assert!(many <= few * 8 + few, "{few} reconciles for 5 agents, {many} for 40");
}

/// Each sandbox is started three times, and has one event for it that says so.
#[test]
fn what_happens_again_is_counted_and_not_reported_anew() {
    in_fast_time(async {
        let mut world = World::new();
        let names = ["one", "two", "three"];
        for name in names {
            world
                .apply(json!({
                    "apiVersion": "aigise.dev/v1alpha1", "kind": "Sandbox", "metadata": {"name": name},
                    "spec": {"type": "main", "image": "a:1"},
                }))
                .await;
        }
        world.settle().await;
        for _ in 0..2 {
            for name in names {
                world.api.delete(&World::key("pods", name), &json!({}));
            }
            world.settle().await;
        }
        for name in names {
            let all = world.api.all();
            let about = |event: &&Value| event["regarding"]["name"] == name && event["reason"] == "Ready";
            let events: Vec<_> = all.iter().map(|(_, object)| &**object).filter(about).collect();
            let counts: Vec<_> = events.iter().map(|event| &event["series"]["count"]).collect();
            assert_eq!(counts, [&json!(3)], "{name}");
        }
    });
}

/// Only what is missing is asked for past the caches.
#[test]
fn an_ordinary_life_asks_for_nothing_of_ours() {
    for name in ["a session with sources", "a sandbox alone", "types come and go"] {
        in_fast_time(async {
            let mut world = lived(life(name)).await;
            world.restart();
            world.settle().await;
            let of_ours = |seen: &&Seen| {
                let is_ours = ["aigisesessions", "sandboxes", "agents"].contains(&seen.key.plural);
                seen.client.starts_with("operator") && seen.verb == Verb::Get && is_ours
            };
            let requests = world.api.requests();
            let asked: Vec<_> = requests.iter().filter(of_ours).map(Seen::line).collect();
            // A Pod that was deleted is missed once.
            let missed = usize::from(name == "types come and go");
            assert!(asked.len() <= missed, "{name}: {asked:?}");
        });
    }
}

/// A condition of somebody else's is read, and never written.
#[test]
fn what_the_program_of_an_agent_says_stays_as_it_is() {
    in_fast_time(async {
        let mut world = World::new();
        world.apply(session(json!({"sandboxes": {"main": {"image": "a:1"}}}))).await;
        world.apply(agent("root", json!({}))).await;
        world.settle().await;
        let health = |status: &str| {
            let mut said = json!({"type": "RuntimeHealthy", "status": status, "reason": "Model", "message": "m"});
            said["lastTransitionTime"] = json!("2026-01-01T00:00:00Z");
            json!({
                "apiVersion": "aigise.dev/v1alpha1", "kind": "Agent", "metadata": {"name": "root"},
                "status": {"conditions": [said]},
            })
        };
        for (said, expected) in [("False", "error"), ("True", "active")] {
            let agents: Api<Agent> = Api::namespaced(world.user.clone(), NAMESPACE);
            let patch = Patch::Apply(health(said));
            agents.patch_status("root", &PatchParams::apply("runtime").force(), &patch).await.unwrap();
            world.settle().await;
            let live = world.get("agents", "root");
            assert_eq!(live["status"]["status"], expected);
            let conditions = live["status"]["conditions"].as_array().unwrap();
            let kept = conditions.iter().find(|condition| condition["type"] == "RuntimeHealthy").unwrap();
            assert_eq!((&kept["status"], &kept["reason"]), (&said.into(), &"Model".into()));
        }
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

/// What agents may is said once for their session, however many they are: who may, and in which Pods, as they come and go.
#[test]
fn all_agents_of_a_session_have_one_role() {
    in_fast_time(async {
        let mut world = World::new();
        world.apply(session(json!({"sandboxes": {"main": {"image": "a:1"}}}))).await;
        for name in ["x", "y", "z"] {
            world.apply(agent(name, json!({"runner": {"image": "b:1", "sandboxExec": true}}))).await;
        }
        world.settle().await;
        assert_eq!(world.get("aigisesessions", "demo")["status"]["agents"]["counts"], json!({"active": 3}));
        let of_roles = |world: &World| world.operator_writes().iter().filter(|seen| seen.key.plural == "roles").count();
        let named = |world: &World| world.get("roles", "demo--exec")["rules"][1]["resourceNames"].clone();
        assert_eq!(named(&world), json!(["demo--main"]));
        assert!(of_roles(&world) <= 3, "{}", lines(&world));

        // Once without the Pod, since anybody's may come to have its name, and once with the next.
        let before = of_roles(&world);
        world.api.delete(&World::key("pods", "demo--main"), &json!({}));
        world.settle().await;
        assert_eq!(named(&world), json!(["demo--main"]));
        assert_eq!(of_roles(&world) - before, 2, "{}", lines(&world));

        // Who goes takes along what is its own, and the last of them the role.
        let grants = |world: &World| {
            let kinds = ["roles", "rolebindings", "serviceaccounts"];
            world.api.all().iter().filter(|(key, _)| kinds.contains(&key.plural)).count()
        };
        assert_eq!(grants(&world), 7);
        world
            .apply(agent("x", json!({"desiredStatus": "paused", "runner": {"image": "b:1", "sandboxExec": true}})))
            .await;
        world.apply(agent("y", json!({}))).await;
        world.settle().await;
        assert_eq!(grants(&world), 3);
        world.allow_runner_exec = false;
        world.restart();
        world.settle().await;
        assert_eq!(grants(&world), 0);
        let refused = world.operator_writes().into_iter().filter(|seen| seen.code.is_none_or(|code| code >= 400));
        // A Sandbox that its agent has taken away may still say that its Pod goes.
        let refused: Vec<_> =
            refused.filter(|seen| (seen.code, seen.subresource) != (Some(404), Some("status"))).collect();
        assert!(refused.is_empty(), "{}", faults::lines(&refused));
    });
}

/// On a real cluster, where a claim is bound later than it is created, this is one more.
#[test]
fn a_session_of_one_sandbox_over_one_claim_costs_eight_writes() {
    in_fast_time(async {
        let mut world = World::new();
        let spec = json!({"sandboxes": {"main": {"image": "a:1"}}, "volumes": {"layout": "Single"}});
        world.apply(session(spec)).await;
        world.settle().await;
        assert_eq!((phase(&world).as_str(), world.operator_writes().len()), ("Ready", 8), "{}", lines(&world));
    });
}

/// The layout of a session's volumes is settled once, whatever the operator's default becomes and whatever becomes of the claims.
#[test]
fn another_default_layout_moves_no_session() {
    use aigise_operator::api::session::VolumeLayout::{Separate, Single};
    for (default, later, claims) in [(Separate, Single, 3), (Single, Separate, 1)] {
        in_fast_time(async {
            let mut world = World::new();
            world.volume_layout = default;
            world.restart();
            world.apply(session(json!({"sandboxes": {"main": {"image": "a:1"}}}))).await;
            world.settle().await;
            let count = |world: &World| {
                let all = world.api.all();
                all.iter().filter(|(key, _)| key.plural == "persistentvolumeclaims").count()
            };
            assert_eq!((phase(&world).as_str(), count(&world)), ("Ready", claims), "{default}");
            let before = world.version();
            world.volume_layout = later;
            world.restart();
            world.settle().await;
            assert_eq!(world.version(), before, "{default}: {}", lines(&world));
            if default == Separate {
                return;
            }
            // The claim loses what says how it is laid out.
            let claim = |world: &World| world.get("persistentvolumeclaims", "demo--data");
            let pod = world.get("pods", "demo--main")["metadata"]["uid"].clone();
            let key = Key { plural: "persistentvolumeclaims", namespace: NAMESPACE.into(), name: "demo--data".into() };
            world.api.edit(&key, |claim| claim["metadata"]["annotations"] = json!({}));
            world.restart();
            world.settle().await;
            assert_eq!(claim(&world)["metadata"]["annotations"].get("aigise.dev/layout"), None);
            assert_eq!((count(&world), &world.get("pods", "demo--main")["metadata"]["uid"]), (1, &pod));
            // A size cannot be removed again, so it must not stop the session.
            let sized = json!({"sandboxes": {"main": {"image": "a:1"}}, "volumes": {"tools": {"size": "2Gi"}}});
            world.apply(session(sized)).await;
            world.settle().await;
            let conditions = world.get("aigisesessions", "demo")["status"]["conditions"].clone();
            let volumes = conditions.as_array().unwrap().iter().find(|one| one["type"] == "VolumesReady").unwrap();
            assert_eq!((phase(&world).as_str(), &volumes["status"]), ("Ready", &json!("True")), "{conditions}");
            let words = "spec.volumes.tools.size has no effect: the volumes are folders of one claim, which has the size of data.";
            assert!(volumes["message"].as_str().unwrap().ends_with(words), "{volumes}");
        });
    }
}

/// What Pods need is written at the same time, and before them.
#[test]
fn groundwork_does_not_wait_for_groundwork_and_pods_wait_for_it() {
    in_fast_time(async {
        let mut world = World::new();
        let is_policy = |seen: &Seen| seen.key.plural == "networkpolicies" && seen.verb.writes();
        world.api.fault(1, Effect::Delay(Duration::from_secs(10)), is_policy);
        world.apply(session(json!({"sandboxes": {"main": {"image": "a:1"}}}))).await;
        tokio::time::sleep(Duration::from_secs(5)).await;
        for (plural, name) in
            [("services", "demo"), ("persistentvolumeclaims", "demo--data"), ("persistentvolumeclaims", "demo--tools")]
        {
            assert!(!world.get(plural, name).is_null(), "{plural} {name} waits for the policy");
        }
        for plural in ["sandboxes", "pods"] {
            assert!(world.get(plural, "demo--main").is_null(), "{plural} are there before the policy");
        }
        world.settle().await;
        assert_eq!(phase(&world), "Ready");
    });
}
