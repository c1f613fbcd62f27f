//! The operator's account, in other hands: what the chart's admission policies refuse it.

use serde_json::{Value, json};

use super::{client::Outcome, ground::Ground, objects::ROOT_IMAGE};

/// The account of the chart, as `make install` installs it.
const ACCOUNT: &str = "--as=system:serviceaccount:aigise-system:aigise-operator";

fn as_operator(ground: &Ground, arguments: &[&str], input: &Value) -> Outcome {
    ground.kubectl_reading(&[&[ACCOUNT], arguments].concat(), &input.to_string())
}

fn tries_to_make(ground: &Ground, object: &Value) -> Outcome {
    as_operator(ground, &["create", "--dry-run=server", "-f", "-"], object)
}

/// A Pod as the operator makes it.
fn pod(name: &str, spec: &Value) -> Value {
    let owner =
        json!({"apiVersion": "aigise.dev/v1alpha1", "kind": "Sandbox", "name": name, "uid": "u", "controller": true});
    let mut pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": name, "labels": {"app.kubernetes.io/managed-by": "aigise-operator"}, "ownerReferences": [owner]},
        "spec": {"automountServiceAccountToken": false, "containers": [{"name": "c", "image": ROOT_IMAGE}]},
    });
    pod["spec"].as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    pod
}

fn with(mut object: Value, change: impl FnOnce(&mut Value)) -> Value {
    change(&mut object);
    object
}

fn container(security: &Value) -> Value {
    json!({"containers": [{"name": "c", "image": ROOT_IMAGE, "securityContext": security}]})
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn a_stolen_token_of_the_operator_makes_and_changes_nothing_but_what_is_the_operators() {
    let ground = Ground::new("held");
    ground.apply(&json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "theirs"}, "spec": {"containers": [{"name": "c", "image": ROOT_IMAGE}]}}));
    ground.apply(&json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "theirs"}}));
    ground.apply(&json!({"apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": {"name": "theirs"}, "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}}}));
    for account in ["other", "deployer"] {
        ground.apply(&json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": account}}));
    }
    tries_to_make(&ground, &pod("p", &json!({}))).text();
    tries_to_make(&ground, &pod("s--agent-0123456789ab", &json!({"serviceAccountName": "default"}))).text();

    let pulls = |pod: &mut Value| pod["metadata"]["labels"]["app.kubernetes.io/component"] = json!("pull");
    let pulling = |volumes: &Value| {
        json!({
            "containers": [{"name": "c", "image": ROOT_IMAGE, "command": ["/aigise/sandboxd", "exit"]}],
            "volumes": volumes,
        })
    };
    let helper = json!([{"name": "aigise-helper", "emptyDir": {}}]);
    tries_to_make(&ground, &with(pod("s--pull", &pulling(&helper)), pulls)).text();

    let ours = json!({"app.kubernetes.io/managed-by": "aigise-operator", "aigise.dev/session-uid": "u"});
    let of_kind = |api_version: &str, kind: &str, name: &str| json!({"apiVersion": api_version, "kind": kind, "metadata": {"name": name, "labels": ours}});
    tries_to_make(&ground, &of_kind("v1", "Secret", "s--config")).text();
    let token = json!({"name": "v", "projected": {"sources": [{"serviceAccountToken": {"path": "t"}}]}});
    let sandbox = json!({"apiVersion": "aigise.dev/v1alpha1", "kind": "Sandbox", "metadata": {"name": "s"}, "spec": {"type": "main", "image": ROOT_IMAGE}});
    for (what, object) in [
        ("hostNetwork", pod("p", &json!({"hostNetwork": true}))),
        ("hostPID", pod("p", &json!({"hostPID": true}))),
        ("hostPath", pod("p", &json!({"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}))),
        (
            "hostPort",
            pod(
                "p",
                &json!({"containers": [{"name": "c", "image": ROOT_IMAGE, "ports": [{"containerPort": 1, "hostPort": 1}]}]}),
            ),
        ),
        ("privileged", pod("p", &container(&json!({"privileged": true})))),
        ("SYS_ADMIN", pod("p", &container(&json!({"capabilities": {"add": ["SYS_ADMIN"]}})))),
        ("an account", pod("p", &json!({"serviceAccountName": "other"}))),
        ("an account of its name", pod("deployer", &json!({"serviceAccountName": "deployer"}))),
        ("the token of the account", pod("p", &json!({"automountServiceAccountToken": true}))),
        ("a projected token", pod("p", &json!({"volumes": [token]}))),
        ("no labels", with(pod("p", &json!({})), |pod| pod["metadata"]["labels"] = json!({}))),
        ("no owner", with(pod("p", &json!({})), |pod| pod["metadata"]["ownerReferences"] = json!([]))),
        (
            "another owner",
            with(pod("p", &json!({})), |pod| pod["metadata"]["ownerReferences"][0]["apiVersion"] = json!("apps/v1")),
        ),
        (
            "a volume beside images that are pulled",
            with(pod("p", &pulling(&json!([{"name": "v", "emptyDir": {}}]))), pulls),
        ),
        ("a command beside images that are pulled", with(pod("p", &json!({})), pulls)),
        ("another init container beside images that are pulled", {
            let init = json!([{"name": "i", "image": ROOT_IMAGE, "command": ["/sandboxd", "install", "/aigise"]}]);
            with(pod("p", &pulling(&helper)), |pod| {
                pulls(pod);
                pod["spec"]["initContainers"] = init;
            })
        }),
        ("a hook beside images that are pulled", {
            let hook = json!({"postStart": {"exec": {"command": ["true"]}}});
            with(pod("p", &pulling(&helper)), |pod| {
                pulls(pod);
                pod["spec"]["containers"][0]["lifecycle"] = hook;
            })
        }),
        ("a Secret of another name", of_kind("v1", "Secret", "s")),
        ("a Secret of nobody", json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s--config"}})),
        ("a Sandbox of nobody", sandbox),
    ] {
        let complaint = tries_to_make(&ground, &object).complaint();
        assert!(complaint.contains("ValidatingAdmissionPolicy 'aigise-operator-"), "{what}: {complaint}");
    }
    let nothing = json!(null);
    for arguments in [
        &["delete", "pod", "theirs", "--dry-run=server"][..],
        &["delete", "pvc", "theirs", "--dry-run=server"],
        &["label", "pod", "theirs", "a=b", "--dry-run=server"],
        &["set", "image", "pod/theirs", "c=other", "--dry-run=server"],
    ] {
        let complaint = as_operator(&ground, arguments, &nothing).complaint();
        assert!(complaint.contains("ValidatingAdmissionPolicy 'aigise-operator-"), "{arguments:?}: {complaint}");
    }
    // RBAC has it delete Secrets by name.
    let complaint = as_operator(&ground, &["delete", "secret", "theirs", "--dry-run=server"], &nothing).complaint();
    assert!(complaint.contains("ValidatingAdmissionPolicy 'aigise-operator-"), "{complaint}");
    // This one needs the right that `agents.runnerExec` gives; without it, RBAC is faster.
    let complaint = as_operator(&ground, &["exec", "theirs", "--", "true"], &nothing).complaint();
    assert!(complaint.contains("forbidden"), "{complaint}");
}
