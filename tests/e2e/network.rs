//! The policy around a session's Pods, and that these carry no credentials.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::{
    audit,
    client::{OPERATOR, kubectl_json},
    ground::Ground,
    objects::{ROOT_IMAGE, config_map, list, plain, plain_session, sandbox, session, staged_session, uid},
    policy::{self, LISTENS, LISTENS_ON, Peer, allows_egress, allows_ingress, connects},
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
fn of_a_closed_session_only_the_pod_that_fetches_is_let_out() {
    let ground = Ground::new("closed");
    let fetch = json!({"container": {"image": ROOT_IMAGE, "command": ["sh", "-c", "echo fetched >/volume/file"]}});
    let closed = json!({
        "sandboxes": plain(&["main"]),
        "network": {"egress": "SessionOnly"},
        "volumes": {"data": {"sources": [fetch]}},
    });
    ground.apply(&session("s", closed));
    ground.until_ready("asess/s");
    assert_eq!(ground.run("s--main", "cat /shared/file"), "fetched");
    let (all, stage) = (ground.get("networkpolicy/s"), ground.get("networkpolicy/s--stage"));
    assert_eq!(selected_by(&ground, &all), names(&["s--stage", "s--main"]));
    assert_eq!(selected_by(&ground, &stage), names(&["s--stage"]));
    let allows_egress = |policy: &Value| policy["spec"]["egress"].to_string().contains("0.0.0.0/0");
    assert!(!allows_egress(&all) && allows_egress(&stage));
    ground.patch("asess/s", &json!({"spec": {"network": null}}));
    ground.until_gone("networkpolicy/s--stage");
    assert!(allows_egress(&ground.get("networkpolicy/s")), "one is enough again");
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

/// The addresses of the API server: of its Service, and behind it.
fn api_server() -> Vec<(String, u16)> {
    let service = kubectl_json(&["-n", "default", "get", "service", "kubernetes"]);
    let own = service["spec"]["clusterIPs"].as_array().unwrap().iter().map(|address| (address.clone(), 443));
    let selector = ["-n", "default", "get", "endpointslices", "-l", "kubernetes.io/service-name=kubernetes"];
    let slices = kubectl_json(&selector);
    let mut addresses: Vec<_> = own.collect();
    for slice in slices["items"].as_array().unwrap() {
        let port = u16::try_from(slice["ports"][0]["port"].as_u64().unwrap()).unwrap();
        for endpoint in slice["endpoints"].as_array().unwrap() {
            addresses.extend(endpoint["addresses"].as_array().unwrap().iter().map(|address| (address.clone(), port)));
        }
    }
    assert!(addresses.len() > 1, "nothing is behind the Service");
    addresses.into_iter().map(|(address, port)| (address.as_str().unwrap().to_string(), port)).collect()
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn by_its_policy_a_session_reaches_the_internet_and_nothing_of_the_cluster_but_itself_and_dns() {
    let ground = Ground::new("reach");
    ground.apply(&list(&[plain_session("s", &["main", "fuzz"]), plain_session("other", &["main"])]));
    ground.until_ready("asess/s");
    ground.until_ready("asess/other");
    let policy = ground.get("networkpolicy/s");
    let sibling = Peer::pod(&ground.get("pod/s--fuzz"), 1111);
    let stranger = Peer::pod(&ground.get("pod/other--main"), 1111);
    assert!(allows_egress(&policy, &sibling) && allows_ingress(&policy, &sibling));
    assert!(!allows_egress(&policy, &stranger) && !allows_ingress(&policy, &stranger));

    for (address, port) in api_server() {
        assert!(!allows_egress(&policy, &Peer::at(&address, port)), "the API server at {address}:{port}");
    }
    let nodes = kubectl_json(&["get", "nodes"]);
    for node in nodes["items"].as_array().unwrap() {
        let addresses = node["status"]["addresses"].as_array().unwrap();
        let own = addresses.iter().filter(|address| address["type"] == "InternalIP");
        for address in own.map(|address| address["address"].as_str().unwrap()) {
            let kubelet = Peer::at(address, 10250);
            assert!(!allows_egress(&policy, &kubelet) && !allows_ingress(&policy, &kubelet), "the node at {address}");
        }
    }
    for private in
        ["169.254.169.254", "10.0.0.1", "172.31.0.1", "192.168.1.1", "100.64.0.1", "127.0.0.1", "fd00::1", "::1"]
    {
        assert!(!allows_egress(&policy, &Peer::at(private, 80)), "{private}");
    }
    for public in ["1.1.1.1", "172.32.0.1", "2606:4700:4700::1111"] {
        let there = Peer::at(public, 443);
        assert!(allows_egress(&policy, &there) && !allows_ingress(&policy, &there), "{public}");
    }
    let dns = kubectl_json(&["-n", "kube-system", "get", "pods", "-l", "k8s-app=kube-dns"]);
    let dns = &dns["items"][0];
    assert!(allows_egress(&policy, &Peer::pod(dns, 53)) && allows_egress(&policy, &Peer::pod(dns, 53).by_udp()));
    assert!(!allows_egress(&policy, &Peer::pod(dns, 9153)), "its other ports");
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn what_a_session_allows_besides_is_in_its_policy() {
    let ground = Ground::new("allows");
    let gateway = json!({"podSelector": {"matchLabels": {"app": "gateway"}}});
    let network = json!({
        "egress": "SessionOnly",
        "allowEgress": [{"to": [{"ipBlock": {"cidr": "10.20.30.0/24", "except": ["10.20.30.9/32"]}}], "ports": [{"port": 443}]}],
        "allowIngress": [{"from": [gateway], "ports": [{"port": 8080, "endPort": 8081}]}],
    });
    ground.apply(&plain_session("s", &["main"]));
    ground.until_ready("asess/s");
    ground.patch("asess/s", &json!({"spec": {"network": network}}));
    let there = |port| Peer::at("10.20.30.40", port);
    let policy = ground.until("networkpolicy/s", "lets out", |policy| allows_egress(policy, &there(443)));
    assert!(!allows_egress(&policy, &there(80)));
    assert!(
        !allows_egress(&policy, &Peer::at("10.20.30.9", 443)) && !allows_egress(&policy, &Peer::at("10.20.31.1", 443))
    );
    assert!(!allows_egress(&policy, &Peer::at("1.1.1.1", 443)), "the session is closed");
    let main = ground.get("pod/s--main");
    let from = |app: &str, port| {
        let mut pod = main.clone();
        pod["metadata"]["labels"] = json!({ "app": app });
        Peer::pod(&pod, port)
    };
    assert!(allows_ingress(&policy, &from("gateway", 8080)) && allows_ingress(&policy, &from("gateway", 8081)));
    assert!(!allows_ingress(&policy, &from("gateway", 8082)) && !allows_ingress(&policy, &from("other", 8080)));
    ground.until_ready("asess/s");

    ground.patch("asess/s", &json!({"spec": {"network": {"egress": "Any", "allowIngress": null}}}));
    let any = ground.until("networkpolicy/s", "lets out", |policy| allows_egress(policy, &Peer::at("10.0.0.1", 80)));
    assert!(!allows_ingress(&any, &from("gateway", 8080)));
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn a_policy_or_service_that_somebody_changed_or_deleted_is_put_back() {
    let ground = Ground::new("put-back");
    ground.apply(&plain_session("s", &["main"]));
    ground.until_ready("asess/s");
    let changes = [
        ("networkpolicy/s", json!({"spec": {"egress": [{}], "policyTypes": ["Egress"]}})),
        (
            "service/s",
            json!({"spec": {"publishNotReadyAddresses": false, "selector": {"app.kubernetes.io/component": "stage"}}}),
        ),
    ];
    for (object, change) in changes {
        let before = ground.get(object);
        ground.patch(object, &change);
        let changed = ground.until(object, "is as it was", |seen| seen["spec"] == before["spec"]);
        assert_eq!(uid(&changed), uid(&before), "{object}");
        assert_ne!(changed["metadata"]["resourceVersion"], before["metadata"]["resourceVersion"], "{object}");
        ground.delete(object);
        let anew = ground.until(object, "is there again", |seen| !seen.is_null() && uid(seen) != uid(&before));
        let said = |object: &Value| {
            let mut spec = object["spec"].clone();
            // The API server's own.
            spec.as_object_mut().unwrap().retain(|field, _| !field.starts_with("clusterIP"));
            spec
        };
        assert_eq!(said(&anew), said(&before), "{object}");
    }
    ground.until_ready("asess/s");
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn a_session_that_wants_no_policy_has_none_until_it_wants_one_again() {
    let ground = Ground::new("unmanaged");
    ground.apply(&plain_session("s", &["main"]));
    ground.until_ready("asess/s");
    let before = ground.get("networkpolicy/s");
    let pod = ground.get("pod/s--main");
    let wants = |policy: &str| ground.patch("asess/s", &json!({"spec": {"network": {"policy": policy}}}));
    wants("Unmanaged");
    ground.until_gone("networkpolicy/s");
    ground.until_ready("asess/s");
    // One of the user's own is nobody's business.
    let mut own = json!({"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "own"}});
    own["spec"] = json!({"podSelector": {}, "policyTypes": ["Ingress"]});
    ground.apply(&own);
    wants("Managed");
    let after = ground.until("networkpolicy/s", "is there again", |policy| !policy.is_null());
    assert_eq!(after["spec"], before["spec"]);
    ground.until_ready("asess/s");
    assert!(!ground.get("networkpolicy/own").is_null());
    assert_eq!(uid(&ground.get("pod/s--main")), uid(&pod), "no Pod is made anew for it");
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn where_the_network_enforces_policies_a_session_is_closed() {
    let ground = Ground::new("enforced");
    let listens = json!({"image": ROOT_IMAGE, "command": LISTENS});
    ground.apply(&list(&[
        session("s", json!({"sandboxes": {"main": {"image": ROOT_IMAGE}, "web": listens}})),
        session("other", json!({"sandboxes": {"web": listens}})),
    ]));
    ground.until_ready("asess/s");
    ground.until_ready("asess/other");
    let address = |pod: &str| ground.get(pod)["status"]["podIP"].as_str().unwrap().to_string();
    let reaches = |address: &str, port| connects(&ground, "s--main", address, port);
    assert!(reaches(&address("pod/s--web"), LISTENS_ON), "a session reaches itself");
    assert!(reaches("web.s", LISTENS_ON), "by its name, too");
    if !policy::are_enforced(&ground) {
        println!("the network of this cluster enforces no policies: that packets are held up was not tried");
        return;
    }
    println!("the network of this cluster enforces policies");
    assert!(!reaches(&address("pod/other--web"), LISTENS_ON), "it reaches another session");
    assert!(!connects(&ground, "other--web", &address("pod/s--web"), LISTENS_ON), "another session reaches it");
    for (address, port) in api_server() {
        assert!(!reaches(&address, port), "it reaches the API server at {address}:{port}");
    }
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn where_the_network_enforces_policies_the_operators_pod_is_closed() {
    let ground = Ground::new("metrics");
    // In no session, so that no policy of ours holds it.
    ground.apply(&sandbox("stranger", json!({"type": "main", "image": ROOT_IMAGE})));
    ground.until_ready("asb/stranger");
    let enforced = policy::are_enforced(&ground);
    let _undisturbed = audit::operator_stays();
    let pods = kubectl_json(&["-n", OPERATOR.0, "get", "pods", "-l", "app.kubernetes.io/name=aigise-operator"]);
    let address = pods["items"][0]["status"]["podIP"].as_str().unwrap();
    // Its probes pass: it is installed when it is ready.
    for port in [8080, 8081] {
        assert_eq!(
            connects(&ground, "stranger", address, port),
            !enforced,
            "{port}, where policies are enforced: {enforced}"
        );
    }
}
