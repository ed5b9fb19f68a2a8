package containerd

import (
	"context"
	"runtime"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/images"
	"golang.org/x/sync/semaphore"
)

// The client engine's tuning: measured best on a node with one connection limited to 40 MiB/s, see test/bench/pull.
const (
	clientRequests  = 16      // requests in flight for all layers of one image
	clientChunk     = 8 << 20 // bytes of one range
	clientUnpackMax = 8       // layers that are unpacked at once, at most
)

// clientEngine is containerd's own fetch and unpack in this process. It keeps layers' blobs where the node keeps them, so
// it is the one for nodes that serve their layers to peers or that use several snapshotters.
type clientEngine struct{}

func (clientEngine) name() string { return EngineClient }

func (clientEngine) unfit(*pull) string { return "" }

func (clientEngine) pull(ctx context.Context, p *pull) error {
	labelMap := images.ChildGCLabels
	if p.node.found.DiscardLayers {
		labelMap = images.ChildGCLabelsFilterLayers
	}
	parallel := int64(min(clientUnpackMax, max(2, runtime.NumCPU())))
	fetched := &fetchedResolver{source: p.source, image: p.resolved, client: p.node.registry, progress: p.progress}
	_, err := p.node.client.Pull(ctx, p.name,
		client.WithResolver(fetched),
		client.WithPullSnapshotter(p.node.found.Snapshotter),
		client.WithPullUnpack,
		client.WithPullLabels(map[string]string{labelManaged: labelManagedValue}),
		client.WithChildLabelMap(labelMap),
		client.WithUnpackOpts([]client.UnpackOpt{client.WithUnpackLimiter(semaphore.NewWeighted(parallel))}),
	)
	return err
}
