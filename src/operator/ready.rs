//! What has to be there before the operator can work.

use std::time::Duration;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{Api, Client, CustomResourceExt};
use tracing::{info, warn};

use crate::api::{AigiseSession, Sandbox};

const POLL: Duration = Duration::from_secs(2);

/// Waits until the API server serves our kinds, and says what it waits for.
pub(super) async fn wait_for_crds(client: &Client) {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    for name in [AigiseSession::crd_name(), Sandbox::crd_name()] {
        let mut complaint = String::new();
        loop {
            let missing = match api.get_opt(name).await {
                Ok(Some(crd)) if is_established(&crd) => None,
                Ok(Some(_)) => Some("it is there and not established yet".to_string()),
                Ok(None) => {
                    Some("it is not installed; apply crds/ or install the chart with crds.install=true".to_string())
                }
                Err(error) => Some(format!("the API server says: {error}")),
            };
            let Some(missing) = missing else { break };
            if missing != complaint {
                warn!(crd = name, "waiting for a CustomResourceDefinition: {missing}");
                complaint = missing;
            }
            tokio::time::sleep(POLL).await;
        }
        if !complaint.is_empty() {
            info!(crd = name, "the CustomResourceDefinition is there");
        }
    }
}

fn is_established(crd: &CustomResourceDefinition) -> bool {
    let conditions = crd.status.as_ref().and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|condition| condition.type_ == "Established" && condition.status == "True")
}
