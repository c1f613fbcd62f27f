//! Caches: the state of a session after its initialisers, kept for the next session of the task.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::volumes::AccessMode;
use crate::api::{crds::rule, init::SavedRoot};

/// The CEL rules about caches that need the other fields of the specification.
pub(super) fn rules() -> Vec<serde_json::Value> {
    let existing = ["data", "tools"].into_iter().map(|volume| {
        rule(
            &format!("!has(self.cache) || !has(self.volumes) || !has(self.volumes.{volume}) || !has(self.volumes.{volume}.claimName)"),
            &format!("cache: volumes.{volume}.claimName is an existing claim, which is neither saved nor restored"),
        )
    });
    existing.collect()
}

/// Caches of the session's state after its initialisers. A later session with the same key starts from the newest cache that fits, and
/// skips the initialisers.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CacheSpec {
    /// Sessions of the namespace with the same key share caches. Default: `taskName`, or else the session's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$"))]
    pub key: Option<String>,

    /// Any text. No cache that was saved with another text fits. Change it when something changed that the operator cannot see: the
    /// content of a claim, or of a repository that a step clones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub epoch: Option<String>,

    /// Whether the session starts from a cache.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore: Option<RestoreMode>,

    /// When the session saves a cache.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub save: Option<SaveMode>,

    /// The claim of a cache that this session saves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub storage: Option<CacheStorage>,

    /// Folders and files that are not saved, as absolute paths: below `/shared` or `/bash_tools`, or in the sandboxes. `/run` never is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64), inner(length(max = 512), regex(pattern = "^/[^/]")))]
    pub exclude: Vec<String>,

    /// How long saving may take. The session is `Ready` afterwards in any case. Default: `10m`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 32), regex(pattern = crate::api::DURATION))]
    pub save_timeout: Option<String>,

    /// How long the cache that this session saves is kept.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retain: Option<CacheRetention>,
}

impl CacheSpec {
    /// Whether the session starts from a cache.
    pub fn restore(&self) -> RestoreMode {
        self.restore.unwrap_or_default()
    }

    /// When the session saves a cache.
    pub fn save(&self) -> SaveMode {
        self.save.unwrap_or_default()
    }
}

/// Whether a session starts from a cache. `Whole` (the default): if there is one in which everything fits; otherwise all types start
/// cold. `Partial`: from what fits; the initialisers of the other types run over the restored data, with `AIGISE_DATA_RESTORED=1` in
/// their environment. `Required`: as `Whole`, and without a cache that fits, nothing is started. `Never`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RestoreMode {
    /// From a cache in which everything fits.
    #[default]
    Whole,
    /// From what fits.
    Partial,
    /// From a cache in which everything fits, or not at all.
    Required,
    /// From no cache.
    Never,
}

/// When a session saves a cache. `WhenMissing` (the default): when it is initialised and did not start from a cache in which everything
/// fits. `Never`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SaveMode {
    /// When no cache fits.
    #[default]
    WhenMissing,
    /// Never.
    Never,
}

/// The claim of a cache.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CacheStorage {
    /// The storage that the claim requests. Default: `5Gi`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>", length(max = 32), extend("x-kubernetes-validations" = [
        rule("isQuantity(self) && quantity(self).isGreaterThan(quantity('0'))",
            "must be a positive quantity, such as 1Gi"),
    ]))]
    pub size: Option<Quantity>,

    /// The storage class of the claim. Default: the cluster's default class.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub storage_class_name: Option<String>,

    /// The access mode of the claim: `ReadWriteOnce` (the default) or `ReadWriteMany`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 2))]
    pub access_modes: Vec<AccessMode>,
}

/// How long a cache is kept. The operator deletes it afterwards, but not while a session is being restored from it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CacheRetention {
    /// How many caches of the key are kept, the newest; what the newest one says counts. Default: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub generations: Option<i32>,

    /// A cache is deleted when no session has started from it for so long. Default: `720h`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 32), regex(pattern = crate::api::DURATION))]
    pub unused_for: Option<String>,
}

/// How a type takes part in caches.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct SandboxCache {
    /// What becomes of the type's root file system, and of its steps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<CachedRoot>,
}

/// What becomes of a type's root file system and of its steps when the session starts from a cache. `Auto` (the default): what the steps
/// left in it is restored, and they are skipped. `Data`: the steps left everything on `/shared` and `/bash_tools`, and are skipped.
/// `Live`: as `Auto`, for a type that runs the image's own program: its root file system is restored while that program runs. `None`:
/// the steps run at every start, over restored data too.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum CachedRoot {
    /// What the steps left in it is restored.
    #[default]
    Auto,
    /// The same, beneath the image's own program.
    Live,
    /// The steps are skipped, since everything that they leave is on the volumes.
    Data,
    /// The steps run at every start.
    None,
}

/// What a session has from caches, and what it saved.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CacheStatus {
    /// The key.
    pub key: String,
    /// The claim of the cache that the session started from, or that it saved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entry: Option<String>,
    /// The types that started without a cache.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub missing: Vec<String>,
    /// The volumes of data and tools, which are restored together.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<CachedPart>,
    /// The first-level folders of the restored tools that came from sources.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roots: Vec<String>,
    /// The types.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sandboxes: BTreeMap<String, CachedPart>,
    /// What became of saving a cache.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub save: Option<CacheSave>,
}

/// What a part of the session has from a cache.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CachedPart {
    /// Whether it was restored.
    pub result: CacheResult,
    /// Why it was not restored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<MissReason>,
    /// How many bytes were restored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// Identifies the inputs of the part.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
    /// What the root file system of the type is restored from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub root: Option<SavedRoot>,
}

/// Whether a part was restored. `Restored`. `Data`: the type's steps were skipped, since they left everything on the volumes. `Missing`:
/// it started cold. `Excluded`: the type takes no part in caches. `Discarded`: a part of the cache could not be used, and what was
/// restored is being deleted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum CacheResult {
    /// It is as it was saved.
    Restored,
    /// Everything that the type's steps left was restored with the data.
    Data,
    /// It started without a cache.
    #[default]
    Missing,
    /// It takes no part in caches.
    Excluded,
    /// What was restored is being deleted.
    Discarded,
}

/// Why a part was not restored.
#[derive(
    Clone,
    Copy,
    Debug,
    PartialEq,
    Eq,
    Serialize,
    Deserialize,
    JsonSchema,
    strum::Display,
    strum::EnumIter,
    strum::EnumString,
)]
pub enum MissReason {
    /// There is no cache with this key.
    NoEntry,
    /// The type, or a step of its initialiser, is another one than when the cache was saved.
    InitChanged,
    /// The sources of the volumes, or `epoch`, are others than when the cache was saved.
    SourcesChanged,
    /// A type that this one depends on has no cache that fits.
    DependencyChanged,
    /// The cache does not have this type, or has a type that the session does not have.
    NotSaved,
    /// A file of the cache is not what was saved.
    Corrupt,
    /// The cache has more than it may have.
    TooLarge,
    /// The volumes are too small for what was saved.
    NoSpace,
    /// The cache was saved by another version of the operator, in a form that this one does not know.
    FormatUnknown,
    /// The cache was saved on nodes of another architecture.
    ArchDiffers,
    /// The claim of the cache is gone, or could not be mounted in time.
    EntryUnreachable,
    /// The volumes that were restored were deleted, so the steps run over new ones.
    VolumesReplaced,
    /// The image has other files than when the cache was saved.
    ImageChanged,
    /// Restoring failed for another reason.
    RestoreFailed,
    /// The type works in an existing Pod.
    Attached,
    /// The steps of the type run at every start.
    StepsRunAlways,
    /// `restore` is `Never`, or the session is older than its field `cache`.
    NotAsked,
    /// A type does not say what becomes of its steps.
    NotCacheable,
}

/// What became of saving a cache.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct CacheSave {
    /// Where saving is.
    pub state: SaveState,
    /// Why it was skipped, or why it failed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// What happened, in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// When it began.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started_at: Option<Time>,
    /// When it was over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub finished_at: Option<Time>,
    /// How many bytes were saved, as they are stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// The types that the cache does not have, each with the reason.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<String>,
}

/// Where saving a cache is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum SaveState {
    /// The cache is being written.
    #[default]
    Running,
    /// The cache is there.
    Succeeded,
    /// There is no new cache, and nothing is missing.
    Skipped,
    /// There is no new cache.
    Failed,
}
