package api

import (
	"bufio"
	"strings"
	"time"
	"unicode/utf8"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"
)

// tableWidth is how many characters a row of "kubectl get" has at most, with values as most clusters have them. What
// says in words what is going on comes last, so that nothing is pushed out of sight where it takes more.
const tableWidth = 120

// cells splits what kubectl prints into rows of cells.
func cells(table string) [][]string {
	var rows [][]string
	for row := range strings.Lines(table) {
		var cells []string
		for cell := range strings.SplitSeq(strings.TrimSpace(row), "   ") {
			if cell = strings.TrimSpace(cell); cell != "" {
				cells = append(cells, cell)
			}
		}
		rows = append(rows, cells)
	}
	return rows
}

// narrow are the cells of a table that has to fit into a terminal, the headings first.
func narrow(ctx SpecContext, args ...string) [][]string {
	GinkgoHelper()
	table := kubectl(ctx, append([]string{"get"}, args...)...)
	for row := range strings.Lines(table) {
		Expect(utf8.RuneCountInString(strings.TrimSpace(row))).To(BeNumerically("<=", tableWidth), table)
	}
	return cells(table)
}

// wide is a row of the wide table by its headings.
func wide(ctx SpecContext, kind, name string) map[string]string {
	GinkgoHelper()
	table := strings.Split(kubectl(ctx, "get", kind, name, "-o", "wide"), "\n")
	Expect(len(table)).To(BeNumerically(">=", 2))
	row := map[string]string{}
	for rest := table[0]; rest != ""; {
		heading, _, _ := strings.Cut(rest, " ")
		begin := len(table[0]) - len(rest)
		rest = strings.TrimLeft(strings.TrimPrefix(rest, heading), " ")
		end := len(table[1])
		if rest != "" {
			end = len(table[0]) - len(rest)
		}
		row[heading] = strings.TrimSpace(table[1][begin:end])
	}
	return row
}

const yearsAgo = `"2020-01-01T00:00:00Z"`

var (
	aged  = MatchRegexp(`^\d+s$`)
	years = MatchRegexp(`^\d+y`)
)

var _ = Describe("the columns of kubectl get", func() {
	It("say of a report what is missing and why", func(ctx SpecContext) {
		store(ctx, named("PatchReport", "machine-1", `status:
  summary: 9 not installed yet, 1 on hold, 2 excluded
  policy: workers
  agentVersion: v1.2.3
  os: {name: Debian GNU/Linux 12 (bookworm)}
  kernel: {running: 6.1.0-37-amd64}
  counts: {missing: 12, security: 5, blocked: 1, bugfix: 7, enhancement: 0, other: 0, held: 1, keptBack: 0, phased: 0, excluded: 0, installed: 0, failed: 0, critical: 0, important: 0, moderate: 0, low: 0, newPackages: 0, downloadBytes: 100, oldestSecurity: `+yearsAgo+`}
  reboot: {state: NotRequired}
  scan: {time: `+yearsAgo+`}
  patchData: {time: `+yearsAgo+`}`))
		store(ctx, named("PatchReport", "machine-2", ""))
		rows := narrow(ctx, "prep", "machine-1", "machine-2")
		Expect(rows[0]).To(Equal([]string{"NAME", "MISSING", "SECURITY", "BLOCKED", "REBOOT", "SCANNED", "DATA", "WHY"}))
		Expect(rows[1]).To(HaveExactElements("machine-1", "12", "5", "1", "NotRequired", years, years, "9 not installed yet, 1 on hold, 2 excluded"))
		Expect(rows[2]).To(Equal([]string{"machine-2", "Not scanned yet"}))
		Expect(wide(ctx, "prep", "machine-1")).To(And(
			HaveKeyWithValue("POLICY", "workers"), HaveKeyWithValue("OS", "Debian GNU/Linux 12 (bookworm)"), HaveKeyWithValue("KERNEL", "6.1.0-37-amd64"),
			HaveKeyWithValue("AGENT", "v1.2.3"), HaveKeyWithValue("OLDEST", years), HaveKeyWithValue("WHY", HavePrefix("9 not installed yet"))))
	})

	It("say of a task how it goes", func(ctx SpecContext) {
		store(ctx, named("PatchTask", "security-rollout", `spec: {policy: workers, task: weekly}
status:
  phase: Running
  trigger: Manual
  message: "3 of 10 nodes patched: 17 patches installed; 1 failed; 6 scanning"
  template: {action: Deploy}
  startTime: `+yearsAgo+`
  nodes: {total: 10, pending: 0, scanning: 6, downloading: 0, waiting: 2, draining: 0, installing: 0, rebooting: 0, verifying: 0, done: 3, failed: 1, unreachable: 5}
  patches: {missing: 40, security: 4, bugfix: 0, enhancement: 0, other: 36, held: 0, keptBack: 0, phased: 0, excluded: 0, installed: 17, failed: 0, blocked: 8}`))
		rows := narrow(ctx, "pt", "security-rollout")
		Expect(rows[0]).To(Equal([]string{"NAME", "POLICY", "ACTION", "PHASE", "AGE", "MESSAGE"}))
		Expect(rows[1]).To(HaveExactElements("security-rollout", "workers", "Deploy", "Running", aged, "3 of 10 nodes patched: 17 patches installed; 1 failed; 6 scanning"))
		Expect(wide(ctx, "pt", "security-rollout")).To(And(
			HaveKeyWithValue("TRIGGER", "Manual"), HaveKeyWithValue("NODES", "10"), HaveKeyWithValue("WAITING", "2"), HaveKeyWithValue("DONE", "3"),
			HaveKeyWithValue("FAILED", "1"), HaveKeyWithValue("UNREACHABLE", "5"), HaveKeyWithValue("MISSING", "40"), HaveKeyWithValue("SECURITY", "4"),
			HaveKeyWithValue("INSTALLED", "17"), HaveKeyWithValue("BLOCKED", "8"), HaveKeyWithValue("STARTED", years), HaveKeyWithValue("FINISHED", "")))
	})

	It("show while a task runs how far it is", func(ctx SpecContext) {
		task := store(ctx, named("PatchTask", "watched", "spec: {policy: workers, task: weekly}"))
		watch := server.Command(ctx, "get", "patchtask", "watched", "--watch", "--output-watch-events", "--no-headers")
		rows, err := watch.StdoutPipe()
		Expect(err).NotTo(HaveOccurred())
		Expect(watch.Start()).To(Succeed())
		DeferCleanup(func() {
			_ = watch.Process.Kill() // It watches until it is killed, and says so.
			_ = watch.Wait()
		})
		lines := bufio.NewScanner(rows)
		next := func() string {
			GinkgoHelper()
			Expect(lines.Scan()).To(BeTrue(), "kubectl ended: %v", lines.Err())
			return strings.Join(strings.Fields(lines.Text()), " ")
		}
		Expect(next()).To(MatchRegexp(`^ADDED watched workers \d+s$`))
		for _, said := range []string{"Running|0 of 3 nodes scanned; 3 scanning", "Running|2 of 3 nodes scanned; 1 scanning", "Complete|3 of 3 nodes scanned"} {
			phase, message, _ := strings.Cut(said, "|")
			Expect(admin.Status().Patch(ctx, task, mergePatch(`{"status":{"template":{"action":"Scan"},"phase":"`+phase+`","message":"`+message+`"}}`))).To(Succeed())
			Expect(next()).To(MatchRegexp(`^MODIFIED watched workers Scan ` + phase + ` \d+s ` + message + `$`))
		}
	}, SpecTimeout(time.Minute))

	It("say of a policy how many nodes comply", func(ctx SpecContext) {
		store(ctx, named("PatchPolicy", "workers", `spec: {nodeSelector: {}, priority: 7}
status:
  observedGeneration: 1
  nodes: {selected: 120, governed: 118, scanned: 117, patched: 96, rebootRequired: 6, overdue: 1, unreachable: 2}
  oldestSecurity: `+yearsAgo+`
  nextRun: "2027-01-01T06:00:00Z"
  patches: {missing: 40, security: 37, bugfix: 0, enhancement: 0, other: 36, held: 0, keptBack: 0, phased: 0, excluded: 0, installed: 0, failed: 0, blocked: 0}
  conditions: [{type: Ready, status: "True", reason: Governing, message: Governs 118 of 120 nodes, lastTransitionTime: `+yearsAgo+`}]`))
		rows := narrow(ctx, "pp", "workers")
		Expect(rows[0]).To(Equal([]string{"NAME", "NODES", "SCANNED", "PATCHED", "SECURITY", "OLDEST", "OVERDUE", "READY", "AGE", "WHY"}))
		Expect(rows[1]).To(HaveExactElements("workers", "118", "117", "96", "37", years, "1", "True", aged, "Governs 118 of 120 nodes"))
		Expect(wide(ctx, "pp", "workers")).To(And(
			HaveKeyWithValue("REBOOT", "6"), HaveKeyWithValue("UNREACHABLE", "2"), HaveKeyWithValue("NEXT", "2027-01-01T06:00:00Z"),
			HaveKeyWithValue("PRIORITY", "7"), HaveKeyWithValue("SUSPENDED", "false")))
	})

	It("say of a node's retries what is blocked", func(ctx SpecContext) {
		store(ctx, named("PatchRetry", "machine-1", `status: {counted: 2, blocked: 1, summary: "1 blocked: nodepatch-demo 2.0 (4 installs); 1 counted: cheese 2.0 (1 download)"}`))
		rows := narrow(ctx, "pr", "machine-1")
		Expect(rows[0]).To(Equal([]string{"NAME", "COUNTED", "BLOCKED", "AGE", "WHAT"}))
		Expect(rows[1]).To(HaveExactElements("machine-1", "2", "1", aged, "1 blocked: nodepatch-demo 2.0 (4 installs); 1 counted: cheese 2.0 (1 download)"))
	})

	It("say of an assignment what the node is doing, and what it waits for", func(ctx SpecContext) {
		given := `spec: {policy: workers, operation: {id: "1", task: weekly, step: Downloading, assignedAt: ` + yearsAgo + `, deadline: ` + yearsAgo + `}}
`
		store(ctx, named("PatchAssignment", "machine-1", given+`status:
  agent: {task: weekly, step: Waiting, time: `+yearsAgo+`, message: 12 patches ready on disk}
  controller: {agent: Ready}
  rollout: {reason: Budget, message: "1 of 1 nodes that may be unavailable is: machine-2"}`))
		store(ctx, named("PatchAssignment", "machine-2", given+`status:
  agent: {task: before, step: Done, time: `+yearsAgo+`}
  controller: {agent: Ready, step: Draining, message: Waits for web/web-1}`))
		rows := narrow(ctx, "pa", "machine-1", "machine-2")
		Expect(rows[0]).To(Equal([]string{"NAME", "TASK", "STEP", "SINCE", "AGENT", "MANAGER", "WAITS", "MANAGER-SAYS", "AGENT-SAYS"}))
		Expect(rows[1]).To(HaveExactElements("machine-1", "weekly", "Waiting", years, "Ready", "Budget", "12 patches ready on disk"))
		Expect(rows[2]).To(HaveExactElements("machine-2", "weekly", "Done", years, "Ready", "Draining", "Waits for web/web-1"))
		Expect(wide(ctx, "pa", "machine-1")).To(And(HaveKeyWithValue("POLICY", "workers"), HaveKeyWithValue("ANSWERED", "weekly"),
			HaveKeyWithValue("WAITS", "Budget"), HaveKeyWithValue("TASK-SAYS", "1 of 1 nodes that may be unavailable is: machine-2")))
		Expect(wide(ctx, "pa", "machine-2")).To(And(HaveKeyWithValue("ANSWERED", "before"), HaveKeyWithValue("MANAGER", "Draining"),
			HaveKeyWithValue("MANAGER-SAYS", "Waits for web/web-1")))
	})
})
