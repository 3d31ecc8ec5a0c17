package main

import (
	"strings"
	"testing"
	"time"
)

type environment map[string]string

func (e environment) get(name string) string { return e[name] }

func TestParse(t *testing.T) {
	tests := map[string]struct {
		args  []string
		env   environment
		check func(options) bool
		want  string
	}{
		"as in the manifest": {
			args: []string{"--leader-elect", "--agent-image=nodepatch:dev", "--metrics-bind-address=:9443", "--health-probe-bind-address=:9081"},
			env:  environment{"POD_NAMESPACE": "nodepatch-system", "POD_NAME": "manager-1"},
			check: func(o options) bool {
				return o.leaderElect && o.agents.Image == "nodepatch:dev" && o.namespace == "nodepatch-system" &&
					o.instance == "manager-1" && o.metricsAddr == ":9443" && o.healthAddr == ":9081"
			},
		},
		"the fewest flags": {
			args: []string{"--agent-image", "i", "--namespace", "n"},
			check: func(o options) bool {
				return !o.leaderElect && o.metricsAddr == ":8443" && o.healthAddr == ":8081" && o.namespace == "n" && o.instance != ""
			},
		},
		"the flag goes before the environment": {
			args:  []string{"--agent-image", "i", "--namespace", "n"},
			env:   environment{"POD_NAMESPACE": "other"},
			check: func(o options) bool { return o.namespace == "n" },
		},
		"the node it runs on": {
			args:  []string{"--agent-image", "i", "--namespace", "n"},
			env:   environment{"NODE_NAME": "machine-1"},
			check: func(o options) bool { return o.node == "machine-1" },
		},
		"neighbours and budget if nothing is said": {
			args: []string{"--agent-image", "i", "--namespace", "n"},
			check: func(o options) bool {
				return o.clusterMaxUnavailable == nil && o.kured.String() == "kube-system/kured" && o.leaseNamespace == ""
			},
		},
		"neighbours and budget": {
			args: []string{"--agent-image", "i", "--namespace", "n", "--cluster-max-unavailable=5%", "--kured=", "--maintenance-lease-namespace=leases"},
			check: func(o options) bool {
				return o.clusterMaxUnavailable.String() == "5%" && o.kured.Name == "" && o.leaseNamespace == "leases"
			},
		},
		"a budget of a number": {
			args:  []string{"--agent-image", "i", "--namespace", "n", "--cluster-max-unavailable=3"},
			check: func(o options) bool { return o.clusterMaxUnavailable.IntValue() == 3 },
		},
		"a budget of nothing": {args: []string{"--cluster-max-unavailable=0"}, want: "a number of nodes of at least 1, or a percentage"},
		"a budget above all":  {args: []string{"--cluster-max-unavailable=101%"}, want: "a number of nodes of at least 1, or a percentage"},
		"a budget in words":   {args: []string{"--cluster-max-unavailable=some"}, want: `not "some"`},
		"agents as they were measured": {
			args: []string{"--agent-image", "i", "--namespace", "n"},
			check: func(o options) bool {
				return o.agents.Namespace == "n" && o.agents.PriorityClass == "nodepatch-agent" && o.agents.Resources.Limits.Memory().String() == "128Mi"
			},
		},
		"agents of another size": {
			args: []string{"--agent-image", "i", "--namespace", "n", "--agent-priority-class=", `--agent-resources={"limits":{"memory":"64Mi"}}`},
			check: func(o options) bool {
				return o.agents.PriorityClass == "" && o.agents.Resources.Limits.Memory().String() == "64Mi" && o.agents.Resources.Requests == nil
			},
		},
		"agents of no size":     {args: []string{`--agent-resources={"limit":{}}`}, want: `unknown field "limit"`},
		"agents of a bad size":  {args: []string{`--agent-resources={"limits":{"memory":"much"}}`}, want: "--agent-resources is JSON such as"},
		"kured without a place": {args: []string{"--kured=kured"}, want: "NAMESPACE/NAME"},
		"verbosity": {
			args:  []string{"--agent-image", "i", "--namespace", "n", "-v", "4"},
			check: func(o options) bool { return o.log.Level.Enabled(-4) && !o.log.Level.Enabled(-5) },
		},
		"version alone": {
			args: []string{"--version"}, check: func(o options) bool { return o.printVersion },
		},
		"no image":       {args: []string{"--namespace", "n"}, want: "--agent-image is required"},
		"no namespace":   {args: []string{"--agent-image", "i"}, want: "--namespace is required"},
		"unknown flag":   {args: []string{"--leader-elekt"}, want: "not defined: -leader-elekt"},
		"stray argument": {args: []string{"--agent-image", "i", "--namespace", "n", "start"}, want: `unexpected argument "start"`},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := parse(test.args, test.env.get)
			switch {
			case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)):
				t.Errorf("got the error %v, want it to say %q", err, test.want)
			case test.want == "" && err != nil:
				t.Errorf("refused: %v", err)
			case test.want == "" && !test.check(got):
				t.Errorf("got %+v", got)
			}
		})
	}
}

func TestParseLeave(t *testing.T) {
	o, err := parseLeave(nil, environment{}.get)
	if err != nil || o.Namespace != "nodepatch-system" || o.KeepPolicies || o.Patience != 280*time.Second {
		t.Errorf("without flags: %+v, %v", o, err)
	}
	o, err = parseLeave([]string{"--keep-policies", "--patience=10m"}, environment{"POD_NAMESPACE": "other"}.get)
	if err != nil || o.Namespace != "other" || !o.KeepPolicies || o.Patience != 10*time.Minute {
		t.Errorf("with flags: %+v, %v", o, err)
	}
	for _, args := range [][]string{{"--patience=0s"}, {"now"}, {"--pace=1s"}} {
		if _, err := parseLeave(args, environment{}.get); err == nil {
			t.Errorf("%v was accepted", args)
		}
	}
}
