package cluster_test

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/nodepatch/nodepatch/test/cluster"
)

// clusterOwner makes the test binary the program that TestCluster kills, and names its cluster's directory.
const clusterOwner = "TEST_CLUSTER_OWNER"

func TestMain(m *testing.M) {
	if dir := os.Getenv(clusterOwner); dir != "" {
		if err := own(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// own starts a cluster, says so, and lives until it is killed.
func own(dir string) error {
	if _, err := cluster.Start(context.Background(), cluster.Options{Dir: dir, Log: os.Stderr}); err != nil {
		return err
	}
	fmt.Println("started")
	time.Sleep(time.Hour)
	return nil
}
