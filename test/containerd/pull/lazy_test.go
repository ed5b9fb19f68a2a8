package pull_test

import (
	"context"
	"slices"
	"testing"
	"time"

	"github.com/containerd/containerd/v2/pkg/namespaces"
	"github.com/go-logr/logr"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/opencontainers/image-spec/identity"
	"github.com/stretchr/testify/require"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"headstart.dev/prepull"
	"headstart.dev/prepull/containerd"
	"headstart.dev/prepull/soci"
	"headstart.dev/test/testenv"
	"headstart.dev/test/testenv/images"
)

// indexed is an image of two large layers and a small one, with a SOCI index of the large ones.
type indexed struct {
	image       v1.Image
	ref, digest string
}

func pushIndexed(t *testing.T, reg *testenv.Registry) indexed {
	t.Helper()
	plain, err := images.Build(t.Context(), images.Sized("lazy", 12*mib, 9*mib))
	require.NoError(t, err)
	index, err := testenv.ConvertToSOCI(t.Context(), t.TempDir(), plain, 2*mib)
	require.NoError(t, err)
	ref, dgst, err := reg.PushIndex(t.Context(), "lazy/app:v1", index)
	require.NoError(t, err)
	manifest, err := index.IndexManifest()
	require.NoError(t, err)
	for _, m := range manifest.Manifests {
		if m.Platform != nil && m.Platform.OS == "linux" {
			img, err := index.Image(m.Digest)
			require.NoError(t, err)
			return indexed{img, ref, dgst}
		}
	}
	require.Fail(t, "the converted image has no manifest for Linux")
	return indexed{}
}

// lazyLayers returns how many of an image's snapshots are mounted by an index, of how many.
func lazyLayers(t *testing.T, ctd *testenv.Containerd, ref string) (lazy, all int) {
	t.Helper()
	c, err := ctd.Client()
	require.NoError(t, err)
	defer func() { require.NoError(t, c.Close()) }()
	ctx := namespaces.WithNamespace(t.Context(), "k8s.io")
	img, err := c.GetImage(ctx, ref)
	require.NoError(t, err)
	diffs, err := img.RootFS(ctx)
	require.NoError(t, err)
	for _, chain := range identity.ChainIDs(slices.Clone(diffs)) {
		info, err := c.SnapshotService(ctd.Snapshotter()).Stat(ctx, chain.String())
		require.NoError(t, err)
		if soci.Lazy(info.Labels) {
			lazy++
		}
	}
	return lazy, len(diffs)
}

// TestLazyEngine runs the suite of TestEngines for the lazy engine: the same records, labels, snapshots and tree as the
// CRI's own pull through the SOCI snapshotter, and a pod starts.
func TestLazyEngine(t *testing.T) {
	reg := testenv.StartRegistry(t, testenv.RegistryConfig{})
	img := pushIndexed(t, reg)
	cfg := testenv.ContainerdConfig{Registry: reg, SOCI: &testenv.SOCIConfig{NoBackgroundFetch: true}}
	reference := testenv.StartContainerd(t, cfg)
	imageService, _ := cri(t, reference)
	_, err := imageService.PullImage(t.Context(), &criapi.PullImageRequest{Image: &criapi.ImageSpec{Image: img.ref}})
	require.NoError(t, err)
	want := stateOf(t, reference, img.ref)

	for name, mode := range map[string]prepull.Mode{"auto": prepull.ModeAuto, "lazy": prepull.ModeLazy} {
		t.Run(name, func(t *testing.T) {
			ctd := testenv.StartContainerd(t, cfg)
			store := newStore(t, ctd, nil)
			reg.Proxy.ResetCounts()
			status := pull(t, store, prepull.Image{Ref: img.ref, Mode: mode, Pin: true})
			require.Equal(t, prepull.StateLazy, status.State, status.Error)
			require.Equal(t, containerd.EngineLazy, status.Engine)
			require.Equal(t, img.digest, status.Digest)
			require.Empty(t, status.PassedOver)
			lazy, all := lazyLayers(t, ctd, img.ref)
			t.Logf("%d of %d layers are lazy; %d of %d bytes came for the mount", lazy, all, layerBytes(t, reg, img.image), status.TotalBytes)
			require.Positive(t, lazy)
			require.Less(t, layerBytes(t, reg, img.image), status.TotalBytes/4)
			require.Less(t, status.DoneBytes, status.TotalBytes/4, "what is not there is not told as done")
			found, known := store.Discovered()
			require.True(t, known)
			require.Equal(t, ctd.SOCIAddress(), found.ImageEndpoint)
			require.Equal(t, "soci", found.Snapshotter)
			require.Equal(t, "cri", found.SnapshotterFrom)

			requireUsable(t, ctd, reg, img.image, img.ref, img.digest)
			require.NoError(t, store.Release(t.Context(), img.ref))
			require.Equal(t, want, stateOf(t, ctd, img.ref))
			require.NoError(t, ctd.Restart(t.Context()))
			requireUsable(t, ctd, reg, img.image, img.ref, img.digest)
			again := pull(t, store, prepull.Image{Ref: img.ref, Mode: prepull.ModeEager})
			require.Equal(t, prepull.StateLazy, again.State, "a lazy image is never told as a whole one, whoever asks")
		})
	}
}

// TestLazyBackgroundFetch follows the background fetch to its end, and shows what a restart of the snapshotter leaves of it.
func TestLazyBackgroundFetch(t *testing.T) {
	reg := testenv.StartRegistry(t, testenv.RegistryConfig{})
	img := pushIndexed(t, reg)
	ctd := testenv.StartContainerd(t, testenv.ContainerdConfig{Registry: reg, SOCI: &testenv.SOCIConfig{}})
	puller, err := prepull.New(prepull.Config{
		Store: newStore(t, ctd, nil), Log: logr.Discard(), Images: []prepull.Image{{Ref: img.ref, Mode: prepull.ModeAuto}},
	})
	require.NoError(t, err)
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = puller.Run(ctx)
	}()
	statuses, err := puller.Wait(ctx)
	require.NoError(t, err)
	require.Equal(t, prepull.StateLazy, statuses[0].State)
	require.Eventually(t, func() bool {
		s := puller.Status()[0]
		return s.DoneBytes == s.TotalBytes
	}, time.Minute, 50*time.Millisecond)
	require.Equal(t, prepull.StateLazy, puller.Status()[0].State, "its content lies in a cache that a restart throws away")
	require.GreaterOrEqual(t, layerBytes(t, reg, img.image), puller.Status()[0].TotalBytes)
	cancel()
	<-done

	reg.Proxy.ResetCounts()
	require.NoError(t, ctd.RestartSOCI(t.Context()))
	require.Eventually(t, func() bool { return layerBytes(t, reg, img.image) > imageBytes(t, img.image)/2 }, time.Minute, 50*time.Millisecond,
		"a restart of the snapshotter throws its cache away: this is why the image is not warm")
	_, runtimeService := cri(t, ctd)
	runContainer(t, runtimeService, img.ref)
}

// TestWholeImagesOnSOCI brings whole images into the SOCI snapshotter, where it would mount them lazily and where it pulls
// in parallel: the direct engine writes real layers there, which SOCI takes for its own.
func TestWholeImagesOnSOCI(t *testing.T) {
	reg := testenv.StartRegistry(t, testenv.RegistryConfig{})
	img := pushIndexed(t, reg)
	overlay := testenv.StartContainerd(t, testenv.ContainerdConfig{Registry: reg})
	pull(t, newStore(t, overlay, nil), prepull.Image{Ref: img.ref})
	want := stateOf(t, overlay, img.ref).Tree
	for name, tc := range map[string]struct {
		soci    testenv.SOCIConfig
		engines []string
		mode    prepull.Mode
	}{
		"lazy SOCI, all engines":                {testenv.SOCIConfig{}, nil, prepull.ModeEager},
		"lazy SOCI, client":                     {testenv.SOCIConfig{}, []string{containerd.EngineClient}, prepull.ModeEager},
		"parallel SOCI, all engines":            {testenv.SOCIConfig{Parallel: true}, nil, prepull.ModeEager},
		"parallel SOCI, cri":                    {testenv.SOCIConfig{Parallel: true}, []string{containerd.EngineCRI}, prepull.ModeEager},
		"parallel SOCI, where lazy would do it": {testenv.SOCIConfig{Parallel: true}, nil, prepull.ModeAuto},
	} {
		t.Run(name, func(t *testing.T) {
			ctd := testenv.StartContainerd(t, testenv.ContainerdConfig{Registry: reg, SOCI: &tc.soci})
			status := pull(t, newStore(t, ctd, nil, tc.engines...), prepull.Image{Ref: img.ref, Mode: tc.mode})
			require.Equal(t, prepull.StateWarm, status.State, status.Error)
			wantEngine := containerd.EngineDirect
			if len(tc.engines) > 0 {
				wantEngine = tc.engines[0]
			}
			if tc.mode == prepull.ModeAuto {
				wantEngine = containerd.EngineCRI
			}
			require.Equal(t, wantEngine, status.Engine)
			require.Equal(t, status.TotalBytes, status.DoneBytes)
			lazy, _ := lazyLayers(t, ctd, img.ref)
			require.Zero(t, lazy)
			got := stateOf(t, ctd, img.ref).Tree
			if wantEngine == containerd.EngineCRI {
				require.Equal(t, want[1:], got[1:], "SOCI's own parallel pull makes the root directory 0700, and nothing else otherwise")
			} else {
				require.Equal(t, want, got)
			}
			requireUsable(t, ctd, reg, img.image, img.ref, img.digest)
			require.NoError(t, ctd.RestartSOCI(t.Context()))
			requireUsable(t, ctd, reg, img.image, img.ref, img.digest)
		})
	}
}

// TestLazyWishThatCannotBeFulfilled brings the whole image and says why.
func TestLazyWishThatCannotBeFulfilled(t *testing.T) {
	reg := testenv.StartRegistry(t, testenv.RegistryConfig{})
	img := pushIndexed(t, reg)
	_, plain := push(t, reg, "plain", mib)
	onSOCI := testenv.StartContainerd(t, testenv.ContainerdConfig{Registry: reg, SOCI: &testenv.SOCIConfig{}})
	onOverlay := testenv.StartContainerd(t, testenv.ContainerdConfig{Registry: reg})
	for name, tc := range map[string]struct {
		ctd    *testenv.Containerd
		ref    string
		reason string
	}{
		"no index":            {onSOCI, plain, "no SOCI index"},
		"another snapshotter": {onOverlay, img.ref, "not SOCI's"},
	} {
		t.Run(name, func(t *testing.T) {
			status := pull(t, newStore(t, tc.ctd, nil), prepull.Image{Ref: tc.ref, Mode: prepull.ModeLazy})
			require.Equal(t, prepull.StateWarm, status.State, status.Error)
			require.Equal(t, containerd.EngineDirect, status.Engine)
			require.Len(t, status.PassedOver, 1)
			require.Equal(t, containerd.EngineLazy, status.PassedOver[0].Engine)
			require.Contains(t, status.PassedOver[0].Reason, tc.reason)
		})
	}
}

// TestLazyPrivateImage needs credentials twice: for the CRI, and for the snapshotter, which fetches by itself. Both get
// them through the snapshotter's image endpoint.
func TestLazyPrivateImage(t *testing.T) {
	reg := testenv.StartRegistry(t, testenv.RegistryConfig{Username: "user", Password: "secret"})
	img := pushIndexed(t, reg)
	ctd := testenv.StartContainerd(t, testenv.ContainerdConfig{Registry: reg, SOCI: &testenv.SOCIConfig{NoBackgroundFetch: true}})
	store := newStore(t, ctd, func(cfg *containerd.Config) {
		cfg.Credentials = func(context.Context, string, string, int) (string, string, error) { return "user", "secret", nil }
	}, containerd.EngineLazy)
	status := pull(t, store, prepull.Image{Ref: img.ref, Mode: prepull.ModeAuto})
	require.Equal(t, prepull.StateLazy, status.State, status.Error)
	_, runtimeService := cri(t, ctd)
	runContainer(t, runtimeService, img.ref)
}
