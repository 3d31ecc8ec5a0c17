// Command cluster starts and stops a cluster of machines on this host and acts on its machines. "make
// cluster", "make cluster-down" and hack/machine are made of it.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"syscall"
	"text/tabwriter"

	"github.com/nodepatch/nodepatch/test/cluster"
)

const usage = `Usage: cluster [-dir DIR] COMMAND

  up [-machines N]          start a cluster that stays until "down", 2 machines by default, or
                            leave the one that runs as it is
  down                      stop it and remove everything but its logs
  load ARCHIVE              load an image archive into all machines
  list                      list the machines
  exec NAME [--] COMMAND…   run a command on a machine as root
  kill NAME                 cut a machine's power
  start NAME                switch a machine on
  reboot NAME               reboot a machine in good order
  hang NAME                 let its next reboot not come back until it is started
  mend NAME                 let it come back again
  cut NAME                  pull a machine's network cable
  join NAME                 plug it in again
  sweep                     clean up after clusters whose supervisor was killed
`

func main() {
	dir := flag.String("dir", "bin/cluster", "`directory` of the cluster")
	flag.Usage = func() { fmt.Fprint(flag.CommandLine.Output(), usage) }
	flag.Parse()
	if flag.NArg() == 0 {
		flag.Usage()
		os.Exit(2)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	err := command(ctx, *dir, flag.Arg(0), flag.Args()[1:])
	var exit *exec.ExitError
	if errors.As(err, &exit) {
		// The command on the machine has said itself what went wrong.
		os.Exit(exit.ExitCode())
	}
	if err != nil {
		fmt.Fprintf(os.Stderr, "Error: %v\n", err)
		os.Exit(1)
	}
}

func command(ctx context.Context, dir, name string, args []string) error {
	switch name {
	case "up":
		return up(ctx, dir, args)
	case "sweep":
		return cluster.Sweep(ctx)
	case "supervise":
		if len(args) != 2 {
			return errors.New("supervise is what a cluster starts for itself")
		}
		number, err := strconv.Atoi(args[0])
		if err != nil {
			return err
		}
		return cluster.Supervise(ctx, number, args[1])
	}

	c, err := cluster.Attach(dir)
	if name == "down" {
		if err != nil {
			// Nothing runs there, but a killed one may have left something.
			return cluster.Sweep(ctx)
		}
		return c.Stop(ctx)
	}
	if err != nil {
		return err
	}
	switch name {
	case "list":
		return list(ctx, c)
	case "load":
		if len(args) != 1 {
			return errors.New("load takes one image archive")
		}
		return c.LoadImage(ctx, args[0])
	}
	if len(args) == 0 {
		return fmt.Errorf("%s which machine? \"list\" shows them", name)
	}
	machine, err := c.Machine(args[0])
	if err != nil {
		return err
	}
	switch name {
	case "exec":
		return run(ctx, machine, args[1:])
	case "kill":
		return machine.Kill(ctx)
	case "start":
		return machine.Start(ctx)
	case "reboot":
		return machine.Reboot(ctx)
	case "hang":
		return machine.Hang(ctx)
	case "mend":
		return machine.Mend(ctx)
	case "cut":
		return machine.Cut(ctx)
	case "join":
		return machine.Join(ctx)
	}
	return fmt.Errorf("there is no command %q\n\n%s", name, usage)
}

func up(ctx context.Context, dir string, args []string) error {
	flags := flag.NewFlagSet("up", flag.ExitOnError)
	machines := flags.Int("machines", 2, "`number` of machines")
	_ = flags.Parse(args) // exits on error
	if c, err := cluster.Attach(dir); err == nil {
		running, err := c.Machines(ctx)
		if err != nil {
			return err
		}
		if len(running) != *machines {
			return fmt.Errorf("a cluster of %d machines runs in %s already: stop it first with \"make cluster-down\"", len(running), c.Dir)
		}
		fmt.Printf("The cluster of %s runs already\n", c.Dir)
		return nil
	}
	c, err := cluster.Start(ctx, cluster.Options{Dir: dir, Machines: *machines, Detached: true, Log: os.Stdout})
	if err != nil {
		return err
	}
	fmt.Printf("\nThe cluster runs. Use it with\n  export KUBECONFIG=%s\nand stop it with\n  make cluster-down\n", c.Kubeconfig)
	return nil
}

func list(ctx context.Context, c *cluster.Cluster) error {
	machines, err := c.Machines(ctx)
	if err != nil {
		return err
	}
	table := tabwriter.NewWriter(os.Stdout, 0, 0, 3, ' ', 0)
	fmt.Fprintln(table, "NAME\tADDRESS\tPOWER\tNETWORK\tBOOTS")
	for _, m := range machines {
		power, network := "on", "joined"
		if m.Leader == 0 {
			power = "off"
		}
		if m.Cut {
			network = "cut"
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%d\n", m.Name, m.Address, power, network, m.Boots)
	}
	return table.Flush()
}

func run(ctx context.Context, machine *cluster.Machine, args []string) error {
	if len(args) > 0 && args[0] == "--" {
		args = args[1:]
	}
	if len(args) == 0 {
		return errors.New("exec which command?")
	}
	cmd, err := machine.Command(ctx, args[0], args[1:]...)
	if err != nil {
		return err
	}
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	if term := os.Getenv("TERM"); term != "" {
		cmd.Env = append(cmd.Env, "TERM="+term)
	}
	return cmd.Run()
}
