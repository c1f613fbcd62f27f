//! Whose an object is. Ownership is the UID of the controller reference: a name or a label can be anybody's.
//!
//! What outlives its session (a claim with `reclaim: Retain`, everything with `autoCleanup: false`) has no controller from the
//! start, so that no deletion, however it is asked for, takes it along; it belongs to the session whose UID is in its label. Such
//! a label is worth what its writer may do: who can write it could as well have given us the object by name.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::{Resource, ResourceExt};

use super::{ChildState, Foreign};
use crate::api::{
    AigiseSession,
    meta::{self, Component},
};

/// The controller of an object.
#[must_use]
pub fn controller(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references.as_ref()?.iter().find(|owner| owner.controller == Some(true))
}

/// What has a name, seen from the object that would own it.
#[must_use]
pub fn child_state<K: Resource<DynamicType = ()>>(found: Option<Arc<K>>, owner: &ObjectMeta) -> ChildState<K> {
    let Some(object) = found else { return ChildState::Absent };
    let controller = controller(object.meta());
    // A Pod never outlives what made it, so a label makes none ours.
    let owner_of = if K::kind(&()) == "Pod" {
        controller.map(|controller| controller.uid.as_str())
    } else {
        owner_uid(object.meta())
    };
    if owner.uid.is_some() && owner_of == owner.uid.as_deref() {
        return ChildState::Owned(object);
    }
    let predecessor = controller.is_some_and(|controller| {
        controller.api_version.starts_with(meta::GROUP) && Some(&controller.name) == owner.name.as_ref()
    });
    ChildState::Foreign(Foreign {
        object: format!("{} {}", K::kind(&()), object.name_any()),
        leaving: object.meta().deletion_timestamp.is_some() || predecessor,
    })
}

/// The UID of the object's owner: its controller's, or that of the session which it is going to outlive.
#[must_use]
pub fn owner_uid(meta: &ObjectMeta) -> Option<&str> {
    match controller(meta) {
        Some(controller) => Some(&controller.uid),
        None if label(meta, meta::MANAGED_BY) == Some(meta::MANAGER) => label(meta, meta::SESSION_UID),
        None => None,
    }
}

/// A label of an object.
#[must_use]
pub fn label<'a>(meta: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    meta.labels.as_ref()?.get(key).map(String::as_str)
}

/// The metadata of a child: its name, its owner, and the labels that every child has.
#[must_use]
pub fn child_meta<O>(owner: &O, name: String, labels: BTreeMap<String, String>) -> ObjectMeta
where
    O: Resource<DynamicType = ()>,
{
    ObjectMeta {
        name: Some(name),
        namespace: owner.namespace(),
        owner_references: owner
            .controller_owner_ref(&())
            .map(|reference| vec![OwnerReference { block_owner_deletion: Some(true), ..reference }]),
        labels: Some(labels),
        ..ObjectMeta::default()
    }
}

/// The object that an apply changes, with the UID and the version of the one that is there. Without a UID, server-side apply creates
/// anew what was deleted meanwhile; without a version, it undoes what somebody else wrote after the decision.
#[must_use]
pub fn pinned<K: ResourceExt>(mut desired: K, live: &ChildState<K>) -> K {
    let live = live.owned();
    desired.meta_mut().uid = live.and_then(|live| live.uid());
    desired.meta_mut().resource_version = live.and_then(|live| live.resource_version());
    desired
}

/// The labels that every child has.
#[must_use]
pub fn labels(session: Option<&AigiseSession>, component: Component) -> BTreeMap<String, String> {
    let mut labels = BTreeMap::from([
        (meta::APP.to_string(), "aigise".to_string()),
        (meta::MANAGED_BY.to_string(), meta::MANAGER.to_string()),
        (meta::COMPONENT.to_string(), component.to_string()),
    ]);
    if let Some(session) = session {
        labels.extend(members(session));
        let task = session.spec.task_name.clone().unwrap_or_else(|| session.name_any());
        labels.insert(meta::TASK.to_string(), task);
        labels.insert(meta::SESSION.to_string(), session.name_any());
    }
    labels
}

/// What selects the Pods of a session: by UID, so that a session made anew under an old name never selects its predecessor's.
#[must_use]
pub fn members(session: &AigiseSession) -> BTreeMap<String, String> {
    BTreeMap::from([(meta::SESSION_UID.to_string(), session.uid().unwrap_or_default())])
}
