// Package scale runs the real manager, as a program with the rights of its ServiceAccount, against a real
// API server with a fleet of nodes whose agents are simulated: each speaks with the API server through the
// agent's own client and with the agent's own rights, but has no host.
package scale

import (
	"context"
	"fmt"
	"sync"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodepatch/nodepatch/controllers/agents"
	"github.com/nodepatch/nodepatch/test/apiserver"
)

// parallel is how many requests are under way at once where a fleet is made.
const parallel = 16

// image of the manager's command line and of the agents' pods, which nothing runs.
const image = "registry.example/nodepatch:scale"

func nodeName(i int) string { return fmt.Sprintf("node-%05d", i) }

// createFleet creates ready nodes, each with a ready pod of the agent.
func createFleet(ctx context.Context, server *apiserver.Server, admin client.Client, size int) error {
	return each(size, func(i int) error {
		labels := map[string]string{
			corev1.LabelOSStable: "linux", corev1.LabelArchStable: "amd64", corev1.LabelHostname: nodeName(i),
			corev1.LabelTopologyZone: fmt.Sprintf("zone-%d", i%3),
		}
		if _, err := server.CreateNode(ctx, nodeName(i), labels); err != nil {
			return err
		}
		pod := &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Name: "agent-" + nodeName(i), Namespace: apiserver.Namespace, Labels: agents.PodLabels},
			Spec: corev1.PodSpec{
				NodeName: nodeName(i), ServiceAccountName: apiserver.AgentAccount,
				Containers: []corev1.Container{{Name: "agent", Image: image}},
			},
		}
		if err := admin.Create(ctx, pod); err != nil {
			return fmt.Errorf("creating the agent's pod: %w", err)
		}
		pod.Status.Phase = corev1.PodRunning
		pod.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
		if err := admin.Status().Update(ctx, pod); err != nil {
			return fmt.Errorf("making the agent's pod ready: %w", err)
		}
		return nil
	})
}

// each calls do for 0 to size-1, some at once, and returns the first error.
func each(size int, do func(int) error) error {
	var workers sync.WaitGroup
	next, failed := make(chan int), make(chan error, parallel)
	for range parallel {
		workers.Go(func() {
			for i := range next {
				if err := do(i); err != nil {
					failed <- err
					return
				}
			}
		})
	}
	var err error
	for i := 0; i < size && err == nil; i++ {
		select {
		case next <- i:
		case err = <-failed:
		}
	}
	close(next)
	workers.Wait()
	select {
	case late := <-failed:
		if err == nil {
			err = late
		}
	default:
	}
	return err
}
