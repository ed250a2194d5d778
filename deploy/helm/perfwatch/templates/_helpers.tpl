{{- define "perfwatch.fullname" -}}
{{- if .Values.fullnameOverride -}}
{{- .Values.fullnameOverride | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- $name := default .Chart.Name .Values.nameOverride -}}
{{- if contains $name .Release.Name -}}
{{- .Release.Name | trunc 50 | trimSuffix "-" -}}
{{- else -}}
{{- printf "%s-%s" .Release.Name $name | trunc 50 | trimSuffix "-" -}}
{{- end -}}
{{- end -}}
{{- end -}}

{{/* Labels of selectors; argument: (list context component). */}}
{{- define "perfwatch.selector" -}}
{{- $context := index . 0 -}}
app.kubernetes.io/name: {{ default $context.Chart.Name $context.Values.nameOverride }}
app.kubernetes.io/instance: {{ $context.Release.Name }}
{{- with index . 1 }}
app.kubernetes.io/component: {{ . }}
{{- end }}
{{- end -}}

{{/* Labels of objects; argument: (list context component). */}}
{{- define "perfwatch.labels" -}}
{{- $context := index . 0 -}}
{{ include "perfwatch.selector" . }}
app.kubernetes.io/part-of: perfwatch
app.kubernetes.io/version: {{ $context.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ $context.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" $context.Chart.Name $context.Chart.Version }}
{{- end -}}

{{/* Labels of pods; argument: (list context component). */}}
{{- define "perfwatch.podLabels" -}}
{{ include "perfwatch.selector" . }}
app.kubernetes.io/part-of: perfwatch
{{- end -}}

{{- define "perfwatch.serviceAccount" -}}
{{- if .Values.serviceAccount.create -}}
{{- default (include "perfwatch.fullname" .) .Values.serviceAccount.name -}}
{{- else -}}
{{- default "default" .Values.serviceAccount.name -}}
{{- end -}}
{{- end -}}

{{/* Image of this project; argument: (list context name). */}}
{{- define "perfwatch.image" -}}
{{- $context := index . 0 -}}
{{- printf "%s/%s:%s" $context.Values.image.registry (index . 1) (default $context.Chart.AppVersion $context.Values.image.tag) -}}
{{- end -}}

{{- define "perfwatch.hubSecret" -}}
{{- default (printf "%s-hub" (include "perfwatch.fullname" .)) .Values.hub.existingSecret -}}
{{- end -}}

{{- define "perfwatch.postgresSecret" -}}
{{- default (printf "%s-postgres" (include "perfwatch.fullname" .)) .Values.postgresql.existingSecret -}}
{{- end -}}

{{- define "perfwatch.redisSecret" -}}
{{- default (printf "%s-redis" (include "perfwatch.fullname" .)) .Values.redis.existingSecret -}}
{{- end -}}

{{/* Settings of the hubs: those of the values and the paths of the secrets. */}}
{{- define "perfwatch.hubConfig" -}}
{{- $secrets := "file:/etc/perfwatch/secrets" -}}
{{- $hub := dict "store" (printf "%s/store" $secrets) "encryption_key" (printf "%s/encryption-key" $secrets) -}}
{{- $_ := set $hub "admin" (dict "password" (printf "%s/admin-password" $secrets)) -}}
{{- if or .Values.redis.enabled .Values.hub.existingSecret -}}
{{- $_ := set $hub "redis" (printf "%s/redis" $secrets) -}}
{{- end -}}
{{- toYaml (mergeOverwrite (dict "hub" $hub) (deepCopy .Values.hub.config)) -}}
{{- end -}}

{{/* Placement of a pod; argument: values of the component. */}}
{{- define "perfwatch.placement" -}}
{{- with .nodeSelector }}
nodeSelector:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .tolerations }}
tolerations:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .affinity }}
affinity:
  {{- toYaml . | nindent 2 }}
{{- end }}
{{- with .priorityClassName }}
priorityClassName: {{ . }}
{{- end }}
{{- end -}}

{{/* Spread over nodes and zones; argument: (list context component keys). */}}
{{- define "perfwatch.spread" -}}
{{- $context := index . 0 -}}
{{- $component := index . 1 -}}
topologySpreadConstraints:
{{- range index . 2 }}
  - maxSkew: 1
    topologyKey: {{ . }}
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "perfwatch.selector" (list $context $component) | nindent 8 }}
{{- end }}
{{- end -}}

{{/* Security context of a container under the Pod Security level restricted. */}}
{{- define "perfwatch.containerSecurity" -}}
allowPrivilegeEscalation: false
readOnlyRootFilesystem: true
capabilities:
  drop: [ALL]
{{- end -}}

{{/* Security context of a pod under the level restricted; argument: (list user hasVolumes). */}}
{{- define "perfwatch.podSecurity" -}}
runAsNonRoot: true
runAsUser: {{ index . 0 }}
runAsGroup: {{ index . 0 }}
{{- if index . 1 }}
fsGroup: {{ index . 0 }}
{{- end }}
seccompProfile:
  type: RuntimeDefault
{{- end -}}
