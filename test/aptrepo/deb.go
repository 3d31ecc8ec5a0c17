package aptrepo

import (
	"archive/tar"
	"bytes"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"
)

// epoch is the time of everything in the packages, so that the same Package
// always makes the same file.
var epoch = time.Unix(1_700_000_000, 0)

// Build returns the package's file, for tests that give it to dpkg themselves.
func (p Package) Build() ([]byte, error) { return p.build() }

// build makes the .deb of a package: an ar archive of a format version, the
// control files and the payload (deb(5)).
func (p *Package) build() ([]byte, error) {
	control, err := p.controlTar()
	if err != nil {
		return nil, fmt.Errorf("control of %s: %w", p.Name, err)
	}
	data, err := p.dataTar()
	if err != nil {
		return nil, fmt.Errorf("payload of %s: %w", p.Name, err)
	}
	var deb bytes.Buffer
	deb.WriteString("!<arch>\n")
	for _, member := range []struct {
		name    string
		content []byte
	}{
		{"debian-binary", []byte("2.0\n")},
		{"control.tar", control},
		{"data.tar", data},
	} {
		fmt.Fprintf(&deb, "%-16s%-12d%-6d%-6d%-8s%-10d`\n", member.name, epoch.Unix(), 0, 0, "100644", len(member.content))
		deb.Write(member.content)
		if len(member.content)%2 == 1 {
			deb.WriteByte('\n')
		}
	}
	return deb.Bytes(), nil
}

// control is the package's stanza, in the order of Debian policy 5.3. It is also
// the beginning of its record in the index.
func (p *Package) control() string {
	var b strings.Builder
	field := func(name, value string) {
		if value != "" {
			fmt.Fprintf(&b, "%s: %s\n", name, value)
		}
	}
	field("Package", p.Name)
	field("Source", p.Source)
	field("Version", p.Version)
	field("Section", "misc")
	field("Priority", "optional")
	field("Architecture", p.architecture())
	field("Multi-Arch", p.MultiArch)
	field("Maintainer", "Test Repository <test@example.invalid>")
	size := 0
	for _, content := range p.Files {
		size += len(content)
	}
	field("Installed-Size", fmt.Sprint(size/1024+1))
	field("Depends", p.Depends)
	field("Conflicts", p.Conflicts)
	field("Breaks", p.Breaks)
	field("Provides", p.Provides)
	field("Description", "toy package for tests")
	return b.String()
}

func (p *Package) controlTar() ([]byte, error) {
	t := newTarball()
	t.directory("./")
	t.file("./control", p.control(), 0o644)
	if len(p.Conffiles) > 0 {
		t.file("./conffiles", strings.Join(sortedKeys(p.Conffiles), "\n")+"\n", 0o644)
	}
	for _, script := range []struct{ name, text string }{
		{"preinst", p.Preinst}, {"postinst", p.Postinst}, {"prerm", p.Prerm}, {"postrm", p.Postrm},
	} {
		if script.text != "" {
			t.file("./"+script.name, "#!/bin/sh\n"+script.text+"\n", 0o755)
		}
	}
	return t.finish()
}

func (p *Package) dataTar() ([]byte, error) {
	files := map[string]string{
		"/usr/share/doc/" + p.Name + "/version": p.Version + "\n",
	}
	for name, content := range p.Files {
		files[name] = content
	}
	for name, content := range p.Conffiles {
		files[name] = content
	}
	t := newTarball()
	made := map[string]bool{}
	for _, name := range sortedKeys(files) {
		if !path.IsAbs(name) {
			return nil, fmt.Errorf("%q is not an absolute path", name)
		}
		t.parents(path.Clean(name), made)
		t.file("."+path.Clean(name), files[name], 0o644)
	}
	return t.finish()
}

// tarball writes a tar archive; its first error ends it. It is not compressed,
// which dpkg does not ask for: tests build thousands of packages of a few bytes
// each, and setting a compressor up would take most of the time.
type tarball struct {
	buffer bytes.Buffer
	tar    *tar.Writer
	err    error
}

func newTarball() *tarball {
	t := &tarball{}
	t.tar = tar.NewWriter(&t.buffer)
	return t
}

// parents writes the directories above a file that were not written yet.
func (t *tarball) parents(name string, made map[string]bool) {
	dir := path.Dir(name)
	if made[dir] {
		return
	}
	made[dir] = true
	if dir != "/" {
		t.parents(dir, made)
		t.directory("." + dir + "/")
		return
	}
	t.directory("./")
}

func (t *tarball) directory(name string) {
	t.header(&tar.Header{Typeflag: tar.TypeDir, Name: name, Mode: 0o755, ModTime: epoch, Format: tar.FormatGNU})
}

func (t *tarball) file(name, content string, mode int64) {
	t.header(&tar.Header{
		Typeflag: tar.TypeReg, Name: name, Mode: mode, Size: int64(len(content)), ModTime: epoch, Format: tar.FormatGNU,
	})
	if t.err == nil {
		_, t.err = t.tar.Write([]byte(content))
	}
}

func (t *tarball) header(h *tar.Header) {
	if t.err == nil {
		t.err = t.tar.WriteHeader(h)
	}
}

func (t *tarball) finish() ([]byte, error) {
	if t.err == nil {
		t.err = t.tar.Close()
	}
	return t.buffer.Bytes(), t.err
}

func sortedKeys(m map[string]string) []string {
	keys := make([]string, 0, len(m))
	for k := range m {
		keys = append(keys, k)
	}
	slices.Sort(keys)
	return keys
}
