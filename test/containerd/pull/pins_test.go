package pull_test

import (
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/client"
	"github.com/containerd/containerd/v2/core/images"
	"github.com/containerd/containerd/v2/core/leases"
	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/stretchr/testify/require"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"headstart.dev/prepull"
	"headstart.dev/prepull/containerd"
	"headstart.dev/test/testenv"
	"headstart.dev/test/testenv/faultproxy"
)

// direct opens containerd's own client.
func direct(t *testing.T, ctd *testenv.Containerd) (context.Context, *client.Client) {
	t.Helper()
	c, err := ctd.Client()
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	return namespaces.WithNamespace(t.Context(), "k8s.io"), c
}

// pinOf returns the owners of an image's pins by record, and whether the kubelet's garbage collection sees one.
func pinOf(t *testing.T, ctd *testenv.Containerd, ref string) (owners map[string]string, seen bool) {
	t.Helper()
	ctx, c := direct(t, ctd)
	img, err := c.ImageService().Get(ctx, ref)
	require.NoError(t, err)
	all, err := c.ImageService().List(ctx, "target.digest=="+img.Target.Digest.String())
	require.NoError(t, err)
	owners = map[string]string{}
	for _, record := range all {
		if owner, ours := record.Labels["headstart.dev/pinned-by"]; ours {
			owners[record.Name] = owner
			until, err := time.Parse(time.RFC3339, record.Labels["headstart.dev/pinned-until"])
			require.NoError(t, err)
			require.True(t, until.After(time.Now().Add(6*24*time.Hour)), "it was renewed")
		}
	}
	imageService, _ := cri(t, ctd)
	expected := len(owners) > 0
	for range 100 { // the CRI learns of it by events
		resp, err := imageService.ImageStatus(t.Context(), &criapi.ImageStatusRequest{Image: &criapi.ImageSpec{Image: ref}})
		require.NoError(t, err)
		if seen = resp.Image.GetPinned(); seen == expected {
			break
		}
		<-time.After(50 * time.Millisecond)
	}
	return owners, seen
}

// expire lets all pins of a containerd end an hour ago.
func expire(t *testing.T, ctd *testenv.Containerd) {
	t.Helper()
	ctx, c := direct(t, ctd)
	all, err := c.ImageService().List(ctx)
	require.NoError(t, err)
	for _, record := range all {
		if record.Labels["headstart.dev/pinned-by"] == "" {
			continue
		}
		_, err := c.ImageService().Update(ctx, images.Image{
			Name: record.Name, Target: record.Target,
			Labels: map[string]string{"headstart.dev/pinned-until": time.Now().Add(-time.Hour).UTC().Format(time.RFC3339)},
		}, "labels.headstart.dev/pinned-until")
		require.NoError(t, err)
	}
}

// TestPins are on all three records, with owner and expiry; they survive restarts, are renewed while somebody wants the
// image, and end when nobody does, when they expire, or when their owner has gone.
func TestPins(t *testing.T) {
	reg := testenv.StartRegistry(t, testenv.RegistryConfig{})
	ctd := testenv.StartContainerd(t, testenv.ContainerdConfig{Registry: reg})
	_, ref := push(t, reg, "pins", mib)
	pin := func(owner string) *containerd.Store {
		store := newStore(t, ctd, func(c *containerd.Config) { c.PinOwner = owner })
		require.Equal(t, prepull.StateWarm, pull(t, store, prepull.Image{Ref: ref, Pin: true}).State)
		return store
	}
	pinned := func(want int, why string) {
		t.Helper()
		owners, seen := pinOf(t, ctd, ref)
		require.Len(t, owners, want, why)
		require.Equal(t, want > 0, seen, "what the kubelet sees: %s", why)
	}
	store := pin(containerd.OwnerAgent)
	pinned(3, "pinned by its pull")
	for name, labels := range stateOf(t, ctd, ref).Records {
		for _, want := range []string{"io.cri-containerd.image=managed", "io.cri-containerd.pinned=pinned", "headstart.dev/pinned-by=headstart-agent", "headstart.dev/pinned-until="} {
			require.Contains(t, labels, want, name)
		}
	}
	require.NoError(t, store.Release(t.Context(), ref))
	pinned(0, "released")
	require.Contains(t, stateOf(t, ctd, ref).Records[ref], "managed")
	require.NoError(t, store.Release(t.Context(), ref), "again")
	require.NoError(t, store.Release(t.Context(), reg.Image("never/seen:v1")))

	pin(containerd.OwnerAgent)
	require.NoError(t, ctd.Restart(t.Context()))
	restarted := newStore(t, ctd, nil) // another process of the same agent
	require.NoError(t, restarted.Sweep(t.Context(), nil))
	pinned(3, "what is wanted is not known yet")
	expire(t, ctd)
	require.NoError(t, restarted.Sweep(t.Context(), []string{ref}))
	pinned(3, "still wanted")
	imageService, _ := cri(t, ctd)
	_, err := imageService.PullImage(t.Context(), &criapi.PullImageRequest{Image: &criapi.ImageSpec{Image: ref}})
	require.NoError(t, err)
	require.NoError(t, restarted.Sweep(t.Context(), []string{ref}))
	pinned(3, "the kubelet's pull of the same takes the labels of the tag's record away")
	require.NoError(t, restarted.Sweep(t.Context(), []string{}))
	pinned(0, "wanted no longer: the config has changed while the agent was away")

	pin(containerd.OwnerCommand)
	require.NoError(t, restarted.Sweep(t.Context(), []string{}))
	pinned(3, "a user's pin is not the agent's to end")
	expire(t, ctd)
	require.NoError(t, restarted.Sweep(t.Context(), nil))
	pinned(0, "it has expired, and the command that made it is gone")
}

// TestPinsFollowAMovedTag lets what a tag named before go.
func TestPinsFollowAMovedTag(t *testing.T) {
	reg := testenv.StartRegistry(t, testenv.RegistryConfig{})
	ctd := testenv.StartContainerd(t, testenv.ContainerdConfig{Registry: reg})
	_, ref := push(t, reg, "moved", mib)
	store := newStore(t, ctd, nil)
	before := pull(t, store, prepull.Image{Ref: ref, Pin: true})
	_, again := push(t, reg, "moved", 2*mib)
	require.Equal(t, ref, again)
	after := pull(t, store, prepull.Image{Ref: ref, Pin: true})
	require.NotEqual(t, before.Digest, after.Digest)
	old := strings.TrimSuffix(ref, ":v1") + "@" + before.Digest
	owners, _ := pinOf(t, ctd, old)
	require.NotEmpty(t, owners)
	require.NoError(t, store.Sweep(t.Context(), []string{ref}))
	owners, seen := pinOf(t, ctd, old)
	require.Empty(t, owners)
	require.False(t, seen)
	owners, _ = pinOf(t, ctd, ref)
	require.Len(t, owners, 3)
}

// TestLease is kept after a failure with all that has come, is made anew where it has ended, is shared by the names of
// one image, and goes on success.
func TestLease(t *testing.T) {
	reg := testenv.StartRegistry(t, testenv.RegistryConfig{})
	ctd := testenv.StartContainerd(t, testenv.ContainerdConfig{Registry: reg})
	ctx, c := direct(t, ctd)
	ours := func() []leases.Lease {
		all, err := c.LeasesService().List(ctx)
		require.NoError(t, err)
		var found []leases.Lease
		for _, l := range all {
			if strings.HasPrefix(l.ID, "headstart/") {
				found = append(found, l)
			}
		}
		return found
	}
	img, ref := push(t, reg, "lease", mib, 4*mib)
	dgst, err := img.Digest()
	require.NoError(t, err)
	// An attempt of two days ago has left its lease: containerd keeps nothing for it any longer, and never removes it.
	_, err = c.LeasesService().Create(ctx, leases.WithID("headstart/"+dgst.String()), leases.WithLabel("containerd.io/gc.expire", time.Now().Add(-time.Hour).UTC().Format(time.RFC3339)))
	require.NoError(t, err)
	largest := layerBlobs(t, img)[len(layerBlobs(t, img))-1]
	broken := reg.Proxy.Inject(faultproxy.Fault{Match: faultproxy.Path(largest), Status: 404})
	require.Equal(t, prepull.StateFailed, pull(t, newStore(t, ctd, nil), prepull.Image{Ref: ref}).State)
	broken()
	left := ours()
	require.Len(t, left, 1, "kept for the next attempt")
	until, err := time.Parse(time.RFC3339, left[0].Labels["containerd.io/gc.expire"])
	require.NoError(t, err)
	require.True(t, until.After(time.Now().Add(12*time.Hour)), "it holds")
	collectGarbage(ctx, t, c)

	second, _, err := reg.Push(t.Context(), "lease:v2", img)
	require.NoError(t, err)
	third, _, err := reg.Push(t.Context(), "lease:v3", img)
	require.NoError(t, err)
	reg.Proxy.ResetCounts()
	store := newStore(t, ctd, nil, containerd.EngineDirect)
	var wg sync.WaitGroup
	for _, name := range []string{ref, second, third} {
		wg.Go(func() {
			if _, err := store.Pull(t.Context(), prepull.Image{Ref: name}, nil); err != nil {
				t.Errorf("pull %s: %v", name, err)
			}
		})
	}
	wg.Wait()
	require.Empty(t, ours(), "deleted on success")
	require.LessOrEqual(t, layerBytes(t, reg, img), imageBytes(t, img), "three names of one image are one download")

	_, err = c.LeasesService().Create(ctx, leases.WithID("headstart/sha256:forgotten"), leases.WithLabel("containerd.io/gc.expire", time.Now().Add(-time.Hour).UTC().Format(time.RFC3339)))
	require.NoError(t, err)
	require.NoError(t, store.Sweep(t.Context(), nil))
	require.Empty(t, ours())
}
