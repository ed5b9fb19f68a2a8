package controller

import (
	"context"
	"time"
)

// bell wakes one goroutine. Ringing never blocks, and several rings before the goroutine looks are one.
type bell chan struct{}

func newBell() bell { return make(bell, 1) }

func (b bell) ring() {
	select {
	case b <- struct{}{}:
	default: // it rings already
	}
}

// each calls work whenever the bell rings, at most once a period, and when the time comes that work returned (zero:
// never), until ctx ends.
func (b bell) each(ctx context.Context, period time.Duration, work func() (again time.Time)) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	rest := time.NewTimer(0)
	defer rest.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-b:
		case <-timer.C:
		}
		if again := work(); !again.IsZero() {
			timer.Reset(max(time.Until(again), period))
		}
		rest.Reset(period)
		select {
		case <-ctx.Done():
			return
		case <-rest.C:
		}
	}
}
