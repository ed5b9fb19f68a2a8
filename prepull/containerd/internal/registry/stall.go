package registry

import (
	"errors"
	"fmt"
	"io"
	"sync/atomic"
	"time"
)

// bodyStallTimeout ends a body of which nothing has come for so long. TCP itself would wait for minutes.
const bodyStallTimeout = 15 * time.Second

// A body that only drips is no better than one that has stalled: it ends when a window of waiting has brought less than
// this. A connection to be kept brings a thousand times as much; sixteen on a modem bring more.
const (
	dripWindow = time.Minute
	dripBytes  = 16 << 10
)

// errDrip: a body brings next to nothing.
var errDrip = errors.New("it only drips")

// stall is a body that ends with an error when nothing, or next to nothing, comes for a while. Only time in which somebody
// waits for it counts.
type stall struct {
	body    io.ReadCloser
	timeout time.Duration
	timer   *time.Timer
	stalled atomic.Bool

	window time.Duration // of a drip; the constant but in tests
	waited time.Duration
	came   int
}

func newStall(body io.ReadCloser, timeout time.Duration) *stall {
	s := &stall{body: body, timeout: timeout, window: dripWindow}
	s.timer = time.AfterFunc(timeout, func() {
		s.stalled.Store(true)
		_ = body.Close() // unblocks the Read
	})
	s.timer.Stop()
	return s
}

func (s *stall) Read(p []byte) (int, error) {
	began := time.Now()
	s.timer.Reset(s.timeout)
	n, err := s.body.Read(p)
	s.timer.Stop()
	if err != nil && s.stalled.Load() {
		return n, fmt.Errorf("no byte came for %s", s.timeout)
	}
	s.came += n
	if s.waited += time.Since(began); s.waited >= s.window {
		if err == nil && s.came < dripBytes {
			err = fmt.Errorf("%d bytes came in %s: %w", s.came, s.waited.Round(time.Second), errDrip)
		}
		s.waited, s.came = 0, 0
	}
	return n, err
}

func (s *stall) stop() { s.timer.Stop() }
