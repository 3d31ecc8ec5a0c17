package schedule

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

// clockError is by how much a clock that was set back may have been ahead. Within
// it the runs that began already do not begin again; beyond it the time of
// the last run was wrong, and waiting for it would be waiting for years.
const clockError = 24 * time.Hour

// lateDeploy is how late a deployment may begin where nothing is said about it and no
// maintenance window holds it: a manager that comes back on Monday must not
// reboot nodes at noon for what was planned for the night to Sunday.
const lateDeploy = 4 * time.Hour

// maxJitter is the longest that the API allows.
const maxJitter = 24 * time.Hour

// maxName is the length of an object's name that is a label's value too.
const maxName = 63

// observation is everything that the runs of a policy's tasks follow from.
type observation struct {
	policy *v1alpha1.PatchPolicy
	// tasks are the PatchTasks of the policy, whoever made them.
	tasks []*v1alpha1.PatchTask
	// governs says whether the policy governs a node. It is asked when a run is due.
	governs bool
	now     time.Time
}

// step is what is to be done about one named task.
type step struct {
	task *v1alpha1.NamedTask
	// state is what the status is to say once that is done, and was what it said
	// before, nil if nothing.
	state v1alpha1.ScheduledTask
	was   *v1alpha1.ScheduledTask
	// begins is the run to begin, zero if none is.
	begins time.Time
	// overtaken says which runs gave way to a later one, empty if none did.
	overtaken string
	// wake is when to look again, zero if nothing is known to happen.
	wake time.Time
}

// steps are those of the policy's tasks that have a schedule, in their order.
func (o *observation) steps() []step {
	var steps []step
	for i := range o.policy.Spec.Tasks {
		if task := &o.policy.Spec.Tasks[i]; task.Schedule != nil {
			steps = append(steps, o.step(task))
		}
	}
	return steps
}

func (o *observation) step(task *v1alpha1.NamedTask) step {
	s := step{task: task, was: findState(o.policy.Status.Tasks, task.Name)}
	s.state = v1alpha1.ScheduledTask{Name: task.Name, Schedule: fmt.Sprintf("%s %s", *task.Schedule, task.TimeZone)}
	if s.was != nil {
		s.state.Last, s.state.Missed, s.state.Message = s.was.Last.DeepCopy(), s.was.Missed, s.was.Message
	}
	o.recall(&s.state)
	if o.policy.Spec.Suspend {
		s.state.Message = ""
		return s
	}
	timetable, err := newTimetable(o.policy.UID, task)
	if err != nil {
		s.state.Message = "" // The policy's conditions say it.
		return s
	}
	// A schedule that is new, or goes on after a suspension, has missed nothing. One
	// that is the same has missed what it had announced.
	if s.was == nil || s.was.Next == nil || s.was.Schedule != s.state.Schedule {
		s.state.Message = ""
		o.announce(&s, timetable)
		return s
	}
	// The jitter may have been another one then.
	announced := timetable.Latest(s.was.Next.Add(-maxJitter-time.Second), s.was.Next.Time)
	if announced.IsZero() || timetable.begin(announced).After(o.now) {
		o.announce(&s, timetable)
		return s
	}
	o.due(&s, timetable, announced)
	return s
}

// recall finds the last run among the tasks: a manager that died after it had
// made a task did not say so in the status.
func (o *observation) recall(state *v1alpha1.ScheduledTask) {
	for _, task := range o.tasks {
		if run, scheduled := o.runOf(task, state.Name); scheduled && (state.Last == nil || run.After(state.Last.Time.Time)) {
			state.Last = &v1alpha1.ScheduledRun{Time: metav1.NewTime(run), Task: task.Name}
		}
	}
	if state.Last == nil {
		return
	}
	for _, task := range o.tasks {
		if task.Name == state.Last.Task && task.Status.Phase != "" {
			state.Last.Phase = task.Status.Phase
		}
	}
}

// announce says when the next run begins.
func (o *observation) announce(s *step, timetable *timetable) {
	from := o.now
	if last := s.state.Last; last != nil {
		if begun := timetable.begin(last.Time.Time); begun.After(from) && begun.Sub(from) <= clockError {
			from = begun
		}
	}
	s.state.Next = nil
	if run := timetable.upcoming(from); !run.IsZero() {
		s.wake = timetable.begin(run)
		s.state.Next = &metav1.Time{Time: s.wake}
	}
}

// due decides about the run that was announced, or the last of those that should
// have begun since.
func (o *observation) due(s *step, timetable *timetable, announced time.Time) {
	s.state.Message = ""
	// The runs in question are those after this time.
	after := announced.Add(-time.Second)
	if last := s.state.Last; last != nil && last.Time.After(after) && !last.Time.After(o.now) {
		s.overtake(timetable.count(after, last.Time.Time), last.Time.Time)
		after = last.Time.Time
	}
	run := timetable.begun(after, o.now)
	if run.IsZero() {
		// The last of them began already.
		o.announce(s, timetable)
		return
	}
	if !o.governs {
		s.state.Message = fmt.Sprintf("The run of %s was left out, as the policy governs no node", stamp(run))
		o.announce(s, timetable)
		return
	}
	if limit, why := o.startingDeadline(s.task); limit > 0 {
		latest := timetable.begin(run).Add(limit)
		if o.now.After(latest) {
			s.state.Missed += 1 + timetable.count(after, run)
			s.state.Message = fmt.Sprintf("The run of %s could not begin within %s", stamp(run), why)
			o.announce(s, timetable)
			return
		}
		s.wake = latest.Add(time.Second)
	}
	name := runName(o.policy.Name, s.task.Name, run)
	if other := o.unfinished(s.task.Name, name); other != "" {
		// The next run, too, waits or takes its place: the end of the other is what matters.
		s.state.Next = s.was.Next
		s.state.Message = fmt.Sprintf("The run of %s waits for the task %s to end", stamp(run), other)
		return
	}
	s.begins = run
	s.overtake(timetable.count(after, run), run)
	s.state.Last = &v1alpha1.ScheduledRun{Time: metav1.NewTime(run), Task: name}
	o.announce(s, timetable)
}

// startingDeadline is how late a run of a task may begin, zero for any time, and
// what to say of one that cannot.
func (o *observation) startingDeadline(task *v1alpha1.NamedTask) (limit time.Duration, why string) {
	switch {
	case task.StartingDeadline != nil:
		limit = task.StartingDeadline.Duration
		return limit, fmt.Sprintf("its startingDeadline of %s", limit)
	case task.Template.Action == v1alpha1.ActionDeploy && len(o.policy.Spec.MaintenanceWindows) == 0:
		return lateDeploy, fmt.Sprintf(
			"%s, which is how late a deployment without maintenance windows may be; set its startingDeadline to allow more", lateDeploy)
	default:
		return 0, ""
	}
}

// overtake counts runs that did not begin before a later one did.
func (s *step) overtake(runs int32, by time.Time) {
	if runs > 0 {
		s.state.Missed += runs
		s.overtaken = fmt.Sprintf("Runs that did not begin before that of %s: %d", stamp(by), runs)
	}
}

// news are what people have not been told yet: a sentence each, and the same ones
// as long as the status does not have them.
func (s *step) news() []string {
	var news []string
	if s.overtaken != "" {
		news = append(news, s.overtaken)
	}
	if s.state.Message != "" && (s.was == nil || s.was.Message != s.state.Message) {
		news = append(news, s.state.Message)
	}
	return news
}

// refuse takes back what a step was to say of a run that cannot begin, as the
// name of its task is taken.
func (s *step) refuse() {
	name := s.state.Last.Task
	s.state.Last = nil
	if s.was != nil {
		s.state.Last = s.was.Last
	}
	s.state.Missed++
	s.state.Message = fmt.Sprintf("The run of %s could not begin, as there is a PatchTask %s already that this policy did not make", stamp(s.begins), name)
}

// unchanged takes back all that a step was to say.
func (s *step) unchanged() {
	state := v1alpha1.ScheduledTask{Name: s.state.Name}
	if s.was != nil {
		state = *s.was
	}
	s.state, s.overtaken, s.wake = state, "", time.Time{}
}

// unfinished names a task that runs the named task, whoever started it, other
// than the run of the given name; empty if there is none.
func (o *observation) unfinished(named, run string) string {
	var names []string
	for _, task := range o.tasks {
		if task.Spec.Task == named && task.Name != run && !task.Finished() {
			names = append(names, task.Name)
		}
	}
	if len(names) == 0 {
		return ""
	}
	return slices.Min(names)
}

// runOf is the run of a named task that a PatchTask is, if it is one.
func (o *observation) runOf(task *v1alpha1.PatchTask, named string) (time.Time, bool) {
	if task.Spec.Task != named || !metav1.IsControlledBy(task, o.policy) {
		return time.Time{}, false
	}
	minutes, found := strings.CutPrefix(task.Name, o.policy.Name+"-"+named+"-")
	if !found {
		return time.Time{}, false
	}
	if short, second := strings.CutSuffix(minutes, "-"+mark(o.policy)); second {
		return minute(short, shortBase)
	}
	return minute(minutes, 10)
}

// runName is the name of the PatchTask of a run: that of the policy, of the task,
// and the run's minute since 1970.
func runName(policy, task string, run time.Time) string {
	return fmt.Sprintf("%s-%s-%d", policy, task, run.Unix()/60)
}

// shortBase makes of a minute five characters, so that the policy's mark fits into
// a label, too.
const shortBase = 36

// secondName is that of a run whose first name another one's task has: the policy
// web-prod with the task scan and the policy web with the task prod-scan share it.
func secondName(policy *v1alpha1.PatchPolicy, task string, run time.Time) string {
	return fmt.Sprintf("%s-%s-%s-%s", policy.Name, task, strconv.FormatInt(run.Unix()/60, shortBase), mark(policy))
}

// mark tells a policy from others.
func mark(policy *v1alpha1.PatchPolicy) string {
	sum := sha256.Sum256([]byte(policy.UID))
	return hex.EncodeToString(sum[:2])
}

// minute reads what names of runs say of their time.
func minute(text string, base int) (time.Time, bool) {
	minutes, err := strconv.ParseInt(text, base, 64)
	return time.Unix(minutes*60, 0).UTC(), err == nil && minutes > 0 && minutes < 1<<32
}

func findState(states []v1alpha1.ScheduledTask, name string) *v1alpha1.ScheduledTask {
	for i := range states {
		if states[i].Name == name {
			return &states[i]
		}
	}
	return nil
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
