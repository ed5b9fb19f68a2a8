package layer

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/klauspost/compress/zstd"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"

	"headstart.dev/prepull/containerd/internal/inflate"
)

// Inflated bytes go from the inflater to the writer in blocks, a few ahead: enough that neither waits for the other's
// hiccups, and small enough to stay in the processor's cache.
const (
	blockSize  = 256 << 10
	blockCount = 8
)

// maxZstdWindow is what a zstd layer may ask for in memory.
// Source: containerd reads layers with the library's default of 64 MiB (klauspost zstd.WithDecoderMaxWindow), and zstd
// itself refuses more than 128 MiB unless told otherwise.
const maxZstdWindow = 128 << 20

// decompress writes the tar within a layer to out. Like containerd it trusts the first bytes over the media type, but for a
// layer that is declared uncompressed.
func decompress(mediaType string, in io.Reader, out io.Writer) error {
	buffered := bufio.NewReaderSize(in, 64<<10)
	head, err := buffered.Peek(4)
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	var tarStream io.Reader = buffered
	switch {
	case mediaType == ocispec.MediaTypeImageLayer:
	case bytes.HasPrefix(head, []byte{0x1f, 0x8b, 0x08}):
		tarStream = inflate.NewReader(buffered)
	case bytes.Equal(head, []byte{0x28, 0xb5, 0x2f, 0xfd}), len(head) == 4 && head[0]&0xf0 == 0x50 && bytes.Equal(head[1:], []byte{0x2a, 0x4d, 0x18}):
		decoder, err := zstd.NewReader(buffered, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(maxZstdWindow), zstd.WithDecoderLowmem(true))
		if err != nil {
			return fmt.Errorf("read zstd: %w", err)
		}
		defer decoder.Close()
		tarStream = decoder
	}
	if _, err := io.Copy(out, onlyReader{tarStream}); err != nil {
		return err
	}
	_, err = io.Copy(io.Discard, buffered) // what follows belongs to the digest
	return err
}

// onlyReader hides WriteTo: the pipe hands out its own blocks to read into.
type onlyReader struct{ io.Reader }

// pipe passes blocks from one goroutine to another. Unlike io.Pipe it lets the writer run ahead.
type pipe struct {
	ctx     context.Context //nolint:containedctx // ends with the Unpack that made it
	full    chan []byte
	empty   chan []byte
	current []byte // what the reader has left
	whole   []byte // the block that current is a part of
	err     error  // set before full is closed
	blocked time.Duration
}

func newPipe(ctx context.Context) *pipe {
	p := &pipe{ctx: ctx, full: make(chan []byte, blockCount), empty: make(chan []byte, blockCount)}
	for range blockCount {
		p.empty <- nil // made when first needed: a small layer takes one
	}
	return p
}

// ReadFrom implements io.ReaderFrom: it fills block after block.
func (p *pipe) ReadFrom(r io.Reader) (int64, error) {
	var total int64
	for {
		began := time.Now()
		var block []byte
		select {
		case block = <-p.empty:
		case <-p.ctx.Done():
			return total, context.Cause(p.ctx)
		}
		p.blocked += time.Since(began)
		if block == nil {
			block = make([]byte, blockSize)
		}
		n, err := fill(r, block)
		total += int64(n)
		if n > 0 {
			p.full <- block[:n]
		}
		if errors.Is(err, io.EOF) {
			return total, nil
		}
		if err != nil {
			return total, err
		}
	}
}

// fill reads until the block is full or the reader ends. Unlike io.ReadFull it keeps an end apart from a break.
func fill(r io.Reader, block []byte) (n int, err error) {
	for n < len(block) && err == nil {
		var more int
		more, err = r.Read(block[n:])
		n += more
	}
	if n == len(block) && errors.Is(err, io.EOF) {
		err = nil // the next call finds it again
	}
	return n, err
}

// Write implements io.Writer.
func (p *pipe) Write(data []byte) (int, error) {
	n, err := p.ReadFrom(bytes.NewReader(data))
	return int(n), err
}

func (p *pipe) closeWrite(err error) {
	p.err = err
	close(p.full)
}

// Read implements io.Reader.
func (p *pipe) Read(data []byte) (int, error) {
	if len(p.current) == 0 {
		if p.whole != nil {
			p.empty <- p.whole[:cap(p.whole)]
			p.whole = nil
		}
		select {
		case block, more := <-p.full:
			if !more {
				if p.err != nil {
					return 0, p.err
				}
				return 0, io.EOF
			}
			p.current, p.whole = block, block
		case <-p.ctx.Done():
			return 0, context.Cause(p.ctx)
		}
	}
	n := copy(data, p.current)
	p.current = p.current[n:]
	return n, nil
}
