package images_test

import (
	"archive/tar"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/validate"
	"github.com/stretchr/testify/require"

	"headstart.dev/test/testenv/images"
)

// fileBytes is the sum of the files in a layer.
func fileBytes(t *testing.T, layer v1.Layer) int64 {
	t.Helper()
	content, err := layer.Uncompressed()
	require.NoError(t, err)
	defer func() { require.NoError(t, content.Close()) }()
	archive := tar.NewReader(content)
	var sum int64
	for {
		header, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return sum
		}
		require.NoError(t, err)
		sum += header.Size
	}
}

func TestBuildMakesLayersOfTheAskedSizes(t *testing.T) {
	cache, err := os.UserCacheDir()
	require.NoError(t, err)
	t.Setenv("GOCACHE", filepath.Join(cache, "go-build"))
	t.Setenv("XDG_CACHE_HOME", t.TempDir()) // no layer is there yet
	spec := images.Sized("images-test", 1<<20, 300_001)
	image, err := images.Build(t.Context(), spec)
	require.NoError(t, err)
	require.NoError(t, validate.Image(image), "digests, sizes and diff IDs must agree with the contents")
	layers, err := image.Layers()
	require.NoError(t, err)
	require.Len(t, layers, 3, "the program and two")
	require.Equal(t, int64(1<<20), fileBytes(t, layers[1]))
	require.Equal(t, int64(300_001), fileBytes(t, layers[2]))

	again, err := images.Build(t.Context(), spec)
	require.NoError(t, err)
	digest, err := image.Digest()
	require.NoError(t, err)
	digestAgain, err := again.Digest()
	require.NoError(t, err)
	require.Equal(t, digest, digestAgain, "the same spec gives the same image")
}

func TestZstdLayer(t *testing.T) {
	spec := images.Sized("images-test", 1<<20)
	spec.Layers[0].Compression = images.Zstd
	image, err := images.Build(t.Context(), spec)
	require.NoError(t, err)
	layers, err := image.Layers()
	require.NoError(t, err)
	require.Equal(t, int64(1<<20), fileBytes(t, layers[1]))
	manifest, err := image.Manifest()
	require.NoError(t, err)
	require.Equal(t, "application/vnd.oci.image.layer.v1.tar+zstd", string(manifest.Layers[1].MediaType))
}

func TestSmallImagesShareTheirBase(t *testing.T) {
	specs := images.Small(3)
	require.Len(t, specs, 3)
	require.Equal(t, specs[0].Layers[:2], specs[2].Layers[:2])
	require.NotEqual(t, specs[0].Layers[2:], specs[2].Layers[2:])
}

func TestShapesHaveTheSizesThatTheyPromise(t *testing.T) {
	require.Len(t, images.WebApp().Layers, 8)
	require.InEpsilon(t, 400<<20, images.WebApp().Bytes(), 0.01)
	require.Len(t, images.MachineLearning().Layers, 16)
	require.InEpsilon(t, 3.3*(1<<30), images.MachineLearning().Bytes(), 0.02)
}
