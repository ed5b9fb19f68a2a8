package registry

import (
	"fmt"
	"io"
	"sync/atomic"
	"time"
)

// bodyStallTimeout ends a body of which nothing has come for so long. TCP itself would wait for minutes.
const bodyStallTimeout = 15 * time.Second

// stall is a body that ends with an error when nothing comes for a while.
type stall struct {
	body    io.ReadCloser
	timeout time.Duration
	timer   *time.Timer
	stalled atomic.Bool
}

func newStall(body io.ReadCloser, timeout time.Duration) *stall {
	s := &stall{body: body, timeout: timeout}
	s.timer = time.AfterFunc(timeout, func() {
		s.stalled.Store(true)
		_ = body.Close() // unblocks the Read
	})
	return s
}

func (s *stall) Read(p []byte) (int, error) {
	n, err := s.body.Read(p)
	if n > 0 {
		s.timer.Reset(s.timeout)
	}
	if err != nil && s.stalled.Load() {
		err = fmt.Errorf("no byte came for %s", s.timeout)
	}
	return n, err
}

func (s *stall) stop() { s.timer.Stop() }
