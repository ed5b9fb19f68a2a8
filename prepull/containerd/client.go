package containerd

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"

	"headstart.dev/prepull/containerd/internal/registry"
	"headstart.dev/prepull/containerd/internal/tokens"
)

// clientEngine is containerd's own fetch and unpack, with the fetch in this process: for snapshotters into which nobody
// else can write, for nodes where SELinux decides who may, and for layers of kinds that only containerd can read. Ranges
// are fetched in parallel as for the direct engine; layers are unpacked one after the other, because containerd's
// parallel unpack makes directories that a layer only implies with other owners and modes than its serial one.
type clientEngine struct{}

func (clientEngine) name() string { return EngineClient }

func (clientEngine) unfit(*pull) string { return "" }

func (clientEngine) pull(ctx context.Context, p *pull) error {
	labelMap := images.ChildGCLabels
	if p.node.found.DiscardLayers {
		labelMap = images.ChildGCLabelsFilterLayers
	}
	fetched := &fetchedResolver{
		source: p.source, image: p.resolved, client: p.node.registry, progress: p.progress,
		options: registry.ReadOptions{Rank: tokens.Rank{Priority: p.image.Priority}},
		room:    p.node.roomFor,
	}
	began := time.Now()
	defer func() { p.progress.stage("pull", time.Since(began)) }()
	ctx, stop := p.node.aboveFloor(ctx)
	defer stop()
	missing, err := p.missingRecords(ctx)
	if err != nil {
		return err
	}
	_, err = p.node.client.Pull(
		ctx, p.name,
		client.WithResolver(fetched),
		client.WithPullSnapshotter(p.node.found.Snapshotter),
		client.WithPullUnpack,
		client.WithPullLabels(map[string]string{labelManaged: labelManagedValue}),
		client.WithChildLabelMap(labelMap),
	)
	err = floorCause(ctx, err)
	if err != nil {
		err = errors.Join(err, p.unname(ctx, missing))
	} else {
		p.named = missing
	}
	if err != nil && errors.Is(asNoRoom(err), ErrNoRoom) {
		// In this order: on a disk that is quite full containerd cannot remove a snapshot, not even its own clean-up.
		return errors.Join(err, fetched.abort(ctx, p.node.client.ContentStore()), p.node.removeActive(ctx))
	}
	return err
}

// unname removes the names that a failed pull may have made: containerd names an image before it has unpacked one of a kind
// that its unpacker does not know. Those of an image that is whole stay: whoever made it so meanwhile needs them.
func (p *pull) unname(ctx context.Context, names []string) error {
	asked, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTimeout)
	defer cancel()
	there, err := p.isThere(asked)
	if err != nil || there {
		return err
	}
	return p.node.removeRecords(ctx, names)
}

// removeActive removes the snapshots that the lease of the context keeps and that are not committed: containerd's unpacker
// prepares them before the blob comes.
func (n *node) removeActive(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTimeout)
	defer cancel()
	id, _ := leases.FromContext(ctx)
	kept, err := n.client.LeasesService().ListResources(ctx, leases.Lease{ID: id})
	if err != nil {
		return fmt.Errorf("list what the lease keeps: %w", err)
	}
	service := n.client.SnapshotService(n.found.Snapshotter)
	var errs []error
	for _, resource := range kept {
		if resource.Type != "snapshots/"+n.found.Snapshotter {
			continue
		}
		info, err := service.Stat(ctx, resource.ID)
		if err == nil && info.Kind == snapshots.KindActive {
			err = service.Remove(ctx, resource.ID)
		}
		if err != nil && !errdefs.IsNotFound(err) {
			errs = append(errs, fmt.Errorf("remove the snapshot %s: %w", resource.ID, err))
		}
	}
	return errors.Join(errs...)
}
