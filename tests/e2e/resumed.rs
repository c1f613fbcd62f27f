//! A staging that is ended in the middle, or has no space, is completed by the next one.

use serde_json::{Value, json};

use super::{
    client::kubectl,
    ground::{Ground, Layout, for_each_layout},
    objects::{ROOT_IMAGE, is_stalled, message, plain, session, uid},
};

for_each_layout! {
    a_stage_pod_that_is_deleted_in_the_middle_is_made_anew_and_goes_on,
    a_volume_that_is_full_is_named_and_completed_when_less_is_asked_of_it,
}

/// How many files are staged: enough to be met in the middle by who looks some times a second.
const FILES: usize = 10_000;

/// Of these names the one at which staging is met: in their order, a third comes before it.
const MIDDLE: &str = "2";

/// A Pod that sends a signal to `sandboxd stage` in the middle of its work, found by the folder that it fills, and ends. The
/// cluster of the tests has one worker, so they meet.
fn signaller(signal: &str, folder: &str) -> Value {
    let script = format!(
        "while :; do for root in /proc/[0-9]*/root; do if [ -e $root/volumes/data/{folder}/{MIDDLE} ]; then \
         process=${{root#/proc/}}; kill -{signal} ${{process%/root}} && exit 0; fi; done; sleep 0.05; done"
    );
    json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "signaller"},
        "spec": {
            "hostPID": true,
            "restartPolicy": "Never",
            "terminationGracePeriodSeconds": 0,
            "containers": [{
                "name": "signaller",
                "image": ROOT_IMAGE,
                "command": ["sh", "-c", script],
                "securityContext": {"privileged": true},
            }],
        },
    })
}

/// Makes a session whose stage Pod is met in the middle, and gives that Pod.
fn met_in_the_middle(ground: &Ground, signal: &str) -> Value {
    ground.apply(&signaller(signal, &ground.namespace));
    ground.until("pod/signaller", "runs", |pod| pod["status"]["phase"] == "Running");
    let makes = format!("cd /volume; i=0; while [ $i -lt {FILES} ]; do i=$((i+1)); echo $i >$i; done");
    ground.apply(&session(
        "s",
        json!({"sandboxes": plain(&["main"]), "volumes": {"data": {"sources": [
            {"container": {"image": ROOT_IMAGE, "command": ["sh", "-c", makes]}, "path": ground.namespace},
        ]}}}),
    ));
    ground.until("pod/signaller", "has met it", |pod| pod["status"]["phase"] == "Succeeded");
    ground.get("pod/s--stage")
}

/// All files are there, whole, and nothing else.
fn is_complete(ground: &Ground) {
    let wrong = "for file in *; do read number <$file; [ $number = $file ] || echo $file; done";
    assert_eq!(
        ground.run("s--main", &format!("cd /shared/{}; ls | wc -l; {wrong}", ground.namespace)),
        FILES.to_string()
    );
    assert_eq!(ground.run("s--main", "ls -A /shared | grep -v lost+found | wc -l"), "2", "the folder and the marker");
}

fn a_stage_pod_that_is_deleted_in_the_middle_is_made_anew_and_goes_on(layout: Layout) {
    let ground = Ground::laid_out(layout, "stage-deleted");
    let first = met_in_the_middle(&ground, "STOP");
    assert_eq!(first["status"]["phase"], "Running");
    ground.delete("pod/s--stage");
    ground.until_ready("asess/s");
    assert_ne!(uid(&ground.get("pod/s--stage")), uid(&first));
    is_complete(&ground);
    let log = ground.kubectl(&["logs", "s--stage"]).text();
    assert!(log.contains(" there already"), "it began anew: {log}");
}

#[test]
#[ignore = "needs a cluster: make e2e"]
fn a_stage_process_that_is_killed_in_the_middle_is_started_anew_and_goes_on() {
    let ground = Ground::new("stage-killed");
    let first = met_in_the_middle(&ground, "KILL");
    ground.until_ready("asess/s");
    assert_ne!(uid(&ground.get("pod/s--stage")), uid(&first));
    is_complete(&ground);
    let log = ground.kubectl(&["logs", "s--stage"]).text();
    assert!(log.contains(" there already"), "it began anew: {log}");
}

/// A volume that goes with the test.
pub(super) struct Disk(String);

impl Drop for Disk {
    fn drop(&mut self) {
        kubectl(&["delete", "pv", &self.0, "--wait=false"]);
    }
}

/// A volume of one MiB: the memory of a Pod. The kubelet applies `fsGroup` to a volume of the kind `local`, and not to a `hostPath`.
pub(super) fn small_disk(ground: &Ground, kind: &str) -> Disk {
    ground.apply(&json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "disk"},
        "spec": {
            "terminationGracePeriodSeconds": 0,
            "containers": [{
                "name": "disk",
                "image": ROOT_IMAGE,
                "command": ["sleep", "100000"],
                "volumeMounts": [{"name": "disk", "mountPath": "/disk"}],
            }],
            "volumes": [{"name": "disk", "emptyDir": {"medium": "Memory", "sizeLimit": "1Mi"}}],
        },
    }));
    let pod = ground.until("pod/disk", "runs", |pod| pod["status"]["phase"] == "Running");
    let here = json!({"key": "kubernetes.io/hostname", "operator": "In", "values": [pod["spec"]["nodeName"]]});
    let mut path = json!({"path": format!("/var/lib/kubelet/pods/{}/volumes/kubernetes.io~empty-dir/disk", uid(&pod))});
    if kind == "hostPath" {
        path["type"] = json!("Directory");
    }
    ground.apply(&json!({
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": ground.namespace},
        "spec": {
            "capacity": {"storage": "1Mi"},
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": ground.namespace,
            "persistentVolumeReclaimPolicy": "Retain",
            kind: path,
            "nodeAffinity": {"required": {"nodeSelectorTerms": [{"matchExpressions": [here]}]}},
        },
    }));
    Disk(ground.namespace.clone())
}

fn a_volume_that_is_full_is_named_and_completed_when_less_is_asked_of_it(layout: Layout) {
    let ground = Ground::laid_out(layout, "full");
    let _disk = small_disk(&ground, "hostPath");
    let sources = |kibibytes: u32| {
        let command = format!("echo small >/volume/a; dd if=/dev/zero of=/volume/large bs=1K count={kibibytes}");
        let source = json!({"container": {"image": ROOT_IMAGE, "command": ["sh", "-c", command]}});
        let data = json!({"size": "1Mi", "storageClassName": ground.namespace, "sources": [source]});
        session("s", json!({"sandboxes": plain(&["main"]), "volumes": {"data": data}}))
    };
    ground.apply(&sources(2000));
    let failed = ground.until_not_ready("asess/s", "StagingFailed");
    assert!(message(&failed).contains("no space left on the volume data while writing large"), "{}", message(&failed));
    assert!(is_stalled(&failed));

    // What was half written does not stay in the way.
    ground.apply(&sources(900));
    ground.until_ready("asess/s");
    assert_eq!(ground.run("s--main", "cat /shared/a; wc -c </shared/large"), format!("small\n{}", 900 * 1024));
}
