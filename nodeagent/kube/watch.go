package kube

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

const resource = "patchassignments"

// Watch calls seen with the node's assignment, or nil if there is none, first with what is there and then with every
// change, until the context ends. A watch that ends goes on where it was with one request; only if the API server has
// forgotten that point is the assignment read again.
func (c *Client) Watch(ctx context.Context, logger *slog.Logger, seen func(*v1alpha1.PatchAssignment)) {
	version := "" // of the last event; empty: read first
	backoff := newBackoff()
	for ctx.Err() == nil {
		began := time.Now()
		err := c.follow(ctx, &version, seen)
		if ctx.Err() != nil {
			return
		}
		var status apierrors.APIStatus
		if errors.As(err, &status) && (apierrors.IsResourceExpired(err) || apierrors.IsGone(err)) {
			version = ""
		}
		if err == nil || time.Since(began) > time.Minute {
			backoff = newBackoff()
		}
		pause := backoff.Step()
		if err != nil {
			logger.Warn("Watch ended, watching again", "in", pause.Round(time.Millisecond).String(), "error", err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

// newBackoff spreads the agents of a cluster whose API server comes back.
func newBackoff() wait.Backoff {
	return wait.Backoff{Duration: 200 * time.Millisecond, Factor: 2, Jitter: 1, Steps: 100, Cap: 15 * time.Second}
}

// follow reads the assignment if need be and watches it until the watch ends; version is kept up to date.
func (c *Client) follow(ctx context.Context, version *string, seen func(*v1alpha1.PatchAssignment)) error {
	options := metav1.ListOptions{
		FieldSelector: fields.OneTermEqualSelector(metav1.ObjectNameField, c.node).String(),
	}
	if *version == "" {
		var list v1alpha1.PatchAssignmentList
		if err := c.rest.Get().Resource(resource).VersionedParams(&options, metav1.ParameterCodec).
			Timeout(30 * time.Second).Do(ctx).Into(&list); err != nil {
			return fmt.Errorf("read the node's PatchAssignment: %w", err)
		}
		*version = list.ResourceVersion
		if len(list.Items) == 0 {
			seen(nil)
		} else {
			seen(&list.Items[0])
		}
	}
	// Spread, so that the watches of many agents do not end at once.
	timeout := c.watchSeconds + rand.Int64N(c.watchSeconds)
	options.TimeoutSeconds = &timeout
	options.ResourceVersion = *version
	options.AllowWatchBookmarks = true
	options.Watch = true
	events, err := c.rest.Get().Resource(resource).VersionedParams(&options, metav1.ParameterCodec).Watch(ctx)
	if err != nil {
		return fmt.Errorf("watch the node's PatchAssignment: %w", err)
	}
	defer events.Stop()
	for event := range events.ResultChan() {
		if event.Type == watch.Error {
			return fmt.Errorf("watch the node's PatchAssignment: %w", apierrors.FromObject(event.Object))
		}
		a, ok := event.Object.(*v1alpha1.PatchAssignment)
		if !ok {
			return fmt.Errorf("watch the node's PatchAssignment: unexpected %T", event.Object)
		}
		*version = a.ResourceVersion
		switch event.Type {
		case watch.Added, watch.Modified:
			seen(a)
		case watch.Deleted:
			seen(nil)
		}
	}
	return nil
}
