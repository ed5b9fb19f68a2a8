package layer

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	continuity "github.com/containerd/continuity/fs"
	"golang.org/x/sys/unix"
)

// openFolders is how many directories are kept open: a tar goes through its tree in order, a few levels deep.
const openFolders = 64

// folder is an open directory of the layer.
type folder struct {
	fd     int
	rel    string // relative to the root, without links; "" is the root
	direct bool   // rel is the name that led here
	plain  bool   // a file that was made in it had the process's own owner and the mode that was asked for
}

// child is the path of a name in the folder, relative to the root.
func (f *folder) child(base string) string { return filepath.Join(f.rel, base) }

// folder returns the directory in which an entry lies, and makes it when no entry has.
func (x *extractor) folder(name string) (*folder, error) {
	if name = strings.Trim(name, "/"); name == "." {
		name = ""
	}
	if f, open := x.folders[name]; open {
		return f, nil
	}
	f := &folder{rel: name, direct: true}
	var err error
	if f.fd, err = openDir(x.rootFD, name, unix.O_PATH); errors.Is(err, unix.ENOENT) {
		f, err = x.imply(name)
	}
	if err != nil {
		if f, err = x.resolve(name); err != nil {
			return nil, err
		}
	}
	if len(x.order) == openFolders {
		oldest := x.order[0]
		_ = unix.Close(x.folders[oldest].fd)
		delete(x.folders, oldest)
		x.order = x.order[:copy(x.order, x.order[1:])]
	}
	x.folders[name] = f
	x.order = append(x.order, name)
	return f, nil
}

// openDir opens a directory below another, with no link and no ".." beyond it on the way.
func openDir(root int, rel string, flags uint64) (int, error) {
	return unix.Openat2(root, filepath.Join(".", rel), &unix.OpenHow{
		Flags:   flags | unix.O_DIRECTORY | unix.O_CLOEXEC,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS,
	})
}

// imply makes a directory that no entry has named. Any error says that it does not go this way.
func (x *extractor) imply(name string) (*folder, error) {
	in, err := x.folder(filepath.Dir(name))
	if err != nil {
		return nil, err
	}
	base := filepath.Base(name)
	if err := unix.Mkdirat(in.fd, base, 0o755); err != nil {
		return nil, err
	}
	rel := in.child(base)
	x.implies(rel)
	if err := unix.Fchmodat(in.fd, base, 0o755, 0); err != nil { // whatever the umask is
		return nil, err
	}
	fd, err := unix.Openat(in.fd, base, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	return &folder{fd: fd, rel: rel, direct: in.direct}, err
}

// resolve finds a directory as containerd does: links are followed as if the layer were the root of the file system, and
// what is not there is made.
func (x *extractor) resolve(name string) (*folder, error) {
	path, err := continuity.RootPath(x.root, name)
	if err != nil {
		return nil, fmt.Errorf("resolve its directory: %w", err)
	}
	rel, err := filepath.Rel(x.root, path)
	if err != nil || rel == ".." || strings.HasPrefix(rel, "../") {
		return nil, fmt.Errorf("its directory lies outside: %w", errors.Join(err, unix.EXDEV))
	}
	if rel == "." {
		rel = ""
	}
	if err := x.makeParents(rel); err != nil {
		return nil, err
	}
	fd, err := unix.Open(path, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open its directory: %w", err)
	}
	return &folder{fd: fd, rel: rel, direct: rel == name}, nil
}

// makeParents makes a directory that no entry has named, and those above it.
func (x *extractor) makeParents(rel string) error {
	if rel == "" || rel == "." {
		return nil
	}
	path := filepath.Join(x.root, rel)
	switch info, err := os.Lstat(path); {
	case err == nil && info.IsDir():
		return nil
	case err == nil:
		return &fs.PathError{Op: "mkparent", Path: rel, Err: unix.ENOTDIR}
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	if err := x.makeParents(filepath.Dir(rel)); err != nil {
		return err
	}
	if err := os.Mkdir(path, 0o755); err != nil {
		return err
	}
	x.implies(rel)
	return os.Chmod(path, 0o755) // whatever the umask is
}

// remove removes what lies at a path. From then on names may lead elsewhere.
func (x *extractor) remove(rel string) error {
	x.removed = true
	x.forget()
	return os.RemoveAll(filepath.Join(x.root, rel))
}

// forget closes all directories.
func (x *extractor) forget() {
	for _, f := range x.folders {
		_ = unix.Close(f.fd)
	}
	clear(x.folders)
	x.order = x.order[:0]
}

// hasDefaultACL reports whether files under a path get more attributes than they are made with.
func hasDefaultACL(path string) bool {
	n, err := unix.Lgetxattr(path, "system.posix_acl_default", nil)
	return err == nil && n > 0
}

// processUmask reads the umask without changing it; all bits when it is not known.
func processUmask() uint32 {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		return 0o777
	}
	for line := range strings.Lines(string(status)) {
		if value, found := strings.CutPrefix(line, "Umask:"); found {
			if mask, err := strconv.ParseUint(strings.TrimSpace(value), 8, 32); err == nil {
				return uint32(mask)
			}
		}
	}
	return 0o777
}
