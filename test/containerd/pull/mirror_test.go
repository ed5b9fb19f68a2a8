package pull_test

import (
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/stretchr/testify/require"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"headstart.dev/prepull"
	"headstart.dev/prepull/containerd"
	"headstart.dev/test/testenv"
	"headstart.dev/test/testenv/faultproxy"
)

// copyTo pushes the image to another registry as well.
func copyTo(t *testing.T, reg *testenv.Registry, name string, img v1.Image) {
	t.Helper()
	_, _, err := reg.Push(t.Context(), name, img)
	require.NoError(t, err)
	reg.Proxy.ResetCounts()
}

// TestPeerCache pulls through a mirror that stands in hosts.toml, as Spegel's does on every node: what the mirror has
// never costs the registry a layer, and what it lacks, corrupts or breaks off comes from the registry.
func TestPeerCache(t *testing.T) {
	origin := testenv.StartRegistry(t, testenv.RegistryConfig{})
	peer := testenv.StartRegistry(t, testenv.RegistryConfig{})
	ctd := testenv.StartContainerd(t, testenv.ContainerdConfig{Registry: origin})
	require.NoError(t, ctd.Mirror(origin, peer))
	cases := map[string]struct {
		there      bool // at the peer
		fault      faultproxy.Fault
		fromOrigin bool // layers come from the registry
	}{
		"has-it":     {there: true},
		"lacks-it":   {fromOrigin: true},
		"fails":      {there: true, fault: faultproxy.Fault{Match: faultproxy.Blobs, Status: 500}, fromOrigin: true},
		"corrupts":   {there: true, fault: faultproxy.Fault{Match: faultproxy.Blobs, Corrupt: true}, fromOrigin: true},
		"breaks-off": {there: true, fault: faultproxy.Fault{Match: faultproxy.Blobs, Reset: true}, fromOrigin: true},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			store := newStore(t, ctd, func(cfg *containerd.Config) { cfg.ChunkSize = chunk })
			img, ref := push(t, origin, name, 3*mib, mib)
			if tc.there {
				copyTo(t, peer, name+":v1", img)
			}
			origin.Proxy.ResetCounts()
			if tc.fault.Match != nil {
				t.Cleanup(peer.Proxy.Inject(tc.fault))
			}
			status := pull(t, store, prepull.Image{Ref: ref})
			require.Equal(t, prepull.StateWarm, status.State, status.Error)
			fetched := origin.Proxy.Pulled().Bytes
			t.Logf("%d of %d bytes came from the registry, %d from the peer", fetched, imageBytes(t, img), peer.Proxy.Pulled().Bytes)
			if tc.fromOrigin {
				require.Positive(t, fetched)
				return
			}
			require.Zero(t, origin.Proxy.Pulled().Requests, "the registry is asked for no blob")
			require.Positive(t, peer.Proxy.Pulled().Bytes)
		})
	}
}

// TestPullThroughCache fetches from where a rewrite says, as from an ECR pull-through cache, and leaves the image under the
// name that pods use, also in the CRI's eyes.
func TestPullThroughCache(t *testing.T) {
	cache := testenv.StartRegistry(t, testenv.RegistryConfig{})
	ctd := testenv.StartContainerd(t, testenv.ContainerdConfig{Registry: cache})
	img, _ := push(t, cache, "docker-hub/library/nginx", 2*mib, mib)
	store := newStore(t, ctd, func(cfg *containerd.Config) {
		cfg.Rewrites = []containerd.Rewrite{{From: "docker.io/", To: cache.Image("docker-hub/")}}
	})
	digest, err := img.Digest()
	require.NoError(t, err)
	for name, at := range map[string]string{"by its tag": "", "at the digest that was looked up for all nodes": digest.String()} {
		t.Run(name, func(t *testing.T) {
			status := pull(t, store, prepull.Image{Ref: "nginx:v1", AtDigest: at})
			require.Equal(t, prepull.StateWarm, status.State, status.Error)
			require.Equal(t, "docker.io/library/nginx:v1", status.Name)
			require.Equal(t, digest.String(), status.Digest)
			service, _ := cri(t, ctd)
			for _, pod := range []string{"nginx:v1", "docker.io/library/nginx@" + digest.String()} {
				found, err := service.ImageStatus(t.Context(), &criapi.ImageStatusRequest{Image: &criapi.ImageSpec{Image: pod}})
				require.NoError(t, err)
				require.NotNil(t, found.GetImage(), pod)
			}
		})
	}
	require.GreaterOrEqual(t, cache.Proxy.Pulled().Bytes, imageBytes(t, img))
}
