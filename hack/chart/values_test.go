package main

import (
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

func TestValues(t *testing.T) {
	tests := map[string]struct {
		values     string
		kind, name string
		want       []string
		not        []string
	}{
		"an image by its digest": {
			values: "image: {repository: registry.example/nodepatch, digest: sha256:" + strings.Repeat("0", 64) + "}",
			kind:   deployment, name: "nodepatch-manager",
			want: []string{"image: registry.example/nodepatch@sha256:" + strings.Repeat("0", 64), "value: registry.example/nodepatch@sha256:"},
			not:  []string{"nodepatch:dev"},
		},
		"pull secrets of the agents, too": {
			values: "image: {pullSecrets: [{name: mine}]}", kind: "ServiceAccount", name: "nodepatch-agent",
			want: []string{"imagePullSecrets:\n- name: mine"},
		},
		"flags": {
			values: "manager: {clusterMaxUnavailable: 5%, kured: \"\", verbosity: 4}\nagents: {priorityClassName: mine}",
			kind:   deployment, name: "nodepatch-manager",
			want: []string{"- --cluster-max-unavailable=5%\n", "- --kured=\n", "- -v=4\n", "- --agent-priority-class=mine\n"},
		},
		"a bound that is a number": {
			values: "manager: {clusterMaxUnavailable: 3}", kind: deployment, name: "nodepatch-manager",
			want: []string{"- --cluster-max-unavailable=3\n"},
		},
		"agents' resources": {
			values: "agents: {resources: {limits: {memory: 64Mi}}}", kind: deployment, name: "nodepatch-manager",
			want: []string{`- --agent-resources={"limits":{"memory":"64Mi"}}`},
		},
		"where the manager runs": {
			values: "manager: {nodeSelector: {pool: infra}, tolerations: [{key: infra, operator: Exists}], affinity: {nodeAffinity: {}}, replicas: 3}",
			kind:   deployment, name: "nodepatch-manager",
			want: []string{"pool: infra", "key: infra", "key: node.kubernetes.io/unschedulable", "nodeAffinity: {}", "replicas: 3"},
		},
		"Leases of medik8s": {
			values: "manager: {maintenanceLeaseNamespace: leases}", kind: "Role", name: "nodepatch-maintenance-lease",
			want: []string{"namespace: leases"},
		},
		"another namespace": {
			values: "namespace: {name: patches, labels: {team: a}}", kind: "Namespace", name: "patches",
			want: []string{"team: a", "pod-security.kubernetes.io/enforce: privileged"},
		},
		"and what is in it": {
			values: "namespace: {name: patches}", kind: "ClusterRoleBinding", name: "nodepatch-agent",
			want: []string{"namespace: patches"}, not: []string{"nodepatch-system"},
		},
		"the release's own namespace": {values: "namespace: {name: default}", kind: "Namespace", name: "default"},
		"no network policy":           {values: "networkPolicy: {enabled: false}", kind: "NetworkPolicy", name: "nodepatch-manager"},
		"another port": {
			values: "networkPolicy: {egressPorts: [16443]}", kind: "NetworkPolicy", name: "nodepatch-manager",
			want: []string{"port: 16443"}, not: []string{"port: 6443"},
		},
		"labels that Prometheus selects by": {
			values: "monitoring: {enabled: true, labels: {release: stack}}", kind: "ServiceMonitor", name: "nodepatch",
			want: []string{"release: stack"},
		},
		"Prometheus elsewhere": {
			values: "monitoring: {enabled: true, prometheusNamespace: watch}", kind: "ClusterRoleBinding", name: "nodepatch-metrics-reader",
			want: []string{"system:serviceaccounts:watch"},
		},
		"kept CRDs": {
			values: "crds: {keep: true}", kind: "CustomResourceDefinition", name: "patchpolicies.nodepatch.io",
			want: []string{"helm.sh/resource-policy: keep"},
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			o := manifest(t, test.values, test.kind, test.name)
			if len(test.want) == 0 && o != nil {
				t.Fatalf("it is installed:\n%s", text(t, o))
			}
			if len(test.want) == 0 {
				return
			}
			got := text(t, o)
			for _, want := range test.want {
				if !strings.Contains(strings.ReplaceAll(got, "'", ""), want) {
					t.Errorf("%q is not in\n%s", want, got)
				}
			}
			for _, not := range test.not {
				if strings.Contains(got, not) {
					t.Errorf("%q is in\n%s", not, got)
				}
			}
		})
	}
}

func TestBadValuesAreRefused(t *testing.T) {
	for values, want := range map[string]string{
		"manger: {replicas: 1}":                       "additional properties 'manger' not allowed",
		"manager: {replica: 1}":                       "additional properties 'replica' not allowed",
		"manager: {replicas: 0}":                      "at '/manager/replicas': minimum: got 0, want 1",
		"manager: {clusterMaxUnavailable: 0%}":        "/manager/clusterMaxUnavailable",
		"manager: {kured: kured}":                     "at '/manager/kured'",
		"image: {digest: abc}":                        "at '/image/digest'",
		"image: {pullPolicy: Sometimes}":              "'Always', 'IfNotPresent', 'Never'",
		"namespace: {name: Patches}":                  "at '/namespace/name'",
		"networkPolicy: {egressPorts: []}":            "minItems: got 0, want 1",
		"uninstall: {patience: 5}":                    "at '/uninstall/patience'",
		"agents: {resources: {limit: {memory: 1Gi}}}": "additional properties 'limit' not allowed",
	} {
		_, err := render(t, values)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got the error %v, want it to say %q", values, err, want)
		}
	}
}

func TestWithImage(t *testing.T) {
	values := []byte("image:\n  repository: nodepatch\n  tag: dev\n  digest: \"\"\n")
	for image, want := range map[string][3]string{
		"registry.example:5000/a/b:v1":            {"registry.example:5000/a/b", "v1", ""},
		"registry.example:5000/a/b@sha256:01":     {"registry.example:5000/a/b", "", "sha256:01"},
		"registry.example:5000/a/b:v1@sha256:01":  {"registry.example:5000/a/b", "v1", "sha256:01"},
		"registry.example:5000/a/b:1.10@sha256:0": {"registry.example:5000/a/b", "1.10", "sha256:0"},
	} {
		changed, err := withImage(values, image)
		if err != nil {
			t.Fatalf("%s: %v", image, err)
		}
		var got struct {
			Image struct{ Repository, Tag, Digest string }
		}
		if err := yaml.UnmarshalStrict(changed, &got); err != nil {
			t.Fatal(err)
		}
		if [3]string{got.Image.Repository, got.Image.Tag, got.Image.Digest} != want {
			t.Errorf("%s became %+v", image, got)
		}
	}
	for _, image := range []string{"registry.example:5000/a/b", "b"} {
		if _, err := withImage(values, image); err == nil {
			t.Errorf("%s was accepted", image)
		}
	}
	if _, err := withImage([]byte("image: {}\n"), "a:b"); err == nil {
		t.Error("values without an image were accepted")
	}
}
