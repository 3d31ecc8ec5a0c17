// Package patchlog writes the patch log: what happened, to which node, in which task, in words.
//
// Every entry is a Kubernetes Event, so that kubectl describe finds it. As the API server forgets
// Events after an hour, an agent's entries go first to a file on its host, which is the node's log of
// record and at the same time the queue of what the API server has not yet acknowledged.
//
// The manager and the agent share this package. It is written to be cheap to link: no typed clientset,
// no k8s.io/api, no controller-runtime.
package patchlog

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode/utf8"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

// Sink takes entries of the patch log. Writing the same entry again does no harm: it is the same entry.
type Sink interface {
	// Write returns nil once the entry is kept, by this call or by an earlier one.
	Write(ctx context.Context, entry Entry) error
}

// Entry is one entry of the patch log. Make it with one of the constructors of this package. It regards
// the node if it has one, else the task, and without either the policy.
type Entry struct {
	// Time is when it happened, which may be long before it reaches the API server.
	Time time.Time `json:"time"`
	// Reason is one of the Event constants of v1alpha1.
	Reason string `json:"reason"`
	// Warning marks an entry that a person should look at.
	Warning bool `json:"warning,omitempty"`
	// Message in sentences. An Event shows its first MaxNote bytes, the host's file all of it.
	Message string `json:"message"`
	// Node is the name of the Node that the entry is about.
	Node string `json:"node,omitempty"`
	// Task is the name of the PatchTask that the entry belongs to, and TaskUID its UID.
	Task    string    `json:"task,omitempty"`
	TaskUID types.UID `json:"taskUID,omitempty"`
	// Policy is the name of the PatchPolicy that the entry belongs to, and PolicyUID its UID, which only
	// an entry needs that regards it.
	Policy    string    `json:"policy,omitempty"`
	PolicyUID types.UID `json:"policyUID,omitempty"`
	// Key tells the entry from the others of its node and task. An entry with the same node, task and
	// key is a repetition, whatever its time and message.
	Key string `json:"key"`
}

// MaxNote is how many bytes an Event's note may have; the API server refuses longer ones.
const MaxNote = 1024

// validate says why an entry cannot be written. Such an entry is an error in this program.
func (e Entry) validate() error {
	switch {
	case e.Reason == "":
		return errors.New("an entry of the patch log has no reason")
	case e.Key == "":
		return fmt.Errorf("the entry %s of the patch log has no key", e.Reason)
	case e.Time.IsZero():
		return fmt.Errorf("the entry %s of the patch log has no time", e.Reason)
	case e.Node == "" && (e.Task == "" || e.TaskUID == "") && (e.Policy == "" || e.PolicyUID == ""):
		return fmt.Errorf("the entry %s of the patch log regards neither a node nor a task nor a policy", e.Reason)
	}
	return nil
}

// id is the same for every repetition of an entry, and no other entry's: 20 hexadecimal digits. kubectl
// describe sorts Events by whole seconds and leaves those of one second in the order of their names, so
// the first two digits put what begins before what ends.
func (e Entry) id() string {
	sum := sha256.Sum256([]byte(strings.Join([]string{e.Node, string(e.TaskUID), e.Key}, "\x00")))
	return place(e.Reason) + hex.EncodeToString(sum[:9])
}

func place(reason string) string {
	switch reason {
	case v1alpha1.EventTaskStarted, v1alpha1.EventScanStarted:
		return "10"
	case v1alpha1.EventPatchDataRefreshed, v1alpha1.EventPatchDataStale:
		return "20"
	case v1alpha1.EventScanFinished, v1alpha1.EventScanFailed:
		return "30"
	case v1alpha1.EventTransactionInterrupted, v1alpha1.EventPackagesRepaired, v1alpha1.EventRepairFailed:
		return "40"
	case v1alpha1.EventPatchesDownloaded:
		return "50"
	case v1alpha1.EventPatchesInstalled:
		return "51"
	case v1alpha1.EventDownloadFailed, v1alpha1.EventInstallFailed, v1alpha1.EventPatchesWarned:
		return "60"
	case v1alpha1.EventPatchesBlocked, v1alpha1.EventPatchesNotTried:
		return "70"
	case v1alpha1.EventNodeWaiting:
		return "75"
	default:
		return "80"
	}
}

// LogEntry is the entry as it stands in a PatchTask's status.
func (e Entry) LogEntry() v1alpha1.LogEntry {
	return v1alpha1.LogEntry{
		Time:    metav1.NewMicroTime(e.Time),
		Reason:  e.Reason,
		Node:    e.Node,
		Message: note(e.Message),
	}
}

// LabelValue is how a name stands in a label of the patch log: as it is where it fits, else its first
// 52 characters, a dash and 10 hexadecimal digits of its SHA-256.
func LabelValue(name string) string {
	const limit, kept = 63, 52
	if len(name) <= limit {
		return name
	}
	sum := sha256.Sum256([]byte(name))
	return name[:kept] + "-" + hex.EncodeToString(sum[:5])
}

// note makes a message what an Event takes: one line, as kubectl prints it in a table, and cut between two
// characters with a mark.
func note(message string) string {
	line := strings.Join(strings.Fields(strings.ToValidUTF8(message, "\uFFFD")), " ")
	return cut(line, MaxNote)
}

func cut(text string, limit int) string {
	const mark = "…"
	if len(text) <= limit {
		return text
	}
	end := limit - len(mark)
	for end > 0 && !utf8.RuneStart(text[end]) {
		end--
	}
	return text[:end] + mark
}
