{{- define "type_members" -}}
{{- if eq .Name "metadata" -}}
metadata is standard object metadata.
{{- else -}}
{{ markdownRenderFieldDoc .Doc }}
{{- end -}}
{{- end -}}

{{- define "type_validation" -}}
{{- $separator := "" -}}
{{- range .Validation -}}
{{- if hasPrefix "Required" . -}}
{{ $separator }}Required{{ $separator = "<br />" }}
{{- else if not (or (hasPrefix "Optional" .) (hasPrefix "Enum" .) (hasPrefix "XIntOrString" .) (hasPrefix "Type:" .)) -}}
{{ $separator }}{{ markdownRenderFieldDoc . }}{{ $separator = "<br />" }}
{{- end -}}
{{- end -}}
{{- range index .Markers "kubebuilder:validation:XValidation" -}}
{{ $separator }}{{ markdownRenderFieldDoc .Message }}{{ $separator = "<br />" }}
{{- end -}}
{{- end -}}
