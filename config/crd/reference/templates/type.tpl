{{- define "type" -}}
{{- $type := . -}}
{{- if markdownShouldRenderType $type -}}
{{ if $type.GVK }}##{{ else }}###{{ end }} {{ $type.Name }}
{{ if $type.IsAlias }}
_Underlying type:_ _{{ markdownRenderTypeLink $type.UnderlyingType }}_
{{ end }}
{{ $type.Doc }}
{{ $rules := index $type.Markers "kubebuilder:validation:XValidation" -}}
{{ if $rules }}
_Rules:_
{{ range $rules }}
- {{ .Message }}
{{- end }}
{{ end -}}
{{ if and $type.Validation (not $type.EnumValues) }}
_Validation:_
{{ range $type.Validation }}
- {{ . }}
{{- end }}
{{ end -}}
{{ if $type.References }}
_Appears in:_ {{ range $i, $reference := $type.SortedReferences }}{{ if $i }}, {{ end }}{{ markdownRenderTypeLink $reference }}{{ end }}
{{ end -}}
{{ if $type.Members }}
| Field | Description | Default | Validation |
| --- | --- | --- | --- |
{{ range $type.Members -}}
| `{{ .Name }}` _{{ markdownRenderType .Type }}_ | {{ template "type_members" . }} | {{ markdownRenderDefault .Default }} | {{ template "type_validation" . }} |
{{ end -}}
{{ end -}}
{{ if $type.EnumValues }}
| Value | Description |
| --- | --- |
{{ range $type.EnumValues -}}
| `{{ .Name }}` | {{ .Doc | trim | splitList " " | rest | join " " | markdownRenderFieldDoc }} |
{{ end -}}
{{ end -}}
{{- end -}}
{{- end -}}
