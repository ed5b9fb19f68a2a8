package registry

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"time"
)

// A range is too slow when, over slowWindow, it moves at less than a quarter of the median of the others: one bad
// connection of sixteen would hold up a whole layer. It is cut and goes on over another connection where it stopped, so
// that no byte comes twice; the bytes are few that another connection would have to catch up.
const (
	slowWindow   = 2 * time.Second
	slowShare    = 4
	slowMinRest  = 256 << 10 // a rest below this is not worth another request
	slowMinRates = 4         // windows that make a median
	keptRates    = 32
)

// readBlock is how much is read from a connection at once; a rate limit is applied in such steps.
const readBlock = 128 << 10

// errTooSlow ends a request whose range goes on over another connection.
var errTooSlow = errors.New("slower than the other connections")

// pace knows how fast connections are, and how many the registries bear: additive increase, multiplicative decrease.
type pace struct {
	mu      sync.Mutex
	rates   []float64 // bytes a second, of the last windows of all ranges
	next    int
	limit   int // connections
	most    int
	cutAt   time.Time
	good    int
	changed func(limit int)
}

func newPace(connections int, changed func(int)) *pace {
	return &pace{limit: connections, most: connections, changed: changed}
}

// cutRest keeps one burst of 429s, which hits all connections at once, from counting as many.
const cutRest = time.Second

// failed halves the number of connections when a registry says that it is too much.
func (p *pace) failed(err error) {
	status, ok := errors.AsType[*statusError](err)
	if !ok || (status.code != http.StatusTooManyRequests && status.code != http.StatusServiceUnavailable) {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	if time.Since(p.cutAt) < cutRest {
		return
	}
	p.cutAt, p.good = time.Now(), 0
	p.limit = max(1, p.limit/2)
	p.changed(p.limit)
}

// finished counts a range that came through; one more connection for every full round of them.
func (p *pace) finished() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.limit == p.most {
		return
	}
	if p.good++; p.good >= p.limit {
		p.good = 0
		p.limit++
		p.changed(p.limit)
	}
}

// add records a rate and reports whether it is too slow beside the others.
func (p *pace) add(rate float64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	slow := len(p.rates) >= slowMinRates && rate*slowShare < median(p.rates)
	if slow {
		return true // not recorded: slow ones must not become the measure
	}
	if len(p.rates) < keptRates {
		p.rates = append(p.rates, rate)
	} else {
		p.rates[p.next] = rate
	}
	p.next = (p.next + 1) % keptRates
	return false
}

// stallTimeout is how long a connection may stay silent: as long as TCP hiccups take when nothing is known, short when
// the others are fast.
func (p *pace) stallTimeout() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.rates) >= slowMinRates && median(p.rates) > 1<<20 {
		return 2 * slowWindow
	}
	return bodyStallTimeout
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}

// fill reads a body into what is missing of a chunk.
func (rd *Reader) fill(body io.ReadCloser, c *chunk, got *int) error {
	cl := rd.repo.client
	st := newStall(body, cl.pace.stallTimeout())
	defer st.stop()
	windowStart, windowBytes := time.Now(), 0
	for *got < len(c.data) {
		end := min(len(c.data), *got+readBlock)
		n, err := st.Read(c.data[*got:end])
		*got += n
		windowBytes += n
		if n > 0 && rd.options.OnBytes != nil {
			rd.options.OnBytes(int64(n))
		}
		if *got == len(c.data) {
			break
		}
		if errors.Is(err, io.EOF) {
			return fmt.Errorf("the body ended %d bytes early: %w", len(c.data)-*got, io.ErrUnexpectedEOF)
		}
		if err != nil {
			return fmt.Errorf("read a range: %w", err)
		}
		if cl.limiter != nil {
			st.timer.Reset(time.Hour) // the wait is ours, not the connection's
			if err := cl.limiter.WaitN(rd.ctx, n); err != nil {
				return err
			}
			st.timer.Reset(st.timeout)
			continue // a capped connection says nothing about the network
		}
		if elapsed := time.Since(windowStart); elapsed >= slowWindow {
			if cl.pace.add(float64(windowBytes)/elapsed.Seconds()) && len(c.data)-*got > slowMinRest {
				return errTooSlow
			}
			windowStart, windowBytes = time.Now(), 0
		}
	}
	if elapsed := time.Since(windowStart); cl.limiter == nil && windowBytes > slowMinRest && elapsed > 0 {
		cl.pace.add(float64(windowBytes) / elapsed.Seconds())
	}
	cl.pace.finished()
	return nil
}
