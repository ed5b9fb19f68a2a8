package controller

import (
	"context"
	"time"
)

// clock decides again what time alone changes: timeouts, reports that grow old, writes that were put off. One timer
// serves all nodes; without a deadline ahead it sleeps for ever.
func (e *Engine) clock(ctx context.Context) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		e.mu.Lock()
		now := e.now()
		for _, n := range e.wakes.due(now) {
			e.decide(n)
		}
		if !e.settleAt.IsZero() && !now.Before(e.settleAt) {
			e.settleClaims()
			e.decideAll()
		}
		next := earlier(e.wakes.first(), e.settleAt)
		e.mu.Unlock()
		timer.Stop()
		if !next.IsZero() {
			timer.Reset(max(next.Sub(now), time.Millisecond))
		}
		select {
		case <-ctx.Done():
			return
		case <-timer.C:
		case <-e.wakes.changed:
		}
	}
}
