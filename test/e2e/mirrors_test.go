package e2e

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"

	. "github.com/onsi/ginkgo/v2"
	. "github.com/onsi/gomega"

	"github.com/nodepatch/nodepatch/test/aptrepo"
	"github.com/nodepatch/nodepatch/test/cluster"
)

// mirrors serves repositories on the machines' bridge, and can make apt wait.
type mirrors struct {
	main, security *aptrepo.Repository
	// rollouts is what machines have in place of all others while they take part in rollouts.
	rollouts *aptrepo.Repository
	url      string

	mu   sync.Mutex
	gate chan struct{} // closed while requests pass
}

func startMirrors(ctx context.Context, address netip.Addr) *mirrors {
	GinkgoHelper()
	m := &mirrors{
		main:     aptrepo.New(aptrepo.Release{Origin: "Debian", Label: "Debian", Suite: "oldstable", Codename: "main"}),
		security: aptrepo.New(aptrepo.Release{Origin: "Debian", Label: "Debian-Security", Suite: "oldstable-security", Codename: "security"}),
		rollouts: aptrepo.New(aptrepo.Release{Origin: "Debian", Label: "Debian-Security", Suite: "oldstable-security", Codename: "rollouts"}),
		gate:     make(chan struct{}),
	}
	close(m.gate)
	m.main.Add(aptrepo.Good("ham", "1.0"), aptrepo.Good("egg", "1.0"), aptrepo.Good("spam", "1.0"),
		aptrepo.Good("bacon", "1.0"), aptrepo.Good("toast", "1.0"))
	m.rollouts.Add(aptrepo.Good(firmware, "1.0"))
	m.publish()

	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", netip.AddrPortFrom(address, 0).String())
	Expect(err).NotTo(HaveOccurred())
	mux := http.NewServeMux()
	mux.Handle("/main/", http.StripPrefix("/main", m.main))
	mux.Handle("/security/", http.StripPrefix("/security", m.security))
	mux.Handle("/rollouts/", http.StripPrefix("/rollouts", m.rollouts))
	server := &http.Server{Handler: m.gated(mux)}
	go func() { _ = server.Serve(listener) }()
	DeferCleanup(func() {
		m.open()
		_ = server.Close()
	})
	m.url = "http://" + listener.Addr().String()
	return m
}

func (m *mirrors) publish() {
	GinkgoHelper()
	Expect(m.main.Publish()).To(Succeed())
	Expect(m.security.Publish()).To(Succeed())
	Expect(m.rollouts.Publish()).To(Succeed())
}

// gated holds requests back while the gate is shut.
func (m *mirrors) gated(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		m.mu.Lock()
		gate := m.gate
		m.mu.Unlock()
		select {
		case <-gate:
			next.ServeHTTP(w, r)
		case <-r.Context().Done():
		}
	})
}

// shut makes every request wait until open.
func (m *mirrors) shut() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.gate = make(chan struct{})
}

func (m *mirrors) open() {
	m.mu.Lock()
	defer m.mu.Unlock()
	select {
	case <-m.gate:
	default:
		close(m.gate)
	}
}

func (m *mirrors) setDown(down bool) {
	for _, repository := range []*aptrepo.Repository{m.main, m.security, m.rollouts} {
		repository.SetDown(down)
	}
}

// writeSources gives a machine these repositories and no other, installs the
// first versions, and then publishes newer ones: one of each kind of patch.
func (m *mirrors) writeSources(ctx context.Context, machine *cluster.Machine) {
	GinkgoHelper()
	text := m.main.SourcesList(m.url+"/main") + "\n" + m.security.SourcesList(m.url+"/security") + "\n"
	write, err := machine.Command(ctx, "sh", "-c", "rm -f /etc/apt/sources.list.d/*; cat >/etc/apt/sources.list")
	Expect(err).NotTo(HaveOccurred())
	write.Stdin = strings.NewReader(text)
	Expect(write.Run()).To(Succeed())
	for _, command := range []string{
		"apt-get -q update",
		"DEBIAN_FRONTEND=noninteractive apt-get -q -y install ham egg spam bacon toast",
		"apt-mark hold spam",
	} {
		_, err := machine.Exec(ctx, "sh", "-c", command)
		Expect(err).NotTo(HaveOccurred())
	}

	bacon := aptrepo.Good("bacon", "2.0")
	bacon.Depends = "rasher"
	toast := aptrepo.Good("toast", "2.0")
	toast.Depends = "butter"
	m.security.Add(aptrepo.Good("ham", "1.1"))
	m.main.Add(aptrepo.Good("ham", "1.2"), aptrepo.Good("egg", "2.0"), aptrepo.Good("spam", "2.0"),
		bacon, aptrepo.Good("rasher", "2.0"), toast)
	m.publish()
}

// onlyRollouts hides a machine's sources behind those of rollouts, until allSources.
func (m *mirrors) onlyRollouts(ctx context.Context, machine *cluster.Machine) {
	GinkgoHelper()
	script := fmt.Sprintf("echo '%s' >/etc/apt/rollouts.list\n", m.rollouts.SourcesList(m.url+"/rollouts")) +
		`printf 'Dir::Etc::SourceList "/etc/apt/rollouts.list";\nDir::Etc::SourceParts "/dev/null";\n' >/etc/apt/apt.conf.d/99rollouts
apt-get -q update && DEBIAN_FRONTEND=noninteractive apt-get -q -y install ` + firmware + `
rm -f /run/reboot-required*`
	_, err := machine.Exec(ctx, "sh", "-c", script)
	Expect(err).NotTo(HaveOccurred())
}

func (m *mirrors) allSources(ctx context.Context, machine *cluster.Machine) {
	GinkgoHelper()
	_, err := machine.Exec(ctx, "sh", "-c", `rm -f /etc/apt/apt.conf.d/99rollouts /etc/apt/rollouts.list /run/reboot-required*
DEBIAN_FRONTEND=noninteractive apt-get -q -y purge `+firmware+` && apt-get -q update`)
	Expect(err).NotTo(HaveOccurred())
}
