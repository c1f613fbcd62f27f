//! The policy around a session's Pods, and that these carry no credentials.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{
    audit,
    ground::Ground,
    objects::{ROOT_IMAGE, config_map, list, staged_session, uid},
};

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(ToString::to_string).collect()
}

/// The Pods that the policy of a session selects.
fn selected_by(ground: &Ground, policy: &Value) -> BTreeSet<String> {
    let selector = &policy["spec"]["podSelector"];
    assert_eq!(selector["matchExpressions"], Value::Null);
    let labels = selector["matchLabels"].as_object().expect("a policy that selects by labels");
    let terms: Vec<_> = labels.iter().map(|(key, value)| format!("{key}={}", value.as_str().unwrap())).collect();
    ground.names("pod", &terms.join(",")).into_iter().collect()
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn the_policy_comes_before_the_pods_and_selects_these_and_no_others() {
    let ground = Ground::new("policy");
    // One that has all of the labels that can be known beforehand.
    let bystander = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "bystander", "labels": {
            "aigise.dev/session": "s",
            "app.kubernetes.io/name": "aigise",
            "app.kubernetes.io/component": "sandbox",
        }},
        "spec": {"containers": [{"name": "sandbox", "image": ROOT_IMAGE}], "terminationGracePeriodSeconds": 1},
    });
    ground.apply(&list(&[
        bystander,
        config_map("files", &[("file", "x")]),
        staged_session("s", &["main", "fuzz"]),
        staged_session("t", &["main"]),
    ]));
    ground.until_ready("asess/s");
    ground.until_ready("asess/t");

    let policy = ground.get("networkpolicy/s");
    assert_eq!(selected_by(&ground, &policy), names(&["s--stage", "s--main", "s--fuzz"]));
    assert_eq!(selected_by(&ground, &ground.get("networkpolicy/t")), names(&["t--stage", "t--main"]));
    assert_eq!(policy["metadata"]["ownerReferences"][0]["uid"], uid(&ground.get("asess/s")));
    assert_eq!(policy["spec"]["policyTypes"], json!(["Ingress", "Egress"]));
    let own = json!([{"from": [{"podSelector": policy["spec"]["podSelector"]}]}]);
    assert_eq!(policy["spec"]["ingress"], own, "others than the session's own Pods may come in");

    let writes = audit::writes(&ground);
    let first = |resource: &str, name: &str| {
        let found = writes.iter().find(|write| write.resource == resource && write.name.starts_with(name));
        found.unwrap_or_else(|| panic!("no write of {resource} {name} in\n{}", audit::Breakdown(&writes)))
    };
    for session in ["s", "t"] {
        let (policy, pod) = (first("networkpolicies", session), first("pods", session));
        assert!(policy.received < pod.received, "{pod:?} came before {policy:?}");
    }
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn no_pod_carries_a_service_account_token() {
    let ground = Ground::new("token");
    ground.apply(&list(&[config_map("files", &[("file", "x")]), staged_session("s", &["main"])]));
    ground.until_ready("asess/s");
    for name in ["s--stage", "s--main"] {
        let pod = ground.get(&format!("pod/{name}"));
        assert_eq!(pod["spec"]["automountServiceAccountToken"], false, "{name}");
        for volume in pod["spec"]["volumes"].as_array().unwrap() {
            assert!(!volume.to_string().contains("serviceAccountToken"), "{name}: {volume}");
        }
    }
    assert_eq!(ground.run("s--main", "ls /var/run/secrets 2>/dev/null || echo none"), "none");
    // Nor the addresses of the API server and of the namespace's services.
    assert_eq!(ground.run("s--main", "env | grep -c _SERVICE_HOST= || true"), "1");
}
