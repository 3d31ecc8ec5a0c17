package rpm

import (
	"context"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nodepatch/nodepatch/nodeagent/packages"
)

// databases are the directories that distributions have rpm's database in. One
// of them may be a link to the other.
var databases = []string{"usr/lib/sysimage/rpm", "var/lib/rpm"}

// Hold takes the lock that rpm's library takes for a transaction, whichever
// program uses it, and further locks of a tool that are taken in the same way.
// The lock alone is not enough: zypper runs rpm once for each package, and dnf
// tries a transaction before it runs it. So it also wants no process to be at
// work whose number is in one of the PID files. None is written there by us: dnf
// would take whoever gets that number after a reboot for the holder.
func Hold(ctx context.Context, files fs.FS, locks packages.Locks, further, pidFiles []string) (release func(), err error) {
	var paths []string
	for _, dir := range databases {
		if info, err := fs.Stat(files, dir); err == nil && info.IsDir() {
			paths = append(paths, dir+"/.rpm.lock")
		}
	}
	return locks.Hold(ctx, files, slices.Concat(paths, further), func() *packages.LockHeldError {
		for _, path := range pidFiles {
			if pid := atWork(files, path); pid != 0 {
				return &packages.LockHeldError{Path: "/" + path, PID: pid}
			}
		}
		return nil
	})
}

// atWork is the process that has written its number into a PID file; 0 if there
// is none, or it is gone and another one has got its number.
func atWork(files fs.FS, path string) int {
	text, err := fs.ReadFile(files, path)
	if err != nil {
		return 0
	}
	pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
	if err != nil || pid <= 0 {
		return 0 // zypper leaves it empty when it ends
	}
	if _, err := fs.Stat(files, fmt.Sprintf("proc/%d", pid)); err != nil {
		return 0
	}
	if info, err := fs.Stat(files, path); err == nil && StartedAfter(files, pid, info.ModTime()) {
		return 0
	}
	return pid
}

// StartedAfter says whether a process was certainly started after a file was
// written that has its number in it, and so is not the one that wrote it.
func StartedAfter(files fs.FS, pid int, written time.Time) bool {
	const slack = 5 * time.Second // the clock may have been set back a little
	started, ok := processStart(files, pid)
	return ok && started.After(written.Add(slack))
}

// processStart is when a process was started (proc(5), /proc/pid/stat, starttime).
func processStart(files fs.FS, pid int) (time.Time, bool) {
	text, err := fs.ReadFile(files, fmt.Sprintf("proc/%d/stat", pid))
	if err != nil {
		return time.Time{}, false
	}
	// The second field is the program's name in parentheses, with anything in it.
	_, rest, found := strings.Cut(string(text[max(0, strings.LastIndexByte(string(text), ')')):]), " ")
	fields := strings.Fields(rest)
	const starttime, perSecond = 22 - 3, 100 // ticks, of which Linux shows 100 a second on all platforms that Go knows
	if !found || len(fields) <= starttime {
		return time.Time{}, false
	}
	ticks, err := strconv.ParseInt(fields[starttime], 10, 64)
	if err != nil {
		return time.Time{}, false
	}
	booted, err := BootTime(files)
	if err != nil {
		return time.Time{}, false
	}
	return booted.Add(time.Duration(ticks) * time.Second / perSecond), true
}
