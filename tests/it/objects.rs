//! The objects that a session makes, whole: a change of any field of them shows as a change of a snapshot.

use std::sync::Arc;

use aigise_operator::{
    api::{Agent, agent::DesiredStatus},
    plan::{self, Decide, sandbox, session},
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use serde::Serialize;
use serde_json::{Value, json};

use super::model::{Event, World, planned, reported, settings};

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

/// The template of a user mounts the volumes by their names, whatever their layout is.
#[test]
fn with_one_claim_every_mount_is_of_a_folder_of_it() {
    let session = "
apiVersion: aigise.dev/v1alpha1
kind: AigiseSession
metadata: {name: demo}
spec:
  sandboxes:
    main:
      image: registry.example/arvo:1
      podTemplate:
        spec:
          initContainers:
          - {name: prepare, image: a, volumeMounts: [{name: tools, mountPath: /t, subPath: /fuzz}]}
          containers:
          - name: sandbox
            volumeMounts: [{name: tools, mountPath: /work, subPathExpr: $(AIGISE_SESSION)}]
          - name: beside
            image: a
            volumeMounts: [{name: scripts, mountPath: /s, readOnly: false}, {name: data, mountPath: /d}, {name: own, mountPath: /o}]
          volumes: [{name: own, emptyDir: {}}]
  volumes:
    layout: Single
    data: {size: 5Gi, storageClassName: fast, sources: [{configMap: {name: poc}}]}
    scripts: {sources: [{configMap: {name: poc}}]}
";
    let mut world = World::new();
    world.happens(Event::ConfigMap { name: "poc".into(), content: "a".into() });
    world.happens(Event::ApplySession(serde_yaml::from_str(session).unwrap()));
    assert_eq!(world.claims.keys().collect::<Vec<_>>(), ["demo--data"]);
    snapshot("claim-single", &world.claims["demo--data"]);
    let mounts = |pod: &str| {
        let spec = world.pods[pod].spec.as_ref().unwrap();
        let containers = spec.init_containers.iter().flatten().chain(&spec.containers);
        let mounts = containers.map(|container| (&container.name, &container.volume_mounts)).collect::<Vec<_>>();
        json!({"volumes": spec.volumes, "mounts": mounts})
    };
    snapshot("stage-pod-single", &mounts("demo--stage"));
    world.happens(Event::Staged { pod: "demo--stage".into(), roots: vec![] });
    let spec = world.pods["demo--main"].spec.as_ref().unwrap();
    let containers = spec.init_containers.iter().flatten().chain(&spec.containers);
    let mounts: Vec<_> = containers.map(|container| (&container.name, &container.volume_mounts)).collect();
    snapshot("sandbox-pod-single", &json!({"volumes": spec.volumes, "mounts": mounts}));
    snapshot("status-single", &world.sessions["demo"].status.as_ref().unwrap().volumes);
}

#[test]
fn where_images_cannot_be_mounted_the_helper_is_copied() {
    let mut world = staged();
    world.pods.remove("demo--main");
    let copy = plan::Settings { helper_mount: plan::HelperMount::Copy, ..settings() };
    let observed = sandbox::Observed { settings: Arc::new(copy), ..world.observe_sandbox("demo--main") };
    let [plan::Write::Create(plan::Created::Pod(pod))] = &planned(&observed)[..] else {
        panic!("the Pod is missing and should be made");
    };
    snapshot("sandbox-pod-with-copied-helper", &pod.spec.as_ref().unwrap().init_containers);

    let helper_resources = r#"{"requests":{"cpu":"0.05"},"limits":{"memory":"256Mi","cpu":null}}"#.parse().unwrap();
    let fitted = plan::Settings { helper_resources, ..plan::Settings::clone(&observed.settings) };
    let observed = sandbox::Observed { settings: Arc::new(fitted), ..observed };
    let [plan::Write::Create(plan::Created::Pod(pod))] = &planned(&observed)[..] else {
        panic!("the Pod is missing and should be made");
    };
    let installer = &pod.spec.as_ref().unwrap().init_containers.as_ref().unwrap()[0];
    let expected = json!({"requests": {"cpu": "0.05"}, "limits": {"memory": "256Mi"}});
    assert_eq!(serde_json::to_value(&installer.resources).unwrap(), expected);
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
    assert_eq!(planned(&sandbox), []);
    assert_eq!(planned(&session::Observed { settings, ..world.observe_session("demo") }), []);
}

/// A container source runs a stranger's image, as a sandbox does.
#[test]
fn strangers_commands_run_behind_the_walls_of_the_sandboxes() {
    let stage_pod = |defaults: Value, source: Value| {
        let mut container = json!({"image": "b", "command": ["make"]});
        container.as_object_mut().unwrap().extend(source.as_object().unwrap().clone());
        let session = json!({
            "apiVersion": "aigise.dev/v1alpha1", "kind": "AigiseSession", "metadata": {"name": "demo"},
            "spec": {
                "sandboxes": {"main": {"image": "a"}}, "sandboxDefaults": defaults,
                "volumes": {"data": {"sources": [{"container": container}]}},
            },
        });
        let mut world = World::new();
        world.happens(Event::ApplySession(Box::new(serde_json::from_value(session).unwrap())));
        world.pods.remove("demo--stage").map(|pod| serde_json::to_value(pod).unwrap())
    };
    let plain = stage_pod(json!({}), json!({})).unwrap();
    let confined = json!({"allowPrivilegeEscalation": false, "capabilities": {"drop": ["ALL"]}});
    assert_eq!(plain["spec"]["initContainers"][0]["securityContext"], confined);

    let affinity = json!({"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchExpressions": [{"key": "k", "operator": "Exists"}]}]}});
    let walls = json!({
        "runtimeClassName": "gvisor", "hostUsers": false, "nodeSelector": {"pool": "untrusted"},
        "tolerations": [{"key": "untrusted", "operator": "Exists"}], "imagePullSecrets": [{"name": "key"}],
    });
    let mut spec = walls.clone();
    spec["affinity"] = json!({"nodeAffinity": affinity, "podAntiAffinity": {}});
    spec["securityContext"] = json!({
        "seccompProfile": {"type": "Localhost", "localhostProfile": "p"}, "sysctls": [],
        "supplementalGroups": [5000], "runAsUser": 0,
    });
    spec["terminationGracePeriodSeconds"] = json!(99);
    let defaults = json!({
        "podTemplate": {"spec": spec},
        "securityContext": {"appArmorProfile": {"type": "RuntimeDefault"}, "runAsUser": 0, "capabilities": {"add": ["SYS_PTRACE"]}},
    });
    let walled = stage_pod(defaults, json!({})).unwrap();
    for (field, wall) in walls.as_object().unwrap() {
        assert_eq!(&walled["spec"][field], wall, "{field}");
    }
    assert_eq!(walled["spec"]["affinity"]["nodeAffinity"], affinity);
    assert_eq!(walled["spec"]["affinity"]["podAffinity"], plain["spec"]["affinity"]["podAffinity"], "on one node");
    let context = &walled["spec"]["securityContext"];
    assert_eq!(context["seccompProfile"], json!({"type": "Localhost", "localhostProfile": "p"}));
    assert_eq!(context["fsGroup"], plain["spec"]["securityContext"]["fsGroup"]);
    assert_eq!(context["supplementalGroups"], json!([5000]), "for storage that ignores fsGroup");
    assert_eq!(context["runAsUser"], Value::Null);
    assert_eq!(walled["spec"]["terminationGracePeriodSeconds"], 5);
    let mut expected = confined.clone();
    expected["appArmorProfile"] = json!({"type": "RuntimeDefault"});
    assert_eq!(walled["spec"]["initContainers"][0]["securityContext"], expected);
    // One that has no node yet is made anew when the nodes are others.
    let hash = |pod: &Value| pod["metadata"]["annotations"]["aigise.dev/stage-hash"].clone();
    assert_ne!(hash(&walled), hash(&plain));

    // What a debugger needs is not a wall.
    let debugger = json!({"securityContext": {"seccompProfile": {"type": "Unconfined"}}, "podTemplate": {"spec": {"securityContext": {"seccompProfile": {"type": "Unconfined"}}}}});
    assert_eq!(stage_pod(debugger, json!({})).unwrap()["spec"], plain["spec"]);

    let restricted =
        json!({"securityContext": {"runAsNonRoot": true, "runAsUser": 1000, "capabilities": {"add": ["CHOWN"]}}});
    let context = &stage_pod(json!({}), restricted).unwrap()["spec"]["initContainers"][0]["securityContext"];
    let expected = json!({
        "runAsNonRoot": true, "runAsUser": 1000, "allowPrivilegeEscalation": false,
        "capabilities": {"add": ["CHOWN"], "drop": ["ALL"]},
    });
    assert_eq!(context, &expected);
    assert_eq!(stage_pod(json!({}), json!({"securityContext": {"privileged": true}})), None, "nobody may");
}

/// What a session names has to be there; what an agent asked for, or was staged for one that is gone, does not.
#[test]
fn only_what_the_session_names_has_to_be_among_the_sources() {
    let mut world = staged();
    let session = world.sessions.get_mut("demo").unwrap();
    session.spec.enabled_skills = Some(vec!["coverage/lcov".into()]);
    let source = json!({"configMap": {"name": "poc"}, "path": "fuzz"});
    session.spec.volumes.as_mut().unwrap().tools = Some(serde_json::from_value(json!({"sources": [source]})).unwrap());
    let volumes = session.status.as_mut().unwrap().volumes.as_mut().unwrap();
    volumes.filled = None;
    let tools = volumes.tools.as_mut().unwrap();
    assert_eq!(tools.roots, ["fuzz"]);
    tools.roots.push("made-by-a-sandbox".into());
    world.pods.remove("demo--stage");
    let observed = world.observe_session("demo");
    let writes = planned(&observed);
    assert_eq!(observed.situation().lifecycle, session::Lifecycle::NotStaged);
    let pod = writes.iter().find_map(|write| match write {
        plan::Write::Create(plan::Created::Pod(pod)) => Some(pod),
        _ => None,
    });
    let env = &pod.unwrap().spec.as_ref().unwrap().containers[0].env.as_ref().unwrap()[0];
    let manifest: Value = serde_json::from_str(env.value.as_ref().unwrap()).unwrap();
    let tools = manifest["volumes"].as_array().unwrap().iter().find(|volume| volume["name"] == "tools").unwrap();
    assert_eq!(tools["topRoots"], json!(["fuzz", "coverage", "made-by-a-sandbox"]));
    assert_eq!(tools["optionalRoots"], json!(["made-by-a-sandbox"]));
}

fn with_agent(desired: &str) -> World {
    let mut world = World::new();
    world.happens(Event::ApplySession(
        serde_yaml::from_str("{metadata: {name: demo}, spec: {sandboxes: {main: {image: a}}}}").unwrap(),
    ));
    world.happens(Event::Running("demo--main".into()));
    let agent = format!(
        "{{metadata: {{name: a}}, spec: {{session: demo, desiredStatus: {desired}, runner: {{image: b, sandboxExec: true}}}}}}"
    );
    world.happens(Event::ApplyAgent(serde_yaml::from_str(&agent).unwrap()));
    world
}

/// Whoever may write Sandboxes can say of one that it is an agent's. What an agent's Pod has is for what the agent asks for.
#[test]
fn a_sandbox_that_its_agent_does_not_ask_for_gets_nothing_of_an_agents() {
    let asked = with_agent("active");
    let name = plan::facts::agent::runner_name(&asked.agents["a"]);
    let genuine = asked.sandboxes[&name].clone();
    assert!(asked.pods.contains_key(&name));

    // Another program, in one that is there: its Pod stays as it is, and the agent puts it right.
    let mut world = asked;
    let patched = world.sandboxes.get_mut(&name).unwrap();
    patched.spec.template.image = Some("evil".into());
    assert_eq!(planned(&world.observe_sandbox(&name)), []);
    let repaired = planned(&world.observe_agent("a"));
    assert!(matches!(&repaired[..], [plan::Write::Replace(sandbox)] if sandbox.spec == genuine.spec));
    // And none is made of it meanwhile.
    world.pods.remove(&name);
    let stage = sandbox::Lifecycle::of(&world.observe_sandbox(&name));
    assert!(matches!(stage, sandbox::Lifecycle::WaitsForAgent(_)), "{stage:?}");
    assert_eq!(planned(&world.observe_sandbox(&name)), []);

    // Nothing enqueues a Sandbox whose Pod is there when its session has made the role: it is requeued.
    let mut world = with_agent("active");
    let next = |world: &World| reported(&world.observe_sandbox(&name)).requeue;
    assert_ne!(next(&world), plan::Requeue::Backoff);
    world.roles.clear();
    assert_eq!(next(&world), plan::Requeue::Backoff);

    // The exec access of one that is being deleted is not made again while its owner's deletion takes it away.
    let mut world = with_agent("active");
    world.accounts.clear();
    let plan_of = |world: &World| planned(&world.observe_sandbox(&name));
    assert!(matches!(&plan_of(&world)[..], [plan::Write::Apply(plan::Applied::ServiceAccount(_))]));
    let going = world.sandboxes.get_mut(&name).unwrap();
    going.metadata.deletion_timestamp = Some(serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap());
    assert_eq!(plan_of(&world), []);

    // One for an inactive agent, and one by another name.
    let mut world = with_agent("paused");
    let owner = world.agents["a"].metadata.uid.clone().unwrap();
    for forged_name in [name.clone(), "demo--agent-0123456789ab".into()] {
        let mut forged = genuine.clone();
        forged.metadata.name = Some(forged_name.clone());
        forged.spec.sandbox_type = forged_name.trim_start_matches("demo--").into();
        forged.metadata.owner_references.as_mut().unwrap()[0].uid = owner.clone();
        forged.status = None;
        world.sandboxes.insert(forged_name.clone(), forged);
        let observed = world.observe_sandbox(&forged_name);
        assert!(observed.agent.is_some() && planned(&observed).is_empty(), "{forged_name}");
    }
}

/// Whatever the operator may still do, the exec access of an agent's Pod goes with the Sandbox that owns it.
#[test]
fn a_sandbox_with_exec_access_goes_when_that_is_over() {
    let world = with_agent("active");
    let name = plan::facts::agent::runner_name(&world.agents["a"]);
    let is_owner = |meta: &ObjectMeta| {
        let owners = meta.owner_references.as_ref().unwrap();
        owners.len() == 1 && Some(&owners[0].uid) == world.sandboxes[&name].metadata.uid.as_ref()
    };
    assert!(is_owner(&world.accounts[&name].metadata) && is_owner(&world.bindings[&name].metadata));
    assert!(is_owner(&world.policies[&name].metadata) && is_owner(&world.roles["demo--exec"].metadata));

    let removal = |observed: &plan::agent::Observed| matches!(&planned(observed)[..], [plan::Write::Delete(target)] if target.kind == plan::Kind::Sandbox && target.name == name);
    let observed = world.observe_agent("a");
    assert_eq!(planned(&observed), []);
    let settings = Arc::new(plan::Settings { allow_runner_exec: false, ..settings() });
    assert!(removal(&plan::agent::Observed { settings, ..observed.clone() }), "the operator was upgraded");
    for change in [
        |agent: &mut Agent| agent.spec.runner = None,
        |agent: &mut Agent| agent.spec.runner.as_mut().unwrap().sandbox_exec = None,
        |agent: &mut Agent| agent.spec.desired_status = Some(DesiredStatus::Stopped),
    ] {
        let mut agent = Agent::clone(&observed.agent);
        change(&mut agent);
        assert!(removal(&plan::agent::Observed { agent: Arc::new(agent), ..observed.clone() }));
    }
}

#[test]
fn the_container_that_reports_the_success_of_init_work_leaves_the_quality_of_service_as_it_is() {
    let reporter = |resources: Value| {
        let main = json!({"image": "a", "resources": resources, "init": {"steps": [{"name": "a", "command": ["a"]}]}});
        let session = json!({"apiVersion": "aigise.dev/v1alpha1", "kind": "AigiseSession", "metadata": {"name": "demo"}, "spec": {"sandboxes": {"main": main}}});
        let mut world = World::new();
        world.happens(Event::ApplySession(Box::new(serde_json::from_value(session).unwrap())));
        world.pods["demo--main"].spec.clone().unwrap().init_containers.unwrap().remove(0)
    };
    let usual = reporter(json!({"requests": {"cpu": "1", "memory": "1Gi"}, "limits": {"cpu": "2", "memory": "1Gi"}}));
    snapshot("init-report", &usual);
    let guaranteed = reporter(json!({"limits": {"cpu": "1000m", "memory": "1Gi"}, "requests": {"cpu": "1"}}));
    let resources = guaranteed.resources.unwrap();
    assert_eq!(resources.requests, resources.limits);
    assert_ne!(usual.resources, Some(resources));
}
