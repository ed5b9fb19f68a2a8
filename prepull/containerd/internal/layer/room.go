package layer

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"golang.org/x/sys/unix"
)

// Room grants what a layer may write: so many bytes now, of which so many more will follow that must have room as well,
// though they are asked for again. It returns how many may be written before it is asked next, at least now. An error ends
// the work.
type Room func(now, later int64) (granted int64, err error)

// What a file takes beside its content, and what content is rounded up to.
const (
	fileCost = 4 << 10
	diskPage = 4 << 10
)

// roomEntries is how many entries are made at most until room is asked for again: inodes end as well.
const roomEntries = 8192

// spend takes bytes from what was granted, and asks for more when they are used up; later is what of the same file follows.
func (x *extractor) spend(ctx context.Context, now, later int64) error {
	if x.room == nil {
		return nil
	}
	if x.granted < now {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		granted, err := x.room(now, later)
		if err != nil {
			return machineError{err}
		}
		x.granted = granted
	}
	x.granted -= now
	return nil
}

// announce spends what an entry takes, before it is made. The size of a large file must fit as a whole: what is half there
// is of no use to anybody.
func (x *extractor) announce(ctx context.Context, header *tar.Header) error {
	size := header.Size
	if header.Typeflag != tar.TypeReg || size < 0 {
		size = 0
	}
	if x.entries++; x.entries%roomEntries == 0 {
		x.granted = 0
	}
	if size <= copySize {
		return x.spend(ctx, fileCost+(size+diskPage-1)/diskPage*diskPage, 0)
	}
	if x.granted < fileCost+size {
		x.granted = 0 // ask for it all, though not for ever
	}
	return x.spend(ctx, fileCost, size)
}

// copyBody writes what the tar has of the present entry. What announce has spent it does not spend again.
func (x *extractor) copyBody(ctx context.Context, header *tar.Header, fd int) error {
	if isSparse(header) {
		return x.copySparse(ctx, header.Size, fd)
	}
	large := header.Size > copySize
	for left := header.Size; ; {
		n, err := x.tar.Read(x.buffer)
		left -= int64(n)
		if large && n > 0 {
			if err := x.spend(ctx, int64(n), left); err != nil {
				return err
			}
		}
		if err := writeAll(fd, x.buffer[:n]); err != nil {
			return err
		}
		if end, err := ended(err); end {
			return err
		}
	}
}

// isSparse reports whether a file has holes: the tar then has a map of them, and package tar fills them with zeros.
func isSparse(header *tar.Header) bool {
	for record := range header.PAXRecords {
		if strings.HasPrefix(record, "GNU.sparse.") {
			return true
		}
	}
	return false
}

// copySparse writes a file and leaves its holes as they are.
func (x *extractor) copySparse(ctx context.Context, size int64, fd int) error {
	for left := size; ; {
		if ctx.Err() != nil {
			return context.Cause(ctx) // a hole is read without a look at anything
		}
		n, err := x.tar.Read(x.buffer)
		left -= int64(n)
		for data := x.buffer[:n]; len(data) > 0; {
			block := data[:min(len(data), diskPage)]
			data = data[len(block):]
			if isZero(block) {
				if _, err := unix.Seek(fd, int64(len(block)), unix.SEEK_CUR); err != nil {
					return err
				}
				continue
			}
			if err := x.spend(ctx, int64(len(block)), left); err != nil {
				return err
			}
			if err := writeAll(fd, block); err != nil {
				return err
			}
		}
		if end, err := ended(err); end {
			if err == nil {
				err = unix.Ftruncate(fd, size)
			}
			return err
		}
	}
}

// ended says whether a file's content is over, with an error or without.
func ended(err error) (bool, error) {
	if errors.Is(err, io.EOF) {
		return true, nil
	}
	return err != nil, err
}

var zeroPage [diskPage]byte

func isZero(block []byte) bool { return bytes.Equal(block, zeroPage[:len(block)]) }

func writeAll(fd int, data []byte) error {
	for len(data) > 0 {
		written, err := unix.Write(fd, data)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("write: %w", err)
		}
		data = data[max(0, written):]
	}
	return nil
}
