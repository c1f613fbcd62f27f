//! The cluster as a test uses it: reads by a client, all else by kubectl, as a user would.

use std::{
    io::Write,
    process::{Command, Stdio},
};

use kube::{
    Api, Client,
    api::{ApiResource, DynamicObject, GroupVersionKind, ListParams},
};
use serde_json::Value;
use tokio::runtime::{self, Runtime};

/// The namespace that the operator is installed in, and its Deployment.
pub const OPERATOR: (&str, &str) = ("aigise-system", "deploy/aigise-operator");

/// A connection of one test.
pub struct Cluster {
    runtime: Runtime,
    client: Client,
}

impl Cluster {
    pub fn connect() -> Self {
        let runtime = runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let client = runtime.block_on(Client::try_default()).expect("a cluster in KUBECONFIG");
        Self { runtime, client }
    }

    /// The object called `<kind>/<name>`, as JSON; null when it is not there.
    pub fn get(&self, namespace: &str, object: &str) -> Value {
        let (kind, name) = object.split_once('/').expect("<kind>/<name>");
        let found = self.runtime.block_on(self.api(namespace, kind).get_opt(name));
        found.unwrap_or_else(|error| panic!("{object} cannot be read: {error}")).map_or(Value::Null, as_json)
    }

    /// All objects of a kind in the namespace.
    pub fn list(&self, namespace: &str, kind: &str, selector: &str) -> Vec<Value> {
        let found = self.runtime.block_on(self.api(namespace, kind).list(&ListParams::default().labels(selector)));
        found.unwrap_or_else(|error| panic!("{kind}s cannot be listed: {error}")).into_iter().map(as_json).collect()
    }

    fn api(&self, namespace: &str, kind: &str) -> Api<DynamicObject> {
        let (group, version, kind) = match kind {
            "asess" => ("aigise.dev", "v1alpha1", "AigiseSession"),
            "asb" => ("aigise.dev", "v1alpha1", "Sandbox"),
            "aag" => ("aigise.dev", "v1alpha1", "Agent"),
            "configmap" => ("", "v1", "ConfigMap"),
            "pod" => ("", "v1", "Pod"),
            "pv" => ("", "v1", "PersistentVolume"),
            "pvc" => ("", "v1", "PersistentVolumeClaim"),
            "secret" => ("", "v1", "Secret"),
            "service" => ("", "v1", "Service"),
            "serviceaccount" => ("", "v1", "ServiceAccount"),
            "resourcequota" => ("", "v1", "ResourceQuota"),
            "role" => ("rbac.authorization.k8s.io", "v1", "Role"),
            "rolebinding" => ("rbac.authorization.k8s.io", "v1", "RoleBinding"),
            "networkpolicy" => ("networking.k8s.io", "v1", "NetworkPolicy"),
            other => panic!("tests know no kind {other}"),
        };
        let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(group, version, kind));
        if kind == "PersistentVolume" {
            Api::all_with(self.client.clone(), &resource)
        } else {
            Api::namespaced_with(self.client.clone(), namespace, &resource)
        }
    }
}

fn as_json(object: DynamicObject) -> Value {
    serde_json::to_value(object).unwrap()
}

/// How a command ended.
#[derive(Debug)]
pub struct Outcome {
    pub code: i32,
    pub stdout: String,
    pub stderr: String,
}

impl Outcome {
    /// What it printed, if it ended well.
    #[track_caller]
    pub fn text(self) -> String {
        assert_eq!(self.code, 0, "{}{}", self.stdout, self.stderr);
        self.stdout
    }

    /// What it complained of, if it did not.
    #[track_caller]
    pub fn complaint(self) -> String {
        assert_ne!(self.code, 0, "ended well: {}{}", self.stdout, self.stderr);
        self.stderr
    }
}

/// Runs kubectl on the whole cluster.
pub fn kubectl(arguments: &[&str]) -> Outcome {
    run("kubectl", arguments, "")
}

/// What kubectl prints as JSON, of the whole cluster.
#[track_caller]
pub fn kubectl_json(arguments: &[&str]) -> Value {
    serde_json::from_str(&kubectl(&[arguments, &["-o", "json"]].concat()).text()).expect("JSON")
}

/// Runs a command of the repository's root, with something to read.
pub fn run(program: &str, arguments: &[&str], input: &str) -> Outcome {
    let mut child = Command::new(program)
        .args(arguments)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{program} cannot be run: {error}"));
    child.stdin.take().unwrap().write_all(input.as_bytes()).expect("the command reads its input");
    let output = child.wait_with_output().unwrap();
    Outcome {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
        stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}
