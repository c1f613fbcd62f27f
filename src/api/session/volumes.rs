//! The shared volumes of a session: claims, and what they are filled with.

use k8s_openapi::{
    api::core::v1::{EnvVar, ResourceRequirements, SecurityContext},
    apimachinery::pkg::api::resource::Quantity,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::crds::rule;

/// What a claim was made with cannot be changed, except that it can grow. The rules stand on the specification and not on the
/// volume, so that they also hold where a volume is mentioned for the first time or for the last time.
pub(super) fn rules() -> Vec<serde_json::Value> {
    let fields =
        [("size", "'1Gi'"), ("storageClassName", "''"), ("accessModes", "['ReadWriteOnce']"), ("claimName", "''")];
    let rules = ["scripts", "data", "tools"].into_iter().flat_map(|volume| {
        fields.into_iter().map(move |(field, default)| {
            let value = |of: &str| {
                format!(
                    "(has({of}.volumes) && has({of}.volumes.{volume}) && has({of}.volumes.{volume}.{field}) ? {of}.volumes.{volume}.{field} : {default})"
                )
            };
            let (new, old) = (value("self"), value("oldSelf"));
            if field == "size" {
                rule(
                    &format!("{new} == {old} || quantity({new}).compareTo(quantity({old})) >= 0"),
                    &format!("volumes.{volume}.size can only grow"),
                )
            } else {
                rule(&format!("{new} == {old}"), &format!("volumes.{volume}.{field} cannot change"))
            }
        })
    });
    rules.collect()
}

/// The three shared volumes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Volumes {
    /// Scripts, mounted read-only at `/sandbox_scripts`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scripts: Option<VolumeSpec>,
    /// Data that the sandboxes share, mounted at `/shared`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<VolumeSpec>,
    /// Tools, mounted at `/bash_tools`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tools: Option<VolumeSpec>,
}

/// One shared volume: a claim and what it is filled with.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    rule("!has(self.claimName) || !(has(self.size) || has(self.storageClassName) || has(self.reclaim) || has(self.sources))",
        "claimName excludes size, storageClassName, reclaim and sources: the claim is there already"),
]))]
pub struct VolumeSpec {
    /// An existing claim of the namespace instead of one of the session's own. It is mounted as it is: never filled, never
    /// deleted. Its `accessModes` are said here if it can be mounted on several nodes. Cannot change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = crate::api::OBJECT_NAME))]
    pub claim_name: Option<String>,

    /// What becomes of the claim when the session is deleted or expires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reclaim: Option<Reclaim>,

    /// How much room the volume asks for. Default: `1Gi`. It can only grow, where the storage class can expand volumes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", length(max = 32), extend("x-kubernetes-validations" = [
        rule("isQuantity(self) && quantity(self).isGreaterThan(quantity('0'))", "a positive quantity, such as 1Gi"),
    ]))]
    pub size: Option<Quantity>,

    /// The storage class of the claim. Default: the cluster's default class. Cannot change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub storage_class_name: Option<String>,

    /// The access modes of the claim, one of `ReadWriteOnce` (the default: all Pods of the session run on one node) and
    /// `ReadWriteMany` (they may run anywhere; the storage class has to offer it). Cannot change.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 2))]
    pub access_modes: Vec<AccessMode>,

    /// What the volume is filled with before any sandbox starts, copied in this order. Two sources that put a different file at
    /// the same place are an error. What sandboxes wrote is never overwritten. When the list changes, what is missing is added
    /// at once; a changed ConfigMap is taken when the volumes are staged the next time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub sources: Vec<VolumeSource>,
}

/// What becomes of a claim when its session ends. `Delete` (the default): it goes with the session. `Retain`: it stays, with its
/// data; another session can use it by `claimName`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Reclaim {
    /// It goes with the session.
    #[default]
    Delete,
    /// It stays.
    Retain,
}

/// How a claim may be mounted.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, strum::Display, strum::IntoStaticStr,
)]
pub enum AccessMode {
    /// By the Pods of one node.
    ReadWriteOnce,
    /// By Pods of any node.
    ReadWriteMany,
}

/// One thing that a volume is filled with: exactly one of `configMap`, `persistentVolumeClaim`, `image` and `container`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    rule(
        "[has(self.configMap), has(self.persistentVolumeClaim), has(self.image), has(self.container)].filter(is, is).size() == 1",
        "exactly one of configMap, persistentVolumeClaim, image and container",
    ),
]))]
pub struct VolumeSource {
    /// Each key of a ConfigMap of the same namespace becomes a file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map: Option<ConfigMapSource>,

    /// The files of another claim of the same namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persistent_volume_claim: Option<ClaimSource>,

    /// The files of a container image. The cluster has to be able to mount images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageSource>,

    /// What a command leaves in the folder `/volume`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<ContainerSource>,

    /// The folder of the volume that the files are put into: relative, without `..`. Default: the root of the volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = [crate::api::crds::relative_path()]), length(max = 255))]
    pub path: Option<String>,
}

/// A ConfigMap as a source.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ConfigMapSource {
    /// The name of the ConfigMap.
    #[schemars(length(min = 1, max = 253), regex(pattern = crate::api::OBJECT_NAME))]
    pub name: String,
}

/// A claim as a source.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ClaimSource {
    /// The name of the claim. It is mounted read-only.
    #[schemars(length(min = 1, max = 253), regex(pattern = crate::api::OBJECT_NAME))]
    pub claim_name: String,

    /// The folder of the claim that is copied. Default: all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = [crate::api::crds::relative_path()]), length(max = 255))]
    pub path: Option<String>,
}

/// An image as a source.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ImageSource {
    /// The image, with its tag or digest. Nothing of it is run.
    #[schemars(length(min = 1, max = 512))]
    pub reference: String,

    /// When the image is pulled. Default: `Always` for the tag `latest`, else `IfNotPresent`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull_policy: Option<PullPolicy>,

    /// The folder of the image that is copied. Default: all of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = [crate::api::crds::path_without_parents()]), length(max = 255))]
    pub path: Option<String>,
}

/// When an image is pulled.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, strum::Display, strum::IntoStaticStr,
)]
pub enum PullPolicy {
    /// Each time.
    Always,
    /// Never: it is on the node, or the source waits for it.
    Never,
    /// Unless it is on the node.
    IfNotPresent,
}

/// A command as a source: it runs before the volumes are filled, without rights of its own, and what it leaves in `/volume` is
/// copied.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ContainerSource {
    /// The image that the command runs in, as the image's own user.
    #[schemars(length(min = 1, max = 512))]
    pub image: String,

    /// The program and its arguments, run without a shell. It has to end with 0.
    #[schemars(length(min = 1, max = 64), inner(length(max = 32768)))]
    pub command: Vec<String>,

    /// Environment variables, as in a Pod's container.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub env: Vec<EnvVar>,

    /// The folder that the command starts in. Default: the image's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub working_dir: Option<String>,

    /// CPU, memory and other resources, as in a Pod's container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,

    /// Security settings of the container, as in a Pod's container, such as `runAsNonRoot` and `runAsUser` where the namespace asks for
    /// them. Refused is what a sandbox's container may not ask for. Where nothing is said, it drops all capabilities and cannot gain
    /// privileges.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub security_context: Option<SecurityContext>,
}
