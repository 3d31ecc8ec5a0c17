package packages

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
)

// OS names the host's operating system, as its os-release file does (os-release(5)).
type OS struct {
	// ID and VersionID are for programs, such as "debian" and "12".
	ID        string
	VersionID string
	// IDLike are the distributions that this one was made from, the closest first.
	IDLike []string
	// PrettyName is for people, such as "Debian GNU/Linux 12 (bookworm)".
	PrettyName string
}

// Kernel names the kernels of the host by their release, as uname -r does.
type Kernel struct {
	// Running is the release of the running kernel; empty if it cannot be read.
	Running string
	// NewestInstalled is the newest installed release of the running kernel's
	// flavour; empty if none is installed, as in a container.
	NewestInstalled string
}

// smallFile bounds what is read of files that are a few lines on any sane host.
const smallFile = 64 << 10

// ReadOS reads the os-release file of the host whose root directory is files.
func ReadOS(files fs.FS) (OS, error) {
	// The second is the first's target on hosts where the first is an absolute
	// link, which leads out of a mounted root.
	text, err := readSmall(files, "etc/os-release")
	if err != nil {
		var second error
		if text, second = readSmall(files, "usr/lib/os-release"); second != nil {
			return OS{}, fmt.Errorf("read the host's os-release: %w", err)
		}
	}
	return parseOSRelease(text), nil
}

func parseOSRelease(text string) OS {
	var system OS
	for line := range strings.Lines(text) {
		key, value, found := strings.Cut(strings.TrimSpace(line), "=")
		if !found {
			continue
		}
		value = unquote(value)
		switch key {
		case "ID":
			system.ID = value
		case "VERSION_ID":
			system.VersionID = value
		case "ID_LIKE":
			system.IDLike = strings.Fields(value)
		case "PRETTY_NAME":
			system.PrettyName = value
		}
	}
	return system
}

// unquote removes a shell's quotes, of which os-release allows the whole value
// to be in one pair, with backslashes before the characters special to a shell.
func unquote(value string) string {
	if len(value) < 2 || (value[0] != '"' && value[0] != '\'') || value[len(value)-1] != value[0] {
		return value
	}
	value = value[1 : len(value)-1]
	if !strings.Contains(value, `\`) {
		return value
	}
	var b strings.Builder
	for i := 0; i < len(value); i++ {
		if value[i] == '\\' && i+1 < len(value) {
			i++
		}
		b.WriteByte(value[i])
	}
	return b.String()
}

// RunningKernel is the release of the running kernel, as uname -r prints it.
func RunningKernel(files fs.FS) (string, error) {
	text, err := readSmall(files, "proc/sys/kernel/osrelease")
	if err != nil {
		return "", fmt.Errorf("read the release of the running kernel: %w", err)
	}
	return strings.TrimSpace(text), nil
}

// KernelBanner is the running kernel's /proc/version: its release, who built it
// with what, and the distribution's version of the package where the
// distribution puts it there.
func KernelBanner(files fs.FS) (string, error) {
	text, err := readSmall(files, "proc/version")
	if err != nil {
		return "", fmt.Errorf("read the version of the running kernel: %w", err)
	}
	return strings.TrimSpace(text), nil
}

// RebootFlag reads the flag file that Debian's and Ubuntu's packages leave when
// they want a reboot, and the names of the packages that did; sorted as they
// came, each once.
func RebootFlag(files fs.FS) (set bool, by []string, err error) {
	if _, err := fs.Stat(files, "run/reboot-required"); errors.Is(err, fs.ErrNotExist) {
		return false, nil, nil
	} else if err != nil {
		return false, nil, fmt.Errorf("look for the host's reboot flag: %w", err)
	}
	text, err := readSmall(files, "run/reboot-required.pkgs")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return true, nil, fmt.Errorf("read who set the host's reboot flag: %w", err)
	}
	seen := map[string]bool{}
	for line := range strings.Lines(text) {
		if name := strings.TrimSpace(line); name != "" && !seen[name] {
			seen[name] = true
			by = append(by, name)
		}
	}
	return true, by, nil
}

// ProcessName is the name of a process of the host; empty if there is none.
func ProcessName(files fs.FS, pid int) string {
	name, err := readSmall(files, fmt.Sprintf("proc/%d/comm", pid))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(name)
}

func readSmall(files fs.FS, name string) (string, error) {
	f, err := files.Open(name)
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }()
	text, err := io.ReadAll(io.LimitReader(f, smallFile))
	return string(text), err
}
