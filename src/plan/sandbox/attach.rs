//! A sandbox that works in a Pod which is there already. The Pod is looked at and never changed: its owner says by an annotation who
//! may attach to it, and it is pinned by its UID, so that nobody is put into another Pod of the same name unawares.

use k8s_openapi::api::core::v1::Pod;
use kube::ResourceExt;

use super::Observed;
use crate::{
    api::{condition::Reason, meta, sandbox::Pin, template::Attach},
    plan::{
        Failure, Lookup, ownership,
        pod::{Progress, annotation},
    },
};

/// How an attached sandbox stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Attachment {
    /// The Pod is not there.
    Missing(String),
    /// The Pod may not be attached to, or is another one now.
    Refused(Failure),
    /// The Pod could not be read.
    Unknown(Failure),
    /// It is attached.
    To {
        /// How the Pod is.
        progress: Progress,
        /// What it is pinned by.
        pin: Pin,
    },
}

impl Attachment {
    /// Reads the Pod that the sandbox is to attach to.
    pub(super) fn of(observed: &Observed, attach: &Attach) -> Self {
        let name = &attach.pod_name;
        match &observed.attached {
            Lookup::NotNamed | Lookup::Missing => Attachment::Missing(format!("There is no Pod {name}.")),
            Lookup::Failed(failure) => Attachment::Unknown(failure.clone()),
            Lookup::Found(pod) => to(observed, attach, pod).unwrap_or_else(Attachment::Refused),
        }
    }

    /// What the Pod is pinned by.
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
            format!("The Pod {name} is the operator's own; attach is for Pods of others."),
        );
    }
    let wanted = annotation(pod, meta::ATTACHABLE);
    let own_name = sandbox.name_any();
    if wanted != Some(own_name.as_str()) && (wanted.is_none() || wanted != sandbox.spec.session.as_deref()) {
        let owner = sandbox.spec.session.as_deref().unwrap_or(&own_name);
        let message = format!(
            "The owner of the Pod {name} has not agreed: kubectl annotate pod {name} {}={owner}",
            meta::ATTACHABLE
        );
        return refused(Reason::NotAttachable, message);
    }
    let container = container(attach, pod)?;
    let pin = Pin {
        name: name.clone(),
        uid: pod.uid().unwrap_or_default(),
        restart: sandbox.annotations().get(meta::RESTART).cloned(),
    };
    let before = sandbox.status.as_ref().and_then(|status| status.attached.as_ref());
    let is_another = |before: &&Pin| before.name == pin.name && before.uid != pin.uid;
    if let Some(before) = before.filter(is_another).filter(|before| before.restart == pin.restart) {
        let message = format!(
            "The Pod {name} is another one than the sandbox was attached to (UID {}); change the annotation {} of the sandbox to attach to it.",
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
