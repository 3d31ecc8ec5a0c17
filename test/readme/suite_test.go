package readme

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/nodepatch/nodepatch/test/cluster"
	"github.com/nodepatch/nodepatch/test/roots"
)

// patience is how long a command may take unless its treatment says otherwise, and how long what it shows
// may take to come true.
const patience = 2 * time.Minute

var (
	// commands are README's, read before the specs are made of them.
	commands = readCommands()
	// clone is where a person would have cloned nodepatch to.
	clone    string
	terminal *shell
	// printed is what commands that are run once have printed.
	printed = map[string]string{}
	// images is the address of the registry that stands in for registry.example.com.
	images string
)

func TestReadme(t *testing.T) {
	roots.Require(t, cluster.Supported())
	RegisterFailHandler(Fail)
	RunSpecs(t, "README")
}

func readCommands() []Command {
	checkout, err := roots.Checkout()
	if err != nil {
		panic(err)
	}
	markdown, err := os.ReadFile(filepath.Join(checkout, "README.md"))
	if err != nil {
		panic(err)
	}
	found, err := Commands(markdown)
	if err != nil {
		panic(fmt.Sprintf("README.md: %v", err))
	}
	return found
}

var _ = BeforeSuite(func(ctx SpecContext) {
	checkout, err := roots.Checkout()
	Expect(err).NotTo(HaveOccurred())
	clone = filepath.Join(checkout, "bin", "readme")
	leave(ctx) // what a killed run has left
	Expect(copyCheckout(ctx, checkout, clone)).To(Succeed())
	DeferCleanup(leave, NodeTimeout(2*time.Minute))

	terminal, err = openShell(GinkgoT().TempDir(), clone)
	Expect(err).NotTo(HaveOccurred())
	serving, end := context.WithCancel(context.Background())
	DeferCleanup(end)
	images, err = startRegistry(serving)
	Expect(err).NotTo(HaveOccurred())
}, NodeTimeout(3*time.Minute))

// leave removes the clone, and the cluster that runs in it.
func leave(ctx SpecContext) {
	if machines, err := cluster.Attach(filepath.Join(clone, "bin", "cluster")); err == nil {
		Expect(machines.Stop(ctx)).To(Succeed())
	}
	Expect(cluster.Sweep(ctx)).To(Succeed())
	Expect(os.RemoveAll(clone)).To(Succeed())
}

// Each command of README is a spec, and each needs what those before it have done.
var _ = Describe("Who follows README", Ordered, func() {
	for _, scene := range scenes {
		Context(scene.title, func() {
			for _, command := range scene.commands(commands) {
				treatment := treatments[command.Text]
				longest := 2 * max(patience, treatment.patience)
				It(command.String(), func(ctx SpecContext) {
					if treatment.notRun != "" {
						Skip(treatment.notRun)
					}
					if treatment.before != nil {
						treatment.before(ctx)
					}
					follow(ctx, command, treatment)
				}, NodeTimeout(longest))
			}
		})
	}
})

// follow types a command and looks at what it prints. What only looks is typed again until it shows what
// README promises, as a person would who is a second too early.
func follow(ctx context.Context, command Command, treatment treatment) {
	GinkgoHelper()
	typed := fill(command.Text, treatment.fill)
	if before, ran := printed[typed]; ran && treatment.once {
		lacks, ok := Shows(before, command.Output)
		Expect(ok).To(BeTrue(), "%s\nREADME shows the line\n%s\nIt printed\n%s", command, lacks, before)
		return
	}
	var enough func(string) bool
	if watches.MatchString(typed) {
		enough = func(output string) bool {
			_, ok := Shows(output, command.Output)
			return ok
		}
	}
	for deadline := time.Now().Add(max(patience, treatment.patience)); ; time.Sleep(time.Second) {
		GinkgoWriter.Printf("$ %s\n", typed)
		waiting, end := context.WithTimeout(ctx, max(patience, treatment.patience))
		output, err := terminal.run(waiting, typed, enough)
		end()
		GinkgoWriter.Printf("%s\n", output)
		printed[typed] = output
		lacks, ok := Shows(output, command.Output)
		if err == nil && ok {
			return
		}
		if looks.MatchString(typed) && len(command.Output) > 0 && ctx.Err() == nil && time.Now().Before(deadline) {
			continue
		}
		Expect(err).NotTo(HaveOccurred(), "%s\n%s", command, output)
		Expect(ok).To(BeTrue(), "%s\nREADME shows the line\n%s\nIt printed\n%s", command, lacks, output)
	}
}

var (
	// looks are commands that change nothing, so that they may be typed again.
	looks = regexp.MustCompile(`^kubectl (-n [a-z-]+ )?(get|describe|events|logs) `)
	// watches are commands that a person ends with Ctrl-C.
	watches = regexp.MustCompile(` -w( |$)`)
)

// sh does what a scene needs that README does not tell.
func sh(ctx context.Context, command string) string {
	GinkgoHelper()
	GinkgoWriter.Printf("# %s\n", command)
	output, err := terminal.run(ctx, command, nil)
	Expect(err).NotTo(HaveOccurred(), "%s\n%s", command, output)
	return output
}

// Whoever reads of a failure wants to see the cluster as it was.
var _ = JustAfterEach(func(ctx SpecContext) {
	if !CurrentSpecReport().Failed() || terminal == nil {
		return
	}
	for _, command := range []string{
		"kubectl get nodes,pods -A -o wide",
		"kubectl get nodepatch -o wide",
		"kubectl -n nodepatch-system logs -l app.kubernetes.io/component=manager --tail=40 --prefix",
		"kubectl get events -A --sort-by=.lastTimestamp | tail -60",
	} {
		cmd := exec.CommandContext(ctx, "bash", "-c", command)
		cmd.Env = append(os.Environ(), "KUBECONFIG="+filepath.Join(clone, "bin", "cluster", "kubeconfig"), "PATH="+filepath.Join(clone, "bin", "k8s")+":"+os.Getenv("PATH"))
		out, err := cmd.CombinedOutput()
		GinkgoWriter.Printf("\n$ %s\n%s%v\n", command, out, err)
	}
}, NodeTimeout(time.Minute))
