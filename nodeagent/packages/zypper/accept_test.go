package zypper

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/nodepatch/nodepatch/nodeagent/packages"
)

func TestSelection(t *testing.T) {
	var hundred []packages.Target
	for i := range 100 {
		hundred = append(hundred, packages.Target{Name: fmt.Sprintf("toy-%02d", i), Architecture: "noarch", Version: "1-1"})
	}
	bad := []packages.Target{hundred[7], hundred[8], hundred[90]}
	of := func(all []packages.Target) (found []packages.Failure) {
		for _, target := range all {
			if slices.Contains(bad, target) {
				found = append(found, packages.Failure{Target: target, Message: "is bad"})
			}
		}
		return found
	}
	for name, c := range map[string]struct {
		check    func(all []packages.Target) *packages.RefusedError
		rejected int
		most     int
	}{
		"all good": {func([]packages.Target) *packages.RefusedError { return nil }, 0, 1},
		"named": {func(all []packages.Target) *packages.RefusedError {
			if found := of(all); len(found) > 0 {
				return &packages.RefusedError{Targets: found}
			}
			return nil
		}, 3, 2},
		"named one at a time": {func(all []packages.Target) *packages.RefusedError {
			if found := of(all); len(found) > 0 {
				return &packages.RefusedError{Targets: found[:1]}
			}
			return nil
		}, 3, 4},
		"not named": {func(all []packages.Target) *packages.RefusedError {
			if found := of(all); len(found) > 0 {
				return &packages.RefusedError{Detail: fmt.Sprint(found)}
			}
			return nil
		}, 3, 40},
		"one that does not go with another": {func(all []packages.Target) *packages.RefusedError {
			if len(of(all)) > 2 {
				return &packages.RefusedError{Detail: "too many"}
			}
			return nil
		}, 1, 20},
		"nothing can be planned": {func([]packages.Target) *packages.RefusedError {
			return &packages.RefusedError{Detail: "the host is broken"}
		}, 100, 30},
		"only what was accepted is named": {func(all []packages.Target) *packages.RefusedError {
			if found := of(all); len(found) == 3 {
				return &packages.RefusedError{Targets: found[:1]}
			}
			return nil
		}, 1, 20},
	} {
		t.Run(name, func(t *testing.T) {
			asked := 0
			s := &selection{check: func(_ context.Context, all []packages.Target) error {
				asked++
				if refused := c.check(all); refused != nil {
					return fmt.Errorf("plan: %w", refused)
				}
				return nil
			}}
			if err := s.add(t.Context(), hundred); err != nil {
				t.Fatal(err)
			}
			if len(s.rejected) != c.rejected || len(s.accepted)+len(s.rejected) != len(hundred) {
				t.Errorf("%d are accepted, %+v rejected", len(s.accepted), s.rejected)
			}
			if refused := c.check(s.accepted); refused != nil && len(s.accepted) > 0 {
				t.Errorf("what is accepted is refused: %v", refused)
			}
			if asked > c.most {
				t.Errorf("zypper was asked %d times, want at most %d", asked, c.most)
			}
		})
	}
	ended := errors.New("ended")
	s := &selection{check: func(context.Context, []packages.Target) error { return ended }}
	if err := s.add(t.Context(), hundred); !errors.Is(err, ended) {
		t.Errorf("an error of another kind is %v", err)
	}
}
