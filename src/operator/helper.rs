//! Decides whether this cluster can mount images as volumes, and how the helper gets into sandboxes.

use k8s_openapi::api::core::v1::Node;
use kube::{Api, Client, api::ListParams};
use tracing::info;

use super::args::{HelperMountArg, ImageVolumes};
use crate::plan::HelperMount;

/// Whether the cluster can mount images, decided once, at the start. An image volume needs an API server of version 1.35 (the first with
/// the feature on by default), and on every node a container runtime that supports it. If this cannot be determined, images are not
/// mounted. Where the helper is mounted as an image, all images can be mounted.
pub(super) async fn image_volumes(client: &Client, stated: ImageVolumes, helper: HelperMountArg) -> bool {
    match (stated, helper) {
        (ImageVolumes::True, _) | (ImageVolumes::Auto, HelperMountArg::Image) => true,
        (ImageVolumes::False, _) => false,
        (ImageVolumes::Auto, HelperMountArg::Auto | HelperMountArg::Copy) => {
            let obstacle = obstacle(client).await;
            if let Some(obstacle) = &obstacle {
                info!(obstacle, "image volumes are not used");
            }
            obstacle.is_none()
        }
    }
}

/// How the helper gets into a sandbox. A copy works everywhere.
pub(super) fn mount(wanted: HelperMountArg, image_volumes: bool) -> HelperMount {
    match wanted {
        HelperMountArg::Image => HelperMount::Image,
        HelperMountArg::Auto if image_volumes => HelperMount::Image,
        HelperMountArg::Auto | HelperMountArg::Copy => HelperMount::Copy,
    }
}

async fn obstacle(client: &Client) -> Option<String> {
    let version = match client.apiserver_version().await {
        Ok(version) => version,
        Err(error) => return Some(format!("the version of the API server cannot be read: {error}")),
    };
    let minor: u32 = version.minor.trim_end_matches('+').parse().unwrap_or_default();
    if version.major == "1" && minor < 35 {
        return Some(format!("the API server has version {}.{}", version.major, version.minor));
    }
    let nodes = match Api::<Node>::all(client.clone()).list(&ListParams::default()).await {
        Ok(nodes) => nodes,
        Err(kube::Error::Api(status)) if status.is_forbidden() => {
            return Some(
                "the operator may not read the nodes' container runtimes; set --image-volumes=true if they mount images".into(),
            );
        }
        Err(error) => return Some(format!("nodes cannot be listed: {error}")),
    };
    let runtimes = nodes.items.into_iter().filter_map(|node| Some(node.status?.node_info?.container_runtime_version));
    runtimes.into_iter().find(|runtime| !mounts_images(runtime)).map(|runtime| format!("a node runs {runtime}"))
}

/// Whether a container runtime mounts images: containerd does from 2.1, CRI-O from 1.31.
fn mounts_images(runtime: &str) -> bool {
    let Some((name, version)) = runtime.split_once("://") else { return false };
    let mut numbers =
        version.trim_start_matches('v').split(['.', '-', '+']).map(|part| part.parse::<u32>().unwrap_or_default());
    let version = (numbers.next().unwrap_or_default(), numbers.next().unwrap_or_default());
    match name {
        "containerd" => version >= (2, 1),
        "cri-o" => version >= (1, 31),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_helper_is_mounted_where_images_can_be_or_the_user_says_so() {
        assert_eq!(mount(HelperMountArg::Auto, true), HelperMount::Image);
        assert_eq!(mount(HelperMountArg::Auto, false), HelperMount::Copy);
        assert_eq!(mount(HelperMountArg::Image, false), HelperMount::Image);
        assert_eq!(mount(HelperMountArg::Copy, true), HelperMount::Copy);
    }

    #[test]
    fn only_runtimes_that_are_known_to_mount_images_are_trusted_to() {
        for able in ["containerd://2.1.0", "containerd://2.4.2-k3s1", "containerd://3.0.0", "cri-o://1.31.4"] {
            assert!(mounts_images(able), "{able}");
        }
        for unable in
            ["containerd://2.0.5", "containerd://1.7.27", "cri-o://1.30.0", "docker://27.1.0", "containerd", ""]
        {
            assert!(!mounts_images(unable), "{unable}");
        }
    }
}
