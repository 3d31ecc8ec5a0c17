package zypper

import (
	"context"
	"fmt"
	"regexp"
	"strings"

	"github.com/nodepatch/nodepatch/nodeagent/packages"
)

// Refresh fetches the metadata of all enabled repositories. One that fails keeps
// its older metadata, of which a scan then works, and with which zypper ends all
// its other commands with exit status 0.
func (m *Manager) Refresh(ctx context.Context) (packages.Refresh, error) {
	var refresh packages.Refresh
	err := m.locks.Retry(ctx, m.files, func() (err error) {
		refresh, err = m.refresh(ctx)
		return err
	})
	return refresh, err
}

func (m *Manager) refresh(ctx context.Context) (packages.Refresh, error) {
	a, err := m.run(ctx, &command{
		name: "zypper-refresh", purpose: "refresh the repositories", timeout: refreshTimeout, network: true, verb: "refresh",
	})
	if err != nil {
		return packages.Refresh{}, err
	}
	refresh, failures := parseRefresh(a)
	switch {
	case len(failures) > 0:
		return refresh, fmt.Errorf("%s: %w", a.command.purpose, &packages.RefreshError{Failures: failures})
	case a.exit == exitNoRepositories:
		return refresh, nil // there is nothing to refresh, which it warns of
	case a.exit != exitOK:
		return refresh, fmt.Errorf("%s: %w", a.command.purpose, a.failure())
	}
	return refresh, nil
}

// maxWarnings is how many of zypper's warnings are kept: one for each of a sane
// host's repositories.
const maxWarnings = 20

var (
	// "Skipping repository 'Toy repository' because of the above error.", which
	// ends what is said of a repository that was not refreshed.
	skipped = regexp.MustCompile(`Skipping repository '(.*)' because of the above error`)
	// "[toy|http://mirror.example/toys] Valid metadata not found at specified URL"
	located = regexp.MustCompile(`(?m)^\s*(?:- )?\[[^|\]\n]*\|([^\]\n]+)\]`)
	// "Download (curl) error for 'http://mirror.example/repodata/repomd.xml':"
	fetched = regexp.MustCompile(`'([a-z]+://[^']+)'`)
)

// parseRefresh reads what "zypper refresh" said of each repository.
func parseRefresh(a *answer) (packages.Refresh, []packages.RepositoryFailure) {
	var refresh packages.Refresh
	var failures []packages.RepositoryFailure
	var errors []string // those since the last repository
	for _, element := range a.elements {
		switch e := element.(type) {
		case *progress:
			if e.ID == "raw-refresh" && e.Done == "1" {
				refresh.Indexes++
				refresh.Changed++
			}
		case *message:
			if found := skipped.FindStringSubmatch(e.Text); found != nil {
				failures = append(failures, repositoryFailure(found[1], strings.Join(errors, "\n")))
				refresh.Indexes++
				errors = nil
				continue
			}
			switch {
			case strings.HasSuffix(strings.TrimSpace(e.Text), "is up to date."):
				refresh.Indexes++
			case e.Type == "error":
				errors = append(errors, e.Text)
			case e.Type == "warning" && len(refresh.Warnings) < maxWarnings:
				refresh.Warnings = append(refresh.Warnings, oneLine(e.Text))
			}
		}
	}
	return refresh, failures
}

// repositoryFailure is that of the named repository, from all that was said of it.
func repositoryFailure(name, text string) packages.RepositoryFailure {
	f := packages.RepositoryFailure{Repository: name, Unreachable: unreachable(text)}
	if found := located.FindStringSubmatch(text); found != nil {
		f.Repository = found[1]
	} else if found := fetched.FindStringSubmatch(text); found != nil {
		f.Repository = found[1]
	}
	var reason []string
	for line := range strings.Lines(text) {
		line = strings.TrimPrefix(strings.TrimSpace(line), "- ")
		for _, said := range []string{ // in the name, or to no one
			"Repository '" + name + "' is invalid.", "Problem retrieving files from '" + name + "'.", "History:",
			"Please check if the URIs defined", "Please see the above error message", "Some of the repositories",
		} {
			if strings.HasPrefix(line, said) {
				line = ""
			}
		}
		if located := located.FindString(line); located != "" {
			line = strings.TrimSpace(strings.TrimPrefix(line, located))
		}
		reason = append(reason, strings.TrimPrefix(line, "[|] "))
	}
	f.Reason = oneLine(strings.Join(reason, "\n"))
	return f
}
