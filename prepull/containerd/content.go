package containerd

import (
	"bytes"
	"context"
	"fmt"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/remotes"
	"github.com/containerd/containerd/v2/core/remotes/docker"
	"github.com/containerd/containerd/v2/pkg/labels"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/image-spec/identity"
)

// writeContent puts index, manifest and config into the content store, with the labels that containerd's own pull gives
// them: each refers to its children, to layers only where the node keeps them, and all know where they came from.
func (p *pull) writeContent(ctx context.Context) error {
	store := p.node.client.ContentStore()
	source, err := docker.AppendDistributionSourceLabel(store, p.source)
	if err != nil {
		return fmt.Errorf("label the content: %w", err)
	}
	labelMap := images.ChildGCLabelsFilterLayers
	if !p.node.found.DiscardLayers {
		labelMap = images.ChildGCLabels
	}
	children := images.SetChildrenMappedLabels(store, images.ChildrenHandler(store), labelMap)
	for _, blob := range p.resolved.Blobs {
		err := content.WriteBlob(ctx, store, remotes.MakeRefKey(ctx, blob.Desc), bytes.NewReader(blob.Data), blob.Desc)
		if err != nil {
			return fmt.Errorf("write the blob %s: %w", blob.Desc.Digest, err)
		}
		for _, label := range []images.HandlerFunc{children, source} {
			if _, err := label(ctx, blob.Desc); err != nil {
				return fmt.Errorf("label the blob %s: %w", blob.Desc.Digest, err)
			}
		}
	}
	return nil
}

// labelLayers says of the layers' blobs, where the node keeps them, where they came from and what they unpack to.
func (p *pull) labelLayers(ctx context.Context) error {
	if p.node.found.DiscardLayers {
		return nil
	}
	store := p.node.client.ContentStore()
	source, err := docker.AppendDistributionSourceLabel(store, p.source)
	if err != nil {
		return fmt.Errorf("label the layers: %w", err)
	}
	for i, desc := range p.resolved.Layers {
		_, err := source(ctx, desc)
		if err == nil {
			_, err = store.Update(ctx, content.Info{
				Digest: desc.Digest, Labels: map[string]string{labels.LabelUncompressed: p.resolved.DiffIDs[i].String()},
			}, "labels."+labels.LabelUncompressed)
		}
		// A layer whose snapshot was there already needs no blob.
		if err != nil && !errdefs.IsNotFound(err) {
			return fmt.Errorf("label the layer %s: %w", desc.Digest, err)
		}
	}
	return nil
}

// labelConfig makes the config refer to the top snapshot: from now on the chain outlives the lease.
func (p *pull) labelConfig(ctx context.Context) error {
	label := p.node.snapshotLabel()
	_, err := p.node.client.ContentStore().Update(ctx, content.Info{
		Digest: p.resolved.Config.Digest,
		Labels: map[string]string{label: identity.ChainID(p.resolved.DiffIDs).String()},
	}, "labels."+label)
	if err != nil {
		return fmt.Errorf("label the config %s: %w", p.resolved.Config.Digest, err)
	}
	return nil
}
