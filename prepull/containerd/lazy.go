package containerd

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"github.com/opencontainers/image-spec/identity"

	"headstart.dev/prepull"
	"headstart.dev/prepull/soci"
)

// lazyEngine has the CRI mount an image by its SOCI index: a container can start at once, and content comes as it is read
// and in the background. Layers without a part in the index, which are small, are unpacked as always.
type lazyEngine struct{ cri criEngine }

func (lazyEngine) name() string { return EngineLazy }

func (e lazyEngine) unfit(p *pull) string {
	switch {
	case !p.image.Mode.Lazy():
		return "the whole image is wanted"
	case soci.IndexOf(p.resolved.Annotations) == "":
		return "the image has no SOCI index of version 2"
	case p.node.found.Snapshotter != soci.Snapshotter:
		return "the CRI's snapshotter is not SOCI's"
	}
	return e.cri.unfit(p)
}

func (e lazyEngine) pull(ctx context.Context, p *pull) error {
	parts, err := missingParts(ctx, p)
	if err != nil {
		return err
	}
	if err := p.node.roomFor(0); err != nil { // what comes later is cached on the disk as well
		return err
	}
	if err := e.cri.ask(ctx, p, parts); err != nil {
		return err
	}
	if err := p.findLazy(ctx); err != nil {
		return err
	}
	if len(p.lazy) == 0 { // the snapshotter is set up to bring whole images, or could not use the index
		p.progress.engine(EngineCRI)
	}
	for _, one := range parts {
		if !slices.ContainsFunc(p.lazy, func(l lazyLayer) bool { return l.index == one.index }) {
			p.progress.fetched(p.resolved.Layers[one.index].Size)
		}
	}
	return nil
}

// lazyLayer is one that is mounted by the index, of the image's layers.
type lazyLayer struct {
	soci.Layer
	index int
}

// findLazy finds out which layers of the image, that is on the node now, are lazily mounted, whoever had them mounted.
func (p *pull) findLazy(ctx context.Context) error {
	if p.node.found.Snapshotter != soci.Snapshotter {
		return nil
	}
	p.lazy = nil
	service := p.node.client.SnapshotService(p.node.found.Snapshotter)
	chains := identity.ChainIDs(slices.Clone(p.resolved.DiffIDs))
	for i, chain := range chains {
		info, err := service.Stat(ctx, chain.String())
		if err != nil {
			return fmt.Errorf("look at the snapshot %s: %w", chain, err)
		}
		if soci.Lazy(info.Labels) {
			p.lazy = append(p.lazy, lazyLayer{soci.Layer{Digest: p.resolved.Layers[i].Digest}, i})
		}
	}
	if len(p.lazy) == 0 {
		return nil
	}
	dirs, err := layerDirs(ctx, service, chains[len(chains)-1].String())
	if err != nil {
		return err
	}
	if len(dirs) != len(chains) {
		return fmt.Errorf("the image of %d layers is mounted from %d directories", len(chains), len(dirs))
	}
	for i := range p.lazy {
		p.lazy[i].Dir = dirs[len(dirs)-1-p.lazy[i].index]
	}
	p.progress.reach(p.whole())
	return nil
}

// whole is the size of the layers that are not lazy.
func (p *pull) whole() int64 {
	total := p.resolved.TotalBytes()
	for _, l := range p.lazy {
		total -= p.resolved.Layers[l.index].Size
	}
	return total
}

// layerDirs returns where the layers of a chain lie, nearest first.
func layerDirs(ctx context.Context, service snapshots.Snapshotter, chain string) (dirs []string, err error) {
	key := "headstart-view-" + rand.Text()
	mounts, err := service.View(ctx, key, chain)
	if err != nil {
		return nil, fmt.Errorf("view the snapshot %s: %w", chain, err)
	}
	defer func() {
		cleanup, cancel := context.WithTimeout(context.WithoutCancel(ctx), callTimeout)
		defer cancel()
		if removed := service.Remove(cleanup, key); removed != nil && !errdefs.IsNotFound(removed) {
			err = errors.Join(err, fmt.Errorf("remove the view of %s: %w", chain, removed))
		}
	}()
	if len(mounts) == 1 && mounts[0].Type == "bind" {
		return []string{mounts[0].Source}, nil
	}
	for _, m := range mounts {
		for _, option := range m.Options {
			if value, ok := strings.CutPrefix(option, "lowerdir="); ok {
				return strings.Split(value, ":"), nil
			}
		}
	}
	return nil, fmt.Errorf("the view of %s is no overlay", chain)
}

// A lazy image is looked at often while it grows, and seldom while it does not: its background fetch may be off.
const (
	followEvery = time.Second
	followCap   = time.Minute
)

// follow watches the background fetch of the lazy layers to its end.
func (p *pull) follow(ctx context.Context, report func(prepull.Progress)) error {
	now := p.progress.snapshot()
	before := p.whole()
	for wait := followEvery; ; {
		fetched, total, err := p.fetchedLazily(ctx)
		if err != nil {
			return err
		}
		if done := p.whole() + fetched; done != before {
			// The snapshotter forgets what it has fetched when it restarts.
			now.FetchedBytes += max(0, done-before)
			now.DoneBytes, before, wait = done, done, followEvery
			report(now)
		}
		if fetched == total {
			return nil
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		case <-timer.C:
		}
		wait = min(2*wait, followCap)
	}
}

// fetchedLazily adds up what has come of the lazy layers. While the snapshotter restarts none can be asked.
func (p *pull) fetchedLazily(ctx context.Context) (fetched, total int64, err error) {
	for _, l := range p.lazy {
		callCtx, cancel := context.WithTimeout(ctx, callTimeout)
		got, size, err := l.Fetched(callCtx)
		cancel()
		if soci.Gone(err) {
			return 0, 0, fmt.Errorf("layer %s is mounted no longer: %w", l.Digest, err)
		}
		if err != nil {
			p.node.log.V(1).Info("lazy layer does not answer", "image", p.name, "digest", l.Digest, "reason", err.Error())
			size = p.resolved.Layers[l.index].Size
		}
		fetched, total = fetched+got, total+size
	}
	return fetched, total, nil
}
