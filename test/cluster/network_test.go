package cluster

import (
	"net/netip"
	"testing"
)

func TestNetworksAreApart(t *testing.T) {
	var all []netip.Prefix
	for number := network(1); number <= maxNumber; number++ {
		all = append(all, number.all())
		if !testNetwork.Contains(number.all().Addr()) {
			t.Errorf("%s of cluster %d is not a test network's", number.all(), number)
		}
		machines := netip.PrefixFrom(number.host(), 24).Masked()
		for i := 1; i <= maxMachines; i++ {
			pods := number.pods(i)
			if !number.all().Contains(pods.Addr()) || pods != pods.Masked() || pods.Overlaps(machines) {
				t.Errorf("pods of machine %d of cluster %d: %s", i, number, pods)
			}
			if !machines.Contains(number.machine(i)) || number.machine(i) == number.host() {
				t.Errorf("address of machine %d of cluster %d: %s", i, number, number.machine(i))
			}
		}
		// The kernel takes 15 characters for the name of an interface.
		for _, name := range []string{number.bridge(), number.veth(maxMachines)} {
			if len(name) > 15 {
				t.Errorf("%s is too long for an interface", name)
			}
		}
	}
	all = append(all, serviceNetwork)
	for i, a := range all {
		for _, b := range all[i+1:] {
			if a.Overlaps(b) {
				t.Errorf("%s and %s overlap", a, b)
			}
		}
	}
}
