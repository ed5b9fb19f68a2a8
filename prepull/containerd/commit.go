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
	"strings"
	"time"

	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/errdefs"
	"golang.org/x/sys/unix"

	"headstart.dev/prepull/containerd/internal/layer"
)

// commit makes a staged layer a snapshot: by Prepare on its parent, a rename, and Commit, when all below it are committed.
//
// Not by snapshots.WithParent, by which a snapshotter that can rebase (containerd 2.2 and later) would take a layer's
// parent at its Commit, so that layers could be unpacked straight into active snapshots, in any order. A rename
// costs nothing beside the unpacking, so there is nothing to gain by it, and it loses what was unpacked: an active snapshot has no name by
// which the successor of a killed agent finds out which layer it holds and whether it is whole, where a staged layer is
// found by its chain ID (see staging). It also needs a containerd that is up, and one way for all releases is one way to
// test.
func (e *directEngine) commit(ctx context.Context, p *pull, one part) error {
	began := time.Now()
	defer func() { p.progress.stage("commit", time.Since(began)) }()
	return e.chains.do(ctx, one.chain, func() error {
		service := p.node.client.SnapshotService(p.node.found.Snapshotter)
		_, err := service.Stat(ctx, one.chain)
		if err == nil { // the CRI, or another image, was first
			return errors.Join(p.node.keep(ctx, one.chain), p.node.dropStaged(one))
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
				return errors.Join(service.Remove(ctx, key), p.node.keep(ctx, one.chain))
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

// dropStaged removes what was unpacked for nothing.
func (n *node) dropStaged(one part) error {
	path := n.staging.path(one.key)
	return errors.Join(n.staging.drop(path), n.staging.drop(path+".implied"))
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
