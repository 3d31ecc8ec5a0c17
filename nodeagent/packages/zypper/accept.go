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
	// alone counts the reasons for which single targets were rejected without being
	// named: what is said of several is about the host, and will be said of all.
	alone map[string]int
}

// several is how many targets make a reason one of the host's.
const several = 3

// add takes as many of the targets as go together with those accepted before.
// Those that zypper names are left out at once; where it names none, halves are
// tried, so that one bad target among n costs some log n questions, and a host on
// which nothing can be planned hardly more.
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
		if len(targets) == 1 || s.alone[refused.Detail] >= several {
			for _, t := range targets {
				s.rejected = append(s.rejected, packages.Failure{Target: t, Message: refused.Detail})
			}
			if s.alone == nil {
				s.alone = map[string]int{}
			}
			s.alone[refused.Detail]++
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
