package operation

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/nodeagent/packages"
)

// boots has the host be in a boot.
func (f *fixture) boots(t *testing.T, id string) {
	t.Helper()
	path := filepath.Join(f.options.Host.Root(), "proc/sys/kernel/random/boot_id")
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(id), 0o600)); err != nil {
		t.Fatal(err)
	}
}

// underWay has an agent have died in the transaction of an operation, which it began in a boot.
func (f *fixture) underWay(t *testing.T, o *v1alpha1.Operation, boot string) {
	t.Helper()
	f.journal.AssignmentUID = "uid-1"
	f.journal.Current = &record{Operation: *o, Phase: phaseInstall, BootID: boot, Started: time.Now(), Attempts: 1}
	d := deploymentOf(resultReady)
	d.Operation, d.Queue, d.Round, d.UnderWay, d.Began = o.ID, [][]int{{0}}, 1, true, boot
	if err := errors.Join(f.journal.store(deploymentFile, d), f.journal.save()); err != nil {
		t.Fatal(err)
	}
	f.restart(t)
}

// What an agent wrote of a transaction may be lost with the power. Then the database is looked after all the same.
func TestPowerCutThatTookTheRecordOfATransaction(t *testing.T) {
	for name, test := range map[string]struct {
		boot string
		want []string
	}{
		"a power cut":    {"boot-2", []string{"repair", "install"}},
		"the agent died": {"boot-1", []string{"install"}},
		"not known":      {"", []string{"install"}},
	} {
		t.Run(name, func(t *testing.T) {
			var did []string
			does := func(what string) func() error { return func() error { did = append(did, what); return nil } }
			f := newFixture(t, manager{install: does("install"), repair: does("repair"), inspect: func(targets []packages.Target) ([]packages.Presence, error) {
				return slices.Repeat([]packages.Presence{{Installed: slices.Contains(did, "install")}}, len(targets)), nil
			}})
			a := assign("1", later())
			a.Spec.Operation.Step = v1alpha1.StepInstalling
			f.boots(t, test.boot)
			f.underWay(t, a.Spec.Operation, "boot-1")
			f.see(t, a)
			if !slices.Equal(did, test.want) {
				t.Errorf("The agent did %v, want %v", did, test.want)
			}
			if cut := slices.Contains(f.entries.reasons, v1alpha1.EventTransactionInterrupted); cut != (len(test.want) > 1) {
				t.Errorf("Patch log: %v", f.entries.reasons)
			}
			if s := f.api.last(); s == nil || s.Step != v1alpha1.StepDone || s.Counts == nil || s.Counts.Installed != 1 {
				t.Errorf("Status is %+v", s)
			}
		})
	}
}

// The reboot of every node on which patches were installed depends on the boot in which they were.
func TestBootOfTheTransactionThatGaveTheResult(t *testing.T) {
	for name, test := range map[string]struct {
		began []string // the boots of the tries
		want  string
	}{
		"before the node was booted": {[]string{"boot-1"}, "boot-1"},
		"in another try since":       {[]string{"boot-1", "boot-2"}, "boot-2"},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, manager{})
			f.options.Packages = func(r packages.Runner, _ packages.Locks) (packages.Manager, error) {
				return manager{inspect: present, install: func() error {
					_, err := r.Run(t.Context(), packages.Command{Name: "apt-install", Argv: []string{"apt-get"}, Transaction: true})
					return err
				}}, nil
			}
			a := assign("1", later())
			a.Spec.Operation.Step = v1alpha1.StepInstalling
			f.boots(t, "boot-2")
			f.underWay(t, a.Spec.Operation, "boot-1")
			for n, boot := range test.began {
				dir := f.options.Host.Path("run/1/install-1", fmt.Sprintf("%04d-apt-install", n+1))
				if err := os.MkdirAll(dir, 0o700); err != nil {
					t.Fatal(err)
				}
				record := fmt.Sprintf(`{"name":"apt-install","argv":["apt-get"],"unit":"u","bootID":%q,"transaction":true}`, boot)
				for file, content := range map[string]string{"command.json": record, "exit": "0", "stdout": "", "stderr": "", "status": ""} {
					if err := os.WriteFile(filepath.Join(dir, file), []byte(content), 0o600); err != nil {
						t.Fatal(err)
					}
				}
			}
			f.see(t, a)
			if d, err := f.current(); err != nil || d.BootID != test.want {
				t.Errorf("Installed in boot %q, want %q (%v)", d.BootID, test.want, err)
			}
		})
	}
}
