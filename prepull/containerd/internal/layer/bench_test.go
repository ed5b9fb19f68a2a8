package layer_test

import (
	"os"
	"testing"

	"github.com/opencontainers/go-digest"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"

	"headstart.dev/prepull/containerd/internal/layer"
)

// BenchmarkUnpack unpacks the layer that LAYER names, with the digest of its tar in DIFFID.
func BenchmarkUnpack(b *testing.B) {
	path := os.Getenv("LAYER")
	if path == "" {
		b.Skip("LAYER names no file")
	}
	data, err := os.ReadFile(path)
	require.NoError(b, err)
	l := layer.Layer{
		Desc:   ocispec.Descriptor{MediaType: ocispec.MediaTypeImageLayerGzip, Digest: digest.FromBytes(data), Size: int64(len(data))},
		DiffID: digest.Digest(os.Getenv("DIFFID")),
		Base:   true,
	}
	for b.Loop() {
		dir := b.TempDir()
		f, err := os.Open(path)
		require.NoError(b, err)
		result, err := layer.Unpack(b.Context(), dir, l, f, layer.Options{})
		require.NoError(b, err)
		require.NoError(b, f.Close())
		b.SetBytes(result.UnpackedBytes)
		b.ReportMetric(result.Inflate.Seconds(), "inflate-s/op")
		b.ReportMetric(result.Write.Seconds(), "write-s/op")
		require.NoError(b, os.RemoveAll(dir))
	}
}
