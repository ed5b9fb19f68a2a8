package containerd

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/containerd/platforms"
	"github.com/opencontainers/image-spec/identity"
	"golang.org/x/sync/errgroup"
)

// Layers can be fetched and unpacked before containerd is up: the staging folder needs only its file system. What
// containerd will do is read from its config, and what it has from its metadata, so that a node whose image brings images
// along fetches nothing twice. When anything of that is not certain, containerd is waited for.

// errNotUp: nothing listens at containerd's socket.
var errNotUp = errors.New("is containerd running?")

// upPatience is how long staged layers wait for containerd before the error is told, and upPoll how often it is looked for.
const (
	upPatience = 30 * time.Second
	upPoll     = 50 * time.Millisecond
)

// defaultConfigDump prints the config that containerd is going to run with.
var defaultConfigDump = []string{"containerd", "config", "dump"}

// connectAhead returns the connection to containerd. When containerd is not up yet, it unpacks the image's layers beside
// the snapshots first, and then waits for it.
func (s *Store) connectAhead(ctx context.Context, p *pull) (*node, error) {
	n, err := s.connect(ctx)
	if !errors.Is(err, errNotUp) {
		return n, err
	}
	ahead, e, reason := s.nodeAhead(ctx)
	if reason != nil {
		s.cfg.Log.V(1).Info("layers wait for containerd", "image", p.name, "reason", reason.Error())
		return s.awaitUp(ctx, err)
	}
	p.node = ahead
	if err := e.stageAhead(ctx, p); err != nil {
		// containerd may bring what we cannot, and is waited for in any case.
		s.cfg.Log.V(1).Info("layers are not fetched ahead", "image", p.name, "reason", err.Error())
		if full := asNoRoom(err); errors.Is(full, ErrNoRoom) || ctx.Err() != nil {
			return nil, full
		}
	}
	n, err = s.awaitUp(ctx, err)
	p.progress.again()
	return n, err
}

// awaitUp waits for containerd to come up, for a while that begins when it is first missed.
func (s *Store) awaitUp(ctx context.Context, err error) (n *node, _ error) {
	s.mu.Lock()
	if s.missed.IsZero() {
		s.missed = time.Now()
	}
	deadline := s.missed.Add(upPatience)
	s.mu.Unlock()
	for errors.Is(err, errNotUp) && time.Now().Before(deadline) {
		timer := time.NewTimer(upPoll)
		select {
		case <-ctx.Done():
			timer.Stop()
			// Whoever set the time limit wants to know what was waited for, not that it has passed.
			return nil, fmt.Errorf("%w (%w)", err, ctx.Err())
		case <-timer.C:
		}
		n, err = s.connect(ctx)
	}
	return n, err
}

// stageAhead brings the layers that containerd lacks into the staging folder.
func (e *directEngine) stageAhead(ctx context.Context, p *pull) error {
	began := time.Now()
	resolved, err := p.node.registry.Resolve(ctx, p.source, platforms.Default())
	if err != nil {
		return err
	}
	p.progress.stage("resolve", time.Since(began))
	p.use(resolved)
	if reason := e.unfit(p); reason != "" {
		p.node.log.V(1).Info("layers wait for containerd", "image", p.name, "reason", reason)
		return nil
	}
	p.progress.engine(e.name())
	group, ctx := errgroup.WithContext(ctx)
	chains := identity.ChainIDs(slices.Clone(p.resolved.DiffIDs))
	for i, chain := range slices.Backward(chains) {
		if p.node.committed[chain.String()] {
			break // and with it all below
		}
		one := part{index: i, chain: chain.String(), key: chain.Encoded()}
		if i > 0 {
			one.parent = chains[i-1].String()
		}
		group.Go(func() error { return e.stage(ctx, p, one) })
	}
	return group.Wait()
}

// nodeAhead is a node without containerd; reason says why there can be none.
func (s *Store) nodeAhead(ctx context.Context) (n *node, e *directEngine, reason error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, one := range s.engines {
		if direct, is := one.(*directEngine); is {
			e = direct
		}
	}
	if e == nil {
		return nil, nil, errors.New("the direct engine is not asked for")
	}
	found, root, err := s.discoverAhead(ctx)
	if err != nil {
		return nil, nil, err
	}
	n = &node{ledger: &s.ledger, namespace: s.cfg.Namespace, log: s.cfg.Log, found: found, keepFree: room{bytes: s.cfg.MinFreeBytes, percent: s.cfg.MinFreePercent}}
	if n.committed, err = committedSnapshots(root, s.cfg.Namespace, found.Snapshotter); err != nil {
		return nil, nil, err
	}
	n.registry = s.registryFor(found.HostDirs, "")
	if why := s.openStaging(n); why != "" {
		return nil, nil, errors.New(why)
	}
	return n, e, nil
}

// discoverAhead reads from containerd's config what discover asks containerd. root is containerd's own folder.
func (s *Store) discoverAhead(ctx context.Context) (found Discovery, root string, err error) {
	command := s.cfg.ConfigDump
	if len(command) == 0 {
		command = defaultConfigDump
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	out, err := exec.CommandContext(ctx, command[0], command[1:]...).Output()
	if err != nil {
		return found, "", fmt.Errorf("run %s: %w", strings.Join(command, " "), err)
	}
	settings, err := parseConfigDump(out)
	if err != nil {
		return found, "", err
	}
	found = Discovery{
		Snapshotter: s.cfg.Snapshotter, SnapshotterFrom: "flag", SnapshotterRoot: settings.overlayRoot, DiscardLayers: settings.discard,
	}
	if found.Snapshotter == AutoSnapshotter {
		found.Snapshotter, found.SnapshotterFrom = settings.snapshotter, "configDump"
	}
	if found.SnapshotterRoot == "" {
		found.SnapshotterRoot = filepath.Join(settings.root, "io.containerd.snapshotter.v1.overlayfs")
	}
	found.useSettings(settings, "configDump")
	switch {
	case found.Snapshotter != "overlayfs":
		return found, "", fmt.Errorf("where the snapshotter %s has its files only containerd says", found.Snapshotter)
	case settings.address != s.cfg.Address:
		return found, "", fmt.Errorf("its config is that of a containerd at %s", settings.address)
	case !filepath.IsAbs(settings.root):
		return found, "", fmt.Errorf("its config says its root is %q", settings.root)
	case !found.DiscardLayers:
		return found, "", errors.New("the node keeps its layers' blobs, which only containerd can store")
	}
	if _, err := os.Stat(settings.root); err != nil {
		return found, "", fmt.Errorf("look for its root: %w", err) // on a disk that is yet to be mounted, for all we know
	}
	return found, settings.root, nil
}
