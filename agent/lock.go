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

const (
	// lockPoll is how often a standing-by agent looks whether the other one has gone. The kernel gives the lock up with the
	// process that holds it, so a crash is noticed within this time.
	lockPoll = 100 * time.Millisecond
	// machineLock is the lock of an agent that does not know yet for which Node it works. No Node's name begins with a dot.
	machineLock = ".machine"
	lockSuffix  = ".lock"
)

// errSuperseded ends an agent that was stopped or hung for so long that the other one took its place.
var errSuperseded = errors.New("another agent has taken this node over while this one did not answer")

// held are the locks of the agent that works.
type held struct{ files []*os.File }

// Close gives the locks up.
func (h *held) Close() error {
	var err error
	for _, file := range h.files {
		err = errors.Join(err, file.Close())
	}
	return err
}

// current says whether the locks are still the ones that others look at.
func (h *held) current() bool {
	for _, file := range h.files {
		if !sameFile(file) {
			return false
		}
	}
	return true
}

// sameFile says whether a file is still the one at its path.
func sameFile(file *os.File) bool {
	have, err := file.Stat()
	if err != nil {
		return false
	}
	at, err := os.Stat(file.Name())
	return err == nil && os.SameFile(have, at)
}

// lock makes this agent the one that works for its node, and waits for as long as another one does. The locks are the
// kernel's, on files of the state folder, which the DaemonSet's agent and the host's share. An agent that was told its
// Node's name shares the machine's lock with those of other Nodes and holds the one of its name alone. One that was not
// holds the machine's lock alone: the name that it would guess before the kubelet has registered may be another.
func (a *Agent) lock(ctx context.Context) (*held, error) {
	if err := os.MkdirAll(a.config.StateDir, 0o755); err != nil {
		return nil, fmt.Errorf("make the state folder: %w: choose another stateDir", err)
	}
	wanted := []lockFile{{name: machineLock, how: unix.LOCK_EX}}
	if name := a.config.NodeName; name != "" {
		wanted = []lockFile{{name: machineLock, how: unix.LOCK_SH}, {name: name, how: unix.LOCK_EX}}
	}
	out := &held{}
	told := false
	for _, want := range wanted {
		watch := &holderWatch{dir: a.config.StateDir, lock: want, patience: a.patience}
		file, err := want.wait(ctx, watch, func(path string) {
			if told {
				return
			}
			told = true
			owner, _ := os.ReadFile(path)
			a.log.Info("another agent works for this node, stands by", "lock", path, "owner", strings.TrimSpace(string(owner)))
		}, func(path string) {
			a.log.Info("the other agent does not answer, takes over", "lock", path)
		})
		if err != nil {
			return nil, errors.Join(err, out.Close())
		}
		out.files = append(out.files, file)
	}
	return out, nil
}

// lockFile is one lock, held alone (LOCK_EX) or with others (LOCK_SH).
type lockFile struct {
	name string
	how  int
}

// wait returns when the lock is ours. blocked is called while it is another's, and taken when it is taken from one that
// does not answer.
func (l lockFile) wait(ctx context.Context, watch *holderWatch, blocked, taken func(path string)) (*os.File, error) {
	path := filepath.Join(watch.dir, l.name+lockSuffix)
	defer watch.stop()
	for {
		file, err := l.try(path)
		if err != nil {
			return nil, fmt.Errorf("lock %s: %w: choose another stateDir", path, err)
		}
		if file != nil {
			return file, nil
		}
		blocked(path)
		if watch.hangs(ctx) {
			if err := removeHungLock(watch.dir, path, watch.seen); err != nil {
				return nil, err
			}
			taken(path)
			continue
		}
		timer := time.NewTimer(lockPoll)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil, context.Cause(ctx)
		case <-timer.C:
		}
	}
}

// try returns nil while the lock is another's. A file that was replaced meanwhile is no lock.
func (l lockFile) try(path string) (*os.File, error) {
	file, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(file.Fd()), l.how|unix.LOCK_NB)
	switch {
	case errors.Is(err, unix.EWOULDBLOCK):
		return nil, file.Close()
	case err != nil:
		return nil, errors.Join(err, file.Close())
	case !sameFile(file):
		return nil, file.Close()
	case l.how != unix.LOCK_EX:
		return file, nil
	}
	return file, describeOwner(file)
}

// removeHungLock takes a lock's file away, so that the next one to lock makes a new one. A second lock keeps two that
// stand by from taking the new one away, too.
func removeHungLock(dir, path string, seen os.FileInfo) error {
	guard, err := os.OpenFile(filepath.Join(dir, ".takeover"+lockSuffix), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return fmt.Errorf("open the lock of a take-over: %w", err)
	}
	defer func() { _ = guard.Close() }()
	if err := unix.Flock(int(guard.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil // another one takes over at this moment, and we go on standing by
	}
	if at, err := os.Stat(path); err != nil || !os.SameFile(at, seen) {
		return nil // it has been taken over
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("take over: %w", err)
	}
	return nil
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
