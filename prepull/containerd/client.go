package containerd

import (
	"context"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/images"

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
	_, err := p.node.client.Pull(
		ctx, p.name,
		client.WithResolver(fetched),
		client.WithPullSnapshotter(p.node.found.Snapshotter),
		client.WithPullUnpack,
		client.WithPullLabels(map[string]string{labelManaged: labelManagedValue}),
		client.WithChildLabelMap(labelMap),
	)
	return err
}
