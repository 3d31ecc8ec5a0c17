package operation

import (
	"errors"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/nodeagent/host"
	"github.com/nodepatch/nodepatch/nodeagent/packages"
)

// refreshReason is the API's word for why a refresh failed.
func refreshReason(err error) string {
	var refresh *packages.RefreshError
	if errors.As(err, &refresh) && refresh.Unreachable() {
		return v1alpha1.ReasonRepositoryUnreachable
	}
	return reason(err, v1alpha1.ReasonRefreshFailed)
}

// scanReason is the API's word for why a scan failed.
func scanReason(err error) string {
	return reason(err, v1alpha1.ReasonScanFailed)
}

func reason(err error, otherwise string) string {
	var (
		locked      *packages.LockHeldError
		parse       *packages.ParseError
		interrupted *host.InterruptedError
		unavailable *host.UnavailableError
		unmet       *packages.UnmetDependenciesError
		full        *packages.DiskFullError
		cut         *packages.InterruptedDatabaseError
		refused     *packages.RepositoryError
	)
	switch {
	case errors.As(err, &locked):
		return v1alpha1.ReasonLocked
	case errors.As(err, &parse):
		return v1alpha1.ReasonOutputNotUnderstood
	case errors.As(err, &interrupted):
		return v1alpha1.ReasonInterrupted
	case errors.As(err, &unavailable):
		return v1alpha1.ReasonHostUnavailable
	case errors.As(err, &unmet):
		return v1alpha1.ReasonUnmetDependencies
	case errors.As(err, &full):
		return v1alpha1.ReasonDiskFull
	case errors.As(err, &cut):
		return v1alpha1.ReasonInterrupted
	case errors.As(err, &refused):
		return v1alpha1.ReasonRepositoryUnreachable
	}
	return otherwise
}
