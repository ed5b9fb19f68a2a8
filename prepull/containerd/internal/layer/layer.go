// Package layer unpacks one image layer while it comes in: digest, inflate, digest, files, with nothing written but the
// files. What it makes is what containerd makes: the tar is applied by containerd's own code.
//
// It knows neither registries nor snapshotters. Start from Unpack, then Inherit once the layers below are known.
package layer

import (
	"archive/tar"
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"time"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/pkg/archive"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// The decisions that a caller makes on an error. Any other is the machine's: no room, no permission.
var (
	// ErrCorrupt: the compressed bytes are not those that the digest names; another try may bring the right ones.
	ErrCorrupt = errors.New("the bytes do not match their digest")
	// ErrHostile: the bytes are as named, and what they hold is refused or makes no sense.
	ErrHostile = errors.New("the layer is refused")
)

// The bound on what a layer may grow to. Real layers inflate three- to tenfold, one of zeros or of logs some hundredfold;
// deflate ends at 1032, zstd knows no end. A small layer may be anything up to a gibibyte.
const (
	maxRatio       = 300
	alwaysAllowed  = 1 << 30
	guardBytes     = 64 << 20
	guardEntries   = 8192
	maxNameEntries = 10_000_000 // directories that are remembered by name; more is no image
)

// Layer says what is to be unpacked.
type Layer struct {
	Desc   ocispec.Descriptor
	DiffID digest.Digest
	// Base is the lowest layer of an image: containerd unpacks it without overlayfs's whiteouts, for there is nothing to
	// hide.
	Base bool
}

// Options of one Unpack.
type Options struct {
	// Guard is asked every 64 MiB and every 8192 files whether there is still room; its error ends the work.
	Guard func() error
	// Allowed is what any layer may unpack to, in bytes, however small it is; 0 is a gibibyte.
	Allowed int64
}

// Result is an unpacked layer.
type Result struct {
	// Implied are the directories that the tar has no entry for, parents first, relative to the root. See Inherit.
	Implied []string
	// UnpackedBytes is the size of the tar.
	UnpackedBytes int64
	// Fetch is the time spent waiting for bytes, Inflate that of inflating and of the first digest, Write that of
	// writing files and of the second.
	Fetch, Inflate, Write time.Duration
}

// Unpack reads a layer from src and makes its files under dir, which is an empty directory. Both digests have been
// verified when it returns nil; otherwise dir holds something unfinished and must go.
func Unpack(ctx context.Context, dir string, l Layer, src io.Reader, options Options) (Result, error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	in := &meter{reader: src, digester: l.Desc.Digest.Algorithm().Hash()}
	blocks := newPipe(ctx)
	inflated := make(chan error, 1)
	var inflateTime time.Duration
	go func() {
		began := time.Now()
		err := decompress(l.Desc.MediaType, in, blocks)
		inflateTime = time.Since(began) - in.waited - blocks.blocked
		blocks.closeWrite(err)
		inflated <- err
	}()

	var result Result
	began := time.Now()
	if options.Allowed == 0 {
		options.Allowed = alwaysAllowed
	}
	limit := max(options.Allowed, l.Desc.Size*maxRatio)
	out := &meter{reader: blocks, digester: l.DiffID.Algorithm().Hash(), limit: limit}
	dirs := newDirectories(dir)
	err := apply(ctx, dir, l.Base, out, dirs, options.Guard)
	if err == nil {
		_, err = io.Copy(io.Discard, out) // what follows the tar's end belongs to the digest
	}
	result.Write = time.Since(began) - out.waited
	if err != nil {
		cancel(err) // wakes the inflater
	}
	inflateErr := <-inflated
	result.Fetch, result.Inflate, result.UnpackedBytes = in.waited, inflateTime, out.bytes
	if in.err != nil {
		return result, in.err // the source's own error explains all others
	}
	if err := verify(l, in, out, errors.Join(err, inflateErr)); err != nil {
		return result, err
	}
	result.Implied, err = dirs.implied()
	return result, err
}

// verify decides what an error means. A layer that cannot be read is corrupt when its bytes are not the right ones, and
// hostile when they are: so the rest is read for the digest's sake, as long as the machine is well.
func verify(l Layer, in, out *meter, err error) error {
	if err != nil && !foreign(err) {
		return err
	}
	if err != nil {
		if _, drained := io.Copy(io.Discard, in); drained != nil {
			return drained
		}
	}
	if got := in.digest(l.Desc.Digest.Algorithm()); got != l.Desc.Digest || in.bytes != l.Desc.Size {
		return fmt.Errorf("layer %s: %d bytes with the digest %s: %w", l.Desc.Digest, in.bytes, got, ErrCorrupt)
	}
	if err != nil {
		return fmt.Errorf("layer %s: %w: %w", l.Desc.Digest, err, ErrHostile)
	}
	if got := out.digest(l.DiffID.Algorithm()); got != l.DiffID {
		return fmt.Errorf("layer %s: unpacked it has the digest %s, the config says %s: %w", l.Desc.Digest, got, l.DiffID, ErrHostile)
	}
	return nil
}

// apply makes the files.
func apply(ctx context.Context, dir string, base bool, tarStream *meter, dirs *directories, guard func() error) error {
	entries := 0
	nextGuard := int64(guardBytes)
	filter := func(header *tar.Header) (bool, error) {
		entries++
		if guard != nil && (entries%guardEntries == 0 || tarStream.bytes >= nextGuard) {
			nextGuard = tarStream.bytes + guardBytes
			if err := guard(); err != nil {
				return false, machineError{err}
			}
		}
		return true, dirs.add(header)
	}
	options := []archive.ApplyOpt{archive.WithFilter(filter)}
	if !base {
		options = append(options, archive.WithConvertWhiteout(archive.OverlayConvertWhiteout))
	}
	_, err := archive.Apply(ctx, dir, tarStream, options...)
	return err
}

// Supported reports whether Unpack can read a layer of this media type.
func Supported(mediaType string) bool {
	if !images.IsLayerType(mediaType) {
		return false
	}
	switch mediaType {
	case ocispec.MediaTypeImageLayer, ocispec.MediaTypeImageLayerGzip, ocispec.MediaTypeImageLayerZstd,
		images.MediaTypeDockerSchema2Layer, images.MediaTypeDockerSchema2LayerGzip, images.MediaTypeDockerSchema2LayerZstd:
		return true
	}
	return false // encrypted, foreign, or of a kind that is yet to come
}

// meter counts, digests and times what is read through it.
type meter struct {
	reader   io.Reader
	digester hash.Hash
	bytes    int64
	limit    int64 // 0 is none
	waited   time.Duration
	err      error // of the reader, other than io.EOF
}

func (m *meter) Read(p []byte) (int, error) {
	began := time.Now()
	n, err := m.reader.Read(p)
	m.waited += time.Since(began)
	m.digester.Write(p[:n])
	m.bytes += int64(n)
	if err != nil && !errors.Is(err, io.EOF) {
		m.err = err
	}
	if m.limit > 0 && m.bytes > m.limit {
		return n, fmt.Errorf("it unpacks to more than %d bytes, which is out of all proportion", m.limit)
	}
	return n, err
}

func (m *meter) digest(algorithm digest.Algorithm) digest.Digest {
	return digest.NewDigest(algorithm, m.digester)
}
