//! Create, apply, replace, patch and delete, each with a check that protects objects which do not belong to the owner.

use std::sync::{Arc, atomic::AtomicU64};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::{
    Client, ResourceExt,
    api::{DeleteParams, Patch, PatchParams, PostParams, Preconditions, Request},
    core::response::StatusCause,
};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
};

use super::Object;
use crate::{
    api::{condition::Reason, meta},
    plan::{ChildState, Failure, Target, ownership},
    reading::{
        self,
        live::{self, Decoded},
    },
};

/// Counts the writes to the API server, by kind and verb.
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

/// Writes the children of one owner.
pub(super) struct Writer<'a> {
    pub(super) client: &'a Client,
    pub(super) counter: &'a WriteCounter,
    pub(super) owner: &'a ObjectMeta,
}

impl Writer<'_> {
    fn requests<K: Object>(&self) -> Request {
        live::requests::<K>(self.owner.namespace.as_deref())
    }

    /// The state of the child with this name, according to the response to a request.
    fn child_state<K: Object>(&self, name: &str, answer: kube::Result<Decoded<K>>) -> ChildState<K> {
        match answer {
            Ok(Ok(object)) => ownership::child_state(Some(Arc::new(object)), self.owner),
            Ok(Err(unreadable)) => ChildState::Failed(unreadable.failure()),
            Err(error) => ChildState::Failed(failed::<K>(name, &error)),
        }
    }

    async fn send<K: Object>(&self, request: Built) -> kube::Result<Decoded<K>> {
        live::send(self.client, request?, K::PROJECTION).await
    }

    /// Creates the object. If the name is taken, the object that has it is read: a retry finds the object that an earlier attempt created.
    pub(super) async fn create<K: Object>(&self, object: K) -> ChildState<K> {
        let params = PostParams { field_manager: Some(meta::MANAGER.into()), ..PostParams::default() };
        let name = object.name_any();
        self.counter.count(&K::kind(&()), "create");
        let request = text_of(&object).and_then(|text| built(self.requests::<K>().create(&params, text)));
        match self.send(request).await {
            Err(kube::Error::Api(status)) if status.is_already_exists() => match self.look(&name).await {
                // The object was deleted meanwhile, and perhaps no watch event reports that.
                ChildState::Absent => ChildState::Failed(failed::<K>(&name, &kube::Error::Api(status))),
                found => found,
            },
            answer => self.child_state(&name, answer),
        }
    }

    /// Applies the object. Server-side apply has no create-only form. The first apply therefore reads the object beforehand and does not
    /// force: a foreign object that appears in between, with other values, causes a conflict. Later applies are pinned by the UID in the
    /// object.
    pub(super) async fn apply<K: Object>(&self, object: K) -> ChildState<K> {
        let name = object.name_any();
        let mut params = PatchParams::apply(meta::MANAGER);
        if object.uid().is_some() {
            params = params.force();
        } else {
            match self.look::<K>(&name).await {
                ChildState::Absent => {}
                found => return found,
            }
        }
        self.counter.count(&K::kind(&()), "apply");
        let request = built(self.requests::<K>().patch(&name, &params, &Patch::Apply(&object)));
        match self.send(request).await {
            // A foreign object is reported as foreign. Other conflicts, such as one about a quota that many writes update, are retried:
            // nothing was written, so no watch event would trigger a reconcile.
            Err(kube::Error::Api(status)) if status.is_conflict() => match self.look(&name).await {
                ChildState::Owned(_) | ChildState::Absent => {
                    ChildState::Failed(failed::<K>(&name, &kube::Error::Api(status)))
                }
                found => found,
            },
            answer => self.child_state(&name, answer),
        }
    }

    /// Replaces the whole object, if it has not changed since it was read.
    pub(super) async fn replace<K: Object>(&self, object: K) -> ChildState<K> {
        let params = PostParams { field_manager: Some(meta::MANAGER.into()), ..PostParams::default() };
        let name = object.name_any();
        self.counter.count(&K::kind(&()), "update");
        let request = text_of(&object).and_then(|text| built(self.requests::<K>().replace(&name, &params, text)));
        self.changed(&name, self.send(request).await)
    }

    /// Patches these fields, the owner references and the annotations, if the object has not changed since it was read. This is for kinds
    /// that may have unknown fields on a newer API server, which a replacement would drop.
    pub(super) async fn patch<K: Object>(&self, object: &K, mut changes: serde_json::Value) -> ChildState<K> {
        let params = PatchParams { field_manager: Some(meta::MANAGER.into()), ..PatchParams::default() };
        let name = object.name_any();
        changes["metadata"] = serde_json::json!({
            "uid": object.uid(),
            "resourceVersion": object.resource_version(),
            "ownerReferences": object.owner_references(),
            "annotations": object.annotations(),
        });
        self.counter.count(&K::kind(&()), "patch");
        let request = built(self.requests::<K>().patch(&name, &params, &Patch::Merge(&changes)));
        self.changed(&name, self.send(request).await)
    }

    /// The state of the child after a replace or a patch. A conflict is a failure, and the reconcile is retried with the new version of
    /// the object: nothing was written, and the change that caused the conflict may not trigger a reconcile.
    fn changed<K: Object>(&self, name: &str, answer: kube::Result<Decoded<K>>) -> ChildState<K> {
        match answer {
            Err(kube::Error::Api(status)) if status.is_not_found() => ChildState::Absent,
            answer => self.child_state(name, answer),
        }
    }

    /// Deletes exactly this object. If the target has a resource version, an object that has changed since then is not deleted.
    pub(super) async fn delete<K: Object>(&self, target: &Target) -> ChildState<K> {
        let params = DeleteParams {
            preconditions: Some(Preconditions { uid: target.uid.clone(), resource_version: target.version.clone() }),
            ..DeleteParams::background()
        };
        let name = &target.name;
        self.counter.count(&K::kind(&()), "delete");
        let answer = match built(self.requests::<K>().delete(name, &params)) {
            Ok(request) => live::text(self.client, request).await,
            Err(error) => Err(error),
        };
        match answer {
            // A `Status` means that the object is gone; an object in the response is still being deleted.
            Ok(text) if is_status(&text) => ChildState::Absent,
            Ok(text) => match self.child_state::<K>(name, Ok(reading::read(&text).map(|read| read.object))) {
                // The UID matched, so this was the right object, whoever owns it. An owner that needs the name reads it again.
                ChildState::Foreign(_) => ChildState::Absent,
                left => left,
            },
            Err(kube::Error::Api(status)) if status.is_not_found() => ChildState::Absent,
            // This includes a conflict: the next reconcile decides again whether the changed object is deleted.
            Err(error) => ChildState::Failed(failed::<K>(name, &error)),
        }
    }

    pub(super) async fn look<K: Object>(&self, name: &str) -> ChildState<K> {
        let namespace = self.owner.namespace.as_deref().unwrap_or_default();
        match live::get::<K>(self.client, namespace, name, K::PROJECTION).await {
            Ok(None) => ChildState::Absent,
            Ok(Some(reading)) => self.child_state(name, Ok(reading)),
            Err(error) => ChildState::Failed(failed::<K>(name, &error)),
        }
    }
}

/// A request, or why it cannot be made.
pub(super) type Built = kube::Result<http::Request<Vec<u8>>>;

pub(super) fn built(request: Result<http::Request<Vec<u8>>, kube::core::request::Error>) -> Built {
    request.map_err(kube::Error::BuildRequest)
}

fn text_of(object: &impl serde::Serialize) -> kube::Result<Vec<u8>> {
    serde_json::to_vec(object).map_err(kube::Error::SerdeError)
}

/// Whether the response is a `Status`, and not an object.
fn is_status(text: &[u8]) -> bool {
    #[derive(serde::Deserialize)]
    struct Answer {
        kind: String,
    }
    serde_json::from_slice(text).is_ok_and(|Answer { kind }| kind == "Status")
}

fn failed<K: Object>(name: &str, error: &kube::Error) -> Failure {
    let Failure { reason, message } = failure(error);
    Failure { reason, message: format!("{} {name}: {message}", K::kind(&())) }
}

/// The failure that an error means for the object that was read or written.
pub fn failure(error: &kube::Error) -> Failure {
    match error {
        kube::Error::Api(status) => {
            let has_cause =
                |holds: fn(&StatusCause) -> bool| status.details.iter().flat_map(|details| &details.causes).any(holds);
            let says = |words: &&str| status.message.contains(words);
            let reason = match status.code {
                403 if has_cause(|cause| cause.reason == "NamespaceTerminating") => Reason::Terminating,
                // The object was recreated meanwhile: the next reconcile decides with the new one.
                422 if has_cause(|cause| cause.field == "metadata.uid") => Reason::ApiError,
                400 | 422 => Reason::Refused,
                // Only the message distinguishes these causes. The usage of a new quota has not been counted yet, and a new namespace
                // gets its service account a moment later: both resolve without the user.
                403 if ["exceeded quota", "status unknown for quota"].iter().any(says) => Reason::QuotaExceeded,
                403 if says(&"error looking up service account") => Reason::ApiError,
                403 => Reason::Forbidden,
                _ => Reason::ApiError,
            };
            let way_out = if reason == Reason::Forbidden { way_out(&status.message) } else { "" };
            Failure { reason, message: format!("the API server refused it: {}{way_out}", status.message) }
        }
        other => Failure { reason: Reason::ApiError, message: format!("the API server could not be reached: {other}") },
    }
}

/// What a limit range or a quota says about the requests and limits of a Pod.
const ABOUT_RESOURCES: [&str; 5] = [
    " usage per Container is ",
    " usage per Pod is ",
    " ratio per Container is ",
    " ratio per Pod is ",
    "failed quota: ",
];

/// The sentence that follows the API server's message about a Pod whose requests and limits are not allowed. The message does not name
/// the container in every case, so the sentence covers all of them.
fn way_out(message: &str) -> &'static str {
    if message.starts_with("pods ") && ABOUT_RESOURCES.iter().any(|words| message.contains(words)) {
        ". The field `resources` of a sandbox or a container source sets its requests and limits, and the chart value `helper.resources` sets those of the operator's own containers (stage, install-helper and init-report)."
    } else {
        ""
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn failure_of(code: u16, message: &str) -> Failure {
        let status = json!({"status": "Failure", "code": code, "reason": "", "message": message});
        failure(&kube::Error::Api(Box::new(serde_json::from_value(status).unwrap())))
    }

    fn reason(code: u16, message: &str) -> Reason {
        failure_of(code, message).reason
    }

    #[test]
    fn what_passes_by_itself_is_distinguished_from_what_a_person_has_to_change() {
        for (message, expected) in [
            (
                "pods \"p\" is forbidden: exceeded quota: q, requested: pods=1, used: pods=2, limited: pods=2",
                Reason::QuotaExceeded,
            ),
            ("pods \"p\" is forbidden: status unknown for quota: q, resources: pods", Reason::QuotaExceeded),
            (
                "pods \"p\" is forbidden: error looking up service account n/default: serviceaccount \"default\" not found",
                Reason::ApiError,
            ),
            ("pods \"p\" is forbidden: failed quota: q: must specify limits.memory for: sandbox", Reason::Forbidden),
            (
                "pods \"p\" is forbidden: violates PodSecurity \"restricted:latest\": allowPrivilegeEscalation != false",
                Reason::Forbidden,
            ),
            ("pods \"p\" is forbidden: maximum memory usage per Container is 1Gi, but limit is 4Gi", Reason::Forbidden),
        ] {
            assert_eq!(reason(403, message), expected, "{message}");
        }
        assert_eq!(reason(422, "Pod \"p\" is invalid"), Reason::Refused);
        assert_eq!(reason(500, "etcdserver: request timed out"), Reason::ApiError);
    }

    /// The messages are those of Kubernetes' `LimitRanger` and `ResourceQuota`.
    #[test]
    fn a_refusal_of_requests_or_limits_is_followed_by_what_sets_them() {
        for (message, expected) in [
            ("pods \"p\" is forbidden: minimum cpu usage per Container is 50m, but request is 10m", true),
            ("pods \"p\" is forbidden: maximum memory usage per Pod is 256Mi, but limit is 512Mi", true),
            ("pods \"p\" is forbidden: maximum cpu usage per Container is 1.  No limit is specified", true),
            (
                "pods \"p\" is forbidden: [minimum cpu usage per Container is 50m, but request is 10m, cpu max limit to request ratio per Container is 4, but provided ratio is 100.000000]",
                true,
            ),
            (
                "pods \"p\" is forbidden: memory max limit to request ratio per Pod is 4, but no limit is specified or limit is 0",
                true,
            ),
            (
                "pods \"p\" is forbidden: failed quota: q: must specify limits.cpu for: stage; limits.memory for: stage",
                true,
            ),
            ("pods \"p\" is forbidden: exceeded quota: q, requested: cpu=1, used: cpu=2, limited: cpu=2", false),
            ("pods \"p\" is forbidden: violates PodSecurity \"restricted:latest\": runAsNonRoot != true", false),
            (
                "persistentvolumeclaims \"c\" is forbidden: minimum storage usage per PersistentVolumeClaim is 1Gi, but request is 1Mi",
                false,
            ),
            ("persistentvolumeclaims \"c\" is forbidden: failed quota: q: must specify requests.storage", false),
        ] {
            let said = failure_of(403, message).message;
            let rest = said.strip_prefix(&format!("the API server refused it: {message}")).expect(message);
            assert_eq!(rest.starts_with(". ") && rest.contains("`helper.resources`"), expected, "{said}");
            assert_eq!(rest.is_empty(), !expected, "{said}");
        }
    }
}
