package layer

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"strings"

	continuity "github.com/containerd/continuity/fs"
	"golang.org/x/sys/unix"
)

// create makes the file of an entry, whatever it is, with all that belongs to it. What is at its place is removed first,
// unless both are directories.
func (x *extractor) create(ctx context.Context, header *tar.Header, in *folder, base string) error {
	switch header.Typeflag {
	case tar.TypeReg:
		return x.createFile(ctx, header, in, base)
	case tar.TypeDir:
		return x.createDir(header, in, base)
	case tar.TypeSymlink:
		in, err := x.place(in, base, func(in *folder) error { return unix.Symlinkat(header.Linkname, in.fd, base) })
		if err != nil {
			return fmt.Errorf("make a symbolic link: %w", err)
		}
		return x.describe(header, in, base, unix.S_IFLNK)
	case tar.TypeLink:
		return x.createLink(header, in, base)
	case tar.TypeBlock, tar.TypeChar, tar.TypeFifo:
		return x.createNode(header, in, base)
	case tar.TypeXGlobalHeader:
		_, err := x.clear(in, base) // containerd makes nothing of it, at the place of what was there
		return err
	default:
		return fmt.Errorf("unhandled tar header type %d", header.Typeflag)
	}
}

// place makes something that must not be there yet. What is there is removed first. It returns the folder in which it
// lies, which has been opened again in that case.
func (x *extractor) place(in *folder, base string, make func(*folder) error) (*folder, error) {
	err := ignoringEINTR(func() error { return make(in) })
	if !errors.Is(err, unix.EEXIST) {
		return in, err
	}
	if in, err = x.clear(in, base); err != nil {
		return nil, err
	}
	return in, ignoringEINTR(func() error { return make(in) })
}

// clear removes what has a name, if anything has.
func (x *extractor) clear(in *folder, base string) (*folder, error) {
	var stat unix.Stat_t
	err := unix.Fstatat(in.fd, base, &stat, unix.AT_SYMLINK_NOFOLLOW)
	if errors.Is(err, unix.ENOENT) {
		return in, nil
	}
	if err == nil {
		err = x.remove(in.child(base))
	}
	if err != nil {
		return nil, fmt.Errorf("replace what is there: %w", err)
	}
	return x.folder(in.rel)
}

// createFile makes a regular file and writes it. Owner and mode are those with which it was made where nothing else is
// asked for: that saves two of five calls for most files.
func (x *extractor) createFile(ctx context.Context, header *tar.Header, in *folder, base string) error {
	mode := uint32(header.Mode & 0o7777)
	fd := -1
	in, err := x.place(in, base, func(in *folder) (err error) {
		fd, err = unix.Openat(in.fd, base, unix.O_WRONLY|unix.O_CREAT|unix.O_EXCL|unix.O_NOFOLLOW|unix.O_CLOEXEC, mode&0o777)
		return err
	})
	if err != nil {
		return fmt.Errorf("make a file: %w", err)
	}
	err = x.copyBody(ctx, header, fd)
	if err == nil && !x.madeAsAsked(header, in, fd, mode) {
		err = x.describeFile(header, fd, mode)
	}
	if closed := unix.Close(fd); err == nil && closed != nil {
		err = fmt.Errorf("close a file: %w", closed)
	}
	if err != nil {
		return err
	}
	times := timesOf(header)
	if err := unix.UtimesNanoAt(in.fd, base, times[:], unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("set its times: %w", err)
	}
	return nil
}

// madeAsAsked reports whether a file has its owner and mode already. The first file of a directory is looked at: a
// directory may pass on its group.
func (x *extractor) madeAsAsked(header *tar.Header, in *folder, fd int, mode uint32) bool {
	if header.Uid != x.uid || header.Gid != x.gid || mode&^0o777 != 0 || mode&x.umask != 0 || x.inherits || hasXattrs(header) {
		return false
	}
	if !in.plain {
		var stat unix.Stat_t
		err := unix.Fstat(fd, &stat)
		in.plain = err == nil && int(stat.Uid) == x.uid && int(stat.Gid) == x.gid && stat.Mode&0o7777 == mode
	}
	return in.plain
}

func (x *extractor) describeFile(header *tar.Header, fd int, mode uint32) error {
	if err := unix.Fchown(fd, header.Uid, header.Gid); err != nil {
		return fmt.Errorf("change its owner to %d:%d: %w", header.Uid, header.Gid, err)
	}
	err := x.setXattrs(header, unix.S_IFREG, func(key string, value []byte) error { return unix.Fsetxattr(fd, key, value, 0) })
	if err != nil {
		return err
	}
	if err := unix.Fchmod(fd, mode); err != nil { // after the owner, for which the kernel takes bits away
		return fmt.Errorf("change its mode: %w", err)
	}
	return nil
}

// createDir makes a directory, or finds one: then the entry describes it anew.
func (x *extractor) createDir(header *tar.Header, in *folder, base string) error {
	err := unix.Mkdirat(in.fd, base, uint32(header.Mode&0o7777))
	if errors.Is(err, unix.EEXIST) {
		var stat unix.Stat_t
		if err = unix.Fstatat(in.fd, base, &stat, unix.AT_SYMLINK_NOFOLLOW); err == nil && stat.Mode&unix.S_IFMT == unix.S_IFDIR {
			x.forget() // it may pass on its group from now on, under every name that leads there
			if in, err = x.folder(in.rel); err != nil {
				return err
			}
		} else {
			in, err = x.place(in, base, func(in *folder) error { return unix.Mkdirat(in.fd, base, uint32(header.Mode&0o7777)) })
		}
	}
	if err != nil {
		return fmt.Errorf("make a directory: %w", err)
	}
	return x.describe(header, in, base, unix.S_IFDIR)
}

// createLink makes one more name for a file.
func (x *extractor) createLink(header *tar.Header, in *folder, base string) error {
	in, err := x.place(in, base, func(in *folder) error {
		parent, name := filepath.Split(header.Linkname)
		dir, err := continuity.RootPath(x.root, parent)
		if err != nil {
			return fmt.Errorf("resolve the target: %w", err)
		}
		target := filepath.Join(dir, name)
		if !strings.HasPrefix(target, x.root) {
			target = x.root
		}
		return unix.Linkat(unix.AT_FDCWD, target, in.fd, base, 0)
	})
	if err != nil {
		return fmt.Errorf("link to %q: %w", header.Linkname, err)
	}
	var stat unix.Stat_t
	if err := unix.Fstatat(in.fd, base, &stat, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("look at the link: %w", err)
	}
	return x.describe(header, in, base, stat.Mode&unix.S_IFMT)
}

// createNode makes a device or a named pipe.
func (x *extractor) createNode(header *tar.Header, in *folder, base string) error {
	if header.Devmajor < 0 || header.Devmajor > math.MaxUint32 || header.Devminor < 0 || header.Devminor > math.MaxUint32 {
		return fmt.Errorf("device number %d:%d is out of range", header.Devmajor, header.Devminor)
	}
	kind := map[byte]uint32{tar.TypeBlock: unix.S_IFBLK, tar.TypeChar: unix.S_IFCHR, tar.TypeFifo: unix.S_IFIFO}[header.Typeflag]
	device := unix.Mkdev(uint32(header.Devmajor), uint32(header.Devminor))
	in, err := x.place(in, base, func(in *folder) error {
		return unix.Mknodat(in.fd, base, kind|uint32(header.Mode&0o7777), int(device))
	})
	if err != nil {
		return fmt.Errorf("make a device: %w", err)
	}
	return x.describe(header, in, base, kind)
}

func ignoringEINTR(call func() error) error {
	for {
		if err := call(); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}
