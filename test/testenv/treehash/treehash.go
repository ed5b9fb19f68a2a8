// Package treehash digests a directory tree: every path with its type, mode, owner, times, links, attributes and content.
// Two root file systems with one digest cannot be told apart by a container. Start from Sum.
package treehash

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Options leave out what cannot be equal.
type Options struct {
	// NoDirTimes passes over the times of directories: those that no tar entry names get the time of their making.
	NoDirTimes bool
	// NoRoot passes over the root directory itself, which the snapshotter makes and no tar entry names.
	NoRoot bool
}

// Sum returns the digest of a tree in hex. Lines returns what it is made of.
func Sum(root string, options Options) (string, error) {
	hash := sha256.New()
	err := walk(root, options, func(line string) { _, _ = io.WriteString(hash, line+"\n") })
	if err != nil {
		return "", err
	}
	return hex.EncodeToString(hash.Sum(nil)), nil
}

// Lines describes every file in one line, in the order of paths.
func Lines(root string, options Options) ([]string, error) {
	var lines []string
	err := walk(root, options, func(line string) { lines = append(lines, line) })
	return lines, err
}

func walk(root string, options Options, emit func(string)) error {
	inodes := map[uint64]string{} // the first path of a file with several names
	return filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if options.NoRoot && path == root {
			return nil
		}
		line, err := describe(root, path, options, inodes)
		if err != nil {
			return fmt.Errorf("describe %s: %w", path, err)
		}
		emit(line)
		return nil
	})
}

func describe(root, path string, options Options, inodes map[uint64]string) (string, error) {
	var stat unix.Stat_t
	if err := unix.Lstat(path, &stat); err != nil {
		return "", err
	}
	rel, err := filepath.Rel(root, path)
	if err != nil {
		return "", err
	}
	kind := stat.Mode & unix.S_IFMT
	line := fmt.Sprintf("%q mode=%o owner=%d:%d", rel, stat.Mode, stat.Uid, stat.Gid)
	if kind != unix.S_IFDIR || !options.NoDirTimes {
		line += fmt.Sprintf(" mtime=%d.%09d", stat.Mtim.Sec, stat.Mtim.Nsec)
	}
	switch kind {
	case unix.S_IFREG:
		if stat.Nlink > 1 {
			if first, known := inodes[stat.Ino]; known {
				return line + fmt.Sprintf(" same=%q", first), nil
			}
			inodes[stat.Ino] = rel
			line += fmt.Sprintf(" names=%d", stat.Nlink)
		}
		sum, err := content(path)
		if err != nil {
			return "", err
		}
		line += fmt.Sprintf(" size=%d sha256=%s", stat.Size, sum)
	case unix.S_IFLNK:
		target, err := os.Readlink(path)
		if err != nil {
			return "", err
		}
		line += fmt.Sprintf(" to=%q", target)
	case unix.S_IFCHR, unix.S_IFBLK:
		line += fmt.Sprintf(" device=%d", stat.Rdev)
	}
	attributes, err := xattrs(path)
	return line + attributes, err
}

func content(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }()
	hash := sha256.New()
	if _, err := io.Copy(hash, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(hash.Sum(nil)), nil
}

// xattrs lists a file's extended attributes by name. overlayfs's own are passed over: they are not seen by containers.
func xattrs(path string) (string, error) {
	names := make([]byte, 64<<10)
	n, err := unix.Llistxattr(path, names)
	if errors.Is(err, syscall.ENOTSUP) || n == 0 {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	all := strings.Split(strings.TrimRight(string(names[:n]), "\x00"), "\x00")
	slices.Sort(all)
	var text strings.Builder
	for _, name := range all {
		value := make([]byte, 64<<10)
		size, err := unix.Lgetxattr(path, name, value)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(&text, " %s=%q", name, value[:size])
	}
	return text.String(), nil
}
