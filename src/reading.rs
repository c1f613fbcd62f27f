//! Objects as they come from the API server: less what nobody here reads, within limits, and never an obstacle to others.
//!
//! Whoever may write an object may write one of a megabyte, or one that is nested ten thousand levels deep. So an object is read by
//! itself and within limits ([`limits`]); what passes them, or cannot be read for another reason, is [`Unreadable`]: it has a name
//! and a reason, and none of its content is told. Lists and watches come as streams ([`objects`]), of which one object is held at a
//! time; single objects are fetched by [`live`].

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

/// The most bytes of one object that are held to be read. The API server stores no larger ones, unless it is told to.
pub const TEXT_BYTES: usize = 2 * 1024 * 1024;

/// A kind that is read from the API server.
pub trait Kept: Resource<DynamicType = ()> + Clone + fmt::Debug + DeserializeOwned + Send + Sync + 'static {
    /// How much of an object is kept.
    const PROJECTION: Projection = Projection::AllBut(&[METADATA]);

    /// How much there may be.
    const LIMITS: Limits = Limits { bytes: limits::OBJECT_BYTES, values: limits::OBJECT_VALUES };

    /// What the operator says of the object.
    fn conditions(&self) -> &[Condition] {
        &[]
    }

    /// A word for how the object is, which is counted.
    fn phase(&self) -> &'static str {
        ""
    }
}

/// The most of an object that is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of JSON.
    pub bytes: usize,
    /// Values of JSON.
    pub values: usize,
}

impl Limits {
    /// Those of a status.
    const STATUS: Self = Self { bytes: limits::STATUS_BYTES, values: limits::STATUS_VALUES };

    /// Those of what holds content: a source of the volumes, or a configuration file. The API server allows a mebibyte.
    const CONTENT: Self = Self { bytes: TEXT_BYTES, values: 4 * limits::OBJECT_VALUES };
}

/// managedFields are half of an object. What `kubectl apply` keeps in an annotation is the other half once more.
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

/// Of what others may have made, only what we have put there is read.
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
    /// A session's own is replaced as a whole, with all that its users have annotated.
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

/// What a program that runs an agent says in its status is read as well.
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
    /// We made its spec and never look at it again, but for where it runs. An empty `Container` alone takes 2 KB.
    const PROJECTION: Projection = Projection::AllBut(&[
        METADATA_OF_POD,
        ("spec", Projection::Only(&[("nodeName", Projection::All)])),
        ("status", STATUS_OF_POD),
    ]);
}

/// How much is kept of a Pod that somebody else made, and that a sandbox attaches to: the names of its containers as well.
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
        // Whose it is, and what.
        ("labels", Projection::Only(&[(meta::SESSION, Projection::All), (meta::COMPONENT, Projection::All)])),
    ]),
);

const STATUS_OF_POD: Projection = Projection::AllBut(&[
    ("hostIP", Projection::Nothing),
    ("hostIPs", Projection::Nothing),
    ("podIPs", Projection::Nothing),
    ("qosClass", Projection::Nothing),
    ("containerStatuses", CONTAINER_STATUS),
    ("initContainerStatuses", CONTAINER_STATUS),
]);

/// How a container is, without what it is made of.
const CONTAINER_STATUS: Projection = Projection::AllBut(&[
    ("allocatedResources", Projection::Nothing),
    ("containerID", Projection::Nothing),
    ("imageID", Projection::Nothing),
    ("lastState", Projection::Nothing),
    ("resources", Projection::Nothing),
    ("user", Projection::Nothing),
    ("volumeMounts", Projection::Nothing),
]);

/// An object that cannot be read: too large, too deep, written by a newer version, or by hand.
#[derive(Clone, Debug, PartialEq)]
pub struct Unreadable {
    /// Its kind.
    pub kind: String,
    /// Which one it is: name, namespace, UID, version and generation, as far as these can be read.
    pub metadata: ObjectMeta,
    /// Why it cannot be read.
    pub why: Why,
    /// What its condition `Ready` says.
    pub said: Option<Said>,
}

/// What a condition says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Said {
    /// The reason.
    pub reason: String,
    /// The message.
    pub message: String,
    /// The generation that it speaks of.
    pub observed_generation: Option<i64>,
}

/// Why an object cannot be read. In none of these is there anything of what it says.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Why {
    /// It has too many bytes.
    #[error("it has more than {0} bytes, managedFields and status apart")]
    TooLarge(usize),
    /// It has too many values.
    #[error("it has more than {0} values, managedFields and status apart")]
    TooManyValues(usize),
    /// Its status has too many bytes or values.
    #[error("its status has more than {0} bytes or {1} values")]
    StatusTooLarge(usize, usize),
    /// Maps and lists are nested too deep in it.
    #[error("it is nested more than {0} levels deep", limits::OBJECT_DEPTH)]
    TooDeep,
    /// It is no JSON in UTF-8.
    #[error("it is not JSON in UTF-8")]
    NotJson,
    /// A field has a type or a value that is not known here.
    #[error("the field {0} has a type or a value that this version of the operator does not know")]
    UnknownValue(String),
    /// Its namespace holds more than is kept.
    #[error("the objects of its namespace have more than {} MiB together; delete some", .0 / 1024 / 1024)]
    TooMany(usize),
}

impl Why {
    /// The word for metrics.
    #[must_use]
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

/// How an object says of itself that it cannot be read.
const OF_ITSELF: &str = "The operator cannot read it and leaves it alone";

impl Unreadable {
    /// A sentence for whoever looks after the object.
    #[must_use]
    pub fn message(&self) -> String {
        format!("{OF_ITSELF}: {}.", self.why)
    }

    /// Whether a condition says of its own object that it cannot be read, and not of another one that the object needs.
    #[must_use]
    pub fn is_said_in(condition: &Condition) -> bool {
        condition.reason == Reason::Unreadable.to_string() && condition.message.starts_with(OF_ITSELF)
    }

    /// What it means for another object that needs this one.
    #[must_use]
    pub fn failure(&self) -> Failure {
        let name = self.metadata.name.as_deref().unwrap_or_default();
        Failure { reason: Reason::Unreadable, message: format!("{} {name} cannot be read: {}.", self.kind, self.why) }
    }
}

/// An object that was read.
#[derive(Clone, Debug)]
pub struct Read<K> {
    /// The object, as far as it is kept.
    pub object: K,
    /// What is kept of it, as text.
    pub text: String,
    /// How many values it has.
    pub values: usize,
}

/// Which object a text is of, as far as that can be read.
#[must_use]
pub fn identity(text: &[u8]) -> ObjectMeta {
    skim::identity(text)
}

/// An object of which no more is read than which one it is; why is for the caller to say.
#[must_use]
pub fn skimmed<K: Kept>(text: &[u8]) -> Unreadable {
    skim::<K>(text)
}

/// Reads an object.
///
/// # Errors
/// When it cannot be read, or passes a limit.
pub fn read<K: Kept>(text: &[u8]) -> Result<Read<K>, Box<Unreadable>> {
    read_only(text, K::PROJECTION)
}

/// Reads so much of an object.
///
/// # Errors
/// When it cannot be read, or passes a limit.
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

/// The path of the field that does not fit. The error itself would repeat what is there.
fn misfit<K: Kept>(text: &str) -> String {
    let mut deserializer = serde_json::Deserializer::from_str(text);
    let path = serde_path_to_error::deserialize::<_, K>(&mut deserializer).err().map(|error| error.path().to_string());
    let path = path.unwrap_or_default();
    // Keys of maps are a user's words, too.
    let end = path.char_indices().nth(100).map_or(path.len(), |(end, _)| end);
    path[..end].to_string()
}

#[cfg(test)]
mod tests;
