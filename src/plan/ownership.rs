//! Ownership of objects. The owner of an object is identified by the UID in its controller reference: anybody can create an object with
//! a certain name or label.
//!
//! Objects that outlive their session (a claim with `reclaim: Retain`, everything with `autoCleanup: false`) never have a controller
//! reference, so no deletion of the session removes them, whatever its propagation policy. They belong to the session whose UID is in
//! their label. It is safe to trust this label: a user who can set it could as well have named the object in the session's spec.
//!
//! Decided in docs/adr/0007-no-finalizer.md.

use std::{collections::BTreeMap, sync::Arc};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference};
use kube::{Resource, ResourceExt};

use super::{ChildState, Foreign};
use crate::api::meta::{self, Component};

/// The controller of an object.
pub fn controller(meta: &ObjectMeta) -> Option<&OwnerReference> {
    meta.owner_references.as_ref()?.iter().find(|owner| owner.controller == Some(true))
}

/// The state of the object that was found under a name, as a child of `owner`.
pub fn child_state<K: Resource<DynamicType = ()>>(found: Option<Arc<K>>, owner: &ObjectMeta) -> ChildState<K> {
    let Some(object) = found else { return ChildState::Absent };
    let controller = controller(object.meta());
    // A Pod never outlives its owner, so a label does not make a Pod ours.
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

/// The UID of the object's owner: of its controller, or of the session that the object outlives.
pub fn owner_uid(meta: &ObjectMeta) -> Option<&str> {
    match controller(meta) {
        Some(controller) => Some(&controller.uid),
        None if label(meta, meta::MANAGED_BY) == Some(meta::MANAGER) => label(meta, meta::SESSION_UID),
        None => None,
    }
}

/// A label of an object.
pub fn label<'a>(meta: &'a ObjectMeta, key: &str) -> Option<&'a str> {
    meta.labels.as_ref()?.get(key).map(String::as_str)
}

/// The metadata of a child: its name, its owner reference and its labels.
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

/// Pins a desired object to the live one, by UID and resource version, for server-side apply. Without the UID, an apply would recreate
/// an object that was deleted meanwhile; without the version, it would overwrite changes that were made after the decision.
pub fn pinned<K: ResourceExt>(mut desired: K, live: &ChildState<K>) -> K {
    let live = live.owned();
    desired.meta_mut().uid = live.and_then(|live| live.uid());
    desired.meta_mut().resource_version = live.and_then(|live| live.resource_version());
    desired
}

/// The labels that every object of the operator has.
pub fn labels(component: Component) -> BTreeMap<String, String> {
    BTreeMap::from([
        (meta::APP.to_string(), "aigise".to_string()),
        (meta::MANAGED_BY.to_string(), meta::MANAGER.to_string()),
        (meta::COMPONENT.to_string(), component.to_string()),
    ])
}
