package packages_test

import (
	"errors"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/nodepatch/nodepatch/nodeagent/packages"
	"github.com/nodepatch/nodepatch/nodeagent/packages/apt"
	"github.com/nodepatch/nodepatch/nodeagent/packages/dnf"
	"github.com/nodepatch/nodepatch/nodeagent/packages/zypper"
	"github.com/nodepatch/nodepatch/test/aptrepo"
	"github.com/nodepatch/nodepatch/test/roots"
	"github.com/nodepatch/nodepatch/test/roots/hosts"
	"github.com/nodepatch/nodepatch/test/rpmrepo"
)

// gate is a script that says that it has begun, and ends when the file gate is there.
const gate = `echo $$ >/began; while ! [ -e /gate ]; do sleep 0.05; done`

// machine is a real root on which "toy" is installed in version 1.0, with 2.0 offered, whose script waits at the gate, and
// "last", which is installed after it.
type machine struct {
	*roots.Layer
	manager func(packages.Locks) packages.Manager
	upgrade []string // installs both in their newer versions
	low     []string // the same with the tool below the package manager, without the repositories
	version []string // asks for the versions of toy and last
	said    string   // part of what the tool says when the locks are held
}

// machines are those of all package managers.
var machines = map[string]func(*testing.T) *machine{"apt": aptMachine, "dnf": dnfMachine, "zypper": zypperMachine}

func aptMachine(t *testing.T) *machine {
	m := &machine{
		Layer:   roots.Open(t, roots.Debian),
		upgrade: []string{"apt-get", "-q", "-y", "install", "toy", "last"},
		low:     []string{"dpkg", "--configure", "-a"},
		version: []string{"dpkg-query", "-W", "-f", "${Version} ${db:Status-Status}\n", "toy", "last"},
		said:    "It is held by process " + strconv.Itoa(os.Getpid()),
	}
	repo := aptrepo.New(aptrepo.Release{Origin: "Debian", Label: "Debian", Suite: "stable"})
	server := httptest.NewServer(repo)
	t.Cleanup(server.Close)
	must(t, os.RemoveAll(filepath.Join(m.Path, "etc/apt/sources.list.d")))
	m.Write(t, "/etc/apt/sources.list", repo.SourcesList(server.URL))
	repo.Add(aptrepo.Good("toy", "1.0"), aptrepo.Good("last", "1.0"))
	must(t, repo.Publish())
	m.Run(t, "apt-get", "-q", "update")
	m.Run(t, m.upgrade...)
	last := aptrepo.Good("last", "2.0")
	last.Depends = "toy (>= 2.0)"
	repo.Add(aptrepo.Package{Name: "toy", Version: "2.0", Postinst: gate}, last)
	must(t, repo.Publish())
	m.Run(t, "apt-get", "-q", "update")
	node, files := hosts.Open(t, m.Layer)
	m.manager = func(l packages.Locks) packages.Manager {
		l.Open = node.OpenFile
		return apt.New(nil, files.FS(), l)
	}
	return m
}

// rpmMachine is a machine whose repository is configured in a file.
func rpmMachine(t *testing.T, file string, first, refresh []string) *machine {
	m := &machine{
		Layer:   roots.Open(t, roots.RPM),
		low:     []string{"sh", "-c", "rpm -U --force-debian $(find /var/cache -name 'last-2.0-1*.rpm' -o -name 'toy-2.0-1*.rpm')"},
		version: []string{"rpm", "-q", "--qf", "%{VERSION} installed\n", "toy", "last"},
	}
	repo := rpmrepo.New()
	server := httptest.NewServer(repo)
	t.Cleanup(server.Close)
	m.Write(t, file, repo.RepoFile("toys", server.URL))
	repo.Add(rpmrepo.Base(), rpmrepo.Good("toy", "1.0-1"), rpmrepo.Good("last", "1.0-1"))
	must(t, repo.Publish())
	m.Run(t, refresh...)
	m.Run(t, first...)
	last := rpmrepo.Good("last", "2.0-1")
	last.Requires = []string{"toy >= 2.0"}
	repo.Add(rpmrepo.Package{Name: "toy", Version: "2.0-1", Post: gate}, last)
	must(t, repo.Publish())
	m.Run(t, refresh...)
	return m
}

func dnfMachine(t *testing.T) *machine {
	m := rpmMachine(t, "/etc/yum.repos.d/toys.repo", []string{"dnf", "-q", "-y", "install", "toy-release", "toy", "last"}, []string{"dnf", "-q", "--refresh", "makecache"})
	m.upgrade = []string{"dnf", "-y", "--setopt=keepcache=1", "upgrade", "toy", "last"}
	m.said = "can't create transaction lock on /var/lib/rpm/.rpm.lock"
	node, files := hosts.Open(t, m.Layer)
	m.manager = func(l packages.Locks) packages.Manager {
		l.Open = node.OpenFile
		return dnf.New(nil, files.FS(), l)
	}
	return m
}

func zypperMachine(t *testing.T) *machine {
	m := rpmMachine(t, "/etc/zypp/repos.d/toys.repo", []string{"zypper", "-n", "install", "--name", "toy-release", "toy", "last"}, []string{"zypper", "-n", "refresh"})
	m.upgrade = []string{"zypper", "-n", "update", "toy", "last"}
	m.said = "can't create transaction lock on /var/lib/rpm/.rpm.lock"
	node, files := hosts.Open(t, m.Layer)
	m.manager = func(l packages.Locks) packages.Manager {
		l.Open = node.OpenFile
		return zypper.New(nil, files.FS(), l)
	}
	return m
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// program runs in no PID namespace of its own, as on a host: the tools name each other by their numbers.
func (m *machine) program(argv ...string) *exec.Cmd {
	env := []string{m.Path, "env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive"}
	return exec.Command("chroot", append(env, argv...)...)
}

func (m *machine) versions(t *testing.T) string {
	t.Helper()
	out, err := m.program(m.version...).CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return strings.Join(strings.Fields(string(out)), " ")
}

const (
	before = "1.0 installed 1.0 installed"
	after  = "2.0 installed 2.0 installed"
)

// While the agent is about to reboot the host, neither the package manager nor what it uses changes a package.
func TestHoldKeepsOthersOut(t *testing.T) {
	for name, make := range machines {
		t.Run(name, func(t *testing.T) {
			m := make(t)
			m.Write(t, "/gate", "")
			release, err := m.manager(packages.Locks{}).Hold(t.Context())
			must(t, err)
			for _, argv := range [][]string{m.upgrade, m.low} {
				out, err := m.program(argv...).CombinedOutput()
				if err == nil || argv[0] == m.upgrade[0] && !strings.Contains(string(out), m.said) {
					t.Errorf("%q ends with %v, and says: %s", argv, err, out)
				}
			}
			if got := m.versions(t); got != before {
				t.Errorf("Installed meanwhile are %s", got)
			}
			release()
			if out, err := m.program(m.upgrade...).CombinedOutput(); err != nil {
				t.Errorf("Afterwards it ends with %v, and says: %s", err, out)
			}
			if got := m.versions(t); got != after {
				t.Errorf("Installed afterwards are %s", got)
			}
		})
	}
}

// A transaction of another program is named, is not disturbed, and is waited for until all of it is done.
func TestHoldWaitsForOthers(t *testing.T) {
	for name, make := range machines {
		t.Run(name, func(t *testing.T) {
			m := make(t)
			other := m.program(m.upgrade...)
			must(t, other.Start())
			ended := false
			t.Cleanup(func() {
				if !ended {
					m.Write(t, "/gate", "")
					_ = other.Wait()
				}
			})
			for deadline := time.Now().Add(time.Minute); ; time.Sleep(20 * time.Millisecond) {
				if _, err := os.Stat(filepath.Join(m.Path, "began")); err == nil {
					break
				}
				if time.Now().After(deadline) {
					t.Fatal("The other program does not begin")
				}
			}
			_, err := m.manager(packages.Locks{Patience: 300 * time.Millisecond, Poll: 50 * time.Millisecond}).Hold(t.Context())
			var held *packages.LockHeldError
			if !errors.As(err, &held) || held.PID == 0 || held.Process == "" || !strings.Contains(m.upgrade[0]+" rpm dpkg", held.Process) || held.Waited == 0 {
				t.Fatalf("It returns %#v, want that %s is at work (%v)", held, m.upgrade[0], err)
			}
			if !strings.Contains(err.Error(), held.Holder()) {
				t.Errorf("It does not name the holder: %v", err)
			}

			waits := 0
			release, err := m.manager(packages.Locks{Poll: 50 * time.Millisecond, Waiting: func(*packages.LockHeldError) error {
				if waits++; waits == 3 {
					m.Write(t, "/gate", "")
				}
				return nil
			}}).Hold(t.Context())
			must(t, err)
			if got := m.versions(t); got != after || waits < 3 {
				t.Errorf("It has the locks after %d waits, and installed are %s", waits, got)
			}
			release()
			ended = true
			if err := other.Wait(); err != nil {
				t.Errorf("The other program was disturbed: %v", err)
			}
		})
	}
}

// Nothing is left of the locks when their holder is gone, not even where it had no time to let go of them.
func TestHoldEndsWithItsProcess(t *testing.T) {
	m := aptMachine(t)
	m.Write(t, "/gate", "")
	lock := filepath.Join(m.Path, "var/lib/dpkg/lock-frontend")
	// Perl's own fcntl, as one more program that knows nothing of us.
	holder := m.program("perl", "-MFcntl=:DEFAULT,:seek", "-e",
		`open(F, "+<", "/var/lib/dpkg/lock-frontend") or die; my $lock = pack("s s x![q] q q i x![q]", F_WRLCK, SEEK_SET, 0, 0, 0);`+
			`fcntl(F, F_SETLK, $lock) or die; print "has it\n"; close(STDOUT); sleep 60`)
	out, err := holder.StdoutPipe()
	must(t, err)
	must(t, holder.Start())
	if _, err := out.Read(make([]byte, 16)); err != nil {
		t.Fatal(err)
	}
	_, err = m.manager(packages.Locks{Patience: 100 * time.Millisecond, Poll: 50 * time.Millisecond}).Hold(t.Context())
	var held *packages.LockHeldError
	if !errors.As(err, &held) || held.PID != holder.Process.Pid || held.Process != "perl" || !strings.HasSuffix(lock, held.Path) {
		t.Errorf("It returns %v", err)
	}
	_ = holder.Process.Kill()
	_ = holder.Wait()
	release, err := m.manager(packages.Locks{}).Hold(t.Context())
	must(t, err)
	release()
}
