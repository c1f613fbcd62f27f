//! The sandbox controller.

use std::sync::Arc;

use futures::channel::mpsc::UnboundedReceiver;
use kube::{
    ResourceExt,
    runtime::{controller::Action, reflector::ObjectRef},
};

use super::{Context, Error, now};
use crate::{
    api::Sandbox,
    apply,
    plan::{
        ownership,
        sandbox::{self, Observed},
    },
};

/// Runs the controller until it is told to stop.
pub async fn run(
    context: Arc<Context<Sandbox>>,
    triggers: UnboundedReceiver<ObjectRef<Sandbox>>,
    concurrency: u16,
    stop: impl Future<Output = ()> + Send + Sync + 'static,
) {
    super::run(context, triggers, concurrency, stop, reconcile).await;
}

async fn reconcile(sandbox: Arc<Sandbox>, context: Arc<Context<Sandbox>>) -> Result<Action, Error> {
    let mut observed = observe(sandbox, &context);
    let writes = sandbox::plan(&observed, &context.settings);
    let owner = observed.sandbox.metadata.clone();
    apply::execute(&context.client, context.counter(), &owner, writes, |_, landed| observed.absorb(landed)).await;
    let report = sandbox::report(&observed, now());
    context.publish(&*observed.sandbox, report).await
}

fn observe(sandbox: Arc<Sandbox>, context: &Context<Sandbox>) -> Observed {
    let namespace = sandbox.namespace().unwrap_or_default();
    let session = sandbox.spec.session.as_deref();
    Observed {
        session: session.and_then(|name| context.caches.sessions.get(&ObjectRef::new(name).within(&namespace))),
        pod: ownership::slot(
            context.caches.pods.get(&ObjectRef::new(&sandbox.name_any()).within(&namespace)),
            &sandbox.metadata,
        ),
        sandbox,
    }
}
