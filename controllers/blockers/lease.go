package blockers

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

// leaseAttempts is how often a Lease is read again that another wrote in between.
const leaseAttempts = 3

// leaseKey is where the tools of medik8s look for a node's Lease.
func (c *Checker) leaseKey(node string) client.ObjectKey {
	return client.ObjectKey{Namespace: c.options.LeaseNamespace, Name: "node-" + node}
}

// lease says whether another holds a node's Lease.
func (c *Checker) lease(ctx context.Context, node string) *Block {
	if c.options.LeaseNamespace == "" {
		return nil
	}
	lease := &coordinationv1.Lease{}
	err := c.live.Get(ctx, c.leaseKey(node), lease)
	switch {
	case apierrors.IsNotFound(err):
		return nil
	case err != nil:
		return c.unknown(node, err)
	}
	return c.held(lease)
}

// held is a Block if another holds a Lease. One without times has no end.
func (c *Checker) held(lease *coordinationv1.Lease) *Block {
	holder := ptr.Deref(lease.Spec.HolderIdentity, "")
	if holder == "" || holder == c.options.Holder || c.expired(lease) {
		return nil
	}
	return blocked(v1alpha1.ReasonBlockedByCoordinator, "%s holds the node, by the Lease %s", holder, client.ObjectKeyFromObject(lease))
}

func (c *Checker) expired(lease *coordinationv1.Lease) bool {
	end, found := leaseEnd(lease)
	return found && !c.clock.Now().Before(end)
}

// leaseEnd is when a Lease ends that is not renewed, if it does.
func leaseEnd(lease *coordinationv1.Lease) (time.Time, bool) {
	if lease.Spec.RenewTime == nil || lease.Spec.LeaseDurationSeconds == nil {
		return time.Time{}, false
	}
	return lease.Spec.RenewTime.Add(time.Duration(*lease.Spec.LeaseDurationSeconds) * time.Second), true
}

// Acquire takes a node's Lease for a duration, or renews our own once less than
// half of the duration is left, so that it may be called at every look at the
// node. It returns a Block if another holds it, and who may not be asked. An
// error is to be tried again. Without a LeaseNamespace there is nothing to take.
func (c *Checker) Acquire(ctx context.Context, node string, d time.Duration) (*Block, error) {
	if c.options.LeaseNamespace == "" {
		return nil, nil
	}
	for range leaseAttempts {
		lease := &coordinationv1.Lease{}
		err := c.live.Get(ctx, c.leaseKey(node), lease)
		switch {
		case apierrors.IsNotFound(err):
			owner := &corev1.Node{}
			if err := c.live.Get(ctx, client.ObjectKey{Name: node}, owner); err != nil {
				return nil, fmt.Errorf("reading node %s for its Lease: %w", node, err)
			}
			err = c.createLease(ctx, owner, d)
		case err == nil:
			if block := c.held(lease); block != nil {
				return block, nil
			}
			if !c.claim(lease, d) {
				return nil, nil
			}
			err = c.writes.Update(ctx, lease)
		}
		switch {
		case err == nil:
			return nil, nil
		case apierrors.IsForbidden(err), apierrors.IsInvalid(err), namespaceMissing(err):
			return c.unknown(node, err), nil
		case !apierrors.IsAlreadyExists(err) && !apierrors.IsConflict(err) && !apierrors.IsNotFound(err):
			return nil, fmt.Errorf("taking the Lease of node %s: %w", node, err)
		}
		// Another wrote it, or removed it, in between.
	}
	return nil, fmt.Errorf("taking the Lease of node %s: others write it all the time", node)
}

// createLease makes a node's Lease, ours. It goes with its node.
func (c *Checker) createLease(ctx context.Context, node *corev1.Node, d time.Duration) error {
	key := c.leaseKey(node.Name)
	lease := &coordinationv1.Lease{ObjectMeta: metav1.ObjectMeta{
		Namespace: key.Namespace, Name: key.Name,
		OwnerReferences: []metav1.OwnerReference{{APIVersion: "v1", Kind: "Node", Name: node.Name, UID: node.UID}},
	}}
	c.claim(lease, d)
	return c.writes.Create(ctx, lease)
}

// claim makes a Lease ours for a duration from now, and says whether that changes
// it: not if ours lasts for more than half of the duration.
func (c *Checker) claim(lease *coordinationv1.Lease, d time.Duration) bool {
	now := metav1.NewMicroTime(c.clock.Now())
	ours := ptr.Deref(lease.Spec.HolderIdentity, "") == c.options.Holder
	if end, found := leaseEnd(lease); ours && found && end.Sub(now.Time) > d/2 {
		return false
	}
	if !ours || c.expired(lease) {
		lease.Spec.AcquireTime = &now
		if lease.Spec.HolderIdentity != nil {
			lease.Spec.LeaseTransitions = ptr.To(ptr.Deref(lease.Spec.LeaseTransitions, 0) + 1)
		}
	}
	lease.Spec.HolderIdentity = &c.options.Holder
	lease.Spec.RenewTime = &now
	lease.Spec.LeaseDurationSeconds = ptr.To(int32(max(1, min(math.Ceil(d.Seconds()), math.MaxInt32))))
	return true
}

// Release removes a node's Lease if it is ours, as the tools of medik8s do.
// Without a LeaseNamespace there is nothing to do.
func (c *Checker) Release(ctx context.Context, node string) error {
	if c.options.LeaseNamespace == "" {
		return nil
	}
	var err error
	for range leaseAttempts {
		lease := &coordinationv1.Lease{}
		if err = c.live.Get(ctx, c.leaseKey(node), lease); err == nil {
			if ptr.Deref(lease.Spec.HolderIdentity, "") != c.options.Holder {
				return nil
			}
			// Another may take it just now, if it has expired.
			err = c.writes.Delete(ctx, lease, client.Preconditions{UID: &lease.UID, ResourceVersion: &lease.ResourceVersion})
		}
		if err == nil || apierrors.IsNotFound(err) {
			return nil
		}
		if !apierrors.IsConflict(err) {
			break
		}
	}
	return fmt.Errorf("giving back the Lease of node %s: %w", node, err)
}

// unknown says that the Lease of a node could not be read or taken.
func (c *Checker) unknown(node string, err error) *Block {
	hint := ""
	if apierrors.IsForbidden(err) || namespaceMissing(err) {
		hint = "; see config/rbac/maintenance-lease.yaml"
	}
	return blocked(v1alpha1.ReasonBlockerUnknown, "The Lease %s could not be asked who maintains the node: %s%s", c.leaseKey(node), plain(err), hint)
}

// namespaceMissing says whether the namespace of an object that was to be made is
// not there.
func namespaceMissing(err error) bool {
	var status apierrors.APIStatus
	if !errors.As(err, &status) || !apierrors.IsNotFound(err) {
		return false
	}
	details := status.Status().Details
	return details != nil && details.Kind == "namespaces"
}
