package registry

import (
	"context"
	"time"
)

// Hedging: one bad connection of sixteen would hold up a whole layer, and with it the image. A range that moves at less
// than a quarter of what the others do, or whose answer does not begin at all, is asked for a second time on another
// connection; whichever is complete first wins, and the other is cut.
//
// What it costs is bounded: two second requests at once, each for what is missing of one range (so two ranges of memory
// beside those of Config.Connections), and no more than a sixteenth of all bytes, after one range to begin with.
const (
	hedgeEvery     = 100 * time.Millisecond
	hedgeMinWindow = 500 * time.Millisecond // below that it is TCP's slow start that is measured
	maxHedges      = 2
	hedgeShare     = 16
)

// answer is how a request ended.
type answer struct {
	redirect string
	err      error
}

func (rd *Reader) start(ctx context.Context, h *host, l *lane, timeout time.Duration) <-chan answer {
	done := make(chan answer, 1)
	pace := rd.repo.client.pace
	pace.begin(time.Now())
	go func() {
		redirect, err := rd.request(ctx, h, l, timeout)
		pace.end(time.Now(), l.got.Load())
		done <- answer{redirect, err}
	}()
	return done
}

// hedge fills a lane by one request, and by a second beside it when that is much slower than others. It returns when
// both have ended: nobody writes to the lane any longer.
func (rd *Reader) hedge(h *host, l *lane, timeout time.Duration) (redirect string, err error) {
	firstCtx, cutFirst := context.WithCancel(rd.ctx)
	secondCtx, cutSecond := context.WithCancel(rd.ctx)
	defer cutFirst()
	defer cutSecond()
	pace := rd.repo.client.pace
	first := rd.start(firstCtx, h, l, timeout)
	var second <-chan answer
	var spare *lane // what the second request fills
	watch := newWatch()
	ticker := time.NewTicker(hedgeEvery)
	defer ticker.Stop()
	for {
		select {
		case a := <-first:
			if second == nil {
				return a.redirect, a.err
			}
			if a.err == nil {
				cutSecond()
			}
			b := <-second
			pace.endHedge(spare.got.Load())
			if a.err != nil {
				l.take(spare) // whole or in part: it need not come again
			}
			if a.err == nil || b.err != nil {
				return a.redirect, a.err
			}
			return b.redirect, nil
		case b := <-second:
			second = nil
			pace.endHedge(spare.got.Load())
			if b.err != nil {
				continue // the first goes on, and may be hedged again
			}
			cutFirst()
			<-first
			l.take(spare)
			return b.redirect, nil
		case now := <-ticker.C:
			got := l.got.Load()
			if second != nil || rd.repo.client.limiter != nil || !watch.slow(now, got, len(l.data), pace.median()) {
				continue
			}
			if rest := int64(len(l.data)) - got; pace.mayHedge(rest, int64(rd.repo.client.cfg.Chunk)) {
				rd.repo.client.cfg.Log.V(1).Info("slow range is asked for twice", "host", h.Host, "digest", rd.desc.Digest, "bytes", rest)
				spare = &lane{offset: l.offset + got, data: make([]byte, rest)}
				second = rd.start(secondCtx, h, spare, timeout)
			}
		}
	}
}

// take copies what another lane has that this one lacks. Both have ended.
func (l *lane) take(other *lane) {
	from := other.offset - l.offset
	if end := from + other.got.Load(); end > l.got.Load() {
		copy(l.data[from:end], other.data)
		l.got.Store(end)
	}
}

// watch follows one range.
type watch struct {
	since time.Time
	got   int64
}

func newWatch() *watch { return &watch{since: time.Now()} }

// slow reports whether the last window's rate is far below the usual one. A window is as long as two ranges take at
// the usual rate, within bounds.
func (w *watch) slow(now time.Time, got int64, size int, usual float64) bool {
	if usual <= 0 || int64(size)-got <= slowMinRest {
		return false
	}
	window := time.Duration(2 * float64(size) / usual * float64(time.Second))
	window = min(max(window, hedgeMinWindow), slowWindow)
	elapsed := now.Sub(w.since)
	if elapsed < window {
		return false
	}
	rate := float64(got-w.got) / elapsed.Seconds()
	w.since, w.got = now, got
	return rate*slowShare < usual
}

// mayHedge reserves a second request for so many bytes, if the bounds allow it.
func (p *pace) mayHedge(bytes, chunk int64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.hedges >= maxHedges || p.hedged+bytes > p.came/hedgeShare+chunk {
		return false
	}
	p.hedges++
	return true
}

// endHedge ends a second request that brought so many bytes.
func (p *pace) endHedge(bytes int64) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.hedges--
	p.hedged += bytes
}
