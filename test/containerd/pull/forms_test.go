package pull_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"strings"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/static"
	"github.com/google/go-containerregistry/pkg/v1/types"
	"github.com/klauspost/compress/zstd"
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
	requireAsTheCRI(t, reg, img, ref, dgst)
}

// requireAsTheCRI pulls an image by the CRI and by the direct engine, and wants no difference.
func requireAsTheCRI(t *testing.T, reg *testenv.Registry, img v1.Image, ref, dgst string) {
	t.Helper()
	cfg := testenv.ContainerdConfig{Registry: reg}
	reference := testenv.StartContainerd(t, cfg)
	imageService, _ := cri(t, reference)
	_, err := imageService.PullImage(t.Context(), &criapi.PullImageRequest{Image: &criapi.ImageSpec{Image: ref}})
	require.NoError(t, err)

	ctd := testenv.StartContainerd(t, cfg)
	status := pull(t, newStore(t, ctd, nil, containerd.EngineDirect), prepull.Image{Ref: ref})
	require.Equal(t, prepull.StateWarm, status.State, status.Error)
	require.Equal(t, dgst, status.Digest, "what the tag names")
	require.Equal(t, stateOf(t, reference, ref), stateOf(t, ctd, ref))
	requireUsable(t, ctd, reg, img, ref, dgst)
}

// byFile cuts a tar behind each file; what ends the archive belongs to the last.
func byFile(t *testing.T, archive []byte) (pieces [][]byte) {
	t.Helper()
	in := bytes.NewReader(archive)
	reader := tar.NewReader(in)
	begin, last := 0, 0
	for {
		header, err := reader.Next()
		if err == io.EOF {
			pieces[len(pieces)-1] = archive[last:]
			return pieces
		}
		require.NoError(t, err)
		const block = 512
		end := len(archive) - in.Len() + (int(header.Size)+block-1)/block*block
		pieces = append(pieces, archive[begin:end])
		begin, last = end, begin
	}
}

// TestEstargz pulls an image whose layer is an estargz: each file a gzip member of its own, a table of contents as the last
// file, and a footer, an empty member that says where the table begins. It is unpacked as any other gzip, the table too.
func TestEstargz(t *testing.T) {
	reg := testenv.StartRegistry(t, testenv.RegistryConfig{})
	whole := tarOf(t, entry{name: "a", body: strings.Repeat("a", 70_000)}, entry{name: "b", body: "b"}, entry{name: "stargz.index.json", body: `{"version":1,"entries":[]}`})
	var blob bytes.Buffer
	for _, piece := range byFile(t, whole) {
		member := gzip.NewWriter(&blob)
		_, err := member.Write(piece)
		require.NoError(t, err)
		require.NoError(t, member.Close())
	}
	footer := gzip.NewWriter(&blob)
	footer.Extra = append([]byte{'S', 'G', 22, 0}, fmt.Sprintf("%016xSTARGZ", blob.Len())...)
	require.NoError(t, footer.Close())
	diff, _, err := v1.SHA256(bytes.NewReader(whole))
	require.NoError(t, err)
	layer := rawLayer{Layer: static.NewLayer(blob.Bytes(), types.OCILayer), diff: diff}
	base := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	img, err := mutate.Append(base, mutate.Addendum{Layer: program(t), MediaType: types.OCILayer}, mutate.Addendum{
		Layer: layer, MediaType: types.OCILayer,
		Annotations: map[string]string{"containerd.io/snapshot/stargz/toc.digest": "sha256:" + strings.Repeat("0", 64)},
	})
	require.NoError(t, err)
	img = entrypoint(t, img)
	ref, dgst, err := reg.Push(t.Context(), "estargz/app:v1", img)
	require.NoError(t, err)
	requireAsTheCRI(t, reg, img, ref, dgst)
}

// TestLayerThatNeedsMuchMemory pulls a layer whose zstd window is larger than the agent may be: containerd unpacks it in
// its own memory, and the pull ends as any other.
func TestLayerThatNeedsMuchMemory(t *testing.T) {
	reg := testenv.StartRegistry(t, testenv.RegistryConfig{})
	tarball := tarOf(t, entry{name: "file", body: strings.Repeat("wide", mib)})
	var packed bytes.Buffer
	encoder, err := zstd.NewWriter(&packed, zstd.WithWindowSize(128*mib))
	require.NoError(t, err)
	_, err = encoder.Write(tarball)
	require.NoError(t, err)
	require.NoError(t, encoder.Close())
	diff, _, err := v1.SHA256(bytes.NewReader(tarball))
	require.NoError(t, err)
	img, err := mutate.Append(
		mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON),
		mutate.Addendum{Layer: program(t), MediaType: types.OCILayer},
		mutate.Addendum{Layer: rawLayer{static.NewLayer(packed.Bytes(), types.OCILayerZStd), diff}, MediaType: types.OCILayerZStd},
	)
	require.NoError(t, err)
	img = entrypoint(t, img)
	ref, dgst, err := reg.Push(t.Context(), "wide:v1", img)
	require.NoError(t, err)

	ctd := testenv.StartContainerd(t, testenv.ContainerdConfig{Registry: reg})
	status := pull(t, newStore(t, ctd, nil), prepull.Image{Ref: ref})
	require.Equal(t, prepull.StateWarm, status.State, status.Error)
	require.Equal(t, containerd.EngineClient, status.Engine)
	requireUsable(t, ctd, reg, img, ref, dgst)
	requireNothingStaged(t, ctd)
}
