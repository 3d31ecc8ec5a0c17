package zypper

import (
	"context"
	"errors"
	"slices"

	"github.com/nodepatch/nodepatch/nodeagent/packages"
)

// selection grows by the targets that zypper takes together. zypper takes all
// that it is asked for or nothing.
type selection struct {
	// check returns *packages.RefusedError for targets that do not go together.
	check func(ctx context.Context, targets []packages.Target) error
	// accepted go together, rejected do not, each with the reason.
	accepted []packages.Target
	rejected []packages.Failure
}

// add takes as many of the targets as go together with those accepted before.
// Those that zypper names are left out at once; where it names none, halves are
// tried, so that one bad target among n costs some log n questions.
func (s *selection) add(ctx context.Context, targets []packages.Target) error {
	for len(targets) > 0 {
		err := s.check(ctx, slices.Concat(s.accepted, targets))
		var refused *packages.RefusedError
		if err != nil && !errors.As(err, &refused) {
			return err
		}
		if err == nil {
			s.accepted = append(s.accepted, targets...)
			return nil
		}
		var left []packages.Target
		for _, t := range targets {
			i := slices.IndexFunc(refused.Targets, func(f packages.Failure) bool { return f.Target == t })
			if i < 0 {
				left = append(left, t)
			} else {
				s.rejected = append(s.rejected, refused.Targets[i])
			}
		}
		if len(left) < len(targets) {
			targets = left
			continue
		}
		if len(targets) == 1 {
			s.rejected = append(s.rejected, packages.Failure{Target: targets[0], Message: refused.Detail})
			return nil
		}
		half := len(targets) / 2
		if err := s.add(ctx, targets[:half]); err != nil {
			return err
		}
		targets = targets[half:]
	}
	return nil
}
