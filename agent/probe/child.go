package probe

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"runtime"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// waitDelay is how long a command that was killed may keep its output open, through a child that has left its process
// group.
const waitDelay = 250 * time.Millisecond

// errHangs means that a killed process is still there: it is stuck in the kernel, as one is that called a sick driver.
var errHangs = errors.New("the process hangs in the kernel")

// child runs one command at a time, and none while an earlier one hangs.
type child struct {
	single
}

// run starts the command and returns when it has ended, or with errHangs soon after ctx ended without that. Then the
// command's outputs must not be touched: they are written to until the kernel lets the process go.
func (c *child) run(ctx context.Context, cmd *exec.Cmd) error {
	return c.do(ctx, func() error { return runWithoutPrivileges(cmd) })
}

// single lets one piece of work run at a time.
type single struct {
	busy atomic.Bool
}

// do runs work and returns its error, or errHangs when it has not ended soon after ctx has, or when an earlier one is
// still not done. Whoever has been told that work ended may begin the next at once.
func (s *single) do(ctx context.Context, work func() error) error {
	if !s.busy.CompareAndSwap(false, true) {
		return errHangs
	}
	done := make(chan error, 1)
	go func() {
		err := work()
		// Free first, tell then: who is told may be back before this goroutine runs again, and would take work that has
		// ended for work that hangs.
		s.busy.Store(false)
		done <- err
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
	}
	grace := time.NewTimer(2 * waitDelay)
	defer grace.Stop()
	select {
	case err := <-done:
		return err
	case <-grace.C:
		return errHangs
	}
}

// isolated prepares a command in a process group of its own that dies with ctx and with us, with no environment of ours.
func isolated(ctx context.Context, command []string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Dir = "/"
	cmd.Env = []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	cmd.WaitDelay = waitDelay
	cmd.Cancel = func() error { return killGroup(cmd.Process.Pid) }
	return cmd
}

// killGroup kills a process and all that it has started, as far as those have stayed in its group.
func killGroup(pid int) error {
	if err := syscall.Kill(-pid, syscall.SIGKILL); err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("kill process group %d: %w", pid, err)
	}
	return nil
}

// runWithoutPrivileges runs the command on a thread that has given up gaining privileges for ever. The thread must be
// this goroutine's alone and ends with it: a child inherits the promise, and its parent-death signal counts on the
// thread.
func runWithoutPrivileges(cmd *exec.Cmd) error {
	runtime.LockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("give up new privileges: %w", err)
	}
	err := cmd.Run()
	if cmd.Process != nil {
		// What the command has left running behind it goes too.
		err = errors.Join(err, killGroup(cmd.Process.Pid))
	}
	return err
}

// cappedBuffer keeps the first max bytes and swallows the rest.
type cappedBuffer struct {
	max  int
	kept []byte
}

func (b *cappedBuffer) Write(p []byte) (int, error) {
	if room := b.max - len(b.kept); room > 0 {
		b.kept = append(b.kept, p[:min(room, len(p))]...)
	}
	return len(p), nil
}

func (b *cappedBuffer) String() string { return string(b.kept) }
