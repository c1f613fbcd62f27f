//! Caches in the small world: what is never deleted, never saved and never skipped, whatever happens to a session and its status.

use aigise_operator::api::{
    sandbox::SandboxState,
    session::{CacheResult, CacheStatus, MissReason, SaveState},
};
use kube::ResourceExt;
use serde_json::{Value, json};

use super::{
    model::{Event, World},
    objects::snapshot,
};
use aigise_operator::protocol::{
    cache::{RestoreFault, SaveFault},
    init::{InitFailure, Work},
};

fn session(name: &str, change: impl FnOnce(&mut Value)) -> Event {
    let steps = json!({"profile": "None", "steps": [{"name": "build", "command": ["make"]}]});
    let mut spec = json!({
        "taskName": "task",
        "cache": {"storage": {"size": "2Gi"}, "exclude": ["/shared/log", "/bash_tools/tmp/"]},
        "sandboxes": {"main": {"image": "registry.example/a:1", "cache": {"root": "Data"}, "init": steps}},
        "volumes": {"data": {"sources": [{"configMap": {"name": "poc"}}]}},
    });
    change(&mut spec);
    let session =
        json!({"apiVersion": "aigise.dev/v1alpha1", "kind": "AigiseSession", "metadata": {"name": name}, "spec": spec});
    Event::ApplySession(serde_json::from_value(session).unwrap())
}

fn with_source() -> World {
    let mut world = World::new();
    world.happens(Event::ConfigMap { name: "poc".into(), content: "a".into() });
    world
}

/// Leads a session to where its sandbox is ready.
fn starts(world: &mut World, name: &str) {
    world.happens(Event::Staged { pod: format!("{name}--stage"), roots: vec!["fuzz".into()] });
    world.happens(Event::Scheduled(format!("{name}--main")));
    world.happens(Event::Running(format!("{name}--main")));
}

/// A world with the cache of the session `one`.
fn cached() -> World {
    let mut world = with_source();
    world.happens(session("one", |_| {}));
    starts(&mut world, "one");
    world.happens(Event::Saved("one--save".into()));
    assert_eq!(saved(&world, "one"), (SaveState::Succeeded, None));
    world
}

/// The session `demo`, restored from it, and ready.
fn restored() -> World {
    let mut world = cached();
    world.happens(session("demo", |_| {}));
    world.happens(Event::Restored("demo--restore".into()));
    starts(&mut world, "demo");
    assert_eq!(cache(&world, "demo").data.unwrap().result, CacheResult::Restored);
    world
}

fn cache(world: &World, name: &str) -> CacheStatus {
    world.sessions[name].status.clone().unwrap_or_default().cache.unwrap_or_default()
}

fn saved(world: &World, name: &str) -> (SaveState, Option<String>) {
    let save = cache(world, name).save.unwrap_or_default();
    (save.state, save.reason)
}

fn uids(world: &World) -> Vec<Option<String>> {
    ["demo--data", "demo--tools"].map(|claim| world.claims.get(claim).and_then(ResourceExt::uid)).to_vec()
}

fn entry(world: &World) -> String {
    cache(world, "one").entry.unwrap()
}

#[test]
fn the_objects_of_caches_are_as_they_are_written_down() {
    let mut world = with_source();
    world.happens(session("one", |_| {}));
    starts(&mut world, "one");
    let claim = world.claims.values().find(|claim| claim.name_any().starts_with("aigise-cache-")).unwrap().clone();
    snapshot("cache-claim", &claim);
    let mut save_pod = world.pods["one--save"].clone();
    save_pod.status = None;
    snapshot("save-pod", &save_pod);
    world.happens(Event::Saved("one--save".into()));
    snapshot("cache-entry", &world.claims[&claim.name_any()]);
    world.happens(session("demo", |_| {}));
    let mut restore_pod = world.pods["demo--restore"].clone();
    restore_pod.status = None;
    snapshot("restore-pod", &restore_pod);
    world.happens(Event::Restored("demo--restore".into()));
    // Its sources are there already.
    let mut stage_pod = world.pods["demo--stage"].clone();
    stage_pod.status = None;
    snapshot("stage-pod-restored", &stage_pod);
}

#[test]
fn volumes_that_somebody_has_worked_in_outlive_the_loss_of_the_status() {
    for entry_is_gone in [false, true] {
        for asks in [false, true] {
            for suspended in [false, true] {
                let mut world = restored();
                let before = uids(&world);
                if entry_is_gone {
                    let name = entry(&world);
                    world.happens(Event::DeleteClaim(name));
                }
                if suspended {
                    world.happens(session("demo", |spec| spec["suspend"] = json!(true)));
                }
                let status = world.sessions.get_mut("demo").unwrap().status.as_mut().unwrap();
                status.cache = None;
                world.happens(Event::After(3600));
                world.happens(session("demo", |spec| {
                    if !asks {
                        spec.as_object_mut().unwrap().remove("cache");
                    }
                }));
                world.happens(Event::After(3600));
                assert_eq!(uids(&world), before, "{entry_is_gone} {asks} {suspended}");
                assert!(!world.pods.contains_key("demo--restore"));
            }
        }
    }
}

#[test]
fn what_is_half_restored_goes_with_the_field() {
    let mut world = cached();
    world.happens(session("demo", |_| {}));
    world.happens(Event::Running("demo--restore".into()));
    let before = uids(&world);
    world.happens(session("demo", |spec| _ = spec.as_object_mut().unwrap().remove("cache")));
    world.happens(Event::PodGone("demo--restore".into()));
    let after = uids(&world);
    assert!(after.iter().all(Option::is_some) && before.iter().zip(&after).all(|(before, after)| before != after));
    starts(&mut world, "demo");
    assert_eq!(cache(&world, "demo").data.unwrap().reason, Some(MissReason::NotAsked));
}

#[test]
fn only_volumes_that_are_all_new_are_restored() {
    let mut world = cached();
    world.happens(session("demo", |spec| _ = spec.as_object_mut().unwrap().remove("cache")));
    starts(&mut world, "demo");
    world.happens(session("demo", |spec| {
        spec.as_object_mut().unwrap().remove("cache");
        spec["suspend"] = json!(true);
    }));
    world.change(Event::PodGone("demo--main".into()));
    world.change(Event::DeleteClaim("demo--data".into()));
    let tools = uids(&world)[1].clone();
    world.happens(session("demo", |_| {}));
    assert!(!world.pods.contains_key("demo--restore"));
    assert_eq!(uids(&world)[1], tools);
    starts(&mut world, "demo");
    // Somebody has worked in the tools: it is not saved either.
    assert_eq!(saved(&world, "demo"), (SaveState::Skipped, Some("NotAsked".into())));
}

/// A predecessor of the same name, whose claims are still there for a moment.
#[test]
fn claims_of_another_are_waited_for() {
    for restore in ["Whole", "Required"] {
        let mut world = cached();
        world.happens(Event::Foreign { kind: super::model::Kind::Claim, name: "demo--data".into() });
        world.happens(session("demo", |spec| spec["cache"]["restore"] = json!(restore)));
        assert_eq!(cache(&world, "demo").data, None);
        world.happens(Event::DeleteClaim("demo--data".into()));
        assert!(world.pods.contains_key("demo--restore"), "{restore}");
    }
}

#[test]
fn an_entry_that_cannot_be_mounted_is_given_up_and_replaced() {
    let mut world = cached();
    world.happens(session("demo", |_| {}));
    world.happens(Event::Unschedulable { pod: "demo--restore".into(), message: "0/3 nodes.".into() });
    world.happens(Event::After(119));
    assert_eq!(cache(&world, "demo").data, None);
    world.happens(Event::After(2));
    world.happens(Event::PodGone("demo--restore".into()));
    starts(&mut world, "demo");
    assert_eq!(cache(&world, "demo").data.unwrap().reason, Some(MissReason::EntryUnreachable));
    world.happens(Event::Saved("demo--save".into()));
    assert_eq!(saved(&world, "demo").0, SaveState::Succeeded);
    assert_ne!(cache(&world, "demo").entry.unwrap(), entry(&world));
}

#[test]
fn the_time_to_start_does_not_pass_while_the_session_is_suspended() {
    let mut world = cached();
    world.happens(session("demo", |spec| spec["suspend"] = json!(true)));
    world.happens(Event::After(3600));
    world.happens(session("demo", |_| {}));
    assert!(world.pods.contains_key("demo--restore"));
    // One that the cluster takes away is replaced, and begins its time anew.
    world.happens(Event::Running("demo--restore".into()));
    world.happens(Event::After(300));
    world.happens(Event::Evicted("demo--restore".into()));
    world.happens(Event::PodGone("demo--restore".into()));
    world.happens(Event::Restored("demo--restore".into()));
    assert_eq!(cache(&world, "demo").data.unwrap().result, CacheResult::Restored, "{}", world.log);
}

#[test]
fn a_session_that_requires_a_cache_never_starts_without() {
    let mut world = cached();
    let requires = |spec: &mut Value| spec["cache"]["restore"] = json!("Required");
    world.happens(session("demo", requires));
    world.happens(Event::RestoreFailed {
        pod: "demo--restore".into(),
        fault: RestoreFault::NoSpace,
        message: "It is full.".into(),
    });
    world.happens(Event::After(3600));
    assert_eq!(uids(&world), [None, None]);
    let unclear = |spec: &mut Value| {
        requires(spec);
        spec["sandboxes"]["main"].as_object_mut().unwrap().remove("cache");
    };
    world.happens(session("unclear", unclear));
    assert!(!world.claims.contains_key("unclear--data"));
}

#[test]
fn what_was_edited_before_it_was_saved_is_not_saved() {
    let another = |spec: &mut Value| spec["sandboxes"]["main"]["init"]["steps"][0]["command"] = json!(["make", "all"]);
    // And back again: its step may have run meanwhile.
    let mut world = with_source();
    world.happens(session("one", |_| {}));
    world.happens(Event::Staged { pod: "one--stage".into(), roots: vec![] });
    world.happens(session("one", another));
    world.happens(session("one", |_| {}));
    starts(&mut world, "one");
    assert_eq!(saved(&world, "one"), (SaveState::Skipped, Some("InputsChanged".into())));
    // While it is being saved.
    let mut world = with_source();
    world.happens(session("one", |_| {}));
    starts(&mut world, "one");
    world.happens(session("one", |spec| spec["cache"]["save"] = json!("Never")));
    assert_eq!(saved(&world, "one"), (SaveState::Failed, Some("NotAsked".into())));
    assert!(!world.claims.keys().any(|claim| claim.starts_with("aigise-cache-")));
}

#[test]
fn what_ran_over_restored_data_serves_only_partial_sessions() {
    let another = |spec: &mut Value| spec["sandboxes"]["main"]["init"]["steps"][0]["command"] = json!(["make", "all"]);
    let mut world = cached();
    world.happens(session("demo", |spec| {
        another(spec);
        spec["cache"]["restore"] = json!("Partial");
    }));
    world.happens(Event::Restored("demo--restore".into()));
    starts(&mut world, "demo");
    world.happens(Event::Saved("demo--save".into()));
    assert_eq!(saved(&world, "demo").0, SaveState::Succeeded);
    world.happens(session("two", another));
    assert_eq!(cache(&world, "two").entry, None);
    starts(&mut world, "two");
    // So this one saves what a cold start left.
    world.happens(Event::Saved("two--save".into()));
    assert_eq!(saved(&world, "two").0, SaveState::Succeeded);
    world.happens(session("three", another));
    assert_eq!(cache(&world, "three").entry, cache(&world, "two").entry);
}

#[test]
fn one_of_two_sessions_that_start_together_saves() {
    let mut world = with_source();
    for name in ["one", "two"] {
        world.happens(session(name, |_| {}));
    }
    for name in ["one", "two"] {
        starts(&mut world, name);
    }
    assert_eq!(saved(&world, "two"), (SaveState::Skipped, Some("SavedByAnother".into())));
    world.happens(Event::Saved("one--save".into()));
    assert_eq!(saved(&world, "one").0, SaveState::Succeeded);
}

#[test]
fn a_sandbox_that_starts_after_its_sources_were_edited_runs_its_steps() {
    let has_steps = |world: &World| {
        let work = world.pods["demo--main"].annotations().get("aigise.dev/gate").cloned();
        work.is_some_and(|work| work.contains("make"))
    };
    let mut world = restored();
    assert!(!has_steps(&world));
    world.happens(Event::ConfigMap { name: "poc".into(), content: "b".into() });
    world.happens(session("demo", |spec| spec["volumes"]["data"]["sources"][0]["path"] = json!("in")));
    world.happens(Event::Staged { pod: "demo--stage".into(), roots: vec![] });
    assert_eq!(cache(&world, "demo").missing, ["main"]);
    world.happens(Event::Exited { pod: "demo--main".into(), code: 1, after: 1 });
    world.happens(Event::After(60));
    world.happens(Event::PodGone("demo--main".into()));
    assert!(has_steps(&world));
}

/// A type whose root file system is in caches, and one that depends on it.
fn rooted(name: &str, restore: &str) -> Event {
    session(name, |spec| {
        spec["cache"]["restore"] = json!(restore);
        spec["sandboxes"]["main"]["cache"] = json!({"root": "Auto"});
        let mut fuzz = spec["sandboxes"]["main"].clone();
        fuzz["command"] = json!(["serve", "$(PORT)"]);
        fuzz["init"]["steps"][0]["name"] = json!("fill");
        let always = json!({"name": "watch", "command": ["watch"], "run": "Always"});
        fuzz["init"]["steps"].as_array_mut().unwrap().push(always);
        spec["sandboxes"]["fuzz"] = fuzz;
    })
}

fn both(world: &mut World, name: &str) {
    world.happens(Event::Staged { pod: format!("{name}--stage"), roots: vec![] });
    for sandbox in ["main", "fuzz"] {
        world.happens(Event::Scheduled(format!("{name}--{sandbox}")));
        world.happens(Event::Running(format!("{name}--{sandbox}")));
    }
}

/// A world with the cache of a session with root file systems.
fn with_roots() -> World {
    let mut world = with_source();
    world.happens(rooted("one", "Whole"));
    both(&mut world, "one");
    world.happens(Event::Saved("one--save".into()));
    assert_eq!(saved(&world, "one"), (SaveState::Succeeded, None));
    world
}

fn init_work(world: &World, pod: &str) -> Work {
    serde_json::from_str(&world.pods[pod].annotations()["aigise.dev/gate"]).unwrap()
}

fn steps(world: &World, pod: &str) -> Vec<String> {
    init_work(world, pod).steps.into_iter().map(|step| step.name).collect()
}

fn cached_reason(world: &World, name: &str) -> String {
    let conditions = world.sessions[name].status.clone().unwrap().conditions;
    conditions.into_iter().find(|condition| condition.type_ == "Cached").unwrap().reason
}

fn results(world: &World, name: &str) -> Vec<(CacheResult, Option<MissReason>)> {
    let sandboxes = cache(world, name).sandboxes;
    ["main", "fuzz"].map(|name| (sandboxes[name].result, sandboxes[name].reason)).to_vec()
}

fn not_restored(pod: &str, fault: RestoreFault) -> Event {
    let failure = InitFailure { how: "could not".into(), restore: Some(fault), ..InitFailure::default() };
    Event::InitFailed { pod: pod.into(), failure }
}

#[test]
fn root_file_systems_are_packed_by_their_sandboxes_and_restored_by_others() {
    let mut world = with_roots();
    let command = |world: &World, pod: &str| {
        world.pods[pod].spec.clone().unwrap().containers[0].command.clone().unwrap_or_default()
    };
    assert_eq!(command(&world, "one--fuzz"), ["/aigise/sandboxd", "run", "--", "serve", "$(PORT)"]);
    let work = init_work(&world, "one--main");
    assert!(work.root.is_some_and(|root| root.save && root.restore.is_none() && root.label == "main"));
    assert_eq!(steps(&world, "one--fuzz"), ["fill", "watch"]);

    world.happens(rooted("demo", "Whole"));
    assert_eq!(results(&world, "demo"), vec![(CacheResult::Restored, None); 2]);
    world.happens(Event::Restored("demo--restore".into()));
    both(&mut world, "demo");
    assert_eq!((steps(&world, "demo--main"), steps(&world, "demo--fuzz")), (vec![], vec!["watch".into()]));
    let root = init_work(&world, "demo--main").root.unwrap();
    assert!(!root.save && root.restore.is_some_and(|root| root.packed == 500 && root.image.is_some()));
    assert_eq!(cached_reason(&world, "demo"), "Restored");
    assert_eq!(saved(&world, "demo"), (SaveState::Skipped, Some("AlreadyCached".into())));

    // A later start is restored as well, and packs nothing.
    world.happens(Event::DeletePod("demo--fuzz".into()));
    world.happens(Event::PodGone("demo--fuzz".into()));
    assert!(init_work(&world, "demo--fuzz").root.is_some_and(|root| root.restore.is_some()));
    // A cold session does not pack again once it was ready.
    world.happens(Event::DeletePod("one--main".into()));
    world.happens(Event::PodGone("one--main".into()));
    assert_eq!(init_work(&world, "one--main").root, None);
}

#[test]
fn a_root_that_cannot_be_restored_starts_everything_cold_before_anybody_has_worked() {
    let mut world = with_roots();
    world.happens(rooted("demo", "Whole"));
    world.happens(Event::Restored("demo--restore".into()));
    world.happens(Event::Staged { pod: "demo--stage".into(), roots: vec![] });
    let before = uids(&world);
    world.happens(Event::Scheduled("demo--main".into()));
    world.happens(not_restored("demo--main", RestoreFault::ImageChanged));
    for pod in ["demo--main", "demo--fuzz", "demo--stage"] {
        world.happens(Event::PodGone(pod.into()));
    }
    let after = uids(&world);
    assert!(after.iter().all(Option::is_some) && before.iter().zip(&after).all(|(before, after)| before != after));
    assert_eq!(results(&world, "demo"), vec![(CacheResult::Missing, Some(MissReason::ImageChanged)); 2]);
    both(&mut world, "demo");
    assert_eq!((steps(&world, "demo--main"), steps(&world, "demo--fuzz").len()), (vec!["build".into()], 2));
    assert!(init_work(&world, "demo--main").root.is_some_and(|root| root.save));
    world.happens(Event::Saved("demo--save".into()));
    assert_eq!(saved(&world, "demo"), (SaveState::Succeeded, None), "what could not be used is replaced");
    assert!(world.claims[&entry(&world)].annotations().get("aigise.dev/cache-bad").is_none());
}

#[test]
fn a_root_that_cannot_be_restored_later_costs_only_its_own_sandbox() {
    for restore in ["Whole", "Partial"] {
        let mut world = with_roots();
        world.happens(rooted("demo", restore));
        world.happens(Event::Restored("demo--restore".into()));
        if restore == "Whole" {
            both(&mut world, "demo");
            world.happens(Event::DeletePod("demo--main".into()));
            world.happens(Event::PodGone("demo--main".into()));
        } else {
            world.happens(Event::Staged { pod: "demo--stage".into(), roots: vec![] });
        }
        let before = uids(&world);
        world.happens(Event::Scheduled("demo--main".into()));
        world.happens(not_restored("demo--main", RestoreFault::Corrupt));
        world.happens(Event::PodGone("demo--main".into()));
        assert_eq!(steps(&world, "demo--main"), ["build"]);
        assert_eq!(uids(&world), before);
        let main = (CacheResult::Missing, Some(MissReason::Corrupt));
        assert_eq!(results(&world, "demo"), [main, (CacheResult::Restored, None)]);
        assert_eq!(cached_reason(&world, "demo"), "CacheMissing");
        let restarts = world.sandboxes["demo--main"].status.clone().unwrap().restarts;
        assert_eq!(restarts, None, "nothing is counted");
    }
}

#[test]
fn what_was_worked_in_is_never_discarded() {
    // A session that was suspended forgets since when it is ready.
    let mut world = with_roots();
    world.happens(rooted("demo", "Whole"));
    world.happens(Event::Restored("demo--restore".into()));
    both(&mut world, "demo");
    let before = uids(&world);
    let suspended = |suspend: bool| {
        let Event::ApplySession(mut session) = rooted("demo", "Whole") else { unreachable!() };
        session.spec.suspend = suspend.then_some(true);
        Event::ApplySession(session)
    };
    world.happens(suspended(true));
    for pod in ["demo--main", "demo--fuzz"] {
        world.happens(Event::PodGone(pod.into()));
    }
    world.happens(suspended(false));
    world.happens(Event::Scheduled("demo--main".into()));
    world.happens(not_restored("demo--main", RestoreFault::ImageChanged));
    world.happens(Event::PodGone("demo--main".into()));
    assert_eq!(uids(&world), before);
    assert_eq!(steps(&world, "demo--main"), ["build"]);
}

#[test]
fn a_session_without_sources_starts_cold_once_and_one_without_the_field_does_not_loop() {
    for drops_field in [false, true] {
        let mut world = World::new();
        let bare = |name: &str, has_cache: bool| {
            let Event::ApplySession(session) = rooted(name, "Whole") else { unreachable!() };
            let mut session = serde_json::to_value(session).unwrap();
            session["spec"].as_object_mut().unwrap().remove("volumes");
            if !has_cache {
                session["spec"].as_object_mut().unwrap().remove("cache");
            }
            Event::ApplySession(serde_json::from_value(session).unwrap())
        };
        world.happens(bare("one", true));
        both(&mut world, "one");
        world.happens(Event::Saved("one--save".into()));
        world.happens(bare("demo", true));
        world.happens(Event::Restored("demo--restore".into()));
        world.happens(Event::Scheduled("demo--main".into()));
        let before = uids(&world);
        world.change(not_restored("demo--main", RestoreFault::ImageChanged));
        if drops_field {
            world.change(bare("demo", false));
        }
        world.happens(Event::After(1));
        for pod in ["demo--main", "demo--fuzz"] {
            world.happens(Event::PodGone(pod.into()));
        }
        world.happens(Event::After(60));
        assert_eq!(steps(&world, "demo--main"), ["build"], "{drops_field}");
        if !drops_field {
            assert_ne!(uids(&world), before);
            assert_eq!(cache(&world, "demo").data.unwrap().result, CacheResult::Missing);
        }
    }
}

#[test]
fn words_of_a_program_are_not_taken_for_those_of_a_restore() {
    let mut world = with_source();
    world.happens(rooted("one", "Whole"));
    world.happens(Event::Staged { pod: "one--stage".into(), roots: vec![] });
    world.happens(Event::Scheduled("one--main".into()));
    world.happens(not_restored("one--main", RestoreFault::Corrupt));
    let status = world.sandboxes["one--main"].status.clone().unwrap();
    assert_eq!(status.state, Some(SandboxState::Error), "it is not started again and again");
    assert!(world.pods.contains_key("one--main"));
}

#[test]
fn a_session_that_requires_a_cache_stops_if_a_root_cannot_be_restored() {
    let mut world = with_roots();
    world.happens(rooted("demo", "Required"));
    world.happens(Event::Restored("demo--restore".into()));
    world.happens(Event::Staged { pod: "demo--stage".into(), roots: vec![] });
    world.happens(Event::Scheduled("demo--fuzz".into()));
    world.happens(not_restored("demo--fuzz", RestoreFault::NoSpace));
    for pod in ["demo--main", "demo--fuzz", "demo--stage"] {
        world.happens(Event::PodGone(pod.into()));
    }
    assert_eq!(uids(&world), [None, None]);
    assert_eq!(cached_reason(&world, "demo"), "CacheMissing");
    assert!(!world.sandboxes.contains_key("demo--main"));
}

#[test]
fn what_a_cache_lacks_is_named_and_serves_those_who_take_what_fits() {
    let mut world = with_source();
    world.happens(rooted("one", "Whole"));
    world.happens(Event::Staged { pod: "one--stage".into(), roots: vec![] });
    for sandbox in ["main", "fuzz"] {
        world.happens(Event::Scheduled(format!("one--{sandbox}")));
    }
    world.happens(Event::Running("one--main".into()));
    let message = "the step fill has left the process x running".to_string();
    world.happens(Event::NotPacked { pod: "one--fuzz".into(), reason: SaveFault::StepLeftProcesses, message });
    world.happens(Event::Saved("one--save".into()));
    let errors = cache(&world, "one").save.unwrap().errors;
    assert_eq!(errors, ["fuzz: StepLeftProcesses: the step fill has left the process x running"]);
    assert_eq!(cached_reason(&world, "one"), "SaveIncomplete");

    world.happens(rooted("whole", "Whole"));
    assert_eq!(cache(&world, "whole").data.unwrap().reason, Some(MissReason::NotSaved));
    world.happens(rooted("demo", "Partial"));
    world.happens(Event::Restored("demo--restore".into()));
    assert_eq!(
        results(&world, "demo"),
        [(CacheResult::Restored, None), (CacheResult::Missing, Some(MissReason::NotSaved))]
    );
    both(&mut world, "demo");
    assert_eq!((steps(&world, "demo--main"), steps(&world, "demo--fuzz").len()), (vec![], 2));
    // What it saves has both: what was restored, and what was packed now.
    world.happens(Event::Saved("demo--save".into()));
    assert_eq!(cached_reason(&world, "demo"), "Saved");
    world.happens(rooted("next", "Partial"));
    assert_eq!(results(&world, "next"), vec![(CacheResult::Restored, None); 2]);
}

#[test]
fn a_damaged_root_is_not_tried_again() {
    let mut world = with_roots();
    world.happens(rooted("demo", "Partial"));
    world.happens(Event::RestoredWithout { pod: "demo--restore".into(), labels: vec!["fuzz".into()] });
    let main_only = [(CacheResult::Restored, None), (CacheResult::Missing, Some(MissReason::Corrupt))];
    assert_eq!(results(&world, "demo"), main_only);
    assert_eq!(world.claims[&entry(&world)].annotations()["aigise.dev/cache-bad"], "fuzz=Corrupt");
    world.happens(rooted("next", "Partial"));
    assert_eq!(results(&world, "next"), main_only);
    world.happens(rooted("whole", "Whole"));
    assert_eq!(cache(&world, "whole").data.unwrap().reason, Some(MissReason::Corrupt));
    // A part that another sandbox has written is left out when it is saved.
    let mut world = with_source();
    world.happens(rooted("one", "Whole"));
    both(&mut world, "one");
    world.happens(Event::SavedWithout { pod: "one--save".into(), labels: vec!["main".into()] });
    assert_eq!(
        cache(&world, "one").save.unwrap().errors,
        ["main: Changed: its file on the volume data is not what the sandbox has packed"]
    );
}

#[test]
fn what_depends_on_a_damaged_root_runs_its_steps_as_well() {
    let depends = |name: &str, restore: &str| {
        let Event::ApplySession(mut session) = rooted(name, restore) else { unreachable!() };
        session.spec.sandboxes.get_mut("fuzz").unwrap().template.depends_on = vec!["main".into()];
        Event::ApplySession(session)
    };
    let mut world = with_source();
    world.happens(depends("one", "Whole"));
    both(&mut world, "one");
    world.happens(Event::Saved("one--save".into()));
    let expected = [
        (CacheResult::Missing, Some(MissReason::Corrupt)),
        (CacheResult::Missing, Some(MissReason::DependencyChanged)),
    ];
    world.happens(depends("demo", "Partial"));
    world.happens(Event::RestoredWithout { pod: "demo--restore".into(), labels: vec!["main".into()] });
    assert_eq!(results(&world, "demo"), expected, "found by the restore Pod");
    world.happens(depends("next", "Partial"));
    assert_eq!(results(&world, "next"), expected, "known from the entry");
}

#[test]
fn a_type_whose_steps_have_not_run_is_not_in_the_cache() {
    let mut world = with_source();
    world.happens(session("one", |spec| {
        let mut fuzz = spec["sandboxes"]["main"].clone();
        fuzz["restart"] = json!({"policy": "Never"});
        spec["sandboxes"]["fuzz"] = fuzz;
    }));
    world.happens(Event::Staged { pod: "one--stage".into(), roots: vec![] });
    world.happens(Event::Scheduled("one--fuzz".into()));
    world.happens(Event::Initializes("one--fuzz".into()));
    world.happens(Event::Exited { pod: "one--fuzz".into(), code: 0, after: 1 });
    world.happens(Event::Scheduled("one--main".into()));
    world.happens(Event::Running("one--main".into()));
    world.happens(Event::Saved("one--save".into()));
    assert_eq!(saved(&world, "one"), (SaveState::Succeeded, None));
    let manifest: Value =
        serde_json::from_str(&world.claims[&entry(&world)].annotations()["aigise.dev/cache"]).unwrap();
    let types: Vec<_> = manifest["fingerprints"]["types"].as_object().unwrap().keys().collect();
    assert_eq!(types, ["main"]);
}
