package operation

import (
	"errors"
	"fmt"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/nodeagent/packages"
)

func newRetries() *retries { return &retries{Limits: limitsOf(nil)} }

func failed(at v1alpha1.BlockedAt) failure {
	return failure{Name: "ham", Version: "2", At: at, Message: "no", Task: "t", Time: monday}
}

// fail has ham fail in so many operations, whose numbers go on from first.
func (r *retries) fail(at v1alpha1.BlockedAt, first, times int) {
	for i := range times {
		r.record(fmt.Sprint("op-", first+i), failed(at))
	}
}

// sent is what the API server answers to a write of everything.
func (r *retries) sent() {
	r.Status = r.current()
	r.Pending, r.Gone = nil, nil
}

func TestBlockedAt(t *testing.T) {
	for name, test := range map[string]struct {
		attempts v1alpha1.PatchAttempts
		limits   *v1alpha1.RetryLimits
		want     v1alpha1.BlockedAt
	}{
		"nothing":                      {},
		"one short of both":            {attempts: v1alpha1.PatchAttempts{DownloadFailures: 10, InstallFailures: 3}},
		"downloads":                    {attempts: v1alpha1.PatchAttempts{DownloadFailures: 11}, want: v1alpha1.BlockedAtDownload},
		"installations":                {attempts: v1alpha1.PatchAttempts{InstallFailures: 4}, want: v1alpha1.BlockedAtInstall},
		"both":                         {attempts: v1alpha1.PatchAttempts{DownloadFailures: 11, InstallFailures: 4}, want: v1alpha1.BlockedAtInstall},
		"more than the limit":          {attempts: v1alpha1.PatchAttempts{DownloadFailures: 20}, want: v1alpha1.BlockedAtDownload},
		"the policy's limit":           {attempts: v1alpha1.PatchAttempts{DownloadFailures: 2}, limits: &v1alpha1.RetryLimits{Download: 2}, want: v1alpha1.BlockedAtDownload},
		"the other limit is the usual": {attempts: v1alpha1.PatchAttempts{InstallFailures: 3}, limits: &v1alpha1.RetryLimits{Download: 2}},
		"sticky when the limit is raised": {
			attempts: v1alpha1.PatchAttempts{InstallFailures: 4, Blocked: v1alpha1.BlockedAtInstall},
			limits:   &v1alpha1.RetryLimits{Download: 11, Install: 9}, want: v1alpha1.BlockedAtInstall,
		},
	} {
		t.Run(name, func(t *testing.T) {
			if got := blockedAt(&test.attempts, limitsOf(test.limits)); got != test.want {
				t.Errorf("Blocked at %q, want %q", got, test.want)
			}
		})
	}
}

func TestCount(t *testing.T) {
	for name, test := range map[string]struct {
		do   func(r *retries)
		want string
	}{
		"nothing": {do: func(*retries) {}, want: ""},
		"one of each": {
			do:   func(r *retries) { r.fail(v1alpha1.BlockedAtDownload, 1, 1); r.fail(v1alpha1.BlockedAtInstall, 2, 1) },
			want: "ham=2 D1 I1  #2",
		},
		"once in an operation, whatever is repeated": {
			do:   func(r *retries) { r.fail(v1alpha1.BlockedAtInstall, 1, 1); r.fail(v1alpha1.BlockedAtInstall, 1, 1) },
			want: "ham=2 D0 I1  #1",
		},
		"once in an operation, also when the first was sent": {
			do: func(r *retries) {
				r.fail(v1alpha1.BlockedAtInstall, 1, 1)
				r.sent()
				r.fail(v1alpha1.BlockedAtInstall, 1, 1)
			},
			want: "ham=2 D0 I1  #1",
		},
		"eleven downloads":   {do: func(r *retries) { r.fail(v1alpha1.BlockedAtDownload, 1, 11) }, want: "ham=2 D11 I0 Download #11"},
		"ten downloads":      {do: func(r *retries) { r.fail(v1alpha1.BlockedAtDownload, 1, 10) }, want: "ham=2 D10 I0  #10"},
		"four installations": {do: func(r *retries) { r.fail(v1alpha1.BlockedAtInstall, 1, 4) }, want: "ham=2 D0 I4 Install #4"},
		"blocked stays so when the limit is raised": {
			do: func(r *retries) {
				r.fail(v1alpha1.BlockedAtInstall, 1, 4)
				r.sent()
				r.Limits.Install = 9
				r.fail(v1alpha1.BlockedAtDownload, 5, 1)
			},
			want: "ham=2 D1 I4 Install #5",
		},
		"the answer to the write was lost": {
			do: func(r *retries) {
				r.fail(v1alpha1.BlockedAtInstall, 1, 2)
				r.Status = r.current() // what is read the next time, with all of it still pending
			},
			want: "ham=2 D0 I2  #2",
		},
		"the answer was lost, and one more has failed": {
			do: func(r *retries) {
				r.fail(v1alpha1.BlockedAtInstall, 1, 2)
				r.Status = r.current()
				r.fail(v1alpha1.BlockedAtInstall, 3, 1)
			},
			want: "ham=2 D0 I3  #3",
		},
		"the answer was lost, and the counts were cleared": {
			do: func(r *retries) {
				r.fail(v1alpha1.BlockedAtInstall, 1, 4)
				r.Status = r.current()
				r.Status.Patches = nil
			},
			want: "",
		},
		"cleared, and failed again": {
			do: func(r *retries) {
				r.fail(v1alpha1.BlockedAtInstall, 1, 4)
				r.sent()
				r.Status.Patches = nil
				r.fail(v1alpha1.BlockedAtInstall, 5, 1)
			},
			want: "ham=2 D0 I1  #5",
		},
		"cleared while a failure was under way": {
			do: func(r *retries) {
				r.fail(v1alpha1.BlockedAtInstall, 1, 3)
				r.sent()
				r.fail(v1alpha1.BlockedAtInstall, 4, 1)
				r.Status.Patches = nil
			},
			want: "ham=2 D0 I1  #4",
		},
		"the journal was lost": {
			do: func(r *retries) {
				r.Status = v1alpha1.PatchRetryStatus{Sequence: 40, Patches: []v1alpha1.PatchAttempts{{Name: "ham", Version: "2", InstallFailures: 1}}}
				r.fail(v1alpha1.BlockedAtInstall, 1, 1)
			},
			want: "ham=2 D0 I2  #41",
		},
		"installed": {
			do: func(r *retries) {
				r.fail(v1alpha1.BlockedAtInstall, 1, 2)
				r.forget(map[string]bool{"egg=2": true})
			},
			want: "",
		},
		"offered for longer": {
			do: func(r *retries) {
				r.fail(v1alpha1.BlockedAtInstall, 1, 2)
				r.forget(map[string]bool{"ham=2": true})
			},
			want: "ham=2 D0 I2  #2",
		},
		"a newer version starts anew": {
			do: func(r *retries) {
				r.fail(v1alpha1.BlockedAtInstall, 1, 2)
				r.forget(map[string]bool{"ham=3": true})
				r.record("op-3", failure{Name: "ham", Version: "3", At: v1alpha1.BlockedAtInstall, Time: monday})
			},
			want: "ham=3 D0 I1  #3",
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRetries()
			test.do(r)
			status, got := r.current(), ""
			for _, p := range status.Patches {
				got += fmt.Sprintf("%s=%s D%d I%d %s #%d", p.Name, p.Version, p.DownloadFailures, p.InstallFailures, p.Blocked, status.Sequence)
			}
			if got != test.want {
				t.Errorf("Counts are %q, want %q", got, test.want)
			}
			if int(status.Counted) != len(status.Patches) || status.Summary == "" {
				t.Errorf("They are summed up as %+v", status)
			}
		})
	}
}

func TestCountsAreBounded(t *testing.T) {
	r := newRetries()
	r.Status.Patches = []v1alpha1.PatchAttempts{{Name: "by-hand", Version: "1", InstallFailures: 1}} // without a time
	for i := range maxAttempted + 50 {
		r.record("op", failure{
			Name: fmt.Sprintf("p%04d", i), Version: "2", At: v1alpha1.BlockedAtDownload, Time: monday.Add(time.Duration(i) * time.Second),
		})
	}
	status := r.current()
	if len(status.Patches) != maxAttempted || status.Sequence != maxAttempted+50 || status.Counted != maxAttempted {
		t.Fatalf("%d entries, sequence %d", len(status.Patches), status.Sequence)
	}
	attempts := r.attempts()
	if attempts["by-hand=1"] != nil || attempts["p0049=2"] != nil || attempts["p0050=2"] == nil {
		t.Error("It was not the oldest that went")
	}
}

func TestUnsent(t *testing.T) {
	r := newRetries()
	if r.unsent() {
		t.Error("There is nothing to send")
	}
	r.fail(v1alpha1.BlockedAtDownload, 1, 1)
	if !r.unsent() {
		t.Error("A failure is to be sent")
	}
	r.sent()
	r.forget(map[string]bool{})
	if !r.unsent() {
		t.Error("That a patch is gone is to be sent")
	}
	r.sent()
	r.Status.Patches = append(r.Status.Patches, v1alpha1.PatchAttempts{Name: "egg", Version: "1", LastTime: &metav1.Time{Time: monday}})
	if r.unsent() {
		t.Error("What the API server has is not to be sent")
	}
}

// A cache that was emptied, and repositories that are away, say nothing about what is missing.
func TestFailuresOutliveLostMetadata(t *testing.T) {
	scan := packages.Scan{}
	f := newFixture(t, manager{scan: func() (packages.Scan, error) { return scan, nil }})
	f.api.retry.Status.Patches = []v1alpha1.PatchAttempts{{Name: "ham", Version: "2", InstallFailures: 3}}
	if err := f.syncRetries(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.see(t, assign("1", later()))
	if len(f.api.retry.Status.Patches) != 1 {
		t.Errorf("The failures are forgotten: %+v", f.api.retry.Status)
	}
	scan.MetadataRefreshed = time.Now()
	f.see(t, assign("2", later()))
	if len(f.api.retry.Status.Patches) != 0 {
		t.Errorf("Of a patch that is no longer offered is counted: %+v", f.api.retry.Status)
	}
}

// That counts were cleared is learnt of also where the first request fails.
func TestClearedWhileTheServerIsAway(t *testing.T) {
	f := newFixture(t, manager{})
	f.api.retry.Status.Patches = []v1alpha1.PatchAttempts{{Name: "ham", Version: "2", InstallFailures: 4, Blocked: v1alpha1.BlockedAtInstall}}
	if err := f.syncRetries(t.Context()); err != nil {
		t.Fatal(err)
	}
	f.api.retry.Status.Patches = nil
	f.api.unread = errors.New("connection refused")
	a := assign("", time.Time{})
	a.Spec.RetryClears = 1
	f.Assign(a)
	if err := f.reconcile(t.Context()); err == nil {
		t.Error("Nothing is to be tried again")
	}
	f.see(t, a)
	f.restart(t)
	if n := len(f.retries.attempts()); n != 0 || f.retries.Clears != 1 {
		t.Errorf("%d patches have failed attempts by clear %d", n, f.retries.Clears)
	}
}

// Without its copy the agent numbers failures from 1, of which the PatchRetry has counted more already.
func TestCopyOfCountsLostBetweenScanAndInstallation(t *testing.T) {
	for name, answer := range map[string]error{"": nil, "and the answer to the write is lost": errors.New("connection reset by peer")} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, manager{})
			f.api.retry.Status = v1alpha1.PatchRetryStatus{Sequence: 57, Patches: []v1alpha1.PatchAttempts{{Name: "ham", Version: "2", InstallFailures: 1}}}
			f.retries.fail(v1alpha1.BlockedAtInstall, 1, 2)
			f.api.unsaid = answer
			if err := f.syncRetries(t.Context()); (err != nil) != (answer != nil) {
				t.Fatal(err)
			}
			f.restart(t)
			if answer != nil {
				if err := f.syncRetries(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			if s := f.api.retry.Status; s.Sequence != 59 || s.Patches[0].InstallFailures != 3 || f.retries.Sequence != 59 || f.retries.unsent() {
				t.Errorf("Counted is %+v, with the copy %+v", s, f.retries)
			}
		})
	}
}
