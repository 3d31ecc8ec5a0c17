package blockers

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestParseKured(t *testing.T) {
	created := time.Date(2026, 11, 23, 8, 0, 0, 123456789, time.UTC)
	for name, test := range map[string]struct {
		value   string
		want    []kuredHold
		wantErr bool
	}{
		"one lock, as kured 1.17 writes it": {
			value: `{"nodeID":"a","metadata":{"unschedulable":true},"created":"2026-11-23T08:00:00.123456789Z","TTL":1800000000000}`,
			want:  []kuredHold{{NodeID: "a", Created: created, TTL: 30 * time.Minute}},
		},
		"one lock, as kured 1.2 wrote it": {value: `{"nodeID":"a","metadata":{"unschedulable":false}}`, want: []kuredHold{{NodeID: "a"}}},
		"locks of several nodes": {
			value: `{"maxOwners":2,"locks":[{"nodeID":"a","metadata":null,"created":"2026-11-23T08:00:00.123456789Z","TTL":0},` +
				`{"nodeID":"b","metadata":{"unschedulable":false},"created":"2026-11-23T08:00:00.123456789Z","TTL":60000000000}]}`,
			want: []kuredHold{{NodeID: "a", Created: created}, {NodeID: "b", Created: created, TTL: time.Minute}},
		},
		"released by all":       {value: `{"maxOwners":2,"locks":[]}`, want: []kuredHold{}},
		"never taken by any":    {value: `{"maxOwners":2,"locks":null}`},
		"nothing":               {value: "", wantErr: true},
		"another's":             {value: `{"owner":"a"}`, wantErr: true},
		"no object":             {value: `"a"`, wantErr: true},
		"a time that is none":   {value: `{"nodeID":"a","created":"yesterday"}`, wantErr: true},
		"a TTL that is a word":  {value: `{"nodeID":"a","TTL":"30m"}`, wantErr: true},
		"cut off in the middle": {value: `{"maxOwners":2,"locks":[{"nodeID":"a"`, wantErr: true},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := parseKured(test.value)
			if (err != nil) != test.wantErr {
				t.Fatalf("The error is %v, want one: %t", err, test.wantErr)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("Locks (-want +got):\n%s", diff)
			}
		})
	}
}
