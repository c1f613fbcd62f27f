{{/*
What the operator may do in a namespace that it watches, and nothing that it does not do; docs/rbac.md has the reason of each
verb. The ClusterRole of an operator for all namespaces and the Roles of one for some of them are both made of this list.
*/}}
{{- define "aigise-operator.rules" -}}
# What users write, and the sandboxes that a session makes of it.
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
# What sessions and sandboxes consist of.
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
# What a volume is filled from, and the configuration of a session.
- apiGroups: [""]
  resources: [configmaps]
  verbs: [get]
{{- if .Values.rbac.secrets }}
# The configuration of a session, what stands for a variable in it, and what of it may stand nowhere else.
- apiGroups: [""]
  resources: [secrets]
  verbs: [get, create, patch, delete]
{{- end }}
{{- if .Values.agents.runnerExec }}
# An agent's Pod that may run commands in the sandboxes of its session has an account and a role of its own. Nobody can give what
# they do not hold.
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
# What the operator tells.
- apiGroups: [events.k8s.io]
  resources: [events]
  verbs: [create, patch]
{{- end }}
