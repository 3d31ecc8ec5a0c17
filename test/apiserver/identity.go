package apiserver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

// Where the manifests install nodepatch, and the ServiceAccounts of its two programs.
const (
	Namespace      = "nodepatch-system"
	ManagerAccount = "nodepatch-manager"
	AgentAccount   = "nodepatch-agent"
)

// Client makes a client that knows Kubernetes' and nodepatch's kinds and reads from the API server itself.
func Client(config *rest.Config) (client.Client, error) {
	known, err := kinds()
	if err != nil {
		return nil, err
	}
	return client.New(config, client.Options{Scheme: known})
}

// kinds makes a scheme of Kubernetes' and nodepatch's kinds.
func kinds() (*runtime.Scheme, error) {
	known := runtime.NewScheme()
	if err := errors.Join(scheme.AddToScheme(known), v1alpha1.AddToScheme(known)); err != nil {
		return nil, fmt.Errorf("making a scheme of all kinds: %w", err)
	}
	return known, nil
}

// errAccepted says that a request that the policies refuse was not refused.
var errAccepted = errors.New("accepted")

// Install applies config/default with kubectl, as a person would, and waits until the roles and the
// admission policies of it are in force. Nothing runs the manager's Deployment.
func (s *Server) Install(ctx context.Context) error {
	if _, err := s.Kubectl(ctx, "apply", "--server-side", "-k", "config/default"); err != nil {
		return err
	}
	admin, err := Client(s.Config)
	if err != nil {
		return err
	}
	probe := &v1alpha1.PatchAssignment{ObjectMeta: metav1.ObjectMeta{Name: "admission-probe"}}
	if err := admin.Create(ctx, probe); err != nil {
		return fmt.Errorf("probing for the admission policies: %w", err)
	}
	unbound := rest.CopyConfig(s.Config)
	unbound.Impersonate = rest.ImpersonationConfig{UserName: "system:serviceaccount:" + Namespace + ":" + AgentAccount}
	agent, err := Client(unbound)
	if err != nil {
		return err
	}
	event := &corev1.Event{ObjectMeta: metav1.ObjectMeta{Name: "admission-probe", Namespace: metav1.NamespaceDefault}}
	// Policies come into force in the order of their names: this is of the last one.
	owned := &v1alpha1.PatchTask{
		ObjectMeta: metav1.ObjectMeta{Name: "admission-probe", OwnerReferences: []metav1.OwnerReference{{
			APIVersion: v1alpha1.GroupVersion.String(), Kind: "PatchPolicy", Name: "probe", UID: "probe"}}},
		Spec: v1alpha1.PatchTaskSpec{Policy: "probe", Task: "probe"},
	}
	var last error
	err = wait.PollUntilContextTimeout(ctx, 50*time.Millisecond, 30*time.Second, true, func(ctx context.Context) (bool, error) {
		for _, attempt := range []struct {
			try     func() error
			refusal string
		}{
			{refusal: "names no node", try: func() error {
				patch := client.RawPatch(types.MergePatchType, []byte(`{"status":{}}`))
				return agent.Status().Patch(ctx, probe.DeepCopy(), patch, client.DryRunAll)
			}},
			{refusal: "names no node", try: func() error { return agent.Create(ctx, event.DeepCopy(), client.DryRunAll) }},
			{refusal: "owns", try: func() error { return admin.Create(ctx, owned.DeepCopy(), client.DryRunAll) }},
		} {
			err := attempt.try()
			if err != nil && strings.Contains(err.Error(), attempt.refusal) {
				continue
			}
			if ctx.Err() == nil {
				last = cmp.Or(err, errAccepted)
			}
			return false, nil
		}
		return true, nil
	})
	if err != nil {
		return fmt.Errorf("waiting for the admission policies, the last answer was %w: %w", cmp.Or(last, errAccepted), err)
	}
	return admin.Delete(ctx, probe)
}

// CreateNode creates a Node that is Ready and gives it labels. A Node that is there already is left as it is.
func (s *Server) CreateNode(ctx context.Context, name string, labels map[string]string) (*corev1.Node, error) {
	admin, err := Client(s.Config)
	if err != nil {
		return nil, err
	}
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: labels}}
	if err := admin.Create(ctx, node); err != nil {
		if apierrors.IsAlreadyExists(err) {
			return node, admin.Get(ctx, client.ObjectKeyFromObject(node), node)
		}
		return nil, fmt.Errorf("creating the node: %w", err)
	}
	node.Status.Conditions = []corev1.NodeCondition{{
		Type: corev1.NodeReady, Status: corev1.ConditionTrue, Reason: "KubeletReady",
		LastHeartbeatTime: metav1.Now(), LastTransitionTime: metav1.Now(),
	}}
	if err := admin.Status().Update(ctx, node); err != nil {
		return nil, fmt.Errorf("making the node ready: %w", err)
	}
	return node, nil
}

// AgentConfig is the configuration of the agent of a node: it holds the token that the agent's pod there
// gets, with the node's name in it. It makes the pod, and the node if need be. Install comes first.
func (s *Server) AgentConfig(ctx context.Context, node string) (*rest.Config, error) {
	if _, err := s.CreateNode(ctx, node, nil); err != nil {
		return nil, err
	}
	pod, err := s.AgentPod(ctx, node)
	if err != nil {
		return nil, err
	}
	return s.AccountConfig(ctx, AgentAccount, pod)
}

// ManagerConfig is the configuration of the manager. Install comes first.
func (s *Server) ManagerConfig(ctx context.Context) (*rest.Config, error) {
	return s.AccountConfig(ctx, ManagerAccount, nil)
}

// AccountConfig is a configuration with a token of one of the ServiceAccounts in Namespace, bound to a
// pod, or to none if pod is nil.
func (s *Server) AccountConfig(ctx context.Context, account string, pod *corev1.Pod) (*rest.Config, error) {
	admin, err := Client(s.Config)
	if err != nil {
		return nil, err
	}
	request := &authenticationv1.TokenRequest{}
	if pod != nil {
		request.Spec.BoundObjectRef = &authenticationv1.BoundObjectReference{
			APIVersion: "v1", Kind: "Pod", Name: pod.Name, UID: pod.UID,
		}
	}
	serviceAccount := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: account, Namespace: Namespace}}
	if err := admin.SubResource("token").Create(ctx, serviceAccount, request); err != nil {
		return nil, fmt.Errorf("requesting a token of %s: %w", account, err)
	}
	config := rest.AnonymousClientConfig(s.Config)
	config.BearerToken = request.Status.Token
	config.QPS, config.Burst = s.Config.QPS, s.Config.Burst
	return config, nil
}

// AgentPod creates a pod of the agent on a node, or one that is on none yet if node is empty.
func (s *Server) AgentPod(ctx context.Context, node string) (*corev1.Pod, error) {
	admin, err := Client(s.Config)
	if err != nil {
		return nil, err
	}
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{GenerateName: "nodepatch-agent-", Namespace: Namespace},
		Spec: corev1.PodSpec{
			NodeName:           node,
			ServiceAccountName: AgentAccount,
			Containers:         []corev1.Container{{Name: "agent", Image: "nodepatch:dev"}},
		},
	}
	if err := admin.Create(ctx, pod); err != nil {
		return nil, fmt.Errorf("creating the agent's pod: %w", err)
	}
	return pod, nil
}
