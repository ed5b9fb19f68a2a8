package containerd

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/go-digest"
)

// leaseExpiry is how long an unfinished pull is kept from containerd's garbage collection: a node that was switched off
// over night still resumes.
const leaseExpiry = 24 * time.Hour

// leasePrefix names our leases; the image's digest follows.
const leasePrefix = "headstart/"

// labelExpire on a lease is when it ends. containerd passes over an ended lease and never removes it.
// Source: containerd core/metadata/gc.go@v2.4.2.
const labelExpire = "containerd.io/gc.expire"

// holds counts the pulls that work under a lease: names of one image share it, and the first that is done must not take
// it from the others.
type holds struct {
	mu    sync.Mutex
	count map[string]int
}

func (h *holds) take(id string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.count == nil {
		h.count = map[string]int{}
	}
	h.count[id]++
}

// leave reports whether nobody else holds the lease.
func (h *holds) leave(id string) (last bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.count[id]--
	if last = h.count[id] == 0; last {
		delete(h.count, id)
	}
	return last
}

// lease keeps all that is done under the returned context from garbage collection. It is named after the image, so that
// the next attempt, of this process or another, goes on with it. The returned function ends the hold; with done it
// deletes the lease, unless another pull works under it: only an image that is complete needs it no longer.
func (n *node) lease(ctx context.Context, dgst digest.Digest) (context.Context, func(ctx context.Context, done bool) error, error) {
	id := leasePrefix + dgst.String()
	n.holds.take(id)
	if err := n.ensureLease(ctx, id, time.Now()); err != nil {
		n.holds.leave(id)
		return ctx, nil, err
	}
	return leases.WithLease(ctx, id), func(ctx context.Context, done bool) error {
		if last := n.holds.leave(id); !last || !done {
			return nil
		}
		return n.deleteLease(ctx, id)
	}, nil
}

// ensureLease makes a lease, or finds one that holds for a good while yet. One that ends soon is replaced: its resources
// are kept by another for the moment in which there is none of this name.
func (n *node) ensureLease(ctx context.Context, id string, now time.Time) error {
	manager := n.client.LeasesService()
	_, err := manager.Create(ctx, leases.WithID(id), leases.WithExpiration(leaseExpiry))
	if err == nil {
		return nil
	}
	if !errdefs.IsAlreadyExists(err) {
		return fmt.Errorf("create a lease: %w", err)
	}
	found, err := manager.List(ctx, fmt.Sprintf("id==%q", id))
	if err != nil {
		return fmt.Errorf("look at the lease: %w", err)
	}
	if len(found) == 1 && leaseLeft(found[0], now) > leaseExpiry/2 {
		return nil
	}
	bridge, err := manager.Create(ctx, leases.WithRandomID(), leases.WithExpiration(leaseExpiry))
	if err != nil {
		return fmt.Errorf("create a lease: %w", err)
	}
	err = n.copyLease(ctx, leases.Lease{ID: id}, bridge)
	if err == nil {
		err = n.deleteLease(ctx, id)
	}
	if err == nil {
		_, err = manager.Create(ctx, leases.WithID(id), leases.WithExpiration(leaseExpiry))
	}
	if err == nil || errdefs.IsAlreadyExists(err) {
		err = n.copyLease(ctx, bridge, leases.Lease{ID: id})
	}
	return errors.Join(err, n.deleteLease(ctx, bridge.ID))
}

// copyLease adds what one lease keeps to another.
func (n *node) copyLease(ctx context.Context, from, to leases.Lease) error {
	manager := n.client.LeasesService()
	resources, err := manager.ListResources(ctx, from)
	if err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("list what the lease keeps: %w", err)
	}
	for _, resource := range resources {
		if err := manager.AddResource(ctx, to, resource); err != nil && !errdefs.IsNotFound(err) {
			return fmt.Errorf("renew the lease: %w", err)
		}
	}
	return nil
}

func (n *node) deleteLease(ctx context.Context, id string) error {
	if err := n.client.LeasesService().Delete(ctx, leases.Lease{ID: id}); err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("delete the lease: %w", err)
	}
	return nil
}

// collectGarbage has containerd remove what nothing refers to, now and not some time: room is short.
func (n *node) collectGarbage(ctx context.Context) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTimeout)
	defer cancel()
	manager := n.client.LeasesService()
	l, err := manager.Create(ctx, leases.WithRandomID(), leases.WithExpiration(leaseExpiry))
	if err == nil {
		err = manager.Delete(ctx, l, leases.SynchronousDelete)
	}
	if err != nil {
		n.log.V(1).Info("garbage is not collected", "reason", err.Error())
	}
}

// leaseLeft is how long a lease still holds. One without an end is not ours to judge: it holds.
func leaseLeft(l leases.Lease, now time.Time) time.Duration {
	value, limited := l.Labels[labelExpire]
	if !limited {
		return leaseExpiry
	}
	until, err := time.Parse(time.RFC3339, value)
	if err != nil {
		return 0
	}
	return until.Sub(now)
}

// sweepLeases deletes our leases that have ended: containerd keeps their names for ever.
func (n *node) sweepLeases(ctx context.Context) error {
	all, err := n.client.LeasesService().List(ctx)
	if err != nil {
		return fmt.Errorf("list the leases: %w", err)
	}
	var errs []error
	for _, l := range all {
		if strings.HasPrefix(l.ID, leasePrefix) && leaseLeft(l, time.Now()) < 0 {
			errs = append(errs, n.deleteLease(ctx, l.ID))
		}
	}
	return errors.Join(errs...)
}
