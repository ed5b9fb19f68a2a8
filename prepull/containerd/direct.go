package containerd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/image-spec/identity"
	"golang.org/x/sync/errgroup"

	"headstart.dev/prepull/containerd/internal/layer"
	"headstart.dev/prepull/containerd/internal/tokens"
)

// directEngine streams layers from the registry into the file system of the snapshotter, and then hands the directories
// to containerd: nothing is read again, layers are unpacked side by side, and no blob is written unless the node keeps its
// layers' blobs. It needs overlayfs and root on the node itself.
//
// A layer is unpacked in a staging folder and renamed into the snapshot that containerd prepares for it. The snapshotter
// need not be able to rebase for that, so it is the same on every containerd.
type directEngine struct {
	slots  *tokens.Tokens // layers in work
	layers flights        // by staging key: a layer is unpacked once, however many images have it and all below it
	chains flights        // by chain ID: one snapshot is committed once
	ours   sync.Map       // refs of ingests that this process writes
	down   atomic.Pointer[string]

	accepted atomic.Bool  // the CRI has seen an image of it
	doubts   atomic.Int32 // images that it did not see, and saw of another engine

	mu    sync.Mutex
	users map[string]int // pulls by the staging keys of their layers
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
	case !n.found.overlay():
		return "the snapshotter keeps its layers in another way than overlayfs"
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
	key    string // names the staging folder: one for each place in a chain, for a layer may stand twice in one image
}

func (e *directEngine) pull(ctx context.Context, p *pull) error {
	parts, err := missingParts(ctx, p)
	if err != nil {
		return err
	}
	e.use(parts, 1)
	defer e.use(parts, -1)
	if err := p.fits(parts); err != nil {
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
	if err := p.labelLayers(ctx); err != nil {
		return err
	}
	return p.labelConfig(ctx)
}

// use counts a pull that works with staged layers.
func (e *directEngine) use(parts []part, by int) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.users == nil {
		e.users = map[string]int{}
	}
	for _, one := range parts {
		if e.users[one.key] += by; e.users[one.key] == 0 {
			delete(e.users, one.key)
		}
	}
}

// giveBack removes the staged layers of an image that nobody works with.
func (e *directEngine) giveBack(p *pull) {
	if p.resolved == nil || p.node.staging == nil {
		return
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, chain := range identity.ChainIDs(slices.Clone(p.resolved.DiffIDs)) {
		one := part{key: chain.Encoded()}
		if e.users[one.key] == 0 && p.node.staging.has(one.key) {
			if err := p.node.dropStaged(one); err != nil {
				p.node.log.V(1).Info("staged layer is not removed", "image", p.name, "reason", err.Error())
			}
		}
	}
}

// fits reports ErrNoRoom when the layers cannot have room, whatever they unpack to: to no less than they are packed, and
// blobs that the node keeps come beside that.
func (p *pull) fits(parts []part) error {
	var packed int64
	for _, one := range parts {
		if p.node.staging == nil || !p.node.staging.has(one.key) {
			packed += p.resolved.Layers[one.index].Size
		}
	}
	if !p.node.found.DiscardLayers {
		packed *= 2
	}
	if packed == 0 {
		return nil
	}
	return p.node.roomFor(packed)
}

// missingParts returns the layers whose snapshots are not there. The highest that is there joins the lease, and with it
// all below.
func missingParts(ctx context.Context, p *pull) ([]part, error) {
	chains := identity.ChainIDs(slices.Clone(p.resolved.DiffIDs))
	service := p.node.client.SnapshotService(p.node.found.Snapshotter)
	var parts []part
	for i, chain := range slices.Backward(chains) {
		_, err := service.Stat(ctx, chain.String())
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
		one := part{index: i, chain: chains[i].String(), key: chains[i].Encoded()}
		if i > 0 {
			one.parent = chains[i-1].String()
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
		// Another image may have brought it, and had it committed, since this one looked what is missing.
		if there, err := p.node.hasSnapshot(ctx, one.chain); there || err != nil {
			return err
		}
		rank := tokens.Rank{Priority: p.image.Priority, Cost: size}
		if there, err := e.begin(ctx, p, one, rank); there || err != nil {
			return err
		}
		defer e.slots.Release()
		resumed, err := e.unpack(ctx, p, one, rank, false)
		again := func(originOnly bool) {
			p.node.log.Info("layer is fetched again", "image", p.name, "digest", p.resolved.Layers[one.index].Digest, "reason", err.Error())
			_, err = e.unpack(ctx, p, one, rank, originOnly)
		}
		if errors.Is(err, layer.ErrCorrupt) && resumed {
			again(false) // what was left may be to blame, and no registry
		}
		if errors.Is(err, layer.ErrCorrupt) {
			again(true)
		}
		return err
	})
}

// unpack fetches and unpacks one layer. Files that are half-made when it fails are removed. It reports whether it went on
// with bytes that an earlier attempt had left.
func (e *directEngine) unpack(ctx context.Context, p *pull, one part, rank tokens.Rank, originOnly bool) (resumed bool, err error) {
	n := p.node
	desc := p.resolved.Layers[one.index]
	dir, err := n.staging.begin()
	if err != nil {
		return false, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.staging.drop(dir.path))
		}
	}()
	source, err := e.open(ctx, p, desc, rank, originOnly)
	if err != nil {
		return false, err
	}
	defer func() { source.settle(err) }() // when the layer is where it survives this process
	writes := n.claim()
	defer writes.end()
	result, err := layer.Unpack(ctx, dir.path, layer.Layer{Desc: desc, DiffID: p.resolved.DiffIDs[one.index], Base: one.parent == ""}, source,
		layer.Options{Room: writes.grant, Allowed: beyondDisk * n.capacity()})
	p.written.Add(result.UnpackedBytes)
	if closed := source.finish(ctx, err); err == nil {
		err = closed
	}
	p.progress.stage("fetch", result.Fetch)
	p.progress.stage("inflate", result.Inflate)
	p.progress.stage("write", result.Write)
	if err != nil {
		p.progress.done(source.willKeep(err) - source.bytes.Load())
		return source.resumed(), err
	}
	if err := writeImplied(n.staging.path(one.key), result.Implied); err != nil {
		return false, err
	}
	return false, n.staging.finish(dir, one.key)
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
