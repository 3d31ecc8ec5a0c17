// Package maintenance changes a Node for its disruption and remembers on the Node
// itself what it was before, so that exactly that is undone: also by a manager
// that has just started, and when the Node's assignment is gone.
//
// All functions change the Node that they are given and nothing else: what they
// did is one write of the caller, with the Node's resourceVersion in it. The
// Node has to be read from the API server, as a cache holds no managed fields.
package maintenance

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

// version of the records that this program writes.
const version = 1

var (
	// ErrDamaged says that a Node's record cannot be read: somebody edited it.
	ErrDamaged = errors.New("the record of the node's maintenance is damaged")
	// ErrNewer says that a newer nodepatch wrote a Node's record. What this one
	// knows of it is there.
	ErrNewer = errors.New("a newer nodepatch wrote the record of the node's maintenance")
)

// Stage is what a node is being got ready for.
type Stage string

const (
	// StageInstall is a node that is drained before packages are installed.
	StageInstall Stage = "Install"
	// StageReboot is a node that is on its way to a reboot.
	StageReboot Stage = "Reboot"
)

// Subject is what a node is disrupted for.
type Subject struct {
	// OperationID is the operation's, which is the UID of the task.
	OperationID string `json:"operation"`
	// Task is the name of the PatchTask, and Policy that of its PatchPolicy.
	Task   string `json:"task"`
	Policy string `json:"policy,omitempty"`
}

// Record is what nodepatch remembers on a Node that it disrupts.
type Record struct {
	Version int `json:"version"`
	Subject
	// Since is when the disruption began. Times are to the microsecond, as the patch
	// log takes them from here and is read in their order.
	Since metav1.MicroTime `json:"since"`
	// BootID is the node's before its reboot, empty if that is not known.
	BootID string `json:"bootID,omitempty"`
	// Annotations and Labels are what was changed of them, by key.
	Annotations map[string]Change `json:"annotations,omitempty"`
	Labels      map[string]Change `json:"labels,omitempty"`
	// Cordoned is when nodepatch cordoned the node; nil if it did not.
	Cordoned *metav1.MicroTime `json:"cordoned,omitempty"`
	// Stage that the node has entered, and since when.
	Stage      Stage             `json:"stage,omitempty"`
	StageSince *metav1.MicroTime `json:"stageSince,omitempty"`
	// Broken are the DaemonSets, as namespace/name, whose pod on the node was not
	// ready before the disruption. Nobody waits for them after it.
	Broken []string `json:"broken,omitempty"`
	// Containers are the beginnings of the IDs of those that the DaemonSets' pods ran
	// when the node entered the stage Reboot. No container outlives a reboot, so that
	// a pod that has one of them is as the kubelet saw it before.
	Containers []string `json:"containers,omitempty"`
	// Restored is when the Node was put back to what it was; nil before that.
	Restored *metav1.MicroTime `json:"restored,omitempty"`
	// Uncordoned says that the cordon was taken back with it.
	Uncordoned bool `json:"uncordoned,omitempty"`
	// Outcome is how the disruption ended before its time; nil if it did not. It
	// is decided in the same write that restores the Node.
	Outcome *Outcome `json:"outcome,omitempty"`
}

// Change of an annotation or a label.
type Change struct {
	// Set is the value that it was given.
	Set string `json:"set"`
	// Before is the value that it had; nil if it was not there.
	Before *string `json:"before,omitempty"`
}

// Outcome is how a disruption ended.
type Outcome struct {
	// Step is Failed or Stopped.
	Step v1alpha1.Step `json:"step"`
	// Reason in one word and Message in a sentence.
	Reason  string `json:"reason"`
	Message string `json:"message,omitempty"`
}

// Read returns a Node's record, nil if there is none. The error is ErrDamaged,
// without a record, or ErrNewer, with one.
func Read(node *corev1.Node) (*Record, error) {
	text, found := node.Annotations[v1alpha1.MaintenanceAnnotation]
	if !found {
		return nil, nil
	}
	record := &Record{}
	if err := json.Unmarshal([]byte(text), record); err != nil {
		// An unknown shape of one field leaves the fields before it read: that is
		// not enough to go by.
		if newer(text) {
			return nil, fmt.Errorf("%w, in a form that this one cannot read: %w", ErrNewer, err)
		}
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	switch {
	case record.Stage != "" && record.StageSince == nil, record.Uncordoned && record.Restored == nil:
		return nil, fmt.Errorf("%w: a time is missing", cmp.Or(later(record.Version), ErrDamaged))
	case record.Version > version:
		return record, fmt.Errorf("%w (version %d, this one knows %d)", ErrNewer, record.Version, version)
	case record.Version < 1 || record.OperationID == "":
		return nil, fmt.Errorf("%w: it names no version or no operation", ErrDamaged)
	}
	return record, nil
}

// later is ErrNewer for a version after this program's.
func later(of int) error {
	if of > version {
		return ErrNewer
	}
	return nil
}

// newer says whether a text that is no record of this version is one of a later.
func newer(text string) bool {
	var head struct {
		Version int `json:"version"`
	}
	return json.Unmarshal([]byte(text), &head) == nil && head.Version > version
}

// write puts the record on the Node.
func (r *Record) write(node *corev1.Node) {
	text, err := json.Marshal(r)
	if err != nil {
		// Strings, times and integers always have a form in JSON.
		panic(fmt.Sprintf("encoding the record of a node's maintenance: %v", err))
	}
	metav1.SetMetaDataAnnotation(&node.ObjectMeta, v1alpha1.MaintenanceAnnotation, string(text))
}
