//! Objects as earlier versions of the operator stored them on a real cluster, `tests/stored`, under the operator as it is now: it
//! finds nothing to write. This is the law of upgrades.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use aigise_operator::{
    api::{
        Agent, AigiseSession, Sandbox,
        agent::AgentState,
        sandbox::SandboxPhase,
        session::{SessionPhase, VolumeLayout},
    },
    controllers::{
        self, Start,
        cache::{Cache, Caches, Scope},
        metrics::Metrics,
    },
    plan::{CacheLimits, HelperMount, HelperResources, Settings},
    reading::Kept,
};
use futures::FutureExt;
use jiff::{SignedDuration, Timestamp};
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};
use strum::IntoEnumIterator;
use tokio::{sync::watch, task::JoinHandle};

use crate::support::{
    apiserver::{ApiServer, Key, Seen, Verb, faults, text},
    life::in_fast_time,
};

/// How long the operator is watched. What it reads by polling it reads every half a minute at the latest, Secrets and what was
/// refused left out.
const WATCHED: Duration = Duration::from_secs(120);

/// What was captured in one folder.
struct Capture {
    folder: String,
    about: About,
    objects: Vec<Value>,
}

/// When and how it was captured.
#[derive(Deserialize)]
struct About {
    time: Timestamp,
    namespace: String,
    settings: OperatorSettings,
}

/// What the operator had been configured with.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct OperatorSettings {
    helper_image: String,
    helper_mount: String,
    allow_privileged_templates: bool,
    allow_runner_exec: bool,
}

impl OperatorSettings {
    fn settings(&self) -> Settings {
        Settings {
            helper_image: self.helper_image.clone(),
            helper_mount: match self.helper_mount.as_str() {
                "Image" => HelperMount::Image,
                "Copy" => HelperMount::Copy,
                other => panic!("helperMount: {other}"),
            },
            helper_resources: HelperResources::default(),
            image_volumes: self.helper_mount == "Image",
            allow_privileged_templates: self.allow_privileged_templates,
            allow_runner_exec: self.allow_runner_exec,
            cluster_ranges: vec![],
            volume_layout: VolumeLayout::Separate,
            cache_limits: CacheLimits::default(),
        }
    }
}

impl Capture {
    fn read(folder: &Path) -> Self {
        let mut objects = vec![];
        for file in entries(folder) {
            if file.ends_with("capture.yaml") {
                continue;
            }
            let list: Value = read_yaml(&file);
            objects.extend(list["items"].as_array().unwrap_or_else(|| panic!("{}: no list", file.display())).clone());
        }
        let about = read_yaml(&folder.join("capture.yaml"));
        Self { folder: folder.file_name().unwrap().to_string_lossy().into(), about, objects }
    }

    /// The objects of a kind, as the operator reads them.
    fn of<K: kube::Resource<DynamicType = ()> + DeserializeOwned>(&self) -> Vec<K> {
        let kind = K::kind(&());
        let found = self.objects.iter().filter(|object| object["kind"] == *kind);
        let read = |object: &Value| {
            K::deserialize(object)
                .unwrap_or_else(|error| panic!("{}: {kind} {}: {error}", self.folder, text(object, "/metadata/name")))
        };
        found.map(read).collect()
    }

    /// A server that has stored it.
    fn server(&self) -> ApiServer {
        let name = &self.about.namespace;
        let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "uid": "stored", "creationTimestamp": "2026-01-01T00:00:00Z"}, "spec": {"finalizers": ["kubernetes"]}, "status": {"phase": "Active"}});
        let server = ApiServer::new();
        server.restore([vec![namespace], self.objects.clone()].concat());
        server
    }
}

fn read_yaml<T: DeserializeOwned>(file: &Path) -> T {
    let text = fs::read_to_string(file).unwrap();
    serde_yaml::from_str(&text).unwrap_or_else(|error| panic!("{}: {error}", file.display()))
}

/// What is in a folder, in order.
fn entries(folder: &Path) -> Vec<PathBuf> {
    let mut found: Vec<_> = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    found.sort();
    found
}

/// All captures, the oldest first.
fn captures() -> Vec<Capture> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/stored");
    let captures = entries(&folder).into_iter().filter(|entry| entry.join("capture.yaml").exists());
    captures.map(|folder| Capture::read(&folder)).collect()
}

/// A running operator, for which no time passes.
struct Operator {
    caches: watch::Receiver<Option<Arc<Caches>>>,
    metrics: Arc<Metrics>,
    task: JoinHandle<()>,
}

impl Operator {
    fn start(server: &ApiServer, about: &About, name: &str, now: Timestamp) -> Self {
        let metrics = Arc::new(Metrics::default());
        let start = Start {
            client: server.client(name),
            settings: Arc::new(about.settings.settings()),
            scope: Scope::of(vec![]),
            metrics: metrics.clone(),
            instance: Some(name.into()),
            concurrency: 16,
            clock: Arc::new(move || now),
        };
        let (filled, caches) = watch::channel(None);
        let never = std::future::pending().boxed().shared();
        let task = tokio::spawn(async move {
            let ended = controllers::run_all(start, filled, never).await;
            panic!("the operator ended by itself: {ended:?}");
        });
        Self { caches, metrics, task }
    }

    /// How many objects of our kinds it has read, kind by kind.
    fn known(&self) -> [usize; 3] {
        let caches = self.caches.borrow();
        let caches = caches.as_ref().expect("the caches are filled");
        [readable(&caches.sessions.objects), readable(&caches.sandboxes.objects), readable(&caches.agents.objects)]
    }
}

fn readable<K: Kept>(cache: &Cache<K>) -> usize {
    cache.store().state().iter().filter(|stored| stored.unreadable().is_none()).count()
}

/// How many changed objects are shown.
const SHOWN: usize = 10;

/// What was written, and what became of the first objects by that.
fn described(writes: &[Seen], before: &[(Key, Arc<Value>)], server: &ApiServer) -> String {
    let after = server.all();
    let changed = before.iter().filter_map(|(key, old)| {
        let new = after.iter().find(|(other, _)| other == key).map_or(&Value::Null, |(_, new)| &**new);
        let mut found = vec![];
        differences(old, new, String::new(), &mut found);
        found.retain(|line| !line.starts_with(".metadata.resourceVersion:"));
        (!found.is_empty()).then(|| format!("{}/{}\n  {}", key.plural, key.name, found.join("\n  ")))
    });
    let changed: Vec<_> = changed.collect();
    let shown = changed[..changed.len().min(SHOWN)].join("\n");
    format!("{}\nof {} changed objects the first are:\n{shown}", faults::lines(writes), changed.len())
}

/// Where two values differ, by the way into them.
fn differences(old: &Value, new: &Value, path: String, found: &mut Vec<String>) {
    match (old, new) {
        (Value::Object(before), Value::Object(after)) => {
            for name in before.keys().chain(after.keys()).collect::<BTreeSet<_>>() {
                differences(&old[name], &new[name], format!("{path}.{name}"), found);
            }
        }
        (Value::Array(before), Value::Array(after)) if before.len() == after.len() => {
            for (at, (old, new)) in before.iter().zip(after).enumerate() {
                differences(old, new, format!("{path}[{at}]"), found);
            }
        }
        (old, new) if old != new => found.push(format!("{path}: {old} -> {new}")),
        _ => {}
    }
}

/// What a later version writes on purpose, by the version that stored it.
///
/// v0: more is not the internet, so that the policies of sessions are written once more. An agent that may run commands in sandboxes
/// is bound to the role of its session, and the exec access of an inactive one goes. The status of a session whose volumes were staged
/// has the record of that, and a command that fills volumes for long is named ([`is_the_record`]).
fn is_expected(folder: &str, write: &Seen) -> bool {
    let of_an_agent = write.key.name.contains("--agent-");
    folder == "v0"
        && match write.key.plural {
            "networkpolicies" => write.verb == if of_an_agent { Verb::Delete } else { Verb::Patch },
            "roles" if write.key.name.ends_with("--exec") => write.verb == Verb::Patch,
            "serviceaccounts" | "roles" => of_an_agent && write.verb == Verb::Delete,
            "rolebindings" => of_an_agent,
            "sandboxes" => of_an_agent && write.verb == Verb::Update,
            "aigisesessions" => write.verb == Verb::Patch,
            _ => false,
        }
}

#[test]
fn what_is_stored_is_read_and_nothing_is_written() {
    let captures = captures();
    assert!(!captures.is_empty(), "nothing is stored");
    for capture in captures {
        let folder = &capture.folder;
        let count = [capture.of::<AigiseSession>().len(), capture.of::<Sandbox>().len(), capture.of::<Agent>().len()];
        in_fast_time(async {
            let server = capture.server();
            let before = server.all();
            // The second finds what the first has left, and comes a day later: what is inactive does not wait for a time.
            for (name, later) in [("operator/1", SignedDuration::ZERO), ("operator/2", SignedDuration::from_hours(24))]
            {
                let operator = Operator::start(&server, &capture.about, name, capture.about.time + later);
                tokio::time::sleep(WATCHED).await;
                assert!(!operator.task.is_finished(), "{folder}: {name} has ended");
                assert_eq!(operator.known(), count, "{folder}: {name} does not know all objects");
                let metrics = operator.metrics.text(None);
                for controller in ["session", "sandbox", "agent"] {
                    let well = format!("aigise_reconciles_total{{controller=\"{controller}\",outcome=\"ok\"}}");
                    assert!(metrics.contains(&well), "{folder}: {name}: no {controller} was reconciled:\n{metrics}");
                }
                server.kill(name);
                operator.task.abort();
                // Events are writes as well.
                let (expected, others): (Vec<_>, Vec<_>) =
                    server.writes().into_iter().partition(|write| is_expected(folder, write));
                let left = server
                    .all()
                    .iter()
                    .filter(|(key, _)| key.plural == "roles" && key.name.contains("--agent-"))
                    .count();
                assert_eq!(left, 0, "{folder}: {name} leaves roles of single agents");
                assert!(others.is_empty(), "{folder}: {name} writes:\n{}", described(&others, &before, &server));
                assert!(
                    expected.iter().all(|write| write.code.is_some_and(|code| code < 400)),
                    "{}",
                    described(&expected, &before, &server)
                );
                for (key, old) in before.iter().filter(|(key, _)| key.plural == "aigisesessions") {
                    let mut found = vec![];
                    differences(
                        old,
                        server.get(key.plural, &key.namespace, &key.name).as_deref().unwrap_or(&Value::Null),
                        String::new(),
                        &mut found,
                    );
                    let others: Vec<_> = found.iter().filter(|line| !is_the_record(line)).collect();
                    assert!(others.is_empty(), "{folder}: {name} changes {}: {others:?}", key.name);
                }
                let objects: BTreeSet<_> =
                    expected.iter().map(|write| (&write.key, format!("{:?}", write.verb))).collect();
                assert_eq!(objects.len(), expected.len(), "{folder}: {name} writes something twice");
            }
        });
    }
}

/// Whether a change of a session is the record that its volumes are filled, or names the command that fills them.
fn is_the_record(line: &str) -> bool {
    line.starts_with(".metadata.resourceVersion:")
        || line.starts_with(".status.volumes.filled: null -> ")
        || line.contains("\"The volumes are being filled.\" -> ")
        || (line.starts_with(".status.volumes.") && line.ends_with("phase: \"Pending\" -> \"Bound\""))
}

/// What is not stored is not checked above.
#[test]
fn every_phase_is_stored() {
    let captures = captures();
    let sessions: Vec<AigiseSession> = captures.iter().flat_map(Capture::of).collect();
    let phases: Vec<_> = sessions.iter().filter_map(|session| session.status.as_ref()?.phase).collect();
    let missing: Vec<_> = SessionPhase::iter().filter(|phase| !phases.contains(phase)).collect();
    assert_eq!(missing, [], "no session is stored in these phases");

    let sandboxes: Vec<Sandbox> = captures.iter().flat_map(Capture::of).collect();
    let phases: Vec<_> = sandboxes.iter().filter_map(|sandbox| sandbox.status.as_ref()?.phase).collect();
    let missing: Vec<_> = SandboxPhase::iter().filter(|phase| !phases.contains(phase)).collect();
    assert_eq!(missing, [], "no Sandbox is stored in these phases");

    let agents: Vec<Agent> = captures.iter().flat_map(Capture::of).collect();
    let states: Vec<_> = agents.iter().filter_map(|agent| agent.status.as_ref()?.status).collect();
    let missing: Vec<_> = AgentState::iter().filter(|state| !states.contains(state)).collect();
    assert_eq!(missing, [], "no agent is stored in these states");
}
