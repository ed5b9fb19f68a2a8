package nodestatus

import (
	"context"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/watch"
)

// stableWatch is how long a watch must have lasted to be no failure.
const stableWatch = 30 * time.Second

// watch sends every state of the Node, and nil while there is none, until ctx ends. It returns an error when the server
// does not know us any more.
func (p *Publisher) watch(ctx context.Context, node Node, events chan<- *corev1.Node) error {
	var retry backoff
	failing := false
	for {
		started := time.Now()
		err := p.watchOnce(ctx, node, events)
		switch {
		case ctx.Err() != nil:
			return nil //nolint:nilerr // the end of ctx is the cause, and no failure
		case apierrors.IsUnauthorized(err):
			return err
		case err != nil && !failing:
			failing = true
			p.log.Error(err, "watch node, goes on trying", "advice", advice(err))
		case err == nil:
			failing = false
		}
		if time.Since(started) > stableWatch {
			retry.reset()
		}
		if !retry.wait(ctx) {
			return nil
		}
	}
}

// watchOnce lists and then follows the Node until the stream ends.
func (p *Publisher) watchOnce(ctx context.Context, node Node, events chan<- *corev1.Node) error {
	requestCtx, cancel := context.WithTimeout(ctx, requestTimeout)
	current, resourceVersion, err := node.Get(requestCtx)
	cancel()
	if err != nil {
		return err
	}
	if !send(ctx, events, current) {
		return nil
	}
	stream, err := node.Watch(ctx, resourceVersion)
	if err != nil {
		return err
	}
	defer stream.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case event, open := <-stream.ResultChan():
			if !open {
				return nil
			}
			switch event.Type {
			case watch.Added, watch.Modified:
				if seen, ok := event.Object.(*corev1.Node); ok && !send(ctx, events, seen) {
					return nil
				}
			case watch.Deleted:
				if !send(ctx, events, nil) {
					return nil
				}
			case watch.Error:
				return apierrors.FromObject(event.Object)
			case watch.Bookmark:
			}
		}
	}
}

func send(ctx context.Context, events chan<- *corev1.Node, node *corev1.Node) bool {
	select {
	case events <- node:
		return true
	case <-ctx.Done():
		return false
	}
}
