package containerd

import (
	"context"
	"fmt"
	"time"

	"github.com/containerd/errdefs"

	"headstart.dev/prepull/containerd/internal/tokens"
)

// When the kubelet pulls an image that we pull as well, the CRI fetches all layers from the first that is missing. Layers
// that we have not begun are then left to it: fetching them twice helps nobody. An ingest is somebody's work when it has
// grown lately; one that lies there is what an interrupted pull left.
const (
	othersActive = 2 * time.Second
	othersPoll   = 250 * time.Millisecond
	// othersPatience is how many polls without any sign of work end the wait: the CRI is then unpacking, or has gone.
	othersPatience = 8
)

// othersPull reports whether somebody else fetches one of the image's layers right now.
func (e *directEngine) othersPull(ctx context.Context, p *pull) (bool, error) {
	if p.node.client == nil {
		return false, nil // nobody can pull before containerd is up
	}
	statuses, err := p.node.client.ContentStore().ListStatuses(ctx)
	if err != nil {
		return false, fmt.Errorf("list what is being fetched: %w", err)
	}
	refs := map[string]bool{}
	for _, l := range p.resolved.Layers {
		refs["layer-"+l.Digest.String()] = true
	}
	for _, s := range statuses {
		if _, mine := e.ours.Load(s.Ref); !mine && refs[s.Ref] && time.Since(s.UpdatedAt) < othersActive {
			return true, nil
		}
	}
	return false, nil
}

// begin takes a slot for a layer, unless somebody else brings it: then it waits, and reports true when the layer's
// snapshot has come that way.
func (e *directEngine) begin(ctx context.Context, p *pull, one part, rank tokens.Rank) (there bool, err error) {
	for idle := 0; ; {
		if err := e.slots.Acquire(ctx, rank); err != nil {
			return false, err
		}
		others, err := e.othersPull(ctx, p)
		if err == nil && !others && (idle == 0 || idle >= othersPatience) {
			return false, nil
		}
		e.slots.Release()
		if err != nil {
			return false, err
		}
		if idle++; others {
			idle = 1
		}
		timer := time.NewTimer(othersPoll)
		select {
		case <-ctx.Done():
			timer.Stop()
			return false, ctx.Err()
		case <-timer.C:
		}
		if there, err := p.node.hasSnapshot(ctx, one.chain); there || err != nil {
			return there, err
		}
	}
}

// hasSnapshot reports whether a layer and all below it are there, whoever brought them.
func (n *node) hasSnapshot(ctx context.Context, chain string) (bool, error) {
	if n.client == nil {
		return n.committed[chain], nil
	}
	_, err := n.client.SnapshotService(n.found.Snapshotter).Stat(ctx, chain)
	if err != nil && !errdefs.IsNotFound(err) {
		return false, fmt.Errorf("look for the snapshot %s: %w", chain, err)
	}
	return err == nil, nil
}
