package metrics

import (
	"context"
	"fmt"
	"io"
	"syscall"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/common/expfmt"
	corev1 "k8s.io/api/core/v1"
	clocktesting "k8s.io/utils/clock/testing"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

// held lists what it holds as the manager's cache does: with a flat copy of each
// object.
type held struct {
	client.Reader
	nodes       []corev1.Node
	policies    []v1alpha1.PatchPolicy
	reports     []v1alpha1.PatchReport
	retries     []v1alpha1.PatchRetry
	assignments []v1alpha1.PatchAssignment
}

func (h *held) List(_ context.Context, list client.ObjectList, _ ...client.ListOption) error {
	switch list := list.(type) {
	case *corev1.NodeList:
		list.Items = append(list.Items, h.nodes...)
	case *v1alpha1.PatchPolicyList:
		list.Items = append(list.Items, h.policies...)
	case *v1alpha1.PatchReportList:
		list.Items = append(list.Items, h.reports...)
	case *v1alpha1.PatchRetryList:
		list.Items = append(list.Items, h.retries...)
	case *v1alpha1.PatchAssignmentList:
		list.Items = append(list.Items, h.assignments...)
	}
	return nil
}

// BenchmarkScrape is what one scrape costs with 5,000 nodes that have all their
// series but those of a disruption.
func BenchmarkScrape(b *testing.B) {
	of, source := fleet(), &held{policies: []v1alpha1.PatchPolicy{*workers()}}
	for i := range 5000 {
		name := fmt.Sprintf("node-%04d.example.com", i)
		node, report, retry, given := *of.nodes["missing"], *of.reports["missing"], *of.retries["missing"], of.assignments[0]
		node.Name, report.Name, retry.Name, given.Name = name, name, name, name
		source.nodes, source.reports = append(source.nodes, node), append(source.reports, report)
		source.retries, source.assignments = append(source.retries, retry), append(source.assignments, given)
	}
	registry := prometheus.NewRegistry()
	registry.MustRegister(&collector{reader: source, clock: clocktesting.NewFakePassiveClock(now), recorder: newRecorder()})
	b.ReportAllocs()
	var written int
	before := processorTime(b)
	for b.Loop() {
		families, err := registry.Gather()
		if err != nil {
			b.Fatal(err)
		}
		written = 0
		for _, metrics := range families {
			size, err := expfmt.MetricFamilyToText(io.Discard, metrics)
			if err != nil {
				b.Fatal(err)
			}
			written += size
		}
	}
	spent := (processorTime(b) - before) / time.Duration(b.N)
	b.ReportMetric(float64(spent.Milliseconds()), "cpu-ms/scrape")
	b.ReportMetric(float64(written)/1e6, "MB/page")
	if spent > 2*time.Second {
		b.Errorf("A scrape takes %s of processor time, and Prometheus waits 10 s", spent)
	}
}

// processorTime is what the program has used so far: other programs make it take
// longer, and no dearer.
func processorTime(b *testing.B) time.Duration {
	var usage syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &usage); err != nil {
		b.Fatal(err)
	}
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}
