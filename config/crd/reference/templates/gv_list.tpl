{{- define "gvList" -}}
<!-- Made by "make generate" from the comments in api/v1alpha1. Change those. -->
# API reference

What people write and read with kubectl. `kubectl explain patchpolicy.spec` says the same on a cluster.
{{ range . }}
{{ template "gvDetails" . }}
{{- end }}
{{- end -}}
