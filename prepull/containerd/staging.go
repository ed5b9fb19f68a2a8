package containerd

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// stagingName is the staging folder's name under the snapshotter's root, which containerd's own clean-up does not touch
// (it looks into snapshots/ only) and which is on the file system of the snapshots, so that a rename moves a layer.
const stagingName = "headstart-staging"

// staging is where layers are unpacked before containerd has a place for them. Work in progress lies in a folder that is
// locked for as long as this process lives; finished layers lie beside it, under their key, and survive it. So a killed
// agent loses no finished layer, and leaves nothing that its successor does not clear.
//
//	<root>/work-<random>/lock, <root>/work-<random>/<key>     in progress
//	<root>/done-<boot>/<key>/                                 finished, on this boot
//	<root>/partial-<boot>/                                    bytes of what is not, see partials
//
// Layers that were finished on an earlier boot are cleared: nothing says that their bytes reached the disk.
type staging struct {
	root string
	work string
	done string
	lock *os.File

	partials *partials

	mu     sync.Mutex
	serial int
}

// openStaging prepares the folder under a snapshotter's root and clears what earlier runs left.
func openStaging(snapshotterRoot string) (*staging, error) {
	boot, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return nil, fmt.Errorf("open the staging folder: %w", err)
	}
	s := &staging{root: filepath.Join(snapshotterRoot, stagingName)}
	s.done = filepath.Join(s.root, "done-"+strings.TrimSpace(string(boot)))
	s.partials = &partials{dir: filepath.Join(s.root, "partial-"+strings.TrimSpace(string(boot))), inUse: map[string]*partial{}}
	for _, dir := range []string{s.done, s.partials.dir} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("open the staging folder: %w", err)
		}
	}
	if err := s.clear(); err != nil {
		return nil, fmt.Errorf("clear the staging folder: %w", err)
	}
	if s.work, err = os.MkdirTemp(s.root, "work-"); err != nil {
		return nil, fmt.Errorf("open the staging folder: %w", err)
	}
	if s.lock, err = os.OpenFile(filepath.Join(s.work, "lock"), os.O_CREATE|os.O_RDWR, 0o600); err == nil {
		err = unix.Flock(int(s.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	}
	if err != nil {
		return nil, fmt.Errorf("lock the staging folder: %w", err)
	}
	return s, nil
}

// clear removes the work of processes that are gone and the finished layers of earlier boots.
func (s *staging) clear() error {
	all, err := os.ReadDir(s.root)
	if err != nil {
		return err
	}
	var errs []error
	for _, f := range all {
		path := filepath.Join(s.root, f.Name())
		switch {
		case path == s.done, path == s.partials.dir:
		case strings.HasPrefix(f.Name(), "work-"):
			if abandoned(filepath.Join(path, "lock")) {
				errs = append(errs, os.RemoveAll(path))
			}
		default:
			errs = append(errs, os.RemoveAll(path))
		}
	}
	return errors.Join(errs...)
}

// abandoned reports whether nobody holds a lock file. One that is missing belongs to a process that is just starting or
// has died at once; it is left for the next time.
func abandoned(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer func() { _ = f.Close() }()
	return unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) == nil
}

// usable reports whether this is still the staging folder of a snapshotter's root: another disk may have been mounted
// over it, with a copy of all that was there.
func (s *staging) usable(snapshotterRoot string) bool {
	now, err := os.Stat(filepath.Join(s.work, "lock"))
	held, heldErr := s.lock.Stat()
	return err == nil && heldErr == nil && os.SameFile(now, held) && s.root == filepath.Join(snapshotterRoot, stagingName)
}

// errMoved: what a layer was unpacked into is no longer what has its name.
var errMoved = errors.New("the staging folder was moved away meanwhile")

// workDir is a directory for a layer in progress.
type workDir struct {
	path string
	made os.FileInfo
}

// begin makes an empty directory for a layer in progress.
func (s *staging) begin() (workDir, error) {
	s.mu.Lock()
	s.serial++
	path := filepath.Join(s.work, fmt.Sprintf("%d", s.serial))
	s.mu.Unlock()
	err := os.Mkdir(path, 0o755)
	if err == nil {
		err = os.Chmod(path, 0o755) // whatever the umask is
	}
	if err != nil {
		return workDir{}, fmt.Errorf("make a staging folder: %w", err)
	}
	made, err := os.Lstat(path)
	return workDir{path: path, made: made}, err
}

// finish moves a layer to where the next process finds it.
func (s *staging) finish(dir workDir, key string) error {
	now, err := os.Lstat(dir.path)
	if err != nil {
		return fmt.Errorf("finish a layer: %w", err)
	}
	if !os.SameFile(now, dir.made) {
		return errMoved
	}
	err = os.Rename(dir.path, s.path(key))
	if errors.Is(err, fs.ErrExist) || errors.Is(err, unix.ENOTEMPTY) {
		return os.RemoveAll(dir.path) // another process was first
	}
	return err
}

// path is where a finished layer lies.
func (s *staging) path(key string) string { return filepath.Join(s.done, key) }

// has reports whether a finished layer is there.
func (s *staging) has(key string) bool {
	info, err := os.Lstat(s.path(key))
	return err == nil && info.IsDir()
}

// sweep removes layers, finished or not, that nobody has come for: their image is wanted no longer, or never became
// complete.
func (s *staging) sweep(age time.Duration) error {
	var errs []error
	for _, dir := range []string{s.done, s.partials.dir} {
		all, err := os.ReadDir(dir)
		if err != nil {
			errs = append(errs, fmt.Errorf("sweep the staging folder: %w", err))
		}
		for _, f := range all {
			path := filepath.Join(dir, f.Name())
			var stat unix.Stat_t
			if err := unix.Lstat(path, &stat); err != nil {
				continue // a pull has just taken it
			}
			// The time of its renaming or of its last byte: the other times are those of the layer.
			if time.Since(time.Unix(stat.Ctim.Unix())) > age {
				errs = append(errs, os.RemoveAll(path))
			}
		}
	}
	return errors.Join(errs...)
}

// drop removes what a layer left, finished or not.
func (s *staging) drop(path string) error { return os.RemoveAll(path) }

// close gives the folder up. Finished layers stay.
func (s *staging) close() error {
	return errors.Join(os.RemoveAll(s.work), s.lock.Close())
}
