package packages

import (
	"reflect"
	"slices"
	"strings"
	"testing"
	"testing/fstest"
	"time"
)

func TestReadOS(t *testing.T) {
	for name, c := range map[string]struct {
		files fstest.MapFS
		want  OS
	}{
		"Debian": {
			fstest.MapFS{"etc/os-release": {Data: []byte("PRETTY_NAME=\"Debian GNU/Linux 12 (bookworm)\"\nNAME=\"Debian GNU/Linux\"\nVERSION_ID=\"12\"\nID=debian\n")}},
			OS{ID: "debian", VersionID: "12", PrettyName: "Debian GNU/Linux 12 (bookworm)"},
		},
		"a derivative, at the other place": {
			fstest.MapFS{"usr/lib/os-release": {Data: []byte("# comment\nID='linuxmint'\nID_LIKE=\"ubuntu debian\"\nPRETTY_NAME=\"A \\\"quoted\\\" \\$name\"\n\nnonsense")}},
			OS{ID: "linuxmint", IDLike: []string{"ubuntu", "debian"}, PrettyName: `A "quoted" $name`},
		},
		"empty": {fstest.MapFS{"etc/os-release": {}}, OS{}},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ReadOS(c.files)
			if err != nil || !reflect.DeepEqual(got, c.want) {
				t.Errorf("it is %+v, %v, want %+v", got, err, c.want)
			}
		})
	}
	if got, err := ReadOS(fstest.MapFS{}); err == nil {
		t.Errorf("without a file it is %+v", got)
	}
}

func TestRebootFlag(t *testing.T) {
	flag := &fstest.MapFile{Data: []byte("*** System restart required ***\n")}
	for name, c := range map[string]struct {
		files fstest.MapFS
		set   bool
		by    []string
	}{
		"not set":       {files: fstest.MapFS{}},
		"names alone":   {files: fstest.MapFS{"run/reboot-required.pkgs": {Data: []byte("libc6\n")}}},
		"set by nobody": {files: fstest.MapFS{"run/reboot-required": flag}, set: true},
		"set twice by one": {
			files: fstest.MapFS{"run/reboot-required": flag, "run/reboot-required.pkgs": {Data: []byte("libc6\ndbus\n\nlibc6\n")}},
			set:   true, by: []string{"libc6", "dbus"},
		},
	} {
		t.Run(name, func(t *testing.T) {
			set, by, err := RebootFlag(c.files)
			if err != nil || set != c.set || !slices.Equal(by, c.by) {
				t.Errorf("it is %t by %q, %v", set, by, err)
			}
		})
	}
}

// TestProcessName is how a lock's holder gets its name where the tool knows only its number.
func TestProcessName(t *testing.T) {
	files := fstest.MapFS{"proc/123/comm": {Data: []byte("unattended-upgr\n")}}
	if got := ProcessName(files, 123); got != "unattended-upgr" {
		t.Errorf("process 123 is %q", got)
	}
	if got := ProcessName(files, 124); got != "" {
		t.Errorf("a process that is gone is %q", got)
	}
}

// TestErrors has each error say what happened, with what, and what to do.
func TestErrors(t *testing.T) {
	unreachable := RepositoryFailure{Repository: "http://m/dists/x", Reason: "Could not connect", Unreachable: true}
	unsigned := RepositoryFailure{Repository: "http://n x", Reason: "is not signed"}
	for name, c := range map[string]struct {
		err  error
		want []string
	}{
		"lock":             {&LockHeldError{"/lock", 7, "apt-get", 90 * time.Second}, []string{"/lock", "apt-get (process 7)", "1m30s", "try again"}},
		"lock of a number": {&LockHeldError{Path: "/lock", PID: 7}, []string{"held by process 7"}},
		"lock of nobody":   {&LockHeldError{Path: "/lock"}, []string{"held by another program"}},
		"unreachable":      {&RefreshError{[]RepositoryFailure{unreachable}}, []string{"cannot be reached", "http://m/dists/x: Could not connect", "check the network"}},
		"refused":          {&RefreshError{[]RepositoryFailure{unreachable, unsigned}}, []string{"cannot be refreshed", "http://n x: is not signed", "package sources"}},
		"many":             {&RefreshError{slices.Repeat([]RepositoryFailure{unreachable}, 5)}, []string{"and 2 more"}},
		"parse":            {&ParseError{"apt-get upgrade", 7, "nonsense", "no package"}, []string{"apt-get upgrade", "line 7", `"nonsense"`, "no package", "run it on the host"}},
		"parse, all of it": {&ParseError{Tool: "apt-get upgrade", Problem: "no summary"}, []string{"apt-get upgrade", "no summary"}},
		"command":          {&CommandError{"dpkg-query", 2, "E: x"}, []string{"dpkg-query", "exit status 2", "E: x", "run it on the host"}},
		"silent command":   {&CommandError{Tool: "dpkg-query", ExitCode: 2}, []string{"it printed nothing"}},
		"unmet":            {&UnmetDependenciesError{[]string{"a : Depends: b"}, "apt-get -f install"}, []string{"a : Depends: b", `"apt-get -f install"`}},
		"changed":          {&ChangedError{"a is gone", 3}, []string{"a is gone", "3 times", "try again"}},
	} {
		t.Run(name, func(t *testing.T) {
			for _, want := range c.want {
				if !strings.Contains(c.err.Error(), want) {
					t.Errorf("error does not say %q: %v", want, c.err)
				}
			}
		})
	}
	var none RefreshError
	if none.Unreachable() {
		t.Error("no failure at all is that of an unreachable server")
	}
}

func FuzzParseOSRelease(f *testing.F) {
	f.Add("ID=debian\nPRETTY_NAME=\"a \\\"b\\\"\"\nVERSION_ID='12'\n")
	f.Add("ID=\"\\\n")
	f.Fuzz(func(t *testing.T, text string) {
		system := parseOSRelease(text)
		if len(system.ID)+len(system.VersionID)+len(system.PrettyName) > len(text) {
			t.Errorf("%q grew to %+v", text, system)
		}
	})
}
