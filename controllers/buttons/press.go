package buttons

import (
	"context"
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/klog/v2"
	"k8s.io/utils/clock"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodepatch/nodepatch/api/patchlog"
	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

// maxToken is how many characters a token has at most that is a value of its own.
const maxToken = 128

// tokens are what clear-log and update-patch-data take for a value.
var tokens = regexp.MustCompile(`^([A-Za-z0-9][A-Za-z0-9._:+-]*)?$`)

// Presses acts on the buttons of other objects than PatchRetries, one at a time
// for each object.
//
// A press begins with a write that gives it a number and remembers all that acting
// on it depends on, also its token for good. Each part of the act can be repeated
// without being done twice, and so can the answer, whose entry bears the number.
// Only then is the annotation taken off, and the press forgotten. Whoever finds a
// press that was begun, after a crash or beside another manager, goes on with it.
// Only a press of the very same value, without a token, that comes while no manager
// runs and the last one died between its last two writes is taken for that one.
type Presses struct {
	// Client reads what it wrote before.
	Client client.Client
	// Entries reads and deletes Events at the API server itself.
	Entries client.Client
	// Log takes the manager's entries of the patch log.
	Log patchlog.Sink
	// Clock tells the time.
	Clock clock.PassiveClock
}

// button is one button of a kind.
type button struct {
	// annotation that is the button.
	annotation string
	// note puts into a press that begins what acting on it depends on, or is nil.
	// The object's status is written after it, and may be changed with it.
	note func(ctx context.Context, object client.Object, press *v1alpha1.ButtonPress) error
	// act does what is asked for, or a part of it: it is then to be called again
	// after a while. With again zero, that was all.
	act func(ctx context.Context, object client.Object, press *v1alpha1.ButtonPress) (said answer, again time.Duration, err error)
}

// answer is what the patch log says about a press.
type answer struct {
	entry   func(at time.Time, pressed patchlog.Pressed, message string) patchlog.Entry
	message string
}

// reconcile acts on the first button that is pressed. On says what the buttons
// are on, but for the press itself.
func (p *Presses) reconcile(ctx context.Context, object client.Object, on patchlog.Pressed, buttons []button) (ctrl.Result, error) {
	if object.GetDeletionTimestamp() != nil {
		return ctrl.Result{}, nil
	}
	if pressOf(object) == nil {
		pressed := slices.IndexFunc(buttons, func(b button) bool { return waits(object, b.annotation) })
		if pressed < 0 {
			return ctrl.Result{}, nil
		}
		if err := p.begin(ctx, object, buttons[pressed]); err != nil {
			return settle(err)
		}
	}
	press := *pressOf(object)
	said := answer{patchlog.ButtonRefused, refusal(press.Button, press.Value)}
	at := slices.IndexFunc(buttons, func(b button) bool { return b.annotation == press.Button })
	switch {
	case at < 0:
		said.message = "This manager does not know the button " + press.Button
	case said.message == "":
		var again time.Duration
		var err error
		if said, again, err = buttons[at].act(ctx, object, &press); err != nil {
			return settle(err)
		}
		if again > 0 {
			return ctrl.Result{RequeueAfter: again}, nil
		}
	}
	on.UID, on.Number = object.GetUID(), press.Number
	if err := p.Log.Write(ctx, said.entry(p.Clock.Now(), on, said.message)); err != nil {
		return ctrl.Result{}, err
	}
	for _, step := range []func(context.Context, client.Object, *v1alpha1.ButtonPress) error{p.release, p.forget} {
		if err := step(ctx, object, &press); err != nil {
			return settle(err)
		}
	}
	klog.FromContext(ctx).Info("Acted on a button", "button", press.Button, "number", press.Number, "answer", said.message)
	return ctrl.Result{}, nil
}

// begin makes it a press with a number. From then on it happens, whatever becomes
// of the annotation.
func (p *Presses) begin(ctx context.Context, object client.Object, b button) error {
	value := object.GetAnnotations()[b.annotation]
	before, ok := object.DeepCopyObject().(client.Object)
	if !ok {
		return fmt.Errorf("%T has no copy", object)
	}
	status := handledOf(object)
	if *status == nil {
		*status = &v1alpha1.HandledButtons{}
	}
	h := *status
	h.Presses++
	h.Press = &v1alpha1.ButtonPress{
		Button: b.annotation, Value: handled(value), Number: h.Presses, Time: metav1.NewMicroTime(p.Clock.Now()),
	}
	if token := tokenOf(b.annotation, value); token != "" {
		*memory(h, b.annotation) = token
	}
	if b.note != nil && refusal(b.annotation, value) == "" {
		if err := b.note(ctx, object, h.Press); err != nil {
			return err
		}
	}
	patch := client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})
	if err := p.Client.Status().Patch(ctx, object, patch, client.FieldOwner(v1alpha1.ManagerFieldOwner)); err != nil {
		return fmt.Errorf("beginning with %s of %s: %w", b.annotation, object.GetName(), outdated(err))
	}
	return nil
}

// release takes the annotation off, so that the button can be pressed again. If
// it was pressed with another value in the meantime, that stays and is next.
func (p *Presses) release(ctx context.Context, object client.Object, press *v1alpha1.ButtonPress) error {
	value, pressed := object.GetAnnotations()[press.Button]
	if !pressed || handled(value) != press.Value {
		return nil
	}
	before, ok := object.DeepCopyObject().(client.Object)
	if !ok {
		return fmt.Errorf("%T has no copy", object)
	}
	delete(object.GetAnnotations(), press.Button)
	patch := client.MergeFromWithOptions(before, client.MergeFromWithOptimisticLock{})
	if err := p.Client.Patch(ctx, object, patch, client.FieldOwner(v1alpha1.ManagerFieldOwner)); err != nil {
		return fmt.Errorf("removing %s from %s: %w", press.Button, object.GetName(), outdated(err))
	}
	return nil
}

// forget ends the press. It goes by what it ends and not by the resourceVersion:
// whoever writes the object at the same time is not in its way.
func (p *Presses) forget(ctx context.Context, object client.Object, press *v1alpha1.ButtonPress) error {
	body, err := json.Marshal([]map[string]any{
		{"op": "test", "path": "/status/handled/press/number", "value": press.Number},
		{"op": "remove", "path": "/status/handled/press"},
	})
	if err != nil {
		return fmt.Errorf("encoding what to forget: %w", err)
	}
	patch := client.RawPatch(types.JSONPatchType, body)
	if err := p.Client.Status().Patch(ctx, object, patch, client.FieldOwner(v1alpha1.ManagerFieldOwner)); err != nil {
		return fmt.Errorf("forgetting %s of %s: %w", press.Button, object.GetName(), outdated(err))
	}
	return nil
}

// waits says whether a button is pressed and was not acted on.
func waits(object client.Object, annotation string) bool {
	value, pressed := object.GetAnnotations()[annotation]
	if !pressed {
		return false
	}
	token, h := tokenOf(annotation, value), *handledOf(object)
	return token == "" || h == nil || *memory(h, annotation) != token
}

// refusal is what to write instead of a value that makes no sense; empty if it
// makes some.
func refusal(annotation, value string) string {
	if annotation == v1alpha1.ClearRetriesAnnotation {
		if c := parseClearing(value); !c.all && len(c.names) == 0 {
			return noClearing
		}
		return ""
	}
	if len(value) > maxToken || !tokens.MatchString(value) {
		return "Nothing was done: " + annotation + " takes no value, or for Git a token of at most 128 letters, digits and . _ : + -, such as 2026-11-22"
	}
	return ""
}

// tokenOf is what is remembered of a value for good, so that it acts once: empty
// if nothing is.
func tokenOf(annotation, value string) string {
	switch {
	case refusal(annotation, value) != "":
		return ""
	case annotation != v1alpha1.ClearRetriesAnnotation:
		return value
	case parseClearing(value).token != "":
		return handled(value)
	}
	return ""
}

// memory is where the token of a button is remembered.
func memory(h *v1alpha1.HandledButtons, annotation string) *string {
	switch annotation {
	case v1alpha1.ClearRetriesAnnotation:
		return &h.ClearRetries
	case v1alpha1.ClearLogAnnotation:
		return &h.ClearLog
	default:
		return &h.UpdatePatchData
	}
}

// handledOf is where the status of an object remembers its buttons.
func handledOf(object client.Object) **v1alpha1.HandledButtons {
	switch o := object.(type) {
	case *v1alpha1.PatchPolicy:
		return &o.Status.Handled
	case *v1alpha1.PatchReport:
		return &o.Status.Handled
	case *v1alpha1.PatchTask:
		return &o.Status.Handled
	default:
		panic(fmt.Sprintf("%T has no buttons here", object))
	}
}

// pressOf is the press that is being acted on; nil if none is.
func pressOf(object client.Object) *v1alpha1.ButtonPress {
	if h := *handledOf(object); h != nil {
		return h.Press
	}
	return nil
}
