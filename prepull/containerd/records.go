package containerd

import (
	"context"
	"fmt"
	"maps"
	"time"

	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/errdefs"
	"github.com/distribution/reference"
	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/identity"
)

// labelManaged on an image record is the CRI's: it may use the record.
// Source: containerd internal/cri/labels/labels.go@v2.4.2.
const (
	labelManaged      = "io.cri-containerd.image"
	labelManagedValue = "managed"
)

// recordNames returns the names that the CRI gives an image: its config's digest, repo:tag when there is a tag, and
// repo@digest. The last is what pods that are pinned by digest look for, and the one that the CRI does not add by
// itself to an image that it adopts.
func recordNames(name string, target, config digest.Digest) ([]string, error) {
	named, err := reference.ParseDockerRef(name)
	if err != nil {
		return nil, fmt.Errorf("parse image %q: %w", name, err)
	}
	names := []string{config.String()}
	if _, tagged := named.(reference.Tagged); tagged {
		names = append(names, named.String())
	}
	byDigest, err := reference.WithDigest(reference.TrimNamed(named), target)
	if err != nil {
		return nil, fmt.Errorf("name image %q by digest: %w", name, err)
	}
	return append(names, byDigest.String()), nil
}

// writeRecords makes the image visible. It comes last: the CRI does not look whether a record's snapshots exist.
// It returns the names of those that were not there before.
func (p *pull) writeRecords(ctx context.Context) (made []string, err error) {
	names, err := recordNames(p.name, p.resolved.Target.Digest, p.resolved.Config.Digest)
	if err != nil {
		return nil, err
	}
	labels := map[string]string{labelManaged: labelManagedValue}
	if p.image.Pin {
		maps.Copy(labels, pinLabels(p.node.pinOwner, time.Now()))
	}
	for _, name := range names {
		created, err := p.node.writeRecord(ctx, images.Image{Name: name, Target: p.resolved.Target, Labels: labels})
		if err != nil {
			return made, fmt.Errorf("write the image record %q: %w", name, err)
		}
		if created {
			made = append(made, name)
		}
	}
	return made, nil
}

// missingRecords returns the image's names that are not there.
func (p *pull) missingRecords(ctx context.Context) ([]string, error) {
	names, err := recordNames(p.name, p.resolved.Target.Digest, p.resolved.Config.Digest)
	if err != nil {
		return nil, err
	}
	var missing []string
	for _, name := range names {
		_, err := p.node.client.ImageService().Get(ctx, name)
		if errdefs.IsNotFound(err) {
			missing = append(missing, name)
		} else if err != nil {
			return nil, fmt.Errorf("look for the image record %q: %w", name, err)
		}
	}
	return missing, nil
}

// writeRecord creates a record, or brings target and our labels of an existing one up to date and keeps its others.
func (n *node) writeRecord(ctx context.Context, img images.Image) (created bool, err error) {
	service := n.client.ImageService()
	for {
		_, err := service.Create(ctx, img)
		if err == nil || !errdefs.IsAlreadyExists(err) {
			return err == nil, err
		}
		old, err := service.Get(ctx, img.Name)
		if errdefs.IsNotFound(err) {
			continue // removed between the two calls
		}
		if err != nil {
			return false, err
		}
		var changed []string
		if old.Target.Digest != img.Target.Digest {
			changed = append(changed, "target")
		}
		for key, value := range img.Labels {
			if old.Labels[key] != value {
				changed = append(changed, "labels."+key)
			}
		}
		if len(changed) == 0 {
			return false, nil
		}
		if _, err := service.Update(ctx, img, changed...); !errdefs.IsNotFound(err) {
			return false, err
		}
	}
}

func isDigest(name string) bool {
	_, err := digest.Parse(name)
	return err == nil
}

func repository(name string) string {
	named, err := reference.ParseDockerRef(name)
	if err != nil {
		return name
	}
	return named.Name()
}

// isThere reports whether the image is complete: every snapshot of the chain is committed, and manifest and config are
// in the content store with the label that keeps the chain.
func (p *pull) isThere(ctx context.Context) (bool, error) {
	snapshots := p.node.client.SnapshotService(p.node.found.Snapshotter)
	top := identity.ChainID(p.resolved.DiffIDs).String()
	if top != "" {
		if _, err := snapshots.Stat(ctx, top); err != nil {
			if errdefs.IsNotFound(err) {
				return false, nil
			}
			return false, fmt.Errorf("look for the snapshot %s: %w", top, err)
		}
	}
	store := p.node.client.ContentStore()
	for _, blob := range p.resolved.Blobs {
		info, err := store.Info(ctx, blob.Desc.Digest)
		if errdefs.IsNotFound(err) {
			return false, nil
		}
		if err != nil {
			return false, fmt.Errorf("look for the blob %s: %w", blob.Desc.Digest, err)
		}
		if blob.Desc.Digest == p.resolved.Config.Digest && info.Labels[p.node.snapshotLabel()] != top {
			return false, nil
		}
	}
	return true, nil
}

// snapshotLabel on a config's blob refers to its top snapshot for containerd's garbage collection.
func (n *node) snapshotLabel() string {
	return "containerd.io/gc.ref.snapshot." + n.found.Snapshotter
}
