//! Waits for what the operator needs before it can work.

use std::time::Duration;

use futures::{FutureExt, future::BoxFuture};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{Api, Client, CustomResourceExt, api::ListParams};
use tracing::{info, warn};

use crate::{
    apply::{Object, failure},
    controllers::{
        cache::Scope,
        kind::{Reconciled, VisitKind, each_kind},
    },
};

const POLL: Duration = Duration::from_secs(2);

const NOT_INSTALLED: &str = "it is not installed; apply crds/ or install the chart with crds.install=true";

/// Waits until the API server serves the operator's kinds, and logs what is missing.
pub(super) async fn wait_for_crds(client: &Client, scope: &Scope) {
    struct Waits<'a>(&'a Client, &'a Scope, Vec<BoxFuture<'a, ()>>);
    impl VisitKind for Waits<'_> {
        fn kind<K: Reconciled>(&mut self) {
            self.2.push(wait_for::<K>(self.0, self.1).boxed());
        }
    }
    let mut waits = Waits(client, scope, vec![]);
    each_kind(&mut waits);
    for wait in waits.2 {
        wait.await;
    }
}

async fn wait_for<K: Object + CustomResourceExt>(client: &Client, scope: &Scope) {
    let name = K::crd_name();
    let mut complaint = String::new();
    while let Err(missing) = is_served::<K>(client, scope).await {
        if missing != complaint {
            warn!(crd = name, "waiting for a CustomResourceDefinition: {missing}");
            complaint = missing;
        }
        tokio::time::sleep(POLL).await;
    }
    if !complaint.is_empty() {
        info!(crd = name, "the CustomResourceDefinition is available");
    }
}

/// Whether the definition is established or, if the operator may not read it, whether the kind can be listed in a watched namespace.
async fn is_served<K: Object + CustomResourceExt>(client: &Client, scope: &Scope) -> Result<(), String> {
    let definitions: Api<CustomResourceDefinition> = Api::all(client.clone());
    let mut refused = match definitions.get_opt(K::crd_name()).await {
        Ok(Some(crd)) if is_established(&crd) => return Ok(()),
        Ok(Some(_)) => return Err("it exists, but is not established yet".into()),
        Ok(None) => return Err(NOT_INSTALLED.into()),
        Err(error) if !is_forbidden(&error) => return Err(format!("the API server returned an error: {error}")),
        Err(error) => error,
    };
    for (_, api) in scope.apis::<K>(client) {
        match api.list_metadata(&ListParams::default().limit(1)).await {
            Ok(_) => return Ok(()),
            Err(kube::Error::Api(status)) if status.is_not_found() => return Err(NOT_INSTALLED.into()),
            // This namespace may be gone while another still exists.
            Err(error) => refused = error,
        }
    }
    Err(format!("the operator may not read it, and cannot list its kind in {scope}: {}", failure(&refused).message))
}

fn is_forbidden(error: &kube::Error) -> bool {
    matches!(error, kube::Error::Api(status) if status.is_forbidden())
}

fn is_established(crd: &CustomResourceDefinition) -> bool {
    let conditions = crd.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|condition| condition.type_ == "Established" && condition.status == "True")
}
