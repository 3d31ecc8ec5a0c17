package rpm

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"github.com/nodepatch/nodepatch/test/roots"
)

// versions are pairs of which the order is known: those of rpm's own test suite
// (tests/rpmvercmp.at), and those that package managers stumble over.
var versions = []struct {
	a, b string
	want int
}{
	{"1.0", "1.0", 0}, {"1.0", "2.0", -1}, {"2.0.1", "2.0", 1}, {"2.0.1a", "2.0.1", 1}, {"5.5p1", "5.5p2", -1},
	{"5.5p10", "5.5p1", 1}, {"10xyz", "10.1xyz", -1}, {"xyz10", "xyz10.1", -1}, {"xyz.4", "8", -1}, {"xyz.4", "2", -1},
	{"5.5p2", "5.6p1", -1}, {"5.6p1", "6.5p1", -1}, {"6.0.rc1", "6.0", 1}, {"10b2", "10a1", 1}, {"1.0aa", "1.0a", 1},
	{"10.0001", "10.0039", -1}, {"4.999.9", "5.0", -1}, {"20101121", "20101122", -1}, {"2_0", "2.0", 0}, {"2.0", "2_0", 0},
	{"a", "a", 0}, {"a+", "a+", 0}, {"a+", "a_", 0}, {"+a", "_a", 0}, {"+_", "_+", 0}, {"+", "_", 0},
	{"1.0~rc1", "1.0", -1}, {"1.0~rc1", "1.0~rc2", -1}, {"1.0~rc1~git123", "1.0~rc1", -1}, {"1.0^", "1.0", 1}, {"1.0^", "1.0^", 0},
	{"1.0^git1", "1.0", 1}, {"1.0^git1", "1.0^git2", -1}, {"1.0^git1", "1.01", -1}, {"1.0^20160101", "1.0.1", -1},
	{"1.0^20160101^git1", "1.0^20160102", -1}, {"1.0~rc1^git1", "1.0~rc1", 1}, {"1.0^git1~pre", "1.0^git1", -1}, {"1.0^~", "1.0~^", 1},
	{"1b.fc17", "1.fc17", -1}, {"1g.fc17", "1.fc17", 1}, {"001", "1", 0}, {"1.", "1", 0}, {"", "1", -1}, {"~", "", -1},
	{"99999999999999999999", "100000000000000000000", -1},
}

func TestComparePart(t *testing.T) {
	for _, c := range versions {
		if got := sign(comparePart(c.a, c.b)); got != c.want {
			t.Errorf("%q against %q is %d, want %d", c.a, c.b, got, c.want)
		}
		if got := sign(comparePart(c.b, c.a)); got != -c.want {
			t.Errorf("%q against %q is %d, want %d", c.b, c.a, got, -c.want)
		}
	}
}

func TestCompare(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{
		{"1.0-1", "1.0-1", 0}, {"1.0-1", "1.0-2", -1}, {"1:1.0-1", "2.0-1", 1}, {"0:1.0-1", "1.0-1", 0}, {"00:1.0-1", "0:1.0-1", 0},
		{"10:1-1", "9:2-1", 1}, {"1.0-1.el9", "1.0-1.el9_4.2", -1}, {"1.0~rc1-5", "1.0-1", -1}, {"2.0-1", "1.0-9", 1},
	} {
		if got := sign(Compare(c.a, c.b)); got != c.want {
			t.Errorf("%q against %q is %d, want %d", c.a, c.b, got, c.want)
		}
		if got := sign(Compare(c.b, c.a)); got != -c.want {
			t.Errorf("%q against %q is %d, want %d", c.b, c.a, got, -c.want)
		}
	}
}

// TestCompareAsRPM asks rpm itself, of the same pairs and of all others that
// their versions make.
func TestCompareAsRPM(t *testing.T) {
	_, err := exec.LookPath("rpm")
	roots.Require(t, err)
	var all []string
	for _, v := range versions {
		all = append(all, v.a, v.b)
	}
	n := 0
	for _, a := range all {
		var script strings.Builder
		for _, b := range all {
			if a != "" && b != "" { // rpm takes an empty version for none
				fmt.Fprintf(&script, "print(rpm.vercmp('%s', '%s'), '%s', '%s\\n')\n", a, b, a, b)
			}
		}
		output, err := exec.Command("rpm", "--eval", "%{lua:"+script.String()+"}").Output()
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(output)) {
			fields := strings.Fields(line)
			if len(fields) != 3 {
				continue
			}
			n++
			if got := fmt.Sprint(sign(comparePart(fields[1], fields[2]))); got != fields[0] {
				t.Errorf("%q against %q is %s, rpm says %s", fields[1], fields[2], got, fields[0])
			}
		}
	}
	if want := len(all) * len(all) * 9 / 10; n < want {
		t.Errorf("rpm compared %d pairs, want %d at least", n, want)
	}
}

func sign(n int) int { return min(1, max(-1, n)) }

// FuzzCompare has any two versions in one order, whichever way they are asked for.
func FuzzCompare(f *testing.F) {
	for _, c := range versions {
		f.Add(c.a, c.b, "1.0-1")
	}
	f.Fuzz(func(t *testing.T, a, b, c string) {
		ab, ba := sign(Compare(a, b)), sign(Compare(b, a))
		if ab != -ba {
			t.Errorf("%q against %q is %d, and the other way %d", a, b, ab, ba)
		}
		if Compare(a, a) != 0 {
			t.Errorf("%q is not itself", a)
		}
		if only(a+b+c, "._+~^:-") && ab <= 0 && Compare(b, c) <= 0 && Compare(a, c) > 0 && ValidVersion(a) && ValidVersion(b) && ValidVersion(c) {
			t.Errorf("%q, %q, %q are in no order", a, b, c)
		}
	})
}
