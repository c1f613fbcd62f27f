//! Deletes the caches of sessions that are not kept any longer: once a minute, one namespace after the other. No object changes when a
//! cache becomes too old, so this is a timer and not a controller.

use std::time::Duration;

use kube::api::ObjectMeta;
use tracing::{Instrument, info_span, warn};

use super::{RECONCILE_TIMEOUT, Shared, Stop};
use crate::{
    apply,
    plan::{Outcome, Write, collection},
};

/// How often caches are looked at.
const INTERVAL: Duration = Duration::from_secs(60);

/// How many caches of a namespace are deleted in a pass; the next pass deletes more.
const PER_PASS: usize = 32;

/// Collects caches until `stop` resolves.
pub(super) async fn run(shared: Shared, stop: Stop) {
    let passes = async {
        loop {
            tokio::time::sleep(INTERVAL).await;
            for namespace in shared.caches.entries_in.namespaces() {
                if tokio::time::timeout(RECONCILE_TIMEOUT, collect(&shared, &namespace)).await.is_err() {
                    warn!(namespace, "deleting old caches takes long; it goes on in a minute");
                }
            }
        }
    };
    tokio::select! {
        () = passes => {}
        () = stop => {}
    }
}

/// Deletes what is not kept of a namespace. What the API server refuses is decided again in the next pass.
async fn collect(shared: &Shared, namespace: &str) {
    // Other work may be done between two namespaces.
    tokio::task::yield_now().await;
    let entries = shared.caches.entries_in.committed(namespace).into_iter().collect();
    let in_use = shared.caches.entries_in.in_use(namespace);
    let collected = collection::collected(entries, shared.settings.cache_limits, &in_use, shared.now());
    let nobody = ObjectMeta { namespace: Some(namespace.into()), ..ObjectMeta::default() };
    for (target, exceeded) in collected.into_iter().take(PER_PASS) {
        let reason = exceeded.into();
        let record = |_: &str, outcome: Outcome| {
            if outcome.trouble().is_none() {
                shared.metrics.collected(reason);
            }
        };
        let writes = vec![Write::Delete(target)];
        let deletion = apply::execute(&shared.client, shared.counter(), &shared.lines, &nobody, writes, record);
        deletion.instrument(info_span!("collection", namespace, reason)).await;
    }
}
