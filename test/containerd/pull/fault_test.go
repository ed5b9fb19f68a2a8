package pull_test

import (
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/stretchr/testify/require"

	"headstart.dev/prepull"
	"headstart.dev/prepull/containerd"
	"headstart.dev/test/testenv"
	"headstart.dev/test/testenv/faultproxy"
	"headstart.dev/test/testenv/images"
)

const mib = 1 << 20

// chunk is the range size of the fault tests: small enough that a layer has several.
const chunk = 1 * mib

// push builds an image of layers of the given sizes (before compression) and pushes it.
func push(t *testing.T, reg *testenv.Registry, name string, sizes ...int64) (v1.Image, string) {
	t.Helper()
	img, err := images.Build(t.Context(), images.Sized(name, sizes...))
	require.NoError(t, err)
	ref, _, err := reg.Push(t.Context(), name+":v1", img)
	require.NoError(t, err)
	return img, ref
}

func imageBytes(t *testing.T, img v1.Image) int64 {
	t.Helper()
	layers, err := img.Layers()
	require.NoError(t, err)
	var total int64
	for _, l := range layers {
		size, err := l.Size()
		require.NoError(t, err)
		total += size
	}
	return total
}

func largestLayer(t *testing.T, img v1.Image) int64 {
	t.Helper()
	layers, err := img.Layers()
	require.NoError(t, err)
	var largest int64
	for _, l := range layers {
		size, err := l.Size()
		require.NoError(t, err)
		largest = max(largest, size)
	}
	return largest
}

// TestFaults breaks the registry in every way while an image comes, and counts what comes twice.
func TestFaults(t *testing.T) {
	reg := testenv.StartRegistry(t, testenv.RegistryConfig{})
	ctd := testenv.StartContainerd(t, testenv.ContainerdConfig{Registry: reg})
	cases := map[string]struct {
		faults []faultproxy.Fault
		// twice is how many bytes may come twice.
		twice func(img v1.Image) int64
	}{
		"connections are reset in mid-range": {
			faults: []faultproxy.Fault{{Match: faultproxy.Blobs, Times: 4, After: chunk / 2, Reset: true}},
			twice:  func(v1.Image) int64 { return chunk },
		},
		"bodies end early": {
			faults: []faultproxy.Fault{{Match: faultproxy.Blobs, Times: 4, After: chunk / 3, Truncate: true}},
			twice:  func(v1.Image) int64 { return chunk },
		},
		"500 and 503": {
			faults: []faultproxy.Fault{{Match: faultproxy.Blobs, Times: 2, Status: http.StatusInternalServerError}, {Times: 2, Status: http.StatusServiceUnavailable}},
		},
		"429 with Retry-After": {
			faults: []faultproxy.Fault{{Match: faultproxy.Blobs, Times: 3, Status: http.StatusTooManyRequests, Header: http.Header{"Retry-After": {"1"}}}},
		},
		"a manifest that needs three tries": {
			faults: []faultproxy.Fault{{Match: faultproxy.Manifests, Times: 2, Status: http.StatusBadGateway}},
		},
		"a corrupt range": {
			faults: []faultproxy.Fault{{Match: faultproxy.Blobs, Times: 1, After: 1000, Corrupt: true}},
			twice:  func(img v1.Image) int64 { return largestLayer(t, img) },
		},
		"401 out of the blue": {
			faults: []faultproxy.Fault{{Match: faultproxy.Blobs, Times: 1, Status: http.StatusUnauthorized, Header: http.Header{"Www-Authenticate": {`Basic realm="x"`}}}},
		},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			slug := "fault" + strings.ReplaceAll(strings.ToLower(name), " ", "")[:5]
			img, ref := push(t, reg, slug, 5*mib, 3*mib)
			reg.Proxy.ResetCounts()
			for _, f := range tc.faults {
				t.Cleanup(reg.Proxy.Inject(f))
			}
			login := func(context.Context, string, string, int) (string, string, error) { return "user", "secret", nil }
			store := newStore(t, ctd, func(c *containerd.Config) { c.ChunkSize, c.Credentials = chunk, login }, containerd.EngineDirect)
			status := pull(t, store, prepull.Image{Ref: ref})
			require.Equal(t, prepull.StateWarm, status.State, status.Error)
			require.Equal(t, 1, status.Attempts, "a fault of a range is no fault of the image")
			allowed := imageBytes(t, img)
			if tc.twice != nil {
				allowed += tc.twice(img)
			}
			t.Logf("%d of %d bytes came twice", layerBytes(t, reg, img)-imageBytes(t, img), imageBytes(t, img))
			require.LessOrEqual(t, layerBytes(t, reg, img), allowed)
			requireNothingStaged(t, ctd)
		})
	}
}

// TestPermanentFailures name what was wrong and are not tried for ever. What a registry refuses may be pushed or allowed
// yet: that is asked for again.
func TestPermanentFailures(t *testing.T) {
	reg := testenv.StartRegistry(t, testenv.RegistryConfig{})
	ctd := testenv.StartContainerd(t, testenv.ContainerdConfig{Registry: reg})
	_, ref := push(t, reg, "permanent", mib)
	cases := map[string]struct {
		fault    faultproxy.Fault
		want     string
		attempts int
	}{
		"no such image":      {faultproxy.Fault{Status: http.StatusNotFound}, "404", 3},
		"not allowed":        {faultproxy.Fault{Status: http.StatusForbidden}, "403", 3},
		"not logged in":      {faultproxy.Fault{Status: http.StatusUnauthorized, Header: http.Header{"Www-Authenticate": {`Basic realm="x"`}}}, "401", 3},
		"always corrupt":     {faultproxy.Fault{Match: faultproxy.Blobs, After: 1, Corrupt: true}, "match", 1},
		"a corrupt manifest": {faultproxy.Fault{Match: faultproxy.Manifests, After: 1, Corrupt: true}, "parse", 3},
	}
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			defer reg.Proxy.Inject(tc.fault)()
			status := pull(t, newStore(t, ctd, nil), prepull.Image{Ref: ref})
			require.Equal(t, prepull.StateFailed, status.State)
			require.Contains(t, status.Error, tc.want)
			require.NotContains(t, status.Error, "\n")
			require.Equal(t, tc.attempts, status.Attempts)
			requireNothingStaged(t, ctd)
		})
	}
}

// TestContainerdRestartsInMidPull also kills it: the pull waits and goes on, and fetches no finished layer again.
func TestContainerdRestartsInMidPull(t *testing.T) {
	for name, engine := range map[string]string{"direct": containerd.EngineDirect, "client": containerd.EngineClient} {
		t.Run(name, func(t *testing.T) {
			reg := testenv.StartRegistry(t, testenv.RegistryConfig{})
			ctd := testenv.StartContainerd(t, testenv.ContainerdConfig{Registry: reg})
			img, ref := push(t, reg, "restart", 4*mib, 4*mib, 20*mib)
			reg.Proxy.ResetCounts()
			slow := reg.Proxy.Inject(faultproxy.Fault{Match: faultproxy.Blobs, BytesPerSecond: 2 * mib})
			store := newStore(t, ctd, func(c *containerd.Config) { c.ChunkSize, c.MaxConcurrentDownloads = chunk, 3 }, engine)
			puller, err := prepull.New(prepull.Config{Store: store, Images: []prepull.Image{{Ref: ref}}, Log: logr.Discard()})
			require.NoError(t, err)
			ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
			defer cancel()
			go func() { _ = puller.Run(ctx) }()
			require.Eventually(t, func() bool { return layerBytes(t, reg, img) > imageBytes(t, img)/3 }, 30*time.Second, 20*time.Millisecond)
			require.NoError(t, ctd.Kill())
			require.NoError(t, ctd.Restart(t.Context()))
			slow()
			statuses, err := puller.Wait(ctx)
			require.NoError(t, err)
			require.Equal(t, prepull.StateWarm, statuses[0].State, statuses[0].Error)
			again := layerBytes(t, reg, img) - imageBytes(t, img)
			t.Logf("%d of %d bytes came twice, largest layer %d", again, imageBytes(t, img), largestLayer(t, img))
			require.LessOrEqual(t, again, largestLayer(t, img))
			requireUsable(t, ctd, reg, img, ref, statuses[0].Digest)
		})
	}
}

// TestRegistryIsDown takes an image that is complete on the node as warm when nobody can be asked, and only such a one.
func TestRegistryIsDown(t *testing.T) {
	reg := testenv.StartRegistry(t, testenv.RegistryConfig{})
	ctd := testenv.StartContainerd(t, testenv.ContainerdConfig{Registry: reg})
	_, ref := push(t, reg, "down", mib)
	first := pull(t, newStore(t, ctd, nil), prepull.Image{Ref: ref})
	require.Equal(t, prepull.StateWarm, first.State, first.Error)
	byDigest := strings.TrimSuffix(ref, ":v1") + "@" + first.Digest
	reg.Proxy.ResetCounts()
	require.Equal(t, prepull.StateWarm, pull(t, newStore(t, ctd, nil), prepull.Image{Ref: byDigest}).State)
	require.Zero(t, reg.Proxy.Manifest(first.Digest).Requests, "a digest needs no question")

	t.Cleanup(reg.Proxy.Inject(faultproxy.Fault{Status: http.StatusNotFound}))
	again := pull(t, newStore(t, ctd, nil), prepull.Image{Ref: ref, Pin: true})
	require.Equal(t, prepull.StateWarm, again.State, again.Error)
	require.Equal(t, first.Digest, again.Digest)
	require.Empty(t, again.Engine)
	require.Contains(t, stateOf(t, ctd, ref).Records[ref], "pinned=pinned")
	require.Equal(t, prepull.StateFailed, pull(t, newStore(t, ctd, nil), prepull.Image{Ref: reg.Image("never:v1")}).State)
}
