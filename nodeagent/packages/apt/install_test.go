package apt_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"github.com/nodepatch/nodepatch/nodeagent/host"
	"github.com/nodepatch/nodepatch/nodeagent/packages"
	"github.com/nodepatch/nodepatch/nodeagent/packages/apt"
	"github.com/nodepatch/nodepatch/test/aptrepo"
)

// TestInstall has one transaction with every kind of package that fails in it.
// All others are installed, and only the culprits are named, in their own words.
func TestInstall(t *testing.T) {
	wordy := aptrepo.Good("toy-wordy", "1.1")
	wordy.Postinst = "for i in $(seq 200); do printf '\\033[1mword %s\\t of the script\\n' $i; done\nexit 3"
	m, _ := newOutdated(t, packages.Locks{},
		aptrepo.Good("toy-good", "1.1"), aptrepo.Good("toy-epoch", "2:1.1-1"), aptrepo.FailingPreinst("toy-preinst", "1.1"),
		aptrepo.FailingPostinst("toy-postinst", "1.1"), depending("toy-victim", "1.1", "toy-postinst (>= 1.1)"),
		depending("toy-needs-new", "1.1", "toy-new"), aptrepo.FailingPostinst("toy-new", "0"),
		aptrepo.WithConffile("toy-conffile", "1.1"), wordy,
	)
	m.layer.Write(t, "/etc/toy-conffile.conf", "version = mine\n")
	targets := append(upgrades("toy-good", "toy-preinst", "toy-postinst", "toy-victim", "toy-needs-new", "toy-conffile", "toy-wordy"), target("toy-epoch", "2:1.1-1"))
	m.fetch(t, targets...)

	culprits := map[string]string{
		"toy-preinst":  "preinst of toy-preinst fails on purpose; new toy-preinst package pre-installation script subprocess returned error exit status 1",
		"toy-postinst": "postinst of toy-postinst fails on purpose; installed toy-postinst package post-installation script subprocess returned error exit status 1",
		"toy-new":      "postinst of toy-new fails on purpose; ",
		"toy-wordy":    "word 200  of the script; installed toy-wordy package post-installation script subprocess returned error exit status 3",
	}
	install := m.put(t, targets...)
	sameReasons(t, "culprits", install.Failed, culprits)
	m.wantStates(t, map[string]string{
		"toy-good": "1.1", "toy-epoch": "2:1.1-1", "toy-preinst": "1.0", "toy-postinst": "1.1 iF", "toy-victim": "1.1 iU",
		"toy-needs-new": "1.1 iU", "toy-new": "1.0 iF", "toy-conffile": "1.1", "toy-wordy": "1.1 iF",
	})
	for name, want := range map[string]string{"toy-conffile.conf": "version = mine\n", "toy-conffile.conf.dpkg-dist": "version = 1.1\n"} {
		if got, err := os.ReadFile(filepath.Join(m.layer.Path, "etc", name)); err != nil || string(got) != want {
			t.Errorf("%s has %q (%v), want %q", name, got, err, want)
		}
	}
	presences, err := m.Inspect(t.Context(), upgrades("toy-good", "toy-preinst", "toy-postinst", "toy-victim", "toy-absent"))
	if err != nil {
		t.Fatal(err)
	}
	want := []packages.Presence{
		{Installed: true, Version: "1.1"}, {Version: "1.0"}, {Version: "1.1", Problem: "half-configured"}, {Version: "1.1", Problem: "unpacked"}, {},
	}
	for i := range want {
		if presences[i] != want[i] {
			t.Errorf("presence %d is %+v, want %+v", i, presences[i], want[i])
		}
	}
	// What is installed needs no file any more; what failed may need it again.
	sameNames(t, "files on disk", m.archives(t), "toy-preinst_1.1_all.deb", "toy-postinst_1.1_all.deb", "toy-victim_1.1_all.deb",
		"toy-needs-new_1.1_all.deb", "toy-new_1.0_all.deb", "toy-wordy_1.1_all.deb")

	// A scan offers again what is broken, and says from which version on.
	for name, from := range map[string]string{"toy-postinst": "1.0", "toy-victim": "1.0", "toy-new": ""} {
		p, found := find(m.scan(t), name)
		if !found || !p.Broken || !p.Downloaded || p.InstalledVersion != from || p.State != packages.Missing || p.Classification != packages.Bugfix {
			t.Errorf("%s is %+v, want it broken and from %q", name, p, from)
		}
	}

	// Another transaction runs all of these again, which is no attempt at them.
	m.layer.Run(t, "apt-get", "-q", "-y", "--download-only", "install", "toy-preinst")
	install = m.put(t, upgrades("toy-preinst")...)
	sameReasons(t, "culprits of the second transaction", install.Failed, map[string]string{"toy-preinst": culprits["toy-preinst"]})
	// And one that names them is.
	install = m.put(t, upgrades("toy-postinst", "toy-victim")...)
	sameReasons(t, "culprits of the third transaction", install.Failed, map[string]string{"toy-postinst": culprits["toy-postinst"]})
}

// TestInstallTerminal has apt open a terminal for dpkg, as it does on every booted
// host: both streams of the scripts come out of it as one.
func TestInstallTerminal(t *testing.T) {
	loud := aptrepo.FailingPostinst("toy-loud", "1.1")
	loud.Postinst = "echo one; echo two >&2; echo three; echo four >&2; exit 1"
	m, _ := newOutdated(t, packages.Locks{}, aptrepo.FailingPostinst("toy-postinst", "1.1"), aptrepo.FailingPreinst("toy-preinst", "1.1"), loud)
	m.mount(t, "devpts", "dev/pts", "newinstance,ptmxmode=0666")
	targets := upgrades("toy-postinst", "toy-preinst", "toy-loud")
	m.fetch(t, targets...)
	sameReasons(t, "culprits", m.put(t, targets...).Failed, map[string]string{
		"toy-postinst": "postinst of toy-postinst fails on purpose; installed toy-postinst package",
		"toy-preinst":  "preinst of toy-preinst fails on purpose; new toy-preinst package",
		"toy-loud":     "two; three; four; installed toy-loud package",
	})
}

// TestInstallBroken installs again what is broken: configured by half and later in
// order, and cut off while it was unpacked, at the version that dpkg has and at a newer one.
func TestInstallBroken(t *testing.T) {
	m, _ := newOutdated(t, packages.Locks{},
		aptrepo.FailingTimes("toy-twice", "1.1", 1), aptrepo.Good("toy-same", "1.1"), aptrepo.Good("toy-newer", "1.1"), aptrepo.Good("toy-other", "1.1"))
	m.fetch(t, upgrades("toy-twice")...)
	sameReasons(t, "culprits", m.put(t, upgrades("toy-twice")...).Failed, map[string]string{"toy-twice": "postinst of toy-twice fails on purpose"})

	m.fetch(t, upgrades("toy-same")...)
	m.put(t, upgrades("toy-same")...)
	m.cutUnpacking(t, "toy-same", "1.2")
	m.cutUnpacking(t, "toy-newer", "1.2")
	m.layer.Run(t, "dpkg", "--configure", "--pending") // takes over what dpkg had written and repairs neither
	m.wantStates(t, map[string]string{"toy-same": "1.1 iHR", "toy-newer": "1.0 iHR", "toy-twice": "1.1"})

	scan := m.scan(t)
	if p, found := find(scan, "toy-same"); !found || !p.Broken || p.AvailableVersion != "1.1" || p.Downloaded {
		t.Errorf("what is to be unpacked again is %+v", p)
	}
	if p, found := find(scan, "toy-newer"); !found || p.Broken || p.AvailableVersion != "1.1" {
		t.Errorf("what is to be upgraded is %+v", p)
	}
	targets := upgrades("toy-same", "toy-newer", "toy-other")
	m.fetch(t, targets...)
	if install := m.put(t, targets...); len(install.Failed) != 0 {
		t.Errorf("install is %+v", install)
	}
	m.wantStates(t, map[string]string{"toy-same": "1.1", "toy-newer": "1.1", "toy-other": "1.1"})
}

// cutUnpacking leaves a package as a power cut does that comes while a version of it is unpacked.
func (m *machine) cutUnpacking(tb testing.TB, name, version string) {
	tb.Helper()
	p := aptrepo.Good(name, version)
	p.Preinst = "kill -9 $PPID" // dpkg itself
	deb, err := p.Build()
	if err != nil {
		tb.Fatal(err)
	}
	m.layer.Write(tb, "/root/cut.deb", string(deb))
	// Dpkg must not be the first process of a namespace, which cannot be killed from within.
	if output, err := m.try("sh", "-c", "dpkg --unpack /root/cut.deb; exit $?"); err == nil {
		tb.Fatalf("dpkg was not killed: %s", output)
	}
}

// TestInstallRefused has targets that apt refuses, and with them all others. Nothing is changed.
func TestInstallRefused(t *testing.T) {
	conflicting := aptrepo.Good("toy-conflicting", "1.1")
	conflicting.Conflicts = "toy-other"
	m, _ := newOutdated(t, packages.Locks{}, aptrepo.Good("toy-good", "1.1"), aptrepo.Good("toy-held", "1.1"), aptrepo.Good("toy-superseded", "1.2"),
		depending("toy-unmet", "1.1", "toy-absent"), conflicting, aptrepo.Good("toy-other", "1.1"), aptrepo.Good("toy-unfetched", "1.1"))
	m.fetch(t, upgrades("toy-good")...)
	m.layer.Run(t, "apt-get", "-q", "-y", "--download-only", "install", "toy-held", "toy-conflicting")
	m.layer.Run(t, "apt-mark", "hold", "toy-held")
	for name, c := range map[string]struct {
		named  map[string]string
		detail string
	}{
		"toy-held":       {map[string]string{"toy-held": "an administrator holds it"}, "Held packages were changed"},
		"toy-superseded": {map[string]string{"toy-superseded": "was not found"}, "Version '1.1' for 'toy-superseded' was not found"},
		"toy-unmet":      {map[string]string{"toy-unmet": "Depends: toy-absent"}, "held broken packages"},
		// It would remove a package, and apt does not say for which target.
		"toy-conflicting": {nil, "remove is disabled"},
		"toy-unfetched":   {map[string]string{"toy-unfetched": "not on disk"}, "toy-unfetched 1.1 is not on disk"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := m.Install(t.Context(), upgrades("toy-good", name))
			var refused *packages.RefusedError
			if !errors.As(err, &refused) {
				t.Fatalf("error is %v, want a refusal", err)
			}
			sameReasons(t, "named", refused.Targets, c.named)
			if !strings.Contains(refused.Detail, c.detail) {
				t.Errorf("detail is %q, want %q in it", refused.Detail, c.detail)
			}
			m.wantStates(t, map[string]string{"toy-good": "1.0", "toy-other": "1.0"})
			if state := m.state(t, name); !strings.HasPrefix(state, "1.0 ") {
				t.Errorf("it is %q, want 1.0", state)
			}
		})
	}
	m.put(t, upgrades("toy-good")...)
	m.wantStates(t, map[string]string{"toy-good": "1.1"})
}

// TestInstallDone leaves alone what is installed already, at that version or a
// newer one, and what is not installed any more.
func TestInstallDone(t *testing.T) {
	m, _ := newOutdated(t, packages.Locks{}, aptrepo.Good("toy-newer", "1.2"), aptrepo.Good("toy-same", "1.1"), aptrepo.Good("toy-removed", "1.1"), aptrepo.Good("toy", "1.1"))
	m.layer.Run(t, "apt-get", "-q", "-y", "install", "toy-newer", "toy-same")
	m.layer.Run(t, "dpkg", "--remove", "toy-removed")
	targets := upgrades("toy-newer", "toy-same", "toy-removed", "toy")
	m.download(t, targets...)
	if install := m.put(t, targets...); len(install.Failed) != 0 {
		t.Errorf("install is %+v", install)
	}
	m.wantStates(t, map[string]string{"toy-newer": "1.2", "toy-same": "1.1", "toy-removed": "absent", "toy": "1.1"})
}

// TestInstallDiskFull has no room for what is unpacked. No package is to blame.
func TestInstallDiskFull(t *testing.T) {
	big := aptrepo.Good("toy-big", "1.1")
	big.Files = map[string]string{"/opt/small/big": strings.Repeat("x", 200<<10)}
	m, _ := newOutdated(t, packages.Locks{}, big, aptrepo.Good("toy-good", "1.1"))
	targets := upgrades("toy-big", "toy-good")
	m.fetch(t, targets...)
	t.Run("full", func(t *testing.T) {
		m.mount(t, "tmpfs", "/opt/small", "size=100k")
		_, err := m.Install(t.Context(), targets)
		var full *packages.DiskFullError
		if !errors.As(err, &full) || !strings.HasPrefix(full.Path, "/opt/small/") {
			t.Fatalf("error is %v, want a full disk at /opt/small", err)
		}
		m.wantStates(t, map[string]string{"toy-big": "1.0"})
	})
	m.put(t, targets...)
	m.wantStates(t, map[string]string{"toy-big": "1.1", "toy-good": "1.1"})
}

// TestInstallFromDisk has a repository on the machine's own disk, where apt must
// not be told not to download.
func TestInstallFromDisk(t *testing.T) {
	m, _ := newOutdated(t, packages.Locks{}, aptrepo.Good("toy", "1.1"))
	vendor := aptrepo.New(aptrepo.Release{Origin: "Vendor", Suite: "local"})
	vendor.Add(aptrepo.Good("toy-local", "1.0"), aptrepo.Good("toy-local", "1.1"), aptrepo.Missing("toy-lost", "1.1"), aptrepo.Good("toy-lost", "1.0"))
	publish(t, vendor)
	if err := vendor.WriteTo(filepath.Join(m.layer.Path, "srv/vendor")); err != nil {
		t.Fatal(err)
	}
	m.layer.Write(t, "/etc/apt/sources.list.d/vendor.list", vendor.SourcesList("file:/srv/vendor"))
	m.install(t, "toy-local=1.0", "toy-lost=1.0")

	_, err := m.Install(t.Context(), upgrades("toy", "toy-local"))
	var refused *packages.RefusedError
	if !errors.As(err, &refused) || len(refused.Targets) != 1 || refused.Targets[0].Target.Name != "toy" {
		t.Errorf("error is %v, want toy refused, which would come from the network", err)
	}
	download := m.download(t, upgrades("toy", "toy-local", "toy-lost")...)
	sameNames(t, "ready", names(download.Ready), "toy", "toy-local")
	sameReasons(t, "failed", download.Failed, map[string]string{"toy-lost": "File not found"})
	if download.Bytes == 0 || download.Bytes > 10000 {
		t.Errorf("%d bytes were fetched, want those of toy alone", download.Bytes)
	}
	m.put(t, download.Ready...)
	m.wantStates(t, map[string]string{"toy": "1.1", "toy-local": "1.1"})
}

// TestInstallStopped has a person stop an installation, and an agent end, in the
// middle of a transaction. It is not cut off; who stopped it learns what was done,
// and the next agent's call joins the transaction and has its answer.
func TestInstallStopped(t *testing.T) {
	failing := waiting("toy-failing", "1.1")
	failing.Postinst += "\necho it fails on purpose >&2\nexit 1"
	for name, c := range map[string]struct {
		cause  error
		resume bool
	}{"stopped by a person": {errors.New("stopped"), false}, "the agent ends": {host.ErrDetach, true}} {
		t.Run(name, func(t *testing.T) {
			m, _ := newOutdated(t, packages.Locks{}, failing, aptrepo.Good("toy", "1.1"))
			targets := upgrades("toy-failing", "toy")
			m.fetch(t, targets...)
			node, err := host.Detect(m.layer.Path, host.DefaultDir)
			if err != nil {
				t.Fatal(err)
			}
			agent := func() *apt.Manager {
				session, err := node.Session("test", "install")
				if err != nil {
					t.Fatal(err)
				}
				return apt.New(session, os.DirFS(m.layer.Path), packages.Locks{})
			}
			type answer struct {
				packages.Install
				err error
			}
			ended := make(chan answer, 1)
			ctx, cancel := context.WithCancelCause(t.Context())
			first := agent()
			go func() {
				install, err := first.Install(ctx, targets)
				ended <- answer{install, err}
			}()
			m.await(t, "run/waiting")
			cancel(c.cause)
			if c.resume {
				if a := <-ended; !errors.Is(a.err, c.cause) {
					t.Fatalf("error of the agent that ends is %v", a.err)
				}
				second := agent()
				go func() {
					install, err := second.Install(t.Context(), targets)
					ended <- answer{install, err}
				}()
			}
			m.layer.Write(t, "/run/go", "")
			a := <-ended
			if a.err != nil {
				t.Fatal(a.err)
			}
			sameReasons(t, "culprits", a.Failed, map[string]string{"toy-failing": "it fails on purpose"})
			m.wantStates(t, map[string]string{"toy": "1.1", "toy-failing": "1.1 iF"})
			if runs := strings.Count(m.layer.Run(t, "cat", "/var/log/dpkg.log"), "configure toy-failing:all 1.1"); runs != 1 {
				t.Errorf("it was configured %d times", runs)
			}
		})
	}
}

// TestInstallMany installs 50 packages, one of which needs a new one, with one command.
func TestInstallMany(t *testing.T) {
	const many = 50
	offered := []aptrepo.Package{aptrepo.Good("toy-new", "0")}
	var targets []packages.Target
	for i := range many {
		name := fmt.Sprintf("toy-%02d", i)
		offered = append(offered, aptrepo.WithConffile(name, "1.1"))
		targets = append(targets, target(name, "1.1"))
	}
	offered[1].Depends = "toy-new"
	m, _ := newOutdated(t, packages.Locks{}, offered...)
	m.fetch(t, targets...)
	runs := &recordingRunner{next: m.runner}
	if install, err := apt.New(runs, os.DirFS(m.layer.Path), packages.Locks{}).Install(t.Context(), targets); err != nil || len(install.Failed) != 0 {
		t.Fatalf("install is %+v, %v", install, err)
	}
	presences, err := m.Inspect(t.Context(), append(targets, target("toy-new", "1.0")))
	if err != nil {
		t.Fatal(err)
	}
	for i, p := range presences {
		if !p.Installed {
			t.Errorf("target %d is %+v", i, p)
		}
	}
	var transactions []packages.Command
	for _, c := range runs.commands {
		if c.Transaction {
			transactions = append(transactions, c)
		}
	}
	if len(transactions) != 1 || transactions[0].Timeout != 0 {
		t.Errorf("transactions are %+v, want one without a time limit", transactions)
	}
	if left := m.archives(t); len(left) != 0 {
		t.Errorf("on disk are still %q", left)
	}
}

// recordingRunner remembers the commands.
type recordingRunner struct {
	next     packages.Runner
	mu       sync.Mutex
	commands []packages.Command
}

func (r *recordingRunner) Run(ctx context.Context, c packages.Command) (packages.Result, error) {
	r.mu.Lock()
	r.commands = append(r.commands, c)
	r.mu.Unlock()
	return r.next.Run(ctx, c)
}
