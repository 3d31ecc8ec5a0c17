// Package consistent makes clients for controllers that must not decide on what
// they have changed themselves.
package consistent

import (
	"fmt"

	"k8s.io/utils/ptr"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// NewClient makes a client that reads from a manager's cache, and waits for that
// until the cache has seen what this client wrote.
func NewClient(mgr ctrl.Manager) (client.Client, error) {
	consistent, err := client.New(mgr.GetConfig(), client.Options{
		HTTPClient: mgr.GetHTTPClient(),
		Scheme:     mgr.GetScheme(),
		Mapper:     mgr.GetRESTMapper(),
		Cache: &client.CacheOptions{
			Reader:                          mgr.GetCache(),
			EnableReadYourWritesConsistency: ptr.To(true),
		},
	})
	if err != nil {
		return nil, fmt.Errorf("making a client that reads what it wrote: %w", err)
	}
	return consistent, nil
}
