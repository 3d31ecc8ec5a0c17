package main

import (
	"errors"
	"testing"
	"testing/fstest"

	"github.com/nodepatch/nodepatch/nodeagent/operation"
	"github.com/nodepatch/nodepatch/nodeagent/packages"
)

func TestDetect(t *testing.T) {
	apt := []string{"usr/bin/apt-get", "usr/bin/dpkg-query"}
	dnf := []string{"usr/bin/dnf", "usr/bin/rpm"}
	zypper := []string{"usr/bin/zypper", "usr/bin/rpm"}
	for name, test := range map[string]struct {
		release string
		tools   [][]string
		want    string // empty: none
	}{
		"Debian":                                {"ID=debian", [][]string{apt}, "apt"},
		"Debian with others":                    {"ID=debian", [][]string{apt, dnf, zypper}, "apt"},
		"Linux Mint":                            {"ID=linuxmint\nID_LIKE=\"ubuntu debian\"", [][]string{apt}, "apt"},
		"Fedora with apt":                       {"ID=fedora", [][]string{apt, dnf}, "dnf"},
		"Rocky":                                 {"ID=rocky\nID_LIKE=\"rhel centos fedora\"", [][]string{dnf}, "dnf"},
		"openSUSE Leap with dnf":                {"ID=opensuse-leap\nID_LIKE=\"suse opensuse\"", [][]string{dnf, zypper}, "zypper"},
		"unknown, with dnf":                     {"ID=azurelinux", [][]string{dnf}, "dnf"},
		"Fedora without dnf, though it has apt": {"ID=fedora", [][]string{apt}, ""},
		"none":                                  {"ID=alpine", nil, ""},
	} {
		t.Run(name, func(t *testing.T) {
			files := fstest.MapFS{"etc/os-release": {Data: []byte(test.release + "\n")}}
			for _, tool := range test.tools {
				for _, file := range tool {
					files[file] = &fstest.MapFile{Mode: 0o755}
				}
			}
			m, err := detect(nil, files, packages.Locks{})
			switch {
			case test.want == "" && !errors.Is(err, operation.ErrUnsupported):
				t.Errorf("Found %v, %v", m, err)
			case test.want != "" && (err != nil || m.Name() != test.want):
				t.Errorf("Found %v, %v, want %s", m, err, test.want)
			}
		})
	}
}
