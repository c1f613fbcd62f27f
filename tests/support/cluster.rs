//! The rest of a small cluster around the API server: garbage collection, a scheduler that also binds claims, and a kubelet.
//!
//! [`Cluster::run`] lets all of it work by itself, each step as late as it would be. [`Cluster::collect_garbage`],
//! [`Cluster::schedule`], [`Cluster::start`] and [`Cluster::end`] are the same steps, for a test that takes them one by one.

use std::{
    collections::BTreeSet,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use aigise_operator::{
    api::meta::{self, Component},
    plan::reserved::INIT_REPORTER,
    protocol::{
        cache::{Part, RestoreReport, Root, RootReport, RootWork, SaveReport},
        init,
        staging::{self, Manifest, StagingReport},
    },
};
use serde_json::{Value, json};

use super::apiserver::{ApiServer, Key, is_deleting, text};

/// How long each step takes.
const SCHEDULING: Duration = Duration::from_millis(10);
const PREPARING: Duration = Duration::from_millis(30);
const STARTING: Duration = Duration::from_millis(400);
/// How long the init work of a sandbox takes.
const INITIALIZING: Duration = Duration::from_secs(5);
const STAGING: Duration = Duration::from_millis(600);
const ENDING: Duration = Duration::from_millis(200);
/// What each takes that is slow.
const SLOW: Duration = Duration::from_millis(80);
const COLLECTING: Duration = Duration::from_millis(200);

/// The hands of the cluster; the clones are the same.
#[derive(Clone)]
pub struct Cluster {
    api: ApiServer,
    /// Images that no registry has.
    missing: Arc<Mutex<BTreeSet<String>>>,
    /// Images in which no init work succeeds.
    broken: Arc<Mutex<BTreeSet<String>>>,
    /// How long staging takes.
    staging: Arc<Mutex<Duration>>,
    /// No staging succeeds.
    is_spoilt: Arc<AtomicBool>,
    /// Whether the scheduler and the kubelet take Pods one after the other.
    is_slow: Arc<AtomicBool>,
    scheduler: Arc<tokio::sync::Mutex<()>>,
    kubelet: Arc<tokio::sync::Mutex<()>>,
}

impl Cluster {
    pub fn new(api: &ApiServer) -> Self {
        Self {
            api: api.clone(),
            missing: Arc::default(),
            broken: Arc::default(),
            staging: Arc::new(Mutex::new(STAGING)),
            is_spoilt: Arc::default(),
            is_slow: Arc::default(),
            scheduler: Arc::default(),
            kubelet: Arc::default(),
        }
    }

    /// From now on no registry has this image.
    pub fn lose_image(&self, image: &str) {
        self.missing.lock().unwrap().insert(image.into());
    }

    /// The image is pushed.
    pub fn push_image(&self, image: &str) {
        self.missing.lock().unwrap().remove(image);
        self.api.nudge();
    }

    /// From now on what is to be done in a sandbox of this image fails.
    pub fn break_init(&self, image: &str) {
        self.broken.lock().unwrap().insert(image.into());
    }

    /// It succeeds again.
    pub fn fix_init(&self, image: &str) {
        self.broken.lock().unwrap().remove(image);
    }

    /// From now on it takes so long to fill volumes.
    pub fn staging_takes(&self, long: Duration) {
        *self.staging.lock().unwrap() = long;
    }

    /// Whether the sources are bad from now on.
    pub fn spoil_sources(&self, are_bad: bool) {
        self.is_spoilt.store(are_bad, Ordering::Relaxed);
    }

    /// From now on the scheduler and the kubelet take Pods one after the other, and some time for each.
    pub fn slow_down(&self) {
        self.is_slow.store(true, Ordering::Relaxed);
    }

    /// The time that a step takes, also that until it is its turn.
    async fn takes(&self, usual: Duration, turn: &tokio::sync::Mutex<()>) {
        if self.is_slow.load(Ordering::Relaxed) {
            let _turn = turn.lock().await;
            tokio::time::sleep(SLOW).await;
        } else {
            tokio::time::sleep(usual).await;
        }
    }

    /// Works by itself, until it is dropped.
    pub async fn run(self) {
        let mut changes = self.api.changes();
        let mut hosted = BTreeSet::new();
        let mut tasks = tokio::task::JoinSet::new();
        loop {
            changes.mark_unchanged();
            for (key, pod) in self.api.all().into_iter().filter(|(key, _)| key.plural == "pods") {
                if hosted.insert(text(&pod, "/metadata/uid").to_string()) {
                    tasks.spawn(self.clone().host(key, text(&pod, "/metadata/uid").to_string()));
                }
            }
            tokio::time::sleep(COLLECTING).await;
            self.collect_garbage();
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    /// Deletes what has lost its owners, lets claims go that no Pod uses, and empties namespaces that are going.
    pub fn collect_garbage(&self) {
        let all = self.api.all();
        let in_use = |claim: &Key| {
            all.iter().any(|(key, pod)| {
                key.plural == "pods"
                    && key.namespace == claim.namespace
                    && claims_of(pod).any(|name| name == claim.name)
            })
        };
        for (key, object) in &all {
            let owners = object["metadata"]["ownerReferences"].as_array().map(Vec::as_slice).unwrap_or_default();
            let is_orphan = !owners.is_empty() && !owners.iter().any(|owner| self.api.has_owner(&key.namespace, owner));
            let namespace_goes =
                self.api.get("namespaces", "", &key.namespace).is_some_and(|found| is_deleting(&found));
            if (is_orphan || namespace_goes) && !is_deleting(object) {
                self.api.delete(key, &json!({"preconditions": {"uid": object["metadata"]["uid"]}}));
            }
            if key.plural == "persistentvolumeclaims" && is_deleting(object) && !in_use(key) {
                self.api.edit(key, |claim| claim["metadata"]["finalizers"] = json!([]));
            }
            let is_empty = || all.iter().all(|(other, _)| other.namespace != key.name);
            if key.plural == "namespaces" && is_deleting(object) && is_empty() {
                self.api.edit(key, |namespace| namespace["spec"]["finalizers"] = json!([]));
            }
        }
    }

    /// Leads one Pod through its life.
    async fn host(self, key: Key, uid: String) {
        let mut changes = self.api.changes();
        loop {
            changes.mark_unchanged();
            let Some(pod) = self.pod(&key).filter(|pod| pod["metadata"]["uid"] == uid.as_str()) else { return };
            if is_deleting(&pod) {
                tokio::time::sleep(ENDING).await;
                return self.kill(&key);
            }
            let before = pod["status"].clone();
            self.next_step(&key, &pod).await;
            let after = self.pod(&key).map(|pod| pod["status"].clone());
            // Where nothing moves, something has to change first.
            if after.as_ref() == Some(&before) && changes.changed().await.is_err() {
                return;
            }
        }
    }

    async fn next_step(&self, key: &Key, pod: &Value) {
        if text(pod, "/spec/nodeName").is_empty() {
            self.takes(SCHEDULING, &self.scheduler).await;
            return self.schedule(key);
        }
        let state = &pod["status"]["containerStatuses"][0]["state"];
        if state.is_null() {
            tokio::time::sleep(PREPARING).await;
            return self.prepare(key);
        }
        if state["terminated"].is_object() {
            return;
        }
        if state["running"].is_object() {
            let is_gated = pod["spec"]["containers"][0]["startupProbe"].is_object();
            if is_gated && pod["status"]["containerStatuses"][0]["started"] == false {
                if !pod["metadata"]["annotations"][meta::RELEASE].is_null() {
                    tokio::time::sleep(INITIALIZING).await;
                    if self.broken.lock().unwrap().contains(text(pod, "/spec/containers/0/image")) {
                        return self.terminate(key, 143, Some(init_failure()));
                    }
                    self.edit_running(key, |pod| {
                        let state = pod["status"]["containerStatuses"][0]["state"].clone();
                        set_condition(pod, json!({"type": "Ready", "status": "True"}));
                        set_state(pod, state);
                        // The container that reports the success has done so, and was started again.
                        let reported = json!({"terminated": {"exitCode": 0, "message": success(pod).text()}});
                        pod["status"]["initContainerStatuses"] = json!([{
                            "name": INIT_REPORTER, "image": "helper", "imageID": "", "restartCount": 1, "ready": true,
                            "state": {"running": {}}, "lastState": reported,
                        }]);
                    });
                }
                return;
            }
            if is_of(pod, Component::Pull) {
                return self.end(key, 0);
            }
            if let Some(report) = cached(pod) {
                return self.terminate(key, 0, Some(report));
            }
            if manifest(pod).is_some() {
                let long = *self.staging.lock().unwrap();
                tokio::time::sleep(long).await;
                self.end(key, i32::from(self.is_spoilt.load(Ordering::Relaxed)));
            }
            return;
        }
        if self.obstacle(pod).is_none() {
            self.takes(STARTING, &self.kubelet).await;
        }
        self.start(key);
    }

    fn pod(&self, key: &Key) -> Option<Arc<Value>> {
        self.api.get("pods", &key.namespace, &key.name)
    }

    fn is_there(&self, plural: &'static str, key: &Key, name: &str) -> bool {
        self.api.get(plural, &key.namespace, name).is_some_and(|found| !is_deleting(&found))
    }

    /// The scheduler finds a node, and the claims get their volumes; or it says what is in the way.
    pub fn schedule(&self, key: &Key) {
        let Some(pod) = self.pod(key).filter(|pod| !is_deleting(pod)) else { return };
        let now = self.api.now().to_string();
        let missing = claims_of(&pod).find(|name| !self.is_there("persistentvolumeclaims", key, name));
        if let Some(name) = missing {
            let message = format!("0/1 nodes are available: persistentvolumeclaim \"{name}\" not found.");
            return self.api.edit(key, |pod| {
                set_condition(
                    pod,
                    json!({"type": "PodScheduled", "status": "False", "reason": "Unschedulable", "message": message}),
                );
            });
        }
        for name in claims_of(&pod) {
            let claim = Key { plural: "persistentvolumeclaims", namespace: key.namespace.clone(), name: name.into() };
            self.api.edit(&claim, |claim| {
                claim["spec"]["volumeName"] = json!(format!("pv-{name}"));
                claim["status"] = json!({"phase": "Bound", "accessModes": claim["spec"]["accessModes"], "capacity": claim["spec"]["resources"]["requests"]});
            });
        }
        self.api.edit(key, |pod| {
            pod["spec"]["nodeName"] = json!("node-1");
            set_condition(pod, json!({"type": "PodScheduled", "status": "True", "lastTransitionTime": now}));
        });
    }

    /// The kubelet has seen the Pod.
    fn prepare(&self, key: &Key) {
        let now = self.api.now().to_string();
        self.edit_running(key, |pod| {
            pod["status"]["startTime"] = json!(now);
            set_condition(pod, json!({"type": "Ready", "status": "False", "reason": "ContainersNotReady"}));
            set_state(pod, json!({"waiting": {"reason": "ContainerCreating"}}));
        });
    }

    /// What keeps the kubelet from starting the container, if it says something about it; an empty state where it only waits.
    fn obstacle(&self, pod: &Value) -> Option<Value> {
        let image = text(pod, "/spec/containers/0/image");
        if self.missing.lock().unwrap().contains(image) {
            let message = format!("Back-off pulling image \"{image}\": ErrImagePull: not found");
            return Some(json!({"waiting": {"reason": "ImagePullBackOff", "message": message}}));
        }
        let namespace = text(pod, "/metadata/namespace");
        let volumes = pod["spec"]["volumes"].as_array().into_iter().flatten();
        let mut config_maps = volumes.filter_map(|volume| volume["configMap"]["name"].as_str());
        let lacks = config_maps.any(|name| self.api.get("configmaps", namespace, name).is_none());
        lacks.then(|| json!({"waiting": {"reason": "ContainerCreating"}}))
    }

    /// The kubelet starts the container, which is ready at once; or says why it cannot.
    pub fn start(&self, key: &Key) {
        let Some(pod) = self.pod(key) else { return };
        let now = self.api.now().to_string();
        if let Some(state) = self.obstacle(&pod) {
            return self.edit_running(key, |pod| set_state(pod, state));
        }
        self.edit_running(key, |pod| {
            pod["status"]["phase"] = json!("Running");
            pod["status"]["podIP"] = json!("10.244.0.7");
            set_state(pod, json!({"running": {"startedAt": now}}));
            if pod["spec"]["containers"][0]["startupProbe"].is_object() {
                pod["status"]["containerStatuses"][0]["started"] = json!(false);
                pod["status"]["containerStatuses"][0]["ready"] = json!(false);
            } else {
                set_condition(pod, json!({"type": "Ready", "status": "True"}));
            }
        });
    }

    /// The container ends; the one that stages has filled its volumes if it ends with 0, and says why not otherwise.
    pub fn end(&self, key: &Key, code: i32) {
        let Some(pod) = self.pod(key) else { return };
        let report = manifest(&pod).map(|manifest| match code {
            0 => staged(&manifest),
            _ => StagingReport::Failed { message: "a source is bad".into(), fault: staging::Fault::Source },
        });
        self.terminate(key, code, report.map(|report| serde_json::to_string(&report).unwrap()));
    }

    fn terminate(&self, key: &Key, code: i32, message: Option<String>) {
        let now = self.api.now().to_string();
        self.edit_running(key, |pod| {
            pod["status"]["phase"] = json!(if code == 0 { "Succeeded" } else { "Failed" });
            set_condition(pod, json!({"type": "Ready", "status": "False", "reason": "PodCompleted"}));
            let reason = if code == 0 { "Completed" } else { "Error" };
            set_state(
                pod,
                json!({"terminated": {"exitCode": code, "reason": reason, "message": message, "finishedAt": now}}),
            );
        });
    }

    /// The kubelet changes a Pod that is on its node.
    fn edit_running(&self, key: &Key, change: impl FnOnce(&mut Value)) {
        if self.pod(key).is_some_and(|pod| !text(&pod, "/spec/nodeName").is_empty() && !is_deleting(&pod)) {
            self.api.edit(key, change);
        }
    }

    /// The containers of a deleted Pod have ended, and it is gone.
    pub fn kill(&self, key: &Key) {
        self.api.delete(key, &json!({"gracePeriodSeconds": 0}));
    }
}

fn is_of(pod: &Value, component: Component) -> bool {
    pod["metadata"]["labels"][meta::COMPONENT] == component.to_string()
}

fn claims_of(pod: &Value) -> impl Iterator<Item = &str> {
    let volumes = pod["spec"]["volumes"].as_array().into_iter().flatten();
    volumes.filter_map(|volume| volume["persistentVolumeClaim"]["claimName"].as_str())
}

fn set_condition(pod: &mut Value, condition: Value) {
    let conditions = pod["status"].as_object_mut().expect("a status").entry("conditions").or_insert_with(|| json!([]));
    let conditions = conditions.as_array_mut().expect("a list");
    conditions.retain(|other| other["type"] != condition["type"]);
    conditions.push(condition);
}

fn set_state(pod: &mut Value, state: Value) {
    let container = &pod["spec"]["containers"][0];
    let ready = state["running"].is_object();
    pod["status"]["containerStatuses"] = json!([{
        "name": container["name"],
        "image": container["image"],
        "imageID": "",
        "restartCount": 0,
        "ready": ready,
        "state": state,
    }]);
}

/// What a stage Pod gets as its manifest; other Pods get none.
fn manifest(pod: &Value) -> Option<Manifest> {
    let container = &pod["spec"]["containers"][0];
    if container["name"] != meta::STAGE_CONTAINER {
        return None;
    }
    let variables = container["env"].as_array()?.iter();
    let manifest = variables
        .filter(|variable| variable["name"] == staging::MANIFEST_ENV)
        .find_map(|variable| variable["value"].as_str())?;
    serde_json::from_str(&manifest.replace("$$", "$")).ok()
}

/// What a Pod that saves or restores a cache reports when all went well; other Pods report nothing.
fn cached(pod: &Value) -> Option<String> {
    let volumes = ["data", "tools"];
    let part =
        |volume: &str| Part { file: format!("{volume}.tar.zst"), sha256: "0".repeat(64), packed: 500, unpacked: 1000 };
    match text(pod, "/spec/containers/0/command/1") {
        "save" => {
            let volumes = volumes.map(|volume| (volume.to_string(), part(volume)));
            serde_json::to_string(&SaveReport::Saved {
                arch: "x86_64".into(),
                volumes: volumes.into(),
                left_out: BTreeSet::new(),
            })
            .ok()
        }
        "restore" => {
            let volumes = volumes.map(|volume| (volume.to_string(), 1000));
            serde_json::to_string(&RestoreReport::Restored { volumes: volumes.into(), left_out: BTreeSet::new() }).ok()
        }
        _ => None,
    }
}

/// What a sandbox reports whose init work has succeeded.
fn success(pod: &Value) -> init::Success {
    let work = pod["metadata"]["annotations"][meta::GATE].as_str().and_then(|work| serde_json::from_str(work).ok());
    init::Success::with(work.and_then(|work: init::Work| root_report(&work.root?)))
}

/// What a sandbox reports that does all that it is asked to about its root file system.
pub fn root_report(work: &RootWork) -> Option<RootReport> {
    if work.restore.is_some() {
        return Some(RootReport::Restored);
    }
    let packed = Root { sha256: "0".repeat(64), packed: 500, unpacked: 1000, image: Some("1".repeat(64)) };
    work.save.then_some(RootReport::Saved(packed))
}

/// What `sandboxd gate` says when a step fails.
fn init_failure() -> String {
    let failure = init::InitFailure {
        step: Some("build".into()),
        how: "ended with exit code 2".into(),
        exit_code: Some(2),
        ..init::InitFailure::default()
    };
    init::TerminationMessage { failure }.text()
}

/// What `sandboxd stage` reports when all went well.
fn staged(manifest: &Manifest) -> StagingReport {
    let volumes = manifest.volumes.iter().map(|volume| {
        let files = volume.sources.len().try_into().unwrap_or_default();
        let roots = volume.top_roots.clone().unwrap_or_default();
        (volume.name.clone(), staging::Staged { files, kept: 0, roots, ..Default::default() })
    });
    StagingReport::Staged { volumes: volumes.collect() }
}
