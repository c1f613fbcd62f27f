//! What of a sandbox's Pod is the operator's: refused by name in a template, and looked for in the Pod that comes of it.
//!
//! Who may write a template may create Pods in the namespace, with any label that some other Service or policy there selects. So
//! of the labels only those are refused by which the operator knows its own.

use k8s_openapi::{
    api::core::v1::{Container, Pod, PodAffinityTerm, PodSpec},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use super::{privilege, tree::MAX_NODE_TERMS};
use crate::{
    api::meta,
    plan::{
        sandbox::{
            init::{STATE_VOLUME, WORK_VOLUME},
            pod::{CONFIG_VOLUME, HELPER_INSTALLER, HELPER_VOLUME},
        },
        volumes::SharedVolume,
    },
    protocol::init::FOLDER,
};

/// Labels and annotations by which the operator, its Services and its policies know their Pods: with those of another session a
/// Pod would be a member of it.
fn is_our_key(key: &str) -> bool {
    let domain = key.split_once('/').map_or("", |(domain, _)| domain);
    let is_below = domain.strip_suffix(meta::GROUP).is_some_and(|rest| rest.is_empty() || rest.ends_with('.'));
    is_below || [meta::APP, meta::MANAGED_BY, meta::COMPONENT, meta::DEFAULT_CONTAINER].contains(&key)
}

fn our_keys(metadata: &ObjectMeta) -> impl Iterator<Item = (&'static str, &String, &String)> {
    let labels = metadata.labels.iter().flatten().map(|(key, value)| ("labels", key, value));
    let annotations = metadata.annotations.iter().flatten().map(|(key, value)| ("annotations", key, value));
    labels.chain(annotations).filter(|(_, key, _)| is_our_key(key))
}

pub(super) fn check_metadata(metadata: &ObjectMeta) -> Result<(), String> {
    match our_keys(metadata).next() {
        Some((field, key, _)) => Err(format!(
            ".metadata.{field}[{key}]: the operator sets it and knows its Pods by it; choose a key of your own."
        )),
        None => Ok(()),
    }
}

pub(super) fn check_spec(spec: &PodSpec) -> Result<(), String> {
    let said = [
        (
            spec.restart_policy.is_some(),
            "restartPolicy",
            "a sandbox is started again with a new Pod and never in its old one; leave it out.",
        ),
        (spec.hostname.is_some(), "hostname", "sandboxes find each other by it; it follows from the type."),
        (spec.subdomain.is_some(), "subdomain", "sandboxes find each other by it; it follows from the session."),
        (
            spec.node_name.is_some(),
            "nodeName",
            "it passes by the scheduler, which keeps a session where its volumes are; use nodeSelector or affinity.",
        ),
        (
            spec.ephemeral_containers.is_some(),
            "ephemeralContainers",
            "no Pod is made with them; use containers, or `kubectl debug` later.",
        ),
        (
            fs_group(spec).is_some(),
            "securityContext.fsGroup",
            "by it the sandboxes of a session share their volumes; use supplementalGroups for further groups.",
        ),
    ];
    if let Some((_, path, why)) = said.into_iter().find(|(is_said, _, _)| *is_said) {
        return Err(format!(".spec.{path}: {why}"));
    }
    if let Some(volume) = spec.volumes.iter().flatten().find(|volume| is_our_volume(&volume.name)) {
        return Err(format!(".spec.volumes: `{}` is a volume of the operator; choose another name.", volume.name));
    }
    check_node_terms(spec)?;
    privilege::containers(spec).try_for_each(|(path, container)| {
        let is_working = path.starts_with("containers") && container.name == meta::SANDBOX_CONTAINER;
        let found = if is_working { check_working(container) } else { check_further(container) };
        found.map_err(|message| format!(".spec.{path}.{message}"))
    })
}

fn fs_group(spec: &PodSpec) -> Option<i64> {
    spec.security_context.as_ref()?.fs_group
}

fn is_our_volume(name: &str) -> bool {
    [HELPER_VOLUME, WORK_VOLUME, STATE_VOLUME, CONFIG_VOLUME].contains(&name)
        || SharedVolume::ALL.iter().any(|volume| name == <&str>::from(volume))
}

/// More than a merge keeps.
fn check_node_terms(spec: &PodSpec) -> Result<(), String> {
    let node = spec.affinity.as_ref().and_then(|affinity| affinity.node_affinity.as_ref());
    let required = node.and_then(|node| node.required_during_scheduling_ignored_during_execution.as_ref());
    if required.is_some_and(|required| required.node_selector_terms.len() > MAX_NODE_TERMS) {
        return Err(format!(
            ".spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms: at most {MAX_NODE_TERMS} alternatives; the operator `In` of one term takes many values."
        ));
    }
    Ok(())
}

/// A container that is the user's own: it may be anything, under a name of its own.
fn check_further(container: &Container) -> Result<(), String> {
    if [meta::SANDBOX_CONTAINER, HELPER_INSTALLER].contains(&container.name.as_str()) {
        return Err(format!("name: `{}` is a container of the operator; choose another name.", container.name));
    }
    check_helper_is_left_alone(container)
}

/// The working container: what runs in it is said elsewhere, and how it is watched is the operator's. `args` are let through,
/// since nothing else gives any to the image's own command.
fn check_working(container: &Container) -> Result<(), String> {
    let said = [
        (container.image.is_some(), "image", "say it once, as the sandbox's own `image`."),
        (container.command.is_some(), "command", "say it once, as the sandbox's own `command` or `entrypoint: Image`."),
        (
            container.startup_probe.is_some(),
            "startupProbe",
            "the operator initialises the sandbox by it; use the sandbox's own `readinessProbe`.",
        ),
        (
            container.restart_policy.is_some(),
            "restartPolicy",
            "a sandbox is started again with a new Pod and never in its old one; leave it out.",
        ),
        (
            container.termination_message_path.is_some(),
            "terminationMessagePath",
            "the operator reads there how the sandbox ended; leave it out.",
        ),
    ];
    if let Some((_, path, why)) = said.into_iter().find(|(is_said, _, _)| *is_said) {
        return Err(format!("{path}: {why}"));
    }
    if let Some((path, ours)) = mounted(container).find_map(|path| Some((path, hidden_by(path)?))) {
        return Err(format!(
            "volumeMounts: {path} is in the way of {ours}, which is the operator's; mount it elsewhere."
        ));
    }
    check_helper_is_left_alone(container)
}

/// Whoever could write there would run in place of the helper.
fn check_helper_is_left_alone(container: &Container) -> Result<(), String> {
    let mut mounts = container.volume_mounts.iter().flatten();
    let ours = [HELPER_VOLUME, WORK_VOLUME, STATE_VOLUME, CONFIG_VOLUME];
    match mounts.find(|mount| ours.contains(&mount.name.as_str())) {
        Some(mount) => Err(format!("volumeMounts: `{}` is the operator's own volume; leave it out.", mount.name)),
        None => Ok(()),
    }
}

fn mounted(container: &Container) -> impl Iterator<Item = &str> {
    let mounts = container.volume_mounts.iter().flatten().map(|mount| mount.mount_path.as_str());
    mounts.chain(container.volume_devices.iter().flatten().map(|device| device.device_path.as_str()))
}

/// The first path of ours of which a mount would hide the whole or a part.
fn hidden_by(path: &str) -> Option<&'static str> {
    let ours = SharedVolume::ALL.into_iter().map(SharedVolume::mount_path).chain([
        meta::HELPER_PATH,
        FOLDER,
        meta::CONFIG_FOLDER,
    ]);
    ours.into_iter().find(|ours| segments(path).iter().zip(segments(ours)).all(|(one, other)| *one == other))
}

/// The folders that lead to a path, as they are walked.
pub(in crate::plan::sandbox) fn segments(path: &str) -> Vec<&str> {
    let mut walked = vec![];
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => drop(walked.pop()),
            name => walked.push(name),
        }
    }
    walked
}

/// Whether a Pod with a template laid over it still has all that the operator gave it. The checks above say it better, before;
/// this holds whatever they overlook.
pub(super) fn check_reserved_kept(ours: &Pod, overlaid: &Pod) -> Result<(), String> {
    let lost = |what: &str| Err(format!(": the Pod would lose {what} that the operator gave it; leave that out."));
    if !our_keys(&ours.metadata).eq(our_keys(&overlaid.metadata)) {
        return lost("the labels and annotations");
    }
    if without_keys(&ours.metadata) != without_keys(&overlaid.metadata) || ours.status != overlaid.status {
        return lost("the name and the owner");
    }
    let (Some(ours), Some(overlaid)) = (&ours.spec, &overlaid.spec) else {
        return if ours.spec == overlaid.spec { Ok(()) } else { lost("the specification") };
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
    ours.containers.iter().zip(&overlaid.containers).try_for_each(|(ours, overlaid)| {
        check_container_left(ours, overlaid).map_err(|message| format!(".spec.containers[{}].{message}", ours.name))
    })
}

fn check_container_left(ours: &Container, overlaid: &Container) -> Result<(), String> {
    let lost = |what: &str| Err(format!("{what}: the operator gives it to the container; leave it out."));
    let said = |container: &Container| {
        let Container { name, image, command, startup_probe, restart_policy, termination_message_path, .. } =
            container.clone();
        (name, image, command, startup_probe, restart_policy, termination_message_path)
    };
    if said(ours) != said(overlaid) {
        return lost("image, command, startupProbe, restartPolicy, terminationMessagePath");
    }
    if ours.command.is_some() && ours.args != overlaid.args {
        let why = "they would be added to a command that is there; put them into the sandbox's own `command`, or choose `entrypoint: Image`.";
        return Err(format!("args: {why}"));
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

/// The terms that keep the Pods of a session on one node.
fn together(spec: &PodSpec) -> &[PodAffinityTerm] {
    let pods = spec.affinity.as_ref().and_then(|affinity| affinity.pod_affinity.as_ref());
    let required = pods.and_then(|pods| pods.required_during_scheduling_ignored_during_execution.as_deref());
    required.unwrap_or_default()
}
