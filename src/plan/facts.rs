//! Questions about one object, as it is stored. The answers depend on nothing else.

pub mod agent;
pub mod sandbox;
pub mod session;

use kube::ResourceExt;

use crate::api::meta;

/// The user's request to restart what belongs to an object, if there is one: any new value of the annotation.
pub fn restart_request(object: &impl ResourceExt) -> Option<&str> {
    object.annotations().get(meta::RESTART).map(String::as_str)
}
