package cluster

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// Addresses are of 198.18.0.0/15, which RFC 2544 keeps for test networks: no real network routes it.
// A cluster takes one /20 of it by its number: the first /24 for the bridge and the machines, the
// n-th for the pods of the n-th machine. The last /20 is for Services, which exist only inside
// machines, so that all clusters share it.
var (
	testNetwork    = netip.MustParsePrefix("198.18.0.0/15")
	serviceNetwork = netip.MustParsePrefix("198.19.240.0/24")
	apiService     = netip.MustParseAddr("198.19.240.1")
)

const (
	maxNumber   = 30
	maxMachines = 15
)

// network is the part of the network that belongs to the cluster with this number.
type network int

func (n network) at(offset int) netip.Addr {
	base := testNetwork.Addr().As4()
	value := (int(base[0])<<24 | int(base[1])<<16) + int(n)<<12 + offset
	return netip.AddrFrom4([4]byte{byte(value >> 24), byte(value >> 16), byte(value >> 8), byte(value)})
}

// all is the cluster's /20.
func (n network) all() netip.Prefix { return netip.PrefixFrom(n.at(0), 20) }

// host is the address of the host on the cluster's bridge, which the control plane listens on.
func (n network) host() netip.Addr { return n.at(1) }

// machine is the address of the i-th machine, counted from 1.
func (n network) machine(i int) netip.Addr { return n.at(10 + i) }

// pods is the network of the pods on the i-th machine.
func (n network) pods(i int) netip.Prefix { return netip.PrefixFrom(n.at(i<<8), 24) }

// loopback is where etcd and what needs no other machine listens. All of 127.0.0.0/8 is the host itself.
func (n network) loopback() netip.Addr { return netip.AddrFrom4([4]byte{127, 198, byte(n), 1}) }

func (n network) bridge() string { return fmt.Sprintf("nodepatch%d", n) }

// veth is the host's end of the i-th machine's cable, as systemd-nspawn names it.
func (n network) veth(i int) string { return "vb-" + n.container(i) }

// container is the i-th machine's name on the host.
func (n network) container(i int) string { return fmt.Sprintf("np%d-%d", n, i) }

// inUse tells whether the host has an address or a route in the cluster's network, so that the network
// means something else to it.
func (n network) inUse(ctx context.Context) (bool, error) {
	addresses, err := net.InterfaceAddrs()
	if err != nil {
		return false, err
	}
	for _, address := range addresses {
		if prefix, err := netip.ParsePrefix(address.String()); err == nil && prefix.Masked().Overlaps(n.all()) {
			return true, nil
		}
	}
	out, err := run(ctx, "ip", "-json", "-4", "route", "show", "table", "all")
	if err != nil {
		return false, err
	}
	var routes []struct {
		Destination string `json:"dst"`
	}
	if err := json.Unmarshal([]byte(out), &routes); err != nil {
		return false, fmt.Errorf("read the host's routes: %w", err)
	}
	for _, route := range routes {
		prefix, err := netip.ParsePrefix(route.Destination)
		if err != nil {
			address, err := netip.ParseAddr(route.Destination)
			if err != nil {
				continue // "default"
			}
			prefix = netip.PrefixFrom(address, address.BitLen())
		}
		if prefix.Overlaps(n.all()) {
			return true, nil
		}
	}
	return false, nil
}

// rules let the machines reach the host, and out through it, past a firewall that drops what it does not
// know.
func (n network) rules() [][]string {
	comment := []string{"-m", "comment", "--comment", n.bridge()}
	return [][]string{
		append([]string{"nat", "POSTROUTING", "-s", n.all().String(), "!", "-d", testNetwork.String(), "-j", "MASQUERADE"}, comment...),
		append([]string{"filter", "INPUT", "-i", n.bridge(), "-j", "ACCEPT"}, comment...),
		append([]string{"filter", "FORWARD", "-i", n.bridge(), "-j", "ACCEPT"}, comment...),
		append([]string{"filter", "FORWARD", "-o", n.bridge(), "-j", "ACCEPT"}, comment...),
	}
}

// create makes the bridge, its routes and its rules. The host must forward (see kernelSettings).
func (n network) create(ctx context.Context, machines int) error {
	commands := [][]string{
		{"ip", "link", "add", n.bridge(), "type", "bridge"},
		{"ip", "address", "add", n.host().String() + "/24", "dev", n.bridge()},
		{"ip", "link", "set", n.bridge(), "up"},
	}
	for i := 1; i <= machines; i++ {
		commands = append(commands, []string{"ip", "route", "add", n.pods(i).String(), "via", n.machine(i).String(), "dev", n.bridge()})
	}
	for _, rule := range n.rules() {
		commands = append(commands, append([]string{"iptables", "-w", "-t", rule[0], "-I"}, rule[1:]...))
	}
	for _, command := range commands {
		if _, err := run(ctx, command[0], command[1:]...); err != nil {
			return err
		}
	}
	return nil
}

// remove takes away what create made, whatever of it is there.
func (n network) remove(ctx context.Context) error {
	var errs []error
	for _, rule := range n.rules() {
		check := append([]string{"-w", "-t", rule[0], "-C"}, rule[1:]...)
		remove := append([]string{"-w", "-t", rule[0], "-D"}, rule[1:]...)
		for {
			if _, err := run(ctx, "iptables", check...); err != nil {
				break
			}
			if _, err := run(ctx, "iptables", remove...); err != nil {
				errs = append(errs, err)
				break
			}
		}
	}
	if _, err := net.InterfaceByName(n.bridge()); err == nil {
		_, err := run(ctx, "ip", "link", "delete", n.bridge())
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// kernelSettings are what machines need of the host's kernel: to be routed, and more inotify instances
// than the default for one user, of which systemd, containerd and kubelet use some ten per machine.
var kernelSettings = map[string]int{
	"net/ipv4/ip_forward":           1,
	"fs/inotify/max_user_instances": 1024,
}

// raise sets the kernel settings that are too low, and adds their former values to those that were
// changed before.
func raise(before map[string]string) error {
	for name, least := range kernelSettings {
		path := filepath.Join("/proc/sys", name)
		content, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		value := strings.TrimSpace(string(content))
		var now int
		if _, err := fmt.Sscan(value, &now); err != nil {
			return fmt.Errorf("read %s: %w", path, err)
		}
		if now >= least {
			continue
		}
		if _, known := before[name]; !known {
			before[name] = value
		}
		if err := os.WriteFile(path, fmt.Append(nil, least), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// restore sets kernel settings back to their former values.
func restore(before map[string]string) error {
	var errs []error
	for name, value := range before {
		errs = append(errs, os.WriteFile(filepath.Join("/proc/sys", name), []byte(value), 0o644))
	}
	return errors.Join(errs...)
}

// run runs a program to its end and returns what it wrote to stdout. The error holds its stderr.
func run(ctx context.Context, name string, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		command := strings.Join(slices.Insert(args, 0, name), " ")
		return stdout.String(), fmt.Errorf("%s: %w: %s", command, err, strings.TrimSpace(stderr.String()))
	}
	return stdout.String(), nil
}
