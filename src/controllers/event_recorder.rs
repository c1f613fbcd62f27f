//! Records Kubernetes events about objects.
//!
//! Decided in docs/adr/0013-by-hand-although-a-library-is-near.md.

use std::{
    hash::{BuildHasher, BuildHasherDefault, DefaultHasher},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use k8s_openapi::api::core::v1::ObjectReference;
use kube::{
    Client,
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use tracing::{debug, info};

use crate::{
    api::meta,
    apply::{log::short, throttle::Throttle},
    plan::{ObjectEvent, status},
};

/// The number of recorders that the objects are distributed over.
const RECORDERS: usize = 64;

/// How many events a recorder writes before a new recorder replaces it.
const RECORDED: usize = 64;

/// The burst of events for one object, and the time after which one more is written. Events in between are dropped, as the kubelet
/// does.
const EVENT_BURST: u32 = 25;
const EVENT_REFILL: Duration = Duration::from_secs(300);

/// Writes events, and counts repeated events instead of writing them again.
///
/// The recorder of kube keeps all events of the last six minutes and scans them for each new event. With thousands of objects this
/// took a tenth of the cost of an object, and the number of events has no bound. So there are many recorders: an object always uses
/// the same recorder, and each recorder is replaced after some events. A repeat after the replacement is written as a new event.
pub(super) struct EventRecorder {
    client: Client,
    reporter: Reporter,
    recorders: Vec<Mutex<Share>>,
    throttle: Throttle,
}

/// A recorder, and the number of events that it has written.
struct Share {
    recorder: Recorder,
    written: usize,
}

impl EventRecorder {
    /// `instance` is the name of this process.
    pub(super) fn new(client: &Client, instance: Option<&str>) -> Self {
        let reporter = Reporter { controller: meta::MANAGER.into(), instance: instance.map(Into::into) };
        let fresh = || Mutex::new(Share { recorder: Recorder::new(client.clone(), reporter.clone()), written: 0 });
        let recorders = std::iter::repeat_with(fresh).take(RECORDERS).collect();
        let throttle = Throttle::of(EVENT_BURST, EVENT_REFILL);
        Self { client: client.clone(), reporter, recorders, throttle }
    }

    /// Records an event, best effort: an event that cannot be written is logged and dropped.
    pub(super) async fn record(&self, about: &ObjectReference, event: &ObjectEvent) {
        let uid = about.uid.clone().unwrap_or_default();
        if self.throttle.wait(&uid).is_some() {
            return;
        }
        self.throttle.done(uid);
        info!(event_type = if event.warning { "Warning" } else { "Normal" }, reason = %event.reason, note = short(&event.message), "event");
        if let Err(error) = self.recorder(share(about)).publish(&as_recorded(event), about).await {
            debug!(%error, "an event could not be written");
        }
    }

    /// Returns the recorder with this index, and counts one event for it.
    fn recorder(&self, share: usize) -> Recorder {
        let mut share = self.recorders[share].lock().unwrap_or_else(PoisonError::into_inner);
        if share.written >= RECORDED {
            *share = Share { recorder: Recorder::new(self.client.clone(), self.reporter.clone()), written: 0 };
        }
        share.written += 1;
        share.recorder.clone()
    }
}

/// The event to write. Its message is made printable, since a part of the message may come from a program in a sandbox.
fn as_recorded(event: &ObjectEvent) -> Event {
    Event {
        type_: if event.warning { EventType::Warning } else { EventType::Normal },
        reason: event.reason.to_string(),
        note: Some(status::clip(status::printable(&event.message), 1024)),
        action: "Reconcile".into(),
        secondary: None,
    }
}

/// The index of the recorder that an object uses.
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
    fn what_is_recorded_is_printable_and_no_longer_than_an_event_may_be() {
        let message = format!("\u{1b}]0;pwned\u{7}{}", "x".repeat(2000));
        let recorded =
            as_recorded(&ObjectEvent { warning: true, reason: Reason::StagingFailed, message }).note.unwrap();
        assert!(recorded.starts_with("\u{fffd}]0;pwned\u{fffd}x") && recorded.len() <= 1024, "{recorded}");
    }

    #[tokio::test]
    async fn a_recorder_is_made_anew_after_so_many_events() {
        let config = kube::Config::new("http://localhost".parse().unwrap());
        let event_recorder = EventRecorder::new(&Client::try_from(config).unwrap(), None);
        let mut made = 0;
        for _ in 0..10 * RECORDED {
            event_recorder.recorder(0);
            made += usize::from(event_recorder.recorders[0].lock().unwrap().written == 1);
        }
        assert_eq!(made, 10);
        assert_eq!(event_recorder.recorders[1].lock().unwrap().written, 0);
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
