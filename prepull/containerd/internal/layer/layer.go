// Package layer unpacks one image layer while it comes in: digest, inflate, digest, files, with nothing written but the
// files. What it makes is what containerd makes (see extractor), in a third of the calls.
//
// It knows neither registries nor snapshotters. Start from Unpack, then Inherit once the layers below are known.
package layer

import (
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"math"
	"time"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

// The decisions that a caller makes on an error. Any other is the machine's: no room, no permission.
var (
	// ErrCorrupt: the compressed bytes are not those that the digest names; another try may bring the right ones.
	ErrCorrupt = errors.New("the bytes do not match their digest")
	// ErrHostile: the bytes are as named, and what they hold is refused or makes no sense.
	ErrHostile = errors.New("the layer is refused")
	// ErrOversize: it unpacks to more than any room that could be made.
	ErrOversize = errors.New("the layer is too large")
)

// namesAllowed holds half a million directories, or four million files of a base layer, and keeps a layer of nothing but
// names from the agent's memory.
const namesAllowed = 64 << 20

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
	// Room grants what is written; nil grants all.
	Room Room
	// Allowed is what the layer may unpack to, in bytes; 0 is no bound. Beyond it is ErrOversize.
	Allowed int64
	// AllowedNames is the memory that a layer's paths may take, in bytes; 0 is 64 MiB.
	AllowedNames int64
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
	if options.Allowed == 0 {
		options.Allowed = math.MaxInt64
	}
	if options.AllowedNames == 0 {
		options.AllowedNames = namesAllowed
	}
	in := &meter{reader: src, digester: l.Desc.Digest.Algorithm().Hash()}
	blocks := newPipe(ctx, l.DiffID.Algorithm().Hash(), options.Allowed)
	inflated := make(chan error, 1)
	var result Result
	go func() {
		began := time.Now()
		err := decompress(l.Desc.MediaType, in, blocks)
		result.Inflate = time.Since(began) - in.waited - blocks.blocked
		blocks.closeWrite(err)
		inflated <- err
	}()

	began := time.Now()
	implied, err := extract(ctx, dir, l.Base, blocks, options)
	if err == nil {
		_, err = io.Copy(io.Discard, blocks) // what follows the tar's end belongs to the digest
	}
	result.Write = time.Since(began) - blocks.waited
	if err != nil {
		cancel(err) // wakes the inflater
	}
	inflateErr := <-inflated
	result.Fetch, result.UnpackedBytes, result.Implied = in.waited, blocks.bytes, implied
	if in.err != nil {
		return result, in.err // the source's own error explains all others
	}
	return result, verify(l, in, blocks, errors.Join(err, inflateErr))
}

// verify decides what an error means. A layer that cannot be read is corrupt when its bytes are not the right ones, and
// hostile when they are, or more than there is memory for: so the rest is read for the digest's sake, as long as the
// machine is well.
func verify(l Layer, in *meter, out *pipe, err error) error {
	if err != nil && !foreign(err) && !errors.Is(err, ErrMemory) {
		return err
	}
	if err != nil {
		if _, drained := io.Copy(io.Discard, in); drained != nil {
			return drained
		}
	}
	if got := digest.NewDigest(l.Desc.Digest.Algorithm(), in.digester); got != l.Desc.Digest || in.bytes != l.Desc.Size {
		return fmt.Errorf("layer %s: %d bytes with the digest %s: %w", l.Desc.Digest, in.bytes, got, ErrCorrupt)
	}
	if errors.Is(err, ErrMemory) || errors.Is(err, ErrOversize) {
		return fmt.Errorf("layer %s: %w", l.Desc.Digest, err)
	}
	if err != nil {
		return fmt.Errorf("layer %s: %w: %w", l.Desc.Digest, err, ErrHostile)
	}
	if got := digest.NewDigest(l.DiffID.Algorithm(), out.digester); got != l.DiffID {
		return fmt.Errorf("layer %s: unpacked it has the digest %s, the config says %s: %w", l.Desc.Digest, got, l.DiffID, ErrHostile)
	}
	return nil
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
	return n, err
}
