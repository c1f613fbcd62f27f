//! Images are pulled beside the filling of volumes: when, where, as what, and that nothing depends on it.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use aigise_operator::plan::{
    Created, Write,
    pod::{FailedPull, Pulls},
    session::Observed,
};
use k8s_openapi::api::core::v1::Pod;
use serde_json::{Value, json};

use super::{
    lives::{config_map, phase, session, three_of_everything},
    model::{self, Event, planned},
    objects::snapshot,
};
use crate::support::{
    apiserver::{
        Seen, Verb,
        faults::{Effect, lines},
    },
    life::{World, in_fast_time},
};

fn from_command() -> Value {
    json!({"data": {"sources": [{"container": {"image": "git:1", "command": ["git"]}}]}})
}

fn apply(spec: Value) -> Event {
    Event::ApplySession(Box::new(serde_json::from_value(session(spec)).unwrap()))
}

/// A world in which the stage Pod of a session with a command has its node, and these images are there.
fn scheduled(spec: Value, images: &[&str]) -> model::World {
    let mut world = model::World::new();
    world.node_images = images.iter().map(ToString::to_string).collect();
    world.change(apply(spec));
    world.settle();
    world.happens(Event::Scheduled("demo--stage".into()));
    world
}

fn images(pod: &Pod) -> Vec<&str> {
    pod.spec.iter().flat_map(|spec| &spec.containers).filter_map(|container| container.image.as_deref()).collect()
}

#[test]
fn the_pod_is_as_it_is_written_down() {
    let pod_template = json!({"spec": {
        "imagePullSecrets": [{"name": "mine"}],
        "runtimeClassName": "gvisor",
        "securityContext": {"runAsUser": 1000, "runAsNonRoot": true},
        "tolerations": [{"key": "gpu", "operator": "Exists"}],
    }});
    let spec = json!({
        "sandboxes": {
            "main": {"image": "a:1", "securityContext": {"runAsUser": 7, "capabilities": {"drop": ["ALL"]}}},
            "gdb_mcp": {"image": "registry.example/b@sha256:00"},
            "pwn": {"image": "a:1"},
        },
        "sandboxDefaults": {"podTemplate": pod_template, "init": {"profile": "None"}},
        "volumes": from_command(),
    });
    let world = scheduled(spec, &[]);
    let mut pod = world.pods["demo--pull"].clone();
    pod.status = None;
    snapshot("pull-pod", &pod);
}

#[test]
fn each_image_is_pulled_once_and_not_if_the_node_lists_it() {
    let sidecar = json!({"spec": {"containers": [{"name": "db", "image": "docker.io/library/db"}]}});
    let spec = json!({
        "sandboxes": {
            "main": {"image": "a:1", "podTemplate": sidecar},
            "one": {"image": "docker.io/library/a:1"},
            "two": {"image": "there"},
            "off": {"image": "off:1", "enabled": false},
            "theirs": {"attach": {"podName": "p"}},
        },
        "volumes": from_command(),
    });
    let world = scheduled(spec.clone(), &["docker.io/library/there:latest"]);
    assert_eq!(images(&world.pods["demo--pull"]), ["a:1", "docker.io/library/db"]);
    let all = ["docker.io/library/there:latest", "docker.io/library/a:1", "docker.io/library/db:latest"];
    assert!(!scheduled(spec, &all).pods.contains_key("demo--pull"));
}

/// The secrets of all types are there; a runtime class is that of the whole Pod.
#[test]
fn types_of_another_runtime_class_are_left_out() {
    let with = |image: &str, spec: Value| json!({"image": image, "podTemplate": {"spec": spec}});
    let spec = json!({
        "sandboxes": {
            "a": with("a:1", json!({"imagePullSecrets": [{"name": "a"}]})),
            "b": with("b:1", json!({"imagePullSecrets": [{"name": "b"}, {"name": "a"}]})),
            "c": with("c:1", json!({"runtimeClassName": "kata"})),
        },
        "volumes": from_command(),
    });
    let world = scheduled(spec, &[]);
    let pod = &world.pods["demo--pull"];
    assert_eq!(images(pod), ["a:1", "b:1"]);
    let secrets = serde_json::to_value(&pod.spec.as_ref().unwrap().image_pull_secrets).unwrap();
    assert_eq!(secrets, json!([{"name": "a"}, {"name": "b"}]));
}

fn creates_pull_pod(observed: &Observed) -> bool {
    planned(observed)
        .iter()
        .any(|write| matches!(write, Write::Create(Created::Pod(_))) && write.name() == "demo--pull")
}

#[test]
fn without_a_command_the_stage_pod_has_to_run_for_two_seconds() {
    let mut world = model::World::new();
    let volumes = json!({"data": {"sources": [{"persistentVolumeClaim": {"claimName": "corpus"}}]}});
    world.happens(apply(json!({"sandboxes": {"main": {"image": "a:1"}}, "volumes": volumes})));
    world.happens(Event::Scheduled("demo--stage".into()));
    world.happens(Event::After(60));
    assert!(!world.pods.contains_key("demo--pull"), "the volumes are not even mounted");
    let state = json!({"running": {"startedAt": world.now}});
    let status =
        json!([{"name": "stage", "image": "", "imageID": "", "ready": true, "restartCount": 0, "state": state}]);
    let pod = world.pods.get_mut("demo--stage").unwrap();
    pod.status.as_mut().unwrap().container_statuses = serde_json::from_value(status).unwrap();
    let mut observed = world.observe_session("demo");
    assert_eq!(observed.node_images, None, "it is not due yet");
    observed.node_images = Some(BTreeSet::new());
    for (seconds, is_due) in [(0, false), (1, false), (2, true), (3600, true)] {
        observed.now = world.now + Duration::from_secs(seconds);
        assert_eq!(creates_pull_pod(&observed), is_due, "after {seconds} s");
        let after = model::reported(&observed).requeue;
        let expected = (!is_due).then(|| aigise_operator::plan::Requeue::After(Duration::from_secs(2 - seconds)));
        assert_eq!(after, expected.unwrap_or(aigise_operator::plan::Requeue::AwaitChange), "after {seconds} s");
    }
}

#[test]
fn a_stored_type_of_the_reserved_name_is_left_alone() {
    let world = scheduled(json!({"sandboxes": {"Pull": {"image": "a:1"}}, "volumes": from_command()}), &[]);
    assert!(!world.pods.contains_key("demo--pull"));
    let mut world = world;
    world.happens(Event::Staged { pod: "demo--stage".into(), roots: vec![] });
    assert_eq!(images(&world.pods["demo--pull"]), ["a:1"], "it is the Pod of the sandbox");
}

#[test]
fn a_suspended_session_pulls_nothing() {
    let mut world = scheduled(json!({"sandboxes": {"main": {"image": "a:1"}}, "volumes": from_command()}), &[]);
    world.sessions.get_mut("demo").unwrap().spec.suspend = Some(true);
    world.settle();
    assert!(world.pods["demo--pull"].metadata.deletion_timestamp.is_some());
    let said = |world: &model::World| world.sessions["demo"].status.as_ref().unwrap().conditions.clone();
    let says =
        |world: &model::World, words: &str| said(world).iter().any(|condition| condition.message.contains(words));
    world.happens(Event::PodGone("demo--stage".into()));
    assert!(says(&world, "demo--pull"), "{:?}", said(&world));
    world.happens(Event::PodGone("demo--pull".into()));
    assert!(!says(&world, "demo--pull"), "{:?}", said(&world));
}

/// An image that cannot be pulled is named at once. The Pod goes when the others are there.
#[test]
fn one_image_that_is_missing_does_not_keep_the_others_from_being_pulled() {
    let pod = |states: [Value; 2]| -> Pod {
        let status = |(index, state): (usize, &Value)| json!({"name": format!("{index}-main"), "image": "a:1", "imageID": "", "ready": false, "restartCount": 0, "state": state});
        let statuses: Vec<_> = states.iter().enumerate().map(status).collect();
        serde_json::from_value(json!({"status": {"phase": "Pending", "containerStatuses": statuses}})).unwrap()
    };
    let missing = json!({"waiting": {"reason": "ErrImagePull", "message": "not found"}});
    let waits = json!({"waiting": {"reason": "ContainerCreating"}});
    let ended = json!({"terminated": {"exitCode": 0}});
    let bad_user = json!({"waiting": {"reason": "CreateContainerConfigError", "message": "runs as root"}});
    let failed = Some(FailedPull {
        container: "0-main".into(),
        image: "a:1".into(),
        message: "The image a:1 cannot be pulled: not found".into(),
    });
    let pulls = |states| Pulls::of(&pod(states));
    assert_eq!(pulls([missing.clone(), waits.clone()]), Pulls { are_over: false, failed: failed.clone() });
    assert_eq!(pulls([missing, ended.clone()]), Pulls { are_over: true, failed });
    assert_eq!(pulls([ended.clone(), waits]), Pulls { are_over: false, failed: None });
    assert_eq!(pulls([ended, bad_user]), Pulls { are_over: true, failed: None });
    assert_eq!(Pulls::of(&Pod::default()), Pulls { are_over: false, failed: None });
}

fn is_of_pull_pod(seen: &Seen) -> bool {
    seen.key.plural == "pods" && seen.key.name == "demo--pull" && seen.verb.writes()
}

fn verbs(world: &World) -> Vec<Verb> {
    world.api.requests().into_iter().filter(is_of_pull_pod).map(|seen| seen.verb).collect()
}

fn one_sandbox() -> Value {
    session(json!({"sandboxes": {"main": {"image": "a:1"}}, "volumes": from_command()}))
}

#[test]
fn it_costs_two_writes_beside_a_long_filling_and_none_beside_a_short_one() {
    in_fast_time(async {
        let mut world = World::new();
        world.apply(config_map()).await;
        world.apply(super::lives::corpus()).await;
        world.apply(three_of_everything()).await;
        world.settle().await;
        assert_eq!((phase(&world).as_str(), verbs(&world)), ("Ready", vec![]));

        let mut world = World::new();
        world.cluster.staging_takes(Duration::from_secs(20));
        world.apply(config_map()).await;
        world.apply(super::lives::corpus()).await;
        world.apply(three_of_everything()).await;
        world.until("it pulls", |world| !world.get("pods", "demo--pull").is_null()).await;
        world.until("the images are there", |world| world.get("pods", "demo--pull").is_null()).await;
        assert_eq!(phase(&world), "Staging");
        world.settle().await;
        assert_eq!(phase(&world), "Ready");
        assert_eq!(verbs(&world), [Verb::Create, Verb::Delete], "{}", lines(&world.operator_writes()));
        let reads = world.api.requests().into_iter().filter(|seen| seen.key.plural == "nodes").count();
        assert_eq!(reads, 1);
    });
}

#[test]
fn what_the_node_lists_is_not_pulled() {
    in_fast_time(async {
        let mut world = World::new();
        let node = crate::support::apiserver::Key { plural: "nodes", namespace: String::new(), name: "node-1".into() };
        let names = json!([{"names": ["docker.io/library/a@sha256:00", "docker.io/library/a:1"], "sizeBytes": 1}]);
        world.api.edit(&node, |node| node["status"]["images"] = names);
        world.apply(one_sandbox()).await;
        world.settle().await;
        assert_eq!((phase(&world).as_str(), verbs(&world)), ("Ready", vec![]));
    });
}

#[test]
fn a_pod_that_is_refused_is_left_out_without_an_error_and_is_not_tried_again() {
    for code in [403, 422, 500] {
        in_fast_time(async {
            let mut world = World::new();
            world.cluster.staging_takes(Duration::from_secs(90));
            let tries = Arc::new(AtomicUsize::new(0));
            let counted = tries.clone();
            world.api.fault(usize::MAX, Effect::code(code), move |seen| {
                let is_refused = is_of_pull_pod(seen);
                counted.fetch_add(is_refused.into(), Ordering::Relaxed);
                is_refused
            });
            world.apply(one_sandbox()).await;
            let mut said = BTreeSet::new();
            for _ in 0..120 {
                tokio::time::sleep(Duration::from_millis(500)).await;
                let session = world.get("aigisesessions", "demo");
                let conditions = session["status"]["conditions"].as_array().cloned().unwrap_or_default();
                said.extend(conditions.iter().map(|condition| condition["message"].to_string()));
                // Changes of the session lead to further reconciles.
                let mut session = one_sandbox();
                session["metadata"]["annotations"] = json!({"aigise.dev/last-activity": world.api.now().to_string()});
                world.apply(session).await;
            }
            assert!(!said.iter().any(|words| words.contains("on demand")), "{code}: {said:?}");
            assert_eq!((phase(&world).as_str(), tries.load(Ordering::Relaxed)), ("Staging", 1), "{code}");
            world.settle().await;
            assert_eq!((phase(&world).as_str(), tries.load(Ordering::Relaxed)), ("Ready", 1), "{code}");
        });
    }
}

#[test]
fn an_image_that_is_missing_is_named_while_the_volumes_are_filled() {
    in_fast_time(async {
        let mut world = World::new();
        world.cluster.staging_takes(Duration::from_secs(60));
        world.cluster.lose_image("a:1");
        world.apply(one_sandbox()).await;
        let message = |world: &World| {
            let session = world.get("aigisesessions", "demo");
            let conditions = session["status"]["conditions"].as_array().cloned().unwrap_or_default();
            let ready = conditions.into_iter().find(|condition| condition["type"] == "Ready");
            ready.map(|ready| ready["message"].as_str().unwrap().to_string()).unwrap_or_default()
        };
        let words = "main: The image a:1 cannot be pulled: not found";
        world.until("it is named", |world| message(world).contains(words)).await;
        world.until("the Pod is gone", |world| world.get("pods", "demo--pull").is_null()).await;
        assert_eq!(phase(&world), "Staging");
        assert_eq!(message(&world), format!("The volumes are being filled. {words}"));
        // The operator forgets it, and finds it out again.
        world.restart();
        let both = [Verb::Create, Verb::Delete, Verb::Create, Verb::Delete];
        world.until("it pulls again", |world| verbs(world) == both).await;
        world.until("it is named again", |world| message(world).contains(words)).await;
        world.until("the volumes are filled", |world| phase(world) == "Starting").await;
        world.until("the sandbox names it", |world| message(world) == words).await;
        assert_eq!(verbs(&world), both);
        world.cluster.push_image("a:1");
        world.settle().await;
        assert_eq!(phase(&world), "Ready");
    });
}

#[test]
fn an_image_that_was_corrected_is_not_named_any_more() {
    in_fast_time(async {
        let mut world = World::new();
        world.cluster.staging_takes(Duration::from_secs(60));
        world.cluster.lose_image("a:1");
        world.apply(one_sandbox()).await;
        let says = |world: &World| world.get("aigisesessions", "demo")["status"].to_string().contains("a:1");
        world.until("it is named", |world| says(world)).await;
        let mut corrected = one_sandbox();
        corrected["spec"]["sandboxes"]["main"]["image"] = json!("a:2");
        world.apply(corrected).await;
        world.until("it is not named any more", |world| !says(world)).await;
        assert_eq!(phase(&world), "Staging");
        world.settle().await;
        assert_eq!(phase(&world), "Ready");
    });
}

/// The Pod is a hint: that it cannot be deleted keeps no sandbox from being created.
#[test]
fn a_pod_that_cannot_be_deleted_is_in_nobodys_way() {
    in_fast_time(async {
        let mut world = World::new();
        world.cluster.staging_takes(Duration::from_secs(20));
        world.api.fault(usize::MAX, Effect::code(403), |seen| is_of_pull_pod(seen) && seen.verb == Verb::Delete);
        world.apply(one_sandbox()).await;
        world
            .until("the sandbox is ready", |world| world.get("sandboxes", "demo--main")["status"]["state"] == "ready")
            .await;
    });
}
