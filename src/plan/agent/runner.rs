//! The Pod of an agent. The agent owns a Sandbox, which creates the Pod: it starts, fails, is restarted and is suspended like any other
//! sandbox. If the agent may run commands in the session's sandboxes, its Sandbox also owns the exec access of the Pod.

use k8s_openapi::api::{
    core::v1::ServiceAccount,
    networking::v1::NetworkPolicy,
    rbac::v1::{Role, RoleBinding},
};
use kube::ResourceExt;

use super::{ChildState, Failure, Observed, Write};
use crate::{
    api::{
        Agent, Sandbox, SandboxSpec, SandboxTemplate,
        agent::{DesiredStatus, Runner},
        condition::Reason,
        limits,
        meta::{self, Component},
        template::{Entrypoint, Restart, RestartPolicy, UpdatePolicy},
    },
    plan::{
        Below, Created, Invalid, Settings,
        effective::EffectiveSession,
        facts::{
            agent::{belonged_to_other_session, may_exec, runner_name, runner_type},
            sandbox::changed,
        },
        ownership, template,
    },
};

/// The exec access that an earlier version of the operator created. The agent itself owned it, so it was not deleted with the Sandbox.
#[derive(Clone, Debug, PartialEq)]
pub struct LegacyExecAccess {
    /// The network policy that opened the API server. It is the only one of these objects that the operator watches.
    pub policy: ChildState<NetworkPolicy>,
    /// The Pod's service account.
    pub account: ChildState<ServiceAccount>,
    /// The agent's role.
    pub role: ChildState<Role>,
    /// The binding of the service account to the role.
    pub binding: ChildState<RoleBinding>,
}

impl LegacyExecAccess {
    /// Deletes all objects. The policy is deleted last, since the operator finds the other objects by it.
    pub(super) fn removal(&self) -> Vec<Write> {
        let Self { policy, account, role, binding } = self;
        if role.failure().or(account.failure()).or(binding.failure()).is_some() {
            return vec![];
        }
        let writes = [
            binding.owned().map(|binding| Write::delete(&**binding)),
            role.owned().map(|role| Write::delete(&**role)),
            account.owned().map(|account| Write::delete(&**account)),
            policy.owned().map(|policy| Write::delete(&**policy)),
        ];
        writes.into_iter().flatten().collect()
    }
}

/// Whether the exec access of an earlier version exists and is no longer in use.
pub fn is_over(
    policy: &ChildState<NetworkPolicy>,
    agent: &Agent,
    live: &ChildState<Sandbox>,
    settings: &Settings,
) -> bool {
    policy.owned().is_some() && !(live.may_be_there() && may_exec(agent, settings))
}

fn sandbox_template(runner: &Runner) -> SandboxTemplate {
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

/// Checks that the template fits into a Sandbox.
fn check_size(template: &SandboxTemplate) -> Result<(), Invalid> {
    let (bytes, most) = (serde_json::to_vec(template)?.len(), limits::TEMPLATE_BYTES);
    if bytes > most {
        return Err(Invalid::whole(format!("the runner has {bytes} bytes, and {most} are allowed.")));
    }
    Ok(())
}

/// Checks a runner.
///
/// # Errors
/// Why the runner cannot be started.
pub(super) fn check(runner: &Runner, settings: &Settings) -> Result<(), Failure> {
    let template = sandbox_template(runner);
    check_size(&template).and_then(|()| template::check(&template, settings)).below("spec.runner")?;
    if runner.may_exec() && !settings.allow_runner_exec {
        let message = "spec.runner.sandboxExec: the operator is installed without agents.runnerExec, so it cannot grant exec access.";
        return Err(Failure { reason: Reason::Forbidden, message: message.into() });
    }
    Ok(())
}

/// The Sandbox that the agent requests.
fn sandbox(agent: &Agent, runner: &Runner, session: &EffectiveSession, settings: &Settings) -> Sandbox {
    let mut labels = session.labels(Component::Sandbox);
    labels.insert(meta::SANDBOX_TYPE.into(), runner_type(agent));
    if may_exec(agent, settings) {
        labels.insert(meta::SANDBOX_EXEC.into(), "true".into());
    }
    Sandbox {
        metadata: ownership::child_meta(agent, runner_name(agent), labels),
        spec: SandboxSpec {
            session: Some(agent.spec.session.clone()),
            sandbox_type: runner_type(agent),
            suspend: None,
            volumes: vec![],
            template: sandbox_template(runner),
        },
        status: None,
    }
}

/// Whether an agent requests this exact Sandbox. A user who may write Sandboxes can claim that a Sandbox belongs to an agent. The secrets
/// of an agent's Pod (the session's configuration, keys, a token) must only go to Pods that the agent requests.
pub fn is_requested(sandbox: &Sandbox, agent: &Agent, session: &EffectiveSession, settings: &Settings) -> bool {
    let is_active = agent.metadata.deletion_timestamp.is_none() && agent.spec.desired_status() == DesiredStatus::Active;
    let is_going = sandbox.metadata.deletion_timestamp.is_some() || exec_is_revoked(sandbox, agent, settings);
    let is_its_own =
        sandbox.name_any() == runner_name(agent) && !is_going && !belonged_to_other_session(agent, session);
    let runner = agent.spec.runner.as_ref().filter(|_| is_active && is_its_own);
    runner.is_some_and(|runner| changed(sandbox, self::sandbox(agent, runner, session, settings)).is_none())
}

/// Whether the Sandbox has exec access and may no longer have it. Deleting the Sandbox also deletes the exec access that it owns, whatever
/// the operator itself may still delete.
fn exec_is_revoked(sandbox: &Sandbox, agent: &Agent, settings: &Settings) -> bool {
    ownership::label(&sandbox.metadata, meta::SANDBOX_EXEC).is_some() && !may_exec(agent, settings)
}

/// The writes that start the runner.
pub(super) fn start(observed: &Observed) -> Vec<Write> {
    let (Some(runner), Some(session)) = (&observed.agent.spec.runner, observed.session.found()) else { return vec![] };
    let sandbox = sandbox(&observed.agent, runner, session, &observed.settings);
    vec![Write::Create(Created::Sandbox(Box::new(sandbox)))]
}

/// The writes that bring an existing runner up to date, or remove it.
pub(super) fn changes(observed: &Observed) -> Vec<Write> {
    let Some(live) = observed.runner.owned().filter(|live| live.metadata.deletion_timestamp.is_none()) else {
        return vec![];
    };
    if observed.agent.spec.runner.is_none() || exec_is_revoked(live, &observed.agent, &observed.settings) {
        return removal(observed);
    }
    let (Some(runner), Some(session)) = (&observed.agent.spec.runner, observed.session.found()) else { return vec![] };
    if check(runner, &observed.settings).is_err() {
        return vec![];
    }
    let changed = changed(live, sandbox(&observed.agent, runner, session, &observed.settings));
    changed.map(|changed| Write::Replace(Box::new(changed))).into_iter().collect()
}

/// Deletes the agent's Sandbox, and with it the Pod.
pub(super) fn removal(observed: &Observed) -> Vec<Write> {
    let live = observed.runner.owned().filter(|live| live.metadata.deletion_timestamp.is_none());
    live.map(|live| Write::delete_any_version(&**live)).into_iter().collect()
}
