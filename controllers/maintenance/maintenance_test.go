package maintenance

import (
	"errors"
	"fmt"
	"maps"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

var (
	began = time.Date(2026, 11, 23, 1, 0, 0, 0, time.UTC)
	patch = Subject{OperationID: "u", Task: "weekly", Policy: "workers"}
)

// owner makes a Node's managed fields say that a manager owns the cordon.
func owner(manager string) metav1.ManagedFieldsEntry {
	return metav1.ManagedFieldsEntry{
		Manager: manager, Operation: metav1.ManagedFieldsOperationUpdate, APIVersion: "v1", FieldsType: "FieldsV1",
		FieldsV1: metav1.NewFieldsV1(`{"f:spec":{"f:unschedulable":{}}}`),
	}
}

// The Node afterwards is what it was before, but for what a person changed in the
// meantime.
func TestRestore(t *testing.T) {
	tests := map[string]struct {
		annotations, labels map[string]string
		cordoned            bool
		// meanwhile is what others do to the disrupted Node.
		meanwhile       func(*corev1.Node)
		owners          []metav1.ManagedFieldsEntry
		wantAnnotations map[string]string
		wantLabels      map[string]string
		wantCordoned    bool
	}{
		"a Node with nothing on it": {owners: []metav1.ManagedFieldsEntry{owner("nodepatch-manager")}},
		"values that were there come back": {
			annotations:     map[string]string{DoNotDisruptAnnotation: "false", "other": "x"},
			labels:          map[string]string{"zone": "a"},
			owners:          []metav1.ManagedFieldsEntry{owner("nodepatch-manager")},
			wantAnnotations: map[string]string{DoNotDisruptAnnotation: "false", "other": "x"},
			wantLabels:      map[string]string{"zone": "a"},
		},
		"values that were the same stay": {
			annotations:     map[string]string{ScaleDownDisabledAnnotation: "true"},
			labels:          map[string]string{corev1.LabelNodeExcludeBalancers: ""},
			owners:          []metav1.ManagedFieldsEntry{owner("nodepatch-manager")},
			wantAnnotations: map[string]string{ScaleDownDisabledAnnotation: "true"},
			wantLabels:      map[string]string{corev1.LabelNodeExcludeBalancers: ""},
		},
		"a Node that was cordoned before": {cordoned: true, owners: []metav1.ManagedFieldsEntry{owner("kubectl")}, wantCordoned: true},
		"what a person changed in the meantime is theirs": {
			meanwhile: func(node *corev1.Node) {
				node.Annotations[DoNotDisruptAnnotation] = "until Friday"
				delete(node.Annotations, ScaleDownDisabledAnnotation)
				node.Labels["new"] = "label"
				delete(node.Labels, corev1.LabelNodeExcludeBalancers)
			},
			owners:          []metav1.ManagedFieldsEntry{owner("nodepatch-manager")},
			wantAnnotations: map[string]string{DoNotDisruptAnnotation: "until Friday"},
			wantLabels:      map[string]string{"new": "label"},
		},
		"a person uncordoned it":                       {meanwhile: func(node *corev1.Node) { node.Spec.Unschedulable = false }},
		"a person uncordoned it and cordoned it again": {owners: []metav1.ManagedFieldsEntry{owner("kubectl")}, wantCordoned: true},
		"Git says too that it is cordoned": {
			owners:       []metav1.ManagedFieldsEntry{owner("nodepatch-manager"), owner("flux")},
			wantCordoned: true,
		},
		"somebody wiped the managed fields":                {},
		"nobody had applied anything when it was cordoned": {owners: []metav1.ManagedFieldsEntry{owner("before-first-apply")}},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Annotations: maps.Clone(test.annotations), Labels: maps.Clone(test.labels)}}
			node.Spec.Unschedulable = test.cordoned
			record := Begin(node, patch, began, nil)
			record.Enter(node, Preparation{Stage: StageReboot, Cordon: true, Exclude: true}, began.Add(time.Minute))
			if !node.Spec.Unschedulable || node.Annotations[DoNotDisruptAnnotation] != "true" || node.Annotations[ScaleDownDisabledAnnotation] != "true" {
				t.Fatalf("The disrupted Node is %v, %v", node.Spec, node.Annotations)
			}
			if _, excluded := node.Labels[corev1.LabelNodeExcludeBalancers]; !excluded {
				t.Fatalf("The disrupted Node has the labels %v", node.Labels)
			}
			if test.meanwhile != nil {
				test.meanwhile(node)
			}
			node.ManagedFields = test.owners
			// As the next manager finds it.
			read, err := Read(node)
			if err != nil {
				t.Fatal(err)
			}
			read.Restore(node, began.Add(time.Hour), &Outcome{Step: v1alpha1.StepDone, Reason: v1alpha1.ReasonVerified})
			if kept, err := Read(node); err != nil || kept.Outcome == nil || kept.Restored == nil {
				t.Errorf("The record that stays is %+v, %v", kept, err)
			}
			Forget(node)
			if diff := cmp.Diff(test.wantAnnotations, empty(node.Annotations)); diff != "" {
				t.Errorf("annotations differ (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(test.wantLabels, empty(node.Labels)); diff != "" {
				t.Errorf("labels differ (-want +got):\n%s", diff)
			}
			if node.Spec.Unschedulable != test.wantCordoned {
				t.Errorf("The Node is cordoned: %t, want %t", node.Spec.Unschedulable, test.wantCordoned)
			}
		})
	}
}

func empty(values map[string]string) map[string]string {
	if len(values) == 0 {
		return nil
	}
	return values
}

// A node that somebody uncordoned is not cordoned a second time.
func TestEnterTwice(t *testing.T) {
	node := &corev1.Node{}
	record := Begin(node, patch, began, nil)
	record.Enter(node, Preparation{Stage: StageInstall, Cordon: true}, began)
	node.Spec.Unschedulable = false
	record.Enter(node, Preparation{Stage: StageReboot, Cordon: true}, began.Add(time.Minute))
	if node.Spec.Unschedulable {
		t.Error("The Node was cordoned again")
	}
	if record.Stage != StageReboot || !record.StageSince.Time.Equal(began.Add(time.Minute)) || !record.Cordoned.Time.Equal(began) {
		t.Errorf("The record is %+v", record)
	}
}

func TestRead(t *testing.T) {
	tests := map[string]struct {
		text       string
		wantErr    error
		wantRecord bool
	}{
		"of this version":             {text: `{"version":1,"operation":"u","task":"t","since":"2026-11-23T01:00:00.000000Z"}`, wantRecord: true},
		"of a later version":          {text: `{"version":2,"operation":"u","task":"t","zones":["a"]}`, wantErr: ErrNewer, wantRecord: true},
		"of a later version's making": {text: `{"version":9,"cordoned":{"by":"us"}}`, wantErr: ErrNewer},
		"not JSON":                    {text: "yes", wantErr: ErrDamaged},
		"empty":                       {text: "", wantErr: ErrDamaged},
		"cut off":                     {text: `{"version":1,"operation":"u"`, wantErr: ErrDamaged},
		"of no operation":             {text: `{"version":1}`, wantErr: ErrDamaged},
		"of a stage without a time":   {text: `{"version":1,"operation":"u","stage":"Reboot"}`, wantErr: ErrDamaged},
		"uncordoned at no time":       {text: `{"version":1,"operation":"u","uncordoned":true}`, wantErr: ErrDamaged},
		"of a later version's stage":  {text: `{"version":3,"operation":"u","stage":"Fly"}`, wantErr: ErrNewer},
		"of no version":               {text: `{"operation":"u"}`, wantErr: ErrDamaged},
		"with a time that is none":    {text: `{"version":1,"operation":"u","since":"soon"}`, wantErr: ErrDamaged},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{v1alpha1.MaintenanceAnnotation: test.text}}}
			record, err := Read(node)
			if !errors.Is(err, test.wantErr) || (record != nil) != test.wantRecord {
				t.Errorf("read %+v, %v", record, err)
			}
		})
	}
	if record, err := Read(&corev1.Node{}); record != nil || err != nil {
		t.Errorf("Without a record: %+v, %v", record, err)
	}
}

// Each trace alone tells of a disruption, if it is nodepatch's; a value of somebody
// else's does not.
func TestChanged(t *testing.T) {
	annotated := func(key string) corev1.Node {
		return corev1.Node{ObjectMeta: metav1.ObjectMeta{Annotations: map[string]string{key: "true"}}}
	}
	for field, node := range map[string]corev1.Node{
		`{"f:metadata":{"f:annotations":{"f:` + ScaleDownDisabledAnnotation + `":{}}}}`: annotated(ScaleDownDisabledAnnotation),
		`{"f:metadata":{"f:annotations":{"f:` + DoNotDisruptAnnotation + `":{}}}}`:      annotated(DoNotDisruptAnnotation),
		`{"f:metadata":{"f:labels":{"f:` + corev1.LabelNodeExcludeBalancers + `":{}}}}`: {
			ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{corev1.LabelNodeExcludeBalancers: "true"}}},
		`{"f:spec":{"f:unschedulable":{}}}`: {Spec: corev1.NodeSpec{Unschedulable: true}},
	} {
		for manager, want := range map[string]bool{v1alpha1.ManagerFieldOwner: true, "kubectl": false} {
			node.ManagedFields = []metav1.ManagedFieldsEntry{{Manager: manager, FieldsV1: metav1.NewFieldsV1(field)}}
			if got := Changed(&node); got != want {
				t.Errorf("Changed is %t of what %s owns: %s", got, manager, field)
			}
		}
	}
}

// A record that is gone is made anew from what the API server knows of the Node's
// writers, and undoes what nodepatch did and nothing else.
func TestRebuild(t *testing.T) {
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{
		Annotations: map[string]string{
			v1alpha1.MaintenanceAnnotation: "{", ScaleDownDisabledAnnotation: "true", DoNotDisruptAnnotation: "true",
		},
		Labels: map[string]string{corev1.LabelNodeExcludeBalancers: "true"},
		ManagedFields: []metav1.ManagedFieldsEntry{
			{Manager: "nodepatch-manager", FieldsV1: metav1.NewFieldsV1(`{"f:metadata":{"f:annotations":{"f:` + ScaleDownDisabledAnnotation +
				`":{}},"f:labels":{"f:` + corev1.LabelNodeExcludeBalancers + `":{}}},"f:spec":{"f:unschedulable":{}}}`)},
			{Manager: "kubectl", FieldsV1: metav1.NewFieldsV1(`{"f:metadata":{"f:annotations":{"f:` + DoNotDisruptAnnotation + `":{}}}}`)},
		},
	}}
	node.Spec.Unschedulable = true
	record := Rebuild(node, patch, began)
	record.Restore(node, began, nil)
	Forget(node)
	if diff := cmp.Diff(map[string]string{DoNotDisruptAnnotation: "true"}, node.Annotations); diff != "" {
		t.Errorf("annotations differ (-want +got):\n%s", diff)
	}
	if len(node.Labels) > 0 || node.Spec.Unschedulable {
		t.Errorf("labels %v, cordoned %t", node.Labels, node.Spec.Unschedulable)
	}
}

// A record on a Node has the containers of before its reboot, by as much of their
// IDs as tells them apart, and not more of them than fit.
func TestRanBefore(t *testing.T) {
	const old, other = "containerd://0f3c5a7be2d1904c8a6b", "containerd://1f3c5a7be2d1904c8a6b"
	node := &corev1.Node{}
	record := Begin(node, patch, began, nil)
	many := make([]string, 2*maxContainers)
	for i := range many {
		many[i] = fmt.Sprintf("containerd://%020d", i)
	}
	many[0] = old
	record.Enter(node, Preparation{Stage: StageInstall, Containers: []string{other}}, began)
	record.Enter(node, Preparation{Stage: StageReboot, Containers: many}, began)
	record, err := Read(node)
	if err != nil {
		t.Fatal(err)
	}
	if !record.RanBefore(old) {
		t.Errorf("%s is not among %q", old, record.Containers)
	}
	if record.RanBefore(other) || record.RanBefore("") || record.RanBefore("containerd://") {
		t.Errorf("a container that was not there is among %q", record.Containers)
	}
	if n := len(node.Annotations[v1alpha1.MaintenanceAnnotation]); n > 4096 {
		t.Errorf("the record has %d bytes", n)
	}
}
