package host

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	systemddbus "github.com/coreos/go-systemd/v22/dbus"
	"github.com/godbus/dbus/v5"
)

const (
	// slice holds all commands, so that a memory limit on system.slice does not hit them.
	slice = "nodepatch.slice"
	// callTimeout bounds each call to systemd, which may be executing itself anew.
	callTimeout = 5 * time.Second
	// startTimeout is how long systemd may be away before a command is given up that could not be started.
	startTimeout = 30 * time.Second
	// stopTimeout is how long a killed command has to end after SIGTERM, before SIGKILL.
	stopTimeout = 10 * time.Second
	// shutdownPatience is how long an orderly shutdown waits for a transaction; reboot.target itself gives up after 30 minutes.
	shutdownPatience = 29 * time.Minute
	// sigcont as the signal to stop a transaction does nothing to it.
	sigcont = 18
)

// systemd runs commands as transient units, over systemd's own socket: it is there without D-Bus, and reachable from a
// container that has the host's root mounted.
type systemd struct {
	socket string // by its directory's mount: a re-exec replaces the socket's inode
}

func (*systemd) String() string { return "systemd" }

// call makes a connection for a few calls. None is kept: systemd sends every connection the signals of every unit, and
// closes it when it executes itself anew. A connection costs one or two milliseconds.
func (s *systemd) call(ctx context.Context, f func(context.Context, *systemddbus.Conn) error) error {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	conn, err := systemddbus.NewConnection(func() (*dbus.Conn, error) {
		c, err := dbus.Dial("unix:path="+s.socket, dbus.WithContext(ctx))
		if err != nil {
			return nil, err
		}
		if err := c.Auth([]dbus.Auth{dbus.AuthExternal(strconv.Itoa(os.Getuid()))}); err != nil {
			_ = c.Close()
			return nil, err
		}
		return c, nil // no Hello: this socket is not a bus
	})
	if err != nil {
		return fmt.Errorf("connect to the host's systemd: %w", err)
	}
	defer conn.Close()
	return f(ctx, conn)
}

func (s *systemd) start(ctx context.Context, a *attempt, argv, env []string) error {
	argv = escape(argv)
	properties := []systemddbus.Property{
		systemddbus.PropExecStart(argv, false),
		systemddbus.PropDescription("nodepatch: " + a.Name),
		systemddbus.PropSlice(slice),
		property("Type", "oneshot"),
		property("Environment", env),
		// systemd itself passes over a score that the kernel refuses it (EPERM, as in a container).
		property("OOMScoreAdjust", int32(-900)),
	}
	if a.Transaction {
		properties = append(properties, uninterrupted()...)
	} else {
		properties = append(properties, property("TimeoutStopUSec", uint64(stopTimeout.Microseconds())))
	}
	began := time.Now()
	for pause := 10 * time.Millisecond; ; pause = min(2*pause, time.Second) {
		err := s.call(ctx, func(ctx context.Context, c *systemddbus.Conn) error {
			_, err := c.StartTransientUnitContext(ctx, a.Unit, "fail", properties, nil)
			return err
		})
		if err == nil || isError(err, "org.freedesktop.systemd1.UnitExists") {
			return nil
		}
		limit := startTimeout
		var refused dbus.Error
		switch goingDown := isError(err, "org.freedesktop.systemd1.TransactionIsDestructive"); {
		case goingDown:
			// The host shuts down, and takes no more units while it waits for a transaction. What there is to do is
			// done after it has come back.
			limit = shutdownPatience
		case errors.As(err, &refused) && !transient(refused.Name):
			return err
		}
		if time.Since(began) > limit {
			return err
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(pause):
		}
		// It may be the answer that was lost, not the request, and the command may even be over.
		if started, err := a.started(); started || err != nil {
			return err
		}
	}
}

// uninterrupted are the properties of a unit for which an orderly shutdown waits. It has no default dependencies, as a
// maintainer script may restart what they order it after, which would wait for a stop that waits for the transaction.
// Inhibitors, which are meant for this, do not hold a shutdown that root asks for.
func uninterrupted() []systemddbus.Property {
	return []systemddbus.Property{
		property("DefaultDependencies", false),
		property("Conflicts", []string{"shutdown.target"}),
		property("Before", []string{"shutdown.target"}),
		property("RequiresMountsFor", []string{"/usr", "/var", "/etc", "/boot"}),
		property("KillMode", "mixed"),
		property("KillSignal", int32(sigcont)),
		property("TimeoutStopUSec", uint64(shutdownPatience.Microseconds())),
	}
}

// state tells a running unit by its state, not by the JobRemoved signal, which says "done" for a missing program and never
// comes after a re-exec.
func (s *systemd) state(ctx context.Context, a *attempt) (running bool, reason string, err error) {
	var unit, service map[string]any
	err = s.call(ctx, func(ctx context.Context, c *systemddbus.Conn) error {
		var err error
		if unit, err = c.GetUnitPropertiesContext(ctx, a.Unit); err != nil || !over(unit) {
			return err
		}
		service, err = c.GetUnitTypePropertiesContext(ctx, a.Unit, "Service")
		return err
	})
	if err != nil {
		return false, "", err
	}
	if !over(unit) {
		return true, "", nil
	}
	if unit["LoadState"] == "not-found" {
		return false, "it is neither running nor did it leave a result", nil
	}
	return false, fmt.Sprintf("systemd says %v (exit status %v)", service["Result"], service["ExecMainStatus"]), nil
}

// over: a unit whose start job is still queued is "inactive" too, for some milliseconds after systemd has answered.
func over(unit map[string]any) bool {
	switch unit["ActiveState"] {
	case "failed":
		return true
	case "inactive":
		job, _ := unit["Job"].([]any)
		return len(job) == 0 || job[0] == uint32(0)
	}
	return false
}

func (s *systemd) stop(ctx context.Context, a *attempt) error {
	asked := false
	for {
		err := s.call(ctx, func(ctx context.Context, c *systemddbus.Conn) error {
			if !asked {
				_, err := c.StopUnitContext(ctx, a.Unit, "replace", nil)
				if isError(err, "org.freedesktop.systemd1.NoSuchUnit") {
					err = nil
				}
				if err != nil {
					return err
				}
				asked = true
			}
			unit, err := c.GetUnitPropertiesContext(ctx, a.Unit)
			if err != nil {
				return err
			}
			if !over(unit) {
				return errStopping
			}
			if unit["ActiveState"] == "failed" {
				return c.ResetFailedUnitContext(ctx, a.Unit)
			}
			return nil
		})
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("stop %s: %w", a.Unit, err)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

var errStopping = errors.New("unit is still stopping")

// escape doubles every dollar sign, because systemd expands $NAME, ${NAME} and $$ in a command line, over D-Bus too. (It
// expands % specifiers only when it reads a unit file.)
func escape(argv []string) []string {
	escaped := make([]string, len(argv))
	for i, arg := range argv {
		escaped[i] = strings.ReplaceAll(arg, "$", "$$")
	}
	return escaped
}

func property(name string, value any) systemddbus.Property {
	return systemddbus.Property{Name: name, Value: dbus.MakeVariant(value)}
}

func isError(err error, name string) bool {
	var e dbus.Error
	return errors.As(err, &e) && e.Name == name
}

// transient errors are those of the way to systemd, not its refusals.
func transient(name string) bool {
	switch name {
	case "org.freedesktop.DBus.Error.NoReply", "org.freedesktop.DBus.Error.Timeout", "org.freedesktop.DBus.Error.Disconnected":
		return true
	}
	return false
}
