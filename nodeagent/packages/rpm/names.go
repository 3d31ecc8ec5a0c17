package rpm

import "strings"

// ValidName says whether s can be the name of a package: letters, digits and
// "._+-", not begun by "-" or "." (Fedora's guidelines; rpm itself allows more).
// What passes can neither be an option nor a pattern of rpm, dnf or zypper.
func ValidName(s string) bool {
	return s != "" && s[0] != '-' && s[0] != '.' && only(s, "._+-")
}

// ValidVersion says whether s can be "[epoch:]version-release".
func ValidVersion(s string) bool {
	epoch, rest, found := strings.Cut(s, ":")
	if !found {
		epoch, rest = "0", s
	}
	version, release, _ := strings.Cut(rest, "-")
	return epoch != "" && strings.Trim(epoch, "0123456789") == "" && version != "" && release != "" &&
		only(version, "._+~^") && only(release, "._+~^")
}

// ValidArchitecture says whether s can be that of a package, such as "x86_64" or "noarch".
func ValidArchitecture(s string) bool { return s != "" && only(s, "_") }

func only(s, others string) bool {
	return !strings.ContainsFunc(s, func(c rune) bool {
		return !digit(c) && !letter(c) && !strings.ContainsRune(others, c)
	})
}

// ParseNEVRA takes apart what rpm and dnf call a package:
// "name-[epoch:]version-release.architecture". dnf leaves out an epoch of 0, and
// the version that is returned does too.
func ParseNEVRA(s string) (name, version, architecture string, ok bool) {
	dot := strings.LastIndexByte(s, '.')
	if dot < 0 {
		return "", "", "", false
	}
	s, architecture = s[:dot], s[dot+1:]
	dash := strings.LastIndexByte(s, '-')
	if dash < 0 {
		return "", "", "", false
	}
	if dash = strings.LastIndexByte(s[:dash], '-'); dash < 0 {
		return "", "", "", false
	}
	name, version = s[:dash], strings.TrimPrefix(s[dash+1:], "0:")
	return name, version, architecture, ValidName(name) && ValidVersion(version) && ValidArchitecture(architecture)
}

// ParseSource takes apart the file name of a source package, "bash-5.1.8-6.el9.src.rpm".
func ParseSource(file string) (name, version string, ok bool) {
	base, is := strings.CutSuffix(file, ".src.rpm")
	if !is {
		if base, is = strings.CutSuffix(file, ".nosrc.rpm"); !is {
			return "", "", false
		}
	}
	name, version, _, ok = ParseNEVRA(base + ".src")
	return name, version, ok
}
