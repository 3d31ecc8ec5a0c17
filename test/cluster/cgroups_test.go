package cluster

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseHierarchies(t *testing.T) {
	for name, test := range map[string]struct {
		mounts, own string
		want        []hierarchy
		wantError   bool
		wantUnified bool
	}{
		"v2, as on a current Debian": {
			mounts: `24 22 0:22 / /sys rw,nosuid,nodev,noexec,relatime shared:7 - sysfs sysfs rw
29 24 0:26 / /sys/fs/cgroup rw,nosuid,nodev,noexec,relatime shared:9 - cgroup2 cgroup2 rw,nsdelegate,memory_recursiveprot
`,
			own:         "0::/user.slice/user-0.slice/session-1.scope\n",
			want:        []hierarchy{{Path: "/sys/fs/cgroup", Unified: true}},
			wantUnified: true,
		},
		"v1 with a memory limit on this process": {
			mounts: `40 24 0:31 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
41 40 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory
42 40 0:33 / /sys/fs/cgroup/cpu,cpuacct rw,relatime - cgroup cgroup rw,cpu,cpuacct
43 40 0:34 / /sys/fs/cgroup/freezer rw,relatime - cgroup cgroup rw,freezer
44 40 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,xattr,name=systemd
45 40 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
46 24 0:39 / /srv/cgroup rw,relatime - cgroup cgroup rw,memory
`,
			own: "9:name=systemd:/\n6:freezer:/\n4:memory:/limited/here\n1:cpu,cpuacct:/\n0::/\n",
			want: []hierarchy{
				{Path: "/sys/fs/cgroup/memory/limited/here"},
				{Path: "/sys/fs/cgroup/cpu,cpuacct"},
				{Path: "/sys/fs/cgroup/freezer"},
				{Path: "/sys/fs/cgroup/systemd"},
				{Path: "/sys/fs/cgroup/unified", Unified: true},
			},
		},
		"none mounted": {
			mounts:    "24 22 0:22 / /sys rw - sysfs sysfs rw\n",
			wantError: true,
		},
	} {
		t.Run(name, func(t *testing.T) {
			got, err := parseHierarchies(test.mounts, test.own)
			if (err != nil) != test.wantError {
				t.Fatalf("got error %v", err)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Error(diff)
			}
			if unified := (cgroup{trees: got}).unified(); unified != test.wantUnified {
				t.Errorf("unified is %v", unified)
			}
		})
	}
}
