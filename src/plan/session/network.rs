//! The Service that gives sandboxes their names, and the policy around them.

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

use super::{Child, Observed, Slot, Write};
use crate::{
    api::meta::{self, Component},
    plan::ownership,
};

/// What is not the internet: private, shared, loopback, link-local (cloud metadata), multicast and reserved ranges. Cluster
/// services, the API server and nodes live in these.
const NOT_INTERNET_V4: [&str; 10] = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "224.0.0.0/3",
];
/// Likewise, and the prefixes that lead back into IPv4: translated (NAT64) and 6to4 addresses. The API server takes no mapped ones.
const NOT_INTERNET_V6: [&str; 6] = ["::1/128", "64:ff9b::/96", "2002::/16", "fc00::/7", "fe80::/10", "ff00::/8"];

/// Where node-local DNS caches listen, by convention.
const NODE_LOCAL_DNS: &str = "169.254.20.10/32";

/// The Service and the policy, where they are missing or not as they should be.
pub(super) fn writes(observed: &Observed) -> Vec<Write> {
    let mut writes = vec![];
    let policy = policy(observed);
    if !matches!(&observed.policy, Slot::Ours(live) if live.spec == policy.spec) {
        writes.push(Write::Ensure(Child::NetworkPolicy(Box::new(ownership::pinned(policy, &observed.policy)))));
    }
    let service = service(observed);
    if !matches!(&observed.service, Slot::Ours(live) if serves(live, &service)) {
        writes.push(Write::Ensure(Child::Service(Box::new(ownership::pinned(service, &observed.service)))));
    }
    writes
}

fn metadata(observed: &Observed) -> ObjectMeta {
    let session = &*observed.session;
    ownership::child_meta(session, session.name_any(), ownership::labels(Some(session), Component::Network))
}

/// The API server fills in the rest of a Service, so only what we say is compared.
fn serves(live: &Service, desired: &Service) -> bool {
    let said = |service: &Service| {
        let spec = service.spec.as_ref()?;
        Some((spec.cluster_ip.clone(), spec.publish_not_ready_addresses, spec.selector.clone()))
    };
    said(live) == said(desired)
}

fn service(observed: &Observed) -> Service {
    // The name of the session stands for its sandboxes; the stage Pod, which comes and goes, is none.
    let mut selector = ownership::members(&observed.session);
    selector.insert(meta::COMPONENT.into(), Component::Sandbox.to_string());
    Service {
        metadata: metadata(observed),
        spec: Some(ServiceSpec {
            cluster_ip: Some("None".into()),
            // An initialiser may need a neighbour that is up and not ready; readiness lives in status.
            publish_not_ready_addresses: Some(true),
            selector: Some(selector),
            ..ServiceSpec::default()
        }),
        status: None,
    }
}

fn policy(observed: &Observed) -> NetworkPolicy {
    let members =
        || LabelSelector { match_labels: Some(ownership::members(&observed.session)), ..LabelSelector::default() };
    let session_pods = || NetworkPolicyPeer { pod_selector: Some(members()), ..NetworkPolicyPeer::default() };
    let block = |cidr: &str, except: &[&str]| NetworkPolicyPeer {
        ip_block: Some(IPBlock {
            cidr: cidr.into(),
            except: (!except.is_empty()).then(|| except.iter().map(ToString::to_string).collect()),
        }),
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
    let egress = |to, ports| NetworkPolicyEgressRule { to: Some(to), ports };
    NetworkPolicy {
        metadata: metadata(observed),
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(members()),
            policy_types: Some(vec!["Ingress".into(), "Egress".into()]),
            ingress: Some(vec![NetworkPolicyIngressRule { from: Some(vec![session_pods()]), ports: None }]),
            egress: Some(vec![
                egress(vec![session_pods()], None),
                egress(vec![cluster_dns, block(NODE_LOCAL_DNS, &[])], Some(vec![port_53("UDP"), port_53("TCP")])),
                egress(vec![block("0.0.0.0/0", &NOT_INTERNET_V4), block("::/0", &NOT_INTERNET_V6)], None),
            ]),
        }),
    }
}

fn labelled(key: &str, value: &str) -> LabelSelector {
    LabelSelector { match_labels: Some([(key.to_string(), value.to_string())].into()), ..LabelSelector::default() }
}

/// The DNS name of the session's Service.
pub(super) fn service_name(observed: &Observed) -> String {
    let session = &observed.session;
    crate::plan::name::service(&session.name_any(), &session.namespace().unwrap_or_default())
}
