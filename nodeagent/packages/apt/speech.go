package apt

import (
	"path"
	"strings"

	"github.com/nodepatch/nodepatch/nodeagent/packages"
)

// speech is what dpkg and maintainer scripts printed, in lines that were cleaned.
type speech struct {
	// all has both streams in turn where apt has a terminal for dpkg, as on every
	// booted host. In a chroot it has none, and all is the standard error alone.
	all []string
	// output is the standard output where that is not in all.
	output []string
}

func newSpeech(result packages.Result) speech {
	read := func(output []byte) (text []string) {
		for _, line := range lines(output) {
			text = append(text, clean(line))
		}
		return text
	}
	const verdict = "dpkg: error processing "
	if strings.Contains(string(result.Stdout), verdict) {
		return speech{all: read(result.Stdout)}
	}
	return speech{all: read(result.Stderr), output: read(result.Stdout)}
}

// mostWords is how many lines of a script are taken.
const mostWords = 3

// before are the last lines that a package's script printed before dpkg gave its
// verdict on the package, or on the file, of that name.
//
//	Setting up egg (1.1) ...
//	postinst of egg fails on purpose
//	dpkg: error processing package egg (--configure):
func (s speech) before(name string) []string {
	for i, line := range s.all {
		rest, is := strings.CutPrefix(line, "dpkg: error processing ")
		if !is || !names(rest, name) {
			continue
		}
		begin := i
		for begin > 0 && i-begin < mostWords && !dpkgsOwn(s.all[begin-1]) {
			begin--
		}
		switch {
		case s.output == nil:
			return s.all[begin:i]
		case begin == i:
			return s.after(name)
		default:
			// Nothing says where the words of the script before end.
			return s.all[i-1 : i]
		}
	}
	return nil
}

// after are the last lines that a package's script printed on its standard output.
func (s speech) after(name string) []string {
	for i, line := range s.output {
		configures := strings.HasPrefix(line, "Setting up "+name+" (")
		unpacks := strings.HasPrefix(line, "Preparing to unpack ") && strings.HasSuffix(line, "/"+path.Base(name)+" ...")
		if !configures && !unpacks {
			continue
		}
		begin := i + 1
		end := begin
		for end < len(s.output) && !dpkgsOwn(s.output[end]) {
			end++
		}
		return s.output[max(begin, end-mostWords):end]
	}
	return nil
}

// names says whether "package egg (--configure):", "package egg:i386 (…" or
// "archive /tmp/…/08-egg_1.1_all.deb (…" is about that package or file.
func names(rest, name string) bool {
	_, rest, _ = strings.Cut(rest, " ")
	subject, _, found := strings.Cut(rest, " (")
	if native, _, _ := strings.Cut(subject, ":"); !strings.HasPrefix(name, "/") && native == name {
		return found // dpkg may say the architecture where apt does not
	}
	return found && subject == name
}

// dpkgsOwn says whether a line is dpkg's or apt's, and no script's.
func dpkgsOwn(line string) bool {
	if line == "" || strings.HasPrefix(line, " ") {
		// Dpkg's verdicts are indented, as may be a script's words: too few of them
		// are better than those of another package.
		return true
	}
	for _, begin := range []string{
		"dpkg: ", "dpkg-", "debconf: ", "E: ", "W: ", "(Reading database ", "Preparing to unpack ", "Unpacking ", "Selecting previously ",
		"Setting up ", "Processing triggers for ", "Removing ", "Purging ", "Replacing files ", "Errors were encountered ",
		"Configuration file ", "Installing new version of config file ",
	} {
		if strings.HasPrefix(line, begin) {
			return true
		}
	}
	return false
}

// join makes one line of a script's words and dpkg's verdict, which is kept.
func join(words []string, verdict string) string {
	verdict = shorten(verdict, longestMessage/2)
	text := strings.Join(words, "; ")
	if text == "" {
		return verdict
	}
	return shorten(text, longestMessage-len(verdict)-len("; ")) + "; " + verdict
}
