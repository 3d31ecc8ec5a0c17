package rpmrepo

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/google/rpmpack"
)

// built is when all packages were built: the same package always has the same hash.
var built = time.Date(2026, time.January, 2, 3, 4, 5, 0, time.UTC)

// tagSourceRPM is the tag of the source package's file name, which rpmpack takes
// from the package's own name (rpmtag.h).
const tagSourceRPM = 1044

// build makes the package's file. The scriptlets' shell is not among what the
// package requires, other than with packages that rpmbuild makes: an empty rpm
// database has nobody who provides it.
func (p *Package) build() ([]byte, error) {
	epoch, version, release := p.evr()
	number, err := strconv.ParseUint(epoch, 10, 32)
	if err != nil || p.Name == "" || version == "" || release == "" {
		return nil, fmt.Errorf("toy package %q: version %q is not [epoch:]version-release", p.Name, p.Version)
	}
	meta := rpmpack.RPMMetaData{
		Name: p.Name, Version: version, Release: release, Arch: p.architecture(), Epoch: uint32(number),
		Summary: "A toy", Description: "A toy.", Licence: "None", Vendor: p.Vendor, BuildHost: "localhost",
		BuildTime: built, Compressor: "gzip:1",
	}
	if number == 0 {
		meta.Epoch = rpmpack.NoEpoch
	}
	r, err := rpmpack.NewRPM(meta)
	if err != nil {
		return nil, fmt.Errorf("toy package %s: %w", p.Name, err)
	}
	// What the library has put there lacks the epoch.
	r.Provides = nil
	for _, relations := range []struct {
		list  *rpmpack.Relations
		words []string
	}{
		{&r.Provides, p.provides()}, {&r.Requires, p.Requires}, {&r.Obsoletes, p.Obsoletes},
		{&r.Conflicts, p.Conflicts}, {&r.Recommends, p.Recommends},
	} {
		for _, words := range relations.words {
			if err := relations.list.Set(words); err != nil {
				return nil, fmt.Errorf("toy package %s: relation %q: %w", p.Name, words, err)
			}
		}
	}
	for _, scriptlet := range []struct {
		add  func(string)
		body string
	}{
		{r.AddPretrans, p.Pretrans}, {r.AddPrein, p.Pre}, {r.AddPostin, p.Post},
		{r.AddPreun, p.Preun}, {r.AddPostun, p.Postun}, {r.AddPosttrans, p.Posttrans},
	} {
		scriptlet.add(scriptlet.body)
	}
	r.AddCustomTag(tagSourceRPM, rpmpack.EntryString(p.source()))
	p.addFiles(r)
	var b bytes.Buffer
	if err := r.Write(&b); err != nil {
		return nil, fmt.Errorf("toy package %s: %w", p.Name, err)
	}
	return b.Bytes(), nil
}

// provides are all relations, the package itself first.
func (p *Package) provides() []string {
	return append([]string{p.Name + " = " + p.Version}, p.Provides...)
}

func (p *Package) addFiles(r *rpmpack.RPM) {
	add := func(name, content string, kind rpmpack.FileType) {
		r.AddFile(rpmpack.RPMFile{
			Name: name, Body: []byte(content), Mode: 0o644, Owner: "root", Group: "root",
			MTime: uint32(built.Unix()), Type: kind,
		})
	}
	for name, content := range p.Files {
		add(name, content, rpmpack.GenericFile)
	}
	for name, content := range p.Config {
		add(name, content, rpmpack.ConfigFile|rpmpack.NoReplaceFile)
	}
	add(p.doc(), p.Version+"\n", rpmpack.GenericFile)
}

// headerRange is where in the package's file its header is, which repositories
// say so that it can be read alone. A file has a lead of 96 bytes, a header of
// signatures that is padded to 8 bytes, and the header.
func headerRange(rpm []byte) (start, end int, err error) {
	const lead = 96
	signatures, err := headerSize(rpm, lead)
	if err != nil {
		return 0, 0, err
	}
	start = lead + (signatures+7)/8*8
	size, err := headerSize(rpm, start)
	return start, start + size, err
}

func headerSize(rpm []byte, offset int) (int, error) {
	const intro, entry = 16, 16
	if len(rpm) < offset+intro || !strings.HasPrefix(string(rpm[offset:]), "\x8e\xad\xe8") {
		return 0, errors.New("a package has no header where it should be")
	}
	entries := binary.BigEndian.Uint32(rpm[offset+8:])
	data := binary.BigEndian.Uint32(rpm[offset+12:])
	return intro + entry*int(entries) + int(data), nil
}
