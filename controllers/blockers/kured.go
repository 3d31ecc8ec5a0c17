package blockers

import (
	"context"
	"encoding/json"
	"errors"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

// kuredLock is the annotation on kured's DaemonSet by which its pods agree who
// reboots.
const kuredLock = "weave.works/kured-node-lock"

// kuredHold is a lock of one node, as kured writes it (internal/daemonsetlock).
type kuredHold struct {
	NodeID  string    `json:"nodeID"`
	Created time.Time `json:"created"`
	// TTL in nanoseconds; 0 for a lock that stays until it is released.
	TTL time.Duration `json:"TTL"`
}

// kured says whether kured holds a node, which it is about to reboot then, or has
// just rebooted.
func (c *Checker) kured(ctx context.Context, node string) *Block {
	if c.options.Kured.Name == "" {
		return nil
	}
	daemonSet := &appsv1.DaemonSet{}
	err := c.live.Get(ctx, c.options.Kured, daemonSet)
	switch {
	case apierrors.IsNotFound(err):
		return nil
	case err != nil:
		return blocked(v1alpha1.ReasonBlockerUnknown, "The lock of kured, the DaemonSet %s, could not be read: %s", c.options.Kured, plain(err))
	}
	value, found := daemonSet.Annotations[kuredLock]
	if !found {
		return nil
	}
	holds, err := parseKured(value)
	if err != nil {
		return blocked(v1alpha1.ReasonBlockerUnknown, "The lock of kured, the annotation %s on the DaemonSet %s, cannot be read: %v",
			kuredLock, c.options.Kured, err)
	}
	for _, hold := range holds {
		expired := hold.TTL > 0 && c.clock.Since(hold.Created) >= hold.TTL
		if hold.NodeID == node && !expired {
			return blocked(v1alpha1.ReasonBlockedByCoordinator, "Kured holds the node, by the annotation %s on the DaemonSet %s", kuredLock, c.options.Kured)
		}
	}
	return nil
}

// parseKured reads the annotation in both of its forms: of one lock, and of
// several where kured's --concurrency is more than 1.
func parseKured(value string) ([]kuredHold, error) {
	var lock struct {
		kuredHold
		MaxOwners *int        `json:"maxOwners"`
		Locks     []kuredHold `json:"locks"`
	}
	if err := json.Unmarshal([]byte(value), &lock); err != nil {
		return nil, err
	}
	switch {
	case lock.NodeID != "":
		return []kuredHold{lock.kuredHold}, nil
	case lock.MaxOwners != nil || lock.Locks != nil:
		return lock.Locks, nil
	}
	return nil, errors.New("it names no node")
}
