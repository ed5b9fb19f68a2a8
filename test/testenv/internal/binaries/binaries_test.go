package binaries_test

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"

	"headstart.dev/test/testenv/internal/binaries"
)

func TestEnsureRefusesUnknownServers(t *testing.T) {
	_, err := binaries.Ensure(t.Context(), t.Output(), "kube-nonsense")
	require.ErrorContains(t, err, "kube-nonsense")
	require.ErrorContains(t, err, binaries.APIServer, "the error must say what there is")
}

func TestEnsureBuildsNothingThatIsThere(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	dir, err := binaries.Ensure(t.Context(), t.Output()) // no server: it only names the folder
	require.NoError(t, err)
	require.NoError(t, os.MkdirAll(dir, 0o750))
	require.NoError(t, os.WriteFile(filepath.Join(dir, binaries.Etcd), nil, 0o600))
	t.Setenv("PATH", "") // a build would need go
	var progress bytes.Buffer
	again, err := binaries.Ensure(t.Context(), &progress, binaries.Etcd)
	require.NoError(t, err)
	require.Equal(t, dir, again)
	require.Empty(t, progress.String())
}

func TestModuleRootIsFoundFromBelow(t *testing.T) {
	root, err := binaries.ModuleRoot()
	require.NoError(t, err)
	require.FileExists(t, filepath.Join(root, "test", "tools", "go.mod"))
	t.Chdir(t.TempDir())
	_, err = binaries.ModuleRoot()
	require.ErrorContains(t, err, "run from inside the repository")
}
