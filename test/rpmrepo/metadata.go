package rpmrepo

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/xml"
	"fmt"
	"maps"
	"slices"
	"strings"
	"text/template"
	"time"

	"github.com/google/rpmpack"
)

// indexed is a package as the metadata describes it.
type indexed struct {
	*Package
	Arch, Epoch, Ver, Rel        string
	SHA256, Path, SourceRPM      string
	Size, HeaderStart, HeaderEnd int
	Built                        int64
	Relations                    []relations
	AllFiles                     []string
}

// relations are all of a package's of one kind.
type relations struct {
	Kind    string
	Entries []relation
}

type relation struct{ Name, Flags, Epoch, Version, Release string }

func index(p *Package, rpm []byte) (*indexed, error) {
	epoch, version, release := p.evr()
	i := &indexed{
		Package: p, Arch: p.architecture(), Epoch: epoch, Ver: version, Rel: release,
		SHA256: fmt.Sprintf("%x", sha256.Sum256(rpm)), Path: p.path(), SourceRPM: p.source(),
		Size: len(rpm), Built: built.Unix(),
		AllFiles: slices.Concat(slices.Sorted(maps.Keys(p.Config)), slices.Sorted(maps.Keys(p.Files)),
			[]string{p.doc()}),
	}
	var err error
	if i.HeaderStart, i.HeaderEnd, err = headerRange(rpm); err != nil {
		return nil, fmt.Errorf("toy package %s: %w", p.Name, err)
	}
	for _, kind := range []struct {
		name  string
		words []string
	}{
		{"provides", p.provides()}, {"requires", p.Requires}, {"conflicts", p.Conflicts},
		{"obsoletes", p.Obsoletes}, {"recommends", p.Recommends},
	} {
		entries, err := parseRelations(kind.words)
		if err != nil {
			return nil, fmt.Errorf("toy package %s: %w", p.Name, err)
		}
		if len(entries) > 0 {
			i.Relations = append(i.Relations, relations{Kind: kind.name, Entries: entries})
		}
	}
	return i, nil
}

// flags are the words of the metadata for what a spec file writes with signs.
var flags = map[string]string{"=": "EQ", "<": "LT", ">": "GT", "<=": "LE", ">=": "GE"}

func parseRelations(words []string) ([]relation, error) {
	var all []relation
	for _, w := range words {
		parsed, err := rpmpack.NewRelation(w)
		if err != nil {
			return nil, fmt.Errorf("relation %q: %w", w, err)
		}
		r := relation{Name: parsed.Name, Flags: flags[parsed.Sense.String()]}
		if r.Flags != "" {
			r.Epoch, r.Version, r.Release = (&Package{Version: parsed.Version}).evr()
		}
		all = append(all, r)
	}
	return all, nil
}

// The documents of a repository, in the form that createrepo_c gives them
// (https://github.com/rpm-software-management/createrepo_c).
var documents = template.Must(template.New("").Funcs(template.FuncMap{
	"x": func(value any) (string, error) {
		var b strings.Builder
		err := xml.EscapeText(&b, fmt.Append(nil, value))
		return b.String(), err
	},
	"date": func(t time.Time) string { return t.UTC().Format(time.DateTime) },
}).Parse(`
{{define "primary"}}<?xml version="1.0" encoding="UTF-8"?>
<metadata xmlns="http://linux.duke.edu/metadata/common" xmlns:rpm="http://linux.duke.edu/metadata/rpm" packages="{{len .}}">
{{- range .}}
<package type="rpm">
  <name>{{x .Name}}</name>
  <arch>{{x .Arch}}</arch>
  <version epoch="{{.Epoch}}" ver="{{x .Ver}}" rel="{{x .Rel}}"/>
  <checksum type="sha256" pkgid="YES">{{.SHA256}}</checksum>
  <summary>A toy</summary>
  <description>A toy.</description>
  <packager/>
  <url/>
  <time file="{{.Built}}" build="{{.Built}}"/>
  <size package="{{.Size}}" installed="{{.Size}}" archive="{{.Size}}"/>
  <location href="{{x .Path}}"/>
  <format>
    <rpm:license>None</rpm:license>
    <rpm:vendor>{{x .Vendor}}</rpm:vendor>
    <rpm:group/>
    <rpm:buildhost>localhost</rpm:buildhost>
    <rpm:sourcerpm>{{x .SourceRPM}}</rpm:sourcerpm>
    <rpm:header-range start="{{.HeaderStart}}" end="{{.HeaderEnd}}"/>
    {{- range .Relations}}
    <rpm:{{.Kind}}>
      {{- range .Entries}}
      <rpm:entry name="{{x .Name}}"{{if .Flags}} flags="{{.Flags}}" epoch="{{.Epoch}}" ver="{{x .Version}}"{{if .Release}} rel="{{x .Release}}"{{end}}{{end}}/>
      {{- end}}
    </rpm:{{.Kind}}>
    {{- end}}
    {{- range .AllFiles}}
    <file>{{x .}}</file>
    {{- end}}
  </format>
</package>
{{- end}}
</metadata>
{{end}}

{{define "filelists"}}<?xml version="1.0" encoding="UTF-8"?>
<filelists xmlns="http://linux.duke.edu/metadata/filelists" packages="{{len .}}">
{{- range .}}
<package pkgid="{{.SHA256}}" name="{{x .Name}}" arch="{{x .Arch}}">
  <version epoch="{{.Epoch}}" ver="{{x .Ver}}" rel="{{x .Rel}}"/>
  {{- range .AllFiles}}
  <file>{{x .}}</file>
  {{- end}}
</package>
{{- end}}
</filelists>
{{end}}

{{define "other"}}<?xml version="1.0" encoding="UTF-8"?>
<otherdata xmlns="http://linux.duke.edu/metadata/other" packages="{{len .}}">
{{- range .}}
<package pkgid="{{.SHA256}}" name="{{x .Name}}" arch="{{x .Arch}}">
  <version epoch="{{.Epoch}}" ver="{{x .Ver}}" rel="{{x .Rel}}"/>
</package>
{{- end}}
</otherdata>
{{end}}

{{define "updateinfo"}}<?xml version="1.0" encoding="UTF-8"?>
<updates>
{{- range .}}
<update from="toys@example.com" status="final" type="{{x .Type}}" version="1">
  <id>{{x .ID}}</id>
  <title>{{x .Title}}</title>
  {{- if .Severity}}
  <severity>{{x .Severity}}</severity>
  {{- end}}
  <issued date="{{date .Issued}}"/>
  <updated date="{{date .Issued}}"/>
  <description>A toy.</description>
  <references>
    {{- range .CVEs}}
    <reference href="https://example.com/{{x .}}" id="{{x .}}" type="cve" title="{{x .}}"/>
    {{- end}}
  </references>
  <pkglist>
    <collection short="toys">
      <name>Toys</name>
      {{- $advisory := .}}
      {{- range .Collected}}
      <package name="{{x .Name}}" epoch="{{.Epoch}}" version="{{x .Ver}}" release="{{x .Rel}}" arch="{{x .Arch}}" src="{{x .SourceRPM}}">
        <filename>{{x .Name}}-{{x .Ver}}-{{x .Rel}}.{{x .Arch}}.rpm</filename>
        {{- if $advisory.RebootSuggested}}
        <reboot_suggested>True</reboot_suggested>
        {{- end}}
        {{- if $advisory.RestartSuggested}}
        <restart_suggested>True</restart_suggested>
        {{- end}}
      </package>
      {{- end}}
    </collection>
  </pkglist>
</update>
{{- end}}
</updates>
{{end}}

{{define "repomd"}}<?xml version="1.0" encoding="UTF-8"?>
<repomd xmlns="http://linux.duke.edu/metadata/repo" xmlns:rpm="http://linux.duke.edu/metadata/rpm">
  <revision>{{.Revision}}</revision>
  {{- range .Data}}
  <data type="{{.Type}}">
    <checksum type="sha256">{{.SHA256}}</checksum>
    <open-checksum type="sha256">{{.OpenSHA256}}</open-checksum>
    <location href="{{.Path}}"/>
    <timestamp>{{$.Revision}}</timestamp>
    <size>{{.Size}}</size>
    <open-size>{{.OpenSize}}</open-size>
  </data>
  {{- end}}
</repomd>
{{end}}
`))

// document is one file of metadata.
type document struct {
	Type, Path         string
	SHA256, OpenSHA256 string
	Size, OpenSize     int
	content            []byte
}

// render makes a document with its hash in its name, so that no client takes one
// in its cache for another.
func render(kind string, data any) (document, error) {
	open, err := execute(kind, data)
	if err != nil {
		return document{}, err
	}
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write(open); err != nil {
		return document{}, err
	}
	if err := w.Close(); err != nil {
		return document{}, err
	}
	d := document{
		Type: kind, content: b.Bytes(), Size: b.Len(), OpenSize: len(open),
		SHA256: fmt.Sprintf("%x", sha256.Sum256(b.Bytes())), OpenSHA256: fmt.Sprintf("%x", sha256.Sum256(open)),
	}
	d.Path = "repodata/" + d.SHA256 + "-" + kind + ".xml.gz"
	return d, nil
}

func execute(kind string, data any) ([]byte, error) {
	var b bytes.Buffer
	if err := documents.ExecuteTemplate(&b, kind, data); err != nil {
		return nil, fmt.Errorf("write %s: %w", kind, err)
	}
	return b.Bytes(), nil
}
