package registry

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"sync"
	"time"
)

// The measure of connections: rates of the last windows of all ranges.
const (
	slowWindow   = 2 * time.Second
	slowShare    = 4         // a rate below a quarter of the median is slow
	slowMinRest  = 256 << 10 // a rest below this is not worth another request
	slowMinRates = 4         // windows that make a median
	keptRates    = 32
)

// readBlock is how much is read from a connection at once; a rate limit is applied in such steps.
const readBlock = 128 << 10

// goodputWindow is what the goodput of all requests together is measured over: several times a range's round trips, and a
// small part of a pull.
const goodputWindow = 500 * time.Millisecond

// goodputForgotten is how long nothing may be fetched before what was learned of the network counts no longer.
const goodputForgotten = time.Minute

// pace knows how fast connections are, and how many of them are worth having: see climb. What registries refuse comes
// before that.
type pace struct {
	mu      sync.Mutex
	rates   []float64 // bytes a second, of the last windows of all ranges
	next    int
	climb   climb
	cutAt   time.Time
	changed func(limit int)

	// The present window: since when, what came, and the time of all requests added up.
	since   time.Time
	bytes   int64
	flown   time.Duration
	flights int       // requests under way
	seen    time.Time // flown is right up to then

	// What second requests for slow ranges may cost, see hedge.
	came   int64 // bytes of all ranges
	hedged int64 // of these, bytes of second requests
	hedges int   // second requests under way
}

func newPace(connections int, changed func(int)) *pace {
	return &pace{climb: newClimb(connections), changed: changed}
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
	p.cutAt = time.Now()
	p.changed(p.climb.cut())
	p.open(p.cutAt)
}

// begin counts a request that goes out.
func (p *pace) begin(now time.Time) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.flights == 0 && now.Sub(p.seen) > goodputForgotten {
		p.climb = newClimb(p.climb.most)
		p.changed(p.climb.limit)
		p.open(now)
	}
	p.tick(now)
	p.flights++
}

// end counts a request that is over, and the bytes that it brought.
func (p *pace) end(now time.Time, bytes int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tick(now)
	p.flights--
	p.came += bytes
}

// got counts bytes as they come, and judges a window when it is over.
func (p *pace) got(now time.Time, bytes int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tick(now)
	p.bytes += int64(bytes)
	elapsed := now.Sub(p.since)
	if elapsed < goodputWindow {
		return
	}
	limit := p.climb.limit
	switch mean := p.flown.Seconds() / elapsed.Seconds(); {
	case p.telling(elapsed, mean):
		p.climb.window(float64(p.bytes) / elapsed.Seconds())
	case mean < float64(limit)*busyShare:
		p.climb.regain()
	}
	if p.climb.limit != limit {
		p.changed(p.climb.limit)
	}
	p.open(now)
}

// busyShare is the share of the requests that there may be which is under way, on the mean, while the network is the limit.
const busyShare = 3.0 / 4

// telling reports whether a window says something of the network, in which mean requests were under way. When a quarter of the requests that there may be were
// lacking, there was nothing more to fetch, or no room because the processor is behind. When there were more, a lower
// limit has just been set. And when nothing came for a while, what came then is not what the network brings.
func (p *pace) telling(elapsed time.Duration, mean float64) bool {
	limit := float64(p.climb.limit)
	return elapsed < 2*goodputWindow && mean >= limit*busyShare && mean <= limit+float64(p.hedges)+0.5
}

// tick brings the time of requests up to date.
func (p *pace) tick(now time.Time) {
	p.flown += time.Duration(p.flights) * now.Sub(p.seen)
	p.seen = now
}

// open begins a window.
func (p *pace) open(now time.Time) { p.since, p.seen, p.bytes, p.flown = now, now, 0, 0 }

// add records a rate. Slow ones count as well: when most connections have become slow, that is the measure.
func (p *pace) add(rate float64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.rates) < keptRates {
		p.rates = append(p.rates, rate)
	} else {
		p.rates[p.next] = rate
	}
	p.next = (p.next + 1) % keptRates
}

// median is the usual rate of a connection; 0 while too little is known.
func (p *pace) median() float64 {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.rates) < slowMinRates {
		return 0
	}
	return median(p.rates)
}

// stallTimeout is how long a connection may stay silent: as long as TCP hiccups take when nothing is known, short when
// the others are fast.
func (p *pace) stallTimeout() time.Duration {
	if p.median() > 1<<20 {
		return 2 * slowWindow
	}
	return bodyStallTimeout
}

func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}

// fill reads a body into what is missing of a lane.
func (rd *Reader) fill(ctx context.Context, body io.ReadCloser, l *lane) error {
	cl := rd.repo.client
	st := newStall(body, cl.pace.stallTimeout())
	defer st.stop()
	windowStart, windowBytes, got := time.Now(), 0, 0
	for got < len(l.data) {
		n, err := st.Read(l.data[got:min(len(l.data), got+readBlock)])
		got += n
		windowBytes += n
		l.got.Store(int64(got))
		cl.pace.got(time.Now(), n)
		began := time.Now()
		l.save(got)
		windowStart = windowStart.Add(time.Since(began)) // a slow disk is not the connection's fault
		if n > 0 && rd.options.OnBytes != nil {
			rd.options.OnBytes(int64(n))
		}
		if got == len(l.data) {
			break
		}
		if errors.Is(err, io.EOF) {
			return fmt.Errorf("the body ended %d bytes early: %w", len(l.data)-got, io.ErrUnexpectedEOF)
		}
		if err != nil {
			return fmt.Errorf("read a range: %w", err)
		}
		if cl.limiter != nil {
			if err := cl.limiter.WaitN(ctx, n); err != nil {
				return err
			}
			continue // a capped connection says nothing about the network
		}
		if elapsed := time.Since(windowStart); elapsed >= slowWindow {
			cl.pace.add(float64(windowBytes) / elapsed.Seconds())
			windowStart, windowBytes = time.Now(), 0
		}
	}
	if elapsed := time.Since(windowStart); cl.limiter == nil && windowBytes > slowMinRest && elapsed > 0 {
		cl.pace.add(float64(windowBytes) / elapsed.Seconds())
	}
	return nil
}
