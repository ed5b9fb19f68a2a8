package controller

import (
	"context"
	"fmt"
	"time"

	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
)

// Pace of looking for an API that is not served yet: at first quickly, because a CRD and what uses it are often applied
// together, then seldom.
const (
	paceFirst = time.Second
	paceMost  = time.Minute
)

// Pace of trying a pod again whose lift failed. The default waits up to 1,000 s: a pod would be held for as long again as
// the API server was away, and far beyond its deadline.
const (
	retryFirst = 5 * time.Millisecond
	retryMost  = 30 * time.Second
)

func retries() workqueue.TypedRateLimiter[reconcile.Request] {
	return workqueue.NewTypedItemExponentialFailureRateLimiter[reconcile.Request](retryFirst, retryMost)
}

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
