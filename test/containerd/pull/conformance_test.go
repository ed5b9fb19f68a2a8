package pull_test

import (
	"context"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"headstart.dev/prepull"
	"headstart.dev/prepull/containerd"
	"headstart.dev/test/testenv"
)

// TestEngines runs one suite for every engine on every containerd. What the CRI of the same containerd itself leaves behind
// is the measure.
func TestEngines(t *testing.T) {
	reg := testenv.StartRegistry(t, testenv.RegistryConfig{})
	img := zoo(t, program(t))
	ref, dgst, err := reg.Push(t.Context(), "zoo/app:v1", img)
	require.NoError(t, err)

	for name, cfg := range map[string]testenv.ContainerdConfig{
		"discarding layers":                 {Registry: reg},
		"keeping layers":                    {Registry: reg, KeepLayers: true},
		"containerd 2.2":                    {Registry: reg, Release: testenv.Containerd22},
		"containerd 1.7":                    {Registry: reg, Release: testenv.Containerd17},
		"containerd 1.7 and keeping layers": {Registry: reg, Release: testenv.Containerd17, KeepLayers: true},
	} {
		t.Run(name, func(t *testing.T) {
			reference := testenv.StartContainerd(t, cfg)
			imageService, _ := cri(t, reference)
			_, err = imageService.PullImage(t.Context(), &criapi.PullImageRequest{Image: &criapi.ImageSpec{Image: ref}})
			require.NoError(t, err)
			want := stateOf(t, reference, ref)
			require.Len(t, want.Records, 3)
			require.NoError(t, reference.Restart(t.Context()))
			require.Equal(t, want, stateOf(t, reference, ref), "the measure itself is steady")
			for _, engine := range []string{containerd.EngineDirect, containerd.EngineClient, containerd.EngineCRI} {
				t.Run(engine, func(t *testing.T) { testEngine(t, engine, cfg, img, ref, dgst, want) })
			}
		})
	}
}

func testEngine(t *testing.T, engine string, cfg testenv.ContainerdConfig, img v1.Image, ref, dgst string, want state) {
	t.Helper()
	ctd, reg := testenv.StartContainerd(t, cfg), cfg.Registry
	store := newStore(t, ctd, nil, engine)
	reg.Proxy.ResetCounts()
	status := pull(t, store, prepull.Image{Ref: ref})
	require.Equal(t, prepull.StateWarm, status.State, status.Error)
	require.Equal(t, engine, status.Engine)
	require.Equal(t, dgst, status.Digest)
	require.LessOrEqual(t, layerBytes(t, reg, img), status.TotalBytes, "every byte once, for every place where it stands")
	if engine != containerd.EngineCRI { // the CRI does not say what it fetched
		require.Equal(t, layerBytes(t, reg, img), status.FetchedBytes)
	}
	require.Equal(t, status.TotalBytes, status.DoneBytes)
	requireNothingStaged(t, ctd)

	got := stateOf(t, ctd, ref)
	require.Equal(t, want.Tree, got.Tree, "the same files, to the last attribute")
	require.Equal(t, want, got)
	require.Equal(t, cfg.KeepLayers, hasLayerBlobs(t, ctd, img))
	requireUsable(t, ctd, reg, img, ref, dgst)

	require.NoError(t, ctd.Restart(t.Context()))
	require.Equal(t, got, stateOf(t, ctd, ref), "after a restart")
	requireUsable(t, ctd, reg, img, ref, dgst)

	again := pull(t, newStore(t, ctd, nil, engine), prepull.Image{Ref: ref})
	require.Equal(t, prepull.StateWarm, again.State)
	require.Empty(t, again.Engine, "it was there")
	require.Zero(t, again.FetchedBytes)
}

// requireUsable checks that the CRI sees the image by tag and by digest, that the kubelet's pull for an Always policy
// fetches no layer, and that a container starts on it.
func requireUsable(t *testing.T, ctd *testenv.Containerd, reg *testenv.Registry, img v1.Image, ref, dgst string) {
	t.Helper()
	imageService, runtimeService := cri(t, ctd)
	config, err := img.ConfigName()
	require.NoError(t, err)
	byDigest := ref[:len(ref)-len(":v1")] + "@" + dgst
	ctx := t.Context()
	reg.Proxy.ResetCounts()
	for _, name := range []string{ref, byDigest, config.String()} {
		require.EventuallyWithT(t, func(t *assert.CollectT) { // the CRI learns of records by containerd's events
			resp, err := imageService.ImageStatus(ctx, &criapi.ImageStatusRequest{Image: &criapi.ImageSpec{Image: name}})
			require.NoError(t, err)
			require.NotNil(t, resp.Image, "the CRI does not know %s", name)
			require.Equal(t, config.String(), resp.Image.Id)
			require.Equal(t, []string{ref}, resp.Image.RepoTags)
			require.Equal(t, []string{byDigest}, resp.Image.RepoDigests)
		}, 20*time.Second, 20*time.Millisecond)
	}
	for _, name := range []string{ref, byDigest} {
		_, err := imageService.PullImage(t.Context(), &criapi.PullImageRequest{Image: &criapi.ImageSpec{Image: name}})
		require.NoError(t, err)
	}
	require.Zero(t, layerBytes(t, reg, img), "a pull of the kubelet fetches no layer")
	runContainer(t, runtimeService, byDigest)
}

// runContainer starts a container in a sandbox on the host's network and removes both.
func runContainer(t *testing.T, service criapi.RuntimeServiceClient, image string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	sandboxConfig := &criapi.PodSandboxConfig{
		Metadata: &criapi.PodSandboxMetadata{Name: "pod", Namespace: "default", Uid: "uid", Attempt: 1},
		Linux: &criapi.LinuxPodSandboxConfig{SecurityContext: &criapi.LinuxSandboxSecurityContext{
			NamespaceOptions: &criapi.NamespaceOption{Network: criapi.NamespaceMode_NODE},
		}},
		LogDirectory: t.TempDir(),
	}
	sandbox, err := service.RunPodSandbox(ctx, &criapi.RunPodSandboxRequest{Config: sandboxConfig})
	require.NoError(t, err)
	container, err := service.CreateContainer(ctx, &criapi.CreateContainerRequest{
		PodSandboxId: sandbox.PodSandboxId, SandboxConfig: sandboxConfig,
		Config: &criapi.ContainerConfig{Metadata: &criapi.ContainerMetadata{Name: "app"}, Image: &criapi.ImageSpec{Image: image}, LogPath: "app.log"},
	})
	require.NoError(t, err)
	_, err = service.StartContainer(ctx, &criapi.StartContainerRequest{ContainerId: container.ContainerId})
	require.NoError(t, err)
	status, err := service.ContainerStatus(ctx, &criapi.ContainerStatusRequest{ContainerId: container.ContainerId})
	require.NoError(t, err)
	require.Equal(t, criapi.ContainerState_CONTAINER_RUNNING, status.Status.State)
	_, err = service.StopPodSandbox(ctx, &criapi.StopPodSandboxRequest{PodSandboxId: sandbox.PodSandboxId})
	require.NoError(t, err)
	_, err = service.RemovePodSandbox(ctx, &criapi.RemovePodSandboxRequest{PodSandboxId: sandbox.PodSandboxId})
	require.NoError(t, err)
}
