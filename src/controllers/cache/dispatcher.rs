//! Enqueues the objects that a change affects: only those whose reconcile reads what has changed.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::api::{
    core::v1::{PersistentVolumeClaim, Pod, Service},
    networking::v1::NetworkPolicy,
};
use kube::{Resource, ResourceExt};

use super::{AgentsIn, Change, EntriesIn, SandboxesIn, StartingPods, WorkQueue};
use crate::{
    api::{AigiseSession, meta},
    controllers::kind::{Reconciled, VisitKind, each_kind},
    plan::{
        ownership::{self, label},
        pod,
    },
};

/// Enqueues what a change affects, and maintains the indexes that are derived from the caches.
#[derive(Default)]
pub struct Dispatcher {
    /// The work queue of each kind that has a controller, by the kind's name.
    queues: BTreeMap<String, Arc<WorkQueue>>,
    /// How many Pods of each namespace are starting.
    pub starting_pods: Arc<StartingPods>,
    /// Which Sandboxes belong to a session.
    pub sandboxes_in: Arc<SandboxesIn>,
    /// Which claims hold caches.
    pub entries_in: Arc<EntriesIn>,
    /// Which agents belong to a session or to another agent.
    pub agents_in: Arc<AgentsIn>,
}

impl VisitKind for Dispatcher {
    fn kind<K: Reconciled>(&mut self) {
        self.queues.insert(K::kind(&()).into_owned(), Arc::default());
    }
}

impl Dispatcher {
    /// A dispatcher with a queue for every kind.
    pub(super) fn new() -> Self {
        let mut dispatcher = Self::default();
        each_kind(&mut dispatcher);
        dispatcher
    }

    /// The work queue of a kind.
    pub(super) fn queue<K: Reconciled>(&self) -> Arc<WorkQueue> {
        self.queues.get(&*K::kind(&())).cloned().unwrap_or_default()
    }

    /// Enqueues an object of a kind.
    pub fn enqueue<K: Reconciled>(&self, name: &str, namespace: &str) {
        self.enqueue_kind(&K::kind(&()), name, namespace);
    }

    /// Enqueues several objects of a kind.
    pub fn enqueue_all<K: Reconciled>(&self, names: impl IntoIterator<Item = String>, namespace: &str) {
        for name in names {
            self.enqueue::<K>(&name, namespace);
        }
    }

    fn enqueue_kind(&self, kind: &str, name: &str, namespace: &str) {
        // The objects of other kinds have other controllers.
        if let Some(queue) = self.queues.get(kind) {
            queue.add(namespace, name);
        }
    }

    pub(super) fn pod_changed(&self, change: &Change<'_, Pod>) {
        self.starting_pods.update(change);
        // The owner has just created this Pod, and its own reconcile sees to the requeue.
        let is_unheard_of = change.before.is_none() && change.after.is_some_and(pod::is_unheard_of);
        if !is_unheard_of && (change.touches_spec() || change.touches(pod::facts)) {
            self.enqueue_owners(change);
        }
        // The session's role for agents lists the session's Pods by name.
        let Some(pod) = change.object() else { return };
        let (session, namespace) = (label(&pod.metadata, meta::SESSION), pod.namespace().unwrap_or_default());
        if let Some(session) = session.filter(|session| self.agents_in.any_with_exec(&namespace, session))
            && change.touches(|pod| (pod.uid(), pod.metadata.deletion_timestamp.clone()))
        {
            self.enqueue::<AigiseSession>(session, &namespace);
        }
    }

    pub(super) fn claim_changed(&self, change: &Change<'_, PersistentVolumeClaim>) {
        self.entries_in.claim_changed(change);
        // The scheduler and the volume binder write annotations that no controller here reads.
        if change.touches(|claim| {
            let meta = &claim.metadata;
            let phase = claim.status.as_ref().and_then(|status| status.phase.clone());
            (
                meta.uid.clone(),
                meta.deletion_timestamp.clone(),
                meta.owner_references.clone(),
                claim.spec.clone(),
                phase,
            )
        }) {
            self.enqueue_owners(change);
        }
    }

    pub(super) fn service_changed(&self, change: &Change<'_, Service>) {
        if change.touches(|service| service.spec.clone()) {
            self.enqueue_owners(change);
        }
    }

    pub(super) fn policy_changed(&self, change: &Change<'_, NetworkPolicy>) {
        if change.touches(|policy| policy.spec.clone()) {
            self.enqueue_owners(change);
        }
    }

    /// Enqueues the owner of a child, and its previous owner.
    pub fn enqueue_owners<K: Resource>(&self, change: &Change<'_, K>) {
        for child in [change.before, change.after].into_iter().flatten().map(Resource::meta) {
            let namespace = child.namespace.as_deref().unwrap_or_default();
            match ownership::controller(child) {
                Some(owner) => self.enqueue_kind(&owner.kind, &owner.name, namespace),
                // A child that has to outlive its session has only a label.
                None => {
                    if let Some(session) = label(child, meta::SESSION) {
                        self.enqueue::<AigiseSession>(session, namespace);
                    }
                }
            }
        }
    }
}
