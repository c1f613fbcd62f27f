//! What strikes the whole cluster: these run one at a time, when the other tests are over.

mod hostile;

use std::{
    process::Command,
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use super::{
    audit::{self, Breakdown},
    chart::CHART,
    client::{OPERATOR, kubectl, kubectl_json, run},
    ground::Ground,
    install::{Asleep, BackAgain, RELEASE, helm},
    objects::{
        ROOT_IMAGE, agent, condition, config_map, is_stalled, list, message, plain, plain_session, reason, sandbox,
        session, staged_session, uid,
    },
};

/// What is done when it goes out of scope, also when the test fails.
struct AtTheEnd<F: FnMut()>(F);

impl<F: FnMut()> Drop for AtTheEnd<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

/// The operator runs on any node, whatever its taints, as long as this lives.
fn operator_anywhere() -> impl Drop {
    let tolerations = |tolerations: &str| {
        let patch = format!(r#"{{"spec":{{"template":{{"spec":{{"tolerations":{tolerations}}}}}}}}}"#);
        kubectl(&["-n", OPERATOR.0, "patch", OPERATOR.1, "--type", "merge", "-p", &patch]).text();
        kubectl(&["-n", OPERATOR.0, "rollout", "status", OPERATOR.1, "--timeout", "120s"]).text();
    };
    tolerations(r#"[{"operator":"Exists"}]"#);
    AtTheEnd(move || tolerations("null"))
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn a_node_that_is_tainted_takes_the_pods_and_its_return_brings_them_back_with_their_data() {
    let ground = Ground::new("tainted");
    ground.apply(&list(&[config_map("files", &[("file", "x")]), staged_session("s", &["main"])]));
    ground.until_ready("asess/s");
    ground.run("s--main", "echo precious >/shared/mine");
    let before = ground.get("pod/s--main");
    let node = before["spec"]["nodeName"].as_str().unwrap().to_string();

    let _operator = operator_anywhere();
    let taint = |effect: &str| kubectl(&["taint", "node", &node, &format!("aigise-e2e=x:{effect}")]).text();
    let end = || _ = kubectl(&["taint", "node", &node, "aigise-e2e-"]);
    taint("NoSchedule");
    let _end = AtTheEnd(end);
    ground.apply(&plain_session("later", &["main"]));
    let waiting = ground.until_not_ready("asess/later", "SandboxesNotReady");
    ground.until("asess/later", "reports the taint", |seen| message(seen).contains("untolerated taint"));
    assert!(!is_stalled(&waiting), "it goes on by itself");
    assert_eq!(ground.get("asess/s")["status"]["phase"], "Ready", "what runs there stays");

    taint("NoExecute");
    ground.until("pod/s--main", "is made anew", |pod| !pod.is_null() && uid(pod) != uid(&before));
    let evicted = ground.until_not_ready("asb/s--main", "Unschedulable");
    assert!(message(&evicted).contains("untolerated taint"), "{}", message(&evicted));
    assert_eq!(evicted["status"]["state"], "uninitialized");
    ground.until("asess/s", "reports the taint", |seen| message(seen).contains("untolerated taint"));

    end();
    ground.until_ready("asess/s");
    ground.until_ready("asess/later");
    assert_eq!(ground.run("s--main", "cat /shared/mine /shared/in/file"), "precious\nx");
}

/// A Pod that kills the operator's process on request: by SIGKILL, from the node that both run on.
fn killer() -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "killer"},
        "spec": {
            "hostPID": true,
            "terminationGracePeriodSeconds": 0,
            "tolerations": [{"operator": "Exists"}],
            "containers": [{
                "name": "sandbox",
                "image": ROOT_IMAGE,
                "command": ["sleep", "100000"],
                "securityContext": {"privileged": true},
            }],
        },
    })
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn an_operator_killed_in_the_middle_of_a_start_goes_on_where_it_was() {
    let ground = Ground::new("killed");
    ground.apply(&list(&[killer(), config_map("files", &[("file", "x")])]));
    ground.until("pod/killer", "runs", |pod| pod["status"]["phase"] == "Running");
    let kill = || {
        let script = "for process in /proc/[0-9]*; do \
            [ \"$(cat $process/comm 2>/dev/null)\" = aigise-operator ] && kill -KILL ${process#/proc/} && echo killed; done; true";
        assert_eq!(ground.run("killer", script), "killed");
    };
    let restarts = || {
        let pods =
            kubectl(&["-n", OPERATOR.0, "get", "pods", "-l", "app.kubernetes.io/name=aigise-operator", "-o", "json"]);
        let pods: Value = serde_json::from_str(&pods.text()).unwrap();
        pods["items"][0]["status"]["containerStatuses"][0]["restartCount"].as_i64().unwrap()
    };
    let before = restarts();
    ground.apply(&staged_session("staging", &["main", "fuzz"]));
    ground.until("pod/staging--stage", "is there", |pod| !pod.is_null());
    kill();
    let stage = uid(&ground.get("pod/staging--stage")).to_string();
    ground.until_ready("asess/staging");
    ground.apply(&plain_session("starting", &["main", "fuzz"]));
    ground.until("pod/starting--main", "is there", |pod| !pod.is_null());
    kill();
    let main = uid(&ground.get("pod/starting--main")).to_string();
    ground.until_ready("asess/starting");

    assert_eq!(restarts() - before, 2);
    assert_eq!(uid(&ground.get("pod/staging--stage")), stage, "nothing was staged twice");
    assert_eq!(uid(&ground.get("pod/starting--main")), main, "nothing was started twice");
    assert_eq!(ground.run("staging--main", "cat /shared/in/file"), "x");
    let pods = ["killer", "staging--fuzz", "staging--main", "staging--stage", "starting--fuzz", "starting--main"];
    assert_eq!(ground.names("pod", ""), pods);
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn a_claim_or_pod_of_somebody_else_that_took_the_place_of_ours_is_named_and_left_alone() {
    let ground = Ground::new("taken-later");
    let suspend = |suspend: bool| ground.patch("asess/s", &json!({"spec": {"suspend": suspend}}));
    ground.apply(&plain_session("s", &["main"]));
    ground.until_ready("asess/s");
    suspend(true);
    ground.until("asess/s", "is suspended", |seen| seen["status"]["phase"] == "Suspended");

    let asleep = Asleep::begin();
    ground.kubectl(&["delete", "pvc/s--data"]).text();
    let claim = json!({
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {"name": "s--data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Mi"}}},
    });
    let pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "s--main"},
        "spec": {"containers": [{"name": "theirs", "image": ROOT_IMAGE, "command": ["sleep", "100000"]}], "terminationGracePeriodSeconds": 0},
    });
    ground.apply(&list(&[claim, pod]));
    let uid_of = |object: &str| uid(&ground.get(object)).to_string();
    let theirs = (uid_of("pvc/s--data"), uid_of("pod/s--main"));
    suspend(false);
    drop(asleep);

    let taken = ground.until_not_ready("asess/s", "NameTaken");
    assert!(message(&taken).contains("PersistentVolumeClaim s--data"), "{}", message(&taken));
    assert_eq!(uid_of("pvc/s--data"), theirs.0);
    ground.kubectl(&["delete", "pvc/s--data"]).text();
    let taken = ground.until_not_ready("asb/s--main", "NameTaken");
    assert!(message(&taken).contains("Pod s--main"), "{}", message(&taken));
    assert_eq!(uid_of("pod/s--main"), theirs.1);
    ground.until("pvc/s--data", "is ours again", |claim| !claim.is_null() && uid(claim) != theirs.0);
    ground.kubectl(&["delete", "pod/s--main"]).text();
    ground.until_ready("asess/s");
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn objects_of_an_older_schema_are_worked_on_or_say_why_not() {
    let ground = Ground::new("older");
    let crd = "crd/aigisesessions.aigise.dev";
    let file = "crds/aigisesessions.yaml";
    let restore = || {
        run("kubectl", &["replace", "-f", file], "").text();
    };
    // A schema from before there were rules, defaults and most of the fields.
    let schema = json!({
        "type": "object",
        "properties": {
            "spec": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
            "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": true},
        },
    });
    let patch = json!([{"op": "replace", "path": "/spec/versions/0/schema/openAPIV3Schema", "value": schema}]);
    kubectl(&["patch", crd, "--type", "json", "-p", &patch.to_string()]).text();
    let old = AtTheEnd(restore);
    let asleep = Asleep::begin();
    // The API server takes a moment to serve by the new schema.
    let odd = session("no--name", json!({"sandboxes": plain(&["main"])}));
    let mut tries = 0;
    while ground.kubectl_reading(&["apply", "--validate=false", "-f", "-"], &odd.to_string()).code != 0 {
        tries += 1;
        assert!(tries < 60, "the older schema does not come to hold");
        thread::sleep(Duration::from_millis(500));
    }
    let mut retired = session("retired", json!({"sandboxes": plain(&["main"])}));
    retired["spec"]["colour"] = json!("red");
    let bad = session("bad", json!({"sandboxes": {"no type!": {"image": ROOT_IMAGE}}}));
    let unreadable = session("unreadable", json!({"sandboxes": "many"}));
    ground
        .kubectl_reading(&["apply", "--validate=false", "-f", "-"], &list(&[retired, bad, unreadable]).to_string())
        .text();
    assert_eq!(ground.get("asess/retired")["status"], Value::Null);
    drop(old);
    drop(asleep);

    ground.until_ready("asess/retired");
    assert_eq!(ground.get("asess/retired")["spec"]["colour"], Value::Null);
    for (name, word) in [("asess/no--name", "--"), ("asess/bad", "no type!")] {
        let seen = ground.until_not_ready(name, "InvalidSpec");
        assert!(is_stalled(&seen) && message(&seen).contains(word), "{name}: {}", message(&seen));
    }
    let untouched = ground.get("asess/unreadable");
    assert_eq!((reason(&untouched), &condition(&untouched, "Ready")["status"]), ("Pending", &json!("Unknown")));
    for name in ["asess/retired", "asess/no--name", "asess/bad", "asess/unreadable"] {
        ground.kubectl(&["delete", name]).text();
    }
}

/// Every node takes Pods, as long as this lives.
fn every_node_takes_pods(nodes: &Value) -> impl Drop + use<> {
    const KEY: &str = "node-role.kubernetes.io/control-plane";
    let is_closed = |node: &&Value| node["spec"]["taints"].to_string().contains(KEY);
    let closed: Vec<_> = nodes["items"].as_array().unwrap().iter().filter(is_closed).map(name_of).collect();
    for node in &closed {
        kubectl(&["taint", "node", node, &format!("{KEY}-")]).text();
    }
    AtTheEnd(move || {
        for node in &closed {
            kubectl(&["taint", "node", node, "--overwrite", &format!("{KEY}=:NoSchedule")]);
        }
    })
}

fn name_of(object: &Value) -> String {
    object["metadata"]["name"].as_str().unwrap().to_string()
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn a_session_with_volumes_of_one_node_runs_on_one_node_whatever_its_sandboxes_prefer() {
    let ground = Ground::new("one-node");
    let nodes = kubectl_json(&["get", "nodes"]);
    let _open = every_node_takes_pods(&nodes);
    let names: Vec<_> = nodes["items"].as_array().unwrap().iter().map(name_of).collect();
    let [first, second] = [&names[0], &names[1]];
    let here = |node: &str| json!([{"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}]);
    let prefers = |node: &str| {
        let node = json!([{"weight": 100, "preference": {"matchExpressions": here(node)}}]);
        let affinity = json!({"nodeAffinity": {"preferredDuringSchedulingIgnoredDuringExecution": node}});
        json!({"image": ROOT_IMAGE, "podTemplate": {"spec": {"affinity": affinity}}})
    };
    let apart = json!([{"weight": 100, "podAffinityTerm": {
        "labelSelector": {"matchLabels": {"aigise.dev/session": "s"}},
        "topologyKey": "kubernetes.io/hostname",
    }}]);
    let apart = json!({"preferredDuringSchedulingIgnoredDuringExecution": apart});
    let sandboxes = [("a", prefers(first)), ("b", prefers(second))].map(|(name, mut template)| {
        template["podTemplate"]["spec"]["affinity"]["podAntiAffinity"] = apart.clone();
        (name.to_string(), template)
    });
    let sandboxes: serde_json::Map<_, _> = sandboxes.into_iter().collect();
    ground.apply(&session("s", json!({ "sandboxes": sandboxes })));
    ground.until_ready("asess/s");
    let node_of = |pod: &str| ground.get(pod)["spec"]["nodeName"].as_str().unwrap().to_string();
    let node = node_of("pod/s--a");
    assert_eq!(node_of("pod/s--b"), node);
    ground.run("s--a", "echo together >/shared/file");
    assert_eq!(ground.run("s--b", "cat /shared/file"), "together");

    // One that has to be elsewhere reports why it cannot.
    let other = if node == *first { second } else { first };
    let must = json!({"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchExpressions": here(other)}]}});
    let late = |affinity: Value| {
        let template = json!({"image": ROOT_IMAGE, "podTemplate": {"spec": {"affinity": {"nodeAffinity": affinity}}}});
        json!({"spec": {"sandboxes": {"late": template}}})
    };
    ground.patch("asess/s", &late(must));
    let waiting = ground
        .until("asb/s--late", "finds no node", |seen| ["NoRoomOnSessionNode", "Unschedulable"].contains(&reason(seen)));
    assert!(message(&waiting).contains("node affinity"), "{}", message(&waiting));
    assert_eq!((&waiting["status"]["state"], is_stalled(&waiting)), (&json!("uninitialized"), false));
    ground.until("asess/s", "says so", |seen| message(seen).contains("node affinity"));
    ground.patch("asess/s", &late(json!({"requiredDuringSchedulingIgnoredDuringExecution": null})));
    ground.until_ready("asess/s");
    assert_eq!(node_of("pod/s--late"), node);

    // Without a volume that holds them together, they go where they like.
    let alone = |name: &str, node: &str| {
        let mut spec = prefers(node);
        spec["type"] = json!("main");
        sandbox(name, spec)
    };
    ground.apply(&list(&[alone("one", first), alone("two", second)]));
    ground.until_ready("asb/one");
    ground.until_ready("asb/two");
    assert_ne!(node_of("pod/one"), node_of("pod/two"));
}

/// A namespace with a limit range that the default resources of the operator's containers break, and a session in it.
fn with_limit_range(name: &str, rule: Value) -> Ground {
    let mut limits = json!({
        "type": "Container",
        "default": {"cpu": "500m", "memory": "128Mi"},
        "defaultRequest": {"cpu": "50m", "memory": "32Mi"},
    });
    limits.as_object_mut().unwrap().extend(rule.as_object().unwrap().clone());
    let ground = Ground::new(name);
    ground.apply(&list(&[
        json!({"apiVersion": "v1", "kind": "LimitRange", "metadata": {"name": "rules"}, "spec": {"limits": [limits]}}),
        config_map("files", &[("file", "x")]),
        staged_session("s", &["main"]),
    ]));
    ground
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn the_operators_containers_fit_the_limit_ranges_for_which_the_chart_is_set() {
    let grounds = [
        with_limit_range("least", json!({"min": {"cpu": "50m", "memory": "32Mi"}})),
        with_limit_range("most", json!({"max": {"cpu": "500m", "memory": "256Mi"}})),
        with_limit_range("ratio", json!({"maxLimitRequestRatio": {"cpu": "10", "memory": "4"}})),
    ];
    for ground in &grounds {
        let refused = ground.until_not_ready("asess/s", "Forbidden");
        assert!(message(&refused).contains("`helper.resources`"), "{}", message(&refused));
    }

    // With a copied helper, both of the operator's containers are there.
    let values = "helperMount=copy,helper.resources.requests.cpu=50m,helper.resources.requests.memory=64Mi,\
                  helper.resources.limits.cpu=500m,helper.resources.limits.memory=256Mi";
    let _back = BackAgain::when_dropped();
    let upgrade = ["upgrade", RELEASE, CHART, "-n", OPERATOR.0, "--reuse-values", "--set", values];
    helm(&[&upgrade[..], &["--wait", "--timeout", "120s"]].concat()).text();
    let fitted = json!({"requests": {"cpu": "50m", "memory": "64Mi"}, "limits": {"cpu": "500m", "memory": "256Mi"}});
    for ground in &grounds {
        ground.until_ready("asess/s");
        assert_eq!(ground.get("pod/s--stage")["spec"]["containers"][0]["resources"], fitted);
        let installer = &ground.get("pod/s--main")["spec"]["initContainers"][0];
        assert_eq!((&installer["name"], &installer["resources"]), (&json!("install-helper"), &fitted));
    }
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn another_default_layout_is_for_new_sessions_only() {
    let ground = Ground::new("default-layout");
    let set = |layout: &str| {
        let value = format!("volumeLayout={layout}");
        let upgrade = ["upgrade", RELEASE, CHART, "-n", OPERATOR.0, "--reuse-values", "--set", &value];
        helm(&[&upgrade[..], &["--wait", "--timeout", "120s"]].concat()).text();
    };
    let claims = |session: &str| ground.names("pvc", &format!("aigise.dev/session={session}")).len();
    ground.apply(&plain_session("separate", &["main"]));
    ground.until_ready("asess/separate");
    let _back = BackAgain::when_dropped();
    set("Single");
    ground.apply(&plain_session("single", &["main"]));
    ground.until_ready("asess/single");
    assert_eq!((claims("separate"), claims("single")), (3, 1));
    ground.run("single--main", "echo kept >/shared/file");
    // What requires three claims is refused: by a condition, since the session does not name its layout.
    ground.patch("asess/single", &json!({"spec": {"volumes": {"tools": {"reclaim": "Retain"}}}}));
    let invalid = ground.until_not_ready("asess/single", "InvalidSpec");
    assert!(message(&invalid).contains("spec.volumes.tools.reclaim: "), "{}", message(&invalid));
    ground.patch("asess/single", &json!({"spec": {"volumes": {"tools": {"reclaim": null}}}}));
    ground.until_ready("asess/single");
    ground.patch("asess/single", &json!({"spec": {"volumes": {"tools": {"size": "2Gi"}}}}));
    ground.until("asess/single", "reports that the size has no effect", |seen| {
        let words = condition(seen, "VolumesReady")["message"].as_str().unwrap_or_default();
        words.contains("spec.volumes.tools.size has no effect")
    });
    ground.until_ready("asess/single");

    let pods = ["pod/separate--main", "pod/single--main"].map(|pod| uid(&ground.get(pod)).to_string());
    set("Separate");
    ground.apply(&plain_session("next", &["main"]));
    ground.until_ready("asess/next");
    assert_eq!(["pod/separate--main", "pod/single--main"].map(|pod| uid(&ground.get(pod)).to_string()), pods);
    assert_eq!(ground.run("single--main", "cat /shared/file"), "kept");
    // Its claim goes, and with it what says how it was laid out.
    ground.patch("asess/single", &json!({"spec": {"suspend": true}}));
    ground.until_gone("pod/single--main");
    let claim = ground.get("pvc/single--data");
    ground.delete("pvc/single--data");
    ground.until("pvc/single--data", "is another one", |seen| !seen.is_null() && uid(seen) != uid(&claim));
    ground.patch("asess/single", &json!({"spec": {"suspend": false}}));
    ground.until_ready("asess/single");
    assert_eq!((claims("separate"), claims("single"), claims("next")), (3, 1, 3));
}

/// A session whose one step says that it began, and ends on request.
fn waits_for_go() -> Value {
    let script = "echo began >>/shared/runs; while [ ! -e /shared/go ]; do sleep 0.1; done; echo ended >>/shared/runs";
    let step = json!({"name": "wait", "command": ["sh", "-c", script]});
    session("s", json!({"sandboxes": {"main": {"image": ROOT_IMAGE, "init": {"steps": [step]}}}}))
}

#[track_caller]
fn until_it_began(ground: &Ground) {
    ground.until("asb/s--main", "works", |seen| seen["status"]["init"]["outcome"] == "Running");
    // The operator says so when the container runs and may begin; the step itself comes a moment later.
    ground.run("s--main", "until [ -e /shared/runs ]; do sleep 0.1; done");
}

/// A sandbox whose step waits, and a Pod on its node from which the node's processes can be killed.
struct Step {
    ground: Ground,
    pod: Value,
}

impl Step {
    fn begin(name: &str) -> Self {
        let ground = Ground::new(name);
        ground.apply(&waits_for_go());
        until_it_began(&ground);
        let pod = ground.get("pod/s--main");
        let mut killer = killer();
        killer["spec"]["nodeName"] = pod["spec"]["nodeName"].clone();
        ground.apply(&killer);
        ground.until("pod/killer", "runs", |pod| pod["status"]["phase"] == "Running");
        // A kubelet takes containers that are older than itself by ten seconds for started, unless it knows better.
        ground.run("s--main", "sleep 12");
        Self { ground, pod }
    }

    fn process(&self, name: &str) -> Option<String> {
        let found = self.ground.try_run("killer", &format!("pidof {name}"));
        (found.code == 0).then(|| found.text())
    }

    /// Kills the process, and waits for its successor. What is asked of the kubelet may end with it.
    fn kill(&self, name: &str) {
        let before = self.process(name);
        self.ground.try_run("killer", &format!("kill -KILL $(pidof {name})"));
        self.until_there_is(name, |now| Some(now) != before.as_deref());
    }

    #[track_caller]
    fn until_there_is(&self, name: &str, is_right: impl Fn(&str) -> bool) {
        let is_back = |_| {
            thread::sleep(Duration::from_millis(200));
            self.process(name).is_some_and(|now| is_right(&now))
        };
        assert!((0..300).any(is_back), "{name} does not come back");
    }

    /// The step has not ended, so nobody says that the sandbox is ready.
    fn is_never_ready_for(&self, time: Duration) {
        let end = Instant::now() + time;
        while Instant::now() < end {
            let seen = self.ground.get("asb/s--main");
            assert_ne!(seen["status"]["state"], "ready", "the step has not ended: {}", seen["status"]);
            assert!(seen["status"]["readyAt"].is_null(), "it was said to be ready for a moment: {}", seen["status"]);
            assert_ne!(seen["status"]["init"]["outcome"], "Succeeded");
            thread::sleep(Duration::from_millis(100));
        }
    }

    fn ends(&self) {
        self.ground.run("s--main", "touch /shared/go");
        self.ground.until_ready("asess/s");
    }

    fn has_run_once(&self) {
        assert_eq!(self.ground.run("s--main", "cat /shared/runs"), "began\nended");
        let after = self.ground.get("pod/s--main");
        assert_eq!(uid(&after), uid(&self.pod));
        assert_eq!(after["status"]["containerStatuses"][0]["restartCount"], 0);
    }
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn a_step_runs_once_and_is_waited_for_though_kubelet_and_containerd_are_killed_meanwhile() {
    let step = Step::begin("kubelet");
    step.kill("kubelet");
    step.is_never_ready_for(Duration::from_secs(8));
    step.kill("containerd");
    step.is_never_ready_for(Duration::from_secs(8));
    assert_eq!(step.ground.get("asb/s--main")["status"]["init"]["outcome"], "Running");
    step.ends();
    step.has_run_once();
}

/// For so long that the cluster takes the node for lost.
#[test]
#[ignore = "needs a cluster: make e2e"]
fn a_step_runs_once_and_is_waited_for_though_the_kubelet_is_stopped_meanwhile() {
    let step = Step::begin("stopped");
    let script = "(kill -STOP $(pidof kubelet); sleep 75; kill -CONT $(pidof kubelet)) >/dev/null 2>&1 &";
    step.ground.try_run("killer", script);
    step.is_never_ready_for(Duration::from_secs(85));
    step.until_there_is("kubelet", |_| true);
    step.is_never_ready_for(Duration::from_secs(8));
    step.ends();
    step.has_run_once();
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn a_step_is_waited_for_again_after_its_node_was_rebooted() {
    let step = Step::begin("rebooted");
    let node = step.pod["spec"]["nodeName"].as_str().unwrap();
    let rebooted = Command::new("docker").args(["restart", node]).output().expect("a node of kind is a container");
    assert!(rebooted.status.success(), "{rebooted:?}");
    let is_another = |seen: &Value| seen["status"]["podUID"] != step.pod["metadata"]["uid"];
    step.ground.until("asb/s--main", "works in another Pod", |seen| {
        assert!(seen["status"]["readyAt"].is_null(), "the step has not ended: {}", seen["status"]);
        is_another(seen) && seen["status"]["init"]["outcome"] == "Running"
    });
    step.is_never_ready_for(Duration::from_secs(8));
    step.ends();
    assert_eq!(step.ground.run("s--main", "cat /shared/runs"), "began\nbegan\nended");
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn a_step_that_ends_while_the_operator_is_down_is_found_done() {
    let ground = Ground::new("down");
    ground.apply(&waits_for_go());
    until_it_began(&ground);
    let before = ground.get("pod/s--main");
    let asleep = Asleep::begin();
    ground.run("s--main", "touch /shared/go");
    ground.until("pod/s--main", "is ready", |pod| pod["status"]["containerStatuses"][0]["ready"] == true);
    assert_eq!(ground.get("asb/s--main")["status"]["init"]["outcome"], "Running", "somebody works for the operator");
    drop(asleep);
    let ready = ground.until_ready("asb/s--main");
    assert_eq!(ready["status"]["init"]["outcome"], "Succeeded");
    ground.until_ready("asess/s");
    assert_eq!(ground.run("s--main", "cat /shared/runs"), "began\nended");
    assert_eq!(uid(&ground.get("pod/s--main")), uid(&before));
}

/// A root, twenty below it, and 479 below those; each goes with the one above it.
fn tree_of_500(ground: &Ground) {
    ground.apply(&plain_session("s", &["main"]));
    ground.until_ready("asess/s");
    let parent = |n: usize| if n < 20 { "root".to_string() } else { format!("a{}", n % 20) };
    let below = |n: usize| agent(&format!("a{n}"), json!({"parent": parent(n), "onParentDeleted": "Delete"}));
    let tree: Vec<_> = std::iter::once(agent("root", json!({}))).chain((0..499).map(below)).collect();
    ground.kubectl_reading(&["create", "-f", "-"], &list(&tree).to_string()).text();
    let all = json!({"total": 500, "counts": {"active": 500}});
    ground.until("asess/s", "has 500 agents at work", |seen| seen["status"]["agents"] == all);
}

/// What was written in a namespace after the first `before` writes: deletes of agents, and the rest.
fn cost_of_a_cascade(ground: &Ground, before: usize) -> (usize, usize) {
    let writes = audit::writes(ground).split_off(before);
    let deletes = writes.iter().filter(|write| write.resource == "agents" && write.verb == "delete").count();
    println!("{}", Breakdown(&writes.into_iter().filter(|write| write.resource != "agents").collect::<Vec<_>>()));
    (deletes, audit::writes(ground).len() - before - deletes)
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn a_tree_of_500_agents_goes_with_its_root_at_once_also_when_nobody_looked() {
    let ground = Ground::new("agent-cascade");
    tree_of_500(&ground);
    let before = audit::writes(&ground).len();
    let start = Instant::now();
    ground.delete("aag/root");
    ground.until("asess/s", "has no agents any more", |seen| seen["status"]["agents"].is_null());
    let took = start.elapsed();
    assert!(ground.names("aag", "").is_empty());
    let (deletes, others) = cost_of_a_cascade(&ground, before);
    println!("500 agents are gone after {took:?}, by {deletes} deletes and {others} other writes");
    assert!(took < Duration::from_secs(10), "the tree took {took:?}");
    assert!((499..=540).contains(&deletes) && others < 60, "{deletes} deletes, {others} other writes");

    tree_of_500(&ground);
    let before = audit::writes(&ground).len();
    let asleep = Asleep::begin();
    ground.delete("aag/root");
    ground.until_gone("aag/root");
    drop(asleep);
    ground.until("asess/s", "has no agents any more", |seen| seen["status"]["agents"].is_null());
    assert!(ground.names("aag", "").is_empty());
    let (deletes, others) = cost_of_a_cascade(&ground, before);
    assert!((499..=540).contains(&deletes) && others < 60, "{deletes} deletes, {others} other writes");
}
