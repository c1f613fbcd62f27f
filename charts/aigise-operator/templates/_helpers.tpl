{{/* The name of all objects that the chart installs. It does not depend on the release name; fullnameOverride changes it. */}}
{{- define "aigise-operator.fullname" -}}
{{ .Values.fullnameOverride | default "aigise-operator" }}
{{- end }}

{{- define "aigise-operator.serviceAccountName" -}}
{{ .Values.serviceAccount.name | default (include "aigise-operator.fullname" .) }}
{{- end }}

{{- define "aigise-operator.image" -}}
{{- if .Values.image.digest -}}
{{ .Values.image.repository }}@{{ .Values.image.digest }}
{{- else -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end -}}
{{- end }}

{{- define "aigise-operator.selectorLabels" -}}
app.kubernetes.io/name: aigise-operator
app.kubernetes.io/instance: {{ .Release.Name }}
{{- end }}

{{- define "aigise-operator.labels" -}}
{{ include "aigise-operator.selectorLabels" . }}
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/part-of: aigise
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version | replace "+" "_" }}
{{- end }}

{{/* The namespace of the session of `helm test`; the operator has to watch it. */}}
{{- define "aigise-operator.selfTestNamespace" -}}
{{ .Values.selfTest.namespace | default (first .Values.watchNamespaces) | default .Release.Namespace }}
{{- end }}

{{/* These labels must not match the selectors of the operator's Service and Deployment. */}}
{{- define "aigise-operator.selfTestLabels" -}}
app.kubernetes.io/name: aigise-operator-self-test
app.kubernetes.io/instance: {{ .Release.Name }}
app.kubernetes.io/part-of: aigise
app.kubernetes.io/managed-by: {{ .Release.Service }}
{{- end }}
