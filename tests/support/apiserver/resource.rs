//! The kinds that are served, and what sets each apart.

use std::sync::LazyLock;

use super::schema::Schema;

/// One kind.
pub struct Resource {
    pub group: &'static str,
    pub version: &'static str,
    pub plural: &'static str,
    pub kind: &'static str,
    pub namespaced: bool,
    /// Whether `/status` is a resource of its own.
    pub has_status: bool,
    /// Whether a change of the specification counts as a generation.
    pub counts_generations: bool,
    /// Of our own kinds: what admission holds them to.
    pub schema: Option<Schema>,
}

impl Resource {
    pub fn api_version(&self) -> String {
        if self.group.is_empty() { self.version.to_string() } else { format!("{}/{}", self.group, self.version) }
    }

    pub fn is_ours(&self) -> bool {
        self.schema.is_some()
    }
}

/// What the address of a request names.
pub fn find(group: &str, version: &str, plural: &str) -> Option<&'static Resource> {
    RESOURCES
        .iter()
        .find(|resource| resource.group == group && resource.version == version && resource.plural == plural)
}

/// The kind of this name; tests name no other.
pub fn of(plural: &str) -> &'static Resource {
    RESOURCES.iter().find(|resource| resource.plural == plural).unwrap_or_else(|| panic!("{plural} are not served"))
}

/// The kind that an owner reference names.
pub fn of_kind(api_version: &str, kind: &str) -> Option<&'static Resource> {
    RESOURCES.iter().find(|resource| resource.kind == kind && resource.api_version() == api_version)
}

pub static RESOURCES: LazyLock<Vec<Resource>> = LazyLock::new(|| {
    let builtin = |group, version, plural, kind| Resource {
        group,
        version,
        plural,
        kind,
        namespaced: true,
        has_status: false,
        counts_generations: false,
        schema: None,
    };
    let ours = |plural, kind, crd: &str| Resource {
        has_status: true,
        counts_generations: true,
        schema: Some(Schema::of_crd(crd)),
        ..builtin("aigise.dev", "v1alpha1", plural, kind)
    };
    vec![
        ours("aigisesessions", "AigiseSession", include_str!("../../../crds/aigisesessions.yaml")),
        ours("sandboxes", "Sandbox", include_str!("../../../crds/sandboxes.yaml")),
        ours("agents", "Agent", include_str!("../../../crds/agents.yaml")),
        Resource { has_status: true, counts_generations: true, ..builtin("", "v1", "pods", "Pod") },
        Resource { has_status: true, ..builtin("", "v1", "persistentvolumeclaims", "PersistentVolumeClaim") },
        Resource { has_status: true, ..builtin("", "v1", "services", "Service") },
        Resource { counts_generations: true, ..builtin("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy") },
        builtin("", "v1", "configmaps", "ConfigMap"),
        builtin("", "v1", "secrets", "Secret"),
        builtin("", "v1", "serviceaccounts", "ServiceAccount"),
        builtin("rbac.authorization.k8s.io", "v1", "roles", "Role"),
        builtin("rbac.authorization.k8s.io", "v1", "rolebindings", "RoleBinding"),
        builtin("events.k8s.io", "v1", "events", "Event"),
        Resource { namespaced: false, has_status: true, ..builtin("", "v1", "namespaces", "Namespace") },
        Resource { namespaced: false, has_status: true, ..builtin("", "v1", "nodes", "Node") },
        Resource {
            namespaced: false,
            has_status: true,
            ..builtin("apiextensions.k8s.io", "v1", "customresourcedefinitions", "CustomResourceDefinition")
        },
    ]
});
