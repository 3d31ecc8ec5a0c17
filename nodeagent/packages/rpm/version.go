package rpm

import "strings"

// Compare orders two versions as rpm does: it is negative if a is the older, and
// positive if b is. They are written "[epoch:]version-release", where no epoch
// means 0.
func Compare(a, b string) int {
	aEpoch, aVersion, aRelease := split(a)
	bEpoch, bVersion, bRelease := split(b)
	if c := compareDigits(aEpoch, bEpoch); c != 0 {
		return c
	}
	if c := comparePart(aVersion, bVersion); c != 0 {
		return c
	}
	return comparePart(aRelease, bRelease)
}

func split(evr string) (epoch, version, release string) {
	epoch, rest, found := strings.Cut(evr, ":")
	if !found {
		epoch, rest = "", evr
	}
	version, release, _ = strings.Cut(rest, "-")
	return epoch, version, release
}

// comparePart compares two versions, or two releases, as rpmvercmp does: runs of
// digits by value and runs of letters by their characters, with whatever is
// between them only separating. A tilde is older than the end, a caret newer than
// the end and older than anything else.
func comparePart(a, b string) int {
	for a != "" || b != "" {
		a, b = strings.TrimLeftFunc(a, separates), strings.TrimLeftFunc(b, separates)
		aTilde, bTilde := strings.HasPrefix(a, "~"), strings.HasPrefix(b, "~")
		aCaret, bCaret := strings.HasPrefix(a, "^"), strings.HasPrefix(b, "^")
		switch {
		case aTilde && bTilde, aCaret && bCaret:
			a, b = a[1:], b[1:]
			continue
		case aTilde:
			return -1
		case bTilde:
			return 1
		case aCaret && b == "":
			return 1
		case bCaret && a == "":
			return -1
		case aCaret:
			return -1
		case bCaret:
			return 1
		}
		if a == "" || b == "" {
			break
		}
		kind := letter
		if digit(rune(a[0])) {
			kind = digit
		}
		aRun, bRun := run(&a, kind), run(&b, kind)
		switch {
		case bRun == "" && digit(rune(aRun[0])): // a number is newer than letters
			return 1
		case bRun == "":
			return -1
		}
		compare := strings.Compare
		if digit(rune(aRun[0])) {
			compare = compareDigits
		}
		if c := compare(aRun, bRun); c != 0 {
			return c
		}
	}
	// One of them at least is at its end: what is left is the newer.
	return min(len(a), 1) - min(len(b), 1)
}

// compareDigits compares numbers of any length.
func compareDigits(a, b string) int {
	a, b = strings.TrimLeft(a, "0"), strings.TrimLeft(b, "0")
	if len(a) != len(b) {
		return len(a) - len(b)
	}
	return strings.Compare(a, b)
}

// run cuts the characters of a kind off the front of s.
func run(s *string, kind func(rune) bool) string {
	n := 0
	for n < len(*s) && kind(rune((*s)[n])) {
		n++
	}
	cut := (*s)[:n]
	*s = (*s)[n:]
	return cut
}

func digit(c rune) bool  { return '0' <= c && c <= '9' }
func letter(c rune) bool { return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' }

func separates(c rune) bool { return !digit(c) && !letter(c) && c != '~' && c != '^' }
