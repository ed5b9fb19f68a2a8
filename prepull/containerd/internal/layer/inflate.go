package layer

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"

	"github.com/klauspost/compress/zstd"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
)

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
		tarStream = newGzipReader(buffered)
	case bytes.Equal(head, []byte{0x28, 0xb5, 0x2f, 0xfd}), len(head) == 4 && head[0]&0xf0 == 0x50 && bytes.Equal(head[1:], []byte{0x2a, 0x4d, 0x18}):
		// One goroutine: only then the library also bounds the window of a frame that is one segment.
		decoder, err := zstd.NewReader(buffered, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxWindow(windowAllowed(Slots())), zstd.WithDecoderLowmem(true))
		if err != nil {
			return fmt.Errorf("read zstd: %w", err)
		}
		defer decoder.Close()
		tarStream = decoder
	}
	if _, err := io.Copy(out, onlyReader{tarStream}); err != nil {
		if errors.Is(err, zstd.ErrWindowSizeExceeded) || errors.Is(err, zstd.ErrDecoderSizeExceeded) {
			err = machineError{fmt.Errorf("%w: a zstd window of more than %d MiB", ErrMemory, windowAllowed(Slots())>>20)}
		}
		return err
	}
	_, err = io.Copy(io.Discard, buffered) // what follows belongs to the digest
	return err
}

// onlyReader hides WriteTo: the pipe hands out its own blocks to read into.
type onlyReader struct{ io.Reader }
