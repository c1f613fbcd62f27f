//! Reads objects from the API server: only the fields that the operator uses, within limits, and each object independently of others.
//!
//! Any user who may write an object may write one of a megabyte, or one that is nested ten thousand levels deep. So each object is read
//! separately and within limits ([`limits`]). An object that exceeds a limit, or cannot be read for another reason, is [`Unreadable`],
//! which has the object's name and the reason, but none of the object's content. Lists and watches are read as streams ([`objects`]) that
//! hold one object at a time; single objects are read by [`live`].
//!
//! Decided in docs/adr/0011-one-object-is-one-object.md.

pub mod live;
pub mod objects;
mod prune;
mod skim;

use std::fmt;

use k8s_openapi::{
    api::{
        core::v1::{ConfigMap, PersistentVolumeClaim, Pod, Secret, Service, ServiceAccount},
        networking::v1::NetworkPolicy,
        rbac::v1::{Role, RoleBinding},
    },
    apimachinery::pkg::apis::meta::v1::Condition,
};
use kube::{Resource, api::ObjectMeta};
use serde::de::DeserializeOwned;

pub use self::prune::{Fields, Projection};
use self::skim::skim;
use crate::{
    api::{Agent, AigiseSession, Sandbox, condition::Reason, limits, meta},
    plan::Failure,
};

/// The most bytes of one object that are read. The API server stores no larger objects, unless it is configured to.
pub const TEXT_BYTES: usize = 2 * 1024 * 1024;

/// A kind that is read from the API server.
pub trait Kept: Resource<DynamicType = ()> + Clone + fmt::Debug + DeserializeOwned + Send + Sync + 'static {
    /// Which fields of an object are kept.
    const PROJECTION: Projection = Projection::AllBut(&[METADATA]);

    /// How large an object may be.
    const LIMITS: Limits = Limits { bytes: limits::OBJECT_BYTES, values: limits::OBJECT_VALUES };

    /// The conditions in the object's status.
    fn conditions(&self) -> &[Condition] {
        &[]
    }

    /// The phase of the object, for metrics.
    fn phase(&self) -> &'static str {
        ""
    }
}

/// How large the kept part of an object may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The most bytes of JSON.
    pub bytes: usize,
    /// The most JSON values.
    pub values: usize,
}

impl Limits {
    /// The limits of a status.
    const STATUS: Self = Self { bytes: limits::STATUS_BYTES, values: limits::STATUS_VALUES };

    /// The limits of objects with content: sources of volumes and configuration files. The API server allows a mebibyte.
    const CONTENT: Self = Self { bytes: TEXT_BYTES, values: 4 * limits::OBJECT_VALUES };
}

/// managedFields are half of an object. The annotation of `kubectl apply` repeats the other half.
const METADATA: (&str, Projection) = (
    "metadata",
    Projection::AllBut(&[
        ("managedFields", Projection::Nothing),
        (
            "annotations",
            Projection::AllBut(&[("kubectl.kubernetes.io/last-applied-configuration", Projection::Nothing)]),
        ),
    ]),
);

/// The metadata of kinds that others also create: only the labels and annotations that the operator writes are read.
const METADATA_OF_OURS: (&str, Projection) = (
    "metadata",
    Projection::AllBut(&[
        ("managedFields", Projection::Nothing),
        ("annotations", Projection::Prefixed(&[OUR_PREFIX])),
        ("labels", Projection::Prefixed(&[OUR_PREFIX, "app.kubernetes.io/"])),
    ]),
);
const OUR_PREFIX: &str = "aigise.dev/";

impl Kept for AigiseSession {
    fn conditions(&self) -> &[Condition] {
        self.status.as_ref().map_or(&[], |status| &status.conditions)
    }

    fn phase(&self) -> &'static str {
        self.status.as_ref().and_then(|status| status.phase).map_or("", Into::into)
    }
}

impl Kept for Sandbox {
    /// The Sandbox of a session is replaced as a whole, with all annotations of its users.
    const PROJECTION: Projection = Projection::AllBut(&[(
        "metadata",
        Projection::AllBut(&[
            ("managedFields", Projection::Nothing),
            (
                "annotations",
                Projection::AllBut(&[("kubectl.kubernetes.io/last-applied-configuration", Projection::Free)]),
            ),
        ]),
    )]);

    fn conditions(&self) -> &[Condition] {
        self.status.as_ref().map_or(&[], |status| &status.conditions)
    }

    fn phase(&self) -> &'static str {
        self.status.as_ref().and_then(|status| status.phase).map_or("", Into::into)
    }
}

/// The whole status is kept: the operator also reads what the program that runs an agent writes there.
impl Kept for Agent {
    fn conditions(&self) -> &[Condition] {
        self.status.as_ref().map_or(&[], |status| &status.conditions)
    }

    fn phase(&self) -> &'static str {
        self.status.as_ref().and_then(|status| status.status).map_or("", Into::into)
    }
}

impl Kept for PersistentVolumeClaim {
    const PROJECTION: Projection =
        Projection::AllBut(&[METADATA_OF_OURS, ("status", Projection::Only(&[("phase", Projection::All)]))]);
}

impl Kept for Service {
    const PROJECTION: Projection = Projection::AllBut(&[METADATA_OF_OURS, ("status", Projection::Nothing)]);
}

impl Kept for NetworkPolicy {
    const PROJECTION: Projection = Projection::AllBut(&[METADATA_OF_OURS]);
}

impl Kept for ServiceAccount {
    const PROJECTION: Projection = Projection::AllBut(&[METADATA_OF_OURS]);
}

impl Kept for Role {
    const PROJECTION: Projection = Projection::AllBut(&[METADATA_OF_OURS]);
}

impl Kept for RoleBinding {
    const PROJECTION: Projection = Projection::AllBut(&[METADATA_OF_OURS]);
}

impl Kept for ConfigMap {
    const PROJECTION: Projection = Projection::AllBut(&[METADATA_OF_OURS]);
    const LIMITS: Limits = Limits::CONTENT;
}

impl Kept for Secret {
    const PROJECTION: Projection = Projection::AllBut(&[METADATA_OF_OURS]);
    const LIMITS: Limits = Limits::CONTENT;
}

impl Kept for Pod {
    /// The operator wrote the spec and reads little of it: the node name, the deadline that it may have set, and which containers have a
    /// restart policy of their own. An empty `Container` alone takes 2 KB.
    const PROJECTION: Projection = Projection::AllBut(&[
        METADATA_OF_POD,
        (
            "spec",
            Projection::Only(&[
                ("nodeName", Projection::All),
                ("activeDeadlineSeconds", Projection::All),
                ("initContainers", CONTAINERS_WITH_POLICY),
                ("containers", CONTAINERS_WITH_POLICY),
            ]),
        ),
        ("status", STATUS_OF_POD),
    ]);
}

/// Which fields are kept of a user's Pod that a sandbox attaches to: the names of its containers as well.
pub const ATTACHED_POD: Projection = Projection::AllBut(&[
    METADATA_OF_OURS,
    (
        "spec",
        Projection::Only(&[
            ("nodeName", Projection::All),
            ("containers", Projection::Only(&[("name", Projection::All)])),
        ]),
    ),
    ("status", STATUS_OF_POD),
]);

const METADATA_OF_POD: (&str, Projection) = (
    "metadata",
    Projection::AllBut(&[
        ("managedFields", Projection::Nothing),
        ("annotations", Projection::Prefixed(&[OUR_PREFIX])),
        // The Pod's session and its component.
        ("labels", Projection::Only(&[(meta::SESSION, Projection::All), (meta::COMPONENT, Projection::All)])),
    ]),
);

const CONTAINERS_WITH_POLICY: Projection =
    Projection::Having(&[("restartPolicy", Projection::All), ("name", Projection::All)]);

const STATUS_OF_POD: Projection = Projection::AllBut(&[
    ("hostIP", Projection::Nothing),
    ("hostIPs", Projection::Nothing),
    ("podIPs", Projection::Nothing),
    ("qosClass", Projection::Nothing),
    ("containerStatuses", CONTAINER_STATUS),
    ("initContainerStatuses", INIT_CONTAINER_STATUS),
]);

/// The state of a container, without its image, resources and mounts.
const CONTAINER_STATUS: Projection = Projection::AllBut(&[
    ("allocatedResources", Projection::Nothing),
    ("containerID", Projection::Nothing),
    ("imageID", Projection::Nothing),
    ("lastState", Projection::Nothing),
    ("resources", Projection::Nothing),
    ("user", Projection::Nothing),
    ("volumeMounts", Projection::Nothing),
]);

/// The last termination message of a native sidecar is kept as well, which is how the init work reports its success.
const INIT_CONTAINER_STATUS: Projection = Projection::AllBut(&[
    ("allocatedResources", Projection::Nothing),
    ("containerID", Projection::Nothing),
    ("imageID", Projection::Nothing),
    (
        "lastState",
        Projection::Only(&[(
            "terminated",
            Projection::Only(&[("exitCode", Projection::All), ("message", Projection::All)]),
        )]),
    ),
    ("resources", Projection::Nothing),
    ("user", Projection::Nothing),
    ("volumeMounts", Projection::Nothing),
]);

/// An object that cannot be read: it is too large, nested too deep, or has fields of a newer version or with wrong values.
#[derive(Clone, Debug, PartialEq)]
pub struct Unreadable {
    /// The kind of the object.
    pub kind: String,
    /// Identifies the object: name, namespace, UID, version and generation, as far as these can be read.
    pub metadata: ObjectMeta,
    /// Why the object cannot be read.
    pub why: Why,
    /// The content of the object's condition `Ready`.
    pub said: Option<Said>,
}

/// The content of a condition.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// The reason.
    pub reason: String,
    /// The message.
    pub message: String,
    /// The observed generation.
    pub observed_generation: Option<i64>,
}

/// Why an object cannot be read. No variant contains values of the object.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Why {
    /// The object has too many bytes.
    #[error("it has more than {0} bytes, not counting managedFields and status")]
    TooLarge(usize),
    /// The object has too many values.
    #[error("it has more than {0} values, not counting managedFields and status")]
    TooManyValues(usize),
    /// The status has too many bytes or values.
    #[error("its status has more than {0} bytes or {1} values")]
    StatusTooLarge(usize, usize),
    /// Maps and lists are nested too deep in the object.
    #[error("it is nested more than {0} levels deep", limits::OBJECT_DEPTH)]
    TooDeep,
    /// The object is not JSON in UTF-8.
    #[error("it is not JSON in UTF-8")]
    NotJson,
    /// A field has a type or a value that this version of the operator does not know.
    #[error("the field {0} has a type or a value that this version of the operator does not know")]
    UnknownValue(String),
    /// The objects of the namespace exceed the memory budget.
    #[error("the objects of its namespace are larger than {} MiB together; delete some of them", .0 / 1024 / 1024)]
    TooMany(usize),
}

impl Why {
    /// The value of the metric label `why`.
    pub fn category(&self) -> &'static str {
        match self {
            Why::TooLarge(_) => "too_large",
            Why::TooManyValues(_) => "too_many_values",
            Why::StatusTooLarge(..) => "status_too_large",
            Why::TooDeep => "too_deep",
            Why::NotJson => "not_json",
            Why::UnknownValue(_) => "unknown_value",
            Why::TooMany(_) => "too_many",
        }
    }
}

/// The beginning of the message in the condition of an object that cannot be read. [`Unreadable::is_said_in`] looks for it, also in
/// conditions that an earlier version of the operator wrote.
const OF_ITSELF: &str = "The operator cannot read it and leaves it alone";

impl Unreadable {
    /// The message for the object's condition and event.
    pub fn message(&self) -> String {
        format!("{OF_ITSELF}: {}.", self.why)
    }

    /// Whether a condition reports that its own object cannot be read, and not that another object which it needs cannot be read.
    pub fn is_said_in(condition: &Condition) -> bool {
        condition.reason == Reason::Unreadable.to_string() && condition.message.starts_with(OF_ITSELF)
    }

    /// The failure of another object that needs this object.
    pub fn failure(&self) -> Failure {
        let name = self.metadata.name.as_deref().unwrap_or_default();
        Failure { reason: Reason::Unreadable, message: format!("{} {name} cannot be read: {}.", self.kind, self.why) }
    }
}

/// An object that was read.
#[derive(Clone, Debug)]
pub struct Read<K> {
    /// The object with the kept fields.
    pub object: K,
    /// The kept fields as JSON text.
    pub text: String,
    /// How many JSON values the kept fields have.
    pub values: usize,
}

/// The metadata that identifies the object of a text, as far as it can be read.
pub fn identity(text: &[u8]) -> ObjectMeta {
    skim::identity(text)
}

/// An object of which only the identity is read. The caller sets the reason.
pub fn skimmed<K: Kept>(text: &[u8]) -> Unreadable {
    skim::<K>(text)
}

/// Reads an object.
///
/// # Errors
/// When the object cannot be read, or exceeds a limit.
pub fn read<K: Kept>(text: &[u8]) -> Result<Read<K>, Box<Unreadable>> {
    read_only(text, K::PROJECTION)
}

/// Reads the fields of an object that `keep` selects.
///
/// # Errors
/// When the object cannot be read, or exceeds a limit.
pub fn read_only<K: Kept>(text: &[u8], keep: Projection) -> Result<Read<K>, Box<Unreadable>> {
    let unreadable = |why| Box::new(Unreadable { why, ..skim::<K>(text) });
    if text.len() > TEXT_BYTES {
        return Err(unreadable(Why::TooLarge(TEXT_BYTES)));
    }
    let (text, values) = prune::prune(text, keep, K::LIMITS).map_err(unreadable)?;
    match serde_json::from_str(&text) {
        Ok(object) => Ok(Read { object, text, values }),
        Err(_) => Err(unreadable(Why::UnknownValue(misfit::<K>(&text)))),
    }
}

/// The path of the field that does not fit the type. The error itself would repeat the field's value.
fn misfit<K: Kept>(text: &str) -> String {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let path = serde_path_to_error::deserialize::<_, K>(&mut deserializer).err().map(|error| error.path().to_string());
    let path = path.unwrap_or_default();
    // The path may contain keys of maps, which users choose, so its length is limited.
    let end = path.char_indices().nth(100).map_or(path.len(), |(end, _)| end);
    path[..end].to_string()
}

#[cfg(test)]
mod tests;
