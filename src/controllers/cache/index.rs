//! Who belongs to whom, so that finding them costs the same however many others there are.

use std::{
    collections::{BTreeSet, HashMap},
    hash::Hash,
    sync::Mutex,
};

use kube::ResourceExt;

use super::Change;
use crate::{
    api::{Agent, Sandbox, agent::Runner},
    plan::{agent::MAX_DEPTH, name::Label, ownership},
};

/// Names of objects, by what they belong to.
#[derive(Debug)]
struct Index<Key>(Mutex<HashMap<Key, BTreeSet<String>>>);

impl<Key> Default for Index<Key> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<Key: Eq + Hash> Index<Key> {
    fn has(&self, key: &Key) -> bool {
        self.0.lock().is_ok_and(|index| index.contains_key(key))
    }

    fn get(&self, key: &Key) -> BTreeSet<String> {
        self.0.lock().ok().and_then(|index| index.get(key).cloned()).unwrap_or_default()
    }

    fn take_in<K: ResourceExt>(&self, change: &Change<'_, K>, keys: impl Fn(&K) -> Vec<Key>) {
        let Ok(mut index) = self.0.lock() else { return };
        if let Some(before) = change.before {
            for key in keys(before) {
                if let Some(names) = index.get_mut(&key) {
                    names.remove(&before.name_any());
                    if names.is_empty() {
                        index.remove(&key);
                    }
                }
            }
        }
        if let Some(after) = change.after {
            for key in keys(after) {
                index.entry(key).or_default().insert(after.name_any());
            }
        }
    }
}

/// Which Sandboxes belong to a session.
#[derive(Debug, Default)]
pub struct SandboxesIn(Index<SandboxKey>);

/// How a Sandbox belongs to a session.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum SandboxKey {
    /// The session with this UID owns it.
    Owned(String),
    /// It names a session, in this namespace and by this name.
    Named(String, String),
    /// Likewise, and depends on the sandbox with this DNS label.
    DependsOn(String, String, Label),
}

impl SandboxesIn {
    /// The names of the Sandboxes whose owner has this UID.
    #[must_use]
    pub fn owned_by(&self, session_uid: &str) -> BTreeSet<String> {
        self.0.get(&SandboxKey::Owned(session_uid.into()))
    }

    /// The names of the Sandboxes that name a session.
    #[must_use]
    pub fn of_session(&self, namespace: &str, session: &str) -> BTreeSet<String> {
        self.0.get(&SandboxKey::Named(namespace.into(), session.into()))
    }

    /// The names of the Sandboxes that depend on this one.
    #[must_use]
    pub fn dependents(&self, sandbox: &Sandbox) -> BTreeSet<String> {
        let (Some(session), Ok(label)) = (&sandbox.spec.session, Label::of(&sandbox.spec.sandbox_type)) else {
            return BTreeSet::new();
        };
        self.0.get(&SandboxKey::DependsOn(sandbox.namespace().unwrap_or_default(), session.clone(), label))
    }

    pub(super) fn take_in(&self, change: &Change<'_, Sandbox>) {
        self.0.take_in(change, |sandbox| {
            let namespace = || sandbox.namespace().unwrap_or_default();
            let owned = ownership::owner_uid(&sandbox.metadata).map(|uid| SandboxKey::Owned(uid.into()));
            let session = sandbox.spec.session.as_ref();
            let named = session.map(|session| SandboxKey::Named(namespace(), session.clone()));
            let needed = session.into_iter().flat_map(|session| {
                let labels = sandbox.spec.template.depends_on.iter().filter_map(|needed| Label::of(needed).ok());
                labels.map(|label| SandboxKey::DependsOn(namespace(), session.clone(), label))
            });
            owned.into_iter().chain(named).chain(needed).collect()
        });
    }
}

/// Which agents belong to a session, and which to an agent.
#[derive(Debug, Default)]
pub struct AgentsIn(Index<AgentKey>);

/// How an agent belongs to a session or to another agent.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum AgentKey {
    /// It names a session, in this namespace and by this name.
    Named(String, String),
    /// Likewise, and its Pod may run commands in sandboxes.
    WithExec(String, String),
    /// It names an agent as its parent, in this namespace and by this name.
    Below(String, String),
}

impl AgentsIn {
    /// The names of the agents that name a session.
    #[must_use]
    pub fn of_session(&self, namespace: &str, session: &str) -> BTreeSet<String> {
        self.0.get(&AgentKey::Named(namespace.into(), session.into()))
    }

    /// Whether the Pod of any agent of a session may run commands in its sandboxes.
    #[must_use]
    pub fn any_with_exec(&self, namespace: &str, session: &str) -> bool {
        self.0.has(&AgentKey::WithExec(namespace.into(), session.into()))
    }

    /// The names of the agents directly below another.
    #[must_use]
    pub fn children(&self, namespace: &str, parent: &str) -> BTreeSet<String> {
        self.0.get(&AgentKey::Below(namespace.into(), parent.into()))
    }

    /// The names of the agents below another, as far as it may be one of their ancestors: so each agent hears of [`MAX_DEPTH`] and
    /// one more at most, however many there are.
    #[must_use]
    pub fn descendants(&self, namespace: &str, ancestor: &str) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        let mut level = self.children(namespace, ancestor);
        for _ in 0..=MAX_DEPTH {
            let below = level.into_iter().filter(|name| found.insert(name.clone())).collect::<Vec<_>>();
            level = below.iter().flat_map(|name| self.children(namespace, name)).collect();
        }
        found
    }

    pub(super) fn take_in(&self, change: &Change<'_, Agent>) {
        self.0.take_in(change, |agent| {
            let namespace = || agent.namespace().unwrap_or_default();
            let named = AgentKey::Named(namespace(), agent.spec.session.clone());
            let below = agent.spec.parent.clone().map(|parent| AgentKey::Below(namespace(), parent));
            let may_exec = agent.spec.runner.as_ref().is_some_and(Runner::may_exec);
            let with_exec = may_exec.then(|| AgentKey::WithExec(namespace(), agent.spec.session.clone()));
            std::iter::once(named).chain(with_exec).chain(below).collect()
        });
    }
}
