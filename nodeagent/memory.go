package main

import (
	"bufio"
	"os"
	"runtime/debug"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// release gives memory back before the agent is idle for hours: the heap of a scan, and the pages of the program's own
// file. The kernel maps those by the 64 KiB around each that is used, so that nearly the whole program counts as resident;
// what is needed again comes back from the page cache.
func release() {
	debug.FreeOSMemory()
	maps, err := os.Open("/proc/self/maps")
	if err != nil {
		return // it is an economy, nothing more
	}
	defer func() { _ = maps.Close() }()
	program, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return
	}
	for lines := bufio.NewScanner(maps); lines.Scan(); {
		// 00400000-00982000 r-xp 00000000 00:4c 10537281    /agent
		fields := strings.Fields(lines.Text())
		if len(fields) != 6 || fields[5] != program || fields[1][1] == 'w' {
			continue
		}
		from, to, _ := strings.Cut(fields[0], "-")
		start, err := strconv.ParseUint(from, 16, 64)
		if err != nil {
			return
		}
		end, err := strconv.ParseUint(to, 16, 64)
		if err != nil {
			return
		}
		// Safe for a private mapping of a file that is never written to: the pages are those of the file.
		_, _, _ = unix.Syscall(unix.SYS_MADVISE, uintptr(start), uintptr(end-start), unix.MADV_DONTNEED)
	}
}
