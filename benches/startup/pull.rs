//! Images that are pulled while a command fills a volume, from a registry that is slow on purpose.

use std::time::Duration;

use k8s_openapi::api::{apps::v1::DaemonSet, core::v1::ConfigMap};
use serde_json::json;

use super::arms::Ground;
use crate::{Result, print_rows, quantile};

const REGISTRY: &str = include_str!("registry.sh");

/// The port of the registry on the nodes.
const PORT: u16 = 32655;

/// How long the command runs, and how long the registry takes to send the image.
const EACH: Duration = Duration::from_secs(20);

const ROUNDS: usize = 3;

/// Times sessions whose image and whose volume take equally long.
pub async fn print(ground: &Ground) -> Result<()> {
    start_registry(ground).await?;
    let mut times = vec![];
    for round in 1..=ROUNDS {
        let name = format!("pull-{round}");
        let fill = format!("sleep {}", EACH.as_secs());
        let source = json!({"container": {"image": ground.args.tools, "command": ["sh", "-c", fill]}});
        let volumes = json!({"layout": "Single", "scripts": {"sources": [source]}});
        times.push(
            ground.session_of(&name, &format!("127.0.0.1:{PORT}/slow:{}-{round}", ground.namespace), volumes).await?,
        );
        ground.clear().await?;
    }
    println!(
        "\n## Beside each other: a command that fills a volume, and an image that is pulled, {} s each\n",
        EACH.as_secs()
    );
    print_rows("arm", [("session with one container source, 1 claim", times.as_slice())].into_iter());
    println!("\nTo the longer of the two: {:.2}", quantile(&times, 50).as_secs_f64() / EACH.as_secs_f64());
    Ok(())
}

/// A registry on each node, for its own containerd, which speaks HTTP only to its loopback. It goes with the namespace.
async fn start_registry(ground: &Ground) -> Result<()> {
    let (name, script) = ("registry", "registry.sh");
    ground.create::<ConfigMap>(json!({"metadata": {"name": name}, "data": {script: REGISTRY}})).await?;
    let numbers = [ROUNDS.to_string(), EACH.as_secs().to_string(), PORT.to_string()];
    let command: Vec<_> =
        ["sh".into(), format!("/registry/{script}"), ground.namespace.clone()].into_iter().chain(numbers).collect();
    let pod = json!({
        "hostNetwork": true,
        "terminationGracePeriodSeconds": 0,
        "containers": [{
            "name": name,
            "image": ground.args.tools,
            "command": command,
            "readinessProbe": {"exec": {"command": ["wget", "-q", "-O", "-", format!("http://127.0.0.1:{PORT}/v2/")]}, "periodSeconds": 1},
            "volumeMounts": [{"name": name, "mountPath": "/registry"}],
        }],
        "volumes": [{"name": name, "configMap": {"name": name}}],
    });
    let labels = json!({"registry": "true"});
    let template = json!({"metadata": {"labels": labels}, "spec": pod});
    let spec = json!({"selector": {"matchLabels": labels}, "template": template});
    ground.create::<DaemonSet>(json!({"metadata": {"name": name}, "spec": spec})).await?;
    let is_ready = || async {
        let status = ground.api::<DaemonSet>().get(name).await?.status.unwrap_or_default();
        Ok(status.desired_number_scheduled > 0 && status.number_ready == status.desired_number_scheduled)
    };
    ground.until("the registry runs on each node", is_ready).await
}
