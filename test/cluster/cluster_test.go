package cluster_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/nodepatch/nodepatch/test/cluster"
)

// TestCluster lives one cluster through what tests do to it. Its parts depend on each other and run in
// their order.
func TestCluster(t *testing.T) {
	supported(t)
	ctx := t.Context()
	settings := kernelSettings(t)
	dir := t.TempDir()

	c := start(t, cluster.Options{
		Dir: dir, Machines: 2,
		Sources: func(host netip.Addr) string { return fmt.Sprintf("deb [trusted=yes] http://%s:8080 ./\n", host) },
	})
	config, err := c.RESTConfig()
	if err != nil {
		t.Fatal(err)
	}
	client, err := kubernetes.NewForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	one, err := c.Machine("machine-1")
	if err != nil {
		t.Fatal(err)
	}
	two, err := c.Machine("machine-2")
	if err != nil {
		t.Fatal(err)
	}

	t.Run("exec gives output and exit status", func(t *testing.T) {
		out, err := one.Exec(ctx, "hostname")
		if err != nil || out != "machine-1\n" {
			t.Errorf("got %q, %v", out, err)
		}
		_, err = one.Exec(ctx, "sh", "-c", "echo no >&2; exit 7")
		var failed *cluster.ExecError
		if !errors.As(err, &failed) || failed.Code != 7 || failed.Stderr != "no\n" {
			t.Errorf("got %v, want exit status 7 and stderr", err)
		}
		if _, err := c.Machine("machine-3"); err == nil {
			t.Error("found a machine that is not there")
		}
	})

	t.Run("exec ends with its context", func(t *testing.T) {
		short, cancel := context.WithTimeout(ctx, 200*time.Millisecond)
		defer cancel()
		if _, err := one.Exec(short, "sleep", "4321"); !errors.Is(short.Err(), context.DeadlineExceeded) || err == nil {
			t.Errorf("got %v", err)
		}
		wait(t, "the command to be gone", 5*time.Second, func() (bool, string) {
			_, err := one.Exec(ctx, "pgrep", "-f", "^sleep 4321")
			return err != nil, "it runs"
		})
	})

	t.Run("machines boot without a failed unit", func(t *testing.T) {
		out, err := one.Exec(ctx, "systemctl", "--failed", "--no-legend", "--plain")
		if err != nil || out != "" {
			t.Errorf("failed units: %q, %v", out, err)
		}
	})

	t.Run("machines have the sources they were given and reach the host", func(t *testing.T) {
		listener, err := net.Listen("tcp", net.JoinHostPort(c.HostAddress().String(), "8080"))
		if err != nil {
			t.Fatal(err)
		}
		asked := make(chan string, 100)
		server := http.Server{ReadHeaderTimeout: time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			asked <- r.URL.Path
			http.NotFound(w, r)
		})}
		go func() { _ = server.Serve(listener) }()
		defer server.Close()
		_, _ = one.Exec(ctx, "apt-get", "update") // fails, as nothing is there
		select {
		case path := <-asked:
			if !strings.HasSuffix(path, "Release") {
				t.Errorf("apt asked for %s first", path)
			}
		default:
			t.Error("apt did not ask the sources it was given")
		}
	})

	t.Run("a pod runs, and reaches the API server as in any cluster", func(t *testing.T) {
		loadKubectl(t, c)
		apply(t, client, "machine-1")
		wait(t, "the pod to list nodes through the API server", time.Minute, func() (bool, string) {
			said, err := client.CoreV1().Pods("default").GetLogs("list-nodes", &corev1.PodLogOptions{}).DoRaw(ctx)
			return err == nil && strings.Contains(string(said), "node/machine-2"), fmt.Sprintf("%s %v", said, err)
		})
		log, err := os.ReadFile(c.AuditLog)
		if err != nil {
			t.Fatal(err)
		}
		if !audited(t, string(log), "system:serviceaccount:default:default", "list", "nodes") {
			t.Error("the audit log does not have the pod's request")
		}
	})

	t.Run("a reboot gives the machine a new boot ID and the node is back", func(t *testing.T) {
		before := bootID(t, one)
		node := nodeBootID(t, client, one.Name)
		if before != node {
			t.Errorf("boot ID %s on the machine, %s in its Node", before, node)
		}
		if err := one.Reboot(ctx); err != nil {
			t.Fatal(err)
		}
		wait(t, "the Node to have a new boot ID", time.Minute, func() (bool, string) {
			now := nodeBootID(t, client, one.Name)
			return now != before, now
		})
		wait(t, "the node to be Ready", time.Minute, func() (bool, string) { return ready(t, client, one.Name) })
	})

	t.Run("a cut cable is seen by the cluster, not by the machine", func(t *testing.T) {
		id := bootID(t, two)
		if err := two.Cut(ctx); err != nil {
			t.Fatal(err)
		}
		wait(t, "the node to be unreachable", time.Minute, func() (bool, string) {
			is, why := ready(t, client, two.Name)
			return !is, why
		})
		if _, err := two.Exec(ctx, "systemctl", "is-active", "kubelet"); err != nil {
			t.Errorf("kubelet does not run on: %v", err)
		}
		if now := bootID(t, two); now != id {
			t.Error("the machine was rebooted")
		}
		if err := two.Reboot(ctx); err != nil {
			t.Fatal(err)
		}
		wait(t, "the machine to reboot", 30*time.Second, func() (bool, string) {
			status, err := two.Status(ctx)
			return err == nil && status.Boots == 2 && status.Leader > 0, fmt.Sprintf("%+v %v", status, err)
		})
		wait(t, "the cable to be out still", 5*time.Second, func() (bool, string) {
			link, err := two.Exec(ctx, "ip", "-oneline", "link", "show", "host0")
			return strings.Contains(link, "NO-CARRIER") || strings.Contains(link, "LOWERLAYERDOWN"), fmt.Sprintf("%s %v", link, err)
		})
		if err := two.Join(ctx); err != nil {
			t.Fatal(err)
		}
		wait(t, "the node to be Ready", time.Minute, func() (bool, string) { return ready(t, client, two.Name) })
	})

	t.Run("a machine without power stays off, and keeps its disk", func(t *testing.T) {
		id := bootID(t, one)
		if _, err := one.Exec(ctx, "sh", "-c", "echo kept >/root/kept"); err != nil {
			t.Fatal(err)
		}
		if err := one.Kill(ctx); err != nil {
			t.Fatal(err)
		}
		if status, err := one.Status(ctx); err != nil || status.Leader != 0 {
			t.Fatalf("still on: %+v, %v", status, err)
		}
		if _, err := one.Exec(ctx, "true"); err == nil {
			t.Error("a command ran on a machine that is off")
		}
		if err := one.Start(ctx); err != nil {
			t.Fatal(err)
		}
		if err := one.Start(ctx); err == nil {
			t.Error("a machine that is on was started once more")
		}
		if now := bootID(t, one); now == id {
			t.Error("the boot ID is the same")
		}
		if out, err := one.Exec(ctx, "cat", "/root/kept"); err != nil || out != "kept\n" {
			t.Errorf("the disk has %q, %v", out, err)
		}
		if err := one.PowerOff(ctx); err != nil {
			t.Fatal(err)
		}
		wait(t, "the machine to shut down", 30*time.Second, func() (bool, string) {
			status, err := one.Status(ctx)
			return err == nil && status.Leader == 0, fmt.Sprintf("%+v %v", status, err)
		})
		if err := one.Start(ctx); err != nil {
			t.Fatal(err)
		}
		wait(t, "the new boot to be Ready", time.Minute, func() (bool, string) {
			if nodeBootID(t, client, one.Name) == id {
				return false, "the Node is of before"
			}
			return ready(t, client, one.Name)
		})
	})

	t.Run("a machine that hangs in its reboot comes back when it is started, and from the next one by itself", func(t *testing.T) {
		if err := two.Hang(ctx); err != nil {
			t.Fatal(err)
		}
		if err := two.Reboot(ctx); err != nil {
			t.Fatal(err)
		}
		wait(t, "the machine to go down", 30*time.Second, func() (bool, string) {
			status, err := two.Status(ctx)
			return err == nil && status.Leader == 0, fmt.Sprintf("%+v %v", status, err)
		})
		if err := two.Hang(ctx); err == nil {
			t.Error("a machine that is off was told to hang")
		}
		if err := two.Start(ctx); err != nil {
			t.Fatal(err)
		}
		if err := errors.Join(two.Hang(ctx), two.Mend(ctx)); err != nil {
			t.Fatal(err)
		}
		before := bootID(t, two)
		if err := two.Reboot(ctx); err != nil {
			t.Fatal(err)
		}
		wait(t, "the machine to be back", 30*time.Second, func() (bool, string) {
			now, err := two.BootID(ctx)
			return err == nil && now != before, fmt.Sprint(err)
		})
		wait(t, "the node to be Ready", time.Minute, func() (bool, string) { return ready(t, client, two.Name) })
	})

	t.Run("the API server can go away and come back", func(t *testing.T) {
		if err := c.StopServer(ctx, "kube-apiserver"); err != nil {
			t.Fatal(err)
		}
		if _, err := client.CoreV1().Nodes().List(ctx, metav1.ListOptions{}); err == nil {
			t.Error("a stopped API server answered")
		}
		if err := c.StartServer(ctx, "kube-apiserver"); err != nil {
			t.Fatal(err)
		}
		wait(t, "the API server", time.Minute, func() (bool, string) { return ready(t, client, one.Name) })
	})

	t.Run("another cluster does not meet it, and goes when its owner dies", func(t *testing.T) {
		other := t.TempDir()
		owner := exec.Command(os.Args[0])
		owner.Env = append(os.Environ(), clusterOwner+"="+other)
		owner.Stderr = t.Output()
		output, err := owner.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := owner.Start(); err != nil {
			t.Fatal(err)
		}
		said := bufio.NewReader(output)
		if line, _ := said.ReadString('\n'); line != "started\n" {
			rest, _ := io.ReadAll(said)
			t.Fatalf("the cluster did not start: %s%s", line, rest)
		}
		number := numberOf(t, other)
		if number == numberOf(t, dir) {
			t.Error("both clusters have the same number")
		}
		if err := owner.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = owner.Wait()
		wait(t, "the cluster to follow its owner", 30*time.Second, func() (bool, string) {
			left := traces(t, number)
			return len(left) == 0, strings.Join(left, "\n")
		})
		if _, err := one.Exec(ctx, "true"); err != nil {
			t.Errorf("the first cluster suffered: %v", err)
		}
	})

	t.Run("its directory is its own", func(t *testing.T) {
		if _, err := cluster.Start(ctx, cluster.Options{Dir: dir}); err == nil {
			t.Error("a second cluster started there")
		}
		if _, err := one.Exec(ctx, "true"); err != nil {
			t.Errorf("the first cluster suffered: %v", err)
		}
	})

	stopClean(t, c, numberOf(t, dir))
	if now := kernelSettings(t); settings != nil && now != nil && !maps.Equal(now, settings) {
		t.Errorf("kernel settings were %v and are %v", settings, now)
	}
	if _, err := os.Stat(c.AuditLog); err != nil {
		t.Errorf("the logs are gone: %v", err)
	}
}

// TestKilledSupervisor kills a detached cluster's supervisor. The next cluster in the same directory
// cleans up after it and starts straight away.
func TestKilledSupervisor(t *testing.T) {
	supported(t)
	dir := t.TempDir()

	c := start(t, cluster.Options{Dir: dir, Detached: true})
	supervisor, err := exec.Command("pgrep", "-f", fmt.Sprintf("test-cluster supervise %d ", numberOf(t, dir))).Output()
	if err != nil {
		t.Fatalf("find the supervisor: %v", err)
	}
	if out, err := exec.Command("kill", "-KILL", strings.TrimSpace(string(supervisor))).CombinedOutput(); err != nil {
		t.Fatalf("kill the supervisor: %v: %s", err, out)
	}
	wait(t, "the supervisor to be gone", 10*time.Second, func() (bool, string) {
		_, err := c.Machines(t.Context())
		return err != nil, "it answers"
	})
	if _, err := cluster.Attach(dir); err == nil {
		t.Error("attached to a cluster without a supervisor")
	}

	c = start(t, cluster.Options{Dir: dir, Detached: true})
	attached, err := cluster.Attach(dir)
	if err != nil {
		t.Fatal(err)
	}
	machines, err := attached.Machines(t.Context())
	if err != nil || len(machines) != 1 || machines[0].Leader == 0 {
		t.Errorf("got machines %+v, %v", machines, err)
	}
	stopClean(t, attached, numberOf(t, dir))
	if _, err := c.Machines(t.Context()); err == nil {
		t.Error("the cluster answers after it was stopped")
	}
}

// numberOf reads the number by which a cluster's traces on the host are known.
func numberOf(t *testing.T, dir string) int {
	t.Helper()
	content, err := os.ReadFile(filepath.Join(dir, "cluster.json"))
	if err != nil {
		t.Fatal(err)
	}
	var record struct{ Number int }
	if err := json.Unmarshal(content, &record); err != nil {
		t.Fatal(err)
	}
	return record.Number
}
