//! A NetworkPolicy as a network plugin reads it.

use std::{net::IpAddr, thread, time::Duration};

use serde_json::{Value, json};

use super::{client::kubectl_json, ground::Ground, objects::ROOT_IMAGE};

/// One end of a connection, as the policy of the other end sees it.
pub struct Peer {
    address: IpAddr,
    port: u16,
    protocol: &'static str,
    /// The labels of the Pod there and of its namespace, and the namespace's name.
    pod: Option<(Value, Value, String)>,
}

impl Peer {
    /// Something that is not a Pod.
    pub fn at(address: &str, port: u16) -> Self {
        let address = address.parse().unwrap_or_else(|error| panic!("{address}: {error}"));
        Self { address, port, protocol: "TCP", pod: None }
    }

    /// A Pod.
    pub fn pod(pod: &Value, port: u16) -> Self {
        let name = pod["metadata"]["namespace"].as_str().unwrap();
        let namespace = kubectl_json(&["get", "namespace", name]);
        let labels = |object: &Value| object["metadata"]["labels"].clone();
        let address = pod["status"]["podIP"].as_str().expect("a Pod with an address");
        Self { pod: Some((labels(pod), labels(&namespace), name.into())), ..Self::at(address, port) }
    }

    /// The same by UDP.
    pub fn by_udp(self) -> Self {
        Self { protocol: "UDP", ..self }
    }
}

/// Whether the policy lets the Pods that it selects connect to there.
pub fn allows_egress(policy: &Value, to: &Peer) -> bool {
    allows(policy, "egress", "to", to)
}

/// Whether the policy lets somebody connect to a port of the Pods that it selects.
pub fn allows_ingress(policy: &Value, from: &Peer) -> bool {
    allows(policy, "ingress", "from", from)
}

fn allows(policy: &Value, direction: &str, peers: &str, other: &Peer) -> bool {
    let rules = policy["spec"][direction].as_array().into_iter().flatten();
    let own = policy["metadata"]["namespace"].as_str().unwrap();
    rules.into_iter().any(|rule| {
        any_or_unsaid(&rule[peers], |peer| is_peer(peer, own, other))
            && any_or_unsaid(&rule["ports"], |port| is_port(port, other))
    })
}

/// A list that is not there, or empty, says nothing.
fn any_or_unsaid(list: &Value, holds: impl Fn(&Value) -> bool) -> bool {
    list.as_array().is_none_or(|list| list.is_empty() || list.iter().any(holds))
}

fn is_peer(peer: &Value, own: &str, other: &Peer) -> bool {
    if let Some(block) = peer["ipBlock"].as_object() {
        let except = block.get("except").and_then(Value::as_array);
        return is_within(&block["cidr"], other.address)
            && !except.into_iter().flatten().any(|except| is_within(except, other.address));
    }
    let Some((pod, namespace, name)) = &other.pod else { return false };
    let in_namespace = match &peer["namespaceSelector"] {
        Value::Null => own == name,
        selector => selects(selector, namespace),
    };
    in_namespace && (peer["podSelector"].is_null() || selects(&peer["podSelector"], pod))
}

fn is_port(wanted: &Value, other: &Peer) -> bool {
    let first = match &wanted["port"] {
        Value::Null => return wanted["protocol"] == other.protocol,
        port => port.as_u64().expect("a number for a port"),
    };
    let last = wanted["endPort"].as_u64().unwrap_or(first);
    wanted["protocol"] == other.protocol && (first..=last).contains(&u64::from(other.port))
}

fn is_within(cidr: &Value, address: IpAddr) -> bool {
    let (network, length) = cidr.as_str().unwrap().split_once('/').unwrap();
    let length: u32 = length.parse().unwrap();
    match (network.parse().unwrap(), address) {
        (IpAddr::V4(network), IpAddr::V4(address)) => {
            let mask = u32::MAX.checked_shl(32 - length).unwrap_or(0);
            network.to_bits() & mask == address.to_bits() & mask
        }
        (IpAddr::V6(network), IpAddr::V6(address)) => {
            let mask = u128::MAX.checked_shl(128 - length).unwrap_or(0);
            network.to_bits() & mask == address.to_bits() & mask
        }
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => false,
    }
}

fn selects(selector: &Value, labels: &Value) -> bool {
    assert!(selector["matchExpressions"].is_null(), "nobody here reads expressions: {selector}");
    selector["matchLabels"].as_object().into_iter().flatten().all(|(key, value)| labels[key] == *value)
}

/// Whether the cluster's network enforces policies: a Pod that everybody could reach is closed, and somebody tries.
pub fn are_enforced(ground: &Ground) -> bool {
    let pod = |name: &str, command: Value| {
        json!({
            "apiVersion": "v1",
            "kind": "Pod",
            "metadata": {"name": name, "labels": {"canary": name}},
            "spec": {
                "terminationGracePeriodSeconds": 0,
                "containers": [{"name": "sandbox", "image": ROOT_IMAGE, "command": command}],
            },
        })
    };
    ground.apply(&pod("canary", json!(LISTENS)));
    ground.apply(&pod("cat", json!(["sleep", "100000"])));
    for name in ["pod/canary", "pod/cat"] {
        ground.until(name, "runs", |pod| pod["status"]["phase"] == "Running");
    }
    let address = ground.get("pod/canary")["status"]["podIP"].as_str().unwrap().to_string();
    let is_reached = || connects(ground, "cat", &address, LISTENS_ON);
    let mut tries = 0..50;
    assert!(tries.any(|_| is_reached()), "Pods do not reach each other at all");
    ground.apply(&json!({
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "canary"},
        "spec": {"podSelector": {"matchLabels": {"canary": "canary"}}, "policyTypes": ["Ingress"]},
    }));
    // A plugin takes a moment to hear of it.
    let enforced = (0..20).any(|_| {
        thread::sleep(Duration::from_millis(100));
        !is_reached()
    });
    ground.kubectl(&["delete", "pod/canary", "pod/cat", "networkpolicy/canary"]).text();
    enforced
}

/// What listens on [`LISTENS_ON`] for as long as it lives.
pub const LISTENS: [&str; 6] = ["nc", "-ll", "-p", "8080", "-e", "true"];
pub const LISTENS_ON: u16 = 8080;

/// Whether a connection from a Pod comes about.
pub fn connects(ground: &Ground, pod: &str, address: &str, port: u16) -> bool {
    ground.try_run(pod, &format!("nc -w 2 {address} {port} -e true")).code == 0
}
