package apt

import (
	"context"
	"fmt"

	"github.com/nodepatch/nodepatch/nodeagent/packages"
)

const installTool = "apt-get install"

// Install installs the targets with one command.
func (m *Manager) Install(ctx context.Context, targets []packages.Target) (packages.Install, error) {
	const purpose = "install packages"
	if len(targets) == 0 {
		return packages.Install{}, nil
	}
	argv := append([]string{"apt-get", "-y", "--only-upgrade", "--no-remove", "--no-download"}, options()...)
	argv = append(argv,
		"-o", "DPkg::StopOnError=false", "-o", "APT::Status-Fd=3",
		"-o", "Dpkg::Options::=--force-confdef", "-o", "Dpkg::Options::=--force-confold", "install")
	argv = append(argv, arguments(targets)...)
	return packages.Install{}, m.transaction(ctx, "apt-install", purpose, installTool, argv)
}

// transaction runs a command that writes the package database.
func (m *Manager) transaction(ctx context.Context, name, purpose, tool string, argv []string) error {
	return m.locks.Retry(ctx, m.files, func() error {
		result, err := m.runner.Run(ctx, packages.Command{Name: name, Argv: argv, Env: transactionEnvironment(), Transaction: true})
		if err != nil {
			return fmt.Errorf("%s: %w", purpose, err)
		}
		if result.ExitCode == 0 {
			return nil
		}
		if held := lockHeld(result.Stderr); held != nil {
			return fmt.Errorf("%s: %w", purpose, held)
		}
		return fmt.Errorf("%s: %w", purpose, &packages.CommandError{Tool: tool, ExitCode: result.ExitCode, LastLines: lastLines(result)})
	})
}

// transactionEnvironment keeps needrestart from restarting the container runtime in mid-transaction.
func transactionEnvironment() []string { return append(environment(), "NEEDRESTART_SUSPEND=1") }
