{{/* Labels that every object has. Takes a dict: root, component. */}}
{{- define "contrast.labels" -}}
{{ include "contrast.selector" . }}
app.kubernetes.io/component: {{ .component }}
app.kubernetes.io/part-of: contrast
app.kubernetes.io/version: {{ .root.Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .root.Release.Service }}
helm.sh/chart: {{ printf "%s-%s" .root.Chart.Name .root.Chart.Version | replace "+" "_" }}
{{- end }}

{{/* Labels by which pods are found: they never change. Takes a dict: root, component, name (or the component). */}}
{{- define "contrast.selector" -}}
app.kubernetes.io/name: {{ .name | default .component }}
app.kubernetes.io/instance: {{ .root.Release.Name | quote }}
{{- end }}

{{/* An image, by digest where there is one. Takes a dict: root, image. */}}
{{- define "contrast.image" -}}
{{- $tag := .image.tag | default .root.Chart.AppVersion -}}
{{- $digest := ternary "" (printf "@%s" .image.digest) (empty .image.digest) -}}
{{ printf "%s/%s:%s%s" .root.Values.image.registry .image.name $tag $digest }}
{{- end }}

{{- define "contrast.pullSecrets" -}}
{{- with .Values.image.pullSecrets -}}
imagePullSecrets:
  {{- range . }}
  - name: {{ . | quote }}
  {{- end }}
{{- end }}
{{- end }}

{{/* Requests and limits are the same: the limits decide how large a confidential VM is. */}}
{{- define "contrast.resources" -}}
{{- $amounts := dict "memory" .memory -}}
{{- if .cpu }}{{ $_ := set $amounts "cpu" .cpu }}{{ end -}}
{{ dict "requests" $amounts "limits" $amounts | toYaml }}
{{- end }}

{{/* Name of the runtime class of a platform, which is that of its handler, too. Takes a dict: platform, settings. */}}
{{- define "contrast.runtimeClass" -}}
{{- $prefix := ternary "contrast-" "contrast-cc-" (hasPrefix "insecure-" .platform) -}}
{{- $version := ternary "" (printf "-%s" .settings.runtimeVersion) (empty .settings.runtimeVersion) -}}
{{ printf "%s%s%s" $prefix .platform $version }}
{{- end }}

{{/*
Memory of a VM's host side, beyond the limits of its containers: what the guest has by itself, 70 MiB for the shim and 100 MiB for QEMU.
Takes a dict: platform, settings.
*/}}
{{- define "contrast.overhead" -}}
{{- $guest := ternary 1024 512 (hasSuffix "-gpu" .platform) -}}
{{ .settings.overheadMemory | default (printf "%dMi" (add $guest 70 100)) }}
{{- end }}
