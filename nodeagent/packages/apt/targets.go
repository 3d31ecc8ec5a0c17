package apt

import "github.com/nodepatch/nodepatch/nodeagent/packages"

// argument names exactly one version of one package on the command line of
// apt-get. A package for all architectures is known by its name alone.
func argument(t packages.Target) string {
	if t.Architecture == "" || t.Architecture == "all" {
		return t.Name + "=" + t.Version
	}
	return t.Name + ":" + t.Architecture + "=" + t.Version
}

func arguments(targets []packages.Target) []string {
	list := make([]string, len(targets))
	for i, t := range targets {
		list[i] = argument(t)
	}
	return list
}
