package layer

import (
	"archive/tar"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	continuity "github.com/containerd/continuity/fs"
	"golang.org/x/sys/unix"
)

// directories remembers which directories a tar names and which it only implies by what lies below them. containerd
// gives the latter the owner, mode and attributes that they have in the layers below; those are not there yet while a
// layer is unpacked beside them.
type directories struct {
	root  string
	named map[string]struct{}
	wants map[string]struct{}
	last  string // the parent of the last entry: most files follow their siblings
}

func newDirectories(root string) *directories {
	return &directories{root: root, named: map[string]struct{}{}, wants: map[string]struct{}{}}
}

// add takes note of one entry. Its name is clean.
func (d *directories) add(header *tar.Header) error {
	name := strings.Trim(header.Name, "/")
	if header.Typeflag == tar.TypeDir {
		if len(d.named) >= maxNameEntries {
			return fmt.Errorf("more than %d directories", maxNameEntries)
		}
		d.named[name] = struct{}{}
	}
	parent := filepath.Dir(name)
	if parent == "." || parent == d.last {
		return nil
	}
	d.last = parent
	if _, known := d.named[parent]; known {
		return nil
	}
	// The parent may be reached through a symbolic link; what counts is where the file will lie.
	resolved, err := continuity.RootPath(d.root, parent)
	if err != nil {
		return fmt.Errorf("resolve the directory of %q: %w", header.Name, err)
	}
	rel, err := filepath.Rel(d.root, resolved)
	if err != nil {
		return fmt.Errorf("resolve the directory of %q: %w", header.Name, err)
	}
	for ; rel != "." && rel != "/"; rel = filepath.Dir(rel) {
		if _, known := d.wants[rel]; known {
			break
		}
		if len(d.wants) >= maxNameEntries {
			return fmt.Errorf("more than %d directories", maxNameEntries)
		}
		d.wants[rel] = struct{}{}
	}
	return nil
}

// implied returns the directories that no entry named, parents before children.
func (d *directories) implied() ([]string, error) {
	var all []string
	for dir := range d.wants {
		if _, known := d.named[dir]; known {
			continue
		}
		info, err := os.Lstat(filepath.Join(d.root, dir))
		if errors.Is(err, fs.ErrNotExist) || (err == nil && !info.IsDir()) {
			continue // replaced or removed by a later entry
		}
		if err != nil {
			return nil, fmt.Errorf("look at the directory %q: %w", dir, err)
		}
		all = append(all, dir)
	}
	slices.Sort(all)
	return all, nil
}

// Inherit gives implied directories of an unpacked layer what they have in the layers below, nearest first.
// Source: containerd pkg/archive/tar.go@v2.4.2, mkparent.
func Inherit(dir string, implied, lower []string) error {
	for _, rel := range implied {
		found := false
		for _, below := range lower {
			var err error
			if found, err = inherit(filepath.Join(dir, rel), below, rel); err != nil {
				return fmt.Errorf("inherit the attributes of %q: %w", rel, err)
			}
			if found {
				break
			}
		}
		if !found && slices.Contains(implied, filepath.Dir(rel)) {
			if err := inheritGroup(filepath.Join(dir, rel)); err != nil {
				return fmt.Errorf("inherit the group of %q: %w", rel, err)
			}
		}
	}
	return nil
}

// inheritGroup does what the kernel would have done, had the parent had its set-group-ID bit when the directory was made.
func inheritGroup(path string) error {
	var parent unix.Stat_t
	if err := unix.Lstat(filepath.Dir(path), &parent); err != nil {
		return err
	}
	if parent.Mode&unix.S_ISGID == 0 {
		return nil
	}
	return os.Lchown(path, -1, int(parent.Gid))
}

func inherit(target, lower, rel string) (bool, error) {
	source, err := continuity.RootPath(lower, rel)
	if err != nil {
		return false, err
	}
	info, err := os.Lstat(source)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if !info.IsDir() {
		return true, nil // replaced: there is nothing to inherit
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return true, nil
	}
	if err := os.Lchown(target, int(stat.Uid), int(stat.Gid)); err != nil {
		return false, err
	}
	if err := os.Chmod(target, info.Mode()); err != nil {
		return false, err
	}
	return true, copyXattrs(target, source)
}

// copyXattrs copies all extended attributes, as containerd does.
func copyXattrs(target, source string) error {
	names := make([]byte, 64<<10)
	n, err := unix.Llistxattr(source, names)
	if errors.Is(err, unix.ENOTSUP) || n == 0 {
		return nil
	}
	if err != nil {
		return err
	}
	value := make([]byte, 64<<10)
	for name := range strings.SplitSeq(strings.TrimRight(string(names[:n]), "\x00"), "\x00") {
		size, err := unix.Lgetxattr(source, name, value)
		if err != nil {
			return err
		}
		if err := unix.Lsetxattr(target, name, value[:size], 0); err != nil && !errors.Is(err, unix.ENOTSUP) {
			return err
		}
	}
	return nil
}
