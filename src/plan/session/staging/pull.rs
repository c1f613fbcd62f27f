//! Images are pulled beside the filling: while the stage Pod runs, a second Pod on its node has the images of the sandboxes pulled.
//!
//! It is a hint to the node and nothing else: no decision waits for it, and what keeps it from being created is not an error.
//!
//! Decided in docs/adr/0021-images-are-pulled-beside-the-filling.md.

use std::{collections::BTreeSet, time::Duration};

use jiff::Timestamp;
use k8s_openapi::{
    api::core::v1::{
        Affinity, Container, LocalObjectReference, NodeAffinity, NodeSelector, NodeSelectorRequirement,
        NodeSelectorTerm, Pod, PodSecurityContext, PodSpec, ResourceRequirements, SecurityContext,
    },
    apimachinery::pkg::api::resource::Quantity,
};
use kube::ResourceExt;

use super::{Staging, is_needed_by, pod::pods_to_come, walls};
use crate::{
    api::{
        meta::{self, Component},
        session::SourceKind,
    },
    plan::{
        ChildState, Created, Write,
        effective::{EffectiveSession, sources::sources},
        name, ownership,
        pod::{FailedPull, Progress, Pulls, node, running_since},
        pod_spec::base_spec,
        sandbox,
        session::Observed,
    },
};

/// The last part of the Pod's name. The API server lets no new type have it; sessions of earlier versions may have one.
pub(in crate::plan::session) const PART: &str = "pull";

/// How long the stage Pod has to run before images are pulled beside it. Most sources are copied by then.
const PATIENCE: Duration = Duration::from_secs(2);

/// The most images that are pulled for one session. A session has at most as many types.
const MOST_IMAGES: usize = 32;

/// What became of the Pod that pulls images beside one stage Pod. The operator keeps this in memory only. If it is lost, there is one
/// more attempt.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pull {
    /// Whether there was an attempt to create the Pod. There is only one beside each stage Pod.
    pub tried: bool,
    /// The first image that cannot be pulled.
    pub failed: Option<FailedPull>,
}

impl Pull {
    /// What is known now: what is remembered, and what the Pod shows as long as it is there.
    pub fn of(remembered: Self, pod: &ChildState<Pod>) -> Self {
        match pod.owned().filter(|pod| pod.metadata.deletion_timestamp.is_none()) {
            Some(pod) => Self { tried: true, failed: Pulls::of(pod).failed },
            None => remembered,
        }
    }
}

/// The message for an image that cannot be pulled, as the session reports a sandbox that is not ready. It may have been corrected meanwhile:
/// then no sandbox has it any more.
pub(in crate::plan::session) fn missing_image(observed: &Observed) -> Option<String> {
    let FailedPull { container, image, message } = observed.pull.failed.as_ref()?;
    if !pods_to_come(observed).any(|(_, pod)| images(&pod).any(|wanted| wanted == image)) {
        return None;
    }
    let label = container.split_once('-').map_or(container.as_str(), |(_, label)| label);
    let mut types = observed.session.launched_labels();
    let sandbox_type = types.find(|(_, of_type)| of_type.to_string() == label).map(|(sandbox_type, _)| sandbox_type);
    Some(format!("{}: {message}", sandbox_type.unwrap_or(label)))
}

/// The images of a Pod's containers.
fn images(pod: &PodSpec) -> impl Iterator<Item = &String> {
    let containers = pod.containers.iter().chain(pod.init_containers.iter().flatten());
    containers.filter_map(|container| container.image.as_ref())
}

/// The node whose images are needed now: the Pod is about to be created there.
pub fn node_to_read(observed: &Observed) -> Option<String> {
    let is_due = due_in(observed, &Staging::of(observed)).is_some_and(|delay| delay.is_zero());
    observed.stage_pod.owned().filter(|_| is_due).and_then(|pod| node(pod))
}

/// How long until the Pod is created; `None` if that is not to be expected.
pub(in crate::plan::session) fn due_in(observed: &Observed, staging: &Staging) -> Option<Duration> {
    let Staging::InProgress(progress) = staging else { return None };
    let pod = observed.stage_pod.owned().filter(|_| is_on_node(progress))?;
    // Without a claim of one node, the sandboxes may go to other nodes.
    if !observed.session.is_on_one_node()
        || observed.pull.tried
        || observed.pull_pod != ChildState::Absent
        || !is_needed_by(observed)
    {
        return None;
    }
    let runs_commands =
        sources(&observed.session).any(|(_, _, _, source)| matches!(source.kind(), SourceKind::Container(_)));
    if runs_commands {
        Some(Duration::ZERO)
    } else {
        Some(left(observed.now, running_since(pod, meta::STAGE_CONTAINER)?))
    }
}

/// How much of [`PATIENCE`] is left.
fn left(now: Timestamp, since: Timestamp) -> Duration {
    // A node whose clock is fast has a container that has not started yet.
    let age = Duration::try_from(now.duration_since(since)).unwrap_or_default();
    PATIENCE.saturating_sub(age)
}

/// Whether the stage Pod has its node and has not ended.
fn is_on_node(progress: &Progress) -> bool {
    match progress {
        Progress::Waiting { .. }
        | Progress::Initializing { .. }
        | Progress::Running
        | Progress::HeldBack { .. }
        | Progress::Silent
        | Progress::Ready => true,
        Progress::Terminating | Progress::Created | Progress::Unschedulable { .. } | Progress::Ended { .. } => false,
    }
}

/// Creates the Pod when it is due. No other write depends on it, so it is the last: what refuses it is in the way of nothing.
pub(in crate::plan::session) fn creation(observed: &Observed, staging: &Staging) -> Vec<Write> {
    let is_due = due_in(observed, staging).is_some_and(|delay| delay.is_zero());
    let node = observed.stage_pod.owned().filter(|_| is_due).and_then(|pod| node(pod));
    let pod = node.and_then(|node| pull_pod(observed, node));
    pod.map(|pod| Write::Create(Created::Pod(Box::new(pod)))).into_iter().collect()
}

/// Deletes the Pod when each image is there or cannot be pulled, and when the stage Pod does not run any more.
pub(in crate::plan::session) fn removal(observed: &Observed, staging: &Staging) -> Vec<Write> {
    let is_beside = matches!(staging, Staging::InProgress(progress) if is_on_node(progress));
    let are_over = |pod: &Pod| Pulls::of(pod).are_over;
    if is_beside && !observed.pull_pod.owned().is_some_and(|pod| are_over(pod)) {
        vec![]
    } else {
        interruption(observed)
    }
}

/// Deletes the Pod, if it is there.
pub(in crate::plan::session) fn interruption(observed: &Observed) -> Vec<Write> {
    let pod = observed.pull_pod.owned().filter(|pod| pod.metadata.deletion_timestamp.is_none());
    pod.map(|pod| Write::delete_any_version(&**pod)).into_iter().collect()
}

/// The Pod; `None` if the node has all images, or does not exist.
fn pull_pod(observed: &Observed, node: String) -> Option<Pod> {
    let (session, settings) = (&observed.session, &observed.settings);
    let helper_image = canonical(&settings.helper_image);
    let mut known: BTreeSet<String> = observed.node_images.as_ref()?.iter().map(|image| canonical(image)).collect();
    known.insert(helper_image);
    let mut containers = vec![];
    let mut secrets: Vec<LocalObjectReference> = vec![];
    // A Pod has one runtime class, and a runtime may have a store of images of its own.
    let mut runtime = None;
    for (label, pod) in pods_to_come(observed) {
        let of_pod = (pod.runtime_class_name.clone(), pod.host_users);
        if runtime.as_ref().is_some_and(|runtime| *runtime != of_pod) {
            continue;
        }
        let before = containers.len();
        for container in pod.containers.into_iter().chain(pod.init_containers.into_iter().flatten()) {
            let Some(image) = container.image.clone() else { continue };
            if containers.len() < MOST_IMAGES && known.insert(canonical(&image)) {
                let name = format!("{}-{label}", containers.len());
                containers.push(puller(name, container, pod.security_context.as_ref()));
            }
        }
        if containers.len() > before {
            runtime = Some(of_pod);
            let more = pod.image_pull_secrets.into_iter().flatten();
            secrets.extend(more.filter(|secret| !secrets.contains(secret)).collect::<Vec<_>>());
        }
    }
    let (runtime_class_name, host_users) = runtime?;
    let (helper_volume, helper_installer) = sandbox::helper(settings);
    Some(Pod {
        metadata: ownership::child_meta(session, Observed::pull_pod_name(session), session.labels(Component::Pull)),
        spec: Some(PodSpec {
            affinity: Some(on_node(node)),
            containers,
            host_users,
            image_pull_secrets: Some(secrets).filter(|secrets| !secrets.is_empty()),
            init_containers: helper_installer.map(|installer| vec![installer]),
            runtime_class_name,
            tolerations: walls::of(session).tolerations,
            volumes: Some(vec![helper_volume]),
            ..base_spec(None)
        }),
        status: None,
    })
}

/// A container that has the image of another one pulled, and ends.
fn puller(name: String, of_sandbox: Container, of_pod: Option<&PodSecurityContext>) -> Container {
    let quantities = |cpu: &str, memory: &str| {
        [("cpu", cpu), ("memory", memory)].map(|(resource, text)| (resource.to_string(), Quantity(text.into()))).into()
    };
    Container {
        name,
        image: of_sandbox.image,
        image_pull_policy: of_sandbox.image_pull_policy,
        command: Some(vec![format!("{}/sandboxd", meta::HELPER_PATH), "exit".into()]),
        resources: Some(ResourceRequirements {
            requests: Some(quantities("1m", "1Mi")),
            limits: Some(quantities("100m", "32Mi")),
            ..ResourceRequirements::default()
        }),
        security_context: Some(in_full(of_sandbox.security_context.unwrap_or_default(), of_pod)),
        volume_mounts: Some(vec![sandbox::helper_mount()]),
        ..Container::default()
    }
}

/// The security context of a container, with what it has from its Pod.
fn in_full(own: SecurityContext, of_pod: Option<&PodSecurityContext>) -> SecurityContext {
    let of_pod = of_pod.cloned().unwrap_or_default();
    SecurityContext {
        app_armor_profile: own.app_armor_profile.or(of_pod.app_armor_profile),
        run_as_group: own.run_as_group.or(of_pod.run_as_group),
        run_as_non_root: own.run_as_non_root.or(of_pod.run_as_non_root),
        run_as_user: own.run_as_user.or(of_pod.run_as_user),
        se_linux_options: own.se_linux_options.or(of_pod.se_linux_options),
        seccomp_profile: own.seccomp_profile.or(of_pod.seccomp_profile),
        windows_options: own.windows_options.or(of_pod.windows_options),
        ..own
    }
}

/// Only this node, by way of the scheduler, as a `DaemonSet` does it.
fn on_node(node: String) -> Affinity {
    let is_named =
        NodeSelectorRequirement { key: "metadata.name".into(), operator: "In".into(), values: Some(vec![node]) };
    let term = NodeSelectorTerm { match_fields: Some(vec![is_named]), ..NodeSelectorTerm::default() };
    let required = NodeSelector { node_selector_terms: vec![term] };
    let node_affinity =
        NodeAffinity { required_during_scheduling_ignored_during_execution: Some(required), ..NodeAffinity::default() };
    Affinity { node_affinity: Some(node_affinity), ..Affinity::default() }
}

/// The reference of an image in full, as container runtimes list it: `busybox` is `docker.io/library/busybox:latest`. A tag beside a digest
/// means nothing. By hand: docs/adr/0013-by-hand-although-a-library-is-near.md.
fn canonical(reference: &str) -> String {
    let (name, digest) = reference.split_once('@').map_or((reference, None), |(name, digest)| (name, Some(digest)));
    let last = name.rfind('/').map_or(0, |slash| slash + 1);
    let (repository, tag) = match name[last..].find(':') {
        Some(colon) => (&name[..last + colon], &name[last + colon + 1..]),
        None => (name, "latest"),
    };
    let registry = repository.split_once('/').map(|(registry, _)| registry);
    let prefix = match registry {
        Some(registry) if registry == "localhost" || registry.contains(['.', ':']) => "",
        Some(_) => "docker.io/",
        None => "docker.io/library/",
    };
    digest.map_or_else(|| format!("{prefix}{repository}:{tag}"), |digest| format!("{prefix}{repository}@{digest}"))
}

impl Observed {
    /// The name of the Pod that pulls images while the volumes are filled.
    pub fn pull_pod_name(session: &EffectiveSession) -> String {
        name::child(&session.name_any(), PART)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_image_is_recognised_whichever_way_it_is_written() {
        for (written, listed) in [
            ("busybox", "docker.io/library/busybox:latest"),
            ("busybox:1.37", "docker.io/library/busybox:1.37"),
            ("alpine/git", "docker.io/alpine/git:latest"),
            ("docker.io/alpine/git:2.49", "docker.io/alpine/git:2.49"),
            ("localhost/crash-triage:dev", "localhost/crash-triage:dev"),
            ("localhost:5000/a", "localhost:5000/a:latest"),
            ("registry.example/a/b:1", "registry.example/a/b:1"),
            ("registry.example:443/a@sha256:00", "registry.example:443/a@sha256:00"),
            ("a:1@sha256:00", "docker.io/library/a@sha256:00"),
            ("", "docker.io/library/:latest"),
            ("/", "docker.io//:latest"),
        ] {
            assert_eq!(canonical(written), listed, "{written}");
            assert_eq!(canonical(listed), listed);
        }
    }
}
