//! The API server in memory does what a real one does; `tests/e2e/apiserver.rs` runs the same against one.

use k8s_openapi::api::core::v1::Namespace;
use kube::{Api, api::PostParams};
use serde_json::json;

use crate::support::{
    apiserver::ApiServer,
    life::in_fast_time,
    scenarios::{Ground, SCENARIOS},
};

#[test]
fn it_does_what_a_real_one_does() {
    for (name, scenario) in SCENARIOS {
        println!("{name}");
        in_fast_time(async {
            let client = ApiServer::new().client("user");
            let namespace: Namespace = serde_json::from_value(json!({"metadata": {"name": name}})).unwrap();
            Api::all(client.clone()).create(&PostParams::default(), &namespace).await.unwrap();
            scenario(&Ground { client, namespace: name.into() }).await;
        });
    }
}
