//! Which namespaces are watched.

use std::{collections::BTreeSet, fmt};

use k8s_openapi::NamespaceResourceScope;
use kube::{Api, Client, Resource};

/// The part of the cluster that is this operator's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// All namespaces, also those that are made later.
    Cluster,
    /// These, and no right is needed anywhere else.
    Namespaces(BTreeSet<String>),
}

impl Scope {
    /// The whole cluster, unless namespaces are named.
    #[must_use]
    pub fn of(namespaces: impl IntoIterator<Item = String>) -> Self {
        let namespaces: BTreeSet<_> = namespaces.into_iter().collect();
        if namespaces.is_empty() { Scope::Cluster } else { Scope::Namespaces(namespaces) }
    }

    /// The namespaces to ask in, each by itself; `None` stands for all of them.
    #[must_use]
    pub fn namespaces(&self) -> Vec<Option<String>> {
        match self {
            Scope::Cluster => vec![None],
            Scope::Namespaces(namespaces) => namespaces.iter().cloned().map(Some).collect(),
        }
    }

    /// Where to ask for all objects of a kind: once, or once for each namespace.
    #[must_use]
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
