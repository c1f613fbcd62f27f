//! The stage Pod: what is in it for each kind of source, what resources it requests, and what becomes of one that does not end well.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use aigise_operator::{
    api::{
        AigiseSession,
        condition::{ConditionType, Reason},
        meta,
    },
    plan::{
        Created, HelperMount, Requeue, Settings, StatusWrite, Write, effective::Decided, pod::annotation,
        session::Observed,
    },
    protocol::staging::{Fault, Staged, StagingReport},
};
use k8s_openapi::api::core::v1::{ContainerState, ContainerStateTerminated, ContainerStatus, Pod, PodSpec};
use serde_json::{Value, json};

use super::{
    model::{Event, World, planned, reported},
    objects::snapshot,
};

const STAGE: &str = "demo--stage";

fn a_session(spec: Value) -> Event {
    let session = json!({
        "apiVersion": "aigise.dev/v1alpha1",
        "kind": "AigiseSession",
        "metadata": {"name": "demo"},
        "spec": spec,
    });
    Event::ApplySession(Box::new(serde_json::from_value::<AigiseSession>(session).unwrap()))
}

/// A session of one sandbox, whose data volume has these sources.
fn with_sources(sources: Value) -> Event {
    a_session(json!({"sandboxes": {"main": {"image": "a"}}, "volumes": {"data": {"sources": sources}}}))
}

fn a_container_source() -> Value {
    json!({"container": {"image": "alpine/git", "command": ["git", "clone", "https://example.org/r", "/volume"]}, "path": "repo"})
}

fn stage_pod(world: &World) -> &PodSpec {
    world.pods[STAGE].spec.as_ref().expect("the stage Pod is there")
}

/// The message of `Ready`, with its reason.
fn said(world: &World) -> (String, String) {
    let ready: &str = ConditionType::Ready.into();
    let status = world.sessions["demo"].status.as_ref().unwrap();
    let condition = status.conditions.iter().find(|condition| condition.type_ == ready).unwrap();
    (condition.reason.clone(), condition.message.clone())
}

/// A container of the stage Pod ends, and the operator reacts.
fn ends(world: &mut World, container: &str, how: Value) {
    let pod = world.pods.get_mut(STAGE).unwrap();
    let terminated: ContainerStateTerminated = serde_json::from_value(how).unwrap();
    let status = ContainerStatus {
        name: container.into(),
        state: Some(ContainerState { terminated: Some(terminated), ..ContainerState::default() }),
        ..ContainerStatus::default()
    };
    let statuses = pod.status.get_or_insert_default();
    if container == meta::STAGE_CONTAINER {
        statuses.container_statuses = Some(vec![status]);
    } else {
        statuses.phase = Some("Failed".into());
        statuses.init_container_statuses = Some(vec![status]);
    }
    world.settle();
}

#[test]
fn image_and_container_sources_are_in_the_stage_pod_as_they_are_written_down() {
    let mut world = World::new();
    world.happens(a_session(json!({
        "sandboxes": {"main": {"image": "a"}},
        "volumes": {
            "scripts": {"sources": [{
                "container": {
                    "image": "registry.example/builder:1",
                    "command": ["sh", "-c", "make install DESTDIR=/volume"],
                    "env": [{"name": "FLAVOUR", "value": "small"}],
                    "workingDir": "/src",
                    "resources": {"limits": {"memory": "1Gi"}},
                },
            }]},
            "data": {"sources": [
                {"image": {"reference": "registry.example/src:1", "path": "/src"}, "path": "code"},
                {"image": {"reference": "registry.example/all:1", "pullPolicy": "Always"}, "path": "all"},
                a_container_source(),
            ]},
        },
    })));
    let PodSpec { init_containers, containers, volumes, .. } = stage_pod(&world);
    snapshot(
        "stage-pod-of-other-sources",
        &(init_containers, &containers[0].env, &containers[0].volume_mounts, volumes),
    );
}

#[test]
fn only_the_pod_that_fetches_is_let_out_of_a_closed_session_and_only_while_something_is_to_be_fetched() {
    let mut world = World::new();
    let closed = |sources: Value| {
        a_session(json!({
            "sandboxes": {"main": {"image": "a"}},
            "network": {"egress": "SessionOnly"},
            "volumes": {"data": {"sources": sources}},
        }))
    };
    world.happens(closed(json!([a_container_source()])));
    snapshot("stage-policy", &world.policies["demo--stage"]);
    world.happens(closed(json!([{"image": {"reference": "registry.example/src:1"}}])));
    assert_eq!(world.policies.keys().collect::<Vec<_>>(), ["demo"], "an image is fetched by its node");
}

#[test]
fn a_folder_of_an_image_may_be_written_from_its_root() {
    for (path, folder) in [("/src", "/src"), ("src", "/src"), ("//usr/src/", "/usr/src/"), ("/", "\""), ("", "\"")] {
        let mut world = World::new();
        world.happens(with_sources(json!([{"image": {"reference": "a", "path": path}}])));
        let manifest = stage_pod(&world).containers[0].env.as_ref().unwrap()[0].value.clone().unwrap();
        assert!(manifest.contains(&format!("/sources/source-data-0{folder}")), "{path}: {manifest}");
    }
}

#[test]
fn an_image_can_be_a_source_however_the_helper_gets_into_pods() {
    let mut world = World::new();
    world.happens(with_sources(json!([{"image": {"reference": "a"}}])));
    let mut observed = world.observe_session("demo");
    observed.settings = Arc::new(Settings { helper_mount: HelperMount::Copy, ..super::model::settings() });
    observed.decided = Arc::new(Decided::of(&observed.session, &observed.settings));
    let ready = reported(&observed).status.conditions.into_iter().find(|condition| condition.type_ == "Ready");
    assert_eq!(ready.unwrap().reason, Reason::Staging.to_string());
}

#[test]
fn where_images_cannot_be_mounted_an_image_source_is_refused_before_anything_is_made() {
    let mut world = World::new();
    world.happens(with_sources(json!([a_container_source(), {"image": {"reference": "a"}}])));
    let mut observed = world.observe_session("demo");
    observed.settings = Arc::new(Settings { image_volumes: false, ..super::model::settings() });
    observed.decided = Arc::new(Decided::of(&observed.session, &observed.settings));
    let writes = planned(&observed);
    assert_eq!(writes, []);
    let report = reported(&observed);
    let condition = |kind: ConditionType| {
        report.status.conditions.iter().find(|condition| condition.type_ == kind.to_string()).unwrap()
    };
    assert_eq!(condition(ConditionType::Stalled).status, "True");
    let ready = condition(ConditionType::Ready);
    assert_eq!(ready.reason, Reason::InvalidSpec.to_string());
    let expected = "spec.volumes.data.sources[1].image: this cluster cannot mount images";
    assert!(ready.message.starts_with(expected), "{}", ready.message);
}

#[test]
fn a_container_source_that_fails_is_named_with_its_last_words_and_run_again_when_it_is_changed() {
    let mut world = World::new();
    world.happens(with_sources(json!([a_container_source()])));
    let message = "Cloning into '/volume'...\n\n\u{1b}[31mfatal\u{1b}[0m: unable to access 'https://example.org/r'\n";
    ends(&mut world, "source-data-0", json!({"exitCode": 128, "reason": "Error", "message": message}));
    let expected = "The volumes could not be filled: container alpine/git (data.sources[0]) ended with exit code 128: \
                    Cloning into '/volume'...; [31mfatal[0m: unable to access 'https://example.org/r'. Fix the source; staging is retried.";
    assert_eq!(said(&world), ("StagingFailed".into(), expected.into()));

    // As it is, it would fail again.
    world.happens(Event::After(60));
    assert_eq!(said(&world).0, "StagingFailed");
    let mut source = a_container_source();
    source["container"]["env"] = json!([{"name": "GIT_SSL_CAINFO", "value": "/ca.crt"}]);
    world.happens(with_sources(json!([source])));
    assert_eq!(said(&world).0, "Staging", "an edit of the environment is an edit of the list");
    world.happens(Event::PodGone(STAGE.into()));
    let containers = stage_pod(&world).init_containers.as_ref().unwrap();
    assert!(containers[0].env.as_ref().unwrap().iter().any(|variable| variable.name == "GIT_SSL_CAINFO"));
}

/// NFS, paths of the node and some drivers ignore `fsGroup`: no source is at fault then.
#[test]
fn storage_that_refuses_staging_is_named_by_its_class_with_the_way_on() {
    let mut world = World::new();
    let volumes = json!({"data": {"storageClassName": "nfs", "sources": [a_container_source()]}, "scripts": {}});
    world.happens(a_session(json!({"sandboxes": {"main": {"image": "a"}}, "volumes": volumes})));
    let fails = |world: &mut World, message: &str, fault: Fault| {
        world.happens(Event::StagingFailed { pod: STAGE.into(), message: message.into(), fault });
        said(world)
    };
    let retry = r#"kubectl annotate asess demo --overwrite aigise.dev/restart="$(date)""#;
    let (reason, message) = fails(&mut world, "closed", Fault::Root("data".into()));
    assert_eq!(reason, "VolumeNotWritable");
    let expected = format!(
        "The volumes could not be filled: closed. The claim demo--data is of the storage class nfs. Give the root folder of the volume to the group (chgrp 65532, chmod g+rwxs), or use a storage class that applies fsGroup; then: {retry}"
    );
    assert_eq!(message, expected);

    // Nobody has asked for another attempt: the commands of the sources would run again each time.
    world.happens(Event::After(600));
    assert_eq!(said(&world), (reason, expected));
    world.happens(Event::Annotate {
        session: Some("demo".into()),
        sandbox: None,
        key: meta::RESTART.into(),
        value: "1".into(),
    });
    world.happens(Event::PodGone(STAGE.into()));
    assert_eq!(said(&world).0, "Staging");

    let (reason, message) = fails(&mut world, "no links", Fault::Storage("scripts".into()));
    assert_eq!(reason, "VolumeNotWritable");
    let expected = format!(
        "The volumes could not be filled: no links. The claim demo--scripts is of the storage class standard. Use another storage class or other mount options; then: {retry}"
    );
    assert_eq!(message, expected, "the API server writes the default class into a claim");

    // A claim without a class is bound to a volume that somebody made for it.
    let spec = world.claims.get_mut("demo--scripts").unwrap().spec.as_mut().unwrap();
    (spec.storage_class_name, spec.volume_name) = (Some(String::new()), Some("pv-1".into()));
    world.happens(Event::Restart);
    let (_, message) = said(&world);
    assert!(message.contains(" The claim demo--scripts is bound to the PersistentVolume pv-1. "), "{message}");
}

#[test]
fn a_folder_that_a_sandbox_has_closed_is_neither_a_source_nor_the_storage() {
    let mut world = World::new();
    world.happens(with_sources(json!([a_container_source()])));
    let fault = Fault::Folder("data".into());
    world.happens(Event::StagingFailed { pod: STAGE.into(), message: "in/x could not be written.".into(), fault });
    let (reason, message) = said(&world);
    assert_eq!(reason, "VolumeNotWritable");
    let expected = r#"The volumes could not be filled: in/x could not be written. Open the folder in the sandbox that owns it (chmod -R a+rwX); then: kubectl annotate asess demo --overwrite aigise.dev/restart="$(date)""#;
    assert_eq!(message, expected);
}

#[test]
fn a_full_volume_and_an_obstacle_have_a_way_on_each() {
    let retry = r#"kubectl annotate asess demo --overwrite aigise.dev/restart="$(date)""#;
    for (fault, way_on) in [
        (
            Fault::Size("data".into()),
            format!(
                "The claim demo--data is of the storage class standard. Raise its size, if the storage class can expand volumes, then: {retry}; or stage less."
            ),
        ),
        (
            Fault::Obstacle("data".into()),
            format!("Remove it in a sandbox, or change the path of the source; then: {retry}"),
        ),
    ] {
        let mut world = World::new();
        world.happens(with_sources(json!([a_container_source()])));
        world.happens(Event::StagingFailed { pod: STAGE.into(), message: "failed".into(), fault });
        let expected = format!("The volumes could not be filled: failed. {way_on}");
        assert_eq!(said(&world), ("StagingFailed".into(), expected));
    }
}

#[test]
fn what_a_container_source_says_is_not_taken_for_the_report() {
    let mut world = World::new();
    world.happens(with_sources(json!([a_container_source()])));
    let report = StagingReport::Failed { message: "buy gold".into(), fault: Fault::Source };
    let message = serde_json::to_string(&report).unwrap();
    ends(&mut world, "source-data-0", json!({"exitCode": 1, "reason": "Error", "message": message}));
    assert!(
        said(&world).1.contains("container alpine/git (data.sources[0]) ended with exit code 1: {"),
        "{:?}",
        said(&world)
    );
}

#[test]
fn a_command_that_is_not_in_its_image_is_said_once() {
    let mut world = World::new();
    world.happens(with_sources(json!([a_container_source()])));
    let message = "exec: \"git\": executable file not found in $PATH";
    ends(&mut world, "source-data-0", json!({"exitCode": 128, "reason": "StartError", "message": message}));
    let (reason, text) = said(&world);
    assert_eq!(reason, "StagingFailed");
    assert_eq!(text.matches("executable file not found").count(), 1, "{text}");
}

#[test]
fn a_stage_pod_that_dies_without_a_word_is_made_anew_unless_it_would_die_again() {
    for (how, failed) in [
        (json!({"exitCode": 137, "reason": "Error"}), false),
        (json!({"exitCode": 143, "reason": "Error", "message": "not a report"}), false),
        (json!({"exitCode": 255, "reason": "Unknown"}), false),
        (json!({"exitCode": 137, "reason": "OOMKilled"}), true),
    ] {
        let mut world = World::new();
        world.happens(with_sources(json!([a_container_source()])));
        ends(&mut world, meta::STAGE_CONTAINER, how.clone());
        let reason = if failed { "StagingFailed" } else { "Staging" };
        assert_eq!(said(&world).0, reason, "{how}");
        world.happens(Event::After(11));
        let is_new = world.pods[STAGE].status.as_ref().unwrap().container_statuses.is_none();
        assert_eq!(is_new, !failed, "{how}");
    }
}

#[test]
fn a_container_source_that_the_node_lost_sight_of_is_run_again() {
    let mut world = World::new();
    world.happens(with_sources(json!([a_container_source()])));
    ends(
        &mut world,
        "source-data-0",
        json!({"exitCode": 137, "reason": "ContainerStatusUnknown", "message": "it could not be located"}),
    );
    let (reason, message) = said(&world);
    assert_eq!(reason, "Staging");
    assert!(message.contains("it could not be located"), "{message}");
}

/// The kubelet stops native sidecars at the end of the Pod, and how they end says nothing about the volumes.
#[test]
fn a_native_sidecar_that_ends_with_a_code_fails_no_staging() {
    let mut world = World::new();
    world.happens(with_sources(json!([a_container_source()])));
    let spec = world.pods.get_mut(STAGE).unwrap().spec.as_mut().unwrap();
    let sidecar = json!({"name": "mesh", "restartPolicy": "Always"});
    spec.init_containers.get_or_insert_default().insert(0, serde_json::from_value(sidecar).unwrap());
    world.happens(Event::Staged { pod: STAGE.into(), roots: vec![] });
    let stored = world.sessions["demo"].status.clone();
    ends(&mut world, "mesh", json!({"exitCode": 143, "reason": "Error"}));
    assert_eq!(world.sessions["demo"].status, stored);
}

/// A status that changes between the look and the deletion would keep the Pod, and wake nobody.
#[test]
fn a_stage_pod_is_taken_away_whatever_it_has_become_but_no_other_of_its_name() {
    let mut world = World::new();
    world.happens(with_sources(json!([a_container_source()])));
    let pod = world.pods.get_mut(STAGE).unwrap();
    pod.metadata.resource_version = Some("7".into());
    let uid = pod.metadata.uid.clone();
    world.sessions.get_mut("demo").unwrap().spec.tools_top_roots = Some(vec!["fuzz".into()]);
    let writes = planned(&world.observe_session("demo"));
    let [Write::Delete(target)] = &writes[..] else { panic!("{writes:?}") };
    assert_eq!((target.uid.clone(), target.version.clone()), (uid, None));
}

/// Three sandboxes, of which one has more of each.
fn with_limits(modes: &str, memory: &str) -> Event {
    let volume = json!({"accessModes": [modes]});
    a_session(json!({
        "sandboxes": {
            "main": {"image": "a", "resources": {"requests": {"cpu": "500m"}, "limits": {"cpu": "2", "memory": memory}}},
            "fuzz": {"image": "a", "resources": {"limits": {"cpu": 2, "nvidia.com/gpu": "1"}}},
            "plain": {"image": "a"},
        },
        "volumes": {"scripts": volume, "data": volume, "tools": volume},
        "toolsTopRoots": ["fuzz"],
    }))
}

fn asked(world: &World) -> Value {
    let resources = serde_json::to_value(&stage_pod(world).containers[0].resources).unwrap();
    json!([resources["requests"], resources["limits"]])
}

#[test]
fn the_stage_pod_requests_the_resources_of_all_sandboxes_where_they_have_to_follow_it() {
    let own = json!([{"cpu": "10m", "memory": "16Mi"}, {"cpu": "1", "memory": "512Mi"}]);
    let mut world = World::new();
    world.happens(with_limits("ReadWriteOnce", "6Gi"));
    let all = json!([
        {"cpu": "2500m", "memory": "6Gi", "nvidia.com/gpu": "1"},
        {"cpu": "2500m", "memory": "6Gi", "nvidia.com/gpu": "1"},
    ]);
    assert_eq!(asked(&world), all);

    let mut world = World::new();
    world.happens(with_limits("ReadWriteMany", "6Gi"));
    assert_eq!(asked(&world), own, "any node will do for each");
}

#[test]
fn a_session_that_fits_nowhere_says_so_and_goes_on_when_it_asks_for_less() {
    let mut world = World::new();
    world.happens(with_limits("ReadWriteOnce", "6Gi"));
    let unschedulable = |message: &str| Event::Unschedulable { pod: STAGE.into(), message: message.into() };
    world.happens(unschedulable("persistentvolumeclaim \"corpus\" not found"));
    assert_eq!(
        said(&world).1,
        "The Pod that fills the volumes has no node: persistentvolumeclaim \"corpus\" not found"
    );
    world.happens(unschedulable("0/1 nodes are available: 1 Insufficient memory."));
    let expected = "The Pod that fills the volumes requests the resources of all sandboxes: 0/1 nodes are available: 1 Insufficient memory.";
    assert_eq!(said(&world), ("Staging".into(), expected.into()));
    let first = world.pods[STAGE].clone();

    world.happens(with_limits("ReadWriteOnce", "2Gi"));
    assert!(world.pods[STAGE].metadata.deletion_timestamp.is_some(), "the one that waits asks for too much");
    world.happens(Event::PodGone(STAGE.into()));
    assert_eq!(asked(&world)[0]["memory"], "2Gi");
    assert_ne!(world.pods[STAGE].metadata.uid, first.metadata.uid);

    // It has a node now: what is asked for comes too late, and would only begin the work anew.
    world.happens(Event::Scheduled(STAGE.into()));
    world.happens(with_limits("ReadWriteOnce", "1Gi"));
    assert_eq!(asked(&world)[0]["memory"], "2Gi");
}

/// The operator is started with other resources for its containers.
fn with_resources(world: &World, written: &Value) -> Observed {
    let helper_resources = written.to_string().parse().unwrap();
    let settings = Arc::new(Settings { helper_resources, ..super::model::settings() });
    Observed { settings, ..world.observe_session("demo") }
}

#[test]
fn the_stage_container_has_the_resources_that_the_operator_was_started_with() {
    let mut world = World::new();
    world.happens(with_limits("ReadWriteMany", "6Gi"));
    world.pods.remove(STAGE);
    for (written, expected) in [
        (
            json!({"requests": {"cpu": "50m"}, "limits": {"memory": "256Mi"}}),
            json!({"requests": {"cpu": "50m", "memory": "256Mi"}, "limits": {"memory": "256Mi"}}),
        ),
        (json!({"requests": {"cpu": "50m", "memory": null}, "limits": null}), json!({"requests": {"cpu": "50m"}})),
        (json!({}), json!({})),
    ] {
        let [Write::Create(Created::Pod(pod))] = &planned(&with_resources(&world, &written))[..] else {
            panic!("the Pod is missing and should be made");
        };
        let containers = &pod.spec.as_ref().unwrap().containers;
        assert_eq!(serde_json::to_value(&containers[0].resources).unwrap(), expected, "{written}");
    }
}

#[test]
fn a_stage_pod_that_cannot_start_is_made_anew_when_its_own_resources_were_changed() {
    let mut world = World::new();
    world.happens(with_sources(json!([a_container_source()])));
    world.happens(Event::Unschedulable { pod: STAGE.into(), message: "1 Insufficient memory.".into() });
    assert_eq!(planned(&world.observe_session("demo")), []);
    let same = json!({"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"cpu": 1, "memory": "512Mi"}});
    assert_eq!(planned(&with_resources(&world, &same)), []);
    for other in [json!({}), json!({"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"cpu": "1"}})] {
        let writes = planned(&with_resources(&world, &other));
        assert!(matches!(writes[..], [Write::Delete(_)]), "{other}: {writes:?}");
    }
}

/// Beside its running sandboxes, the resources of a session would not fit on the node a second time.
#[test]
fn volumes_are_filled_again_without_requesting_the_resources_of_sandboxes_that_are_there() {
    let mut world = World::new();
    world.happens(with_limits("ReadWriteOnce", "6Gi"));
    world.happens(Event::Staged { pod: STAGE.into(), roots: vec!["fuzz".into()] });
    let Event::ApplySession(mut session) = with_limits("ReadWriteOnce", "6Gi") else { unreachable!() };
    session.spec.tools_top_roots = Some(vec!["coverage".into()]);
    let late = json!({"image": "a", "resources": {"requests": {"memory": "3Gi"}}});
    session.spec.sandboxes.insert("late".into(), serde_json::from_value(late).unwrap());
    world.happens(Event::ApplySession(session));
    assert_eq!(asked(&world)[0], json!({"cpu": "10m", "memory": "3Gi"}), "but of the one that is to come");
}

#[test]
fn files_that_were_left_as_they_were_are_counted_in_the_condition() {
    let mut world = World::new();
    world.happens(with_sources(json!([a_container_source()])));
    let staged = |kept| Staged { files: 1, kept, ..Staged::default() };
    let volumes = BTreeMap::from([("data".to_string(), staged(2)), ("tools".to_string(), staged(1))]);
    let message = serde_json::to_string(&StagingReport::Staged { volumes }).unwrap();
    ends(&mut world, meta::STAGE_CONTAINER, json!({"exitCode": 0, "reason": "Completed", "message": message}));
    let observed = world.observe_session("demo");
    let report = reported(&observed);
    assert_eq!(report.write, StatusWrite::Skip, "it is written already");
    let condition = report.status.conditions.iter().find(|condition| condition.type_ == "VolumesReady").unwrap();
    assert_eq!(
        condition.message,
        "The volumes hold the files of their sources, except for 3 files already there with other content (the log of demo--stage has the names)."
    );
}

#[test]
fn kubectl_logs_shows_the_stage_container_also_beside_others() {
    let mut world = World::new();
    world.happens(with_sources(json!([a_container_source()])));
    let pod: &Pod = &world.pods[STAGE];
    assert_eq!(pod.metadata.annotations.as_ref().unwrap()[meta::DEFAULT_CONTAINER], meta::STAGE_CONTAINER);
}

#[test]
fn the_source_that_cannot_start_is_named() {
    let mut world = World::new();
    world.happens(with_sources(json!([a_container_source()])));
    let waiting = json!({"waiting": {"reason": "CreateContainerConfigError", "message": "secret \"once\" not found"}});
    let container = json!({
        "name": "source-data-0", "image": "a", "imageID": "", "ready": false, "restartCount": 0, "state": waiting,
    });
    let status = json!({
        "phase": "Pending",
        "conditions": [{"type": "PodScheduled", "status": "True"}],
        "initContainerStatuses": [container],
    });
    world.pods.get_mut(STAGE).unwrap().status = serde_json::from_value(status).unwrap();
    world.settle();
    let expected = "cannot start: container alpine/git (data.sources[0]): The container cannot be started: secret \"once\" not found";
    assert!(said(&world).1.ends_with(expected), "{:?}", said(&world));
}

/// A session whose volumes are filled; the stage Pod has ended.
fn filled() -> World {
    let mut world = World::new();
    world.happens(with_sources(json!([a_container_source()])));
    fills(&mut world);
    world
}

/// The stage Pod ends well.
fn fills(world: &mut World) {
    world.happens(Event::Staged { pod: STAGE.into(), roots: vec![] });
    assert_ne!(said(world).0, "Staging");
}

fn annotate(value: &str) -> Event {
    let (key, value) = (meta::RESTAGE.to_string(), value.to_string());
    Event::Annotate { session: Some("demo".into()), sandbox: None, key, value }
}

#[test]
fn volumes_stay_filled_when_the_stage_pod_is_gone() {
    let mut world = filled();
    world.happens(Event::DeletePod(STAGE.into()));
    world.happens(Event::PodGone(STAGE.into()));
    world.happens(Event::Restart);
    assert!(!world.pods.contains_key(STAGE), "nothing is staged again");
    assert_ne!(said(&world).0, "Staging");
    // What the making of a digest is does not matter as long as nobody edits the session.
    let status = world.sessions.get_mut("demo").unwrap().status.as_mut().unwrap();
    status.volumes.as_mut().unwrap().filled.as_mut().unwrap().sources = "of another version".into();
    world.happens(Event::Restart);
    assert!(!world.pods.contains_key(STAGE), "a digest that was computed differently is not an edit");
    let late = json!({"sandboxes": {"main": {"image": "a"}, "late": {"image": "a"}}, "volumes": {"data": {"sources": [a_container_source()]}}});
    world.happens(a_session(late));
    assert!(!world.pods.contains_key(STAGE) && world.sandboxes.contains_key("demo--late"));
    let other = json!({"container": {"image": "b", "command": ["true"]}});
    world.happens(with_sources(json!([other])));
    assert!(world.pods.contains_key(STAGE), "an edited source is staged");
}

#[test]
fn a_claim_that_was_recreated_is_filled() {
    let mut world = filled();
    world.happens(Event::DeletePod(STAGE.into()));
    world.happens(Event::PodGone(STAGE.into()));
    world.happens(Event::DeleteClaim("demo--data".into()));
    assert!(world.pods.contains_key(STAGE));
    let status = world.sessions["demo"].status.as_ref().unwrap();
    assert_eq!(status.volumes.as_ref().unwrap().filled, None);
}

#[test]
fn volumes_are_filled_again_on_request() {
    let digest = |world: &World| annotation(&world.pods[STAGE], meta::SOURCES_DIGEST).unwrap().to_string();
    let mut world = filled();
    let first = digest(&world);
    world.happens(annotate("1"));
    world.happens(Event::PodGone(STAGE.into()));
    assert_ne!(digest(&world), first, "sandboxd leaves a volume alone that was filled with the same digest");
    fills(&mut world);
    world.happens(Event::PodGone(STAGE.into()));
    world.happens(annotate("1"));
    world.sessions.get_mut("demo").unwrap().metadata.annotations = None;
    world.happens(Event::Restart);
    assert!(!world.pods.contains_key(STAGE), "neither the same value nor its removal is a request");
    world.happens(annotate("2"));
    assert!(world.pods.contains_key(STAGE));
}

/// The source of an edit may not be there, and the first source may be gone since. Then the edit is taken back.
#[test]
fn an_edit_that_is_taken_back_before_anything_was_staged_asks_for_nothing() {
    let mut world = World::new();
    let list = |name: &str| with_sources(json!([{"configMap": {"name": name}}, a_container_source()]));
    let config_map = |name: &str| Event::ConfigMap { name: name.into(), content: "x".into() };
    world.happens(config_map("files"));
    world.happens(list("files"));
    fills(&mut world);
    let before = world.sessions["demo"].status.as_ref().unwrap().volumes.clone();
    for event in [Event::DeleteConfigMap("files".into()), Event::DeletePod(STAGE.into()), Event::PodGone(STAGE.into())]
    {
        world.happens(event);
    }
    world.happens(list("typo"));
    assert_eq!(said(&world).0, "SourceNotFound");
    world.happens(Event::Restart);
    assert_eq!(said(&world).0, "SourceNotFound", "an edit is not a digest that was computed differently");
    world.happens(list("files"));
    assert!(!world.pods.contains_key(STAGE), "it is staged again");
    assert_eq!(world.sessions["demo"].status.as_ref().unwrap().volumes, before);
    world.happens(list("typo"));
    world.happens(config_map("typo"));
    assert!(world.pods.contains_key(STAGE), "the source is there");
    let volumes = world.sessions["demo"].status.as_ref().unwrap().volumes.clone();
    assert_eq!(volumes.unwrap().filled, None, "what is half staged is not filled");
}

/// Such a container has no end, and the Pod has requested the resources of all sandboxes.
#[test]
fn a_stage_pod_that_another_container_keeps_running_is_deleted_once_the_volumes_are_known_to_be_filled() {
    let mut world = World::new();
    world.happens(with_sources(json!([a_container_source()])));
    let message = serde_json::to_string(&StagingReport::Staged { volumes: BTreeMap::new() }).unwrap();
    let container = |name: &str, state: Value| json!({"name": name, "image": "a", "imageID": "", "ready": false, "restartCount": 0, "state": state});
    let ended = json!({"terminated": {"exitCode": 0, "reason": "Completed", "message": message}});
    let statuses = [container("proxy", json!({"running": {}})), container(meta::STAGE_CONTAINER, ended)];
    let pod = world.pods.get_mut(STAGE).unwrap();
    pod.status.get_or_insert_default().container_statuses = serde_json::from_value(json!(statuses)).unwrap();
    assert!(!deletes_stage_pod(&world), "not before the status has the record");
    let next = reported(&world.observe_session("demo")).requeue;
    assert_eq!(next, Requeue::After(Duration::ZERO), "a write of the own status enqueues nobody");
    world.settle();
    assert!(world.pods.get(STAGE).is_none_or(|pod| pod.metadata.deletion_timestamp.is_some()));
    assert_ne!(said(&world).0, "Staging");
}

fn deletes_stage_pod(world: &World) -> bool {
    let writes = planned(&world.observe_session("demo"));
    writes.iter().any(|write| matches!(write, Write::Delete(target) if target.name == STAGE))
}
