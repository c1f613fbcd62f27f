//! What a platform engineer does with Helm: upgrade, install for one namespace only, test.

use serde_json::{Value, json};

use super::{
    audit,
    chart::CHART,
    client::{OPERATOR, Outcome, kubectl, run},
    ground::Ground,
    objects::{ROOT_IMAGE, message, plain_session, sandbox, session, uid},
};

/// The release of the operator for all namespaces, as `make install` makes it.
pub const RELEASE: &str = "aigise";

pub fn helm(arguments: &[&str]) -> Outcome {
    run("helm", arguments, "")
}

/// Takes the release back to what it was, also when the test has failed.
pub struct BackAgain {
    revision: String,
}

impl BackAgain {
    pub fn when_dropped() -> Self {
        let history = helm(&["history", RELEASE, "-n", OPERATOR.0, "--max", "1", "-o", "json"]).text();
        let history: Value = serde_json::from_str(&history).unwrap();
        Self { revision: history[0]["revision"].to_string() }
    }
}

impl Drop for BackAgain {
    fn drop(&mut self) {
        let back = helm(&["rollback", RELEASE, &self.revision, "-n", OPERATOR.0, "--wait", "--timeout", "120s"]);
        if back.code != 0 {
            println!("the release could not be rolled back: {}", back.stderr);
        }
    }
}

/// The operator for all namespaces sleeps as long as this lives.
pub struct Asleep;

impl Asleep {
    pub fn begin() -> Self {
        let asleep = Self;
        Self::scale("0");
        let pods = ["wait", "--for=delete", "pods", "--selector", "app.kubernetes.io/name=aigise-operator"];
        kubectl(&[&["-n", OPERATOR.0, "--timeout", "60s"], &pods[..]].concat()).text();
        asleep
    }

    fn scale(replicas: &str) {
        kubectl(&["-n", OPERATOR.0, "scale", OPERATOR.1, "--replicas", replicas]);
        kubectl(&["-n", OPERATOR.0, "rollout", "status", OPERATOR.1, "--timeout", "120s"]);
    }
}

impl Drop for Asleep {
    fn drop(&mut self) {
        Self::scale("1");
    }
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn an_upgrade_restarts_no_pod_and_what_was_starting_becomes_ready() {
    let ground = Ground::new("upgrade");
    let folder = tempfile::tempdir().unwrap();
    let build_and_load = |image: &str, context: &[&str]| {
        let archive = folder.path().join("image.tar").display().to_string();
        run("tests/kind/image.sh", &[&[&archive, image], context].concat(), "").text();
        run("tests/kind/cluster", &["load", &archive], "").text();
    };
    let late = format!("localhost/aigise-e2e:{}", ground.namespace);
    ground.apply(&plain_session("ready", &["main"]));
    ground.apply(&session("starting", json!({"sandboxes": {"main": {"image": ROOT_IMAGE}, "late": {"image": late}}})));
    let before = ground.until_ready("asb/ready--main");
    ground.until_ready("asess/ready");
    ground.until_ready("asb/starting--main");
    ground.until_not_ready("asb/starting--late", "ImagePull");
    let pods =
        ["ready--main", "starting--main", "starting--late"].map(|name| (name, ground.get(&format!("pod/{name}"))));

    let tag = &ground.namespace;
    let next = format!("localhost/aigise-operator:{tag}");
    build_and_load(&next, &["target/image/context", "Dockerfile"]);
    let _alone = audit::operator_may_go();
    let _back = BackAgain::when_dropped();
    let version = format!("image.tag={tag}");
    helm(&["upgrade", RELEASE, CHART, "-n", OPERATOR.0, "--reuse-values", "--set", &version]).text();
    ground.apply(&plain_session("meanwhile", &["main"]));
    kubectl(&["-n", OPERATOR.0, "rollout", "status", OPERATOR.1, "--timeout", "120s"]).text();
    ground.until_ready("asess/meanwhile");
    assert!(ground.get("pod/meanwhile--main").to_string().contains(&next), "the new operator brings its own helper");

    build_and_load(&late, &["target/image/e2e"]);
    ground.until_ready("asess/starting");
    for (name, before) in pods {
        let after = ground.get(&format!("pod/{name}"));
        assert_eq!(uid(&after), uid(&before), "{name} was made anew");
        assert_eq!(after["spec"]["containers"], before["spec"]["containers"], "{name}");
        for container in after["status"]["containerStatuses"].as_array().unwrap() {
            assert_eq!(container["restartCount"], 0, "{name} was restarted");
        }
    }
    assert_eq!(ground.get("asb/ready--main")["status"], before["status"], "the upgrade was noticed");
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn an_operator_of_one_namespace_works_there_and_has_no_right_anywhere_else() {
    let (own, watched, other) = (Ground::new("own"), Ground::new("watched"), Ground::new("other"));
    let namespaces = format!("watchNamespaces={{{}}}", watched.namespace);
    let values = [
        namespaces.as_str(),
        "crds.install=false",
        "rbac.aggregateToView=false",
        "allowPrivilegedTemplates=true",
        "image.repository=localhost/aigise-operator",
        "image.tag=dev",
    ];
    let values: Vec<_> = values.iter().flat_map(|value| ["--set", value]).collect();
    let install = ["install", "one", CHART, "-n", &own.namespace, "--wait", "--timeout", "120s"];
    helm(&[&install[..], &values].concat()).text();
    has_no_right_but_in(&own, &watched, &other);

    let _alone = audit::operator_may_go();
    let asleep = Asleep::begin();
    watched.apply(&plain_session("s", &["main", "fuzz"]));
    other.apply(&plain_session("s", &["main"]));
    watched.until_ready("asess/s");
    // It sees what is deleted, and takes an edit.
    watched.delete("pod/s--fuzz");
    watched.patch("asess/s", &json!({"spec": {"sandboxes": {"gdb": {"image": ROOT_IMAGE}}}}));
    watched.until_ready("asb/s--gdb");
    watched.until_ready("asess/s");
    // This one is configured to trust those who write templates, unlike the one that sleeps.
    let open = json!({"type": "main", "image": ROOT_IMAGE, "podTemplate": {"spec": {"hostNetwork": true}}});
    watched.apply(&sandbox("open", open));
    watched.until_ready("asb/open");
    let pod = watched.get("pod/open");
    assert_eq!(pod["status"]["podIP"], pod["status"]["hostIP"], "it is in the network of its node");
    watched.delete("asb/open");
    watched.until_gone("pod/open");
    // `helm test` makes its session where the operator works.
    let test = helm(&["test", "one", "-n", &own.namespace, "--logs"]).text();
    assert!(test.contains(&format!("is created in {}", watched.namespace)), "{test}");

    // What the API server fills in, and nothing more.
    let alone = other.get("asess/s");
    assert_eq!((message(&alone), &alone["status"]["phase"]), ("Waiting for the operator.", &Value::Null));
    assert_eq!(other.names("pod", ""), [""; 0]);
    drop(asleep);
    other.until_ready("asess/s");
    watched.until_ready("asess/s");
}

/// The installed operator may do in the watched namespace what the chart says, and in another what anybody may.
#[track_caller]
fn has_no_right_but_in(own: &Ground, watched: &Ground, other: &Ground) {
    let operator = format!("--as=system:serviceaccount:{}:aigise-operator", own.namespace);
    let nobody = format!("--as=system:serviceaccount:{}:default", own.namespace);
    let rights = |namespace: &str, who: &str| {
        let text = kubectl(&["-n", namespace, "auth", "can-i", "--list", "--no-headers", who]).text();
        let mut rights: Vec<_> = text.lines().map(str::to_string).collect();
        rights.sort();
        rights
    };
    assert_ne!(rights(&watched.namespace, &operator), rights(&watched.namespace, &nobody));
    for namespace in [other.namespace.as_str(), &own.namespace, "default", "kube-system"] {
        assert_eq!(rights(namespace, &operator), rights(namespace, &nobody), "in {namespace}");
    }
    let may = |what: &[&str]| kubectl(&[&["auth", "can-i", &operator], what].concat()).stdout;
    assert_eq!(may(&["list", "pods", "-n", &watched.namespace]), "yes\n");
    for what in [&["list", "nodes"][..], &["list", "aigisesessions.aigise.dev", "-A"], &["list", "pods", "-A"]] {
        assert_eq!(may(what), "no\n", "{what:?}");
    }
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn helm_test_makes_a_session_and_leaves_nothing() {
    let test = helm(&["test", RELEASE, "-n", OPERATOR.0, "--logs"]);
    let (code, said) = (test.code, test.stdout + &test.stderr);
    assert_eq!(code, 0, "{said}");
    for words in ["Staging: ", "Ready: All sandboxes are ready (1/1).", "nothing of it is left"] {
        assert!(said.contains(words), "{words} is not in\n{said}");
    }
    let left =
        kubectl(&["-n", OPERATOR.0, "get", "asess,asb,pvc,roles,rolebindings,serviceaccounts,pods", "-o", "name"]);
    let left: Vec<_> = left.text().lines().filter(|name| name.contains("self-test")).map(str::to_string).collect();
    assert!(left.is_empty(), "{left:?}");
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn a_self_test_that_fails_says_why_and_leaves_nothing() {
    let ground = Ground::new("self-test");
    let image = format!("localhost/aigise-e2e:{}", ground.namespace);
    let arguments = ["self-test", "--namespace", &ground.namespace, "--image", &image, "--timeout", "120"];
    let complaint = run(env!("CARGO_BIN_EXE_aigise-operator"), &arguments, "").complaint();
    for words in ["the session is not ready: after 120 s: Starting: main: ", &image, "cannot be pulled"] {
        assert!(complaint.contains(words), "{words} is not in\n{complaint}");
    }
    for kind in ["asess", "asb", "pod", "pvc", "service", "networkpolicy"] {
        assert_eq!(ground.names(kind, ""), [""; 0], "{kind}");
    }
}
