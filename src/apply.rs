//! The only code that writes to the API server. It executes the writes of a plan in order and decides nothing: `plan` has decided what
//! to write, and what can be written at the same time.

pub mod log;
pub mod throttle;
mod verbs;

use futures::future::join_all;
use k8s_openapi::{NamespaceResourceScope, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{
    Client, Resource,
    api::{Patch, PatchParams},
};
use serde::Serialize;
use serde_json::json;

pub use self::verbs::{WriteCounter, failure};
use self::{
    log::{Line, LineLimit},
    verbs::Writer,
};
use crate::{
    api::meta,
    plan::{Applied, ChildState, Created, Kind, Outcome, Write},
    reading::{
        Kept,
        live::{self, Decoded},
    },
};

/// A kind of object that the operator writes.
pub trait Object: Kept + Resource<Scope = NamespaceResourceScope> + Serialize {}
impl<K> Object for K where K: Kept + Resource<Scope = NamespaceResourceScope> + Serialize {}

/// Makes the writes in order, groundwork at the same time, and records the outcome of each. Stops when one did not succeed: later writes may
/// depend on earlier ones.
pub async fn execute(
    client: &Client,
    counter: &WriteCounter,
    lines: &LineLimit,
    owner: &ObjectMeta,
    writes: Vec<Write>,
    mut record: impl FnMut(&str, Outcome),
) {
    let writer = Writer { client, counter, owner };
    let mut rest = writes.into_iter().peekable();
    while let Some(first) = rest.next() {
        let mut at_once = vec![first];
        if at_once[0].is_groundwork() {
            at_once.extend(std::iter::from_fn(|| rest.next_if(Write::is_groundwork)));
        }
        let made = join_all(at_once.into_iter().map(async |write| {
            let (name, line) = (write.name().to_string(), Line::of(&write));
            (name, line, writer.write(write).await)
        }));
        let mut succeeded = true;
        for (name, line, outcome) in made.await {
            line.log(lines, owner.uid.as_deref().unwrap_or_default(), &outcome);
            succeeded &= outcome.trouble().is_none();
            record(&name, outcome);
        }
        if !succeeded {
            return;
        }
    }
}

impl Writer<'_> {
    async fn write(&self, write: Write) -> Outcome {
        match write {
            Write::Create(Created::Claim(claim)) => Outcome::Claim(self.create(*claim).await),
            Write::Create(Created::Pod(pod)) => Outcome::Pod(self.create(*pod).await),
            Write::Create(Created::Sandbox(sandbox)) => Outcome::Sandbox(self.create(*sandbox).await),
            Write::Apply(Applied::Service(service)) => Outcome::Service(self.apply(*service).await),
            Write::Apply(Applied::NetworkPolicy(policy)) => Outcome::NetworkPolicy(self.apply(*policy).await),
            Write::Apply(Applied::Secret(secret)) => Outcome::Secret(self.apply(*secret).await),
            Write::Apply(Applied::ServiceAccount(account)) => Outcome::ServiceAccount(self.apply(*account).await),
            Write::Apply(Applied::Role(role)) => Outcome::Role(self.apply(*role).await),
            Write::Apply(Applied::RoleBinding(binding)) => Outcome::RoleBinding(self.apply(*binding).await),
            Write::Replace(sandbox) => Outcome::Sandbox(self.replace(*sandbox).await),
            Write::PatchClaim(claim) => {
                let size = claim.spec.as_ref().and_then(|spec| spec.resources.as_ref()?.requests.as_ref());
                let changes = json!({"spec": {"resources": {"requests": size}}});
                Outcome::Claim(match self.patch(&*claim, changes).await {
                    // The cache of another session was marked: the UID matched, so it was the right claim.
                    ChildState::Foreign(_) => ChildState::Absent,
                    left => left,
                })
            }
            Write::PatchPod(pod) => {
                // Of a Pod's spec, the operator changes only this field.
                let deadline = pod.spec.as_ref().and_then(|spec| spec.active_deadline_seconds);
                let changes = deadline.map_or(json!({}), |seconds| json!({"spec": {"activeDeadlineSeconds": seconds}}));
                Outcome::Pod(self.patch(&*pod, changes).await)
            }
            Write::Delete(target) => match target.kind {
                Kind::PersistentVolumeClaim => Outcome::Claim(self.delete(&target).await),
                Kind::Pod => Outcome::Pod(self.delete(&target).await),
                Kind::Service => Outcome::Service(self.delete(&target).await),
                Kind::NetworkPolicy => Outcome::NetworkPolicy(self.delete(&target).await),
                Kind::Secret => Outcome::Secret(self.delete(&target).await),
                Kind::ServiceAccount => Outcome::ServiceAccount(self.delete(&target).await),
                Kind::Role => Outcome::Role(self.delete(&target).await),
                Kind::RoleBinding => Outcome::RoleBinding(self.delete(&target).await),
                Kind::Sandbox => Outcome::Sandbox(self.delete(&target).await),
                Kind::AigiseSession => Outcome::Session(self.delete(&target).await),
                Kind::Agent => Outcome::Agent(self.delete(&target).await),
            },
        }
    }
}

/// Writes an object's status by server-side apply, which keeps the conditions of other field managers. The write is pinned to the
/// version on which the status is based: a delayed write neither overwrites a newer status nor reaches an object that was recreated
/// under the name.
///
/// # Errors
/// The API server's error; a conflict if the object has changed meanwhile.
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

/// Reports in the status of an object that the object cannot be read. The rest of the status stays as it is, since this report has a
/// field manager of its own.
///
/// # Errors
/// The API server's error.
pub async fn status_of_unreadable<K: Object>(
    client: &Client,
    counter: &WriteCounter,
    object: &ObjectMeta,
    status: &impl Serialize,
) -> kube::Result<()> {
    let request = status_request::<K>(object, meta::MANAGER_OF_UNREADABLE, status);
    counter.count(&K::kind(&()), "status");
    // The response is as large as the object, so it is not read.
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
