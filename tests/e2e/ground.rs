//! The ground that a test stands on: a namespace of its own, what it does there, and what it waits for.

use std::{
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{
    client::{Cluster, OPERATOR, Outcome, kubectl, run},
    objects::{condition, is_stalled, message, reason},
};

/// How long anything may take. Several tests share two cores, a kubelet may be backing off, and the provisioner gives the Pod that
/// makes a volume two minutes before it tries again: on cgroup v1 runc sometimes cannot start one ("unable to freeze").
const PATIENCE: Duration = Duration::from_secs(240);

/// How often is looked.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// A namespace that lives as long as the test.
pub struct Ground {
    pub namespace: String,
    cluster: Cluster,
    layout: Option<Layout>,
}

/// How the volumes of sessions are laid out on claims.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layout {
    Separate,
    Single,
}

impl Layout {
    /// The names of the claims of a session.
    pub fn claims(self, session: &str) -> Vec<String> {
        let volumes: &[_] = if self == Self::Single { &["data"] } else { &["data", "scripts", "tools"] };
        volumes.iter().map(|volume| format!("{session}--{volume}")).collect()
    }
}

/// Tests that hold with both layouts: functions that take the layout.
macro_rules! for_each_layout {
    ($($name:ident,)*) => {
        mod separate {
            $(
                #[test]
                #[ignore = "needs a cluster: make e2e"]
                fn $name() {
                    super::$name(super::Layout::Separate);
                }
            )*
        }
        mod single {
            $(
                #[test]
                #[ignore = "needs a cluster: make e2e"]
                fn $name() {
                    super::$name(super::Layout::Single);
                }
            )*
        }
    };
}
pub(super) use for_each_layout;

impl Ground {
    /// A new namespace, `e2e-<test>-<random>`. Pods can be made there: the service account that they run as has come.
    pub fn new(test: &str) -> Self {
        let namespace = json!({
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {"generateName": format!("e2e-{test}-"), "labels": {"aigise-e2e": test}},
        });
        let made = run("kubectl", &["create", "-f", "-", "-o", "name"], &namespace.to_string()).text();
        let name = made.trim().trim_start_matches("namespace/").to_string();
        let ground = Self { namespace: name, cluster: Cluster::connect(), layout: None };
        ground.until("serviceaccount/default", "is there", |account| !account.is_null());
        ground
    }

    /// A new namespace, whose sessions have this layout unless they name one.
    pub fn laid_out(layout: Layout, test: &str) -> Self {
        let mut ground = Self::new(test);
        ground.layout = Some(layout);
        ground
    }

    /// Holds the namespace to a Pod Security Standard from now on.
    pub fn enforce(&self, standard: &str) {
        let label = format!("pod-security.kubernetes.io/enforce={standard}");
        kubectl(&["label", "namespace", &self.namespace, &label]).text();
    }

    /// The object called `<kind>/<name>`; null when it is not there.
    pub fn get(&self, object: &str) -> Value {
        self.cluster.get(&self.namespace, object)
    }

    /// The names of all objects of a kind that a selector takes.
    pub fn names(&self, kind: &str, selector: &str) -> Vec<String> {
        let found = self.cluster.list(&self.namespace, kind, selector);
        found.iter().map(|object| object["metadata"]["name"].as_str().unwrap().to_string()).collect()
    }

    /// Runs kubectl in the namespace.
    pub fn kubectl(&self, arguments: &[&str]) -> Outcome {
        self.kubectl_reading(arguments, "")
    }

    /// Runs kubectl in the namespace, with something to read.
    pub fn kubectl_reading(&self, arguments: &[&str], input: &str) -> Outcome {
        run("kubectl", &[&["-n", self.namespace.as_str()], arguments].concat(), input)
    }

    /// `kubectl apply`, which has to end well.
    #[track_caller]
    pub fn apply(&self, object: &Value) {
        let mut object = object.clone();
        self.lay_out(&mut object);
        self.kubectl_reading(&["apply", "-f", "-"], &object.to_string()).text();
    }

    fn lay_out(&self, object: &mut Value) {
        let Some(layout) = self.layout else { return };
        for item in object.get_mut("items").and_then(Value::as_array_mut).into_iter().flatten() {
            self.lay_out(item);
        }
        if object["kind"] == "AigiseSession" && object["spec"]["volumes"]["layout"].is_null() {
            object["spec"]["volumes"]["layout"] = json!(format!("{layout:?}"));
        }
    }

    /// `kubectl patch`, which has to end well.
    #[track_caller]
    pub fn patch(&self, object: &str, patch: &Value) {
        self.kubectl(&["patch", object, "--type", "merge", "-p", &patch.to_string()]).text();
    }

    /// `kubectl delete`, without waiting until it is gone.
    #[track_caller]
    pub fn delete(&self, object: &str) {
        self.kubectl(&["delete", object, "--wait=false"]).text();
    }

    /// Runs a shell command in a sandbox and gives what it printed, if it ended well.
    #[track_caller]
    pub fn run(&self, sandbox: &str, command: &str) -> String {
        self.try_run(sandbox, command).text().trim_end().to_string()
    }

    /// Runs a shell command in a sandbox.
    pub fn try_run(&self, sandbox: &str, command: &str) -> Outcome {
        self.kubectl(&["exec", sandbox, "-c", "sandbox", "--", "sh", "-c", command])
    }

    /// Runs a shell command beside the test and gives what it printed, if it ended well.
    #[track_caller]
    pub fn run_here(command: &str) -> String {
        run("sh", &["-c", command], "").text().trim_end().to_string()
    }

    /// Waits until something holds of an object, and gives it as it then is.
    #[track_caller]
    pub fn until(&self, object: &str, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        self.until_within(PATIENCE, object, what, holds)
    }

    /// The same with another patience.
    #[track_caller]
    pub fn until_within(&self, patience: Duration, object: &str, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let start = Instant::now();
        loop {
            let seen = self.get(object);
            if holds(&seen) {
                return seen;
            }
            let status = if seen.is_null() { "it is not there".into() } else { format!("{:#}", seen["status"]) };
            assert!(
                start.elapsed() < patience,
                "gave up after {patience:?} waiting until {object} {what}; its status: {status}"
            );
            thread::sleep(LOOK_EVERY);
        }
    }

    /// Waits until the object is ready, as it is specified now.
    #[track_caller]
    pub fn until_ready(&self, object: &str) -> Value {
        self.until(object, "is ready", |seen| {
            let ready = condition(seen, "Ready");
            ready["status"] == "True" && ready["observedGeneration"] == seen["metadata"]["generation"]
        })
    }

    /// Waits until the object is not ready for this reason.
    #[track_caller]
    pub fn until_not_ready(&self, object: &str, because: &str) -> Value {
        let what = format!("is not ready for the reason {because}");
        self.until(object, &what, |seen| condition(seen, "Ready")["status"] == "False" && reason(seen) == because)
    }

    /// Waits until a Sandbox is stalled for want of memory. A runtime may miss why a container was killed; then nobody can know, and
    /// the message says what is likely.
    #[track_caller]
    pub fn until_out_of_memory(&self, name: &str) -> Value {
        let known = || {
            &self.get(&format!("pod/{name}"))["status"]["containerStatuses"][0]["state"]["terminated"]["reason"]
                == "OOMKilled"
        };
        self.until(&format!("asb/{name}"), "says that it had too little memory, as its Pod does", |seen| {
            let expected = if known() { "OutOfMemory" } else { "ContainerEnded" };
            is_stalled(seen) && reason(seen) == expected && message(seen).contains("memory")
        })
    }

    /// Waits until there is an event of this reason about a session, a sandbox or a Pod, and gives what it says.
    #[track_caller]
    pub fn until_event(&self, object: &str, because: &str) -> String {
        let (kind, name) = object.split_once('/').expect("<kind>/<name>");
        let kind = match kind {
            "asess" => "AigiseSession",
            "pod" => "Pod",
            _ => "Sandbox",
        };
        let about = format!("involvedObject.kind={kind},involvedObject.name={name},reason={because}");
        let start = Instant::now();
        loop {
            let seen =
                self.kubectl(&["get", "events", "--field-selector", &about, "-o", "jsonpath={..message}"]).text();
            if !seen.is_empty() {
                return seen;
            }
            assert!(start.elapsed() < PATIENCE, "there is no event {because} of {object}");
            thread::sleep(LOOK_EVERY);
        }
    }

    /// Waits until a Pod has said something, and gives all that it has said.
    #[track_caller]
    pub fn until_log(&self, pod: &str, what: &str) -> String {
        let start = Instant::now();
        loop {
            let said = self.kubectl(&["logs", pod]).stdout;
            if said.contains(what) {
                return said;
            }
            assert!(start.elapsed() < PATIENCE, "{pod} does not say {what}: {said}");
            thread::sleep(LOOK_EVERY);
        }
    }

    /// Waits until the object is gone.
    #[track_caller]
    pub fn until_gone(&self, object: &str) {
        self.until(object, "is gone", Value::is_null);
    }

    /// What the cluster knows when a test has failed.
    fn explain(&self) {
        let show = |title: &str, text: &str| println!("\n==> {title}\n{text}");
        let all = ["get", "asess,asb,aag,pods,pvc,services,networkpolicies", "-o", "wide"];
        show("objects", &self.kubectl(&all).stdout);
        show("pods", &self.kubectl(&["describe", "pods"]).stdout);
        show("events", &self.kubectl(&["get", "events", "--sort-by", ".metadata.creationTimestamp"]).stdout);
        let statuses = [
            "get",
            "asess,asb,aag",
            "-o",
            "jsonpath={range .items[*]}{.kind} {.metadata.name} {.status}{\"\\n\"}{end}",
        ];
        show("status", &self.kubectl(&statuses).stdout);
        let (namespace, operator) = OPERATOR;
        let logs = kubectl(&["-n", namespace, "logs", operator, "--since", "10m"]).stdout;
        let ours: Vec<_> =
            logs.lines().filter(|line| line.contains(&self.namespace) || line.contains("ERROR")).collect();
        show("operator", &ours.join("\n"));
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        if thread::panicking() {
            println!("\n==> the namespace {} of the failed test", self.namespace);
            self.explain();
        }
        kubectl(&["delete", "namespace", &self.namespace, "--wait=false"]);
    }
}
