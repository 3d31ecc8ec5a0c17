// Package hooks runs the pods of hooks on a node: made from a PodTemplate, bound
// to the node, run once to completion, and removed. It never waits.
package hooks

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/utils/clock"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodepatch/nodepatch/api/patchlog"
	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

// Point is when a hook runs, under the name of its field in the API.
type Point string

const (
	// PreDisrupt is before anything happens to the node.
	PreDisrupt Point = "preDisrupt"
	// PostInstall is after the packages were installed, before a reboot.
	PostInstall Point = "postInstall"
	// PostReboot is after a reboot, before pods are let in again.
	PostReboot Point = "postReboot"
)

// Hook is what is to run.
type Hook struct {
	// Point of the operation at which it runs.
	Point Point
	// Hook is what the task says about it.
	Hook *v1alpha1.Hook
	// Node that it runs on, by name.
	Node string
	// OperationID of the operation that it is part of. Each runs its hooks anew.
	OperationID string
	// Task that the operation belongs to, by name.
	Task string
}

// timeout is the hook's, or the API's default.
func (h Hook) timeout() time.Duration {
	return cmp.Or(h.Hook.Timeout.Duration, defaultTimeout)
}

// defaultTimeout is that of a hook that was not defaulted by the API server.
const defaultTimeout = 5 * time.Minute

// Phase is how far a hook has come.
type Phase string

const (
	// Running: its pod is there, or was just made, and has not ended.
	Running Phase = "Running"
	// Succeeded: all containers of its pod ended with status 0.
	Succeeded Phase = "Succeeded"
	// Failed: its pod failed, was deleted, could not be made, or did not end in time.
	Failed Phase = "Failed"
)

// State is how a hook stands.
type State struct {
	Phase Phase
	// Message says what the hook waits for, or why it failed, to go on with after
	// the hook's name: "waits for its pod …", "its pod … was refused". At most 512
	// bytes, one line, without durations that go by; empty if it succeeded.
	Message string
	// Took is the time from the making of the pod to its end, 0 before that.
	Took time.Duration
}

// Runner runs hooks. It is safe for use by many goroutines, and two managers that
// run the same hook make one pod.
type Runner struct {
	client    client.Client
	live      client.Reader
	namespace string
	clock     clock.PassiveClock

	mutex sync.Mutex
	// seen is what this manager remembers of pods, by name, until Clean: where one
	// is deleted by force, nothing else tells that it was ever there. A manager
	// that was started since makes it once more.
	seen map[string]memory
}

// memory is what is known of a hook's pod without the pod.
type memory struct {
	node, operationID string
	// since is when the hook was first asked for.
	since time.Time
	made  bool
	// end is how it ended, nil before.
	end *State
}

// New makes a Runner; live reads from the API server, and namespace is that of
// the PodTemplates and the pods: the operator's own.
func New(client client.Client, live client.Reader, namespace string) *Runner {
	return &Runner{client: client, live: live, namespace: namespace, clock: clock.RealClock{}, seen: map[string]memory{}}
}

// Run looks at the hook's pod, makes it if it is not there, and says how it
// stands. Whatever cannot succeed any more is Failed; an error is that of an API
// server that is not there, or too busy, and Run is to be called again.
func (r *Runner) Run(ctx context.Context, hook Hook) (State, error) {
	name := podName(hook)
	known := r.recall(name, hook)
	if known.end != nil {
		return *known.end, nil
	}
	pod := &corev1.Pod{}
	err := r.live.Get(ctx, client.ObjectKey{Namespace: r.namespace, Name: name}, pod)
	var state State
	switch {
	case err == nil && pod.Annotations[operationAnnotation] != hook.OperationID:
		state = failed("the pod %s is there already, and is not of this operation", name)
	case err == nil:
		state = r.read(ctx, hook, pod)
	case !apierrors.IsNotFound(err):
		return State{}, fmt.Errorf("reading the pod of hook %s: %w", hook.Point, err)
	case known.made:
		state = failed("its pod %s was deleted before it ended", name)
	default:
		state, err = r.start(ctx, hook)
		if err != nil && r.clock.Since(known.since) <= hook.timeout() {
			return State{}, err
		}
		if err != nil {
			state = failed("its pod could not be made within %s: %v", hook.timeout(), err)
		}
	}
	r.remember(name, state)
	return state, nil
}

// start makes the hook's pod.
func (r *Runner) start(ctx context.Context, hook Hook) (State, error) {
	template := &corev1.PodTemplate{}
	err := r.live.Get(ctx, client.ObjectKey{Namespace: r.namespace, Name: hook.Hook.PodTemplate}, template)
	if apierrors.IsNotFound(err) {
		return failed("there is no PodTemplate %s in namespace %s", hook.Hook.PodTemplate, r.namespace), nil
	}
	if err != nil {
		return State{}, fmt.Errorf("reading the PodTemplate of hook %s: %w", hook.Point, err)
	}
	pod := hookPod(hook, template, r.namespace)
	err = r.client.Create(ctx, pod)
	switch {
	case err == nil, apierrors.IsAlreadyExists(err):
		// If another manager was faster, the next look says whose pod it is.
		return State{Phase: Running, Message: fmt.Sprintf("waits for its pod %s", pod.Name)}, nil
	case refused(err):
		return failed("its pod was refused: %v", err), nil
	}
	return State{}, fmt.Errorf("making the pod of hook %s: %w", hook.Point, err)
}

// refused says whether the API server, or a webhook of it, will have no such pod.
func refused(err error) bool {
	return apierrors.IsForbidden(err) || apierrors.IsInvalid(err) || apierrors.IsBadRequest(err)
}

// Clean removes the pods of an operation's hooks from a node. A node without any
// costs one read.
func (r *Runner) Clean(ctx context.Context, node, operationID string) error {
	var pods corev1.PodList
	labels := client.MatchingLabels(podLabels())
	labels[v1alpha1.NodeLabel] = patchlog.LabelValue(node)
	if err := r.live.List(ctx, &pods, client.InNamespace(r.namespace), labels); err != nil {
		return fmt.Errorf("listing the pods of hooks on node %s: %w", node, err)
	}
	var errs []error
	for i := range pods.Items {
		pod := &pods.Items[i]
		if pod.Annotations[operationAnnotation] != operationID || pod.DeletionTimestamp != nil {
			continue
		}
		err := r.client.Delete(ctx, pod, client.Preconditions{UID: &pod.UID})
		if err != nil && !apierrors.IsNotFound(err) && !apierrors.IsConflict(err) {
			errs = append(errs, fmt.Errorf("removing the pod %s of a hook: %w", pod.Name, err))
		}
	}
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	r.forget(node, operationID)
	return nil
}

// recall is what is remembered of a hook, which begins with its first call.
func (r *Runner) recall(name string, hook Hook) memory {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	known, found := r.seen[name]
	if !found || known.operationID != hook.OperationID {
		known = memory{node: hook.Node, operationID: hook.OperationID, since: r.clock.Now()}
		r.seen[name] = known
	}
	return known
}

func (r *Runner) remember(name string, state State) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	known, found := r.seen[name]
	if !found {
		return
	}
	known.made = true
	if state.Phase != Running {
		known.end = &state
	}
	r.seen[name] = known
}

func (r *Runner) forget(node, operationID string) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	for name, known := range r.seen {
		if known.node == node && known.operationID == operationID {
			delete(r.seen, name)
		}
	}
}
