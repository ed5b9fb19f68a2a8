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

// program writes a program that says a version.
func program(t *testing.T, dir, name, says string) {
	t.Helper()
	require.NoError(t, os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/sh\necho '"+says+"'\n"), 0o700))
}

func TestEnsureUsesWhatIsInstalled(t *testing.T) {
	t.Setenv("XDG_CACHE_HOME", t.TempDir())
	assets, path := t.TempDir(), t.TempDir()
	t.Setenv("KUBEBUILDER_ASSETS", assets)
	t.Setenv("PATH", path+":/bin") // a build would need go
	program(t, assets, binaries.APIServer, "Kubernetes v1.37.20")
	program(t, path, binaries.APIServer, "Kubernetes v1.37.2")
	program(t, assets, binaries.Etcd, "etcd Version: 3.7.0\nGit SHA: x")
	program(t, path, binaries.Containerd, "containerd github.com/containerd/containerd/v2 2.4.2 abc")
	var progress bytes.Buffer
	dir, err := binaries.Ensure(t.Context(), &progress, binaries.APIServer, binaries.Etcd, binaries.Containerd)
	require.NoError(t, err)
	for name, from := range map[string]string{binaries.APIServer: path, binaries.Etcd: assets, binaries.Containerd: path} {
		to, err := os.Readlink(filepath.Join(dir, name))
		require.NoError(t, err)
		require.Equal(t, filepath.Join(from, name), to)
		require.Contains(t, progress.String(), to)
	}
	program(t, path, binaries.Kubelet, "Kubernetes v1.37.2-rc.1")
	_, err = binaries.Ensure(t.Context(), &progress, binaries.Kubelet)
	require.ErrorContains(t, err, "build servers", "another version is built")
	require.NoError(t, os.Remove(filepath.Join(path, binaries.APIServer)))
	_, err = binaries.Ensure(t.Context(), &progress, binaries.APIServer)
	require.ErrorContains(t, err, "build servers", "what was installed is gone")
}

func TestModuleRootIsFoundFromBelow(t *testing.T) {
	root, err := binaries.ModuleRoot()
	require.NoError(t, err)
	require.FileExists(t, filepath.Join(root, "test", "tools", "go.mod"))
	t.Chdir(t.TempDir())
	_, err = binaries.ModuleRoot()
	require.ErrorContains(t, err, "run from inside the repository")
}
