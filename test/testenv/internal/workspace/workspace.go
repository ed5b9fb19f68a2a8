// Package workspace owns what the servers of one testbed leave on the machine: a temporary folder, processes, mounts,
// network namespaces, links and cgroups. All of them carry the workspace's ID in their name or environment, so that they
// are found again without a record that could be lost.
//
// A workspace lives as long as the lock on its folder is held. The kernel drops the lock when the owner dies, however it
// dies; the next New then removes all that the dead owner left. Start from New.
package workspace

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

const (
	dirPrefix = "headstart-testenv-"
	// EnvKey marks every process of a workspace, and what such a process starts.
	EnvKey = "HEADSTART_TESTENV_ID"
	// idAlphabet and idLength keep link names within the kernel's 15 characters.
	idAlphabet = "abcdefghijklmnopqrstuvwxyz0123456789"
	idLength   = 6
)

// Workspace is one testbed's claim on the machine.
type Workspace struct {
	id   string
	dir  string
	lock *os.File

	closing  sync.Once
	closeErr error
}

// New makes a workspace, after removing those whose owners are dead.
func New() (*Workspace, error) {
	unlock, err := lockAll()
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := reap(); err != nil {
		fmt.Fprintln(os.Stderr, "testenv:", err) // somebody else's remains must not keep this run from starting
	}
	id, err := newID()
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(os.TempDir(), dirPrefix+id)
	if err := os.Mkdir(dir, 0o755); err != nil { // containers of other users run from below it
		return nil, fmt.Errorf("make a workspace: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("make a workspace: %w", err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		return nil, errors.Join(fmt.Errorf("lock a workspace: %w", err), lock.Close())
	}
	return &Workspace{id: id, dir: dir, lock: lock}, nil
}

// ID is the workspace's ID: six lower-case letters or digits.
func (w *Workspace) ID() string { return w.id }

// Path returns a path inside the workspace's folder.
func (w *Workspace) Path(elem ...string) string {
	return filepath.Join(append([]string{w.dir}, elem...)...)
}

// Mkdir makes a folder inside the workspace and returns its path.
func (w *Workspace) Mkdir(elem ...string) (string, error) {
	dir := w.Path(elem...)
	if err := os.MkdirAll(dir, 0o755); err != nil { // see New
		return "", fmt.Errorf("make a folder of the workspace: %w", err)
	}
	return dir, nil
}

// Write makes a file inside the workspace that only its owner reads, and returns its path.
func (w *Workspace) Write(content []byte, elem ...string) (string, error) {
	path := w.Path(elem...)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		return "", fmt.Errorf("write a file of the workspace: %w", err)
	}
	return path, nil
}

// Env is the environment entry that every process of the workspace must carry.
func (w *Workspace) Env() string { return EnvKey + "=" + w.id }

// Name returns a name that Close and a later New recognise, for a network namespace or a cgroup.
func (w *Workspace) Name(suffix string) string { return resourcePrefix(w.id) + suffix }

// Link returns a name for a network link, of at most 15 characters when suffix has at most 7.
func (w *Workspace) Link(suffix string) string { return linkPrefix(w.id) + suffix }

func resourcePrefix(id string) string { return "headstart-" + id + "-" }
func linkPrefix(id string) string     { return "h" + id + "-" }

// Close removes everything that belongs to the workspace. It is an error when something resists; the next New tries
// again. Closing again does nothing.
func (w *Workspace) Close() error {
	w.closing.Do(func() {
		w.closeErr = errors.Join(remove(w.id, w.dir), w.lock.Close())
	})
	return w.closeErr
}

func newID() (string, error) {
	raw := make([]byte, idLength)
	if _, err := rand.Read(raw); err != nil {
		return "", fmt.Errorf("make a workspace ID: %w", err)
	}
	for i := range raw {
		raw[i] = idAlphabet[int(raw[i])%len(idAlphabet)]
	}
	return string(raw), nil
}

// lockAll serialises creation and reaping, so that a folder that is not locked yet is not taken for a dead one.
func lockAll() (func(), error) {
	lock, err := os.OpenFile(filepath.Join(os.TempDir(), dirPrefix+"lock"), os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the workspaces' lock: %w", err)
	}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX); err != nil {
		return nil, errors.Join(fmt.Errorf("take the workspaces' lock: %w", err), lock.Close())
	}
	return func() { _ = lock.Close() }, nil
}

// reap removes the workspaces of dead owners.
func reap() error {
	dirs, err := filepath.Glob(filepath.Join(os.TempDir(), dirPrefix+strings.Repeat("?", idLength)))
	if err != nil {
		return fmt.Errorf("look for dead workspaces: %w", err)
	}
	var errs []error
	for _, dir := range dirs {
		if alive(dir) {
			continue
		}
		id := strings.TrimPrefix(filepath.Base(dir), dirPrefix)
		if err := remove(id, dir); err != nil {
			errs = append(errs, fmt.Errorf("reap the workspace of a dead run: %w", err))
		}
	}
	return errors.Join(errs...)
}

// alive says whether somebody holds the lock of the workspace at dir.
func alive(dir string) bool {
	lock, err := os.OpenFile(filepath.Join(dir, "lock"), os.O_RDWR, 0)
	if err != nil {
		return !errors.Is(err, os.ErrNotExist)
	}
	defer func() { _ = lock.Close() }()
	return unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil
}
