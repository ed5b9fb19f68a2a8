package soci_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"github.com/opencontainers/go-digest"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"headstart.dev/prepull/soci"
)

const dgst = digest.Digest("sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")

func TestIndexOf(t *testing.T) {
	require.Equal(t, dgst, soci.IndexOf(map[string]string{"com.amazon.soci.index-digest": dgst.String()}))
	require.Empty(t, soci.IndexOf(nil))
	require.Empty(t, soci.IndexOf(map[string]string{"com.amazon.soci.index-digest": "latest"}), "no digest, no index")
}

func TestLazy(t *testing.T) {
	require.True(t, soci.Lazy(map[string]string{"containerd.io/snapshot/remote": "remote snapshot"}))
	require.False(t, soci.Lazy(map[string]string{"has.soci.index.digest": "true"}), "a small layer of an indexed image lies on the disk")
}

func TestFetchedReadsALayersState(t *testing.T) {
	for name, tc := range map[string]struct {
		state         string
		fetched, size int64
		err           string
	}{
		"half":         {`{"digest":"x","size":10,"fetchedSize":5,"fetchedPercent":50}`, 5, 10, ""},
		"more than is": {`{"size":10,"fetchedSize":12}`, 10, 10, ""},
		"negative":     {`{"size":-1,"fetchedSize":0}`, 0, 0, "of -1 bytes"},
		"no JSON":      {`gone`, 0, 0, "parse the state"},
	} {
		t.Run(name, func(t *testing.T) {
			layer := soci.Layer{Dir: t.TempDir(), Digest: dgst}
			require.NoError(t, os.Mkdir(filepath.Join(layer.Dir, ".soci-snapshotter"), 0o750))
			require.NoError(t, os.WriteFile(filepath.Join(layer.Dir, ".soci-snapshotter", dgst.String()+".json"), []byte(tc.state), 0o600))
			fetched, size, err := layer.Fetched(t.Context())
			if tc.err != "" {
				require.ErrorContains(t, err, tc.err)
				return
			}
			require.NoError(t, err)
			require.Equal(t, tc.fetched, fetched)
			require.Equal(t, tc.size, size)
		})
	}
}

func TestFetchedOfALayerThatIsGone(t *testing.T) {
	_, _, err := soci.Layer{Dir: t.TempDir(), Digest: dgst}.Fetched(t.Context())
	require.True(t, soci.Gone(err), "%v", err)
}

// TestFetchedGivesUpOnAHangingMount plays a mount that hangs with a pipe that nobody writes to.
func TestFetchedGivesUpOnAHangingMount(t *testing.T) {
	layer := soci.Layer{Dir: t.TempDir(), Digest: dgst}
	pipe := filepath.Join(layer.Dir, ".soci-snapshotter", dgst.String()+".json")
	require.NoError(t, os.Mkdir(filepath.Dir(pipe), 0o750))
	require.NoError(t, unix.Mkfifo(pipe, 0o600))
	t.Cleanup(func() { // let the reader go
		if file, err := os.OpenFile(pipe, os.O_WRONLY|unix.O_NONBLOCK, 0); err == nil {
			_ = file.Close()
		}
	})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, _, err := layer.Fetched(ctx)
	require.ErrorIs(t, err, context.Canceled)
}
