package e2e

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrlclient "sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/test/aptrepo"
)

// offer installs version 1.0 of packages on the machine with toy repositories and then offers the given ones. At the end of
// the spec nothing of them is left.
func offer(ctx context.Context, offered ...aptrepo.Package) {
	GinkgoHelper()
	var names []string
	for _, p := range offered {
		names = append(names, p.Name)
		mirror.main.Add(aptrepo.Good(p.Name, "1.0"))
	}
	mirror.publish()
	DeferCleanup(func(ctx SpecContext) {
		mirror.open()
		mirror.setDown(false)
		mirror.main.Remove(names...)
		mirror.publish()
		onToy(ctx, "rm -f /run/gate-*; dpkg --configure -a --force-confold; DEBIAN_FRONTEND=noninteractive apt-get -q -y purge "+
			strings.Join(names, " ")+" && apt-get -q update && apt-get clean")
	}, NodeTimeout(2*time.Minute))
	onToy(ctx, "apt-get -q update && DEBIAN_FRONTEND=noninteractive apt-get -q -y install "+strings.Join(names, " "))
	publish(offered...)
}

// publish offers packages, in place of those of the same name and version.
func publish(offered ...aptrepo.Package) {
	GinkgoHelper()
	mirror.main.Add(offered...)
	mirror.publish()
}

// slow is a package whose installation takes until open is called for it.
func slow(name, version string) aptrepo.Package {
	p := aptrepo.Good(name, version)
	p.Postinst = fmt.Sprintf("for i in $(seq 1200); do [ -e /run/gate-%s ] && exit 0; sleep 0.1; done; exit 1", name)
	return p
}

// open lets the installation of a slow package end.
func open(ctx context.Context, name string) {
	GinkgoHelper()
	onToy(ctx, "touch /run/gate-"+name)
}

// onToy runs a shell command on the machine with toy repositories.
func onToy(ctx context.Context, script string) string {
	GinkgoHelper()
	out, err := machine(toy).Exec(ctx, "sh", "-c", script)
	Expect(err).NotTo(HaveOccurred(), out)
	return out
}

// stateOf is what dpkg has of a package on that machine, such as "installed 2.0".
func stateOf(ctx context.Context, name string) string {
	GinkgoHelper()
	return onToy(ctx, "dpkg-query -W -f '${db:Status-Status} ${Version}' "+name)
}

// run creates a task for some packages on the machine with toy repositories.
func run(ctx context.Context, action v1alpha1.Action, names ...string) *v1alpha1.PatchTask {
	GinkgoHelper()
	var include []v1alpha1.PackagePattern
	for _, name := range names {
		include = append(include, v1alpha1.PackagePattern(name))
	}
	task := &v1alpha1.PatchTask{
		ObjectMeta: metav1.ObjectMeta{GenerateName: strings.ToLower(string(action)) + "-"},
		Spec: v1alpha1.PatchTaskSpec{
			Policy:       policy,
			Template:     &v1alpha1.TaskTemplate{Action: action, Patches: &v1alpha1.PatchSelection{Include: include}},
			NodeSelector: &metav1.LabelSelector{MatchLabels: map[string]string{corev1.LabelHostname: toy}},
		},
	}
	Expect(client.Create(ctx, task)).To(Succeed())
	return task
}

func deploy(ctx context.Context, names ...string) *v1alpha1.PatchTask {
	GinkgoHelper()
	return run(ctx, v1alpha1.ActionDeploy, names...)
}

// waitForInstall waits until a slow package's script runs on the machine.
func waitForInstall(ctx context.Context, name string) {
	GinkgoHelper()
	Eventually(ctx, func() error {
		_, err := machine(toy).Exec(ctx, "pgrep", "-f", name+".postinst")
		return err
	}).Should(Succeed(), "the installation of %s runs", name)
}

// attemptsOf is what the machine's PatchRetry has of a package, nil if nothing.
func attemptsOf(ctx context.Context, name string) *v1alpha1.PatchAttempts {
	GinkgoHelper()
	retry := &v1alpha1.PatchRetry{}
	Expect(client.Get(ctx, ctrlclient.ObjectKey{Name: toy}, retry)).To(Succeed())
	for i := range retry.Status.Patches {
		if retry.Status.Patches[i].Name == name {
			return &retry.Status.Patches[i]
		}
	}
	return nil
}

// patchOf is what the machine's report lists of a package, nil if nothing.
func patchOf(ctx context.Context, name string) *v1alpha1.Patch {
	GinkgoHelper()
	report := reportOf(ctx, toy)
	for i := range report.Status.Patches {
		if report.Status.Patches[i].Name == name {
			return &report.Status.Patches[i]
		}
	}
	return nil
}

// messages are the notes of a task's entries with a reason.
func messages(ctx context.Context, task *v1alpha1.PatchTask, reason string) string {
	GinkgoHelper()
	return kubectl(ctx, "get", "events", "--sort-by=.eventTime", "-l", v1alpha1.TaskLabel+"="+task.Name,
		"--field-selector", "reason="+reason, "-o", `jsonpath={range .items[*]}{.message}{"\n"}{end}`)
}

// nodeLogOf are the reasons of a task's entries about the machine with toy repositories, in order.
func nodeLogOf(ctx context.Context, task string) []string {
	GinkgoHelper()
	var reasons []string
	for _, entry := range logOf(ctx, task) {
		if reason, is := strings.CutPrefix(entry, toy+" "); is {
			reasons = append(reasons, reason)
		}
	}
	return reasons
}

// entriesOf are the entries of a task's patch log in order.
func entriesOf(ctx context.Context, task *v1alpha1.PatchTask) []corev1.Event {
	GinkgoHelper()
	var events corev1.EventList
	Expect(client.List(ctx, &events, ctrlclient.MatchingLabels{v1alpha1.TaskLabel: task.Name})).To(Succeed())
	slices.SortStableFunc(events.Items, func(a, b corev1.Event) int { return a.EventTime.Compare(b.EventTime.Time) })
	return events.Items
}
