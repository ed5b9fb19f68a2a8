package probe

import (
	"context"
	"errors"
	"os"
	"syscall"

	"headstart.dev/readiness"
)

// Reasons of the exec probe.
const (
	ReasonExecNotAllowed = readiness.ReasonExecNotAllowed
	ReasonCommandFailed  = "CommandFailed"
)

const (
	// nobody is the user of every Linux distribution that may do nothing.
	nobody = 65534
	// maxOutputBytes is what is kept of a command's output; the rest is read and dropped.
	maxOutputBytes = 1 << 10
)

// Exec is ready while Command exits 0. The command runs as nobody, can gain no privileges, and is killed with its whole
// process group at the deadline.
type Exec struct {
	Command []string
	// Allowed is what the agent's own config says; without it nothing is run.
	Allowed bool

	child child
}

// Check runs the command once.
func (p *Exec) Check(ctx context.Context) Result {
	if !p.Allowed {
		return notReady(ReasonExecNotAllowed, "exec probes are off on this node: set allowExec: true in the agent's config file")
	}
	output := &cappedBuffer{max: maxOutputBytes}
	command := isolated(ctx, p.Command)
	command.Stdout, command.Stderr = output, output
	if os.Geteuid() == 0 {
		command.SysProcAttr.Credential = &syscall.Credential{Uid: nobody, Gid: nobody}
	}
	err := p.child.run(ctx, command)
	switch {
	case errors.Is(err, errHangs):
		return notReady(ReasonTimeout, "%s cannot be killed: it hangs in the kernel", p.Command[0])
	case ctx.Err() != nil:
		return notReady(ReasonTimeout, "%s did not end in time", p.Command[0])
	case err != nil:
		return notReady(ReasonCommandFailed, "%s: %v: %s", p.Command[0], err, output.String())
	}
	return ready("%s exited 0", p.Command[0])
}
