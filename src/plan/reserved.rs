//! The names and paths that are reserved for the operator: of labels and annotations, of a Pod's volumes and containers, and of the folders
//! in a sandbox. The checks of `volumes` and of `podTemplate` both ask here, and docs/pod-template.md lists the same names.

use super::volumes::SharedVolume;
use crate::{api::meta, protocol::init::FOLDER};

/// The volume that holds `sandboxd`.
pub const HELPER_VOLUME: &str = "aigise-helper";

/// The init container that fills that volume if the cluster cannot mount images.
pub const HELPER_INSTALLER: &str = "install-helper";

/// The native sidecar that reports the success of the init work.
pub const INIT_REPORTER: &str = "init-report";

/// The beginning of the names of the init containers of a stage Pod that run the commands of sources.
pub const SOURCE_PREFIX: &str = "source-";

/// The volume with the configuration of the session, for the Pod of an agent.
pub const CONFIG_VOLUME: &str = "aigise-config";

/// The volume in which the init supervisor finds its work and its release.
pub const WORK_VOLUME: &str = "aigise-gate";

/// The volume in which the init supervisor keeps its log.
pub const STATE_VOLUME: &str = "aigise-gate-state";

/// The volumes that are the operator's own: no other container of the Pod may mount them.
pub const OWN_VOLUMES: [&str; 4] = [HELPER_VOLUME, WORK_VOLUME, STATE_VOLUME, CONFIG_VOLUME];

/// The names of the containers that the operator adds to a sandbox.
pub const CONTAINERS: [&str; 3] = [meta::SANDBOX_CONTAINER, HELPER_INSTALLER, INIT_REPORTER];

/// The folders that hold the operator's own files.
const OWN_FOLDERS: [&str; 3] = [meta::HELPER_PATH, FOLDER, meta::CONFIG_FOLDER];

/// The folders that the operator mounts in a sandbox.
pub fn folders() -> impl Iterator<Item = &'static str> {
    SharedVolume::ALL.into_iter().map(SharedVolume::mount_path).chain(OWN_FOLDERS)
}

/// The names of the volumes that the operator adds to a sandbox.
pub fn volumes() -> impl Iterator<Item = &'static str> {
    SharedVolume::ALL.into_iter().map(<&str>::from).chain(OWN_VOLUMES)
}

/// Whether the operator adds a volume of this name to a sandbox.
pub fn is_volume(name: &str) -> bool {
    volumes().any(|volume| volume == name)
}

/// Whether the operator, its Services or its policies identify Pods by this label or annotation. With the labels of another session, a
/// Pod would become a member of that session.
pub fn is_key(key: &str) -> bool {
    let domain = key.split_once('/').map_or("", |(domain, _)| domain);
    let is_below = domain.strip_suffix(meta::GROUP).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    is_below || [meta::APP, meta::MANAGED_BY, meta::COMPONENT, meta::DEFAULT_CONTAINER].contains(&key)
}

/// The first of the operator's folders that a mount would hide, wholly or in part.
pub fn hidden_by(path: &str) -> Option<&'static str> {
    folders().find(|ours| segments(path).iter().zip(segments(ours)).all(|(one, other)| *one == other))
}

/// Whether a claim must not be mounted here: at one of the operator's folders, within one that holds its own files, or at the root.
pub fn is_taken(path: &str) -> bool {
    let place = segments(path);
    let mut ours = folders().map(segments);
    let mut own = OWN_FOLDERS.into_iter().map(segments);
    place.is_empty() || ours.any(|ours| ours == place) || own.any(|own| place.starts_with(&own))
}

/// The segments of a path, with `.` and `..` resolved.
pub fn segments(path: &str) -> Vec<&str> {
    let mut walked = vec![];
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => drop(walked.pop()),
            name => walked.push(name),
        }
    }
    walked
}
