package containerd

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// A disk that is mounted over containerd's folder with a copy of it, as EKS does with local disks, must not let half a
// layer pass for a whole one.
func TestStagingNoticesThatItWasMovedAway(t *testing.T) {
	root := t.TempDir()
	s, err := openStaging(root)
	require.NoError(t, err)
	require.True(t, s.usable(root))
	dir, err := s.begin()
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir.path, "half"), []byte("x"), 0o600))

	require.NoError(t, os.Rename(s.root, s.root+".old"))
	require.NoError(t, os.CopyFS(s.root, os.DirFS(s.root+".old")))
	require.False(t, s.usable(root))
	require.ErrorIs(t, s.finish(dir, "key"), errMoved)
	require.False(t, s.has("key"))

	require.NoError(t, s.close())
	s, err = openStaging(root)
	require.NoError(t, err)
	whole, err := s.begin()
	require.NoError(t, err)
	require.NoError(t, s.finish(whole, "key"))
	require.True(t, s.has("key"))
	require.NoError(t, s.close())
}
