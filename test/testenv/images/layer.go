package images

import (
	"archive/tar"
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"path/filepath"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/gzip"
	"github.com/klauspost/compress/zstd"
)

// The compressions of a layer. The zero value is gzip, as most images have it.
const (
	Gzip Compression = ""
	Zstd Compression = "zstd"
)

// Compression names how a layer is compressed.
type Compression string

// Layer describes one layer. Two equal Layers are one blob.
type Layer struct {
	// Bytes is the size of the files in the layer, before compression; the last file is cut to fit.
	Bytes int64
	// Skip is where in the corpus the layer starts, in bytes, so that layers differ.
	Skip int64
	// Dir is the folder in the image that receives the files; layers of one image need different ones to not overlap.
	Dir         string
	Compression Compression
}

// format is part of the cache key: raise it when the making of layers changes.
const format = 1

// blob is a finished layer in the cache: a compressed tar and what is known of it.
type blob struct {
	Path     string `json:"-"`
	Dgst     v1.Hash
	Diff     v1.Hash
	SizeB    int64
	MimeType types.MediaType
}

func (b *blob) Digest() (v1.Hash, error)            { return b.Dgst, nil }
func (b *blob) DiffID() (v1.Hash, error)            { return b.Diff, nil }
func (b *blob) Size() (int64, error)                { return b.SizeB, nil }
func (b *blob) MediaType() (types.MediaType, error) { return b.MimeType, nil }
func (b *blob) Compressed() (io.ReadCloser, error)  { return os.Open(b.Path) }
func (b *blob) asLayer() (v1.Layer, error)          { return partial.CompressedToLayer(b) }

// entry is one file to put into a layer: bytes from open, cut to size.
type entry struct {
	name string
	size int64
	mode int64
	open func() (io.ReadCloser, error)
}

// cached returns the layer that is kept under key, making it from entries if there is none.
func cached(ctx context.Context, key any, compression Compression, entries func() ([]entry, error)) (*blob, error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return nil, fmt.Errorf("find the user's cache folder: %w", err)
	}
	keyJSON, err := json.Marshal(map[string]any{"format": format, "key": key, "compression": compression})
	if err != nil {
		return nil, fmt.Errorf("name a layer: %w", err)
	}
	sum := sha256.Sum256(keyJSON)
	base := filepath.Join(cache, "headstart", "layers", hex.EncodeToString(sum[:12]))
	made := &blob{Path: base + ".tar.layer"}
	if content, err := os.ReadFile(base + ".json"); err == nil && json.Unmarshal(content, made) == nil {
		return made, nil
	}
	list, err := entries()
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(base), 0o755); err != nil { // a cache of public files
		return nil, fmt.Errorf("make the folder of layers: %w", err)
	}
	if err := made.write(ctx, compression, list); err != nil {
		return nil, fmt.Errorf("make a layer: %w", err)
	}
	content, err := json.Marshal(made)
	if err != nil {
		return nil, fmt.Errorf("describe a layer: %w", err)
	}
	// Written last, so that a layer without a description is one that was never finished.
	if err := atomically(base+".json", func(w io.Writer) error { _, err := w.Write(content); return err }); err != nil {
		return nil, fmt.Errorf("describe a layer: %w", err)
	}
	return made, nil
}

// write makes the compressed tar and fills in what is known of it.
func (b *blob) write(ctx context.Context, compression Compression, entries []entry) error {
	return atomically(b.Path, func(w io.Writer) error {
		compressedSum, diffSum, size := sha256.New(), sha256.New(), new(counter)
		compressor, mediaType, err := newCompressor(io.MultiWriter(w, compressedSum, size), compression)
		if err != nil {
			return err
		}
		archive := tar.NewWriter(io.MultiWriter(compressor, diffSum))
		for _, e := range entries {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err := e.writeTo(archive); err != nil {
				return err
			}
		}
		if err := errors.Join(archive.Close(), compressor.Close()); err != nil {
			return err
		}
		b.Dgst = v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(compressedSum.Sum(nil))}
		b.Diff = v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(diffSum.Sum(nil))}
		b.SizeB, b.MimeType = int64(*size), mediaType
		return nil
	})
}

// writeTo adds the file to a tar, with a fixed owner and time so that the layer is the same each time it is made.
func (e entry) writeTo(archive *tar.Writer) error {
	header := &tar.Header{
		Typeflag: tar.TypeReg, Name: e.name, Size: e.size, Mode: e.mode, ModTime: time.Unix(0, 0), Format: tar.FormatPAX,
	}
	if err := archive.WriteHeader(header); err != nil {
		return fmt.Errorf("add %q: %w", e.name, err)
	}
	content, err := e.open()
	if err != nil {
		return fmt.Errorf("add %q: %w", e.name, err)
	}
	defer func() { _ = content.Close() }()
	if _, err := io.CopyN(archive, content, e.size); err != nil {
		return fmt.Errorf("add %q: %w", e.name, err)
	}
	return nil
}

// cut returns the files of a layer: those of the corpus from l.Skip on until l.Bytes are reached. A corpus that is too
// small is used again, under other names.
func (l Layer) cut(corpus []file) []entry {
	var total int64
	for _, f := range corpus {
		total += f.size
	}
	skip, left := l.Skip%max(total, 1), l.Bytes
	var entries []entry
	for round := 0; left > 0 && total > 0; round++ {
		for _, f := range corpus {
			if skip >= f.size {
				skip -= f.size
				continue
			}
			skip = 0
			size := min(f.size, left)
			name := path.Join(l.Dir, fmt.Sprintf("%d", round), f.name)
			entries = append(entries, entry{name: name, size: size, mode: 0o644, open: opener(f.path)})
			if left -= size; left == 0 {
				break
			}
		}
	}
	return entries
}

func opener(path string) func() (io.ReadCloser, error) {
	return func() (io.ReadCloser, error) { return os.Open(path) }
}

func newCompressor(w io.Writer, compression Compression) (io.WriteCloser, types.MediaType, error) {
	switch compression {
	case Gzip:
		return gzip.NewWriter(w), types.OCILayer, nil
	case Zstd:
		compressor, err := zstd.NewWriter(w)
		return compressor, types.OCILayerZStd, err
	default:
		return nil, "", fmt.Errorf("compress a layer: unknown compression %q", compression)
	}
}

type counter int64

func (c *counter) Write(p []byte) (int, error) {
	*c += counter(len(p))
	return len(p), nil
}

// atomically writes a file that appears whole or not at all.
func atomically(path string, write func(io.Writer) error) error {
	temp, err := os.CreateTemp(filepath.Dir(path), ".tmp-")
	if err != nil {
		return err
	}
	buffered := bufio.NewWriterSize(temp, 1<<20)
	err = write(buffered)
	if err := errors.Join(err, buffered.Flush(), temp.Close()); err != nil {
		return errors.Join(err, os.Remove(temp.Name()))
	}
	return os.Rename(temp.Name(), path)
}
