package layer_test

import (
	"bytes"
	"math/bits"
	"math/rand/v2"
	"runtime"
	"testing"

	"github.com/klauspost/compress/zstd"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"github.com/stretchr/testify/require"

	"headstart.dev/prepull/containerd/internal/layer"
)

// windowed compresses a tar with a window of so many bytes; in one segment when the window is 0.
func windowed(t *testing.T, tarball []byte, window int) []byte {
	t.Helper()
	if window == 0 {
		encoder, err := zstd.NewWriter(nil, zstd.WithSingleSegment(true), zstd.WithWindowSize(zstd.MaxWindowSize))
		require.NoError(t, err)
		return encoder.EncodeAll(tarball, nil)
	}
	var out bytes.Buffer
	encoder, err := zstd.NewWriter(&out, zstd.WithWindowSize(window), zstd.WithEncoderConcurrency(1))
	require.NoError(t, err)
	_, err = encoder.Write(tarball)
	require.NoError(t, err)
	require.NoError(t, encoder.Close())
	return out.Bytes()
}

// TestWindowsAreBounded unpacks what any encoder makes by default, and hands on what asks for more memory than all layers
// in work may have together: before it is taken, and not as the layer's fault.
func TestWindowsAreBounded(t *testing.T) {
	const mib = 1 << 20
	require.Equal(t, min(runtime.NumCPU(), 8), layer.Slots())
	allowed := 64 * mib / layer.Slots()
	body := make([]byte, 2*mib)
	_, err := rand.NewChaCha8([32]byte{}).Read(body)
	require.NoError(t, err)
	tarball := tarOf(t, entry{name: "file", body: string(body)})
	large := tarOf(t, entry{name: "file", body: string(make([]byte, 65*mib))})
	for name, tc := range map[string]struct {
		tarball, data []byte
		want          error
	}{
		"Go's default":                         {tarball, windowed(t, tarball, 8*mib), nil},
		"the largest one":                      {tarball, windowed(t, tarball, 1<<(bits.Len(uint(allowed))-1)), nil},
		"a small one, then one that is larger": {twice(tarball), append(windowed(t, tarball, 1*mib), windowed(t, tarball, 128*mib)...), layer.ErrMemory},
		"twice the largest":                    {tarball, windowed(t, tarball, 2<<(bits.Len(uint(allowed))-1)), layer.ErrMemory},
		"as large as zstd knows":               {tarball, windowed(t, tarball, zstd.MaxWindowSize), layer.ErrMemory},
		"one segment":                          {tarball, windowed(t, tarball, 0), nil},
		"one large segment":                    {large, windowed(t, large, 0), layer.ErrMemory},
	} {
		t.Run(name, func(t *testing.T) {
			l := describe(tc.data, tc.tarball, ocispec.MediaTypeImageLayerZstd)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := unpack(t, l, tc.data)
			runtime.ReadMemStats(&after)
			if tc.want == nil {
				require.NoError(t, err)
				return
			}
			require.ErrorIs(t, err, tc.want)
			require.NotErrorIs(t, err, layer.ErrHostile)
			require.NotErrorIs(t, err, layer.ErrCorrupt)
			require.Less(t, after.TotalAlloc-before.TotalAlloc, uint64(16*mib), "the memory was taken first")
		})
	}
}

// Bytes that were spoiled may ask for a huge window as well: they are corrupt, and can be had elsewhere.
func TestAWindowOfCorruptBytesIsCorrupt(t *testing.T) {
	body := make([]byte, 2<<20)
	_, err := rand.NewChaCha8([32]byte{}).Read(body)
	require.NoError(t, err)
	tarball := tarOf(t, entry{name: "file", body: string(body)})
	good := windowed(t, tarball, 1<<20)
	l := describe(good, tarball, ocispec.MediaTypeImageLayerZstd)
	_, err = unpack(t, l, windowed(t, tarball, zstd.MaxWindowSize))
	require.ErrorIs(t, err, layer.ErrCorrupt)
	require.NotErrorIs(t, err, layer.ErrMemory)
}

func twice(data []byte) []byte { return append(bytes.Clone(data), data...) }
