package assignment

import (
	"context"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
	apply "github.com/nodepatch/nodepatch/api/v1alpha1/applyconfiguration/api/v1alpha1"
	"github.com/nodepatch/nodepatch/controllers/agents"
	"github.com/nodepatch/nodepatch/controllers/maintenance"
)

// tell says what a node waits for: in its assignment and in the Node's conditions.
func (r *Reconciler) tell(ctx context.Context, in *Input, decision *Decision) error {
	operation := in.Assignment.Spec.Operation
	if _, err := r.applyConditions(ctx, in.Node, decision.Progress, operation.Task); err != nil {
		return err
	}
	status := v1alpha1.ControllerStatus{
		Agent: in.Presence.Agent, OperationID: operation.ID, Step: decision.Step,
		Reason: decision.Reason, Message: cut(decision.Message),
	}
	status.Since = ptr.To(metav1.NewTime(in.Now).Rfc3339Copy())
	if said := in.Assignment.Status.Controller; said != nil && said.OperationID == status.OperationID && said.Step == status.Step && said.Since != nil &&
		(said.Reason == v1alpha1.ReasonHookRunning) == (status.Reason == v1alpha1.ReasonHookRunning) {
		status.Since = said.Since
	}
	return r.say(ctx, in.Assignment, status)
}

// say writes status.controller if it changes.
func (r *Reconciler) say(ctx context.Context, assignment *v1alpha1.PatchAssignment, status v1alpha1.ControllerStatus) error {
	if said := assignment.Status.Controller; said != nil && equality.Semantic.DeepEqual(*said, status) {
		return nil
	}
	said := apply.ControllerStatus().WithAgent(status.Agent)
	if status.OperationID != "" {
		said = said.WithOperationID(status.OperationID).WithStep(status.Step).WithSince(*status.Since)
	}
	if status.Reason != "" {
		said = said.WithReason(status.Reason)
	}
	if status.Message != "" {
		said = said.WithMessage(status.Message)
	}
	configuration := apply.PatchAssignment(assignment.Name).
		WithUID(assignment.UID).
		WithStatus(apply.PatchAssignmentStatus().WithController(said))
	err := r.Client.Status().Apply(ctx, configuration, client.FieldOwner(v1alpha1.ManagerFieldOwner), client.ForceOwnership)
	if err != nil && !gone(err) {
		return fmt.Errorf("writing what the manager says about node %s: %w", assignment.Name, err)
	}
	return nil
}

// applyConditions makes the Node's conditions tell the progress of its disruption,
// and says whether they did not already.
func (r *Reconciler) applyConditions(ctx context.Context, node *corev1.Node, progress maintenance.Progress, task string) (changed bool, err error) {
	configuration := maintenance.Conditions(node, progress, task, r.Clock.Now())
	if configuration == nil {
		return false, nil
	}
	err = r.Client.Status().Apply(ctx, configuration, client.FieldOwner(v1alpha1.ManagerFieldOwner), client.ForceOwnership)
	if err != nil && !gone(err) {
		return false, fmt.Errorf("writing the conditions of node %s: %w", node.Name, err)
	}
	return true, nil
}

// presence says whether a node's agent is there.
func (r *Reconciler) presence(ctx context.Context, node *corev1.Node) (v1alpha1.ControllerStatus, error) {
	var pods corev1.PodList
	err := r.Client.List(ctx, &pods, client.InNamespace(r.Namespace), client.MatchingLabels(agents.PodLabels),
		client.MatchingFields{podNodeField: node.Name})
	if err != nil {
		return v1alpha1.ControllerStatus{}, fmt.Errorf("listing the agent's pods on node %s: %w", node.Name, err)
	}
	return Presence(node, pods.Items), nil
}
