package pull_test

import (
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/stretchr/testify/require"
	criapi "k8s.io/cri-api/pkg/apis/runtime/v1"

	"headstart.dev/prepull"
	"headstart.dev/prepull/containerd"
	"headstart.dev/test/testenv"
)

// TestDockerManifestList pulls an image of Docker's own media types from a list for several platforms: what the direct
// engine leaves is what the CRI leaves, and the other platforms' layers stay where they are.
func TestDockerManifestList(t *testing.T) {
	reg := testenv.StartRegistry(t, testenv.RegistryConfig{})
	base := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.DockerManifestSchema2), types.DockerConfigJSON)
	of := func(body string, layers ...v1.Layer) v1.Image {
		layers = append(layers, layerOf(t, types.DockerLayer, tarOf(t, entry{name: "which", body: body})))
		adds := make([]mutate.Addendum, len(layers))
		for i, l := range layers {
			adds[i] = mutate.Addendum{Layer: l, MediaType: types.DockerLayer}
		}
		img, err := mutate.Append(base, adds...)
		require.NoError(t, err)
		return entrypoint(t, img)
	}
	img, other := of("amd64", program(t)), of("arm64")
	list := mutate.AppendManifests(
		mutate.IndexMediaType(empty.Index, types.DockerManifestList),
		mutate.IndexAddendum{Add: other, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "arm64"}}},
		mutate.IndexAddendum{Add: img, Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: "amd64"}}},
	)
	ref, dgst, err := reg.PushIndex(t.Context(), "docker/app:v1", list)
	require.NoError(t, err)
	cfg := testenv.ContainerdConfig{Registry: reg}
	reference := testenv.StartContainerd(t, cfg)
	imageService, _ := cri(t, reference)
	_, err = imageService.PullImage(t.Context(), &criapi.PullImageRequest{Image: &criapi.ImageSpec{Image: ref}})
	require.NoError(t, err)

	ctd := testenv.StartContainerd(t, cfg)
	status := pull(t, newStore(t, ctd, nil, containerd.EngineDirect), prepull.Image{Ref: ref})
	require.Equal(t, prepull.StateWarm, status.State, status.Error)
	require.Equal(t, dgst, status.Digest, "the list is what the tag names")
	require.Equal(t, stateOf(t, reference, ref), stateOf(t, ctd, ref))
	requireUsable(t, ctd, reg, img, ref, dgst)
}
