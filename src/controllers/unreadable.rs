//! Objects that cannot be read: each is told by its name, once for each version, and left alone.

use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{api::ObjectMeta, runtime::reflector::ObjectRef};
use tracing::debug;

use super::{Context, cache::Stored, work_queue::Action};
use crate::{
    api::condition::Reason,
    apply::{self, Object},
    plan::{ObjectEvent, status},
    reading::{Said, Unreadable},
};

/// At most one write in this time that says that an object cannot be read.
pub(super) const INTERVAL: Duration = Duration::from_secs(60);

impl<K: Object> Context<K> {
    /// Says of an object that cannot be read that this is so, once for each version of it, and leaves it alone.
    pub(super) async fn tell_unreadable(&self, unreadable: &Unreadable) -> Action {
        let metadata = &unreadable.metadata;
        let uid = metadata.uid.clone().unwrap_or_default();
        let message = unreadable.message();
        let said = Said {
            reason: Reason::Unreadable.to_string(),
            message: message.clone(),
            observed_generation: metadata.generation,
        };
        if unreadable.said.as_ref() == Some(&said) {
            return Action::await_change();
        }
        if let Some(wait) = self.rare.wait(&uid) {
            return Action::requeue(wait);
        }
        self.rare.done(uid);
        let verdicts = status::standard(status::KStatus::Stalled, Reason::Unreadable, &message);
        let conditions = status::conditions(verdicts, &[], metadata.generation, self.now());
        let status = serde_json::json!({"observedGeneration": metadata.generation, "conditions": conditions});
        // What the API server does not take of such an object is in the event at least.
        let written = apply::status_of_unreadable::<K>(&self.client, self.counter(), metadata, &status).await;
        let next = match &written {
            Err(kube::Error::Api(refusal)) if (400..500).contains(&refusal.code) => Action::await_change(),
            Err(_) => Action::requeue(INTERVAL),
            Ok(()) => Action::await_change(),
        };
        if let Err(error) = written {
            debug!(controller = self.name, name = metadata.name, namespace = metadata.namespace, %error,
                "the status of an object that cannot be read could not be written");
        }
        let about = ObjectRef::<Stored<K>>::new(metadata.name.as_deref().unwrap_or_default())
            .within(metadata.namespace.as_deref().unwrap_or_default());
        let mut about = ObjectReference::from(about);
        about.uid.clone_from(&metadata.uid);
        let note = ObjectEvent { warning: true, reason: Reason::Unreadable, message };
        self.event_recorder.record(&about, &note).await;
        next
    }

    /// An object that can be read again, and whose own status was just written: what was said of it before is nobody's now.
    pub(super) async fn forget_unreadable(&self, object: &K) {
        if !object.conditions().iter().any(Unreadable::is_said_in) {
            return;
        }
        let object = ObjectMeta { resource_version: None, ..object.meta().clone() };
        let nothing = serde_json::json!({});
        if let Err(error) = apply::status_of_unreadable::<K>(&self.client, self.counter(), &object, &nothing).await {
            debug!(controller = self.name, name = object.name, namespace = object.namespace, %error,
                "that an object could not be read could not be taken back");
        }
    }
}
