package monitoring

import (
	"testing"

	monitoringv1 "github.com/prometheus-operator/prometheus-operator/pkg/apis/monitoring/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

func TestTheServiceMonitorFindsTheManagers(t *testing.T) {
	var monitor monitoringv1.ServiceMonitor
	decode(t, shipped("prometheus", "service-monitor.yaml"), &monitor)
	var service corev1.Service
	decode(t, shipped("manager", "metrics-service.yaml"), &service)

	selector, err := metav1.LabelSelectorAsSelector(&monitor.Spec.Selector)
	if err != nil {
		t.Fatal(err)
	}
	if !selector.Matches(labels.Set(service.Labels)) {
		t.Errorf("%s does not match the Service's labels %v", selector, service.Labels)
	}
	if names := monitor.Spec.NamespaceSelector.MatchNames; len(names) != 1 || names[0] != service.Namespace {
		t.Errorf("It looks in %v, and the Service is in %s", names, service.Namespace)
	}
	if service.Labels[monitor.Spec.JobLabel] == "" {
		t.Errorf("The Service has no label %s to name the job by", monitor.Spec.JobLabel)
	}
	if len(monitor.Spec.Endpoints) != 1 || monitor.Spec.Endpoints[0].Port != service.Spec.Ports[0].Name {
		t.Errorf("It scrapes %v, and the Service has the port %s", monitor.Spec.Endpoints, service.Spec.Ports[0].Name)
	}
}
