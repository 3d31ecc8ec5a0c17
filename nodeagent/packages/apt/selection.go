package apt

import (
	"context"
	"slices"

	"github.com/nodepatch/nodepatch/nodeagent/packages"
)

// selection finds the targets that fit together, where apt takes all or none. What
// apt names is taken out at once. Where it names nothing of use, halves are tried:
// that asks some 2·log₂(n) times for each target that does not fit.
type selection struct {
	db *database
	// check asks whether all of these fit. A *refused says why they do not; any
	// other error ends the search.
	check func(context.Context, []packages.Target) error

	fitting  []packages.Target
	rejected []packages.Failure
}

func (s *selection) add(ctx context.Context, targets []packages.Target) error {
	for len(targets) > 0 {
		err := s.check(ctx, slices.Concat(s.fitting, targets))
		if err == nil {
			s.fitting = append(s.fitting, targets...)
			return nil
		}
		r, is := asRefused(err)
		if !is {
			return err
		}
		named, others := r.of(s.db, targets)
		if len(named) == 0 {
			if len(targets) == 1 {
				s.rejected = append(s.rejected, packages.Failure{Target: targets[0], Message: r.detail})
				return nil
			}
			half := len(targets) / 2
			if err := s.add(ctx, targets[:half]); err != nil {
				return err
			}
			targets = targets[half:]
			continue
		}
		s.rejected = append(s.rejected, named...)
		targets = others
	}
	return nil
}
