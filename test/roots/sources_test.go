package roots

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestParseTargets(t *testing.T) {
	// apt-get indextargets --format '$(ORIGIN)|$(REPO_URI)|$(RELEASE)|$(COMPONENT)' on a Debian 12 host
	// with a third party's repository, which uses the distribution's own suite and component names.
	records := `Debian|http://mirror.example/debian/|bookworm|main
Debian|http://mirror.example/debian/|bookworm|contrib
Debian|http://mirror.example/debian/|bookworm|main
Debian|http://mirror.example/debian/|bookworm-updates|main
Debian Backports|http://mirror.example/debian/|bookworm-backports|main
Debian|http://security.example/debian-security/|bookworm-security|main
Tailscale|https://pkgs.tailscale.com/stable/debian/|bookworm|main
. nodistro|https://deb.nodesource.com/node_20.x/|nodistro|main
Debian|cdrom://[Debian GNU Linux]/|bookworm|main
`
	want := `deb http://mirror.example/debian/ bookworm main contrib
deb http://mirror.example/debian/ bookworm-updates main
deb http://security.example/debian-security/ bookworm-security main
`
	sources := &Sources{Codename: "bookworm", entries: parseTargets(records, "bookworm")}
	if diff := cmp.Diff(want, sources.List()); diff != "" {
		t.Error(diff)
	}
	main, err := sources.main()
	if err != nil {
		t.Fatal(err)
	}
	if got, want := main.line(), "deb http://mirror.example/debian/ bookworm main contrib"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestParseTargetsWithoutIndex(t *testing.T) {
	sources := &Sources{Codename: "bookworm", entries: parseTargets("", "bookworm")}
	if _, err := sources.main(); err == nil {
		t.Error("no error where apt has fetched no index")
	}
}

func TestAcquireOptions(t *testing.T) {
	dump := `Acquire "";
Acquire::AllowInsecureRepositories "0";
Acquire::IndexTargets::deb::Packages::Optional "0";
Acquire::Check-Valid-Until "false";
Acquire::Check-Date "false";
Acquire::http "";
Acquire::http::Proxy "http://proxy.example:3128";
Acquire::https::Verify-Peer "true";
Acquire::Languages "none";
`
	want := []string{
		`Acquire::Check-Valid-Until "false";`,
		`Acquire::Check-Date "false";`,
		`Acquire::http::Proxy "http://proxy.example:3128";`,
		`Acquire::https::Verify-Peer "true";`,
	}
	if diff := cmp.Diff(want, acquireOptions(dump)); diff != "" {
		t.Error(diff)
	}
}
