//! The only writer. It walks a plan in order and has no choices left: what to write was decided in `plan`.

mod verbs;

use k8s_openapi::{
    NamespaceResourceScope,
    api::{
        core::v1::{PersistentVolumeClaim, Pod, Secret, Service, ServiceAccount},
        networking::v1::NetworkPolicy,
        rbac::v1::{Role, RoleBinding},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{
    Client, Resource, ResourceExt,
    api::{Patch, PatchParams},
};
use serde::Serialize;
use serde_json::json;

use self::verbs::Writer;
pub use self::verbs::{WriteCounter, failure};
use crate::{
    api::{Agent, AigiseSession, Sandbox, meta},
    plan::{Child, ChildState, Landed, Write},
    reading::{
        Kept,
        live::{self, Decoded},
    },
};

/// What every kind that we write has in common.
pub trait Object: Kept + Resource<Scope = NamespaceResourceScope> + Serialize {}
impl<K> Object for K where K: Kept + Resource<Scope = NamespaceResourceScope> + Serialize {}

/// Makes the writes in order, tells what each left, and stops at the first that did not succeed: what comes later may rest on
/// what comes before.
pub async fn execute(
    client: &Client,
    counter: &WriteCounter,
    owner: &ObjectMeta,
    writes: Vec<Write>,
    mut landed: impl FnMut(&str, Landed),
) {
    for write in writes {
        let name = write.child().name().to_string();
        let writer = Writer { client, counter, owner };
        let left = writer.write(write).await;
        let succeeded = left.succeeded();
        landed(&name, left);
        if !succeeded {
            return;
        }
    }
}

impl Writer<'_> {
    async fn write(&self, write: Write) -> Landed {
        match write {
            Write::Ensure(child) => match child {
                Child::Claim(claim) => Landed::Claim(self.create(*claim).await),
                Child::Pod(pod) => Landed::Pod(self.create(*pod).await),
                Child::Service(service) => Landed::Service(self.apply(*service).await),
                Child::NetworkPolicy(policy) => Landed::NetworkPolicy(self.apply(*policy).await),
                Child::Secret(secret) => Landed::Secret(self.apply(*secret).await),
                Child::ServiceAccount(account) => Landed::ServiceAccount(self.apply(*account).await),
                Child::Role(role) => Landed::Role(self.apply(*role).await),
                Child::RoleBinding(binding) => Landed::RoleBinding(self.apply(*binding).await),
                Child::Sandbox(sandbox) => Landed::Sandbox(self.create(*sandbox).await),
                // Users make these.
                Child::Session(session) => Landed::Session(self.look(&session.name_any()).await),
                Child::Agent(agent) => Landed::Agent(self.look(&agent.name_any()).await),
            },
            Write::Update(child) => match child {
                Child::Claim(claim) => {
                    let size = claim.spec.as_ref().and_then(|spec| spec.resources.as_ref()?.requests.as_ref());
                    let changes = json!({"spec": {"resources": {"requests": size}}});
                    Landed::Claim(self.patch(&*claim, changes).await)
                }
                Child::Pod(pod) => Landed::Pod(self.patch(&*pod, json!({})).await),
                Child::Sandbox(sandbox) => Landed::Sandbox(self.replace(*sandbox).await),
                Child::Service(service) => Landed::Service(self.apply(*service).await),
                Child::NetworkPolicy(policy) => Landed::NetworkPolicy(self.apply(*policy).await),
                Child::Secret(secret) => Landed::Secret(self.apply(*secret).await),
                Child::ServiceAccount(account) => Landed::ServiceAccount(self.apply(*account).await),
                Child::Role(role) => Landed::Role(self.apply(*role).await),
                Child::RoleBinding(binding) => Landed::RoleBinding(self.apply(*binding).await),
                Child::Session(session) => Landed::Session(self.look(&session.name_any()).await),
                Child::Agent(agent) => Landed::Agent(self.look(&agent.name_any()).await),
            },
            Write::Delete(child) => match child {
                Child::Claim(claim) => Landed::Claim(self.delete(&*claim).await),
                Child::Pod(pod) => Landed::Pod(self.delete(&*pod).await),
                Child::Service(service) => Landed::Service(self.delete(&*service).await),
                Child::NetworkPolicy(policy) => Landed::NetworkPolicy(self.delete(&*policy).await),
                Child::Secret(secret) => Landed::Secret(self.delete(&*secret).await),
                Child::ServiceAccount(account) => Landed::ServiceAccount(self.delete(&*account).await),
                Child::Role(role) => Landed::Role(self.delete(&*role).await),
                Child::RoleBinding(binding) => Landed::RoleBinding(self.delete(&*binding).await),
                Child::Sandbox(sandbox) => Landed::Sandbox(self.delete(&*sandbox).await),
                Child::Session(session) => Landed::Session(self.delete(&*session).await),
                Child::Agent(agent) => Landed::Agent(self.delete(&*agent).await),
            },
        }
    }
}

impl Landed {
    fn succeeded(&self) -> bool {
        fn of<K>(child: &ChildState<K>) -> bool {
            matches!(child, ChildState::Owned(_) | ChildState::Absent)
        }
        match self {
            Landed::Claim(child) => of::<PersistentVolumeClaim>(child),
            Landed::Pod(child) => of::<Pod>(child),
            Landed::Service(child) => of::<Service>(child),
            Landed::NetworkPolicy(child) => of::<NetworkPolicy>(child),
            Landed::Secret(child) => of::<Secret>(child),
            Landed::ServiceAccount(child) => of::<ServiceAccount>(child),
            Landed::Role(child) => of::<Role>(child),
            Landed::RoleBinding(child) => of::<RoleBinding>(child),
            Landed::Sandbox(child) => of::<Sandbox>(child),
            Landed::Session(child) => of::<AigiseSession>(child),
            Landed::Agent(child) => of::<Agent>(child),
        }
    }
}

/// Writes an object's status by server-side apply, so that conditions of other managers stay. It speaks of the version that was
/// decided about: one that was on its way for long neither covers a newer one nor lands on an object made anew under the name.
///
/// # Errors
/// What the API server said; a conflict where the object has changed since.
pub async fn status<K: Object>(
    client: &Client,
    counter: &WriteCounter,
    object: &K,
    status: &impl Serialize,
) -> kube::Result<Decoded<K>> {
    let request = status_request::<K>(object.meta(), meta::MANAGER, status);
    counter.count(&K::kind(&()), "status");
    live::send(client, request?, K::PROJECTION).await
}

/// Says of an object that cannot be read that this is so. The rest of its status stays as it is: what is said here belongs to a
/// field manager of its own.
///
/// # Errors
/// What the API server said.
pub async fn status_of_unreadable<K: Object>(
    client: &Client,
    counter: &WriteCounter,
    object: &ObjectMeta,
    status: &impl Serialize,
) -> kube::Result<()> {
    let request = status_request::<K>(object, meta::MANAGER_OF_UNREADABLE, status);
    counter.count(&K::kind(&()), "status");
    // The answer is as large as the object.
    client.request_stream(request?).await.map(drop)
}

fn status_request<K: Object>(object: &ObjectMeta, manager: &str, status: &impl Serialize) -> verbs::Built {
    let mut patch = json!({"apiVersion": K::api_version(&()), "kind": K::kind(&()), "metadata": {}, "status": status});
    if let Some(version) = &object.resource_version {
        patch["metadata"]["resourceVersion"] = json!(version);
    }
    let name = object.name.as_deref().unwrap_or_default();
    let params = PatchParams::apply(manager).force();
    let requests = live::requests::<K>(object.namespace.as_deref());
    verbs::built(requests.patch_subresource("status", name, &params, &Patch::Apply(patch)))
}
