package registry

import (
	"context"
	"fmt"
	"sync"

	"golang.org/x/sys/unix"

	"headstart.dev/prepull/containerd/internal/tokens"
)

// buffers are what bounds the memory and the connections of all pulls together: a range is requested only when there is
// a buffer for all of it, and the buffer is free again when the range has been consumed. They lie outside the Go heap,
// so that 128 MiB of them do not let the collector hold as much again.
type buffers struct {
	size   int
	tokens *tokens.Tokens

	mu   sync.Mutex
	free [][]byte
	out  int
}

func newBuffers(count, size int) *buffers {
	return &buffers{size: size, tokens: tokens.New(count)}
}

// get waits for a buffer.
func (b *buffers) get(ctx context.Context, rank tokens.Rank) ([]byte, error) {
	if err := b.tokens.Acquire(ctx, rank); err != nil {
		return nil, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.out++
	if last := len(b.free) - 1; last >= 0 {
		buf := b.free[last]
		b.free = b.free[:last]
		return buf, nil
	}
	buf, err := unix.Mmap(-1, 0, b.size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		b.out--
		b.tokens.Release()
		return nil, fmt.Errorf("map a range buffer of %d bytes: %w", b.size, err)
	}
	return buf, nil
}

// put gives a buffer back. When none is out any longer, the memory goes back to the system: an agent that has nothing
// to pull holds none.
func (b *buffers) put(buf []byte) {
	b.mu.Lock()
	b.free = append(b.free, buf)
	if b.out--; b.out == 0 {
		for _, one := range b.free {
			_ = unix.Munmap(one)
		}
		b.free = nil
	}
	b.mu.Unlock()
	b.tokens.Release()
}
