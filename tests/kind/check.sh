#!/usr/bin/env bash
# check.sh: does the cluster do what the tests rely on? An image from an archive, also as a volume; a claim; a Service and its
# name, from another node; a memory limit; a Pod that starts once its image is there; the audit log. In a namespace of its own.
. "$(dirname "${BASH_SOURCE[0]}")/env.sh"
eval "$("$here/cluster" env)"
# The late image has a new name in each run: the nodes keep what they were given.
namespace=cluster-check image=localhost/cluster-check:dev late=localhost/cluster-check-late:$(date +%s)
need_root "building the image"
need_packages busybox-static
work=$(mktemp -d)
trap 'rm -rf "$work"; kubectl delete namespace --ignore-not-found --wait=false "$namespace" >/dev/null' EXIT
k() { kubectl --namespace "$namespace" "$@"; }
expect() { [ "$2" = "$3" ] || { k get pods,events >&2; fail "$1: expected '$2', got '$3'"; }; say "right: $1"; }

cp /bin/busybox "$work/"
cat >"$work/Dockerfile" <<'D'
FROM scratch
COPY busybox /bin/busybox
RUN ["/bin/busybox", "--install", "/bin"]
ENV PATH=/bin
CMD ["sleep", "100000"]
D
"$here/image.sh" "$work/image.tar" "$image" "$work"
"$here/cluster" load "$work/image.tar"

kubectl delete namespace --ignore-not-found "$namespace" >/dev/null
kubectl create namespace "$namespace" >/dev/null
wait_until 20 "the ServiceAccount 'default'" k get serviceaccount default >/dev/null 2>&1
k create --filename - >/dev/null <<K
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: data}
spec: {accessModes: [ReadWriteOnce], resources: {requests: {storage: 10Mi}}}
---
apiVersion: v1
kind: Service
metadata: {name: web}
spec: {selector: {app: web}, ports: [{port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web, labels: {app: web}}
spec:
  nodeSelector: {kubernetes.io/hostname: $cluster-worker}
  containers:
  - name: main
    image: $image
    imagePullPolicy: IfNotPresent
    command: [sh, -c, "echo hello >/data/index.html; exec httpd -f -p 8080 -h /data"]
    volumeMounts: [{name: data, mountPath: /data}, {name: tools, mountPath: /tools}]
  volumes:
  - {name: data, persistentVolumeClaim: {claimName: data}}
  - {name: tools, image: {reference: $image, pullPolicy: IfNotPresent}}
---
apiVersion: v1
kind: Pod
metadata: {name: client}
spec:
  nodeName: $cluster-control-plane
  tolerations: [{operator: Exists}]
  containers: [{name: main, image: $image, imagePullPolicy: IfNotPresent}]
---
apiVersion: v1
kind: Pod
metadata: {name: greedy}
spec:
  restartPolicy: Never
  containers: [{name: main, image: $image, imagePullPolicy: IfNotPresent, command: [tail, /dev/zero], resources: {limits: {memory: 32Mi}}}]
---
apiVersion: v1
kind: Pod
metadata: {name: late}
spec:
  containers: [{name: main, image: $late, imagePullPolicy: IfNotPresent, command: [sleep, "100000"]}]
K
k wait --for=condition=Ready pod/web pod/client --timeout=60s >/dev/null || :
waiting_reason() { k get pod late -o jsonpath='{.status.containerStatuses[0].state.waiting.reason}'; }
expect "a Service by its name, from another node" hello "$(k exec client -- wget -q -O - "http://web.$namespace.svc.cluster.local" 2>&1)"
expect "an image as a volume" busybox "$(k exec web -- sh -c 'cd /tools/bin && echo busybox' 2>&1)"
expect "a memory limit" OOMKilled "$(k get pod greedy -o jsonpath='{.status.containerStatuses[0].state.terminated.reason}')"
back_off() { [ "$(waiting_reason)" = ImagePullBackOff ]; }
wait_until 60 "the Pod without an image to back off" back_off
"$here/image.sh" "$work/late.tar" "$late" "$work"
"$here/cluster" load "$work/late.tar"
loaded=$SECONDS
k wait --for=condition=Ready pod/late --timeout=90s >/dev/null || :
expect "a Pod that starts once its image is there ($((SECONDS - loaded)) s after)" true "$(k get pod late -o jsonpath='{.status.containerStatuses[0].ready}')"
# The line of a request is written after its answer; a Pod's binding is a create too, of a subresource.
written() {
  "$here/cluster" audit | grep -F '"verb":"create"' |
    grep -F '"objectRef":{"resource":"pods","namespace":"'"$namespace"'","name":"late"' | grep -v '"subresource"' >/dev/null
}
wait_until 5 "the audit log to have the creation of a Pod" written || fail "the audit log lacks it"
say "right: the audit log"
