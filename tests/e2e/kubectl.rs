//! What users see with kubectl.

use std::path::Path;

use serde::Deserialize;
use serde_json::{Value, json};

use super::{
    client::kubectl,
    ground::Ground,
    objects::{config_map, from_config_map, list, plain, sandbox, session},
};

#[test]
#[ignore = "needs a cluster: make e2e"]
fn explain_says_what_a_field_is_for() {
    // However it is wrapped.
    let explain = |field: &str| -> String {
        let text = kubectl(&["explain", field]).text();
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let text = explain("asess.spec.volumes.data.sources");
    for words in ["configMap", "persistentVolumeClaim", "that the volume is filled with", "copied in this order"] {
        assert!(text.contains(words), "{words} is not in\n{text}");
    }
    let sandbox = explain("asb.spec");
    assert!(sandbox.contains("entrypoint") && sandbox.contains("The container image"), "{sandbox}");
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn client_side_and_server_side_apply_agree_with_what_is_there() {
    let ground = Ground::new("apply");
    let sources = json!({"data": {"size": "10Mi", "sources": [from_config_map("poc", "poc")]}});
    let ways: [(&str, &[&str]); 2] = [("client", &[]), ("server", &["--server-side"])];
    for (name, way) in ways {
        let objects = list(&[
            config_map("poc", &[("crash", "x")]),
            session(name, json!({"sandboxes": plain(&["main", "gdb_mcp"]), "volumes": sources})),
        ]);
        let objects = objects.to_string();
        let with = |verb: &'static str| ground.kubectl_reading(&[&[verb, "-f", "-"], way].concat(), &objects);
        with("apply").text();
        ground.until_ready(&format!("asess/{name}"));
        let before = ground.get(&format!("asess/{name}"));
        let again = with("apply").text();
        // Server-side apply has one word for both.
        let word = if way.is_empty() { "unchanged" } else { "serverside-applied" };
        assert!(again.contains(&format!("aigisesession.aigise.dev/{name} {word}")), "{again}");
        assert_eq!(with("diff").text(), "", "{name}");
        let after = ground.get(&format!("asess/{name}"));
        assert_eq!(after["metadata"]["resourceVersion"], before["metadata"]["resourceVersion"], "{name}");
    }
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn the_columns_say_how_it_stands() {
    let ground = Ground::new("columns");
    ground.apply(&session("s", json!({"sandboxes": plain(&["main", "fuzz", "gdb_mcp"])})));
    ground.until_ready("asess/s");
    let rows = |arguments: &[&str]| -> Vec<Vec<String>> {
        let table = ground.kubectl(arguments).text();
        table.lines().map(|line| line.split_whitespace().map(str::to_string).collect()).collect()
    };
    let sessions = rows(&["get", "asess"]);
    assert_eq!(sessions[0], ["NAME", "PHASE", "SANDBOXES", "AGENTS", "AGE"]);
    assert_eq!(sessions[1][..3], ["s", "Ready", "3/3"]);
    let sandboxes = rows(&["get", "asb"]);
    assert_eq!(sandboxes[0], ["NAME", "TYPE", "STATE", "PHASE", "AGE"]);
    assert_eq!(sandboxes[1][..4], ["s--fuzz", "fuzz", "ready", "Ready"]);
    assert_eq!(sandboxes[2][..4], ["s--gdb-mcp", "gdb_mcp", "ready", "Ready"]);
    let wide = ground.kubectl(&["get", "asess", "-o", "wide"]).text();
    assert!(wide.contains("All sandboxes are ready (3/3)."), "{wide}");
    // The category, and what scripts wait for.
    let all = ground.kubectl(&["get", "aigise", "-o", "name"]).text();
    assert_eq!(all.lines().count(), 4, "{all}");
    ground.kubectl(&["wait", "--for=condition=Ready", "asess/s", "--timeout=5s"]).text();
}

/// What kustomize makes of objects, with the component of the examples.
fn kustomized(objects: &[Value]) -> Vec<Value> {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, content: &str| std::fs::write(folder.path().join(name), content).unwrap();
    let component = folder.path().join("component");
    std::fs::create_dir(&component).unwrap();
    for file in ["kustomization.yaml", "configuration.yaml"] {
        let from = Path::new(env!("CARGO_MANIFEST_DIR")).join("examples/kustomize").join(file);
        std::fs::copy(from, component.join(file)).unwrap();
    }
    let text: Vec<_> = objects.iter().map(Value::to_string).collect();
    write("objects.yaml", &text.join("\n---\n"));
    let kustomization = json!({
        "namePrefix": "a-",
        "nameSuffix": "-z",
        "resources": ["objects.yaml"],
        "components": ["component"],
        "configMapGenerator": [{"name": "c", "literals": ["k=1"]}],
        "secretGenerator": [{"name": "s", "literals": ["k=1"]}],
        "images": [{"name": "a", "newName": "registry.example/a", "newTag": "2"}],
    });
    write("kustomization.yaml", &kustomization.to_string());

    let built = kubectl(&["kustomize", &folder.path().display().to_string()]).text();
    serde_yaml::Deserializer::from_str(&built).map(|one| Value::deserialize(one).unwrap()).collect()
}

/// Needs nothing but the client.
#[test]
#[ignore = "needs a cluster: make e2e"]
fn kustomize_renames_objects_and_images_where_ours_name_them() {
    let template = json!({
        "image": "a",
        "env": [{"name": "E", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}],
        "envFrom": [{"configMapRef": {"name": "c"}}],
        "podTemplate": {"spec": {
            "serviceAccountName": "account",
            "imagePullSecrets": [{"name": "s"}],
            "initContainers": [{"name": "c", "image": "a", "envFrom": [{"secretRef": {"name": "s"}}]}],
            "volumes": [
                {"name": "c", "configMap": {"name": "c"}},
                {"name": "s", "projected": {"sources": [{"secret": {"name": "s"}}, {"configMap": {"name": "c"}}]}},
                {"name": "p", "persistentVolumeClaim": {"claimName": "p"}},
                {"name": "a", "image": {"reference": "a"}},
            ],
        }},
    });
    let mut by_hand = template.clone();
    by_hand["session"] = json!("lab");
    by_hand["type"] = json!("main");
    by_hand["volumes"] = json!([{"name": "p", "claimName": "p", "mountPath": "/p"}]);
    let sources = json!([{"persistentVolumeClaim": {"claimName": "p"}}, {"configMap": {"name": "c"}}, {"image": {"reference": "a"}}]);
    let objects = [
        session(
            "lab",
            json!({
                "configFrom": {"configMapKeyRef": {"name": "c", "key": "k"}},
                "variables": [{"name": "V", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}],
                "models": {"main": {"apiKeySecretRef": {"name": "s", "key": "k"}}},
                "sandboxDefaults": template,
                "sandboxes": {"main": template, "gdb_mcp": {"attach": {"podName": "theirs"}}},
                "volumes": {"data": {"claimName": "p", "sources": sources}},
            }),
        ),
        sandbox("by-hand", by_hand),
        json!({"apiVersion": "aigise.dev/v1alpha1", "kind": "Agent", "metadata": {"name": "lead"}, "spec": {"session": "lab", "creator": "ada", "runner": template}}),
        json!({"apiVersion": "aigise.dev/v1alpha1", "kind": "Agent", "metadata": {"name": "second"}, "spec": {"session": "lab", "parent": "lead", "creator": "lead"}}),
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "theirs", "annotations": {"aigise.dev/attachable": "lab"}}, "spec": {"containers": [{"name": "c", "image": "a"}]}}),
        json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "p"}}),
        json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "account"}}),
    ];
    let built = kustomized(&objects);
    let object = |kind: &str, name: &str| {
        let mut found = built.iter().filter(|object| object["kind"] == kind);
        found.find(|object| object["metadata"]["name"].as_str().unwrap().starts_with(name)).expect(name)
    };
    // Names of other things are called like the objects: those of containers, volumes, keys.
    let (config, secret) =
        (&object("ConfigMap", "a-c-z-")["metadata"]["name"], &object("Secret", "a-s-z-")["metadata"]["name"]);
    let is_renamed = |template: &Value| {
        assert_eq!(template["image"], "registry.example/a:2");
        assert_eq!(
            template["env"][0],
            json!({"name": "E", "valueFrom": {"secretKeyRef": {"name": secret, "key": "k"}}})
        );
        assert_eq!(template["envFrom"][0]["configMapRef"]["name"], *config);
        let expected = json!({
            "serviceAccountName": "a-account-z",
            "imagePullSecrets": [{"name": secret}],
            "initContainers": [{"name": "c", "image": "registry.example/a:2", "envFrom": [{"secretRef": {"name": secret}}]}],
            "volumes": [
                {"name": "c", "configMap": {"name": config}},
                {"name": "s", "projected": {"sources": [{"secret": {"name": secret}}, {"configMap": {"name": config}}]}},
                {"name": "p", "persistentVolumeClaim": {"claimName": "a-p-z"}},
                {"name": "a", "image": {"reference": "registry.example/a:2"}},
            ],
        });
        assert_eq!(template["podTemplate"]["spec"], expected);
    };
    let session = &object("AigiseSession", "a-lab-z")["spec"];
    assert_eq!(session["configFrom"]["configMapKeyRef"]["name"], *config);
    assert_eq!(session["variables"][0]["valueFrom"]["secretKeyRef"]["name"], *secret);
    assert_eq!(session["models"]["main"]["apiKeySecretRef"]["name"], *secret);
    assert_eq!(session["sandboxes"]["gdb_mcp"]["attach"]["podName"], "a-theirs-z");
    let sources = json!([{"persistentVolumeClaim": {"claimName": "a-p-z"}}, {"configMap": {"name": config}}, {"image": {"reference": "registry.example/a:2"}}]);
    assert_eq!(session["volumes"]["data"], json!({"claimName": "a-p-z", "sources": sources}));
    let by_hand = &object("Sandbox", "a-by-hand-z")["spec"];
    assert_eq!((&by_hand["session"], &by_hand["volumes"][0]["claimName"]), (&json!("a-lab-z"), &json!("a-p-z")));
    let (lead, second) = (&object("Agent", "a-lead-z")["spec"], &object("Agent", "a-second-z")["spec"]);
    assert_eq!((&lead["session"], &lead["creator"]), (&json!("a-lab-z"), &json!("ada")), "the creator is a person");
    assert_eq!((&second["parent"], &second["creator"]), (&json!("a-lead-z"), &json!("a-lead-z")));
    for template in [&session["sandboxDefaults"], &session["sandboxes"]["main"], by_hand, &lead["runner"]] {
        is_renamed(template);
    }
    assert_eq!(object("Pod", "a-theirs-z")["metadata"]["annotations"]["aigise.dev/attachable"], "a-lab-z");
}
