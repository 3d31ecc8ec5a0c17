package main

import (
	"fmt"
	"io/fs"
	"slices"

	"github.com/nodepatch/nodepatch/nodeagent/operation"
	"github.com/nodepatch/nodepatch/nodeagent/packages"
	"github.com/nodepatch/nodepatch/nodeagent/packages/apt"
	"github.com/nodepatch/nodepatch/nodeagent/packages/dnf"
	"github.com/nodepatch/nodepatch/nodeagent/packages/zypper"
)

// tool is a package manager, and the distributions (ID and ID_LIKE of os-release(5)) whose own it is.
type tool struct {
	distributions []string
	installed     func(fs.FS) bool
	open          func(packages.Runner, fs.FS, packages.Locks) packages.Manager
}

var tools = []tool{
	{[]string{"debian", "ubuntu"}, apt.Installed, func(r packages.Runner, f fs.FS, l packages.Locks) packages.Manager { return apt.New(r, f, l) }},
	{[]string{"suse", "opensuse", "sles"}, zypper.Installed, func(r packages.Runner, f fs.FS, l packages.Locks) packages.Manager { return zypper.New(r, f, l) }},
	{[]string{"fedora", "rhel", "centos"}, dnf.Installed, func(r packages.Runner, f fs.FS, l packages.Locks) packages.Manager { return dnf.New(r, f, l) }},
}

// detect returns the host's package manager: its distribution's own, and where the distribution is not known, the first that
// is installed. Others may be installed beside it, as dnf is packaged for Debian.
func detect(r packages.Runner, files fs.FS, locks packages.Locks) (packages.Manager, error) {
	system, err := packages.ReadOS(files)
	if err != nil {
		return nil, err
	}
	names := append([]string{system.ID}, system.IDLike...)
	known := slices.IndexFunc(tools, func(t tool) bool {
		return slices.ContainsFunc(t.distributions, func(d string) bool { return slices.Contains(names, d) })
	})
	if known >= 0 {
		if t := tools[known]; t.installed(files) {
			return t.open(r, files, locks), nil
		}
		return nil, fmt.Errorf("%w, and of %s its own", operation.ErrUnsupported, system.PrettyName)
	}
	for _, t := range tools {
		if t.installed(files) {
			return t.open(r, files, locks), nil
		}
	}
	return nil, operation.ErrUnsupported
}
