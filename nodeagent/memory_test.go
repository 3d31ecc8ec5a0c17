package main

import (
	"fmt"
	"os"
	"regexp"
	"strconv"
	"testing"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/test/aptrepo"
)

// TestMemoryOfADeployment has the agent install 300 patches, and measures the most that it ever held.
func TestMemoryOfADeployment(t *testing.T) {
	n := newNode(t)
	// What is there before is only said to be, which takes no time.
	status := n.read("/var/lib/dpkg/status") + "\n"
	for i := range 298 {
		name := fmt.Sprintf("toy%03d", i)
		status += fmt.Sprintf("\nPackage: %s\nStatus: install ok installed\nMaintainer: nobody\nArchitecture: all\nVersion: 1.0\nDescription: toy\n", name)
		n.write("/var/lib/dpkg/info/"+name+".list", "/.\n")
		n.main.Add(aptrepo.Good(name, "2.0"))
	}
	n.write("/var/lib/dpkg/status", status)
	n.publish(n.main)
	a := n.start()
	if c := n.deploy("1", v1alpha1.StepDone, v1alpha1.ReasonInstalled).Counts; c.Installed != 300 {
		t.Errorf("Counts are %+v", c)
	}
	peak := peakMemory(t, a.Process.Pid)
	t.Logf("Resident in a deployment of 300 patches: at most %.1f MiB", float64(peak)/(1<<20))
	if peak > 40<<20 {
		t.Error("An agent is to hold at most 40 MiB in a deployment of 300 patches")
	}
}

// peakMemory is the most that a process' resident set ever was, in bytes.
func peakMemory(t *testing.T, pid int) int {
	t.Helper()
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		t.Fatal(err)
	}
	match := regexp.MustCompile(`VmHWM:\s+(\d+) kB`).FindSubmatch(b)
	if match == nil {
		t.Fatalf("No VmHWM in %s", b)
	}
	return atoi(t, string(match[1])) << 10
}
