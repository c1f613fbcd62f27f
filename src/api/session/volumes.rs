//! The shared volumes of a session: their claims and their sources.

use k8s_openapi::{
    api::core::v1::{EnvVar, ResourceRequirements, SecurityContext},
    apimachinery::pkg::api::resource::Quantity,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::api::crds::rule;

/// The CEL rules for the layout `Single`: the one claim is configured as that of `data`.
fn single_rules() -> Vec<serde_json::Value> {
    let is_single = "has(self.layout) && self.layout == 'Single'";
    let excluded = ["scripts", "tools"].into_iter().map(|volume| {
        let fields = VolumeSpec::CLAIM_FIELDS.map(|field| format!("has(self.{volume}.{field})")).join(" || ");
        rule(
            &format!("!({is_single} && has(self.{volume}) && ({fields}))"),
            &format!(
                "{volume}: with layout Single, only sources can be set: the volume is a folder of the claim of data"
            ),
        )
    });
    let existing = rule(
        &format!("!({is_single} && has(self.data) && has(self.data.claimName))"),
        "data: claimName requires layout Separate",
    );
    excluded.chain([existing]).collect()
}

/// The CEL rules for fields that a claim is created with: they cannot be changed, except that the size can grow. The rules are on
/// the specification and not on the volume, so they also apply when a volume is mentioned for the first time or no longer
/// mentioned.
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
    let layout = |of: &str| format!("(has({of}.volumes) && has({of}.volumes.layout) ? {of}.volumes.layout : '')");
    let fixed = rule(&format!("{} == {}", layout("self"), layout("oldSelf")), "volumes.layout cannot change");
    rules.chain([fixed]).collect()
}

/// The three shared volumes.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = single_rules()))]
pub struct Volumes {
    /// How the volumes are laid out on claims. Default: the operator's, which is `Separate` unless it was installed with another one. This
    /// field is immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub layout: Option<VolumeLayout>,
    /// The volume with scripts, mounted read-only at `/sandbox_scripts`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub scripts: Option<VolumeSpec>,
    /// The volume with data that the sandboxes share, mounted at `/shared`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<VolumeSpec>,
    /// The volume with tools, mounted at `/bash_tools`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tools: Option<VolumeSpec>,
}

/// How the three volumes are laid out on claims. `Separate`: each has a claim of its own. `Single`: all are folders of one claim, the
/// one of `data`, with the size, storage class and modes of `data`; a session starts faster, and takes one of the volumes that can be
/// attached to a node instead of three.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Serialize,
    Deserialize,
    JsonSchema,
    strum::Display,
    strum::EnumString,
    strum::IntoStaticStr,
)]
pub enum VolumeLayout {
    /// Each volume has a claim.
    #[default]
    Separate,
    /// All volumes are folders of one claim.
    Single,
}

/// One shared volume: its claim and its sources.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    rule("!has(self.claimName) || !(has(self.size) || has(self.storageClassName) || has(self.reclaim) || has(self.sources))",
        "claimName excludes size, storageClassName, reclaim and sources: the claim exists already"),
]))]
pub struct VolumeSpec {
    /// The name of an existing claim of the namespace, which is used instead of a claim that the session creates. The claim is
    /// mounted as it is: it is never filled and never deleted. Set its `accessModes` here if the claim can be mounted on several
    /// nodes. This field is immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = crate::api::OBJECT_NAME))]
    pub claim_name: Option<String>,

    /// What happens to the claim when the session is deleted or expires.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reclaim: Option<Reclaim>,

    /// The storage that the claim requests. Default: `1Gi`. It can only grow, and only where the storage class can expand volumes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", length(max = 32), extend("x-kubernetes-validations" = [
        rule("isQuantity(self) && quantity(self).isGreaterThan(quantity('0'))",
            "must be a positive quantity, such as 1Gi"),
    ]))]
    pub size: Option<Quantity>,

    /// The storage class of the claim. Default: the cluster's default class. This field is immutable.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub storage_class_name: Option<String>,

    /// The access mode of the claim: `ReadWriteOnce` (the default: all Pods of the session run on one node) or `ReadWriteMany` (the
    /// Pods may run on any node; the storage class has to support this). This field is immutable.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 2))]
    pub access_modes: Vec<AccessMode>,

    /// The sources that the volume is filled with before any sandbox starts, copied in this order. It is an error if two sources
    /// put different files at the same path. Files that sandboxes wrote are never overwritten. When the list changes, missing files
    /// are added at once; a changed ConfigMap is used the next time that the volumes are staged.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub sources: Vec<VolumeSource>,
}

impl VolumeSpec {
    /// The fields that configure the claim of the volume.
    pub const CLAIM_FIELDS: [&str; 5] = ["claimName", "reclaim", "size", "storageClassName", "accessModes"];

    /// Those of [these fields](Self::CLAIM_FIELDS) that are set.
    pub fn claim_fields(&self) -> impl Iterator<Item = &'static str> + use<> {
        let Self { claim_name, reclaim, size, storage_class_name, access_modes, sources: _ } = self;
        let set = [
            claim_name.is_some(),
            reclaim.is_some(),
            size.is_some(),
            storage_class_name.is_some(),
            !access_modes.is_empty(),
        ];
        Self::CLAIM_FIELDS.into_iter().zip(set).filter_map(|(field, is_set)| is_set.then_some(field))
    }
}

/// What happens to a claim when its session ends. `Delete` (the default): the claim is deleted with the session. `Retain`: the
/// claim stays, with its data; another session can use it as its `claimName`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Reclaim {
    /// The claim is deleted with the session.
    #[default]
    Delete,
    /// The claim stays.
    Retain,
}

/// How a claim may be mounted.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, strum::Display, strum::IntoStaticStr,
)]
pub enum AccessMode {
    /// By Pods on one node.
    ReadWriteOnce,
    /// By Pods on any node.
    ReadWriteMany,
}

/// One source of a volume. Exactly one of `configMap`, `persistentVolumeClaim`, `image` and `container` must be set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-validations" = [
    rule(
        "[has(self.configMap), has(self.persistentVolumeClaim), has(self.image), has(self.container)].filter(is, is).size() == 1",
        "exactly one of configMap, persistentVolumeClaim, image and container must be set",
    ),
]))]
pub struct VolumeSource {
    /// A ConfigMap of the same namespace. Each of its keys becomes a file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_map: Option<ConfigMapSource>,

    /// Another claim of the same namespace. Its files are copied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub persistent_volume_claim: Option<ClaimSource>,

    /// A container image. Its files are copied. The cluster must be able to mount images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<ImageSource>,

    /// A command. The files that it leaves in the folder `/volume` are copied.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<ContainerSource>,

    /// The folder of the volume that the files are copied into: a relative path without `..`. Default: the root of the volume.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = [crate::api::crds::relative_path()]), length(max = 255))]
    pub path: Option<String>,
}

/// What the files of a source come from.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum SourceKind<'a> {
    /// A ConfigMap.
    ConfigMap(&'a ConfigMapSource),
    /// A claim.
    PersistentVolumeClaim(&'a ClaimSource),
    /// An image.
    Image(&'a ImageSource),
    /// A command.
    Container(&'a ContainerSource),
    /// Nothing: the API server refuses such a source.
    Empty,
}

impl VolumeSource {
    /// What the files of the source come from.
    pub fn kind(&self) -> SourceKind<'_> {
        let Self { config_map, persistent_volume_claim, image, container, path: _ } = self;
        match (config_map, persistent_volume_claim, image, container) {
            (Some(config_map), ..) => SourceKind::ConfigMap(config_map),
            (_, Some(claim), ..) => SourceKind::PersistentVolumeClaim(claim),
            (_, _, Some(image), _) => SourceKind::Image(image),
            (_, _, _, Some(container)) => SourceKind::Container(container),
            (None, None, None, None) => SourceKind::Empty,
        }
    }
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
    /// The name of the claim. The claim is mounted read-only.
    #[schemars(length(min = 1, max = 253), regex(pattern = crate::api::OBJECT_NAME))]
    pub claim_name: String,

    /// The folder of the claim that is copied. Default: the whole claim.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = [crate::api::crds::relative_path()]), length(max = 255))]
    pub path: Option<String>,
}

/// An image as a source.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ImageSource {
    /// The image, with its tag or digest. Nothing in the image is run.
    #[schemars(length(min = 1, max = 512))]
    pub reference: String,

    /// When the image is pulled. Default: `Always` for the tag `latest`, else `IfNotPresent`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull_policy: Option<PullPolicy>,

    /// The folder of the image that is copied. Default: the whole image.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(extend("x-kubernetes-validations" = [crate::api::crds::path_without_parents()]), length(max = 255))]
    pub path: Option<String>,
}

/// When an image is pulled.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema, strum::Display, strum::IntoStaticStr,
)]
pub enum PullPolicy {
    /// The image is pulled each time.
    Always,
    /// The image is never pulled: the source waits until the image is on the node.
    Never,
    /// The image is pulled unless it is on the node.
    IfNotPresent,
}

/// A command as a source. The command runs before the volumes are filled, without any permissions of its own, and the files that it
/// leaves in `/volume` are copied.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ContainerSource {
    /// The image that the command runs in, as the image's own user.
    #[schemars(length(min = 1, max = 512))]
    pub image: String,

    /// The program and its arguments, run without a shell. The program must end with exit code 0.
    #[schemars(length(min = 1, max = 64), inner(length(max = 32768)))]
    pub command: Vec<String>,

    /// Environment variables, as in a Pod's container.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    pub env: Vec<EnvVar>,

    /// The working directory of the command. Default: the image's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 4096))]
    pub working_dir: Option<String>,

    /// CPU, memory and other resources, as in a Pod's container.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourceRequirements>,

    /// Security settings of the container, as in a Pod's container, such as `runAsNonRoot` and `runAsUser` where the namespace
    /// requires them. Settings that a sandbox's container may not have are refused. By default, the container drops all
    /// capabilities and cannot gain privileges.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub security_context: Option<SecurityContext>,
}
