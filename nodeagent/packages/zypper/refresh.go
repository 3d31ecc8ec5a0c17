package zypper

import (
	"context"
	"fmt"
	"regexp"
	"strings"

	"github.com/nodepatch/nodepatch/nodeagent/packages"
)

// Refresh fetches the metadata of all enabled repositories, one after the other,
// so that one that hangs does not keep the others from being refreshed. One that
// fails keeps its older metadata, by which zypper then does all else, with exit
// status 0.
func (m *Manager) Refresh(ctx context.Context) (packages.Refresh, error) {
	const purpose = "refresh the repositories"
	r, err := m.repositories(ctx)
	if err != nil {
		return packages.Refresh{}, err
	}
	var refresh packages.Refresh
	if len(r.all) == 0 {
		refresh.Warnings = []string{"no repository is enabled (zypper repos)"}
	}
	var failures []packages.RepositoryFailure
	for _, repo := range r.all {
		var one packages.Refresh
		var failed []packages.RepositoryFailure
		err := m.locks.Retry(ctx, m.files, func() (err error) {
			one, failed, err = m.refresh(ctx, &repo)
			return err
		})
		if err != nil {
			return refresh, fmt.Errorf("%s: %w", purpose, err)
		}
		refresh.Indexes += one.Indexes
		refresh.Changed += one.Changed
		refresh.Warnings = append(refresh.Warnings, one.Warnings...)
		failures = append(failures, failed...)
	}
	if len(failures) > 0 {
		return refresh, fmt.Errorf("%s: %w", purpose, &packages.RefreshError{Failures: failures})
	}
	return refresh, nil
}

// refresh fetches the metadata of one repository.
func (m *Manager) refresh(ctx context.Context, repo *repository) (packages.Refresh, []packages.RepositoryFailure, error) {
	a, err := m.run(ctx, &command{
		name: "zypper-refresh", purpose: "refresh " + repo.Alias, limit: m.limits.refresh, network: true,
		verb: "refresh", arguments: []string{repo.Alias},
	})
	if err != nil {
		return packages.Refresh{}, nil, err
	}
	if a.late() {
		f := packages.RepositoryFailure{Repository: repo.Alias, Unreachable: true, Reason: fmt.Sprintf("no answer within %s", m.limits.refresh)}
		if len(repo.URLs) > 0 {
			f.Repository = strings.TrimSpace(repo.URLs[0])
		}
		return packages.Refresh{Indexes: 1}, []packages.RepositoryFailure{f}, nil
	}
	refresh, failures := parseRefresh(a)
	if len(failures) == 0 && a.exit != exitOK {
		return refresh, nil, a.failure()
	}
	return refresh, failures, nil
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
	var said []string // those since the last repository
	for _, element := range a.elements {
		switch e := element.(type) {
		case *progress:
			if e.ID == "raw-refresh" && e.Done == "1" {
				refresh.Indexes++
				refresh.Changed++
			}
		case *message:
			if found := skipped.FindStringSubmatch(e.Text); found != nil {
				failures = append(failures, repositoryFailure(found[1], strings.Join(said, "\n")))
				refresh.Indexes++
				said = nil
				continue
			}
			switch {
			case strings.HasSuffix(strings.TrimSpace(e.Text), "is up to date."):
				refresh.Indexes++
			case e.Type == "error":
				said = append(said, e.Text)
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
