package zypper_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/nodepatch/nodepatch/nodeagent/packages"
	"github.com/nodepatch/nodepatch/test/rpmrepo"
)

// TestRefresh fetches metadata that is new, that is not, and that cannot be had.
func TestRefresh(t *testing.T) {
	t.Parallel()
	m := newMachine(t, packages.Locks{})
	if refresh := m.refresh(t); refresh.Indexes != 0 || len(refresh.Warnings) != 1 {
		t.Errorf("without a repository, refresh is %+v", refresh)
	}
	repo := rpmrepo.New()
	m.older(t, repo, rpmrepo.Good("toy", "1.0-1"))
	if refresh := m.refresh(t); refresh.Indexes != 1 || refresh.Changed != 0 {
		t.Errorf("a second refresh is %+v", refresh)
	}
	repo.Add(rpmrepo.Good("toy", "1.1-1"))
	if err := repo.Publish(); err != nil {
		t.Fatal(err)
	}
	if refresh := m.refresh(t); refresh.Indexes != 1 || refresh.Changed != 1 {
		t.Errorf("with new metadata, refresh is %+v", refresh)
	}

	// Two that fail beside one that works.
	address := hang(t)
	m.Hurry(3 * time.Second)
	m.layer.Write(t, "/etc/zypp/repos.d/hanging.repo", "[hanging]\nname=It's a 'hanging' one\nenabled=1\nbaseurl="+address+"/\ngpgcheck=0\n")
	empty := httptest.NewServer(http.NotFoundHandler())
	t.Cleanup(empty.Close)
	m.layer.Write(t, "/etc/zypp/repos.d/empty.repo", "[empty]\nname=Empty\nenabled=1\nbaseurl="+empty.URL+"/\ngpgcheck=0\n")
	refresh, err := m.Refresh(t.Context())
	var failed *packages.RefreshError
	if !errors.As(err, &failed) || len(failed.Failures) != 2 || failed.Unreachable() {
		t.Fatalf("refresh is %v", err)
	}
	if refresh.Indexes != 3 {
		t.Errorf("refresh is %+v", refresh)
	}
	for _, f := range failed.Failures {
		hangs := strings.HasPrefix(f.Repository, address)
		if f.Unreachable != hangs || f.Reason == "" || !hangs && !strings.HasPrefix(f.Repository, empty.URL) {
			t.Errorf("failure is %+v", f)
		}
	}
}

// TestRefreshDown has the only server away: the scan goes on with older metadata,
// whose age is told.
func TestRefreshDown(t *testing.T) {
	t.Parallel()
	m, repo := outdated(t, rpmrepo.Good("toy", "1.1-1"))
	before := m.scan(t).MetadataRefreshed
	time.Sleep(time.Until(before.Add(1100 * time.Millisecond))) // the cache's times are whole seconds
	repo.SetDown(true)
	_, err := m.Refresh(t.Context())
	var failed *packages.RefreshError
	if !errors.As(err, &failed) || !failed.Unreachable() || !strings.HasPrefix(failed.Failures[0].Repository, "http://127.0.0.1") {
		t.Errorf("with the server down, refresh is %v", err)
	}
	scan := m.scan(t)
	if _, found := find(scan, "toy"); !found || !scan.MetadataRefreshed.Equal(before) {
		t.Errorf("patches are %+v by metadata of %s, want that of %s", scan.Patches, scan.MetadataRefreshed, before)
	}
	repo.SetDown(false)
	m.refresh(t)
	if after := m.scan(t).MetadataRefreshed; !after.After(before) {
		t.Errorf("metadata was seen to be current again at %s, and before at %s", after, before)
	}
}
