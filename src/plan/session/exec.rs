//! The exec access of a session's agents: one role for the session, to which each agent's Pod is
//! [bound](crate::plan::sandbox::ExecAccess). The Sandboxes of these agents own the role, so it is deleted with the last of them.

use std::{collections::BTreeSet, sync::Arc};

use k8s_openapi::{
    api::{
        core::v1::Pod,
        rbac::v1::{PolicyRule, Role},
    },
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};
use kube::{Resource, ResourceExt};

use super::{Applied, ChildState, Observed, Write};
use crate::{
    api::{Sandbox, meta::Component},
    plan::{
        effective::EffectiveSession,
        facts::{
            sandbox::{belongs_to, is_runner},
            session::role_name,
        },
        ownership,
    },
};

/// The exec access of a session's agents.
#[derive(Clone, Debug, PartialEq)]
pub struct Exec {
    /// The role.
    pub role: ChildState<Role>,
    /// The Sandboxes of the agents with exec access.
    pub runners: Vec<Arc<Sandbox>>,
    /// The Pods in which they may run commands: [`open_pods`].
    pub pods: BTreeSet<String>,
}

/// The names of the Pods in which agents may run commands. Each Pod must exist and belong to a sandbox of this session: a name without a
/// Pod could later be the name of a foreign Pod.
pub fn open_pods(
    session: &EffectiveSession,
    sandboxes: &[Arc<Sandbox>],
    pod: impl Fn(&Sandbox) -> ChildState<Pod>,
) -> BTreeSet<String> {
    let is_there =
        |sandbox: &Sandbox| pod(sandbox).owned().is_some_and(|pod| pod.metadata.deletion_timestamp.is_none());
    let is_open = |sandbox: &&Arc<Sandbox>| !is_runner(sandbox) && belongs_to(sandbox, session) && is_there(sandbox);
    sandboxes.iter().filter(is_open).map(|sandbox| sandbox.name_any()).collect()
}

/// The write for the role, if the role is missing or out of date.
pub fn writes(observed: &Observed) -> Vec<Write> {
    let is_going = observed.session.metadata().deletion_timestamp.is_some();
    let Some(Exec { role: live, runners, pods }) = observed.exec.as_ref().filter(|_| !is_going) else { return vec![] };
    if live.foreign().is_some() || live.failure().is_some() {
        return vec![];
    }
    let role = role(&observed.session, runners, pods);
    let has_owners = |live: &Role| role.owner_references().iter().all(|owner| live.owner_references().contains(owner));
    let is_right = live.owned().is_some_and(|live| live.rules == role.rules && has_owners(live));
    let write = (!is_right).then(|| Write::Apply(Applied::Role(Box::new(ownership::pinned(role, live)))));
    write.into_iter().collect()
}

/// The role. It includes `get` on Pods, since `kubectl exec` reads a Pod before it runs a command in it.
fn role(session: &EffectiveSession, runners: &[Arc<Sandbox>], pods: &BTreeSet<String>) -> Role {
    let rule = |resource: &str, verbs: &[&str]| PolicyRule {
        api_groups: Some(vec![String::new()]),
        resources: Some(vec![resource.into()]),
        resource_names: Some(pods.iter().cloned().collect()),
        verbs: verbs.iter().map(|verb| (*verb).to_string()).collect(),
        ..PolicyRule::default()
    };
    // Without names, a rule would apply to all Pods.
    let rules = (!pods.is_empty()).then(|| vec![rule("pods", &["get"]), rule("pods/exec", &["create", "get"])]);
    // None of the owners is a controller; the label identifies the session.
    let owner = |runner: &Arc<Sandbox>| runner.owner_ref(&());
    let owners: Vec<OwnerReference> = runners.iter().filter_map(owner).collect();
    let metadata = ObjectMeta {
        owner_references: Some(owners),
        ..ownership::child_meta(session, role_name(session), session.labels(Component::Agent))
    };
    Role { metadata, rules: Some(rules.unwrap_or_default()) }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn commands_may_be_run_in_pods_of_this_session_that_are_there_and_in_no_other() {
        let session = EffectiveSession::stored(json!({
            "metadata": {"name": "s", "namespace": "n", "uid": "of-s"}, "spec": {"sandboxes": {"main": {"image": "a"}}}
        }));
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
            sandbox(
                "s--agent-0",
                json!([{"apiVersion": "aigise.dev/v1alpha1", "kind": "Agent", "name": "a", "uid": "of-a", "controller": true}]),
                json!({}),
            ),
            sandbox("s--leaves", owned("of-s"), json!({})),
            sandbox("s--left-behind", owned("earlier"), json!({})),
            sandbox("by-hand", json!([]), json!({})),
            sandbox("of-earlier", json!([]), earlier),
            // Sandboxes with the names of foreign Pods.
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
            ownership::child_state(pod, &sandbox.metadata)
        };
        let open = open_pods(&session, &sandboxes, pod);
        assert_eq!(open, ["by-hand", "s--main"].map(String::from).into());
    }
}
