//! What the operator writes to the API server. Each write names its verb, so that `apply` has nothing left to choose.

use k8s_openapi::{
    api::{
        core::v1::{PersistentVolumeClaim, Pod, Secret, Service, ServiceAccount},
        networking::v1::NetworkPolicy,
        rbac::v1::{Role, RoleBinding},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::Resource;
use strum::IntoStaticStr;

use super::{ChildState, Failure, Foreign};
use crate::api::{Agent, AigiseSession, Sandbox};

/// One write to the API server. The writes of a plan are made in order, and the first that fails ends it: later writes may depend
/// on earlier ones. [Groundwork](Write::is_groundwork) that follows each other is made at the same time.
#[derive(Clone, Debug, PartialEq)]
pub enum Write {
    /// Create the object. If the name is taken, the operator reads the object that has it, and never changes that object.
    Create(Created),
    /// Server-side apply. An object with a UID exists already: the apply is forced, and succeeds only for the version on which the
    /// decision is based. An object without a UID is new: a foreign object with its name is never changed.
    Apply(Applied),
    /// Replace the whole Sandbox, if it still has the version on which the decision is based.
    Replace(Box<Sandbox>),
    /// Patch the size and the owner of the claim, if it still has the version on which the decision is based.
    PatchClaim(Box<PersistentVolumeClaim>),
    /// Patch the annotations of the Pod, if it still has the version on which the decision is based.
    PatchPod(Box<Pod>),
    /// Delete exactly this object.
    Delete(Target),
}

/// An object that is created once and never applied.
#[derive(Clone, Debug, PartialEq)]
pub enum Created {
    /// A claim.
    Claim(Box<PersistentVolumeClaim>),
    /// A Pod. A change of its template leads to a new Pod.
    Pod(Box<Pod>),
    /// A Sandbox. Later changes replace the whole object.
    Sandbox(Box<Sandbox>),
}

/// An object that is written by server-side apply.
#[derive(Clone, Debug, PartialEq)]
pub enum Applied {
    /// A Service.
    Service(Box<Service>),
    /// A network policy.
    NetworkPolicy(Box<NetworkPolicy>),
    /// A Secret.
    Secret(Box<Secret>),
    /// A service account.
    ServiceAccount(Box<ServiceAccount>),
    /// A role.
    Role(Box<Role>),
    /// A role binding.
    RoleBinding(Box<RoleBinding>),
}

/// An object that exists and is to be deleted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its kind.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// Its UID, as a precondition: an object that was created later under the name is kept.
    pub uid: Option<String>,
    /// Its resource version, as a precondition. Without it, the object is deleted even if it has changed.
    pub version: Option<String>,
}

/// A kind of object that the operator writes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, IntoStaticStr)]
pub enum Kind {
    /// A claim.
    PersistentVolumeClaim,
    /// A Pod.
    Pod,
    /// A Service.
    Service,
    /// A network policy.
    NetworkPolicy,
    /// A Secret.
    Secret,
    /// A service account.
    ServiceAccount,
    /// A role.
    Role,
    /// A role binding.
    RoleBinding,
    /// A Sandbox.
    Sandbox,
    /// A session. Only users create sessions; the operator deletes an expired session if its user asked for that.
    AigiseSession,
    /// An agent. Only users create agents; the operator deletes an agent together with its session or its parent.
    Agent,
}

/// A type whose objects the operator writes.
pub trait Writable: Resource<DynamicType = ()> {
    /// Its kind.
    const KIND: Kind;
}

macro_rules! writable {
    ($($type:ident),*) => { $(impl Writable for $type { const KIND: Kind = Kind::$type; })* };
}

writable!(
    PersistentVolumeClaim,
    Pod,
    Service,
    NetworkPolicy,
    Secret,
    ServiceAccount,
    Role,
    RoleBinding,
    Sandbox,
    AigiseSession,
    Agent
);

impl Write {
    /// Whether the write creates something that Pods need and that needs nothing itself: a claim, a Service, a network policy, a Secret. Such
    /// writes do not depend on each other.
    pub fn is_groundwork(&self) -> bool {
        match self {
            Write::Create(Created::Claim(_))
            | Write::Apply(Applied::Service(_) | Applied::NetworkPolicy(_) | Applied::Secret(_)) => true,
            Write::Create(Created::Pod(_) | Created::Sandbox(_))
            | Write::Apply(Applied::ServiceAccount(_) | Applied::Role(_) | Applied::RoleBinding(_))
            | Write::Replace(_)
            | Write::PatchClaim(_)
            | Write::PatchPod(_)
            | Write::Delete(_) => false,
        }
    }

    /// Deletes this object, if it still has the version on which the decision is based.
    pub fn delete<K: Writable>(live: &K) -> Self {
        let ObjectMeta { name, uid, resource_version, .. } = live.meta();
        let name = name.clone().unwrap_or_default();
        Write::Delete(Target { kind: K::KIND, name, uid: uid.clone(), version: resource_version.clone() })
    }

    /// Deletes this object even if it has changed.
    pub fn delete_any_version<K: Writable>(live: &K) -> Self {
        match Self::delete(live) {
            Write::Delete(target) => Write::Delete(Target { version: None, ..target }),
            other => other,
        }
    }

    /// The verb, for log lines.
    pub fn verb(&self) -> &'static str {
        match self {
            Write::Create(_) => "create",
            Write::Apply(_) => "apply",
            Write::Replace(_) => "replace",
            Write::PatchClaim(_) | Write::PatchPod(_) => "patch",
            Write::Delete(_) => "delete",
        }
    }

    /// The kind of the object that is written.
    pub fn kind(&self) -> Kind {
        match self {
            Write::Create(Created::Claim(_)) | Write::PatchClaim(_) => Kind::PersistentVolumeClaim,
            Write::Create(Created::Pod(_)) | Write::PatchPod(_) => Kind::Pod,
            Write::Create(Created::Sandbox(_)) | Write::Replace(_) => Kind::Sandbox,
            Write::Apply(Applied::Service(_)) => Kind::Service,
            Write::Apply(Applied::NetworkPolicy(_)) => Kind::NetworkPolicy,
            Write::Apply(Applied::Secret(_)) => Kind::Secret,
            Write::Apply(Applied::ServiceAccount(_)) => Kind::ServiceAccount,
            Write::Apply(Applied::Role(_)) => Kind::Role,
            Write::Apply(Applied::RoleBinding(_)) => Kind::RoleBinding,
            Write::Delete(target) => target.kind,
        }
    }

    /// The name of the object that is written.
    pub fn name(&self) -> &str {
        let meta = match self {
            Write::Create(Created::Claim(claim)) | Write::PatchClaim(claim) => &claim.metadata,
            Write::Create(Created::Pod(pod)) | Write::PatchPod(pod) => &pod.metadata,
            Write::Create(Created::Sandbox(sandbox)) | Write::Replace(sandbox) => &sandbox.metadata,
            Write::Apply(Applied::Service(service)) => &service.metadata,
            Write::Apply(Applied::NetworkPolicy(policy)) => &policy.metadata,
            Write::Apply(Applied::Secret(secret)) => &secret.metadata,
            Write::Apply(Applied::ServiceAccount(account)) => &account.metadata,
            Write::Apply(Applied::Role(role)) => &role.metadata,
            Write::Apply(Applied::RoleBinding(binding)) => &binding.metadata,
            Write::Delete(target) => return &target.name,
        };
        meta.name.as_deref().unwrap_or_default()
    }
}

/// The state of the written object after a write, by kind.
#[derive(Clone, Debug)]
pub enum Outcome {
    /// A claim.
    Claim(ChildState<PersistentVolumeClaim>),
    /// A Pod.
    Pod(ChildState<Pod>),
    /// A Service.
    Service(ChildState<Service>),
    /// A network policy.
    NetworkPolicy(ChildState<NetworkPolicy>),
    /// A Secret.
    Secret(ChildState<Secret>),
    /// A service account.
    ServiceAccount(ChildState<ServiceAccount>),
    /// A role.
    Role(ChildState<Role>),
    /// A role binding.
    RoleBinding(ChildState<RoleBinding>),
    /// A Sandbox.
    Sandbox(ChildState<Sandbox>),
    /// A session.
    Session(ChildState<AigiseSession>),
    /// An agent.
    Agent(ChildState<Agent>),
}

/// Why a write did not lead to the object that was planned.
#[derive(Clone, Copy, Debug)]
pub enum Trouble<'a> {
    /// The write failed.
    Failed(&'a Failure),
    /// An object that the operator does not own has the name.
    Foreign(&'a Foreign),
}

impl Outcome {
    /// Why the write did not succeed, if it did not.
    pub fn trouble(&self) -> Option<Trouble<'_>> {
        fn of<K>(child: &ChildState<K>) -> Option<Trouble<'_>> {
            match child {
                ChildState::Owned(_) | ChildState::Absent => None,
                ChildState::Failed(failure) => Some(Trouble::Failed(failure)),
                ChildState::Foreign(foreign) => Some(Trouble::Foreign(foreign)),
            }
        }
        match self {
            Outcome::Claim(child) => of(child),
            Outcome::Pod(child) => of(child),
            Outcome::Service(child) => of(child),
            Outcome::NetworkPolicy(child) => of(child),
            Outcome::Secret(child) => of(child),
            Outcome::ServiceAccount(child) => of(child),
            Outcome::Role(child) => of(child),
            Outcome::RoleBinding(child) => of(child),
            Outcome::Sandbox(child) => of(child),
            Outcome::Session(child) => of(child),
            Outcome::Agent(child) => of(child),
        }
    }
}
