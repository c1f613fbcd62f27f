{{/*
The permissions that the operator needs in a namespace that it watches, and no others; docs/rbac.md has the reason for each
verb. Both the ClusterRole of an operator for all namespaces and the Roles of an operator for some namespaces use this list.
*/}}
{{- define "aigise-operator.rules" -}}
# The objects that users write, and the sandboxes of sessions.
- apiGroups: [aigise.dev]
  resources: [aigisesessions, agents]
  verbs: [get, list, watch, delete]
- apiGroups: [aigise.dev]
  resources: [sandboxes]
  verbs: [get, list, watch, create, update, delete]
- apiGroups: [aigise.dev]
  resources: [aigisesessions/status, sandboxes/status, agents/status]
  verbs: [patch]
- apiGroups: [aigise.dev]
  resources: [aigisesessions/finalizers, sandboxes/finalizers, agents/finalizers]
  verbs: [update]
# The objects that sessions and sandboxes consist of.
- apiGroups: [""]
  resources: [pods]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [persistentvolumeclaims]
  verbs: [get, list, watch, create, patch, delete]
- apiGroups: [""]
  resources: [services]
  verbs: [get, list, watch, create, patch]
- apiGroups: [networking.k8s.io]
  resources: [networkpolicies]
  verbs: [get, list, watch, create, patch, delete]
# The sources of volumes, and the configuration file of a session.
- apiGroups: [""]
  resources: [configmaps]
  verbs: [get]
{{- if .Values.rbac.secrets }}
# The configuration file of a session, the values of its variables, and the Secret for the secret values of the configuration.
- apiGroups: [""]
  resources: [secrets]
  verbs: [get, create, patch, delete]
{{- end }}
{{- if .Values.agents.runnerExec }}
# An agent's Pod that may run commands in the sandboxes of its session has its own service account and role. The operator can grant only
# permissions that it has itself.
- apiGroups: [""]
  resources: [serviceaccounts]
  verbs: [get, create, patch, delete]
- apiGroups: [rbac.authorization.k8s.io]
  resources: [roles, rolebindings]
  verbs: [get, create, patch, delete]
- apiGroups: [""]
  resources: [pods/exec]
  verbs: [get, create]
{{- end }}
# The events about a Pod that waits: they name causes that its status does not show.
- apiGroups: [""]
  resources: [events]
  verbs: [list]
# The events that the operator writes.
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end }}
