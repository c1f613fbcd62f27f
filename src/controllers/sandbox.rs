//! The sandbox controller.

use std::{collections::BTreeSet, sync::Arc};

use futures::channel::mpsc::UnboundedReceiver;
use kube::{
    Api, ResourceExt,
    runtime::{controller::Action, reflector::ObjectRef},
};

use super::{Context, Error, look};
use crate::{
    api::{Agent, Sandbox},
    apply,
    plan::{
        Lookup, ownership,
        sandbox::{self, Observed},
        session,
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
    let mut observed = observe(sandbox, &context).await;
    if sandbox::has_lost_something(&observed) && context.is_gone(&observed.sandbox).await {
        return Ok(Action::await_change());
    }
    let writes = sandbox::plan(&observed);
    let owner = observed.sandbox.metadata.clone();
    apply::execute(&context.client, context.counter(), &owner, writes, |_, landed| observed.absorb(landed)).await;
    let report = sandbox::report(&observed);
    context.publish(&*observed.sandbox, report).await
}

async fn observe(sandbox: Arc<Sandbox>, context: &Context<Sandbox>) -> Observed {
    let caches = &context.caches;
    let namespace = sandbox.namespace().unwrap_or_default();
    let session = match sandbox.spec.session.as_deref() {
        None => Lookup::NotNamed,
        Some(name) => match caches.session(name, &namespace) {
            Some(session) if !sandbox::has_lost(&sandbox, &session) => Lookup::Found(session),
            // That a session is gone, or another one by now, has consequences, so a cache is not believed.
            Some(_) | None => look(Api::namespaced(context.client.clone(), &namespace), name).await,
        },
    };
    let siblings = match sandbox.spec.session.as_deref().filter(|_| sandbox::wants_siblings(&sandbox)) {
        Some(session) => caches.sandboxes_in.of_session(&namespace, session),
        None => BTreeSet::new(),
    };
    let siblings = siblings.iter().filter(|name| **name != sandbox.name_any());
    let siblings = siblings.filter_map(|name| caches.sandboxes.get(&ObjectRef::new(name).within(&namespace)));
    let attached = match &sandbox.spec.template.attach {
        None => Lookup::NotNamed,
        Some(attach) => look(Api::namespaced(context.client.clone(), &namespace), &attach.pod_name).await,
    };
    Observed {
        session: session.map(session::meant),
        siblings: siblings.collect(),
        pod: ownership::slot(caches.pod(&sandbox.name_any(), &namespace), &sandbox.metadata),
        attached,
        agent: runs(&sandbox, context),
        settings: context.settings.clone(),
        now: context.now(),
        sandbox,
    }
}

/// The agent that a sandbox is made for.
fn runs(sandbox: &Sandbox, context: &Context<Sandbox>) -> Option<Arc<Agent>> {
    let owner = ownership::controller(&sandbox.metadata).filter(|_| sandbox::is_runner(sandbox))?;
    let reference = ObjectRef::new(&owner.name).within(&sandbox.namespace()?);
    context.caches.agents.get(&reference).filter(|agent| agent.uid().as_ref() == Some(&owner.uid))
}
