package readme

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// copyCheckout copies a checkout as it stands, also what is not committed, to where a person would have
// cloned it. What takes minutes to build and is the same for all, under bin, is shared with it.
func copyCheckout(ctx context.Context, checkout, to string) error {
	list := exec.CommandContext(ctx, "git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	list.Dir = checkout
	out, err := list.Output()
	if err != nil {
		return fmt.Errorf("git has to list the files of %s: %w", checkout, err)
	}
	for name := range strings.SplitSeq(strings.TrimRight(string(out), "\x00"), "\x00") {
		if err := copyFile(filepath.Join(checkout, name), filepath.Join(to, name)); err != nil {
			return err
		}
	}
	for _, shared := range []string{"k8s", "roots", "tools"} {
		built, link := filepath.Join(checkout, "bin", shared), filepath.Join(to, "bin", shared)
		if err := errors.Join(os.MkdirAll(built, 0o755), os.MkdirAll(filepath.Dir(link), 0o755), os.Symlink(built, link)); err != nil {
			return err
		}
	}
	return nil
}

func copyFile(from, to string) error {
	info, err := os.Lstat(from)
	if errors.Is(err, fs.ErrNotExist) {
		return nil // deleted, and that is not committed
	}
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(to), 0o755); err != nil {
		return err
	}
	if info.Mode()&fs.ModeSymlink != 0 {
		target, err := os.Readlink(from)
		if err != nil {
			return err
		}
		return os.Symlink(target, to)
	}
	content, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	// With its time, by which make tells what is newer than what was built of it.
	return errors.Join(os.WriteFile(to, content, info.Mode()), os.Chtimes(to, info.ModTime(), info.ModTime()))
}
