package pull_test

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/go-logr/logr"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"headstart.dev/prepull"
	"headstart.dev/prepull/containerd"
	"headstart.dev/test/testenv"
)

// TestFreeSpaceFloor refuses a layer for which there is no room before it is begun, by every engine, leaves nothing
// behind, and goes on once there is room.
func TestFreeSpaceFloor(t *testing.T) {
	reg := testenv.StartRegistry(t, testenv.RegistryConfig{})
	ctd := testenv.StartContainerd(t, testenv.ContainerdConfig{NoDisk: true, Registry: reg})
	img, ref := push(t, reg, "floor", 2*mib)
	for _, engine := range []string{containerd.EngineDirect, containerd.EngineClient, containerd.EngineCRI} {
		t.Run(engine, func(t *testing.T) {
			reg.Proxy.ResetCounts()
			store := newStore(t, ctd, func(c *containerd.Config) { c.MinFreeBytes = 1 << 60 }, engine)
			_, err := store.Pull(t.Context(), prepull.Image{Ref: ref}, nil)
			require.ErrorIs(t, err, containerd.ErrNoRoom)
			require.False(t, prepull.IsPermanent(err), "it heals when garbage is collected")
			require.Zero(t, layerBytes(t, reg, img))
			requireNothingStaged(t, ctd)
		})
	}
	status := pull(t, newStore(t, ctd, nil), prepull.Image{Ref: ref})
	require.Equal(t, prepull.StateWarm, status.State, status.Error)
}

// TestWritesAreBounded pulls what is far larger than it looks: nothing goes below the floor, one attempt says what is
// lacking, what was taken is given back, and once there is room the pull goes on by itself.
func TestWritesAreBounded(t *testing.T) {
	reg := testenv.StartRegistry(t, testenv.RegistryConfig{})
	grow := smallDisk(t, 400*mib, 100_000)
	ctd := testenv.StartContainerd(t, testenv.ContainerdConfig{NoDisk: true, Registry: reg})
	const floor = 100 * mib
	bounded := func(c *containerd.Config) { c.MinFreeBytes, c.MinFreePercent = floor, 0 }
	var lowest atomic.Int64
	lowest.Store(1 << 40)
	watch := func(ctx context.Context) {
		for ctx.Err() == nil {
			lowest.Store(min(lowest.Load(), free(t, ctd.Root())))
			<-time.After(100 * time.Microsecond) // in which a disk takes less than the floor's megabytes
		}
	}
	ctx, stop := context.WithCancel(t.Context())
	var watching sync.WaitGroup
	watching.Go(func() { watch(ctx) })
	before := free(t, ctd.Root())
	small := func(t *testing.T, name string, entries ...entry) string {
		t.Helper()
		img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
		img, err := mutate.Append(img, mutate.Addendum{Layer: layerOf(t, types.OCILayer, tarOf(t, entries...)), MediaType: types.OCILayer})
		require.NoError(t, err)
		ref, _, err := reg.Push(t.Context(), name+":v1", entrypoint(t, img))
		require.NoError(t, err)
		return ref
	}
	zeros := strings.Repeat("\x00", 150*mib)
	late := small(t, "late", entry{name: "a", body: zeros}, entry{name: "b", body: zeros}, entry{name: "c", body: zeros})
	store := newStore(t, ctd, bounded)
	status := pull(t, store, prepull.Image{Ref: late})
	require.Equal(t, prepull.StateFailed, status.State)
	require.Equal(t, 1, status.Attempts, "only room helps")
	require.Contains(t, status.Error, "MiB free")
	require.Contains(t, status.Error, "are needed")
	require.InDelta(t, before, free(t, ctd.Root()), 20*mib, "what it took is given back")

	puller, err := prepull.New(prepull.Config{Store: store, Images: []prepull.Image{{Ref: late}}, Log: logr.Discard()})
	require.NoError(t, err)
	pullCtx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	watching.Go(func() { _ = puller.Run(pullCtx) })
	require.Eventually(t, func() bool { return puller.Status()[0].Retrying }, time.Minute, 10*time.Millisecond)
	require.GreaterOrEqual(t, lowest.Load(), int64(floor))
	stop()
	grow()
	statuses, err := puller.Wait(pullCtx)
	require.NoError(t, err)
	require.Equal(t, prepull.StateWarm, statuses[0].State, statuses[0].Error)
	require.Equal(t, 2, statuses[0].Attempts, "not tried before room had come")
	cancel()
	watching.Wait()
}

// free is what may be written on the disk of a folder.
func free(t *testing.T, dir string) int64 {
	t.Helper()
	var stat unix.Statfs_t
	require.NoError(t, unix.Statfs(dir, &stat))
	return int64(stat.Bavail) * stat.Bsize
}

// smallDisk lets the containerds of a test have their data on a file system of so many bytes and inodes. The returned
// function makes it large.
func smallDisk(t *testing.T, bytes int64, inodes int) (grow func()) {
	t.Helper()
	testenv.RequireRoot(t)
	dir := t.TempDir()
	mount := func(flags uintptr, bytes int64, inodes int) {
		require.NoError(t, unix.Mount("tmpfs", dir, "tmpfs", flags, fmt.Sprintf("size=%d,nr_inodes=%d", bytes, inodes)))
	}
	mount(0, bytes, inodes)
	t.Cleanup(func() { require.NoError(t, unix.Unmount(dir, unix.MNT_DETACH)) })
	t.Setenv("TMPDIR", dir)
	return func() { mount(unix.MS_REMOUNT, 2<<30, 1<<20) }
}

// TestDiskBecomesFull lets room or inodes end in the middle of a layer that promised to be small: nothing half-made is
// left, no other engine makes it worse, and the pull goes on once there is room.
func TestDiskBecomesFull(t *testing.T) {
	many := make([]entry, 0, 40_000)
	for i := range 40_000 {
		many = append(many, entry{name: fmt.Sprintf("many/%d/%d", i/1000, i)})
	}
	for name, tc := range map[string]struct {
		bytes  int64
		inodes int
		layer  []entry
	}{
		"bytes":  {180 * mib, 100_000, []entry{{name: "zeros", body: strings.Repeat("\x00", 300*mib)}}},
		"inodes": {1 << 30, 20_000, many},
	} {
		t.Run(name, func(t *testing.T) {
			reg := testenv.StartRegistry(t, testenv.RegistryConfig{})
			grow := smallDisk(t, tc.bytes, tc.inodes)
			ctd := testenv.StartContainerd(t, testenv.ContainerdConfig{NoDisk: true, Registry: reg})
			img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
			img, err := mutate.Append(img,
				mutate.Addendum{Layer: program(t), MediaType: types.OCILayer},
				mutate.Addendum{Layer: layerOf(t, types.OCILayer, tarOf(t, tc.layer...)), MediaType: types.OCILayer})
			require.NoError(t, err)
			img = entrypoint(t, img)
			ref, _, err := reg.Push(t.Context(), "full:v1", img)
			require.NoError(t, err)
			reg.Proxy.ResetCounts()

			store := newStore(t, ctd, func(c *containerd.Config) { c.MinFreeBytes, c.MinFreePercent = 1, 0 })
			_, err = store.Pull(t.Context(), prepull.Image{Ref: ref}, nil)
			require.ErrorIs(t, err, containerd.ErrNoRoom)
			require.False(t, prepull.IsPermanent(err), "%v", err)
			require.NotContains(t, err.Error(), "engine "+containerd.EngineClient, "it would not help")
			requireNoUnfinished(t, ctd, img)

			grow()
			status := pull(t, store, prepull.Image{Ref: ref})
			require.Equal(t, prepull.StateWarm, status.State, status.Error)
			require.LessOrEqual(t, layerBytes(t, reg, img), 2*imageBytes(t, img), "all was given back, and came once more")
			requireNothingStaged(t, ctd)
			requireUsable(t, ctd, reg, img, ref, status.Digest)
		})
	}
}

// TestDiskIsFilled fills the disk while a layer's blob is written: what there is of the blob does not stay to keep
// the disk full, and the next attempt goes well.
func TestDiskIsFilled(t *testing.T) {
	for name, tc := range map[string]struct {
		engine string
		keep   bool
	}{
		"client":       {containerd.EngineClient, false},
		"client keeps": {containerd.EngineClient, true},
		"direct keeps": {containerd.EngineDirect, true},
		"direct":       {containerd.EngineDirect, false},
	} {
		t.Run(name, func(t *testing.T) {
			reg := testenv.StartRegistry(t, testenv.RegistryConfig{})
			smallDisk(t, 256*mib, 100_000)
			ctd := testenv.StartContainerd(t, testenv.ContainerdConfig{NoDisk: true, Registry: reg, KeepLayers: tc.keep})
			img, ref := push(t, reg, "filled", 24*mib)
			store := newStore(t, ctd, func(c *containerd.Config) {
				c.MinFreeBytes, c.MinFreePercent, c.Bandwidth = 1, 0, 16*mib
			}, tc.engine)

			hog := filepath.Join(ctd.Root(), "hog")
			var filled sync.Once
			_, err := store.Pull(t.Context(), prepull.Image{Ref: ref}, func(p prepull.Progress) {
				if p.FetchedBytes > 0 { // while it is told, the pull waits
					filled.Do(func() { fill(t, hog) })
				}
			})
			require.ErrorIs(t, err, containerd.ErrNoRoom)
			requireNoActive(t, ctd)
			requireNoUnfinished(t, ctd, img)

			require.NoError(t, os.Remove(hog))
			status := pull(t, store, prepull.Image{Ref: ref})
			require.Equal(t, prepull.StateWarm, status.State, status.Error)
			requireUsable(t, ctd, reg, img, ref, status.Digest)
		})
	}
}

// requireNoActive waits until containerd's own unpacker has removed the snapshot that it prepared before the blob came.
func requireNoActive(t *testing.T, ctd *testenv.Containerd) {
	t.Helper()
	ctx, c := direct(t, ctd)
	require.EventuallyWithT(t, func(t *assert.CollectT) {
		assert.NoError(t, c.SnapshotService(ctd.Snapshotter()).Walk(ctx, func(_ context.Context, info snapshots.Info) error {
			assert.Equal(t, snapshots.KindCommitted, info.Kind, info.Name)
			return nil
		}))
	}, 20*time.Second, 50*time.Millisecond)
}

// fill writes a file until the disk is full.
func fill(t *testing.T, path string) {
	t.Helper()
	f, err := os.Create(path)
	require.NoError(t, err)
	_, err = io.Copy(f, zeros{})
	require.ErrorIs(t, err, unix.ENOSPC)
	require.NoError(t, f.Close())
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// requireNoUnfinished checks that no layer lies around half-made: no work in the staging folder, no active snapshot, no
// ingest, no record.
func requireNoUnfinished(t *testing.T, ctd *testenv.Containerd, img v1.Image) {
	t.Helper()
	ctx, c := direct(t, ctd)
	require.NoError(t, c.SnapshotService(ctd.Snapshotter()).Walk(ctx, func(_ context.Context, info snapshots.Info) error {
		require.Equal(t, snapshots.KindCommitted, info.Kind, info.Name)
		return nil
	}))
	statuses, err := c.ContentStore().ListStatuses(ctx)
	require.NoError(t, err)
	require.Empty(t, statuses)
	dgst, err := img.Digest()
	require.NoError(t, err)
	records, err := c.ImageService().List(ctx, "target.digest=="+dgst.String())
	require.NoError(t, err)
	require.Empty(t, records)
	work, err := filepath.Glob(ctd.Root() + "/io.containerd.snapshotter.v1.overlayfs/headstart-staging/work-*/[0-9]*")
	require.NoError(t, err)
	require.Empty(t, work)
}
