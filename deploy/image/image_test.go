package image_test

import (
	"archive/tar"
	"encoding/json"
	"io"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/partial"
	"github.com/stretchr/testify/require"

	"headstart.dev/deploy/image"
)

// build packs the smallest of our commands, for the machine's own architecture: what is tested is the packing.
func build(t *testing.T) *image.Built {
	t.Helper()
	spec := image.Spec{Command: "kubectl-headstart", User: "65532:65532", Args: []string{"--help"}}
	built, err := image.Build(t.Context(), spec, image.Options{Source: "../..", Platforms: []string{"amd64"}, Version: "v1.2.3"})
	require.NoError(t, err)
	return built
}

func only(t *testing.T, index v1.ImageIndex) v1.Image {
	t.Helper()
	images, err := partial.FindImages(index, func(v1.Descriptor) bool { return true })
	require.NoError(t, err)
	require.Len(t, images, 1)
	return images[0]
}

func TestBuild(t *testing.T) {
	if testing.Short() {
		t.Skip("it compiles a command, twice")
	}
	built := build(t)
	img := only(t, built.Index)

	t.Run("one static binary that runs as nobody", func(t *testing.T) {
		config, err := img.ConfigFile()
		require.NoError(t, err)
		require.Equal(t, "65532:65532", config.Config.User)
		require.Equal(t, []string{"/usr/local/bin/kubectl-headstart"}, config.Config.Entrypoint)
		require.True(t, config.Created.IsZero(), "no clock")
		layers, err := img.Layers()
		require.NoError(t, err)
		require.Len(t, layers, 1)
		require.Equal(t, []string{"usr/", "usr/local/", "usr/local/bin/", "usr/local/bin/kubectl-headstart"}, names(t, layers[0]))
	})
	t.Run("an SBOM refers to it", func(t *testing.T) {
		require.Len(t, built.SBOMs, 1)
		manifest, err := built.SBOMs[0].Manifest()
		require.NoError(t, err)
		digest, err := img.Digest()
		require.NoError(t, err)
		require.NotNil(t, manifest.Subject)
		require.Equal(t, digest, manifest.Subject.Digest)
		modules := sbomPackages(t, built.SBOMs[0])
		require.Contains(t, modules, "github.com/spf13/cobra")
		require.Contains(t, modules, "stdlib")
	})
	t.Run("two builds have one digest", func(t *testing.T) {
		again := build(t)
		want, err := built.Index.Digest()
		require.NoError(t, err)
		got, err := again.Index.Digest()
		require.NoError(t, err)
		require.Equal(t, want, got)
		wantSBOM, err := built.SBOMs[0].Digest()
		require.NoError(t, err)
		gotSBOM, err := again.SBOMs[0].Digest()
		require.NoError(t, err)
		require.Equal(t, wantSBOM, gotSBOM)
	})
}

func names(t *testing.T, layer v1.Layer) []string {
	t.Helper()
	in, err := layer.Uncompressed()
	require.NoError(t, err)
	defer func() { _ = in.Close() }()
	var out []string
	r := tar.NewReader(in)
	for {
		header, err := r.Next()
		if err == io.EOF {
			return out
		}
		require.NoError(t, err)
		require.Zero(t, header.ModTime.Unix(), "no clock")
		require.Equal(t, int64(0o755), header.Mode)
		out = append(out, header.Name)
	}
}

func sbomPackages(t *testing.T, sbom v1.Image) []string {
	t.Helper()
	layers, err := sbom.Layers()
	require.NoError(t, err)
	require.Len(t, layers, 1)
	in, err := layers[0].Uncompressed()
	require.NoError(t, err)
	defer func() { _ = in.Close() }()
	var doc struct {
		SPDXVersion string
		Packages    []struct{ Name string }
	}
	require.NoError(t, json.NewDecoder(in).Decode(&doc))
	require.Equal(t, "SPDX-2.3", doc.SPDXVersion)
	var out []string
	for _, p := range doc.Packages {
		out = append(out, p.Name)
	}
	return out
}
