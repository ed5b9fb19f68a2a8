// Package pull_test runs every engine against a real containerd and a real registry, and compares what it leaves behind with what
// the CRI's own pull leaves.
package pull_test

import (
	"context"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/content"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/core/mount"
	"github.com/containerd/containerd/v2/core/snapshots"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/go-logr/logr"
	"github.com/go-logr/logr/testr"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/opencontainers/image-spec/identity"
	"github.com/stretchr/testify/require"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"headstart.dev/prepull"
	"headstart.dev/prepull/containerd"
	"headstart.dev/test/testenv"
	"headstart.dev/test/testenv/images"
	"headstart.dev/test/testenv/treehash"
)

// newStore opens a Store for a containerd with the named engines, all of them when there are none.
func newStore(t *testing.T, ctd *testenv.Containerd, change func(*containerd.Config), engines ...string) *containerd.Store {
	t.Helper()
	cfg := containerd.Config{Address: ctd.Address(), Engines: engines, Log: testr.New(t), MinFreePercent: 1}
	if change != nil {
		change(&cfg)
	}
	store, err := containerd.New(cfg)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, store.Close()) })
	return store
}

// pull runs one image through a Puller.
func pull(t *testing.T, store prepull.Store, img prepull.Image) prepull.ImageStatus {
	t.Helper()
	puller, err := prepull.New(prepull.Config{Store: store, Images: []prepull.Image{img}, MaxAttempts: 3, Log: logr.Discard()})
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = puller.Run(ctx)
	}()
	statuses, err := puller.Wait(ctx)
	cancel()
	<-done
	require.NoError(t, err, "%+v", statuses)
	return statuses[0]
}

// state is all that an image leaves on a node.
type state struct {
	Records   map[string]string // name -> target digest and labels
	Blobs     map[string]string // digest -> labels
	Snapshots map[string]string // name -> parent
	Tree      []string
}

// stateOf reads the state of the one image that a containerd has beside its sandbox image.
func stateOf(t *testing.T, ctd *testenv.Containerd, ref string) state {
	t.Helper()
	c, err := ctd.Client()
	require.NoError(t, err)
	defer func() { require.NoError(t, c.Close()) }()
	ctx := namespaces.WithNamespace(t.Context(), "k8s.io")
	collectGarbage(ctx, t, c)
	s := state{Records: map[string]string{}, Blobs: map[string]string{}, Snapshots: map[string]string{}}
	img, err := c.GetImage(ctx, ref)
	require.NoError(t, err)
	records, err := c.ImageService().List(ctx)
	require.NoError(t, err)
	for _, r := range records {
		if r.Target.Digest == img.Target().Digest {
			s.Records[r.Name] = fmt.Sprint(r.Target.Digest, r.Target.MediaType, r.Target.Size, sorted(r.Labels))
		}
	}
	config, err := img.Config(ctx)
	require.NoError(t, err)
	require.NoError(t, c.ContentStore().Walk(ctx, func(info content.Info) error {
		if strings.Contains(sorted(info.Labels), "distribution.source") {
			s.Blobs[info.Digest.String()] = sorted(info.Labels)
		}
		return nil
	}))
	require.Contains(t, s.Blobs, img.Target().Digest.String())
	require.Contains(t, s.Blobs, config.Digest.String())
	diffs, err := img.RootFS(ctx)
	require.NoError(t, err)
	service := c.SnapshotService(ctd.Snapshotter())
	for _, chain := range identity.ChainIDs(slices.Clone(diffs)) {
		info, err := service.Stat(ctx, chain.String())
		require.NoError(t, err)
		require.Equal(t, snapshots.KindCommitted, info.Kind)
		s.Snapshots[info.Name] = info.Parent
	}
	s.Tree = treeOf(ctx, t, service, identity.ChainID(diffs).String())
	return s
}

func treeOf(ctx context.Context, t *testing.T, service snapshots.Snapshotter, chain string) []string {
	t.Helper()
	key := "view-" + t.Name()
	mounts, err := service.View(ctx, key, chain)
	require.NoError(t, err)
	defer func() { require.NoError(t, service.Remove(ctx, key)) }()
	var lines []string
	require.NoError(t, mount.WithReadonlyTempMount(ctx, mounts, func(root string) error {
		lines, err = treehash.Lines(root, treehash.Options{})
		return err
	}))
	return withoutImpliedTimes(lines)
}

// withoutImpliedTimes drops the times of directories that no tar entry names: they are those of their making.
func withoutImpliedTimes(lines []string) []string {
	for i, line := range lines {
		if head, rest, found := strings.Cut(line, " mtime="); found && !strings.HasPrefix(rest, "17410") && strings.Contains(head, " mode=4") {
			_, rest, _ = strings.Cut(rest, " ")
			lines[i] = head + " " + rest
		}
	}
	return lines
}

func sorted(labels map[string]string) string {
	text := ""
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		if key != "containerd.io/gc.ref.content.expire" {
			text += key + "=" + labels[key] + " "
		}
	}
	return text
}

// collectGarbage makes containerd drop all that nothing refers to, now.
func collectGarbage(ctx context.Context, t *testing.T, c *client.Client) {
	t.Helper()
	manager := c.LeasesService()
	l, err := manager.Create(ctx, leases.WithRandomID())
	require.NoError(t, err)
	require.NoError(t, manager.Delete(ctx, l, leases.SynchronousDelete))
}

func cri(t *testing.T, ctd *testenv.Containerd) (criapi.ImageServiceClient, criapi.RuntimeServiceClient) {
	t.Helper()
	conn, err := ctd.CRI()
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, conn.Close()) })
	return criapi.NewImageServiceClient(conn), criapi.NewRuntimeServiceClient(conn)
}

// program is the layer with /bin/wait, which images can run.
func program(t *testing.T) v1.Layer {
	t.Helper()
	img, err := images.Build(t.Context(), images.Spec{})
	require.NoError(t, err)
	layers, err := img.Layers()
	require.NoError(t, err)
	return layers[0]
}

// layerBlobs returns the digests of an image's layers, each once.
func layerBlobs(t *testing.T, img v1.Image) []string {
	t.Helper()
	layers, err := img.Layers()
	require.NoError(t, err)
	all := make([]string, 0, len(layers))
	for _, l := range layers {
		dgst, err := l.Digest()
		require.NoError(t, err)
		if !slices.Contains(all, dgst.String()) { // a layer may stand twice in an image
			all = append(all, dgst.String())
		}
	}
	return all
}

// layerBytes is how many bytes of an image's layers the registry has sent.
func layerBytes(t *testing.T, reg *testenv.Registry, img v1.Image) int64 {
	t.Helper()
	var total int64
	for _, dgst := range layerBlobs(t, img) {
		total += reg.Proxy.Blob(dgst).Bytes
	}
	return total
}

// hasLayerBlobs reports whether the content store holds any layer of an image.
func hasLayerBlobs(t *testing.T, ctd *testenv.Containerd, img v1.Image) bool {
	t.Helper()
	c, err := ctd.Client()
	require.NoError(t, err)
	defer func() { require.NoError(t, c.Close()) }()
	all := layerBlobs(t, img)
	found := false
	require.NoError(t, c.ContentStore().Walk(namespaces.WithNamespace(t.Context(), "k8s.io"), func(info content.Info) error {
		found = found || slices.Contains(all, info.Digest.String())
		return nil
	}))
	return found
}

func requireNothingStaged(t *testing.T, ctd *testenv.Containerd) {
	t.Helper()
	root := ctd.Root() + "/io.containerd.snapshotter.v1.overlayfs/headstart-staging"
	all, err := os.ReadDir(root)
	if os.IsNotExist(err) {
		return
	}
	require.NoError(t, err)
	for _, f := range all {
		inside, err := os.ReadDir(root + "/" + f.Name())
		require.NoError(t, err)
		for _, one := range inside {
			require.Equal(t, "lock", one.Name(), "left in %s", f.Name())
		}
	}
}
