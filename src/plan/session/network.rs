//! The Service that gives sandboxes their DNS names, and the network policies of a session.

use std::collections::BTreeMap;

use ipnet::IpNet;
use k8s_openapi::{
    api::{
        core::v1::{Service, ServiceSpec},
        networking::v1::{
            IPBlock, NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyIngressRule, NetworkPolicyPeer,
            NetworkPolicyPort, NetworkPolicySpec,
        },
    },
    apimachinery::pkg::{
        apis::meta::v1::{LabelSelector, ObjectMeta},
        util::intstr::IntOrString,
    },
};
use kube::ResourceExt;

use super::{Applied, ChildState, Observed, Write};
use crate::{
    api::{
        meta::{self, Component},
        session::{Egress, Network, SourceKind},
    },
    plan::{Settings, ownership, volumes::SharedVolume},
};

/// IPv4 ranges that do not belong to the internet: private, shared, loopback, link-local (cloud metadata), multicast and reserved ranges,
/// the relays of 6to4, and Azure's wire server, which serves a node's secrets at a public address. Cluster services, the API server and
/// nodes have addresses in these ranges, or in [`Settings::cluster_ranges`].
const NOT_INTERNET_V4: [&str; 12] = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "168.63.129.16/32",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.88.99.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "224.0.0.0/3",
];
/// IPv6 ranges that do not belong to the internet. They include the prefixes that map to IPv4: translated (NAT64), Teredo and 6to4
/// addresses. IPv4-mapped ranges are missing because the API server rejects them.
const NOT_INTERNET_V6: [&str; 8] =
    ["::1/128", "2001::/32", "2002::/16", "64:ff9b:1::/48", "64:ff9b::/96", "fc00::/7", "fe80::/10", "ff00::/8"];

/// Where node-local DNS caches listen, by convention.
const NODE_LOCAL_DNS: &str = "169.254.20.10/32";

/// The writes for the Service and the policies, if they are missing or out of date.
pub(super) fn writes(observed: &Observed) -> Vec<Write> {
    let policies = [
        (&observed.policy, wants_policy(observed).then(|| session_policy(observed))),
        (&observed.stage_policy, wants_stage_policy(observed).then(|| stage_policy(observed))),
    ];
    let mut writes: Vec<_> = policies.into_iter().filter_map(|(child, wanted)| policy_write(child, wanted)).collect();
    let service = service(observed);
    let is_well = match &observed.service {
        ChildState::Owned(live) => serves(live, &service),
        ChildState::Foreign(_) | ChildState::Failed(_) => true, // it must not be changed, or its state is unknown
        ChildState::Absent => false,
    };
    if !is_well {
        writes.push(Write::Apply(Applied::Service(Box::new(ownership::pinned(service, &observed.service)))));
    }
    writes
}

fn policy_write(child: &ChildState<NetworkPolicy>, wanted: Option<NetworkPolicy>) -> Option<Write> {
    match (child, wanted) {
        (ChildState::Owned(live), None) if live.metadata.deletion_timestamp.is_none() => Some(Write::delete(&**live)),
        (_, None) | (ChildState::Foreign(_) | ChildState::Failed(_), Some(_)) => None,
        (ChildState::Owned(live), Some(wanted))
            if live.spec == wanted.spec && same_owners(&live.metadata, &wanted.metadata) =>
        {
            None
        }
        (child, Some(wanted)) => Some(Write::Apply(Applied::NetworkPolicy(Box::new(ownership::pinned(wanted, child))))),
    }
}

/// The state of the policies that the session requires.
pub(super) fn policies(observed: &Observed) -> impl Iterator<Item = &ChildState<NetworkPolicy>> {
    let session = wants_policy(observed).then_some(&observed.policy);
    session.into_iter().chain(wants_stage_policy(observed).then_some(&observed.stage_policy))
}

fn wants_policy(observed: &Observed) -> bool {
    observed.session.has_own_policy()
}

/// Whether the stage Pod needs a policy of its own: the sandboxes may not reach the internet, but container sources may. Policies are
/// additive.
fn wants_stage_policy(observed: &Observed) -> bool {
    let fetches = SharedVolume::ALL.into_iter().flat_map(|volume| &observed.session.volume(volume).sources);
    wants_policy(observed)
        && observed.session.egress() == Egress::SessionOnly
        && fetches.into_iter().any(|source| matches!(source.kind(), SourceKind::Container(_)))
}

fn metadata(observed: &Observed, name: String) -> ObjectMeta {
    let session = &observed.session;
    let labels = session.labels(Component::Network);
    let mut metadata = ownership::child_meta(session, name, labels);
    if !session.cleans_up() {
        metadata.owner_references = None;
    }
    metadata
}

fn same_owners(live: &ObjectMeta, desired: &ObjectMeta) -> bool {
    let owners = |meta: &ObjectMeta| meta.owner_references.clone().unwrap_or_default();
    owners(live) == owners(desired)
}

/// Whether the live Service is up to date. The API server sets defaults, so only the fields that the operator sets are compared.
fn serves(live: &Service, desired: &Service) -> bool {
    let said = |service: &Service| {
        let spec = service.spec.as_ref()?;
        Some((spec.cluster_ip.clone(), spec.publish_not_ready_addresses, spec.selector.clone()))
    };
    said(live) == said(desired) && same_owners(&live.metadata, &desired.metadata)
}

fn service(observed: &Observed) -> Service {
    // The session's DNS name resolves to its sandboxes, and not to the temporary stage Pod.
    let mut selector = observed.session.members();
    selector.insert(meta::COMPONENT.into(), Component::Sandbox.to_string());
    Service {
        metadata: metadata(observed, observed.session.name_any()),
        spec: Some(ServiceSpec {
            cluster_ip: Some("None".into()),
            // An initialiser may need another sandbox that runs but is not ready. Readiness is reported in the status.
            publish_not_ready_addresses: Some(true),
            selector: Some(selector),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}

fn session_policy(observed: &Observed) -> NetworkPolicy {
    let session_pods = || NetworkPolicyPeer {
        pod_selector: Some(selector(observed.session.members())),
        ..NetworkPolicyPeer::default()
    };
    let cluster_dns = NetworkPolicyPeer {
        namespace_selector: Some(labelled("kubernetes.io/metadata.name", "kube-system")),
        pod_selector: Some(labelled("k8s-app", "kube-dns")),
        ..NetworkPolicyPeer::default()
    };
    let port_53 = |protocol: &str| NetworkPolicyPort {
        protocol: Some(protocol.into()),
        port: Some(IntOrString::Int(53)),
        ..NetworkPolicyPort::default()
    };
    let network = as_kept(observed.session.network());
    let beyond = match observed.session.egress() {
        Egress::Internet => Some(internet(&observed.settings)),
        Egress::SessionOnly => None,
        Egress::Any => Some(NetworkPolicyEgressRule::default()),
    };
    let from_session = NetworkPolicyIngressRule { from: Some(vec![session_pods()]), ports: None };
    let within = [
        egress(vec![session_pods()], None),
        egress(vec![cluster_dns, block(NODE_LOCAL_DNS, vec![])], Some(vec![port_53("UDP"), port_53("TCP")])),
    ];
    NetworkPolicy {
        metadata: metadata(observed, observed.session.name_any()),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(selector(observed.session.members())),
            policy_types: Some(vec!["Ingress".into(), "Egress".into()]),
            ingress: Some([from_session].into_iter().chain(network.allow_ingress).collect()),
            egress: Some(within.into_iter().chain(beyond).chain(network.allow_egress).collect()),
        }),
    }
}

fn stage_policy(observed: &Observed) -> NetworkPolicy {
    let mut stage_pod = observed.session.members();
    stage_pod.insert(meta::COMPONENT.into(), Component::Stage.to_string());
    NetworkPolicy {
        metadata: metadata(observed, Observed::stage_pod_name(&observed.session)),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(selector(stage_pod)),
            policy_types: Some(vec!["Egress".into()]),
            ingress: None,
            egress: Some(vec![internet(&observed.settings)]),
        }),
    }
}

fn internet(settings: &Settings) -> NetworkPolicyEgressRule {
    let (v4, v6): (Vec<_>, Vec<_>) = settings.cluster_ranges.iter().partition(|range| range.addr().is_ipv4());
    let all_but = |all, closed: &[&str], own: &[&IpNet]| {
        let own = own.iter().map(ToString::to_string);
        block(all, closed.iter().map(ToString::to_string).chain(own).collect())
    };
    egress(vec![all_but("0.0.0.0/0", &NOT_INTERNET_V4, &v4), all_but("::/0", &NOT_INTERNET_V6, &v6)], None)
}

fn egress(to: Vec<NetworkPolicyPeer>, ports: Option<Vec<NetworkPolicyPort>>) -> NetworkPolicyEgressRule {
    NetworkPolicyEgressRule { to: Some(to), ports }
}

fn block(cidr: &str, except: Vec<String>) -> NetworkPolicyPeer {
    let except = (!except.is_empty()).then_some(except);
    NetworkPolicyPeer { ip_block: Some(IPBlock { cidr: cidr.into(), except }), ..NetworkPolicyPeer::default() }
}

/// Normalises a user's rules as the API server does: the default protocol is TCP, and empty lists and maps are omitted. Otherwise the
/// desired rules would always differ from the live ones, and every reconcile would write them.
fn as_kept(mut network: Network) -> Network {
    let keep_ports = |ports: &mut Option<Vec<NetworkPolicyPort>>| {
        ports.iter_mut().flatten().for_each(|port| _ = port.protocol.get_or_insert_with(|| "TCP".into()));
        ports.take_if(|ports| ports.is_empty());
    };
    let keep_selector = |selector: &mut LabelSelector| {
        selector.match_labels.take_if(|labels| labels.is_empty());
        for expression in selector.match_expressions.iter_mut().flatten() {
            expression.values.take_if(|values| values.is_empty());
        }
        selector.match_expressions.take_if(|expressions| expressions.is_empty());
    };
    let keep_peers = |peers: &mut Option<Vec<NetworkPolicyPeer>>| {
        for peer in peers.iter_mut().flatten() {
            if let Some(block) = &mut peer.ip_block {
                block.except.take_if(|except| except.is_empty());
            }
            [&mut peer.pod_selector, &mut peer.namespace_selector].into_iter().flatten().for_each(keep_selector);
        }
        peers.take_if(|peers| peers.is_empty());
    };
    for NetworkPolicyEgressRule { ports, to } in &mut network.allow_egress {
        keep_ports(ports);
        keep_peers(to);
    }
    for NetworkPolicyIngressRule { from, ports } in &mut network.allow_ingress {
        keep_ports(ports);
        keep_peers(from);
    }
    network
}

fn labelled(key: &str, value: &str) -> LabelSelector {
    selector([(key.to_string(), value.to_string())].into())
}

fn selector(labels: BTreeMap<String, String>) -> LabelSelector {
    LabelSelector { match_labels: Some(labels), ..LabelSelector::default() }
}

/// The DNS name of the session's Service.
pub(super) fn service_name(observed: &Observed) -> String {
    let session = &observed.session;
    crate::plan::name::service(&session.name_any(), &session.namespace().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// The API server's own types omit these fields if they are empty (`omitempty`).
    #[test]
    fn what_is_empty_in_a_users_rule_is_left_out_as_the_api_server_leaves_it_out() {
        let rule = |written: bool| {
            let empty = |value: serde_json::Value| if written { value } else { json!({}) };
            let exists = empty(json!({"values": []}));
            let mut expression = json!({"key": "a", "operator": "Exists"});
            expression.as_object_mut().unwrap().extend(exists.as_object().unwrap().clone());
            json!([
                {"podSelector": empty(json!({"matchLabels": {}, "matchExpressions": []}))},
                {"namespaceSelector": {"matchExpressions": [expression]}},
            ])
        };
        let network = |written: bool| -> Network {
            let ports = if written { json!([{"port": 80}]) } else { json!([{"port": 80, "protocol": "TCP"}]) };
            serde_json::from_value(json!({
                "allowIngress": [{"from": rule(written), "ports": ports}],
                "allowEgress": [{"to": rule(written)}],
            }))
            .unwrap()
        };
        let (written, kept) = (network(true), network(false));
        assert_ne!(serde_json::to_value(&written).unwrap(), serde_json::to_value(&kept).unwrap());
        assert_eq!(as_kept(written), as_kept(kept.clone()));
        assert_eq!(as_kept(kept.clone()), kept);
    }

    #[test]
    fn what_is_the_clusters_own_is_not_the_internet() {
        let settings = Settings {
            cluster_ranges: ["203.0.113.0/24", "2001:db8::/32"].map(|range| range.parse().unwrap()).into(),
            ..Settings::example()
        };
        let blocks: Vec<_> = internet(&settings).to.into_iter().flatten().filter_map(|peer| peer.ip_block).collect();
        let last = blocks.iter().map(|block| (&*block.cidr, block.except.as_ref().unwrap().last().unwrap().as_str()));
        assert_eq!(last.collect::<Vec<_>>(), [("0.0.0.0/0", "203.0.113.0/24"), ("::/0", "2001:db8::/32")]);
    }
}
