package main

import (
	"strings"
	"testing"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
	"github.com/nodepatch/nodepatch/test/aptrepo"
)

// An agent that dies after a command has ended, and before it has noted what came of it, is followed by one that takes no answer
// of before the command for one of after it.
func TestAgentKilledBeforeItNotesTheOutcome(t *testing.T) {
	n := newNode(t)
	post := aptrepo.FailingPostinst("post", "2.0")
	post.Postinst = "echo x >>/post-runs; touch /dpkg-query-gate\n" + post.Postinst
	n.stock(post, aptrepo.Missing("gone", "2.0"))
	// They wait while their gate is there.
	n.write("/usr/local/sbin/dpkg-query", "#!/bin/sh\nwhile [ -e /dpkg-query-gate ]; do touch /dpkg-query-waits; sleep 0.05; done\nexec /usr/bin/dpkg-query \"$@\"\n")
	n.write("/usr/local/sbin/apt-get", `#!/bin/sh
case "$*" in
*--download-only*) /usr/bin/apt-get "$@"; code=$?; [ -e /apt-get-waits ] || touch /apt-get-gate; exit $code ;;
*--print-uris*install*) while [ -e /apt-get-gate ]; do touch /apt-get-waits; sleep 0.05; done ;;
esac
exec /usr/bin/apt-get "$@"
`)
	a := n.start()
	n.assign("1", v1alpha1.StepInstalling)

	// After the download: apt is asked again what it needs.
	n.eventually("the download has ended", func() bool { return n.exists("/apt-get-waits") })
	a.kill()
	n.remove("/apt-get-gate")
	a = n.start()

	// After the transaction: dpkg is asked what it has.
	n.eventually("the transaction has ended", func() bool { return n.exists("/dpkg-query-waits") })
	a.kill()
	n.remove("/dpkg-query-gate")
	n.write("/usr/local/sbin/dpkg-query", "#!/bin/sh\nexec /usr/bin/dpkg-query \"$@\"\n")
	n.start()

	n.outcome("1", v1alpha1.StepFailed, v1alpha1.ReasonPatchesFailed)
	n.wantCounts("gone=2.0 D1 I0", "post=2.0 D0 I1")
	if got := n.versions("egg", "ham", "post"); got != "egg 2.0\nham 1.1\npost 2.0 half-configured" {
		t.Errorf("Installed:\n%s", got)
	}
	if got := n.logged("1", v1alpha1.EventDownloadFailed); !strings.Contains(got, "404") {
		t.Errorf("The patch log says %q", got)
	}
	if got := n.commands("1", "install-1", "apt-install"); got != 1 {
		t.Errorf("The transaction was begun %d times", got)
	}
	if runs := n.read("/post-runs"); runs != "x" {
		t.Errorf("The failing script ran %d times", strings.Count(runs, "x"))
	}
	n.wantLog("1", v1alpha1.EventScanStarted, v1alpha1.EventPatchDataRefreshed, v1alpha1.EventScanFinished, v1alpha1.EventDownloadFailed,
		v1alpha1.EventPatchesDownloaded, v1alpha1.EventInstallFailed, v1alpha1.EventPatchesInstalled, v1alpha1.EventDeployFailed)
}
