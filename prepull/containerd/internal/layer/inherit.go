package layer

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	continuity "github.com/containerd/continuity/fs"
	"golang.org/x/sys/unix"
)

// Inherit gives implied directories of an unpacked layer what they have in the layers below, nearest first. A path that
// is no longer a directory of the layer itself is passed over: a link at its place may lead anywhere.
// Source: containerd pkg/archive/tar.go@v2.4.2, mkparent.
func Inherit(dir string, implied, lower []string) error {
	root, err := unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", dir, err)
	}
	defer func() { _ = unix.Close(root) }()
	for _, rel := range implied {
		if err := inheritOne(root, rel, lower, containsSorted(implied, filepath.Dir(rel))); err != nil {
			return fmt.Errorf("inherit the attributes of %q: %w", rel, err)
		}
	}
	return nil
}

func inheritOne(root int, rel string, lower []string, parentImplied bool) error {
	fd, err := openDir(root, rel, unix.O_RDONLY)
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) || errors.Is(err, unix.EXDEV) {
		return nil
	}
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(fd) }()
	for _, below := range lower {
		if found, err := inherit(fd, below, rel); found || err != nil {
			return err
		}
	}
	if !parentImplied {
		return nil
	}
	// What the kernel would have done, had the parent had its set-group-ID bit when the directory was made.
	parent, err := openDir(root, filepath.Dir(rel), unix.O_PATH)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Close(parent) }()
	var stat unix.Stat_t
	if err := unix.Fstat(parent, &stat); err != nil || stat.Mode&unix.S_ISGID == 0 {
		return err
	}
	return unix.Fchown(fd, -1, int(stat.Gid))
}

func inherit(target int, lower, rel string) (bool, error) {
	source, err := continuity.RootPath(lower, rel)
	if err != nil {
		return false, err
	}
	var stat unix.Stat_t
	err = unix.Lstat(source, &stat)
	if errors.Is(err, unix.ENOENT) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if stat.Mode&unix.S_IFMT != unix.S_IFDIR {
		return true, nil // replaced: there is nothing to inherit
	}
	if err := unix.Fchown(target, int(stat.Uid), int(stat.Gid)); err != nil {
		return false, err
	}
	if err := unix.Fchmod(target, stat.Mode&0o7777); err != nil {
		return false, err
	}
	return true, copyXattrs(target, source)
}

// copyXattrs copies extended attributes, as containerd does: not those of overlayfs and of administrators, which say
// something about the layer below and not about the directory, and none that the directory has already.
// Source: containerd pkg/archive/tar_unix.go@v2.4.2, copyUpXAttrs.
func copyXattrs(target int, source string) error {
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
		if strings.HasPrefix(name, "trusted.") {
			continue
		}
		size, err := unix.Lgetxattr(source, name, value)
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

func containsSorted(sorted []string, value string) bool {
	_, found := slices.BinarySearch(sorted, value)
	return found
}
