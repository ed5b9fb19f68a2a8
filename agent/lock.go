package agent

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// lockPoll is how often a standing-by agent looks whether the other one has gone. The kernel gives the lock up with the
// process that holds it, so a crash is noticed within this time.
const lockPoll = 100 * time.Millisecond

// lock makes this agent the one that works for its node, and waits for as long as another one does. The lock is the
// kernel's, on a file of the state folder, which the DaemonSet's agent and the host's share; it has the node's name, so
// that several nodes on one machine do not wait for each other. The returned file holds the lock until it is closed.
func (a *Agent) lock(ctx context.Context) (*os.File, error) {
	path := filepath.Join(a.config.StateDir, a.node+".lock")
	if err := os.MkdirAll(a.config.StateDir, 0o755); err != nil {
		return nil, fmt.Errorf("make the state folder: %w: choose another stateDir", err)
	}
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the lock of this node: %w: choose another stateDir", err)
	}
	told := false
	for {
		err := unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return file, describeOwner(file)
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			return nil, errors.Join(fmt.Errorf("lock %s: %w", path, err), file.Close())
		}
		if !told {
			owner, _ := os.ReadFile(path)
			a.log.Info("another agent works for this node, stands by", "lock", path, "owner", strings.TrimSpace(string(owner)))
			told = true
		}
		timer := time.NewTimer(lockPoll)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil, errors.Join(context.Cause(ctx), file.Close())
		case <-timer.C:
		}
	}
}

// describeOwner writes down who holds the lock, for people.
func describeOwner(file *os.File) error {
	if err := file.Truncate(0); err != nil {
		return fmt.Errorf("write lock: %w", err)
	}
	if _, err := file.WriteAt(fmt.Appendf(nil, "pid %d\n", os.Getpid()), 0); err != nil {
		return fmt.Errorf("write lock: %w", err)
	}
	return nil
}
