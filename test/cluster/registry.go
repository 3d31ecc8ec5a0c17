package cluster

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
	"time"
)

// registry knows every cluster on this host, by number: a directory NUMBER with the record of the
// cluster and a lock that its supervisor holds for life. The kernel drops the lock when the supervisor
// ends, however it ends, and from then on the cluster is anybody's to clean up. A reboot of the host
// empties it together with all that it speaks of.
const registry = "/run/nodepatch"

// record is what is written down of a cluster. What it uses of the host follows from its number.
type record struct {
	Number network `json:"number"`
	// ID tells the cluster from a later one with the same number.
	ID       string `json:"id"`
	Dir      string `json:"dir"`
	Machines int    `json:"machines"`
	// Trees are where its control groups are.
	Trees []hierarchy `json:"trees"`
	// Detached clusters outlive the process that started them.
	Detached bool `json:"detached,omitempty"`
	// Sources is the text of the machines' sources.list; empty means the host's own sources.
	Sources string `json:"sources,omitempty"`
}

func (n network) registered(name string) string {
	return filepath.Join(registry, strconv.Itoa(int(n)), name)
}

func (n network) lockFile() string { return n.registered("lock") }
func (n network) socket() string   { return n.registered("control.sock") }

// reserve finds a number that no cluster has, cleans up what a dead one left under it, makes the bridge,
// and returns the record and its lock. What dead clusters left under other numbers goes too.
func reserve(ctx context.Context, wanted record, sources func(host netip.Addr) string) (record, *os.File, error) {
	unlock, err := lockRegistry(ctx)
	if err != nil {
		return record{}, nil, err
	}
	defer unlock()
	if err := sweep(ctx); err != nil {
		return record{}, nil, err
	}
	running, err := records()
	if err != nil {
		return record{}, nil, err
	}
	for _, r := range running {
		if r.Dir == wanted.Dir {
			return record{}, nil, fmt.Errorf("a cluster runs in %s already: stop it first", r.Dir)
		}
	}
	if err := directory(wanted.Dir).prepare(); err != nil {
		return record{}, nil, err
	}

	if wanted.Trees, err = hierarchies(); err != nil {
		return record{}, nil, err
	}
	for number := network(1); number <= maxNumber; number++ {
		lock, err := tryLock(number)
		if errors.Is(err, errLocked) {
			continue
		}
		if err != nil {
			return record{}, nil, err
		}
		used, err := number.inUse(ctx)
		if err != nil || used {
			err = errors.Join(err, forget(number), lock.Close())
			if err != nil {
				return record{}, nil, err
			}
			continue
		}
		wanted.Number, wanted.ID = number, rand.Text()
		if sources != nil {
			wanted.Sources = sources(number.host())
		}
		err = errors.Join(
			writeJSON(number.registered("cluster.json"), wanted),
			changeKernelSettings(raise),
			number.create(ctx, wanted.Machines),
		)
		if err != nil {
			return record{}, nil, errors.Join(err, number.remove(ctx), forget(number), lock.Close())
		}
		return wanted, lock, nil
	}
	return record{}, nil, fmt.Errorf("all of the %d test networks in %s are in use on this host", maxNumber, testNetwork)
}

// Sweep cleans up after clusters whose supervisor has died: their processes, control groups, bridges
// and firewall rules, and their machines' disks. Running clusters are left alone.
func Sweep(ctx context.Context) error {
	unlock, err := lockRegistry(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	return sweep(ctx)
}

// sweep is Sweep for a caller that holds the registry's lock.
func sweep(ctx context.Context) error {
	records, err := records()
	if err != nil {
		return err
	}
	var errs []error
	alive := 0
	for _, r := range records {
		lock, err := tryLock(r.Number)
		if errors.Is(err, errLocked) {
			alive++
			continue
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		errs = append(errs, r.clean(ctx), lock.Close())
	}
	if alive == 0 {
		errs = append(errs, changeKernelSettings(func(before map[string]string) error {
			err := restore(before)
			clear(before)
			return err
		}))
	}
	return errors.Join(errs...)
}

// retire cleans up after a cluster whose supervisor is about to end, and is that supervisor.
func (r record) retire(ctx context.Context) error {
	unlock, err := lockRegistry(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	return errors.Join(r.clean(ctx), sweep(ctx))
}

// clean takes away all that a cluster without a supervisor has left on the host. The caller holds its
// lock. Mounts are not among it: they were in the supervisor's namespace and went with its processes.
func (r record) clean(ctx context.Context) error {
	if err := r.cgroup().kill(); err != nil {
		return err
	}
	err := errors.Join(
		r.cgroup().remove(),
		r.cgroup().removeParents(),
		r.Number.remove(ctx),
		removeContents(r.Dir),
	)
	if err != nil {
		return fmt.Errorf("clean up after the cluster of %s: %w", r.Dir, err) // and try again next time
	}
	return forget(r.Number)
}

// forget removes a number's entry. The lock file stays: another process may wait to lock it.
func forget(number network) error {
	var errs []error
	for _, path := range []string{number.registered("cluster.json"), number.socket()} {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// records lists the clusters that are running or were not cleaned up.
func records() ([]record, error) {
	paths, err := filepath.Glob(filepath.Join(registry, "*", "cluster.json"))
	if err != nil {
		return nil, err
	}
	var found []record
	for _, path := range paths {
		var r record
		if err := readJSON(path, &r); errors.Is(err, fs.ErrNotExist) {
			continue
		} else if err != nil {
			return nil, err
		}
		found = append(found, r)
	}
	return found, nil
}

// alive tells whether this very cluster still has a supervisor, or another cluster has its number.
func (r record) alive() (bool, error) {
	lock, err := tryLock(r.Number)
	if err == nil {
		return false, lock.Close()
	}
	if !errors.Is(err, errLocked) {
		return false, err
	}
	var now record
	if err := readJSON(r.Number.registered("cluster.json"), &now); err != nil {
		// Between the end of its cleaning up and the end of the supervisor itself.
		if errors.Is(err, fs.ErrNotExist) {
			return true, nil
		}
		return false, err
	}
	return now.ID == r.ID, nil
}

var errLocked = errors.New("locked by another process")

// tryLock takes a number's lock. The lock belongs to the open file, so a child process that inherits
// the file holds it on.
func tryLock(number network) (*os.File, error) {
	if err := os.MkdirAll(filepath.Dir(number.lockFile()), 0o755); err != nil {
		return nil, err
	}
	return flock(number.lockFile())
}

func flock(path string) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		file.Close()
		if errors.Is(err, syscall.EWOULDBLOCK) {
			return nil, errLocked
		}
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	return file, nil
}

// lockRegistry waits for its turn to add and remove clusters.
func lockRegistry(ctx context.Context) (unlock func(), err error) {
	if err := os.MkdirAll(registry, 0o755); err != nil {
		return nil, err
	}
	for {
		file, err := flock(filepath.Join(registry, "lock"))
		if err == nil {
			return func() { file.Close() }, nil
		}
		if !errors.Is(err, errLocked) {
			return nil, err
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("wait for another cluster that starts or stops: %w", ctx.Err())
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// changeKernelSettings lets change see and alter the record of the host's former settings. The record
// is written before the settings of a later change could be lost.
func changeKernelSettings(change func(before map[string]string) error) error {
	path := filepath.Join(registry, "kernel-settings.json")
	before := map[string]string{}
	if err := readJSON(path, &before); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	err := change(before)
	return errors.Join(err, writeJSON(path, before))
}

func readJSON(path string, into any) error {
	content, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(content, into); err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	return nil
}

func writeJSON(path string, value any) error {
	content, err := json.Marshal(value)
	if err != nil {
		return err
	}
	if err := os.WriteFile(path+".new", content, 0o644); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}
