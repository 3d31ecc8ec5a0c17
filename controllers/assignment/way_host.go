package assignment

import (
	"fmt"

	"github.com/nodepatch/nodepatch/api/v1alpha1"
)

// raisedToInstall lets the agent install, once it waits for that.
func (v *visit) raisedToInstall() *Decision {
	patience := or(v.Template.Install.Timeout, installTimeout)
	switch {
	case v.raised() || v.outcome != nil || v.waitsToReboot():
		return nil
	case v.agent.Step == v1alpha1.StepWaiting:
		return &Decision{Move: MoveRaise, Raise: v1alpha1.StepInstalling, Deadline: v.Now.Add(patience)}
	case v.past(v.Record.Since.Add(patience)):
		return v.fail(v1alpha1.ReasonInstallTimeout, "The agent did not come to its step again after the node was admitted"+v.obstacle())
	default:
		return wait(v1alpha1.StepInstalling, v.Presence.Reason, "The agent gets ready"+v.obstacle(), v.until(v.Record.Since.Add(patience)))
	}
}

// installed waits until the agent has ended, or wants to reboot the node.
func (v *visit) installed() *Decision {
	switch {
	case v.operation.Step != v1alpha1.StepInstalling || v.outcome != nil || v.waitsToReboot():
		return nil
	case v.past(v.operation.Deadline.Time):
		return v.fail(v1alpha1.ReasonInstallTimeout, fmt.Sprintf(
			"The packages were not installed within %s; a package transaction that has begun goes on. See what the agent on this node logs, or raise install.timeout%s",
			or(v.Template.Install.Timeout, installTimeout), v.obstacle()))
	default:
		return wait(v1alpha1.StepInstalling, v.Presence.Reason, "The agent installs packages"+v.obstacle(), v.until(v.operation.Deadline.Time))
	}
}

// coordinated waits until no other reboot coordinator holds the node.
func (v *visit) coordinated() *Decision {
	switch {
	case !v.waitsToReboot():
		return nil
	case !v.Answers.Coordinated:
		return &Decision{Ask: AskCoordinate}
	case v.Answers.Block == nil:
		return nil
	case v.past(v.drainDeadline()):
		return v.fail(v.Answers.Block.Reason, fmt.Sprintf("Another held the reboot up for %s: %s",
			or(v.Template.Drain.Timeout, drainTimeout), v.Answers.Block.Message))
	default:
		return wait(v1alpha1.StepRebooting, v.Answers.Block.Reason, "The node is ready to reboot and waits: "+v.Answers.Block.Message, blocked)
	}
}

// raisedToReboot lets the agent reboot the node.
func (v *visit) raisedToReboot() *Decision {
	if !v.waitsToReboot() {
		return nil
	}
	patience := or(v.Template.Reboot.Timeout, rebootTimeout)
	return &Decision{Move: MoveRaise, Raise: v1alpha1.StepRebooting, Deadline: v.Now.Add(patience)}
}

// rebooted waits until the agent has ended, after the reboot.
func (v *visit) rebooted() *Decision {
	switch {
	case v.operation.Step != v1alpha1.StepRebooting || v.outcome != nil:
		return nil
	case v.past(v.operation.Deadline.Time):
		return v.fail(v1alpha1.ReasonRebootTimeout, fmt.Sprintf(
			"The node was not back within %s; look at its console, or raise reboot.timeout%s",
			or(v.Template.Reboot.Timeout, rebootTimeout), v.obstacle()))
	default:
		return wait(v1alpha1.StepRebooting, "", v.rebooting(), v.until(v.operation.Deadline.Time))
	}
}

// rebooting says where a node is on its way down or up.
func (v *visit) rebooting() string {
	back := v.Record.BootID != "" && v.Record.BootID != v.Node.Status.NodeInfo.BootID
	switch {
	case !v.ready():
		return "The node is on its way down or up"
	case back:
		return "The node is back; its agent looks at it" + v.obstacle()
	default:
		return "The agent reboots the node" + v.obstacle()
	}
}

// obstacle says what keeps the agent away, if something does.
func (v *visit) obstacle() string {
	if v.Presence.Message == "" {
		return ""
	}
	return ". " + v.Presence.Message
}
