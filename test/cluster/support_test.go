package cluster_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"github.com/nodepatch/nodepatch/hack/image/archive"
	"github.com/nodepatch/nodepatch/test/cluster"
	"github.com/nodepatch/nodepatch/test/roots"
)

func supported(t *testing.T) {
	t.Helper()
	roots.Require(t, cluster.Supported())
}

// start starts a cluster and stops it when the test ends, if the test has not.
func start(t *testing.T, options cluster.Options) *cluster.Cluster {
	t.Helper()
	options.Log = t.Output()
	begin := time.Now()
	c, err := cluster.Start(t.Context(), options)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("Started in %.1fs", time.Since(begin).Seconds())
	t.Cleanup(func() { stop(t, c) })
	return c
}

func stop(t *testing.T, c *cluster.Cluster) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := c.Stop(ctx); err != nil {
		t.Errorf("stop: %v", err)
	}
}

// wait asks until it is so, and fails the test with the last answer if it does not become so.
func wait(t *testing.T, what string, limit time.Duration, so func() (is bool, answer string)) {
	t.Helper()
	begin := time.Now()
	for {
		is, answer := so()
		if is {
			t.Logf("Waited %.1fs for %s", time.Since(begin).Seconds(), what)
			return
		}
		if time.Since(begin) > limit {
			t.Fatalf("waited %s for %s: %s", limit, what, answer)
		}
		time.Sleep(100 * time.Millisecond)
	}
}

func ready(t *testing.T, client kubernetes.Interface, name string) (is bool, why string) {
	t.Helper()
	node, err := client.CoreV1().Nodes().Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		return false, err.Error()
	}
	for _, condition := range node.Status.Conditions {
		if condition.Type == corev1.NodeReady {
			return condition.Status == corev1.ConditionTrue, fmt.Sprintf("%s %s", condition.Status, condition.Message)
		}
	}
	return false, "no condition"
}

func bootID(t *testing.T, machine *cluster.Machine) string {
	t.Helper()
	id, err := machine.BootID(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func nodeBootID(t *testing.T, client kubernetes.Interface, name string) string {
	t.Helper()
	node, err := client.CoreV1().Nodes().Get(t.Context(), name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return node.Status.NodeInfo.BootID
}

// loadKubectl loads an image of kubectl, which was built for the cluster anyway.
func loadKubectl(t *testing.T, c *cluster.Cluster) {
	t.Helper()
	checkout, err := roots.Checkout()
	if err != nil {
		t.Fatal(err)
	}
	image := filepath.Join(t.TempDir(), "kubectl.tar")
	err = archive.Write(image, "localhost/kubectl:test", archive.Image{
		Files:      map[string]string{"/kubectl": filepath.Join(checkout, "bin", "k8s", "k8s")},
		Entrypoint: []string{"/kubectl"},
		User:       "65532:65532",
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.LoadImage(t.Context(), image); err != nil {
		t.Fatal(err)
	}
}

// apply makes the pod list-nodes on the node, which may list nodes and does.
func apply(t *testing.T, client kubernetes.Interface, node string) {
	t.Helper()
	_, err := client.RbacV1().ClusterRoles().Create(t.Context(), &rbacv1.ClusterRole{
		ObjectMeta: metav1.ObjectMeta{Name: "list-nodes"},
		Rules:      []rbacv1.PolicyRule{{APIGroups: []string{""}, Resources: []string{"nodes"}, Verbs: []string{"list"}}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	_, err = client.RbacV1().ClusterRoleBindings().Create(t.Context(), &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: "list-nodes"},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "list-nodes"},
		Subjects:   []rbacv1.Subject{{Kind: "ServiceAccount", Namespace: "default", Name: "default"}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	wait(t, "the service account", 30*time.Second, func() (bool, string) {
		_, err := client.CoreV1().ServiceAccounts("default").Get(t.Context(), "default", metav1.GetOptions{})
		return err == nil, fmt.Sprint(err)
	})
	_, err = client.CoreV1().Pods("default").Create(t.Context(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "list-nodes"},
		Spec: corev1.PodSpec{
			NodeName: node,
			Containers: []corev1.Container{{
				Name: "kubectl", Image: "localhost/kubectl:test", ImagePullPolicy: corev1.PullNever,
				Args: []string{"get", "nodes", "-o", "name"},
			}},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
}

// audited tells whether the user's request is in the audit log.
func audited(t *testing.T, log, user, verb, resource string) bool {
	t.Helper()
	for line := range strings.Lines(log) {
		var event struct {
			Verb      string
			User      struct{ Username string }
			ObjectRef struct{ Resource string }
		}
		if err := json.Unmarshal([]byte(line), &event); err != nil {
			t.Errorf("a line of the audit log: %v", err)
			continue
		}
		if event.User.Username == user && event.Verb == verb && event.ObjectRef.Resource == resource {
			return true
		}
	}
	return false
}

// settings are what clusters change of the host's kernel while there are any.
var settings = []string{"net/ipv4/ip_forward", "fs/inotify/max_user_instances"}

// kernelSettings reads them, or returns nil while somebody else's cluster may have changed them.
func kernelSettings(t *testing.T) map[string]string {
	t.Helper()
	others, err := filepath.Glob("/run/nodepatch/*/cluster.json")
	if err != nil || len(others) > 0 {
		return nil
	}
	values := map[string]string{}
	for _, name := range settings {
		value, err := os.ReadFile(filepath.Join("/proc/sys", name))
		if err != nil {
			t.Fatal(err)
		}
		values[name] = strings.TrimSpace(string(value))
	}
	return values
}

// traces lists what the cluster with the number has on the host: nothing, once it is stopped.
func traces(t *testing.T, number int) []string {
	t.Helper()
	var found []string
	interfaces, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	bridge := fmt.Sprintf("nodepatch%d", number)
	for _, i := range interfaces {
		if i.Name == bridge || strings.HasPrefix(i.Name, fmt.Sprintf("vb-np%d-", number)) {
			found = append(found, "interface "+i.Name)
		}
	}
	for _, table := range []string{"nat", "filter"} {
		rules, err := exec.Command("iptables", "-w", "-t", table, "-S").Output()
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(rules)) {
			if slices.Contains(strings.Fields(line), bridge) {
				found = append(found, "rule "+strings.TrimSpace(line))
			}
		}
	}
	groups, err := exec.Command("find", "/sys/fs/cgroup", "-type", "d", "-path", fmt.Sprintf("*/nodepatch/%d", number)).Output()
	// A group that goes while it is looked at makes find fail, after it has listed the others.
	if err != nil && !errors.As(err, new(*exec.ExitError)) {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(groups)) {
		found = append(found, "group "+strings.TrimSpace(line))
	}
	for _, pattern := range []string{
		fmt.Sprintf("systemd-nspawn.*--machine=np%d-", number),
		fmt.Sprintf("test-cluster supervise %d ", number),
		fmt.Sprintf("127\\.198\\.%d\\.1", number),
	} {
		pids, _ := exec.Command("pgrep", "-f", pattern).Output() // exits with 1 if there is none
		for line := range strings.Lines(string(pids)) {
			found = append(found, "process "+pattern+" "+strings.TrimSpace(line))
		}
	}
	return found
}

// stopClean stops the cluster and checks that nothing of it is left on the host.
func stopClean(t *testing.T, c *cluster.Cluster, number int) {
	t.Helper()
	if len(traces(t, number)) < 8 {
		t.Errorf("a running cluster should show: %v", traces(t, number))
	}
	stop(t, c)
	if left := traces(t, number); len(left) > 0 {
		t.Errorf("left on the host:\n%s", strings.Join(left, "\n"))
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(mounts), c.Dir) {
		t.Errorf("something is mounted below %s:\n%s", c.Dir, mounts)
	}
}
