package apt

import (
	"bytes"
	"iter"
	"strings"

	"github.com/nodepatch/nodepatch/nodeagent/packages"
)

// lines yields the lines of a tool's output with their numbers, from 1. Only
// one line at a time is copied.
func lines(output []byte) iter.Seq2[int, string] {
	return func(yield func(int, string) bool) {
		for n := 1; len(output) > 0; n++ {
			line, rest, _ := bytes.Cut(output, []byte("\n"))
			output = rest
			if !yield(n, string(line)) {
				return
			}
		}
	}
}

// notUnderstood is the error of a line that is not what the tool prints.
func notUnderstood(tool string, n int, line, problem string) error {
	const longest = 200
	if len(line) > longest {
		line = line[:longest]
	}
	return &packages.ParseError{Tool: tool, Line: n, Text: strings.ToValidUTF8(line, "\uFFFD"), Problem: problem}
}

// validName says whether s is the name of a package by Debian policy 5.6.1.
// What passes can neither be an option nor a pattern of apt.
func validName(s string) bool {
	if len(s) < 2 || !lower(s[0]) && !digit(s[0]) {
		return false
	}
	for i := 1; i < len(s); i++ {
		if c := s[i]; !lower(c) && !digit(c) && c != '+' && c != '-' && c != '.' {
			return false
		}
	}
	return true
}

// validVersion says whether s has only the characters of a version (deb-version(7)).
// dpkg lets some pass that do not begin with a digit, so they pass here.
func validVersion(s string) bool {
	for i := 0; i < len(s); i++ {
		c := s[i]
		if !lower(c) && !digit(c) && (c < 'A' || c > 'Z') && c != '.' && c != '+' && c != '-' && c != '~' && c != ':' && c != '_' {
			return false
		}
	}
	return s != ""
}

// validArchitecture says whether s is the name of an architecture, such as "amd64" or "kfreebsd-i386".
func validArchitecture(s string) bool {
	for i := 0; i < len(s); i++ {
		if c := s[i]; !lower(c) && !digit(c) && c != '-' {
			return false
		}
	}
	return s != ""
}

func lower(c byte) bool { return 'a' <= c && c <= 'z' }

// parseName takes apart a package's name as apt prints it: with its
// architecture only if that is foreign to the host.
func parseName(s string) (name, foreign string, ok bool) {
	name, foreign, qualified := strings.Cut(s, ":")
	if !validName(name) || qualified && !validArchitecture(foreign) {
		return "", "", false
	}
	return name, foreign, true
}
