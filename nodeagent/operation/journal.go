package operation

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/nodeagent/host"
)

// maxEarlier is how many ended operations an assignment's status lists.
const maxEarlier = 8

// phase is the step of its own work that an operation has reached on the host.
type phase string

const (
	phaseRefresh  phase = "Refresh"
	phaseScan     phase = "Scan"
	phaseDownload phase = "Download"
	// phasePrepared looks at what lies ready before the operation waits to install it.
	phasePrepared phase = "Prepared"
	// phaseReady waits to be let on to install.
	phaseReady   phase = "Ready"
	phaseInstall phase = "Install"
	phaseVerify  phase = "Verify"
	// phaseDue waits to be let on to reboot.
	phaseDue phase = "RebootDue"
	// phaseReboot has the host reboot, and lasts until it is back.
	phaseReboot phase = "Reboot"
	phaseEnded  phase = "Ended"
)

// waits says whether a phase ends only when the manager raises the step.
func (p phase) waits() bool { return p == phaseReady || p == phaseDue }

// step is the phase in the words of the API.
func (p phase) step() v1alpha1.Step {
	switch p {
	case phaseDownload, phasePrepared:
		return v1alpha1.StepDownloading
	case phaseReady, phaseDue:
		return v1alpha1.StepWaiting
	case phaseInstall:
		return v1alpha1.StepInstalling
	case phaseVerify:
		return v1alpha1.StepVerifying
	case phaseReboot:
		return v1alpha1.StepRebooting
	default:
		return v1alpha1.StepScanning
	}
}

// record is one operation in the journal.
type record struct {
	v1alpha1.Operation
	Policy string `json:"policy,omitempty"`
	// Phase says where to go on after a restart.
	Phase phase `json:"phase"`
	// BootID is that of the boot in which the operation began, or in which it began to wait for a reboot.
	BootID string `json:"bootID"`
	// Attempts is how many agents took the phase up.
	Attempts int       `json:"attempts"`
	Started  time.Time `json:"started"`
	// Refresh is set once the refresh is over, with or without success.
	Refresh *finding `json:"refresh,omitempty"`
	// Repairs is how often the package database was put right on arrival, or begun to be.
	Repairs int `json:"repairs,omitempty"`
	// Repairing is why it is being put right now; empty if it is not. The next agent waits for what this one began.
	Repairing string `json:"repairing,omitempty"`
	// Wait is what it waits for, in a phase that waits, and until the host is asked to reboot.
	Wait *waiting `json:"wait,omitempty"`
	// Reboots are those that the host is asked for, in their order. Each is on disk before the host is asked.
	Reboots []rebootOrder `json:"reboots,omitempty"`
	// Forgot is set where the journal was lost after the operation had come to a reboot: for what reasons it was, nobody knows.
	Forgot bool `json:"forgot,omitempty"`
	// Trouble is what is wrong with the reboots, if it is no patch's failure.
	Trouble *finding `json:"trouble,omitempty"`
	// Outcome is set once the operation has ended.
	Outcome *v1alpha1.EndedOperation `json:"outcome,omitempty"`
}

// finding is how a part of the work went.
type finding struct {
	OK      bool      `json:"ok"`
	Reason  string    `json:"reason"`
	Message string    `json:"message,omitempty"`
	Time    time.Time `json:"time"`
	// Began is when a refresh began; zero where an earlier agent had begun it.
	Began time.Time `json:"began,omitzero"`
}

// journal is what the agent must still know after a crash. It is kept on the host, and every change is on disk before the
// agent acts on it.
type journal struct {
	dir string
	// file in it that this is kept in.
	file string

	// AssignmentUID is that of the assignment last seen.
	AssignmentUID types.UID                 `json:"assignmentUID,omitempty"`
	Current       *record                   `json:"current,omitempty"`
	Earlier       []v1alpha1.EndedOperation `json:"earlier,omitempty"`
	// What the API server has not acknowledged yet.
	ReportPending bool `json:"reportPending,omitempty"`
	StatusPending bool `json:"statusPending,omitempty"`
	// LogCleared is what people had deleted from the patch log when the report was last sent, which has the end of it.
	LogCleared string `json:"logCleared,omitempty"`
	// Refreshes is patchDataRefreshes of the assignment up to which fresh patch data was seen to.
	Refreshes int64 `json:"refreshes,omitempty"`
}

const (
	journalFile   = "operation.json"
	reportFile    = "report.json"
	firstSeenFile = "first-seen.json"
	// patchDataFile is the journal of updates of the patch data, which belong to no task.
	patchDataFile = "patch-data.json"
)

// openJournal reads a journal in a directory, which is created. A journal that cannot be decoded is set aside and an
// empty one returned, with the error: losing it costs a scan that is run again.
func openJournal(dir, file string) (*journal, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("create the journal's directory: %w", err)
	}
	j := &journal{dir: dir, file: file}
	if err := j.load(file, j); err != nil {
		return &journal{dir: dir, file: file}, err
	}
	return j, nil
}

func (j *journal) save() error { return j.store(j.file, j) }

// knows says whether the operation was begun before, also if it has ended since.
func (j *journal) knows(id string) bool {
	return j.Current != nil && j.Current.ID == id ||
		slices.ContainsFunc(j.Earlier, func(e v1alpha1.EndedOperation) bool { return e.OperationID == id })
}

// live says whether the current operation has not ended.
func (j *journal) live() bool { return j.Current != nil && j.Current.Phase != phaseEnded }

// overtaken says whether a word about the progress of the current operation is the last that the API server has heard of it,
// and came after what is to stand there.
func (j *journal) overtaken(step v1alpha1.Step) bool {
	if !j.live() {
		return !step.Ended()
	}
	return j.Current.Phase.waits() && step != v1alpha1.StepWaiting
}

// begin makes an operation the current one.
func (j *journal) begin(r *record) {
	if j.Current != nil && j.Current.Outcome != nil {
		j.Earlier = slices.Insert(j.Earlier, 0, *j.Current.Outcome)
		j.Earlier = j.Earlier[:min(len(j.Earlier), maxEarlier)]
	}
	j.Current = r
	j.StatusPending = false
}

// end ends the current operation and asks for its outcome to be sent.
func (j *journal) end(outcome v1alpha1.EndedOperation) {
	j.Current.Phase = phaseEnded
	j.Current.Outcome = &outcome
	j.StatusPending = true
}

// status is the agent's half of the assignment's status.
func (j *journal) status(version string) *v1alpha1.AgentStatus {
	s := &v1alpha1.AgentStatus{
		OperationID: j.Current.ID,
		Task:        j.Current.Task,
		Step:        j.Current.Phase.step(),
		Time:        &metav1.Time{Time: j.Current.Started},
		Version:     version,
		Earlier:     j.Earlier,
		Reboots:     j.Current.rebooted(),
	}
	if wait := j.Current.Wait; wait != nil && j.Current.Phase.waits() {
		s.Time, s.Reason, s.Message, s.Counts = &metav1.Time{Time: wait.Since}, wait.Reason, cut(wait.Message, 1024), wait.Counts
	}
	if o := j.Current.Outcome; o != nil {
		s.Step, s.Time, s.Reason, s.Message, s.Counts = o.Step, o.Time, o.Reason, o.Message, o.Counts
	}
	return s
}

// load decodes a file of the journal; one that is not there leaves v as it is. One that cannot be decoded is renamed.
func (j *journal) load(name string, v any) error {
	path := filepath.Join(j.dir, name)
	b, err := os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the journal: %w", err)
	}
	if err := json.Unmarshal(b, v); err != nil {
		return errors.Join(fmt.Errorf("decode %s, which is set aside: %w", path, err), os.Rename(path, path+".corrupt"))
	}
	return nil
}

// store replaces a file of the journal, so that after a crash or a power cut it is either the old or the new one.
func (j *journal) store(name string, v any) error {
	b, err := json.Marshal(v)
	if err != nil {
		return fmt.Errorf("encode the journal: %w", err)
	}
	path := filepath.Join(j.dir, name)
	if err := host.Replace(path, b); err != nil {
		return fmt.Errorf("write the journal %s: %w", path, err)
	}
	return nil
}
