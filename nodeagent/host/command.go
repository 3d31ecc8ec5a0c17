package host

import (
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
)

// validName accepts what is safe in both a path and a unit's name.
func validName(name string) error {
	ok := name != "" && len(name) <= 100 && name[0] != '.'
	for _, r := range name {
		ok = ok && (r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '-' || r == '.')
	}
	if !ok {
		return fmt.Errorf("%q cannot name an operation, a step or a command", name)
	}
	return nil
}

// environment is what every command gets, with the command's own variables in place of those of the same name: systemd
// refuses an environment that names one twice.
func environment(own []string) []string {
	env := []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C.UTF-8"}
	for _, variable := range own {
		name, _, _ := strings.Cut(variable, "=")
		env = slices.DeleteFunc(env, func(v string) bool { return strings.HasPrefix(v, name+"=") })
		env = append(env, variable)
	}
	return env
}

func scanNumber(name string, n *int) bool {
	number, _, ok := strings.Cut(name, "-")
	if !ok {
		return false
	}
	_, err := fmt.Sscanf(number, "%04d", n)
	return err == nil
}

func random() string {
	var b [6]byte
	_, _ = rand.Read(b[:]) // never fails (crypto/rand)
	return hex.EncodeToString(b[:])
}
