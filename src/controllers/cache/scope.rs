//! Which namespaces are watched.

use std::{collections::BTreeSet, fmt};

use k8s_openapi::NamespaceResourceScope;
use kube::{Api, Client, Resource};

/// The namespaces that this operator watches.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// All namespaces, also those that are created later.
    Cluster,
    /// Only these namespaces. The operator needs no permissions in others.
    Namespaces(BTreeSet<String>),
}

impl Scope {
    /// These namespaces, or all namespaces if there are none.
    pub fn of(namespaces: impl IntoIterator<Item = String>) -> Self {
        let namespaces: BTreeSet<_> = namespaces.into_iter().collect();
        if namespaces.is_empty() { Scope::Cluster } else { Scope::Namespaces(namespaces) }
    }

    /// The namespaces to list and watch separately; `None` stands for all namespaces.
    pub fn namespaces(&self) -> Vec<Option<String>> {
        match self {
            Scope::Cluster => vec![None],
            Scope::Namespaces(namespaces) => namespaces.iter().cloned().map(Some).collect(),
        }
    }

    /// The APIs that together list all objects of a kind: one for the cluster, or one for each namespace.
    pub fn apis<K>(&self, client: &Client) -> Vec<(Option<String>, Api<K>)>
    where
        K: Resource<Scope = NamespaceResourceScope>,
        K::DynamicType: Default,
    {
        match self {
            Scope::Cluster => vec![(None, Api::all(client.clone()))],
            Scope::Namespaces(namespaces) => {
                let api = |namespace: &String| (Some(namespace.clone()), Api::namespaced(client.clone(), namespace));
                namespaces.iter().map(api).collect()
            }
        }
    }
}

impl fmt::Display for Scope {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Scope::Cluster => f.write_str("all namespaces"),
            Scope::Namespaces(namespaces) => {
                f.write_str(&namespaces.iter().map(String::as_str).collect::<Vec<_>>().join(", "))
            }
        }
    }
}
