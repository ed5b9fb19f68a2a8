package nodestatus

import (
	"context"
	"math/rand/v2"
	"time"
)

const (
	firstDelay = 100 * time.Millisecond
	// lastDelay is how late a recovered API server is noticed at worst; a thousand nodes that retry at this pace send it
	// 200 requests a second.
	lastDelay = 5 * time.Second
)

// backoff is capped and exponential, with jitter, so that nodes that lost the API server together do not come back
// together.
type backoff struct{ delay time.Duration }

func (b *backoff) reset() { b.delay = 0 }

// next is the time to wait before the next attempt: half of it fixed, half random.
func (b *backoff) next() time.Duration {
	b.delay = min(max(b.delay*2, firstDelay), lastDelay)
	//nolint:gosec // jitter needs no secret
	return b.delay/2 + rand.N(b.delay/2)
}

// wait waits for next, and returns false when ctx ended first.
func (b *backoff) wait(ctx context.Context) bool { return pause(ctx, b.next()) }

// pause returns false when ctx ended before the time was over.
func pause(ctx context.Context, length time.Duration) bool {
	timer := time.NewTimer(length)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
