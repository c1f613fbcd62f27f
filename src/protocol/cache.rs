//! The work of the Pods that save a session's volumes in an entry and restore them from it, what sandboxes do about their root file
//! systems, and the reports of both: plain data, shared by the planner that writes the work and by `sandboxd` that does it. Nothing here
//! depends on Kubernetes types.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

/// The environment variable that holds the [`SaveWork`] for `sandboxd save`, as JSON.
pub const SAVE_ENV: &str = "AIGISE_SAVE";

/// The environment variable that holds the [`RestoreWork`] for `sandboxd restore`, as JSON.
pub const RESTORE_ENV: &str = "AIGISE_RESTORE";

/// The format of the entries that this version writes, and the only one that it reads.
pub const FORMAT: u32 = 1;

/// The file of an entry that holds its [`SaveReport`]. It is written when all parts are complete.
pub const MANIFEST: &str = "manifest.json";

/// The file at the root of a restored volume that holds the digest of the [`RestoreWork`].
pub const RESTORED: &str = ".aigise-restored";

/// The folder at the root of a volume through which sandboxes pass what they save. It is never part of an entry.
pub const FOLDER: &str = ".aigise-cache";

/// The work of one Pod that saves.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SaveWork {
    /// The volumes, in the order in which they are packed.
    pub volumes: Vec<SavedVolume>,
    /// The root file systems that sandboxes have packed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roots: Vec<PackedRoot>,
    /// Where the claim of the entry is mounted in the Pod.
    pub entry: String,
    /// After how many seconds the work is given up.
    pub timeout: u64,
}

/// The root file system of a sandbox, packed into a file of [`FOLDER`] on the volume [`DATA`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PackedRoot {
    /// The label of the sandbox's type.
    pub label: String,
    /// What the file holds.
    pub root: Root,
}

/// The volume through which sandboxes pass their root file systems.
pub const DATA: &str = "data";

/// The name of the file with a root file system, in [`FOLDER`] of the volume.
pub fn root_file(label: &str) -> String {
    format!("{label}.tar.zst")
}

/// The name of the file with a root file system, in an entry.
pub fn root_part(label: &str) -> String {
    format!("root-{label}.tar.zst")
}

/// A root file system as it was packed: what differs from the image, and all that is in the sandbox's own volumes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Root {
    /// The SHA-256 of the file, in hexadecimal digits.
    pub sha256: String,
    /// The size of the file, in bytes.
    pub packed: u64,
    /// The size of the archive before compression, in bytes: the most that unpacking reads of it.
    pub unpacked: u64,
    /// Identifies the files of the image. Absent if the image's own program was running already.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<String>,
}

/// What a sandbox does about its root file system.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RootWork {
    /// The label of the sandbox's type.
    pub label: String,
    /// What is unpacked before the first step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restore: Option<Root>,
    /// Whether what the steps have left is packed after them.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub save: bool,
    /// How long restoring, or packing, may take, in seconds. It is not part of the time for the init work.
    pub timeout: u64,
    /// Absolute paths that are not packed, with everything below them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<String>,
    /// Where the emptyDirs of the Pod's template are mounted, which are packed as a whole. Volumes that the image declares are found in the
    /// container; a sandbox that can write to any other volume is not packed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<String>,
    /// Whether the image's own program runs already, and may have written to the file system.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub is_live: bool,
}

/// What became of a sandbox's root file system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RootReport {
    /// It is packed on the volume.
    Saved(Root),
    /// It could not be packed.
    NotSaved {
        /// Why.
        reason: SaveFault,
        /// One sentence for the user.
        message: String,
    },
    /// It is as it was packed.
    Restored,
}

/// A volume that is saved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SavedVolume {
    /// `data` or `tools`.
    pub name: String,
    /// Where the volume is mounted in the Pod.
    pub mount_path: String,
    /// Paths that are left out, with everything below them, relative to the root of the volume.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub exclude: Vec<String>,
}

/// A file of an entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Part {
    /// Its name in the entry.
    pub file: String,
    /// The SHA-256 of the file, in hexadecimal digits.
    pub sha256: String,
    /// The size of the file, in bytes.
    pub packed: u64,
    /// The size of the archive before compression, in bytes: the most that unpacking reads of it.
    pub unpacked: u64,
}

/// The report that a Pod that saves leaves as its termination message: one JSON object of at most 4 KiB.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "outcome")]
pub enum SaveReport {
    /// The entry is complete, and on the disk.
    Saved {
        /// The processor architecture of the node.
        arch: String,
        /// The parts, by the names of the volumes.
        volumes: BTreeMap<String, Part>,
        /// The root file systems that are not what their sandboxes have packed, by the labels of the types.
        #[serde(default, skip_serializing_if = "BTreeSet::is_empty", rename = "leftOut")]
        left_out: BTreeSet<String>,
    },
    /// The entry is of no use.
    Failed {
        /// Why.
        reason: SaveFault,
        /// One sentence for the user.
        message: String,
    },
}

/// Why volumes, or a root file system, could not be saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, strum::Display)]
#[serde(rename_all = "camelCase")]
pub enum SaveFault {
    /// The entry's claim is full. The message says how much was needed at least, and how much was available.
    NoSpace,
    /// A file was written to each time that it was read.
    Changed,
    /// The user of the Pod may not read something. The message has its path.
    Unreadable,
    /// A file or folder has a name that archives reserve.
    Reserved,
    /// A bound of archives is exceeded: the number of entries, the length of a path.
    TooLarge,
    /// The work took too long.
    Timeout,
    /// A step left a process behind, which would be missing when its result is restored.
    StepLeftProcesses,
    /// The sandbox writes to a volume that cannot be packed.
    OtherVolume,
    /// The value of a variable from a Secret is in a file.
    SecretFound,
    /// The clock of the node was set back, so the times of changes mean nothing.
    ClockMoved,
    /// Anything else: the storage fails, a volume is not mounted.
    Failed,
}

/// The work of one Pod that restores.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RestoreWork {
    /// Where the claim of the entry is mounted in the Pod.
    pub entry: String,
    /// The processor architecture of the entry: that of its [`SaveReport`].
    pub arch: String,
    /// The format of the entry.
    pub format: u32,
    /// The volumes, in the order in which they are unpacked.
    pub volumes: Vec<RestoredVolume>,
    /// The root file systems that are put on the volume [`DATA`] for the sandboxes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roots: Vec<PackedRoot>,
    /// Whether the volumes are restored also if a root file system is damaged.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub partial: bool,
    /// The digest of the whole content: a volume whose [marker](RESTORED) has this digest is left alone.
    pub digest: String,
}

/// A volume that is restored. It may be a folder of the same claim as another one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RestoredVolume {
    /// `data` or `tools`.
    pub name: String,
    /// Where the volume is mounted in the Pod.
    pub mount_path: String,
    /// The part of the entry that it is restored from.
    pub part: Part,
}

/// The report that a Pod that restores leaves as its termination message: one JSON object of at most 4 KiB.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "outcome")]
pub enum RestoreReport {
    /// All volumes are as they were saved, and carry the digest.
    Restored {
        /// The size of each volume's archive before compression, in bytes, by the volume's name.
        volumes: BTreeMap<String, u64>,
        /// The root file systems that are damaged, by the labels of the types.
        #[serde(default, skip_serializing_if = "BTreeSet::is_empty", rename = "leftOut")]
        left_out: BTreeSet<String>,
    },
    /// The volumes could not be restored.
    Failed {
        /// Why.
        fault: RestoreFault,
        /// The volume, or the file with a root file system, if only one is concerned.
        part: Option<String>,
        /// One sentence for the user.
        message: String,
        /// Whether this run or an earlier one of the same work has written to a volume: then the volumes are of no use.
        wrote: bool,
    },
}

/// Why volumes, or a root file system, could not be restored.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, strum::Display)]
#[serde(rename_all = "camelCase")]
pub enum RestoreFault {
    /// A part is missing, or is not what was saved.
    Corrupt,
    /// A part has more bytes unpacked than it says, or exceeds another bound of archives.
    TooLarge,
    /// The volumes cannot hold what was saved. The message says how much is needed, and how much is available.
    NoSpace,
    /// The entry was written by a version with another format.
    FormatUnknown,
    /// The entry was written on a node with another processor architecture.
    ArchDiffers,
    /// The image has other files than when the root file system was packed.
    ImageChanged,
    /// Anything else: the storage fails, a volume is not mounted.
    RestoreFailed,
}
