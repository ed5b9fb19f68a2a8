package containerd

import (
	"context"
	"io"
	"sync"
)

// flights runs one function a key at a time. Whoever comes while it runs waits and, when it went well, takes its result;
// when it did not, the next in line tries itself: an error may be that of a context which has ended.
type flights struct {
	mu      sync.Mutex
	running map[string]chan struct{}
}

func (f *flights) do(ctx context.Context, key string, fn func() error) error {
	for {
		f.mu.Lock()
		running, busy := f.running[key]
		if !busy {
			if f.running == nil {
				f.running = map[string]chan struct{}{}
			}
			done := make(chan struct{})
			f.running[key] = done
			f.mu.Unlock()
			err := fn() // finds what is there by itself: nothing is remembered here
			f.mu.Lock()
			delete(f.running, key)
			f.mu.Unlock()
			close(done)
			return err
		}
		f.mu.Unlock()
		select {
		case <-running:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// countingReader tells what passes through it.
type countingReader struct {
	io.Reader
	count func(int64)
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	c.count(int64(n))
	return n, err
}
