package task

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

// controlPlaneLabels mark nodes of the control plane: kubeadm's today, kubeadm's
// before Kubernetes 1.25, and that of distributions which keep etcd apart.
var controlPlaneLabels = []string{
	"node-role.kubernetes.io/control-plane",
	"node-role.kubernetes.io/master",
	"node-role.kubernetes.io/etcd",
}

func isControlPlane(node *corev1.Node) bool {
	for _, label := range controlPlaneLabels {
		if _, has := node.Labels[label]; has {
			return true
		}
	}
	return false
}

// checkControlPlane lets nodes of the control plane go last, one by one, with
// nothing else disrupted in the whole cluster, and only while all others of them
// are Ready, so that etcd keeps its quorum should the one not come back.
func (g *gate) checkControlPlane(w *waiter) *refusal {
	name := w.node.Name
	switch {
	case !w.controlPlane && first(g.census.controlPlane, name) != "":
		return no(v1alpha1.ReasonControlPlane, "A node of the control plane is disrupted, alone")
	case !w.controlPlane:
		return nil
	case g.waves.begun(w.wave) != nil:
		return no(v1alpha1.ReasonControlPlane, "Nodes of the control plane go after all others of the task")
	case first(g.census.quorum, name) != "":
		return no(v1alpha1.ReasonControlPlane, "Nodes of the control plane go only while all others of it are Ready, and %s is not", first(g.census.quorum, name))
	case first(g.census.disrupted, name) != "":
		return no(v1alpha1.ReasonControlPlane, "Nodes of the control plane go one by one, with no other node of the cluster disrupted")
	default:
		return nil
	}
}
