//! Which sandboxes start, and of what they are made.

use serde_json::json;

use super::{
    ground::Ground,
    objects::{ROOT_IMAGE, config_map, list, message, session},
};

#[test]
#[ignore = "needs a cluster: make e2e"]
fn a_launched_type_brings_along_what_it_depends_on_and_nothing_else() {
    let ground = Ground::new("launch");
    let types = json!({
        "main": {"image": ROOT_IMAGE},
        "neo4j": {"image": ROOT_IMAGE},
        "joern": {"image": ROOT_IMAGE, "dependsOn": ["main", "neo4j"]},
        "fuzz": {"image": ROOT_IMAGE},
        "off": {"image": ROOT_IMAGE, "enabled": false},
    });
    ground.apply(&session("s", json!({"sandboxes": types, "launch": {"types": ["joern"]}})));
    ground.until_ready("asess/s");
    let names = |ground: &Ground| {
        let mut names = ground.names("asb", "");
        names.sort();
        names
    };
    assert_eq!(names(&ground), ["s--joern", "s--main", "s--neo4j"]);

    ground.patch("asess/s", &json!({"spec": {"launch": null}}));
    ground.until("asess/s", "has four", |session| session["status"]["sandboxes"]["summary"] == "4/4");
    assert_eq!(names(&ground), ["s--fuzz", "s--joern", "s--main", "s--neo4j"]);

    ground.patch("asess/s", &json!({"spec": {"launch": {"types": ["fuzz"]}}}));
    for gone in ["main", "joern", "neo4j"] {
        ground.until_gone(&format!("pod/s--{gone}"));
    }
    ground.until_ready("asess/s");
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn dependencies_in_a_circle_are_refused_with_the_chain() {
    let ground = Ground::new("circle");
    let types = json!({
        "a": {"image": ROOT_IMAGE, "dependsOn": ["b"]},
        "b": {"image": ROOT_IMAGE, "dependsOn": ["a"]},
    });
    ground.apply(&session("s", json!({"sandboxes": types})));
    let seen = ground.until_not_ready("asess/s", "InvalidSpec");
    assert!(message(&seen).contains("a → b → a"), "{}", message(&seen));
    assert!(ground.names("pvc", "").is_empty(), "something is made of what cannot work");
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn a_sandbox_has_what_its_template_and_the_defaults_say() {
    let ground = Ground::new("template");
    ground.apply(&list(&[
        config_map("many", &[("FROM_MAP", "yes")]),
        json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "key"}, "stringData": {"KEY": "hidden"}}),
        session(
            "s",
            json!({
                "sandboxDefaults": {
                    "image": ROOT_IMAGE,
                    "env": [{"name": "A", "value": "default"}, {"name": "B", "value": "default"}],
                    "resources": {"limits": {"memory": "64Mi"}},
                    "podTemplate": {"metadata": {"labels": {"team": "red"}}},
                },
                "sandboxes": {
                    "main": {
                        "env": [{"name": "B", "value": "own"}],
                        "envFrom": [{"configMapRef": {"name": "many"}}, {"secretRef": {"name": "key"}}],
                        "resources": {"requests": {"cpu": "10m"}},
                        "workingDir": "/tmp",
                        "ports": [{"name": "web", "containerPort": 8080}],
                        "podTemplate": {
                            "metadata": {"annotations": {"note": "mine"}},
                            "spec": {
                                "containers": [
                                    {"name": "sandbox", "volumeMounts": [{"name": "scratch", "mountPath": "/scratch"}]},
                                    {"name": "beside", "image": ROOT_IMAGE, "command": ["sleep", "100000"]},
                                ],
                                "volumes": [{"name": "scratch", "emptyDir": {}}],
                                "terminationGracePeriodSeconds": 1,
                            },
                        },
                    },
                },
            }),
        ),
    ]));
    ground.until_ready("asess/s");
    assert_eq!(ground.run("s--main", "echo $A $B $FROM_MAP $KEY; pwd"), "default own yes hidden\n/tmp");
    ground.run("s--main", "touch /scratch/file");
    let pod = ground.get("pod/s--main");
    assert_eq!(pod["metadata"]["labels"]["team"], "red");
    assert_eq!(pod["metadata"]["annotations"]["note"], "mine");
    assert_eq!(pod["spec"]["terminationGracePeriodSeconds"], 1);
    let container = &pod["spec"]["containers"][0];
    assert_eq!(container["resources"]["limits"]["memory"], "64Mi");
    assert_eq!(container["resources"]["requests"]["cpu"], "10m");
    assert_eq!(pod["spec"]["containers"][1]["name"], "beside");
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn a_sandbox_is_ready_when_its_probe_says_so_and_no_longer() {
    let ground = Ground::new("probe");
    let probe = json!({"exec": {"command": ["test", "-e", "/tmp/ready"]}, "periodSeconds": 1});
    ground.apply(&session("s", json!({"sandboxes": {"main": {"image": ROOT_IMAGE, "readinessProbe": probe}}})));
    let waiting = ground.until_not_ready("asb/s--main", "NotReady");
    assert!(message(&waiting).contains("readinessProbe"), "{}", message(&waiting));
    ground.run("s--main", "touch /tmp/ready");
    ground.until_ready("asess/s");
    ground.run("s--main", "rm /tmp/ready");
    let lost = ground.until("asb/s--main", "is not ready", |sandbox| sandbox["status"]["state"] == "uninitialized");
    assert_eq!(lost["status"]["podUID"], ground.get("pod/s--main")["metadata"]["uid"], "it is not started anew");
    ground.until("asess/s", "is not ready", |session| session["status"]["phase"] == "Starting");
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn what_a_template_may_not_ask_for_is_named_and_nothing_is_made() {
    let ground = Ground::new("refused");
    let spec = |part: serde_json::Value| json!({"spec": part});
    let cases = [
        ("node", spec(json!({"nodeName": "n"})), "nodeName"),
        ("policy", spec(json!({"restartPolicy": "Always"})), "restartPolicy"),
        ("host", spec(json!({"hostname": "h"})), "hostname"),
        ("net", spec(json!({"hostNetwork": true})), "hostNetwork"),
        ("pid", spec(json!({"hostPID": true})), "hostPID"),
        ("account", spec(json!({"serviceAccountName": "admin"})), "serviceAccountName"),
        ("token", spec(json!({"automountServiceAccountToken": true})), "automountServiceAccountToken"),
        ("path", spec(json!({"volumes": [{"name": "root", "hostPath": {"path": "/"}}]})), "hostPath"),
        ("ours", spec(json!({"volumes": [{"name": "data", "emptyDir": {}}]})), "data"),
        ("typo", spec(json!({"tolerationz": []})), "tolerationz"),
        ("label", json!({"metadata": {"labels": {"aigise.dev/session-uid": "x"}}}), "aigise.dev/session-uid"),
        ("command", spec(json!({"containers": [{"name": "sandbox", "command": ["sh"]}]})), "command"),
        (
            "privileged",
            spec(json!({"containers": [{"name": "side", "image": "a", "securityContext": {"privileged": true}}]})),
            "privileged",
        ),
    ];
    for (name, template, _) in &cases {
        ground.apply(&super::objects::sandbox(
            name,
            json!({"type": "main", "image": ROOT_IMAGE, "podTemplate": template}),
        ));
    }
    for (name, _, word) in &cases {
        let seen = ground.until_not_ready(&format!("asb/{name}"), "InvalidSpec");
        assert!(message(&seen).contains("spec.podTemplate") && message(&seen).contains(word), "{}", message(&seen));
    }
    assert!(ground.names("pod", "").is_empty());
}
