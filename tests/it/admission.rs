//! P10: what admission lets through, the plan lets through as well, but for a few rules that a CRD cannot hold.

use aigise_operator::{
    api::{AigiseSession, condition::Reason},
    plan::{Decide, Failure, session},
};
use kube::{Api, api::PostParams};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::model::{Event, World};
use crate::support::{
    apiserver::ApiServer,
    life::{NAMESPACE, in_fast_time},
};

/// The rules that only the plan holds, by words of their messages.
const ONLY_OF_THE_PLAN: [(&str, &str); 15] = [
    ("have the same DNS name", "CEL compares each key of a map with each other: too dear"),
    ("dependsOn: ", "the same, and it would have to follow chains"),
    ("spec.launch.types: ", "what is enabled is known when the defaults are merged"),
    ("is not among spec.mcpServices", "a lookup in one map for each entry of another: too dear"),
    (".sandbox: ", "the same: the type of an MCP service"),
    ("volumes.tools", "whether there are tools depends on all of their sources"),
    ("image: an image is required", "it may come from the defaults"),
    ("is a container of the operator", "schemaless: podTemplate"),
    ("podTemplate", "schemaless"),
    ("allow-privileged-templates", "what is refused depends on how the operator was started"),
    ("readinessProbe: ", "a probe is embedded as Kubernetes has it, and what it may be depends on mcpServices"),
    ("is not a valid duration", "a pattern lets `0s` through, which lasts no time"),
    ("a program is required", "an empty word may stand anywhere in a command but first"),
    ("another step is called", "steps are a list, whose names the API server does not compare"),
    ("metadata.annotations", "a rule sees only the name of an object's metadata"),
];

fn a_template() -> impl Strategy<Value = Value> {
    let step = |more: Value| {
        let mut step = json!({"name": "a", "command": ["make"]});
        step.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"init": {"steps": [step]}})
    };
    let parts = vec![
        json!({}),
        json!({"image": ""}),
        json!({"image": "a b"}),
        json!({"enabled": false}),
        json!({"entrypoint": "Image"}),
        json!({"command": [""]}),
        json!({"env": [{"name": "A", "value": "1"}, {"name": "A", "value": "2"}]}),
        json!({"env": [{"name": "1=", "value": "1"}]}),
        json!({"ports": [{"containerPort": 1, "hostPort": 1}]}),
        json!({"ports": [{"containerPort": 70000}]}),
        json!({"securityContext": {"privileged": true}}),
        json!({"readinessProbe": {"httpGet": {"port": 80, "host": "h"}}}),
        json!({"readinessProbe": {"grpc": {"port": 80}}, "mcpServices": ["gdb"]}),
        json!({"podTemplate": {"spec": {"hostNetwork": true}}}),
        json!({"podTemplate": {"spec": "text"}}),
        json!({"podTemplate": {"spec": {"initContainers": [{"name": "a", "image": "a", "restartPolicy": "Always"}]}}}),
        json!({"dependsOn": ["main"]}),
        json!({"dependsOn": ["other"]}),
        json!({"dependsOn": ["1x"]}),
        step(json!({})),
        step(json!({"command": []})),
        step(json!({"command": [""]})),
        step(json!({"timeout": "0s"})),
        step(json!({"timeout": "1h30m"})),
        step(json!({"timeout": "soon"})),
        step(json!({"timeout": "99999999999999999999h"})),
        json!({"init": {"steps": [{"name": "a", "command": ["a"]}, {"name": "a", "command": ["b"]}]}}),
        json!({"init": {"timeout": "1d"}}),
        json!({"mcpServices": ["none"]}),
        json!({"restart": {"limit": -1}}),
        json!({"restart": {"policy": "Never"}}),
        json!({"updatePolicy": "Other"}),
        json!({"attach": {"podName": "p"}, "image": null}),
        json!({"attach": {"podName": "p"}}),
    ];
    proptest::sample::select(parts)
}

fn a_spec() -> impl Strategy<Value = Value> {
    let sources = |sources: Value| json!({"volumes": {"data": {"sources": sources}}});
    let path = |path: &str| sources(json!([{"configMap": {"name": "a"}, "path": path}]));
    let size = |size: &str| json!({"volumes": {"data": {"size": size}}});
    let parts = vec![
        json!({}),
        json!({"taskName": "a b"}),
        json!({"launch": {"types": ["main"]}}),
        json!({"launch": {"types": ["none"]}}),
        json!({"lifetime": {"ttl": "8h", "idle": "0s"}}),
        json!({"lifetime": {"ttl": "1d"}}),
        json!({"lifetime": {"idle": "1h1h"}}),
        json!({"lifetime": {"idle": "99999999999999999999h"}}),
        size("1Gi"),
        size("0"),
        size("much"),
        json!({"volumes": {"data": {"claimName": "c", "size": "1Gi"}}}),
        json!({"volumes": {"data": {"claimName": "c"}}}),
        json!({"volumes": {"layout": "Single"}}),
        json!({"volumes": {"layout": "Single", "data": {"size": "2Gi", "accessModes": ["ReadWriteMany"]}}}),
        json!({"volumes": {"layout": "Single", "data": {"claimName": "c"}}}),
        json!({"volumes": {"layout": "Single", "tools": {"size": "1Gi"}}}),
        json!({"volumes": {"layout": "Single", "scripts": {"reclaim": "Retain"}}}),
        path("a/b"),
        path("../a"),
        path("/a"),
        path("a//b"),
        path("."),
        sources(json!([{}])),
        sources(json!([{"configMap": {"name": "a"}, "image": {"reference": "a"}}])),
        sources(json!([{"image": {"reference": "a", "path": "../b"}}])),
        sources(json!([{"container": {"image": "a", "command": []}}])),
        json!({"toolsTopRoots": ["fuzz"]}),
        json!({"toolsTopRoots": ["a/b"]}),
        json!({"toolsTopRoots": [""]}),
        json!({"enabledSkills": ["all"]}),
        json!({"enabledSkills": ["../x"]}),
        json!({"enabledSkills": [".claude/skills/x"]}),
        json!({"mcpServices": {"gdb": {"sandbox": "main", "port": 1}}}),
        json!({"mcpServices": {"gdb": {"sandbox": "none", "port": 1}}}),
        json!({"mcpServices": {"gdb": {"sandbox": "main", "port": 0}}}),
        json!({"sandboxDefaults": {"dependsOn": ["main"]}}),
        json!({"sandboxDefaults": {"image": "b:1"}}),
        json!({"sandboxDefaults": {"attach": {"podName": "p"}}}),
        json!({"network": {"allowIngress": [{"from": [{"podSelector": {}}]}]}}),
        json!({"network": {"egress": "Some"}}),
    ];
    proptest::sample::select(parts)
}

fn a_session() -> impl Strategy<Value = Value> {
    let types = ["main", "fuzz", "gdb_mcp", "gdb.mcp", "stage", "agent-x", "1x", "A-", "abcdefghijklmnopqrstuv"];
    let types = proptest::sample::subsequence(types.to_vec(), 1..4);
    let name = prop_oneof![
        8 => Just("demo"),
        1 => proptest::sample::select(vec!["a--b", "a.b", "1a", "abcdefghijklmnopqrstuvwxyz-abcdefghijklmno"]),
    ];
    let activity = prop_oneof![8 => Just(None), 1 => Just(Some("soon")), 1 => Just(Some("2026-01-31T12:00:00Z"))];
    let templates = proptest::collection::vec((a_template(), a_template()), 3);
    (name, types, templates, a_spec(), activity).prop_map(|(name, types, templates, spec, activity)| {
        let mut whole = json!({
            "apiVersion": "aigise.dev/v1alpha1", "kind": "AigiseSession", "metadata": {"name": name}, "spec": spec,
        });
        let sandboxes = types.into_iter().zip(templates).map(|(name, (one, other))| {
            let mut template = json!({"image": "a:1"});
            for part in [one, other] {
                template.as_object_mut().unwrap().extend(part.as_object().unwrap().clone());
            }
            (name.to_string(), template)
        });
        whole["spec"]["sandboxes"] = Value::Object(sandboxes.collect());
        if let Some(activity) = activity {
            whole["metadata"]["annotations"] = json!({"aigise.dev/last-activity": activity});
        }
        whole
    })
}

/// The session as the API server takes it, if it does.
fn admitted(session: &Value) -> Option<AigiseSession> {
    in_fast_time(async {
        let api: Api<kube::api::DynamicObject> = Api::namespaced_with(
            ApiServer::new().client("user"),
            NAMESPACE,
            &kube::api::ApiResource::erase::<AigiseSession>(&()),
        );
        let object = serde_json::from_value(session.clone()).unwrap();
        match api.create(&PostParams::default(), &object).await {
            Ok(made) => Some(made.try_parse().expect("what is admitted can be read")),
            Err(kube::Error::Api(status)) if [400, 422].contains(&status.code) => None,
            Err(error) => panic!("{error}"),
        }
    })
}

#[test]
fn a_skill_may_lie_in_a_hidden_folder_and_not_outside() {
    for (path, is_valid) in [
        (".claude/skills/lint", true),
        ("team/.agents/x.y", true),
        ("_x/y", true),
        ("..", false),
        ("a/../b", false),
        ("a/./b", false),
        (".", false),
        ("..x", false),
        (".claude/", false),
        ("/x", false),
    ] {
        let spec = json!({"sandboxes": {"main": {"image": "a:1"}}, "volumes": {"tools": {"claimName": "c"}}, "enabledSkills": [path]});
        let session = json!({
            "apiVersion": "aigise.dev/v1alpha1", "kind": "AigiseSession", "metadata": {"name": "demo"}, "spec": spec,
        });
        assert_eq!(admitted(&session).is_some(), is_valid, "{path}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn what_admission_lets_through_the_plan_lets_through(session in a_session()) {
        let Some(session) = admitted(&session) else { return Ok(()) };
        let name = session.metadata.name.clone().unwrap();
        let mut world = World::new();
        world.change(Event::ApplySession(Box::new(session)));
        let stage = world.observe_session(&name).situation().lifecycle;
        if let session::Lifecycle::Blocked(Failure { reason: Reason::InvalidSpec, message }) = stage {
            let is_known = ONLY_OF_THE_PLAN.iter().any(|(words, _)| message.contains(words));
            prop_assert!(is_known, "admission could have said so: {}", message);
        }
    }
}
