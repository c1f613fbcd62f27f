//! Exec access of an agent's Pod to the sandboxes of its session: a service account, a binding to the session's
//! [role](crate::plan::session::exec), and a network policy that opens the API server. These objects belong to the agent's Sandbox and
//! are deleted with it.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::{
    api::{
        core::v1::ServiceAccount,
        networking::v1::{NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyPort, NetworkPolicySpec},
        rbac::v1::{Role, RoleBinding, RoleRef, Subject},
    },
    apimachinery::pkg::{
        apis::meta::v1::{LabelSelector, ObjectMeta},
        util::intstr::IntOrString,
    },
};
use kube::{Resource, ResourceExt};

use super::{ChildState, Failure, Observed, Write};
use crate::{
    api::{
        Agent, Sandbox,
        meta::{self, Component},
    },
    plan::{Applied, Foreign, Lookup, effective::EffectiveSession, facts::session::role_name, ownership},
};

/// The ports of an API server: of its Service, and on its nodes.
const API_PORTS: [i32; 2] = [443, 6443];

/// The objects that give an agent's Pod exec access.
#[derive(Clone, Debug, PartialEq)]
pub struct ExecAccess {
    /// The session's role, which all its agents share.
    pub role: ChildState<Role>,
    /// The Pod's service account.
    pub account: ChildState<ServiceAccount>,
    /// The binding of the service account to the role.
    pub binding: ChildState<RoleBinding>,
    /// The network policy that opens the API server to the Pod.
    pub policy: ChildState<NetworkPolicy>,
    /// The agent's own role, if an earlier version of the operator created the binding.
    pub earlier_role: ChildState<Role>,
}

impl ExecAccess {
    /// The first foreign object that has one of the names.
    pub(super) fn foreign(&self) -> Option<&Foreign> {
        let Self { role, account, binding, policy, earlier_role: _ } = self;
        role.foreign().or(account.foreign()).or(binding.foreign()).or(policy.foreign())
    }

    /// The first failure to read or write one of the objects.
    pub(super) fn failure(&self) -> Option<&Failure> {
        let Self { role, account, binding, policy, earlier_role } = self;
        let of_today = role.failure().or(account.failure()).or(binding.failure()).or(policy.failure());
        of_today.or(earlier_role.failure())
    }

    /// Whether the sandbox has to be requeued: the role does not exist yet, or an object could not be read or written.
    pub(super) fn is_awaited(&self) -> bool {
        self.role.owned().is_none() || self.failure().is_some()
    }
}

/// Whether the binding refers to a role with its own name, as in versions before sessions had a role.
pub fn is_of_earlier(binding: &RoleBinding) -> bool {
    binding.role_ref.name == binding.name_any()
}

/// The state of an object of [`ExecAccess`]. In earlier versions, the agent itself owned these objects. They remain in use for as long as
/// the Sandbox exists; then the agent [deletes them](crate::plan::agent::runner::LegacyExecAccess).
pub fn child_state<K: Resource<DynamicType = ()> + Clone>(
    found: Lookup<K>,
    sandbox: &Sandbox,
    agent: &Agent,
) -> ChildState<K> {
    let of_agent = found.clone().child_state(&agent.metadata);
    if of_agent.owned().is_some() { of_agent } else { found.child_state(&sandbox.metadata) }
}

/// The writes for objects that are missing or out of date. The session creates the role.
pub(super) fn writes(observed: &Observed) -> Vec<Write> {
    let (Some(access), Some(session)) = (&observed.exec_access, observed.session.found()) else { return vec![] };
    let is_going = session.metadata().deletion_timestamp.is_some();
    if is_going || access.foreign().is_some() || access.failure().is_some() {
        return vec![];
    }
    let sandbox = &*observed.sandbox;
    let name = sandbox.name_any();
    let metadata = || ownership::child_meta(sandbox, name.clone(), session.labels(Component::Agent));
    let account = ServiceAccount {
        metadata: metadata(),
        // A token is only mounted in Pods that request it.
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    };
    let policy = policy(sandbox, session, metadata());
    let binding = binding(sandbox, session, metadata());
    let wants_policy = session.has_own_policy() && access.policy.owned().is_none_or(|live| live.spec != policy.spec);
    let is_bound = |live: &Arc<RoleBinding>| live.role_ref == binding.role_ref;
    let wants_binding = access.role.owned().is_some() && !access.binding.owned().is_some_and(is_bound);
    // The `roleRef` of a binding is immutable.
    let outdated = access.binding.owned().filter(|_| wants_binding);
    let outdated = outdated.map(|live| Write::delete(&**live));
    let earlier_role = access.earlier_role.owned().filter(|_| wants_binding);
    let earlier_role = earlier_role.map(|live| Write::delete(&**live));
    [
        wants_policy.then(|| Write::Apply(Applied::NetworkPolicy(Box::new(ownership::pinned(policy, &access.policy))))),
        access.account.owned().is_none().then(|| Write::Apply(Applied::ServiceAccount(Box::new(account)))),
        outdated,
        wants_binding.then(|| Write::Apply(Applied::RoleBinding(Box::new(binding)))),
        earlier_role,
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn binding(sandbox: &Sandbox, session: &EffectiveSession, metadata: ObjectMeta) -> RoleBinding {
    let api_group = "rbac.authorization.k8s.io".into();
    RoleBinding {
        metadata,
        role_ref: RoleRef { api_group, kind: "Role".into(), name: role_name(session) },
        subjects: Some(vec![Subject {
            kind: "ServiceAccount".into(),
            name: sandbox.name_any(),
            namespace: sandbox.namespace(),
            ..Subject::default()
        }]),
    }
}

/// The network policy that opens the API server to the agent's Pod. The session's policy closes the cluster to its Pods.
fn policy(sandbox: &Sandbox, session: &EffectiveSession, metadata: ObjectMeta) -> NetworkPolicy {
    let mut labels: BTreeMap<_, _> = session.members();
    labels.insert(meta::SANDBOX_TYPE.into(), sandbox.spec.sandbox_type.clone());
    let port = |port| NetworkPolicyPort {
        port: Some(IntOrString::Int(port)),
        protocol: Some("TCP".into()),
        ..NetworkPolicyPort::default()
    };
    NetworkPolicy {
        metadata,
        spec: Some(NetworkPolicySpec {
            pod_selector: Some(LabelSelector { match_labels: Some(labels), ..LabelSelector::default() }),
            policy_types: Some(vec!["Egress".into()]),
            egress: Some(vec![NetworkPolicyEgressRule { ports: Some(API_PORTS.map(port).into()), to: None }]),
            ..NetworkPolicySpec::default()
        }),
    }
}
