{{- define "gvDetails" -}}
{{- $gv := . -}}
All kinds are of `{{ $gv.GroupVersionString }}` and cluster-scoped: `kubectl get nodepatch` lists them all.

{{ range $gv.SortedKinds -}}
- {{ $gv.TypeForKind . | markdownRenderTypeLink }}
{{ end -}}
{{ range $gv.SortedKinds }}
{{ template "type" ($gv.TypeForKind .) }}
{{- end }}
## Types
{{ range $gv.SortedTypes }}{{ if not .GVK }}
{{ template "type" . }}
{{- end }}{{ end }}
{{- end -}}
