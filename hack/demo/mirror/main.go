// Command mirror serves the demo's own apt repository: one package of which a newer version is offered, which installs, fails
// to install, or cannot be downloaded, as its environment says.
package main

import (
	"fmt"
	"net/http"
	"os"
	"time"

	"github.com/nodepatch/nodepatch/test/aptrepo"
)

const (
	address = ":8099"
	name    = "nodepatch-demo"
	next    = "2.0"
)

func main() {
	if err := serve(os.Getenv("BEHAVIOR")); err != nil {
		fmt.Fprintf(os.Stderr, "Error: %v\n", err)
		os.Exit(1)
	}
}

// serve offers the newer version with a behavior: "installs", "fails-to-install" or "fails-to-download".
func serve(behavior string) error {
	offered := map[string]aptrepo.Package{
		"installs":          aptrepo.Good(name, next),
		"fails-to-install":  aptrepo.FailingPreinst(name, next),
		"fails-to-download": aptrepo.Missing(name, next),
	}
	newer, known := offered[behavior]
	if !known {
		return fmt.Errorf("BEHAVIOR is %q: set it to installs, fails-to-install or fails-to-download", behavior)
	}
	repository := aptrepo.New(aptrepo.Release{Origin: "nodepatch", Label: "nodepatch-demo", Suite: "demo"})
	repository.Add(aptrepo.Good(name, "1.0"), newer)
	if err := repository.Publish(); err != nil {
		return err
	}
	fmt.Printf("Serving %s %s, which %s, at %s\n", name, next, behavior, address)
	server := &http.Server{Addr: address, Handler: repository, ReadHeaderTimeout: 10 * time.Second}
	return server.ListenAndServe()
}
