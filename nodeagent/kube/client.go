// Package kube is the agent's whole traffic with the API server: one watch on its own PatchAssignment, the status of
// its own objects by server-side apply, and a look at a task that has pinned what is to be installed. There is no typed clientset, no informer and no cache: they would cost more memory
// than the rest of the agent.
package kube

import (
	"context"
	"encoding/json"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/rest"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

// Client reads and writes the objects of one node.
type Client struct {
	rest rest.Interface
	node string
	// watchSeconds is how long a watch lasts at least; at most it is twice as long.
	watchSeconds int64
}

// New returns the client of a node's agent. It makes no request.
func New(config *rest.Config, node string) (*Client, error) {
	scheme := runtime.NewScheme()
	scheme.AddKnownTypes(v1alpha1.GroupVersion, &v1alpha1.PatchAssignment{}, &v1alpha1.PatchAssignmentList{}, &v1alpha1.PatchRetry{}, &v1alpha1.PatchTask{})
	metav1.AddToGroupVersion(scheme, v1alpha1.GroupVersion)
	// Errors of the API server come as this kind.
	scheme.AddUnversionedTypes(metav1.SchemeGroupVersion, &metav1.Status{})

	config = rest.CopyConfig(config)
	config.APIPath = "/apis"
	config.GroupVersion = &v1alpha1.GroupVersion
	config.ContentType = runtime.ContentTypeJSON
	config.AcceptContentTypes = runtime.ContentTypeJSON
	config.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	config.WarningHandler = rest.NoWarnings{}
	client, err := rest.RESTClientFor(config)
	if err != nil {
		return nil, fmt.Errorf("make the client of the API server: %w", err)
	}
	return &Client{rest: client, node: node, watchSeconds: 1800}, nil
}

// REST is the connection to the API server, for the patch log to share.
func (c *Client) REST() rest.Interface { return c.rest }

// ApplyReport makes status the whole of what the agent says in its node's PatchReport.
func (c *Client) ApplyReport(ctx context.Context, status *v1alpha1.PatchReportStatus) error {
	return c.apply(ctx, "patchreports", "PatchReport", status)
}

// ApplyStatus makes status the whole of the agent's half of its node's PatchAssignment.
func (c *Client) ApplyStatus(ctx context.Context, status *v1alpha1.AgentStatus) error {
	return c.apply(ctx, "patchassignments", "PatchAssignment", v1alpha1.PatchAssignmentStatus{Agent: status})
}

// apply has the API server answer with the object's metadata alone: the agent knows the rest, and a report is large.
func (c *Client) apply(ctx context.Context, resource, kind string, status any) error {
	body, err := json.Marshal(map[string]any{
		"apiVersion": v1alpha1.GroupVersion.String(),
		"kind":       kind,
		"metadata":   map[string]string{"name": c.node},
		"status":     status,
	})
	if err != nil {
		return fmt.Errorf("encode %s: %w", kind, err)
	}
	err = c.rest.Patch(types.ApplyPatchType).
		Resource(resource).Name(c.node).SubResource("status").
		Param("fieldManager", v1alpha1.AgentFieldOwner).Param("force", "true").
		SetHeader("Accept", "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1").
		Body(body).
		Do(ctx).Error()
	if err != nil {
		return fmt.Errorf("apply the status of %s %s: %w", kind, c.node, err)
	}
	return nil
}

// Retries reads the node's PatchRetry. The agent may not read objects, but an answer to a patch that changes nothing tells it
// its own.
func (c *Client) Retries(ctx context.Context) (*v1alpha1.PatchRetry, error) {
	return c.patchRetries(ctx, map[string]any{})
}

// UpdateRetries writes the agent's part of the node's PatchRetry, which is all but what the manager keeps there, if the
// object is still the one that was read: else it returns a conflict (k8s.io/apimachinery/pkg/api/errors). Server-side apply
// would bring back counts that were cleared in the meantime.
func (c *Client) UpdateRetries(ctx context.Context, retries *v1alpha1.PatchRetry) (*v1alpha1.PatchRetry, error) {
	s := &retries.Status
	return c.patchRetries(ctx, map[string]any{
		"metadata": map[string]any{"uid": retries.UID, "resourceVersion": retries.ResourceVersion},
		// Whole, also where it is empty: a merge patch leaves alone what it does not name.
		"status": map[string]any{
			"counted": s.Counted, "blocked": s.Blocked, "summary": s.Summary, "sequence": s.Sequence, "patches": s.Patches,
		},
	})
}

// Task reads a PatchTask: an operation may have to install what its task has pinned.
func (c *Client) Task(ctx context.Context, name string) (*v1alpha1.PatchTask, error) {
	task := &v1alpha1.PatchTask{}
	if err := c.rest.Get().Resource("patchtasks").Name(name).Do(ctx).Into(task); err != nil {
		return nil, fmt.Errorf("read the PatchTask %s: %w", name, err)
	}
	return task, nil
}

func (c *Client) patchRetries(ctx context.Context, change map[string]any) (*v1alpha1.PatchRetry, error) {
	body, err := json.Marshal(change)
	if err != nil {
		return nil, fmt.Errorf("encode PatchRetry: %w", err)
	}
	retries := &v1alpha1.PatchRetry{}
	err = c.rest.Patch(types.MergePatchType).
		Resource("patchretries").Name(c.node).SubResource("status").
		Param("fieldManager", v1alpha1.AgentFieldOwner).
		Body(body).
		Do(ctx).Into(retries)
	if err != nil {
		return nil, fmt.Errorf("patch the status of PatchRetry %s: %w", c.node, err)
	}
	return retries, nil
}
