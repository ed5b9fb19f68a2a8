package containerd

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/image-spec/identity"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"headstart.dev/prepull/containerd/internal/layer"
	"headstart.dev/prepull/containerd/internal/registry"
	"headstart.dev/prepull/containerd/internal/tokens"
)

// directEngine streams layers from the registry into the file system of the snapshotter, and then hands the directories
// to containerd: no blob is written, nothing is read again, and layers are unpacked side by side. It needs overlayfs and
// root on the node itself.
//
// A layer is unpacked in a staging folder and renamed into the snapshot that containerd prepares for it. The snapshotter
// need not be able to rebase for that, so it is the same on every containerd.
type directEngine struct {
	slots  *tokens.Tokens // layers in work
	layers flights        // by staging key: one layer is unpacked once, however many images have it
	chains flights        // by chain ID: one snapshot is committed once
	down   atomic.Pointer[string]
}

func newDirectEngine(slots int) *directEngine { return &directEngine{slots: tokens.New(slots)} }

func (*directEngine) name() string { return EngineDirect }

// unfit names what stands in the way of writing into the snapshotter's folders.
func (e *directEngine) unfit(p *pull) string {
	if reason := e.down.Load(); reason != nil {
		return *reason
	}
	n := p.node
	switch {
	case n.found.Snapshotter != "overlayfs":
		return "the snapshotter is not overlayfs"
	case !n.found.DiscardLayers:
		return "the node keeps layers' blobs"
	case n.staging == nil:
		return n.noStaging
	case os.Geteuid() != 0:
		return "the agent is not root"
	}
	for _, l := range p.resolved.Layers {
		if !layer.Supported(l.MediaType) {
			return fmt.Sprintf("it cannot read layers of type %q", l.MediaType)
		}
	}
	return ""
}

// standDown ends the use of the engine on this node.
func (e *directEngine) standDown(reason string) { e.down.CompareAndSwap(nil, &reason) }

// part is one layer of an image.
type part struct {
	index  int
	chain  string // the chain ID of this layer and all below
	parent string // that of the layers below, "" for the base
	key    string // names the staging folder
}

func (e *directEngine) pull(ctx context.Context, p *pull) error {
	parts, err := missingParts(ctx, p)
	if err != nil {
		return err
	}
	// Layers are unpacked side by side, and committed in order as soon as all below them are.
	group, groupCtx := errgroup.WithContext(ctx)
	staged := make([]chan struct{}, len(parts))
	for i, one := range parts {
		staged[i] = make(chan struct{})
		group.Go(func() error {
			if err := e.stage(groupCtx, p, one); err != nil {
				return err
			}
			close(staged[i])
			return nil
		})
	}
	group.Go(func() error {
		for i, one := range parts {
			select {
			case <-staged[i]:
			case <-groupCtx.Done():
				return groupCtx.Err()
			}
			if err := e.commit(groupCtx, p, one); err != nil {
				return err
			}
		}
		return nil
	})
	group.Go(func() error { return p.writeContent(groupCtx) })
	if err := group.Wait(); err != nil {
		return err
	}
	return p.labelConfig(ctx)
}

// missingParts returns the layers whose snapshots are not there. The highest that is there joins the lease, and with it
// all below.
func missingParts(ctx context.Context, p *pull) ([]part, error) {
	chains := identity.ChainIDs(slices.Clone(p.resolved.DiffIDs))
	service := p.node.client.SnapshotService(p.node.found.Snapshotter)
	var parts []part
	for i := len(chains) - 1; i >= 0; i-- {
		_, err := service.Stat(ctx, chains[i].String())
		if err == nil {
			p.progress.done(sizeOf(p, i))
			if err := p.node.keep(ctx, chains[i].String()); err != nil {
				return nil, err
			}
			break
		}
		if !errdefs.IsNotFound(err) {
			return nil, fmt.Errorf("look for the snapshot %s: %w", chains[i], err)
		}
		one := part{index: i, chain: chains[i].String(), key: p.resolved.DiffIDs[i].Encoded() + "-base"}
		if i > 0 {
			one.parent, one.key = chains[i-1].String(), p.resolved.DiffIDs[i].Encoded()
		}
		parts = append(parts, one)
	}
	slices.Reverse(parts)
	return parts, nil
}

// sizeOf is the compressed size of the layers up to index.
func sizeOf(p *pull, index int) int64 {
	var total int64
	for _, l := range p.resolved.Layers[:index+1] {
		total += l.Size
	}
	return total
}

// keep adds a snapshot to the lease of the context.
func (n *node) keep(ctx context.Context, chain string) error {
	id, leased := leases.FromContext(ctx)
	if !leased {
		return nil
	}
	err := n.client.LeasesService().AddResource(ctx, leases.Lease{ID: id}, leases.Resource{
		ID: chain, Type: "snapshots/" + n.found.Snapshotter,
	})
	if err != nil && !errdefs.IsNotFound(err) {
		return fmt.Errorf("add the snapshot %s to the lease: %w", chain, err)
	}
	return nil
}

// stage brings one layer into the staging folder, or finds it there.
func (e *directEngine) stage(ctx context.Context, p *pull, one part) error {
	return e.layers.do(ctx, one.key, func() error {
		size := p.resolved.Layers[one.index].Size
		if p.node.staging.has(one.key) {
			p.progress.done(size)
			return nil
		}
		rank := tokens.Rank{Priority: p.image.Priority, Cost: size}
		if err := e.slots.Acquire(ctx, rank); err != nil {
			return err
		}
		defer e.slots.Release()
		if err := p.node.roomFor(size); err != nil {
			return err
		}
		err := e.unpack(ctx, p, one, rank, false)
		if errors.Is(err, layer.ErrCorrupt) {
			p.node.log.Info("layer is fetched again", "image", p.name, "digest", p.resolved.Layers[one.index].Digest, "reason", err.Error())
			err = e.unpack(ctx, p, one, rank, true)
		}
		return err
	})
}

// unpack fetches and unpacks one layer. What is half-made when it fails is removed.
func (e *directEngine) unpack(ctx context.Context, p *pull, one part, rank tokens.Rank, originOnly bool) (err error) {
	n := p.node
	desc := p.resolved.Layers[one.index]
	dir, err := n.staging.begin()
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.staging.drop(dir))
		}
	}()
	repo, err := n.registry.Repository(ctx, p.source)
	if err != nil {
		return err
	}
	reader := repo.Open(ctx, desc, registry.ReadOptions{Rank: rank, OriginOnly: originOnly, OnBytes: p.progress.fetched})
	consumed := &countingReader{Reader: reader, count: p.progress.done}
	result, err := layer.Unpack(ctx, dir, layer.Layer{Desc: desc, DiffID: p.resolved.DiffIDs[one.index], Base: one.parent == ""}, consumed,
		layer.Options{Guard: func() error { return n.roomFor(0) }})
	if errors.Is(err, layer.ErrCorrupt) {
		reader.Quarantine()
	}
	if closed := reader.Close(); err == nil {
		err = closed
	}
	p.progress.stage("fetch", result.Fetch)
	p.progress.stage("inflate", result.Inflate)
	p.progress.stage("write", result.Write)
	if err != nil {
		p.progress.done(-consumed.bytes)
		return err
	}
	if err := writeImplied(n.staging.path(one.key), result.Implied); err != nil {
		return err
	}
	return n.staging.finish(dir, one.key)
}

// writeImplied notes a staged layer's implied directories, beside it, until the layers below are known.
func writeImplied(staged string, implied []string) error {
	if len(implied) == 0 {
		return nil
	}
	if err := os.WriteFile(staged+".implied", []byte(strings.Join(implied, "\x00")), 0o600); err != nil {
		return fmt.Errorf("note the implied directories: %w", err)
	}
	return nil
}

// commit makes a staged layer a snapshot.
func (e *directEngine) commit(ctx context.Context, p *pull, one part) error {
	began := time.Now()
	defer func() { p.progress.stage("commit", time.Since(began)) }()
	return e.chains.do(ctx, one.chain, func() error {
		service := p.node.client.SnapshotService(p.node.found.Snapshotter)
		_, err := service.Stat(ctx, one.chain)
		if err == nil {
			return p.node.keep(ctx, one.chain) // the CRI, or another image, was first
		}
		if !errdefs.IsNotFound(err) {
			return fmt.Errorf("look for the snapshot %s: %w", one.chain, err)
		}
		suffix := make([]byte, 8)
		if _, err := rand.Read(suffix); err != nil {
			return fmt.Errorf("name a snapshot: %w", err)
		}
		key := fmt.Sprintf(snapshots.UnpackKeyFormat, "headstart-"+hex.EncodeToString(suffix), one.chain)
		mounts, err := service.Prepare(ctx, key, one.parent)
		if err != nil {
			return fmt.Errorf("prepare the snapshot %s: %w", one.chain, err)
		}
		err = p.node.moveIn(one, mounts)
		if err == nil {
			err = service.Commit(ctx, one.chain, key)
			if errdefs.IsAlreadyExists(err) {
				return service.Remove(ctx, key)
			}
		}
		if err != nil {
			cleanup, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTimeout)
			defer cancel()
			return errors.Join(fmt.Errorf("commit the snapshot %s: %w", one.chain, err), service.Remove(cleanup, key))
		}
		return nil
	})
}

// moveIn renames a staged layer to where a prepared snapshot keeps its files.
func (n *node) moveIn(one part, mounts []mount.Mount) error {
	upper, lower, err := overlayDirs(mounts)
	if err != nil {
		return err
	}
	if rel, err := filepath.Rel(n.found.SnapshotterRoot, upper); err != nil || strings.HasPrefix(rel, "..") {
		return fmt.Errorf("its files are to lie in %s, outside of the snapshotter's root %s", upper, n.found.SnapshotterRoot)
	}
	staged := n.staging.path(one.key)
	implied, err := os.ReadFile(staged + ".implied")
	if err == nil {
		err = layer.Inherit(staged, strings.Split(string(implied), "\x00"), lower)
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	// The root directory of a layer is what the snapshotter made it: containerd passes over the tar's own entry for it.
	var stat unix.Stat_t
	if err := unix.Lstat(upper, &stat); err != nil {
		return fmt.Errorf("look at %s: %w", upper, err)
	}
	if err := os.Lchown(staged, int(stat.Uid), int(stat.Gid)); err != nil {
		return err
	}
	if err := unix.Chmod(staged, stat.Mode&0o7777); err != nil {
		return fmt.Errorf("change the mode of %s: %w", staged, err)
	}
	if err := unix.Rename(staged, upper); err != nil {
		return fmt.Errorf("move the layer to %s: %w", upper, err)
	}
	if err := os.Remove(staged + ".implied"); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// overlayDirs returns where a prepared snapshot's own files lie, and the directories of the layers below, nearest first.
func overlayDirs(mounts []mount.Mount) (upper string, lower []string, err error) {
	if len(mounts) != 1 {
		return "", nil, fmt.Errorf("the snapshot has %d mounts, one was expected", len(mounts))
	}
	m := mounts[0]
	switch m.Type {
	case "bind":
		return m.Source, nil, nil
	case "overlay":
		for _, option := range m.Options {
			if value, ok := strings.CutPrefix(option, "upperdir="); ok {
				upper = value
			}
			if value, ok := strings.CutPrefix(option, "lowerdir="); ok {
				lower = strings.Split(value, ":")
			}
		}
		if upper != "" {
			return upper, lower, nil
		}
	}
	return "", nil, fmt.Errorf("the snapshot's mount of type %s has no upper directory", m.Type)
}
