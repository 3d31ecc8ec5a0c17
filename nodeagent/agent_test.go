package main

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

var scanEntries = []string{v1alpha1.EventScanStarted, v1alpha1.EventPatchDataRefreshed, v1alpha1.EventScanFinished}

func TestScan(t *testing.T) {
	n := newNode(t)
	a := n.start()
	n.eventually("the agent is ready", func() bool { return n.ready() == 200 })
	_, before := n.api.count()
	n.assign("1", v1alpha1.StepScanning)
	status := n.ended("1")
	if status.Step != v1alpha1.StepDone || status.Reason != v1alpha1.ReasonScanned {
		t.Errorf("Ended with %s (%s): %s", status.Step, status.Reason, status.Message)
	}
	n.check()
	if got := n.events("1", 3); !slices.Equal(got, scanEntries) {
		t.Errorf("Patch log: %v", got)
	}
	if _, writes := n.api.count(); writes-before != 5 {
		t.Errorf("%d writes, want 3 entries, 1 report and 1 outcome:\n%s", writes-before, n.api.list())
	}

	t.Run("first seen survives", func(t *testing.T) {
		first := n.report().Status.Patches[0].FirstSeen
		time.Sleep(1100 * time.Millisecond) // the API's times are in seconds
		n.assign("2", v1alpha1.StepScanning)
		status := n.ended("2")
		r := n.report().Status
		if again := r.Patches[0].FirstSeen; first == nil || again == nil || !again.Equal(first) {
			t.Errorf("First seen %v, then %v", first, again)
		}
		if r.Scan.OperationID != "2" || !r.Scan.Time.After(first.Time) {
			t.Errorf("The report is of %+v", r.Scan)
		}
		if len(status.Earlier) != 1 || status.Earlier[0].OperationID != "1" || status.Earlier[0].Step != v1alpha1.StepDone {
			t.Errorf("Earlier operations are %+v", status.Earlier)
		}
	})

	t.Run("idle", func(t *testing.T) {
		n.events("2", 3)
		all, _ := n.api.count()
		time.Sleep(3 * time.Second)
		if now, _ := n.api.count(); now != all {
			t.Errorf("An idle agent made %d requests:\n%s", now-all, n.api.list())
		}
		rss := resident(t, a.Process.Pid)
		t.Logf("Resident: %.1f MiB", float64(rss)/(1<<20))
		if rss > 16<<20 {
			t.Error("An idle agent is to hold at most 16 MiB")
		}
	})

	t.Run("objects made anew are filled again", func(t *testing.T) {
		if err := n.client.Delete(t.Context(), n.report()); err != nil {
			t.Fatal(err)
		}
		if err := n.client.Delete(t.Context(), n.assignment()); err != nil {
			t.Fatal(err)
		}
		n.create(&v1alpha1.PatchReport{ObjectMeta: metav1.ObjectMeta{Name: n.name}})
		n.create(&v1alpha1.PatchAssignment{ObjectMeta: metav1.ObjectMeta{Name: n.name}})
		n.ended("2")
		n.check()
	})
}

// check compares the report with what apt itself says on the machine.
func (n *node) check() {
	n.t.Helper()
	raw := n.run("apt-get", "-s", "dist-upgrade")
	match := regexp.MustCompile(`(?m)^(\d+) upgraded, (\d+) newly installed, \d+ to remove and (\d+) not upgraded`).FindStringSubmatch(raw)
	if match == nil {
		n.t.Fatalf("apt-get said:\n%s", raw)
	}
	upgraded, _ := strconv.Atoi(match[1])
	kept, _ := strconv.Atoi(match[3])
	r := n.report().Status
	if r.Counts == nil || int(r.Counts.Missing) != upgraded+kept || len(r.Patches) != upgraded+kept {
		n.t.Fatalf("Report counts %+v and lists %d; apt says:\n%s", r.Counts, len(r.Patches), raw)
	}
	if upgraded != 2 || kept != 1 || r.Counts.Security != 1 || r.Counts.Held != 1 {
		n.t.Errorf("Counts are %+v", r.Counts)
	}
	if p := r.Patches[0]; p.Name != "ham" || p.Installed != "1.0" || p.Available != "1.1" ||
		p.Classification != v1alpha1.ClassificationSecurity || p.State != v1alpha1.PatchMissing || p.FirstSeen == nil || p.DownloadBytes == 0 {
		n.t.Errorf("The security patch is %+v", p)
	}
	if p := r.Patches[2]; p.Name != "salt" || p.State != v1alpha1.PatchHeld || p.Reason == "" {
		n.t.Errorf("The patch on hold is %+v", p)
	}
	for _, kind := range []string{v1alpha1.ConditionScanned, v1alpha1.ConditionPatchDataCurrent, v1alpha1.ConditionPackagesConsistent} {
		if !meta.IsStatusConditionTrue(r.Conditions, kind) {
			n.t.Errorf("Condition %s: %+v", kind, meta.FindStatusCondition(r.Conditions, kind))
		}
	}
	if r.OS == nil || r.OS.ID != "debian" && r.OS.ID != "ubuntu" || r.Kernel.Running == "" || r.PackageManager.Name != "apt" ||
		r.PatchData == nil || r.Policy != "everything" || r.Summary != "2 not installed yet, 1 on hold" {
		n.t.Errorf("Report is %+v", r)
	}
}

func TestRepositoryUnreachable(t *testing.T) {
	n := newNode(t)
	n.run("apt-get", "-q", "update")
	n.start()
	n.mirror.down.Store(true)
	n.assign("1", v1alpha1.StepScanning)
	status := n.ended("1")
	if status.Step != v1alpha1.StepDone || status.Reason != v1alpha1.ReasonRepositoryUnreachable || status.Counts.Missing != 3 {
		t.Errorf("Ended with %+v", status)
	}
	r := n.report().Status
	c := meta.FindStatusCondition(r.Conditions, v1alpha1.ConditionPatchDataCurrent)
	if c == nil || c.Status != metav1.ConditionFalse || c.Reason != v1alpha1.ReasonRepositoryUnreachable {
		t.Errorf("Condition is %+v", c)
	}
	if !meta.IsStatusConditionTrue(r.Conditions, v1alpha1.ConditionScanned) || r.PatchData == nil || r.PatchData.Time.IsZero() || len(r.Patches) != 3 {
		t.Errorf("The scan did not run on the old data: %+v", r)
	}
	want := []string{v1alpha1.EventScanStarted, v1alpha1.EventPatchDataStale, v1alpha1.EventScanFinished}
	if got := n.events("1", 3); !slices.Equal(got, want) {
		t.Errorf("Patch log: %v", got)
	}
}

// planner puts a program before apt-get that does something else when it is asked for its plan.
func (n *node) planner(script string) {
	n.write("/usr/local/sbin/apt-get", "#!/bin/sh\ncase \"$*\" in *print-uris*)\n"+script+"\n;; esac\nexec /usr/bin/apt-get \"$@\"\n")
}

const slowPlan = `echo $$ >/plan-began; while ! [ -e /plan-gate ]; do sleep 0.05; done`

func TestOutputNotUnderstood(t *testing.T) {
	n := newNode(t)
	n.start()
	n.assign("1", v1alpha1.StepScanning)
	n.ended("1")
	n.planner(`/usr/bin/apt-get "$@" | sed 's/=>/to/'; exit 0`)
	n.assign("2", v1alpha1.StepScanning)
	status := n.ended("2")
	if status.Step != v1alpha1.StepFailed || status.Reason != v1alpha1.ReasonOutputNotUnderstood ||
		!strings.Contains(status.Message, "salt (1.0 to 2.0)") {
		t.Errorf("Ended with %+v", status)
	}
	r := n.report().Status
	c := meta.FindStatusCondition(r.Conditions, v1alpha1.ConditionScanned)
	if c == nil || c.Status != metav1.ConditionFalse || c.Reason != v1alpha1.ReasonOutputNotUnderstood {
		t.Errorf("Condition is %+v", c)
	}
	if len(r.Patches) != 3 || r.Scan.OperationID != "1" || !strings.HasPrefix(r.Summary, "Scan failed, so this is as of ") {
		t.Errorf("What the last scan found does not stand: %+v", r)
	}
	want := []string{v1alpha1.EventScanStarted, v1alpha1.EventPatchDataRefreshed, v1alpha1.EventScanFailed}
	if got := n.events("2", 3); !slices.Equal(got, want) {
		t.Errorf("Patch log: %v", got)
	}
}

func TestAgentKilledInRefresh(t *testing.T) {
	n := newNode(t)
	a := n.start()
	open := n.mirror.close()
	n.assign("1", v1alpha1.StepScanning)
	refresh := func() []string {
		found, _ := filepath.Glob(filepath.Join(n.Path, "var/lib/nodepatch/run/1/refresh/*-apt-refresh/stdout"))
		return found
	}
	n.eventually("the refresh runs", func() bool { return len(refresh()) == 1 })
	a.kill()
	n.start()
	n.eventually("the new agent is ready", func() bool { return n.ready() == 200 })
	open()
	if status := n.ended("1"); status.Step != v1alpha1.StepDone || status.Reason != v1alpha1.ReasonScanned {
		t.Errorf("Ended with %+v", status)
	}
	n.check()
	if got := refresh(); len(got) != 1 {
		t.Errorf("The refresh was begun %d times: %v", len(got), got)
	}
	if got := n.events("1", 3); !slices.Equal(got, scanEntries) {
		t.Errorf("Patch log: %v", got)
	}
}

func TestAgentKilledInScan(t *testing.T) {
	for name, end := range map[string]func(*agent){
		"killed":     (*agent).kill,
		"terminated": func(a *agent) { _ = a.Process.Signal(syscall.SIGTERM); <-a.ended },
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			n.planner(slowPlan)
			a := n.start()
			n.assign("1", v1alpha1.StepScanning)
			n.eventually("the scan runs", func() bool { return n.exists("/plan-began") })
			end(a)
			if err := os.Remove(filepath.Join(n.Path, "plan-began")); err != nil {
				t.Fatal(err)
			}
			n.start()
			n.eventually("the scan runs again", func() bool { return n.exists("/plan-began") })
			n.write("/plan-gate", "")
			if status := n.ended("1"); status.Step != v1alpha1.StepDone {
				t.Errorf("Ended with %+v", status)
			}
			n.check()
			if got := n.events("1", 3); !slices.Equal(got, scanEntries) {
				t.Errorf("Patch log: %v", got)
			}
		})
	}
}

func TestTakenBack(t *testing.T) {
	for name, take := range map[string]func(*node){
		"operation removed":  func(n *node) { n.assign("", "") },
		"operation replaced": func(n *node) { n.assign("2", v1alpha1.StepScanning) },
		"assignment deleted": func(n *node) {
			if err := n.client.Delete(n.t.Context(), n.assignment()); err != nil {
				n.t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			n.planner(slowPlan)
			n.start()
			n.assign("1", v1alpha1.StepScanning)
			n.eventually("the scan runs", func() bool { return n.exists("/plan-began") })
			pid, err := os.ReadFile(filepath.Join(n.Path, "plan-began"))
			if err != nil {
				t.Fatal(err)
			}
			take(n)
			want := []string{v1alpha1.EventScanStarted, v1alpha1.EventPatchDataRefreshed, v1alpha1.EventScanStopped}
			if got := n.events("1", 3); !slices.Equal(got, want) {
				t.Errorf("Patch log: %v", got)
			}
			// Who was killed may be a zombie for a moment.
			if stat, err := os.ReadFile("/proc/" + strings.TrimSpace(string(pid)) + "/stat"); err == nil && !strings.Contains(string(stat), ") Z ") {
				t.Errorf("The scan still runs on the host: %s", stat)
			}
			switch name {
			case "operation removed":
				if status := n.ended("1"); status.Step != v1alpha1.StepStopped || status.Reason != v1alpha1.ReasonAborted {
					t.Errorf("Ended with %+v", status)
				}
			case "operation replaced":
				n.write("/plan-gate", "")
				status := n.ended("2")
				if status.Step != v1alpha1.StepDone || len(status.Earlier) != 1 || status.Earlier[0].Step != v1alpha1.StepStopped {
					t.Errorf("Ended with %+v", status)
				}
				n.check()
			}
		})
	}
}

func TestAPIServerAway(t *testing.T) {
	n := newNode(t)
	n.planner(slowPlan)
	a := n.start()
	n.assign("1", v1alpha1.StepScanning)
	n.eventually("the scan runs", func() bool { return n.exists("/plan-began") })
	back := n.api.away()
	n.write("/plan-gate", "")
	n.eventually("the scan has ended", func() bool { return strings.Contains(a.log.String(), "Operation ended") })
	// What was not sent survives the agent, too.
	a.kill()
	n.start()
	time.Sleep(2 * time.Second)
	back()
	if status := n.ended("1"); status.Step != v1alpha1.StepDone {
		t.Errorf("Ended with %+v", status)
	}
	n.check()
	if got := n.events("1", 3); !slices.Equal(got, scanEntries) {
		t.Errorf("Patch log: %v", got)
	}
	// The agent watches again.
	n.assign("2", v1alpha1.StepScanning)
	n.ended("2")
}

func TestReportMissing(t *testing.T) {
	n := newNode(t)
	if err := n.client.Delete(t.Context(), n.report()); err != nil {
		t.Fatal(err)
	}
	a := n.start()
	n.assign("1", v1alpha1.StepScanning)
	n.eventually("the agent says what is missing", func() bool {
		return strings.Contains(a.log.String(), "the node's PatchReport is not there, the manager makes it")
	})
	if s := n.assignment().Status.Agent; s != nil && s.Step.Ended() {
		t.Error("The operation ended before its report was there")
	}
	n.create(&v1alpha1.PatchReport{ObjectMeta: metav1.ObjectMeta{Name: n.name}})
	n.ended("1")
	n.check()
}

func TestRefused(t *testing.T) {
	n := newNode(t)
	n.start()
	n.assign("1", v1alpha1.StepDraining)
	if status := n.ended("1"); status.Step != v1alpha1.StepFailed || status.Reason != v1alpha1.ReasonUnsupportedStep {
		t.Errorf("A step that this agent does not know: %+v", status)
	}
	n.write("/usr/bin/dpkg-query.gone", "")
	if err := os.Remove(filepath.Join(n.Path, "usr/bin/dpkg-query")); err != nil {
		t.Fatal(err)
	}
	n.assign("2", v1alpha1.StepScanning)
	if status := n.ended("2"); status.Step != v1alpha1.StepFailed || status.Reason != v1alpha1.ReasonUnsupportedSystem {
		t.Errorf("A node without apt: %+v", status)
	}
	if r := n.report().Status; !strings.HasPrefix(r.Summary, "Scan failed: ") || r.Counts != nil {
		t.Errorf("Report is %+v", r)
	}
	n.events("2", 1)
}

func TestTwoAgents(t *testing.T) {
	n := newNode(t)
	first := n.start()
	n.eventually("the first agent is ready", func() bool { return n.ready() == 200 })
	second := n.start()
	n.eventually("the second agent waits", func() bool {
		return strings.Contains(second.log.String(), "Waiting for another agent") && n.ready() == 503
	})
	n.assign("1", v1alpha1.StepScanning)
	n.ended("1")
	if strings.Contains(second.log.String(), "Operation begins") {
		t.Error("Two agents worked on one node")
	}
	first.kill()
	n.eventually("the second agent is ready", func() bool { return n.ready() == 200 })
	n.assign("2", v1alpha1.StepScanning)
	n.ended("2")
}

func atoi(t *testing.T, s string) int {
	t.Helper()
	i, err := strconv.Atoi(strings.TrimSpace(s))
	if err != nil {
		t.Fatal(err)
	}
	return i
}

// resident is a process' resident set in bytes.
func resident(t *testing.T, pid int) int {
	t.Helper()
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		t.Fatal(err)
	}
	match := regexp.MustCompile(`VmRSS:\s+(\d+) kB`).FindSubmatch(b)
	if match == nil {
		t.Fatalf("No VmRSS in %s", b)
	}
	return atoi(t, string(match[1])) << 10
}
