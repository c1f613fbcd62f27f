//! What the stage Pod is told and what it answers: plain data, shared by the planner that writes it and by `sandboxd stage`
//! that obeys it. Nothing here depends on Kubernetes types.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

/// The environment variable in which `sandboxd stage` finds its [`Manifest`], as JSON.
pub const MANIFEST_ENV: &str = "AIGISE_STAGE";

/// The file at the root of each volume that records what was staged there.
pub const MARKER: &str = ".aigise-staged";

/// Everything that one stage Pod has to do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Manifest {
    /// Names the whole content: volumes that carry this digest in their marker are left alone.
    pub digest: String,
    /// The volumes, in the order in which they are filled.
    pub volumes: Vec<Volume>,
}

/// One shared volume and what goes into it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Volume {
    /// `scripts`, `data` or `tools`.
    pub name: String,
    /// Where the claim is mounted in the stage Pod.
    pub mount_path: String,
    /// What sandbox users may do with the staged files.
    pub access: Access,
    /// Copied in this order.
    pub sources: Vec<Source>,
    /// First-level folders to keep, for the tools volume; absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub top_roots: Option<Vec<String>>,
    /// Those of them that no source has to bring: agents ask for them, and no mistake of an agent's is its session's.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub optional_roots: BTreeSet<String>,
}

/// What every user of a sandbox may do with a staged file, whatever its mode was in the source.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Access {
    /// Readable, and executable where the source was.
    Read,
    /// Readable and writable, and executable where the source was.
    Write,
}

/// One source, mounted read-only in the stage Pod.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Source {
    /// What a person calls it, for messages: `configMap poc`, `persistentVolumeClaim corpus`.
    pub description: String,
    /// Where it is mounted in the stage Pod, with the source's own sub-folder.
    pub mount_path: String,
    /// The folder of the volume that it is copied into; empty: the volume's root.
    pub path: String,
}

/// What the stage Pod leaves in its termination message, as one JSON object of at most 4 KiB.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", tag = "outcome")]
pub enum StagingReport {
    /// All volumes carry the digest.
    Staged {
        /// What each volume holds now, by its name.
        volumes: BTreeMap<String, Staged>,
    },
    /// A source could not be staged; a retry with the same sources would fail in the same way.
    Failed {
        /// One sentence for a person, which names the source and the path.
        message: String,
    },
}

/// What one volume holds after staging.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Staged {
    /// Files written by this run; 0 when the marker was there already.
    pub files: i64,
    /// Files that were there with other content and were left as they are: what sandboxes wrote is never overwritten.
    pub kept: i64,
    /// First-level folders of the tools volume that its sources bring.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub roots: Vec<String>,
    /// Folders with a `SKILL.md` in the tools volume, as many as a report has room for.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub skills: Vec<String>,
}
