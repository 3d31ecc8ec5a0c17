package scale

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-logr/logr"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/test/apiserver"
)

const (
	// fleetSize is that of "make test"; NODEPATCH_NODES sets another, as "make test-scale" does.
	fleetSize = 100
	// What the manager may write for each node of a task, its own share of the run included.
	maxScanWrites, maxDeployWrites = 3, 18
)

// A fleet of nodes gets its objects, is scanned, and gets its patches. The writes for each node are a small constant, however
// many there are. What it took stands in the test's output.
func TestFleet(t *testing.T) {
	apiserver.Require(t)
	size := fleetSize
	if given := os.Getenv("NODEPATCH_NODES"); given != "" {
		var err error
		if size, err = strconv.Atoi(given); err != nil || size < 1 {
			t.Fatalf("NODEPATCH_NODES is a number of nodes, not %q", given)
		}
	}
	ctrl.SetLogger(logr.Discard())
	server, _ := apiserver.Run(t)
	server.Config.QPS = -1
	admin, err := apiserver.Client(server.Config)
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Install(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := createFleet(t.Context(), server, admin, size); err != nil {
		t.Fatal(err)
	}
	stored := storedBytes(t, server)
	f := &fleet{t: t, server: server, admin: admin, size: size, manager: runManager(t, server, admin)}

	f.phase("objects", func() {
		policy := &v1alpha1.PatchPolicy{
			ObjectMeta: metav1.ObjectMeta{Name: "fleet"},
			Spec:       v1alpha1.PatchPolicySpec{NodeSelector: &metav1.LabelSelector{}},
		}
		if err := admin.Create(t.Context(), policy); err != nil {
			t.Fatal(err)
		}
		f.await(func(ctx context.Context) (bool, error) {
			err := admin.Get(ctx, client.ObjectKeyFromObject(policy), policy)
			if err != nil || policy.Status.Nodes == nil || int(policy.Status.Nodes.Governed) != size {
				return false, err
			}
			list := &v1alpha1.PatchAssignmentList{}
			err = admin.List(ctx, list)
			return len(list.Items) == size && !slices.ContainsFunc(list.Items, func(a v1alpha1.PatchAssignment) bool {
				return a.Status.Controller == nil || a.Status.Controller.Agent != v1alpha1.AgentReady
			}), err
		})
	})

	ctx, cancel := context.WithCancel(t.Context())
	ended, err := runAgents(ctx, server, size, &f.agents)
	defer ended()
	defer cancel()
	if err != nil {
		t.Fatal(err)
	}
	scan := f.phase("scan", func() {
		f.run(&v1alpha1.TaskTemplate{Action: v1alpha1.ActionScan})
	})
	deploy := f.phase("deploy", func() {
		f.run(&v1alpha1.TaskTemplate{
			Action:  v1alpha1.ActionDeploy,
			Rollout: v1alpha1.RolloutOptions{MaxUnavailable: ptr.To(intstr.FromString("10%"))},
			Drain:   v1alpha1.DrainOptions{When: v1alpha1.DrainNever},
			Reboot:  v1alpha1.RebootOptions{When: v1alpha1.RebootNever},
		})
	})
	t.Logf("%.1f KiB in etcd for each node, its history since the start included", (storedBytes(t, server)-stored)/1024/float64(size))
	if scan > maxScanWrites {
		t.Errorf("The manager wrote %.1f times for each node that was scanned, want at most %d", scan, maxScanWrites)
	}
	if deploy > maxDeployWrites {
		t.Errorf("The manager wrote %.1f times for each node that was patched, want at most %d", deploy, maxDeployWrites)
	}
}

// fleet is what is measured.
type fleet struct {
	t       *testing.T
	server  *apiserver.Server
	admin   client.Client
	size    int
	manager *manager
	// agents' writes that were taken.
	agents atomic.Int64
}

// phase does something with the fleet, reports what it took, and returns how often the manager wrote for each node.
func (f *fleet) phase(name string, do func()) (writesPerNode float64) {
	f.t.Helper()
	before, agents, began := f.measure(), f.agents.Load(), time.Now()
	do()
	took, after := time.Since(began), f.measure()
	written := (after.writes - before.writes) / float64(f.size)
	peak, err := f.manager.peak()
	if err != nil {
		f.t.Fatal(err)
	}
	var controllers []string
	for _, controller := range slices.Sorted(maps.Keys(after.reconciles)) {
		times := after.reconciles[controller][0] - before.reconciles[controller][0]
		seconds := after.reconciles[controller][1] - before.reconciles[controller][1]
		if times > 0 {
			controllers = append(controllers, fmt.Sprintf("%s %.0f times, %.2f ms each", controller, times, 1000*seconds/times))
		}
	}
	f.t.Logf("%s: %d nodes in %.1f s; writes for each node: manager %.2f, agent %.2f; manager %.1f s of processor, at most %.0f MiB resident; reconciles: %s",
		name, f.size, took.Seconds(), written, float64(f.agents.Load()-agents)/float64(f.size), after.processor-before.processor, peak, strings.Join(controllers, "; "))
	return written
}

// run runs a task over the whole fleet to its end.
func (f *fleet) run(template *v1alpha1.TaskTemplate) {
	f.t.Helper()
	task := &v1alpha1.PatchTask{
		ObjectMeta: metav1.ObjectMeta{Name: strings.ToLower(string(template.Action))},
		Spec:       v1alpha1.PatchTaskSpec{Policy: "fleet", Template: template},
	}
	if err := f.admin.Create(f.t.Context(), task); err != nil {
		f.t.Fatal(err)
	}
	f.await(func(ctx context.Context) (bool, error) {
		err := f.admin.Get(ctx, client.ObjectKeyFromObject(task), task)
		return task.Status.CompletionTime != nil, err
	})
	if task.Status.Phase != v1alpha1.TaskComplete || int(task.Status.Nodes.Done) != f.size {
		f.t.Fatalf("The task %s ended as %s: %s", task.Name, task.Status.Phase, task.Status.Message)
	}
}

// await waits for a condition, for as long as a fleet may take.
func (f *fleet) await(condition wait.ConditionWithContextFunc) {
	f.t.Helper()
	if err := wait.PollUntilContextTimeout(f.t.Context(), time.Second/2, 40*time.Minute, true, condition); err != nil {
		f.t.Fatal(err)
	}
}

// measurement is what the manager's metrics say at one time.
type measurement struct {
	writes, processor float64
	reconciles        map[string][2]float64
}

func (f *fleet) measure() (m measurement) {
	f.t.Helper()
	f.await(func(ctx context.Context) (bool, error) {
		families, err := f.manager.metrics(ctx)
		if err != nil {
			return false, nil // it has not started yet
		}
		m = measurement{writes: writes(families), reconciles: reconciles(families)}
		for _, metric := range families["process_cpu_seconds_total"].GetMetric() {
			m.processor += metric.GetCounter().GetValue()
		}
		return len(m.reconciles) > 0, nil
	})
	return m
}

// storedBytes is the size of etcd's database, as the API server sees it.
func storedBytes(t *testing.T, server *apiserver.Server) (total float64) {
	t.Helper()
	clients, err := kubernetes.NewForConfig(server.Config)
	if err != nil {
		t.Fatal(err)
	}
	body, err := clients.RESTClient().Get().AbsPath("/metrics").DoRaw(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(body)) {
		if strings.HasPrefix(line, "apiserver_storage_size_bytes{") {
			size, err := strconv.ParseFloat(strings.Fields(line)[1], 64)
			if err != nil {
				t.Fatal(err)
			}
			total += size
		}
	}
	return total
}
