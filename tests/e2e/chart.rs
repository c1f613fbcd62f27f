//! The chart as Helm renders it. Needs helm and no cluster.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use super::client::{Outcome, run};

pub const CHART: &str = "charts/aigise-operator";

/// Values that bring in everything that the chart has.
const ALL: [&str; 5] = [
    "watchNamespaces={team-a,team-b}",
    "allowPrivilegedTemplates=true",
    "networkPolicy.from[0].namespaceSelector.matchLabels.purpose=monitoring",
    "serviceMonitor.enabled=true",
    "selfTest.storageClassName=fast",
];

/// The same arguments for each command that renders.
fn helm(command: &[&str], values: &[&str]) -> Outcome {
    let values = values.iter().flat_map(|value| ["--set", value]);
    run("helm", &command.iter().copied().chain(values).collect::<Vec<_>>(), "")
}

/// What a release called `r` in the namespace `ops` consists of.
fn render(values: &[&str]) -> Vec<Value> {
    render_for(&[], values)
}

/// The same, on a cluster of which this is said.
fn render_for(cluster: &[&str], values: &[&str]) -> Vec<Value> {
    let text = helm(&[&["template", "r", CHART, "-n", "ops"], cluster].concat(), values).text();
    let objects = serde_yaml::Deserializer::from_str(&text);
    let objects = objects.map(|object| serde::Deserialize::deserialize(object).expect("YAML"));
    objects.filter(|object: &Value| !object.is_null()).collect()
}

fn of_kind<'a>(objects: &'a [Value], kind: &str) -> Vec<&'a Value> {
    objects.iter().filter(|object| object["kind"] == kind).collect()
}

/// The one object of a kind that bears the operator's name.
fn the<'a>(objects: &'a [Value], kind: &str) -> &'a Value {
    let named = of_kind(objects, kind).into_iter().filter(|object| object["metadata"]["name"] == "aigise-operator");
    let named: Vec<_> = named.collect();
    assert_eq!(named.len(), 1, "{kind}");
    named[0]
}

fn arguments(objects: &[Value]) -> Vec<&str> {
    let containers = &the(objects, "Deployment")["spec"]["template"]["spec"]["containers"];
    containers[0]["args"].as_array().unwrap().iter().map(|argument| argument.as_str().unwrap()).collect()
}

#[test]
#[ignore = "needs helm: make e2e"]
fn the_chart_is_well_formed_with_all_and_with_no_values() {
    for values in [&[][..], &ALL, &["crds.install=false", "rbac.create=false", "serviceAccount.create=false"]] {
        helm(&["lint", "--strict", CHART], values).text();
    }
    let (plain, all) = (render(&[]), render(&ALL));
    assert!(of_kind(&plain, "ServiceMonitor").is_empty(), "it is there by default");
    the(&all, "ServiceMonitor");
    // What the Service selects is the operator's Pod and not that of the test.
    let selector = the(&all, "Service")["spec"]["selector"].as_object().unwrap();
    let selects = |labels: &Value| selector.iter().all(|(key, value)| labels[key] == *value);
    assert!(selects(&the(&all, "Deployment")["spec"]["template"]["metadata"]["labels"]));
    assert!(!selects(&of_kind(&all, "Pod")[0]["metadata"]["labels"]));
}

#[test]
#[ignore = "needs helm: make e2e"]
fn the_metrics_are_closed_until_somebody_is_named_and_the_probes_have_a_port_of_their_own() {
    let (plain, all) = (render(&[]), render(&ALL));
    let policy = |objects| the(objects, "NetworkPolicy")["spec"].clone();
    assert_eq!((&policy(&plain)["policyTypes"], &policy(&plain)["ingress"]), (&json!(["Ingress"]), &Value::Null));
    let monitoring = json!([{"namespaceSelector": {"matchLabels": {"purpose": "monitoring"}}}]);
    let metrics = json!([{"protocol": "TCP", "port": "metrics"}]);
    assert_eq!(policy(&all)["ingress"], json!([{"ports": metrics, "from": monitoring}]));
    // It holds the operator's Pod, and that of the test less than ever.
    let selector = &policy(&all)["podSelector"]["matchLabels"];
    assert_eq!(*selector, the(&all, "Service")["spec"]["selector"]);
    assert!(of_kind(&render(&["networkPolicy.enabled=false"]), "NetworkPolicy").is_empty());

    let ports = |object: &Value| object["spec"]["ports"].as_array().unwrap().clone();
    let exposed: Vec<_> = ports(the(&all, "Service")).iter().map(|port| port["targetPort"].clone()).collect();
    assert_eq!(exposed, ["metrics"]);
    let container = &the(&all, "Deployment")["spec"]["template"]["spec"]["containers"][0];
    for (name, argument) in [("metrics", "--listen=0.0.0.0:"), ("probes", "--probes-listen=0.0.0.0:")] {
        let port = container["ports"].as_array().unwrap().iter().find(|port| port["name"] == name).unwrap();
        assert!(arguments(&all).contains(&format!("{argument}{}", port["containerPort"]).as_str()), "{name}");
    }
    for probe in ["livenessProbe", "readinessProbe"] {
        assert_eq!(container[probe]["httpGet"]["port"], "probes");
    }
}

#[test]
#[ignore = "needs helm: make e2e"]
fn a_prometheus_that_could_not_connect_is_refused() {
    let asked = "serviceMonitor.enabled=true";
    let complaint = helm(&["template", "r", CHART], &[asked]).complaint();
    assert!(complaint.contains("set networkPolicy.from to the peers of your Prometheus"), "{complaint}");
    for enough in ["networkPolicy.from[0].ipBlock.cidr=192.0.2.0/24", "networkPolicy.enabled=false"] {
        the(&render(&[asked, enough]), "ServiceMonitor");
    }
}

#[test]
#[ignore = "needs helm: make e2e"]
fn the_operators_account_is_held_where_the_cluster_is_its_to_watch() {
    let serves = ["--api-versions", "admissionregistration.k8s.io/v1/ValidatingAdmissionPolicy"];
    let policies = |values: &[&str]| of_kind(&render_for(&serves, values), "ValidatingAdmissionPolicy").len();
    assert_eq!(policies(&[]), 6);
    assert_eq!(of_kind(&render(&[]), "ValidatingAdmissionPolicy").len(), 0, "nobody says that they are served");
    assert_eq!(policies(&["admissionPolicy.enabled=false"]), 0);
    assert_eq!(policies(&["watchNamespaces={team-a}"]), 0);
    let forced = render(&["admissionPolicy.enabled=true", "watchNamespaces={team-a}"]);
    let (policies, bindings) =
        (of_kind(&forced, "ValidatingAdmissionPolicy"), of_kind(&forced, "ValidatingAdmissionPolicyBinding"));
    assert_eq!(policies.len(), 6);
    for (policy, binding) in policies.iter().zip(bindings) {
        assert_eq!(binding["spec"]["policyName"], policy["metadata"]["name"]);
        let condition = policy["spec"]["matchConditions"][0]["expression"].as_str().unwrap();
        assert!(condition.contains("'system:serviceaccount:ops:aigise-operator'"), "{condition}");
    }
}

#[test]
#[ignore = "needs helm: make e2e"]
fn an_operator_of_some_namespaces_has_roles_there_and_nothing_else() {
    let (all, some) = (render(&[]), render(&ALL));
    assert!(!arguments(&all).iter().any(|argument| argument.contains("namespaces") || argument.contains("privileged")));
    assert!(arguments(&some).contains(&"--watch-namespaces=team-a,team-b"));
    assert!(arguments(&some).contains(&"--allow-privileged-templates"));

    assert!(of_kind(&some, "ClusterRoleBinding").is_empty());
    let names: Vec<_> = of_kind(&some, "ClusterRole").iter().map(|role| &role["metadata"]["name"]).collect();
    assert_eq!(names, ["aigise-viewer"]);
    assert!(of_kind(&render(&["watchNamespaces={a}", "rbac.aggregateToView=false"]), "ClusterRole").is_empty());

    let own = |kind| of_kind(&some, kind).into_iter().filter(|role| role["metadata"]["name"] == "aigise-operator");
    let namespaces = |kind| own(kind).map(|role| &role["metadata"]["namespace"]).collect::<Vec<_>>();
    assert_eq!(namespaces("Role"), ["team-a", "team-b"]);
    assert_eq!(namespaces("RoleBinding"), ["team-a", "team-b"]);
    let subject = json!([{"kind": "ServiceAccount", "name": "aigise-operator", "namespace": "ops"}]);
    assert!(own("RoleBinding").all(|binding| binding["subjects"] == subject));

    // The ClusterRole has what the Roles have, and what can only be asked of the whole cluster.
    let mut rules = the(&all, "ClusterRole")["rules"].as_array().unwrap().clone();
    let cluster = ["customresourcedefinitions", "nodes"].map(|resource| json!([resource]));
    rules.retain(|rule| !cluster.contains(&rule["resources"]));
    assert!(!rules.is_empty() && own("Role").all(|role| role["rules"] == json!(rules)));
    assert!(rules.iter().flat_map(|rule| rule["verbs"].as_array().unwrap()).all(|verb| verb != "*"));
}

/// Nodes are listed only to detect whether they mount images. `null` is what `--reuse-values` leaves of a value that is new.
#[test]
#[ignore = "needs helm: make e2e"]
fn nodes_are_listed_only_where_image_volumes_are_detected() {
    let of = |values: &[&str]| {
        let all = render(values);
        let rules = the(&all, "ClusterRole")["rules"].as_array().unwrap().clone();
        let stated = arguments(&all).into_iter().find_map(|argument| argument.strip_prefix("--image-volumes="));
        let of_nodes = rules.iter().filter(|rule| rule["resources"] == json!(["nodes"]));
        let verbs: Vec<_> = of_nodes.flat_map(|rule| rule["verbs"].as_array().unwrap()).collect();
        assert!(verbs.contains(&&json!("get")), "the images of one node are read in any case");
        (verbs.contains(&&json!("list")), stated.map(String::from))
    };
    assert_eq!(of(&[]), (true, None));
    assert_eq!(of(&["imageVolumes=null"]), (true, None));
    assert_eq!(of(&["helperMount=copy"]), (true, None));
    assert_eq!(of(&["helperMount=image"]), (false, None));
    assert_eq!(of(&["imageVolumes=true"]), (false, Some("true".into())));
    assert_eq!(of(&["imageVolumes=false"]), (false, Some("false".into())));
}

/// The operator's own default holds where the whole section is `null`, as with `--reuse-values`.
#[test]
#[ignore = "needs helm: make e2e"]
fn the_resources_of_the_helper_are_passed_on_without_what_is_null() {
    let of = |values: &[&str]| {
        let all = render(values);
        let passed = arguments(&all).into_iter().find_map(|argument| argument.strip_prefix("--helper-resources="));
        passed.map(|text| serde_json::from_str::<Value>(text).expect("JSON"))
    };
    let default = json!({"requests": {"cpu": "10m", "memory": "16Mi"}, "limits": {"cpu": "1", "memory": "512Mi"}});
    assert_eq!(of(&[]), Some(default));
    let fitted = of(&["helper.resources.limits.cpu=null", "helper.resources.requests.cpu=2"]).unwrap();
    assert_eq!(fitted["requests"]["cpu"], json!(2));
    assert_eq!((&fitted["limits"]["cpu"], &fitted["limits"]["memory"]), (&Value::Null, &json!("512Mi")));
    let nothing = of(&["helper.resources.limits=null", "helper.resources.requests=null"]).unwrap();
    assert!(nothing["limits"].is_null() && nothing["requests"].is_null(), "{nothing}");
    assert_eq!(of(&["helper.resources=null"]), Some(json!({})));
    assert_eq!(of(&["helper=null"]), None);
}

#[test]
#[ignore = "needs helm: make e2e"]
fn the_default_layout_is_passed_on() {
    for (values, expected) in
        [(&[][..], "Separate"), (&["volumeLayout=Single"], "Single"), (&["volumeLayout=null"], "Separate")]
    {
        let all = render(values);
        let passed = arguments(&all).into_iter().find_map(|argument| argument.strip_prefix("--volume-layout="));
        assert_eq!(passed, Some(expected));
    }
}

#[test]
#[ignore = "needs helm: make e2e"]
fn the_limits_of_caches_are_passed_on() {
    let passed = |values: &[&str]| {
        let all = render(values);
        let limits = arguments(&all).into_iter().filter(|argument| argument.starts_with("--cache-"));
        limits.map(String::from).collect::<Vec<_>>()
    };
    assert_eq!(passed(&[]), ["--cache-max-entries=100"]);
    let both = passed(&["caches.maxEntries=7", "caches.maxBytes=200Gi"]);
    assert_eq!(both, ["--cache-max-entries=7", "--cache-max-bytes=200Gi"]);
    assert!(passed(&["caches=null"]).is_empty());
}

#[test]
#[ignore = "needs helm: make e2e"]
fn the_definitions_outlive_the_release() {
    let crds = render(&[]);
    let crds = of_kind(&crds, "CustomResourceDefinition");
    assert_eq!(crds.len(), 3);
    assert!(crds.iter().all(|crd| crd["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"));
    assert!(of_kind(&render(&["crds.install=false"]), "CustomResourceDefinition").is_empty());
}

#[test]
#[ignore = "needs helm: make e2e"]
fn a_misspelt_or_wrong_value_is_refused() {
    let text = run("helm", &["show", "values", CHART], "").text();
    let mut paths = BTreeSet::new();
    collect(&serde_yaml::from_str(&text).unwrap(), "", &mut paths);
    assert!(paths.contains("rbac.create") && paths.contains("tolerations"), "{paths:?}");
    // The names of resources are Kubernetes's.
    let ours = paths.iter().filter(|path| !path.starts_with("resources."));
    let misspelt = ours.map(|path| format!("{path}Typo=x"));
    let wrong = [
        "watchNamespaces=team",
        "watchNamespaces={Team}",
        "watchNamespaces={a,a}",
        "allowPrivilegedTemplates=yes",
        "concurrency=0",
        "helperMount=volume",
        "volumeLayout=Folders",
        "imageVolumes=maybe",
        "caches.maxEntries=0",
        "caches.maxBytes=much",
        "tolerations[0].keys=x",
        "resources.request.cpu=1",
        "helper.resources.request.cpu=1",
        "helper.resources.limits.gpu=1",
        "helper.resources.limits.cpu=two",
        "image.digest=sha256:0",
        "serviceMonitor.interval=often",
        "networkPolicy.from[0].namespace=x",
        "selfTest.timeoutSeconds=3m",
    ];
    for value in misspelt.chain(wrong.map(String::from)) {
        let complaint = helm(&["template", "r", CHART], &[&value]).complaint();
        assert!(complaint.contains("don't meet the specifications of the schema"), "{value}: {complaint}");
    }
}

/// The paths of all values that are not mappings of others.
fn collect(values: &Value, path: &str, paths: &mut BTreeSet<String>) {
    match values.as_object().filter(|values| !values.is_empty()) {
        Some(values) => {
            for (key, value) in values {
                collect(value, format!("{path}.{key}").trim_start_matches('.'), paths);
            }
        }
        None => _ = paths.insert(path.into()),
    }
}
