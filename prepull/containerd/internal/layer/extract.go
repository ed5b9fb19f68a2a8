package layer

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	continuity "github.com/containerd/continuity/fs"
	"golang.org/x/sys/unix"
)

// extractor makes the files of one layer. What it leaves is what containerd's archive.Apply leaves, and what that refuses
// it refuses: a test holds the two against each other. containerd resolves every path from the root and asks for every
// step whether it is a link; here a file is made within an open directory, by its last name alone, and only what does not
// go that way (a link on the way, something that is there already) is looked at as containerd does.
//
// That is safe without asking because nobody else works in the directory: a name that resolved to a real directory does so
// until something is removed, and then all open directories are forgotten.
// Source: containerd pkg/archive/tar.go@v2.4.2, applyNaive and createTarFile.
type extractor struct {
	root   string
	rootFD int
	base   bool // whiteouts remove what this layer has made, instead of hiding what others have
	stream *pipe
	tar    *tar.Reader
	buffer []byte

	folders  map[string]*folder // by the name that led there
	order    []string           // of folders, oldest first
	removed  bool               // something was: names may lead elsewhere now
	inherits bool               // files may get attributes by where they lie
	uid, gid int                // what files have when they are made
	umask    uint32

	implied map[string]struct{} // directories that no entry named so far, relative to root
	seen    map[uint64]struct{} // of a base layer: hashes of all paths that entries made
	seed    maphash.Seed
	opaque  map[string]struct{} // of a base layer: directories that have been cleared
	named   []dirTimes

	names, remembered int64 // bytes that names of directories may take, and take

	room    Room
	granted int64 // what of it is left
	entries int   // that were announced
}

// implies remembers a directory that no entry has named.
func (x *extractor) implies(rel string) {
	x.implied[rel] = struct{}{}
	x.remembered += int64(len(rel)) + nameWeight
}

// dirTimes are what a directory gets in the end, when nothing is written into it any longer.
type dirTimes struct {
	name   string // as the tar has it
	direct bool   // no link led to it
	times  [2]unix.Timespec
}

// copySize is how much of a file is written at once.
const copySize = 256 << 10

// extract makes the files that the tar in stream holds under root, and returns the directories that it only implied,
// parents first.
func extract(ctx context.Context, root string, base bool, stream *pipe, options Options) ([]string, error) {
	rootFD, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, machineError{fmt.Errorf("open %s: %w", root, err)}
	}
	x := &extractor{
		root: filepath.Clean(root), rootFD: rootFD, base: base, room: options.Room, names: options.AllowedNames, stream: stream, tar: tar.NewReader(stream),
		buffer: make([]byte, copySize), folders: map[string]*folder{}, inherits: hasDefaultACL(root),
		uid: os.Geteuid(), gid: os.Getegid(), umask: processUmask(),
		implied: map[string]struct{}{}, seen: map[uint64]struct{}{}, seed: maphash.MakeSeed(), opaque: map[string]struct{}{},
	}
	defer func() {
		x.forget()
		_ = unix.Close(rootFD)
	}()
	if err := x.all(ctx); err != nil {
		return nil, err
	}
	if err := x.setTimes(); err != nil {
		return nil, err
	}
	return x.impliedDirs()
}

// What is remembered of a path until the layer ends, in bytes beside its name, as measured.
const (
	nameWeight = 64 // of a directory
	hashWeight = 16 // of any entry in a base layer
)

// all makes the files of all entries.
func (x *extractor) all(ctx context.Context) error {
	for {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		header, err := x.tar.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		header.Name = filepath.Clean(header.Name)
		if err := x.entry(ctx, header); err != nil {
			return fmt.Errorf("%.200q: %w", header.Name, err)
		}
		if x.remembered+int64(len(x.seen))*hashWeight > x.names {
			return machineError{fmt.Errorf("%w: more than %d MiB for its paths", ErrMemory, x.names>>20)}
		}
	}
}

// entry makes one file. The header's name is clean.
func (x *extractor) entry(ctx context.Context, header *tar.Header) error {
	if max(len(header.Name), len(header.Linkname)) >= unix.PathMax {
		return unix.ENAMETOOLONG
	}
	parent, base := filepath.Split(header.Name)
	if base == "" || base == "." || base == ".." {
		return nil // the root itself, which is the snapshotter's to make
	}
	in, err := x.folder(parent)
	if err != nil {
		return err
	}
	if strings.HasPrefix(base, whiteoutPrefix) {
		return x.whiteout(header, in, base)
	}
	if err := x.announce(ctx, header); err != nil {
		return err
	}
	if err := x.create(ctx, header, in, base); err != nil {
		return err
	}
	rel := in.child(base)
	if header.Typeflag == tar.TypeDir {
		if _, was := x.implied[rel]; was {
			delete(x.implied, rel)
			x.remembered -= int64(len(rel)) + nameWeight
		}
		x.named = append(x.named, dirTimes{name: header.Name, direct: in.direct, times: timesOf(header)})
		x.remembered += int64(len(header.Name)) + nameWeight
	}
	if x.base {
		x.seen[x.hash(rel)] = struct{}{}
	}
	return nil
}

// setTimes gives directories their times.
func (x *extractor) setTimes() error {
	for _, d := range x.named {
		if d.direct && !x.removed {
			if err := unix.UtimesNanoAt(x.rootFD, strings.TrimPrefix(d.name, "/"), d.times[:], unix.AT_SYMLINK_NOFOLLOW); err != nil {
				return fmt.Errorf("set the times of %q: %w", d.name, err)
			}
			continue
		}
		path, err := continuity.RootPath(x.root, d.name)
		if err == nil {
			err = unix.UtimesNanoAt(unix.AT_FDCWD, path, d.times[:], unix.AT_SYMLINK_NOFOLLOW)
		}
		if err != nil {
			return fmt.Errorf("set the times of %q: %w", d.name, err)
		}
	}
	return nil
}

// impliedDirs returns what is left of the implied directories.
func (x *extractor) impliedDirs() ([]string, error) {
	all := make([]string, 0, len(x.implied))
	for rel := range x.implied {
		fd, err := openDir(x.rootFD, rel, unix.O_PATH)
		if notDir(err) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("look at the directory %q: %w", rel, err)
		}
		_ = unix.Close(fd)
		all = append(all, rel)
	}
	slices.Sort(all)
	return all, nil
}

func (x *extractor) hash(rel string) uint64 { return maphash.String(x.seed, rel) }

// timesOf returns the times that containerd gives a file: within what a timespec holds, and accessed no earlier than
// modified.
func timesOf(header *tar.Header) [2]unix.Timespec {
	accessed := header.AccessTime
	if accessed.Before(header.ModTime) {
		accessed = header.ModTime
	}
	return [2]unix.Timespec{timespec(accessed), timespec(header.ModTime)}
}

func timespec(t time.Time) unix.Timespec {
	if t.Before(time.Unix(0, 0)) || t.After(time.Unix(0, 1<<63-1)) {
		t = time.Unix(0, 0)
	}
	return unix.NsecToTimespec(t.UnixNano())
}
