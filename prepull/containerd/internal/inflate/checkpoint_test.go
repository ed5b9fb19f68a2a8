package inflate_test

import (
	"bytes"
	"io"
	"testing"

	"github.com/stretchr/testify/require"

	"headstart.dev/prepull/containerd/internal/inflate"
)

func TestInflatesFromCheckpoints(t *testing.T) {
	for name, data := range samples() {
		t.Run(name, func(t *testing.T) {
			packed := compress(t, 6, data)
			all, size, err := inflate.Checkpoints(bytes.NewReader(packed), 50_000)
			require.NoError(t, err)
			require.Equal(t, int64(len(data)), size)
			for i, at := range all {
				end := size
				if i+1 < len(all) {
					end = all[i+1].Out
				}
				r, err := inflate.OpenAt(bytes.NewReader(packed[at.Bit/8:]), at)
				require.NoError(t, err)
				got := make([]byte, end-at.Out)
				_, err = io.ReadFull(r, got)
				require.NoError(t, err)
				require.True(t, bytes.Equal(data[at.Out:end], got), "from byte %d", at.Out)
			}
		})
	}
}
