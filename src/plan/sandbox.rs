//! One Sandbox: from its specification to a Pod that can be worked in.
//!
//! The walk of a sandbox whose image is there (`tests/walks/sandbox-happy-path.yaml` prints it):
//!
//! | sees | stage | does | says |
//! |---|---|---|---|
//! | no Pod | `NoPod` | creates the Pod | nothing yet: the scheduler is about to speak |
//! | a Pod with a node | `Pod(Waiting)` | | `Ready=False`, `ContainerCreating` |
//! | the container runs and is ready | `Pod(Ready)` | | `Ready=True`; `state: ready` |
//! | the Pod is being deleted | `Pod(Terminating)` | | `Ready=False`, `PodTerminating` |
//! | the container ended | `Pod(Ended)` | | `state: error`, with how it ended |

mod pod;
mod stage;
mod summary;

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

pub use self::stage::{Stage, check_template};
use super::{Child, Landed, Report, Settings, Slot, Write, name, pod::Progress};
use crate::api::{AigiseSession, Sandbox, SandboxStatus};

/// All that is known of a sandbox when it is decided about.
#[derive(Clone, Debug)]
pub struct Observed {
    /// The Sandbox itself.
    pub sandbox: Arc<Sandbox>,
    /// The session that it names, if there is one of that name.
    pub session: Option<Arc<AigiseSession>>,
    /// Its Pod, which has its name.
    pub pod: Slot<Pod>,
}

impl Observed {
    /// Takes in what a write left: a sandbox makes nothing but its Pod.
    pub fn absorb(&mut self, landed: Landed) {
        if let Landed::Pod(pod) = landed {
            self.pod = pod;
        }
    }

    fn label(&self) -> Result<name::Label, name::NameError> {
        name::Label::of(&self.sandbox.spec.sandbox_type)
    }

    /// The sandbox's DNS name, if it has a session to be found in.
    #[must_use]
    pub fn hostname(&self) -> Option<String> {
        let session = self.session.as_ref()?;
        let label = self.label().ok()?;
        Some(name::host(&label, &session.name_any(), &session.namespace().unwrap_or_default()))
    }
}

/// The writes that bring the sandbox further.
#[must_use]
pub fn plan(observed: &Observed, settings: &Settings) -> Vec<Write> {
    match Stage::of(observed) {
        Stage::NoPod(label) => vec![Write::Ensure(Child::Pod(Box::new(pod::pod(observed, &label, settings))))],
        // Not ready and made from an older template: the next start is now.
        Stage::Pod(progress)
            if progress != Progress::Terminating && progress != Progress::Ready && is_outdated(observed) =>
        {
            let pod = observed.pod.ours();
            pod.map(|pod| Write::Delete(Child::Pod(Box::new(Pod::clone(pod))))).into_iter().collect()
        }
        Stage::Pod(_) | Stage::Terminating | Stage::Blocked(_) | Stage::NameTaken(_) | Stage::Failed(_) => vec![],
    }
}

/// What to say about the sandbox.
#[must_use]
pub fn report(observed: &Observed, now: Timestamp) -> Report<SandboxStatus> {
    summary::report(observed, now)
}

/// Whether the Pod was made from another template than the Sandbox has now.
fn is_outdated(observed: &Observed) -> bool {
    observed.pod.ours().is_some_and(|pod| {
        super::pod::annotation(pod, crate::api::meta::TEMPLATE_HASH)
            != Some(pod::template_hash(&observed.sandbox.spec.template).as_str())
    })
}
