#!/usr/bin/env bash
# capture.sh FOLDER: makes the objects of manifests/ on the cluster that kubectl reaches, brings each to rest, and stores all that is
# then in their namespace in FOLDER (tests/stored/v0). README.md says what the cluster has to have. NAMESPACE is made, and stays.
set -euo pipefail
[ $# = 1 ] || { sed -n '2,3s/^# //p' "$0" >&2; exit 2; }
folder=$1 namespace=${NAMESPACE:-stored}
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
examples=$here/../../examples manifests=$here/manifests
[ ! -e "$folder/capture.yaml" ] || { echo "$folder has a capture already, and none is ever edited" >&2; exit 1; }
kinds=(aigisesessions sandboxes agents pods persistentvolumeclaims services networkpolicies configmaps secrets serviceaccounts roles rolebindings)
# Nothing has to be quiet for longer than this before something is written.
quiet=75

say() { printf '%s %s\n' "$(date -u +%T)" "$*" >&2; }
k() { kubectl -n "$namespace" "$@"; }
apply() { k apply --server-side --field-manager=user -f "$1" >/dev/null; }
# until OBJECT FIELD VALUE: waits until a field says so.
until_is() { k wait --for="jsonpath={.$2}=$3" "$1" --timeout=600s >/dev/null; }
ready() { local object; for object; do k wait --for=condition=Ready "$object" --timeout=600s >/dev/null; done; }
# What every object is like now.
versions() { k get "$(IFS=,; echo "${kinds[*]}")" -o jsonpath='{range .items[*]}{.kind}/{.metadata.name} {.metadata.resourceVersion}{"\n"}{end}'; }
# The program that runs an agent says how it is.
health() {
  k apply --server-side --subresource=status --field-manager=runtime -f - >/dev/null <<END
apiVersion: aigise.dev/v1alpha1
kind: Agent
metadata: {name: $1}
status:
  conditions:
  - {type: RuntimeHealthy, status: "$2", reason: Model, message: $3, lastTransitionTime: "2026-01-01T00:00:00Z"}
END
}

say "making the objects"
kubectl create namespace "$namespace" >/dev/null
until k get serviceaccount default >/dev/null 2>&1; do sleep 0.2; done
for manifest in given ready ended sandboxes agents waiting; do apply "$manifests/$manifest.yaml"; done
# As most users do it: what was applied is then in an annotation as well.
for example in crash-triage from-toml agents; do k apply -k "$examples/$example" >/dev/null; done

say "changing what is to change once it is ready"
ready asess/outdated asb/alone-outdated
k patch asess/outdated --type merge -p '{"spec":{"sandboxes":{"main":{"env":[{"name":"LATER","value":"yes"}]}}}}' >/dev/null
k patch asb/alone-outdated --type merge -p '{"spec":{"env":[{"name":"LATER","value":"yes"}]}}' >/dev/null
ready asess/retried asb/alone-retried
k annotate asb/retried--main asb/alone-retried --overwrite aigise.dev/restart=twice >/dev/null
ready asess/finished
k patch asb/finished--nap --type merge -p '{"spec":{"suspend":true}}' >/dev/null
ready asess/later-broken
k patch configmap/later-broken --type merge -p '{"data":{"config.toml":"[sandbox.sandboxes.main]\nimage = \"${NOBODY}\"\n"}}' >/dev/null
ready asess/suspended
k patch asess/suspended --type merge -p '{"spec":{"suspend":true}}' >/dev/null
until_is asess/suspended-failed status.phase Error
k patch asess/suspended-failed --type merge -p '{"spec":{"suspend":true}}' >/dev/null
ready asess/terminating asb/alone-terminating
k delete asess/terminating asb/alone-terminating --wait=false >/dev/null
ready asess/left asb/extra-left aag/left-behind
k delete asess/left >/dev/null
ready asess/team aag/orphan aag/leaving aag/runs-no-more aag/healthy aag/unhealthy
k delete aag/gone >/dev/null
k delete aag/leaving --wait=false >/dev/null
k patch aag/runs-no-more --type merge -p '{"spec":{"desiredStatus":"paused"}}' >/dev/null
health healthy True "all is well"
health unhealthy False "the model does not answer"
until_is asess/expired status.phase Expired
until_is asess/idle status.phase Suspended
# The provisioner takes its time, and may be silent for longer than anything else.
ready asess/{plain,full,open,unmanaged,chosen,restarted,keeps,secret-file,agents,crash-triage,from-toml}
until_is asess/initializing status.phase Initializing
until_is asess/silent-service status.phase Initializing
for sandbox in no-image not-ready; do until_is "asb/$sandbox--main" status.phase Starting; done
until_is asess/degraded status.phase Degraded
until_is asess/profiles status.phase Degraded
until_is asb/alone-out-of-memory status.phase Error
for session in failed dependency-failed init-failed staging-failed staging-disagrees; do until_is "asess/$session" status.phase Error; done

say "waiting until nothing was written for $quiet s"
before='' since=$SECONDS
while true; do
  now=$(versions)
  if [ "$now" != "$before" ]; then
    [ -z "$before" ] || comm -13 <(sort <<<"$before") <(sort <<<"$now") | sed 's/^/  /' >&2
    before=$now since=$SECONDS
  elif [ $((SECONDS - since)) -ge $quiet ]; then
    break
  fi
  sleep 3
done

say "storing them"
mkdir -p "$folder"
for kind in "${kinds[@]}"; do
  # The certificate of the cluster is nobody's here.
  k get "$kind" --field-selector metadata.name!=kube-root-ca.crt -o yaml >"$folder/$kind.yaml"
done
starts=$(kubectl -n aigise-system logs deploy/aigise-operator --tail=-1 | grep 'the operator starts' | tail -1)
setting() { tr -d '\\' <<<"$starts" | sed -E "s/.*[{ ]$1: \"?([^\", }]+).*/\1/"; }
cat >"$folder/capture.yaml" <<END
# When this was captured, and what the operator had been told.
time: "$(date -u +%Y-%m-%dT%H:%M:%SZ)"
namespace: $namespace
kubernetes: $(kubectl get nodes -o jsonpath='{.items[0].status.nodeInfo.kubeletVersion}')
settings:
  helperImage: $(setting helper_image)
  helperMount: $(setting helper_mount)
  allowPrivilegedTemplates: $(setting allow_privileged_templates)
  allowRunnerExec: $(setting allow_runner_exec)
END
[ "$(versions)" = "$before" ] || { say "something was written meanwhile; delete $folder and the namespace, and try again"; exit 1; }
say "stored $(wc -l <<<"$before") objects"
