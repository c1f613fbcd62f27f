//! The objects that a session makes, whole: a change of any field of them shows as a change of a snapshot.

use std::sync::Arc;

use aigise_operator::plan::{self, sandbox, session};
use serde::Serialize;

use super::model::{Event, World, settings};

fn a_session() -> Event {
    let session = serde_yaml::from_str(
        "
apiVersion: aigise.dev/v1alpha1
kind: AigiseSession
metadata: {name: demo}
spec:
  taskName: arvo-1234
  sandboxes:
    main:
      image: registry.example/arvo:1
      env: [{name: MAIN, value: $(AIGISE_MAIN_HOST)}]
      ports: [{name: gdb, containerPort: 1111}]
      workingDir: /src
      resources: {limits: {memory: 4Gi}}
      securityContext: {runAsUser: 1000}
    gdb_mcp: {image: registry.example/gdb:1, entrypoint: Image}
  volumes:
    data:
      size: 5Gi
      storageClassName: fast
      sources:
      - {configMap: {name: poc}, path: poc}
      - {persistentVolumeClaim: {claimName: corpus, path: seeds}, path: corpus}
  toolsTopRoots: [fuzz]
",
    );
    Event::ApplySession(session.unwrap())
}

fn staged() -> World {
    let mut world = World::new();
    world.happens(Event::ConfigMap { name: "poc".into(), content: "a".into() });
    world.happens(a_session());
    world.happens(Event::Staged { pod: "demo--stage".into(), roots: vec!["fuzz".into()] });
    world
}

pub(super) fn snapshot(name: &str, object: &impl Serialize) {
    insta::with_settings!({ snapshot_path => "../objects", prepend_module_to_snapshot => false, omit_expression => true }, {
        insta::assert_snapshot!(name, serde_yaml::to_string(object).unwrap());
    });
}

#[test]
fn the_objects_of_a_session_are_as_they_are_written_down() {
    let world = staged();
    snapshot("network-policy", &world.policies["demo"]);
    snapshot("service", &world.services["demo"]);
    snapshot("claim", &world.claims["demo--data"]);
    let mut stage_pod = world.pods["demo--stage"].clone();
    stage_pod.status = None;
    snapshot("stage-pod", &stage_pod);
    let mut sandbox = world.sandboxes["demo--main"].clone();
    sandbox.status = None;
    snapshot("sandbox", &sandbox);
    snapshot("sandbox-pod", &world.pods["demo--main"]);
}

#[test]
fn where_images_cannot_be_mounted_the_helper_is_copied() {
    let mut world = staged();
    world.pods.remove("demo--main");
    let copy = plan::Settings { helper_mount: plan::HelperMount::Copy, ..settings() };
    let observed = sandbox::Observed { settings: Arc::new(copy), ..world.observe_sandbox("demo--main") };
    let [plan::Write::Ensure(plan::Child::Pod(pod))] = &sandbox::plan(&observed)[..] else {
        panic!("the Pod is missing and should be made");
    };
    snapshot("sandbox-pod-with-copied-helper", &pod.spec.as_ref().unwrap().init_containers);
}

/// Pods of a session with a `ReadWriteOnce` claim have to be on one node; with `ReadWriteMany` alone they are free.
#[test]
fn only_claims_of_one_node_hold_pods_together() {
    let session = |modes: &str| {
        let volumes =
            ["scripts", "data", "tools"].map(|volume| format!("{volume}: {{accessModes: [{modes}]}}")).join(", ");
        let text = format!(
            "{{apiVersion: aigise.dev/v1alpha1, kind: AigiseSession, metadata: {{name: demo}},
              spec: {{sandboxes: {{main: {{image: a}}}}, volumes: {{{volumes}}}, toolsTopRoots: [a]}}}}"
        );
        Event::ApplySession(serde_yaml::from_str(&text).unwrap())
    };
    for (modes, together) in [("ReadWriteOnce", true), ("ReadWriteMany", false)] {
        let mut world = World::new();
        world.happens(session(modes));
        let pod = world.pods["demo--stage"].spec.clone().unwrap();
        assert_eq!(pod.affinity.is_some(), together, "{modes}");
    }
}

/// The kubelet would take `$(…)` in the manifest for a variable, and `$$` for a dollar.
#[test]
fn a_dollar_in_a_path_reaches_the_stage_pod_as_it_is() {
    let mut world = World::new();
    let text = "{apiVersion: aigise.dev/v1alpha1, kind: AigiseSession, metadata: {name: demo}, spec: {sandboxes: {main: {image: a}},
        volumes: {data: {sources: [{persistentVolumeClaim: {claimName: c}, path: 'a$b$$c'}]}}}}";
    world.happens(Event::ApplySession(serde_yaml::from_str(text).unwrap()));
    let env = world.pods["demo--stage"].spec.as_ref().unwrap().containers[0].env.clone().unwrap();
    assert!(env[0].value.as_ref().unwrap().contains("a$$b$$$$c"));
}

/// A new sibling, or another helper image, is no change of a template.
#[test]
fn the_template_hash_covers_what_the_user_wrote_and_nothing_derived() {
    let mut world = staged();
    world.happens(Event::Running("demo--main".into()));
    let other = plan::Settings { helper_image: "registry.example/aigise-operator:2".into(), ..settings() };
    let settings = Arc::new(other);
    let sandbox = sandbox::Observed { settings: settings.clone(), ..world.observe_sandbox("demo--main") };
    assert_eq!(sandbox::plan(&sandbox), []);
    assert_eq!(session::plan(&session::Observed { settings, ..world.observe_session("demo") }), []);
}
