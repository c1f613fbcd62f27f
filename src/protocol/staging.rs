//! The work of a stage Pod, and the report that the stage Pod returns: plain data, shared by the planner that writes the work and
//! by `sandboxd stage` that does it. Nothing here depends on Kubernetes types.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

/// The environment variable that holds the [`Manifest`] for `sandboxd stage`, as JSON.
pub const MANIFEST_ENV: &str = "AIGISE_STAGE";

/// The file at the root of each volume that records what was staged there.
pub const MARKER: &str = ".aigise-staged";

/// The work of one stage Pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Manifest {
    /// The digest of the whole content: a volume whose marker has this digest is left alone.
    pub digest: String,
    /// The volumes, in the order in which they are filled.
    pub volumes: Vec<Volume>,
}

/// One shared volume and its sources.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Volume {
    /// `scripts`, `data` or `tools`.
    pub name: String,
    /// Where the claim is mounted in the stage Pod.
    pub mount_path: String,
    /// What sandbox users may do with the staged files.
    pub access: Access,
    /// The sources, in the order in which they are copied.
    pub sources: Vec<Source>,
    /// First-level folders to keep, for the tools volume. Absent: all folders.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_roots: Option<Vec<String>>,
    /// The folders of `top_roots` that no source has to bring: agents request them, and an error in an agent must not fail its
    /// session.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub optional_roots: BTreeSet<String>,
    /// The volume was restored from a cache with what the sources bring, so it is only marked. These are the first-level folders that came
    /// from the sources.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub restored: Option<Vec<String>>,
}

/// What every user of a sandbox may do with a staged file, whatever its mode is in the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Access {
    /// Readable, and executable if the file is executable in the source.
    Read,
    /// Readable and writable, and executable if the file is executable in the source.
    Write,
}

/// One source, mounted read-only in the stage Pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Source {
    /// The name of the source in messages: `configMap poc`, `persistentVolumeClaim corpus`.
    pub description: String,
    /// Where the source is mounted in the stage Pod, including the source's own sub-folder.
    pub mount_path: String,
    /// The folder of the volume that the source is copied into; empty for the volume's root.
    pub path: String,
}

/// The report that the stage Pod leaves as its termination message: one JSON object of at most 4 KiB.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "outcome")]
pub enum StagingReport {
    /// All volumes carry the digest.
    Staged {
        /// What each volume holds now, by the volume's name.
        volumes: BTreeMap<String, Staged>,
    },
    /// The volumes could not be filled; a retry would fail in the same way until somebody has changed something.
    Failed {
        /// One sentence for the user that names the source or the volume, and the path.
        message: String,
        /// What has to change. Reports of earlier versions do not have it.
        #[serde(default, skip_serializing_if = "Fault::is_of_source")]
        fault: Fault,
    },
}

/// What has to change before the volumes can be filled. Volumes are given by their names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Fault {
    /// A source, or the list of sources.
    #[default]
    Source,
    /// The permissions of this volume's root folder: neither the stage user nor the shared group may write there.
    Root(String),
    /// A folder inside this volume: a sandbox owns it, and has not opened it to the shared group.
    Folder(String),
    /// Something in this volume that is in the way of a folder.
    Obstacle(String),
    /// The size of this volume.
    Size(String),
    /// The storage of this volume: it cannot hold what the sources bring, or it fails.
    Storage(String),
}

impl Fault {
    fn is_of_source(&self) -> bool {
        *self == Self::Source
    }
}

/// What one volume holds after staging.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Staged {
    /// The number of files written by this run; 0 if the marker was already there.
    pub files: i64,
    /// The number of files that had other content and were kept: files that sandboxes wrote are never overwritten.
    pub kept: i64,
    /// First-level folders of the tools volume that come from its sources.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roots: Vec<String>,
    /// Folders with a `SKILL.md` in the tools volume, as many as fit into a report.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skills: Vec<String>,
}
