//! Indexes of which objects belong together: a lookup costs the same, however many other objects there are.

use std::{
    collections::{BTreeSet, HashMap},
    hash::Hash,
    sync::Mutex,
};

use jiff::Timestamp;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use kube::ResourceExt;

use super::Change;
use crate::{
    api::{Agent, AigiseSession, Sandbox, agent::Runner, meta},
    plan::{
        agent::{MAX_DEPTH, read_types},
        collection::{Candidate, restored},
        facts::sandbox::{Rank, rank},
        name::Label,
        ownership, sandbox,
    },
};

/// Maps a key to entries that identify objects, mostly by their names.
#[derive(Debug)]
struct Index<Key, Entry = String>(Mutex<HashMap<Key, BTreeSet<Entry>>>);

impl<Key, Entry> Default for Index<Key, Entry> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<Key: Eq + Hash, Entry: Clone + Ord> Index<Key, Entry> {
    fn has(&self, key: &Key) -> bool {
        self.0.lock().is_ok_and(|index| index.contains_key(key))
    }

    fn get(&self, key: &Key) -> BTreeSet<Entry> {
        self.0.lock().ok().and_then(|index| index.get(key).cloned()).unwrap_or_default()
    }

    fn keys(&self) -> Vec<Key>
    where
        Key: Clone,
    {
        self.0.lock().map(|index| index.keys().cloned().collect()).unwrap_or_default()
    }

    fn first(&self, key: &Key, count: usize) -> Vec<Entry> {
        let first = |entries: &BTreeSet<Entry>| entries.iter().take(count).cloned().collect();
        self.0.lock().ok().and_then(|index| index.get(key).map(first)).unwrap_or_default()
    }

    fn last(&self, key: &Key, count: usize) -> Vec<Entry> {
        let last = |entries: &BTreeSet<Entry>| entries.iter().rev().take(count).cloned().collect();
        self.0.lock().ok().and_then(|index| index.get(key).map(last)).unwrap_or_default()
    }

    pub(in crate::controllers) fn update<K>(&self, change: &Change<'_, K>, entries: impl Fn(&K) -> Vec<(Key, Entry)>) {
        let Ok(mut index) = self.0.lock() else { return };
        for (key, entry) in change.before.into_iter().flat_map(&entries) {
            if let Some(known) = index.get_mut(&key) {
                known.remove(&entry);
                if known.is_empty() {
                    index.remove(&key);
                }
            }
        }
        for (key, entry) in change.after.into_iter().flat_map(&entries) {
            index.entry(key).or_default().insert(entry);
        }
    }
}

impl<Key: Eq + Hash> Index<Key> {
    pub(in crate::controllers) fn update_names<K: ResourceExt>(
        &self,
        change: &Change<'_, K>,
        keys: impl Fn(&K) -> Vec<Key>,
    ) {
        self.update(change, |object| keys(object).into_iter().map(|key| (key, object.name_any())).collect());
    }
}

/// Which Sandboxes belong to a session.
#[derive(Debug, Default)]
pub struct SandboxesIn {
    names: Index<SandboxKey>,
    /// By type, in the order of their rank.
    ranks: Index<TypeKey, Rank>,
}

/// A namespace, a session and a type of its sandboxes.
type TypeKey = (String, String, Label);

/// The keys of a Sandbox: how it belongs to a session.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum SandboxKey {
    /// The session with this UID owns it.
    Owned(String),
    /// It is in this namespace and names the session with this name.
    Named(String, String),
    /// It is in this namespace, names the session with this name, and depends on the sandbox type with this DNS label.
    DependsOn(String, String, Label),
}

impl SandboxesIn {
    /// The names of the Sandboxes whose owner has this UID.
    pub fn owned_by(&self, session_uid: &str) -> BTreeSet<String> {
        self.names.get(&SandboxKey::Owned(session_uid.into()))
    }

    /// The names of the Sandboxes that name a session.
    pub fn of_session(&self, namespace: &str, session: &str) -> BTreeSet<String> {
        self.names.get(&SandboxKey::Named(namespace.into(), session.into()))
    }

    /// The names of the Sandboxes that depend on this Sandbox.
    pub fn dependents(&self, sandbox: &Sandbox) -> BTreeSet<String> {
        let Some((namespace, session, label)) = type_key(sandbox) else { return BTreeSet::new() };
        self.names.get(&SandboxKey::DependsOn(namespace, session, label))
    }

    /// The names of the first sandboxes of a type in a session: only these are ever used.
    pub fn first_of_type(&self, namespace: &str, session: &str, label: &Label) -> Vec<String> {
        let ranks = self.ranks.first(&(namespace.into(), session.into(), label.clone()), sandbox::FIRST);
        ranks.into_iter().map(|(.., name)| name).collect()
    }

    /// The names of the first sandboxes of the types that the changed Sandbox has or had.
    pub(in crate::controllers) fn first_beside(&self, change: &Change<'_, Sandbox>) -> BTreeSet<String> {
        let keys = [change.before, change.after].into_iter().flatten().filter_map(type_key);
        keys.flat_map(|key| self.ranks.first(&key, sandbox::FIRST)).map(|(.., name)| name).collect()
    }

    pub(in crate::controllers) fn update(&self, change: &Change<'_, Sandbox>) {
        self.ranks.update(change, |sandbox| type_key(sandbox).zip(rank(sandbox)).into_iter().collect());
        self.names.update_names(change, |sandbox| {
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

fn type_key(sandbox: &Sandbox) -> Option<TypeKey> {
    let label = Label::of(&sandbox.spec.sandbox_type).ok()?;
    Some((sandbox.namespace().unwrap_or_default(), sandbox.spec.session.clone()?, label))
}

/// Which agents belong to a session or to another agent.
#[derive(Debug, Default)]
pub struct AgentsIn(Index<AgentKey>);

/// The keys of an agent: how it belongs to a session or to another agent.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum AgentKey {
    /// It is in this namespace and names the session with this name.
    Named(String, String),
    /// It is in this namespace, names the session with this name, and its Pod may run commands in sandboxes.
    WithExec(String, String),
    /// It is in this namespace, names the session with this name, and reads the sandboxes of the type with this DNS label.
    Reads(String, String, Label),
    /// It is in this namespace and names the agent with this name as its parent.
    Below(String, String),
}

impl AgentsIn {
    /// The names of the agents that name a session.
    pub fn of_session(&self, namespace: &str, session: &str) -> BTreeSet<String> {
        self.0.get(&AgentKey::Named(namespace.into(), session.into()))
    }

    /// Whether the Pod of any agent of a session may run commands in its sandboxes.
    pub fn any_with_exec(&self, namespace: &str, session: &str) -> bool {
        self.0.has(&AgentKey::WithExec(namespace.into(), session.into()))
    }

    /// The names of the agents that read sandboxes of this Sandbox's type.
    pub fn readers(&self, sandbox: &Sandbox) -> BTreeSet<String> {
        let Some((namespace, session, label)) = type_key(sandbox) else { return BTreeSet::new() };
        self.0.get(&AgentKey::Reads(namespace, session, label))
    }

    /// The names of the agents whose parent is this agent.
    pub fn children(&self, namespace: &str, parent: &str) -> BTreeSet<String> {
        self.0.get(&AgentKey::Below(namespace.into(), parent.into()))
    }

    /// The names of the descendants of an agent, no deeper than ancestors are looked up: a change of an agent enqueues at most
    /// [`MAX_DEPTH`] + 1 levels below it, however many levels there are.
    pub fn descendants(&self, namespace: &str, ancestor: &str) -> BTreeSet<String> {
        let mut found = BTreeSet::new();
        let mut level = self.children(namespace, ancestor);
        for _ in 0..=MAX_DEPTH {
            let below = level.into_iter().filter(|name| found.insert(name.clone())).collect::<Vec<_>>();
            level = below.iter().flat_map(|name| self.children(namespace, name)).collect();
        }
        found
    }

    pub(in crate::controllers) fn update(&self, change: &Change<'_, Agent>) {
        self.0.update_names(change, |agent| {
            let namespace = || agent.namespace().unwrap_or_default();
            let named = AgentKey::Named(namespace(), agent.spec.session.clone());
            let below = agent.spec.parent.clone().map(|parent| AgentKey::Below(namespace(), parent));
            let may_exec = agent.spec.runner.as_ref().is_some_and(Runner::may_exec);
            let with_exec = may_exec.then(|| AgentKey::WithExec(namespace(), agent.spec.session.clone()));
            let reads = read_types(agent).into_iter();
            let reads = reads.map(|label| AgentKey::Reads(namespace(), agent.spec.session.clone(), label));
            std::iter::once(named).chain(with_exec).chain(below).chain(reads).collect()
        });
    }
}

/// Which claims hold caches, and which sessions are being restored from them.
#[derive(Debug, Default)]
pub struct EntriesIn {
    /// By namespace and key, in the order of their age.
    by_age: Index<(String, String), (Option<Timestamp>, String)>,
    /// The committed ones, by namespace.
    committed: Index<String, Candidate>,
    /// The entries that the claims of a session name, with the names of these claims. By namespace and session.
    named: Index<(String, String), (String, String)>,
    /// The sessions that have not recorded what they have from a cache, by namespace.
    undecided: Index<String>,
}

/// How many entries of a key are considered: the newest.
const NEWEST: usize = 32;

impl EntriesIn {
    /// The names of the newest claims with caches of a key.
    pub fn of_key(&self, namespace: &str, key: &str) -> Vec<String> {
        self.by_age.last(&(namespace.into(), key.into()), NEWEST).into_iter().map(|(_, name)| name).collect()
    }

    /// The namespaces that have committed entries.
    pub fn namespaces(&self) -> Vec<String> {
        self.committed.keys()
    }

    /// The committed entries of a namespace.
    pub fn committed(&self, namespace: &str) -> BTreeSet<Candidate> {
        self.committed.get(&namespace.into())
    }

    /// The ids of the entries of a namespace from which sessions are being restored.
    pub fn in_use(&self, namespace: &str) -> BTreeSet<String> {
        let sessions = self.undecided.get(&namespace.into()).into_iter();
        sessions.flat_map(|session| self.named.get(&(namespace.into(), session))).map(|(id, _)| id).collect()
    }

    pub(in crate::controllers) fn session_changed(&self, change: &Change<'_, AigiseSession>) {
        self.undecided.update_names(change, |session| {
            let cache = session.status.as_ref().and_then(|status| status.cache.as_ref());
            let is_undecided = cache.is_none_or(|cache| cache.data.is_none());
            is_undecided.then(|| session.namespace().unwrap_or_default()).into_iter().collect()
        });
    }

    pub(in crate::controllers) fn claim_changed(&self, change: &Change<'_, PersistentVolumeClaim>) {
        let namespace = |claim: &PersistentVolumeClaim| claim.namespace().unwrap_or_default();
        self.committed.update(change, |claim| {
            Candidate::of(claim).map(|candidate| (namespace(claim), candidate)).into_iter().collect()
        });
        self.named.update(change, |claim| {
            let named = restored(claim).map(|(session, id)| ((namespace(claim), session), (id, claim.name_any())));
            named.into_iter().collect()
        });
        self.by_age.update(change, |claim| {
            let key = ownership::label(&claim.metadata, meta::CACHE_KEY);
            let created = claim.metadata.creation_timestamp.as_ref().map(|created| created.0);
            let of = |key: &str| ((namespace(claim), key.to_string()), (created, claim.name_any()));
            key.map(of).into_iter().collect()
        });
    }
}
