package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
)

// waitForNodes returns when every machine's Node is Ready.
func (c *Cluster) waitForNodes(ctx context.Context, log io.Writer) error {
	start := time.Now()
	ctx, cancel := context.WithTimeout(ctx, 3*time.Minute)
	defer cancel()
	config, err := c.RESTConfig()
	if err != nil {
		return err
	}
	config.GroupVersion = &corev1.SchemeGroupVersion
	config.APIPath = "/api"
	config.NegotiatedSerializer = scheme.Codecs.WithoutConversion()
	client, err := rest.RESTClientFor(config)
	if err != nil {
		return err
	}

	ready := map[string]bool{}
	var last error
	for {
		var nodes corev1.NodeList
		last = client.Get().Resource("nodes").Do(ctx).Into(&nodes)
		for _, node := range nodes.Items {
			if isReady(node) && !ready[node.Name] {
				ready[node.Name] = true
				fmt.Fprintf(log, "%s Ready %.1fs later\n", node.Name, time.Since(start).Seconds())
			}
		}
		if len(ready) == c.record.Machines {
			return nil
		}
		select {
		case <-ctx.Done():
			var missing []string
			for i := 1; i <= c.record.Machines; i++ {
				if !ready[nodeName(i)] {
					missing = append(missing, nodeName(i))
				}
			}
			return fmt.Errorf("%s did not become Ready, see the logs in %s: %w",
				strings.Join(missing, ", "), directory(c.Dir).path("logs"), errors.Join(ctx.Err(), last))
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// isReady tells whether a node takes pods: kubelet says so, and the taint that keeps pods off new nodes
// is gone.
func isReady(node corev1.Node) bool {
	for _, taint := range node.Spec.Taints {
		if taint.Key == corev1.TaintNodeNotReady {
			return false
		}
	}
	for _, condition := range node.Status.Conditions {
		if condition.Type == corev1.NodeReady {
			return condition.Status == corev1.ConditionTrue
		}
	}
	return false
}
