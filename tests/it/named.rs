//! What a session or a sandbox waits for has a name, also where only events of its Pod have it.

use aigise_operator::{
    plan::{
        Requeue,
        pod_event::{FIRST_READ, PodEvent, READ_INTERVAL},
    },
    protocol::init::InitFailure,
};
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use serde_json::{Value, json};

use super::model::{Event, Kind, World, reported};

fn a_session(spec: Value) -> Event {
    let session = json!({"apiVersion": "aigise.dev/v1alpha1", "kind": "AigiseSession", "metadata": {"name": "demo"}, "spec": spec});
    Event::ApplySession(Box::new(serde_json::from_value(session).unwrap()))
}

fn ready(conditions: &[Condition]) -> (&str, &str, &str) {
    let ready = conditions.iter().find(|condition| condition.type_ == "Ready").unwrap();
    (&ready.status, &ready.reason, &ready.message)
}

fn says(world: &mut World, pod: &str, reason: &str, message: &str, part: &str) {
    let uid = world.pods[pod].metadata.uid.clone().unwrap();
    let event = PodEvent {
        reason: reason.into(),
        message: message.into(),
        part: part.into(),
        last: Timestamp::UNIX_EPOCH.into(),
    };
    world.events.insert(uid, vec![event]);
}

/// A device that is away, or a Secret of a template that is missing, is only in the events.
#[test]
fn a_volume_that_cannot_be_mounted_is_named() {
    let mut world = World::new();
    world.happens(a_session(json!({"sandboxes": {"main": {"image": "a"}}})));
    world.happens(Event::Scheduled("demo--main".into()));
    says(
        &mut world,
        "demo--main",
        "FailedMount",
        "MountVolume.SetUp failed for volume \"key\" : secret \"gone\" not found",
        "",
    );
    let said = |world: &World| {
        let report = reported(&world.observe_sandbox("demo--main"));
        let (_, reason, message) = ready(&report.status.conditions);
        (reason.to_string(), message.to_string(), report.requeue)
    };
    world.happens(Event::After(10));
    let (_, message, next) = said(&world);
    assert!(!message.contains("gone"), "the events are not read at once: {message}");
    assert!(matches!(next, Requeue::After(next) if next <= FIRST_READ), "{next:?}");
    world.happens(Event::After(15));
    let (reason, message, next) = said(&world);
    assert_eq!(reason, "ContainerCreating");
    assert!(message.ends_with("MountVolume.SetUp failed for volume \"key\" : secret \"gone\" not found"), "{message}");
    assert_eq!(next, Requeue::After(READ_INTERVAL), "and then once a minute");
    world.happens(Event::Running("demo--main".into()));
    assert_eq!(ready(&reported(&world.observe_sandbox("demo--main")).status.conditions).0, "True");
}

#[test]
fn a_stage_pod_that_cannot_mount_a_volume_says_which_and_a_source_that_takes_long_is_named() {
    let mut world = World::new();
    let source = json!({"container": {"image": "git", "command": ["git", "clone"]}, "path": "repo"});
    world
        .happens(a_session(json!({"sandboxes": {"main": {"image": "a"}}, "volumes": {"data": {"sources": [source]}}})));
    world.happens(Event::Scheduled("demo--stage".into()));
    says(&mut world, "demo--stage", "FailedAttachVolume", "Multi-Attach error for volume \"pv\"", "");
    let said = |world: &World| ready(&reported(&world.observe_session("demo")).status.conditions).2.to_string();
    world.happens(Event::After(30));
    assert_eq!(said(&world), "The volumes are being filled. Multi-Attach error for volume \"pv\"");
    let since = world.now;
    let running = json!([{"name": "source-data-0", "image": "git", "imageID": "", "ready": false, "restartCount": 0, "state": {"running": {"startedAt": since}}}]);
    let pod = world.pods.get_mut("demo--stage").unwrap();
    pod.status.as_mut().unwrap().init_container_statuses = serde_json::from_value(running).unwrap();
    world.events.clear();
    world.happens(Event::After(10));
    assert_eq!(said(&world), "The volumes are being filled.");
    world.happens(Event::After(10));
    assert_eq!(
        said(&world),
        format!("The volumes are being filled. The container git (data.sources[0]) has been running since {since}.")
    );
}

/// Nothing in the Pod talks to the API server; a probe of the container that reports the success has an output.
#[test]
fn a_service_that_an_initialiser_waits_for_is_named() {
    let mut world = World::new();
    let services = json!({"gdb": {"sandbox": "main", "port": 1}});
    let main = json!({"image": "a", "mcpServices": ["gdb"]});
    world.happens(a_session(json!({"sandboxes": {"main": main}, "mcpServices": services})));
    world.happens(Event::Scheduled("demo--main".into()));
    world.happens(Event::Initializes("demo--main".into()));
    let words = "the service gdb has not answered since 2026-01-01T00:00:00Z: connection refused";
    let part = "spec.initContainers{init-report}";
    says(&mut world, "demo--main", "Unhealthy", &format!("Liveness probe failed: {words}\n"), part);
    world.happens(Event::After(30));
    let report = reported(&world.observe_sandbox("demo--main"));
    let (_, reason, message) = ready(&report.status.conditions);
    assert_eq!(reason, "Initializing");
    assert!(message.ends_with(&format!("It waits: {words}.")), "{message}");
}

#[test]
fn a_step_that_the_user_did_not_write_says_where_it_comes_from() {
    let mut world = World::new();
    world.happens(Event::Foreign { kind: Kind::Claim, name: "s".into() });
    let scripts = json!({"scripts": {"claimName": "s"}});
    let mut failed = |sandboxes: Value, step: &str| {
        world.happens(a_session(json!({"sandboxes": sandboxes, "volumes": scripts})));
        let failure =
            InitFailure { step: Some(step.into()), how: "ended with exit code 1".into(), ..InitFailure::default() };
        world.happens(Event::Initializes("demo--fuzz".into()));
        world.happens(Event::InitFailed { pod: "demo--fuzz".into(), failure });
        let report = reported(&world.observe_sandbox("demo--fuzz"));
        ready(&report.status.conditions).2.to_string()
    };
    let step = "compile-aflpp";
    let message = failed(json!({"main": {"image": "a"}, "fuzz": {"image": "a"}}), step);
    assert!(message.contains("init.profile: None leaves it out"), "{message}");
    let message = failed(
        json!({"main": {"image": "a"}, "fuzz": {"image": "a", "init": {"steps": [{"name": step, "command": ["true"]}]}}}),
        step,
    );
    assert!(!message.contains("init.profile"), "{message}");
}

/// The claim stays until the last Pod that uses it has ended, and then the data is gone.
#[test]
fn a_claim_that_is_being_deleted_is_reported_while_the_session_runs() {
    let mut world = World::new();
    world.happens(a_session(json!({"sandboxes": {"main": {"image": "a"}}})));
    for name in ["demo--data", "demo--scripts", "demo--tools"] {
        world.claims.get_mut(name).unwrap().status = serde_json::from_value(json!({"phase": "Bound"})).ok();
    }
    world.happens(Event::Scheduled("demo--main".into()));
    world.happens(Event::Running("demo--main".into()));
    let said = |world: &World| {
        let status = world.sessions["demo"].status.clone().unwrap();
        let (status_of_ready, reason, message) = ready(&status.conditions);
        (status_of_ready.to_string(), reason.to_string(), message.to_string(), status.phase.unwrap().to_string())
    };
    assert_eq!(said(&world).0, "True");
    let at = Time(world.now);
    world.claims.get_mut("demo--data").unwrap().metadata.deletion_timestamp = Some(at);
    world.happens(Event::Restart);
    let (ready, reason, message, phase) = said(&world);
    assert_eq!((ready.as_str(), reason.as_str(), phase.as_str()), ("False", "ClaimTerminating", "Ready"));
    assert!(message.starts_with("The claim demo--data is being deleted"), "{message}");
}
