package main

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/test/aptrepo"
)

// attempt is a program for maintainer scripts: attempt NAME VERSION writes a line if a transaction of a deployment runs
// the script for the sake of this very patch, and not a repair, or a transaction of others that takes along what is
// half-configured.
const attempt = `#!/bin/sh
pid=$PPID
while [ "$pid" -gt 1 ]; do
	case "$(tr '\0' ' ' <"/proc/$pid/cmdline")" in
	apt-get*--only-upgrade*" $1=$2 "*) echo "$(cat /operation) $1=$2" >>/attempts; exit ;;
	esac
	pid=$(sed 's/.*) //' "/proc/$pid/stat" | cut -d' ' -f2)
done
`

// shelf is what the mirror offers to a node that is killed: each operation finds newer versions of good packages, and of
// bad ones the same for a while, then good ones.
type shelf struct {
	*node
	rand *rand.Rand
	// turn is the number of the operation.
	turn int
	// since is from which turn on a bad package is offered in its version, and bad whether it is bad.
	since map[string]int
	bad   map[string]bool
	// asked is how often the server was asked for a file, by package, and missed in how many operations it was at all.
	asked, missed map[string]int
}

// The packages with which something is wrong every now and then.
var fickle = []string{"pre", "post", "gone", "corrupt"}

func newShelf(n *node, random *rand.Rand) *shelf {
	s := &shelf{node: n, rand: random, since: map[string]int{}, bad: map[string]bool{}, asked: map[string]int{}, missed: map[string]int{}}
	n.write("/usr/local/bin/attempt", attempt)
	n.write("/attempts", "")
	var first []aptrepo.Package
	for _, name := range append([]string{"a", "b", "c", "leaf", "needy"}, fickle...) {
		first = append(first, aptrepo.Good("toy-"+name, "1.0"))
	}
	n.stock(first...)
	return s
}

func (s *shelf) version(name string) string { return fmt.Sprintf("2.%d", s.since[name]) }

// fill puts the packages of the next operation on the shelf.
func (s *shelf) fill() {
	s.t.Helper()
	s.turn++
	s.write("/operation", fmt.Sprint(s.turn))
	for _, name := range fickle {
		if s.turn == 1 || s.turn-s.since[name] >= 3 || !s.bad[name] {
			s.since[name], s.bad[name] = s.turn, s.rand.IntN(4) > 0
			s.missed[name] = 0
		}
	}
	var offered []aptrepo.Package
	for _, name := range []string{"a", "b", "c"} {
		offered = append(offered, aptrepo.Package{Name: "toy-" + name, Version: fmt.Sprintf("2.%d", s.turn), Postinst: "sleep 0.0" + fmt.Sprint(s.rand.IntN(9))})
	}
	leaf := aptrepo.Good("toy-leaf", fmt.Sprintf("2.%d", s.turn))
	leaf.Depends = fmt.Sprintf("toy-a (>= 2.%d)", s.turn)
	needy := aptrepo.Good("toy-needy", fmt.Sprintf("2.%d", s.turn))
	needy.Depends = "toy-post (>= " + s.version("post") + ")"
	offered = append(offered, leaf, needy)
	for _, name := range fickle {
		p := aptrepo.Good("toy-"+name, s.version(name))
		if s.bad[name] {
			// Apt gives scripts a PATH of its own.
			fails := "/usr/local/bin/attempt " + p.Name + " " + p.Version + "\necho it fails on purpose >&2\nexit 1"
			switch name {
			case "pre":
				p.Preinst = fails
			case "post":
				p.Postinst = fails
			case "gone":
				p.Fault = aptrepo.MissingFile
			case "corrupt":
				p.Fault = aptrepo.CorruptFile
			}
		}
		offered = append(offered, p)
		s.asked[name] = s.main.Requests(p.Name)
	}
	s.offer(offered...)
}

// check wants of the node what must hold after every operation, whatever was killed.
func (s *shelf) check(before map[string]string) {
	s.t.Helper()
	id := fmt.Sprint(s.turn)
	after := s.installed()

	// No package is left half-way, but for the one whose own script fails, and what needs it.
	for name, version := range after {
		_, wrong, _ := strings.Cut(version, " ")
		if wrong != "" && (!s.bad["post"] || name != "toy-post" && name != "toy-needy") {
			s.t.Errorf("Operation %s left %s %s", id, name, version)
		}
	}

	// The counts are the attempts that the scripts and the server saw.
	attempts := map[string]int{}
	for _, line := range strings.Split(s.read("/attempts"), "\n") {
		operation, patch, _ := strings.Cut(line, " ")
		attempts[patch]++
		if operation == id && strings.Count("\n"+s.read("/attempts")+"\n", "\n"+line+"\n") != 1 {
			s.t.Errorf("Operation %s tried %s more than once", id, patch)
		}
	}
	var want []string
	for _, name := range fickle {
		if !s.bad[name] {
			continue
		}
		patch := "toy-" + name + "=" + s.version(name)
		switch name {
		case "gone", "corrupt":
			if s.main.Requests("toy-"+name) > s.asked[name] {
				s.missed[name]++
			}
			want = append(want, fmt.Sprintf("%s D%d I0", patch, s.missed[name]))
		default:
			want = append(want, fmt.Sprintf("%s D0 I%d", patch, attempts[patch]))
		}
		if n := s.turn - s.since[name] + 1; !strings.HasSuffix(want[len(want)-1], fmt.Sprint(n)) && !strings.Contains(want[len(want)-1], fmt.Sprintf(" D%d ", n)) {
			s.t.Errorf("%s was not tried once in each of %d operations: %s", patch, n, want[len(want)-1])
		}
	}
	slices.Sort(want)
	s.wantCounts(want...)

	// What was installed is in the patch log once, with both its versions.
	s.eventually("the patch log of operation "+id+" is complete", func() bool {
		return slices.ContainsFunc(s.entries(id), func(e corev1.Event) bool {
			return e.Reason == v1alpha1.EventDeployFinished || e.Reason == v1alpha1.EventDeployFailed
		})
	})
	var logged, changed []string
	for _, e := range s.entries(id) {
		if e.Reason == v1alpha1.EventPatchesInstalled {
			_, list, _ := strings.Cut(e.Message, "installed: ")
			logged = append(logged, strings.Split(list, ", ")...)
		}
	}
	for name, version := range after {
		now, wrong, _ := strings.Cut(version, " ")
		was, _, _ := strings.Cut(before[name], " ")
		if before[name] != version && wrong == "" {
			changed = append(changed, name+" "+was+" -> "+now)
		}
	}
	// A package that was half-configured has as its old version the one that was configured last.
	old := regexp.MustCompile(` \S+ -> `)
	for _, list := range []*[]string{&logged, &changed} {
		for i, change := range *list {
			if strings.HasPrefix(change, "toy-post ") || strings.HasPrefix(change, "toy-needy ") {
				(*list)[i] = old.ReplaceAllString(change, " … -> ")
			}
		}
		slices.Sort(*list)
	}
	if !slices.Equal(logged, changed) {
		s.t.Errorf("Operation %s logged as installed %q, changed were %q", id, logged, changed)
	}
}

// installed are the toy packages' versions, each with what is wrong with it.
func (s *shelf) installed() map[string]string {
	s.t.Helper()
	all := map[string]string{}
	for _, line := range strings.Split(s.versions("toy-*", "egg", "ham"), "\n") {
		name, version, _ := strings.Cut(line, " ")
		all[name] = version
	}
	return all
}

// TestKill kills the agent at random moments of deployments, NODEPATCH_KILLS times. "make test-kill" makes it 200.
func TestKill(t *testing.T) {
	kills := 12
	if s := os.Getenv("NODEPATCH_KILLS"); s != "" {
		kills = atoi(t, s)
	}
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("NODEPATCH_SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("NODEPATCH_SEED=%d", seed)
	random := rand.New(rand.NewPCG(seed, seed))
	s := newShelf(newNode(t), random)
	a := s.start()
	phases := map[string]int{}
	typical := 3 * time.Second // of an operation; the first one says how long it takes
	began := time.Now()
	killed := 0
	for killed < kills && !t.Failed() {
		s.fill()
		before := s.installed()
		assigned := time.Now()
		s.assign(fmt.Sprint(s.turn), v1alpha1.StepInstalling)
		// More than four deaths in one phase are taken for the operation's own fault.
		for range min(random.IntN(5), kills-killed) {
			time.Sleep(time.Duration(random.Int64N(int64(typical))))
			a.kill()
			killed++
			phases[s.phase()]++
			a = s.start()
		}
		s.ended(fmt.Sprint(s.turn))
		if s.turn == 1 {
			typical = min(typical, time.Since(assigned))
		}
		s.check(before)
	}
	var where []string
	for _, p := range slices.Sorted(maps.Keys(phases)) {
		where = append(where, fmt.Sprintf("%s %d", p, phases[p]))
	}
	t.Logf("%d kills in %d deployments in %s: %s", killed, s.turn, time.Since(began).Round(time.Second), strings.Join(where, ", "))
}

// phase is what the journal says the agent was at.
func (s *shelf) phase() string {
	s.t.Helper()
	match := regexp.MustCompile(`"current":.*?"phase":"(\w+)"`).FindStringSubmatch(s.read("/var/lib/nodepatch/journal/operation.json"))
	if match == nil {
		return "before the first"
	}
	return match[1]
}
