package apiserver

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
)

// OpenReports is the file of the definition of ClusterReports that https://openreports.io publishes, in the
// version that go.mod names.
func OpenReports(ctx context.Context) (string, error) {
	command := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", "github.com/openreports/reports-api")
	command.Dir = Root()
	out, err := command.Output()
	if err != nil {
		return "", fmt.Errorf("looking for the module of OpenReports: %w", err)
	}
	return filepath.Join(strings.TrimSpace(string(out)), "config", "crd", "openreports.io_clusterreports.yaml"), nil
}
