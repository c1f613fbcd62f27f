//! What the API server in memory is held to (`tests/it/apiserver.rs`), tried on a real one.

use k8s_openapi::api::core::v1::{Namespace, ServiceAccount};
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, PostParams},
};
use serde_json::json;

use super::{audit, install::Asleep};
use crate::scenarios::{Ground, SCENARIOS};

/// The operator sleeps meanwhile: it would write into what is tried.
#[test]
#[ignore = "needs a cluster: make e2e"]
#[expect(clippy::disallowed_methods, reason = "the namespace is the test's own")]
fn a_real_one_does_what_the_one_in_memory_does() {
    let _alone = audit::operator_may_go();
    let _asleep = Asleep::begin();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let client = Client::try_default().await.expect("a cluster in KUBECONFIG");
        let namespaces: Api<Namespace> = Api::all(client.clone());
        for (name, scenario) in SCENARIOS {
            println!("{name}");
            let wanted =
                serde_json::from_value(json!({"metadata": {"generateName": format!("e2e-api-{name}-")}})).unwrap();
            let namespace = namespaces.create(&PostParams::default(), &wanted).await.unwrap().name_any();
            // Its controller is on the way to make it too; without it no Pod can be made.
            let account: ServiceAccount = serde_json::from_value(json!({"metadata": {"name": "default"}})).unwrap();
            let _ = Api::namespaced(client.clone(), &namespace).create(&PostParams::default(), &account).await;
            scenario(&Ground { client: client.clone(), namespace: namespace.clone() }).await;
            let _ = namespaces.delete(&namespace, &DeleteParams::background()).await;
        }
    });
}
