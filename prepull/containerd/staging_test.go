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

// What a pull was at when it was killed is half a layer that nobody goes on with. What another does now, and what is
// finished, stays.
func TestStagingClearsWhatDeadPullsLeft(t *testing.T) {
	root := t.TempDir()
	begin := func() (*staging, string) {
		s, err := openStaging(root)
		require.NoError(t, err)
		dir, err := s.begin()
		require.NoError(t, err)
		require.NoError(t, os.WriteFile(filepath.Join(dir.path, "half"), []byte("x"), 0o600))
		return s, dir.path
	}
	dead, left := begin()
	whole, err := dead.begin()
	require.NoError(t, err)
	require.NoError(t, dead.finish(whole, "key"))
	alive, working := begin()
	require.DirExists(t, left, "it lives yet")

	require.NoError(t, dead.lock.Close()) // all that the kernel does for a process that dies
	next, err := openStaging(root)
	require.NoError(t, err)
	require.NoDirExists(t, left)
	require.NoDirExists(t, dead.work)
	require.FileExists(t, filepath.Join(working, "half"))
	require.True(t, next.has("key"))
	require.NoError(t, next.close())
	require.NoError(t, alive.close())
}
