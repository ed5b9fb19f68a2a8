package controller

import (
	"context"
	"fmt"
	"time"
)

// Pace of looking for an API that is not served yet: at first quickly, because a CRD and what uses it are often applied
// together, then seldom.
const (
	paceFirst = time.Second
	paceMost  = time.Minute
)

// pace waits longer each time.
type pace struct{ delay time.Duration }

func newPace() *pace { return &pace{delay: paceFirst} }

func (p *pace) next(ctx context.Context) error {
	timer := time.NewTimer(p.delay)
	defer timer.Stop()
	p.delay = min(2*p.delay, paceMost)
	select {
	case <-ctx.Done():
		return fmt.Errorf("wait for an API to be served: %w", context.Cause(ctx))
	case <-timer.C:
		return nil
	}
}
