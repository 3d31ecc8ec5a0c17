package dnf

import (
	"context"
	"fmt"
	"io/fs"
	"strconv"
	"strings"
	"time"

	"github.com/nodepatch/nodepatch/nodeagent/packages"
	"github.com/nodepatch/nodepatch/nodeagent/packages/rpm"
)

// dropStale removes a lock's file that a dnf which was killed has left behind, and
// whose number another process has got since, and says whether it did. dnf takes
// any process of that number for the holder. A holder has written the file, so it
// was started before.
func (m *Manager) dropStale(ctx context.Context, held *packages.LockHeldError) (bool, error) {
	if held.PID == 0 || held.Path == "" {
		return false, nil
	}
	info, err := fs.Stat(m.files, strings.TrimPrefix(held.Path, "/"))
	if err != nil {
		return false, nil // it is gone, or cannot be judged
	}
	started, ok := processStart(m.files, held.PID)
	const slack = 5 * time.Second // the clock may have been set back a little
	if !ok || !started.After(info.ModTime().Add(slack)) {
		return false, nil
	}
	const purpose = "remove a lock that a dnf which was killed has left"
	result, err := m.runner.Run(ctx, packages.Command{
		Name: "dnf-drop-lock", Argv: []string{"rm", "-f", "--", held.Path}, Env: environment(), Timeout: readTimeout,
	})
	if err != nil {
		return false, fmt.Errorf("%s: %w", purpose, err)
	}
	if result.ExitCode != 0 {
		return false, fmt.Errorf("%s: %w", purpose, commandError("rm", result))
	}
	return true, nil
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
	booted, err := rpm.BootTime(files)
	if err != nil {
		return time.Time{}, false
	}
	return booted.Add(time.Duration(ticks) * time.Second / perSecond), true
}
