{{- define "sakeeper.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- /* The arguments after those of the manifests, as a JSON list. The process that a component is
for needs flags besides rights: the chart sets both. */}}
{{- define "sakeeper.controllers.args" -}}
{{- $names := list }}
{{- if .Values.tokenRequests }}{{ $names = append $names "token-request-controller" }}{{ end }}
{{- if .Values.accountTemplates }}{{ $names = append $names "service-account-template-controller" }}{{ end }}
{{- if .Values.pullSecretSourceNamespaces }}{{ $names = append $names "pull-secret-copy-controller" }}{{ end }}
{{- if .Values.inventoryInterval }}{{ $names = append $names "token-inventory-controller" }}{{ end }}
{{- $names = uniq (prepend $names (eq .Values.mode "replace" | ternary "*" "token-request-controller")) }}
{{- $args := list }}
{{- if gt (len $names) 1 }}{{ $args = append $args (printf "--controllers=%s" (join "," $names)) }}{{ end }}
{{- if ne .Values.tokenGeneration "none" }}{{ $args = append $args (printf "--auto-generate-token-secrets=%s" .Values.tokenGeneration) }}{{ end }}
{{- with .Values.pullSecretSourceNamespaces }}{{ $args = append $args (printf "--pull-secret-source-namespaces=%s" (join "," .)) }}{{ end }}
{{- with .Values.inventoryInterval }}{{ $args = append $args (printf "--inventory-interval=%s" .) }}{{ end }}
{{- concat $args (include "sakeeper.logging" . | fromJsonArray) .Values.controllers.extraArgs | toJson }}
{{- end }}

{{- define "sakeeper.webhook.args" -}}
{{- $args := list }}
{{- if .Values.tokenVolumesFromSecrets }}{{ $args = append $args "--token-volume-source=secret" }}{{ end }}
{{- concat $args (include "sakeeper.logging" . | fromJsonArray) .Values.webhook.extraArgs | toJson }}
{{- end }}

{{- define "sakeeper.authenticator.args" -}}
{{- $args := list }}
{{- if .Values.authenticator.trackLegacyTokens }}{{ $args = append $args "--track-legacy-tokens" }}{{ end }}
{{- concat $args (include "sakeeper.logging" . | fromJsonArray) .Values.authenticator.extraArgs | toJson }}
{{- end }}

{{- define "sakeeper.logging" -}}
{{- $args := list }}
{{- if ne .Values.logging.format "text" }}{{ $args = append $args (printf "--logging-format=%s" .Values.logging.format) }}{{ end }}
{{- with .Values.logging.verbosity }}{{ $args = append $args (printf "-v=%d" (int .)) }}{{ end }}
{{- toJson $args }}
{{- end }}
