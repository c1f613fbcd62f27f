//! The Pod that runs an agent. It is a Sandbox of its own, which the agent owns: so it starts, fails, is started again and rests as
//! every sandbox does. Where it may run commands in the session's sandboxes, an account, a role and a policy of its own let it.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use k8s_openapi::{
    api::{
        core::v1::{Pod, ServiceAccount},
        networking::v1::{NetworkPolicy, NetworkPolicyEgressRule, NetworkPolicyPort, NetworkPolicySpec},
        rbac::v1::{PolicyRule, Role, RoleBinding, RoleRef, Subject},
    },
    apimachinery::pkg::{
        apis::meta::v1::{LabelSelector, ObjectMeta},
        util::intstr::IntOrString,
    },
};
use kube::ResourceExt;

use super::{Child, Failure, Observed, Slot, Write};
use crate::{
    api::{
        Agent, AigiseSession, Sandbox, SandboxSpec, SandboxTemplate,
        agent::Runner,
        condition::Reason,
        limits,
        meta::{self, Component},
        template::{Entrypoint, Restart, RestartPolicy, UpdatePolicy},
    },
    plan::{
        Foreign, Settings, digest, name, ownership,
        sandbox::{self, check_template},
        session::has_own_policy,
    },
};

/// Where an API server listens: to its Service, and on its nodes.
const API_PORTS: [i32; 2] = [443, 6443];

/// What lets a runner into the sandboxes of its session.
#[derive(Clone, Debug, PartialEq)]
pub struct Grant {
    /// Who it is.
    pub account: Slot<ServiceAccount>,
    /// What it may.
    pub role: Slot<Role>,
    /// That it may.
    pub binding: Slot<RoleBinding>,
    /// How it reaches the API server.
    pub policy: Slot<NetworkPolicy>,
    /// The Pods that it may run commands in: [`open_pods`].
    pub pods: BTreeSet<String>,
}

impl Grant {
    /// The first of its names that somebody else has.
    pub(super) fn foreign(&self) -> Option<&Foreign> {
        let Self { account, role, binding, policy, pods: _ } = self;
        account.foreign().or(role.foreign()).or(binding.foreign()).or(policy.foreign())
    }

    /// The first of it that could not be read or written.
    pub(super) fn failure(&self) -> Option<&Failure> {
        let Self { account, role, binding, policy, pods: _ } = self;
        account.failure().or(role.failure()).or(binding.failure()).or(policy.failure())
    }

    /// All of it that is there goes: what opens the network first.
    fn removal(&self) -> Vec<Write> {
        let children = [
            self.policy.ours().map(|policy| Child::NetworkPolicy(Box::new(policy.as_ref().clone()))),
            self.binding.ours().map(|binding| Child::RoleBinding(Box::new(binding.as_ref().clone()))),
            self.role.ours().map(|role| Child::Role(Box::new(role.as_ref().clone()))),
            self.account.ours().map(|account| Child::ServiceAccount(Box::new(account.as_ref().clone()))),
        ];
        children.into_iter().flatten().map(Write::Delete).collect()
    }
}

/// The name of an agent's Sandbox, of its Pod, and of what lets it in.
#[must_use]
pub fn name(agent: &Agent) -> String {
    name::child(&agent.spec.session, runner_type(agent))
}

/// The type of an agent's Sandbox: no session has one that begins so.
fn runner_type(agent: &Agent) -> String {
    format!("agent-{}", &digest::short(&agent.name_any())[..12])
}

/// Whether it has to be known what lets the agent's Pod in: it is let in, or was. The policy is the one part that is watched.
#[must_use]
pub fn wants_grant(agent: &Agent, settings: &Settings, policy: &Slot<NetworkPolicy>) -> bool {
    is_let_in(agent, settings) || policy.ours().is_some()
}

/// Whether the agent's Pod is to be let into the sandboxes, and may be.
#[must_use]
pub fn is_let_in(agent: &Agent, settings: &Settings) -> bool {
    settings.allow_runner_exec && agent.spec.runner.as_ref().is_some_and(Runner::may_exec)
}

fn template(runner: &Runner) -> SandboxTemplate {
    let Runner { image, command, env, env_from, resources, security_context, restart, sandbox_exec: _, pod_template } =
        runner.clone();
    let restart = restart.unwrap_or_default();
    SandboxTemplate {
        image: Some(image),
        entrypoint: command.is_empty().then_some(Entrypoint::Image),
        command,
        env,
        env_from,
        resources,
        security_context,
        pod_template,
        restart: Some(Restart { policy: restart.policy.or(Some(RestartPolicy::OnFailure)), ..restart }),
        update_policy: Some(UpdatePolicy::Recreate),
        ..SandboxTemplate::default()
    }
}

/// A Sandbox has to hold it.
fn check_size(template: &SandboxTemplate) -> Result<(), String> {
    let bytes = serde_json::to_vec(template).map_err(|error| error.to_string())?.len();
    if bytes > limits::TEMPLATE_BYTES {
        return Err(format!("spec.runner: it has {bytes} bytes, and {} are allowed.", limits::TEMPLATE_BYTES));
    }
    Ok(())
}

/// What is wrong with a runner.
///
/// # Errors
/// Why it cannot be started.
pub(super) fn check(runner: &Runner, settings: &Settings) -> Result<(), Failure> {
    let template = template(runner);
    check_size(&template)
        .and_then(|()| check_template(&template, settings).map_err(|message| format!("spec.runner.{message}")))
        .map_err(|message| Failure { reason: Reason::InvalidSpec, message })?;
    if runner.may_exec() && !settings.allow_runner_exec {
        let message = "spec.runner.sandboxExec: the operator is installed without agents.runnerExec, so that it may let nobody into the sandboxes.";
        return Err(Failure { reason: Reason::Forbidden, message: message.into() });
    }
    Ok(())
}

/// The Sandbox, as the agent says.
fn sandbox(agent: &Agent, runner: &Runner, session: &AigiseSession) -> Sandbox {
    let mut labels = ownership::labels(Some(session), Component::Sandbox);
    labels.insert(meta::SANDBOX_TYPE.into(), runner_type(agent));
    Sandbox {
        metadata: ownership::child_meta(agent, name(agent), labels),
        spec: SandboxSpec {
            session: Some(agent.spec.session.clone()),
            sandbox_type: runner_type(agent),
            suspend: None,
            volumes: vec![],
            template: template(runner),
        },
        status: None,
    }
}

/// All that is needed to start it: what lets it in comes first.
pub(super) fn start(observed: &Observed) -> Vec<Write> {
    let (Some(runner), Some(session)) = (&observed.agent.spec.runner, observed.session.found()) else { return vec![] };
    let sandbox = sandbox(&observed.agent, runner, session);
    let sandbox = Write::Ensure(Child::Sandbox(Box::new(sandbox)));
    grants(observed, session).into_iter().chain([sandbox]).collect()
}

/// What has changed about one that is there.
pub(super) fn changes(observed: &Observed) -> Vec<Write> {
    let Some(live) = observed.runner.ours().filter(|live| live.metadata.deletion_timestamp.is_none()) else {
        return vec![];
    };
    let (Some(runner), Some(session)) = (&observed.agent.spec.runner, observed.session.found()) else {
        return if observed.agent.spec.runner.is_none() { removal(observed) } else { vec![] };
    };
    // What the operator no longer allows goes, also where the rest cannot be as it is written.
    let grants = grants(observed, session);
    if check(runner, &observed.settings).is_err() {
        return grants;
    }
    let changed = sandbox::changed(live, sandbox(&observed.agent, runner, session));
    let changed = changed.map(|changed| Write::Update(Child::Sandbox(Box::new(changed))));
    grants.into_iter().chain(changed).collect()
}

/// It goes, and its Pod with it.
pub(super) fn removal(observed: &Observed) -> Vec<Write> {
    let live = observed.runner.ours().filter(|live| live.metadata.deletion_timestamp.is_none());
    let gone = |live: &Sandbox| {
        let mut live = live.clone();
        live.metadata.resource_version = None; // whatever it has become meanwhile
        Write::Delete(Child::Sandbox(Box::new(live)))
    };
    live.map(|live| gone(live)).into_iter().collect()
}

/// What lets it in, where it is missing or not as it should be, or is no longer asked for.
fn grants(observed: &Observed, session: &AigiseSession) -> Vec<Write> {
    let Some(grant) = &observed.grant else { return vec![] };
    let agent = &*observed.agent;
    if !is_let_in(agent, &observed.settings) {
        return grant.removal();
    }
    if grant.foreign().is_some() || grant.failure().is_some() {
        return vec![];
    }
    let metadata = || {
        let labels = ownership::labels(Some(session), Component::Agent);
        ownership::child_meta(agent, name(agent), labels)
    };
    let role = role(grant, metadata());
    let binding = binding(agent, metadata());
    let policy = policy(agent, session, metadata());
    let account = ServiceAccount {
        metadata: metadata(),
        // A token is mounted where it is asked for, and nowhere else.
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    };
    [
        (grant.policy.ours().is_none_or(|live| live.spec != policy.spec) && has_own_policy(session))
            .then(|| Child::NetworkPolicy(Box::new(ownership::pinned(policy, &grant.policy)))),
        grant.account.ours().is_none().then(|| Child::ServiceAccount(Box::new(account))),
        grant
            .role
            .ours()
            .is_none_or(|live| live.rules != role.rules)
            .then(|| Child::Role(Box::new(ownership::pinned(role, &grant.role)))),
        grant.binding.ours().is_none().then(|| Child::RoleBinding(Box::new(binding))),
    ]
    .into_iter()
    .flatten()
    .map(Write::Ensure)
    .collect()
}

/// `kubectl exec` looks at a Pod before it runs something in it.
fn role(grant: &Grant, metadata: ObjectMeta) -> Role {
    let rule = |resource: &str, verbs: &[&str]| PolicyRule {
        api_groups: Some(vec![String::new()]),
        resources: Some(vec![resource.into()]),
        resource_names: Some(grant.pods.iter().cloned().collect()),
        verbs: verbs.iter().map(|verb| (*verb).to_string()).collect(),
        ..PolicyRule::default()
    };
    // Without a name, a rule would be about all Pods.
    let rules = (!grant.pods.is_empty()).then(|| vec![rule("pods", &["get"]), rule("pods/exec", &["create", "get"])]);
    Role { metadata, rules: Some(rules.unwrap_or_default()) }
}

/// The Pods that a runner may run commands in: each is there, and made for a sandbox of this session. A name alone would be that of
/// whoever's Pod comes to have it.
pub fn open_pods(
    session: &AigiseSession,
    sandboxes: &[Arc<Sandbox>],
    pod: impl Fn(&Sandbox) -> Slot<Pod>,
) -> BTreeSet<String> {
    let is_there = |sandbox: &Sandbox| pod(sandbox).ours().is_some_and(|pod| pod.metadata.deletion_timestamp.is_none());
    let open = sandboxes.iter().filter(|sandbox| sandbox::belongs_to(sandbox, session) && is_there(sandbox));
    open.map(|sandbox| sandbox.name_any()).collect()
}

fn binding(agent: &Agent, metadata: ObjectMeta) -> RoleBinding {
    RoleBinding {
        metadata,
        role_ref: RoleRef { api_group: "rbac.authorization.k8s.io".into(), kind: "Role".into(), name: name(agent) },
        subjects: Some(vec![Subject {
            kind: "ServiceAccount".into(),
            name: name(agent),
            namespace: agent.namespace(),
            ..Subject::default()
        }]),
    }
}

/// The session's policy keeps its Pods from the cluster; this one may ask the API server.
fn policy(agent: &Agent, session: &AigiseSession, metadata: ObjectMeta) -> NetworkPolicy {
    let mut labels: BTreeMap<_, _> = ownership::members(session);
    labels.insert(meta::SANDBOX_TYPE.into(), runner_type(agent));
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

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn commands_may_be_run_in_pods_of_this_session_that_are_there_and_in_no_other() {
        let session: AigiseSession = serde_json::from_value(json!({
            "metadata": {"name": "s", "namespace": "n", "uid": "of-s"}, "spec": {"sandboxes": {"main": {"image": "a"}}}
        }))
        .unwrap();
        let owned = |uid: &str| json!([{"apiVersion": "aigise.dev/v1alpha1", "kind": "AigiseSession", "name": "s", "uid": uid, "controller": true}]);
        let sandbox = |name: &str, owners: Value, more: Value| -> Arc<Sandbox> {
            let metadata =
                json!({"name": name, "namespace": "n", "uid": format!("of-{name}"), "ownerReferences": owners});
            let mut object = json!({"metadata": metadata, "spec": {"session": "s", "type": name, "image": "a"}});
            for (field, value) in more.as_object().unwrap() {
                object[field] = value.clone();
            }
            Arc::new(serde_json::from_value(object).unwrap())
        };
        let said = |reason: &str| json!({"status": {"conditions": [{"type": "Ready", "status": "False", "reason": reason, "message": "m", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}});
        let suspended = json!({"spec": {"session": "s", "type": "x", "image": "a", "suspend": true}});
        let earlier = json!({"status": {"session": {"uid": "earlier", "autoCleanup": true}}});
        let sandboxes = [
            sandbox("s--main", owned("of-s"), json!({})),
            sandbox("s--leaves", owned("of-s"), json!({})),
            sandbox("s--left-behind", owned("earlier"), json!({})),
            sandbox("by-hand", json!([]), json!({})),
            sandbox("of-earlier", json!([]), earlier),
            // Over Pods of somebody else.
            sandbox("db-0", json!([]), json!({})),
            sandbox("db-1", json!([]), suspended),
            sandbox("db-2", json!([]), said("InvalidSpec")),
            sandbox("db-3", json!([]), said("NameTaken")),
            sandbox(
                "attached",
                json!([]),
                json!({"spec": {"session": "s", "type": "x", "attach": {"podName": "db-0", "container": "c"}}}),
            ),
        ];
        let pod = |sandbox: &Sandbox| {
            let name = sandbox.name_any();
            let owner = if name.starts_with("db-") { "theirs".to_string() } else { format!("of-{name}") };
            let owners = json!([{"apiVersion": "aigise.dev/v1alpha1", "kind": "Sandbox", "name": name, "uid": owner, "controller": true}]);
            let mut metadata = json!({"name": name, "ownerReferences": owners});
            if name == "s--leaves" {
                metadata["deletionTimestamp"] = json!("2026-01-01T00:00:00Z");
            }
            let pod: Option<Arc<Pod>> =
                (name != "attached").then(|| Arc::new(serde_json::from_value(json!({"metadata": metadata})).unwrap()));
            ownership::slot(pod, &sandbox.metadata)
        };
        let open = open_pods(&session, &sandboxes, pod);
        assert_eq!(open, ["by-hand", "s--main"].map(String::from).into());
    }
}
