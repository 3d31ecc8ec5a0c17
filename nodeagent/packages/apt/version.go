package apt

import (
	"strings"
)

// compareVersions orders two Debian versions as dpkg does (deb-version(7)): it
// is negative if a is the older, and positive if b is. What is no valid version
// is ordered all the same, as dpkg's own comparison would order it.
func compareVersions(a, b string) int {
	aEpoch, aUpstream, aRevision := splitVersion(a)
	bEpoch, bUpstream, bRevision := splitVersion(b)
	if c := comparePart(aEpoch, bEpoch); c != 0 {
		return c
	}
	if c := comparePart(aUpstream, bUpstream); c != 0 {
		return c
	}
	return comparePart(aRevision, bRevision)
}

func splitVersion(version string) (epoch, upstream, revision string) {
	epoch, upstream, found := strings.Cut(version, ":")
	if !found {
		epoch, upstream = "", version
	}
	if i := strings.LastIndexByte(upstream, '-'); i >= 0 {
		upstream, revision = upstream[:i], upstream[i+1:]
	}
	return epoch, upstream, revision
}

// comparePart compares runs of other characters and runs of digits in turn. A
// run of digits may have any length, so it is compared as text.
func comparePart(a, b string) int {
	for a != "" || b != "" {
		for (a != "" && !digit(a[0])) || (b != "" && !digit(b[0])) {
			if c := order(a) - order(b); c != 0 {
				return c
			}
			// Equal order means that both have this character: only the end
			// and digits share an order, and not both are that here.
			a, b = a[1:], b[1:]
		}
		aDigits, bDigits := leadingDigits(&a), leadingDigits(&b)
		if len(aDigits) != len(bDigits) {
			return len(aDigits) - len(bDigits)
		}
		if c := strings.Compare(aDigits, bDigits); c != 0 {
			return c
		}
	}
	return 0
}

// order is the place of the first character of s: the tilde before the end,
// the end and digits before letters, letters before all others.
func order(s string) int {
	if s == "" || digit(s[0]) {
		return 0
	}
	switch c := s[0]; {
	case c == '~':
		return -1
	case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z':
		return int(c)
	default:
		return int(c) + 256
	}
}

// leadingDigits cuts the digits off the front of s and returns them without
// leading zeros.
func leadingDigits(s *string) string {
	n := 0
	for n < len(*s) && digit((*s)[n]) {
		n++
	}
	digits := strings.TrimLeft((*s)[:n], "0")
	*s = (*s)[n:]
	return digits
}

func digit(c byte) bool { return '0' <= c && c <= '9' }
