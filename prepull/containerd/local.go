package containerd

import (
	"context"
	"fmt"
	"strings"

	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/containerd/platforms"

	"headstart.dev/prepull/containerd/internal/registry"
)

// resolve finds out what the name stands for: at the registry, or on the node when the image is there and the name fixes
// its digest. When the registry does not answer, or no longer knows the name, an image that is complete on the node is as
// warm as before: a pod that names it starts.
func (p *pull) resolve(ctx context.Context) error {
	source, fixed := p.source, strings.Contains(p.name, "@")
	if p.image.AtDigest != "" {
		// Of name:tag@digest the digest is fetched; name:tag stays the name of the record.
		name, _, _ := strings.Cut(source, "@")
		source, fixed = name+"@"+p.image.AtDigest, true
	}
	var local *registry.Image
	if fixed {
		var err error
		if local, err = p.local(ctx); err != nil {
			return err
		}
		if local != nil && p.image.AtDigest != "" && local.Target.Digest.String() != p.image.AtDigest {
			local = nil // the tag has moved on
		}
	}
	if local == nil {
		resolved, err := p.node.registry.Resolve(ctx, source, platforms.Default())
		if err == nil {
			p.use(resolved)
			return nil
		}
		if fixed || ctx.Err() != nil {
			return err
		}
		there, localErr := p.local(ctx)
		if localErr != nil || there == nil {
			return err
		}
		p.node.log.Info("image is taken as it is on the node", "image", p.name, "reason", err.Error())
		local = there
	}
	p.use(local)
	return nil
}

func (p *pull) use(image *registry.Image) {
	p.resolved = image
	p.progress.resolved(image.Target.Digest.String(), image.TotalBytes())
}

// local returns the image as the node has it under its name; nil when it is not there or not complete.
func (p *pull) local(ctx context.Context) (*registry.Image, error) { return p.localAs(ctx, p.name) }

// localAs looks under another name.
func (p *pull) localAs(ctx context.Context, name string) (*registry.Image, error) {
	record, err := p.node.client.ImageService().Get(ctx, name)
	if errdefs.IsNotFound(err) {
		return nil, nil //nolint:nilnil // not being there is the usual case, and no error
	}
	if err != nil {
		return nil, fmt.Errorf("look for the image: %w", err)
	}
	store := p.node.client.ContentStore()
	manifest, err := images.Manifest(ctx, store, record.Target, platforms.Default())
	if err != nil {
		return nil, nil //nolint:nilerr,nilnil // a manifest that cannot be read is fetched
	}
	image := &registry.Image{Target: record.Target, Config: manifest.Config, Layers: manifest.Layers, Annotations: manifest.Annotations}
	if image.DiffIDs, err = images.RootFS(ctx, store, manifest.Config); err != nil {
		return nil, nil //nolint:nilerr,nilnil // as above
	}
	data, err := content.ReadBlob(ctx, store, manifest.Config)
	if err != nil {
		return nil, nil //nolint:nilerr,nilnil // as above
	}
	image.Blobs = []registry.Blob{{Desc: manifest.Config, Data: data}}
	probe := pull{node: p.node, resolved: image}
	there, err := probe.isThere(ctx)
	if err != nil || !there {
		return nil, err
	}
	return image, nil
}
