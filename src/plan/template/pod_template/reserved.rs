//! The parts of a sandbox's Pod that are reserved for the operator: a template must not contain them, and the resulting Pod must still
//! have them.
//!
//! A user who may write a template can create Pods in the namespace, with any labels that other Services or policies there select.
//! Therefore only the labels by which the operator identifies its own objects are refused.

use k8s_openapi::{
    api::core::v1::{Container, Pod, PodAffinityTerm, PodSpec},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use super::{privilege, tree::MAX_NODE_TERMS};
use crate::{
    api::meta,
    plan::{
        Below, Invalid,
        reserved::{CONTAINERS, OWN_VOLUMES, hidden_by, is_key, is_volume},
    },
};

fn our_keys(metadata: &ObjectMeta) -> impl Iterator<Item = (&'static str, &String, &String)> {
    let labels = metadata.labels.iter().flatten().map(|(key, value)| ("labels", key, value));
    let annotations = metadata.annotations.iter().flatten().map(|(key, value)| ("annotations", key, value));
    labels.chain(annotations).filter(|(_, key, _)| is_key(key))
}

pub(super) fn check_metadata(metadata: &ObjectMeta) -> Result<(), Invalid> {
    match our_keys(metadata).next() {
        Some((field, key, _)) => {
            let why = "the operator sets this key and identifies its Pods by it; use another key.";
            Err(Invalid::whole(why).at(key).below(field))
        }
        None => Ok(()),
    }
}

pub(super) fn check_spec(spec: &PodSpec) -> Result<(), Invalid> {
    let said = [
        (
            spec.restart_policy.is_some(),
            "restartPolicy",
            "a sandbox is restarted with a new Pod, and never in its old one; leave the field out.",
        ),
        (spec.hostname.is_some(), "hostname", "it is derived from the type, and sandboxes find each other by it."),
        (spec.subdomain.is_some(), "subdomain", "it is derived from the session, and sandboxes find each other by it."),
        (
            spec.node_name.is_some(),
            "nodeName",
            "it bypasses the scheduler, which keeps a session's Pods where its volumes are; use nodeSelector or affinity.",
        ),
        (
            spec.ephemeral_containers.is_some(),
            "ephemeralContainers",
            "a Pod cannot be created with them; use containers, or `kubectl debug` later.",
        ),
        (
            fs_group(spec).is_some(),
            "securityContext.fsGroup",
            "the sandboxes of a session share their volumes by this group; use supplementalGroups for further groups.",
        ),
    ];
    if let Some((_, path, why)) = said.into_iter().find(|(is_said, _, _)| *is_said) {
        return Err(Invalid::new(path, why));
    }
    if let Some(volume) = spec.volumes.iter().flatten().find(|volume| is_volume(&volume.name)) {
        let why = format!("`{}` is a volume of the operator; choose another name.", volume.name);
        return Err(Invalid::new("volumes", why));
    }
    check_node_terms(spec)?;
    privilege::containers(spec).try_for_each(|(path, container)| {
        let is_working = path.starts_with("containers") && container.name == meta::SANDBOX_CONTAINER;
        let found = if is_working { check_working(container) } else { check_further(container) };
        found.below(path)
    })
}

fn fs_group(spec: &PodSpec) -> Option<i64> {
    spec.security_context.as_ref()?.fs_group
}

/// Refuses more node selector terms than a merge keeps.
fn check_node_terms(spec: &PodSpec) -> Result<(), Invalid> {
    let node = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
    let required = node.and_then(|node| node.required_during_scheduling_ignored_during_execution.as_ref());
    if required.is_some_and(|required| required.node_selector_terms.len() > MAX_NODE_TERMS) {
        return Err(Invalid::new(
            "affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms",
            format!("at most {MAX_NODE_TERMS} terms are allowed; the operator `In` of one term takes many values."),
        ));
    }
    Ok(())
}

/// Checks a container that the user adds. It may contain anything, but needs a name of its own.
fn check_further(container: &Container) -> Result<(), Invalid> {
    if CONTAINERS.contains(&container.name.as_str()) {
        let why = format!("`{}` is a container of the operator; choose another name.", container.name);
        return Err(Invalid::new("name", why));
    }
    check_helper_is_left_alone(container)
}

/// Checks the working container. Its image and command are set by other fields of the sandbox, and its probes belong to the operator.
/// `args` are allowed, since no other field adds arguments to the image's own command.
fn check_working(container: &Container) -> Result<(), Invalid> {
    let said = [
        (container.image.is_some(), "image", "set the sandbox's own `image` instead."),
        (container.command.is_some(), "command", "set the sandbox's own `command` or `entrypoint: Image` instead."),
        (
            container.startup_probe.is_some(),
            "startupProbe",
            "the operator needs it to initialise the sandbox; use the sandbox's own `readinessProbe`.",
        ),
        (
            container.restart_policy.is_some(),
            "restartPolicy",
            "a sandbox is restarted with a new Pod, and never in its old one; leave the field out.",
        ),
        (
            container.termination_message_path.is_some(),
            "terminationMessagePath",
            "the operator reads the default path to report how the sandbox ended; leave the field out.",
        ),
    ];
    if let Some((_, path, why)) = said.into_iter().find(|(is_said, _, _)| *is_said) {
        return Err(Invalid::new(path, why));
    }
    if let Some((path, ours)) = mounted(container).find_map(|path| Some((path, hidden_by(path)?))) {
        let why = format!("{path} would hide {ours}, which the operator mounts; use another path.");
        return Err(Invalid::new("volumeMounts", why));
    }
    check_helper_is_left_alone(container)
}

/// Refuses mounts of the operator's own volumes: a container that can write to them could replace the helper.
fn check_helper_is_left_alone(container: &Container) -> Result<(), Invalid> {
    let mut mounts = container.volume_mounts.iter().flatten();
    match mounts.find(|mount| OWN_VOLUMES.contains(&mount.name.as_str())) {
        Some(mount) => {
            let why = format!("`{}` is the operator's own volume; leave the mount out.", mount.name);
            Err(Invalid::new("volumeMounts", why))
        }
        None => Ok(()),
    }
}

fn mounted(container: &Container) -> impl Iterator<Item = &str> {
    let mounts = container.volume_mounts.iter().flatten().map(|mount| mount.mount_path.as_str());
    mounts.chain(container.volume_devices.iter().flatten().map(|device| device.device_path.as_str()))
}

/// Checks that a Pod with a template laid over it still has everything that the operator set. The checks above have better messages and
/// run first; this check covers whatever they miss.
pub(super) fn check_reserved_kept(ours: &Pod, overlaid: &Pod) -> Result<(), Invalid> {
    let lost = |what: &str| {
        Err(Invalid::whole(format!("the Pod would lose {what} that the operator set; leave that field out.")))
    };
    if !our_keys(&ours.metadata).eq(our_keys(&overlaid.metadata)) {
        return lost("the labels and annotations");
    }
    if without_keys(&ours.metadata) != without_keys(&overlaid.metadata) || ours.status != overlaid.status {
        return lost("the name and the owner");
    }
    let (Some(ours), Some(overlaid)) = (&ours.spec, &overlaid.spec) else {
        return if ours.spec == overlaid.spec { Ok(()) } else { lost("the spec") };
    };
    if identity(ours) != identity(overlaid) {
        return lost("the restart policy, the DNS name, the node or the group");
    }
    if !begins_with(overlaid.volumes.as_deref(), ours.volumes.as_deref()) {
        return lost("the volumes");
    }
    if !begins_with(overlaid.init_containers.as_deref(), ours.init_containers.as_deref()) {
        return lost("the init container");
    }
    if together(ours).iter().any(|term| !together(overlaid).contains(term)) {
        return lost("the affinity to its session");
    }
    if ours.containers.len() > overlaid.containers.len() {
        return lost("the working container");
    }
    let mut pairs = ours.containers.iter().zip(&overlaid.containers);
    pairs.try_for_each(|(ours, overlaid)| check_container_left(ours, overlaid).at(&ours.name).below("spec.containers"))
}

fn check_container_left(ours: &Container, overlaid: &Container) -> Result<(), Invalid> {
    let lost = |what: &str| Err(Invalid::new(what, "the operator sets this on the container; leave it out."));
    let said = |container: &Container| {
        let Container { name, image, command, startup_probe, restart_policy, termination_message_path, .. } =
            container.clone();
        (name, image, command, startup_probe, restart_policy, termination_message_path)
    };
    if said(ours) != said(overlaid) {
        return lost("image, command, startupProbe, restartPolicy, terminationMessagePath");
    }
    if ours.command.is_some() && ours.args != overlaid.args {
        let why = "they would be appended to the container's command; put them into the sandbox's own `command`, or set `entrypoint: Image`.";
        return Err(Invalid::new("args", why));
    }
    if ours.args.is_some() && ours.args != overlaid.args {
        let why = "with `entrypoint: ImageThenIdle`, the operator sets them; set `entrypoint: Image` instead.";
        return Err(Invalid::new("args", why));
    }
    let present = ours.volume_mounts.as_ref().map_or(0, Vec::len);
    let further = mounted(overlaid).skip(present);
    if !begins_with(overlaid.volume_mounts.as_deref(), ours.volume_mounts.as_deref())
        || further.into_iter().any(|path| hidden_by(path).is_some())
    {
        return lost("volumeMounts");
    }
    Ok(())
}

fn without_keys(metadata: &ObjectMeta) -> ObjectMeta {
    ObjectMeta { labels: None, annotations: None, ..metadata.clone() }
}

fn identity(spec: &PodSpec) -> impl PartialEq {
    (
        [spec.restart_policy.clone(), spec.hostname.clone(), spec.subdomain.clone(), spec.node_name.clone()],
        fs_group(spec),
        spec.ephemeral_containers.clone(),
    )
}

fn begins_with<T: PartialEq>(list: Option<&[T]>, beginning: Option<&[T]>) -> bool {
    list.unwrap_or_default().starts_with(beginning.unwrap_or_default())
}

/// The affinity terms that keep the Pods of a session on one node.
fn together(spec: &PodSpec) -> &[PodAffinityTerm] {
    let pods = spec.affinity.as_ref().and_then(|affinity| affinity.pod_affinity.as_ref());
    let required = pods.and_then(|pods| pods.required_during_scheduling_ignored_during_execution.as_deref());
    required.unwrap_or_default()
}
