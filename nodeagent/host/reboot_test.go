package host

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/nodepatch/nodepatch/test/roots"
)

// rebooted is systemd-nspawn's exit status of a machine that rebooted.
const rebooted = 133

// A reboot is ordered, and ordered again as by an agent that does not know whether its order was taken, in the middle of a
// transaction: the orders return at once, and the machine reboots when the transaction has ended.
func TestSystemdReboot(t *testing.T) {
	roots.Require(t, roots.Supported())
	m := boot(t)
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	m.copy(t, binary, "host.test")
	agent := m.command("/host.test")
	agent.Env = append(agent.Env, longTransaction+"="+longDir)
	if err := agent.Start(); err != nil {
		t.Fatal(err)
	}
	outside := func(name string) string { return filepath.Join(m.path, longDir, name) }
	eventually(t, "the transaction runs", func() bool { return exists(outside("began")) })
	for range 2 {
		order := m.command("/host.test")
		order.Env = append(order.Env, rebootOrders+"=1")
		if out, err := order.CombinedOutput(); err != nil {
			t.Fatalf("Order to reboot: %v: %s", err, out)
		}
	}
	select {
	case <-m.ended:
		t.Fatal("The machine did not wait for the transaction")
	case <-time.After(time.Second):
	}
	if err := os.WriteFile(outside("gate"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the machine has rebooted", func() bool {
		_ = agent.Process.Signal(syscall.SIGCONT) // nsenter stops with its child
		select {
		case <-m.ended:
			return true
		default:
			return false
		}
	})
	m.leader = 0
	_ = agent.Wait() // it went with the machine
	if m.status != rebooted {
		t.Errorf("The machine ended with status %d, want %d of one that reboots", m.status, rebooted)
	}
	results, err := filepath.Glob(filepath.Join(m.path, DefaultDir, runDir, "*", "test", "*-transaction", "exit"))
	if err != nil || len(results) != 1 {
		t.Errorf("Results of the transaction are %v, %v", results, err)
	}
}

// An administrator who does not want the machine to be rebooted is obeyed, and named.
func TestSystemdRebootRefused(t *testing.T) {
	roots.Require(t, roots.Supported())
	m := boot(t)
	binary, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	m.copy(t, binary, "host.test")
	if out, err := m.command("systemctl", "mask", "reboot.target").CombinedOutput(); err != nil {
		t.Fatalf("Mask: %v: %s", err, out)
	}
	order := m.command("/host.test")
	order.Env = append(order.Env, rebootOrders+"=1")
	const want = "ask the host to reboot: Unit reboot.target is masked.\n"
	if out, err := order.CombinedOutput(); err == nil || string(out) != want {
		t.Errorf("It says %v: %s", err, out)
	}
}

// runRebootOrders is an agent that has its machine rebooted.
func runRebootOrders() error {
	h, err := detectSystemd()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	return h.Reboot(ctx)
}

// TestChrootReboot has the host's own program asked, in the host's root.
func TestChrootReboot(t *testing.T) {
	layer := roots.Open(t, roots.Debian)
	for name, test := range map[string]struct {
		programs map[string]string // scripts by their paths
		want     string            // what the program that was run says of itself
		refused  string            // the end of the error
	}{
		"reboot":                      {programs: map[string]string{"usr/sbin/reboot": "", "usr/bin/systemctl": ""}, want: "/usr/sbin/reboot \n"},
		"systemctl where it is alone": {programs: map[string]string{"usr/bin/systemctl": ""}, want: "/usr/bin/systemctl reboot\n"},
		"an administrator's own":      {programs: map[string]string{"usr/sbin/reboot": "", "usr/local/sbin/reboot": ""}, want: "/usr/local/sbin/reboot \n"},
		"a program that refuses": {programs: map[string]string{"usr/sbin/reboot": "echo not today >&2; exit 1"}, want: "/usr/sbin/reboot \n",
			refused: "ask the host to reboot: /usr/sbin/reboot: exit status 1: not today"},
		"none": {refused: "ask the host to reboot: the host has neither reboot nor systemctl"},
	} {
		t.Run(name, func(t *testing.T) {
			root := layer.Path
			for _, path := range []string{"usr/local/sbin/reboot", "usr/sbin/reboot", "usr/bin/systemctl", "asked"} {
				if err := os.Remove(filepath.Join(root, path)); err != nil && !errors.Is(err, fs.ErrNotExist) {
					t.Fatal(err)
				}
			}
			for path, script := range test.programs {
				layer.Write(t, path, "#!/bin/sh\necho \"$0 $*\" >>/asked\n"+script+"\n")
			}
			h := &Host{root: root, dir: "/agent", backend: &chroot{root: root}}
			err := h.Reboot(t.Context())
			if test.refused == "" && err != nil || test.refused != "" && (err == nil || err.Error() != test.refused) {
				t.Errorf("It returns %v, want %q", err, test.refused)
			}
			asked, err := os.ReadFile(filepath.Join(root, "asked"))
			if string(asked) != test.want || test.want != "" && err != nil {
				t.Errorf("Asked was %q, %v, want %q", asked, err, test.want)
			}
		})
	}
}
