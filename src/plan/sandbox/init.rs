//! The init work of a sandbox, which it does before it is ready, and its progress.
//!
//! ```text
//! Pod with init work ── its dependencies are ready ──► the Pod is released (annotation) ──► the init supervisor works
//!                                                                                            │
//!       ready ◄── the reporter reported the success ◄────────────────────────────────────────┤
//!       error ◄── the container ended, and its termination message explains why ◄────────────┘
//! ```
//! If the dependencies are ready when the Pod is created, the Pod is created with its release.
//!
//! The success counts when the [reporter] has reported it, whatever the kubelet says before: a kubelet that restarts takes a container
//! whose startup probe still runs for started and ready.

use std::{collections::BTreeMap, time::Duration};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::{
    api::core::v1::{
        Container, DownwardAPIVolumeFile, DownwardAPIVolumeSource, EmptyDirVolumeSource, ExecAction,
        ObjectFieldSelector, Pod, Probe, Volume, VolumeMount,
    },
    apimachinery::pkg::{api::resource::Quantity, apis::meta::v1::Time},
};
use kube::ResourceExt;

use super::Observed;
use crate::{
    api::{
        SandboxStatus,
        condition::Reason,
        init::{InitOutcome, InitStatus, RootState, RootStatus},
        meta,
    },
    plan::{
        Settings,
        pod::{
            End, Progress, annotation, has_reporter, passed_limit, reported_success, reports_success, running_since,
        },
        pod_spec::helper_container,
        reserved::{INIT_REPORTER, STATE_VOLUME, WORK_VOLUME},
        status::printable,
    },
    protocol::{
        cache::{RestoreFault, RootReport, SaveFault},
        init::{FOLDER, InitFailure, RELEASE_FILE, STATE, TerminationMessage, WORK_FILE, Work},
    },
};

mod needs;
mod work;

use self::{needs::may_begin, work::TIMEOUT};
pub(super) use self::{
    needs::{check_needs, check_session_needs},
    work::{endpoints, work},
};

/// How long after its timeout the init work may still end. The init supervisor enforces the timeout itself; it ends a step with SIGTERM
/// first, and then with SIGKILL.
const PATIENCE: SignedDuration = SignedDuration::from_secs(60);

/// What the init work of a Pod waits for, or that it runs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InitPhase {
    /// The sandboxes that it depends on are not ready, or it may not begin for another reason.
    Waits {
        /// [`Reason::DependencyNotReady`], [`Reason::DependencyFailed`] or [`Reason::SessionFailed`].
        reason: Reason,
        /// What it waits for.
        message: String,
    },
    /// The init work runs.
    Works {
        /// When it began.
        since: Timestamp,
        /// When it must have ended.
        until: Timestamp,
        /// When its release is written again.
        repeat: Option<Timestamp>,
    },
    /// The init work should have ended long ago.
    Silent,
}

/// The volumes of a Pod with init work.
pub(super) fn volumes() -> [Volume; 2] {
    let file = |path: &str, annotation: &str| DownwardAPIVolumeFile {
        path: path.rsplit('/').next().unwrap_or(path).to_string(),
        field_ref: Some(ObjectFieldSelector {
            field_path: format!("metadata.annotations['{annotation}']"),
            ..ObjectFieldSelector::default()
        }),
        ..DownwardAPIVolumeFile::default()
    };
    let files = vec![file(WORK_FILE, meta::GATE), file(RELEASE_FILE, meta::RELEASE)];
    let files = DownwardAPIVolumeSource { items: Some(files), ..DownwardAPIVolumeSource::default() };
    // The log has at most two files of 4 MiB.
    let kept = EmptyDirVolumeSource { size_limit: Some(Quantity("32Mi".into())), ..EmptyDirVolumeSource::default() };
    [
        Volume { name: WORK_VOLUME.into(), downward_api: Some(files), ..Volume::default() },
        Volume { name: STATE_VOLUME.into(), empty_dir: Some(kept), ..Volume::default() },
    ]
}

/// The mounts of these volumes in the working container.
pub(super) fn mounts() -> [VolumeMount; 2] {
    let mount = |name: &str, path: &str, read_only| VolumeMount {
        name: name.into(),
        mount_path: format!("{FOLDER}/{path}"),
        read_only,
        ..VolumeMount::default()
    };
    [mount(WORK_VOLUME, "pod", Some(true)), mount(STATE_VOLUME, STATE, None)]
}

/// The startup probe that runs the init supervisor. The supervisor enforces the timeout itself, so the probe has a timeout of a week.
pub(super) fn startup_probe() -> Probe {
    Probe {
        exec: Some(ExecAction { command: Some(vec![format!("{}/sandboxd", meta::HELPER_PATH), "gate".into()]) }),
        failure_threshold: Some(1),
        period_seconds: Some(1),
        timeout_seconds: Some(604_800),
        ..Probe::default()
    }
}

/// The native sidecar that waits for the success of the init work and reports it as its termination message. The kubelet restarts it
/// afterwards, and then it idles.
///
/// While it waits, a probe of it fails as long as the init work waits for services: the output of a failed probe becomes an event of the
/// Pod. However often it fails, the kubelet does not end the container.
pub(super) fn reporter(settings: &Settings, has_services: bool) -> Container {
    let [_, state] = mounts();
    let probe = Probe {
        exec: Some(ExecAction { command: Some(vec!["/sandboxd".into(), "awaited".into()]) }),
        failure_threshold: Some(i32::MAX),
        period_seconds: Some(30),
        timeout_seconds: Some(10),
        ..Probe::default()
    };
    Container {
        liveness_probe: has_services.then_some(probe),
        name: INIT_REPORTER.into(),
        command: Some(vec!["/sandboxd".into(), "report".into()]),
        restart_policy: Some("Always".into()),
        resources: Some(settings.helper_resources.of_reporter(false).requirements()),
        volume_mounts: Some(vec![state]),
        ..helper_container(settings)
    }
}

/// The annotations that give the Pod its init work, and its release if there is nothing to wait for.
pub(super) fn annotations(observed: &Observed) -> BTreeMap<String, String> {
    let Some(work) = work(observed) else { return BTreeMap::new() };
    let text = serde_json::to_string(&work).unwrap_or_default();
    let mut annotations = BTreeMap::from([(meta::GATE.to_string(), text)]);
    if may_begin(observed).is_ok() {
        annotations.insert(meta::RELEASE.into(), observed.now.to_string());
    }
    annotations
}

/// Whether the Pod has init work.
pub(super) fn has_init(pod: &Pod) -> bool {
    annotation(pod, meta::GATE).is_some()
}

/// The Pod with its release, if the release is due for the first time or has to be repeated.
pub(super) fn release(observed: &Observed) -> Option<Box<Pod>> {
    let pod = observed.pod.owned()?;
    let progress = Progress::of(pod, meta::SANDBOX_CONTAINER);
    let may_still_work = match progress {
        Progress::Created
        | Progress::Unschedulable { .. }
        | Progress::Waiting { .. }
        | Progress::Initializing { .. } => true,
        Progress::Running => !has_succeeded(observed, pod),
        Progress::HeldBack { .. } | Progress::Ready => has_reporter(pod) && !has_succeeded(observed, pod),
        Progress::Terminating | Progress::Silent | Progress::Ended { .. } => false,
    };
    if !has_init(pod) || !may_still_work {
        return None;
    }
    let running_since = running_since(pod, meta::SANDBOX_CONTAINER);
    let (release, repeats) = match (annotation(pod, meta::RELEASE), progress) {
        (None, _) if may_begin(observed).is_ok() => (observed.now.to_string(), 0),
        (
            Some(release),
            Progress::Initializing { .. } | Progress::Running | Progress::HeldBack { .. } | Progress::Ready,
        ) => {
            let done: usize = annotation(pod, meta::RELEASE_REPEATS)?.parse().ok()?;
            let due = repeats(pod, running_since).filter(|at| *at <= observed.now).count();
            (due > done).then(|| (release.to_string(), due))?
        }
        (None | Some(_), _) => return None,
    };
    let mut pod = Pod::clone(pod);
    pod.annotations_mut().insert(meta::RELEASE.into(), release);
    pod.annotations_mut().insert(meta::RELEASE_REPEATS.into(), repeats.to_string());
    Some(Box::new(pod))
}

/// When a release is repeated, as delays after the release, if the init work has not ended. A kubelet writes a change of annotations into
/// the container within a second, but misses a change that it receives while it processes the volumes of its other Pods. It would then
/// notice the change at its next periodic sync of this Pod, after 60 to 90 seconds. A change of any annotation triggers an earlier sync.
const REPEATS: [SignedDuration; 3] =
    [SignedDuration::from_secs(3), SignedDuration::from_secs(9), SignedDuration::from_secs(27)];

/// When the release of a Pod is repeated. A Pod that was created with its release needs no repetition.
fn repeats(pod: &Pod, running_since: Option<Timestamp>) -> impl Iterator<Item = Timestamp> {
    let released = annotation(pod, meta::RELEASE_REPEATS).and_then(|_| released(pod));
    let since = released.map(|released| running_since.map_or(released, |running| running.max(released)));
    REPEATS.into_iter().filter_map(move |after| since?.checked_add(after).ok())
}

impl InitPhase {
    /// The phase of the init work in a Pod whose container runs and whose startup probe has not succeeded.
    pub(super) fn of(observed: &Observed, pod: &Pod, running_since: Option<Timestamp>) -> Self {
        let Some(released) = released(pod) else {
            let (reason, message) = may_begin(observed)
                .err()
                .unwrap_or_else(|| (Reason::Initializing, "The initialiser is about to begin.".into()));
            return InitPhase::Waits { reason, message };
        };
        let since = running_since.map_or(released, |running| running.max(released));
        let timeout =
            work_of(pod).map_or(TIMEOUT, |work| SignedDuration::from_secs(work.timeout.try_into().unwrap_or(i64::MAX)));
        let of_root = work_of(pod).and_then(|work| work.root).map_or(0, |root| root.timeout);
        let of_root = SignedDuration::from_secs(of_root.try_into().unwrap_or(i64::MAX));
        let limit = timeout.saturating_add(of_root).saturating_add(PATIENCE);
        let until = since.checked_add(limit).unwrap_or(Timestamp::MAX);
        let repeat = repeats(pod, running_since).find(|at| *at > observed.now);
        if observed.now < until { InitPhase::Works { since, until, repeat } } else { InitPhase::Silent }
    }

    /// The longest delay until the next reconcile.
    pub(super) fn next(&self, now: Timestamp) -> Option<Duration> {
        match self {
            InitPhase::Works { until, repeat, .. } => {
                let at = repeat.map_or(*until, |repeat| repeat.min(*until));
                Some(at.duration_since(now).try_into().unwrap_or_default())
            }
            InitPhase::Waits { .. } | InitPhase::Silent => None,
        }
    }
}

/// Since when the init work has been running, in a Pod whose work includes a wait for services. The probe of the reporter says in events of
/// the Pod what it waits for.
pub(super) fn asks_services_since(observed: &Observed, pod: &Pod) -> Option<Timestamp> {
    let progress = Progress::of(pod, meta::SANDBOX_CONTAINER);
    let works = matches!(progress, Progress::Initializing { .. }) || awaits_success(observed, pod, &progress);
    let waits = works && has_reporter(pod) && work_of(pod).is_some_and(|work| !work.services.is_empty());
    let since = released(pod).filter(|_| waits)?;
    Some(running_since(pod, meta::SANDBOX_CONTAINER).map_or(since, |running| running.max(since)))
}

fn released(pod: &Pod) -> Option<Timestamp> {
    annotation(pod, meta::RELEASE)?.parse().ok()
}

fn work_of(pod: &Pod) -> Option<Work> {
    serde_json::from_str(annotation(pod, meta::GATE)?).ok()
}

/// Why the init work of a Pod failed, if its container ended because of that.
pub(super) fn failure(observed: &Observed, pod: &Pod, progress: &Progress) -> Option<InitFailure> {
    let Progress::Ended { reason, last_words, .. } = progress else { return None };
    // After the init work has succeeded, the termination message is the program's own, and may say anything.
    if !has_init(pod) || has_succeeded(observed, pod) {
        return None;
    }
    // Every program can write this message. Only a Pod that is to restore its root file system may be given up because of that.
    let restores = work_of(pod).is_some_and(|work| work.root.is_some_and(|root| root.restore.is_some()));
    if let Some(failure) = last_words.as_deref().and_then(TerminationMessage::read) {
        return Some(InitFailure {
            step: failure.step.as_deref().map(printable),
            how: printable(&failure.how),
            tail: printable(&failure.tail),
            restore: failure.restore.filter(|_| restores),
            ..failure
        });
    }
    // The init supervisor ended together with the container and could not write a termination message.
    let how = match reason {
        Reason::OutOfMemory => "needed more memory than the sandbox may have".to_string(),
        Reason::PodLost => {
            let words = passed_limit(pod)?.trim().trim_end_matches('.');
            format!("needed more disk than the sandbox may have: {words}")
        }
        _ if restores => "ended before it had restored the root file system, and done its other work".into(),
        _ => return None,
    };
    let restore = restores.then_some(RestoreFault::RestoreFailed);
    Some(InitFailure { how, restore, ..InitFailure::default() })
}

/// Whether a Pod that could not restore its root file system is to be replaced by one that runs its steps.
pub(super) fn is_given_up(observed: &Observed) -> bool {
    work(observed).and_then(|work| work.root?.restore).is_none()
}

/// What became of the root file system of a Pod, as it reported it. Whatever a sandbox says is bounded.
fn root(pod: &Pod) -> Option<RootStatus> {
    let is_digest = |text: &str| text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    Some(match reported_success(pod)?.root? {
        RootReport::Restored => RootStatus { state: RootState::Restored, ..RootStatus::default() },
        RootReport::Saved(root)
            if is_digest(&root.sha256)
                && root.image.as_deref().is_none_or(is_digest)
                && root.packed.max(root.unpacked) <= i64::MAX.unsigned_abs() =>
        {
            RootStatus { state: RootState::Saved, saved: Some(root.into()), ..RootStatus::default() }
        }
        RootReport::Saved(_) => RootStatus { reason: Some(SaveFault::Failed.to_string()), ..RootStatus::default() },
        RootReport::NotSaved { reason, message } => RootStatus {
            state: RootState::NotSaved,
            reason: Some(reason.to_string()),
            message: Some(printable(&message)),
            saved: None,
        },
    })
}

/// Whether the init work is not known to have succeeded, in a Pod whose container has `started: true`. After a restart of the kubelet,
/// `started` and `ready` are true for every container, so they are not trusted: the reporter decides. After its report, a readiness probe
/// that only asks for the success once more succeeds within a moment, which is not worth a word.
///
/// A Pod of an earlier version has no reporter. There the readiness probe decides, which usually succeeds soon after. A sandbox with a
/// readiness probe of its own is an exception, since that probe may wait for something else.
pub(super) fn awaits_success(observed: &Observed, pod: &Pod, progress: &Progress) -> bool {
    let is_ready = match progress {
        Progress::Running => false,
        Progress::HeldBack { .. } | Progress::Ready => true,
        Progress::Terminating
        | Progress::Created
        | Progress::Unschedulable { .. }
        | Progress::Waiting { .. }
        | Progress::Initializing { .. }
        | Progress::Silent
        | Progress::Ended { .. } => return false,
    };
    let template = &observed.sandbox.spec.template;
    if !has_init(pod) || is_recorded(observed, pod) {
        false
    } else if has_reporter(pod) {
        let asks_more = template.readiness_probe.is_some() || !template.mcp_services.is_empty();
        !reports_success(pod) || !(is_ready || asks_more)
    } else {
        !is_ready && template.readiness_probe.is_none()
    }
}

/// Whether the init work in this Pod has succeeded.
fn has_succeeded(observed: &Observed, pod: &Pod) -> bool {
    is_recorded(observed, pod) || reports_success(pod)
}

/// Whether the sandbox's status has the record that the init work in this Pod has succeeded.
pub(super) fn is_recorded(observed: &Observed, pod: &Pod) -> bool {
    let status = observed.sandbox.status.as_ref().filter(|status| status.pod_uid == pod.uid());
    status.and_then(|status| status.init.as_ref()).is_some_and(|init| init.outcome == InitOutcome::Succeeded)
}

/// The status of the initialiser.
pub(super) fn status(observed: &Observed, before: &SandboxStatus) -> Option<InitStatus> {
    let skips = observed.sandbox.spec.template.init.as_ref().is_some_and(|init| init.skip == Some(true));
    let skipped = || skips.then(|| InitStatus { outcome: InitOutcome::Skipped, ..InitStatus::default() });
    let failed = || before.init.clone().filter(|init| init.outcome == InitOutcome::Failed);
    let pod = match observed.pod.owned() {
        // There is no init work in a Pod that the sandbox attaches to.
        None if observed.sandbox.spec.template.attach.is_some() => return None,
        // The last failure is reported until there is a new Pod.
        None => return skipped().or_else(failed),
        Some(pod) if !has_init(pod) => return skipped(),
        Some(pod) => pod,
    };
    let before = before.init.clone().filter(|_| before.pod_uid == pod.uid()).unwrap_or_default();
    let progress = Progress::of(pod, meta::SANDBOX_CONTAINER);
    let at = |time: Timestamp| Some(Time(time));
    Some(match &progress {
        Progress::Initializing { since } if !is_recorded(observed, pod) => match InitPhase::of(observed, pod, *since) {
            InitPhase::Waits { .. } => InitStatus::default(),
            InitPhase::Works { since, .. } => {
                InitStatus { outcome: InitOutcome::Running, started_at: at(since), ..InitStatus::default() }
            }
            InitPhase::Silent => InitStatus { outcome: InitOutcome::Failed, ..before },
        },
        // `started` and `ready` are not trusted: see `awaits_success`.
        Progress::Running | Progress::Silent | Progress::HeldBack { .. } | Progress::Ready
            if !is_known_to_succeed(observed, pod, &progress) =>
        {
            match released(pod) {
                Some(released) => InitStatus {
                    outcome: InitOutcome::Running,
                    started_at: before.started_at.or_else(|| at(released)),
                    ..InitStatus::default()
                },
                None => InitStatus::default(),
            }
        }
        Progress::Initializing { .. }
        | Progress::Running
        | Progress::HeldBack { .. }
        | Progress::Ready
        | Progress::Silent => InitStatus {
            outcome: InitOutcome::Succeeded,
            started_at: before.started_at.or_else(|| released(pod).and_then(at)),
            finished_at: before
                .finished_at
                .filter(|_| before.outcome == InitOutcome::Succeeded)
                .or_else(|| at(observed.now)),
            root: before.root.or_else(|| root(pod)),
            ..InitStatus::default()
        },
        Progress::Ended { when, .. } => match failure(observed, pod, &progress) {
            Some(failure) => InitStatus {
                outcome: InitOutcome::Failed,
                step: failure.step,
                exit_code: failure.exit_code,
                signal: failure.signal,
                tail: Some(failure.tail).filter(|tail| !tail.is_empty()),
                started_at: before.started_at.or_else(|| released(pod).and_then(at)),
                finished_at: when.map(|End { at, .. }| Time(at)),
                root: failure.restore.map(|fault| RootStatus {
                    state: RootState::NotRestored,
                    reason: Some(fault.to_string()),
                    message: Some(failure.how),
                    saved: None,
                }),
            },
            None => before,
        },
        Progress::Terminating => before,
        Progress::Created | Progress::Unschedulable { .. } | Progress::Waiting { .. } => InitStatus::default(),
    })
}

/// Whether a container that runs shows that its init work has succeeded.
fn is_known_to_succeed(observed: &Observed, pod: &Pod, progress: &Progress) -> bool {
    let by_kubelet = || !has_reporter(pod) && matches!(progress, Progress::HeldBack { .. } | Progress::Ready);
    is_recorded(observed, pod) || (reports_success(pod) && !awaits_success(observed, pod, progress)) || by_kubelet()
}

/// The message for a failure, with the last line that the step printed.
pub(super) fn in_words(failure: &InitFailure) -> String {
    let what = format!("The {} {}", failure.subject(), failure.how);
    match failure.tail.lines().map(str::trim).rfind(|line| !line.is_empty()) {
        Some(line) => format!("{what}: {}.", line.trim_end_matches('.')),
        None => format!("{what}."),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use serde_json::json;

    use super::{
        super::{Lifecycle, pod},
        work::secrets,
        *,
    };
    use crate::{
        api::Sandbox,
        plan::{ChildState, Lookup, effective::EffectiveSession, name::Label},
        protocol::init::{SUCCESS, Secrets, Skills},
    };

    fn sandbox(spec: &serde_json::Value) -> Sandbox {
        let object =
            json!({"apiVersion": "aigise.dev/v1alpha1", "kind": "Sandbox", "metadata": {"name": "s"}, "spec": spec});
        serde_json::from_value(object).unwrap()
    }

    fn status_of(observed: &Observed) -> Option<InitStatus> {
        status(observed, &observed.sandbox.status.clone().unwrap_or_default())
    }

    fn observed(spec: &serde_json::Value, session: &serde_json::Value) -> Observed {
        let session = json!({"metadata": {"name": "demo", "namespace": "ns", "uid": "of-demo"}, "spec": session});
        Observed::example(sandbox(spec), Lookup::Found(Arc::new(EffectiveSession::stored(session))))
    }

    #[test]
    fn nobody_waits_for_itself_or_without_a_session() {
        let label = Label::of("gdb_mcp").unwrap();
        let complaint = |spec| check_needs(&sandbox(&spec), &label).map_err(|invalid| invalid.to_string());
        assert!(
            complaint(json!({"type": "gdb_mcp", "dependsOn": ["main"]})).unwrap_err().contains("this sandbox has none")
        );
        let itself = json!({"type": "gdb_mcp", "session": "demo", "dependsOn": ["main", "gdb-mcp"]});
        assert!(complaint(itself).unwrap_err().contains("wait for itself"));
        assert_eq!(complaint(json!({"type": "gdb_mcp", "session": "demo", "dependsOn": ["main"]})), Ok(()));
    }

    #[test]
    fn a_circular_wait_is_reported_with_its_chain() {
        let sibling = |sandbox_type: &str, needs: &str| {
            Arc::new(sandbox(&json!({"type": sandbox_type, "session": "demo", "dependsOn": [needs]})))
        };
        let complaint = |siblings: Vec<Arc<Sandbox>>| {
            let mut observed =
                observed(&json!({"type": "a", "session": "demo", "dependsOn": ["b"]}), &json!({"sandboxes": {}}));
            observed.siblings = siblings;
            let session = observed.session.found().unwrap().clone();
            check_session_needs(&observed, &session).map_err(|invalid| invalid.to_string())
        };
        assert_eq!(complaint(vec![]), Ok(()), "no sandbox has the type yet");
        assert_eq!(complaint(vec![sibling("b", "c"), sibling("c", "d")]), Ok(()));
        assert_eq!(
            complaint(vec![sibling("b", "c"), sibling("c", "b")]),
            Ok(()),
            "a cycle of other sandboxes is their problem"
        );
        let circle = complaint(vec![sibling("B", "c"), sibling("c", "A")]).unwrap_err();
        assert_eq!(circle, "spec.dependsOn: a → b → c → A, which is a cycle.");
    }

    #[test]
    fn a_release_is_written_again_while_nothing_is_heard() {
        let pod = |annotations: serde_json::Value| -> Pod {
            let running = json!({"running": {"startedAt": "2026-01-01T00:00:00Z"}});
            let status = json!({"containerStatuses": [{"name": "sandbox", "started": false, "ready": false, "image": "i", "imageID": "", "restartCount": 0, "state": running}]});
            serde_json::from_value(json!({"metadata": {"name": "s", "annotations": annotations}, "status": status}))
                .unwrap()
        };
        let at = |pod: &Pod, now: &str| {
            let mut observed =
                observed(&json!({"type": "fuzz", "session": "demo", "dependsOn": ["main"]}), &json!({"sandboxes": {}}));
            (observed.pod, observed.now) = (ChildState::Owned(Arc::new(pod.clone())), now.parse().unwrap());
            release(&observed).map(|pod| pod.metadata.annotations.as_ref().unwrap()[meta::RELEASE_REPEATS].clone())
        };
        let birth = pod(json!({meta::GATE: "{}", meta::RELEASE: "2026-01-01T00:00:00Z"}));
        assert_eq!(at(&birth, "2026-01-01T00:10:00Z"), None, "the kubelet has only seen the Pod with its release");
        let later = |repeats: &str| {
            pod(json!({meta::GATE: "{}", meta::RELEASE: "2026-01-01T00:01:00Z", meta::RELEASE_REPEATS: repeats}))
        };
        assert_eq!(at(&later("0"), "2026-01-01T00:01:02Z"), None);
        assert_eq!(at(&later("0"), "2026-01-01T00:01:03Z").as_deref(), Some("1"));
        assert_eq!(at(&later("1"), "2026-01-01T00:01:08Z"), None);
        assert_eq!(at(&later("1"), "2026-01-01T00:01:09Z").as_deref(), Some("2"));
        assert_eq!(at(&later("0"), "2026-01-01T00:30:00Z").as_deref(), Some("3"), "missed repetitions are skipped");
        assert_eq!(at(&later("3"), "2026-01-01T00:30:00Z"), None, "by then the kubelet has synced the Pod");
    }

    #[test]
    fn a_container_that_has_started_is_initialized_when_its_probe_says_so_and_not_before() {
        let status = json!({"containerStatuses": [{"name": "sandbox", "started": true, "ready": false, "image": "i", "imageID": "", "restartCount": 0, "state": {"running": {}}}]});
        let annotations = json!({meta::GATE: "{}", meta::RELEASE: "1970-01-01T00:00:00Z"});
        let metadata = json!({"name": "s", "uid": "u", "annotations": annotations});
        let pod: Pod = serde_json::from_value(json!({"metadata": metadata, "status": status})).unwrap();
        let spec = json!({"type": "fuzz", "session": "demo", "image": "i", "init": {"steps": [{"name": "a", "command": ["a"]}]}});
        let mut observed = observed(&spec, &json!({"sandboxes": {}}));
        observed.pod = ChildState::Owned(Arc::new(pod));
        let outcome = |observed: &Observed| status_of(observed).map(|init| init.outcome);
        let lifecycle = Lifecycle::of(&observed);
        assert!(
            matches!(lifecycle, Lifecycle::Initializing(InitPhase::Works { .. })),
            "a restarted kubelet reports this: {lifecycle:?}"
        );
        assert_eq!(outcome(&observed), Some(InitOutcome::Running));
        let done = InitStatus { outcome: InitOutcome::Succeeded, ..InitStatus::default() };
        let seen = SandboxStatus { pod_uid: Some("u".into()), init: Some(done), ..SandboxStatus::default() };
        Arc::make_mut(&mut observed.sandbox).status = Some(seen);
        assert_eq!(Lifecycle::of(&observed), Lifecycle::Pod(Progress::Running), "a reported success is kept");
        assert_eq!(outcome(&observed), Some(InitOutcome::Succeeded));
    }

    /// A kubelet that was restarted says that everything has started and is ready.
    #[test]
    fn the_success_counts_when_the_reporter_has_reported_it() {
        let spec = json!({"type": "fuzz", "session": "demo", "image": "i", "init": {"steps": [{"name": "a", "command": ["a"]}]}, "readinessProbe": {"tcpSocket": {"port": 1}}});
        let mut observed = observed(&spec, &json!({"sandboxes": {}}));
        let mut is_ready = |reported: Option<&str>, runs: bool, ready: bool| {
            let sandbox = json!({"name": "sandbox", "started": true, "ready": true, "image": "i", "imageID": "", "restartCount": 0, "state": {"running": {}}});
            let state = if runs { json!({"running": {}}) } else { json!({"waiting": {"reason": "PodInitializing"}}) };
            let last = reported.map(|message| json!({"terminated": {"exitCode": 0, "message": message}}));
            let reporter = json!({"name": INIT_REPORTER, "ready": runs, "image": "i", "imageID": "", "restartCount": 0, "state": state, "lastState": last.unwrap_or(json!({}))});
            let condition = json!({"type": "Ready", "status": if ready { "True" } else { "False" }, "reason": "ContainersNotReady"});
            let annotations = json!({meta::GATE: "{}", meta::RELEASE: "1970-01-01T00:00:00Z"});
            let pod = json!({
                "metadata": {"name": "s", "uid": "u", "annotations": annotations},
                "spec": {"initContainers": [{"name": INIT_REPORTER, "restartPolicy": "Always"}], "containers": []},
                "status": {"conditions": [condition], "containerStatuses": [sandbox], "initContainerStatuses": [reporter]},
            });
            observed.pod = ChildState::Owned(Arc::new(serde_json::from_value(pod).unwrap()));
            let outcome = status_of(&observed).unwrap().outcome;
            match Lifecycle::of(&observed) {
                Lifecycle::Pod(progress) => {
                    assert_eq!(outcome, InitOutcome::Succeeded);
                    progress == Progress::Ready
                }
                Lifecycle::Initializing(InitPhase::Works { .. }) => {
                    assert_eq!(outcome, InitOutcome::Running);
                    false
                }
                other => panic!("{other:?}"),
            }
        };
        assert!(!is_ready(None, true, true), "the kubelet alone is not believed");
        assert!(!is_ready(Some("{}"), true, true), "and neither are other words");
        assert!(!is_ready(Some(SUCCESS), true, false), "the own probe has not succeeded");
        assert!(is_ready(Some(SUCCESS), false, false), "that the reporter is being restarted delays nobody");
        assert!(is_ready(Some(SUCCESS), true, true));
    }

    #[test]
    fn an_initialiser_that_passes_a_limit_of_its_sandbox_has_failed_and_one_that_lost_its_node_has_not() {
        let spec = json!({"type": "fuzz", "session": "demo", "image": "i", "init": {"steps": [{"name": "a", "command": ["a"]}]}});
        let mut observed = observed(&spec, &json!({"sandboxes": {}}));
        let mut lifecycle = |words: &str, init: Option<InitOutcome>| {
            let terminated =
                json!({"terminated": {"exitCode": 137, "reason": "Error", "finishedAt": "2026-01-01T00:00:00Z"}});
            let container = json!({"name": "sandbox", "started": false, "ready": false, "image": "i", "imageID": "", "restartCount": 0, "state": terminated});
            let status =
                json!({"phase": "Failed", "reason": "Evicted", "message": words, "containerStatuses": [container]});
            let metadata = json!({"name": "s", "uid": "u", "annotations": {meta::GATE: "{}"}});
            let pod: Pod = serde_json::from_value(json!({"metadata": metadata, "status": status})).unwrap();
            observed.pod = ChildState::Owned(Arc::new(pod));
            let init = init.map(|outcome| InitStatus { outcome, ..InitStatus::default() });
            let seen = SandboxStatus { pod_uid: Some("u".into()), init, ..SandboxStatus::default() };
            Arc::make_mut(&mut observed.sandbox).status = Some(seen);
            Lifecycle::of(&observed)
        };
        for words in [
            "Usage of EmptyDir volume \"tmp\" exceeds the limit \"1Mi\". ",
            "Pod ephemeral local storage usage exceeds the total limit of containers 16Mi. ",
            "Container sandbox exceeded its local ephemeral storage limit \"16Mi\". ",
        ] {
            let Lifecycle::InitFailed(failure) = lifecycle(words, None) else { panic!("{words}") };
            let text = in_words(&failure);
            assert!(text.contains(words.trim()) && !text.contains(". ."), "{text}");
            let later = lifecycle(words, Some(InitOutcome::Succeeded));
            assert!(matches!(later, Lifecycle::Restarting { .. }), "the init work had succeeded: {later:?}");
        }
        let pressed = "The node was low on resource: ephemeral-storage. Threshold quantity: 1, available: 0. \
                       Container sandbox was using 1Gi, request is 0, has larger consumption of ephemeral-storage. ";
        let lost = lifecycle(pressed, None);
        assert!(matches!(lost, Lifecycle::Restarting { .. }), "{lost:?}");
    }

    #[test]
    fn what_a_sandbox_says_of_its_initialiser_after_that_is_not_believed() {
        let spec = json!({"type": "fuzz", "session": "demo", "image": "i", "init": {"steps": [{"name": "a", "command": ["a"]}]}});
        let mut observed = observed(&spec, &json!({"sandboxes": {}}));
        let words =
            json!({"aigiseGate": {"step": "compile", "how": "ended with exit code 2", "exitCode": 2, "tail": "t"}});
        let terminated = json!({"exitCode": 0, "reason": "Completed", "finishedAt": "2026-01-01T00:00:00Z", "message": words.to_string()});
        let container = json!({"name": "sandbox", "started": false, "ready": false, "image": "i", "imageID": "", "restartCount": 0, "state": {"terminated": terminated}});
        let metadata = json!({"name": "s", "uid": "u", "annotations": {meta::GATE: "{}"}});
        let pod = json!({"metadata": metadata, "status": {"phase": "Succeeded", "containerStatuses": [container]}});
        observed.pod = ChildState::Owned(Arc::new(serde_json::from_value(pod).unwrap()));
        let mut says = |outcome| {
            let init = Some(InitStatus { outcome, ..InitStatus::default() });
            let seen = SandboxStatus { pod_uid: Some("u".into()), init, ..SandboxStatus::default() };
            Arc::make_mut(&mut observed.sandbox).status = Some(seen);
            (Lifecycle::of(&observed), status_of(&observed).unwrap().outcome)
        };
        assert!(matches!(says(InitOutcome::Running), (Lifecycle::InitFailed(_), InitOutcome::Failed)));
        let later = says(InitOutcome::Succeeded);
        assert!(matches!(later, (Lifecycle::Restarting { .. }, InitOutcome::Succeeded)), "{later:?}");
    }

    #[test]
    fn what_failed_is_reported_until_there_is_another_pod() {
        let steps = json!({"steps": [{"name": "a", "command": ["a"]}]});
        let outcome = |spec: serde_json::Value, pod: ChildState<Pod>| {
            let mut observed = observed(&spec, &json!({"sandboxes": {}}));
            let init = InitStatus { outcome: InitOutcome::Failed, exit_code: Some(2), ..InitStatus::default() };
            let seen = SandboxStatus { pod_uid: Some("old".into()), init: Some(init), ..SandboxStatus::default() };
            (Arc::make_mut(&mut observed.sandbox).status, observed.pod) = (Some(seen), pod);
            status_of(&observed).map(|init| (init.outcome, init.exit_code))
        };
        let works = json!({"type": "main", "session": "demo", "image": "i", "init": steps});
        assert_eq!(outcome(works.clone(), ChildState::Absent), Some((InitOutcome::Failed, Some(2))));
        let next = json!({"metadata": {"name": "s", "uid": "new", "annotations": {meta::GATE: "{}"}}});
        let next = ChildState::Owned(Arc::new(serde_json::from_value(next).unwrap()));
        assert_eq!(outcome(works, next), Some((InitOutcome::Waiting, None)));
        let attached = json!({"type": "main", "session": "demo", "attach": {"podName": "theirs", "container": "c"}});
        assert_eq!(outcome(attached, ChildState::Absent), None);
    }

    #[test]
    fn services_are_asked_where_they_are() {
        let spec = json!({"type": "gdb_mcp", "session": "demo", "mcpServices": ["gdb", "far"]});
        let services =
            json!({"gdb": {"sandbox": "GDB.mcp", "port": 1111}, "far": {"sandbox": "main", "port": 80, "path": "/x"}});
        let observed = observed(&spec, &json!({"sandboxes": {}, "mcpServices": services}));
        let asked: Vec<_> =
            work(&observed).unwrap().services.into_iter().map(|one| (one.host, one.port, one.path)).collect();
        let expected = [("gdb-mcp".into(), 1111, "/sse".into()), ("main.demo.ns.svc".into(), 80, "/x".into())];
        assert_eq!(asked, expected);
        let session = observed.session.found().unwrap();
        let here = endpoints(session, &observed.sandbox, "host");
        assert_eq!(here, [("gdb".to_string(), "http://host:1111/sse".to_string())].into());
    }

    #[test]
    fn a_transport_decides_the_path_and_the_default_is_not_written() {
        let spec = json!({"type": "tool", "session": "demo", "mcpServices": ["t"]});
        let of = |more: serde_json::Value| {
            let mut service = json!({"sandbox": "tool", "port": 80});
            service.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            let observed = observed(&spec, &json!({"sandboxes": {}, "mcpServices": {"t": service}}));
            let session = observed.session.found().unwrap();
            let url = endpoints(session, &observed.sandbox, "host").remove("t").unwrap();
            let work = serde_json::to_value(work(&observed).unwrap()).unwrap();
            (url, work["services"][0].clone(), pod::template_hash(&observed))
        };
        let absent = of(json!({}));
        assert_eq!(absent.0, "http://host:80/sse");
        assert_eq!(absent.1, json!({"name": "t", "host": "tool", "port": 80, "path": "/sse"}));
        assert_eq!(of(json!({"transport": "Auto"})), absent);
        let (url, service, hash) = of(json!({"transport": "HTTP"}));
        assert_eq!((url.as_str(), &service["transport"]), ("http://host:80/mcp", &json!("http")));
        assert_ne!(hash, absent.2, "the sandbox is out of date");
        assert_eq!(of(json!({"transport": "HTTP", "path": "/x"})).0, "http://host:80/x");
        assert_eq!(of(json!({"transport": "SSE"})).1["transport"], "sse");
    }

    #[test]
    fn the_own_probe_has_its_own_timeout() {
        let timeout = |probe: serde_json::Value| {
            let spec = json!({"type": "main", "session": "demo", "dependsOn": ["fuzz"], "readinessProbe": probe});
            work(&observed(&spec, &json!({"sandboxes": {}}))).unwrap().probe_timeout
        };
        assert_eq!(timeout(json!({"exec": {"command": ["true"]}, "timeoutSeconds": 20})), Some(20));
        assert_eq!(timeout(json!({"exec": {"command": ["true"]}})), None);
        assert_eq!(timeout(json!({"grpc": {"port": 1}, "timeoutSeconds": 20})), None, "the kubelet's");
    }

    #[test]
    fn skills_are_for_sessions_with_tools_that_enable_some() {
        let skills =
            |session| work(&observed(&json!({"type": "main", "session": "demo"}), &session)).map(|work| work.skills);
        let tools = json!({"tools": {"claimName": "t"}});
        assert_eq!(skills(json!({"sandboxes": {}, "volumes": tools})), None);
        assert_eq!(skills(json!({"sandboxes": {}, "volumes": tools, "enabledSkills": []})), None);
        assert_eq!(skills(json!({"sandboxes": {}, "enabledSkills": ["all"]})), None, "there are none");
        let some = Skills { sandbox_type: "main".into(), enabled: vec!["all".into()] };
        assert_eq!(skills(json!({"sandboxes": {}, "volumes": tools, "enabledSkills": ["all"]})), Some(Some(some)));
    }

    #[test]
    fn only_what_has_something_to_do_or_to_wait_for_has_init_work() {
        let work = |spec| work(&observed(&spec, &json!({"sandboxes": {}})));
        assert_eq!(work(json!({"type": "main"})), None);
        assert_eq!(work(json!({"type": "main", "init": {"timeout": "5m"}})), None);
        let steps = json!([{"name": "a", "command": ["true"], "timeout": "90s"}]);
        assert_eq!(work(json!({"type": "main", "init": {"steps": steps, "skip": true}})), None);
        let some = work(json!({"type": "main", "init": {"steps": steps}})).unwrap();
        assert_eq!((some.timeout, some.steps[0].timeout), (3600, Some(90)));
        assert_eq!(work(json!({"type": "fuzz", "dependsOn": ["main"]})).map(|work| work.steps.len()), Some(0));
    }

    #[test]
    fn what_comes_from_a_secret_is_named_in_the_init_work() {
        let env = json!([
            {"name": "PLAIN", "value": "1"},
            {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
        ]);
        let template =
            |from: serde_json::Value| sandbox(&json!({"type": "main", "env": env, "envFrom": from})).spec.template;
        let some = secrets(&template(json!([{"configMapRef": {"name": "c"}}])));
        assert_eq!(some, Secrets { names: ["TOKEN".to_string()].into(), all_but: None });
        let whole = secrets(&template(json!([{"secretRef": {"name": "s"}}])));
        assert_eq!(whole.all_but, Some(["PLAIN".to_string()].into()));
        let overlaid = |container: serde_json::Value| {
            let pod_template = json!({"spec": {"containers": [{"name": "sidecar", "env": env}, container]}});
            let env = json!([{"name": "PLAIN", "value": "1"}, {"name": "OTHER", "value": "2"}]);
            secrets(&sandbox(&json!({"type": "main", "env": env, "podTemplate": pod_template})).spec.template)
        };
        let secret = json!([{"name": "PLAIN", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]);
        let some = overlaid(json!({"name": "sandbox", "env": secret}));
        assert_eq!(some, Secrets { names: ["PLAIN".to_string()].into(), all_but: None });
        let whole = overlaid(json!({"name": "sandbox", "env": secret, "envFrom": [{"secretRef": {"name": "s"}}]}));
        assert_eq!(whole.all_but, Some(["OTHER".to_string()].into()));
        assert_eq!(overlaid(json!({"name": "sandbox"})), Secrets::default());
    }
}
