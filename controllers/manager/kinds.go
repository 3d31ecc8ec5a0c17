package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

// resources are the kinds that the manager works with, as the API server
// calls them.
var resources = []string{"patchassignments", "patchpolicies", "patchreports", "patchretries", "patchtasks"}

// awaitKinds returns once the API server knows nodepatch's kinds. If it does
// not within the patience, the error says what to do.
func awaitKinds(ctx context.Context, config *rest.Config, patience time.Duration) error {
	client, err := discovery.NewDiscoveryClientForConfig(config)
	if err != nil {
		return fmt.Errorf("making a client for the API server: %w", err)
	}
	log := ctrl.Log.WithName("kinds")
	var last error
	err = wait.PollUntilContextTimeout(ctx, time.Second, patience, true, func(context.Context) (bool, error) {
		err := missingKinds(client)
		if err != nil && last == nil {
			log.Info("Waiting for the API server", "cause", err.Error())
		}
		last = err
		return err == nil, nil
	})
	if err != nil {
		return errors.Join(last, ctx.Err())
	}
	return nil
}

// missingKinds is nil if all kinds are there.
func missingKinds(client discovery.ServerResourcesInterface) error {
	list, err := client.ServerResourcesForGroupVersion(v1alpha1.GroupVersion.String())
	if err != nil && !apierrors.IsNotFound(err) {
		return fmt.Errorf("asking the API server for the kinds of %s: %w", v1alpha1.GroupVersion, err)
	}
	missing := slices.Clone(resources)
	if err == nil {
		for _, resource := range list.APIResources {
			missing = slices.DeleteFunc(missing, func(name string) bool { return name == resource.Name })
		}
	}
	if len(missing) > 0 {
		return fmt.Errorf("the API server does not know these kinds of %s: %s; install them with \"make install\" (kubectl apply --server-side -k config/crd)",
			v1alpha1.GroupVersion, strings.Join(missing, ", "))
	}
	return nil
}
