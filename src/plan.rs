//! Decides, from plain values, what the operator writes and what it reports. This module uses no client, no clock and no async code;
//! `cargo check --lib --no-default-features` proves that.
//!
//! Each kind decides in the same three steps ([`Decide`]). `situation` determines where the object is in its life; `plan` lists the
//! writes that move the object forward; `report` builds the status that is true after these writes. The situation is derived anew in
//! every reconcile from the objects that exist now, once more after writes, and never stored. A decision depends only on `Observed`: the
//! objects, the time, and the operator's settings.
//!
//! Decided in docs/adr/0001-one-package-pure-plan.md.

pub mod agent;
pub mod collection;
pub mod digest;
pub mod duration;
pub mod effective;
pub mod facts;
pub mod helper_resources;
pub mod invalid;
pub mod name;
pub mod ownership;
pub mod pod;
pub mod pod_event;
pub mod pod_resources;
pub mod pod_spec;
pub mod quantity;
pub mod reserved;
pub mod sandbox;
pub mod session;
pub mod status;
pub mod template;
pub mod volumes;
pub mod write;

use std::{sync::Arc, time::Duration};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;

pub use self::{
    helper_resources::HelperResources,
    invalid::{Below, Invalid},
    write::{Applied, Created, Kind, Outcome, Target, Trouble, Writable, Write},
};
use crate::api::{condition::Reason, session::VolumeLayout};

/// The decisions about one object, from everything that they depend on. Each kind implements them for its `Observed`.
pub trait Decide {
    /// What follows from the observed objects. It is derived once for the writes, and again for the report if anything was written.
    type Situation;
    /// The status of the kind.
    type Status;

    /// Derives the situation.
    fn situation(&self) -> Self::Situation;

    /// The stage of its life in which the object is, for logs and metrics.
    fn stage(situation: &Self::Situation) -> &'static str;

    /// Writes on which no other write depends: the plan is carried out even if one of them fails.
    fn independent_writes(&self) -> Vec<Write> {
        vec![]
    }

    /// The writes that move the object forward, in the order in which they are made.
    fn plan(&self, situation: &Self::Situation) -> Vec<Write>;

    /// Records the outcome of a write of the child with this name.
    fn record(&mut self, name: &str, outcome: Outcome);

    /// What to report about the object.
    fn report(&self, situation: &Self::Situation) -> Report<Self::Status>;

    /// Whether a child that the object's status reports is missing. It was deleted; or the object itself is gone, the garbage collector
    /// deletes its children, and the watch event is late.
    fn child_disappeared(&self) -> bool;

    /// How many objects that change by themselves were read.
    fn children(&self) -> usize {
        0
    }
}

/// The result of looking up an object that a user refers to by name.
#[derive(Clone, Debug, PartialEq)]
pub enum Lookup<K> {
    /// The user named no object.
    NotNamed,
    /// The object exists.
    Found(Arc<K>),
    /// The object does not exist, according to the API server and not only to a cache.
    Missing,
    /// The object could not be read just now.
    Failed(Failure),
}

impl<K> Lookup<K> {
    /// Converts the object that was found.
    pub fn map<T>(self, make: impl FnOnce(Arc<K>) -> Arc<T>) -> Lookup<T> {
        match self {
            Lookup::NotNamed => Lookup::NotNamed,
            Lookup::Found(object) => Lookup::Found(make(object)),
            Lookup::Missing => Lookup::Missing,
            Lookup::Failed(failure) => Lookup::Failed(failure),
        }
    }

    /// The state of the object as a child of `owner`.
    pub fn child_state(self, owner: &ObjectMeta) -> ChildState<K>
    where
        K: Resource<DynamicType = ()>,
    {
        match self {
            Lookup::NotNamed | Lookup::Missing => ChildState::Absent,
            Lookup::Found(object) => ownership::child_state(Some(object), owner),
            Lookup::Failed(failure) => ChildState::Failed(failure),
        }
    }

    /// Why the object could not be read, if that failed.
    pub fn failure(&self) -> Option<&Failure> {
        if let Lookup::Failed(failure) = self { Some(failure) } else { None }
    }

    /// The object, if it exists.
    pub fn found(&self) -> Option<&Arc<K>> {
        match self {
            Lookup::Found(object) => Some(object),
            Lookup::NotNamed | Lookup::Missing | Lookup::Failed(_) => None,
        }
    }
}

/// The state of a child object: one that the operator created or is going to create.
#[derive(Clone, Debug, PartialEq)]
pub enum ChildState<K> {
    /// No object has the name.
    Absent,
    /// The object exists and belongs to its owner.
    Owned(Arc<K>),
    /// An object that does not belong to the owner has the name. The operator never touches that object.
    Foreign(Foreign),
    /// The object could not be read or written just now.
    Failed(Failure),
}

impl<K> ChildState<K> {
    /// The object, if it belongs to its owner.
    pub fn owned(&self) -> Option<&Arc<K>> {
        match self {
            ChildState::Owned(object) => Some(object),
            ChildState::Absent | ChildState::Foreign(_) | ChildState::Failed(_) => None,
        }
    }

    /// The foreign object that has the name, if there is one.
    pub fn foreign(&self) -> Option<&Foreign> {
        if let ChildState::Foreign(foreign) = self { Some(foreign) } else { None }
    }

    /// Why the object could not be read or written, if that failed.
    pub fn failure(&self) -> Option<&Failure> {
        if let ChildState::Failed(failure) = self { Some(failure) } else { None }
    }

    /// Whether the owner's object may still exist. After a failed read or deletion, the object is not known to be gone.
    pub fn may_be_there(&self) -> bool {
        match self {
            ChildState::Owned(_) | ChildState::Failed(_) => true,
            ChildState::Absent | ChildState::Foreign(_) => false,
        }
    }
}

/// A foreign object that has a name which the operator needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Foreign {
    /// The object as users read it: `Pod demo--main`.
    pub object: String,
    /// The object is about to disappear, so waiting is enough: it is being deleted, or it is a child of an earlier object with the
    /// owner's name.
    pub leaving: bool,
}

/// Why a read or a write failed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// [`Reason::Refused`] (the user has to change something), [`Reason::Forbidden`] (the user has to change something, and the
    /// operator retries with back-off), [`Reason::QuotaExceeded`] or [`Reason::ApiError`] (the operator retries with back-off), or
    /// [`Reason::Terminating`] (the namespace or the owner is being deleted).
    pub reason: Reason,
    /// The message of the API server.
    pub message: String,
}

/// An invalid value fails until the user changes it.
impl From<Invalid> for Failure {
    fn from(invalid: Invalid) -> Self {
        Self { reason: Reason::InvalidSpec, message: invalid.to_string() }
    }
}

/// When to reconcile an object again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Requeue {
    /// When an object changes.
    AwaitChange,
    /// After this delay, or earlier when an object changes.
    After(Duration),
    /// After a delay that grows with each failure in a row.
    Backoff,
}

impl Requeue {
    /// Requeues after `limit` at the latest. A back-off keeps its own delay.
    pub fn within(self, limit: Option<Duration>) -> Self {
        match (self, limit) {
            (Requeue::AwaitChange, Some(limit)) => Requeue::After(limit),
            (Requeue::After(delay), Some(limit)) => Requeue::After(delay.min(limit)),
            (next @ Requeue::Backoff, _) | (next, None) => next,
        }
    }
}

/// An event for `kubectl describe`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObjectEvent {
    /// Whether the type of the event is `Warning` instead of `Normal`.
    pub warning: bool,
    /// The reason, the same as in the condition.
    pub reason: Reason,
    /// The message: a sentence.
    pub message: String,
}

/// A change of an object's phase, or of the reason for the phase.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transition {
    /// The new phase.
    pub phase: &'static str,
    /// The new reason.
    pub reason: Reason,
    /// The message that users read.
    pub message: String,
}

/// What to report about an object, and when to reconcile it again.
#[derive(Clone, Debug, PartialEq)]
pub struct Report<S> {
    /// The complete status.
    pub status: S,
    /// The transition, if the phase or the reason changed.
    pub transition: Option<Transition>,
    /// The events for what has changed, if it deserves any.
    pub events: Vec<ObjectEvent>,
    /// When to reconcile again.
    pub requeue: Requeue,
    /// When to write the status.
    pub write: StatusWrite,
}

/// When to write a status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatusWrite {
    /// At once.
    Now,
    /// At most once a second: the change is small and the object is large.
    Throttled,
    /// Not now: nothing changed, or a more useful status is expected soon.
    Skip,
}

/// The operator's settings, fixed when it starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The image that contains `sandboxd`: the operator's own image.
    pub helper_image: String,
    /// How `sandboxd` gets into a Pod.
    pub helper_mount: HelperMount,
    /// The requests and limits of the containers that run that image.
    pub helper_resources: HelperResources,
    /// Whether the cluster can mount images as volumes, so that an image can be a source.
    pub image_volumes: bool,
    /// Whether a template may request privileges with which a sandbox can leave its container.
    pub allow_privileged_templates: bool,
    /// Whether the Pod of an agent may have a token with which it runs commands in the sandboxes of its session.
    pub allow_runner_exec: bool,
    /// Public address ranges that belong to the cluster. For a sandbox, they are not part of the internet.
    pub cluster_ranges: Vec<ipnet::IpNet>,
    /// The layout of the volumes of sessions that name none. It never changes the layout of a session that has claims.
    pub volume_layout: VolumeLayout,
    /// How many caches a namespace may have.
    pub cache_limits: CacheLimits,
}

/// How many caches each namespace may have. Those that were not used for the longest time are deleted first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CacheLimits {
    /// The most caches.
    pub max_entries: usize,
    /// The most bytes of all of them, as they are stored; `None` if they are not limited.
    pub max_bytes: Option<u64>,
}

impl Default for CacheLimits {
    fn default() -> Self {
        Self { max_entries: 100, max_bytes: None }
    }
}

#[cfg(test)]
impl Settings {
    /// Settings for tests.
    pub(crate) fn example() -> Self {
        Self {
            helper_image: "helper".into(),
            helper_mount: HelperMount::Image,
            helper_resources: HelperResources::default(),
            image_volumes: true,
            allow_privileged_templates: false,
            allow_runner_exec: false,
            cluster_ranges: vec![],
            volume_layout: VolumeLayout::Separate,
            cache_limits: CacheLimits::default(),
        }
    }
}

/// How `sandboxd` gets into a sandbox's Pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HelperMount {
    /// The helper image is mounted as a volume, without a copy or an extra container.
    Image,
    /// An init container copies `sandboxd` into an `emptyDir` volume.
    Copy,
}
