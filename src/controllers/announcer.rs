//! Events about objects, for people and their tools.

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Client,
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use tracing::debug;

use crate::{
    api::meta,
    plan::{Note, status},
};

/// How many recorders share the objects among them.
const RECORDERS: usize = 64;

/// Writes events, and counts repeats instead of writing them again.
///
/// The library's recorder goes through all that it has recorded in six minutes for each event, which among thousands of objects
/// was a tenth of what one costs. So there are many, and an object always has the same.
pub(super) struct Announcer(Vec<Recorder>);

impl Announcer {
    /// `instance` is the name of this process.
    pub(super) fn new(client: &Client, instance: Option<&str>) -> Self {
        let reporter = Reporter { controller: meta::MANAGER.into(), instance: instance.map(Into::into) };
        Self((0..RECORDERS).map(|_| Recorder::new(client.clone(), reporter.clone())).collect())
    }

    /// An event is a courtesy: one that cannot be written is logged and forgotten.
    pub(super) async fn announce(&self, about: &ObjectReference, note: &Note) {
        if let Err(error) = self.0[share(about)].publish(&event(note), about).await {
            debug!(%error, "an event could not be written");
        }
    }
}

/// What is told is printable: a part of it may be the words of a program in a sandbox.
fn event(note: &Note) -> Event {
    Event {
        type_: if note.warning { EventType::Warning } else { EventType::Normal },
        reason: note.reason.to_string(),
        note: Some(status::clip(status::printable(&note.message), 1024)),
        action: "Reconcile".into(),
        secondary: None,
    }
}

/// Which recorder an object has.
fn share(about: &ObjectReference) -> usize {
    let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(&about.uid);
    usize::try_from(hash % RECORDERS as u64).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::api::condition::Reason;

    #[test]
    fn what_is_told_is_printable_and_no_longer_than_an_event_may_be() {
        let message = format!("\u{1b}]0;pwned\u{7}{}", "x".repeat(2000));
        let told = event(&Note { warning: true, reason: Reason::StagingFailed, message }).note.unwrap();
        assert!(told.starts_with("\u{fffd}]0;pwned\u{fffd}x") && told.len() <= 1024, "{told}");
    }

    #[test]
    fn objects_are_spread_over_the_recorders() {
        let about = |index| ObjectReference { uid: Some(format!("uid-{index}")), ..ObjectReference::default() };
        let mut shares = BTreeMap::<_, usize>::new();
        for index in 0..6400 {
            *shares.entry(share(&about(index))).or_default() += 1;
        }
        assert_eq!(shares.len(), RECORDERS);
        assert!(shares.values().all(|&objects| objects < 200), "{shares:?}");
    }
}
