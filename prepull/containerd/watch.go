package containerd

import (
	"context"
	"fmt"
	"time"

	"github.com/containerd/errdefs"
)

const (
	// watchRetry is how soon a containerd that is away is looked for again.
	watchRetry = time.Second
	// watchBurst is how long the first removal waits for more: the kubelet's garbage collection removes one image after
	// another, and an image is several records.
	watchBurst = 200 * time.Millisecond
)

// Watch tells which images are there, by the names of their records, when it begins and whenever some may have gone,
// until ctx ends: after a removal, and after containerd was away. at is from before they were looked up.
func (s *Store) Watch(ctx context.Context, present func(there map[string]bool, at time.Time)) {
	for ctx.Err() == nil {
		err := s.watch(ctx, present)
		if ctx.Err() == nil {
			s.cfg.Log.V(1).Info("containerd's images are not watched, will try again", "cause", err.Error())
		}
		timer := time.NewTimer(watchRetry)
		select {
		case <-ctx.Done():
			timer.Stop()
		case <-timer.C:
		}
	}
}

func (s *Store) watch(ctx context.Context, present func(there map[string]bool, at time.Time)) error {
	n, err := s.connect(ctx)
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(n.context(ctx))
	defer stop()
	removals, failed := n.client.Subscribe(ctx, `topic=="/images/delete",namespace==`+s.cfg.Namespace)
	due := time.NewTimer(0)
	defer due.Stop()
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case err := <-failed:
			if err == nil {
				err = errdefs.ErrUnavailable // the stream ended in good order: containerd stops
			}
			s.forget(n, err)
			return fmt.Errorf("watch containerd's images: %w", err)
		case <-removals:
			due.Reset(watchBurst)
		case <-due.C:
			at := time.Now()
			there, err := n.recordedNames(ctx)
			if err != nil {
				s.forget(n, err)
				return err
			}
			present(there, at)
		}
	}
}

func (n *node) recordedNames(ctx context.Context) (map[string]bool, error) {
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	records, err := n.client.ImageService().List(ctx)
	if err != nil {
		return nil, fmt.Errorf("list containerd's images: %w", err)
	}
	there := make(map[string]bool, len(records))
	for _, record := range records {
		there[record.Name] = true
	}
	return there, nil
}
