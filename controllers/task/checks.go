package task

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

// patience is how long a task waits for the policy or the named task that it
// asks for: GitOps tools apply things in any order.
const patience = time.Minute

// namesShown is how many names a message lists before it counts the rest.
const namesShown = 10

// Defaults of what did not come through the API server, which sets them, or came
// through one that did not know the field yet.
const (
	defaultScanTimeout      = 30 * time.Minute
	defaultDownloadTimeout  = time.Hour
	defaultInstallTimeout   = 2 * time.Hour
	defaultDrainTimeout     = 15 * time.Minute
	defaultRebootTimeout    = 20 * time.Minute
	defaultVerifyTimeout    = 10 * time.Minute
	defaultMaxParallelScans = 50
	defaultDownloadLimit    = 11
	defaultInstallLimit     = 4
)

// objection is why a task does not begin: now if until is set, else ever.
type objection struct {
	reason, message string
	wait            bool
	until           time.Time
}

// candidate is a task that wants to begin, with what the checks have found.
type candidate struct {
	Input
	policy   *v1alpha1.PatchPolicy
	template *v1alpha1.TaskTemplate
	trigger  v1alpha1.Trigger
}

// checks are asked in order; the first objection counts. What a person has to
// mend comes before what only takes time.
var checks = []func(*candidate) *objection{
	(*candidate).checkPolicy,
	(*candidate).checkTrigger,
	(*candidate).checkNamedTask,
	(*candidate).checkSelectors,
	(*candidate).checkSuspended,
	(*candidate).checkNodes,
}

// begin makes the plan for a task that was not accepted yet.
func begin(in Input) Plan {
	plan := Plan{now: in.Now, task: in.Task, assignments: in.Assignments, Trigger: v1alpha1.TriggerManual}
	if why, stopped := stopped(in.Task); stopped {
		plan.Phase, plan.Reason, plan.Cause = v1alpha1.TaskStopped, v1alpha1.ReasonStopped, why
		plan.Stop = &v1alpha1.TaskStop{Time: metav1.NewTime(in.Now), Reason: plan.Reason, Message: limit(why, maxMessage)}
		return plan
	}
	c := &candidate{Input: in, trigger: v1alpha1.TriggerManual}
	for _, check := range checks {
		no := check(c)
		plan.Trigger = c.trigger
		switch {
		case no == nil:
		case no.wait:
			plan.Phase, plan.Reason, plan.Cause, plan.Next = v1alpha1.TaskPending, no.reason, no.message, no.until
			return plan
		default:
			plan.Phase, plan.Reason, plan.Cause = v1alpha1.TaskFailed, no.reason, no.message
			return plan
		}
	}
	plan.Accepts = true
	plan.Phase, plan.Reason = v1alpha1.TaskRunning, v1alpha1.ReasonRunning
	plan.Template = ptr.To(withDefaults(*c.template))
	for _, name := range c.members() {
		plan.Nodes = append(plan.Nodes, Node{Name: name, Place: PlacePending})
	}
	return plan
}

func (c *candidate) checkPolicy() *objection {
	c.policy = findPolicy(c.Policies, c.Task.Spec.Policy)
	if c.policy != nil {
		return nil
	}
	var names []string
	for i := range c.Policies {
		names = append(names, c.Policies[i].Name)
	}
	return c.unknown(v1alpha1.ReasonUnknownPolicy,
		fmt.Sprintf("There is no PatchPolicy %s", c.Task.Spec.Policy),
		"the PatchPolicies are", names)
}

// checkTrigger finds out who started the task. Only the manager may set owner
// references on a PatchTask: admission sees to that. Of the policy's own tasks
// those of its schedule run a named task, and scans of overdue nodes do not.
func (c *candidate) checkTrigger() *objection {
	owner := metav1.GetControllerOfNoCopy(c.Task)
	if owner != nil && owner.Kind == "PatchPolicy" && owner.UID == c.policy.UID {
		c.trigger = v1alpha1.TriggerScheduled
		if c.Task.Spec.Template != nil {
			c.trigger = v1alpha1.TriggerOverdue
		}
		return nil
	}
	if c.policy.Spec.ManualTasks == v1alpha1.ManualTasksDenied {
		return refuse(v1alpha1.ReasonManualTasksDenied,
			"The policy %s lets only its schedule start tasks (manualTasks: Denied)", c.policy.Name)
	}
	return nil
}

func (c *candidate) checkNamedTask() *objection {
	name := c.Task.Spec.Task
	if name == "" {
		c.template = c.Task.Spec.Template
		return nil
	}
	var names []string
	for i := range c.policy.Spec.Tasks {
		task := &c.policy.Spec.Tasks[i]
		if task.Name == name {
			c.template = &task.Template
			return nil
		}
		names = append(names, task.Name)
	}
	return c.unknown(v1alpha1.ReasonUnknownTask,
		fmt.Sprintf("The policy %s has no task %s", c.policy.Name, name),
		"its tasks are", names)
}

func (c *candidate) checkSelectors() *objection {
	if _, err := taskSelection(c.Task); err != nil {
		return refuse(v1alpha1.ReasonInvalidSelector, "The task's nodeSelector is not valid: %v", err)
	}
	if members := c.Membership.Policies[c.policy.Name]; members != nil && members.Err != nil {
		return refuse(v1alpha1.ReasonInvalidSelector, "The nodeSelector of the policy %s is not valid: %v", c.policy.Name, members.Err)
	}
	return nil
}

func (c *candidate) checkSuspended() *objection {
	if !c.policy.Spec.Suspend {
		return nil
	}
	return &objection{
		reason:  v1alpha1.ReasonPolicySuspended,
		message: fmt.Sprintf("The policy %s is suspended; the task begins when it no longer is", c.policy.Name),
		wait:    true,
	}
}

func (c *candidate) checkNodes() *objection {
	if len(c.members()) > 0 {
		return nil
	}
	governed := 0
	if members := c.Membership.Policies[c.policy.Name]; members != nil {
		governed = len(members.Governed)
	}
	if governed == 0 {
		return refuse(v1alpha1.ReasonNoNodes, "The policy %s governs no node; see its conditions", c.policy.Name)
	}
	what := "nodeSelector selects"
	if len(c.Task.Spec.Nodes) > 0 {
		what = "list of nodes has"
	}
	return refuse(v1alpha1.ReasonNoNodes, "The task's %s none of the %s that the policy %s governs",
		what, plural(governed, "node", "nodes"), c.policy.Name)
}

// members are the names of the nodes that the task would begin with, sorted.
func (c *candidate) members() []string {
	chosen, err := taskSelection(c.Task)
	if err != nil {
		return nil
	}
	var names []string
	for i := range c.Nodes {
		node := &c.Nodes[i]
		if c.Membership.Governor[node.Name] == c.policy.Name && chosen.has(node) {
			names = append(names, node.Name)
		}
	}
	slices.Sort(names)
	return names
}

// unknown waits for a name that may still be applied, then refuses the task.
func (c *candidate) unknown(reason, message, offer string, names []string) *objection {
	until := c.Task.CreationTimestamp.Add(patience)
	if c.Now.Before(until) {
		return &objection{
			reason: reason, wait: true, until: until,
			message: fmt.Sprintf("%s; the task waits for it until %s", message, until.UTC().Format(time.RFC3339)),
		}
	}
	if len(names) == 0 {
		return refuse(reason, "%s, nor any other; create it, then create the task again", message)
	}
	return refuse(reason, "%s; %s %s; create another task with one of these names", message, offer, list(names))
}

func refuse(reason, format string, args ...any) *objection {
	return &objection{reason: reason, message: fmt.Sprintf(format, args...)}
}

// stopped says whether a person stops the task, and in which words.
func stopped(task *v1alpha1.PatchTask) (why string, stopped bool) {
	why, stopped = task.Annotations[v1alpha1.StopAnnotation]
	if strings.TrimSpace(why) == "" {
		why = "no reason given"
	}
	// Only a cluster that stamps it knows who it was.
	if who := task.Annotations[v1alpha1.StoppedByAnnotation]; stopped && who != "" {
		why += ", by " + who
	}
	return why, stopped
}

// findPolicy finds a policy that is not being deleted.
func findPolicy(policies []v1alpha1.PatchPolicy, name string) *v1alpha1.PatchPolicy {
	for i := range policies {
		if policies[i].Name == name && policies[i].DeletionTimestamp.IsZero() {
			return &policies[i]
		}
	}
	return nil
}

// withDefaults returns a copy of a template with what a run needs filled in.
func withDefaults(template v1alpha1.TaskTemplate) v1alpha1.TaskTemplate {
	filled := *template.DeepCopy()
	if filled.Scan.Timeout.Duration == 0 {
		filled.Scan.Timeout.Duration = defaultScanTimeout
	}
	if filled.Download.Timeout.Duration == 0 {
		filled.Download.Timeout.Duration = defaultDownloadTimeout
	}
	if filled.Install.Timeout.Duration == 0 {
		filled.Install.Timeout.Duration = defaultInstallTimeout
	}
	if filled.Drain.Timeout.Duration == 0 {
		filled.Drain.Timeout.Duration = defaultDrainTimeout
	}
	if filled.Reboot.Timeout.Duration == 0 {
		filled.Reboot.Timeout.Duration = defaultRebootTimeout
	}
	if filled.Verify.Timeout.Duration == 0 {
		filled.Verify.Timeout.Duration = defaultVerifyTimeout
	}
	filled.Drain.When = cmp.Or(filled.Drain.When, v1alpha1.DrainBeforeReboot)
	filled.Reboot.When = cmp.Or(filled.Reboot.When, v1alpha1.RebootIfRequired)
	if filled.Rollout.MaxParallelScans == 0 {
		filled.Rollout.MaxParallelScans = defaultMaxParallelScans
	}
	return filled
}

// list joins the first names and counts the rest.
func list(names []string) string {
	names = slices.Sorted(slices.Values(names))
	if len(names) <= namesShown {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:namesShown], ", "), len(names)-namesShown)
}

func plural(n int, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return fmt.Sprintf("%d %s", n, many)
}

// duration prints 30m rather than 30m0s.
func duration(d time.Duration) string {
	text := d.String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}
