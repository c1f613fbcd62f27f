//! Reports objects that cannot be read, once for each version of the object. The operator does not touch them otherwise.

use std::time::Duration;

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{api::ObjectMeta, runtime::reflector::ObjectRef};
use tracing::debug;

use super::{Context, cache::Stored, kind::Reconciled, work_queue::Action};
use crate::{
    api::condition::Reason,
    apply,
    plan::{ObjectEvent, status},
    reading::{Said, Unreadable},
};

/// The shortest time between two reports that the same object cannot be read.
pub(super) const INTERVAL: Duration = Duration::from_secs(60);

impl<K: Reconciled> Context<K> {
    /// Reports in the status and in an event that an object cannot be read, once for each version of the object.
    pub(super) async fn report_unreadable(&self, unreadable: &Unreadable) -> Action {
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
        let values = status::standard(status::KStatus::Stalled, Reason::Unreadable, &message);
        let conditions = status::conditions(values, &[], metadata.generation, self.shared.now());
        let status = serde_json::json!({"observedGeneration": metadata.generation, "conditions": conditions});
        // If the API server refuses the status, the event still reports the problem.
        let written =
            apply::status_of_unreadable::<K>(&self.shared.client, self.shared.counter(), metadata, &status).await;
        let next = match &written {
            Err(kube::Error::Api(refusal)) if (400..500).contains(&refusal.code) => Action::await_change(),
            Err(_) => Action::requeue(INTERVAL),
            Ok(()) => Action::await_change(),
        };
        if let Err(error) = written {
            debug!(controller = K::CONTROLLER, name = metadata.name, namespace = metadata.namespace, %error,
                "the status of an object that cannot be read could not be written");
        }
        let about = ObjectRef::<Stored<K>>::new(metadata.name.as_deref().unwrap_or_default())
            .within(metadata.namespace.as_deref().unwrap_or_default());
        let mut about = ObjectReference::from(about);
        about.uid.clone_from(&metadata.uid);
        let event = ObjectEvent { warning: true, reason: Reason::Unreadable, message };
        self.shared.event_recorder.record(&about, &event).await;
        next
    }

    /// Removes the report that an object cannot be read. The object can be read again, and its own status was just written.
    pub(super) async fn forget_unreadable(&self, object: &K) {
        if !object.conditions().iter().any(Unreadable::is_said_in) {
            return;
        }
        let object = ObjectMeta { resource_version: None, ..object.meta().clone() };
        let nothing = serde_json::json!({});
        if let Err(error) =
            apply::status_of_unreadable::<K>(&self.shared.client, self.shared.counter(), &object, &nothing).await
        {
            debug!(controller = K::CONTROLLER, name = object.name, namespace = object.namespace, %error,
                "the report that an object could not be read could not be removed");
        }
    }
}
