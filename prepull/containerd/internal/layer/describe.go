package layer

import (
	"archive/tar"
	"errors"
	"fmt"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// xattrPrefix begins the names of extended attributes in a tar's PAX records.
const xattrPrefix = "SCHILY.xattr."

// describe gives a file that was just made, of the given kind, its owner, attributes, mode and times.
func (x *extractor) describe(header *tar.Header, in *folder, base string, kind uint32) error {
	if err := unix.Fchownat(in.fd, base, header.Uid, header.Gid, unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("change its owner to %d:%d: %w", header.Uid, header.Gid, err)
	}
	err := x.setXattrs(header, kind, func(key string, value []byte) error {
		return unix.Lsetxattr(filepath.Join(x.root, in.child(base)), key, value, 0)
	})
	if err != nil {
		return err
	}
	if kind != unix.S_IFLNK { // after the owner, for which the kernel takes bits away
		if err := unix.Fchmodat(in.fd, base, uint32(header.Mode&0o7777), 0); err != nil {
			return fmt.Errorf("change its mode: %w", err)
		}
	}
	times := timesOf(header)
	if err := unix.UtimesNanoAt(in.fd, base, times[:], unix.AT_SYMLINK_NOFOLLOW); err != nil {
		return fmt.Errorf("set its times: %w", err)
	}
	return nil
}

// setXattrs sets the extended attributes that a layer may set. The file system may not know them, and links and devices
// have none of their users': both are no error.
func (x *extractor) setXattrs(header *tar.Header, kind uint32, set func(key string, value []byte) error) error {
	for record, value := range header.PAXRecords {
		key, is := strings.CutPrefix(record, xattrPrefix)
		if !is || strings.HasPrefix(key, "trusted.") { // an administrator's, and overlayfs's own
			continue
		}
		if strings.HasPrefix(key, "system.posix_acl") {
			x.inherits = true
		}
		err := set(key, []byte(value))
		plain := kind == unix.S_IFREG || kind == unix.S_IFDIR
		switch {
		case err == nil, errors.Is(err, unix.ENOTSUP):
		case errors.Is(err, unix.EPERM) && strings.HasPrefix(key, "user.") && !plain:
		default:
			return fmt.Errorf("set its attribute %q: %w", key, err)
		}
	}
	return nil
}

func hasXattrs(header *tar.Header) bool {
	for record := range header.PAXRecords {
		if strings.HasPrefix(record, xattrPrefix) {
			return true
		}
	}
	return false
}
