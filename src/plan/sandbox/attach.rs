//! A sandbox that attaches to an existing Pod. The operator reads the Pod and never changes it. The Pod's owner decides by an annotation
//! which sandbox or session may attach. The sandbox pins the Pod's UID, so it never switches silently to another Pod of the same name.

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

use super::Observed;
use crate::{
    api::{condition::Reason, meta, sandbox::Pin, template::Attach},
    plan::{
        Failure, Lookup,
        facts::restart_request,
        ownership,
        pod::{Progress, annotation},
    },
};

/// The state of an attached sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attachment {
    /// The Pod does not exist.
    Missing(String),
    /// The sandbox may not attach to the Pod, or the Pod has been replaced by another one.
    Refused(Failure),
    /// The Pod could not be read.
    Unknown(Failure),
    /// The sandbox is attached to the Pod.
    To {
        /// The progress of the Pod.
        progress: Progress,
        /// The pin that identifies the Pod.
        pin: Pin,
    },
}

impl Attachment {
    /// The state of the attachment, from the Pod to which the sandbox attaches.
    pub(super) fn of(observed: &Observed, attach: &Attach) -> Self {
        let name = &attach.pod_name;
        match &observed.attached {
            Lookup::NotNamed | Lookup::Missing => Attachment::Missing(format!("There is no Pod {name}.")),
            Lookup::Failed(failure) => Attachment::Unknown(failure.clone()),
            Lookup::Found(pod) => to(observed, attach, pod).unwrap_or_else(Attachment::Refused),
        }
    }

    /// The pin that identifies the Pod.
    pub(super) fn pin(&self) -> Option<&Pin> {
        match self {
            Attachment::To { pin, .. } => Some(pin),
            Attachment::Missing(_) | Attachment::Refused(_) | Attachment::Unknown(_) => None,
        }
    }
}

fn to(observed: &Observed, attach: &Attach, pod: &Pod) -> Result<Attachment, Failure> {
    let name = &attach.pod_name;
    let sandbox = &observed.sandbox;
    let refused = |reason, message| Err(Failure { reason, message });
    if ownership::label(&pod.metadata, meta::MANAGED_BY) == Some(meta::MANAGER) {
        return refused(
            Reason::NotAttachable,
            format!("The Pod {name} belongs to this operator; attach is for other Pods."),
        );
    }
    let wanted = annotation(pod, meta::ATTACHABLE);
    let own_name = sandbox.name_any();
    if wanted != Some(own_name.as_str()) && (wanted.is_none() || wanted != sandbox.spec.session.as_deref()) {
        let owner = sandbox.spec.session.as_deref().unwrap_or(&own_name);
        let message = format!(
            "The owner of the Pod {name} has not allowed the sandbox to attach; to allow it: kubectl annotate pod {name} {}={owner}",
            meta::ATTACHABLE
        );
        return refused(Reason::NotAttachable, message);
    }
    let container = container(attach, pod)?;
    let pin = Pin {
        name: name.clone(),
        uid: pod.uid().unwrap_or_default(),
        restart: restart_request(&**sandbox).map(String::from),
    };
    let before = sandbox.status.as_ref().and_then(|status| status.attached.as_ref());
    let is_another = |before: &&Pin| before.name == pin.name && before.uid != pin.uid;
    if let Some(before) = before.filter(is_another).filter(|before| before.restart == pin.restart) {
        let message = format!(
            "The Pod {name} is not the Pod that the sandbox was attached to (UID {}); change the annotation {} of the sandbox to attach to the new Pod.",
            before.uid,
            meta::RESTART
        );
        return refused(Reason::PodReplaced, message);
    }
    Ok(Attachment::To { progress: Progress::of_container(pod, container), pin })
}

fn container<'a>(attach: &'a Attach, pod: &'a Pod) -> Result<&'a str, Failure> {
    let containers = pod.spec.as_ref().map(|spec| spec.containers.as_slice()).unwrap_or_default();
    let names = || containers.iter().map(|container| container.name.as_str()).collect::<Vec<_>>().join(", ");
    let refused = |message| Err(Failure { reason: Reason::NotAttachable, message });
    match (&attach.container, containers) {
        (Some(wanted), _) if containers.iter().any(|container| container.name == *wanted) => Ok(wanted),
        (Some(wanted), _) => refused(format!(
            "attach.container: the Pod {} has no container {wanted}; it has {}.",
            attach.pod_name,
            names()
        )),
        (None, [only]) => Ok(&only.name),
        (None, _) => {
            refused(format!("attach.container: the Pod {} has several containers: {}.", attach.pod_name, names()))
        }
    }
}
