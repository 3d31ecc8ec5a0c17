package mirror

import "fmt"

// FailingScript is the body of a package's script, for /bin/sh, that says on stderr that it fails, and does. The
// script is what the package manager calls it, such as "postinst" or "%pre".
func FailingScript(name, script string) string {
	return fmt.Sprintf("echo %s of %s fails on purpose >&2\nexit 1", script, name)
}

// ScriptFailingTimes is one that fails so many times on a machine, and then succeeds. It counts in
// /var/lib/<name>.failures.
func ScriptFailingTimes(name, script string, times int) string {
	return fmt.Sprintf("n=$(cat %[1]s 2>/dev/null || echo 0)\n[ \"$n\" -ge %[2]d ] && exit 0\necho $((n+1)) >%[1]s\n%[3]s",
		"/var/lib/"+name+".failures", times, FailingScript(name, script))
}
