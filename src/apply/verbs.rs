//! Create, apply and delete, each with the check that keeps it off what is not ours.

use std::sync::{Arc, atomic::AtomicU64};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{
    Api, Client, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions},
};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
};

use super::Object;
use crate::{
    api::{condition::Reason, meta},
    plan::{Failure, Slot, ownership},
};

/// The writes to the API server, by kind and verb.
#[derive(Clone, Debug, Default)]
pub struct WriteCounter(pub Family<WriteLabels, Counter<u64, AtomicU64>>);

/// The labels of [`WriteCounter`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct WriteLabels {
    kind: String,
    verb: &'static str,
}

impl WriteCounter {
    pub(super) fn count(&self, kind: &str, verb: &'static str) {
        self.0.get_or_create(&WriteLabels { kind: kind.to_string(), verb }).inc();
    }
}

/// Writes children of one owner.
pub(super) struct Writer<'a> {
    pub(super) client: &'a Client,
    pub(super) counter: &'a WriteCounter,
    pub(super) owner: &'a ObjectMeta,
}

impl Writer<'_> {
    fn api<K: Object>(&self) -> Api<K> {
        Api::namespaced(self.client.clone(), self.owner.namespace.as_deref().unwrap_or_default())
    }

    fn slot<K: Object>(&self, object: K) -> Slot<K> {
        ownership::slot(Some(Arc::new(object)), self.owner)
    }

    /// Makes the object. Where the name is taken already, what has it is looked at: a retry meets what it made before.
    pub(super) async fn create<K: Object>(&self, object: K) -> Slot<K> {
        let api = self.api::<K>();
        let params = PostParams { field_manager: Some(meta::MANAGER.into()), ..PostParams::default() };
        let name = object.name_any();
        self.counter.count(&K::kind(&()), "create");
        match api.create(&params, &object).await {
            Ok(made) => self.slot(made),
            Err(kube::Error::Api(status)) if status.is_already_exists() => self.look(&name).await,
            Err(error) => Slot::Failed(failed::<K>(&name, &error)),
        }
    }

    /// Makes the object be as it is here. Server-side apply has no create-only form, so the first apply looks first and does
    /// not force: a stranger that appears in between and says something else is a conflict. Later ones are pinned by the UID
    /// in the object.
    pub(super) async fn apply<K: Object>(&self, object: K) -> Slot<K> {
        let name = object.name_any();
        let mut params = PatchParams::apply(meta::MANAGER);
        if object.uid().is_some() {
            params = params.force();
        } else {
            match self.look::<K>(&name).await {
                Slot::Absent => {}
                found => return found,
            }
        }
        self.counter.count(&K::kind(&()), "apply");
        match self.api::<K>().patch(&name, &params, &Patch::Apply(&object)).await {
            Ok(applied) => self.slot(applied),
            Err(kube::Error::Api(status)) if status.is_conflict() => self.look(&name).await,
            Err(error) => Slot::Failed(failed::<K>(&name, &error)),
        }
    }

    /// Deletes exactly this object; one that changed since it was looked at, if the object carries a version, is left.
    #[expect(clippy::disallowed_methods, reason = "the one place that deletes; the UID is a precondition")]
    pub(super) async fn delete<K: Object>(&self, object: &K) -> Slot<K> {
        let params = DeleteParams {
            preconditions: Some(Preconditions { uid: object.uid(), resource_version: object.resource_version() }),
            ..DeleteParams::background()
        };
        let name = object.name_any();
        self.counter.count(&K::kind(&()), "delete");
        match self.api::<K>().delete(&name, &params).await {
            Ok(either) => either.either(|going| self.slot(going), |_| Slot::Absent),
            Err(kube::Error::Api(status)) if status.is_not_found() => Slot::Absent,
            Err(kube::Error::Api(status)) if status.is_conflict() => self.look(&name).await,
            Err(error) => Slot::Failed(failed::<K>(&name, &error)),
        }
    }

    async fn look<K: Object>(&self, name: &str) -> Slot<K> {
        match self.api::<K>().get_opt(name).await {
            Ok(found) => ownership::slot(found.map(Arc::new), self.owner),
            Err(error) => Slot::Failed(failed::<K>(name, &error)),
        }
    }
}

fn failed<K: Object>(name: &str, error: &kube::Error) -> Failure {
    let Failure { reason, message } = failure(error);
    Failure { reason, message: format!("{} {name}: {message}", K::kind(&())) }
}

/// What an error means for the object that it happened to.
#[must_use]
pub fn failure(error: &kube::Error) -> Failure {
    match error {
        kube::Error::Api(status) => {
            let causes = status.details.iter().flat_map(|details| &details.causes);
            let reason = match status.code {
                403 if causes.into_iter().any(|cause| cause.reason == "NamespaceTerminating") => Reason::Terminating,
                400 | 422 => Reason::Refused,
                403 => Reason::Forbidden,
                _ => Reason::ApiError,
            };
            Failure { reason, message: format!("the API server refused it: {}", status.message) }
        }
        other => Failure { reason: Reason::ApiError, message: format!("the API server could not be reached: {other}") },
    }
}
