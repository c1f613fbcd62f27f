use std::sync::LazyLock;

use k8s_openapi::api::core::v1::Pod;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::{check, overlay};
use crate::overlay::{MAX_NODE_TERMS, merge};

/// The Pod of a sandbox as the operator creates it, with the container that copies the helper: the snapshot that `tests/it/objects.rs`
/// checks.
fn pod() -> Pod {
    static POD: LazyLock<Pod> = LazyLock::new(read_pod);
    POD.clone()
}

fn read_pod() -> Pod {
    let read = |snapshot: &str| -> Value {
        let (_, yaml) = snapshot.trim_start_matches("---").split_once("\n---\n").unwrap();
        serde_yaml::from_str(yaml).unwrap()
    };
    let mut pod = read(include_str!("../../../../tests/objects/sandbox-pod.snap"));
    pod["spec"]["initContainers"] = read(include_str!("../../../../tests/objects/sandbox-pod-with-copied-helper.snap"));
    pod["status"] = Value::Null;
    serde_json::from_value(pod).unwrap()
}

/// The Pod of a sandbox that runs its image's entrypoint, and has no session.
fn pod_with_entrypoint() -> Pod {
    let mut pod = pod();
    let spec = pod.spec.as_mut().unwrap();
    spec.containers[0].command = None;
    (spec.hostname, spec.subdomain, spec.affinity) = (None, None, None);
    pod.metadata.labels.as_mut().unwrap().retain(|key, _| !key.starts_with("aigise.dev/session"));
    pod
}

fn spec(fields: Value) -> Value {
    json!({ "spec": fields })
}

fn working(fields: Value) -> Value {
    let mut container = json!({"name": "sandbox"});
    merge(&mut container, &fields);
    spec(json!({"containers": [container]}))
}

fn sidecar(fields: Value) -> Value {
    let mut container = json!({"name": "proxy", "image": "registry.example/proxy:1"});
    merge(&mut container, &fields);
    spec(json!({"containers": [container]}))
}

fn init(fields: Value) -> Value {
    let mut container = json!({"name": "prepare", "image": "registry.example/prepare:1"});
    merge(&mut container, &fields);
    spec(json!({"initContainers": [container]}))
}

fn volume(source: Value) -> Value {
    let mut volume = json!({"name": "further"});
    merge(&mut volume, &source);
    spec(json!({"volumes": [volume]}))
}

/// Templates that are allowed, and where the Pod has their value.
#[expect(clippy::too_many_lines, reason = "one table")]
fn allowed() -> Vec<(Value, &'static str, Value)> {
    let gpu = json!({"matchExpressions": [{"key": "gpu", "operator": "Exists"}]});
    vec![
        (json!(null), "/spec/restartPolicy", json!("Never")),
        (json!({"metadata": null, "spec": null}), "/spec/restartPolicy", json!("Never")),
        (json!({"metadata": {"labels": {"team": "red"}}}), "/metadata/labels/team", json!("red")),
        (json!({"metadata": {"creationTimestamp": null}}), "/metadata/name", json!("demo--main")),
        (json!({"metadata": {"annotations": {"a.example/b": "c"}}}), "/metadata/annotations/a.example~1b", json!("c")),
        (json!({"metadata": {"labels": {"notaigise.dev/x": "y"}}}), "/metadata/labels/notaigise.dev~1x", json!("y")),
        (spec(json!({"nodeSelector": {"disk": "ssd"}})), "/spec/nodeSelector/disk", json!("ssd")),
        (spec(json!({"tolerations": [{"key": "gpu", "operator": "Exists"}]})), "/spec/tolerations/0/key", json!("gpu")),
        (spec(json!({"runtimeClassName": "gvisor"})), "/spec/runtimeClassName", json!("gvisor")),
        (spec(json!({"priorityClassName": "high"})), "/spec/priorityClassName", json!("high")),
        (spec(json!({"terminationGracePeriodSeconds": 60})), "/spec/terminationGracePeriodSeconds", json!(60)),
        (spec(json!({"hostUsers": true})), "/spec/hostUsers", json!(true)),
        (spec(json!({"hostNetwork": false, "hostPID": false})), "/spec/hostNetwork", json!(false)),
        (spec(json!({"automountServiceAccountToken": false})), "/spec/automountServiceAccountToken", json!(false)),
        (spec(json!({"imagePullSecrets": [{"name": "registry"}]})), "/spec/imagePullSecrets/0/name", json!("registry")),
        (
            spec(json!({"resourceClaims": [{"name": "gpu", "resourceClaimName": "a"}]})),
            "/spec/resourceClaims/0/name",
            json!("gpu"),
        ),
        (
            spec(
                json!({"topologySpreadConstraints": [{"maxSkew": 1, "topologyKey": "zone", "whenUnsatisfiable": "DoNotSchedule"}]}),
            ),
            "/spec/topologySpreadConstraints/0/maxSkew",
            json!(1),
        ),
        (
            spec(
                json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [gpu]}}}}),
            ),
            "/spec/affinity/nodeAffinity/requiredDuringSchedulingIgnoredDuringExecution/nodeSelectorTerms/0",
            gpu,
        ),
        (
            spec(
                json!({"affinity": {"podAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": [{"topologyKey": "zone"}]}}}),
            ),
            "/spec/affinity/podAffinity/requiredDuringSchedulingIgnoredDuringExecution/1/topologyKey",
            json!("zone"),
        ),
        (
            spec(
                json!({"securityContext": {"supplementalGroups": [7], "sysctls": [{"name": "net.ipv4.tcp_syncookies", "value": "1"}]}}),
            ),
            "/spec/securityContext/fsGroup",
            json!(65532),
        ),
        (
            spec(
                json!({"securityContext": {"seccompProfile": {"type": "Unconfined"}, "seLinuxOptions": {"type": "container_t", "level": "s0"}}}),
            ),
            "/spec/securityContext/seccompProfile",
            json!({"type": "Unconfined"}),
        ),
        (volume(json!({"emptyDir": {"sizeLimit": "1Gi"}})), "/spec/volumes/4/emptyDir/sizeLimit", json!("1Gi")),
        (volume(json!({"secret": {"secretName": "s"}})), "/spec/volumes/4/secret/secretName", json!("s")),
        (
            volume(json!({"persistentVolumeClaim": {"claimName": "c"}})),
            "/spec/volumes/4/persistentVolumeClaim/claimName",
            json!("c"),
        ),
        (
            volume(json!({"projected": {"sources": [{"configMap": {"name": "c"}}]}})),
            "/spec/volumes/4/projected/sources/0/configMap/name",
            json!("c"),
        ),
        (
            working(json!({"resources": {"limits": {"cpu": 2, "memory": "1Gi"}}})),
            "/spec/containers/0/resources/limits/cpu",
            json!("2"),
        ),
        (
            working(json!({"env": [{"name": "A", "value": "1"}]})),
            "/spec/containers/0/env/9",
            json!({"name": "A", "value": "1"}),
        ),
        (
            working(json!({"tty": true, "livenessProbe": {"exec": {"command": ["true"]}}})),
            "/spec/containers/0/tty",
            json!(true),
        ),
        (
            working(
                json!({"volumeMounts": [{"name": "data", "mountPath": "/work", "subPath": "a"}, {"name": "data", "mountPath": "/shared2"}]}),
            ),
            "/spec/containers/0/volumeMounts/4/mountPath",
            json!("/work"),
        ),
        (
            working(json!({"securityContext": {"runAsUser": 0, "capabilities": {"add": ["SYS_PTRACE"]}}})),
            "/spec/containers/0/securityContext/runAsUser",
            json!(0),
        ),
        (
            sidecar(json!({"command": ["sleep"], "startupProbe": {"tcpSocket": {"port": 1}}})),
            "/spec/containers/1/name",
            json!("proxy"),
        ),
        (
            sidecar(json!({"volumeMounts": [{"name": "data", "mountPath": "/shared"}]})),
            "/spec/containers/1/volumeMounts/0/name",
            json!("data"),
        ),
        (init(json!({"restartPolicy": "Always"})), "/spec/initContainers/1/name", json!("prepare")),
    ]
}

/// Templates that contain reserved fields: the template, the path, and a word of the reason.
fn ours() -> Vec<(Value, &'static str, &'static str)> {
    let mount = |path: &str| working(json!({"volumeMounts": [{"name": "further", "mountPath": path}]}));
    let label = |key: &str| json!({"metadata": {"labels": {key: "x"}}});
    let profile = json!({"exec": {"command": ["true"]}});
    vec![
        (json!({"metadata": {"name": "x"}}), "metadata.name", "labels and annotations"),
        (json!({"metadata": {"namespace": "kube-system"}}), "metadata.namespace", "labels and annotations"),
        (json!({"metadata": {"finalizers": ["a/b"]}}), "metadata.finalizers", "labels and annotations"),
        (json!({"metadata": {"ownerReferences": []}}), "metadata.ownerReferences", "labels and annotations"),
        (label("aigise.dev/session"), "metadata.labels[aigise.dev/session]", "identifies its Pods"),
        (label("aigise.dev/session-uid"), "metadata.labels[aigise.dev/session-uid]", "identifies its Pods"),
        (label("aigise.dev/anything"), "metadata.labels[aigise.dev/anything]", "identifies its Pods"),
        (label("sub.aigise.dev/x"), "metadata.labels[sub.aigise.dev/x]", "identifies its Pods"),
        (label("app.kubernetes.io/name"), "metadata.labels[app.kubernetes.io/name]", "identifies its Pods"),
        (label("app.kubernetes.io/managed-by"), "metadata.labels[app.kubernetes.io/managed-by]", "identifies its Pods"),
        (label("app.kubernetes.io/component"), "metadata.labels[app.kubernetes.io/component]", "identifies its Pods"),
        (
            json!({"metadata": {"annotations": {"aigise.dev/template-hash": "x"}}}),
            "metadata.annotations[aigise.dev/template-hash]",
            "identifies its Pods",
        ),
        (
            json!({"metadata": {"annotations": {"kubectl.kubernetes.io/default-container": "x"}}}),
            "metadata.annotations[kubectl.kubernetes.io/default-container]",
            "sets this key",
        ),
        (json!({"status": {"phase": "Running"}}), "status", "nothing else"),
        (spec(json!({"restartPolicy": "Always"})), "spec.restartPolicy", "new Pod"),
        (spec(json!({"hostname": "x"})), "spec.hostname", "type"),
        (spec(json!({"subdomain": "other"})), "spec.subdomain", "session"),
        (spec(json!({"nodeName": "node-1"})), "spec.nodeName", "nodeSelector"),
        (spec(json!({"ephemeralContainers": [{"name": "x"}]})), "spec.ephemeralContainers", "kubectl debug"),
        (spec(json!({"securityContext": {"fsGroup": 0}})), "spec.securityContext.fsGroup", "supplementalGroups"),
        (spec(json!({"volumes": [{"name": "scripts", "emptyDir": {}}]})), "spec.volumes", "`scripts`"),
        (spec(json!({"volumes": [{"name": "data", "emptyDir": {}}]})), "spec.volumes", "`data`"),
        (spec(json!({"volumes": [{"name": "tools", "emptyDir": {}}]})), "spec.volumes", "`tools`"),
        (spec(json!({"volumes": [{"name": "aigise-helper", "emptyDir": {}}]})), "spec.volumes", "`aigise-helper`"),
        (working(json!({"image": "other"})), "spec.containers[0].image", "`image`"),
        (working(json!({"command": ["x"]})), "spec.containers[0].command", "`command`"),
        (working(json!({ "startupProbe": profile })), "spec.containers[0].startupProbe", "readinessProbe"),
        (working(json!({"restartPolicy": "Always"})), "spec.containers[0].restartPolicy", "new Pod"),
        (
            working(json!({"terminationMessagePath": "/aigise/sandboxd"})),
            "spec.containers[0].terminationMessagePath",
            "ended",
        ),
        (mount("/aigise"), "spec.containers[0].volumeMounts", "/aigise"),
        (mount("/aigise/sandboxd"), "spec.containers[0].volumeMounts", "/aigise"),
        (mount("/x/../aigise/./"), "spec.containers[0].volumeMounts", "/aigise"),
        (mount("//shared//"), "spec.containers[0].volumeMounts", "/shared"),
        (mount("/sandbox_scripts/x"), "spec.containers[0].volumeMounts", "/sandbox_scripts"),
        (mount("/bash_tools"), "spec.containers[0].volumeMounts", "/bash_tools"),
        (mount("/"), "spec.containers[0].volumeMounts", "would hide"),
        (mount("aigise"), "spec.containers[0].volumeMounts", "/aigise"),
        (
            working(json!({"volumeDevices": [{"name": "further", "devicePath": "/aigise/sandboxd"}]})),
            "spec.containers[0].volumeMounts",
            "/aigise",
        ),
        (
            sidecar(json!({"volumeMounts": [{"name": "aigise-helper", "mountPath": "/x"}]})),
            "spec.containers[0].volumeMounts",
            "own volume",
        ),
        (
            init(json!({"volumeMounts": [{"name": "aigise-helper", "mountPath": "/x"}]})),
            "spec.initContainers[0].volumeMounts",
            "own volume",
        ),
        (init(json!({"name": "install-helper"})), "spec.initContainers[0].name", "install-helper"),
        (init(json!({"name": "sandbox"})), "spec.initContainers[0].name", "sandbox"),
        (sidecar(json!({"name": "install-helper"})), "spec.containers[0].name", "install-helper"),
    ]
}

/// Templates that break the isolation of the sandbox: the template, the path, and a word of the reason.
#[expect(clippy::too_many_lines, reason = "one table")]
fn privileged() -> Vec<(Value, &'static str, &'static str)> {
    let context = |fields: Value| json!({ "securityContext": fields });
    let http = json!({"httpGet": {"port": 80, "host": "169.254.169.254"}});
    let tcp = json!({"tcpSocket": {"port": 80, "host": "10.0.0.1"}});
    let label = |key: &str| json!({"metadata": {"labels": {key: "x"}, "annotations": {"harmless": "x"}}});
    let annotation = |key: &str| json!({"metadata": {"annotations": {key: "x"}}});
    let disk = json!({"monitors": ["a"], "image": "b", "server": "c", "path": "/d", "endpoints": "e", "pdName": "f"});
    vec![
        (spec(json!({"hostNetwork": true})), "spec.hostNetwork", "network"),
        (spec(json!({"hostPID": true})), "spec.hostPID", "processes"),
        (spec(json!({"hostIPC": true})), "spec.hostIPC", "memory"),
        (spec(json!({"automountServiceAccountToken": true})), "spec.automountServiceAccountToken", "credentials"),
        (spec(json!({"serviceAccountName": "admin"})), "spec.serviceAccountName", "credentials"),
        (spec(json!({"serviceAccount": "admin"})), "spec.serviceAccount", "credentials"),
        (
            spec(context(json!({"sysctls": [{"name": "kernel.msgmax", "value": "1"}]}))),
            "spec.securityContext.sysctls",
            "kernel.msgmax",
        ),
        (
            spec(context(json!({"seLinuxOptions": {"type": "spc_t"}}))),
            "spec.securityContext.seLinuxOptions.type",
            "confined",
        ),
        (
            spec(context(json!({"windowsOptions": {"hostProcess": true}}))),
            "spec.securityContext.windowsOptions.hostProcess",
            "host",
        ),
        (volume(json!({"hostPath": {"path": "/"}})), "spec.volumes[0].hostPath", "node"),
        (volume(json!({"nfs": {"server": "10.0.0.1", "path": "/"}})), "spec.volumes[0].nfs", "claim"),
        (volume(json!({"gitRepo": {"repository": "a"}})), "spec.volumes[0].gitRepo", "claim"),
        (volume(json!({"flexVolume": {"driver": "a"}})), "spec.volumes[0].flexVolume", "claim"),
        (volume(json!({"rbd": {"monitors": disk["monitors"], "image": "b"}})), "spec.volumes[0].rbd", "claim"),
        (
            volume(
                json!({"projected": {"sources": [{"secret": {"name": "s"}}, {"serviceAccountToken": {"path": "token"}}]}}),
            ),
            "spec.volumes[0].projected.sources[1].serviceAccountToken",
            "credentials",
        ),
        (
            working(context(json!({"privileged": true}))),
            "spec.containers[0].securityContext.privileged",
            "untrusted code",
        ),
        (
            sidecar(context(json!({"privileged": true}))),
            "spec.containers[0].securityContext.privileged",
            "untrusted code",
        ),
        (
            init(context(json!({"privileged": true}))),
            "spec.initContainers[0].securityContext.privileged",
            "untrusted code",
        ),
        (
            working(context(json!({"capabilities": {"add": ["CHOWN", "SYS_ADMIN"]}}))),
            "spec.containers[0].securityContext.capabilities.add",
            "SYS_ADMIN",
        ),
        (
            sidecar(context(json!({"capabilities": {"add": ["ALL"]}}))),
            "spec.containers[0].securityContext.capabilities.add",
            "ALL would",
        ),
        (
            init(context(json!({"capabilities": {"add": ["CAP_NET_RAW"]}}))),
            "spec.initContainers[0].securityContext.capabilities.add",
            "CAP_NET_RAW",
        ),
        (working(context(json!({"procMount": "Unmasked"}))), "spec.containers[0].securityContext.procMount", "/proc"),
        (
            working(context(json!({"seLinuxOptions": {"role": "system_r"}}))),
            "spec.containers[0].securityContext.seLinuxOptions.role",
            "confined",
        ),
        (
            sidecar(context(json!({"seLinuxOptions": {"user": "system_u"}}))),
            "spec.containers[0].securityContext.seLinuxOptions.user",
            "confined",
        ),
        (
            sidecar(context(json!({"windowsOptions": {"hostProcess": true}}))),
            "spec.containers[0].securityContext.windowsOptions.hostProcess",
            "host",
        ),
        (working(json!({"ports": [{"containerPort": 80, "hostPort": 80}]})), "spec.containers[0].ports", "node"),
        (sidecar(json!({"ports": [{"containerPort": 80, "hostPort": 80}]})), "spec.containers[0].ports", "node"),
        (
            working(json!({ "readinessProbe": http })),
            "spec.containers[0].readinessProbe.httpGet.host",
            "past the network policy",
        ),
        (
            working(json!({ "livenessProbe": tcp })),
            "spec.containers[0].livenessProbe.tcpSocket.host",
            "past the network policy",
        ),
        (
            sidecar(json!({ "startupProbe": http })),
            "spec.containers[0].startupProbe.httpGet.host",
            "past the network policy",
        ),
        (
            working(json!({"lifecycle": {"postStart": http}})),
            "spec.containers[0].lifecycle.postStart.httpGet.host",
            "past the network policy",
        ),
        (
            sidecar(json!({"lifecycle": {"preStop": tcp}})),
            "spec.containers[0].lifecycle.preStop.tcpSocket.host",
            "past the network policy",
        ),
        (
            annotation("k8s.v1.cni.cncf.io/networks"),
            "metadata.annotations[k8s.v1.cni.cncf.io/networks]",
            "another network",
        ),
        (label("azure.workload.identity/use"), "metadata.labels[azure.workload.identity/use]", "token"),
        (
            annotation("io.katacontainers.config.hypervisor.path"),
            "metadata.annotations[io.katacontainers.config.hypervisor.path]",
            "virtual machine",
        ),
        (annotation("sidecar.istio.io/userVolume"), "metadata.annotations[sidecar.istio.io/userVolume]", "volume"),
        (label("aadpodidbinding"), "metadata.labels[aadpodidbinding]", "credentials"),
        (
            annotation("org.systemd.property.ExecStartPre"),
            "metadata.annotations[org.systemd.property.ExecStartPre]",
            "systemd",
        ),
        (
            annotation("mounts.nri.io/container.sandbox"),
            "metadata.annotations[mounts.nri.io/container.sandbox]",
            "runtime of the node",
        ),
        (
            annotation("vault.hashicorp.com/agent-inject"),
            "metadata.annotations[vault.hashicorp.com/agent-inject]",
            "secrets",
        ),
    ]
}

fn refusal(template: &Value, allow_privileged: bool, path: &str, word: &str) {
    let message = check(template, allow_privileged).expect_err(&template.to_string()).to_string();
    assert!(message.starts_with(&format!("podTemplate.{path}: ")), "{path}: {message}");
    assert!(message.contains(word) && message.ends_with('.'), "{word}: {message}");
}

#[test]
fn what_a_template_may_say_is_in_the_pod() {
    for (template, pointer, expected) in allowed() {
        assert_eq!(check(&template, false), Ok(()), "{template}");
        let pod = overlay(pod(), &template, false).unwrap_or_else(|message| panic!("{template}: {message}"));
        let pod = serde_json::to_value(pod).unwrap();
        assert_eq!(pod.pointer(pointer), Some(&expected), "{template}: {pointer} of {pod:#}");
    }
}

#[test]
fn a_template_that_says_nothing_changes_nothing() {
    for template in [json!(null), json!({}), json!({"metadata": {}, "spec": {"containers": [{"name": "sandbox"}]}})] {
        assert_eq!(overlay(pod(), &template, false), Ok(pod()), "{template}");
    }
}

#[test]
fn what_is_the_operators_is_refused_by_name_whoever_is_trusted() {
    for (template, path, word) in ours() {
        refusal(&template, false, path, word);
        refusal(&template, true, path, word);
    }
}

#[test]
fn what_leads_out_of_the_sandbox_is_refused_by_name_unless_the_operator_allows_it() {
    for (template, path, word) in privileged() {
        refusal(&template, false, path, word);
        refusal(&template, false, path, "--allow-privileged-templates");
        assert_eq!(check(&template, true), Ok(()), "{template}");
        let message = overlay(pod(), &template, false).expect_err(&template.to_string()).to_string();
        assert!(message.starts_with("podTemplate."), "{message}");
        let pod = overlay(pod(), &template, true);
        pod.unwrap_or_else(|message| panic!("{template}: {message}"));
    }
}

/// If an administrator trusts the templates, a Pod has a token only if its template requests it.
#[test]
fn a_token_comes_only_by_name() {
    let mount = |template| overlay(pod(), &template, true).unwrap().spec.unwrap().automount_service_account_token;
    assert_eq!(mount(spec(json!({"serviceAccountName": "admin"}))), Some(false));
    assert_eq!(mount(spec(json!({"automountServiceAccountToken": true}))), Some(true));
}

/// Kubernetes would silently drop unknown fields, or refuse the Pod with a message about a Pod that the user did not write.
#[test]
fn a_mistake_is_named_with_its_path() {
    for (template, expected) in [
        (json!(7), "podTemplate: a template has `metadata` and `spec`"),
        (json!([]), "podTemplate: a template has `metadata` and `spec`"),
        (json!({"apiVersion": "v1"}), "podTemplate.apiVersion: "),
        (json!({"spec": 7}), "podTemplate.spec: invalid type: integer `7`"),
        (json!({"spec": []}), "podTemplate.spec: "),
        (json!({"metadata": {"labels": {"a": 1}}}), "podTemplate.metadata.labels.a: invalid type: integer `1`"),
        (spec(json!({"tolerationz": []})), "podTemplate.spec.tolerationz: this operator does not know"),
        (spec(json!({"tolerations": [{}, {"keyz": "a"}]})), "podTemplate.spec.tolerations[1].keyz: "),
        (spec(json!({"hostNetwork": "true"})), "podTemplate.spec.hostNetwork: invalid type: string \"true\""),
        (
            spec(json!({"terminationGracePeriodSeconds": 1.5})),
            "podTemplate.spec.terminationGracePeriodSeconds: invalid type: floating point",
        ),
        (spec(json!({"nodeSelector": {"a": {}}})), "podTemplate.spec.nodeSelector.a: invalid type: map"),
        (spec(json!({"containers": {}})), "podTemplate.spec.containers: invalid type: map"),
        (spec(json!({"containers": [null]})), "podTemplate.spec.containers[0]: invalid type: null"),
        (spec(json!({"containers": [{}]})), "podTemplate.spec.containers[0]: the entry has no `name`"),
        (spec(json!({"containers": [{"name": ""}]})), "podTemplate.spec.containers[0]: the entry has no `name`"),
        (
            spec(json!({"containers": [{"name": "a"}, {"name": null}]})),
            "podTemplate.spec.containers[1]: the entry has no `name`",
        ),
        (spec(json!({"volumes": [{"emptyDir": {}}]})), "podTemplate.spec.volumes[0]: the entry has no `name`"),
        (
            spec(json!({"volumes": [{"name": "a"}, {"name": "a"}]})),
            "podTemplate.spec.volumes[1]: another entry has the name `a`",
        ),
        (
            working(json!({"volumeMounts": [{"name": "a"}]})),
            "podTemplate.spec.containers[0].volumeMounts[0]: the entry has no `mountPath`",
        ),
        (working(json!({"env": [{"value": "1"}]})), "podTemplate.spec.containers[0].env[0]: the entry has no `name`"),
        (
            working(json!({"securityContext": {"priviledged": true}})),
            "podTemplate.spec.containers[0].securityContext.priviledged: ",
        ),
        (working(json!({"resources": {"limit": {"cpu": "1"}}})), "podTemplate.spec.containers[0].resources.limit: "),
    ] {
        let invalid = check(&template, false).expect_err(&template.to_string());
        assert!(invalid.to_string().starts_with(expected), "{template}: {invalid}");
        assert_eq!(check(&template, true), Err(invalid), "an error stays an error with trusted templates");
    }
}

/// A newer API server may have fields that nobody has checked here, such as a projected volume with a certificate of the Pod.
#[test]
fn a_field_that_is_younger_than_this_operator_is_refused() {
    for (template, path) in [
        (spec(json!({"hostnameOverride": "x"})), "spec.hostnameOverride"),
        (
            volume(json!({"projected": {"sources": [{"podCertificate": {"signerName": "a"}}]}})),
            "spec.volumes[0].projected.sources[0].podCertificate",
        ),
    ] {
        refusal(&template, true, path, "does not know");
        assert!(overlay(pod(), &template, true).is_err());
    }
}

#[test]
fn alternatives_of_nodes_are_few() {
    let terms = |count| {
        let terms: Vec<_> = (0..count)
            .map(|number| json!({"matchExpressions": [{"key": format!("k{number}"), "operator": "Exists"}]}))
            .collect();
        spec(
            json!({"affinity": {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": terms}}}}),
        )
    };
    assert_eq!(check(&terms(MAX_NODE_TERMS), false), Ok(()));
    refusal(
        &terms(MAX_NODE_TERMS + 1),
        true,
        "spec.affinity.nodeAffinity.requiredDuringSchedulingIgnoredDuringExecution.nodeSelectorTerms",
        "at most",
    );
}

#[test]
fn arguments_are_for_the_command_of_the_image() {
    let template = working(json!({"args": ["--verbose"]}));
    assert_eq!(check(&template, false), Ok(()));
    let args = overlay(pod_with_entrypoint(), &template, false).unwrap().spec.unwrap().containers[0].args.clone();
    assert_eq!(args, Some(vec!["--verbose".to_string()]));
    let message = overlay(pod(), &template, false).unwrap_err().to_string();
    assert!(message.starts_with("podTemplate.spec.containers[sandbox].args: "), "{message}");
    let mut with_idle = pod_with_entrypoint();
    with_idle.spec.as_mut().unwrap().containers[0].args = Some(vec!["/aigise/sandboxd".into(), "idle".into()]);
    let message = overlay(with_idle, &template, false).unwrap_err().to_string();
    assert!(message.contains("ImageThenIdle"), "{message}");
}

#[test]
fn what_is_required_may_come_from_either_side_and_is_missed_in_the_whole() {
    let path_only = working(json!({"readinessProbe": {"httpGet": {"path": "/"}}}));
    assert_eq!(check(&path_only, false), Ok(()));
    let message = overlay(pod(), &path_only, false).unwrap_err().to_string();
    assert_eq!(message, "podTemplate.spec.containers[0].readinessProbe.httpGet.port: the field is required.");

    let mut with_port = pod();
    let probe = json!({"httpGet": {"port": 80}});
    with_port.spec.as_mut().unwrap().containers[0].readiness_probe = serde_json::from_value(probe).unwrap();
    assert!(overlay(with_port, &path_only, false).is_ok());
}

/// A Pod without a session has no labels of a session, and a template must not add them.
#[test]
fn a_sandbox_without_a_session_joins_none() {
    let template = json!({"metadata": {"labels": {"aigise.dev/session-uid": "uid-1"}}});
    assert!(check(&template, true).is_err());
    assert!(overlay(pod_with_entrypoint(), &template, true).unwrap_err().to_string().contains("labels"));
}

/// Asserts what must hold for any Pod that results from a template, in JSON and independently of the code.
fn assert_ours(pod: &Value, base: &Value, allow_privileged: bool) {
    let ours = |key: &str| {
        key.starts_with("aigise.dev/")
            || key.contains(".aigise.dev/")
            || key.starts_with("app.kubernetes.io/")
            || key.contains("kubectl")
    };
    for field in ["labels", "annotations"] {
        let keys = |pod: &Value| {
            let keys = pod["metadata"][field].as_object().unwrap().clone();
            keys.into_iter().filter(|(key, _)| ours(key)).collect::<Vec<_>>()
        };
        assert_eq!(keys(pod), keys(base), "{field}");
    }
    for path in [
        "/metadata/name",
        "/metadata/namespace",
        "/metadata/ownerReferences",
        "/metadata/finalizers",
        "/spec/restartPolicy",
        "/spec/hostname",
        "/spec/subdomain",
        "/spec/nodeName",
        "/spec/ephemeralContainers",
        "/spec/securityContext/fsGroup",
        "/spec/initContainers/0",
        "/spec/containers/0/name",
        "/spec/containers/0/image",
        "/spec/containers/0/command",
        "/spec/containers/0/args",
        "/spec/containers/0/startupProbe",
        "/status",
    ] {
        assert_eq!(pod.pointer(path), base.pointer(path), "{path}");
    }
    for list in [
        "/spec/volumes",
        "/spec/containers/0/volumeMounts",
        "/spec/affinity/podAffinity/requiredDuringSchedulingIgnoredDuringExecution",
    ] {
        for (position, entry) in base.pointer(list).and_then(Value::as_array).into_iter().flatten().enumerate() {
            assert_eq!(pod.pointer(&format!("{list}/{position}")), Some(entry), "{list}");
        }
    }
    for further in pod["spec"]["containers"][0]["volumeMounts"].as_array().unwrap().iter().skip(4) {
        let path = format!("{}/", further["mountPath"].as_str().unwrap());
        assert!(
            !["/aigise/", "/shared/", "/bash_tools/", "/sandbox_scripts/"].iter().any(|ours| path.contains(ours)),
            "{path}"
        );
    }
    if !allow_privileged {
        assert_eq!(pod["spec"]["automountServiceAccountToken"], false);
        assert_confined(pod);
    }
}

/// Asserts that no field anywhere breaks the isolation of the sandbox.
fn assert_confined(node: &Value) {
    match node {
        Value::Object(fields) => {
            for (key, value) in fields {
                let opens = match key.as_str() {
                    "hostNetwork"
                    | "hostPID"
                    | "hostIPC"
                    | "privileged"
                    | "hostProcess"
                    | "automountServiceAccountToken" => value == true,
                    "hostPath"
                    | "nfs"
                    | "gitRepo"
                    | "flexVolume"
                    | "rbd"
                    | "serviceAccountName"
                    | "serviceAccount"
                    | "serviceAccountToken"
                    | "hostPort"
                    | "host" => true,
                    "procMount" => value != "Default",
                    "add" => ["SYS_ADMIN", "ALL", "NET_RAW"].iter().any(|word| value.to_string().contains(word)),
                    "sysctls" => value.to_string().contains("kernel.msgmax"),
                    "seLinuxOptions" => ["spc_t", "system_"].iter().any(|word| value.to_string().contains(word)),
                    key => ["k8s.v1.cni.cncf.io", "azure.workload.identity", "io.katacontainers", "userVolume"]
                        .iter()
                        .any(|word| key.contains(word)),
                };
                assert!(!opens, "{key}: {value}");
                assert_confined(value);
            }
        }
        Value::Array(items) => items.iter().for_each(assert_confined),
        _ => {}
    }
}

/// A template that combines some entries of the tables above.
fn a_template() -> impl Strategy<Value = Value> {
    let harmless: Vec<Value> = allowed().into_iter().map(|(template, _, _)| template).collect();
    let harmful = ours().into_iter().chain(privileged()).map(|(template, _, _)| template).collect::<Vec<_>>();
    let harmless = proptest::collection::vec(proptest::sample::select(harmless), 0..5);
    let harmful = proptest::collection::vec(proptest::sample::select(harmful), 0..3);
    (harmless, harmful, any::<bool>()).prop_map(|(harmless, harmful, first)| {
        let mut template = json!({});
        let (one, other) = if first { (harmful, harmless) } else { (harmless, harmful) };
        for fragment in one.iter().chain(&other) {
            merge(&mut template, fragment);
        }
        template
    })
}

/// Any JSON with words that occur in Pods.
fn any_json() -> impl Strategy<Value = Value> {
    let word = || {
        proptest::sample::select(vec![
            "metadata",
            "labels",
            "spec",
            "containers",
            "initContainers",
            "name",
            "sandbox",
            "volumes",
            "data",
            "env",
            "affinity",
            "nodeAffinity",
            "requiredDuringSchedulingIgnoredDuringExecution",
            "nodeSelectorTerms",
            "volumeMounts",
            "mountPath",
            "..",
            "securityContext",
            "privileged",
            "kind",
            "status",
            "hostPath",
            "é",
        ])
    };
    let scalar = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        word().prop_map(Value::from),
    ];
    scalar.prop_recursive(6, 64, 4, move |inner| {
        let object = proptest::collection::btree_map(word().prop_map(String::from), inner.clone(), 0..4);
        prop_oneof![
            proptest::collection::vec(inner, 0..4).prop_map(Value::from),
            object.prop_map(|map| Value::Object(map.into_iter().collect()))
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 512, ..ProptestConfig::default() })]

    /// Whatever a template contains, and whether or not it was checked, the result is an error or a Pod that the operator controls and
    /// that is confined.
    #[test]
    fn no_pod_comes_of_a_template_that_is_not_ours_any_longer(template in a_template(), allow in any::<bool>(), alone in any::<bool>()) {
        let base = if alone { pod_with_entrypoint() } else { pod() };
        let checked = check(&template, allow);
        let overlaid = overlay(base.clone(), &template, allow);
        if checked.is_ok() {
            prop_assert!(overlaid.is_ok(), "{:?}", overlaid);
        }
        if let Ok(pod) = overlaid {
            let as_json = |pod: &Pod| serde_json::to_value(pod).unwrap();
            assert_ours(&as_json(&pod), &as_json(&base), allow);
            prop_assert_eq!(overlay(base, &template, allow), Ok(pod), "the same again");
        }
    }

    /// A template with one harmful field is refused, whatever harmless fields are around it.
    #[test]
    fn company_makes_nothing_harmless(
        position in 0..ours().len() + privileged().len(),
        company in proptest::collection::vec(proptest::sample::select(allowed()), 0..4),
    ) {
        let (harmful, _, _) = ours().into_iter().chain(privileged()).nth(position).unwrap();
        let mut template = json!({});
        for (fragment, _, _) in &company {
            merge(&mut template, fragment);
        }
        merge(&mut template, &harmful);
        prop_assert!(check(&template, false).is_err(), "{}", template);
    }

    #[test]
    fn any_json_is_a_template_or_an_error(json in any_json(), allow in any::<bool>()) {
        for template in [json.clone(), json!({"spec": json}), json!({"metadata": json}), working(json!({"env": json, "securityContext": json}))] {
            let _ = check(&template, allow);
            let _ = overlay(pod(), &template, allow);
        }
    }
}
