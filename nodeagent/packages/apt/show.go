package apt

import (
	"strconv"
	"strings"
)

const showTool = "apt-cache show"

func showCommand(versions []string) []string {
	return append(append([]string{"apt-cache", "show", "--no-all-versions"}, options()...), append([]string{"--"}, versions...)...)
}

// parseSizes adds to sizes those of the packages that "apt-cache show" printed:
// the records of Packages files, with an empty line after each. All of their
// fields but four are passed over, whatever they are.
func parseSizes(output []byte, sizes map[file]int64) error {
	var f file
	size := int64(0)
	end := func(n int, line string) error {
		if f != (file{}) {
			if !validName(f.name) || !validVersion(f.version) || !validArchitecture(f.architecture) {
				return notUnderstood(showTool, n, line, "the record before it has no package, version or architecture")
			}
			sizes[f] = size
		}
		f, size = file{}, 0
		return nil
	}
	last := 0
	for n, line := range lines(output) {
		last = n
		name, value, found := strings.Cut(line, ":")
		value = strings.TrimSpace(value)
		switch {
		case line == "":
			if err := end(n, line); err != nil {
				return err
			}
		case line[0] == ' ' || line[0] == '\t':
		case !found:
			return notUnderstood(showTool, n, line, "not a field of a package's record")
		case name == "Package":
			f.name = value
		case name == "Version":
			f.version = value
		case name == "Architecture":
			f.architecture = value
		case name == "Size":
			var err error
			if size, err = strconv.ParseInt(value, 10, 64); err != nil || size < 0 {
				return notUnderstood(showTool, n, line, "not a size")
			}
		}
	}
	return end(last+1, "")
}
