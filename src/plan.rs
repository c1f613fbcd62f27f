//! What to write and what to say, decided from values: no client, no clock, no async. `cargo check --lib
//! --no-default-features` proves it.
//!
//! Each kind has the same three steps. `Stage::of` names where the object is in its life; `plan` lists the writes that bring it
//! further; `report` says to the user what is true once they were made. A stage is derived anew in every pass from what is
//! there now, and never stored. All that a decision may rest on is in `Observed`: the objects, the time, and what the operator
//! was told when it started.

pub mod agent;
pub mod digest;
pub mod duration;
pub mod membership;
pub mod name;
pub mod ownership;
pub mod pod;
pub mod pod_resources;
pub mod pod_spec;
pub mod quantity;
pub mod sandbox;
pub mod session;
pub mod status;
pub mod volumes;
pub mod write;

use std::{sync::Arc, time::Duration};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::Resource;

pub use self::write::{Applied, Created, Kind, Outcome, Target, Write, Written};
use crate::api::condition::Reason;

/// What was found under a name that a user wrote.
#[derive(Clone, Debug, PartialEq)]
pub enum Lookup<K> {
    /// There is no such name.
    NotNamed,
    /// It is there.
    Found(Arc<K>),
    /// It is not there: the API server said so, and not a cache.
    Missing,
    /// It could not be read just now.
    Failed(Failure),
}

impl<K> Lookup<K> {
    /// What was found, as something else.
    #[must_use]
    pub fn map<T>(self, make: impl FnOnce(Arc<K>) -> Arc<T>) -> Lookup<T> {
        match self {
            Lookup::NotNamed => Lookup::NotNamed,
            Lookup::Found(object) => Lookup::Found(make(object)),
            Lookup::Missing => Lookup::Missing,
            Lookup::Failed(failure) => Lookup::Failed(failure),
        }
    }

    /// What it is to the object that would own it.
    #[must_use]
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

    /// The object, if it is there.
    #[must_use]
    pub fn found(&self) -> Option<&Arc<K>> {
        match self {
            Lookup::Found(object) => Some(object),
            Lookup::NotNamed | Lookup::Missing | Lookup::Failed(_) => None,
        }
    }
}

/// What is known of an object that we made or want to make.
#[derive(Clone, Debug, PartialEq)]
pub enum ChildState<K> {
    /// Nothing has the name.
    Absent,
    /// It is there, and it is ours.
    Owned(Arc<K>),
    /// Something that is not ours has the name: it is never touched.
    Foreign(Foreign),
    /// It could not be read or written just now.
    Failed(Failure),
}

impl<K> ChildState<K> {
    /// The object, if it is ours.
    #[must_use]
    pub fn owned(&self) -> Option<&Arc<K>> {
        match self {
            ChildState::Owned(object) => Some(object),
            ChildState::Absent | ChildState::Foreign(_) | ChildState::Failed(_) => None,
        }
    }

    /// Who has the name, if that is somebody else.
    #[must_use]
    pub fn foreign(&self) -> Option<&Foreign> {
        if let ChildState::Foreign(foreign) = self { Some(foreign) } else { None }
    }

    /// Why it could not be read or written, if it could not.
    #[must_use]
    pub fn failure(&self) -> Option<&Failure> {
        if let ChildState::Failed(failure) = self { Some(failure) } else { None }
    }

    /// Whether something of ours may still be there: what could not be deleted, or looked at, is not known to be gone.
    #[must_use]
    pub fn may_be_there(&self) -> bool {
        match self {
            ChildState::Owned(_) | ChildState::Failed(_) => true,
            ChildState::Absent | ChildState::Foreign(_) => false,
        }
    }
}

/// Who has a name that we need.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Foreign {
    /// The object, for a person: `Pod demo--main`.
    pub object: String,
    /// It is on its way out (deleted, or a child of an earlier object of our owner's name), so waiting is enough.
    pub leaving: bool,
}

/// Why a read or a write did not succeed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// [`Reason::Refused`] (a person has to change something), [`Reason::Forbidden`] (likewise, and tried again),
    /// [`Reason::QuotaExceeded`] or [`Reason::ApiError`] (tried again), or [`Reason::Terminating`] (the namespace or the owner is on
    /// its way out).
    pub reason: Reason,
    /// What the API server said.
    pub message: String,
}

/// When to look again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Requeue {
    /// When something changes.
    AwaitChange,
    /// After this long, or when something changes.
    After(Duration),
    /// After a delay that grows with each failure in a row.
    Backoff,
}

impl Requeue {
    /// Not later than this, if it is to be looked at later for a reason of its own.
    #[must_use]
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
    /// A warning, or the good news.
    pub warning: bool,
    /// The same word as the condition's.
    pub reason: Reason,
    /// A sentence.
    pub message: String,
}

/// A change of an object's phase, or of the reason that it is in this phase.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transition {
    /// The phase now.
    pub phase: &'static str,
    /// The reason now.
    pub reason: Reason,
    /// The sentence that a user reads.
    pub message: String,
}

/// What to say about an object, and when to look at it again.
#[derive(Clone, Debug, PartialEq)]
pub struct Report<S> {
    /// The whole status.
    pub status: S,
    /// What changed, if the phase or the reason did.
    pub transition: Option<Transition>,
    /// The event of this transition, if it is one.
    pub event: Option<ObjectEvent>,
    /// When to look again.
    pub requeue: Requeue,
    /// When the status is to be written.
    pub write: StatusWrite,
}

/// When a status is to be written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StatusWrite {
    /// At once.
    Now,
    /// At most once a second: small news of a large object.
    Throttled,
    /// Not now: it says nothing new, or something better to say is about to be known.
    Skip,
}

/// What the operator was told when it started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// The image that holds `sandboxd`: the operator's own.
    pub helper_image: String,
    /// How `sandboxd` gets into a Pod.
    pub helper_mount: HelperMount,
    /// Whether a template may ask for what lets a sandbox out of its container.
    pub allow_privileged_templates: bool,
    /// Whether the Pod of an agent may have a token with which it runs commands in the sandboxes of its session.
    pub allow_runner_exec: bool,
    /// Public ranges of addresses that are the cluster's own: to a sandbox they are not the internet.
    pub cluster_ranges: Vec<ipnet::IpNet>,
}

/// How `sandboxd` gets into a sandbox's Pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HelperMount {
    /// The helper image is mounted as a volume: no copy, no extra container.
    Image,
    /// An init container copies it into an empty folder.
    Copy,
}
