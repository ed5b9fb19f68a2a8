package layer

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	continuity "github.com/containerd/continuity/fs"
	"golang.org/x/sys/unix"
)

// Inherit gives implied directories of an unpacked layer, which are sorted, what they have in the layers below, nearest
// first. A path that is no longer a directory of the layer itself is passed over: a link at its place may lead anywhere.
// Source: containerd pkg/archive/tar.go@v2.4.2, mkparent.
func Inherit(dir string, implied, lower []string) error {
	root, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", dir, err)
	}
	defer func() { _ = unix.Close(root) }()
	left := implied
	for _, below := range lower {
		if left, err = inheritFrom(root, below, left); err != nil {
			return fmt.Errorf("inherit from %s: %w", below, err)
		}
	}
	for _, rel := range left {
		if _, parent := slices.BinarySearch(implied, filepath.Dir(rel)); !parent {
			continue
		}
		if err := inheritGroup(root, rel); err != nil {
			return fmt.Errorf("inherit the group of %q: %w", rel, err)
		}
	}
	return nil
}

// inheritFrom looks at one layer below and returns the directories that it does not have.
func inheritFrom(root int, lower string, implied []string) (left []string, err error) {
	lowerRoot, err := unix.Open(lower, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return implied, nil
	}
	if err != nil {
		return nil, err
	}
	defer func() { _ = unix.Close(lowerRoot) }()
	missing := "\x00" // the last directory that it lacks, and with it all that lies below
	for _, rel := range implied {
		if strings.HasPrefix(rel, missing) && rel[len(missing)] == '/' {
			left = append(left, rel)
			continue
		}
		fd, err := openDir(lowerRoot, rel, unix.O_RDONLY)
		if errors.Is(err, unix.ENOENT) {
			left, missing = append(left, rel), rel
			continue
		}
		if err != nil { // a link on the way, or no directory
			var there bool
			if fd, there, err = followDir(lower, rel); err == nil && fd < 0 {
				if !there {
					left = append(left, rel)
				}
				continue
			}
		}
		if err == nil {
			err = errors.Join(inherit(root, rel, fd), unix.Close(fd))
		}
		if err != nil {
			return nil, fmt.Errorf("%q: %w", rel, err)
		}
	}
	return left, nil
}

// followDir opens a directory of a layer below by a path with links. The descriptor is -1 when there is nothing, or
// something else, which ends the search as well: it replaces what lies below.
func followDir(lower, rel string) (fd int, there bool, err error) {
	path, err := continuity.RootPath(lower, rel)
	if err != nil {
		return -1, false, err
	}
	switch info, err := os.Lstat(path); {
	case errors.Is(err, fs.ErrNotExist):
		return -1, false, nil
	case err != nil:
		return -1, false, err // below a file: containerd refuses such a layer
	case !info.IsDir():
		return -1, true, nil
	}
	fd, err = unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	return fd, err == nil, err
}

// inherit gives one directory of the layer what another has.
func inherit(root int, rel string, source int) error {
	target, err := openDir(root, rel, unix.O_RDONLY)
	if notDir(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(target) }()
	var stat unix.Stat_t
	if err := unix.Fstat(source, &stat); err != nil {
		return err
	}
	if err := unix.Fchown(target, int(stat.Uid), int(stat.Gid)); err != nil {
		return err
	}
	if err := unix.Fchmod(target, stat.Mode&0o7777); err != nil {
		return err
	}
	return copyXattrs(target, source)
}

// inheritGroup does what the kernel would have done, had the parent had its set-group-ID bit when the directory was made.
func inheritGroup(root int, rel string) error {
	parent, err := openDir(root, filepath.Dir(rel), unix.O_PATH)
	if notDir(err) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(parent) }()
	var stat unix.Stat_t
	if err := unix.Fstat(parent, &stat); err != nil || stat.Mode&unix.S_ISGID == 0 {
		return err
	}
	err = unix.Fchownat(parent, filepath.Base(rel), -1, int(stat.Gid), unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return nil
	}
	return err
}

// notDir reports whether a path has been removed, or replaced by a file or a link.
func notDir(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) || errors.Is(err, unix.EXDEV)
}

// copyXattrs copies extended attributes, as containerd does: not those of overlayfs and of administrators, which say
// something about the layer below and not about the directory, and none that the directory has already.
// Source: containerd pkg/archive/tar_unix.go@v2.4.2, copyUpXAttrs.
func copyXattrs(target, source int) error {
	if n, err := unix.Flistxattr(source, nil); n == 0 || errors.Is(err, unix.ENOTSUP) {
		return nil
	}
	names := make([]byte, 64<<10) // as large as the kernel lets it be
	n, err := unix.Flistxattr(source, names)
	if err != nil {
		return err
	}
	value := make([]byte, 64<<10)
	for name := range strings.SplitSeq(strings.TrimRight(string(names[:n]), "\x00"), "\x00") {
		if strings.HasPrefix(name, "trusted.") {
			continue
		}
		size, err := unix.Fgetxattr(source, name, value)
		if errors.Is(err, unix.ENODATA) || errors.Is(err, unix.ENOTSUP) {
			continue
		}
		if err != nil {
			return err
		}
		err = unix.Fsetxattr(target, name, value[:size], unix.XATTR_CREATE)
		if err != nil && !errors.Is(err, unix.ENOTSUP) && !errors.Is(err, unix.EEXIST) {
			return err
		}
	}
	return nil
}
